"""The event loop that a coroutine of opero runs in, and tasks that begin at once there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

from opero.exceptions import OperoError


class NoTaskError(OperoError):
    """There is no event loop or no task where one is needed; no attempt is made again for that."""


def running_loop(cause: BaseException | None = None) -> asyncio.AbstractEventLoop:
    """Return the event loop that runs this coroutine.

    Args:
        cause: What has failed, if it is for that reason that a loop is needed.

    Raises:
        NoTaskError: If it is not one of asyncio's.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        other = "trio runs this coroutine" if trio is not None else "no loop of it runs here"
        raise NoTaskError(
            f"opero waits by asyncio, and {other}: run it by asyncio.run(), or by anyio with its "
            f"asyncio backend"
        ) from cause


_CREATE_TASK = asyncio.BaseEventLoop.create_task
_HAS_EAGER_TASKS = sys.version_info >= (3, 12)


def begin_task(loop: Any, run: Coroutine[Any, Any, Any], at_once: bool) -> asyncio.Task[Any]:
    """Make a task.

    Args:
        loop: The running loop.
        run: What the task runs.
        at_once: Whether it is to begin in this very step. It does so from Python 3.12 on, and only
            where nothing but asyncio or uvloop makes the tasks of the loop.
    """
    try:
        if _HAS_EAGER_TASKS and at_once and _makes_plain_tasks(loop):
            task: Any = asyncio.Task
            return task(run, loop=loop, eager_start=True)  # type: ignore[no-any-return]
        return loop.create_task(run)  # type: ignore[no-any-return]
    except BaseException:
        run.close()
        raise


def _makes_plain_tasks(loop: Any) -> bool:
    """Return whether a loop makes tasks as asyncio does, with nobody else's doing."""
    create = type(loop).create_task
    if create is not _CREATE_TASK:
        uvloop = sys.modules.get("uvloop.loop")
        if uvloop is None or create is not uvloop.Loop.create_task:
            return False
    return loop.get_task_factory() is None and "create_task" not in loop.__dict__
