"""The token bucket of an adaptive limit: it learns how attempts end, and changes its rate.

When the rate changes, the time until the next permits grows or shrinks in proportion to the
interval between permits. So over any window there are never more permits than the burst plus what
the rate at each moment allows. A pause keeps its length, and a cut spends the burst.
"""

from __future__ import annotations

from math import ceil

from .bucket import TokenBucket, WindowedBucket
from .rate_control import RateControl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SUCCEEDED, _REJECTED = 0, 2
"""The outcomes of `gate`, as C numbers."""

_NEWS = 16
"""Waiters are notified when the interval has fallen by a sixteenth since the last time."""

PROMPT = 2_000_000_000
"""In nanoseconds: the first rejection already pauses the limit if it asks for longer than this."""


class AdaptiveBucket(WindowedBucket):
    """Permits at a rate that falls when attempts are rejected, and rises while they succeed.

    Attributes:
        burst: How many permits may be taken at once after a pause.
        control: Decides on the rate.
        watcher: Called after a change that matters to waiters: with True after a cut, with False
            if the rate has risen. None if nobody waits.
        told: The interval at its last call, in nanoseconds.
    """

    __slots__ = ("burst", "control", "told", "watcher")

    def __init__(
        self,
        rate: float,
        burst: int,
        lock: Any,
        windows: tuple[tuple[int, int], ...],
        floor: float,
    ) -> None:
        """Make a full bucket at its highest rate.

        Args:
            rate: The highest rate, in permits per second.
            burst: How many permits may be taken at once after a pause.
            lock: A mutex, or None.
            windows: The interval in nanoseconds and the burst of each further limit.
            floor: The lowest rate.

        Raises:
            ValueError: If the bucket would need more than 31 years to fill at its lowest rate.
        """
        TokenBucket(floor, burst)
        WindowedBucket.__init__(self, rate, burst, lock, windows)
        self.observes: bool = True
        self.burst: int = burst
        self.control: RateControl = RateControl(rate, floor)
        self.watcher: Any = None
        self.told: int = self.interval

    def fresh(self, lock: Any) -> TokenBucket:
        """Return a full bucket of the same settings, without further limits."""
        control = self.control
        return AdaptiveBucket(control.given, self.burst, lock, (), control.floor)

    def rate(self) -> float:
        """Return the rate, in permits per second."""
        return self.control.rate

    def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:  # noqa: ARG002
        """Learn from how an attempt has ended; only success and rejection count."""
        if outcome != _SUCCEEDED and outcome != _REJECTED:
            return
        if self.lock is None:
            news = self.learn(now, outcome, entered)
        else:
            with self.lock:
                news = self.learn(now, outcome, entered)
        if news and self.watcher is not None:
            self.watcher(news > 1)

    def learn(self, now: int, outcome: int, entered: int) -> int:
        """Adapt the rate.

        Args:
            now: The time in nanoseconds.
            outcome: `SUCCEEDED` or `REJECTED`.
            entered: When the attempt began, in nanoseconds.

        Returns:
            2 after a cut, 1 if the rate has risen enough to notify waiters, else 0.
        """
        if outcome == _REJECTED:
            if not self.control.rejected(now, entered):
                return 0
            self.retime(now)
            spent = now + self.tolerance
            if spent > self.arrival:
                self.arrival: int = spent
            self.told = self.interval
            return 2
        if self.control.succeeded(now, entered):
            self.retime(now)
            if self.told - self.interval > self.told // _NEWS:
                self.told = self.interval
                return 1
        return 0

    def retime(self, now: int) -> None:
        """Adopt the rate of `control`."""
        before = self.interval
        interval = ceil(1e9 / self.control.rate)
        if interval == before:
            return
        paused = self.floor - self.tolerance
        since = max(now, paused)
        tolerance = interval * (self.burst - 1)
        if self.arrival > since:
            owed = self.arrival - since
            then = since + ceil(owed / before * interval)
            if then < self.arrival:  # a permit that is given back is worth less now
                self.refunded: int = self.refunded + self.arrival - then
            self.arrival = then
        if paused > now:
            self.floor: int = paused + tolerance
        self.interval: int = interval
        self.tolerance: int = tolerance

    def pause_as_asked(self, now: int, length: int) -> None:
        """Pause because a server has asked for it, unless a lower rate may be enough.

        A server that rejects one attempt too many asks for at least a second, as HTTP has only
        whole seconds. So the first rejection of a series only lowers the rate, and those that
        follow immediately pause the limit too; a long wait always does.
        """
        if length > PROMPT or self.control.series:
            self.pause(now, length)
