"""A task that reads a map's items from an asynchronous iterator, for a map in a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from opero.real_time import monotonic

from .reader import Intake

_TURN = 0.002
"""Seconds for which an iterator that never waits may keep the loop to itself."""


class TaskReader(Intake):
    """Read an asynchronous iterator; only one task ever touches it."""

    held_up: bool

    def __init__(self, items: Any) -> None:
        """Take the input; `begin` starts reading.

        Args:
            items: The input.
        """
        super().__init__(items)
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def begin(self, wake: Any) -> None:
        """Begin to read."""
        self._wake = wake
        loop = asyncio.get_running_loop()
        # bypass task factories and eager tasks: they would run the iterator right here
        self._task = asyncio.Task(self._work(), loop=loop, name="opero-map-input")

    def allow(self, items: int, weight: int) -> None:
        """Set how many items, and bytes of items, may be read in all."""
        self._most, self._most_weight = items, weight
        if self._waiter is not None and self.has_much_room() and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> Collection[Any]:
        """Stop reading; the task closes the input if it can be closed."""
        self._stop()
        if self._task is None:
            return ()
        self._task.cancel()
        return (self._task,)

    async def _work(self) -> None:
        fault: BaseException | None = None
        source, self._source = self._source, None
        try:
            try:
                source = aiter(source)
                await self._read_all(source)
            except (asyncio.CancelledError, GeneratorExit):
                if not self.stopped:  # something other than `close` cancelled the task
                    fault = asyncio.CancelledError()
                raise
            except BaseException as error:  # noqa: BLE001 - raised where the results are
                fault = error
            finally:
                if hasattr(source, "aclose"):
                    await source.aclose()
        finally:
            source = None
            self._end(None if self.stopped else fault)
            fault = None

    async def _read_all(self, source: Any) -> None:
        until = monotonic() + _TURN
        if not self.has_room():
            await self._room()
        async for item in source:
            if not self.put(item):
                await self._room()
                until = monotonic() + _TURN
            elif monotonic() > until:
                await asyncio.sleep(0)
                until = monotonic() + _TURN
            item = None  # noqa: PLW2901 - the next one may take a long time to come

    async def _room(self) -> None:
        while not self.has_room():
            self.held_up = self._read < self._most
            if self.held_up and self.hungry:
                self._wake()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
                self.held_up = False
