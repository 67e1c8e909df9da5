"""Runs coroutine functions: it awaits in the caller's task.

A call that is not cached runs in the caller's own task, under a deadline too (see `deadlines`). One
that is cached runs in a task of its own, for which its callers wait (see `task_flight`).

What the user awaits is one of `ready`, `guard`, `gated` and `run_until`. In their first step they
do what comes before the first attempt; all that follows a failure they leave to `run`.
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
    """Return the first item of an asynchronous generator that the event loop is not to know.

    When a loop ends, it closes all generators that it knows, at the same time. It knows the one
    that the caller has (see `async_streams`), and that closes this one.

    Raises:
        StopAsyncIteration: If the generator ends without one.
    """
    first, final = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=None)
    try:
        item = generator.__anext__()
    finally:
        sys.set_asyncgen_hooks(first, final)
    return await item


async def ready(value: Any) -> Any:
    """Return a value that is known already."""
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
    """Do what `guard` does for a call with one argument, by position: the commonest and fastest."""
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
    """Do what `guard` does for a call whose first attempt has gates to pass before it."""
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
    """Do what `gated` does for a call with one argument, by position."""
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
    """Do what `gated` does for a call behind a breaker, which is quick while that is closed."""
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
    """Do what `watched` does for a call with one argument, by position."""
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
    """Do what `gated` does for a call under a deadline that is not cached."""
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
    """Do what `run_until` does for a call with one argument, by position."""
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
        flight: Tells the deadline and gets to know the attempts; None without a deadline, if
            nobody waits elsewhere either.
        error: What the first attempt raised, if it has been made.
        passed: How many gates have let the first attempt in, if it has not.
        spare: Whether a value stands ready that is served if the call fails: then it fails at once
            where a gate refuses it.
        func: What an attempt calls in place of the function (see `streams.Opening`).
        tickets: What the gates gave the first attempt, if it has been made and one wants to know
            how it ends.

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
    """Do in this task what a generator of effects says.

    Returns:
        What it returns.

    Raises:
        BaseException: What it wants raised, or a wait was cancelled with.
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
    """What wakes a waiting task (see `effects.Bell`)."""

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
    """Return whether the function was cancelled and made another error of that.

    It was if its task has been asked to end and the error arose while a `CancelledError` was being
    handled; one that the caller of the decorated function is handling does not count.
    """
    if (flight is None or not flight.stopping) and not is_asked_to_end():
        return False
    if comes_of_cancellation(error, sys.exc_info()[1]):
        return True
    return flight is not None and flight.stopping


def _end_by(error: BaseException) -> BaseException:
    """Return what a run ends with that was to end: one whose attempt was cut then was cancelled."""
    return asyncio.CancelledError() if type(error) is AttemptTimeout else error


def is_asked_to_end() -> bool:
    """Return whether somebody has asked for the end of the current task."""
    try:
        task = current_task()
    except RuntimeError:  # another framework's loop
        return False
    return task is not None and task.cancelling() > 0


def comes_of_cancellation(error: BaseException, outer: BaseException | None) -> bool:
    """Return whether an error arose while a `CancelledError` was being handled.

    Args:
        error: The error.
        outer: What was being handled before; neither that nor what it comes of counts.
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
