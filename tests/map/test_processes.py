"""Worker processes: what a map over them promises, with real ends, real signals, real pickles."""

from __future__ import annotations

import importlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crowd import Job as Thread
from crowd import together, until
from repeats import REPEATS

FOLDER = Path(__file__).with_name("isolated_map")
sys.path.insert(0, str(FOLDER))

import work  # noqa: E402
from drive import run_map  # noqa: E402

from opero import opmap  # noqa: E402
from opero.exceptions import AttemptTimeout, ErrorStandIn, OperoError, WorkerCrashedError  # noqa: E402
from opero.map.engines.base import Crash, Report  # noqa: E402
from opero.map.engines.processes import pool, start, worker  # noqa: E402
from opero.map.engines.processes.engine import ProcessEngine  # noqa: E402
from opero.map.invocation import Invocation  # noqa: E402
from opero.map.jobs import Job  # noqa: E402
from opero.map.output import NOTHING, Span  # noqa: E402
from opero.map.serialization.names import whereabouts  # noqa: E402

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="these tests use signals and fork"),
]

METHODS = start.METHODS


@pytest.fixture(scope="module", autouse=True)
def no_process_left():
    """End the warm workers after the last test, and check that nothing of them is left."""
    yield
    pool.shut()
    assert not pool._all
    for child in children():
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        assert b"forkserver" in command or b"resource_tracker" in command, command


@pytest.fixture(autouse=True)
def all_workers_are_idle():
    """Fail a test that leaves a worker busy."""
    yield
    assert len(pool._all) == sum(map(len, pool._idle.values()))


def job(*values: Any) -> Job:
    span = Span(list(values))
    return Job(span, range(len(values)), span.values, None)


def children() -> list[str]:
    """Return the ids of this process's children, including dead ones."""
    task = Path(f"/proc/{os.getpid()}/task")
    return [
        child for thread in task.iterdir() for child in (thread / "children").read_text().split()
    ]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def is_there(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Map:
    """An engine for use by hand."""

    def __init__(self, function: Any, workers: int = 1, **options: Any) -> None:
        self.engine = ProcessEngine(function, {}, workers, **{"start_method": "fork", **options})

    def __enter__(self) -> ProcessEngine:
        return self.engine

    def __exit__(self, *_: object) -> None:
        self.engine.close(abandon=True)


def only(events: list[Report | Crash]) -> Any:
    (event,) = events
    return event


# --- results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_item_has_its_result_in_its_place(method):
    """The chunks may have any size."""
    items = list(range(3000))
    assert run_map(work.increment, items, start_method=method) == [item + 1 for item in items]
    assert run_map(work.increment, items, chunk=7, start_method=method)[-1] == 3000
    assert run_map(work.increment, [], start_method=method) == []


def test_exceptions_come_back_in_their_places_with_where_they_were_raised():
    """Type and arguments are the same, and the cause shows the worker's traceback."""
    results = run_map(work.fails_at_odd, range(10), chunk=5)
    assert results[::2] == [0, 2, 4, 6, 8]
    for place in range(1, 10, 2):
        assert type(results[place]) is LookupError
        assert results[place].args == ("odd", place)
        assert "fails_at_odd" in str(results[place].__cause__)
        assert "worker.py" not in str(results[place].__cause__)


def test_what_items_share_travels_with_the_function():
    """Every call gets it; a call with a fallback value has its own."""
    assert run_map(work.add, [1, 2], shared={"more": 10, "much": 100}) == [111, 112]
    with Map(work.add) as engine:
        given = job(Invocation((5,), {"more": 3}))
        given.invoked = True
        engine.start(0, given)
        assert only(engine.wait(20)).results == [8]


def test_a_function_goes_by_reference_if_a_worker_can_import_it():
    """So does a function behind a wrapper; methods and closures travel by value."""
    assert whereabouts(work.increment) == ("work", "increment", [])
    assert whereabouts(work.wrapped.func) == ("work", "wrapped", ["func"])
    assert whereabouts(math.sqrt) == ("math", "sqrt", [])
    assert whereabouts(lambda: 1) is None
    assert whereabouts(partial(work.add, 1)) is None
    assert run_map(work.wrapped.func, [1]) == [(1, "wrapped")]
    base = 10
    assert run_map(lambda value: value + base, [1, 2]) == [11, 12]
    assert run_map(partial(work.add, 1), [1]) == [2]
    assert run_map("a{}".format, [1, 2]) == ["a1", "a2"]


def test_what_cannot_be_packed_for_all_is_refused_at_once_by_name():
    """The error names the function or the shared argument."""
    lock, thread = threading.Lock(), threading.current_thread()
    with pytest.raises(TypeError, match=r"the function .*<lambda> cannot be pickled"):
        ProcessEngine(lambda value: thread, {}, 1)
    with pytest.raises(TypeError, match=r"the shared argument 'more' of type _thread.lock"):
        ProcessEngine(work.add, {"much": 1, "more": lock}, 1)


def test_a_worker_sees_modules_files_and_settings_as_they_are_when_the_map_is_called(
    tmp_path, monkeypatch
):
    """That includes warm workers."""
    run_map(work.who, [1], workers=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPERO_TEST_SETTING", "now")
    monkeypatch.syspath_prepend("/nowhere/else")
    monkeypatch.setattr(sys, "path", [*sys.path, "/at/the/end"])
    assert run_map(work.surroundings, [1], workers=1) == [(str(tmp_path), "now", "/at/the/end")]
    monkeypatch.undo()
    assert run_map(work.surroundings, [1], workers=1)[0][1] is None


def test_large_items_and_results_arrive_whole():
    """Many travel together, in both directions."""
    sizes = [1, 40_000, 5_000_000, 30_000_000]
    assert run_map(work.blob, sizes, chunk=1) == [bytearray(b"x") * size for size in sizes]
    assert run_map(work.blob, sizes, chunk=4) == [bytearray(b"x") * size for size in sizes]
    numpy = pytest.importorskip("numpy")
    arrays = [numpy.arange(size) for size in (10, 10**5, 10**6)] + [numpy.zeros(0)]
    for array, result in zip(arrays, run_map(numpy.negative, arrays, chunk=4), strict=True):
        assert (result == -array).all()
        result[:] = 1  # it can be written to
    assert run_map(work.length, [bytearray(3_000_000)] * 6, chunk=2) == [3_000_000] * 6


# --- what does not travel -------------------------------------------------------------------------


def test_an_item_that_cannot_be_packed_fails_alone():
    """It may be anywhere in the input, or the only item."""
    bad = work.Unpackable()
    results = run_map(work.who, [1, bad, 2, threading.Lock(), 3], chunk=5)
    assert [type(each) for each in results] == [int, TypeError, int, TypeError, int]
    assert "the item of type work.Unpackable cannot be pickled" in str(results[1])
    assert "not this one" in str(results[1])
    (alone,) = run_map(work.who, [bad], chunk=1)
    assert isinstance(alone, TypeError)


def test_an_item_that_cannot_be_packed_is_not_tried_again():
    """A retry would fail in the same way, so the error is not wrapped."""
    seen: list[Any] = []
    results = run_map(work.who, [1, threading.Lock(), 2], chunk=3, retries=3, seen=seen)
    assert "the item of type _thread.lock cannot be pickled" in str(results[1])
    assert type(results[1]) is TypeError
    assert len(seen) == 1


def test_the_other_fallback_values_are_tried_if_one_cannot_be_packed():
    """Any other failure has the same effect."""
    mapped = opmap(mode="process", retries=2, min_delay=0, arg_fallback="texts", progress=False)
    assert mapped(work.first_length)([[threading.Lock(), "ab"], ["abc", "d"]]) == [2, 3]


def test_an_item_that_cannot_be_unpacked_fails_alone():
    """The error tells what the worker raised."""
    results = run_map(work.length, ["a", work.OneWay(), "ab"], chunk=3)
    assert results[::2] == [1, 2]
    assert "cannot be unpickled in a worker: RuntimeError: this way is closed" in str(results[1])


def test_a_result_that_does_not_travel_fails_its_own_item():
    """It may fail to pickle or to unpickle."""
    results = run_map(work.gives, [1, "lock", 2, "one way", 3, "raise odd", "lambda"], chunk=7)
    assert results[:5:2] == [1, 2, 3]
    assert "the result of type _thread.lock cannot be pickled" in str(results[1])
    assert "the result cannot be unpickled: RuntimeError: this way is closed" in str(results[3])
    assert type(results[5]) is work.OddArguments
    assert results[6]() == 1


def test_any_exception_comes_back_as_itself_or_as_a_stand_in():
    """One has a lock, one odd arguments, one a local class, and one cannot be rebuilt."""
    kinds = ["raise lock", "raise odd", "raise local", "raise one way", "exit", "interrupt", "fine"]
    lock, odd, local, one_way, gone, interrupt, fine = run_map(work.gives, kinds, chunk=9)
    assert type(lock) is work.HasLock
    assert lock.args == ("message",)
    assert type(odd) is work.OddArguments
    assert odd.args == ("a and b",)
    assert type(local).__name__ == "Local"
    assert type(one_way) in {work.OneWayError, ErrorStandIn}
    assert type(gone) is SystemExit
    assert gone.code == 3
    assert type(interrupt) is KeyboardInterrupt
    assert fine == "fine"


def test_an_item_that_kills_who_unpacks_it_or_packs_its_result_fails_alone():
    """The other items of its chunk succeed."""
    items = ["a", work.FatalToUnpack(), "ab"]
    one, dead, two = run_map(work.length, items, chunk=3)
    assert (one, two) == (1, 2)
    assert isinstance(dead, WorkerCrashedError)
    assert dead.exitcode == 11
    one, dead, two = run_map(work.gives, [1, "fatal", 2], chunk=3)
    assert (one, two) == (1, 2)
    assert dead.exitcode == 9


# --- workers that die -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("how", "code", "name"),
    [
        ("exit", 7, None),
        ("kill", -signal.SIGKILL, "SIGKILL"),
        ("segfault", -signal.SIGSEGV, "SIGSEGV"),
        ("abort", -signal.SIGABRT, "SIGABRT"),
    ],
)
def test_a_worker_that_dies_costs_only_the_item_that_killed_it(how, code, name, method):
    """The error says how it ended."""
    items = [*range(10), how, *range(11, 20)]
    results = run_map(work.ends, items, chunk=20, start_method=method)
    dead = results.pop(10)
    assert results == [item for item in items if item != how]
    assert type(dead) is WorkerCrashedError
    assert (dead.exitcode, dead.signal) == (code, name)
    assert (name or "exit code 7") in str(dead)


@pytest.mark.parametrize("function", [work.fills_memory, work.runs_out_of_memory])
def test_an_item_that_takes_all_memory_fails_alone(function):
    """The system kills its process, or refuses the memory."""
    one, error, two = run_map(function, [1, "fill", 2], chunk=3)
    assert (one, two) == (1, 2)
    assert isinstance(error, (WorkerCrashedError, MemoryError))


def test_an_item_that_kills_every_worker_is_given_up_after_its_retries():
    """Each attempt costs only one worker."""
    seen: list[Any] = []
    items = [1, "kill", 2, 3]
    results = run_map(work.ends, items, chunk=4, retries=3, seen=seen, start_method="fork")
    assert results[:1] + results[2:] == [1, 2, 3]
    assert [type(error) for error in results[1].errors] == [WorkerCrashedError] * 3
    assert sum(isinstance(event, Crash) for event in seen) == 3


def test_finished_items_of_a_long_job_are_not_made_again(tmp_path):
    """The worker reports them before it dies over a later item."""
    path = str(tmp_path / "attempts")
    items = [(path, 1), (path, 2), (path, None), (path, 3)]
    seen: list[Any] = []
    results = run_map(work.writes_then_ends, items, workers=1, chunk=4, seen=seen)
    assert [results[0], results[1], results[3]] == [1, 2, 3]
    assert Path(path).read_text().split() == ["1", "2", "None", "3"]
    crash = seen[0]
    assert (crash.results, crash.failures, crash.at) == ([1, 2], [], 2)


def test_a_crash_tells_the_failures_before_it_and_the_slot_goes_on():
    """Places match results."""

    def function(value):
        if value == "wait and die":
            time.sleep(0.3)
            os._exit(1)
        if value < 0:
            raise ValueError(value)
        return value

    with Map(function) as engine:
        engine.start(0, job(1, -1, 2, "wait and die", 3))
        crash = only(engine.wait(20))
        assert crash.results == [1, NOTHING, 2]
        assert [(place, repr(error)) for place, error in crash.failures] == [(1, "ValueError(-1)")]
        assert crash.at == 3
        engine.start(0, job(4, -5))
        report = only(engine.wait(20))
        assert report.results == [4, NOTHING]


def test_an_overlong_attempt_costs_its_worker_and_fails_alone():
    """Items before and after it have their results."""
    begun = time.monotonic()
    results = run_map(work.naps, [0, 0.01, 60, 0.02], chunk=4, attempt_timeout=0.3)
    assert time.monotonic() - begun < 10
    assert [results[0], results[1], results[3]] == [0, 0.01, 0.02]
    assert type(results[2]) is AttemptTimeout
    assert "0.3 s" in str(results[2])


def test_a_worker_that_dies_while_nothing_runs_is_replaced():
    """Nothing is reported."""
    with Map(work.who) as engine:
        engine.start(0, job(1))
        (pid,) = only(engine.wait(20)).results
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_there(pid))
        engine.start(0, job(1))
        (other,) = only(engine.wait(20)).results
        assert other != pid


def test_workers_that_cannot_even_start_end_the_map(monkeypatch):
    """The map gives up after a few."""
    monkeypatch.setattr(worker, "main", lambda *_: os._exit(1))
    pool.shut()
    with pytest.raises(OperoError, match="before they can do anything"):
        run_map(work.increment, [1, 2], start_method="fork")


def test_a_function_that_kills_the_worker_that_imports_it_ends_the_map(tmp_path, monkeypatch):
    """It does not cost a worker for each item."""
    path = tmp_path / "fatal_module.py"
    dies = "import os\n\nif 'FATAL' in os.environ:\n    os._exit(1)\n"
    path.write_text(f"{dies}\n\ndef function(value):\n    return value\n")
    monkeypatch.syspath_prepend(tmp_path)
    import fatal_module

    monkeypatch.setenv("FATAL", "1")
    with pytest.raises(OperoError, match=r"the modules of fatal_module\.function"):
        run_map(fatal_module.function, range(9), chunk=3, start_method="spawn")


def test_a_function_that_no_worker_can_load_ends_the_map(tmp_path, monkeypatch):
    """The error gives the reason, and items do not fail one by one."""
    raises = "import os\n\nif 'FATAL' in os.environ:\n    raise ValueError('fatal')\n"
    path = tmp_path / "failing_module.py"
    path.write_text(f"{raises}\n\ndef function(value):\n    return value\n")
    monkeypatch.syspath_prepend(tmp_path)
    import failing_module

    monkeypatch.setenv("FATAL", "1")
    with pytest.raises(OperoError, match="ValueError: fatal"):
        run_map(failing_module.function, [1, 2], start_method="spawn")


# --- coroutines in workers ------------------------------------------------------------------------


def test_coroutines_run_side_by_side_in_a_worker():
    """As many run as requested; the results are in their places."""
    begun = time.monotonic()
    items = [0.2 - number / 1000 for number in range(40)]
    options = {"runner": "loop", "concurrency": 40, "chunk": 40, "workers": 1}
    assert run_map(work.sleeps, items, **options) == items
    assert time.monotonic() - begun < 6
    assert run_map(work.add_async, [1, 2], shared={"more": 5}, **options) == [6, 7]
    with Map(work.add_async, runner="loop", concurrency=4) as engine:
        given = job(Invocation((5,), {"more": 3}))
        given.invoked = True
        engine.start(0, given)
        assert only(engine.wait(20)).results == [8]


def test_a_coroutine_that_kills_its_worker_fails_alone():
    """Others were under way with it; what does not travel fails alone, too."""
    options = {"runner": "loop", "concurrency": 4, "chunk": 8, "workers": 1}
    items = [0, 0.01, "exit", 0.02, work.Unpackable(), 0.03, work.OneWay(), 0.04]
    results = run_map(work.sleeps, items, **options)
    assert [results[place] for place in (0, 1, 3, 5, 7)] == [0, 0.01, 0.02, 0.03, 0.04]
    assert type(results[2]) is WorkerCrashedError
    assert type(results[4]) is TypeError
    assert type(results[6]) is TypeError


def test_an_overlong_coroutine_fails_alone_also_if_it_blocks_its_loop():
    """The loop ends a waiting one, and the parent ends the worker of a blocking one."""
    options = {"runner": "loop", "concurrency": 4, "chunk": 4, "workers": 1, "attempt_timeout": 0.2}
    results = run_map(work.sleeps, [0, 60, 0.01], **options)
    assert results[::2] == [0, 0.01]
    assert type(results[1]) is AttemptTimeout
    assert type(run_map(work.sleeps, [-1], **options)[0]) is AttemptTimeout


# --- the pool ---------------------------------------------------------------------------------------


def test_workers_stay_warm_between_maps():
    """The next map uses the same ones."""
    first = set(run_map(work.who, range(4), workers=1))
    assert set(run_map(work.who, range(4), workers=1)) == first


def test_a_warm_worker_does_not_run_what_a_function_was_before(tmp_path, monkeypatch):
    """Nor does it run a changed file that this process has not read again."""
    path = tmp_path / "edited_module.py"
    path.write_text("def function(value):\n    return value, 'old', value in {'a', 'b'}\n")
    monkeypatch.syspath_prepend(tmp_path)
    import edited_module

    (before,) = run_map(work.who, [1], workers=1)
    assert run_map(edited_module.function, [1], workers=1) == [(1, "old", False)]
    assert run_map(work.who, [1], workers=1) == [before]
    path.write_text("def function(value):\n    return value, 'newer'\n")
    assert run_map(edited_module.function, [1], workers=1) == [(1, "old", False)]
    importlib.reload(edited_module)
    assert run_map(edited_module.function, [1], workers=1) == [(1, "newer")]
    assert run_map(work.who, [1], workers=1) != [before]
    path.write_text("def function(value):\n    return value, 'newest'\n")
    pool.shut()
    assert run_map(edited_module.function, [1], workers=1) == [(1, "newer")]


def test_threads_that_map_at_once_have_workers_of_their_own():
    """Results are right, even if some workers die."""

    def one(number):
        items = [number * 1000 + each for each in range(50)]
        items[25] = "exit"
        method = METHODS[number % len(METHODS)]
        return items, run_map(work.ends, items, chunk=10, start_method=method)

    for outcome in together(4, one):
        items, results = outcome.result()
        assert isinstance(results.pop(25), WorkerCrashedError)
        assert results == items[:25] + items[26:]


def test_a_map_inside_a_worker_works():
    """It has its own workers, which end with the worker."""
    assert run_map(work.nested, [3, 5], chunk=1) == [[1, 2, 3], [1, 2, 3, 4, 5]]


def test_a_forked_child_starts_its_own_workers_and_leaves_the_parents_alone():
    """Both continue, and the child does not end a map of the parent."""
    (pid,) = run_map(work.who, [1], workers=1, start_method="fork")
    with Map(work.naps) as engine:
        engine.start(0, job(0.5))
        child = os.fork()
        if child == 0:
            try:
                engine.close(abandon=True)
                good = run_map(work.who, [1], workers=1, start_method="fork") != [pid]
                good = good and run_map(work.increment, [1], start_method="forkserver") == [2]
                pool.shut()
                os._exit(0 if good else 1)
            finally:
                os._exit(2)
        assert only(engine.wait(20)).results == [0.5]
    assert os.waitpid(child, 0)[1] == 0
    assert is_there(pid)


def test_what_a_worker_forks_does_not_hide_its_death():
    """The child still has the socket's number, but not the socket."""
    begun = time.monotonic()
    one, dead, two = run_map(work.forks, [1, "die", 2], chunk=3, start_method="fork")
    assert (one, two) == (1, 2)
    assert dead.exitcode == 5
    assert time.monotonic() - begun < 9


def test_idle_workers_end_by_themselves(monkeypatch):
    """New ones start when they are needed."""
    pool.shut()
    monkeypatch.setattr(pool, "IDLE", 0.2)
    (pid,) = run_map(work.who, [1], workers=1)
    until(lambda: not is_there(pid))
    (other,) = run_map(work.who, [1], workers=1)
    assert other != pid
    pool.shut()


def test_ctrl_c_does_not_reach_a_worker_but_what_it_starts():
    """The parent ends workers; programs that a worker runs have the usual handler."""
    ((value, handler),) = run_map(work.interrupts_itself, ["value"])
    assert value == "value"
    assert "default_int_handler" in handler


def test_an_abandoned_map_ends_its_busy_workers_at_once():
    """Its idle workers stay, and nothing else does."""
    for method in METHODS:
        engine = ProcessEngine(work.naps, {}, 3, start_method=method)
        engine.start(0, job(0))
        (report,) = engine.wait(20)
        assert report.results == [0]
        engine.start(1, job(60))
        engine.start(2, job(60, 60))
        engine.wait(0.3)
        busy = [engine._workers[slot].process.pid for slot in (1, 2)]
        begun = time.monotonic()
        engine.close(abandon=True)
        assert time.monotonic() - begun < 10, "they would take a minute"
        assert not any(map(is_there, busy))
        engine.close(abandon=True)
        engine.wake()


def test_wait_ends_early_when_it_is_woken_and_in_time_when_it_is_not():
    """Another thread wakes it; no event has come."""
    with Map(work.naps) as engine:
        begun = time.monotonic()
        assert engine.wait(0.05) == []
        assert 0.04 < time.monotonic() - begun < 5
        timer = threading.Timer(0.05, engine.wake)
        timer.start()
        assert engine.wait(None) == []
        timer.join()
        engine.start(0, job(0))
        assert only(engine.wait(None)).results == [0]


@pytest.mark.slow
def test_many_maps_leave_no_process_and_no_file(tmp_path):
    """Some succeed, some crash, some do not pickle, and some are abandoned."""

    def once():
        assert run_map(work.increment, range(20), chunk=5, start_method="fork")[-1] == 20
        items = [1, "exit", work.Unpackable(), 2]
        results = run_map(work.ends, items, chunk=4, workers=1, start_method="fork")
        assert [results[0], results[3]] == [1, 2]
        with Map(work.naps, 2) as engine:
            engine.start(0, job(60))
            engine.start(1, job(0))
            engine.wait(20)

    def left():
        pool.shut()  # idle workers go away at a time of their own
        return open_files(), len(children())

    for _ in range(3):
        once()
    before = left()
    for _ in range(REPEATS):
        once()
    assert left() == before


# --- whole programs ---------------------------------------------------------------------------------


def run_script(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / f"{name}.py"), *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("method", METHODS)
def test_functions_and_classes_of_a_script_work_though_it_has_no_guard(method):
    """It runs once; its own classes come back as themselves."""
    done = run_script("plain_script", method)
    assert done.stderr == ""
    assert done.stdout.split("\n")[:2] == ["begun", "all is well"]
    assert sorted(done.stdout.split("\n")[2:-1]) == ["said 1", "said 2"]
    assert done.returncode == 0


def test_code_that_has_no_file_works_like_a_notebook():
    """The program comes from the standard input."""
    code = (FOLDER / "plain_script.py").read_text().replace("Path(__file__).parent", f'"{FOLDER}"')
    done = subprocess.run(
        [sys.executable, "-W", "error", "-", "forkserver"],
        input=code, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert "all is well" in done.stdout


@pytest.mark.parametrize("method", METHODS)
def test_workers_end_when_the_process_that_they_work_for_is_killed(method):
    """Busy and idle workers end, and those of a map inside a worker."""
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / "to_be_killed.py"), method],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 4
        assert all(map(is_there, pids))
        process.kill()
    until(lambda: not any(map(is_there, pids)))


def test_ctrl_c_in_the_middle_ends_the_program_and_all_its_workers():
    """SIGINT goes to the process group, as from a terminal; one traceback appears soon."""
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / "to_be_killed.py"), "forkserver"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        pids = [int(word) for word in process.stdout.readline().split()]
        begun = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, complaints = process.communicate(timeout=20)
        assert time.monotonic() - begun < 10
    assert complaints.count("Traceback") == 1
    assert complaints.rstrip().endswith("KeyboardInterrupt")
    until(lambda: not any(map(is_there, pids)))


@pytest.mark.parametrize("tracker", ["as it is", "waits"])
@pytest.mark.parametrize("method", METHODS)
def test_a_thread_that_maps_does_not_keep_a_program_from_ending(method, tracker):
    """A daemon's workers end with the program, even where multiprocessing would wait."""
    thread = Thread(run_script, "ends_meanwhile", method, tracker)
    done = thread.result()
    assert (done.returncode, done.stderr) == (0, "")
