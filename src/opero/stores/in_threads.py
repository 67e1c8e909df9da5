"""Lets tasks use a backend for threads: its calls run in opero's own threads.

    task ── get_many, scan ──────▶ READING ──┐
         ── put, delete, swap ───▶ WRITING ──┴▶ the backend

The executor of an event loop belongs to the program: it may be full of long jobs, or of jobs that
wait for the very task that calls the backend. These threads run only backend operations, which take
a bounded time. A thread that waits for another process's write never blocks readers.
"""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, Final, TypeVar

from opero import forks
from opero.locks import Lock
from opero.runners.daemon_threads import DaemonThreads

from .backends import Backend, Swap, Swapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

_T = TypeVar("_T")

_READERS: Final = 8
"""How many calls read at the same time, across all stores."""
_WRITERS: Final = 4
"""How many calls write at the same time, across all stores."""
_PATIENCE: Final = 5.0
"""Seconds that the end of the program waits for unfinished writes."""


class Executor(DaemonThreads["tuple[Future[Any], Callable[[], Any]]"]):
    """Runs functions in its threads."""

    def __init__(self, name: str, most: int) -> None:
        super().__init__(name, most)
        self._pending: set[Future[Any]] = set()

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Run `work` in a thread; if none can be started, run it here."""
        future: Future[_T] = Future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        job = (future, work)
        try:
            self.add(job)
        except RuntimeError:  # at the end of the interpreter
            self.carry_out(job)
        return future

    def carry_out(self, job: tuple[Future[Any], Callable[[], Any]]) -> None:
        """Run a function, unless its future was already cancelled."""
        future, work = job
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
            future.set_exception(error)
        else:
            future.set_result(result)

    def finish(self) -> None:
        """Wait at the end of the program until started jobs are done, or take too long."""
        wait(list(self._pending), _PATIENCE)

    def after_fork(self) -> None:
        """Forget the jobs of the parent's threads in a child process."""
        super().after_fork()
        self._pending = set()


READING: Executor = Executor("opero-store-reads", _READERS)
WRITING: Executor = Executor("opero-store-writes", _WRITERS)
forks.register("stores", after_in_child=READING.after_fork)
forks.register("stores", after_in_child=WRITING.after_fork)
atexit.register(WRITING.finish)


class InThreads:
    """Turns a `Backend` into an `AsyncBackend`.

    A thread cannot be interrupted. So when a task is cancelled, a call that has begun continues and
    its outcome is dropped; a swap that stored something where nothing was is undone. A call that
    has not begun never begins, unless others depend on it: `put_many`, `delete`, and swaps that
    remove something still run.
    """

    def __init__(self, backend: Backend) -> None:
        """Wrap a backend."""
        self._backend = backend

    async def get_many(self, names: Sequence[str], /) -> list[bytes | None]:
        """See `Backend.get_many`."""
        return await _submit(READING, self._backend.get_many, names)

    async def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None, /) -> None:
        """See `Backend.put_many`."""
        await _surely(self._backend.put_many, entries, ttl)

    async def delete(self, names: Sequence[str], /) -> list[bool]:
        """See `Backend.delete`."""
        return await _surely(self._backend.delete, names)

    async def scan(
        self, prefix: str, suffix: str, after: str, expired: bool = False, /
    ) -> tuple[list[str], str | None]:
        """As `Backend.scan`."""
        return await _submit(READING, self._backend.scan, prefix, suffix, after, expired)

    async def swap(self, change: Swap, /) -> Swapped:
        """As `Backend.swap`."""
        swap = self._backend.swap
        if change.new is None:
            return await _surely(swap, change)
        if change.old is not None:
            return await _submit(WRITING, swap, change)
        return await _wanted(swap, change, Swap(change.name, change.new, None))

    async def close(self) -> None:
        """As `Backend.close`."""
        await _surely(self._backend.close)


def _submit(executor: Executor, work: Callable[..., _T], *arguments: Any) -> asyncio.Future[_T]:
    """Run `work` in a thread; it does not begin if its future is cancelled first."""
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()
    job = executor.submit(functools.partial(work, *arguments))

    def hand_over() -> None:
        if future.done():
            return
        error = job.exception()
        if error is None:
            future.set_result(job.result())
        else:
            future.set_exception(error)

    def done(_: Future[_T]) -> None:
        with suppress(RuntimeError):  # the loop is closed, so no task waits
            loop.call_soon_threadsafe(hand_over)

    def looked_at(future: asyncio.Future[_T]) -> None:
        if future.cancelled():
            job.cancel()
        else:
            future.exception()  # keeps asyncio from reporting it if no task waits

    future.add_done_callback(looked_at)
    job.add_done_callback(done)
    return future


async def _surely(work: Callable[..., _T], *arguments: Any) -> _T:
    """Run `work` in a thread, whether or not the task still waits for it."""
    import asyncio

    return await asyncio.shield(_submit(WRITING, work, *arguments))


async def _wanted(swap: Callable[[Swap], Swapped], change: Swap, back: Swap) -> Swapped:
    """Swap something in where nothing was, in a thread; undo it if no task waits any longer."""
    lock = Lock()
    unwanted = False
    done = False

    def work() -> Swapped:
        nonlocal done
        swapped = swap(change)
        with lock:
            done = swapped == (None, None)
            undoing = done and unwanted
        if undoing:
            swap(back)
        return swapped

    try:
        return await _submit(WRITING, work)
    except BaseException:
        with lock:
            unwanted = True
            undoing = done
        if undoing:
            WRITING.submit(functools.partial(swap, back))
        raise
