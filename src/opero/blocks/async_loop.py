"""The loop over the attempts of a block in a coroutine: it awaits, and can cancel a block.

Deadlines cancel what the block awaits as they cancel what a function awaits (see
`opero.runners.deadlines`). The end of a `with` awaits nothing. So an anyio scope that ends at the
same moment takes precedence only if it has already cancelled the task, as with `asyncio.timeout`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from opero import hotpath
from opero.runners import aio, loop_time
from opero.runners.deadlines import exceeded, late_attempt, may_be_late, task_of
from opero.runners.effects import ATTEMPT, SLEEP, WAIT
from opero.runners.loops import running_loop
from opero.tracebacks import shorten

from .loop import Attempt, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.deadline import TimeLimit

    Limits = tuple[TimeLimit | None, TimeLimit | None]


def limits_of(timeout: int, attempt_timeout: int) -> Limits:
    """Return the time limits of a whole loop and of each of its attempts; None for no limit.

    Args:
        timeout: Nanoseconds for the loop; 0 for no limit.
        attempt_timeout: Nanoseconds for an attempt; 0 for no limit.
    """
    core = hotpath.core
    whole, each = [
        core.TimeLimit(length, core.clock, loop_time) if length else None
        for length in (timeout, attempt_timeout)
    ]
    return whole, each


class AsyncLoop(Loop):
    """The attempts of one `async for` loop.

    Attributes:
        whole: The time limit of the loop; None for no limit.
        each: The time limit of each attempt; None for no limit.
        cuts: The deadlines of the current attempt.
        handled: The exception being handled when the attempt's block began.
    """

    __slots__ = ("cuts", "each", "handled", "whole")

    def __init__(self, call: Any, limits: Limits) -> None:
        super().__init__(call)
        self.whole: TimeLimit | None = limits[0]
        self.each: TimeLimit | None = limits[1]
        self.cuts: list[Any] = []
        self.handled: BaseException | None = None

    def __aiter__(self) -> AsyncLoop:
        return self

    async def __anext__(self) -> Attempt:
        call, retrying = self.call, self.retrying
        if self.is_over():
            raise StopAsyncIteration
        try:
            self.task()
            while True:
                todo = retrying.next()
                if todo == ATTEMPT:
                    return self.hand_out()
                if todo == SLEEP:
                    running_loop(retrying.attempts.errors[-1])
                    retrying.slept(await aio.sleep(call.clock, retrying.delay))
                elif todo == WAIT:
                    try:
                        waited = await aio.drive(retrying.queue().steps(retrying.deadline, 1))
                    except BaseException:
                        retrying.abandoned()
                        raise
                    retrying.waited(waited)
                else:
                    raise retrying.error
        except BaseException as failure:
            self.end()
            shorten(failure)
            raise
        finally:
            retrying = None

    def task(self) -> asyncio.Task[Any] | None:
        """Return the task that deadlines would cancel; None without deadlines.

        Raises:
            OperoError: If no asyncio task runs the loop.
        """
        if self.each is not None:
            return task_of(self.call.name, "attempt_timeout")
        if self.whole is not None:
            return task_of(self.call.name, "timeout")
        return None

    def enter(self) -> None:
        """Begin the deadlines of a block."""
        task = self.task()
        self.handled = sys.exc_info()[1]
        for limit in (self.each, self.whole):
            if limit is not None:
                cut = hotpath.core.Deadline()
                cut.begin(limit, task)
                if limit is self.whole:
                    cut.move_to(self.retrying.deadline)
                cut.join()
                self.cuts.append(cut)

    def leave(self, error: BaseException | None) -> None:
        """Note how a block has ended, and why."""
        cuts, self.cuts = self.cuts, []
        handled, self.handled = self.handled, None
        late = [cut.limit for cut in cuts if cut.stopping]
        raised: BaseException | None = None
        try:
            for cut in cuts:
                cut.leave()
            if late and cuts[0].task.cancelling() > cuts[0].cancelling:
                late = []  # somebody else has cancelled the task too, and takes precedence
            if isinstance(error, GeneratorExit):
                self.retrying.abandoned()
            elif late and self.whole in late:
                self.end_late(error)
            elif late and self.each is not None and may_be_late(error):
                raised = late_attempt(self.call.name, self.each)
                raised.__cause__ = error
                self.judge(raised)
            elif error is None:
                self.retrying.returned(None)
            elif aio.is_asked_to_end() and aio.comes_of_cancellation(error, handled):
                self.retrying.abandoned()
            else:
                self.judge(error)
        finally:
            error = handled = raised = None  # their frames hold this one

    def end_late(self, error: BaseException | None) -> None:
        """Note how a block has ended that was cancelled at the deadline of the whole loop."""
        if error is None:  # it has handled the cancellation and succeeded
            self.retrying.returned(None)
            return
        if not isinstance(error, asyncio.CancelledError):
            self.retrying.abandoned()
            return
        self.retrying.failed(error)
        self.retrying.fail(exceeded(self.call, self.retrying.attempts, error))
        self.retrying.next()
