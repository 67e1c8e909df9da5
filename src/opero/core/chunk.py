"""How many items to hand to a worker at once.

A chunk costs its own hand-over, so tiny items want large ones; but a worker that has the last large
chunk keeps all others waiting. So the size follows the measured time of an item, begins at one,
grows by leaps, and shrinks towards the end of an input whose length is known.

Source of the last: C. D. Polychronopoulos, D. J. Kuck, "Guided self-scheduling: a practical
scheduling scheme for parallel supercomputers", IEEE Transactions on Computers C-36(12), 1987.
"""

from __future__ import annotations

_LEAP = 4
_MOST = 1 << 16


class ChunkSizer:
    """Sizes the chunks of one map.

    Attributes:
        workers: How many share the work.
        aim: How long a chunk should take, in nanoseconds.
        fixed: The size that the user wants; 0 to go by measured time.
        left: How many items are to come; -1 if nobody knows.
        current: The size before the end of the input is near.
        pace: How long an item takes, in nanoseconds; 0 before the first report.
    """

    __slots__ = ("aim", "current", "fixed", "left", "pace", "workers")

    def __init__(self, workers: int, aim: int, fixed: int, left: int) -> None:
        self.workers = workers
        self.aim = aim
        self.fixed = fixed
        self.left = left
        self.current = 1
        self.pace = 0

    def size(self) -> int:
        """Return how many items the next chunk should have, at least 1."""
        if self.fixed:
            return self.fixed
        if self.left >= 0:
            share = self.left // (2 * self.workers)
            if share < self.current:
                return max(1, share)
        return self.current

    def fed(self, count: int) -> None:
        """Take note that `count` items have come."""
        if self.left >= 0:
            self.left = max(0, self.left - count)

    def observe(self, count: int, elapsed: int) -> None:
        """Take note that a worker took `elapsed` nanoseconds for `count` items.

        Items that are slower than those before count at once, faster ones by and by.
        """
        if count < 1:
            return
        pace = max(1, elapsed // count)
        if self.pace and pace < self.pace:
            pace = (3 * self.pace + pace) // 4
        self.pace = pace
        self.current = max(1, min(self.aim // pace, _LEAP * self.current, _MOST))
