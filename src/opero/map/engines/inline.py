"""While opero is switched off, a map calls its function in its own caller's thread or task.

It calls it for one item after the other, as a loop without opero would. An error that is not an
`Exception` is not the outcome of an item: it ends the map.
"""

from __future__ import annotations

import asyncio
from queue import Empty, SimpleQueue
from typing import Any

from opero.map.invocation import of_invocations, of_items
from opero.map.jobs import Job
from opero.map.output import NOTHING
from opero.tracebacks import without_top

from .base import Crash, Report


class _Inline:
    """What both engines share: one slot, and its job.

    Attributes:
        slots: How many jobs run at once.
    """

    slots = 1

    def __init__(self, function: Any, shared: dict[str, Any]) -> None:
        """Take the function.

        Args:
            function: What to call with each item.
            shared: Keyword arguments of every call.
        """
        self._function = of_items(function, shared)
        self._invoke = of_invocations(function, shared)
        self._job: tuple[int, Job] | None = None

    def start(self, slot: int, job: Job) -> None:
        """Take a job; the next `wait` runs it."""
        self._job = slot, job

    def _caller(self, job: Job) -> Any:
        return self._invoke if job.invoked else self._function


class InlineEngine(_Inline):
    """Call an ordinary function in the thread that drives the map."""

    def __init__(self, function: Any, shared: dict[str, Any]) -> None:
        """Take the function; see `_Inline`."""
        super().__init__(function, shared)
        self._bell: SimpleQueue[None] = SimpleQueue()

    def wait(self, timeout: float | None) -> list[Report | Crash]:
        """Do the job that there is, or wait until `wake` is called."""
        given, self._job = self._job, None
        if given is None:
            try:
                self._bell.get(timeout=timeout)
            except Empty:
                pass
            return []
        slot, job = given
        results: list[Any] = []
        failures: list[tuple[int, BaseException]] = []
        for place, value in enumerate(job.values):
            try:
                results.append(self._caller(job)(value))
            except Exception as error:  # noqa: BLE001 - it is the outcome of this item
                failures.append((place, without_top(error)))
                results.append(NOTHING)
        return [Report(slot, job, results, failures, 0)]

    def wake(self) -> None:
        """Make `wait` return early; any thread may call this."""
        self._bell.put(None)

    def close(self, abandon: bool) -> None:
        """Nothing is left."""


class InlineAsyncEngine(_Inline):
    """Call a function of either kind in the task that drives the map."""

    def __init__(self, function: Any, shared: dict[str, Any], awaited: bool) -> None:
        """Take the function.

        Args:
            function: What to call with each item.
            shared: Keyword arguments of every call.
            awaited: Whether to await what it returns.
        """
        super().__init__(function, shared)
        self._awaited = awaited
        self._bell = asyncio.Event()

    async def wait(self, timeout: float | None) -> list[Report | Crash]:  # noqa: ARG002 - no retries
        """Do the job that there is, or wait until `wake` is called."""
        given, self._job = self._job, None
        if given is None:
            await self._bell.wait()
            self._bell.clear()
            return []
        slot, job = given
        results: list[Any] = []
        failures: list[tuple[int, BaseException]] = []
        for place, value in enumerate(job.values):
            try:
                result = self._caller(job)(value)
                results.append(await result if self._awaited else result)
            except Exception as error:  # noqa: BLE001 - it is the outcome of this item
                failures.append((place, without_top(error)))
                results.append(NOTHING)
        return [Report(slot, job, results, failures, 0)]

    def wake(self) -> None:
        """Make the current `wait`, or the next, return early."""
        self._bell.set()

    async def close(self, abandon: bool) -> None:
        """Nothing is left."""
