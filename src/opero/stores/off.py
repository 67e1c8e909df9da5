"""A cache that is off because its place cannot be used: it is empty and stores nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opero.clients.outages import Outage

from .backends import Swapped
from .in_threads import InThreads
from .open_store import OpenStore

_WHAT = "a cache that is off"


def open_nothing(say: Callable[[], None]) -> OpenStore:
    """Return a store that is never used.

    Args:
        say: Called at each use; it logs why the store is off, unless that was logged.
    """
    nothing = Nothing()
    return OpenStore(_WHAT, nothing, InThreads(nothing), NeverInOrder(say))


class NeverInOrder(Outage):
    """An outage without an end.

    Attributes:
        failures: How many operations were left out.
    """

    failures: int

    def __init__(self, say: Callable[[], None]) -> None:
        """Take what to call at each operation."""
        super().__init__(_WHAT)
        self._say = say

    def enter(self, *_: Any) -> int:
        """Refuse the operation, and count it as a failure."""
        self.failures += 1
        self._say()
        return 0


class Nothing:
    """The `Backend` of a store that does not exist; only deleting and clearing reach it."""

    def get_many(self, names: Sequence[str], /) -> list[bytes | None]:
        """Return that there are no entries."""
        return [None] * len(names)

    def put_many(self, *_: Any) -> None:
        """Store nothing."""

    def delete(self, names: Sequence[str], /) -> list[bool]:
        """Return that there was nothing to delete."""
        return [False] * len(names)

    def scan(self, *_: Any) -> tuple[list[str], str | None]:
        """Return no names."""
        return [], None

    def swap(self, *_: Any) -> Swapped:
        """Find nothing, and change nothing."""
        return Swapped(None, None)

    def close(self) -> None:
        """Close nothing."""
