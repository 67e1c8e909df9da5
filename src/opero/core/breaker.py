"""A circuit breaker as a state machine: given how earlier attempts ended, may another one begin?

    closed ---- too large a share of the attempts of a window failed ----> open
    open ------ after a time, with the next attempt: a probe -----------> half-open
    half-open - all probes succeeded -----------------------------------> closed
              - one failed ---------------------------------------------> open

The window rolls in ten slices, so it remembers nothing older than its own length. While the breaker
is half-open, it admits at most `probes` attempts. Each holds a lease: a probe that never reports
loses its place to another one after a while, and one whose outcome counts as neither gives its
place back. Reports with a ticket of an earlier period are ignored. Calls that a probe itself makes
through the same breaker are admitted as part of it.
Source: M. Nygard, "Release It!", Pragmatic Bookshelf, 2007; rolling window: Netflix, Hystrix, 2012.

It decides and never waits, and holds no lock while an attempt runs.
"""

from __future__ import annotations

from .gate import REJECTED, SUCCEEDED, Gate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLOSED, OPEN, HALF_OPEN = range(3)

SLICES = 10
"""The number of slices of the window."""
GLANCE = 10**8
"""Nanoseconds after which a caller that waits for another's probe asks again."""
_MOST_LEASES = 256
"""The most probes to remember that have lost their places and have not reported."""


class CircuitBreaker(Gate):
    """The breaker of one dependency.

    Attributes:
        slice: Nanoseconds of a slice of the window.
        ratio: The share of failures that opens it.
        minimum: The least number of attempts in the window before it can open.
        open_for: Nanoseconds for which it stays open.
        probes: How many probes may run at the same time, and how many must succeed to close it.
        state: `CLOSED`, `OPEN` or `HALF_OPEN`.
        ticket: The ticket of all attempts admitted while it is closed; 0 while it is not.
        serial: The latest ticket.
        good: The successes in the current slice.
        bad: The failures in it.
        ends: When the current slice ends, in nanoseconds.
        goods: The successes in each of the other slices.
        bads: The failures in each.
        place: The index of the latest of those slices.
        until: While it is open: when it admits the first probe, in nanoseconds.
        leases: When each probe that has not reported loses its place, by its ticket.
        succeeded: How many probes have succeeded in this period.
        lock: Makes a step atomic; None where the interpreter's lock does.
        watcher: Called with the new state and the reason, in words, when the state has changed; and
            with the state and None when a probe has given its place back.
        news: The pending calls of the watcher; None for none.
    """

    __slots__ = (
        "bad",
        "bads",
        "ends",
        "good",
        "goods",
        "leases",
        "lock",
        "minimum",
        "news",
        "open_for",
        "place",
        "probes",
        "ratio",
        "serial",
        "slice",
        "state",
        "succeeded",
        "ticket",
        "until",
        "watcher",
    )

    def __init__(
        self,
        window: int,
        ratio: float,
        minimum: int,
        open_for: int,
        probes: int,
        lock: Any = None,
        watcher: Any = None,
    ) -> None:
        """Make a closed breaker that has seen no attempts.

        Args:
            window: How many nanoseconds it looks back.
            ratio: The share of failures that opens it.
            minimum: The least number of attempts in the window before it can open.
            open_for: Nanoseconds for which it stays open.
            probes: How many probes may run at the same time, and how many must succeed to close it.
            lock: A mutex, or None.
            watcher: Called after changes; None for no calls.
        """
        Gate.__init__(self, True, True)
        self.slice: int = max(1, window // SLICES)
        self.ratio: float = ratio
        self.minimum: int = minimum
        self.open_for: int = open_for
        self.probes: int = probes
        self.state: int = CLOSED
        self.ticket: int = 1
        self.serial: int = 1
        self.good: int = 0
        self.bad: int = 0
        self.ends: int = 0
        self.goods: list[int] = [0] * (SLICES - 1)
        self.bads: list[int] = [0] * (SLICES - 1)
        self.place: int = 0
        self.until: int = 0
        self.leases: dict[int, int] = {}
        self.succeeded: int = 0
        self.lock: Any = lock
        self.watcher: Any = watcher
        self.news: Any = None

    # --- the gate -------------------------------------------------------------------------------

    def enter(self, now: int) -> int:
        """Admit an attempt, or refuse it (see `Gate`)."""
        ticket = self.ticket
        if ticket:
            return -ticket
        if self.lock is None:
            answer = self.admit(now)
        else:
            with self.lock:
                answer = self.admit(now)
        if self.news is not None:
            self.tell()
        return answer

    def opens_in(self, now: int) -> int:
        """Return nanoseconds until it might admit an attempt."""
        if self.ticket:
            return 0
        if self.lock is None:
            return self.lack(now)
        with self.lock:
            return self.lack(now)

    def is_common(self, ticket: int) -> bool:
        """Return whether this is the ticket of all attempts while the breaker is closed."""
        return ticket == self.ticket

    def holds(self, now: int, ticket: int) -> bool:
        """Return whether it has stayed closed, or the probe still has its place."""
        if ticket == self.ticket:
            return True
        expiry = self.leases.get(ticket)
        return expiry is not None and expiry > now

    def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:  # noqa: ARG002
        """Note how an attempt has ended (see `Gate`)."""
        if self.lock is None:
            self.note(now, outcome, ticket)
        else:
            with self.lock:
                self.note(now, outcome, ticket)
        if self.news is not None:
            self.tell()

    # --- manual control -------------------------------------------------------------------------

    def trip(self, now: int, length: int, reason: str) -> None:
        """Open it for some nanoseconds, in any state.

        Args:
            now: The time in nanoseconds.
            length: Nanoseconds; 0 for the usual time.
            reason: Why, in words.
        """
        if self.lock is None:
            self.open(now, length, reason)
        else:
            with self.lock:
                self.open(now, length, reason)
        self.tell()

    def reset(self, reason: str) -> None:
        """Close it and forget all attempts; those under way do not count.

        Args:
            reason: Why, in words.
        """
        if self.lock is None:
            self.close(reason)
        else:
            with self.lock:
                self.close(reason)
        self.tell()

    def state_at(self, now: int) -> int:
        """Return its state; if it would admit a probe, it is half-open.

        Args:
            now: The time in nanoseconds.
        """
        state = self.state
        if state == OPEN and now >= self.until:
            return HALF_OPEN
        return state

    def is_used(self) -> bool:
        """Return whether it has counted an attempt."""
        return self.ends != 0

    def after_fork(self, lock: Any) -> None:
        """Free the places of probes in a child process: they report in the parent.

        Args:
            lock: A new mutex, or None.
        """
        self.lock = lock
        self.leases.clear()

    # --- single steps, with the lock held -------------------------------------------------------

    def admit(self, now: int) -> int:
        """Admit a probe if it is time for one and a place is free."""
        if self.ticket:  # closed meanwhile
            return -self.ticket
        wait = self.lack(now)
        if wait > 0:
            if self.state != HALF_OPEN or not self.is_within():
                return wait
            self.serial += 1  # no probe has this number, so its outcome does not count
            return -self.serial
        begins = self.state == OPEN
        if begins:
            self.state = HALF_OPEN
            self.succeeded = 0
            self.leases.clear()
        elif len(self.leases) >= _MOST_LEASES:
            self.forget_oldest()
        self.serial += 1
        ticket = self.serial
        self.leases[ticket] = now + self.open_for
        if begins:
            self.add_news("it lets a probe in")
        return -ticket

    def is_under_way(self, ticket: int) -> bool:
        """Return whether a probe with this ticket has not reported yet."""
        return ticket in self.leases

    def lack(self, now: int) -> int:
        """Return nanoseconds until it might admit an attempt; 0 or less if it might now."""
        if self.ticket:
            return 0
        if self.state == OPEN:
            return self.until - now
        busy = self.succeeded
        wait = GLANCE
        for expiry in self.leases.values():
            left = expiry - now
            if left > 0:
                busy += 1
                if left < wait:
                    wait = left
        return 0 if busy < self.probes else wait

    def note(self, now: int, outcome: int, ticket: int) -> None:
        """Count an attempt of the closed breaker, or judge a probe."""
        if ticket == self.ticket:
            if outcome <= REJECTED:
                if now >= self.ends:
                    self.turn(now)
                if outcome == SUCCEEDED:
                    self.good += 1
                else:
                    self.bad += 1
                    self.judge(now)
        elif ticket in self.leases:
            self.leases.pop(ticket, None)
            if outcome == SUCCEEDED:
                self.succeeded += 1
                if self.succeeded >= self.probes:
                    self.close(f"the probe{'' if self.probes == 1 else 's'} succeeded")
            elif outcome <= REJECTED:
                self.open(now, 0, "the probe failed" if self.probes == 1 else "a probe failed")
            else:
                self.add_news(None)

    def turn(self, now: int) -> None:
        """Move on to the current slice."""
        steps = (now - self.ends) // self.slice + 1
        self.ends += steps * self.slice
        good = self.good
        bad = self.bad
        self.good = 0
        self.bad = 0
        if steps >= SLICES:
            steps = SLICES - 1
            good = bad = 0
        for _ in range(steps):
            self.place = (self.place + 1) % (SLICES - 1)
            self.goods[self.place] = good
            self.bads[self.place] = bad
            good = bad = 0

    def judge(self, now: int) -> None:
        """Open it after a failure, if the window has enough of them."""
        failed = self.bad
        count = self.bad + self.good
        for at in range(SLICES - 1):
            failed += self.bads[at]
            count += self.bads[at] + self.goods[at]
        if count >= self.minimum and failed / count >= self.ratio:
            seconds = self.slice * SLICES / 1e9
            self.open(now, 0, f"{failed} of {count} attempts failed within {seconds:g} s")

    def open(self, now: int, length: int, reason: str) -> None:
        """Admit nothing for some nanoseconds; 0 for the usual time."""
        self.ticket = 0
        self.state = OPEN
        self.until = now + (length or self.open_for)
        self.leases.clear()
        self.add_news(reason)

    def close(self, reason: str) -> None:
        """Admit all attempts, and begin to count."""
        self.leases.clear()
        self.good = 0
        self.bad = 0
        for at in range(SLICES - 1):
            self.goods[at] = 0
            self.bads[at] = 0
        self.serial += 1
        self.state = CLOSED
        self.ticket = self.serial
        self.add_news(reason)

    def forget_oldest(self) -> None:
        """Forget the probe that has been under way the longest."""
        for ticket in self.leases:
            self.leases.pop(ticket)
            return

    def add_news(self, reason: str | None) -> None:
        """Queue a call of the watcher until the lock is free."""
        if self.watcher is not None:
            added = [(self.state, reason)]  # first: a finalizer may run here
            if self.news is None:
                self.news = added
            else:
                self.news.extend(added)

    def take_news(self) -> Any:
        """Take the queued calls of the watcher."""
        news = self.news
        self.news = None
        return news

    def tell(self) -> None:
        """Call the watcher for each change."""
        if self.lock is None:
            news = self.take_news()
        else:
            with self.lock:
                news = self.take_news()
        if news is not None:
            for state, reason in news:
                self.watcher(state, reason)
