"""The token bucket that processes share: the same algorithm on words in shared memory.

One word holds the arrival time of one limit, in nanoseconds of the machine's monotonic clock, which
is the same for all processes; further words that of further limits. Whoever takes a permit puts
the next arrival time in the place of the one that was read, if nobody else has meanwhile.

Two more words are for those who wait. One says when somebody last waited in vain, so that processes
that wait know of each other. The other is a claim: somebody who has waited in vain too often says
until when nobody else takes anything. It ends by itself, so a process that dies with one is soon
forgotten.

Shared permits go by the machine's time, which tests do not move.
"""

from __future__ import annotations

from .bucket import WindowedBucket
from .clock import Clock
from .shared_counters import SharedCounters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BUSY = 100_000_000
"""Nanoseconds after which to come again when a process holds the file lock for too long."""

GRACE = 20_000_000
"""How long a claim outlives the moment at which its permits are free, in nanoseconds."""

_GLANCE = 1_000_000
"""How often to look in that time whether it has ended, in nanoseconds."""


class SharedBucket(WindowedBucket):
    """Permits at a steady rate, for all processes that share some words.

    Attributes:
        words: The shared words.
        clock: The clock of callers, which tests move.
        real: The machine's clock.
        count: How many limits there are.
        before: The arrival time before the latest permit of this process, in nanoseconds.
        claim: Until when this process has claimed what comes, in nanoseconds; 0 if it has not.
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
        """Use the words as they are.

        Args:
            rate: Permits per second.
            burst: How many permits may be taken at once after a pause.
            lock: A mutex for the threads of this process, or None.
            windows: The interval in nanoseconds and the burst of each further limit.
            words: One for each limit, and two more.
            clock: The clock of callers, which tests may move.
            real: A clock that nobody moves.
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
        """Take a permit if one is free and nobody waits for it, as `TokenBucket` does."""
        if now > self.words.look_at:
            self.words.look(now)
        return WindowedBucket.enter(self, now)

    def take_many(self, now: int, weight: int) -> int:
        """Take `weight` permits at once, as `enter` does one."""
        if now > self.words.look_at:
            self.words.look(now)
        return WindowedBucket.take_many(self, now, weight)

    def admit(self, now: int) -> int:
        """Take a permit if one is free; 0 if it was, else nanoseconds until it might be."""
        return self.admit_many(now, 1)

    def admit_many(self, now: int, weight: int) -> int:
        """Take `weight` permits at once, as `admit` does one."""
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
        """Return for how many nanoseconds a claim of another process has to be heeded."""
        claim = self.words.load(self.count + 1)
        if claim <= now or claim == self.claim:
            return 0
        return max(claim - GRACE - now, _GLANCE)

    def _attempt(self, now: int, weight: int) -> int:
        """Take permits; -1 if that has to begin again."""
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
        """Take permits from every limit, or from none; -1 if that has to begin again."""
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
                self._return(receipts)  # somebody else was faster at this one
                return wait
        self._receipts = receipts
        return 0

    def _refresh(self) -> None:
        """Note the arrival times."""
        self.arrival: int = self.words.load(0)
        for at in range(1, self.count):
            other = self.others[at - 1]
            other.arrival = self.words.load(at)

    def _return(self, receipts: Any) -> None:
        """Restore arrival times that nobody has changed since."""
        for at, (before, after) in enumerate(receipts):
            self.words.swap(at, after, before)

    def due(self, now: int, weight: int, ahead: int) -> int:
        """Return when `weight` permits are free, at the earliest."""
        self._refresh()
        return WindowedBucket.due(self, now, weight, ahead)

    def pause(self, now: int, length: int) -> None:
        """Let no process have a permit for a while; a pause that lasts longer already goes on."""
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
        """Return what gives back the permits that were taken last."""
        if self.count > 1:
            return self._receipts
        return [(self.before, self.arrival)]

    def undo(self, receipt: Any, weight: int = 1) -> None:  # noqa: ARG002
        """Give back permits that were not used, unless others were taken since."""
        try:
            if self.words.begin():
                self._return(receipt)
        finally:
            self.words.end()

    def want(self) -> None:
        """Note that somebody has waited for a permit that another process got."""
        self.words.put(self.count, self.real.now())

    def stake(self, now: int, weight: int) -> None:
        """Claim what comes until `weight` permits are free, unless another process does.

        Args:
            now: The time in nanoseconds.
            weight: How many permits are wanted.
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
        """Return when somebody last noted that, in nanoseconds."""
        return self.words.load(self.count)
