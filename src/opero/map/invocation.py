"""How the items of a map are called: each as `function(item, *more, **named)`.

What stands behind the item is the same for all items of a map, so they need no object each. Only an
item whose fallback value takes the place of another argument has an `Invocation` of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple


class Invocation(NamedTuple):
    """The arguments behind an item.

    Attributes:
        more: The positional ones.
        named: The keyword arguments.
    """

    more: tuple[Any, ...]
    named: dict[str, Any]

    def of(self, function: Callable[..., Any]) -> Callable[[Any], Any]:
        """Return what to call with the item alone."""
        if self.more:
            return functools.partial(_call, function, self)
        return functools.partial(function, **self.named) if self.named else function


def travelling(items: list[Any], invocation: Invocation | None) -> list[Any]:
    """Return what to send of a job; with an invocation of its own the one item takes it along."""
    return items if invocation is None else [(items[0], *invocation)]


def arrived(function: Callable[..., Any], item: tuple[Any, ...]) -> Any:
    """Call a function with an item that has taken its invocation along."""
    value, more, named = item
    return function(value, *more, **named)


def _call(function: Callable[..., Any], invocation: Invocation, item: Any) -> Any:
    return function(item, *invocation.more, **invocation.named)
