"""Awaits under a deadline, of a call or of one attempt, in its own task (see `core.deadline`)."""

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
    """Await something under a deadline, which joins its queue when that suspends.

    Returns:
        What it returns.
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
        del deadline, interrupt  # what is raised holds this frame, and must not be held by it


def _leave_out_top(thrown: BaseException) -> None:
    """Leave out of a traceback where it begins: `over`, where nothing has gone wrong.

    This is a function so that no frame that goes on holds the traceback, which holds the frame.
    """
    traceback = thrown.__traceback__
    BaseException.with_traceback(thrown, traceback and traceback.tb_next)


async def _coroutine(awaitable: Awaitable[Any]) -> Any:
    """Await what is no coroutine by itself."""
    return await awaitable


async def judge(call: Any, deadline: Deadline, cancelled: asyncio.CancelledError) -> None:
    """Raise what comes of a call that was cancelled, unless that is the cancellation itself.

    Only if nobody else has asked the task to end, that is `DeadlineExceeded`. Scopes of anyio
    cancel a task again and again, and know their own cancellations: they get the chance to do so
    once more.

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
    """Make what a call raises whose deadline has passed.

    Args:
        call: The decorated function.
        attempts: The account of its attempts; None if none has failed.
        cancelled: What the attempt has raised that was under way.
    """
    what = "an attempt was still running then"
    late = too_late(call, attempts, what)
    if late.__cause__ is None:
        late.__cause__ = cancelled
    return late


def limited(
    func: Callable[..., Awaitable[Any]], name: str, limit: TimeLimit, new: type[Deadline]
) -> Callable[..., Awaitable[Any]]:
    """Return a function that makes one attempt, and cancels it when it takes too long.

    What comes of a cancelled attempt does not count, be it a value or an error: it has failed with
    `AttemptTimeout`. A cancellation by others goes before it, and so does an exception that ends a
    program.

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
    """Make what an attempt has failed with that took too long."""
    return AttemptTimeout(f"{name}: the attempt took longer than {limit.length / 1e9:g} s")


def may_be_late(error: BaseException | None) -> bool:
    """Return whether what a cancelled attempt has raised is replaced by `AttemptTimeout`."""
    return error is None or isinstance(error, (Exception, asyncio.CancelledError))


def task_of(name: str, option: str) -> asyncio.Task[Any]:
    """Return the current task, which a deadline may cancel.

    Args:
        name: The name of the function.
        option: The option that asks for the deadline.

    Raises:
        NoTaskError: If there is none.
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
    """Make what a call raises that no task of asyncio runs: its deadline could cancel none.

    Args:
        name: The name of the function.
        option: The option that asks for the deadline.
        error: What asyncio has raised, if it has no loop here.

    Raises:
        NoTaskError: If there is none.
    """
    if error is not None:
        running_loop(error)
    return NoTaskError(
        f"{name} has {with_article(option)}=, which cancels the task that awaits it, and no task "
        f"does: run it by asyncio.run(), or asyncio.create_task()"
    )
