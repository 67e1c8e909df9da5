"""The slots of `TaskEngine`: their tasks, and the work of these."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any


class Work:
    """The work of a slot.

    Attributes:
        job: The job to report.
        function: What to call with each item; it includes the shared arguments.
        items: The items and their places.
        results: What they returned; `NOTHING` where that is unknown or one failed.
        failures: The places of those that failed, and what was raised.
        place: The place of the attempt under way, or of the next one.
        begun: When the first attempt began, in nanoseconds; 0 before that.
    """

    __slots__ = ("begun", "failures", "function", "items", "job", "place", "results")

    def __init__(
        self,
        job: Any,
        function: Callable[[Any], Any],
        items: Iterable[tuple[int, Any]],
        results: list[Any],
        failures: list[tuple[int, BaseException]],
    ) -> None:
        self.job: Any = job
        self.function: Callable[[Any], Any] = function
        self.items: Iterable[tuple[int, Any]] = items
        self.results: list[Any] = results
        self.failures: list[tuple[int, BaseException]] = failures
        self.place: int = 0
        self.begun: int = 0


class TaskSlot:
    """A slot runs one attempt at a time.

    Attributes:
        number: Its number.
        task: The task that makes the attempts; None before the first job, and once cancelled.
        work: Its work; None if it is idle.
        gate: What the idle task awaits.
        due: When the attempt under way will have taken too long, in nanoseconds; 0 for never.
        overdue: Whether that attempt was cancelled because it took too long.
        given_up: Whether the engine no longer waits for it.
    """

    __slots__ = ("due", "gate", "given_up", "number", "overdue", "task", "work")

    def __init__(self, number: int) -> None:
        self.number: int = number
        self.task: Any = None
        self.work: Work | None = None
        self.gate: asyncio.Future[None] | None = None
        self.due: int = 0
        self.overdue: bool = False
        self.given_up: bool = False


async def call(function: Callable[[Any], Any], value: Any) -> Any:
    """Make an attempt; this is a coroutine whatever the function returns to await."""
    return await function(value)


def may_be_ctrl_c() -> bool:
    """Return whether a signal may raise `KeyboardInterrupt` in the middle of this thread's code.

    `asyncio.run` (since Python 3.11) and the plain form of a map prevent that.
    """
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
