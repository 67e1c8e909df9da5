"""`worker_init`: what each worker does once, before its first item."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from repeats import REPEATS

FOLDER = Path(__file__).with_name("isolated_map")
sys.path.insert(0, str(FOLDER))

import set_up  # noqa: E402

from opero import OperoError, opmap  # noqa: E402
from opero.map.engines.processes import engine, pool, start  # noqa: E402

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="these tests fork"),
]

QUIET: dict[str, Any] = {"retries": 1, "progress": False, "on_error": "raise"}


@pytest.fixture(scope="module", autouse=True)
def no_process_left():
    yield
    pool.shut()
    assert not pool._all


@pytest.fixture
def noted(tmp_path):
    return tmp_path / "noted"


def pids(noted: Path) -> list[str]:
    return noted.read_text().split()


@pytest.mark.parametrize("mode", ["process", "async_process"])
@pytest.mark.parametrize("method", start.METHODS)
def test_each_worker_process_is_set_up_once_before_its_first_item(mode, method, noted):
    """That holds across several maps."""
    function = set_up.names if mode == "process" else set_up.names_later
    mapped = opmap(
        mode=mode, workers=2, start_method=method, chunk_size=1,
        worker_init=partial(set_up.note, str(noted)), **QUIET,
    )(function)  # fmt: skip
    for _ in range(3):
        assert mapped(range(6)) == [["set up"]] * 6
    assert len(pids(noted)) == len(set(pids(noted))) <= 2


def test_a_worker_that_was_set_up_otherwise_does_not_serve_a_map(noted):
    """A map without `worker_init` gets no such worker either; each finds its own again."""
    one = partial(set_up.note, str(noted), "one")
    two = partial(set_up.note, str(noted), "two")
    maps = {
        "one": opmap(workers=1, worker_init=one, **QUIET)(set_up.names),
        "two": opmap(workers=1, worker_init=two, **QUIET)(set_up.names),
        "same": opmap(workers=1, worker_init=partial(set_up.note, str(noted), "one"), **QUIET)(
            set_up.names
        ),
    }
    without = opmap(workers=1, **QUIET)(set_up.names)
    for _ in range(2):
        assert without([1]) == [[]]
        assert maps["one"]([1]) == [["one"]]
        assert maps["two"]([1]) == [["two"]]
        assert maps["same"]([1]) == [["one"]]
    assert len(pids(noted)) == 2


def test_each_thread_is_set_up_so_it_may_have_locals_of_its_own(noted):
    """Items of a thread also see its context variables."""
    mapped = opmap(
        mode="thread", workers=3, worker_init=partial(set_up.set_local, str(noted)), **QUIET
    )(set_up.uses_local)
    assert mapped(range(12)) == list(range(12))
    assert 1 <= len(pids(noted)) <= 3
    assert list(mapped.stream(range(4))) == list(range(4))
    assert asyncio.run(mapped.amap(range(4))) == list(range(4))


def test_what_it_sets_stays_and_the_rest_is_the_program_s(monkeypatch):
    """That covers log levels, environment, recursion limit and context variables."""
    mapped = opmap(workers=1, worker_init=set_up.settings, **QUIET)(set_up.uses_settings)
    made = ("/nowhere/set up", 2345, logging.DEBUG, "set")
    assert mapped([1]) == [("yes", None, *made)]
    monkeypatch.setenv("OPERO_LATER", "later")
    monkeypatch.setenv("OPERO_SET_UP", "no")
    monkeypatch.setattr(sys, "path", [*sys.path, "/nowhere/later"])
    assert mapped([1]) == [("yes", "later", made[0], "/nowhere/later", *made[1:])]
    without = opmap(workers=1, **QUIET)(set_up.uses_settings)
    limit = sys.getrecursionlimit()
    assert without([1]) == [("no", "later", "/nowhere/later", limit, 0, "not set")]


SCRIPT = """
import contextvars, functools, os, sys, time
from opero import opmap

model = None
settings = {"name": "first"}
current = contextvars.ContextVar("current", default="unset")

class Holder:
    value = None

@functools.lru_cache
def connect(name):
    return [name, os.getpid()]

def prepare():
    global model, extra
    model = os.getpid()
    extra = connect(settings["name"])
    settings["opened"] = model
    Holder.value = model
    current.set(model)
    with open("noted", "a") as file:
        file.write(f"{model} ")

def use(item):
    global spoilt
    assert connect("first") is extra
    assert model == settings["opened"] == Holder.value == current.get() == os.getpid()
    assert "spoilt" not in globals()
    if item == "spoil":
        spoilt = 1
    return item, settings["name"]

async def use_later(item):
    return use(item)

def noted():
    return open("noted").read().split()

for mode, function in (("process", use), ("async_process", use_later)):
    mapped = opmap(mode=mode, workers=1, retries=1, progress=False, worker_init=prepare,
                   start_method=sys.argv[1])(function)
    for item in (1, "spoil", 2):
        assert mapped([item]) == [(item, "first")], mapped([item])
    assert len(noted()) == 1, (mode, noted())
settings["name"] = "other"
use = opmap(mode="process", workers=1, retries=1, progress=False, worker_init=prepare,
            start_method=sys.argv[1])(lambda item: (extra[0], settings["name"]))
assert use([1]) == [("other", "other")], use([1])
assert len(noted()) == 2
assert model is None and settings == {"name": "other"}
"""


@pytest.mark.parametrize("method", start.METHODS)
def test_the_functions_of_a_script_share_what_it_has_made(method, tmp_path):
    """As in one module: globals, containers, classes, cached functions. Other values, another one."""
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, str(script), method],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("wrapped", [False, True])
def test_functions_without_a_module_share_what_it_has_made_too(wrapped, noted):
    """Code of a document or of a script run by `runpy` has no module."""
    code = """
        model = None

        def prepare():
            global model
            model = os.getpid()
            note(path)

        def use(item):
            assert model == os.getpid()
            return item
        """
    names: dict[str, Any] = {"note": set_up.note, "os": os, "path": str(noted)}
    others = names.copy()
    exec(textwrap.dedent(code), names)
    exec(textwrap.dedent(code), others)
    init = partial(names["prepare"]) if wrapped else names["prepare"]
    mapped = opmap(workers=1, worker_init=init, **QUIET)(names["use"])
    assert mapped([1]) == [1]
    assert mapped([2]) == [2]
    assert len(pids(noted)) == 1
    with pytest.raises(AssertionError):
        opmap(workers=1, worker_init=init, **QUIET)(others["use"])([1])


# --- when it fails --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["thread", "process"])
@pytest.mark.parametrize("form", ["call", "stream", "amap"])
def test_one_that_raises_ends_the_map_with_its_error(mode, form, caplog):
    """The error shows the cause and its place, and log records arrive too."""
    mapped = opmap(mode=mode, workers=2, worker_init=set_up.fails, **QUIET)(set_up.names)
    run = {
        "call": lambda: mapped(range(9)),
        "stream": lambda: list(mapped.stream(range(9))),
        "amap": lambda: asyncio.run(mapped.amap(range(9))),
    }[form]
    with pytest.raises(
        OperoError, match="worker_init=fails failed in a worker: LookupError: no m"
    ) as caught:
        run()
    cause = caught.value.__cause__
    assert type(cause) is LookupError
    where = (
        str(cause.__cause__) if mode == "process" else cause.__traceback__.tb_frame.f_code.co_name
    )
    assert "fails" in where
    assert "about to fail" in caplog.text


def test_one_that_exits_ends_the_map():
    """Workers do not obey `sys.exit`."""
    mapped = opmap(workers=2, worker_init=set_up.exits, **QUIET)(set_up.names)
    with pytest.raises(OperoError, match="worker_init=exits failed in a worker: SystemExit: 3"):
        mapped(range(9))


@pytest.mark.parametrize(
    ("init", "how"), [("ends", "ended with exit code 7"), ("kills", "was ended by SIGKILL")]
)
def test_one_that_ends_its_process_ends_the_map(init, how, noted):
    """The map gives up after a few workers."""
    function = partial(set_up.ends, str(noted)) if init == "ends" else set_up.kills
    mapped = opmap(workers=2, worker_init=function, **QUIET)(set_up.names)
    with pytest.raises(
        OperoError, match=f"worker_init={init} ends the workers that call it: .*{how}"
    ):
        mapped(range(9))
    if init == "ends":
        assert 3 <= len(pids(noted)) <= 5


def test_one_that_hangs_is_stopped_where_attempts_have_a_limit(monkeypatch):
    """It has ten times as long, and at least a minute."""
    monkeypatch.setattr(engine, "_PATIENCE", 0.3)
    mapped = opmap(workers=1, worker_init=set_up.hangs, attempt_timeout=0.05, **QUIET)(set_up.names)
    with pytest.raises(OperoError, match=r"worker_init=hangs was still running after 0\.5 s"):
        mapped([1])


def test_one_that_cannot_travel_is_refused_before_anything_starts():
    """The error gives its name and the reason."""
    frame = sys._getframe()

    def prepare() -> None:
        frame.clear()

    mapped = opmap(workers=1, worker_init=prepare, **QUIET)(set_up.names)
    with pytest.raises(TypeError, match="prepare"):
        mapped([1])


@pytest.mark.slow
def test_it_may_fail_again_and_again_and_nothing_is_left():
    """No process and no open file remain."""
    mapped = opmap(workers=2, worker_init=set_up.exits, start_method="fork", **QUIET)(set_up.names)
    for _ in range(2):
        with pytest.raises(OperoError):
            mapped(range(4))
    files = len(list(Path("/proc/self/fd").iterdir()))
    before = len(pool._all)
    for _ in range(REPEATS):
        with pytest.raises(OperoError):
            mapped(range(4))
    assert len(pool._all) <= before
    assert len(list(Path("/proc/self/fd").iterdir())) <= files


def test_workers_that_were_set_up_otherwise_each_time_do_not_pile_up(monkeypatch, noted):
    """The oldest ones end."""
    pool.shut()
    monkeypatch.setattr(pool, "_MANY", 3)
    for number in range(8):
        init = partial(set_up.note, str(noted), str(number))
        mapped = opmap(workers=1, worker_init=init, **QUIET)(set_up.names)
        assert mapped([1]) == [[str(number)]]
        assert sum(map(len, pool._idle.values())) <= 3
    assert mapped([1]) == [["7"]]


def test_what_is_large_is_sent_to_each_worker_and_counts(noted):
    """A worker set up with another array does not serve."""
    numpy = pytest.importorskip("numpy")
    weights = numpy.arange(300_000)
    total = 0

    def prepare() -> None:
        set_up.made.append(int(weights.sum()))

    def use(value: int) -> tuple[list[int], int]:
        return set_up.made.copy(), int(weights[value]) + total

    mapped = opmap(workers=1, worker_init=prepare, **QUIET)(use)
    first = int(weights.sum())
    assert mapped([1, 2]) == [([first], 1), ([first], 2)]
    assert mapped([3]) == [([first], 3)]
    weights[0] = 7
    assert mapped([0]) == [([first + 7], 7)]


# --- options --------------------------------------------------------------------------------------


async def coroutine() -> None:
    pass


def needs_one(argument: int) -> None:
    pass


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"worker_init": 3}, TypeError, "an ordinary function without arguments"),
        ({"worker_init": coroutine}, TypeError, "coroutine function"),
        ({"worker_init": needs_one}, TypeError, r"^worker_init=needs_one is .*missing a required argument: 'argument'\); use functools\.partial\(n"),
        ({"worker_init": print, "mode": "async"}, ValueError, "do it before the map, or use mode='a"),
        ({"worker_init": print, "executor": ThreadPoolExecutor()}, ValueError, "the executor starts"),
        ({"initializer": print}, TypeError, "did you mean 'worker_init'"),
        ({"max_tasks_per_child": 3}, TypeError, "did you mean 'max_items_per_worker'"),
        ({"max_items_per_worker": 0}, ValueError, "1 or more"),
        ({"max_items_per_worker": 2.5}, TypeError, "a whole number"),
        ({"max_items_per_worker": 2, "mode": "thread"}, ValueError, "have workers to renew"),
        ({"max_items_per_worker": 2, "mode": "async"}, ValueError, "have workers to renew"),
        ({"max_items_per_worker": 2, "executor": ThreadPoolExecutor()}, ValueError, "the executor"),
        ({"max_items_per_worker": 2, "chunk_size": 3}, ValueError, "use a smaller chunk_size"),
        ({"max_memory_per_worker": "512MB"}, TypeError, r"512 MiB is 512 \* 2\*\*20"),
        ({"max_memory_per_worker": 512}, ValueError, r"512 MiB is 512 \* 2\*\*20"),
        ({"max_memory_per_worker": 1e9}, TypeError, "a number of bytes"),
        ({"max_memory_per_worker": 2**30, "mode": "thread"}, ValueError, "have workers to renew"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_at_decoration(options, error, message):
    """The error says what to do instead."""

    async def later(value: Any) -> Any:
        return value

    function = later if options.get("mode") == "async" else set_up.names
    with pytest.raises(error, match=message):
        opmap(progress=False, **options)(function)


def test_a_thread_that_sets_a_worker_up_is_no_thread_left(noted):
    """Threads end with the map, including those that failed."""
    before = threading.active_count()
    mapped = opmap(mode="thread", workers=4, worker_init=set_up.exits, **QUIET)(set_up.names)
    with pytest.raises(OperoError):
        mapped(range(100))
    for each in threading.enumerate():
        if each.name.startswith("opero-map-"):
            each.join(10)
    assert threading.active_count() == before
