"""Turns an operation, written once as a generator of effects, into a method for threads or tasks.

    def operation(store, ...): ...          yields `ASK`, store, the name of a request, arguments
    operation = in_thread(operation)        in a class with `ask`
    operation = in_task(operation)          in a class with `ask_async`

Stores build their operations from a backend's primitives this way, and Redis builds its primitives
from commands.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Concatenate, ParamSpec, TypeVar

from opero.runners import sync

_P = ParamSpec("_P")
_T = TypeVar("_T")

Steps = Generator[tuple[Any, ...], Any, _T]
"""An operation: yields effects, all of them `ASK`, and returns its result."""

Task = Callable[..., Coroutine[Any, Any, _T]]
"""A method whose result is awaited."""


def in_thread(operation: Callable[Concatenate[Any, _P], Steps[_T]]) -> Callable[..., _T]:
    """Turn an operation into a method for threads."""

    def method(self: object, /, *given: _P.args, **named: _P.kwargs) -> _T:
        result: _T = sync.drive(operation(self, *given, **named))
        return result

    return method


def in_task(operation: Callable[Concatenate[Any, _P], Steps[_T]]) -> Task[_T]:
    """Turn an operation into a method for tasks."""

    async def method(self: object, /, *given: _P.args, **named: _P.kwargs) -> _T:
        from opero.runners import aio  # threads need no asyncio

        result: _T = await aio.drive(operation(self, *given, **named))
        return result

    return method
