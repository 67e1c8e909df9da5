"""The loop of a map: input to the scheduler, jobs to the engine, outcomes back, results out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Generator
from concurrent.futures import wait as wait_for
from typing import Any, Final

from opero import roster
from opero.core.clock import NEVER, Clock
from opero.events import tell
from opero.exceptions import WorkerCrashedError
from opero.logs import warn
from opero.map.engines.base import AsyncEngine, Crash, Engine, Report

from .lookups import Lookups
from .reader import Input, Stop
from .scheduler import LIMIT, Scheduler
from .stored_items import StoredItems

PATIENCE: Final = 1.0
"""Seconds that the end of a map waits for an input that is busy or does not respond."""


class MapLoop:
    """The common part of both drivers: which slots are idle, and how the input ended.

    Attributes:
        scheduler: Decides what runs.
        engine: Runs it.
        input: Where the items come from.
        clock: The clock.
        stored: The items' stored values; None without a stored cache.
        idle: The slots without a job.
        fault: What the input raised, or the failure of an item if that ends the map; raised after
            the results before it.
        cut: Whether a failure ended the map with items left.
        over: Whether there is nothing left to do.
        began: When the map began, in nanoseconds.
        total: How many items there are; None if unknown.
    """

    def __init__(
        self, scheduler: Scheduler, engine: Engine | AsyncEngine, source: Input, clock: Clock
    ) -> None:
        call = scheduler.call
        self.scheduler = scheduler
        self.stored: StoredItems | None = None
        self.input: Input | Lookups = source
        if call.stored_cache is not None:
            self.stored = StoredItems(call, scheduler.arguments)
            self.input = Lookups(source, self.stored)
        self.engine = engine
        self.clock = clock
        self.idle: list[int] = list(range(engine.slots))
        self.fault: BaseException | None = None
        self.cut: bool = False
        self.over: bool = False
        self.began: int = clock.now()
        self._warned = False
        left = scheduler.sizer.left
        self.total: int | None = None if left < 0 else left
        roster.begin_map(self)
        tell(
            "map_start",
            call.origin,
            call=id(self),
            items=self.total,
            workers=scheduler.sizer.workers,
        )

    def end(self) -> None:
        """Clean up after the map, and report that it ended."""
        scheduler, output = self.scheduler, self.scheduler.output
        roster.end_map(self)
        scheduler.end()
        scheduler.elapsed = self.clock.now() - self.began
        reason = None if self.over and not self.cut else "it ended before all items were done"
        if scheduler.stopped:
            reason = "too many items failed"
        tell(
            "map_end",
            scheduler.call.origin,
            call=id(self),
            items=output.settled - output.not_run,
            failed=output.failed,
            workers=scheduler.sizer.workers,
            attempts=scheduler.attempts,
            retried=scheduler.retried,
            seconds=scheduler.elapsed / 1e9,
            reason=reason,
        )

    def begin(self, wake: Callable[[], object]) -> None:
        """Begin to read.

        Args:
            wake: Ends the wait for the engine; any thread may call it.
        """
        if self.scheduler.gates is not None:
            self.scheduler.gates.bell = wake
        self.input.begin(wake)

    def hand_out(self) -> None:
        """Give every idle slot a job, as far as there are jobs."""
        now = self.clock.now()
        for slot in self.idle.copy():
            job = self.scheduler.assign(slot, now)
            if job is not None:
                self.idle.remove(slot)
                self.engine.start(slot, job)
            elif self.scheduler.alike:
                break  # there is nothing for the others either

    def read(self) -> bool:
        """Feed the scheduler the items it asks for, if available; return whether they are."""
        scheduler, source = self.scheduler, self.input
        if scheduler.stopped and self.stored is not None:
            self.stored.asks = False
        source.allow(*scheduler.reach())
        count = scheduler.demand()
        if not count:
            return False
        taken = source.take(count)
        if taken.values:
            scheduler.feed(*taken)
            return True
        if source.over:
            self.fault = source.fault
            scheduler.close()
            return True
        if source.held_up:
            self._warn_of_large_items()
        return False

    def _warn_of_large_items(self) -> None:
        """Warn, once, that workers are idle because no more items fit in memory."""
        if self._warned or self.scheduler.read - self.scheduler.settled >= self.engine.slots:
            return
        self._warned = True
        warn(
            "%s: the items are so large that some of the %d workers are idle, because at most %d "
            "MiB of items are read ahead; use read_ahead= to read a number of items of any size",
            self.scheduler.call.name,
            self.engine.slots,
            LIMIT >> 20,
        )

    def confirm(self) -> bool:
        """Ask the store again before outdated values are served; return whether there were any."""
        held = self.scheduler.in_doubt()
        if held:
            assert self.stored is not None
            self.scheduler.confirm(self.stored.look_again(held))
        return bool(held)

    def keep(self) -> None:
        """Store new values before they are handed on."""
        pairs = self.scheduler.to_store()
        if pairs:
            assert self.stored is not None
            self.stored.keep(pairs)

    def results(self, bar: Any) -> list[Any]:
        """Return the results to hand on now, show the progress, and notice the end."""
        scheduler, output = self.scheduler, self.scheduler.output
        ready = scheduler.collect()
        bar.update(output.settled - output.not_run, output.failed, scheduler.retried)
        if output.fatal is not None:
            self.over = self.cut = True
            self.fault = output.fatal.error
        elif not ready:
            self.over = scheduler.over
            if self.over:
                bar.whole = self.fault is None and not (output.not_run or scheduler.unread)
        return ready

    def take_in(self, events: list[Report | Crash]) -> None:
        """Report the outcomes of jobs to the scheduler."""
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
        """Raise what ended the map, if anything; forget it, as its traceback refers to this."""
        fault, self.fault = self.fault, None
        if fault is not None:
            try:
                raise fault
            finally:
                fault = None

    def patience(self) -> float | None:
        """Return for how many seconds nothing can happen without the engine.

        If nothing runs meanwhile, a clock that skips waits moves instead.
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
    source: Input,
    clock: Clock,
    make_bar: Callable[[], Any],
    raises: bool,
    stop: Stop | None = None,
) -> Generator[list[Any], None, None]:
    """Run a map to its end.

    Args:
        scheduler: Decides what runs.
        make_engine: Creates the engine, which is closed at the end in any case.
        source: The input, which is closed too.
        clock: The clock.
        make_bar: Creates the progress display, a context manager.
        raises: Whether the first item that fails for good ends the map.
        stop: Ends the map from another thread; None if no thread does.

    Yields:
        Results in batches.

    Raises:
        BaseException: What the input raised, after the results of the items before; and, if
            `raises`, the failure of an item, after the results that are ready before its own.
    """
    engine = make_engine()
    scheduler.output.raises = raises
    loop = MapLoop(scheduler, engine, source, clock)
    try:
        with make_bar() as bar:
            loop.begin(engine.wake)
            if stop is not None:
                stop.wake = engine.wake
            while True:
                if stop is not None and stop.asked:
                    return
                loop.hand_out()
                while loop.idle and loop.read():
                    loop.hand_out()
                if loop.confirm():
                    continue
                loop.keep()
                ready = loop.results(bar)
                if loop.over:
                    break
                if ready:
                    yield ready  # the list belongs to the consumer
                else:
                    loop.take_in(engine.wait(loop.patience()))
    finally:
        closing: Collection[Any] = ()
        try:
            loop.end()
            closing = loop.input.close()
        finally:
            engine.close(abandon=loop.cut or not loop.over)
            if closing and not sys.is_finalizing():  # else threads never run again
                wait_for(closing, PATIENCE)
    if ready:
        yield ready
    loop.raise_fault()
