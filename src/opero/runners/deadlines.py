"""Awaits under the deadline of a call that runs in its caller's own task (see `core.deadline`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from types import CoroutineType, coroutine
from typing import Any

from opero.core.outcomes import too_late
from opero.exceptions import OperoError

from .loops import running_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.deadline import Deadline


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


async def judge(deadline: Deadline, cancelled: asyncio.CancelledError) -> None:
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
            raise _exceeded(deadline, cancelled)


def _exceeded(deadline: Deadline, cancelled: asyncio.CancelledError) -> BaseException:
    """Make what a call raises whose deadline has passed."""
    what = "an attempt was still running then"
    late = too_late(deadline.call, deadline.attempts, what)
    if late.__cause__ is None:
        late.__cause__ = cancelled
    return late


def no_task(name: str, error: RuntimeError | None = None) -> BaseException:
    """Make what a call raises that no task of asyncio runs: its deadline could cancel none.

    Args:
        name: The name of the function.
        error: What asyncio has raised, if it has no loop here.

    Raises:
        OperoError: If there is none.
    """
    if error is not None:
        running_loop(error)
    return OperoError(
        f"{name} has a timeout=, which cancels the task that awaits it, and no task does: run it "
        f"by asyncio.run(), or asyncio.create_task()"
    )
