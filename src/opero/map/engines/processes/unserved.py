"""The jobs of a map that wait for a worker while the system cannot start another one."""

from __future__ import annotations

from opero.exceptions import OperoError
from opero.logs import warn
from opero.real_time import monotonic_ns

from .shortage import Shortage

PATIENCE = 5.0
"""Seconds that a map without any worker waits for the first one."""

_PAUSE = 100_000_000  # nanoseconds between two tries


class Unserved:
    """The waiting jobs, by slot.

    Attributes:
        slots: The slots.
    """

    def __init__(self) -> None:
        self.slots: set[int] = set()
        self._error: Shortage | None = None
        self._since = 0
        self._again = 0
        self._told = False

    def add(self, slot: int, error: Shortage) -> None:
        """Keep a job that cannot get a worker now."""
        now = monotonic_ns()
        if self._error is None:
            self._since = now
        self._error = error
        self._again = now + _PAUSE
        self.slots.add(slot)

    def take(self, idle: bool) -> set[int]:
        """Remove and return the slots to try again now.

        Args:
            idle: Whether a worker of the map is idle.
        """
        if not idle and monotonic_ns() < self._again:
            return set()
        slots, self.slots = self.slots, set()
        return slots

    def served(self) -> None:
        """Note that a worker works."""
        if not self.slots:
            self._error = None

    def until(self, workers: int) -> int | None:
        """Return when to try again; None if nothing waits.

        Args:
            workers: How many working workers the map has.

        Raises:
            OperoError: If it has none, and could start none for too long.
        """
        if not self.slots:
            return None
        assert self._error is not None
        if workers:
            self._since = monotonic_ns()
            if not self._told:
                self._told = True
                warn("a map continues with only %d workers: %s", workers, self._error)
        elif monotonic_ns() - self._since > PATIENCE * 1e9:
            raise OperoError(str(self._error)) from self._error.__cause__
        return self._again
