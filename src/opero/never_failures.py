"""What is never a failure, whatever the options say: exceptions that mean "stop" or "later".

They are asked for only after an attempt has raised something. Classes of libraries are looked up in
`sys.modules`: an exception of a library that is not loaded cannot have been raised.
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
"""The commonest types that are known to be failures, and no failures of opero's, at a glance."""

_STOPS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends a program or a generator; options cannot name them."""
_STOPS_OF_LIBRARIES = (
    ("asyncio.exceptions", ("CancelledError",)),
    ("trio", ("Cancelled",)),
    ("greenlet", ("GreenletExit",)),
)
"""What ends a task or a greenlet; options that name them are not obeyed."""

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
"""What a library raises to steer its caller."""
_ANSWERS = (
    ("starlette.exceptions", "HTTPException", "status_code"),
    ("werkzeug.exceptions", "HTTPException", "code"),
    ("aiohttp.web_exceptions", "HTTPException", "status"),
)
"""What is raised in an endpoint to answer the request, and what its status is called there.

An answer of 500 and above is a failure like any other.
"""


def is_never_failure(error: BaseException) -> bool:
    """Return whether `error`, or one in its group, ends a call at once and uncounted."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_never_failure(each) for each in error.exceptions)
    return is_stop(error) or _signal(error) is not None


def is_stop(error: BaseException) -> bool:
    """Return whether `error` ends a program, a task, a greenlet or a generator."""
    return isinstance(error, _STOPS) or _kind(error, _STOPS_OF_LIBRARIES) is not None


def names_stop(kind: type[BaseException]) -> bool:
    """Return whether every exception of a class is one that `is_stop` knows."""
    if issubclass(kind, _STOPS):
        return True
    found = (_loaded(module, name) for module, names in _STOPS_OF_LIBRARIES for name in names)
    return any(each is not None and issubclass(kind, each) for each in found)


def is_named(error: BaseException, types: tuple[type[BaseException], ...]) -> bool:
    """Return whether options name `error`, which is never a failure otherwise, by its very type.

    Args:
        error: An exception that `is_never_failure` knows. A group is never named, nor is what ends
            a program or a task.
        types: What `retry_on` or `fallback_on` names.
    """
    if isinstance(error, BaseExceptionGroup) or is_stop(error):
        return False
    signal = _signal(error)
    return signal is not None and any(
        isinstance(error, each) and issubclass(each, signal) for each in types
    )


def _signal(error: BaseException) -> type[BaseException] | None:
    """Return the class that makes `error` a signal to the caller, None if it is none."""
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
    """Return the first class of a table that `error` is an instance of."""
    for module, names in table:
        if module in sys.modules:
            for name in names:
                kind = _loaded(module, name)
                if kind is not None and isinstance(error, kind):
                    return kind
    return None


def _loaded(module: str, name: str) -> type[BaseException] | None:
    """Return an exception class of a module, None while that is not loaded."""
    kind: Any = getattr(sys.modules.get(module), name, None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseException) else None
