"""How many items a worker gets at a time, and how it runs them.

Each chunk costs a hand-over, so quick items need large chunks; but a worker with the last large
chunk keeps all others waiting. So the size follows the measured time of an item, begins at one,
grows in steps, and shrinks towards the end of an input of known length.

Source of the shrinking: C. D. Polychronopoulos, D. J. Kuck, "Guided self-scheduling: a practical
scheduling scheme for parallel supercomputers", IEEE Transactions on Computers C-36(12), 1987.
"""

from __future__ import annotations

from opero import marks
from opero.real_time import monotonic_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LEAP = 4
_TAIL = 32
_MOST = 1 << 16


class ChunkSizer:
    """Sizes the chunks of one map.

    Attributes:
        workers: The number of workers.
        aim: How long a chunk should take, in nanoseconds.
        fixed: The user's chunk size; 0 to size chunks by measured time.
        left: How many items are to come; -1 if that is unknown.
        current: The size before the end of the input is near.
        pace: How long an item takes, in nanoseconds; 0 before the first report.
    """

    __slots__ = ("aim", "current", "fixed", "left", "pace", "workers")

    def __init__(self, workers: int, aim: int, fixed: int, left: int) -> None:
        self.workers: int = workers
        self.aim: int = aim
        self.fixed: int = fixed
        self.left: int = left
        self.current: int = 1
        self.pace: int = 0

    def size(self) -> int:
        """Return how many items the next chunk should have, at least 1."""
        if self.fixed:
            return self.fixed
        if self.left >= 0:
            share = self.left // (2 * self.workers)
            if share < self.current:
                return max(1, share, self.current // _TAIL)
        return self.current

    def fed(self, count: int) -> None:
        """Note that `count` items have come."""
        if self.left >= 0:
            self.left = max(0, self.left - count)

    def observe(self, count: int, elapsed: int) -> None:
        """Note that a worker took `elapsed` nanoseconds for `count` items.

        Slower items count immediately, faster ones gradually. But a worker that waits for a
        processor seems slow too, so one report raises the pace at most fourfold.
        """
        if count < 1:
            return
        pace = max(1, elapsed // count)
        if self.pace and pace < self.pace:
            pace = (3 * self.pace + pace) // 4
        elif self.pace:
            pace = min(pace, _LEAP * self.pace)
        self.pace = pace
        self.current = max(1, min(self.aim // pace, _LEAP * self.current, _MOST))


class ChunkRunner:
    """Makes the attempts of chunks, and marks the one under way.

    The mark is in memory that outlives a worker process: if the process dies, the mark tells which
    item it was running.
    """

    __slots__ = ("_mark",)

    def __init__(self, mark: memoryview) -> None:
        """Take the memory of the mark.

        Args:
            mark: Signed 8-byte integers; the first is the index of the attempt under way.

        Raises:
            ValueError: If the memory has another format.
        """
        if mark.format != "q" or mark.readonly or not mark.contiguous or not mark.nbytes:
            raise ValueError("a mark needs writable memory of signed 8-byte integers")
        self._mark = memoryview(mark)

    def run(
        self,
        function: Callable[[Any], Any],
        values: list[Any],
        results: list[Any],
        failures: list[tuple[int, BaseException]],
        patience: int = 0,
    ) -> None:
        """Call `function` with each value, in order.

        Args:
            function: The function.
            values: The values.
            results: Gets what each call returned, None where it raised, as soon as it is known.
            failures: Gets the index of each value whose call raised, and the exception.
            patience: How many nanoseconds it may run before a failure ends it; 0 for no limit.
        """
        begun = monotonic_ns() if patience else 0
        for place, value in enumerate(values):
            marks.put(self._mark, place)
            try:
                results.append(function(value))
            except BaseException as error:  # noqa: BLE001 - it is the outcome of this item
                failures.append((place, error))
                results.append(None)
                if patience and monotonic_ns() - begun > patience:
                    return
