"""The token bucket that processes share: the same algorithm on words in shared memory.

One word holds the arrival time of the first limit, in nanoseconds of the machine's monotonic clock,
which all processes share; each further limit has a word of its own. To take a permit, a process
replaces the arrival time that it read with the next one, unless another process has changed it.

Two more words are for waiters. One records when a process last waited in vain, so that waiting
processes know of each other. The other is a claim: a process that has waited in vain too often sets
the time until which no other process takes a permit. A claim expires, so one left by a dead process
soon stops counting.

Shared permits use the machine's time, which tests do not move.
"""

from __future__ import annotations

from .bucket import WindowedBucket
from .clock import Clock
from .shared_counters import SharedCounters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BUSY = 100_000_000
"""Nanoseconds after which to try again when a process holds the file lock for too long."""

GRACE = 20_000_000
"""How long a claim lasts after its permits become free, in nanoseconds."""

_GLANCE = 1_000_000
"""How often to check during that time whether the claim has ended, in nanoseconds."""


class SharedBucket(WindowedBucket):
    """Permits at a steady rate, for all processes that share some words.

    Attributes:
        words: The shared words.
        clock: The clock of callers, which tests move.
        real: The machine's clock.
        count: The number of limits.
        before: The arrival time before the latest permit of this process, in nanoseconds.
        claim: Until when this process has claimed the next permits, in nanoseconds; 0 if it has no
            claim.
    """

    __slots__ = ("_receipts", "before", "claim", "clock", "count", "real", "words")

    def __init__(
        self,
        rate: float,
        burst: int,
        lock: Any,
        windows: tuple[tuple[int, int], ...],
        words: SharedCounters,
        clock: Clock,
        real: Clock,
    ) -> None:
        """Begin with the current content of the words.

        Args:
            rate: Permits per second.
            burst: How many permits may be taken at once after a pause.
            lock: A mutex for the threads of this process, or None.
            windows: The interval in nanoseconds and the burst of each further limit.
            words: One for each limit, and two more.
            clock: The clock of callers, which tests may move.
            real: A clock that tests never move.
        """
        WindowedBucket.__init__(self, rate, burst, lock, windows)
        self.words: SharedCounters = words
        self.clock: Clock = clock
        self.real: Clock = real
        self.count: int = 1 + len(self.others)
        self.before: int = 0
        self.claim: int = 0
        self._receipts: Any = None

    def enter(self, now: int) -> int:
        """Take a permit if one is free and no caller waits for it, as `TokenBucket` does."""
        if now > self.words.look_at:
            self.words.look(now)
        return WindowedBucket.enter(self, now)

    def take_many(self, now: int, weight: int) -> int:
        """Take `weight` permits together, as `enter` takes one."""
        if now > self.words.look_at:
            self.words.look(now)
        return WindowedBucket.take_many(self, now, weight)

    def admit(self, now: int) -> int:
        """Take a permit if one is free; return 0, or the nanoseconds until one might be free."""
        return self.admit_many(now, 1)

    def admit_many(self, now: int, weight: int) -> int:
        """Take `weight` permits together, as `admit` takes one."""
        if self.clock.offset or self.clock.frozen:
            now = self.real.now()
        wait = -1
        while wait < 0:
            try:
                wait = self._attempt(now, weight) if self.words.begin() else BUSY
                if self.claim and wait == 0:
                    self.words.swap(self.count + 1, self.claim, 0)
                    self.claim = 0
            finally:
                self.words.end()
        return wait

    def _held_up(self, now: int) -> int:
        """Return for how many nanoseconds another process's claim still blocks this one."""
        claim = self.words.load(self.count + 1)
        if claim <= now or claim == self.claim:
            return 0
        return max(claim - GRACE - now, _GLANCE)

    def _attempt(self, now: int, weight: int) -> int:
        """Take permits; return -1 if this step must be repeated."""
        if self.count > 1:
            return self._attempt_all(now, weight)
        words = self.words
        while True:
            before = words.load(0)
            wait = before - self.tolerance + (weight - 1) * self.interval - now
            if wait <= 0:
                wait = self._held_up(now)
            if wait > 0:
                return wait
            after = max(before, now) + weight * self.interval
            done = words.swap(0, before, after)
            if done > 0:
                self.before = before
                self.arrival = after
                return 0
            if done < 0:
                return -1

    def _attempt_all(self, now: int, weight: int) -> int:
        """Take permits from every limit or none; return -1 if this step must be repeated."""
        self._refresh()
        wait = self.lack(now, weight)
        if wait <= 0:
            wait = self._held_up(now)
        if wait > 0:
            return wait
        receipts: list[tuple[int, int]] = []
        for at in range(self.count):
            limit = self.others[at - 1] if at else self
            while True:
                before = self.words.load(at)
                wait = before - limit.tolerance + (weight - 1) * limit.interval - now
                if wait <= 0:
                    after = max(before, now) + weight * limit.interval
                    done = self.words.swap(at, before, after)
                    if done == 0:
                        continue
                    if done > 0:
                        receipts.append((before, after))
                        break
                    wait = -1
                self._return(receipts)  # another process was faster at this limit
                return wait
        self._receipts = receipts
        return 0

    def _refresh(self) -> None:
        """Read the arrival times."""
        self.arrival: int = self.words.load(0)
        for at in range(1, self.count):
            other = self.others[at - 1]
            other.arrival = self.words.load(at)

    def _return(self, receipts: Any) -> None:
        """Restore the arrival times that no other process has changed since."""
        for at, (before, after) in enumerate(receipts):
            self.words.swap(at, after, before)

    def due(self, now: int, weight: int, ahead: int) -> int:
        """Return the earliest time at which `weight` permits are free."""
        self._refresh()
        return WindowedBucket.due(self, now, weight, ahead)

    def pause(self, now: int, length: int) -> None:
        """Give no process a permit for `length` nanoseconds; a longer pause continues."""
        if self.clock.offset or self.clock.frozen:
            now = self.real.now()
        floor = now + length + self.tolerance
        done = -1
        while done < 1:
            try:
                if self.words.begin():
                    before = self.words.load(0)
                    done = 1 if before >= floor else self.words.swap(0, before, floor)
            finally:
                self.words.end()

    def receipt(self) -> Any:
        """Return a receipt for the permits taken last, which `undo` accepts."""
        if self.count > 1:
            return self._receipts
        return [(self.before, self.arrival)]

    def undo(self, receipt: Any, weight: int = 1) -> None:  # noqa: ARG002
        """Give back unused permits, unless other permits were taken since."""
        try:
            if self.words.begin():
                self._return(receipt)
        finally:
            self.words.end()

    def want(self) -> None:
        """Record that a caller waited for a permit that another process got."""
        self.words.put(self.count, self.real.now())

    def stake(self, now: int, weight: int) -> None:
        """Claim the next permits until `weight` are free, unless another process has a claim.

        Args:
            now: The time in nanoseconds.
            weight: The number of permits needed.
        """
        until = self.due(now, weight, 0) + GRACE
        at = self.count + 1
        done = -1
        while done < 1:
            try:
                if not self.words.begin():
                    return
                claim = self.words.load(at)
                if claim > now and claim != self.claim:
                    return
                done = self.words.swap(at, claim, until)
                if done > 0:
                    self.claim = until
            finally:
                self.words.end()

    def waive(self) -> None:
        """Give up the claim of this process, if it has one."""
        if self.claim:
            try:
                if self.words.begin():
                    self.words.swap(self.count + 1, self.claim, 0)
            finally:
                self.words.end()
            self.claim = 0

    def wanted(self) -> int:
        """Return the time of the last `want` of any process, in nanoseconds."""
        return self.words.load(self.count)
