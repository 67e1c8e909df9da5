"""The loop of a map in a coroutine; it follows the same rules as `driver`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from opero.core.clock import Clock
from opero.map.engines.base import AsyncEngine, Crash, Engine, Report
from opero.real_time import monotonic
from opero.runners import loop_time

from .driver import PATIENCE, MapLoop
from .event_loops import ended
from .interrupts import ctrl_c_later
from .reader import Input
from .scheduler import Scheduler


async def drive_async(
    scheduler: Scheduler,
    make_engine: Callable[[], Engine | AsyncEngine],
    source: Input,
    clock: Clock,
    make_bar: Callable[[], Any],
    raises: bool,
) -> AsyncGenerator[list[Any], None]:
    """Run a map to its end from a coroutine; the arguments are those of `drive`.

    The engine may be of either kind. A thread waits for an engine that blocks.
    """
    waiting = _Waiting(make_engine(), clock)
    scheduler.output.raises = raises
    loop = MapLoop(scheduler, waiting.engine, source, clock)
    try:
        with make_bar() as bar:
            loop.begin(waiting.wake)
            while True:
                loop.hand_out()
                while loop.idle and loop.read():
                    loop.hand_out()
                if await _confirm(loop):
                    continue
                await _keep(loop)
                ready = loop.results(bar)
                if loop.over:
                    break
                if ready:
                    yield ready  # the receiver owns the list
                else:
                    loop.take_in(await waiting.until(loop.patience()))
    finally:
        loop.end()
        closing = loop.input.close()
        try:
            await _closed({each for each in closing if isinstance(each, asyncio.Future)})
        finally:
            try:
                await waiting.close(abandon=loop.cut or not loop.over)
            finally:
                await _done([each for each in closing if isinstance(each, Future)])
    if ready:
        yield ready
    loop.raise_fault()


async def _closed(tasks: set[asyncio.Future[Any]]) -> None:
    """Wait until the cancelled tasks have ended; if this is cancelled meanwhile, raise that."""
    if await ended(tasks):
        raise asyncio.CancelledError
    for task in tasks:
        if not task.cancelled():
            task.result()


async def _done(threads: list[Future[None]]) -> None:
    """Wait until the threads have ended, but no longer than `PATIENCE`."""
    loop = asyncio.get_running_loop()

    def ring(bell: asyncio.Future[None]) -> None:
        if not bell.done():
            bell.set_result(None)

    def tell(bell: asyncio.Future[None], _: Future[None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(ring, bell)

    end = monotonic() + PATIENCE
    for thread in threads:
        bell = loop.create_future()
        thread.add_done_callback(partial(tell, bell))
        await loop_time.wait({bell}, max(0, end - monotonic()))


async def _confirm(loop: MapLoop) -> bool:
    """Ask the store again, as `MapLoop.confirm` does."""
    held = loop.scheduler.in_doubt()
    if held:
        assert loop.stored is not None
        loop.scheduler.confirm(await _in_thread(loop.stored.look_again, held))
    return bool(held)


async def _keep(loop: MapLoop) -> None:
    """Store new values before the caller gets them."""
    pairs = loop.scheduler.to_store()
    if pairs:
        assert loop.stored is not None
        await _in_thread(loop.stored.keep, pairs)


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function that waits for a store, without holding up the loop."""
    with ctrl_c_later():  # it may start a thread
        future = asyncio.get_running_loop().run_in_executor(None, function, *args)
    return await future


class _Waiting:
    """Wait for an engine in a coroutine.

    Attributes:
        engine: The engine, of either kind.
    """

    def __init__(self, engine: Any, clock: Any) -> None:
        self.engine = engine
        self._clock = clock
        self._task: asyncio.Future[Any] | None = None
        asynchronous = inspect.iscoroutinefunction(engine.wait)
        self._thread = None if asynchronous else ThreadPoolExecutor(1, "opero-map-wait")
        self._loop = asyncio.get_running_loop()

    def wake(self) -> None:
        """Make the current wait, or the next, return early; any thread may call this."""
        if self._thread is not None:
            self.engine.wake()
            return
        with suppress(RuntimeError):  # the loop is closed: the map is over
            self._loop.call_soon_threadsafe(self.engine.wake)

    async def until(self, timeout: float | None) -> list[Report | Crash]:
        """Wait for events, for `timeout` seconds at most, or until the engine is woken."""
        events: list[Report | Crash]
        if self._thread is None:
            events = await self.engine.wait(timeout)
            return events
        if self._task is None:
            with ctrl_c_later():  # it starts a thread
                self._task = asyncio.get_running_loop().run_in_executor(
                    self._thread, self.engine.wait, None
                )
        left = 0 if timeout is None else round(timeout * 1e9)
        until = self._clock.now() + left
        if not await loop_time.wait({self._task}, timeout):
            loop_time.catch_up(self._clock, until, left)
        if not self._task.done():
            return []
        task, self._task = self._task, None
        events = task.result()
        return events

    async def close(self, abandon: bool) -> None:
        """Close the engine, and leave nothing waiting."""
        if self._thread is None:
            await self.engine.close(abandon)
            return
        self.engine.wake()
        self._thread.shutdown(wait=True)
        self.engine.close(abandon)
