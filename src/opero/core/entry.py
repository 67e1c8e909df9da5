"""One stored value, and the queue in which it waits for its eviction; the plain half.

The compiled half (`_compiled/entry.pyx`) links the entries of a queue to each other.
"""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class Entry:
    """One stored value; `MemoryStore.reserve` makes it and `fill` gives it the value.

    Attributes:
        key: The key it is stored under.
        mark: The key's hash.
        value: What the function returned.
        expires: When it stops counting, in nanoseconds.
        uses: Hits since it was stored or moved, at most 3; -1 once it is dead, -2 before it is
            filled.
    """

    __slots__ = ("expires", "key", "mark", "uses", "value")

    key: Any
    mark: int
    value: Any
    expires: int
    uses: int


class EntryQueue:
    """Entries, first in, first out; each operation is atomic."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()

    def append(self, entry: Entry) -> None:
        """Put an entry at the end."""
        self._entries.append(entry)

    def take(self) -> Entry | None:
        """Take the first entry out; None if there is none."""
        try:
            return self._entries.popleft()
        except IndexError:
            return None

    def clear(self) -> None:
        """Take all entries out."""
        self._entries.clear()

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
