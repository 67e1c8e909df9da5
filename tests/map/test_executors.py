"""`executor=`: the jobs of a map in executors that are not opero's own."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextvars
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import crowd
import pytest
from crowd import PATIENCE

from opero import AllFailedError, OperoError, opero, opmap
from opero.core.chunk import ChunkSizer
from opero.exceptions import ErrorStandIn, WorkerCrashedError
from opero.map.driver import drive
from opero.map.engines.base import Crash, Report
from opero.map.engines.executors import envelope
from opero.map.engines.executors.engine import ExecutorEngine, workers_of
from opero.map.invocation import Invocation
from opero.map.jobs import Job
from opero.map.output import NOTHING, Span
from opero.map.progress import Silent
from opero.map.reader import InPlace
from opero.map.scheduler import Scheduler
from opero.map.serialization import arrivals, function_payload

pytestmark = pytest.mark.once


# --- what the workers are given to do ---------------------------------------------------------------


class Flop(Exception):
    pass


class Stubborn(Exception):
    """An exception whose plain pickle cannot be read."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


class Locked(Exception):
    """An exception that cannot be pickled at all."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())


class Unreadable:
    """A value that can be pickled but not unpickled."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def plain(value: Any, plus: int = 1) -> Any:
    return value + plus


@opero(retries=1)
def decorated(value: int) -> Any:
    return value, os.getpid(), multiprocessing.parent_process() is not None


def moody(value: Any) -> Any:
    if value == 1:
        raise Stubborn(1, 2)
    if value == 2:
        raise Locked
    if value == 3:
        return lambda: None if sys else threading.Lock()
    if value == 4:
        return threading.Lock()
    if value == 5:
        return Unreadable()
    if value == 6:
        raise SystemExit(3)
    return [value]


def suicidal(value: Any) -> Any:
    if value == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def slow(value: Any) -> Any:
    time.sleep(0.2)
    return value


class Owner:
    def __init__(self, plus: int) -> None:
        self.plus = plus

    @opero(retries=1)
    def add(self, value: int) -> int:
        return value + self.plus


# --- running a map ----------------------------------------------------------------------------------


def run_map(
    function: Any,
    items: Any,
    executor: Any,
    chunk: int = 0,
    workers: int | None = None,
    shared: dict[str, Any] | None = None,
    **options: Any,
) -> list[Any]:
    call = opero(**{"retries": 1, **options})(function)
    engine = ExecutorEngine(function, shared or {}, executor, workers or workers_of(executor))
    sizer = ChunkSizer(engine.slots, 2_000_000, chunk, -1)
    scheduler = Scheduler(call.__opero__, shared or {}, sizer, 1000, True, None)
    source = InPlace(items)
    ways = drive(
        scheduler, lambda: engine, source, call.__opero__.clock, lambda: Silent(None), False
    )
    return [result for ready in ways for result in ready]


def job_of(*values: Any) -> Job:
    return Job(Span(list(values)), range(len(values)), list(values), None)


def events_of(engine: ExecutorEngine, count: int) -> list[Report | Crash]:
    """Wait for `count` events."""
    events: list[Report | Crash] = []
    end = time.monotonic() + PATIENCE
    while len(events) < count:
        assert time.monotonic() < end, "the engine hangs"
        events += engine.wait(1)
    return events


def new_pool(workers: int) -> cf.ProcessPoolExecutor:
    return cf.ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver"))


@pytest.fixture
def processes():
    with new_pool(2) as executor:
        yield executor


class Inline(cf.Executor):
    """An executor without `_max_workers` that runs each call on submission."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: Any = cf.Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Fragile(cf.Executor):
    """An executor that loses its workers over certain items, and then continues."""

    def __init__(self, batch: int, kind: type[Exception]) -> None:
        self.batch = batch
        self.kind = kind
        self.waiting: list[Any] = []
        self.lock = threading.Lock()  # timers flush, too
        self.lost = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        future: Any = cf.Future()
        (packet,) = args
        one = (future, pickle.loads(pickle.dumps(packet)), packet._values)
        with self.lock:
            self.waiting.append(one)
            full = len(self.waiting) >= self.batch
        if full:
            self.flush()
        else:
            threading.Timer(0.02, self.flush).start()
        return future

    def flush(self) -> None:
        with self.lock:
            batch, self.waiting = self.waiting, []
            lost = any("die" in values for _, _, values in batch)
            self.lost += lost
        for future, packet, _ in batch:
            if lost:
                future.set_exception(self.kind("all those workers died"))
            else:
                future.set_result(envelope.run(packet))


class Forgetful(cf.Executor):
    """An executor that never finishes its work, as dask's may when its client is closed."""

    def __init__(self) -> None:
        self._client = SimpleNamespace(status="running")

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return cf.Future()


class KilledWorker(Exception):
    """An error with the name of dask's."""


# --- the same results everywhere ----------------------------------------------------------------------


def test_an_item_that_cannot_be_pickled_is_not_tried_again() -> None:
    """A retry would fail in the same way."""
    with cf.ProcessPoolExecutor(1) as pool:
        mapped = opmap(executor=pool, retries=3, min_delay=0, progress=False)(moody)
        batch = mapped([7, threading.Lock(), 8])
    assert batch[::2] == [[7], [8]]
    assert "the item of type _thread.lock cannot be pickled" in str(batch[1])
    assert (batch.attempts, batch.retried) == (3, 0)


def test_threads_of_the_user_give_right_results_in_order():
    """Nothing is pickled on the way to a thread."""
    lock = threading.Lock()
    with cf.ThreadPoolExecutor(3) as executor:
        assert run_map(plain, range(2000), executor) == list(range(1, 2001))
        assert run_map(lambda value: value, [lock] * 5, executor) == [lock] * 5


def test_processes_of_the_user_give_right_results_in_order(processes):
    """Chunks are small or large, and items are plain or not."""
    assert run_map(plain, range(5000), processes) == list(range(1, 5001))
    assert run_map(plain, range(100), processes, chunk=7) == list(range(1, 101))
    items = [[value, {"at": value}] for value in range(300)]
    assert run_map(plain, items, processes, shared={"plus": [3]}) == [[*item, 3] for item in items]


def test_an_executor_that_runs_calls_at_once_works():
    """`submit` may return after the call has ended."""
    assert run_map(plain, range(50), Inline()) == list(range(1, 51))


def test_opmap_takes_an_executor(processes):
    """An item goes from the decorator to the worker and back."""
    mapped = opmap(mode="process", executor=processes, workers=2, ordered=True)(plain)
    assert mapped(range(1000), plus=3) == list(range(3, 1003))
    assert list(mapped.stream(range(10))) == list(range(1, 11))


def test_an_executor_serves_a_coroutine(processes):
    """After a cancelled `amap` or `astream`, calls that have begun continue in the executor."""
    mapped = opmap(executor=processes, workers=None, progress=False)(plain)

    async def main() -> None:
        assert await mapped.amap(range(100)) == list(range(1, 101))
        assert [each async for each in mapped.astream(range(10), plus=2)] == list(range(2, 12))
        task = asyncio.ensure_future(
            opmap(executor=processes, progress=False)(slow).amap(range(999))
        )
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    crowd.run(main())
    assert processes.submit(plain, 1).result(PATIENCE) == 2


def test_the_executor_stays_open(processes):
    """It belongs to the user."""
    run_map(plain, range(10), processes)
    assert processes.submit(plain, 1).result(PATIENCE) == 2


def test_a_decorated_function_travels_by_its_name(processes):
    """The worker imports the wrapper and takes the function out of it."""
    function = decorated.__wrapped__
    assert isinstance(function_payload.carrier(function), function_payload.Named)
    for value, pid, elsewhere in run_map(function, range(5), processes):
        assert (pid != os.getpid(), elsewhere) == (True, True), value


def test_closures_and_lambdas_travel_by_their_source(processes):
    """What has no importable name travels by cloudpickle."""
    plus = 10
    assert run_map(lambda value: value + plus, range(5), processes) == list(range(10, 15))


def test_a_method_travels_undecorated_with_its_owner(processes):
    """A plain pickle of the bound method would lead to the decorated one."""
    bound = Owner.add.__wrapped__.__get__(Owner(5))
    assert isinstance(function_payload.carrier(bound), function_payload.Bound)
    assert run_map(bound, range(5), processes) == list(range(5, 10))


def test_a_function_that_cannot_travel_ends_the_map_and_says_why(processes):
    """Failing each item separately would make no sense."""
    with pytest.raises(TypeError, match="cannot pickle"):
        run_map(plain, range(5), processes, shared={"plus": threading.Lock()})
    assert processes.submit(plain, 1).result(PATIENCE) == 2


def test_a_function_that_cannot_be_loaded_fails_each_item_with_the_reason(processes):
    """The worker may lack the function's module."""
    engine = ExecutorEngine(plain, {}, processes, 2)
    named = function_payload.Named(("nowhere", "f", []), plain)
    body = pickle.dumps((arrivals.code_of(named), {}))
    engine._payload._packed = b"any name", pickle.dumps(([], body))
    engine.start(0, job_of(1, 2))
    (event,) = events_of(engine, 1)
    engine.close(False)
    assert [(place, type(error)) for place, error in event.failures] == [
        (0, ModuleNotFoundError),
        (1, ModuleNotFoundError),
    ]


def test_main_module_functions_classes_and_exceptions_travel(tmp_path):
    """In a script, the workers' main module is a different one."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys; sys.path[:0] = [sys.argv[1], os.path.dirname(sys.argv[1])]\n"
        "import multiprocessing, concurrent.futures as cf\n"
        "class Boom(Exception): pass\n"
        "class Thing:\n"
        "    def __init__(self, n): self.n = n\n"
        "def work(thing):\n"
        "    if thing.n == 2: raise Boom(2)\n"
        "    return Thing(thing.n + 1)\n"
        "def main():\n"
        "    from test_executors import run_map\n"
        "    context = multiprocessing.get_context(sys.argv[2])\n"
        "    with cf.ProcessPoolExecutor(1, context) as executor:\n"
        "        got = run_map(work, [Thing(n) for n in range(4)], executor, chunk=2)\n"
        "    assert [type(each) for each in got] == [Thing, Thing, Boom, Thing], got\n"
        "    assert [each.n for each in got if type(each) is Thing] == [1, 2, 4]\n"
        "    assert got[2].args == (2,)\n"
        "if __name__ == '__main__': main()\n"
    )
    for method in ["spawn", "forkserver", "fork"]:
        done = subprocess.run(
            [sys.executable, str(script), str(Path(__file__).parent), method],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (method, done.stderr)


def test_threads_see_the_context_of_the_caller():
    """Mode `thread` does the same."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    variable.set("seen")
    with cf.ThreadPoolExecutor(1) as executor:
        assert run_map(lambda _: variable.get(), [1, 2], executor) == ["seen"] * 2


# --- failures of items --------------------------------------------------------------------------------


def test_what_cannot_travel_fails_its_own_item_only(processes):
    """One chunk contains such arguments, results and exceptions."""
    items = [0, 1, 2, 3, 4, 5, 6, threading.Lock(), Unreadable(), 9]
    got = run_map(moody, items, processes, chunk=10)
    assert got[0] == [0]
    assert (type(got[1]), got[1].args) == (Stubborn, ("1 and 2",))
    assert (type(got[2]), "Locked" in str(got[2])) == (ErrorStandIn, True)
    assert callable(got[3])
    assert (type(got[4]), "the result of type _thread.lock cannot be" in str(got[4])) == (
        TypeError,
        True,
    )
    assert (type(got[5]), "no number" in str(got[5])) == (TypeError, True)
    assert (type(got[6]), got[6].code) == (SystemExit, 3)
    assert (type(got[7]), "the item of type _thread.lock cannot be" in str(got[7])) == (
        TypeError,
        True,
    )
    assert (type(got[8]), "no number" in str(got[8])) == (TypeError, True)
    assert got[9] == [9]


def test_a_failure_shows_where_it_was_raised(processes):
    """The traceback of the other process is its cause, as in mode `process`."""
    items = [0, 1, 2, 6]
    _, stubborn, locked, fatal = run_map(moody, items, processes, chunk=2)
    for error in [stubborn, locked, fatal]:
        assert "in moody" in str(error.__cause__)
        assert "threads.py" not in str(error.__cause__)
    shown = "".join(traceback.format_exception(stubborn))
    assert "raise Stubborn(1, 2)" in shown
    (again,) = run_map(moody, [1], processes, retries=2, min_delay=0.01)
    assert "in moody" in str(again.errors[0].__cause__)


def test_failed_items_are_tried_again(processes, tmp_path):
    """An attempt in another process counts like one in this process."""

    def second_time(value: int) -> int:
        mark = Path(tmp_path, str(value))
        if not mark.exists():
            mark.touch()
            raise Flop
        return value

    options = {"retries": 2, "min_delay": 0.01}
    assert run_map(second_time, range(20), processes, chunk=4, **options) == list(range(20))


def test_a_fallback_value_takes_its_place(processes):
    """An invocation travels in place of the item."""
    engine = ExecutorEngine(plain, {"plus": 1}, processes, 2)
    job = job_of(Invocation((1,), {"plus": 41}))
    job.invoked = True
    engine.start(0, job)
    (event,) = events_of(engine, 1)
    engine.close(False)
    assert event.results == [42]


def test_the_elapsed_time_is_that_of_the_worker(processes):
    """It determines the size of chunks."""
    engine = ExecutorEngine(slow, {}, processes, 2)
    engine.start(0, job_of(1, 2))
    (event,) = events_of(engine, 1)
    engine.close(False)
    assert isinstance(event, Report)
    assert 0.4e9 <= event.elapsed < 5e9


# --- executors that break, or are ended ----------------------------------------------------------------


def test_a_broken_process_pool_fails_what_is_left_and_ends_soon():
    """Finished results stay, and no retry waits in vain."""

    def work(value: Any) -> Any:
        if isinstance(value, float):
            time.sleep(value)
        return suicidal(value)

    items = [*range(200), "die", *[0.01] * 1000]
    begun = time.monotonic()
    with new_pool(2) as executor:
        got = run_map(work, items, executor, chunk=5)
    assert time.monotonic() - begun < PATIENCE
    assert len(got) == len(items)
    lost = {at: each for at, each in enumerate(got) if isinstance(each, BaseException)}
    assert [each for at, each in enumerate(got) if at not in lost] == [
        each for at, each in enumerate(items) if at not in lost
    ]
    assert 200 in lost
    assert len([at for at in lost if at < 200]) <= 10, "more than what was in flight"
    assert len(lost) >= 500, "the pool was found broken too late"
    assert {type(each) for each in lost.values()} == {WorkerCrashedError}
    assert "the executor broke" in str(lost[200])
    assert "mode='process' without executor=" in str(lost[200])
    assert isinstance(lost[200].__cause__, BrokenProcessPool)


def test_retries_do_not_keep_a_broken_pool_waiting():
    """In a lost executor, each attempt fails immediately."""
    begun = time.monotonic()
    with new_pool(1) as executor:
        got = run_map(suicidal, ["die"] * 50, executor, chunk=5, retries=3, min_delay=0.01)
    assert time.monotonic() - begun < PATIENCE
    last = [each.errors[-1] if isinstance(each, AllFailedError) else each for each in got]
    assert [type(each) for each in last] == [WorkerCrashedError] * 50


def test_a_pool_that_was_broken_before_ends_the_same_way():
    """Nothing is ever submitted."""
    with new_pool(1) as executor:
        with pytest.raises(BrokenProcessPool):
            executor.submit(suicidal, "die").result(PATIENCE)
        got = run_map(plain, range(10), executor)
    assert [type(each) for each in got] == [WorkerCrashedError] * 10


def test_an_executor_that_was_shut_down_fails_every_item_with_the_reason():
    """The error says what is wrong."""
    executor = cf.ThreadPoolExecutor(1)
    executor.shutdown()
    got = run_map(plain, range(10), executor)
    assert [type(each) for each in got] == [OperoError] * 10
    assert "after shutdown" in str(got[0])


def test_futures_that_the_user_cancels_fail_with_a_clear_error():
    """The user calls `shutdown(cancel_futures=True)` during a map."""
    gate = threading.Event()

    def work(value: int) -> int:
        gate.wait(PATIENCE)
        return value

    executor = cf.ThreadPoolExecutor(1)
    engine = ExecutorEngine(work, {}, executor, 3)
    for slot in range(3):
        engine.start(slot, job_of(slot, slot))
    executor.shutdown(wait=False, cancel_futures=True)
    gate.set()
    events = {event.slot: event for event in events_of(engine, 3)}
    engine.close(False)
    assert events[0].results == [0, 0]
    for slot in [1, 2]:
        assert events[slot].results == [NOTHING] * 2
        assert [place for place, _ in events[slot].failures] == [0, 1]
        assert "cancelled in the executor" in str(events[slot].failures[0][1])


def test_futures_that_an_executor_forgets_do_not_hold_up_the_map():
    """The map notices a closed client within a second or so."""
    executor = Forgetful()
    timer = threading.Timer(0.2, vars(executor._client).update, ({"status": "closed"},))
    timer.start()
    begun = time.monotonic()
    got = run_map(plain, range(20), executor, chunk=2)
    assert time.monotonic() - begun < PATIENCE
    assert [type(each) for each in got] == [OperoError] * 20
    assert "client is closed" in str(got[0])
    timer.join()


@pytest.mark.parametrize("kind", [KilledWorker, cf.BrokenExecutor])
def test_only_the_culprit_is_blamed_for_workers_that_are_lost(kind):
    """Jobs of the same workers run again, one item at a time."""
    executor = Fragile(3, kind)
    items = [*range(20), "die", *range(20, 50), "die", *range(50, 60)]
    got = run_map(plain_or_die, items, executor, chunk=4, workers=3)
    assert [each for each in got if not isinstance(each, BaseException)] == list(range(60))
    assert [type(got[place]) for place in (20, 51)] == [WorkerCrashedError] * 2
    assert "killed its workers" in str(got[20])
    assert executor.lost <= 4


def plain_or_die(value: Any) -> Any:
    return value


def test_an_item_that_killed_its_workers_is_tried_again_alone():
    """A death counts as a failed attempt."""
    executor = Fragile(2, KilledWorker)
    got = run_map(
        plain_or_die, [1, 2, "die", 3], executor, chunk=4, workers=2, retries=2, min_delay=0.01
    )
    assert got[:2] + got[3:] == [1, 2, 3]
    assert [type(each) for each in got[2].errors] == [WorkerCrashedError] * 2


# --- waiting, waking, closing ---------------------------------------------------------------------------


def test_wait_ends_with_its_timeout_and_with_wake():
    """A driver never waits longer than it asked for."""
    engine = ExecutorEngine(plain, {}, cf.ThreadPoolExecutor(1), 2)
    begun = time.monotonic()
    assert engine.wait(0.05) == []
    assert 0.04 < time.monotonic() - begun < PATIENCE
    timer = threading.Timer(0.05, engine.wake)
    timer.start()
    assert engine.wait(PATIENCE) == []
    assert time.monotonic() - begun < PATIENCE
    timer.join()
    engine.close(False)


def test_an_abandoned_map_does_not_wait_and_runs_nothing_more():
    """What has begun continues in the user's executor, which stays open."""
    gate = threading.Event()
    seen: Counter[int] = Counter()

    def work(value: int) -> int:
        seen[value] += 1
        gate.wait(PATIENCE)
        return value

    with cf.ThreadPoolExecutor(1) as executor:
        engine = ExecutorEngine(work, {}, executor, 4)
        for slot in range(4):
            engine.start(slot, job_of(slot))
        while not seen:
            time.sleep(0.001)
        begun = time.monotonic()
        engine.close(True)
        assert time.monotonic() - begun < PATIENCE / 2
        gate.set()
        assert executor.submit(plain, 1).result(PATIENCE) == 2
    assert seen == {0: 1}
    assert engine.wait(0) == []


def test_as_many_jobs_are_submitted_as_the_user_says_or_the_executor_has_workers():
    """`workers=None` asks the executor; the number is four if it does not say."""
    gate = threading.Event()
    most = 0
    begun = itertools.count(1)

    def work(value: int) -> int:
        nonlocal most
        most = max(most, next(begun))
        gate.wait(PATIENCE)
        return value

    with cf.ThreadPoolExecutor(7) as executor:
        assert workers_of(executor) == 7
        mapped = opmap(mode="thread", executor=executor, workers=None, progress=False)(work)
        mapping = crowd.Job(mapped, range(50))
        crowd.until(lambda: most == 7)
        gate.set()
        assert mapping.result() == list(range(50))
        stream = mapped.stream(range(100))
        assert [next(stream) for _ in range(5)] == list(range(5))
        stream.close()
    assert workers_of(Inline()) == 4
    with pytest.raises(ValueError, match="workers=0"):
        opmap(workers=0, executor=executor)(plain)


def test_a_time_limit_for_attempts_is_refused():
    """The map could not enforce it."""
    with pytest.raises(ValueError, match="attempt_timeout=3"):
        opmap(executor=Inline(), attempt_timeout=3)(plain)


# --- the function and its shared arguments --------------------------------------------------------------


def test_a_worker_keeps_the_functions_of_few_maps(own_payloads):
    """Their shared arguments may be large."""
    for number in range(20):
        load = function_payload.FunctionPayload(plain, {"plus": number})
        function, _ = function_payload.load(*load.pack(True))
        assert function(1) == 1 + number
        assert function_payload.load(*load.pack(False))[0] is function
    assert len(function_payload._loaded) == function_payload.KEPT


@pytest.mark.parametrize("forgets", [0, 1, 3])
def test_large_shared_arguments_travel_once(own_payloads, forgets):
    """They travel again to a worker that lacks them; a small function goes with every job."""
    executor = Weighing(forgets)
    large = bytes(10**6)
    got = run_map(measure, range(100), executor, chunk=2, workers=3, shared={"text": large})
    assert got == [10**6 + value for value in range(100)]
    heavy = [weight for weight in executor.weights if weight > 10**6]
    assert len(executor.weights) - len(heavy) >= 47
    assert len(heavy) <= {0: 3, 1: 50, 3: 26}[forgets]
    assert run_map(plain, range(10), Weighing(1), chunk=1) == list(range(1, 11))


def test_real_processes_get_large_shared_arguments_once(processes):
    """It does not matter which process takes a job."""
    shared = {"text": bytes(3 * 10**6)}
    got = run_map(measure, range(50), processes, chunk=1, shared=shared)
    assert got == [3 * 10**6 + value for value in range(50)]


def measure(value: int, text: bytes) -> int:
    return len(text) + value


@pytest.fixture
def own_payloads():
    """Let a test act as the worker in this process."""
    before = function_payload._loaded.copy()
    function_payload._loaded.clear()
    yield
    function_payload._loaded.clear()
    function_payload._loaded.update(before)


class Weighing(cf.Executor):
    """An executor that runs each call from its pickle; it may forget functions."""

    def __init__(self, forgets: int) -> None:
        self.forgets = forgets
        self.weights: list[int] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        body = pickle.dumps(args)
        self.weights.append(len(body))
        if self.forgets and len(self.weights) % self.forgets == 0:
            function_payload._loaded.clear()
        future: Any = cf.Future()
        future.set_result(pickle.loads(pickle.dumps(fn(*pickle.loads(body)))))
        return future


# --- others ---------------------------------------------------------------------------------------------

STARTED: list[int] = []


def begin(number: int) -> None:
    STARTED.append(number)


def seen_from_the_start(value: int) -> tuple[int, list[int]]:
    return value, STARTED


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, marks=() if method == "fork" else pytest.mark.slow)
        for method in multiprocessing.get_all_start_methods()
    ],
)
def test_processes_that_the_user_prepares_make_the_attempts(method):
    """Any start method works, with an initializer, and with few jobs per process."""
    few = {} if method == "fork" else {"max_tasks_per_child": 2}
    context = multiprocessing.get_context(method)
    pool = cf.ProcessPoolExecutor(2, context, initializer=begin, initargs=(5,), **few)
    with pool as executor:
        got = run_map(seen_from_the_start, range(20), executor, chunk=3)
        assert got == [(value, [5]) for value in range(20)]
        assert run_map(Owner(3).add, range(20), executor) == list(range(3, 23))
    assert STARTED == []


def test_an_initializer_that_fails_is_the_reason_of_every_item():
    """The pool breaks before anything has run, and the map ends."""
    context = multiprocessing.get_context("forkserver")
    for executor in (
        cf.ProcessPoolExecutor(1, context, initializer=begin, initargs=(1, 2)),
        cf.ThreadPoolExecutor(1, initializer=begin, initargs=(1, 2)),
    ):
        with executor:
            got = run_map(plain, range(3), executor, retries=3)
        assert [type(each) for each in got] == [WorkerCrashedError] * 3


class InterpreterShop:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def price(self, value: int) -> int:
        return self.factor * value


def in_interpreter(value: int) -> Any:
    import threading

    if value == 1:
        raise Stubborn(1, 2)
    if value == 2:
        return threading.Lock()
    if value == 3:
        raise SystemExit(3)
    return -value


if hasattr(cf, "InterpreterPoolExecutor"):  # since Python 3.14

    def test_interpreters_are_an_executor_like_any_other(monkeypatch, recwarn):
        """Extension modules such as opero's load in none of them, so it is plain Python there."""
        monkeypatch.delenv("OPERO_REQUIRE_COMPILED", raising=False)
        large = b"x" * 100_000
        with cf.InterpreterPoolExecutor(2) as executor:
            assert workers_of(executor) == 2
            assert run_map(plain, range(500), executor) == list(range(1, 501))
            assert run_map(lambda value: len(large) + value, [1, 2], executor) == [100_001, 100_002]
            assert run_map(decorated, [1], executor)[0][:2] == (1, os.getpid())
            assert run_map(InterpreterShop(2).price, [1, 2], executor) == [2, 4]
            got = run_map(in_interpreter, [0, 1, 2, 3, 4, threading.Lock()], executor)
            assert [type(each) for each in got[1:4]] == [Stubborn, TypeError, SystemExit]
            assert (got[0], got[4], type(got[5])) == (0, -4, TypeError)
            frame = sys._getframe()
            with pytest.raises(TypeError, match="pickle"):
                run_map(lambda value: (value, frame), [1], executor)
        got = run_map(plain, [1], executor)
        assert "after shutdown" in str(got[0])
        assert not recwarn.list


@pytest.mark.slow
def test_loky_is_an_executor_like_any_other():
    """It breaks like a pool of the standard library; the next `get_reusable_executor` is another."""
    import loky

    executor = loky.get_reusable_executor(max_workers=2, timeout=5)
    try:
        assert workers_of(executor) == 2
        assert run_map(lambda value: value + 1, range(1000), executor) == list(range(1, 1001))
        got = run_map(suicidal, [1, "die", 2], executor, chunk=1, workers=1)
        assert got[0] == 1
        assert [type(each) for each in got[1:]] == [WorkerCrashedError] * 2
        assert "SIGKILL" in str(got[1])
        executor = loky.get_reusable_executor(max_workers=2, timeout=5)
        assert run_map(plain, range(100), executor) == list(range(1, 101))
    finally:
        executor.shutdown(wait=True, kill_workers=True)
