"""The slots of `TaskEngine`: their tasks, and what these are given to do."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any


class Work:
    """What a slot is to do.

    Attributes:
        job: What to report it as.
        function: What to call with each item; shared arguments are in it.
        items: The items and their places.
        results: What came of them; `NOTHING` where that is not known or one failed.
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
    """A place for one attempt at a time.

    Attributes:
        number: Which.
        task: Makes the attempts; None before the first job, and after it was cancelled.
        work: What it is to do; None if it is idle.
        gate: What the idle task awaits.
        due: When the attempt under way has taken too long, in nanoseconds; 0 if none can.
        overdue: Whether it has been cancelled because it took too long.
        given_up: Whether nobody waits for it any more.
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
    """Make an attempt; whatever it awaits, this is a coroutine."""
    return await function(value)


def may_be_ctrl_c() -> bool:
    """Return whether a signal raises `KeyboardInterrupt` in the midst of this thread's code.

    `asyncio.run` (since Python 3.11) and the plain form of a map see to it that it does not.
    """
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
