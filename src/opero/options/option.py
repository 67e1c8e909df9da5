"""A row of the table of options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

CALLS: tuple[str, ...] = ("opero", "opmap")
"""The functions that take the options of a whole call."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Option:
    """One option.

    Attributes:
        name: Its name in decorators.
        default: Its value if the caller does not give it.
        type: Its type, as signatures write it.
        check: Takes the name that the caller used and the value; returns the value as opero keeps
            it, or raises.
        doc: What it means, in one line, for docstrings and the tables of the docs.
        readers: The functions that take it.
        config: The config object that has it as a field; "" if none has.
        field: Its name there.
        backends: Which backends read it, if it is an option of a store.
        needs: Other options: it has an effect only if at least one of them is on.
        also: Its names in other libraries.
        defaults: Its default in the functions where that differs from `default`.
        written: The default, as signatures and tables write it, if that is not its `repr`.
        more: What the page on the option adds to `doc`, in Markdown.
        each: What it means for an item of a map, if that differs from `doc`.
        block: What it means for a block of code, if that differs from `doc`.
        secret: Whether messages must not show its value.
    """

    name: str
    default: Any
    type: str
    check: Callable[[str, Any], Any]
    doc: str
    readers: tuple[str, ...]
    config: str = ""
    field: str = ""
    backends: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)
    written: str = ""
    more: str = ""
    each: str = ""
    block: str = ""
    secret: bool = False

    def doc_of(self, function: str) -> str:
        """Return what the option means for a function that takes it."""
        texts = {"opmap": self.each, "attempts": self.block}
        return texts.get(function) or self.doc

    def default_of(self, function: str) -> Any:
        """Return the default that the option has in a function."""
        return self.defaults.get(function, self.default)
