"""Names of coroutines and generators that a call makes: they carry the name of its function."""

from __future__ import annotations

from types import FunctionType
from typing import Any


def named(function: Any, name: str) -> Any:
    """Return a copy of a function that bears another name, as what it makes does then.

    Warnings about a coroutine that was never awaited and `asyncio.all_tasks()` show that name, and
    so do tracebacks of generators.

    Args:
        function: A coroutine function or generator function of opero's own, or a method.
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
