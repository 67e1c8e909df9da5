"""Threads and tasks for tests: started together, waited for within bounds, their outcomes kept.

A thread that does not come back fails its test with the place where every thread stands, and cannot
hold up the run: all of them are daemons.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from opero.core.entry import UNDER_WAY

PATIENCE = 20.0
"""Seconds after which a test takes it that something hangs."""


class Job:
    """Work in a thread of its own.

    Attributes:
        thread: The thread.
        value: What the work returned.
        error: What it raised, or None.
    """

    def __init__(self, work: Callable[..., Any], *args: Any) -> None:
        """Start the work.

        Args:
            work: What to do.
            *args: Its arguments.
        """
        self.value: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(work, *args), daemon=True)
        self.thread.start()

    def _run(self, work: Callable[..., Any], *args: Any) -> None:
        try:
            self.value = work(*args)
        except BaseException as error:  # noqa: BLE001 - it is the outcome
            self.error = error

    @property
    def over(self) -> bool:
        """Whether the thread has ended."""
        return not self.thread.is_alive()

    def wait(self) -> Job:
        """Wait until the thread has ended; fail if it does not."""
        self.thread.join(PATIENCE)
        if self.thread.is_alive():
            raise AssertionError("a thread hangs:\n" + where_all_stand())
        return self

    def result(self) -> Any:
        """Wait, and return what the work returned or raise what it raised."""
        self.wait()
        if self.error is not None:
            raise self.error
        return self.value

    def interrupt(self, kind: type[BaseException] = KeyboardInterrupt) -> None:
        """Raise an exception in the thread, as soon as it runs Python code again."""
        ident = self.thread.ident
        assert ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(kind))


class Driven:
    """Calls the coroutines of an object in a loop of its own, one after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, backend: Any) -> None:
        self._loop = loop
        self._backend = backend

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._backend, name)
        return lambda *arguments: self._loop.run_until_complete(method(*arguments))


def together(count: int, work: Callable[[int], Any]) -> list[Job]:
    """Do `work(0)`, ..., `work(count - 1)` in threads that start at one moment; wait for all.

    Args:
        count: How many threads.
        work: What each does, given its number.

    Returns:
        The finished jobs, in order.
    """
    barrier = threading.Barrier(count)

    def start(number: int) -> Any:
        barrier.wait(PATIENCE)
        return work(number)

    return wait_all([Job(start, number) for number in range(count)])


def wait_all(jobs: list[Job]) -> list[Job]:
    """Wait for all jobs and return them."""
    for job in jobs:
        job.wait()
    return jobs


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Wait for something that another thread or process brings about."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it does not come about:\n" + where_all_stand())
        time.sleep(0.0005)


def until_group_ends(group: int) -> None:
    """Wait until no process is left of a group."""

    def ended() -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    until(ended)


@contextmanager
def hanging_start(name: str) -> Iterator[list[threading.Thread]]:
    """Let the start of the threads of a name hang within the block; yields those that hang."""
    go = threading.Event()
    hung: list[threading.Thread] = []
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == name:
            hung.append(thread)
            go.wait(PATIENCE)
        real(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        try:
            yield hung
        finally:
            go.set()


async def until_async(condition: Callable[[], Any]) -> None:
    """Wait for something that another task or thread brings about."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it does not come about:\n" + where_all_stand())
        await asyncio.sleep(0)


def where_all_stand() -> str:
    """Return the stacks of all threads."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = []
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame)[-6:])
        stacks.append(f"{names.get(ident, ident)}:\n{stack}")
    return "\n".join(stacks)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a loop of its own, and see to it that it leaves nothing there.

    It runs in a task of its own, next to one that watches it: there are two tasks in all. Fails if
    it takes too long, leaves a task behind, or if the loop is told of an error.
    """

    async def watched() -> Any:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        task = asyncio.ensure_future(main)
        await asyncio.wait({task}, timeout=PATIENCE)
        if not task.done():
            stacks = [str(each.get_stack()) for each in asyncio.all_tasks()]
            raise AssertionError("a task hangs:\n" + "\n".join(stacks))
        value = task.result()
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left over: {left}"
        gc.collect(1)  # what this loop left is young; collecting everything takes too long
        assert not complaints, complaints
        return value

    return asyncio.run(watched())


def flights_of(function: Any) -> list[Any]:
    """Return the runs under way of a cached function, of all of its instances and loops."""
    found: list[Any] = []
    for store in [function.__opero__.store, *function.__opero__.instances.all()]:
        found += [entry for entry in list(store.entries.values()) if entry.state == UNDER_WAY]
        for flight in list(store.flights.values()):
            found += list(flight.values()) if isinstance(flight, dict) else [flight]
    return found


def followers(function: Any) -> int:
    """Return how many threads follow the runs of a cached function."""
    flights = [getattr(run, "flight", run) for run in flights_of(function)]
    return sum(len(flight.waiters or ()) for flight in flights if flight is not None)


def traceback_length(error: BaseException) -> int:
    """Return how many entries the traceback of an exception has."""
    return len(list(traceback.walk_tb(error.__traceback__)))


@contextmanager
def hurried_switching(interval: float = 1e-6) -> Iterator[None]:
    """Let the interpreter switch threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def standing_clock(clock: Any) -> Iterator[Any]:
    """Let time stand still for opero, without letting it skip waits as `manual_clock` does."""
    clock.freeze()
    try:
        yield clock
    finally:
        clock.thaw()
