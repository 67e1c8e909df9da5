"""When a worker has done enough, and when to start its successor so that it is ready in time."""

from __future__ import annotations

from typing import Any

from opero.logs import warn
from opero.real_time import monotonic_ns

from .cells import MEMORY

_START = 1_000_000_000
"""How long a worker takes to be ready, in nanoseconds, until that has been measured."""
_MARGIN = 1.5
_TOO_MUCH = 1.25
"""By which factor a worker may exceed its memory bound while it waits for its successor."""


class Renewal:
    """The bounds of the workers of one map, and how long their successors take to be ready.

    A worker gets a chunk only within its bounds. Its successor starts once the items that the
    worker may still have will take no longer than the start of the successor.
    """

    def __init__(self, items: int, memory: int) -> None:
        """Set the bounds.

        Args:
            items: How many items a worker may have; 0 for no bound.
            memory: How many bytes of memory it may have; 0 for no bound.
        """
        self._items = items
        self._memory = memory
        self._start = _START
        self._told = False

    def has_life(self, worker: Any, count: int) -> bool:
        """Return whether a worker that has served other maps may have `count` items of this one."""
        return not self.is_over(worker, count, True)

    def is_over(self, worker: Any, count: int, relieved: bool) -> bool:
        """Return whether a worker may have no more items.

        Args:
            worker: The worker.
            count: How many items it would get.
            relieved: Whether its successor is ready.
        """
        if self._items and worker.items and worker.items + count > self._items:
            return True
        if not self._memory or not worker.items:
            return False
        bound = self._memory if relieved else int(self._memory * _TOO_MUCH)
        return bool(worker.cells[MEMORY] >= bound)

    def is_due(self, worker: Any) -> bool:
        """Return whether it is time to start a worker's successor."""
        if self._memory and worker.cells[MEMORY] >= self._memory:
            return True
        if not self._items:
            return False
        left = self._items - worker.items
        pace = worker.busy / worker.items if worker.items else 0
        return bool(left <= 0 or (pace and left * pace <= self._start * _MARGIN))

    def begun(self, successor: Any) -> None:
        """Note that a successor has been started."""
        successor.ready = False
        successor.begun = monotonic_ns()

    def is_ready(self, successor: Any) -> None:
        """Note that a successor is ready."""
        successor.ready = True
        self._start = max(1, monotonic_ns() - successor.begun)

    def reported(self, worker: Any, elapsed: int) -> None:
        """Note that a worker took `elapsed` nanoseconds for a job."""
        first = not worker.busy
        worker.busy += max(1, elapsed)
        size = worker.cells[MEMORY]
        if self._memory and first and size >= self._memory and not self._told:
            self._told = True
            warn(
                "max_memory_per_worker=%s is less than what a worker has after its first chunk, "
                "%s bytes, so each worker is renewed after every chunk: raise the limit",
                self._memory,
                size,
            )
