"""Jobs that a breaker refuses: they wait in the parent, without a worker.

    refused -> held before the gate that may let it in first -> offered again, in order
                  | its deadline comes before that
                  v
               handed back: it waits in vain

Jobs before one gate keep their order, and only the first asks: while it is refused, the others wait
too.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from typing import Any

from opero.core.clock import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from opero.core.gate import GateQueue

    from .jobs import Job


class _Before:
    """The jobs that wait before one gate.

    Attributes:
        jobs: The jobs, by the numbers that they got when they came.
        deadlines: When each must have begun, and its number, the earliest first.
        until: When the gate might let the first one in.
    """

    __slots__ = ("deadlines", "jobs", "until")

    def __init__(self) -> None:
        self.jobs: OrderedDict[int, Job] = OrderedDict()
        self.deadlines: list[tuple[int, int]] = []
        self.until: int = 0


class RefusedJobs:
    """The jobs of one map that gates have refused, until these let them in.

    Attributes:
        items: How many items wait.
    """

    def __init__(self) -> None:
        self.items: int = 0
        self._before: dict[Any, _Before] = {}
        self._serial = 0

    def __bool__(self) -> bool:
        return self.items > 0

    def first(self, now: int) -> tuple[GateQueue, Job] | None:
        """Return a job that may be let in now, and the gate that it waits for; None without."""
        for queue, before in self._before.items():
            if before.until <= now:
                return queue, next(iter(before.jobs.values()))
        return None

    def take(self, queue: GateQueue) -> Job:
        """Take out the first job before a gate."""
        before = self._before[queue]
        _, job = before.jobs.popitem(last=False)
        return self._gone(queue, before, job)

    def hold(self, queue: GateQueue, job: Job, deadline: int = NEVER, first: bool = False) -> None:
        """Make a job wait at a gate.

        Args:
            queue: Where one waits for it.
            job: The job.
            deadline: When it must have begun, in nanoseconds.
            first: Whether it goes before the others.
        """
        before = self._before.get(queue)
        if before is None:
            before = self._before[queue] = _Before()
        self._serial += 1
        before.jobs[self._serial] = job
        self.items += len(job.values)
        if first:
            before.jobs.move_to_end(self._serial, last=False)
        if deadline < NEVER:
            heappush(before.deadlines, (deadline, self._serial))

    def put_off(self, queue: GateQueue, until: int) -> list[Job]:
        """Take note that a gate lets nobody in before a time.

        Args:
            queue: Where one waits for it.
            until: The time, in nanoseconds.

        Returns:
            The jobs before it whose deadline is not after that; they do not wait any more.
        """
        before = self._before.get(queue)
        if before is None:
            return []
        before.until = until
        late: list[Job] = []
        while before.deadlines and before.deadlines[0][0] <= until:
            job = before.jobs.pop(heappop(before.deadlines)[1], None)
            if job is not None:
                late.append(self._gone(queue, before, job))
        return late

    def look_again(self) -> None:
        """Take note that gates may have changed their mind."""
        for before in self._before.values():
            before.until = 0

    def soonest(self) -> int:
        """Return when a job might be let in, in nanoseconds; `NEVER` without any."""
        return min([before.until for before in self._before.values()], default=NEVER)

    def drain(self) -> Iterator[Job]:
        """Take out all jobs, in order before each gate."""
        while self._before:
            _, before = self._before.popitem()
            yield from before.jobs.values()
        self.items = 0

    def clear(self) -> None:
        """Let go of all jobs."""
        self._before.clear()
        self.items = 0

    def _gone(self, queue: GateQueue, before: _Before, job: Job) -> Job:
        self.items -= len(job.values)
        if not before.jobs:
            del self._before[queue]
        return job
