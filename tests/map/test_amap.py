"""`amap`, `astream` and mode `async` as a whole: both loops, cancellation, interrupts, large numbers."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from crowd import PATIENCE, until, until_async

import opero
from opero import opmap
from opero.core.chunk import ChunkSizer
from opero.exceptions import AttemptTimeout
from opero.map import event_loops
from opero.map.chunk_limits import ChunkFill

pytestmark = pytest.mark.once

QUIET = {"progress": False, "retries": 1}
both_loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


def run(main: Any, loop: str) -> Any:
    """Run a coroutine in a loop of that kind; fail if it leaves a task there, or takes for ever."""

    async def watched() -> Any:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        value = await asyncio.wait_for(main, 2 * PATIENCE)
        for _ in range(3):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left over: {left}"
        gc.collect(1)
        assert not complaints, complaints
        return value

    return event_loops.run(watched, loop)


class Inside:
    """Counts how many attempts are under way.

    Attributes:
        now: How many there are.
        most: How many there were at most.
        begun: How many have begun.
    """

    def __init__(self) -> None:
        self.now = self.most = self.begun = 0

    def __enter__(self) -> None:
        self.begun += 1
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


async def slowly(count: int, seconds: float = 0.001, ended: list[str] | None = None) -> Any:
    """Yield numbers, with a wait before each."""
    try:
        for number in range(count):
            await asyncio.sleep(seconds)
            yield number
    finally:
        if ended is not None:
            ended.append("input")


# --- large numbers ------------------------------------------------------------------------------------


@pytest.mark.slow
@both_loops
def test_many_items_share_a_thousand_slots(loop):
    """Each slot has one task, and waiting items have none."""
    inside = Inside()
    full = asyncio.Event()
    tasks = 0

    @opmap(mode="async", workers=1000, **QUIET)
    async def work(x):
        nonlocal tasks
        with inside:
            if inside.now == 1000:
                tasks = max(tasks, len(asyncio.all_tasks()))
                full.set()
            if x < 1000:  # a machine that is slow to begin them all is given the time
                async with asyncio.timeout(PATIENCE):
                    await full.wait()
            await asyncio.sleep(0.001 * (x % 3))
        return x

    async def main() -> None:
        assert await work.amap(range(20_000)) == list(range(20_000))
        assert await work.amap(slowly(2000, 0)) == list(range(2000))

    run(main(), loop)
    assert inside.most == 1000
    assert 1000 <= tasks <= 1004


@both_loops
def test_a_stream_of_slow_input_is_as_slow_as_its_input_and_no_slower(loop):
    """Each item runs and its result is handed on before the next item arrives."""
    gates: list[asyncio.Event] = []

    async def source() -> AsyncIterator[int]:
        for number in range(5):
            gate = asyncio.Event()
            gates.append(gate)
            yield number
            await gate.wait()

    @opmap(mode="async", workers=3, **QUIET)
    async def work(x):
        return -x

    async def main() -> None:
        seen = []
        async for result in work.astream(source()):
            seen.append(result)
            await until_async(lambda: len(gates) == len(seen))
            gates[-1].set()
        assert seen == [0, -1, -2, -3, -4]

    run(main(), loop)


# --- cancellation -------------------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("asynchronous", [False, True], ids=["list", "async iterator"])
def test_a_cancelled_amap_cancels_what_runs_and_leaves_nothing(loop, asynchronous):
    """The cancellation comes at any moment, 100 times; the input is closed too."""
    dice = random.Random(repr((loop, asynchronous)))
    inside = Inside()
    ended: list[str] = []
    cancelled = 0

    @opmap(mode="async", workers=5, progress=False, retries=2, min_delay=0, max_delay=0.0005)
    async def work(x):
        with inside:
            await asyncio.sleep(dice.choice([0, 0.0002, 0.002]))
            if dice.random() < 0.1:
                raise ValueError(x)
        return x

    async def main() -> None:
        nonlocal cancelled
        for _ in range(100):
            items: Any = slowly(50, 0.0001, ended) if asynchronous else range(50)
            task = asyncio.ensure_future(work.amap(items))
            await asyncio.sleep(dice.choice([0, 0.0005, 0.002, 0.004]))
            for _ in range(dice.choice([1, 2, 3])):
                task.cancel()
                await asyncio.sleep(0)
            await asyncio.wait({task})
            cancelled += task.cancelled()
            assert inside.now == 0
            for _ in range(3):
                await asyncio.sleep(0)
            assert asyncio.all_tasks() == before

    async def around() -> None:
        before.update(asyncio.all_tasks())
        await main()

    before: set[Any] = set()
    run(around(), loop)
    assert cancelled > 30


def run_items_in(mode: str, tmp_path: Path) -> Any:
    """Return a map whose attempts record their process id and never end."""

    def touch() -> None:
        Path(tmp_path, str(os.getpid())).touch()

    def work(x):
        touch()
        time.sleep(60 if mode == "process" else 0.05)

    async def awork(x):
        touch()
        await asyncio.sleep(60)

    function = work if mode in {"thread", "process"} else awork
    return opmap(mode=mode, workers=2, chunk_size=1, **QUIET)(function)


@both_loops
@pytest.mark.parametrize("mode", ["thread", "process", "async", "async_process"])
def test_a_map_ends_though_its_input_is_cancelled_twice_or_fails_at_its_end(loop, mode, tmp_path):
    """Its workers end too."""
    mapped = run_items_in(mode, tmp_path)
    heard: list[str] = []

    async def stubborn() -> AsyncIterator[int]:
        try:
            for number in range(4):
                yield number
            await asyncio.sleep(60)
        finally:
            heard.append("asked")
            try:
                await asyncio.sleep(60)
            finally:
                heard.append("asked again")
                raise OSError("the input cannot be closed")

    async def main() -> None:
        task = asyncio.ensure_future(mapped.amap(stubborn()))
        await until_async(lambda: any(tmp_path.iterdir()))
        task.cancel()
        await until_async(lambda: heard)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled() or isinstance(task.exception(), OSError)

    run(main(), loop)
    assert heard == ["asked", "asked again"]
    others = {int(each.name) for each in tmp_path.iterdir()} - {os.getpid()}
    until(lambda: not any(map(is_alive, others)))


def is_alive(pid: int) -> bool:
    """Return whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@both_loops
def test_a_time_limit_around_amap_ends_it(loop):
    """Both `wait_for` and `asyncio.timeout` end it, and the map can be used again."""
    inside = Inside()

    @opmap(mode="async", workers=3, **QUIET)
    async def work(x):
        with inside:
            await asyncio.sleep(x)

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(work.amap([0, 60, 60, 60, 60]), 0.05)
        assert inside.now == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await work.amap([0, 60, 60, 60, 60])
        assert inside.now == 0
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        assert await work.amap([0, 0]) == [None, None]

    run(main(), loop)


# --- streams that are dropped -------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("way", ["aclosing", "aclose", "dropped", "never begun"])
def test_a_consumer_that_has_enough_ends_the_map(loop, way):
    """`aclose` ends it, and so does dropping the last reference."""
    inside = Inside()
    ended: list[str] = []

    @opmap(mode="async", workers=3, **QUIET)
    async def work(x):
        with inside:
            await asyncio.sleep(0.001)
        return x

    async def take(stream: Any) -> None:
        async for result in stream:
            if result == 7:
                break

    async def main() -> None:
        stream: Any = work.astream(slowly(10**6, 0.0001, ended))
        if way == "aclosing":
            async with aclosing(stream):
                await take(stream)
        elif way != "never begun":
            await take(stream)
        if way == "aclose":
            await stream.aclose()
        del stream
        gc.collect()
        if way != "never begun":
            await until_async(lambda: ended == ["input"])
        await until_async(lambda: len(asyncio.all_tasks()) == count)
        assert inside.now == 0

    async def around() -> None:
        nonlocal count
        count = len(asyncio.all_tasks())
        await main()

    count = 0
    run(around(), loop)
    assert inside.begun < 200


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_a_stream_that_is_left_open_ends_with_asyncio_run(mode):
    """`asyncio.run` closes asynchronous generators; neither tasks nor threads remain."""
    kept = []

    def work(x):
        time.sleep(0.001)
        return x

    async def awork(x):
        await asyncio.sleep(0.001)
        return x

    mapped = opmap(mode=mode, workers=3, **QUIET)(work if mode == "thread" else awork)

    async def main() -> None:
        stream = mapped.astream(range(10**6))
        kept.append(stream)
        async for result in stream:
            if result == 7:
                return

    asyncio.run(main())
    until(lambda: not [each for each in threading.enumerate() if "opero" in each.name])


# --- other loops' habits --------------------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks")
@pytest.mark.parametrize("mode", ["thread", "async"])
def test_eager_tasks_change_nothing(mode):
    """Results, order and cancellation are the same."""

    async def awork(x):
        if x % 3:
            await asyncio.sleep(0)
        return -x

    mapped = opmap(mode=mode, workers=3, **QUIET)(awork if mode == "async" else lambda x: -x)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        expected = [-x for x in range(100)]
        assert await mapped.amap(range(100)) == expected
        assert await asyncio.create_task(mapped.amap(slowly(100, 0))) == expected
        assert [x async for x in mapped.astream(slowly(100, 0))] == expected
        task = asyncio.create_task(mapped.amap(slowly(10**6)))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    run(main(), "asyncio")


@both_loops
def test_an_attempt_that_swallows_its_cancellation_is_given_up(loop):
    """`attempt_timeout` applies to the map, whatever the function does."""
    gate = threading.Event()

    @opmap(mode="async", workers=2, attempt_timeout=0.05, **QUIET)
    async def work(x):
        while x == 3 and not gate.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass
        return x

    async def main() -> list[Any]:
        before = asyncio.all_tasks()
        results = await work.amap(range(10))
        gate.set()
        await until_async(lambda: asyncio.all_tasks() <= before)
        return results

    begun = time.monotonic()
    results = run(main(), loop)
    assert time.monotonic() - begun < PATIENCE
    assert type(results[3]) is AttemptTimeout
    assert results[:3] + results[4:] == [0, 1, 2, 4, 5, 6, 7, 8, 9]


@both_loops
def test_an_awaited_map_runs_in_the_loop_that_is_there(loop):
    """`loop=` applies only to loops that opero makes."""

    @opmap(mode="async", loop="asyncio", **QUIET)
    async def work(x):
        return asyncio.get_running_loop()

    async def main() -> None:
        assert await work.amap([1]) == [asyncio.get_running_loop()]
        (own,) = work([1])  # the plain form makes one, in a thread of its own
        assert own is not asyncio.get_running_loop()
        assert type(own).__module__.startswith("asyncio")

    run(main(), loop)


# --- Ctrl-C -------------------------------------------------------------------------------------------


PROGRAM = """
import asyncio, os, sys, threading, time
from opero import opmap
sys.path[:0] = [{tests!r}]
FOLDER = {folder!r}

def touch(x):
    open(os.path.join(FOLDER, f"{{os.getpid()}}-{{x}}"), "w").close()

def work(x):
    touch(x)
    time.sleep(60)

async def awork(x):
    try:
        touch(x)  # the signal may come any moment from here on
        await asyncio.sleep(60)
    finally:
        print("ended", flush=True)

async def main():
    mapped = opmap(mode={mode!r}, workers=2, progress=False)
    mapped = mapped(work if {mode!r} == "process" else awork)
    await mapped.amap(range(10))

try:
    {start}
except KeyboardInterrupt:
    print("interrupted", flush=True)
left = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
assert not left, left
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["process", "async", "async_process"])
@pytest.mark.parametrize("start", ["asyncio.run(main())", "import uvloop; uvloop.run(main())"])
def test_ctrl_c_ends_an_awaited_map(mode, start, tmp_path):
    """`asyncio.run` handles Ctrl-C itself, and nothing is left."""
    folder = tmp_path / "pids"
    folder.mkdir()
    script = tmp_path / "script.py"
    script.write_text(
        PROGRAM.format(
            tests=str(Path(__file__).parents[1]), folder=str(folder), mode=mode, start=start
        )
    )
    root = str(Path(opero.__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    program = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    try:
        until(lambda: len(list(folder.iterdir())) >= 2)
        os.killpg(program.pid, signal.SIGINT)
        out, err = program.communicate(timeout=2 * PATIENCE)
    finally:
        program.kill()
        program.wait()
    assert "interrupted" in out, err
    if mode == "async":
        assert out.count("ended") == 2
    assert program.returncode == 0, err
    assert "never retrieved" not in err
    assert "never awaited" not in err
    pids = {int(each.name.split("-")[0]) for each in folder.iterdir()}
    until(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize("suspends", [False, True])
def test_a_keyboard_interrupt_of_the_function_itself(suspends):
    """It is its item's failure where Ctrl-C is handled; else it ends `asyncio.run`, as in any task."""
    code = """
    import asyncio, sys
    from opero import opmap
    @opmap(mode="async", workers=2, progress=False, retries=1)
    async def work(x):
        if SUSPENDS: await asyncio.sleep(0)
        if x == 3: raise KeyboardInterrupt("mine")
        return x
    plain = work(range(6))
    assert [type(each).__name__ for each in plain] == ["int"] * 3 + ["KeyboardInterrupt"] + ["int"] * 2
    async def main():
        got = await work.amap(range(6))
        assert list(map(str, got)) == list(map(str, plain)), got
    try:
        asyncio.run(main())
    except KeyboardInterrupt as error:
        assert False, error
    """
    code = textwrap.dedent(code).replace("SUSPENDS", str(suspends))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- worker processes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["known length", "unknown length"])
def test_each_process_makes_several_attempts_at_once(known, tmp_path):
    """The attempts wait for each other, and the map does not know how long they take."""

    def count(x, folder) -> int:
        mine = Path(folder, str(os.getpid()))
        mine.mkdir(exist_ok=True)
        Path(mine, str(x)).touch()
        return len(list(mine.iterdir()))

    @opmap(mode="async_process", workers=2, **QUIET)
    async def work(x, folder):
        end = time.monotonic() + 2 * PATIENCE
        while count(x, folder) < 8:
            assert time.monotonic() < end, "the others do not begin"
            await asyncio.sleep(0.01)
        return x

    items = range(64)
    got = work(items if known else iter(items), folder=str(tmp_path))
    assert got == list(items)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_chunk_fills_a_worker_that_makes_several_attempts_at_once():
    """The last chunks leave work for other workers; a size that the user sets stays."""
    sizer = ChunkFill(ChunkSizer(2, 10**6, 0, 64), 16)
    assert (sizer.left, sizer.workers, sizer.size()) == (64, 2, 16)
    sizer.fed(48)
    assert sizer.size() == 8
    sizer.fed(15)
    assert sizer.size() == 1
    sizer.fed(1)
    assert (sizer.left, sizer.size()) == (0, 1)
    endless = ChunkFill(ChunkSizer(2, 10**6, 0, -1), 16)
    assert endless.size() == 16
    for _ in range(9):
        endless.observe(16, 160)
    assert endless.size() > 1000
    assert ChunkFill(ChunkSizer(2, 10**6, 3, 64), 16).size() == 3
