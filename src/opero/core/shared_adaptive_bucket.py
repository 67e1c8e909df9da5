"""The bucket of an adaptive limit that processes share: one rate for all of them.

Further shared words hold the state of `RateControl`. A process that learns something reads them,
adapts the rate and writes them back, under a lease that expires. While another process has the
lease, a success is dropped, because there are many; a rejection waits for the lease. Each permit is
taken at the current interval.
"""

from __future__ import annotations

from math import ceil

from .adaptive_bucket import PROMPT, AdaptiveBucket
from .bucket import TokenBucket
from .clock import Clock
from .rate_control import RateControl
from .shared_bucket import SharedBucket
from .shared_counters import SharedCounters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WORDS = 12
"""The number of words beyond those of a limit that does not adapt."""

_SUCCEEDED, _REJECTED = 0, 2
"""The outcomes of `gate`, as numbers in C."""

_INTERVAL, _PAUSED, _LEASE, _TOP, _BASE, _HOLD, _CLEAN, _CREDIT, _SERVED, _HEARD, _CUT, _SINCE = (
    range(WORDS)
)
"""The words: the interval, the end of a pause, the lease, and the state of a `RateControl`."""

_BEGUN = -(10**17)
"""A lower value means that the word has never been written."""

_UNIT = 1e9
"""Rates and seconds are stored in billionths."""

_LONGEST_LEASE = 5_000_000
"""Nanoseconds after which a lease expires."""

_SERIES = 1 << 20

_NEWS = 16
"""Waiters are notified when the interval has fallen by a sixteenth since the last notice."""


class SharedAdaptiveBucket(SharedBucket):
    """Permits at a rate that all processes adapt together through shared words.

    Attributes:
        burst: How many permits may be taken at once after a pause.
        control: The state last read from the words.
        watcher: The same as in `AdaptiveBucket`.
        told: The interval when it was last called, in nanoseconds.
        first: The number of the first word that the limit has because it adapts.
    """

    __slots__ = ("burst", "control", "first", "told", "watcher")

    def __init__(
        self,
        rate: float,
        burst: int,
        lock: Any,
        windows: tuple[tuple[int, int], ...],
        words: SharedCounters,
        clock: Clock,
        real: Clock,
        floor: float,
    ) -> None:
        """Begin with the current content of the words.

        Args:
            rate: The highest rate, in permits per second.
            burst: How many permits may be taken at once after a pause.
            lock: A mutex for the threads of this process, or None.
            windows: The interval in nanoseconds and the burst of each further limit.
            words: One for each limit, two more, and `WORDS`.
            clock: The clock of callers, which tests may move.
            real: A clock that tests never move.
            floor: The lowest rate.
        """
        TokenBucket(floor, burst)
        SharedBucket.__init__(self, rate, burst, lock, windows, words, clock, real)
        self.observes: bool = True
        self.burst: int = burst
        self.control: RateControl = RateControl(rate, floor)
        self.watcher: Any = None
        self.told: int = self.interval
        self.first: int = self.count + 2
        self.look()

    def rate(self) -> float:
        """Return the rate, in permits per second."""
        self.look()
        return max(self.control.floor, min(self.control.given, 1e9 / self.interval))

    def look(self) -> None:
        """Adopt the interval from the words."""
        interval = self.words.load(self.first + _INTERVAL)
        if interval > 0 and interval != self.interval:
            self.interval: int = interval
            self.tolerance: int = interval * (self.burst - 1)

    def admit_many(self, now: int, weight: int) -> int:
        """Take `weight` permits together, as `admit` takes one."""
        self.look()
        return SharedBucket.admit_many(self, now, weight)

    def due(self, now: int, weight: int, ahead: int) -> int:
        """Return the earliest time at which `weight` permits are free."""
        self.look()
        return SharedBucket.due(self, now, weight, ahead)

    def pause(self, now: int, length: int) -> None:
        """Give no process a permit for `length` nanoseconds; a longer pause continues."""
        self.look()
        if self.clock.offset or self.clock.frozen:
            now = self.real.now()
        if self.words.load(self.first + _PAUSED) < now + length:
            self.words.put(self.first + _PAUSED, now + length)
        SharedBucket.pause(self, now, length)

    def pause_as_asked(self, now: int, length: int) -> None:
        """Pause because a server asked for it, unless a lower rate may be enough."""
        if length > PROMPT or self.words.load(self.first + _SINCE) >= _SERIES:
            self.pause(now, length)

    def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:  # noqa: ARG002
        """Learn from the outcome of an attempt; only success and rejection count."""
        if outcome != _SUCCEEDED and outcome != _REJECTED:
            return
        if self.clock.offset or self.clock.frozen:
            real = self.real.now()
            entered, now = real - (now - entered), real
        if self.lock is None:
            news = self.learn(now, outcome, entered)
        else:
            with self.lock:
                news = self.learn(now, outcome, entered)
        if news and self.watcher is not None:
            self.watcher(news > 1)

    def learn(self, now: int, outcome: int, entered: int) -> int:
        """Adapt the rate for all processes.

        Args:
            now: The time in nanoseconds.
            outcome: Success or rejection, with the numbers from `gate`.
            entered: When the attempt began, in nanoseconds.

        Returns:
            2 after a cut, 1 if the rate has risen enough to notify waiters, otherwise 0.
        """
        news = 0
        try:
            if self.words.begin() and self.have_lease(outcome == _REJECTED):
                self.read()
                if outcome == _SUCCEEDED:
                    self.control.succeeded(now, entered)
                elif self.control.rejected(now, entered):
                    news = 2
                self.write(now, news == 2)
        finally:
            self.words.end()
        if news or self.interval > self.told:
            self.told = self.interval
        elif self.told - self.interval > self.told // _NEWS:
            self.told = self.interval
            return 1
        return news

    def have_lease(self, patient: bool) -> bool:
        """Take the lease, waiting for it if `patient`; return whether it was taken."""
        at = self.first + _LEASE
        while True:
            now = self.real.now()
            lease = self.words.load(at)
            if lease <= now or lease > now + _LONGEST_LEASE:
                done = self.words.swap(at, lease, now + _LONGEST_LEASE)
                if done > 0:
                    return True
            if not patient:
                return False

    def read(self) -> None:
        """Read the state of the rate, if a process has written it."""
        words, control, first = self.words, self.control, self.first
        self.look()
        if words.load(first + _SINCE) < _BEGUN:
            return
        control.rate = max(control.floor, min(control.given, 1e9 / self.interval))
        control.top = words.load(first + _TOP) / _UNIT
        control.base = words.load(first + _BASE) / _UNIT
        control.hold = words.load(first + _HOLD) / _UNIT
        control.clean = words.load(first + _CLEAN) / _UNIT
        control.credit = words.load(first + _CREDIT) / _UNIT
        control.served = words.load(first + _SERVED) / _UNIT
        control.heard = words.load(first + _HEARD)
        control.cut = words.load(first + _CUT)
        since = words.load(first + _SINCE)
        control.series = since >= _SERIES
        control.since = since % _SERIES

    def write(self, now: int, cut: bool) -> None:
        """Write the state of the rate, keep permits that are owed, and end the lease."""
        words, control, first = self.words, self.control, self.first
        words.put(first + _TOP, int(control.top * _UNIT))
        words.put(first + _BASE, int(control.base * _UNIT))
        words.put(first + _HOLD, int(control.hold * _UNIT))
        words.put(first + _CLEAN, int(min(control.clean, 1e9) * _UNIT))
        words.put(first + _CREDIT, int(control.credit * _UNIT))
        words.put(first + _SERVED, int(min(control.served, 1e9) * _UNIT))
        words.put(first + _HEARD, control.heard)
        words.put(first + _CUT, control.cut)
        words.put(first + _SINCE, control.since + (_SERIES if control.series else 0))
        self.retime(now, cut)
        words.put(first + _LEASE, 0)

    def retime(self, now: int, cut: bool) -> None:
        """Apply the rate of `control`, for all processes."""
        before = self.interval
        interval = ceil(1e9 / self.control.rate)
        if interval == before and not cut:
            return
        paused = self.words.load(self.first + _PAUSED)
        since = max(now, paused)
        tolerance = interval * (self.burst - 1)
        self.words.put(self.first + _INTERVAL, interval)
        done = 0
        while done == 0:
            arrival = self.words.load(0)
            then = arrival
            if arrival > since:
                owed = arrival - since
                then = since + ceil(owed / before * interval)
            if cut:
                then = max(then, now + tolerance)
            done = 1 if then == arrival else self.words.swap(0, arrival, then)
        self.interval = interval
        self.tolerance = tolerance

    def fresh(self, lock: Any) -> TokenBucket:
        """Return a full bucket with the same settings that is not shared."""
        control = self.control
        return AdaptiveBucket(control.given, self.burst, lock, (), control.floor)
