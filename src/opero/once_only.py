"""Values that can be used only once, and so cannot be cached.

The first caller uses up an iterator, such as a generator, or awaits a coroutine. From the second
call on, the cached value would be empty or an error.
"""

from __future__ import annotations

import sys
from types import CoroutineType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ORDINARY = frozenset({bool, bytes, dict, float, int, list, set, str, tuple, type(None)})
"""Types whose values can be used more than once."""


def is_once_only(value: Any) -> bool:
    """Return whether a value is an iterator or awaitable, and not a mock object."""
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
    """Create the error that says what to return instead of such a value.

    Args:
        name: The name of the function.
        value: What it returned.
    """
    kind = type(value)
    article = "an" if kind.__name__[:1] in "aeiou" else "a"
    what = f"{name} is cached, but it returned {article} {kind.__name__}, which can be"
    if hasattr(kind, "__await__"):
        if kind is CoroutineType:
            value.close()  # else Python warns that it was never awaited
        return TypeError(
            f"{what} awaited only once: make {name} a coroutine function (async def), so that "
            f"opero caches its result, or decorate the one that it calls"
        )
    return TypeError(
        f"{what} iterated over only once, so the next caller would find it empty: return a list or "
        f"a tuple of its items"
    )


def check(name: str, value: Any) -> None:
    """Reject a value that can be used only once.

    Args:
        name: The name of the function.
        value: What it returned.

    Raises:
        TypeError: If the value can be used only once.
    """
    if is_once_only(value):
        raise error_of(name, value)
