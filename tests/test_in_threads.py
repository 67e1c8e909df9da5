"""A shelf of threads for tasks: what becomes of a call whose task is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from opero.caching.disk import DiskShelf
from opero.caching.shelves import InThreads

pytestmark = pytest.mark.once

NAME = "app:" + "0" * 32


class Gated:
    """A shelf whose calls wait in the middle until a test lets them go on."""

    def __init__(self, shelf, broken=False):
        self._shelf = shelf
        self._broken = broken
        self.began = threading.Event()
        self.go = threading.Event()
        self.calls = []

    def __getattr__(self, name):
        method = getattr(self._shelf, name)

        def call(*arguments):
            self.calls.append(name)
            if name != "release":
                self.began.set()
                assert self.go.wait(20)
            if self._broken:
                raise OSError("out of order")
            return method(*arguments)

        return call


@pytest.fixture
def shelf(tmp_path):
    made = DiskShelf(tmp_path / "cache", None, 5.0)
    yield made
    made.close()


async def cancelled_in_the_middle(gated, call):
    """Cancel a call while its thread works, and let the thread end afterwards."""
    task = asyncio.create_task(call(InThreads(gated)))
    await asyncio.to_thread(gated.began.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gated.go.set()


@pytest.mark.parametrize("method", ["take", "get_and_take"])
def test_a_lease_that_a_cancelled_task_took_is_given_back(shelf, method):
    gated = Gated(shelf)
    asyncio.run(
        cancelled_in_the_middle(gated, lambda tasks: getattr(tasks, method)(NAME, "me", 60))
    )
    assert gated.calls == [method, "release"]
    assert shelf.take(NAME, "you", 60) is None


def test_a_lease_of_another_is_left_alone_by_a_cancelled_task(shelf):
    shelf.take(NAME, "you", 60)
    gated = Gated(shelf)
    asyncio.run(cancelled_in_the_middle(gated, lambda tasks: tasks.take(NAME, "me", 60)))
    assert gated.calls == ["take"]
    assert shelf.renew(NAME, "you", 60)


@pytest.mark.parametrize("broken", [False, True])
def test_what_others_wait_for_is_done_though_the_task_is_cancelled(shelf, broken):
    shelf.take(NAME, "me", 60)
    gated = Gated(shelf, broken)
    asyncio.run(cancelled_in_the_middle(gated, lambda tasks: tasks.settle(NAME, "me", b"1", None)))
    assert shelf.get(NAME) == (None if broken else b"1")


def test_a_call_that_has_not_begun_when_it_is_cancelled(shelf):
    """Reading is left out; giving a lease back is not."""
    shelf.take(NAME, "me", 60)
    gated = Gated(shelf)

    async def main():
        with ThreadPoolExecutor(1) as pool:
            asyncio.get_running_loop().set_default_executor(pool)
            tasks = InThreads(gated)
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
    assert gated.calls == ["get", "release"]
    assert shelf.take(NAME, "you", 60) is None


def test_an_error_reaches_the_task_that_waits(shelf):
    gated = Gated(shelf, broken=True)
    gated.go.set()
    for call in (
        lambda tasks: tasks.get(NAME),
        lambda tasks: tasks.put(NAME, b"1", None),
        lambda tasks: tasks.take(NAME, "me", 60),
    ):
        with pytest.raises(OSError, match="out of order"):
            asyncio.run(call(InThreads(gated)))
