"""Limits on the size of chunks: they bound what a `ChunkSizer` derives from measured time."""

from __future__ import annotations

from typing import Any


class _Limited:
    """Wrap another sizer.

    Attributes:
        workers: How many share the work.
    """

    def __init__(self, sizer: Any) -> None:
        """Wrap a sizer.

        Args:
            sizer: A `ChunkSizer`, or one of these.
        """
        self._sizer = sizer
        self.workers: int = sizer.workers
        self.fed: Any = sizer.fed
        self.observe: Any = sizer.observe

    @property
    def left(self) -> int:
        """How many items are still to come; -1 if unknown."""
        left: int = self._sizer.left
        return left


class ChunkFill(_Limited):
    """Raise a chunk to what a worker can run at once: a smaller chunk leaves slots empty.

    Attributes:
        width: How many attempts each worker makes at once.
    """

    def __init__(self, sizer: Any, width: int) -> None:
        """Wrap a `ChunkSizer`.

        Args:
            sizer: The `ChunkSizer`.
            width: How many attempts each worker makes at once.
        """
        super().__init__(sizer)
        self.width = width

    def size(self) -> int:
        """Return how many items the next chunk should have, at least 1."""
        size: int = self._sizer.size()
        if self._sizer.fixed or size >= self.width:
            return size
        if self.left < 0:
            return self.width
        return max(size, min(self.width, -(-self.left // self.workers)))


class ChunkBound(_Limited):
    """Limit a chunk to the items that a worker may have before it is renewed.

    Attributes:
        most: How many items a worker may have.
    """

    def __init__(self, sizer: Any, most: int) -> None:
        """Wrap a sizer.

        Args:
            sizer: A `ChunkSizer`, or a `ChunkFill`.
            most: How many items a worker may have.
        """
        super().__init__(sizer)
        self.most = most

    def size(self) -> int:
        """Return how many items the next chunk should have, at least 1."""
        size: int = self._sizer.size()
        return min(self.most, size)
