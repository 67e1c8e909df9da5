"""Deadlines of calls that run in their caller's own task: what cuts them, and what comes of it.

    Deadline        of one call; it joins the queue when what the call awaits suspends
    DeadlineQueue   those of one function in one loop, in order, with one timer for the first

A call that never suspends cannot be cut, and pays for no timer. One that does is cancelled when its
deadline passes, as by `asyncio.timeout`: the request is taken back when the call ends, and only if
nobody else has asked the task to end is `DeadlineExceeded` raised in its place.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Generator
from contextvars import Context
from threading import get_ident
from types import CoroutineType, coroutine
from typing import Any
from weakref import ref

from opero.core.outcomes import too_late
from opero.exceptions import OperoError

from . import loop_time
from .loops import running_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.call import AsyncCall


class Deadline:
    """The deadline of one call.

    Attributes:
        call: The decorated function.
        task: The task that the call runs in.
        deadline: When the call must be over, in nanoseconds.
        cancelling: How many requests to cancel the task were there before the call.
        attempts: The state of its attempts, once one has failed.
        stopping: Whether the deadline has passed, and the task was cancelled for that.
        queue: Where it waits to pass; None before the call suspends.
    """

    __slots__ = ("attempts", "call", "cancelling", "deadline", "queue", "stopping", "task")

    def __init__(self, call: AsyncCall) -> None:
        """Begin a call.

        Raises:
            OperoError: If no task of asyncio runs it, that could be cancelled.
        """
        try:
            task = asyncio.current_task()
        except RuntimeError as error:
            running_loop(error)
            raise
        if task is None:
            raise OperoError(
                f"{call.name} has a timeout=, which cancels the task that awaits it, and no task "
                f"does: run it by asyncio.run(), or asyncio.create_task()"
            )
        self.call: AsyncCall = call
        self.task: asyncio.Task[Any] = task
        self.deadline: int = call.due()
        self.cancelling: int = task.cancelling()
        self.attempts: Any = None
        self.stopping: bool = False
        self.queue: DeadlineQueue | None = None

    def join(self, inner: Any) -> None:
        """Join the function's queue in this loop.

        Args:
            inner: What has suspended; it is closed if that fails.
        """
        call = self.call
        loop = self.task.get_loop()
        queue = None if call.deadlines is None else call.deadlines()
        # a call that awaits itself may suspend after the inner one: then it comes out of order
        if queue is None or queue.loop is not loop or self.deadline < queue.latest:
            queue = DeadlineQueue(loop, call.clock)
            call.deadlines = ref(queue)
        try:
            queue.add(self)
        except BaseException:
            inner.close()
            raise
        self.queue = queue

    def cut(self) -> None:
        """Cut the call: its deadline has passed."""
        self.stopping = True
        self.task.cancel()

    def leave(self) -> None:
        """End the call: leave the queue, and take the request to cancel the task back."""
        queue, self.queue = self.queue, None
        if queue is not None:
            queue.remove(self)
            if self.stopping:
                self.task.uncancel()

    async def judge(self, cancelled: asyncio.CancelledError) -> None:
        """Raise what comes of a call that was cancelled, unless that is the cancellation itself.

        Scopes of anyio cancel a task again and again, and know their own cancellations. They get
        the chance to do so once more: whoever else wants the task to end goes before the deadline.

        Raises:
            DeadlineExceeded: If it was the deadline alone.
            CancelledError: If the task is cancelled again meanwhile.
        """
        self.leave()
        if self.stopping:
            await asyncio.sleep(0)
            if self.task.cancelling() <= self.cancelling:
                raise self._exceeded(cancelled)

    def _exceeded(self, cancelled: asyncio.CancelledError) -> BaseException:
        """Make what a call raises whose deadline has passed."""
        late = too_late(self.call, self.attempts, "an attempt was still running then")
        if late.__cause__ is None:
            late.__cause__ = cancelled
        return late


@coroutine
def over(deadline: Deadline, awaitable: Awaitable[Any]) -> Generator[Any, Any, Any]:
    """Await something under a deadline, which joins the queue when that suspends.

    Returns:
        What it returns.
    """
    inner: Any = awaitable if type(awaitable) is CoroutineType else _coroutine(awaitable)
    interrupt: BaseException | None = None
    try:
        suspended = inner.send(None)
        if deadline.queue is None:
            deadline.join(inner)
        while True:
            try:
                yield suspended
            except GeneratorExit:
                inner.close()
                raise
            except BaseException as thrown:  # noqa: BLE001 - the coroutine's to handle
                traceback = thrown.__traceback__  # begins here, where nothing has gone wrong
                BaseException.with_traceback(thrown, traceback and traceback.tb_next)
                interrupt = thrown
            else:
                return (yield from inner)
            suspended = inner.throw(interrupt)
            interrupt = None
    except StopIteration as end:
        return end.value
    finally:
        del deadline, interrupt  # what is raised holds this frame, and must not be held by it


async def _coroutine(awaitable: Awaitable[Any]) -> Any:
    """Await what is no coroutine by itself."""
    return await awaitable


class DeadlineQueue:
    """The deadlines of one function in one loop, the next one first.

    All are as far away as the function's `timeout=`, so they pass in the order in which they come.

    Attributes:
        loop: The event loop.
        latest: The deadline that came last, in nanoseconds.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_due",
        "_left",
        "_thread",
        "_timer",
        "_waiting",
        "latest",
        "loop",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Any) -> None:
        """Make an empty queue.

        Args:
            loop: The event loop, which runs in this thread.
            clock: The clock of the deadlines.
        """
        self.loop: asyncio.AbstractEventLoop = loop
        self.latest: int = 0
        self._clock: Any = clock
        self._thread: int = get_ident()
        self._timer: Any = None
        self._due: int = 0
        self._left: int = 0
        # ordered by a list, not by a table: taking many out one by one at its front is cheap
        self._waiting: OrderedDict[Deadline, None] = OrderedDict()

    def add(self, deadline: Deadline) -> None:
        """Take a deadline in that is none before the latest."""
        if self._timer is None:
            self._arm(deadline.deadline)
        self._waiting[deadline] = None
        self.latest = deadline.deadline

    def remove(self, deadline: Deadline) -> None:
        """Leave a deadline out, wherever it is; without any there is no timer.

        A coroutine that nobody awaits any more may be closed in another thread, where the timers of
        the loop must be left alone.
        """
        self._waiting.pop(deadline, None)
        if not self._waiting and self._timer is not None and self._thread == get_ident():
            timer, self._timer = self._timer, None
            timer.cancel()

    def _arm(self, due: int) -> None:
        """Set the timer."""
        self._due = due
        self._left = max(0, due - self._clock.now())
        self._timer = loop_time.call_later(
            self.loop, self._left / 1e9, self._ring, Context()
        )  # that of the caller would be kept alive

    def _ring(self) -> None:
        """Cut what is due, and set the timer for what is next."""
        self._timer = None
        if self._clock.skipping:
            self._clock.move_to(self._due)
        else:
            loop_time.catch_up(self._clock, self._due, self._left)
        try:
            while (first := next(iter(self._waiting), None)) is not None:
                if first.deadline > self._clock.now():
                    break
                self._waiting.pop(first, None)
                first.cut()
        finally:
            first = next(iter(self._waiting), None)
            if first is not None:
                self._arm(first.deadline)
