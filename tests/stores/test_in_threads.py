"""A backend of threads for tasks: what becomes of a call whose task is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from opero.stores import directories, in_threads
from opero.stores.disk import DiskBackend
from opero.stores.in_threads import InThreads
from opero.stores.operations import AsyncOperations, Operations

pytestmark = pytest.mark.once

NAME = "app:" + "0" * 32


class Gated:
    """A backend whose calls wait in the middle until a test lets them go on."""

    def __init__(self, backend, broken=False):
        self._backend = backend
        self._broken = broken
        self.began = threading.Event()
        self.go = threading.Event()
        self.calls = []

    def __getattr__(self, name):
        method = getattr(self._backend, name)

        def call(*arguments):
            removes = name == "swap" and arguments[0].new is None
            self.calls.append("swap away" if removes else name)
            if not removes or arguments[0].along is not None:
                self.began.set()
                assert self.go.wait(20)
            if self._broken:
                raise OSError("out of order")
            return method(*arguments)

        return call


@pytest.fixture
def backend(tmp_path):
    made = DiskBackend(tmp_path / "cache", None, 5.0)
    yield made
    made.close()


async def cancelled_in_the_middle(gated, call):
    """Cancel a call while its thread works, and let the thread end afterwards."""
    task = asyncio.create_task(call(AsyncOperations(InThreads(gated))))
    await asyncio.to_thread(gated.began.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gated.go.set()
    in_threads.WRITING.finish()


@pytest.mark.parametrize("method", ["take", "get_and_take"])
def test_a_lease_that_a_cancelled_task_took_is_given_back(backend, method):
    gated = Gated(backend)
    asyncio.run(
        cancelled_in_the_middle(gated, lambda tasks: getattr(tasks, method)(NAME, "me", 60))
    )
    assert gated.calls == ["swap", "swap away"]
    assert Operations(backend).take(NAME, "you", 60) is None


def test_a_lease_of_another_is_left_alone_by_a_cancelled_task(backend):
    Operations(backend).take(NAME, "you", 60)
    gated = Gated(backend)
    asyncio.run(cancelled_in_the_middle(gated, lambda tasks: tasks.take(NAME, "me", 60)))
    assert gated.calls == ["swap"]
    assert Operations(backend).renew(NAME, "you", 60)


@pytest.mark.parametrize("broken", [False, True])
def test_what_others_wait_for_is_done_though_the_task_is_cancelled(backend, broken):
    Operations(backend).take(NAME, "me", 60)
    gated = Gated(backend, broken)
    asyncio.run(cancelled_in_the_middle(gated, lambda tasks: tasks.settle(NAME, "me", b"1", None)))
    assert Operations(backend).get(NAME) == (None if broken else b"1")


def test_a_call_that_has_not_begun_when_it_is_cancelled(backend, monkeypatch):
    """Reading is left out; giving a lease back is not."""
    Operations(backend).take(NAME, "me", 60)
    gated = Gated(backend)

    only = in_threads.Executor("only", 1)
    monkeypatch.setattr(in_threads, "READING", only)
    monkeypatch.setattr(in_threads, "WRITING", only)

    async def main():
        tasks = AsyncOperations(InThreads(gated))
        first = asyncio.create_task(tasks.get(NAME))
        await asyncio.sleep(0)
        waiting = [
            asyncio.create_task(tasks.get(NAME)),
            asyncio.create_task(tasks.take(NAME, "she", 60)),
            asyncio.create_task(tasks.release(NAME, "me")),
        ]
        await asyncio.sleep(0.01)
        for task in waiting:
            task.cancel()
        for task in waiting:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        gated.go.set()
        assert await first is None

    asyncio.run(main())
    only.finish()
    assert gated.calls == ["get_many", "swap away"]
    assert Operations(backend).take(NAME, "you", 60) is None


def test_an_error_reaches_the_task_that_waits(backend):
    gated = Gated(backend, broken=True)
    gated.go.set()
    for call in (
        lambda tasks: tasks.get(NAME),
        lambda tasks: tasks.put(NAME, b"1", None),
        lambda tasks: tasks.take(NAME, "me", 60),
    ):
        with pytest.raises(OSError, match="out of order"):
            asyncio.run(call(AsyncOperations(InThreads(gated))))


# --- the threads ------------------------------------------------------------------------------------


def test_a_program_that_fills_the_executor_of_its_loop_does_not_hold_up_a_hit(backend):
    """Nor do its own jobs, which wait there for tasks that ask, wait for ever."""
    Operations(backend).put(NAME, b"1", None)
    tasks = AsyncOperations(InThreads(backend))
    go = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(2) as pool:
            loop.set_default_executor(pool)
            full = [asyncio.to_thread(go.wait, 20) for _ in range(3)]
            held = asyncio.gather(*full)
            await asyncio.sleep(0.01)
            assert await asyncio.wait_for(tasks.get(NAME), 10) == b"1"
            go.set()
            await held

            def job():
                return asyncio.run_coroutine_threadsafe(tasks.get(NAME), loop).result(10)

            return await asyncio.gather(*(asyncio.to_thread(job) for _ in range(5)))

    assert asyncio.run(main()) == [b"1"] * 5


class Waiting:
    """A backend whose writes wait until a test lets them go on."""

    def __init__(self):
        self.go = threading.Event()
        self.lock = threading.Lock()
        self.busy = self.most = 0
        self.done = []

    def get_many(self, names):
        return [b"1" for _ in names]

    def put_many(self, entries, ttl):
        with self.lock:
            self.busy += 1
            self.most = max(self.most, self.busy)
        assert self.go.wait(20)
        with self.lock:
            self.busy -= 1
            self.done += [name for name, _ in entries]


def test_who_waits_to_write_keeps_nobody_from_reading():
    """However many write; and no more than a few do so at once."""
    backend = Waiting()
    tasks = AsyncOperations(InThreads(backend))

    async def main():
        writes = [asyncio.create_task(tasks.put(f"{n}", b"1", None)) for n in range(50)]
        await asyncio.sleep(0.01)
        for _ in range(3):
            assert await asyncio.wait_for(tasks.get(NAME), 10) == b"1"
        backend.go.set()
        await asyncio.gather(*writes)

    asyncio.run(main())
    assert len(backend.done) == 50
    assert backend.most <= in_threads._WRITERS


def test_a_loop_that_ends_with_calls_under_way_hears_no_more_of_them(caplog):
    """What was to be written is written all the same."""
    backend = Waiting()
    tasks = AsyncOperations(InThreads(backend))

    async def main():
        writes = [asyncio.create_task(tasks.put(f"{n}", b"1", None)) for n in range(9)]
        await asyncio.sleep(0.01)
        del writes

    asyncio.run(main())
    backend.go.set()
    in_threads.WRITING.finish()
    assert len(backend.done) == 9
    assert caplog.records == []


def test_a_child_process_has_threads_of_its_own(backend):
    """Its parent's are busy when it is forked."""
    waiting = Waiting()
    held = [in_threads.WRITING.submit(lambda: waiting.put_many((), None)) for _ in range(9)]
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            tasks = AsyncOperations(InThreads(backend))
            asyncio.run(tasks.put(NAME, b"child", None))
            os.write(write, asyncio.run(tasks.get(NAME)) or b"nothing")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 99) == b"child"
    os.close(read)
    os.close(write)
    waiting.go.set()
    in_threads.WRITING.finish()
    assert all(each.done() for each in held)


def test_where_no_thread_can_be_started_the_call_runs_in_the_loops_own(backend, monkeypatch):
    """As at the end of the interpreter."""
    only = in_threads.Executor("only", 1)
    monkeypatch.setattr(in_threads, "READING", only)
    monkeypatch.setattr(in_threads, "WRITING", only)

    def refuse(_):
        raise RuntimeError("can't start new thread")

    async def main():
        tasks = AsyncOperations(InThreads(backend))
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            await tasks.put(NAME, b"1", None)
            return await tasks.get(NAME)

    assert asyncio.run(main()) == b"1"
    assert (len(only._threads), len(only._waiting), len(only._pending)) == (0, 0, 0)


ENDS = {
    "task that is cancelled": """
        async def main():
            task = asyncio.create_task(fetch(1))
            while not began.is_set():
                await asyncio.sleep(0.001)
            task.cancel()
        asyncio.run(main())
    """,
    "loop that is left": """
        loop = asyncio.new_event_loop()
        task = loop.create_task(fetch(1))
        while not began.is_set():
            loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
    """,
    "end": "atexit.register(lambda: print(asyncio.run(fetch(1))))",
}

PROGRAM = """
import asyncio, atexit, json, sys, threading, time
from opero import opero
from opero.stores.disk import DiskBackend

@opero(cache=True, cache_backend="disk", cache_dir=sys.argv[1], cache_secret="s" * 32, retries=1)
async def fetch(key):
    return key

began = threading.Event()
real = DiskBackend.swap

def slow(self, change):
    if change.new is None:
        began.set()
        time.sleep(0.2)
    return real(self, change)

DiskBackend.swap = slow
"""


@pytest.mark.parametrize("end", ENDS)
def test_a_program_that_ends_waits_for_what_is_being_written(tmp_path, end):
    """And says nothing."""
    program = PROGRAM + textwrap.dedent(ENDS[end])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    backend = DiskBackend(directories.cache_dir(tmp_path / "cache"), None)
    names, _ = backend.scan("", "", "")
    assert [name.endswith(":lease") for name in names] == [False], done.stderr
    backend.close()
