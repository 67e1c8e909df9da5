"""Exceptions thrown into the middle of an operation: they belong to the caller.

A store or a server fails with exceptions of its library and of Python. Any other exception was
thrown in: by a signal handler, such as that of celery's soft time limit, or by another thread
(`PyThreadState_SetAsyncExc`). That is not an outage, even if something else failed on the way out,
such as closing a file twice. An exception of Python itself counts as thrown in if it comes from a
signal handler.
"""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_LIBRARIES = frozenset(
    {"opero", "redis", "hiredis", "valkey", "libvalkey", "diskcache", "diskcache_community"}
)
"""Libraries whose exceptions are failures, besides Python and its standard library."""

_CHAIN = 20
"""How many exceptions of a chain to look at."""


class Thrown(BaseException):
    """Carries an exception that was thrown in past all handlers of failures.

    Attributes:
        error: The exception, for the caller.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error: BaseException = error


def unwrapped(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Make a function raise the exception that was thrown in, instead of its carrier."""

    @functools.wraps(function)
    def unwrapping(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except Thrown as thrown:
            raise thrown.error from thrown.error.__cause__

    return unwrapping


def thrown_in(error: Exception, outer: BaseException | None) -> BaseException | None:
    """Return the exception that belongs to the caller, if an operation failed with one.

    Args:
        error: What the operation raised: that exception, or one that a library derived from it.
        outer: The exception handled when the operation began.
    """
    handled = out_of_handler(error, outer)
    if handled is not None:
        return handled
    each: BaseException | None = error
    for _ in range(_CHAIN):
        if each is None or each is outer:
            break
        if isinstance(each, KeyboardInterrupt | SystemExit) or _is_foreign(each):
            return each
        each = (
            each.__context__ if each.__cause__ is None else None
        )  # `from` means that a library handled it
    return None


def _is_foreign(error: BaseException) -> bool:
    """Return whether it comes neither from Python nor from a library that stores use."""
    home = type(error).__module__.partition(".")[0]
    return home not in _LIBRARIES and home not in sys.stdlib_module_names


def out_of_handler(error: BaseException, outer: BaseException | None) -> BaseException | None:
    """Return the exception in a chain that a signal handler of the program raised, if any.

    It takes the same arguments as `thrown_in`.
    """
    handlers: set[CodeType] | None = None
    each: BaseException | None = error
    for _ in range(_CHAIN):
        if each is None or each is outer:
            return None
        step = each.__traceback__
        while step is not None:
            if handlers is None:
                handlers = _handlers()
                if not handlers:
                    return None
            if step.tb_frame.f_code in handlers:
                return each
            step = step.tb_next
        each = each.__cause__ or each.__context__
    return None


def _handlers() -> set[CodeType]:
    """Return the code of the installed signal handlers."""
    found: set[CodeType] = set()
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        if not callable(handler) or isinstance(handler, int):
            continue
        for _ in range(_CHAIN):  # methods, partials, callable objects
            code = getattr(handler, "__code__", None)
            if isinstance(code, CodeType):
                found.add(code)
                break
            inner = getattr(handler, "__func__", None) or getattr(handler, "func", None)
            handler = type(handler).__call__ if inner is None else inner
    return found
