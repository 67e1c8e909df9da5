"""How the items of a map are called.

An item is called as `function(item, **shared)`. Where it is more than one argument, as with
`unpack`, or a fallback value takes the place of another argument than the item, an `Invocation`
goes to the worker in its place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from opero.exceptions import with_article

_ONE_VALUE: Final = (str, bytes, bytearray, memoryview)
"""The sequences that are one argument, and hold no arguments."""


class Invocation(NamedTuple):
    """The arguments of one item's call.

    Attributes:
        args: The positional ones.
        named: The keyword arguments that it has for itself; with those that all items share they
            make up the call.
    """

    args: tuple[Any, ...]
    named: dict[str, Any]


def of_items(function: Callable[..., Any], shared: dict[str, Any]) -> Callable[[Any], Any]:
    """Return what to call with an item alone."""
    return functools.partial(function, **shared) if shared else function


def of_invocations(
    function: Callable[..., Any], shared: dict[str, Any]
) -> Callable[[Invocation], Any]:
    """Return what to call with an invocation alone."""
    return functools.partial(_invoke, function, shared)


class Arguments:
    """Finds the arguments of the call of each item of a map."""

    def __init__(self, leading: tuple[Any, ...], shared: dict[str, Any], unpack: bool) -> None:
        """Know what all calls have in common.

        Args:
            leading: What they get before the item: the instance of a method, or its class.
            shared: Their keyword arguments.
            unpack: Whether an item holds the arguments of its call.
        """
        self._leading = leading
        self._shared = shared
        self._unpack = unpack

    def of(self, item: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of an item's call.

        Raises:
            TypeError: If the item should hold them, and does not.
        """
        if not self._unpack:
            return (*self._leading, item), self._shared
        args, named = _unpacked(item)
        for name in named:
            if name in self._shared:
                raise TypeError(f"both the item and what all items share have an argument {name!r}")
        return (*self._leading, *args), {**named, **self._shared}

    def invocation(self, args: tuple[Any, ...], named: dict[str, Any]) -> Invocation:
        """Return what a worker needs of the arguments of a call: it has the others."""
        shared = self._shared
        own = {
            name: value
            for name, value in named.items()
            if name not in shared or shared[name] is not value
        }
        return Invocation(args[len(self._leading) :], own)


def _unpacked(item: Any) -> Invocation:
    """Return the arguments that an item holds: a sequence positional, a mapping keyword ones."""
    if isinstance(item, (tuple, list)):
        return Invocation(tuple(item), {})
    if isinstance(item, Mapping):
        named = dict(item)
        for name in named:
            if not isinstance(name, str):
                raise TypeError(
                    f"with unpack=True the keys of a dict must be the names of arguments, but this "
                    f"one is {with_article(type(name).__name__)}"
                )
        return Invocation((), named)
    if isinstance(item, Sequence) and not isinstance(item, _ONE_VALUE):
        return Invocation(tuple(item), {})
    raise TypeError(
        f"with unpack=True an item must be a tuple or a list of positional arguments, or a dict of "
        f"keyword arguments, but this one is {with_article(type(item).__name__)}: {_remedy(item)}"
    )


def _remedy(item: Any) -> str:
    if isinstance(item, _ONE_VALUE) or not hasattr(type(item), "__iter__"):
        return "for one argument give (item,), or leave unpack=True out"
    return "give tuple(item)"


def _invoke(function: Callable[..., Any], shared: dict[str, Any], invocation: Invocation) -> Any:
    args, named = invocation
    return function(*args, **{**shared, **named})
