"""The breaker that hosts share: one process's view of it, and what it has yet to report.

    enter, leave     decide by the last known state; count; never wait
    consults         whether the caller may now ask the server for the lease of a probe
    parcel, adopt    what an exchange with the server sends, and what it brings back
    go_alone         the server cannot be reached: from now on `local` decides

While the server answers, it alone opens and closes the breaker, from the counts of all processes.
Each process sees a change one exchange late, except for the results of its own probes: it applies
those immediately, and the server confirms or corrects them.

Each change of the known state begins a new epoch. A ticket holds its epoch, so reports of attempts
from before a change do not count. Odd tickets belong to `local`.
"""

from __future__ import annotations

from .breaker import CLOSED, HALF_OPEN, OPEN
from .clock import Clock
from .gate import REJECTED, SUCCEEDED, WITHDRAWN, Gate
from .shared_breaker import GLANCE, SharedBreaker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PERIOD = 1_000_000_000
"""Nanoseconds after which the known state is old, and the next attempt requests an exchange."""

_GLANCE = GLANCE
_PERIOD = PERIOD
_ASK_GAP = 20_000_000
"""Nanoseconds between two requests of a process for the lease of a probe."""
_EPOCH = (1 << 32) - 1
_SUCCEEDED = SUCCEEDED
_REJECTED = REJECTED
_WITHDRAWN = WITHDRAWN
_TELL = -3
"""`_adopt` returns this if the server has lost its record and this process knows more."""


class RemoteBreaker(Gate):
    """Lets attempts in unless too many have failed, in all processes that share a server's record.

    Attributes:
        local: Decides while the server cannot be reached.
        lock: A mutex for the threads of this process, or None.
        real: The machine's clock.
        open_for: Nanoseconds for which it stays open.
        summon: Called when an exchange is due; it must not wait.
        order: Called with "trip" or "reset" for the server; it may wait.
        watcher: Called with the new state and the reason, in words; with the state and None when a
            probe has given its place back. None if there is no watcher.
        alone: Whether the server cannot be reached.
        opened: Whether the breaker is open, as far as this process knows.
        until: Until when it is open, in nanoseconds of the machine's clock.
        generation: The state's number at the server, as far as this process knows; 0 if unknown.
        confirmed: The last number that the server has confirmed.
        epoch: The number of the known state.
        changed: When the known state last changed, in nanoseconds.
        heard: When the server last answered, in nanoseconds.
        due: Whether an exchange is due.
        attempts: The number of attempts not yet reported.
        failures: How many of these failed.
        reports: The results of probes not yet reported: pairs of lease and outcome.
        leases: Granted leases that no attempt has taken yet, each with the time it expires.
        held: The leases of probes that are under way, by ticket.
        serial: The number of the latest probe.
        claimed: Whether a caller was told to ask for a lease and has not begun to.
        used: Whether it has counted an attempt.
        asked: When the server was last asked for a lease, in nanoseconds.
    """

    __slots__ = (
        "alone",
        "asked",
        "attempts",
        "changed",
        "claimed",
        "confirmed",
        "due",
        "epoch",
        "failures",
        "generation",
        "heard",
        "held",
        "leases",
        "local",
        "lock",
        "open_for",
        "opened",
        "order",
        "real",
        "reports",
        "serial",
        "summon",
        "until",
        "used",
        "watcher",
    )

    def __init__(self, local: SharedBreaker, lock: Any, summon: Any) -> None:
        """Begin with no known state, and let attempts in.

        Args:
            local: A breaker with the same settings on words that only this process uses.
            lock: A mutex for the threads of this process, or None.
            summon: Called when an exchange is due.
        """
        self.observes: bool = True
        self.refuses: bool = True
        self.local: SharedBreaker = local
        self.lock: Any = lock
        self.real: Clock = local.real
        self.open_for: int = local.open_for
        self.summon: Any = summon
        self.order: Any = None
        self.watcher: Any = None
        self.alone: bool = False
        self.opened: bool = False
        self.until: int = 0
        self.generation: int = 0
        self.confirmed: int = 0
        self.epoch: int = 0
        self.changed: int = 0
        self.heard: int = -_PERIOD
        self.due: bool = False
        self.attempts: int = 0
        self.failures: int = 0
        self.reports: list[tuple[str, int]] = []
        self.leases: list[tuple[str, int]] = []
        self.held: dict[int, str] = {}
        self.serial: int = 0
        self.asked: int = 0
        self.claimed: bool = False
        self.used: bool = False

    # --- the gate -------------------------------------------------------------------------------

    def enter(self, now: int) -> int:
        """Let an attempt in, or return when to ask again (see `Gate`)."""
        now = self.local.machine_time(now)
        if now - self.heard > _PERIOD and not self.due:
            self.call_for()
        if self.alone:
            answer = self.local.enter(now)
            if answer <= 0:
                return answer * 2 - 1
            if self.local.state_at(now) == HALF_OPEN and self.is_within():
                return self.unheard()
            return answer
        if not self.opened:
            return -(self.epoch << 1)
        if now < self.until:
            return self.until - now
        if self.lock is None:
            return self._probe(now)
        with self.lock:
            return self._probe(now)

    def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:
        """Record how an attempt ended (see `Gate`)."""
        if ticket & 1:
            self.local.leave(self.local.machine_time(now), outcome, entered, ticket >> 1)
        elif ticket >> 33:
            self.report(self.local.machine_time(now), outcome, ticket)
        elif outcome <= _REJECTED:
            if self.lock is None:
                self._count(ticket, outcome)
            else:
                with self.lock:
                    self._count(ticket, outcome)
            if self.failures and not self.due:
                self.call_for()

    def is_common(self, ticket: int) -> bool:
        """Return whether this is the common ticket of a closed breaker, not that of a probe."""
        return self.local.is_common(ticket >> 1) if ticket & 1 else ticket >> 33 == 0

    def holds(self, now: int, ticket: int) -> bool:
        """Return whether the breaker has stayed closed since, or the probe still has its place."""
        if ticket & 1:
            return self.alone and self.local.holds(now, ticket >> 1)
        if ticket >> 33:
            return ticket in self.held
        return ticket >> 1 == self.epoch and not self.opened

    def _count(self, ticket: int, outcome: int) -> None:
        if ticket >> 1 == self.epoch and not self.opened:
            self.used = True
            self.attempts += 1
            if outcome != _SUCCEEDED:
                self.failures += 1

    def _probe(self, now: int) -> int:
        """Take a granted lease, if there is one."""
        while self.leases and not self.alone:
            lease, over = self.leases.pop()
            if now < over:
                self.serial += 1
                ticket = self.serial << 33 | self.epoch << 1
                self.held[ticket] = lease
                return -ticket
        return self.unheard() if self.is_within() else _GLANCE

    def unheard(self) -> int:
        """Let in an attempt made inside a probe, with a ticket that holds no lease."""
        self.serial += 1
        return -(self.serial << 33 | self.epoch << 1)

    def is_under_way(self, ticket: int) -> bool:
        """Return whether the probe with this ticket has yet to report."""
        if ticket & 1:
            return self.local.is_under_way(ticket >> 1)
        return ticket in self.held

    def report(self, now: int, outcome: int, ticket: int) -> None:
        """Apply the result of a probe, and request an exchange to report it to the server."""
        if self.lock is None:
            state = self._report(now, outcome, ticket)
        else:
            with self.lock:
                state = self._report(now, outcome, ticket)
        if state < 0:
            return
        self.call_for()
        if self.watcher is None:
            return
        if state == OPEN:
            self.watcher(OPEN, "the probe failed" if self.local.probes == 1 else "a probe failed")
        elif state == CLOSED:
            self.watcher(CLOSED, "the probe succeeded")
        else:
            self.watcher(HALF_OPEN, None)

    def _report(self, now: int, outcome: int, ticket: int) -> int:
        """Apply the result; return the new state, or -1 if the server need not know."""
        lease = self.held.pop(ticket, None)
        if lease is None or self.alone:
            return -1
        self.reports.append((lease, outcome))
        if outcome == _SUCCEEDED and self.local.probes == 1:
            self._change(now, False, 0, self.generation + 1)
            return CLOSED
        if outcome != _SUCCEEDED and outcome <= _REJECTED:
            self._change(now, True, now + self.open_for, self.generation + 1)
            return OPEN
        return HALF_OPEN

    def _change(self, now: int, opened: bool, until: int, generation: int) -> None:
        """Begin another epoch."""
        self.changed = now
        self.opened = opened
        self.until = until
        self.generation = generation
        self.epoch = (self.epoch + 1) & _EPOCH
        self.attempts = 0
        self.failures = 0
        self.leases.clear()
        self.held.clear()

    # --- exchanges ------------------------------------------------------------------------------

    def consults(self, now: int) -> bool:
        """Return whether a caller who was refused should ask for the lease of a probe."""
        now = self.local.machine_time(now)
        if self.alone or not self.opened or now < self.until or now - self.asked < _ASK_GAP:
            return False
        self.asked = now
        self.claimed = True
        return True

    def claim(self) -> bool:
        """Return whether the caller should ask now: True once after `consults` returned True."""
        claimed = self.claimed
        self.claimed = False
        return claimed

    def opens_in(self, now: int) -> int:
        """Return the nanoseconds until the breaker might let an attempt in."""
        now = self.local.machine_time(now)
        if now - self.heard > _PERIOD and not self.due:
            self.call_for()
        if self.alone:
            return self.local.opens_in(now)
        if not self.opened:
            return 0
        return max(self.until - now, _GLANCE if self.held else 0)

    def call_for(self) -> None:
        """Request an exchange soon."""
        self.due = True
        self.summon()

    def parcel(self, now: int) -> tuple[Any, ...]:
        """Take out what is to be reported to the server.

        Args:
            now: The time in nanoseconds of the machine's clock.

        Returns:
            The generation of the attempts; the number of attempts; the failures among them; the
            results of probes; and for how many more nanoseconds the breaker is open according to
            the server: 0 if closed, below 0 if the server has not confirmed the state. While this
            process is alone, the last is for how long the breaker is open here, or below 0.
        """
        if self.lock is None:
            return self._parcel(now)
        with self.lock:
            return self._parcel(now)

    def _parcel(self, now: int) -> tuple[Any, ...]:
        self.due = False
        left = -1
        if self.alone:
            if self.local.state_at(now) == OPEN:  # matters if the server has lost its record
                left = self.local.opens_in(now)
        elif self.confirmed and self.confirmed == self.generation:
            left = max(0, self.until - now) if self.opened else 0
        found = self.generation, self.attempts, self.failures, self.reports, left
        self.attempts = 0
        self.failures = 0
        self.reports = []
        return found

    def adopt(
        self,
        now: int,
        since: int,
        generation: int,
        opened: bool,
        left: int,
        reason: str,
        lease: str,
    ) -> None:
        """Apply the reply of the server.

        Args:
            now: The time in nanoseconds of the machine's clock.
            since: When the server was asked.
            generation: The state's number.
            opened: Whether the breaker is open.
            left: For how many more nanoseconds; below 0 if the record is new and was never open.
            reason: Why it opened, if this exchange opened it.
            lease: The granted lease; "" for none.
        """
        if self.lock is None:
            state = self._adopt(now, since, generation, opened, left, lease)
        else:
            with self.lock:
                state = self._adopt(now, since, generation, opened, left, lease)
        if state == _TELL:
            self.call_for()
        if self.watcher is None:
            return
        if state >= 0:
            self.watcher(state, reason or "the record at the server says so")
        if lease:
            self.watcher(HALF_OPEN, "it has been open for long enough")

    def _adopt(
        self, now: int, since: int, generation: int, opened: bool, left: int, lease: str
    ) -> int:
        """Apply the reply; return the state if it has changed, otherwise a negative number."""
        before = self.opened
        if self.alone:
            before = self.local.state_at(now) != CLOSED
        self.heard = now
        if self.reports:  # they are newer than the server's reply
            if lease:
                self.reports.append((lease, _WITHDRAWN))
            return -1
        if not self.alone:
            if generation < self.generation and since < self.changed:
                return -1  # a newer reply has overtaken this one
            if left < 0 and self.opened and now < self.until:
                return _TELL
        self.confirmed = generation
        if self.generation == 0 and not opened and not self.opened and not self.alone:
            self.generation = generation
        elif generation != self.generation or opened != self.opened or self.alone:
            self._change(now, opened, now + left, generation)
        elif opened:
            self.until = now + left
        self.alone = False
        if lease:
            self.leases.append((lease, now + self.local.lease))
        if before == opened:
            return -1
        return OPEN if opened else CLOSED

    def go_alone(self, now: int) -> None:
        """Continue without the server: `local` begins with the known state."""
        if self.lock is None:
            self._go_alone(now)
        else:
            with self.lock:
                self._go_alone(now)

    def _go_alone(self, now: int) -> None:
        self.heard = now
        if self.alone:
            return
        self.alone = True
        self.local.seen = self.local.move(self.until if self.opened else now, self.opened)
        self._change(now, self.opened, self.until, self.generation)
        self.reports = []

    # --- the rest -------------------------------------------------------------------------------

    def trip(self, now: int, length: int, reason: str) -> None:  # noqa: ARG002
        """Open the breaker for all processes; for this one only, if the server cannot be reached.

        Args:
            now: The time in nanoseconds.
            length: For how many nanoseconds; 0 for `open_for`.
            reason: Why, in words.
        """
        if not self.order("trip", length, reason):
            self.local.trip(self.real.now(), length, reason)

    def reset(self, reason: str) -> None:
        """Close the breaker for all processes; for this one only, if the server cannot be reached.

        Args:
            reason: Why, in words.
        """
        if not self.order("reset", 0, reason):
            self.local.reset(reason)

    def state_at(self, now: int) -> int:
        """Return the state, as far as this process knows; half-open if it would admit a probe.

        Args:
            now: The time in nanoseconds.
        """
        now = self.local.machine_time(now)
        if self.alone:
            return self.local.state_at(now)
        if not self.opened:
            return CLOSED
        return OPEN if now < self.until else HALF_OPEN

    def is_used(self) -> bool:
        """Return whether it has counted an attempt."""
        return self.used

    def after_fork(self, lock: Any) -> None:
        """Drop the parent's reports and leases in a child process: they remain the parent's.

        Args:
            lock: A mutex for the threads of the child, or None.
        """
        self.lock = lock
        self.local.after_fork(lock)
        self.due = False
        self.attempts = 0
        self.failures = 0
        self.reports = []
        self.leases = []
        self.held = {}
