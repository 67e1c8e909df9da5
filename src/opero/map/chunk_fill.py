"""Chunks for workers that make several attempts at once: a small one would leave places empty."""

from __future__ import annotations

from typing import Any


class ChunkFill:
    """Goes by a `ChunkSizer`, but hands out no fewer items than a worker can begin at once.

    Attributes:
        workers: How many share the work.
        width: How many attempts each of them makes at once.
    """

    def __init__(self, sizer: Any, width: int) -> None:
        """Take over from a sizer.

        Args:
            sizer: The `ChunkSizer`.
            width: How many attempts each worker makes at once.
        """
        self.workers: int = sizer.workers
        self.width = width
        self._sizer = sizer
        self.fed: Any = sizer.fed
        self.observe: Any = sizer.observe

    @property
    def left(self) -> int:
        """How many items are to come; -1 if nobody knows."""
        left: int = self._sizer.left
        return left

    def size(self) -> int:
        """Return how many items the next chunk should have, at least 1."""
        size: int = self._sizer.size()
        if self._sizer.fixed or size >= self.width:
            return size
        if self.left < 0:
            return self.width
        return max(size, min(self.width, -(-self.left // self.workers)))
