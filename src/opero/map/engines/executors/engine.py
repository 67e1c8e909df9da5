"""The engine that runs a map's jobs in an executor."""

from __future__ import annotations

import sys
from collections import deque
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
)
from math import inf
from queue import Empty, SimpleQueue
from typing import Any

from opero.map.engines.base import Crash, Report
from opero.map.jobs import Job
from opero.map.loading import executed
from opero.map.serialization.function_payload import FunctionPayload
from opero.map.serialization.loaded_modules import loaded_modules
from opero.real_time import monotonic

from .envelope import Envelope, Failures, Wanting, all_failed, run
from .executor_errors import broken, cancelled, is_loss, killed, refused

UNKNOWN = 4
"""How many jobs run at once if the executor does not report its number of workers."""

CHECK = 1.0
"""Seconds between two checks of dask's client: once closed, it can leave futures unfinished."""


def workers_of(executor: Any) -> int:
    """Return how many calls an executor runs at once, if it reports that."""
    client: Any = getattr(executor, "_client", None)
    if hasattr(client, "nthreads") and not client.asynchronous:
        count: int = sum(client.nthreads().values())  # dask: of all present workers
    else:
        count = getattr(executor, "_max_workers", None) or 0
    return count or UNKNOWN


def has_interpreters(executor: Any) -> bool:
    """Return whether an executor's workers are interpreters in threads of this process."""
    kinds = type(executor).__mro__
    return any(kind.__name__ == "InterpreterPoolExecutor" for kind in kinds)


def runs_threads(executor: Any) -> bool:
    """Return whether an executor runs its calls in this process, without new imports."""
    return isinstance(executor, ThreadPoolExecutor) and not has_interpreters(executor)


class ExecutorEngine:
    """Run the jobs of one map in an executor that belongs to the user.

    An executor that lost its workers over a job does not say which item was to blame, nor even
    whether it belonged to this job: all jobs with the same worker are suspects. They wait until
    nothing else of this map runs. Then their items run one at a time, so that only the culprit is
    blamed. An executor that takes no more work is lost for good, like a `ProcessPoolExecutor` after
    a crash: all remaining items fail immediately.

    Attributes:
        slots: How many jobs are with the executor at once.
    """

    def __init__(
        self, function: Any, shared: dict[str, Any], executor: Executor, workers: int
    ) -> None:
        """Take the function; `start` submits the work.

        Args:
            function: What to call with each item.
            shared: Keyword arguments of every call.
            executor: The executor; the engine never shuts it down.
            workers: How many jobs to submit at once.
        """
        self.slots = workers
        self._executor = executor
        apart: frozenset[str] = frozenset()
        if not runs_threads(executor):
            apart = loaded_modules.apart_for_others() | frozenset(executed()) - {"__main__"}
        self._client = getattr(executor, "_client", None)  # dask's; it may close over its futures
        # an interpreter in a pool starts with the path that a new process would have
        path = list(map(str, sys.path)) if has_interpreters(executor) else None
        self._payload = FunctionPayload(function, shared, path, apart)
        self._arrived = False  # whether a worker has received the payload
        self._events: SimpleQueue[tuple[Future[Any], Errand] | None] = SimpleQueue()
        self._running: dict[Future[Any], Errand] = {}
        self._suspects: deque[Errand] = deque()
        self._held: deque[Errand] = deque()
        self._out: list[Report | Crash] = []
        self._lost: BaseException | None = None

    def start(self, slot: int, job: Job) -> None:
        """Submit a job, or hold it back while a suspect runs alone."""
        errand = Errand(slot, job)
        if self._suspects:
            self._held.append(errand)
        else:
            self._submit(errand)

    def wait(self, timeout: float | None) -> list[Report | Crash]:
        """Wait until a job has ended, `timeout` seconds have passed, or `wake` was called."""
        try:
            event = self._next(0 if self._out else timeout)
            while True:
                if event is not None and self._running.pop(event[0], None) is not None:
                    self._take_in(*event)
                    event = None  # keep its result no longer
                event = self._events.get_nowait()
        except Empty:
            out, self._out = self._out, []
            return out

    def wake(self) -> None:
        """Make `wait` return early; any thread may call this."""
        self._events.put(None)

    def close(self, abandon: bool) -> None:
        """Cancel what has not begun, and ignore the rest; the owner keeps the executor."""
        running, self._running = self._running, {}
        self._suspects.clear()
        self._held.clear()
        self._events = SimpleQueue()
        if abandon:
            self._payload.abandoned = True
            for future in running:
                future.cancel()

    def _next(self, timeout: float | None) -> tuple[Future[Any], Errand] | None:
        """Wait for the next event; check regularly whether dask's client has been closed."""
        if self._client is None:
            return self._events.get(timeout=timeout)
        end = inf if timeout is None else monotonic() + timeout
        while True:
            try:
                return self._events.get(timeout=min(CHECK, max(0, end - monotonic())))
            except Empty:
                if self._running and getattr(self._client, "status", None) == "closed":
                    self._give_up()
                elif monotonic() < end:
                    continue
                raise

    def _give_up(self) -> None:
        """Fail everything: the executor is gone, and its jobs with it."""
        self._lost = refused(RuntimeError("its client is closed"))
        running, self._running = self._running, {}
        for errand in running.values():
            self._fail(errand, self._lost)
        self._go_on()

    def _submit(self, errand: Errand) -> None:
        """Give the next items of an errand to the executor."""
        if self._lost is None:
            whole = errand.wanting or not self._arrived
            job = errand.job
            values = errand.values()
            envelope = Envelope(self._payload, values, job.invoked, whole, job.patience)
            try:
                future = self._executor.submit(run, envelope)
            except BrokenExecutor as error:
                self._lost = broken(error)
            except Exception as error:  # noqa: BLE001 - shut down, or its cluster is gone
                self._payload.check()
                self._lost = refused(error)
            else:
                self._running[future] = errand
                events = self._events
                future.add_done_callback(lambda done: events.put((done, errand)))
                return
        self._fail(errand, self._lost)

    def _take_in(self, future: Future[Any], errand: Errand) -> None:
        """Turn the outcome of a submission into an event, or submit what follows."""
        try:
            reply = future.result()
            self._arrived = True
            errand.wanting = isinstance(reply, Wanting)
            if errand.wanting:
                if reply.apart is not None:
                    self._payload.keep_apart([reply.apart])
                self._submit(errand)
                self._go_on()
                return
            expected = len(errand.values())
            results, failures, elapsed = reply.open()
            errand.halted = len(results) < expected
            errand.add(results, failures, elapsed)
        except CancelledError as error:
            errand.add(*all_failed(len(errand.values()), cancelled(error)))
        except Exception as error:  # noqa: BLE001 - the executor's, or the network's
            self._payload.check()
            if not is_loss(error):
                errand.add(*all_failed(len(errand.values()), error))
            elif errand.alone:
                self._out.append(errand.crash(killed(error)))
                self._suspects.popleft()
            else:
                self._suspects.append(errand)
        if errand.over:
            self._end(errand)
        self._go_on()

    def _go_on(self) -> None:
        """Submit the jobs that no longer need to wait."""
        while self._suspects and not self._running:
            suspect = self._suspects[0]
            suspect.alone = True
            self._submit(suspect)
        while self._held and not self._suspects:
            self._submit(self._held.popleft())

    def _fail(self, errand: Errand, error: BaseException) -> None:
        """Report an errand whose remaining items all fail."""
        errand.add(*all_failed(len(errand.job.values) - len(errand.results), error))
        self._end(errand)

    def _end(self, errand: Errand) -> None:
        """Report an errand that is over."""
        self._out.append(errand.report())
        if errand.alone:
            self._suspects.popleft()


class Errand:
    """A job that may be submitted several times.

    Attributes:
        slot: Its slot.
        job: The job.
        alone: Whether it is a suspect, whose items run one at a time.
        wanting: Whether its worker did not know the function.
        results: The known results of its items, from the first on.
        failures: The failures among them.
        elapsed: How long they ran, in nanoseconds.
        halted: Whether a failure has ended the job.
    """

    __slots__ = ("alone", "elapsed", "failures", "halted", "job", "results", "slot", "wanting")

    def __init__(self, slot: int, job: Job) -> None:
        self.slot: int = slot
        self.job: Job = job
        self.alone: bool = False
        self.wanting: bool = False
        self.results: list[Any] = []
        self.failures: Failures = []
        self.elapsed: int = 0
        self.halted: bool = False

    def values(self) -> list[Any]:
        """Return the items to submit next."""
        if self.alone:
            return self.job.values[len(self.results) :][:1]
        return self.job.values

    def add(self, results: list[Any], failures: Failures, elapsed: int) -> None:
        """Take in the outcomes of the next items."""
        known = len(self.results)
        self.results += results
        self.failures += [(known + place, error) for place, error in failures]
        self.elapsed += elapsed

    @property
    def over(self) -> bool:
        """Whether every item has its outcome, or a failure has ended the job."""
        return self.halted or len(self.results) == len(self.job.values)

    def report(self) -> Report:
        """Return the event that reports its end."""
        return Report(self.slot, self.job, self.results, self.failures, self.elapsed)

    def crash(self, error: BaseException) -> Crash:
        """Return the event that reports the death of a worker that had only the next item."""
        at = len(self.results)
        return Crash(self.slot, self.job, self.results, self.failures, at, error)
