"""A backend of threads for tasks: what becomes of a call whose task is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from opero.stores import in_threads
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
            removes = name == "swap" and arguments[2] is None
            self.calls.append("swap away" if removes else name)
            if not removes or (arguments[5:] and arguments[5] is not None):
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
