"""What tests of time limits in tasks have in common: awaits that never end, and what a cut leaves.

A task and its loop are as before after each call or loop: no request to cancel the task is left,
and no timer of opero's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from crowd import standing_clock
from timeout_plans import VirtualLoop, balance

from opero import hotpath

SHORT = 0.02
"""Seconds of a time limit that passes."""

LONG = 60
"""Seconds of one that does not."""


async def forever() -> None:
    """Wait for what never comes."""
    await asyncio.get_running_loop().create_future()


def blocked(seconds: float = SHORT + 0.005) -> None:
    """Keep the loop busy, so that all that is due by then is due at one moment."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        pass


def timers() -> list[Any]:
    """Return the timers of the running loop that will cut something."""
    loop: Any = asyncio.get_running_loop()
    kind = hotpath.core.DeadlineQueue
    return [
        timer
        for timer in loop._scheduled
        if isinstance(getattr(timer._callback, "__self__", None), kind)
    ]


@contextmanager
def left_as_found() -> Iterator[None]:
    """Check that a call leaves its task and its loop as it has found them."""
    before = balance(), timers()
    yield
    assert (balance(), timers()) == before


def in_virtual_time(core: hotpath.Core, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine in a loop whose seconds pass only when all wait."""
    with standing_clock(core.clock):
        loop = VirtualLoop(core.clock)
        try:
            return loop.run_until_complete(main())
        finally:
            loop.close()
