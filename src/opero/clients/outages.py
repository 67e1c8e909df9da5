"""A store that is out of order: one warning, few attempts, and back to work by itself.

Reading and writing are watched apart, since a store that is full, locked or read-only can still be
read. Whoever is about to use the store asks `blocks`; whoever did, reports `worked` or `failed`.

    asks and reports with writing=False    get, get_many, count
    asks and reports with writing=True     everything else, `get_and_take` too: if that is blocked,
                                           or has failed, a plain `get` may still find the entry
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from opero.events import tell
from opero.locks import Lock
from opero.real_time import monotonic

FIRST: Final = 0.5
"""Seconds after the first failure until one caller tries again."""

LAST: Final = 10.0
"""The longest time until one caller tries again; it doubles from `FIRST` with each attempt. A
failure that comes so soon after an outage's end belongs to the same outage: it is not logged."""


class _Lane:
    """Reading, or writing.

    Attributes:
        out: Whether it does not work.
        pause: Seconds from one attempt to the next.
        probe_at: When the next attempt is due.
    """

    __slots__ = ("out", "pause", "probe_at")

    def __init__(self) -> None:
        self.out = False
        self.pause = FIRST
        self.probe_at = 0.0

    def blocks(self, now: float) -> bool:
        """Return whether to leave it alone; false for one caller whenever an attempt is due."""
        if not self.out:
            return False
        if now < self.probe_at:
            return True
        self.pause = min(2 * self.pause, LAST)
        self.probe_at = now + self.pause  # for the next, in case this one never reports
        return False

    def fail(self, now: float) -> None:
        """Leave it alone from now on, or go on doing so."""
        if not self.out:
            self.out = True
            self.probe_at = now + self.pause


class Outage:
    """Keeps callers away from a store that fails, and lets one through now and then to try it.

    So a store that hangs costs one caller its time limit, every half second at first and every ten
    seconds in the end, and all others nothing. Threads and tasks may share one.

    Attributes:
        what: The store, as the log calls it.
        failures: Operations that failed or were left out, in all.
    """

    def __init__(
        self,
        what: str,
        clock: Callable[[], float] = monotonic,
        instead: str = "calls go on without it",
    ) -> None:
        """Start in good order.

        Args:
            what: The store, such as "the redis cache at 127.0.0.1:6379"; it goes into the log.
            clock: Returns seconds.
            instead: What is done meanwhile, for the log.
        """
        self.what = what
        self._instead = instead
        self.failures: int = 0
        self._clock = clock
        self._lock = Lock()
        self._reading = _Lane()
        self._writing = _Lane()
        self._out = False  # either lane; read without the lock
        self._since = 0.0
        self._ended = float("-inf")
        self._failures_before = 0

    def blocks(self, writing: bool = False) -> bool:
        """Return whether to leave the store alone now; if so, that counts as a failure.

        Args:
            writing: Whether the operation changes the store. If it cannot be read, it is not
                written either.
        """
        if not self._out:
            return False
        with self._lock:
            now = self._clock()
            if writing:
                blocked = self._reading.out or self._writing.blocks(now)
            else:
                blocked = self._reading.blocks(now)
            self.failures += blocked
            return blocked

    def failed(self, error: Exception, writing: bool = False) -> None:
        """Report a failure; the first of an outage is a line in the log.

        Args:
            error: What the store raised.
            writing: As in `blocks`.
        """
        with self._lock:
            now = self._clock()
            self.failures += 1
            (self._writing if writing else self._reading).fail(now)
            if self._out:
                return
            self._out = True
            if now - self._ended <= LAST:
                return
            self._reading.pause = self._writing.pause = FIRST
            self._reading.probe_at = self._writing.probe_at = now + FIRST
            self._since = now
            self._failures_before = self.failures - 1
        tell(
            "store_down",
            store=self.what,
            error=error,
            reason=f"{self._instead}, and it is tried again from time to time",
        )

    def worked(self, writing: bool = False) -> None:
        """Report a success; if all works again, the outage is over, and the log says so.

        Args:
            writing: As in `blocks`.
        """
        if not self._out:
            return
        with self._lock:
            now = self._clock()
            self._reading.out = False  # who can write can read
            if writing:
                self._writing.out = False
            if self._writing.out or not self._out:
                return
            self._out = False
            self._ended = now
            lasted = now - self._since
            missed = self.failures - self._failures_before
        tell("store_up", store=self.what, seconds=lasted, failed=missed)
