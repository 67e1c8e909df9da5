"""The loop of a map: input to the scheduler, jobs to the engine, outcomes back, results out."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from opero.core.clock import NEVER, Clock
from opero.events import tell
from opero.exceptions import WorkerCrashedError
from opero.map.engines.base import AsyncEngine, Crash, Engine, Report
from opero.runners import loop_time
from opero.tracebacks import without_top

from .interrupts import ctrl_c_later
from .scheduler import Scheduler
from .stored_items import StoredItems


class MapLoop:
    """What both drivers have in common: who is idle, and how the input ended.

    Attributes:
        scheduler: Decides.
        engine: Runs.
        clock: Tells the time.
        stored: The items' stored values; None if they are not kept outside the process.
        idle: The slots without a job.
        fault: What the input raised, or what an item failed with if that ends the map; it is raised
            after the results before it.
        cut: Whether a failure has ended the map, with items left.
        over: Whether there is nothing more to do.
        began: When the map began, in nanoseconds.
    """

    def __init__(self, scheduler: Scheduler, engine: Engine | AsyncEngine, clock: Clock) -> None:
        call = scheduler.call
        self.scheduler = scheduler
        self.stored: StoredItems | None = (
            None if call.stored_cache is None else StoredItems(call, scheduler.arguments)
        )
        self.engine = engine
        self.clock = clock
        self.idle: list[int] = list(range(engine.slots))
        self.fault: BaseException | None = None
        self.cut: bool = False
        self.over: bool = False
        self.began: int = clock.now()
        left = scheduler.sizer.left
        tell(
            "map_start",
            call.origin,
            items=None if left < 0 else left,
            workers=scheduler.sizer.workers,
        )

    def end(self) -> None:
        """Leave nothing of the map's behind, and tell that it has ended."""
        scheduler, output = self.scheduler, self.scheduler.output
        scheduler.end()
        scheduler.elapsed = self.clock.now() - self.began
        reason = None if self.over and not self.cut else "it was ended before all were done"
        if scheduler.stopped:
            reason = "too many items failed"
        tell(
            "map_end",
            scheduler.call.origin,
            items=output.settled - output.not_run,
            failed=output.failed,
            workers=scheduler.sizer.workers,
            attempts=scheduler.attempts,
            retried=scheduler.retried,
            seconds=scheduler.elapsed / 1e9,
            reason=reason,
        )

    def hand_out(self) -> None:
        """Give every idle slot something to do, as far as there is anything."""
        now = self.clock.now()
        for slot in self.idle.copy():
            job = self.scheduler.assign(slot, now)
            if job is not None:
                self.idle.remove(slot)
                self.engine.start(slot, job)
            elif self.scheduler.alike:
                break  # there is nothing for the others either

    def pull(self, source: Iterator[Any]) -> list[Any] | None:
        """Take from the input what the scheduler asks for; None if it asks for nothing."""
        count = self.scheduler.demand()
        if not count:
            return None
        values: list[Any] = []
        try:
            values.extend(islice(source, count))  # what came before an error is kept
        except Exception as error:  # noqa: BLE001 - raised again, in its place
            self.fault = without_top(error)
        if len(values) < count:
            self.scheduler.close()
        return values

    def read(self, source: Iterator[Any]) -> bool:
        """Feed the scheduler what it asks for; tell whether it asked."""
        values = self.pull(source)
        if values is None:
            return False
        known = None
        if self.stored is not None and values:
            self.keep()  # what has just finished is known to the next look
            known = self.stored.look(self.stored.keys(values))
        self.scheduler.feed(values, known)
        return True

    def keep(self) -> None:
        """Store what there is to store, before anybody gets it."""
        pairs = self.scheduler.to_store()
        if pairs:
            assert self.stored is not None
            self.stored.keep(pairs)

    def results(self, bar: Any) -> list[Any]:
        """Return the results to hand on now, show how far it is, and note the end."""
        scheduler, output = self.scheduler, self.scheduler.output
        ready = scheduler.collect()
        bar.update(output.settled - output.not_run, output.failed, scheduler.retried)
        if output.fatal is not None:
            self.over = self.cut = True
            self.fault = output.fatal.error
        elif not ready:
            self.over = scheduler.over
        return ready

    def take_in(self, events: list[Report | Crash]) -> None:
        """Tell the scheduler what has come of jobs."""
        for event in events:
            self.idle.append(event.slot)
            if isinstance(event, Report):
                self.scheduler.report(event.job, event.results, event.failures, event.elapsed)
            else:
                if isinstance(event.error, WorkerCrashedError):
                    tell(
                        "worker_crash",
                        self.scheduler.call.origin,
                        worker=event.slot,
                        error=event.error,
                    )
                self.scheduler.crash(
                    event.job, event.results, event.failures, event.at, event.error
                )

    def raise_fault(self) -> None:
        """Raise what has ended the map, if anything has; forget it, as its traceback holds this."""
        fault, self.fault = self.fault, None
        if fault is not None:
            try:
                raise fault
            finally:
                fault = None

    def patience(self) -> float | None:
        """Return for how many seconds at most nothing can happen without the engine.

        A clock that skips waits is moved instead, if nothing runs meanwhile.
        """
        if not self.idle:
            return None
        now: int = self.clock.now()
        wake = self.scheduler.wake(now)
        if wake == NEVER:
            return None
        if self.clock.skipping and len(self.idle) == self.engine.slots:
            self.clock.move_to(wake)
            return 0
        return max(0, wake - now) / 1e9


def drive(
    scheduler: Scheduler,
    make_engine: Callable[[], Engine],
    source: Iterator[Any],
    clock: Clock,
    make_bar: Callable[[], Any],
    raises: bool,
) -> Generator[list[Any], None, None]:
    """Run a map to its end.

    Args:
        scheduler: Decides.
        make_engine: Makes what runs; it is closed at the end, whatever the end is.
        source: The input.
        clock: Tells the time.
        make_bar: Makes what shows how far it is; a context manager.
        raises: Whether the first item that fails for good ends the map.

    Yields:
        Results, some at a time.

    Raises:
        BaseException: What the input raised, after the results of the items before; and, if
            `raises`, the failure of an item, after the results that are ready before its own.
    """
    engine = make_engine()
    scheduler.output.raises = raises
    loop = MapLoop(scheduler, engine, clock)
    try:
        with make_bar() as bar:
            while True:
                loop.hand_out()
                while loop.idle and loop.read(source):
                    loop.hand_out()
                loop.keep()
                ready = loop.results(bar)
                if loop.over:
                    break
                if ready:
                    yield ready  # the list belongs to whoever gets it
                else:
                    loop.take_in(engine.wait(loop.patience()))
    finally:
        loop.end()
        engine.close(abandon=loop.cut or not loop.over)
    if ready:
        yield ready
    loop.raise_fault()


async def drive_async(
    scheduler: Scheduler,
    make_engine: Callable[[], Engine | AsyncEngine],
    source: Any,
    clock: Clock,
    make_bar: Callable[[], Any],
    raises: bool,
) -> AsyncGenerator[list[Any], None]:
    """Run a map to its end from a coroutine; the arguments are those of `drive`.

    The input may be an asynchronous iterator. The engine may be one of either kind: one that
    blocks is waited for in a thread.
    """
    reading = _Reading(source)
    waiting = _Waiting(make_engine(), clock)
    scheduler.output.raises = raises
    loop = MapLoop(scheduler, waiting.engine, clock)
    try:
        with make_bar() as bar:
            while True:
                loop.hand_out()
                while loop.idle and await reading.next(loop):
                    loop.hand_out()
                await _keep(loop)
                ready = loop.results(bar)
                if loop.over:
                    break
                if ready:
                    yield ready  # the list belongs to whoever gets it
                else:
                    # what has been read while nobody is idle has to wait
                    task = reading.task if loop.idle else None
                    loop.take_in(await waiting.until(loop.patience(), task))
    finally:
        loop.end()
        try:
            await reading.close()
        finally:
            await waiting.close(abandon=loop.cut or not loop.over)
    if ready:
        yield ready
    loop.raise_fault()


class _Reading:
    """The input of a map in a coroutine.

    Attributes:
        task: The reading of the next item that is under way, if the input is asynchronous.
    """

    def __init__(self, source: Any) -> None:
        self.task: asyncio.Future[Any] | None = None
        self._source = aiter(source) if hasattr(source, "__aiter__") else iter(source)
        self._asynchronous = hasattr(source, "__aiter__")

    async def next(self, loop: MapLoop) -> bool:
        """Feed the scheduler what it asks for, if that is there; tell whether it was."""
        if not self._asynchronous:
            if loop.stored is None:
                return loop.read(self._source)
            values = loop.pull(self._source)
            if values is None:
                return False
            await self._feed(loop, values)
            return True
        if self.task is None:
            if not loop.scheduler.demand():
                return False
            self.task = asyncio.ensure_future(self._source.__anext__())
        if not self.task.done():
            return False
        task, self.task = self.task, None
        values = []
        try:
            values.append(task.result())
        except StopAsyncIteration:
            loop.scheduler.close()
        except Exception as error:  # noqa: BLE001 - raised again, in its place
            loop.fault = without_top(error)
            loop.scheduler.close()
        await self._feed(loop, values)
        return True

    async def _feed(self, loop: MapLoop, values: list[Any]) -> None:
        known = None
        if loop.stored is not None and values:
            await _keep(loop)  # what has just finished is known to the next look
            known = await _in_thread(loop.stored.look, loop.stored.keys(values))
        loop.scheduler.feed(values, known)

    async def close(self) -> None:
        """Leave no reading behind."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})
            if not self.task.cancelled():
                self.task.exception()
        if self._asynchronous and hasattr(self._source, "aclose"):
            await self._source.aclose()


async def _keep(loop: MapLoop) -> None:
    """Store what there is to store, before anybody gets it."""
    pairs = loop.scheduler.to_store()
    if pairs:
        assert loop.stored is not None
        await _in_thread(loop.stored.keep, pairs)


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Do what waits for a store without holding up the loop."""
    with ctrl_c_later():  # it may start a thread
        future = asyncio.get_running_loop().run_in_executor(None, function, *args)
    return await future


class _Waiting:
    """The waiting for an engine in a coroutine.

    Attributes:
        engine: The engine, of either kind.
    """

    def __init__(self, engine: Any, clock: Any) -> None:
        self.engine = engine
        self._clock = clock
        self._asynchronous = inspect.iscoroutinefunction(engine.wait)
        self._task: asyncio.Future[Any] | None = None
        self._thread = None if self._asynchronous else ThreadPoolExecutor(1, "opero-map-wait")

    async def until(
        self, timeout: float | None, reading: asyncio.Future[Any] | None
    ) -> list[Report | Crash]:
        """Wait for events, for `timeout` seconds at most, or until an item has been read."""
        if self._task is None:
            if self._asynchronous and reading is None:
                events: list[Report | Crash] = await self.engine.wait(timeout)
                return events
            if self._thread is None:
                self._task = asyncio.ensure_future(self.engine.wait(None))
            else:
                with ctrl_c_later():  # it starts a thread
                    self._task = asyncio.get_running_loop().run_in_executor(
                        self._thread, self.engine.wait, None
                    )
        waited = {self._task} if reading is None else {self._task, reading}
        left = 0 if timeout is None else round(timeout * 1e9)
        until = self._clock.now() + left
        if not await loop_time.wait(waited, timeout):
            loop_time.catch_up(self._clock, until, left)
        if not self._task.done():
            return []
        task, self._task = self._task, None
        found: list[Report | Crash] = task.result()
        return found

    async def close(self, abandon: bool) -> None:
        """Close the engine, and leave no waiting behind."""
        if self._thread is None:
            try:
                if self._task is not None:
                    self._task.cancel()
                    await asyncio.wait({self._task})
            finally:
                await self.engine.close(abandon)
            return
        self.engine.wake()
        self._thread.shutdown(wait=True)
        self.engine.close(abandon)
