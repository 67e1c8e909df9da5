"""The event loop that runs a coroutine of opero, and tasks that begin immediately in it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

from opero.exceptions import OperoError


class NoTaskError(OperoError):
    """No event loop or no task where one is needed; such an attempt is not retried."""


def running_loop(cause: BaseException | None = None) -> asyncio.AbstractEventLoop:
    """Return the event loop that runs this coroutine.

    Args:
        cause: The failure that makes a loop necessary; None for none.

    Raises:
        NoTaskError: If no asyncio loop is running.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        other = "trio runs this coroutine" if trio is not None else "no asyncio loop is running"
        raise NoTaskError(
            f"opero waits with asyncio, but {other}: run it with asyncio.run(), or with anyio's "
            f"asyncio backend"
        ) from cause


_CREATE_TASK = asyncio.BaseEventLoop.create_task
_HAS_EAGER_TASKS = sys.version_info >= (3, 12)


def begin_task(loop: Any, run: Coroutine[Any, Any, Any], at_once: bool) -> asyncio.Task[Any]:
    """Make a task.

    Args:
        loop: The running loop.
        run: What the task runs.
        at_once: Whether it begins immediately, in this step. This takes Python 3.12 or later, and a
            loop whose tasks only asyncio or uvloop makes.
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
    """Return whether only asyncio or uvloop makes the tasks of a loop."""
    create = type(loop).create_task
    if create is not _CREATE_TASK:
        uvloop = sys.modules.get("uvloop.loop")
        if uvloop is None or create is not uvloop.Loop.create_task:
            return False
    return loop.get_task_factory() is None and "create_task" not in loop.__dict__
