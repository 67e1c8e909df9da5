"""Calls of coroutine functions whose cached values are refreshed, or serve after they expire.

This does what `lingering` does for ordinary functions; each refresh is a separate task in the
caller's loop.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from opero import once_only
from opero.core.outcomes import too_late
from opero.tracebacks import shorten

from . import loop_time
from .lingering import is_due, note_hit, note_miss, serves_stale
from .refreshes import MemoryRefresh, Refresh
from .task_flight import TaskFlight, begin_apart, forget_closed_loops, share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.call import AsyncCall
    from opero.core.store import MemoryStore

MOST_TASKS = 128
"""The most refreshes of coroutine functions that run at the same time."""

_tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
"""Those that are."""


async def linger(
    call: AsyncCall, store: MemoryStore, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Answer a call that is not a plain hit (see `lingering.linger`)."""
    entry = store.look_closer(key)
    value: Any = None
    try:
        if entry is not None:
            value = store.value_of(entry)
            if store.is_fresh(entry):
                note_hit(call)
                if is_due(store, entry):
                    with suppress(Exception):  # no failure here concerns the caller
                        begin(TaskRefresh(call, store, entry, args, kwargs), store, key)
                return value
        note_miss(call)
        try:
            return await share(call, store, key, args, kwargs, entry is not None)
        except Exception as error:
            if entry is None or not serves_stale(call, store, entry, error):
                raise
            return value
    except BaseException as failure:
        shorten(failure)
        raise
    finally:
        entry = value = None  # the caller may keep a traceback


class TaskRefresh(MemoryRefresh):
    """One value in memory to renew in a task."""

    __slots__ = ()

    async def make(self, flight: TaskFlight, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the call, store its result, and return it."""
        self.call.add("refreshes", 1)
        value = await self.call.runner.run(self.call, args, kwargs, flight, spare=True)
        once_only.check(self.call.name, value)
        flight.keep(self.store, value)
        return value


def begin(refresh: Any, shared: Any, key: Any) -> None:
    """Begin a refresh in a task of the running loop, if there is room for it.

    Args:
        refresh: The value to renew; a `Refresh` with `make`.
        shared: The place of the value; its `flights` are by loop, then by key.
        key: The key of the flight.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # no asyncio loop runs here, so nothing can run the task
        return
    if len(_tasks) >= MOST_TASKS:
        return
    table = shared.flights.get(loop)
    flight: TaskFlight | None = None if table is None else table.get(key)
    if (flight is not None and flight.is_open()) or not refresh.claim():
        return
    try:
        refresh.context.run(begin_apart)
        listing: dict[Any, TaskFlight] = {} if table is None else table
        flight = refresh.context.run(
            TaskFlight, refresh.call, shared.flights, listing, loop, key, refresh.until
        )
        flight.callers = 1  # a caller who follows and leaves must not end the refresh
        listing[key] = flight
        if table is None:
            forget_closed_loops(shared.flights)
            shared.flights[loop] = listing
        task = refresh.context.run(loop.create_task, _Begins(refresh, flight))
    except BaseException:
        if flight is not None:
            flight.land()
        refresh.give_back()
        raise
    with suppress(AttributeError):  # a loop may have its own kind of task
        task._log_destroy_pending = False  # no caller waits for it, so it may end with its loop
    flight.begun(task)
    _tasks.add(task)
    task.add_done_callback(partial(_over, refresh))


class _Begins(Coroutine[Any, Any, Any]):
    """The coroutine of a refresh's task, which creates the actual coroutine in its first step.

    So if the loop is closed earlier, Python has no coroutine to report as never awaited.
    """

    def __init__(self, refresh: Any, flight: TaskFlight) -> None:
        self._refresh: Any = refresh
        self._flight: TaskFlight | None = flight
        self._run: Coroutine[Any, Any, Any] | None = None
        self.__name__ = self.__qualname__ = refresh.call.name

    def send(self, value: Any) -> Any:
        """Make a step."""
        if self._run is None:
            assert self._flight is not None
            self._run = _run(self._refresh, self._flight)
            self._refresh = self._flight = None
        return self._run.send(value)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """Raise an exception at the point where it waits."""
        error = kind() if isinstance(kind, type) and value is None else value or kind
        if self._run is None:
            raise error
        return self._run.throw(error if traceback is None else error.with_traceback(traceback))

    def close(self) -> None:
        """End it."""
        if self._run is not None:
            self._run.close()

    def __await__(self) -> Any:
        raise TypeError("only its own task runs a refresh")

    def __del__(self) -> None:
        if self._refresh is not None:  # it has never begun
            self._refresh.give_back()


def _over(refresh: Refresh, task: asyncio.Task[Any]) -> None:
    """Clean up after a refresh, and retrieve its error so that asyncio does not report it."""
    _tasks.discard(task)
    if not task.cancelled():
        task.exception()
    elif not refresh.over:
        refresh.give_back()


async def _run(refresh: Any, flight: TaskFlight) -> Any:
    """Run a refresh; this is the coroutine of its task.

    Callers who come after the value has expired wait for it. If there is nothing to do, it ends as
    if cancelled, and those callers run the call themselves.
    """
    call = refresh.call
    cut: _Cut | None = None
    try:
        flight.enter()
        begun = refresh.begin()
        if begun is None:
            raise asyncio.CancelledError
        args, kwargs, flight.deadline = begun
        if call.timeout:
            cut = _Cut(flight)
        value = await refresh.make(flight, args, kwargs)
        refresh.end(None)
        return value
    except GeneratorExit:
        flight.abandon()
        refresh.give_back()
        raise
    except asyncio.CancelledError:
        if cut is None or not cut.done:
            raise
        late = too_late(call, flight.attempts, "an attempt was still running then")
        refresh.end(late)
        raise late from None
    except KeyboardInterrupt:
        flight.end_program()
        raise
    except SystemExit as error:  # it would end the loop
        refresh.end(error)
        raise asyncio.CancelledError from error
    except BaseException as error:
        refresh.end(error)
        raise
    finally:
        if cut is not None:
            cut.cancel()
        flight.land()
        del flight, refresh, cut


class _Cut:
    """Cancels a refresh at the deadline that the function's `timeout` sets.

    Attributes:
        done: Whether it has cancelled the refresh.
    """

    def __init__(self, flight: TaskFlight) -> None:
        self.done: bool = False
        self._flight = flight
        self._timer: Any = None
        clock = flight.call.clock
        self._wait(clock.now() + flight.call.timeout)

    def _wait(self, until: int) -> None:
        left = until - self._flight.call.clock.now()
        self._timer = loop_time.call_later(
            self._flight.loop, max(0, left) / 1e9, partial(self._due, until, left)
        )

    def _due(self, until: int, left: int) -> None:
        flight = self._flight
        clock = flight.call.clock
        loop_time.catch_up(clock, until, left)
        if flight.callers > 1:  # other callers wait for it, perhaps for longer
            until = max(until, flight.deadline)
        if clock.now() < until:
            self._wait(until)
        elif flight.task is not None:
            self.done = flight.stopping = True
            flight.task.cancel()

    def cancel(self) -> None:
        self._timer.cancel()
