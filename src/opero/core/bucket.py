"""Rate limiting by the generic cell rate algorithm (GCRA): it decides and never waits.

The bucket keeps one number, the theoretical arrival time: when a steady flow at the allowed rate
would send its next cell. A permit is free when that time is no further ahead than the burst allows.
Source: ITU-T Recommendation I.371, "virtual scheduling"; whole nanoseconds keep it exact, and the
interval is rounded up, so over any window `w` there are never more than `burst + rate * w` permits.

A pause also moves the arrival time forward, so it needs no extra check: when the pause ends, the
burst is spent, and permits come one by one.
"""

from __future__ import annotations

from math import ceil

from .gate import Gate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LONGEST = 10**18
"""The longest time, in nanoseconds, that a bucket may need to fill: about 31 years."""


class TokenBucket(Gate):
    """Permits at a steady rate.

    Attributes:
        interval: Nanoseconds between two permits.
        tolerance: How far, in nanoseconds, a burst may run ahead of the steady flow.
        arrival: The theoretical arrival time in nanoseconds.
        latest: When the latest permit was taken, in nanoseconds.
        floor: The least arrival time, because of a pause.
        refunded: By how much returned permits have moved the arrival time, in total.
        queued: How many callers wait in its queue; while some do, `enter` lets nobody overtake.
        lock: Makes a step atomic; None where the interpreter's lock does.
    """

    __slots__ = (
        "arrival",
        "floor",
        "interval",
        "latest",
        "lock",
        "queued",
        "refunded",
        "tolerance",
    )

    def __init__(self, rate: float, burst: int, lock: Any = None) -> None:
        """Make a full bucket.

        Args:
            rate: Permits per second.
            burst: How many permits may be taken at once after a pause.
            lock: A mutex, or None.

        Raises:
            ValueError: If the bucket would need more than 31 years to fill.
        """
        interval = ceil(1e9 / rate)
        if interval * burst > _LONGEST:
            raise ValueError(f"rate {rate!r} with burst {burst!r} would take over 31 years to fill")
        self.observes: bool = False
        self.refuses: bool = False
        self.interval: int = interval
        self.tolerance: int = interval * (burst - 1)
        self.arrival: int = -_LONGEST
        self.latest: int = -_LONGEST
        self.floor: int = -_LONGEST
        self.refunded: int = 0
        self.queued: int = 0
        self.lock: Any = lock

    def enter(self, now: int) -> int:
        """Take a permit if one is free and nobody waits.

        Args:
            now: The time in nanoseconds.

        Returns:
            0 if a permit was taken, else nanoseconds until one might be.
        """
        if self.lock is None:
            if self.queued:
                return self.interval
            return self.admit(now)
        with self.lock:
            if self.queued:
                return self.interval
            return self.admit(now)

    def fresh(self, lock: Any) -> TokenBucket:
        """Return a full bucket of the same rate and burst, without further limits."""
        bucket = TokenBucket(1.0, 1, lock)
        bucket.interval = self.interval
        bucket.tolerance = self.tolerance
        return bucket

    def admit(self, now: int) -> int:
        """Take a permit if one is free, for the head of the queue.

        Args:
            now: The time in nanoseconds.

        Returns:
            0 if a permit was taken, else nanoseconds until one is free.
        """
        wait = self.arrival - self.tolerance - now
        if wait > 0:
            return wait
        if self.arrival < now:
            self.arrival = now
        self.arrival += self.interval
        self.latest = now
        return 0

    def take_many(self, now: int, weight: int) -> int:
        """Take `weight` permits together, as `enter` takes one."""
        if self.lock is None:
            if self.queued:
                return self.interval
            return self.admit_many(now, weight)
        with self.lock:
            if self.queued:
                return self.interval
            return self.admit_many(now, weight)

    def admit_many(self, now: int, weight: int) -> int:
        """Take `weight` permits together, at most `burst`, as `admit` takes one."""
        wait = self.lack(now, weight)
        if wait > 0:
            return wait
        self.spend(now, weight)
        return 0

    def lack(self, now: int, weight: int) -> int:
        """Return nanoseconds until `weight` permits are free; 0 or less if they are."""
        return self.arrival - self.tolerance + (weight - 1) * self.interval - now

    def spend(self, now: int, weight: int) -> None:
        """Take `weight` permits, free or not."""
        if self.arrival < now:
            self.arrival = now
        self.arrival += weight * self.interval
        self.latest = now

    def due(self, now: int, weight: int, ahead: int) -> int:
        """Return when `weight` permits are free, at the earliest.

        Args:
            now: The time in nanoseconds.
            weight: How many permits.
            ahead: How many permits others get first.
        """
        arrival = self.arrival
        if ahead:
            if ahead > _LONGEST // self.interval:
                ahead = _LONGEST // self.interval
            arrival = max(arrival, now) + ahead * self.interval
        free = arrival - self.tolerance + (weight - 1) * self.interval
        return max(free, now)

    def pause(self, now: int, length: int) -> None:
        """Grant no permit for a while; a longer pause already under way continues.

        Args:
            now: The time in nanoseconds.
            length: Nanoseconds.
        """
        floor = now + length + self.tolerance
        if floor > self.floor:
            self.floor = floor
        if floor > self.arrival:
            if self.arrival > self.latest:  # permits taken before have nothing to give back now
                self.refunded += self.arrival - self.latest
            self.arrival = floor

    def pause_as_asked(self, now: int, length: int) -> None:
        """Pause because a server has asked for it.

        Args:
            now: The time in nanoseconds.
            length: Nanoseconds.
        """
        self.pause(now, length)

    def receipt(self) -> Any:
        """Return a receipt for the latest permits, by which `undo` gives them back."""
        return self.arrival + self.refunded

    def undo(self, receipt: Any, weight: int = 1) -> None:
        """Give back permits that were not used.

        Without them, the arrival time would be one interval less for each, or less by as much of
        that as permits taken since have not used up: at least by the permits' own arrival time
        minus `latest`.

        Args:
            receipt: What `receipt` returned right after they were taken.
            weight: The number of permits.
        """
        refund = receipt - self.refunded - self.latest
        if refund > weight * self.interval:
            refund = weight * self.interval
        if refund > self.arrival - self.floor:
            refund = self.arrival - self.floor
        if refund > 0:
            self.arrival -= refund
            self.refunded += refund


class WindowedBucket(TokenBucket):
    """Permits at a steady rate with further limits: each permit is taken from all of them.

    Attributes:
        others: The buckets of the further limits.
    """

    __slots__ = ("others",)

    def __init__(
        self, rate: float, burst: int, lock: Any, windows: tuple[tuple[int, int], ...]
    ) -> None:
        """Make full buckets.

        Args:
            rate: Permits per second.
            burst: How many permits may be taken at once after a pause.
            lock: A mutex, or None.
            windows: The interval in nanoseconds and the burst of each further limit.
        """
        TokenBucket.__init__(self, rate, burst, lock)
        others = []
        for interval, most in windows:
            other = TokenBucket(1.0, 1)
            other.interval = interval
            other.tolerance = interval * (most - 1)
            others.append(other)
        self.others: tuple[Any, ...] = tuple(others)

    def admit(self, now: int) -> int:
        """Take a permit from all buckets, or from none."""
        return self.admit_many(now, 1)

    def lack(self, now: int, weight: int) -> int:
        """Return nanoseconds until `weight` permits are free in all; 0 or less if they are."""
        longest = TokenBucket.lack(self, now, weight)
        for other in self.others:
            wait = other.lack(now, weight)
            if wait > longest:
                longest = wait
        return longest

    def spend(self, now: int, weight: int) -> None:
        """Take `weight` permits from all, free or not."""
        TokenBucket.spend(self, now, weight)
        for other in self.others:
            other.spend(now, weight)

    def due(self, now: int, weight: int, ahead: int) -> int:
        """Return when `weight` permits are free in all, at the earliest."""
        latest = TokenBucket.due(self, now, weight, ahead)
        for other in self.others:
            free = other.due(now, weight, ahead)
            if free > latest:
                latest = free
        return latest

    def receipt(self) -> Any:
        """Return receipts for the latest permits, by which `undo` gives them back."""
        return [TokenBucket.receipt(self), *[other.receipt() for other in self.others]]

    def undo(self, receipt: Any, weight: int = 1) -> None:
        """Give back permits that were not used, to all."""
        TokenBucket.undo(self, receipt[0], weight)
        for at, other in enumerate(self.others):
            other.undo(receipt[at + 1], weight)
