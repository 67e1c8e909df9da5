"""Monotonic time in whole nanoseconds, which tests can move.

Everything in opero that measures or waits asks one `Clock` per implementation, so moving that clock
moves expiry, backoff, rate limits and deadlines alike. `_compiled/clock.pyx` is the compiled twin.
"""

from __future__ import annotations

from opero.real_time import monotonic_ns

NEVER = 1 << 62
"""A time that no clock reaches (146 years): the deadline of a call without a timeout."""


class Clock:
    """A monotonic clock.

    Attributes:
        offset: Nanoseconds that tests have added to the machine's clock.
        frozen: Whether time stands still, at `offset`.
        skipping: Whether a wait moves this clock to the wait's end instead of sleeping.
    """

    __slots__ = ("frozen", "offset", "skipping")

    def __init__(self) -> None:
        self.offset: int = 0
        self.frozen: bool = False
        self.skipping: bool = False

    def now(self) -> int:
        """Return the time in nanoseconds."""
        if self.frozen:
            return self.offset
        return monotonic_ns() + self.offset

    def coarse(self) -> int:
        """Return the time in nanoseconds, possibly some milliseconds old where that is cheaper."""
        return self.now()

    def advance(self, nanoseconds: int) -> None:
        """Move time forward by `nanoseconds`."""
        self.offset += nanoseconds

    def move_to(self, time: int) -> None:
        """Move time forward to `time` in nanoseconds, unless it is already later."""
        ahead = time - self.now()
        if ahead > 0:
            self.offset += ahead

    def freeze(self) -> None:
        """Stop time until it is moved."""
        self.offset = self.now()
        self.frozen = True

    def thaw(self) -> None:
        """Let time run on from where it stopped; it never goes back."""
        if self.frozen:
            self.offset -= monotonic_ns()
            self.frozen = False
