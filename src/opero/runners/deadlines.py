"""Awaits under a deadline, of a call or of one attempt, in the caller's task (`core.deadline`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import CoroutineType, coroutine
from typing import Any

from opero.core.outcomes import too_late
from opero.exceptions import AttemptTimeout, with_article
from opero.tracebacks import without_top

from .loops import NoTaskError, running_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.deadline import Deadline, TimeLimit


@coroutine
def over(deadline: Deadline, awaitable: Awaitable[Any]) -> Generator[Any, Any, Any]:
    """Await something under a deadline, which joins its queue when the awaitable suspends.

    Returns:
        What the awaitable returns.
    """
    inner: Any = awaitable if type(awaitable) is CoroutineType else _coroutine(awaitable)
    interrupt: BaseException | None = None
    try:
        suspended = inner.send(None)
        if deadline.queue is None:
            deadline.join()
        while True:
            try:
                answer = yield suspended
            except GeneratorExit:
                inner.close()
                raise
            except BaseException as thrown:  # noqa: BLE001 - the coroutine's to handle
                _leave_out_top(thrown)
                interrupt = thrown
            else:
                if answer is None:  # as always from asyncio
                    return (yield from inner)
                suspended = inner.send(answer)
                continue
            suspended = inner.throw(interrupt)
            interrupt = None
    except StopIteration as end:
        return end.value
    finally:
        del deadline, interrupt  # the raised error refers to this frame; avoid a cycle


def _leave_out_top(thrown: BaseException) -> None:
    """Remove the first frame of a traceback: `over`, where nothing has gone wrong.

    This is a function so that no running frame refers to the traceback, which refers to the frame.
    """
    traceback = thrown.__traceback__
    BaseException.with_traceback(thrown, traceback and traceback.tb_next)


async def _coroutine(awaitable: Awaitable[Any]) -> Any:
    """Await an awaitable that is not a coroutine."""
    return await awaitable


async def judge(call: Any, deadline: Deadline, cancelled: asyncio.CancelledError) -> None:
    """Raise `DeadlineExceeded` if only its deadline has cancelled the call.

    If somebody else has cancelled the task too, the cancellation goes on. An anyio scope cancels a
    task again and again, and recognizes its own cancellations: it gets the chance to do so once
    more.

    Raises:
        DeadlineExceeded: If the call was cancelled because of its deadline alone.
        CancelledError: If the task is cancelled again meanwhile.
    """
    deadline.leave()
    if deadline.stopping:
        await asyncio.sleep(0)
        if deadline.task.cancelling() <= deadline.cancelling:
            raise exceeded(call, deadline.attempts, cancelled)


def exceeded(call: Any, attempts: Any, cancelled: BaseException) -> BaseException:
    """Make the exception of a call whose deadline has passed.

    Args:
        call: The decorated function.
        attempts: The state of its attempts; None if none has failed.
        cancelled: What the running attempt has raised.
    """
    what = "an attempt was still running then"
    late = too_late(call, attempts, what)
    if late.__cause__ is None:
        late.__cause__ = cancelled
    return late


def limited(
    func: Callable[..., Awaitable[Any]], name: str, limit: TimeLimit, new: type[Deadline]
) -> Callable[..., Awaitable[Any]]:
    """Return a function that makes one attempt, and cancels it if it takes too long.

    The outcome of a cancelled attempt does not count, value or error: it has failed with
    `AttemptTimeout`. A cancellation by somebody else takes precedence, and so does an exception
    that ends a program.

    Args:
        func: The coroutine function.
        name: Its name, for messages.
        limit: How long an attempt may take.
        new: The class of deadlines of the active half.
    """

    async def attempt(*args: Any, **kwargs: Any) -> Any:
        error: BaseException | None = None
        value: Any = None
        deadline: Any = new()
        try:
            deadline.begin(limit, task_of(name, "attempt_timeout"))
            try:
                value = await over(deadline, func(*args, **kwargs))
                if not deadline.stopping:
                    return value
            except GeneratorExit:
                raise
            except BaseException as caught:
                if not deadline.stopping:
                    raise
                error = without_top(caught)
            finally:
                if deadline.queue is not None:
                    deadline.leave()
            await asyncio.sleep(0)  # as in `judge`
            if deadline.task.cancelling() <= deadline.cancelling and may_be_late(error):
                raise late_attempt(name, limit) from error
            if error is not None:
                raise error
            return value
        finally:
            deadline = error = value = None  # a traceback that holds this frame makes no cycle

    return attempt


def late_attempt(name: str, limit: TimeLimit) -> AttemptTimeout:
    """Make the exception of an attempt that took too long."""
    return AttemptTimeout(f"{name}: the attempt took longer than {limit.length / 1e9:g} s")


def may_be_late(error: BaseException | None) -> bool:
    """Return whether `AttemptTimeout` replaces what a cancelled attempt has raised."""
    return error is None or isinstance(error, (Exception, asyncio.CancelledError))


def task_of(name: str, option: str) -> asyncio.Task[Any]:
    """Return the current task, which a deadline may cancel.

    Args:
        name: The name of the function.
        option: The option that asks for the deadline.

    Raises:
        NoTaskError: If there is no current task.
    """
    task = None
    try:
        task = asyncio.current_task()
    except RuntimeError as caught:
        raise no_task(name, option, caught) from caught
    if task is None:
        raise no_task(name, option)
    return task


def no_task(name: str, option: str, error: RuntimeError | None = None) -> BaseException:
    """Make the exception of a call outside any asyncio task: its deadline could cancel none.

    Args:
        name: The name of the function.
        option: The option that asks for the deadline.
        error: What asyncio has raised, if no loop is running here.

    Raises:
        NoTaskError: If no loop is running.
    """
    if error is not None:
        running_loop(error)
    return NoTaskError(
        f"{name} has {with_article(option)}=, which cancels the task that awaits it, but no task "
        f"does: run it with asyncio.run() or asyncio.create_task()"
    )
