"""Values that can be used once only, which no cache can give to two callers.

A generator or another iterator is used up by the first who iterates over it, a coroutine by the
first who awaits it. From the second call on, a cached one would be empty, or an error.
"""

from __future__ import annotations

import sys
from types import CoroutineType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ORDINARY = frozenset({bool, bytes, dict, float, int, list, set, str, tuple, type(None)})
"""Types of which no value can be used once only."""


def is_once_only(value: Any) -> bool:
    """Return whether a value is an iterator, or can be awaited, and is no mock object."""
    kind = type(value)
    if kind in ORDINARY:
        return False
    names = ("__next__", "__await__", "__anext__")
    return any(getattr(kind, name, None) is not None for name in names) and not _is_mock(kind)


def _is_mock(kind: type) -> bool:
    """Return whether a class is one of `unittest.mock`, whose instances have every method."""
    mock: Any = sys.modules.get("unittest.mock")
    return mock is not None and issubclass(kind, mock.NonCallableMock)


def error_of(name: str, value: Any) -> TypeError:
    """Make the error that says what to return in place of such a value.

    Args:
        name: The name of the function that has returned it.
        value: What it has returned.
    """
    kind = type(value)
    article = "an" if kind.__name__[:1] in "aeiou" else "a"
    what = f"{name} is cached, and it has returned {article} {kind.__name__}, which can be"
    if hasattr(kind, "__await__"):
        if kind is CoroutineType:
            value.close()  # nobody awaits it, and Python would warn of that
        return TypeError(
            f"{what} awaited once only: make {name} a coroutine function (async def), so that its "
            f"result is cached, or decorate the one that it calls"
        )
    return TypeError(
        f"{what} iterated over once only, so the next caller would find it empty: return a list or "
        f"a tuple of its items"
    )


def check(name: str, value: Any) -> None:
    """Refuse a value that can be used once only.

    Args:
        name: The name of the function that has returned it.
        value: What it has returned.

    Raises:
        TypeError: If it is one.
    """
    if is_once_only(value):
        raise error_of(name, value)
