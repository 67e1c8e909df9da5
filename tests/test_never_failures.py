"""What is never a failure, whatever the options say: it propagates at once, unchanged, uncounted."""

from __future__ import annotations

import asyncio
import bdb
import concurrent.futures
import sys
import types
import unittest
from collections.abc import Callable
from typing import Any

import celery.exceptions
import click.exceptions
import greenlet
import pytest
import starlette.exceptions
from fastapi import HTTPException

from opero import AllFailedError, OperoError, hotpath, opero
from opero.never_failures import ORDINARY, is_named, is_never_failure, is_stop

STOPS: dict[str, type[BaseException]] = {
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": SystemExit,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "GreenletExit": greenlet.GreenletExit,
}
SIGNALS: dict[str, Callable[[], BaseException]] = {
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "BdbQuit": bdb.BdbQuit,
    "SkipTest": lambda: unittest.SkipTest("not here"),
    "pytest.skip": lambda: pytest.skip.Exception("not here"),
    "pytest.fail": lambda: pytest.fail.Exception("no"),
    "celery.Retry": celery.exceptions.Retry,
    "celery.Ignore": celery.exceptions.Ignore,
    "celery.Reject": celery.exceptions.Reject,
    "celery.SoftTimeLimitExceeded": celery.exceptions.SoftTimeLimitExceeded,
    "click.Exit": lambda: click.exceptions.Exit(3),
    "click.Abort": click.exceptions.Abort,
    "fastapi": lambda: HTTPException(404),
    "starlette": lambda: starlette.exceptions.HTTPException(429),
}


def test_cancelled_of_trio_is_known() -> None:
    """It cannot be made by hand."""
    import trio

    caught: list[BaseException] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep(1)
            except trio.Cancelled as error:
                caught.append(error)
                raise

    trio.run(main)
    assert is_stop(caught[0])


def test_timeouts_of_rq_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is out of time is not tried again, without a limit this time."""
    base = type("BaseTimeoutException", (Exception,), {})
    timeouts: Any = types.ModuleType("rq.timeouts")
    timeouts.BaseTimeoutException = base
    error = type("JobTimeoutException", (base,), {})()
    assert not is_never_failure(error)
    monkeypatch.setitem(sys.modules, "rq.timeouts", timeouts)
    assert is_never_failure(error)


@pytest.mark.parametrize("kind", STOPS.values(), ids=STOPS)
def test_subclasses_of_what_ends_a_program_are_known(kind: type[BaseException]) -> None:
    assert is_stop(kind())
    assert is_stop(type("Mine", (kind,), {})())
    assert is_never_failure(BaseExceptionGroup("g", [BaseExceptionGroup("h", [kind()])]))
    assert not is_named(kind(), (kind,))


@pytest.mark.once
@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        TimeoutError(),
        NotImplementedError(),
        concurrent.futures.CancelledError(),  # it says nothing about the task that asked
        HTTPException(503),
        click.exceptions.UsageError("no"),
        ExceptionGroup("g", [ValueError()]),
    ],
    ids=repr,
)
def test_others_are_failures(error: Exception) -> None:
    assert not is_never_failure(error)


@pytest.mark.once
@pytest.mark.parametrize("kind", sorted(ORDINARY, key=repr))
def test_what_is_ordinary_at_a_glance_is_a_failure(kind: type[Exception]) -> None:
    """The list only saves the way round."""
    assert not is_never_failure(kind())
    assert not issubclass(kind, (OperoError, BaseExceptionGroup))


OPTIONS: dict[str, dict[str, Any]] = {
    "retries": {"retries": 3, "min_delay": 0},
    "any": {"retries": 3, "min_delay": 0, "retry_on": BaseException},
    "predicate": {"retries": 3, "min_delay": 0, "retry_on": lambda error: True},
    "one": {"retries": 1},
    "cache": {"retries": 3, "min_delay": 0, "cache": True},
    "limit": {"retries": 3, "min_delay": 0, "rate_limit": 1e6, "burst": 9},
    "timeout": {"retries": 3, "min_delay": 0, "timeout": 9},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("make", [*STOPS.values(), *SIGNALS.values()], ids=[*STOPS, *SIGNALS])
def test_it_propagates_at_once_unchanged_and_uncounted(
    core: hotpath.Core, make: Callable[[], BaseException], options: dict[str, Any]
) -> None:
    """Of an ordinary function with any mechanism, with a fallback value beside it, and in a group."""
    for error in (make(), BaseExceptionGroup("g", [ValueError(), make()])):

        def raising(key: int = 0, error: BaseException = error) -> None:
            raise error

        for more in ({}, {"arg_fallback": {"key": [1]}}):
            function = opero(**options, **more)(raising)
            with pytest.raises(BaseException) as caught:  # noqa: PT011 - it is compared below
                function()
            assert caught.value is error
            assert not hasattr(error, "__notes__")
            stats = function.stats()
            assert (stats.attempts, stats.failures) == (1, 0)
            error.__traceback__ = None


OF_COROUTINES = {
    "CancelledError": asyncio.CancelledError,
    **{name: make for name, make in SIGNALS.items() if "Iteration" not in name},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("make", OF_COROUTINES.values(), ids=OF_COROUTINES)
def test_it_propagates_out_of_a_coroutine_function(
    core: hotpath.Core, make: Callable[[], BaseException], options: dict[str, Any]
) -> None:
    """As it is, too."""
    error = make()

    @opero(**options)
    async def raising() -> None:
        raise error

    async def main() -> BaseException | None:
        try:
            await raising()
        except BaseException as caught:  # noqa: BLE001 - that is what is tested
            return caught
        return None

    caught = asyncio.run(main())
    if "timeout" in options and isinstance(error, asyncio.CancelledError):
        assert isinstance(caught, asyncio.CancelledError)  # by way of a task, which makes its own
    else:
        assert caught is error
    assert (raising.stats().attempts, raising.stats().failures) == (1, 0)


@pytest.mark.parametrize(
    ("named", "make"),
    [
        (RecursionError, RecursionError),
        (MemoryError, MemoryError),
        (celery.exceptions.Retry, celery.exceptions.Retry),
        (starlette.exceptions.HTTPException, lambda: HTTPException(404)),
        ((OSError, click.exceptions.Abort), click.exceptions.Abort),
    ],
)
def test_options_that_name_the_very_type_are_obeyed(
    core: hotpath.Core, named: Any, make: Callable[[], Exception]
) -> None:
    """Whoever writes `retry_on=RecursionError` means it."""

    @opero(retries=3, min_delay=0, retry_on=named)
    def raising() -> None:
        raise make()

    with pytest.raises(AllFailedError) as caught:
        raising()
    assert len(caught.value.errors) == 3


def test_an_iterator_may_be_decorated(core: hotpath.Core) -> None:
    """Its end is not tried again."""

    class Pages:
        def __init__(self) -> None:
            self.left = 2
            self.ends = 0

        def __iter__(self) -> Pages:
            return self

        @opero(retries=3)
        def __next__(self) -> int:
            if not self.left:
                self.ends += 1
                raise StopIteration
            self.left -= 1
            return self.left

    pages = Pages()
    assert list(pages) == [1, 0]
    assert pages.ends == 1


def test_a_status_of_an_answer_that_is_no_number_makes_it_a_failure(core: hotpath.Core) -> None:
    """Whatever a subclass of a framework's exception has made of it."""

    class Odd(starlette.exceptions.HTTPException):
        def __init__(self) -> None:
            pass

    assert not is_never_failure(Odd())
