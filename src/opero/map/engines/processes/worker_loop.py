"""How a worker process of mode `async_process` runs several coroutines at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

from opero import hotpath
from opero.core.clock import NEVER
from opero.map.engines.base import Crash
from opero.map.engines.task_slots import Work
from opero.map.engines.tasks import TaskEngine
from opero.map.event_loops import close_loop, new_loop
from opero.map.output import NOTHING
from opero.real_time import monotonic_ns

_own: tuple[int, asyncio.AbstractEventLoop, str] | None = None
"""The loop of this worker process, the name it was requested by, and the process that made it: a
forked child makes its own loop."""


def run_coroutines(
    function: Any,
    shared: dict[str, Any],
    values: list[Any],
    invoked: bool,
    concurrency: int,
    note: Callable[[int], Any] | None,
    attempt_timeout: float | None,
    loop: str = "auto",
    patience: int = 0,
) -> tuple[list[Any], list[tuple[int, BaseException]]]:
    """Make the attempts of a job in this process, several at once.

    The next job uses the same loop, unless it asks for another kind.

    Args:
        function: The coroutine function.
        shared: Keyword arguments of every call.
        values: The items.
        invoked: Whether they are invocations.
        concurrency: How many attempts may be under way at once.
        note: Called with the place of each attempt before it begins.
        attempt_timeout: Seconds that an attempt may take.
        loop: The kind of loop: "auto", "uvloop" or "asyncio".
        patience: Nanoseconds after which no attempt begins once one has failed; 0 for never.

    Returns:
        What the attempts made so far returned, `NOTHING` where one failed, and the failures by
        place.
    """
    from multiprocessing.util import Finalize

    global _own  # noqa: PLW0603 - there is one per process
    if _own is not None and _own[2] != loop:
        close_worker_loop()
    if _own is None or _own[0] != os.getpid() or _own[1].is_closed():
        _own = os.getpid(), new_loop(loop), loop
        Finalize(None, close_worker_loop, exitpriority=10)
    clock = hotpath.core.clock
    slots = min(concurrency, len(values))
    engine = TaskEngine(function, shared, slots, attempt_timeout, clock)
    main = _own[1].create_task(_spread(engine, values, invoked, note, patience))
    try:
        return _own[1].run_until_complete(main)
    except BaseException:
        close_worker_loop()
        raise


def close_worker_loop() -> None:
    """Close the loop of this worker process, if it has one."""
    global _own
    own, _own = _own, None
    if own is not None and own[0] == os.getpid() and not own[1].is_closed():
        close_loop(own[1])


class Source:
    """The items of a job.

    Attributes:
        begun: How many attempts have begun.
    """

    def __init__(self, values: list[Any], patience: int) -> None:
        """Take the items.

        Args:
            values: The items.
            patience: Nanoseconds after which no item is handed out once one failed; 0 for never.
        """
        self.begun: int = 0
        self._values = values
        self._end = monotonic_ns() + patience if patience else 0
        self._ended = False

    def take(self, failed: bool) -> tuple[int, Any]:
        """Return the next item and its place.

        Args:
            failed: Whether an attempt has failed in the slot that asks.

        Raises:
            StopIteration: If there is none.
        """
        if failed and self._end and monotonic_ns() >= self._end:
            self._ended = True
        place = self.begun
        if self._ended or place == len(self._values):
            raise StopIteration
        self.begun += 1
        return place, self._values[place]


class Feed:
    """The items that one slot takes from the source that all slots share.

    Attributes:
        deadline: None here: each attempt has its own time limit.
        patience: None here: the source has it.
        failures: The failures in the slot.
    """

    deadline = NEVER
    patience = 0

    def __init__(self, source: Source, note: Any) -> None:
        self.failures: list[tuple[int, BaseException]] = []
        self._source = source
        self._note = note

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return self

    def __next__(self) -> tuple[int, Any]:
        place, value = self._source.take(bool(self.failures))
        if self._note is not None:
            self._note(place)
        return place, value


async def _spread(
    engine: TaskEngine, values: list[Any], invoked: bool, note: Any, patience: int
) -> tuple[list[Any], list[tuple[int, BaseException]]]:
    """Let all slots of an engine take items until there are no more, or a failure ends it."""
    results = [NOTHING] * len(values)
    failures: list[tuple[int, BaseException]] = []
    function = engine.caller(invoked)
    source = Source(values, patience)

    def begin(slot: int) -> None:
        feed = Feed(source, note)
        engine.begin(slot, Work(feed, function, feed, results, feed.failures))

    try:
        running = engine.slots
        for slot in range(running):
            begin(slot)
        while running:
            for event in await engine.wait(None):
                failures += event.failures
                if isinstance(event, Crash):  # the slot's task is gone, but not the other items
                    if event.at is not None:
                        failures.append((event.at, event.error))
                    begin(event.slot)
                else:
                    running -= 1
    finally:
        await engine.close(abandon=True)
    return results[: source.begun], sorted(failures, key=lambda failure: failure[0])
