"""`executor=`: the attempts are made by any `concurrent.futures.Executor` that the user brings.

    job -> Parcel --submit--> (pickled on its way, if there is one) -> run -> Reply -> Report
              |                                                          |
              '-- the executor lost the worker: each item by itself <----'

Threads, processes, loky, a dask cluster: an executor does not say whether its workers share this
process. So a `Parcel` and its `Reply` pack what they hold only when something pickles them, item by
item: what cannot be pickled fails its own item, and nothing of the user's is unpickled by the
executor's own threads and processes, which do not survive every error there.
"""

from __future__ import annotations

import contextvars
import itertools
import os
import pickle
import sys
import threading
from collections import OrderedDict, deque
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from functools import partial
from importlib import import_module
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter_ns
from types import MethodType
from typing import Any

from opero.exceptions import (
    ErrorStandIn,
    OperoError,
    WorkerCrashedError,
    _pack_one,
    _unpack,
    describe,
)

from .engine import Crash, Report
from .scheduler import NOTHING, Job
from .threads import attempt

DEFAULT_SLOTS = 4
"""How many jobs run at once if neither the user nor the executor says."""

CHECK = 1.0
"""Seconds between two looks at dask's client: one that is closed can leave futures unfinished."""

KEPT = 4
"""For how many maps a worker process keeps the function; one that comes again is loaded again."""

_PLAIN = {bool, bytes, complex, float, int, str, type(None)}
"""Types whose values always survive a pickle, so that many of them can share one."""

Failures = list[tuple[int, BaseException]]
Sealed = tuple[Any, list[tuple[int, str]]]


# --- the engine -----------------------------------------------------------------------------------


class ExecutorEngine:
    """Runs the jobs of one map in an executor that belongs to the user.

    An executor that says that it lost its workers over a job does not say which item was to blame,
    nor even whether it was one of this job: all jobs that were with the same worker are suspects.
    They wait until nothing else of this map runs, and then their items are tried one at a time, so
    that only the culprit is blamed. An executor that takes no more work is lost for good, as a
    `ProcessPoolExecutor` is after a crash: all that is left fails, at once.

    Attributes:
        slots: How many jobs are with the executor at once.
    """

    def __init__(
        self,
        function: Any,
        shared: dict[str, Any],
        executor: Executor,
        workers: int | None = None,
        clock: Any = None,  # noqa: ARG002 - other engines wait by it
        attempt_timeout: float | None = None,
    ) -> None:
        """Take the function, and submit nothing yet.

        Args:
            function: What to call with each item.
            shared: Keyword arguments of every call.
            executor: Where to; it is never shut down here.
            workers: How many jobs to submit at once; None to ask the executor.
            clock: Not needed here.
            attempt_timeout: Has to be None: no executor can stop a call that has begun.

        Raises:
            ValueError: If an `attempt_timeout` is given.
        """
        if attempt_timeout is not None:
            raise ValueError(
                f"attempt_timeout={attempt_timeout!r} does not go with executor=: "
                "an executor cannot stop a call that has begun"
            )
        self.slots: int = workers or getattr(executor, "_max_workers", None) or DEFAULT_SLOTS
        self._executor = executor
        self._client = getattr(
            executor, "_client", None
        )  # dask's, which may close over its futures
        self._cargo = Cargo(function, shared)
        self._events: SimpleQueue[tuple[Future[Any], Task] | None] = SimpleQueue()
        self._running: dict[Future[Any], Task] = {}
        self._suspects: deque[Task] = deque()
        self._held: deque[Task] = deque()
        self._out: list[Report | Crash] = []
        self._lost: BaseException | None = None

    def start(self, slot: int, job: Job) -> None:
        """Submit a job, or hold it back while a suspect has to be alone."""
        task = Task(slot, job)
        if self._suspects:
            self._held.append(task)
        else:
            self._submit(task)

    def wait(self, timeout: float | None) -> list[Report | Crash]:
        """Wait until a job has ended, `timeout` seconds have passed, or `wake` was called."""
        try:
            event = self._next(0 if self._out else timeout)
            while True:
                if event is not None and self._running.pop(event[0], None) is not None:
                    self._take_in(*event)
                    event = None  # its result is not needed twice
                event = self._events.get_nowait()
        except Empty:
            out, self._out = self._out, []
            return out

    def wake(self) -> None:
        """Let `wait` return early; any thread may call this."""
        self._events.put(None)

    def close(self, abandon: bool) -> None:
        """Cancel what has not begun, and ignore what has; the executor goes on for its owner."""
        running, self._running = self._running, {}
        self._suspects.clear()
        self._held.clear()
        self._events = SimpleQueue()
        if abandon:
            self._cargo.abandoned = True
            for future in running:
                future.cancel()

    def _next(self, timeout: float | None) -> tuple[Future[Any], Task] | None:
        """Wait for the next event; where futures can be forgotten, look now and then for that."""
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
        """Fail everything: the executor is gone, and has forgotten what it had."""
        self._lost = refused(RuntimeError("its client is closed"))
        running, self._running = self._running, {}
        for task in running.values():
            task.add(*all_failed(len(task.job.values) - len(task.results), self._lost))
            self._end(task)
        self._go_on()

    def _submit(self, task: Task) -> None:
        """Give a task to the executor."""
        if self._lost is None:
            parcel = Parcel(self._cargo, task.values(), task.job.call)
            try:
                future = self._executor.submit(run, parcel)
            except BrokenExecutor as error:
                self._lost = broken(error)
            except Exception as error:  # noqa: BLE001 - it was shut down, or its cluster is gone
                self._cargo.check()
                self._lost = refused(error)
            else:
                self._running[future] = task
                events = self._events
                future.add_done_callback(lambda done: events.put((done, task)))
                return
        task.add(*all_failed(len(task.job.values) - len(task.results), self._lost))
        self._end(task)

    def _take_in(self, future: Future[Any], task: Task) -> None:
        """Turn the outcome of a task into an event, or into what has to be done next."""
        try:
            task.add(*future.result().open())
        except CancelledError as error:
            task.add(*all_failed(len(task.values()), cancelled(error)))
        except Exception as error:  # noqa: BLE001 - it is the executor's, or the network's
            self._cargo.check()
            if not is_loss(error):
                task.add(*all_failed(len(task.values()), error))
            elif task.alone:
                self._out.append(task.crash(killed(error)))
                self._suspects.popleft()
            else:
                self._suspects.append(task)
        if task.over:
            self._end(task)
        self._go_on()

    def _go_on(self) -> None:
        """Submit what had to wait, if it need not any more."""
        while self._suspects and not self._running:
            suspect = self._suspects[0]
            suspect.alone = True
            self._submit(suspect)
        while self._held and not self._suspects:
            self._submit(self._held.popleft())

    def _end(self, task: Task) -> None:
        """Report a task."""
        self._out.append(task.report())
        if task.alone:
            self._suspects.popleft()


class Task:
    """A job on its way through the executor.

    Attributes:
        slot: Its slot.
        job: The job.
        alone: Whether it is a suspect, of which one item is tried at a time.
        results: What is known of its items, from the first on.
        failures: The failed ones among them.
        elapsed: How long they ran, in nanoseconds.
    """

    __slots__ = ("alone", "elapsed", "failures", "job", "results", "slot")

    def __init__(self, slot: int, job: Job) -> None:
        self.slot = slot
        self.job = job
        self.alone = False
        self.results: list[Any] = []
        self.failures: Failures = []
        self.elapsed = 0

    def values(self) -> list[Any]:
        """Return the items to submit next."""
        if self.alone:
            return self.job.values[len(self.results) :][:1]
        return self.job.values

    def add(self, results: list[Any], failures: Failures, elapsed: int) -> None:
        """Take in what came of the next items."""
        known = len(self.results)
        self.results += results
        self.failures += [(known + place, error) for place, error in failures]
        self.elapsed += elapsed

    @property
    def over(self) -> bool:
        """Whether the outcome of every item is known."""
        return len(self.results) == len(self.job.values)

    def report(self) -> Report:
        """Return the event of its end."""
        return Report(self.slot, self.job, self.results, self.failures, self.elapsed)

    def crash(self, error: BaseException) -> Crash:
        """Return the event of the death of a worker that had the next item, and only that."""
        at = len(self.results)
        return Crash(self.slot, self.job, self.results, self.failures, at, error)


def all_failed(count: int, error: BaseException) -> tuple[list[Any], Failures, int]:
    """Return the outcome of `count` items that share one failure."""
    return [NOTHING] * count, [(place, error) for place in range(count)], 0


def is_loss(error: BaseException) -> bool:
    """Tell whether an executor says that workers died over a job.

    In dask that is a `distributed.scheduler.KilledWorker`, which is not imported for this.
    """
    if isinstance(error, BrokenExecutor):
        return True
    return any(kind.__name__ == "KilledWorker" for kind in type(error).__mro__)


def killed(error: BaseException) -> WorkerCrashedError:
    """Make the failure of the item that killed its workers."""
    crash = WorkerCrashedError(f"the item killed its workers: {describe(error)}")
    crash.__cause__ = error
    return crash


def broken(error: BaseException) -> OperoError:
    """Make the failure of all that an executor had when it broke for good."""
    message = f"the executor broke, and cannot run anything any more: {describe(error)}"
    return _for_good(error, WorkerCrashedError(message))


def refused(error: BaseException) -> OperoError:
    """Make the failure of all that an executor does not take any more."""
    return _for_good(error, OperoError(f"the executor takes no more work: {describe(error)}"))


def cancelled(error: BaseException) -> OperoError:
    """Make the failure of a job that somebody else cancelled."""
    return _for_good(error, OperoError("the item was cancelled in the executor, and not by opero"))


def _for_good(cause: BaseException, error: OperoError) -> OperoError:
    error.__cause__ = cause
    vars(error)["beyond_retry"] = True  # the scheduler does not wait for another attempt
    return error


# --- what travels ---------------------------------------------------------------------------------


class Cargo:
    """What all parcels of one map have in common: the function and the shared arguments.

    Attributes:
        function: What to call, the shared arguments in it.
        plain: What to call with the arguments of a fallback value.
        context: The context variables as they were where the map was called.
        abandoned: Whether what has not begun need not run any more.
    """

    def __init__(self, function: Any, shared: dict[str, Any]) -> None:
        """Take the function; it is pickled only once it has to travel."""
        self.function = partial(function, **shared) if shared else function
        self.plain = function
        self.context = contextvars.copy_context()
        self.abandoned = False
        self._shared = shared
        self._lock = threading.Lock()
        self._packed: tuple[bytes, bytes] | None = None
        self._error: Exception | None = None

    def pack(self) -> tuple[bytes, bytes]:
        """Return a name for this cargo that no other map's has, and the pickle; made once.

        Raises:
            Exception: Whatever the pickle of the function, or of a shared argument, raises.
        """
        with self._lock:
            if self._packed is None:
                try:
                    data = dumps((carrier(self.plain), self._shared))
                except Exception as error:
                    self._error = error
                    raise
                self._packed = os.urandom(16), data
            return self._packed

    def check(self) -> None:
        """Raise what kept the function from travelling, if anything did."""
        if self._error is not None:
            raise self._error


class Parcel:
    """A job, as it is submitted; in a worker that is no thread of this process, a `SealedParcel`.

    Args:
        cargo: The function.
        values: The items.
        call: The arguments of the one attempt instead, or None.
    """

    _serials = itertools.count()

    def __init__(self, cargo: Cargo, values: list[Any], call: Any) -> None:
        self._cargo = cargo
        self._values = values
        self._call = call
        self._serial = f"{os.getpid()}-{id(cargo)}-{next(self._serials)}-{os.urandom(8).hex()}"

    def run(self) -> Reply:
        """Make the attempts in this process."""
        cargo = self._cargo
        if cargo.abandoned:
            return Reply([], [], 0)
        begun = perf_counter_ns()
        function = cargo.function if self._call is None else cargo.plain
        results, failures = cargo.context.copy().run(attempt, function, self._values, self._call)
        return Reply(results, failures, perf_counter_ns() - begun)

    def __reduce__(self) -> tuple[Any, ...]:
        cargo = self._cargo.pack()
        if self._call is None:
            return SealedParcel, (*cargo, len(self._values), seal(self._values), False)
        return SealedParcel, (*cargo, 1, seal([self._call]), True)

    def __dask_tokenize__(self) -> str:
        """Let dask take no two parcels for the same: it would run equal ones once only."""
        return self._serial


class SealedParcel:
    """A job that has come to a worker by pickle, and what the function is made from.

    Args:
        name: Names the cargo.
        cargo: The pickle of the function and the shared arguments.
        count: How many items there are.
        sealed: The items, or the one attempt's arguments.
        is_call: Which of them.
    """

    def __init__(
        self, name: bytes, cargo: bytes, count: int, sealed: Sealed, is_call: bool
    ) -> None:
        self._name = name
        self._cargo = cargo
        self._count = count
        self._sealed = sealed
        self._is_call = is_call

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self._name, self._cargo, self._count, self._sealed, self._is_call)
        return SealedParcel, parts

    def run(self) -> Reply:
        """Unpickle, and make the attempts."""
        begun = perf_counter_ns()
        try:
            plain, function = load_cargo(self._name, self._cargo)
        except Exception as error:  # noqa: BLE001 - anything can happen in a user's module
            return Reply(*all_failed(self._count, error))
        values, lost = unseal(self._sealed)
        failures: Failures = [
            (place, pickle.PicklingError(f"the item cannot travel to the worker: {why}"))
            for place, why in lost
        ]
        missing = {place for place, _ in lost}
        places = [place for place in range(self._count) if place not in missing]
        if self._is_call:
            results, failed = attempt(plain, places, values[0])
        else:
            given = [values[place] for place in places] if missing else values
            results, failed = attempt(function, given, None)
        failures += [(places[place], error) for place, error in failed]
        if missing:
            found = dict(zip(places, results, strict=True))
            results = [found.get(place, NOTHING) for place in range(self._count)]
        failures.sort(key=_first)
        return Reply(results, failures, perf_counter_ns() - begun)


class Reply:
    """What came of a job; on its way from another process, a `SealedReply`.

    Args:
        results: What each attempt returned; `NOTHING` where one failed.
        failures: The failed ones, by place.
        elapsed: How long the job ran, in nanoseconds.
    """

    def __init__(self, results: list[Any], failures: Failures, elapsed: int) -> None:
        self._results = results
        self._failures = failures
        self._elapsed = elapsed

    def open(self) -> tuple[list[Any], Failures, int]:
        """Return results, failures and time."""
        return self._results, self._failures, self._elapsed

    def __reduce__(self) -> tuple[Any, ...]:
        failures = [(place, seal_error(error)) for place, error in self._failures]
        results = self._results
        if failures:
            results = results.copy()
            for place, _ in failures:
                results[place] = None
        return SealedReply, (seal(results), failures, self._elapsed)


class SealedReply:
    """What has come back from another process.

    Args:
        sealed: The results.
        failures: The pickles of the failures, by place.
        elapsed: How long the job ran, in nanoseconds.
    """

    def __init__(self, sealed: Sealed, failures: list[tuple[int, bytes]], elapsed: int) -> None:
        self._parts = (sealed, failures, elapsed)

    def __reduce__(self) -> tuple[Any, ...]:
        return SealedReply, self._parts

    def open(self) -> tuple[list[Any], Failures, int]:
        """Unpickle; what cannot be, is the failure of its item."""
        sealed, sealed_failures, elapsed = self._parts
        results, lost = unseal(sealed)
        failures: Failures = [(place, unseal_error(data)) for place, data in sealed_failures]
        failures += [
            (place, pickle.PicklingError(f"the result cannot travel back: {why}"))
            for place, why in lost
        ]
        failures.sort(key=_first)
        for place, _ in failures:
            results[place] = NOTHING
        return results, failures, elapsed


def run(parcel: Parcel | SealedParcel) -> Reply:
    """Make the attempts of a job; this is what the executor's workers are given to call."""
    return parcel.run()


def _first(pair: tuple[int, BaseException]) -> int:
    return pair[0]


# --- the function ---------------------------------------------------------------------------------

_loaded: OrderedDict[bytes, tuple[Any, Any]] = OrderedDict()
_loading = threading.RLock()


def load_cargo(name: bytes, cargo: bytes) -> tuple[Any, Any]:
    """Return a map's function, without and with its shared arguments; loaded once in a process."""
    with _loading:
        if name not in _loaded:
            carried, shared = pickle.loads(cargo)
            function = carried.unpack()
            _loaded[name] = function, partial(function, **shared) if shared else function
            while len(_loaded) > KEPT:
                _loaded.popitem(last=False)
        _loaded.move_to_end(name)
        return _loaded[name]


class Named:
    """A function that the worker can import, under whatever decorators its name stands for."""

    def __init__(self, module: str, path: str, depth: int) -> None:
        self._module = module
        self._path = path
        self._depth = depth

    def unpack(self) -> Any:
        """Import the function."""
        found: Any = import_module(self._module)
        for part in self._path.split("."):
            found = getattr(found, part)
        for _ in range(self._depth):
            found = found.__wrapped__
        return found


class Bound:
    """A method: a plain pickle would look its name up, and find the decorated one."""

    def __init__(self, function: Any, owner: Any) -> None:
        self._function = carrier(function)
        self._owner = owner

    def unpack(self) -> Any:
        """Bind the function again."""
        return MethodType(self._function.unpack(), self._owner)


class Whole:
    """A function that travels by whatever its own pickle is."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def unpack(self) -> Any:
        """Return it."""
        return self._function


def carrier(function: Any) -> Named | Bound | Whole:
    """Say how a function travels: by its name if that leads to it, otherwise by a pickle."""
    if isinstance(function, MethodType):
        return Bound(function.__func__, function.__self__)
    module = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str) or module == "__main__":
        return Whole(function)
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    depth = 0
    while found is not None:
        if found is function:
            return Named(module, path, depth)
        found = getattr(found, "__wrapped__", None)
        depth += 1
    return Whole(function)


# --- pickles --------------------------------------------------------------------------------------


def dumps(value: Any) -> bytes:
    """Pickle anything; what only this program's main module knows travels by its source."""
    try:
        data: bytes = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        if b"__main__" not in data:
            return data
    except Exception:  # noqa: BLE001 - cloudpickle knows more, or raises the better error
        pass
    return bytes(import_module("cloudpickle").dumps(value))


def seal(values: list[Any]) -> Sealed:
    """Pickle values each by itself, or all at once where that cannot fail; and say which do not."""
    if _PLAIN.issuperset(map(type, values)):
        return pickle.dumps(values, pickle.HIGHEST_PROTOCOL), []
    pickles: list[bytes] = []
    lost: list[tuple[int, str]] = []
    for place, value in enumerate(values):
        try:
            pickles.append(dumps(value))
        except Exception as error:  # noqa: BLE001 - a user's __reduce__ may raise anything
            pickles.append(b"")
            lost.append((place, describe(error)))
    return pickles, lost


def unseal(sealed: Sealed) -> tuple[list[Any], list[tuple[int, str]]]:
    """Return the values, and which of them are lost, and why."""
    pickles, before = sealed
    if isinstance(pickles, bytes):
        return pickle.loads(pickles), []
    lost = dict(before)
    values: list[Any] = []
    for place, data in enumerate(pickles):
        value = None
        if place not in lost:
            try:
                value = pickle.loads(data)
            except Exception as error:  # noqa: BLE001 - a user's class may raise anything
                lost[place] = describe(error)
        values.append(value)
    return values, sorted(lost.items())


def seal_error(error: BaseException) -> bytes:
    """Pickle an exception, or what can be said of it."""
    packed = _pack_one(error)
    if packed[0] == "lost":  # maybe only because its class is not known where it goes
        try:
            data = dumps(("whole", error))
            if type(pickle.loads(data)[1]) is type(error):
                return data
        except Exception:  # noqa: BLE001 - then it is lost
            pass
    return dumps(packed)


def unseal_error(data: bytes) -> BaseException:
    """Return the exception, or one that stands in for it."""
    try:
        return _unpack([pickle.loads(data)])[0]
    except Exception as error:  # noqa: BLE001 - a user's class may raise anything
        return ErrorStandIn(f"an exception that cannot be rebuilt here: {describe(error)}")
