"""Single flight for tasks: one run per missing key and event loop, in a separate task.

The callers of a key wait for one `TaskFlight`. So cancelling one caller does not end the run for
the others, a caller can leave at its deadline, and the last caller to leave cancels the run.

If Python supports it, the task begins in the step of the caller who creates it, and often ends
before that caller continues. A caller who must wait leaves a bell: a future that the run's last
step sets.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Any

from opero import once_only
from opero.core.clock import NEVER
from opero.core.outcomes import too_late
from opero.tracebacks import shorten

from . import loop_time
from .loops import begin_task, running_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from opero.core.call import AsyncCall

    class Shared(Protocol):
        """A place for the values that flights compute."""

        @property
        def flights(self) -> dict[Any, dict[Any, TaskFlight]]:
            """The flights that are under way, by loop, then by key."""

        def find(self, key: Any) -> Any:
            """Return the entry of a key, or None."""


_NESTED = 20
"""How many nested runs may begin on one C stack; deeper ones wait for the loop."""

_UNTIL_TAKEN_BACK = 0.01
"""Seconds between two checks of a run that was cancelled before its last caller left."""

_lineage: ContextVar[TaskFlight | None] = ContextVar("opero_lineage", default=None)
"""The innermost flight that the current task runs in."""


class TaskFlight:
    """One run of a call in a separate task.

    Attributes:
        call: The decorated function.
        flights: The tables of flights that are under way, by loop.
        table: The table of its loop, by key; None once the flight has left it.
        loop: The event loop that it runs in.
        key: The key that it runs for.
        deadline: The latest deadline of a caller, in nanoseconds.
        outer: The flight that it began in.
        depth: How many nested runs wait for this one to end, including itself.
        task: The run, while it is under way.
        callers: How many callers wait for it.
        bells: The futures that its last step sets for the callers, in order of arrival.
        awaits: The flights that its own function waits for.
        attempts: The state of its attempts, once one has failed.
        stopping: Whether its last caller has left, so that no other may join.
        over: Whether it has ended.
    """

    depth: int = 1
    task: asyncio.Task[Any] | None = None
    callers: int = 0
    bells: dict[asyncio.Future[None], None] | None = None
    awaits: list[TaskFlight] | None = None
    attempts: Any = None
    stopping: bool = False
    over: bool = False

    def __init__(
        self,
        call: AsyncCall,
        flights: dict[Any, dict[Any, TaskFlight]],
        table: dict[Any, TaskFlight],
        loop: asyncio.AbstractEventLoop,
        key: Any,
        deadline: int,
    ) -> None:
        """Begin without a task.

        Raises:
            RecursionError: If runs wait for each other as deep as calls may be nested. Each runs in
                a separate task, so no stack overflow would stop an endless recursion.
        """
        self.call: AsyncCall = call
        self.flights: dict[Any, dict[Any, TaskFlight]] = flights
        self.table: dict[Any, TaskFlight] | None = table
        self.loop: asyncio.AbstractEventLoop = loop
        self.key: Any = key
        self.deadline: int = deadline
        self.outer: TaskFlight | None = None
        outer = _lineage.get()
        if outer is not None:
            self._nest(outer)

    def _nest(self, inside: TaskFlight) -> None:
        """Record the flights that it begins in."""
        outer: TaskFlight | None = inside
        while outer is not None and outer.over:
            outer = outer.outer
        if outer is None:
            return
        self.outer = outer
        while outer.outer is not None and outer.outer.over:
            outer.outer = outer.outer.outer  # tasks may start each other forever
        if outer.task is asyncio.current_task():  # otherwise a task of the run begins a new stack
            self.depth = outer.depth + 1
            if self.depth > sys.getrecursionlimit():
                raise RecursionError(
                    "maximum recursion depth exceeded by calls that await each other"
                )

    # --- the run --------------------------------------------------------------------------------

    def launch(self, run: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin the run in a task."""
        task = begin_task(self.loop, run, self.depth <= _NESTED)
        self.begun(task)
        return task

    def begun(self, task: asyncio.Task[Any]) -> None:
        """Record the task of the run, unless its first step did."""
        if self.task is None and not self.over:
            self.task = task
            task.add_done_callback(self._land_unbegun)

    def enter(self) -> None:
        """Record, in the first step of the run, that everything it does is inside this flight."""
        if self.task is None:
            self.task = asyncio.current_task()
        else:
            self.task.remove_done_callback(self._land_unbegun)
        _lineage.set(self)

    def is_listed(self) -> bool:
        """Return whether callers can find it. If not, its key was invalidated."""
        try:
            return self.table is not None and self.table.get(self.key) is self
        except Exception as broken:  # noqa: BLE001 - comparing keys may raise
            self.call.events.not_cached(self.call.name, broken)
            return False

    def take_out(self) -> bool:
        """Hide it from callers; return whether they could find it until now."""
        table = self.table
        if table is None:
            return False
        try:
            found = table.get(self.key) is self and table.pop(self.key, None) is self
        except Exception as broken:  # noqa: BLE001 - comparing keys may raise
            self.call.events.not_cached(self.call.name, broken)
            found = False
        self.table = None
        if not table and self.flights.get(self.loop) is table:
            self.flights.pop(self.loop, None)
        return found

    def keep(self, store: Any, value: Any) -> None:
        """Store the run's result in memory, unless its key was invalidated meanwhile."""
        if not self.is_listed():
            return
        entry = self.call.reserve(store, self.key)  # this may take a while
        if self.take_out() and entry is not None:
            store.fill(entry, value)
        elif entry is not None:
            store.drop(self.key)

    def land(self) -> None:
        """End it; this is the last step of the run."""
        self.over = True
        self.task = self.attempts = None  # the task will hold the error, and its frames hold this
        if self.bells is not None:
            for bell in self.bells:
                if not bell.done():
                    bell.set_result(None)
        if self.table is not None:
            self.take_out()

    def _land_unbegun(self, _: asyncio.Task[Any]) -> None:
        """End it, because its task was cancelled before the first step."""
        self.land()

    def abandon(self) -> None:
        """Drop the bells if the run is closed from outside: no caller waits in its loop then."""
        try:
            running = asyncio.current_task()
        except RuntimeError:
            running = None
        if running is None or running is not self.task:
            self.bells = None

    def end_program(self) -> None:
        """Keep asyncio from reporting an error as never retrieved: the step itself raises it."""
        if self.task is not None:
            self.task.add_done_callback(asyncio.Task.exception)

    # --- its callers ----------------------------------------------------------------------------

    def is_open(self) -> bool:
        """Return whether a caller may still join."""
        return self.task is not None and not (self.stopping or self.task.done())

    def reaches(self, flights: set[TaskFlight]) -> bool:
        """Return whether one of `flights` must end before this one can."""
        seen: set[TaskFlight] = set()
        todo = [self]
        while todo:
            flight = todo.pop()
            if flight in flights:
                return True
            if flight not in seen:
                seen.add(flight)
                if flight.awaits is not None:
                    todo.extend(flight.awaits)
        return False

    def arrive(self, deadline: int) -> TaskFlight | None:
        """Count a caller who waits for the run.

        Args:
            deadline: When this caller must leave, in nanoseconds.

        Returns:
            The flight that the caller waits in, for `depart`.
        """
        self.callers += 1
        if deadline > self.deadline:
            self.deadline = deadline
        outer = _lineage.get()
        if outer is not None:
            if outer.awaits is None:
                outer.awaits = []
            outer.awaits.append(self)
        return outer

    def depart(self, outer: TaskFlight | None) -> None:
        """Undo `arrive`."""
        self.callers -= 1
        if outer is not None and outer.awaits is not None:
            outer.awaits.remove(self)

    def hang_bell(self) -> asyncio.Future[None]:
        """Return a future that the run's last step sets."""
        bell: asyncio.Future[None] = self.loop.create_future()
        if self.bells is None:
            self.bells = {}
        self.bells[bell] = None
        return bell

    def take_bell(self, bell: asyncio.Future[None]) -> None:
        """Ring it for nobody."""
        if self.bells is not None:
            self.bells.pop(bell, None)

    async def finished(self, task: asyncio.Task[Any]) -> None:
        """Wait until the run's task is done.

        A custom task factory may add a step after the run's last one.
        """
        while not task.done():
            if self.over:
                await asyncio.wait({task})
                continue
            bell = self.hang_bell()
            try:
                await bell
            finally:
                self.take_bell(bell)

    async def finished_until(self, task: asyncio.Task[Any], deadline: int) -> None:
        """Wait until the run ends or a deadline passes."""
        clock = self.call.clock
        while not task.done():
            left = deadline - clock.now()
            if left <= 0 and not clock.skipping:
                return
            bell = self.hang_bell()
            timer = loop_time.call_later(self.loop, max(0, left) / 1e9, partial(_ring, bell))
            try:
                await bell
            finally:
                timer.cancel()
                self.take_bell(bell)
            if self.over:
                await self.finished(task)
            elif clock.skipping:
                clock.move_to(deadline)
                return
            else:
                loop_time.catch_up(clock, deadline, left)

    async def stop(self, task: asyncio.Task[Any]) -> None:
        """Cancel the run and wait until it ends, passing on further cancellations.

        Cancellations from anyio are passed on once. Its scopes cancel a task repeatedly, which
        would break cleanup that the function shields from cancellation.

        Raises:
            CancelledError: If this caller was cancelled meanwhile; the original exception, because
                an anyio scope recognizes its own.
        """
        self.stopping = True
        # `asyncio.run` cancels it at the end, and a scope inside the run may, but takes that back
        requested = task.cancelling() > 0
        if not requested:
            task.cancel()
        interrupt: asyncio.CancelledError | None = None
        try:
            while not task.done():
                if requested and not task.cancelling():
                    requested = False
                    task.cancel()
                try:
                    if requested:
                        await loop_time.wait({task}, _UNTIL_TAKEN_BACK)
                    else:
                        await self.finished(task)
                except asyncio.CancelledError as cancelled:
                    if not _is_of_anyio(cancelled):
                        interrupt = cancelled
                        requested = False
                        task.cancel()
                    elif interrupt is None:
                        interrupt = cancelled
            if not task.cancelled():
                task.exception()  # keeps asyncio from reporting it as never retrieved
            if interrupt is not None:
                raise interrupt
        finally:
            interrupt = None  # its traceback holds this frame


def _ring(bell: asyncio.Future[None]) -> None:
    if not bell.done():
        bell.set_result(None)


def _is_of_anyio(cancelled: asyncio.CancelledError) -> bool:
    """Return whether a cancellation comes from an anyio scope, judging by its message."""
    message = cancelled.args[0] if cancelled.args else None
    return (
        isinstance(message, str)
        and message.startswith("Cancelled ")
        and " cancel scope " in message
    )


def _belongs_to_leader(task: asyncio.Task[Any]) -> bool:
    """Return whether a run's error concerns only the caller it was made for.

    Passing the deadline does not: that is the latest deadline of all callers.
    """
    if task.cancelled():
        return True
    error = task.exception()
    return error is not None and (
        not isinstance(error, Exception) or isinstance(error, RecursionError)
    )


def begin_apart() -> None:
    """Mark this context as outside all flights."""
    _lineage.set(None)


def _enclosing() -> set[TaskFlight]:
    """Return the flights that the current task runs in."""
    flights = set()
    outer = _lineage.get()
    while outer is not None:
        flights.add(outer)
        outer = outer.outer
    return flights


async def share(
    call: AsyncCall,
    shared: Shared,
    key: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    known: Any = None,
) -> Any:
    """Run a call whose value is missing, or join the run that is under way on this loop.

    A call made from inside the very run that it would wait for runs on its own. So endless
    recursion stays endless recursion, as without opero, and does not hang.

    Args:
        call: The decorated function; its `lead` runs the call in a flight, and stores the value.
        shared: The place that lacks the value.
        key: The call's key.
        args: The positional arguments.
        kwargs: The keyword arguments.
        known: Further arguments for `lead`.

    Returns:
        The function's result.
    """
    flight: TaskFlight | None = None
    task: asyncio.Task[Any] | None = None
    outer: TaskFlight | None = None
    attempts: Any = None
    try:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = running_loop()  # its error says what runs here instead of asyncio
        deadline = call.clock.now() + call.timeout if call.timeout else NEVER
        flights = shared.flights
        while True:
            table = flights.get(loop)
            flight = None if table is None else table.get(key)
            leads = flight is None or not flight.is_open()
            if flight is not None and not leads:
                if flight.reaches(_enclosing()):
                    return await call.runner.run(call, args, kwargs)
                task = flight.task
            else:
                entry = shared.find(key)  # another task, or another loop, may have stored it
                if entry is not None:
                    return entry.value
                listing = {} if table is None else table
                listing[key] = flight = TaskFlight(call, flights, listing, loop, key, deadline)
                if table is None:
                    if flights:
                        forget_closed_loops(flights)
                    flights[loop] = listing
                try:
                    task = flight.launch(call.lead(shared, call, flight, args, kwargs, known))
                except BaseException:
                    flight.land()
                    raise
                if task.done():
                    return task.result()
            assert task is not None
            outer = flight.arrive(deadline)
            try:
                if deadline == NEVER:
                    bell = flight.hang_bell()
                    try:
                        await bell
                    except BaseException:
                        flight.take_bell(bell)
                        raise
                    if not task.done():
                        await flight.finished(task)
                else:
                    await flight.finished_until(task, deadline)
                    attempts = flight.attempts
                    if flight.callers == 1 and not task.done():
                        await flight.stop(task)
            except GeneratorExit:  # the caller's coroutine is closed, and must not await again
                if flight.callers == 1:
                    flight.stopping = True
                    if not loop.is_closed():
                        task.cancel()
                raise
            except asyncio.CancelledError:
                if flight.callers == 1 and not flight.stopping:
                    await flight.stop(task)
                raise
            finally:
                flight.depart(outer)
            if not task.done() or (flight.stopping and task.cancelled()):
                raise too_late(call, attempts, "an attempt was still running then")
            if leads or not _belongs_to_leader(task):
                return task.result()
    except BaseException as failure:
        shorten(failure)
        raise
    finally:
        # the task holds the error, and its traceback holds this frame
        flight = task = outer = attempts = None


def forget_closed_loops(flights: dict[Any, dict[Any, TaskFlight]]) -> None:
    """Remove the tables of closed loops: their tasks died with them."""
    for loop in list(flights):
        if loop.is_closed():
            flights.pop(loop, None)


async def lead(
    store: Any,
    call: AsyncCall,
    flight: TaskFlight,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    spare: bool | None,
) -> Any:
    """Run a call in a flight; store its value in memory, unless its key was invalidated meanwhile.

    This is the coroutine of the flight's task. `spare` says whether an outdated value can serve.
    """
    error: BaseException | None = None
    try:
        flight.enter()
        passed = call.admit()
        if passed is None:
            try:
                value = await call.attempted(*args, **kwargs)
            except GeneratorExit:
                raise
            except BaseException as caught:  # noqa: BLE001 - judged in run
                error = caught
        if passed is not None or error is not None:
            value = await call.runner.run(
                call, args, kwargs, flight, error, passed or 0, spare is True
            )
        if type(value) not in once_only.ORDINARY:
            once_only.check(call.name, value)
        flight.keep(store, value)
        return value
    except GeneratorExit:
        flight.abandon()
        raise
    except (KeyboardInterrupt, SystemExit):
        flight.end_program()
        raise
    finally:
        flight.land()
        del flight, error
