"""Single flight for tasks: one run per missing key and event loop, in a task of its own.

The callers of a key wait for one `TaskFlight`. So a caller that is cancelled leaves the others
their run, a caller whose deadline passes can go, and the last one who goes cancels the run.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from opero import once_only
from opero.core.clock import NEVER
from opero.core.outcomes import too_late
from opero.tracebacks import shorten

from . import loop_time
from .loops import running_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.call import AsyncCall

AGAIN: Any = object()
"""Says that whoever has followed a flight has to look again: its outcome is not theirs."""

_lineage: ContextVar[tuple[TaskFlight, Any] | None] = ContextVar("opero_lineage", default=None)
"""The flights inside which the current task runs, innermost first."""


class TaskFlight:
    """One run of a call in a task of its own.

    Attributes:
        task: The run, while it is under way.
        callers: How many callers wait for it.
        depth: How many runs wait, one inside the other, until this one has ended; itself included.
        deadline: The latest deadline of a caller, in nanoseconds.
        attempts: The state of its attempts, once one has failed.
        awaits: The flights for which this one's own function waits.
        stopping: Whether its last caller has gone, so that nobody may join any more.
        over: Whether it has ended.
    """

    __slots__ = ("attempts", "awaits", "callers", "deadline", "depth", "over", "stopping", "task")

    def __init__(self, deadline: int) -> None:
        """Begin without a task.

        Raises:
            RecursionError: If runs wait for each other as deep as calls may be nested. Each has a
                task of its own, so that no stack would end a recursion that has no end.
        """
        self.depth: int = _depth() + 1
        if self.depth > sys.getrecursionlimit():
            raise RecursionError("maximum recursion depth exceeded by calls that await each other")
        self.task: asyncio.Task[Any] | None = None
        self.callers: int = 0
        self.deadline: int = deadline
        self.attempts: Any = None
        self.awaits: list[TaskFlight] = []
        self.stopping: bool = False
        self.over: bool = False

    def launch(self, run: Coroutine[Any, Any, Any], name: str) -> None:
        """Start the run in a task, whose coroutine bears a name."""
        named: Any = run
        named.__name__, named.__qualname__ = name.rpartition(".")[2], name
        try:
            self.task = asyncio.get_running_loop().create_task(run)
        except BaseException:
            run.close()
            raise
        self.task.add_done_callback(self._land)

    def _land(self, _: asyncio.Task[Any]) -> None:
        """Let go of what ties the run's error to itself."""
        self.over = True
        self.task = self.attempts = None

    def is_open(self) -> bool:
        """Return whether a caller may still join."""
        return not (self.stopping or self.over or (self.task is not None and self.task.done()))

    def enter(self) -> None:
        """Note, in the task, that all it does is inside this flight."""
        outer = _lineage.get()
        while outer is not None and outer[0].over:
            outer = outer[1]
        _lineage.set((self, outer))

    async def lead(self, call: AsyncCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the call; this is the task's coroutine."""
        self.enter()
        return await call.runner.run(call, args, kwargs, self)

    async def lead_and_store(
        self,
        call: AsyncCall,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        store: Any,
        table: dict[Any, TaskFlight],
        key: Any,
    ) -> Any:
        """Run the call and store its value, unless the key was invalidated meanwhile."""
        value = await self.lead(call, args, kwargs)
        once_only.check(call.name, value)
        if table.get(key) is self:
            entry = call.reserve(store, key)
            if entry is not None:
                if table.get(key) is self:
                    store.fill(entry, value)
                else:  # it was invalidated meanwhile
                    store.drop(key)
        return value

    def reaches(self, flights: set[TaskFlight]) -> bool:
        """Return whether one of `flights` has to end before this one can."""
        seen: set[TaskFlight] = set()
        todo = [self]
        while todo:
            flight = todo.pop()
            if flight in flights:
                return True
            if flight not in seen:
                seen.add(flight)
                todo.extend(flight.awaits)
        return False

    async def join(self, call: AsyncCall, deadline: int, leads: bool = True) -> Any:
        """Wait for the run and share its outcome.

        Args:
            call: The decorated function.
            deadline: When this caller has to go, in nanoseconds.
            leads: Whether it is the caller for whom the run was made.

        Returns:
            What the function returned, or `AGAIN`.

        Raises:
            DeadlineExceeded: If the deadline passes first.
        """
        task = self.task
        assert task is not None
        attempts: Any = None
        outer = _lineage.get()
        self.callers += 1
        self.deadline = max(self.deadline, deadline)
        if outer is not None:
            outer[0].awaits.append(self)
        try:
            try:
                await _wait(task, call.clock, deadline)
                attempts = self.attempts
                if self.callers == 1 and not task.done():
                    await self._stop(task)
            except GeneratorExit:  # the caller's coroutine is closed, and must not await any more
                if self.callers == 1:
                    self.stopping = True
                    if not task.get_loop().is_closed():
                        task.cancel()
                raise
            except asyncio.CancelledError:
                if self.callers == 1 and not self.stopping:
                    await self._stop(task)
                raise
            finally:
                self.callers -= 1
                if outer is not None:
                    outer[0].awaits.remove(self)
            if task.done() and not (task.cancelled() and self.stopping):
                if not leads and _belongs_to_leader(task):
                    return AGAIN
                return task.result()
            raise too_late(call, attempts, "an attempt was still running then")
        finally:
            task = attempts = None  # the task holds the error, whose traceback holds this frame

    async def _stop(self, task: asyncio.Task[Any]) -> None:
        """Cancel the run and wait until it is over, passing on further cancellations.

        Those of anyio are passed on once. Its scopes cancel a task again and again; that would
        break what the function shields from cancellation to clean up.

        Raises:
            CancelledError: If this caller was cancelled meanwhile: the very one, as a scope of
                anyio knows its own by it.
        """
        self.stopping = True
        if not task.cancelling():  # the end of `asyncio.run` has cancelled it already
            task.cancel()
        interrupt: asyncio.CancelledError | None = None
        try:
            while not task.done():
                try:
                    await asyncio.wait({task})
                except asyncio.CancelledError as cancelled:
                    if not _is_of_anyio(cancelled):
                        interrupt = cancelled
                        task.cancel()
                    elif interrupt is None:
                        interrupt = cancelled
            if not task.cancelled():
                task.exception()  # looked at, so that nobody reports it as never retrieved
            if interrupt is not None:
                raise interrupt
        finally:
            interrupt = None  # its traceback holds this frame


def _is_of_anyio(cancelled: asyncio.CancelledError) -> bool:
    """Return whether a cancellation comes from a scope of anyio, as its message says."""
    message = cancelled.args[0] if cancelled.args else None
    return (
        isinstance(message, str)
        and message.startswith("Cancelled ")
        and " cancel scope " in message
    )


def _depth() -> int:
    """Return how many runs wait, one inside the other, for what the current task does."""
    outer = _lineage.get()
    if outer is None:
        return 0
    flight = outer[0]  # a task that a run has made begins a stack of its own
    return flight.depth if flight.task is asyncio.current_task() else 0


def _belongs_to_leader(task: asyncio.Task[Any]) -> bool:
    """Return whether what a run has raised concerns the caller for whom it was made, alone.

    The deadline does not: it is the latest one of all callers.
    """
    if task.cancelled():
        return True
    error = task.exception()
    return error is not None and (
        not isinstance(error, Exception) or isinstance(error, RecursionError)
    )


async def _wait(task: asyncio.Task[Any], clock: Any, deadline: int) -> None:
    """Wait until the run is over or the deadline passes."""
    if clock.skipping and deadline != NEVER:
        await loop_time.wait({task}, max(0, deadline - clock.now()) / 1e9)
        if not task.done():
            clock.move_to(deadline)
    await loop_time.wait_until(task, clock, deadline)


async def share(
    call: AsyncCall, store: Any, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a call whose value is not cached in memory, or join the run that is under way."""

    def look() -> Any:
        return store.find(key)

    def work(flight: TaskFlight, table: dict[Any, TaskFlight]) -> Coroutine[Any, Any, Any]:
        return flight.lead_and_store(call, args, kwargs, store, table, key)

    try:
        return await fly(call, store.flights, key, args, kwargs, look, work)
    except BaseException as failure:
        shorten(failure)
        raise


async def fly(
    call: AsyncCall,
    flights: Any,
    key: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    look: Callable[[], Any],
    work: Callable[[TaskFlight, dict[Any, TaskFlight]], Coroutine[Any, Any, Any]],
) -> Any:
    """Run a call whose value is missing, or join the run that is under way on this loop.

    A call made from inside the very run that it would wait for runs on its own: what would be
    endless recursion without opero stays that, and does not hang.

    Args:
        call: The decorated function.
        flights: The runs that are under way, by loop and key.
        key: The call's key.
        args: The positional arguments.
        kwargs: The keyword arguments.
        look: Looks for the value once more: a thread with another loop may have stored it.
        work: Makes the coroutine that runs the call in a flight, and stores its value.

    Returns:
        What the function returned.
    """
    deadline = call.clock.now() + call.timeout if call.timeout else NEVER
    loop = running_loop()
    table = flights.get(loop)
    if table is None:
        for other in list(flights):
            if other.is_closed():
                flights.pop(other, None)  # its tasks died with it
        table = flights.setdefault(loop, {})
    flight = table.get(key)
    while flight is not None and flight.is_open():
        if flight.reaches(_enclosing()):
            return await call.runner.run(call, args, kwargs)
        value = await flight.join(call, deadline, leads=False)
        if value is not AGAIN:
            return value
        table = flights.setdefault(loop, {})
        flight = table.get(key)
    entry = look()
    if entry is not None:
        _clear(flights, loop, table, key, flight)
        return entry.value
    try:
        table[key] = flight = TaskFlight(deadline)
        flight.launch(work(flight, table), call.name)
    except BaseException:
        _clear(flights, loop, table, key, flight)
        raise
    assert flight.task is not None
    flight.task.add_done_callback(lambda _: _clear(flights, loop, table, key, flight))
    return await flight.join(call, deadline)


def _enclosing() -> set[TaskFlight]:
    """Return the flights inside which the current task runs."""
    flights = set()
    outer = _lineage.get()
    while outer is not None:
        flights.add(outer[0])
        outer = outer[1]
    return flights


def _clear(
    flights: Any,
    loop: Any,
    table: dict[Any, TaskFlight],
    key: Any,
    flight: TaskFlight | None,
) -> None:
    """Leave nothing behind for a key whose flight is over; this runs in the loop's own thread."""
    if flight is not None and table.get(key) is flight:
        table.pop(key, None)
    if not table and flights.get(loop) is table:
        flights.pop(loop, None)
