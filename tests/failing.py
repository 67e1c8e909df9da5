"""Functions that fail as often as a test says, and decorators that make either kind of them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from opero import opero


def failing(*errors: BaseException | None) -> Callable[..., str]:
    """Return a function that raises these one after the other, None being success, then returns."""
    left = list(errors)

    def function(*_: Any, **__: Any) -> str:
        error = left.pop(0) if left else None
        if error is not None:
            raise error
        return "value"

    return function


def decorating(mode: str) -> Callable[..., Callable[..., Any]]:
    """Return what decorates a function.

    Args:
        mode: "sync" for the function as it is, "async" for a coroutine function made of it; what
            comes back is called alike.
    """

    def decorate(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        if mode == "sync":
            return opero(**options)(function)

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        made = opero(**options)(awaited)

        async def once(*args: Any, **kwargs: Any) -> Any:
            return await made(*args, **kwargs)

        return lambda *args, **kwargs: asyncio.run(once(*args, **kwargs))

    decorate.mode = mode  # type: ignore[attr-defined]
    return decorate
