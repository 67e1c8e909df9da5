"""Runs coroutine functions: it awaits in the caller's task.

A call that is not cached runs in the caller's own task, even under a deadline (see `deadlines`). A
cached call runs in a separate task, and its callers wait for that (see `task_flight`).

The user awaits `ready`, `guard`, `gated` or `run_until`. Their first step does what comes before
the first attempt; after a failure, `run` takes over.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import current_task
from collections.abc import Callable
from typing import Any

from opero.core.clock import NEVER
from opero.exceptions import AttemptTimeout
from opero.tracebacks import shorten

from . import loop_time
from .deadlines import judge, limited, no_task, over
from .effects import ASK, ATTEMPT, BELL, RUN, SLEEP, WAIT, Raised
from .loops import running_loop
from .naming import named
from .task_flight import TaskFlight, lead, share
from .task_lingering import linger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.call import AsyncCall
    from opero.core.deadline import Deadline

    from .effects import Steps

__all__ = [
    "TaskBell",
    "comes_of_cancellation",
    "drive",
    "first_item",
    "gated",
    "gated_one",
    "guard",
    "guard_one",
    "is_asked_to_end",
    "lead",
    "limited",
    "linger",
    "named",
    "ready",
    "run",
    "run_until",
    "run_until_one",
    "share",
    "sleep",
    "watched",
    "watched_one",
]


async def first_item(generator: Any) -> Any:
    """Return the first item of an asynchronous generator, hidden from the event loop.

    A loop that ends closes all generators it knows, at the same time. It knows the caller's
    generator (see `async_streams`), which closes this one.

    Raises:
        StopAsyncIteration: If the generator ends without an item.
    """
    first, final = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=None)
    try:
        item = generator.__anext__()
    finally:
        sys.set_asyncgen_hooks(first, final)
    return await item


async def ready(value: Any) -> Any:
    """Return a value that is already known."""
    return value


async def guard(call: AsyncCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make the first attempt, and go on only if it fails."""
    error: BaseException | None
    try:
        return await func(*args, **kwargs)
    except GeneratorExit:
        raise
    except BaseException as caught:  # noqa: BLE001 - judged in run
        error = caught
    try:
        return await run(call, args, kwargs, None, error, func=func)
    except BaseException as failure:
        shorten(failure)
        raise
    finally:
        error = None


async def guard_one(call: AsyncCall, func: Any, value: Any) -> Any:
    """Do what `guard` does, faster, for the most common call: one positional argument."""
    error: BaseException | None
    try:
        return await func(value)
    except GeneratorExit:
        raise
    except BaseException as caught:  # noqa: BLE001 - judged in run
        error = caught
    try:
        return await run(call, (value,), {}, None, error)
    except BaseException as failure:
        shorten(failure)
        raise
    finally:
        error = None


async def gated(call: AsyncCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Do what `guard` does for a call whose first attempt must pass gates."""
    error: BaseException | None = None
    passed = call.admit()
    if passed is None:
        try:
            return await func(*args, **kwargs)
        except GeneratorExit:
            raise
        except BaseException as caught:  # noqa: BLE001 - judged in run
            error = caught
    try:
        return await run(call, args, kwargs, None, error, passed or 0, func=func)
    except BaseException as failure:
        shorten(failure)
        raise
    finally:
        error = None


async def gated_one(call: AsyncCall, func: Any, value: Any) -> Any:
    """Do what `gated` does for a call with one positional argument."""
    error: BaseException | None = None
    passed = call.admit()
    if passed is None:
        try:
            return await func(value)
        except GeneratorExit:
            raise
        except BaseException as caught:  # noqa: BLE001 - judged in run
            error = caught
    try:
        return await run(call, (value,), {}, None, error, passed or 0)
    except BaseException as failure:
        shorten(failure)
        raise
    finally:
        error = None


async def watched(call: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Do what `gated` does for a call with a breaker; fast while the breaker is closed."""
    error: BaseException | None
    tickets: list[int] | None
    ticket = call.come_in()
    if ticket:
        try:
            value = await func(*args, **kwargs)
        except GeneratorExit:
            raise
        except BaseException as caught:  # noqa: BLE001 - judged in run
            error = caught
        else:
            call.go_out(ticket)
            return value
        tickets = [ticket] if len(call.gates) == 1 else [ticket, 0]
    else:
        error = tickets = None
    try:
        return await run(call, args, kwargs, None, error, 0, func=func, tickets=tickets)
    except BaseException as failure:
        shorten(failure)
        raise
    finally:
        error = None


async def watched_one(call: Any, func: Any, value: Any) -> Any:
    """Do what `watched` does for a call with one positional argument."""
    error: BaseException | None
    tickets: list[int] | None
    ticket = call.come_in()
    if ticket:
        try:
            value_of = await func(value)
        except GeneratorExit:
            raise
        except BaseException as caught:  # noqa: BLE001 - judged in run
            error = caught
        else:
            call.go_out(ticket)
            return value_of
        tickets = [ticket] if len(call.gates) == 1 else [ticket, 0]
    else:
        error = tickets = None
    try:
        return await run(call, (value,), {}, None, error, 0, tickets=tickets)
    except BaseException as failure:
        shorten(failure)
        raise
    finally:
        error = None


async def run_until(
    call: AsyncCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Do what `gated` does for an uncached call with a deadline."""
    deadline: Any = None
    task: Any = None
    error: BaseException | None = None
    try:
        try:
            task = current_task()
        except RuntimeError as caught:
            raise no_task(call.name, "timeout", caught) from caught
        if task is None:
            raise no_task(call.name, "timeout")
        deadline = call.begin(task)
        try:
            passed = call.admit()
            if passed is None:
                try:
                    return await over(deadline, func(*args, **kwargs))
                except GeneratorExit:
                    raise
                except BaseException as caught:  # noqa: BLE001 - judged in run
                    error = caught
            return await over(
                deadline, run(call, args, kwargs, deadline, error, passed or 0, func=func)
            )
        except asyncio.CancelledError as cancelled:
            await judge(call, deadline, cancelled)
            raise
        finally:
            if deadline.queue is not None:
                deadline.leave()
    except BaseException as failure:
        shorten(failure)
        raise
    finally:
        deadline = task = error = None  # the task holds the error, whose traceback holds this frame


async def run_until_one(call: AsyncCall, func: Any, value: Any) -> Any:
    """Do what `run_until` does for a call with one positional argument."""
    deadline: Any = None
    task: Any = None
    error: BaseException | None = None
    try:
        try:
            task = current_task()
        except RuntimeError as caught:
            raise no_task(call.name, "timeout", caught) from caught
        if task is None:
            raise no_task(call.name, "timeout")
        deadline = call.begin(task)
        try:
            passed = call.admit()
            if passed is None:
                try:
                    return await over(deadline, func(value))
                except GeneratorExit:
                    raise
                except BaseException as caught:  # noqa: BLE001 - judged in run
                    error = caught
            return await over(deadline, run(call, (value,), {}, deadline, error, passed or 0))
        except asyncio.CancelledError as cancelled:
            await judge(call, deadline, cancelled)
            raise
        finally:
            if deadline.queue is not None:
                deadline.leave()
    except BaseException as failure:
        shorten(failure)
        raise
    finally:
        deadline = task = error = None  # the task holds the error, whose traceback holds this frame


async def run(
    call: AsyncCall,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    flight: TaskFlight | Deadline | None = None,
    error: BaseException | None = None,
    passed: int = 0,
    spare: bool = False,
    func: Any = None,
    tickets: list[int] | None = None,
) -> Any:
    """Attempt a call until it succeeds or the core gives up (see `core.retrying`).

    Args:
        call: The decorated function.
        args: The positional arguments.
        kwargs: The keyword arguments.
        flight: Gives the deadline and receives the attempts; None if there is no deadline and no
            other caller waits.
        error: What the first attempt raised, if it has been made.
        passed: How many gates have admitted the first attempt, if it has not been made.
        spare: Whether an outdated value can be served if the call fails: then the call fails
            immediately if a gate refuses it.
        func: What an attempt calls instead of the function (see `streams.Opening`).
        tickets: The gates' tickets for the first attempt, if it has been made and a gate wants to
            know how it ends.

    Returns:
        What the function returned.
    """
    retrying: Any = None
    func = call.attempted if func is None else func
    opening = None if func is call.attempted else func
    try:
        if error is not None and _is_cancellation(error, flight):
            raise _end_by(error)
        retrying = call.retrying(
            call, args, kwargs, NEVER, flight, error, passed, 0, tickets, spare
        )
        error = None
        while True:
            todo = retrying.next()
            if todo == ATTEMPT:
                try:
                    value = await func(*retrying.args, **retrying.kwargs)
                except GeneratorExit:
                    retrying.abandoned()
                    raise
                except BaseException as caught:  # noqa: BLE001 - judged in `next`
                    retrying.failed(caught)
                else:
                    if retrying.returned(value):
                        return value
                    if opening is not None:
                        try:
                            await opening.reject()
                        except BaseException:
                            retrying.abandoned()
                            raise
                    continue
                if _is_cancellation(retrying.error, flight):
                    retrying.abandoned()
                    raise _end_by(retrying.error)
            elif todo == SLEEP:
                running_loop(retrying.attempts.errors[-1])
                retrying.slept(await sleep(call.clock, retrying.delay))
            elif todo == WAIT:
                try:
                    waited = await drive(retrying.queue().steps(retrying.deadline, 1))
                except BaseException:
                    retrying.abandoned()
                    raise
                retrying.waited(waited)
            else:
                raise retrying.error
    except BaseException as failure:
        shorten(failure)
        raise
    finally:
        # a traceback that holds this frame must not make a cycle
        retrying = error = flight = func = opening = None


async def drive(steps: Steps) -> Any:
    """Carry out, in this task, the effects that a generator yields.

    Returns:
        What the generator returns.

    Raises:
        BaseException: The exception that it returns as `Raised`, or that cancelled a wait.
    """
    effect: Any = None
    answer: Any = None
    step = steps.send
    try:
        while True:
            try:
                effect = step(answer)
            except StopIteration as end:
                answer = end.value
                break
            step = steps.send
            try:
                answer = await _done(effect)
            except GeneratorExit:
                raise
            except BaseException as interrupt:  # noqa: BLE001 - raised where it waits
                answer, step = interrupt, steps.throw
        if type(answer) is Raised:
            raise answer.error
        return answer
    finally:
        steps.close()
        effect = answer = step = None  # type: ignore[assignment]  # no cycle here either


async def _done(effect: Any) -> Any:
    """Carry out an effect; return what came of it."""
    kind = effect[0]
    if kind == SLEEP:
        return await sleep(effect[1], effect[2])
    if kind == ASK:
        return await effect[1].ask_async(effect[2], *effect[3])
    if kind == RUN:
        args, kwargs, _, flight, spare = effect[2]
        try:
            return await run(effect[1], args, kwargs, flight, spare=spare)
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - there it is known what to do instead
            return Raised(error)
    if kind == BELL:
        return TaskBell(effect[1])
    return await effect[2].wait(effect[1], effect[3])


class TaskBell:
    """Wakes a waiting task (see `effects.Bell`)."""

    def __init__(self, is_settled: Callable[[], bool]) -> None:
        self._is_settled = is_settled
        self._through = False
        self._loop = running_loop()
        self._rung: asyncio.Future[None] = self._loop.create_future()

    def ring(self) -> bool:
        """Wake the task, unless its loop was closed meanwhile."""
        try:
            self._loop.call_soon_threadsafe(self._ring)
        except RuntimeError:
            return False
        return True

    def _ring(self) -> None:
        self._through = self._is_settled()  # seen here only: tasks go on in the order of bells
        if not self._rung.done():
            self._rung.set_result(None)

    def is_through(self) -> bool:
        """Return whether the bell has rung since the waiter was settled."""
        return self._through

    async def wait(self, clock: Any, until: int) -> None:
        """Wait until it rings, or until a time."""
        if until == NEVER:
            await self._rung
        elif clock.skipping:
            clock.move_to(until)
            await asyncio.sleep(0)
        else:
            left = max(0, until - clock.now())

            def due() -> None:
                loop_time.catch_up(clock, until, left)
                self._ring()

            timer = loop_time.call_later(self._loop, left / 1e9, due)
            try:
                await self._rung
            finally:
                timer.cancel()
        if self._rung.done():
            self._rung = self._loop.create_future()


def _is_cancellation(error: BaseException, flight: TaskFlight | Deadline | None) -> bool:
    """Return whether the function was cancelled and turned that into another error.

    It was if its task has been cancelled and the error arose while a `CancelledError` was being
    handled; one that the caller of the decorated function is handling does not count.
    """
    if (flight is None or not flight.stopping) and not is_asked_to_end():
        return False
    if comes_of_cancellation(error, sys.exc_info()[1]):
        return True
    return flight is not None and flight.stopping


def _end_by(error: BaseException) -> BaseException:
    """Return the final error of a cancelled run; an attempt cancelled then counts as cancelled."""
    return asyncio.CancelledError() if type(error) is AttemptTimeout else error


def is_asked_to_end() -> bool:
    """Return whether somebody has cancelled the current task."""
    try:
        task = current_task()
    except RuntimeError:  # another framework's loop
        return False
    return task is not None and task.cancelling() > 0


def comes_of_cancellation(error: BaseException, outer: BaseException | None) -> bool:
    """Return whether an error arose while a `CancelledError` was being handled.

    Args:
        error: The error.
        outer: The exception being handled before; it and its context do not count.
    """
    context = error.__context__
    while context is not None and context is not outer:
        if isinstance(context, asyncio.CancelledError):
            return True
        context = context.__context__
    return False


async def sleep(clock: Any, delay: int) -> int:
    """Wait for `delay` nanoseconds, or move a clock that skips waits; return the time waited."""
    start = clock.now()
    end = start + delay
    if clock.skipping:
        clock.move_to(end)
        await asyncio.sleep(0)
    await loop_time.sleep_until(clock, end)
    return int(clock.now() - start)
