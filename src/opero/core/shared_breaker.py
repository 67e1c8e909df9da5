"""The breaker that processes share: one state machine on words in shared memory.

    word 0        the generation, a time in milliseconds, and whether the breaker is open until that
                  time or closed since then. A process that changes the state stores the next
                  generation, unless another was quicker: so exactly one process opens or closes it
    words 1-10    the rolling window: for each tenth, the generation, the number of the tenth,
                  attempts and failures
    words 11-     the places of probes: the generation, and the millisecond at which the lease
                  expires, or a mark that the probe succeeded

Nothing needs cleaning up. A new generation voids every count and every lease of older ones, and
reports of older generations change nothing. A process that dies during its probe leaves a lease
that expires; one that dies at any other moment leaves consistent words. Joining changes nothing.

All times are from the machine's monotonic clock, which processes share and tests do not move.
"""

from __future__ import annotations

from .breaker import CLOSED, HALF_OPEN, OPEN
from .clock import Clock
from .gate import REJECTED, SUCCEEDED, Gate
from .shared_counters import SharedCounters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TENTHS = 10
"""The number of parts of the window."""

GLANCE = 50_000_000
"""Nanoseconds after which to ask again while others probe: a probe may end at any time."""

_GLANCE = GLANCE
_MS = 1_000_000
_GENERATION = (1 << 20) - 1
_TIME = (1 << 40) - 1
"""Milliseconds: enough for 34 years since the machine booted; the last value means "succeeded"."""
_INDEX = (1 << 24) - 1
_MOST = (1 << 16) - 1
"""How many attempts a tenth counts; beyond that, its counts are halved."""
_AGAIN = 1 << 62
_HELD_UP = 1_000_000_000
"""For how many nanoseconds not to count, after a stopped process was found holding the lock."""
_ELSEWHERE = "another process has said so"
_SUCCEEDED = SUCCEEDED
_REJECTED = REJECTED


class SharedBreaker(Gate):
    """Lets attempts in unless too many have failed, for all processes that share some words.

    Attributes:
        words: The shared words: `word_count(probes)` of them.
        lock: A mutex for the threads of this process, or None.
        clock: The clock of callers, which tests move.
        real: The machine's clock.
        tenth: Nanoseconds of a tenth of the window.
        failure_ratio: The share of failures at which it opens.
        minimum: The number of attempts in the window below which it never opens.
        open_for: Nanoseconds for which it stays open.
        lease: Nanoseconds after which a probe that has not reported loses its place.
        probes: How many probes may run at a time, and must succeed to close it.
        seen: The last word 0 that this process has noticed.
        probed: The last word 0 under which this process has probed.
        held: The leases of this process, by the tickets of their probes.
        serial: The number of this process's latest probe.
        taken: The lease taken in this step, or 0. It is used only after the step, because other
            threads might otherwise get in between.
        place: The number of that lease's word.
        watcher: Called with the new state and the reason, in words; with the state and None when a
            probe has given its place back. None if there is no watcher.
        deaf_until: Until when nothing is counted, in nanoseconds.
        why: Why this process last opened the breaker, in words.
    """

    __slots__ = (
        "clock",
        "deaf_until",
        "failure_ratio",
        "held",
        "lease",
        "lock",
        "minimum",
        "open_for",
        "place",
        "probed",
        "probes",
        "real",
        "seen",
        "serial",
        "taken",
        "tenth",
        "watcher",
        "why",
        "words",
    )

    def __init__(
        self,
        words: SharedCounters,
        lock: Any,
        clock: Clock,
        real: Clock,
        window: int,
        failure_ratio: float,
        minimum: int,
        open_for: int,
        lease: int,
        probes: int,
    ) -> None:
        """Begin with the current content of the words.

        Args:
            words: The shared words, all 0 at first.
            lock: A mutex for the threads of this process, or None.
            clock: The clock of callers, which tests may move.
            real: A clock that tests never move.
            window: Nanoseconds of the rolling window.
            failure_ratio: The share of failures at which it opens.
            minimum: The number of attempts in the window below which it never opens.
            open_for: Nanoseconds for which it stays open.
            lease: Nanoseconds after which a probe that has not reported loses its place.
            probes: How many probes may run at a time, and must succeed to close it.
        """
        self.observes: bool = True
        self.refuses: bool = True
        self.words: SharedCounters = words
        self.lock: Any = lock
        self.clock: Clock = clock
        self.real: Clock = real
        self.tenth: int = max(1, window // TENTHS)
        self.failure_ratio: float = failure_ratio
        self.minimum: int = minimum
        self.open_for: int = open_for
        self.lease: int = lease
        self.probes: int = probes
        self.seen: int = words.load(0)
        self.probed: int = 0
        self.held: dict[int, tuple[int, int]] = {}
        self.serial: int = 0
        self.taken: int = 0
        self.place: int = 0
        self.watcher: Any = None
        self.deaf_until: int = 0
        self.why: str = ""

    # --- the gate -------------------------------------------------------------------------------

    def enter(self, now: int) -> int:
        """Let an attempt in, or return when to ask again.

        Args:
            now: The time in nanoseconds.

        Returns:
            The attempt's ticket, negated (0 or less), or the nanoseconds until it might be let in.
        """
        if now > self.words.look_at:
            self.words.look(now)
        word = self.words.load(0)
        if word != self.seen:
            self.notice(word, _ELSEWHERE)
        if word & 1 == 0:
            return -(word >> 41)
        return self.knock(self.machine_time(now))

    def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:  # noqa: ARG002
        """Record how an attempt ended.

        Args:
            now: The time in nanoseconds.
            outcome: How it ended.
            entered: When it came in, in nanoseconds.
            ticket: What `enter` returned, negated.
        """
        if ticket > _GENERATION:
            self.report(self.machine_time(now), ticket, outcome)
        elif outcome <= _REJECTED:
            now = self.machine_time(now)
            if now >= self.deaf_until:
                self.count(now, ticket, outcome != _SUCCEEDED)

    def is_common(self, ticket: int) -> bool:
        """Return whether this is the common ticket of a closed breaker, not that of a probe."""
        return ticket <= _GENERATION

    def holds(self, now: int, ticket: int) -> bool:  # noqa: ARG002
        """Return whether the breaker has stayed closed since, or the probe still has its place."""
        if ticket <= _GENERATION:
            word = self.words.load(0)
            return word & 1 == 0 and word >> 41 == ticket
        lease = self.held.get(ticket)
        return lease is not None and self.words.load(lease[0]) == lease[1]

    def machine_time(self, now: int) -> int:
        """Return the machine's time for a time on the callers' clock."""
        if self.clock.offset or self.clock.frozen:
            return self.real.now()
        return now

    # --- probes ---------------------------------------------------------------------------------

    def knock(self, now: int) -> int:
        """Enter an open breaker as a probe, if one is due; return the same as `enter`."""
        if self.lock is None:
            answer = self._knock(now)
        else:
            with self.lock:
                answer = self._knock(now)
        if answer > 0 and self.left(self.seen, now) <= 0 and self.is_within():
            self.serial += 1  # no probe has this number, so its outcome does not count
            return -(self.serial << 20 | self.seen >> 41)
        if answer <= 0 and self.probed != self.seen:
            self.probed = self.seen
            if self.watcher is not None:
                self.watcher(HALF_OPEN, "it has been open for long enough")
        return answer

    def _knock(self, now: int) -> int:
        answer = _AGAIN
        while answer == _AGAIN:
            self.taken = 0
            try:
                answer = self._take(now) if self.words.begin() else _GLANCE
            finally:
                self.words.end()
        if self.taken == 0:
            return answer
        mine = self.taken
        place = self.place
        self.serial += 1
        ticket = self.serial << 20 | mine >> 40
        self._forget(mine >> 40)
        self.held[ticket] = (place, mine)
        return -ticket

    def _take(self, now: int) -> int:
        """Take a lease; return the same as `enter`, or `_AGAIN`."""
        words = self.words
        word = words.load(0)
        generation = word >> 41
        if word & 1 == 0:
            return -generation
        wait = self.left(word, now)
        if wait > 0:
            return wait
        wait = _GLANCE
        good = 0
        moment = now // _MS
        length = self.lease // _MS + 1
        for at in range(TENTHS + 1, TENTHS + 1 + self.probes):
            before = words.load(at)
            if before >> 40 == generation:
                if before & _TIME == _TIME:
                    good += 1
                    continue
                left = (before & _TIME) - moment
                if (
                    left > 0
                ):  # it may exceed the length of a lease if this thread had to wait for the lock
                    wait = min(wait, left * _MS)
                    continue
            mine = generation << 40 | ((moment + length) & _TIME)
            if words.swap(at, before, mine) < 1:
                return _AGAIN
            if words.load(0) != word:  # the state has changed since, so the lease is void
                return _AGAIN
            self.taken = mine
            self.place = at
            return 0
        if good == self.probes:  # the process with the last probe died before closing it
            words.swap(0, word, self._next(word, now, 0))
            return _AGAIN
        return wait

    def is_under_way(self, ticket: int) -> bool:
        """Return whether the probe with this ticket has yet to report."""
        return ticket in self.held

    def _forget(self, generation: int) -> None:
        """Forget the leases of older generations, whose probes no longer count."""
        for ticket in list(self.held):
            if ticket & _GENERATION != generation:
                self.held.pop(ticket, None)

    def report(self, now: int, ticket: int, outcome: int) -> None:
        """Close the breaker, open it again, or give the lease back, as the probe's outcome says."""
        if self.lock is None:
            word = self._report(now, ticket, outcome)
        else:
            with self.lock:
                word = self._report(now, ticket, outcome)
        if word > 0:
            one = "the probe" if self.probes == 1 else "a probe" if word & 1 else "the probes"
            self.notice(word, f"{one} failed" if word & 1 else f"{one} succeeded")
        elif word == 0 and self.watcher is not None:
            self.watcher(HALF_OPEN, None)

    def _report(self, now: int, ticket: int, outcome: int) -> int:
        """Do so; return the new word 0, or 0 if a place became free, or -1 if nothing changed."""
        lease = self.held.pop(ticket, None)
        if lease is None:  # a ticket from before a fork, or of an older generation
            return -1
        at, mine = lease
        words = self.words
        fresh = 0
        done = -1
        while done < 0:
            try:
                if not words.begin():
                    return -1  # a stopped process has the file lock: the lease expires
                word = words.load(0)
                if words.load(at) != mine or word & 1 == 0 or word >> 41 != mine >> 40:
                    return -1
                if outcome > _REJECTED:
                    done = words.swap(at, mine, 0)
                elif outcome != _SUCCEEDED:
                    fresh = self._next(word, now + self.open_for + _MS, 1)
                    done = words.swap(0, word, fresh)
                elif self._count_good(mine >> 40) + 1 < self.probes:
                    fresh = -1
                    done = words.swap(at, mine, mine | _TIME)
                else:
                    fresh = self._next(word, now, 0)
                    done = words.swap(0, word, fresh)
            finally:
                words.end()
        return fresh if done else -1

    def _count_good(self, generation: int) -> int:
        """Return how many probes have succeeded."""
        good = 0
        for at in range(TENTHS + 1, TENTHS + 1 + self.probes):
            if self.words.load(at) == generation << 40 | _TIME:
                good += 1
        return good

    # --- the window -----------------------------------------------------------------------------

    def count(self, now: int, generation: int, failed: bool) -> None:
        """Count an attempt of a closed breaker, and open the breaker after one failure too many."""
        if self.lock is None:
            word = self._count(now, generation, failed)
        else:
            with self.lock:
                word = self._count(now, generation, failed)
        if word:
            self.notice(word, self.why)

    def _count(self, now: int, generation: int, failed: bool) -> int:
        """Do so; return the new word 0, or 0 if the state did not change."""
        words = self.words
        done = -1
        fresh = 0
        while done < 0:
            try:
                if not words.begin():
                    self.deaf_until = now + _HELD_UP
                    return 0
                done = self._add(now, generation, failed)
            finally:
                words.end()
        if not failed or not done:
            return 0
        done = -1
        while done < 0:
            try:
                if not words.begin():
                    return 0
                word = words.load(0)
                if word & 1 or word >> 41 != generation or not self._is_too_much(now, generation):
                    return 0
                fresh = self._next(word, now + self.open_for + _MS, 1)
                done = words.swap(0, word, fresh)
            finally:
                words.end()
        return fresh if done else 0

    def _add(self, now: int, generation: int, failed: bool) -> int:
        """Count in a tenth; return 1, or 0 if the attempt does not count, or -1 to repeat."""
        words = self.words
        index = now // self.tenth
        at = 1 + index % TENTHS
        tag = (generation & 63) << 24 | (index & _INDEX)
        while True:
            word = words.load(0)
            if word & 1 or word >> 41 != generation:
                return 0
            before = words.load(at)
            attempts = 0
            failures = 0
            if before >> 32 == tag:
                attempts = before >> 16 & _MOST
                failures = before & _MOST
                if attempts == _MOST:
                    attempts >>= 1
                    failures >>= 1
            attempts += 1
            if failed:
                failures += 1
            done = words.swap(at, before, tag << 32 | attempts << 16 | failures)
            if done:
                return done

    def _is_too_much(self, now: int, generation: int) -> bool:
        """Return whether enough attempts in the window failed to open the breaker."""
        attempts = 0
        failures = 0
        index = now // self.tenth
        for at in range(1, TENTHS + 1):
            word = self.words.load(at)
            if word >> 56 == generation & 63 and ((index - (word >> 32)) & _INDEX) < TENTHS:
                attempts += word >> 16 & _MOST
                failures += word & _MOST
        if attempts < self.minimum or failures / attempts < self.failure_ratio:
            return False
        self.why = (
            f"{failures} of {attempts} attempts failed within {self.tenth * TENTHS / 1e9:g} s"
        )
        return True

    # --- the state ------------------------------------------------------------------------------

    def trip(self, now: int, length: int, reason: str) -> None:
        """Open the breaker, whatever its state.

        Args:
            now: The time in nanoseconds.
            length: For how many nanoseconds; 0 for `open_for`.
            reason: Why, in words.
        """
        until = self.machine_time(now) + (length or self.open_for) + _MS
        self.notice(self.move(min(until, _TIME * _MS), 1), reason)

    def reset(self, reason: str) -> None:
        """Close the breaker and forget its counts.

        Args:
            reason: Why, in words.
        """
        self.notice(self.move(self.real.now(), 0), reason)

    def move(self, time: int, opened: int) -> int:
        """Begin the next generation without notice to the watcher.

        Args:
            time: Until when it is open, or since when it is closed, in nanoseconds.
            opened: 1 if it is open.

        Returns:
            The new word 0.

        Raises:
            TimeoutError: If a stopped process holds the file lock.
        """
        done = 0
        while done < 1:
            try:
                if not self.words.begin():
                    raise TimeoutError("a suspended process holds the lock of the breaker")
                word = self.words.load(0)
                fresh = self._next(word, time, opened)
                done = self.words.swap(0, word, fresh)
            finally:
                self.words.end()
        return fresh

    def _next(self, word: int, time: int, opened: int) -> int:
        """Return word 0 of the next generation."""
        return (((word >> 41) + 1) & _GENERATION) << 41 | (time // _MS & _TIME) << 1 | opened

    def left(self, word: int, now: int) -> int:
        """Return the nanoseconds until an open breaker admits a probe; 0 or less if it does now."""
        return (word >> 1 & _TIME) * _MS - now

    def opens_in(self, now: int) -> int:
        """Return the nanoseconds until it might let an attempt in; 0 if it would now."""
        word = self.words.load(0)
        if word & 1 == 0:
            return 0
        now = self.machine_time(now)
        wait = self.left(word, now)
        if wait > 0:
            return wait
        return self._busy(now, word >> 41)

    def _busy(self, now: int, generation: int) -> int:
        """Return the nanoseconds until a place for a probe might be free; 0 if one is."""
        moment = now // _MS
        wait = _GLANCE
        for at in range(TENTHS + 1, TENTHS + 1 + self.probes):
            before = self.words.load(at)
            left = (before & _TIME) - moment
            if before >> 40 != generation:
                return 0
            if before & _TIME == _TIME:
                continue
            if left <= 0:
                return 0
            wait = min(wait, left * _MS)
        return wait

    def state_at(self, now: int) -> int:
        """Return the state; half-open if it would admit a probe.

        Args:
            now: The time in nanoseconds.
        """
        word = self.words.load(0)
        if word & 1 == 0:
            return CLOSED
        return OPEN if self.left(word, self.machine_time(now)) > 0 else HALF_OPEN

    def is_used(self) -> bool:
        """Return whether it has counted an attempt."""
        return max([self.words.load(at) for at in range(1, TENTHS + 1)]) > 0

    def notice(self, word: int, reason: str) -> None:
        """Record the new word 0, and call the watcher once for it."""
        before = self.seen
        self.seen = word
        if before != word and self.watcher is not None:
            self.watcher(OPEN if word & 1 else CLOSED, reason)

    def after_fork(self, lock: Any) -> None:
        """Drop the parent's probes in a child process: they remain the parent's.

        Args:
            lock: A mutex for the threads of the child, or None.
        """
        self.lock = lock
        self.held = {}


def word_count(probes: int) -> int:
    """Return how many words a breaker needs."""
    return 1 + TENTHS + probes
