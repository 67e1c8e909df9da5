"""Rate limiting decided by the generic cell rate algorithm (GCRA), without waiting.

The bucket keeps one number, the theoretical arrival time: when a steady flow at the allowed rate
would send its next cell. A permit is free when that time is no further ahead than the burst allows.
Source: ITU-T Recommendation I.371, "virtual scheduling"; whole nanoseconds keep it exact, and the
interval is rounded up, so over any window `w` there are never more than `burst + rate * w` permits.
"""

from __future__ import annotations

from math import ceil

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LONGEST = 10**18
"""The longest time, in nanoseconds, that a bucket may need to fill: about 31 years."""


class TokenBucket:
    """Permits at a steady rate.

    Attributes:
        interval: Nanoseconds between two permits.
        tolerance: How far, in nanoseconds, a burst may run ahead of the steady flow.
        arrival: The theoretical arrival time in nanoseconds.
        latest: When the latest permit was taken, in nanoseconds.
        refunded: By how much permits that were given back have moved the arrival time, all told.
        queued: How many callers wait in line; while some do, `take` lets nobody pass them.
        lock: Makes a step atomic; None where the interpreter does so by itself.
    """

    __slots__ = ("arrival", "interval", "latest", "lock", "queued", "refunded", "tolerance")

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
        self.interval = interval
        self.tolerance = interval * (burst - 1)
        self.arrival = -_LONGEST
        self.latest = -_LONGEST
        self.refunded = 0
        self.queued = 0
        self.lock = lock

    def take(self, now: int) -> int:
        """Take a permit if one is free and nobody waits for it.

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

    def admit(self, now: int) -> int:
        """Take a permit if one is free, on behalf of the head of the line.

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

    def undo(self, token: int) -> None:
        """Give back a permit that was not used.

        Had it not been taken, the arrival time would be less by one interval, or by as much of it
        as the permits that were taken since have not made up for: by the permit's own arrival time
        less `latest`, at least.

        Args:
            token: `arrival + refunded` right after that permit was taken, in nanoseconds.
        """
        refund = token - self.refunded - self.latest
        if refund > self.interval:
            refund = self.interval
        if refund > 0:
            self.arrival -= refund
            self.refunded += refund
