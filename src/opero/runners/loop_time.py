"""Waiting in an event loop whose time may not be the machine's.

Some tests skip waits: the loop's timer fires immediately, although opero's clock has not moved.
Then opero's clock is moved too, as `opero.testing` does. Other tests stop the loop's own time, as
freezegun does. Then the loop's timers never fire, and a thread keeps the time instead.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from contextvars import Context
from typing import Any

from opero import real_time

_EARLY = 2_000_000
"""How many nanoseconds early a timer may fire before opero doubts the loop's time."""


def call_later(
    loop: asyncio.AbstractEventLoop,
    seconds: float,
    callback: Callable[[], object],
    context: Context | None = None,
) -> Any:
    """Call a function in a loop after some seconds; return a handle with `cancel`.

    Args:
        loop: The loop.
        seconds: The delay.
        callback: The function to call.
        context: The context to call it in; None for a copy of the current one.
    """
    if not _is_stopped():
        return loop.call_at(loop.time() + seconds, callback, context=context)
    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), _hand_over, (loop, callback))
    timer.daemon = True
    timer.start()
    return timer


def _is_stopped() -> bool:
    """Return whether the machine's clock has been replaced with another one."""
    return type(time.monotonic) is not type(real_time.monotonic)


def _hand_over(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop has been closed
        loop.call_soon_threadsafe(callback)


def catch_up(clock: Any, until: int, left: int) -> None:
    """Move a clock forward if a timer shows that the loop has skipped a wait.

    Args:
        clock: The clock.
        until: The time on the clock at which the timer was due, in nanoseconds.
        left: How many nanoseconds were left when the timer was set.
    """
    if not clock.frozen and until - clock.now() > max(_EARLY, left // 2):
        clock.move_to(until)


async def sleep_until(clock: Any, until: int) -> None:
    """Sleep until a clock reaches a time, in nanoseconds."""
    while (left := until - clock.now()) > 0:
        if _is_stopped():
            await wait((), left / 1e9)
        else:
            await asyncio.sleep(left / 1e9)
        catch_up(clock, until, left)


async def wait(futures: Collection[asyncio.Future[Any]], seconds: float | None) -> bool:
    """Wait for any of some futures, or for some seconds; return whether one is done."""
    if seconds is None or not _is_stopped():
        done, _ = await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    loop = asyncio.get_running_loop()
    bell: asyncio.Future[None] = loop.create_future()

    def ring() -> None:
        if not bell.done():
            bell.set_result(None)

    timer = call_later(loop, seconds, ring)
    try:
        await asyncio.wait({*futures, bell}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
    return any(future.done() for future in futures)
