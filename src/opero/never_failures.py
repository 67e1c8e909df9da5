"""Exceptions that are never failures, whatever the options say: they mean "stop" or "later".

opero checks them only after an attempt has raised. It looks up classes of libraries in
`sys.modules`: if a library is not loaded, nobody raised its exceptions.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ORDINARY = frozenset(
    {
        ArithmeticError,
        AssertionError,
        AttributeError,
        BlockingIOError,
        BrokenPipeError,
        ConnectionAbortedError,
        ConnectionError,
        ConnectionRefusedError,
        ConnectionResetError,
        EOFError,
        Exception,
        FileNotFoundError,
        IndexError,
        InterruptedError,
        KeyError,
        LookupError,
        OSError,
        PermissionError,
        RuntimeError,
        TimeoutError,
        TypeError,
        ValueError,
        ZeroDivisionError,
    }
)
"""The most common types of failures, none of them opero's own, for a quick check."""

_STOPS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""Exceptions that end a program or a generator; options cannot name them."""
_STOPS_OF_LIBRARIES = (
    ("asyncio.exceptions", ("CancelledError",)),
    ("trio", ("Cancelled",)),
    ("greenlet", ("GreenletExit",)),
)
"""Exceptions that end a task or a greenlet, even if options name them."""

_SIGNALS = (StopIteration, StopAsyncIteration, RecursionError, MemoryError)
_SIGNALS_OF_LIBRARIES = (
    ("bdb", ("BdbQuit",)),
    ("unittest.case", ("SkipTest",)),
    ("_pytest.outcomes", ("OutcomeException",)),
    ("gevent.timeout", ("Timeout",)),
    ("opero.blocks.loop", ("MisusedLoopError",)),
    ("opero.runners.loops", ("NoTaskError",)),
    ("celery.exceptions", ("Retry", "Ignore", "Reject", "SoftTimeLimitExceeded")),
    ("rq.timeouts", ("BaseTimeoutException",)),
    ("click.exceptions", ("Exit", "Abort")),
    ("django.http.response", ("Http404",)),
)
"""Exceptions that a library raises to control its caller."""
_ANSWERS = (
    ("starlette.exceptions", "HTTPException", "status_code"),
    ("werkzeug.exceptions", "HTTPException", "code"),
    ("aiohttp.web_exceptions", "HTTPException", "status"),
)
"""Exceptions that an endpoint raises to answer a request, with the attribute of their status.

A status of 500 and above is a failure like any other.
"""


def is_never_failure(error: BaseException) -> bool:
    """Return whether `error`, or one in its group, ends a call immediately and uncounted."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_never_failure(each) for each in error.exceptions)
    return is_stop(error) or _signal(error) is not None


def is_stop(error: BaseException) -> bool:
    """Return whether `error` ends a program, a task, a greenlet or a generator."""
    return isinstance(error, _STOPS) or _kind(error, _STOPS_OF_LIBRARIES) is not None


def names_stop(kind: type[BaseException]) -> bool:
    """Return whether `is_stop` is true of every exception of a class."""
    if issubclass(kind, _STOPS):
        return True
    found = (_loaded(module, name) for module, names in _STOPS_OF_LIBRARIES for name in names)
    return any(each is not None and issubclass(kind, each) for each in found)


def is_named(error: BaseException, types: tuple[type[BaseException], ...]) -> bool:
    """Return whether options name the exact type of `error`, which otherwise is never a failure.

    Args:
        error: An exception for which `is_never_failure` is true. Options cannot name a group, nor
            an exception that ends a program or a task.
        types: The types in `retry_on` or `fallback_on`.
    """
    if isinstance(error, BaseExceptionGroup) or is_stop(error):
        return False
    signal = _signal(error)
    return signal is not None and any(
        isinstance(error, each) and issubclass(each, signal) for each in types
    )


def _signal(error: BaseException) -> type[BaseException] | None:
    """Return the class that makes `error` a signal to the caller; None if it is not one."""
    for kind in _SIGNALS:
        if isinstance(error, kind):
            return kind
    found = _kind(error, _SIGNALS_OF_LIBRARIES)
    if found is not None:
        return found
    for module, name, status in _ANSWERS:
        answer = _loaded(module, name)
        if answer is not None and isinstance(error, answer):
            number = getattr(error, status, None)
            return answer if isinstance(number, int) and number < 500 else None
    return None


def _kind(
    error: BaseException, table: tuple[tuple[str, tuple[str, ...]], ...]
) -> type[BaseException] | None:
    """Return the first class in a table that `error` is an instance of."""
    for module, names in table:
        if module in sys.modules:
            for name in names:
                kind = _loaded(module, name)
                if kind is not None and isinstance(error, kind):
                    return kind
    return None


def _loaded(module: str, name: str) -> type[BaseException] | None:
    """Return an exception class of a module; None if the module is not loaded."""
    kind: Any = getattr(sys.modules.get(module), name, None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else None
