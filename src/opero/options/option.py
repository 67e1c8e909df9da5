"""What a row of the table of options says."""

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
        name: What decorators call it.
        default: What it is if nobody gives it.
        type: Its type, as signatures write it.
        check: Takes the name that the caller used and the value; returns it as opero keeps it, or
            raises.
        doc: One line on what it means, for docstrings and for the tables of the docs.
        readers: The functions that take it.
        config: The config object that has it as a field; "" if none has.
        field: What it is called there.
        backends: Which backends read it, if it is one of a store.
        needs: Other options, one of which must be on for this one to have an effect.
        also: What other libraries call it.
        defaults: Its default in functions where that is another.
        written: The default, as signatures and tables write it, where `repr` writes it otherwise.
        more: What the page on the option adds to `doc`, in Markdown.
        each: What it means for an item of a map, if that reads otherwise.
        block: What it means for a block of code, if that reads otherwise.
        secret: Whether no message may show its value.
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
