"""Permits that a server has granted: how many, and when each may be used."""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from typing import Any, Final

from opero.locks import Lock

from .redis_scripts import HORIZON

AHEAD: Final = 20_000_000
"""A process that uses permits fast gets those of this many nanoseconds before it asks."""

LATE: Final = 20_000_000
"""How late a permit may be used, in nanoseconds, unless two permits are further apart."""

MOST: Final = 2_000
"""The most permits that one request asks for."""

_SLACK = 2 * HORIZON
"""How far the server may be ahead of the local bucket: it grants ahead, and replies take time."""


class Grant:
    """Permits that the server has granted together.

    Attributes:
        count: How many are left.
        mark: The server's name for the grant; "" if it cannot be given back.
        cells: The arrival time, the interval and the tolerance of each limit before the next
            permit, in the server's microseconds.
    """

    __slots__ = ("_behind", "_start", "cells", "count", "mark")

    def __init__(
        self, count: int, mark: str, start: float, behind: int, cells: list[list[float]]
    ) -> None:
        """Take the contents of a reply.

        Args:
            count: How many permits.
            mark: See above.
            start: When the first may be used, in the server's microseconds.
            behind: What to add to the server's time to get the local clock's, in nanoseconds.
            cells: See above.
        """
        self.count: int = count
        self.mark: str = mark
        self.cells: list[list[float]] = cells
        self._start = start
        self._behind = behind

    def slot(self, weight: int) -> float:
        """Return when the next permits may be used, in the server's microseconds."""
        slot = self._start
        for arrival, interval, tolerance in self.cells:
            free = arrival - tolerance + (weight - 1) * interval
            if free > slot:
                slot = free
        return slot

    def here(self, slot: float) -> int:
        """Convert a server time to nanoseconds of the local clock."""
        return math.ceil(slot * 1000) + self._behind

    def end(self) -> int:
        """Return when the last one may be used, in nanoseconds of the local clock."""
        return self.here(self.slot(self.count))

    def take(self, slot: float, weight: int) -> None:
        """Use the next permits from `slot` on."""
        self.count -= weight
        for cell in self.cells:
            cell[0] = max(cell[0], slot) + weight * cell[1]


class Purse:
    """The permits that the server has granted, in the role of the queue's bucket.

    Attributes:
        local: The same limit in this process: it notes each permit, and hands out permits while
            the server is unavailable.
        grants: The permits that are left.
        alone: Whether the server is unavailable.
        told: When the server might grant the next permit, in nanoseconds; 0 if unknown.
        queued: How many callers wait.
        lock: The lock that makes a step atomic; that of `local`, if it has one.
    """

    observes = False

    def __init__(self, local: Any) -> None:
        self.local = local
        self.lock: Any = Lock() if local.lock is None else local.lock
        self.queued = 0
        self.clear()

    def clear(self) -> None:
        """Forget all permits, and any outage."""
        self.grants: deque[Grant] = deque()
        self.alone = False
        self.told = 0
        self._slot: int | None = None
        self._since = 0  # since when permits taken are counted
        self._taken = 0
        self._taken_before = 0

    @property
    def interval(self) -> int:
        """Nanoseconds between two permits."""
        return int(self.local.interval)

    def fresh(self, lock: Any) -> Any:
        """Return an unshared bucket with the same rate and burst."""
        return self.local.fresh(lock)

    def enter(self, now: int) -> int:
        """Take a permit if one is available and nobody waits for it (see `TokenBucket.enter`)."""
        return self.take_many(now, 1)

    def take_many(self, now: int, weight: int) -> int:
        """Do the same for several permits at a time."""
        if self.queued or not self.grants:
            return self.interval
        with self.lock:
            return self.interval if self.queued else self.admit_many(now, weight)

    def admit_many(self, now: int, weight: int) -> int:
        """Take permits for the head of the queue; return 0, or the nanoseconds until it can."""
        self._slot = None
        for grant in list(self.grants):
            while grant.count >= weight:
                slot = grant.slot(weight)
                at = grant.here(slot)
                if at > now:
                    return at - now
                if at < now - max(LATE, self.interval):
                    grant.take(grant.slot(1), 1)  # too late: others have had theirs meanwhile
                    continue
                grant.take(slot, weight)
                if grant.count >= 0:  # else a finalizer has run meanwhile
                    self._note(now, at, weight)
                    return 0
            if grant.count <= 0 or len(self.grants) > 1:  # else a smaller request may use it
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
        """Return a receipt with which `undo` gives back the permits that were taken last."""
        return self._slot, self.local.receipt()

    def undo(self, receipt: Any, weight: int) -> None:
        """Give back unused permits: the next waiter of this process gets them."""
        slot, noted = receipt
        self.local.undo(noted, weight)
        if slot is not None:
            self.grants.appendleft(Grant(weight, "", 0.0, slot, []))

    def due(self, now: int, weight: int, ahead: int) -> int:
        """Return when permits are free at the earliest, if `ahead` others get one first."""
        due = int(self.local.due(now, weight, ahead))
        behind = ahead - self.credit()
        return max(due, self.told + behind * self.interval) if behind >= 0 else due

    def pause(self, now: int, length: int) -> None:
        """Hand out nothing for a while, not even granted permits."""
        self.grants.clear()
        self.local.pause(now, length)

    def credit(self) -> int:
        """Return how many granted permits are left."""
        return sum([grant.count for grant in list(self.grants)])

    def wanted_ahead(self, now: int, interval: int) -> int:
        """Return how many permits to ask for beyond those that callers wait for.

        Args:
            now: The time in nanoseconds.
            interval: The long-run interval between two permits, in nanoseconds.
        """
        if now - self._since > 2 * AHEAD:
            return 0
        return min(2 * max(self._taken, self._taken_before), AHEAD // interval)

    def room(self, now: int) -> int:
        """Return the most permits to ask for, given what this process has had."""
        found = MOST
        for cell in self.cells():
            free = now + _SLACK + cell.tolerance - max(cell.arrival, now)
            found = min(found, int(free // cell.interval) + 1)
        return found - self.credit()

    def room_at(self, now: int, weight: int) -> int:
        """Return when there is room for `weight` permits, in nanoseconds."""
        before = self.credit() + weight - 1
        return max(
            int(max(cell.arrival, now) + before * cell.interval - cell.tolerance - _SLACK)
            for cell in self.cells()
        )

    def longest(self) -> int:
        """Return the long-run interval between two permits, in nanoseconds."""
        return max(int(cell.interval) for cell in self.cells())

    def cells(self) -> list[Any]:
        """Return the buckets of the limit and of its windows."""
        return [self.local, *getattr(self.local, "others", ())]
