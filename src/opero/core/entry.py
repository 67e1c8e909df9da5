"""The place of one value, from the start of its run; the plain half.

    UNDER_WAY    a caller computes the value, and other callers follow
    RESERVED     there is a place, but no value, and nobody computes it
    VALUE        there is a value
    DEAD         the entry was taken out, and no longer counts

A new entry is under way or reserved. A run that returns makes it a value; a run that fails takes it
out. While an expired value is renewed, its entry is under way again and keeps its place. An entry
taken out of the store's dictionary stays dead. So a thread that computes a value can tell from the
entry whether it was invalidated meanwhile.

A value that is renewed in the background, before it expires, stays a value. Its flight is that of
the renewal, and callers who come after it has expired follow that.

The compiled half (`_compiled/entry.pyx`) links the entries of a queue to each other.
"""

from __future__ import annotations

from collections import deque

from opero.gil import FREE_THREADED

from . import flight as flights
from .flight import Flight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

VALUE = 0
DEAD = -1
RESERVED = -2
UNDER_WAY = -3

_GOLDEN = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: the high bits of its multiples depend on all low bits."""
_MOST_GHOSTS = 1 << 24
"""A ghost's place uses 24 bits of its mixed hash; the bits above are stored in the ghost."""
_SHORTEST_SPAN = 4

UNKNOWN, LOST, JUST_LOST, SPENT = range(4)
"""What the ghosts know about a key.

    UNKNOWN      nothing
    LOST         probation evicted it
    JUST_LOST    probation evicted it within the last span, a tenth of the store's bound
    SPENT        the main queue evicted it within the last span
"""


class Entry:
    """One value, or the place for it.

    Attributes:
        key: The key it is stored under.
        mark: The key's hash.
        value: What the function returned.
        flight: What followers wait for; None while there are none.
        expires: When the value expires, in nanoseconds; while the entry is under way, the
            identifier of the thread or greenlet that computes the value.
        fresh: In a store that `lingers`, when the value becomes outdated; `expires` is then when a
            hit looks closer. 0 before the first value, and in other stores.
        uses: Hits since it was stored or moved, at most 3.
        state: One of the states above.
        queued: Whether it is in a queue.
    """

    __slots__ = ("expires", "flight", "fresh", "key", "mark", "queued", "state", "uses", "value")

    key: Any
    mark: int
    value: Any
    flight: Flight | None
    expires: int
    fresh: int
    uses: int
    state: int
    queued: bool


def new_entry(key: Any, mark: int, state: int, expires: int) -> Entry:
    """Make an entry that is in no table yet.

    Args:
        key: Its key.
        mark: The key's hash.
        state: `RESERVED` or `UNDER_WAY`.
        expires: The identifier of the thread or greenlet that computes the value, if under way.
    """
    entry = Entry.__new__(Entry)
    entry.key = key
    entry.mark = mark
    entry.value = None
    entry.flight = None
    entry.expires = expires
    entry.fresh = 0
    entry.uses = 0
    entry.state = state
    entry.queued = False
    return entry


def follow(entry: Entry) -> Flight | None:
    """Return the flight to wait on until the run of an entry ends; None if no run is under way.

    A follower attaches the flight before it reads the state; the leader changes the state before it
    reads the flight. So one of the two notices the other.
    """
    owner = entry.expires
    if entry.state != UNDER_WAY:  # a value may have the flight of its renewal
        return entry.flight if entry.state == VALUE else None
    with flights.joining:
        flight = entry.flight
        if flight is None:
            entry.flight = flight = Flight(owner)
    return flight if entry.state == UNDER_WAY else None


def land(entry: Entry, value: Any, error: BaseException | None) -> None:
    """Pass the outcome of a run to its followers, if there are any."""
    flight = take_flight(entry)
    if flight is not None:
        flight.land(value, error)


def take_flight(entry: Entry) -> Flight | None:
    """Take the flight off its entry, and return it; None if nobody follows."""
    if FREE_THREADED:  # another thread's write may become visible late
        with flights.joining:
            flight, entry.flight = entry.flight, None
    else:
        flight = entry.flight
        if flight is not None:
            entry.flight = None
    return flight


def detach(entry: Entry, flight: Flight) -> bool:
    """Take the flight of a lost run off its entry; return whether the entry still had it."""
    with flights.joining:
        there = entry.flight is flight
        if there:
            entry.flight = None
    return there


def value_of(entry: Entry) -> Any:
    """Return the value of an entry, which another thread may be replacing at this moment."""
    return entry.value


class EntryQueue:
    """Entries, first in, first out; each operation is atomic.

    A `deque` takes 700 bytes, so the first entry creates it.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: deque[Entry] | tuple[()] = ()

    def append(self, entry: Entry) -> None:
        """Put an entry at the end."""
        entry.queued = True
        if type(self._entries) is tuple:
            with flights.joining:
                if type(self._entries) is tuple:
                    self._entries = deque()
        self._entries.append(entry)  # type: ignore[union-attr]

    def take(self) -> Entry | None:
        """Take the first entry out; None if there is none."""
        try:
            entry = self._entries.popleft()  # type: ignore[union-attr]
        except (AttributeError, IndexError):
            return None
        entry.queued = False
        return entry

    def clear(self) -> None:
        """Take all entries out."""
        for _ in range(len(self._entries)):
            if self.take() is None:
                break

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries))

    @property
    def length(self) -> int:
        """How many there are."""
        return len(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class EntryStates:
    """Changes the states of a store's entries, and counts those that its bound counts.

    Attributes:
        held: How many entries are values, or reserved.
    """

    __slots__ = ("_claims", "_entries")

    def __init__(self, entries: dict[Any, Entry]) -> None:
        """Begin.

        Args:
            entries: The dictionary of the store.
        """
        self._entries = entries
        self._claims: dict[Entry, Entry] = {}

    @property
    def held(self) -> int:
        """How many entries are values, or reserved."""
        return max(0, len(self._entries) - len(self._claims))

    def enter(self, entry: Entry) -> None:
        """Count a new entry: before it is in the dictionary, or as soon as it is."""
        if entry.state == UNDER_WAY:
            self._claims[entry] = entry
            if entry.state != UNDER_WAY:  # another thread has killed it
                self._claims.pop(entry, None)

    def claim(self, entry: Entry, expires: int, owner: int) -> bool:
        """Put an entry under way again, unless another thread was quicker or is renewing it.

        Args:
            entry: A reserved entry, or an expired value.
            expires: Its `expires` when the caller looked at it.
            owner: The identifier of the thread or greenlet that computes the value.

        Returns:
            Whether this caller put it under way.
        """
        with flights.joining:
            if (
                entry.state not in {VALUE, RESERVED}
                or entry.expires != expires
                or (entry.state == VALUE and entry.flight is not None)
            ):
                return False
            entry.state = UNDER_WAY  # nothing since the check lets another thread run
            entry.expires = owner
            self._claims[entry] = entry
        return True

    def postpone(self, entry: Entry, expires: int, until: int) -> bool:
        """Change when hits on a value look closer, unless another thread was quicker.

        Args:
            entry: A value.
            expires: Its `expires` when the caller looked at it.
            until: The new time.

        Returns:
            Whether this caller changed it.
        """
        return self._with_value(entry, expires, until, None)

    def attach(self, entry: Entry, expires: int, flight: Flight) -> bool:
        """Attach the flight of a run that renews a value, unless the value has changed.

        Args:
            entry: The value.
            expires: Its `expires` when the caller looked at it.
            flight: What to follow once the value has expired.

        Returns:
            Whether the flight was attached.
        """
        return self._with_value(entry, expires, expires, flight)

    def _with_value(self, entry: Entry, expires: int, until: int, flight: Flight | None) -> bool:
        with flights.joining:
            if entry.state != VALUE or entry.expires != expires:
                return False
            if flight is None:
                entry.expires = until
            elif entry.flight is None:
                entry.flight = flight
            else:
                return False
        return True

    def fill(self, entry: Entry, value: Any, expires: int, fresh: int) -> None:
        """Make an entry a value, unless it is dead."""
        if entry.state == DEAD:
            return
        entry.value = value
        entry.fresh = fresh
        entry.expires = expires
        entry.state = VALUE
        self._claims.pop(entry, None)

    def stop(self, entry: Entry) -> None:
        """Make an entry reserved, if it was under way."""
        if entry.state == UNDER_WAY:
            entry.state = RESERVED
            self._claims.pop(entry, None)

    def restore(self, entry: Entry) -> None:
        """Turn an entry that is under way back into the outdated value that it was."""
        if entry.state == UNDER_WAY:
            entry.expires = entry.fresh
            entry.state = VALUE
            self._claims.pop(entry, None)

    def kill(self, entry: Entry) -> None:
        """Make an entry dead."""
        entry.state = DEAD
        self._claims.pop(entry, None)

    def revive(self, entry: Entry) -> None:
        """Make a dead entry that could not be taken out reserved."""
        if entry.state == DEAD:
            entry.state = RESERVED


class Ghosts:
    """Traces of entries that were evicted lately, two bytes for each.

        eleven bits of the key's hash  |  which queue  |  when, in spans of that queue's evictions

    They are in a table with two places for each ghost, where later ghosts replace earlier ones. The
    first eviction creates the table. Occasionally a key is mistaken for another one, or an empty
    place for that of a key evicted long ago; this costs no more than a place in the main queue.
    """

    __slots__ = ("_maxsize", "_past")

    def __init__(self, maxsize: int) -> None:
        """Begin without ghosts.

        Args:
            maxsize: How many entries the store may have.
        """
        self._maxsize = maxsize
        self._past: _Past | None = None

    def remember(self, mark: int, main: bool) -> None:
        """Remember that a key with this hash was evicted.

        Args:
            mark: The key's hash.
            main: Whether the main queue evicted it.
        """
        past = self._past
        if past is None:
            self._past = past = _Past(self._maxsize)
        mixed = mark * _GOLDEN
        at = mixed >> 23 & past.mask
        past.table[at ^ 1] = past.table[at]
        past.table[at] = (mixed >> 53 & 2047) << 5 | past.tags[main]
        past.left[main] -= 1
        if past.left[main] <= 0:
            past.left[main] = past.span
            tag = past.tags[main]
            past.tags[main] = (tag & 16) | (tag + 1 & 15)

    def recall(self, mark: int) -> int:
        """Return what is known about a key with this hash: one of `UNKNOWN`, `LOST`, ..."""
        past = self._past
        if past is None:
            return UNKNOWN
        mixed = mark * _GOLDEN
        at = mixed >> 23 & past.mask
        key = mixed >> 53 & 2047
        found: int = past.table[at]
        if found >> 5 != key:
            found = past.table[at ^ 1]
            if found >> 5 != key:
                return UNKNOWN
        main = found >> 4 & 1
        if found & 31 != past.tags[main]:
            return UNKNOWN if main else LOST
        return SPENT if main else JUST_LOST

    def clear(self) -> None:
        """Forget all."""
        self._past = None

    def __len__(self) -> int:
        return 0 if self._past is None else self._past.table.nbytes


class _Past:
    """The table of ghosts, and the state of each queue, probation first.

    Attributes:
        table: Two bytes for each ghost.
        mask: The number of the last place.
        span: The number of evictions from a queue after which its tag changes.
        left: For each queue, the number of evictions until the next change.
        tags: For each queue, the tag to store next to the bits of a hash.
    """

    __slots__ = ("left", "mask", "span", "table", "tags")

    def __init__(self, maxsize: int) -> None:
        self.mask: int = max(64, min(_MOST_GHOSTS, 1 << maxsize.bit_length())) - 1
        self.table: memoryview[int] = memoryview(bytearray(2 * self.mask + 2)).cast("H")
        self.span: int = max(_SHORTEST_SPAN, maxsize // 10)
        self.left: list[int] = [self.span, self.span]
        self.tags: list[int] = [1, 17]
