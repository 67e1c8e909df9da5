"""Finds the event loop that a coroutine of opero can wait by."""

from __future__ import annotations

import asyncio
import sys

from opero.exceptions import OperoError


def running_loop(cause: BaseException | None = None) -> asyncio.AbstractEventLoop:
    """Return the event loop that runs this coroutine.

    Args:
        cause: What has failed, if it is for that reason that a loop is needed.

    Raises:
        OperoError: If it is not one of asyncio's.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        other = "trio runs this coroutine" if trio is not None else "no loop of it runs here"
        raise OperoError(
            f"opero waits by asyncio, and {other}: run it by asyncio.run(), or by anyio with its "
            f"asyncio backend"
        ) from cause
