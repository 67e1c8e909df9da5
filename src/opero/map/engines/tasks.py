"""Mode `async`: coroutines in the running event loop make the attempts.

    start(slot, job) -> the slot's task --> an attempt, step by step, in its own context
                             |    ^                |
                             |    '--- the next ---'
    wait() <- events <- Report

A slot is one task that makes the attempts of its jobs one after the other. It drives each coroutine
by hand, which costs a tenth of a task. Each attempt sees the context variables as they were where
the map was called, not as another item has set them. If something still refers to the task when an
attempt is over, such as a timer that will cancel it, the slot moves to a new task and the old one
ends. So a cancellation meant for one item never reaches another.

Who may cancel a slot's task, and what follows:

    the engine's timer     the attempt took too long: it fails with `AttemptTimeout`
    `close`                the map is over: the task ends
    anything else          (the end of `asyncio.run`, say) the task ends, the job is reported as a
                           `Crash`, and the rest of it goes to a new task
    nothing                a `CancelledError` that the function raises is a failure like any other

The engine gives up an attempt that swallows its cancellation and does not end: the attempt fails,
its slot gets a new task, and the old task is cancelled once more when the map is over. If it does
not end then either, the engine leaves it to the loop and logs a warning.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import types
from collections.abc import Callable, Generator
from typing import Any

from opero.core.clock import NEVER
from opero.exceptions import AttemptTimeout
from opero.logs import warn
from opero.map.event_loops import SLOT, ended
from opero.map.finished_frames import without_locals
from opero.map.invocation import of_invocations, of_items
from opero.map.jobs import Job
from opero.map.output import NOTHING
from opero.real_time import perf_counter, perf_counter_ns
from opero.runners import loop_time
from opero.tracebacks import without_top

from .base import Crash, Report
from .task_slots import TaskSlot, Work, call, may_be_ctrl_c

_TURN = 0.005
"""Seconds for which a slot may keep the loop to itself."""

_GRACE = 1.0
"""Seconds that a cancelled attempt has to end, if `attempt_timeout` is not longer."""

_DAY = 86400.0

_count: Callable[[Any], int] = getattr(sys, "getrefcount", lambda _: 0)  # PyPy has none


class TaskEngine:
    """Run the jobs of one map as coroutines.

    Attributes:
        slots: How many run at once.
    """

    def __init__(
        self,
        function: Any,
        shared: dict[str, Any],
        workers: int,
        attempt_timeout: float | None,
        clock: Any,
    ) -> None:
        """Take the function; `start` begins the work.

        Args:
            function: The coroutine function to call with each item.
            shared: Keyword arguments of every call.
            workers: How many coroutines may run at once.
            attempt_timeout: Seconds that an attempt may take; None for no limit.
            clock: The clock that measures `attempt_timeout`.
        """
        self.slots = workers
        self._function = of_items(function, shared)
        self._invoke = of_invocations(function, shared)
        self._limit = 0 if attempt_timeout is None else max(1, round(attempt_timeout * 1e9))
        self._clock = clock
        self._context = contextvars.copy_context()
        self._slots = [TaskSlot(number) for number in range(workers)]
        self._lost: set[Any] = set()
        self._events: list[Report | Crash] = []
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: Any = None
        self._fault: BaseException | None = None
        self._closing = False
        self._woken = False

    # --- what the driver calls --------------------------------------------------------------------

    def start(self, slot: int, job: Job) -> None:
        """Begin a job in an idle slot; this does not wait for it."""
        results = [NOTHING] * len(job.values)
        self.begin(slot, Work(job, self.caller(job.invoked), enumerate(job.values), results, []))

    def caller(self, invoked: bool) -> Callable[[Any], Any]:
        """Return what to call with an item, or with an invocation."""
        return self._invoke if invoked else self._function

    def begin(self, number: int, work: Work) -> None:
        """Give an idle slot some work."""
        slot = self._slots[number]
        slot.work = work
        if slot.task is not None:
            if slot.gate is not None and not slot.gate.done():
                slot.gate.set_result(None)
            return  # a task that is ending hands its work back
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._begin_task(slot)

    async def wait(self, timeout: float | None) -> list[Report | Crash]:
        """Wait until a job has ended, `timeout` seconds have passed, or `wake` was called.

        Raises:
            BaseException: What reading the items of a job raised.
        """
        if not self._events and self._fault is None and not self._woken:
            if timeout is not None and timeout <= 0:
                await asyncio.sleep(0)
            else:
                await self._something(timeout)
        self._woken = False
        if self._fault is not None:
            raise self._fault
        events, self._events = self._events, []
        return events

    def wake(self) -> None:
        """Make the current `wait`, or the next, return early."""
        self._woken = True
        self._release()

    async def _something(self, timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None
        if timeout is not None:
            left = round(min(timeout, _DAY) * 1e9)
            until = self._clock.now() + left

            def due() -> None:
                loop_time.catch_up(self._clock, until, left)
                self._release()

            timer = loop_time.call_later(loop, left / 1e9, due)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    async def close(self, abandon: bool) -> None:  # noqa: ARG002 - an idle slot ends the same way
        """End the map: cancel what still runs, and wait until it has ended.

        This waits even for a function that swallows its cancellation. If this is cancelled
        meanwhile, it cancels the function again.
        """
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._loop is None or self._loop.is_closed():
            return
        running = {slot.task for slot in self._slots if slot.task is not None}
        for slot in self._slots:
            if slot.task is not None and (slot.overdue or not slot.task.cancelling()):
                slot.task.cancel()  # unless the end of `asyncio.run` has done so already
        for task in self._lost:
            task.cancel()
        again = await ended(running)
        lost = {task for task in self._lost if not task.done()}
        if lost and not again:
            _, lost = await asyncio.wait(lost, timeout=_GRACE)
        if lost:
            warn(
                "%s attempts that took longer than attempt_timeout ignore their cancellation; the "
                "map leaves them to the event loop",
                len(lost),
            )
        if again:
            raise asyncio.CancelledError

    # --- a slot -----------------------------------------------------------------------------------

    async def _serve(self, slot: TaskSlot) -> None:
        """Do the slot's work until the task is cancelled."""
        while True:
            if slot.work is None:
                slot.gate = self._loop.create_future()
                await slot.gate
                slot.gate = None
            work = slot.work
            assert work is not None
            work.begun = work.begun or perf_counter_ns()
            if not await self._attempt_all(slot):
                return
            slot.work = None
            elapsed = perf_counter_ns() - work.begun
            self._tell(Report(slot.number, work.job, work.results, work.failures, elapsed))
            work = None

    @types.coroutine
    def _attempt_all(self, slot: TaskSlot) -> Generator[Any, Any, bool]:
        """Make the attempts of a job; return whether all were made."""
        work: Any = slot.work
        results: Any = work.results
        asked = slot.task.cancelling
        known = _references(slot)
        copy = self._context.copy
        limit = self._limit
        until = work.job.deadline
        patience = work.job.patience
        clock = self._clock
        function = work.function
        closed = False
        turn = perf_counter() + _TURN
        try:
            for place, value in work.items:
                work.place = place
                run = copy().run
                coroutine = call(function, value)
                step: Any = coroutine.send
                given: Any = None
                if limit:
                    slot.due = min(clock.now() + limit, until)
                try:
                    while True:
                        awaited = run(step, given)
                        if limit and self._timer is None:
                            self._set_timer(slot.due)
                        try:
                            given = yield awaited
                            step = coroutine.send
                        except GeneratorExit:
                            closed = True
                            run(coroutine.close)
                            raise
                        except BaseException as error:  # noqa: BLE001 - it is for the function
                            step = coroutine.throw
                            given = without_top(error)
                        turn = perf_counter() + _TURN
                except StopIteration as end:
                    results[place] = end.value
                except BaseException as error:
                    if closed:
                        raise
                    work.failures.append((place, without_locals(without_top(error))))
                    if isinstance(error, KeyboardInterrupt) and may_be_ctrl_c():
                        work.place += 1
                        raise
                given = None
                work.place = place + 1
                slot.due = 0
                if slot.given_up:
                    return False
                if slot.overdue:
                    self._note_timeout(slot, work, place)
                if asked():
                    return False
                if patience and work.failures and perf_counter_ns() - work.begun > patience:
                    del results[place + 1 :]
                    return True
                if _references(slot) > known:
                    self._begin_task(slot)  # for the rest of the job
                    return False
                if perf_counter() > turn:
                    yield None  # as `asyncio.sleep(0)` does
                    turn = perf_counter() + _TURN
            return True
        finally:  # a failure holds its frames, and those from which they were called
            work = results = given = value = None

    def _begin_task(self, slot: TaskSlot) -> None:
        """Give a slot a new task that replaces its present one."""
        # Bypass task factories and eager tasks: they would run it right here.
        name = f"{SLOT}{slot.number}"
        slot.task = asyncio.Task(self._serve(slot), loop=self._loop, name=name)
        slot.task.add_done_callback(functools.partial(self._ended, slot))

    def _ended(self, slot: TaskSlot, task: Any) -> None:
        """Handle the end of a slot's task; only `close` ends one as planned."""
        fault = None if task.cancelled() else task.exception()
        if fault is not None and not isinstance(fault, KeyboardInterrupt):
            self._fault = fault
        self._lost.discard(task)
        if slot.given_up or slot.task is not task:
            return
        slot.task = slot.gate = None
        work, slot.work = slot.work, None
        if self._fault is not None:
            self._release()
        elif work is not None and not self._closing:
            self._hand_back(slot.number, work, None, asyncio.CancelledError())

    def _hand_back(self, number: int, work: Work, at: int | None, error: BaseException) -> None:
        """Report a job whose task is gone."""
        known = work.results[: work.place]
        self._tell(Crash(number, work.job, known, work.failures.copy(), at, error))

    def _tell(self, event: Report | Crash) -> None:
        self._events.append(event)
        self._release()

    def _release(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- attempts that take too long --------------------------------------------------------------

    def _set_timer(self, due: int) -> None:
        """Make sure that `_look` runs at `due`; one timer serves all slots."""
        if not self._closing:
            left = min(max(due - self._clock.now(), self._limit // 50), round(_DAY * 1e9))
            until = self._clock.now() + left

            def look() -> None:
                loop_time.catch_up(self._clock, until, left)
                self._look()

            self._timer = loop_time.call_later(self._loop, left / 1e9, look)

    def _look(self) -> None:
        """Cancel the attempts that have taken too long; give up those that ignore it."""
        self._timer = None
        busy = [slot for slot in self._slots if slot.due]
        if busy and self._clock.skipping:
            self._clock.move_to(min(slot.due for slot in busy))
        now = self._clock.now()
        soonest = NEVER
        for slot in busy:
            if slot.due <= now:
                if slot.overdue:
                    self._give_up(slot)
                    continue
                slot.overdue = True
                slot.due = now + max(self._limit, round(_GRACE * 1e9))
                slot.task.cancel()
            soonest = min(soonest, slot.due)
        if soonest != NEVER:
            self._set_timer(min(soonest, now + self._limit))  # for an attempt begun meanwhile

    def _note_timeout(self, slot: TaskSlot, work: Work, place: int) -> None:
        """Replace the outcome of an attempt that took too long, whatever it was."""
        slot.overdue = False
        slot.task.uncancel()
        failure = self._timeout()
        if work.failures and work.failures[-1][0] == place:
            failure.__cause__ = work.failures.pop()[1]
        work.results[place] = NOTHING
        work.failures.append((place, failure))

    def _give_up(self, slot: TaskSlot) -> None:
        """Replace a slot whose attempt does not end."""
        work = slot.work
        assert work is not None
        slot.due = 0
        slot.given_up = True
        self._lost.add(slot.task)
        self._slots[slot.number] = TaskSlot(slot.number)
        slot.work = None
        self._hand_back(slot.number, work, work.place, self._timeout())

    def _timeout(self) -> AttemptTimeout:
        return AttemptTimeout(f"the attempt took longer than {self._limit / 1e9:g} s")


def _references(slot: TaskSlot) -> int:
    """Return how many references a slot's task has; 0 if this Python does not count them."""
    return _count(slot.task)
