"""Chunks for workers that are renewed after some items: none may be larger than that."""

from __future__ import annotations

from typing import Any


class ChunkBound:
    """Goes by another sizer, but hands out no more items than a worker may have in its life.

    Attributes:
        workers: How many share the work.
        most: How many items a worker may have.
    """

    def __init__(self, sizer: Any, most: int) -> None:
        """Take over from a sizer.

        Args:
            sizer: A `ChunkSizer`, or a `ChunkFill`.
            most: How many items a worker may have.
        """
        self.workers: int = sizer.workers
        self.most = most
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
        return min(self.most, size)
