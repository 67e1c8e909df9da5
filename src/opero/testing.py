"""For test suites: decorated functions without delays, and time that a test moves.

    from .testing import manual_clock, skip_waits

    def test_recovers():
        with skip_waits() as clock:  # backoff and rate limits pass at once
            assert fetch() == "value"
        assert clock.waited > 0

    def test_expires():
        with manual_clock() as clock:  # time stands still ...
            price("A")
            clock.advance(61)  # ... until the test moves it
            price("A")

Both act on every decorated function and `RateLimiter` of the process at once. Time never goes back:
after the test it runs on from where it was moved to. As a pytest fixture:

    @pytest.fixture(autouse=True)
    def no_waiting():
        with skip_waits():
            yield
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from . import hotpath

__all__ = ["MovableClock", "manual_clock", "skip_waits"]


class MovableClock:
    """The time that decorated functions see.

    Attributes:
        started: When the test got hold of it, in seconds.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self.started: float = self.now()

    def now(self) -> float:
        """Return the time in seconds."""
        return float(self._clock.now() / 1e9)

    @property
    def waited(self) -> float:
        """Seconds that have passed for decorated functions since the test began."""
        return self.now() - self.started

    def advance(self, seconds: float | timedelta) -> None:
        """Move time forward.

        Args:
            seconds: How far, in seconds or as a `timedelta`.

        Raises:
            ValueError: If `seconds` is negative.
        """
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        if seconds < 0:
            raise ValueError(f"seconds={seconds!r} is not allowed: time does not go back")
        self._clock.advance(round(seconds * 1e9))


@contextmanager
def skip_waits() -> Iterator[MovableClock]:
    """Let every wait be over at once: time moves to its end instead."""
    clock = hotpath.core.clock
    before = clock.skipping
    clock.skipping = True
    try:
        yield MovableClock(clock)
    finally:
        clock.skipping = before


@contextmanager
def manual_clock() -> Iterator[MovableClock]:
    """Stop time: only the test moves it, and waits, which are over at once."""
    clock = hotpath.core.clock
    frozen, skipping = clock.frozen, clock.skipping
    if not frozen:
        clock.freeze()
    clock.skipping = True
    try:
        yield MovableClock(clock)
    finally:
        clock.skipping = skipping
        if not frozen:
            clock.thaw()
