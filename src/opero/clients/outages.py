"""The outage of a store: one warning, few attempts, and automatic recovery.

It is a circuit breaker (`core/breaker.py`) that opens at one failure and stays open longer after
each probe. Reading and writing have one each, since a store that is full, locked or read-only can
still be read.

    ticket = outage.enter(writing)      0: do not use the store
    outage.leave(ticket, writing)       it worked
    outage.leave(ticket, writing, why)  it failed

    writing=False    get, get_many, count
    writing=True     everything else, `get_and_take` too: if that is refused or fails, a plain `get`
                     may still find the entry

An operation interrupted by a cancelled task or by Ctrl-C says nothing, so it is not reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from opero import forks, hotpath
from opero.core.breaker import CLOSED
from opero.core.gate import FAILED, SUCCEEDED
from opero.events import tell
from opero.locks import Lock
from opero.real_time import monotonic

if TYPE_CHECKING:
    from opero.core.breaker import CircuitBreaker

FIRST: Final = 0.5
"""Seconds after the first failure until one caller tries again."""

LAST: Final = 10.0
"""The longest time until one caller tries again; it doubles from `FIRST` with each attempt. A
failure within this time after an outage's end belongs to the same outage and is not logged."""

_FIRST: Final = int(FIRST * 1e9)
_LAST: Final = int(LAST * 1e9)


class Outage:
    """Keeps callers away from a store that fails, and now and then lets one through to try it.

    So a store that hangs costs one caller its time limit, every half second at first and every ten
    seconds in the end; all others lose no time. Threads and tasks may share one.

    Attributes:
        what: The name of the store in the log.
        failures: The number of operations that failed or were left out.
    """

    def __init__(
        self,
        what: str,
        clock: Callable[[], float] = monotonic,
        instead: str = "calls go on without it",
    ) -> None:
        """Begin with a store that works.

        Args:
            what: The store, such as "the redis cache at 127.0.0.1:6379"; it goes into the log.
            clock: Returns seconds.
            instead: What happens meanwhile, for the log.
        """
        self.what = what
        self._instead = instead
        self.failures: int = 0
        self._clock = clock
        self._begin()
        _outages.add(self)

    def _begin(self) -> None:
        """Reset everything; also in a child process, where a parent's thread may hold the lock."""
        self._lock = Lock()
        self._reading = _breaker()
        self._writing = _breaker()
        self._out = False  # either of them; read without the lock
        self._since = 0.0
        self._ended = float("-inf")
        self._failures_before = 0

    def enter(self, writing: bool = False) -> int:
        """Return the ticket of an operation; 0 to leave it out, which counts as a failure.

        Args:
            writing: Whether the operation changes the store. A store that cannot be read is not
                written either.
        """
        breaker = self._writing if writing else self._reading
        if not self._out:
            return breaker.ticket
        with self._lock:
            if not writing or self._reading.state == CLOSED:
                now = int(self._clock() * 1e9)
                if breaker.lack(now) <= 0:  # also until another may try, should this one not report
                    breaker.open_for = min(2 * breaker.open_for, _LAST)
                ticket = -breaker.enter(now)
                if ticket > 0:
                    return ticket
            self.failures += 1
            return 0

    def refuses(self, writing: bool = False) -> bool:
        """Return whether `enter` would return 0 now.

        Args:
            writing: As in `enter`.
        """
        if not self._out:
            return False
        with self._lock:
            if writing and self._reading.state != CLOSED:
                return True
            breaker = self._writing if writing else self._reading
            return breaker.lack(int(self._clock() * 1e9)) > 0

    def leave(self, ticket: int, writing: bool = False, error: Exception | None = None) -> None:
        """Note how an operation has ended; log the beginning and the end of an outage.

        Args:
            ticket: What `enter` returned. With 0, the operation ran all the same: if it succeeded,
                the store works.
            writing: As in `enter`.
            error: What the store raised; None if it worked.
        """
        if error is not None:
            self._failed(ticket, writing, error)
        elif self._out:
            self._worked(ticket, writing)

    def _failed(self, ticket: int, writing: bool, error: Exception) -> None:
        with self._lock:
            now = self._clock()
            self.failures += 1
            again = now - self._ended <= LAST
            if not (self._out or again):
                self._reading.open_for = self._writing.open_for = _FIRST
            breaker = self._writing if writing else self._reading
            breaker.leave(int(now * 1e9), FAILED, 0, ticket or breaker.ticket)
            if self._out or breaker.state == CLOSED:
                return
            self._out = True
            if again:
                return
            self._since = now
            self._failures_before = self.failures - 1
        tell(
            "store_down",
            store=self.what,
            error=error,
            reason=f"{self._instead}; opero tries it again from time to time",
        )

    def _worked(self, ticket: int, writing: bool) -> None:
        with self._lock:
            now = self._clock()
            breaker = self._writing if writing else self._reading
            if ticket:
                breaker.leave(int(now * 1e9), SUCCEEDED, 0, ticket)
            else:
                breaker.reset("it works")
            if breaker is self._writing and breaker.state == CLOSED != self._reading.state:
                self._reading.reset("what can be written can be read")
            if not (self._out and self._reading.state == self._writing.state == CLOSED):
                return
            self._out = False
            self._ended = now
            lasted = now - self._since
            missed = self.failures - self._failures_before
        tell("store_up", store=self.what, seconds=lasted, failed=missed)


_outages: WeakSet[Outage] = WeakSet()


def _after_fork() -> None:
    for outage in list(_outages):
        outage._begin()


forks.register("outages", after_in_child=_after_fork)


def _breaker() -> CircuitBreaker:
    """Return a breaker that any failure opens; `Outage` provides the lock."""
    return hotpath.core.CircuitBreaker(_FIRST, 0.0, 1, _FIRST, 1)
