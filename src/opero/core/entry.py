"""The place of one value, from the beginning of its run on; the plain half.

    UNDER_WAY    somebody computes the value: others who want it follow
    RESERVED     there is a place, but no value, and nobody computes it
    VALUE        there is a value
    DEAD         it was forgotten, and counts for nothing

A new entry is under way or reserved. A run that returns makes it a value; one that fails takes it
out. A value that is out of date is under way again, in its place, while it is renewed. What is
taken out of the store's dictionary is dead from then on. So a thread that computes a value sees
whether it was invalidated meanwhile, by looking at the entry.

A value that is renewed in the background, before its end, stays a value. Its flight is that of
the renewal: a caller who comes after its end follows it.

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
"""2**64 divided by the golden ratio; a multiple of it has high bits that depend on all low ones."""
_MOST_GHOSTS = 1 << 24
"""A ghost's place takes 24 bits of its mixed hash; those above are what is remembered of it."""
_SHORTEST_SPAN = 4

UNKNOWN, LOST, JUST_LOST, SPENT = range(4)
"""What ghosts know of a key.

    UNKNOWN      nothing
    LOST         it was evicted from probation
    JUST_LOST    so it was, within the last span: a tenth of what the store may hold
    SPENT        it was evicted from the main queue within the last span
"""


class Entry:
    """One value, or the place for it.

    Attributes:
        key: The key it is stored under.
        mark: The key's hash.
        value: What the function returned.
        flight: What followers wait for; None while there are none.
        expires: When the value stops counting, in nanoseconds; while it is under way, who computes
            it, as an identifier of the thread or greenlet.
        fresh: In a store that `lingers`, when the value is outdated, and `expires` is when a hit
            looks closer; 0 before the first value, and in other stores.
        uses: Hits since it was stored or moved, at most 3.
        state: What it is: see above.
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
        expires: Who computes the value, as an identifier of the thread or greenlet, if it is under
            way.
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
    """Return what tells when the run of an entry is over; None if none is under way.

    A follower leaves the flight there before it looks at the state; the leader changes the state
    before it looks for a flight. So one of the two sees the other.
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
    """Make the outcome of a run known to those who follow, if anybody does."""
    flight = take_flight(entry)
    if flight is not None:
        flight.land(value, error)


def take_flight(entry: Entry) -> Flight | None:
    """Take the flight off its entry, and return it; None if nobody follows."""
    if FREE_THREADED:  # where what another thread has written may be seen late
        with flights.joining:
            flight, entry.flight = entry.flight, None
    else:
        flight = entry.flight
        if flight is not None:
            entry.flight = None
    return flight


def detach(entry: Entry, flight: Flight) -> bool:
    """Take the flight of a run that is lost off its entry; return whether it was there still."""
    with flights.joining:
        there = entry.flight is flight
        if there:
            entry.flight = None
    return there


def value_of(entry: Entry) -> Any:
    """Return what an entry holds: another thread may put a newer value there at this moment."""
    return entry.value


class EntryQueue:
    """Entries, first in, first out; each operation is atomic.

    A `deque` takes 700 bytes, so there is none before the first entry.
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
            if entry.state != UNDER_WAY:  # another thread has killed it meanwhile
                self._claims.pop(entry, None)

    def claim(self, entry: Entry, expires: int, owner: int) -> bool:
        """Let an entry be under way again, unless somebody was quicker, or is renewing it.

        Args:
            entry: One that is reserved, or a value that is out of date.
            expires: What it said when it was looked at.
            owner: Who computes it, as an identifier of the thread or greenlet.

        Returns:
            Whether that was done.
        """
        with flights.joining:
            if (
                entry.state not in {VALUE, RESERVED}
                or entry.expires != expires
                or (entry.state == VALUE and entry.flight is not None)
            ):
                return False
            entry.state = UNDER_WAY  # nothing between the look and this lets anybody interrupt
            entry.expires = owner
            self._claims[entry] = entry
        return True

    def postpone(self, entry: Entry, expires: int, until: int) -> bool:
        """Let hits on a value look closer at another time, unless somebody was quicker.

        Args:
            entry: A value.
            expires: When they were to do that, as it said when it was looked at.
            until: When they are to do that.

        Returns:
            Whether that was done.
        """
        return self._with_value(entry, expires, until, None)

    def attach(self, entry: Entry, expires: int, flight: Flight) -> bool:
        """Leave the flight of a run that renews a value, unless the value has changed.

        Args:
            entry: The value.
            expires: What it said when it was looked at.
            flight: What to follow after the value's end.

        Returns:
            Whether that was done.
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
        """Let an entry be a value, unless it is dead."""
        if entry.state == DEAD:
            return
        entry.value = value
        entry.fresh = fresh
        entry.expires = expires
        entry.state = VALUE
        self._claims.pop(entry, None)

    def stop(self, entry: Entry) -> None:
        """Let an entry be reserved, if it was under way."""
        if entry.state == UNDER_WAY:
            entry.state = RESERVED
            self._claims.pop(entry, None)

    def restore(self, entry: Entry) -> None:
        """Let an entry be the outdated value again that it was before it was under way."""
        if entry.state == UNDER_WAY:
            entry.expires = entry.fresh
            entry.state = VALUE
            self._claims.pop(entry, None)

    def kill(self, entry: Entry) -> None:
        """Let an entry be dead."""
        entry.state = DEAD
        self._claims.pop(entry, None)

    def revive(self, entry: Entry) -> None:
        """Let a dead entry, which could not be taken out, be reserved."""
        if entry.state == DEAD:
            entry.state = RESERVED


class Ghosts:
    """What is left of entries that were evicted not long ago: two bytes of each.

        eleven bits of the key's hash  |  from which queue  |  when, in spans of its evictions

    It is a table with two places for each of them, where later ones replace earlier ones. There is
    none before the first eviction. Now and then a key is taken for another one, or an empty place
    for that of a key that was lost long ago; that costs no more than a place in the main queue.
    """

    __slots__ = ("_maxsize", "_past")

    def __init__(self, maxsize: int) -> None:
        """Begin without any.

        Args:
            maxsize: How many entries the store may have.
        """
        self._maxsize = maxsize
        self._past: _Past | None = None

    def remember(self, mark: int, main: bool) -> None:
        """Keep in mind that a key with this hash was evicted.

        Args:
            mark: The key's hash.
            main: Whether that was from the main queue.
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
        """Return what is known of a key with this hash: `UNKNOWN`, `LOST`, `JUST_LOST`, `SPENT`."""
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
    """The table of ghosts, and where each queue stands: the first is probation.

    Attributes:
        table: Two bytes for each ghost.
        mask: The number of the last place.
        span: After how many evictions from a queue its tag changes.
        left: How many of them are left to the next change.
        tags: What is written beside the bits of a hash.
    """

    __slots__ = ("left", "mask", "span", "table", "tags")

    def __init__(self, maxsize: int) -> None:
        self.mask: int = max(64, min(_MOST_GHOSTS, 1 << maxsize.bit_length())) - 1
        self.table: memoryview[int] = memoryview(bytearray(2 * self.mask + 2)).cast("H")
        self.span: int = max(_SHORTEST_SPAN, maxsize // 10)
        self.left: list[int] = [self.span, self.span]
        self.tags: list[int] = [1, 17]
