"""Permits that a server has granted: how many, and from when on each may be used."""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from typing import Any, Final

from opero.locks import Lock

from .redis_scripts import HORIZON

AHEAD: Final = 20_000_000
"""A process that uses permits fast is granted those of so many nanoseconds before it asks."""

LATE: Final = 20_000_000
"""How late a permit may be used, in nanoseconds, or by the time between two if that is more."""

MOST: Final = 2_000
"""How many permits a question asks for at most."""

_SLACK = 2 * HORIZON
"""How far ahead of the bucket here the server may be: it grants ahead, and replies take time."""


class Grant:
    """Permits that the server has granted at once.

    Attributes:
        count: How many are left.
        mark: What the server calls it; "" if it cannot be given back.
        cells: The arrival time, the interval and the tolerance of each limit, in microseconds of
            the server: what they are before the next permit.
    """

    __slots__ = ("_behind", "_start", "cells", "count", "mark")

    def __init__(
        self, count: int, mark: str, start: float, behind: int, cells: list[list[float]]
    ) -> None:
        """Take what a reply says.

        Args:
            count: How many permits.
            mark: See above.
            start: When the first may be used, in microseconds of the server.
            behind: What to add to its time, in nanoseconds, for that of the clock here.
            cells: See above.
        """
        self.count: int = count
        self.mark: str = mark
        self.cells: list[list[float]] = cells
        self._start = start
        self._behind = behind

    def slot(self, weight: int) -> float:
        """Return when the next permits may be used, in microseconds of the server."""
        slot = self._start
        for arrival, interval, tolerance in self.cells:
            free = arrival - tolerance + (weight - 1) * interval
            if free > slot:
                slot = free
        return slot

    def here(self, slot: float) -> int:
        """Return a time of the server in nanoseconds of the clock here."""
        return math.ceil(slot * 1000) + self._behind

    def end(self) -> int:
        """Return when the last one may be used, in nanoseconds of the clock here."""
        return self.here(self.slot(self.count))

    def take(self, slot: float, weight: int) -> None:
        """Use the next permits, from `slot` on."""
        self.count -= weight
        for cell in self.cells:
            cell[0] = max(cell[0], slot) + weight * cell[1]


class Purse:
    """What the queue takes for its bucket: permits that the server has granted.

    Attributes:
        local: The same limit in this process: it notes each permit, and hands them out while the
            server is gone.
        grants: The permits that are left.
        alone: Whether the server is gone.
        told: When the server might grant the next, in nanoseconds; 0 if that is not known.
        queued: How many wait.
        lock: Makes a step atomic; it is that of `local`, if that has one.
    """

    observes = False

    def __init__(self, local: Any) -> None:
        self.local = local
        self.lock: Any = Lock() if local.lock is None else local.lock
        self.queued = 0
        self.clear()

    def clear(self) -> None:
        """Have nothing, and know of no outage."""
        self.grants: deque[Grant] = deque()
        self.alone = False
        self.told = 0
        self._slot: int | None = None
        self._since = 0  # when counting of those taken has begun
        self._taken = 0
        self._taken_before = 0

    @property
    def interval(self) -> int:
        """Nanoseconds between two permits."""
        return int(self.local.interval)

    def fresh(self, lock: Any) -> Any:
        """Return a bucket of the same rate and burst that nobody shares."""
        return self.local.fresh(lock)

    def enter(self, now: int) -> int:
        """Take a permit if one is there and nobody waits for it (see `TokenBucket.enter`)."""
        return self.take_many(now, 1)

    def take_many(self, now: int, weight: int) -> int:
        """Do so with several at once."""
        if self.queued or not self.grants:
            return self.interval
        with self.lock:
            return self.interval if self.queued else self.admit_many(now, weight)

    def admit_many(self, now: int, weight: int) -> int:
        """Take permits on behalf of the head of the queue; return 0, or nanoseconds until then."""
        self._slot = None
        for grant in list(self.grants):
            while grant.count >= weight:
                slot = grant.slot(weight)
                at = grant.here(slot)
                if at > now:
                    return at - now
                if at < now - max(LATE, self.interval):
                    grant.take(grant.slot(1), 1)  # others have got theirs meanwhile
                    continue
                grant.take(slot, weight)
                if grant.count >= 0:  # else a finalizer has been here
                    self._note(now, at, weight)
                    return 0
            if grant.count <= 0 or len(self.grants) > 1:  # else one who wants fewer may have them
                self.drop(grant)
        wait = int(self.local.lack(now, weight))
        if self.alone:
            if wait <= 0:
                self.local.spend(now, weight)
                return 0
            return wait
        return max(wait, self.told - now, 1)

    def drop(self, grant: Grant) -> None:
        """Forget a grant."""
        with suppress(ValueError):
            self.grants.remove(grant)

    def _note(self, now: int, slot: int, weight: int) -> None:
        self.local.spend(slot, weight)
        self._slot = slot
        if now - self._since > AHEAD:
            self._taken_before = self._taken if now - self._since < 2 * AHEAD else 0
            self._since, self._taken = now, 0
        self._taken += weight

    def receipt(self) -> Any:
        """Return what gives back the permits that were taken last."""
        return self._slot, self.local.receipt()

    def undo(self, receipt: Any, weight: int) -> None:
        """Give back permits that were not used: the next who waits here gets them."""
        slot, noted = receipt
        self.local.undo(noted, weight)
        if slot is not None:
            self.grants.appendleft(Grant(weight, "", 0.0, slot, []))

    def due(self, now: int, weight: int, ahead: int) -> int:
        """Return when permits are free, at the earliest, if so many others get one before."""
        due = int(self.local.due(now, weight, ahead))
        behind = ahead - self.credit()
        return max(due, self.told + behind * self.interval) if behind >= 0 else due

    def pause(self, now: int, length: int) -> None:
        """Hand out nothing for a while, not what was granted either."""
        self.grants.clear()
        self.local.pause(now, length)

    def credit(self) -> int:
        """Return how many permits are left of those that were granted."""
        return sum([grant.count for grant in list(self.grants)])

    def wanted_ahead(self, now: int, interval: int) -> int:
        """Return how many permits to ask for beyond those that somebody waits for.

        Args:
            now: The time in nanoseconds.
            interval: Nanoseconds between two permits in the long run.
        """
        if now - self._since > 2 * AHEAD:
            return 0
        return min(2 * max(self._taken, self._taken_before), AHEAD // interval)

    def room(self, now: int) -> int:
        """Return how many permits to ask for at most, by what this process has had."""
        found = MOST
        for cell in self.cells():
            free = now + _SLACK + cell.tolerance - max(cell.arrival, now)
            found = min(found, int(free // cell.interval) + 1)
        return found - self.credit()

    def room_at(self, now: int, weight: int) -> int:
        """Return when there is room for so many, in nanoseconds."""
        before = self.credit() + weight - 1
        return max(
            int(max(cell.arrival, now) + before * cell.interval - cell.tolerance - _SLACK)
            for cell in self.cells()
        )

    def longest(self) -> int:
        """Return nanoseconds between two permits in the long run."""
        return max(int(cell.interval) for cell in self.cells())

    def cells(self) -> list[Any]:
        """Return the buckets of the limit and of its windows."""
        return [self.local, *getattr(self.local, "others", ())]
