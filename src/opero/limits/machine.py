"""Limits of one machine: a bucket in shared memory, and one queue per process in front of it.

The bucket's words are in a file that all limits share (see `shared_file`). Once nobody uses a
limit, it can get another rate.
"""

from __future__ import annotations

from random import random
from typing import Any

from opero.core.shared_adaptive_bucket import WORDS

from .shared_file import Record, join
from .wait_queue import WaitQueue, _translated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.runners.effects import Steps

_EMPTY = -(10**18) << 1
"""The word of a limit from which nothing has been taken."""
_KEPT = 3_600_000_000_000
"""Nanoseconds for which the rate of an unused adaptive limit is kept."""
_OVERTAKEN = 4
"""How often a waiter loses a permit to other processes until it claims the next. One who wants
several at once claims them soon: it would never get them while others take one by one."""
_MEMORY = 8
"""How long processes remember that they had to wait for each other, in permits ..."""
_LEAST_MEMORY = 20_000_000
_MOST_MEMORY = 1_000_000_000
"""... and between which bounds, in nanoseconds."""
_GLANCE = 100_000_000
"""How often the head checks whether other processes have raised the rate of an adaptive limit."""
_SHARE = 4
"""A waiter whose permit others want too is late by a random part of a quarter interval."""
_LEAST_SHARE = 50_000
_MOST_SHARE = 5_000_000


class MachineWaitQueue(WaitQueue):
    """The queue of one process, in front of a bucket that processes share.

    The heads of all queues wait for the same moment. Once processes have collided, each adds a
    random delay, smaller for one that lost before; otherwise the same process might always be
    first. A head that lost too often claims the next permit.
    """

    def __init__(self, bucket: Any, caller: Any) -> None:
        """Begin with nobody in the queue.

        Args:
            bucket: The shared bucket.
            caller: The clock by which callers tell their deadlines.
        """
        super().__init__(bucket, bucket.real)
        self._caller = caller

    def steps(self, deadline: int, weight: int) -> Steps:
        """Wait for permits (see `WaitQueue`); `deadline` is by the caller's clock."""
        return super().steps(_translated(deadline, self._caller, self.clock), weight)

    def _note(self, head: Any, now: int, due: int) -> int:
        bucket = self.bucket
        if now > bucket.words.look_at:
            bucket.words.look(now)
        if now >= head.told:
            bucket.want()
            head.overtaken += 1
            if head.overtaken >= (_OVERTAKEN if head.weight == 1 else 1):
                bucket.stake(now, head.weight)
        head.told = due
        interval = bucket.interval
        memory = min(max(_MEMORY * interval, _LEAST_MEMORY), _MOST_MEMORY)
        if now - bucket.wanted() > memory:
            return self._seen(now, due)
        share = min(interval // _SHARE + _LEAST_SHARE, _MOST_SHARE)
        return self._seen(now, due + int(random() * share / (1 + head.overtaken)))

    def _seen(self, now: int, due: int) -> int:
        """Return when the head looks again, soon enough to see that others have raised the rate."""
        return min(due, now + _GLANCE) if self.bucket.observes else due

    def _leave(self, waiter: Any) -> None:
        super()._leave(waiter)
        if waiter.overtaken:
            with self._lock:
                self.bucket.waive()

    def after_fork(self) -> None:
        """Send the waiters away in a child process."""
        super().after_fork()
        self.bucket.claim = 0  # it is the parent's


def shared_queue(
    core: Any,
    name: str,
    rate: float,
    burst: int,
    limits: tuple[tuple[int, int], ...],
    settings: str,
    floor: float | None = None,
) -> MachineWaitQueue:
    """Join a shared limit.

    Args:
        core: The active half of opero.
        name: What the limit is called.
        rate: Permits per second.
        burst: Permits that may be taken at once.
        limits: Interval and burst of further limits.
        settings: All of this in words, the same for all who share it.
        floor: The lowest rate of an adaptive limit; None if it is not.

    Raises:
        ValueError: If the processes that share it have other settings.
        UnsafePlaceError: If others can open the file.
    """
    count = len(limits) + 3 + (0 if floor is None else WORDS)
    core.TokenBucket(rate, burst)  # it refuses what it cannot count
    record = Record(
        f"limit {name}",
        f"rate limit {name!r}",
        count,
        _EMPTY,
        settings,
        times=1 + len(limits),
        kept=0 if floor is None else _KEPT,
    )
    words = join(core, record)
    given = rate, burst, core.new_lock(), limits, words, core.clock, core.Clock()
    bucket = (
        core.SharedBucket(*given) if floor is None else core.SharedAdaptiveBucket(*given, floor)
    )
    return MachineWaitQueue(bucket, core.clock)
