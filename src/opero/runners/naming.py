"""Gives the coroutines and generators of a call the name of the decorated function."""

from __future__ import annotations

from types import FunctionType
from typing import Any


def named(function: Any, name: str) -> Any:
    """Return a copy of a function under another name, which its coroutines or generators share.

    That name shows in warnings about a coroutine that was never awaited, in `asyncio.all_tasks()`
    and in tracebacks of generators.

    Args:
        function: One of opero's own coroutine functions, generator functions or methods.
        name: The qualified name of a user's function.
    """
    made = FunctionType(
        function.__code__,
        function.__globals__,
        name.rpartition(".")[2],
        function.__defaults__,
        function.__closure__,
    )
    made.__qualname__ = name
    return made
