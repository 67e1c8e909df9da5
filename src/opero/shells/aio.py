"""The shell for coroutine functions: it awaits in the caller's task.

A call that is neither cached nor under a deadline runs in the caller's own task. Any other runs in
a task of its own, a `Flight`, for which its callers wait: so a caller that is cancelled leaves the
others their run, a caller whose deadline passes can go, and the last one who goes cancels the run.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

from opero.core.clock import NEVER

from .verdicts import judge, misfits, too_late

_lineage: ContextVar[tuple[Flight, Any] | None] = ContextVar("opero_lineage", default=None)
"""The flights inside which the current task runs, innermost first."""


async def ready(value: Any) -> Any:
    """Return a value that is known already."""
    return value


async def guard(call: Any, attempt: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
    """Await the first attempt, a coroutine, and go on only if it fails."""
    try:
        return await attempt
    except BaseException as caught:  # noqa: BLE001 - judged in run
        error: BaseException | None = caught
    try:
        return await run(call, args, kwargs or {}, None, error)
    finally:
        error = None


async def run(
    call: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    flight: Flight | None = None,
    error: BaseException | None = None,
) -> Any:
    """Attempt a call until it succeeds or the core gives up.

    Args:
        call: The decorated function.
        args: The positional arguments.
        kwargs: The keyword arguments.
        flight: Tells the deadline and gets to know the attempts, if somebody waits elsewhere.
        error: What the first attempt raised, if it has been made.

    Returns:
        What the function returned.
    """
    attempts: Any = None
    failure: BaseException | None = None
    fallback = call.fallback
    given: Any = None
    width = 1
    if fallback is not None:
        given = fallback.given(args, kwargs)
        width = fallback.check(given)
    now_args, now_kwargs = args, kwargs
    try:
        while True:
            if error is not None:
                if _is_cancelling():
                    raise error
                if attempts is None:
                    if misfits(call, error, args, kwargs):
                        raise error
                    attempts = call.policy.attempts(width)
                    if flight is not None:
                        flight.attempts = attempts
                deadline = NEVER if flight is None else flight.deadline
                failure = judge(call, attempts, error, deadline)
                if failure is not None:
                    raise failure
                error = None
                if attempts.delay:
                    waited = await sleep(call.clock, attempts.delay)
                    call.backoff_wait += waited  # read only now: others wait at the same time
                if fallback is not None:
                    value = fallback.choice(given, attempts.value)
                    now_args, now_kwargs = fallback.place(args, kwargs, value)
            if call.limiter is not None:
                await permit(call, attempts, NEVER if flight is None else flight.deadline)
            call.attempted += 1
            try:
                return await call.func(*now_args, **now_kwargs)
            except BaseException as caught:  # noqa: BLE001 - judged above
                error = caught
    finally:
        attempts = error = failure = None  # a traceback that holds this frame must not make a cycle


def _is_cancelling() -> bool:
    """Tell whether this task was asked to end and its function made another error of that."""
    task = asyncio.current_task()
    asked = getattr(task, "cancelling", None)  # new in Python 3.11
    return asked is not None and asked() > 0


async def permit(call: Any, attempts: Any, deadline: int) -> None:
    """Wait for the call's rate-limit permit."""
    waited = await call.limiter.wait(deadline)
    if waited < 0:
        raise too_late(call, attempts, "its rate-limit permit would not come in time")
    call.permit_wait += waited
    if call.journal.debug:
        call.journal.permit(call.name, waited / 1e9)


async def sleep(clock: Any, delay: int) -> int:
    """Wait for `delay` nanoseconds, or move a clock that skips waits; return the time waited."""
    start = clock.now()
    end = start + delay
    if clock.skipping:
        clock.move_to(end)
        await asyncio.sleep(0)
    left = end - clock.now()
    while left > 0:
        await asyncio.sleep(left / 1e9)
        left = end - clock.now()
    return int(clock.now() - start)


class Flight:
    """One run of a call in a task of its own.

    Attributes:
        task: The run.
        callers: How many callers wait for it.
        deadline: The latest deadline of a caller, in nanoseconds.
        attempts: The state of its attempts, once one has failed.
        awaits: The flights for which this one's own function waits.
    """

    __slots__ = ("attempts", "awaits", "callers", "deadline", "task")

    def __init__(self, deadline: int) -> None:
        self.task: asyncio.Task[Any]
        self.callers = 0
        self.deadline = deadline
        self.attempts: Any = None
        self.awaits: list[Flight] = []

    async def lead(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the call; this is the task's coroutine."""
        _lineage.set((self, _lineage.get()))
        return await run(call, args, kwargs, self)

    async def lead_and_store(
        self,
        call: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        store: Any,
        table: dict[Any, Flight],
        key: Any,
    ) -> Any:
        """Run the call and store its value, unless the key was invalidated meanwhile."""
        value = await self.lead(call, args, kwargs)
        if table.get(key) is self:
            store.put(key, value)
        return value

    def reaches(self, flights: set[Flight]) -> bool:
        """Tell whether one of `flights` has to end before this one can."""
        seen: set[Flight] = set()
        todo = [self]
        while todo:
            flight = todo.pop()
            if flight in flights:
                return True
            if flight not in seen:
                seen.add(flight)
                todo.extend(flight.awaits)
        return False

    async def join(self, call: Any, deadline: int) -> Any:
        """Wait for the run and share its outcome.

        Args:
            call: The decorated function.
            deadline: When this caller has to go, in nanoseconds.

        Raises:
            DeadlineExceeded: If the deadline passes first.
        """
        self.callers += 1
        self.deadline = max(self.deadline, deadline)
        outer = _lineage.get()
        if outer is not None:
            outer[0].awaits.append(self)
        try:
            await self._wait(call.clock, deadline)
            if self.callers == 1:
                await self._stop()
        except GeneratorExit:  # the caller's coroutine is closed, and must not await any more
            if self.callers == 1:
                self.task.cancel()
            raise
        except asyncio.CancelledError:
            if self.callers == 1:
                await self._stop()
            raise
        finally:
            self.callers -= 1
            if outer is not None:
                outer[0].awaits.remove(self)
        if self.task.done() and not (self.task.cancelled() and call.clock.now() >= deadline):
            return self.task.result()
        raise too_late(call, self.attempts, "they passed while an attempt was running")

    async def _wait(self, clock: Any, deadline: int) -> None:
        """Wait until the run is over or the deadline passes."""
        while not self.task.done():
            left = None if deadline == NEVER else (deadline - clock.now()) / 1e9
            if left is not None and left <= 0:
                return
            await asyncio.wait({self.task}, timeout=left)

    async def _stop(self) -> None:
        """Cancel the run and wait until it is over, however often the caller is cancelled."""
        cancelled: asyncio.CancelledError | None = None
        if not self.task.done():
            self.task.cancel()
        while not self.task.done():
            try:
                await asyncio.wait({self.task})
            except asyncio.CancelledError as caught:
                cancelled = caught
        if not self.task.cancelled():
            self.task.exception()  # looked at, so that nobody reports it as never retrieved
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                cancelled = None


async def run_until(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a call that is not cached under a deadline."""
    deadline = call.clock.now() + call.timeout
    flight = Flight(deadline)
    flight.task = asyncio.get_running_loop().create_task(flight.lead(call, args, kwargs))
    return await flight.join(call, deadline)


async def share(
    call: Any,
    store: Any,
    key: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run a call whose value is not cached, or join the run that is under way on this loop.

    A call made from inside the very run that it would wait for runs on its own: what would be
    endless recursion without opero stays that, and does not hang.
    """
    deadline = call.clock.now() + call.timeout if call.timeout else NEVER
    loop = asyncio.get_running_loop()
    flights = store.flights
    table = flights.get(loop)
    if table is None:
        for other in [other for other in flights if other.is_closed()]:
            flights.pop(other, None)  # its tasks died with it
        table = flights.setdefault(loop, {})
    flight = table.get(key)
    if flight is not None and not flight.task.done():
        enclosing = set()
        outer = _lineage.get()
        while outer is not None:
            enclosing.add(outer[0])
            outer = outer[1]
        if enclosing and flight.reaches(enclosing):
            return await run(call, args, kwargs)
        return await flight.join(call, deadline)
    entry = store.find(key)  # a thread with another loop may have stored it meanwhile
    if entry is not None:
        return entry.value
    flight = Flight(deadline)
    flight.task = loop.create_task(flight.lead_and_store(call, args, kwargs, store, table, key))
    table[key] = flight

    def land(_: asyncio.Task[Any]) -> None:
        if table.get(key) is flight:
            del table[key]
        if not table and flights.get(loop) is table:
            del flights[loop]

    flight.task.add_done_callback(land)
    return await flight.join(call, deadline)
