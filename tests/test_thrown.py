"""Which exceptions of an operation were thrown into it from outside."""

from __future__ import annotations

import functools
import signal
import sqlite3
import threading

import pytest

from opero.thrown import Thrown, thrown_in, unwrapped

pytestmark = pytest.mark.once


class SoftTimeLimitExceeded(Exception):
    """As that of celery."""


def ring(error, *_):
    raise error


class Alarm:
    """Handlers of other shapes than that of a function."""

    def __init__(self, error):
        self.error = error

    def ring(self, *_):
        raise self.error

    __call__ = ring


SHAPES = {
    "function": lambda error: lambda *_: ring(error),
    "method": lambda error: Alarm(error).ring,
    "object": Alarm,
    "partial": lambda error: functools.partial(ring, error),
}


@pytest.fixture
def alarm():
    """Install a signal handler, and remove it afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda handler: signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGTERM, before)


def caught(work):
    """Return what `work` raises."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - that is what is asked for
        return error
    raise AssertionError("it raised nothing")


def interrupted():
    signal.raise_signal(signal.SIGTERM)


def wrapping():
    """Do as a client does that makes exceptions of its own of those that it meets."""
    try:
        interrupted()
    except OSError as error:
        raise ConnectionError("while reading") from error


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "error", [SoftTimeLimitExceeded(), TimeoutError(), ValueError("v"), sqlite3.OperationalError()]
)
@pytest.mark.parametrize("operation", [interrupted, wrapping])
def test_what_a_signal_handler_raises_is_the_callers_whatever_it_is(alarm, shape, error, operation):
    alarm(SHAPES[shape](error))
    assert thrown_in(caught(operation), None) is error


def test_an_exception_of_a_foreign_type_is_the_callers():
    error = caught(lambda: ring(SoftTimeLimitExceeded()))
    assert thrown_in(error, None) is error


def translating():
    """Do as a client that knows what an exception means, and says so."""
    try:
        ring(SoftTimeLimitExceeded())
    except SoftTimeLimitExceeded as error:
        raise ConnectionError("while reading") from error


@pytest.mark.parametrize("error", [SoftTimeLimitExceeded(), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_what_fails_while_an_exception_is_on_its_way_out_does_not_hide_it(error, depth):
    """A file that is closed twice in a `finally`, say, since the exception came right after."""

    def failing(left):
        try:
            if left:
                failing(left - 1)
            raise error
        finally:
            raise OSError(9, "Bad file descriptor")

    assert thrown_in(caught(lambda: failing(depth - 1)), None) is error
    assert thrown_in(caught(translating), None) is None


@pytest.mark.parametrize(
    "error",
    [OSError(28, "full"), TimeoutError(), sqlite3.DatabaseError(), ValueError(), RuntimeError()],
)
def test_the_exceptions_of_python_are_failures(alarm, error):
    alarm(lambda *_: None)
    assert thrown_in(caught(lambda: ring(error)), None) is None


@pytest.mark.redis
@pytest.mark.parametrize("name", ["ConnectionError", "TimeoutError", "ResponseError"])
def test_the_exceptions_of_a_client_are_failures(name):
    exceptions = pytest.importorskip("redis.exceptions")
    assert thrown_in(caught(lambda: ring(getattr(exceptions, name)())), None) is None


def test_what_was_being_handled_before_does_not_count(alarm):
    """A program may well call a cached function while it handles its own time limit."""
    alarm(lambda *_: ring(SoftTimeLimitExceeded()))
    outer = caught(interrupted)

    def later():
        try:
            raise outer
        except SoftTimeLimitExceeded:
            raise OSError("down")  # noqa: B904 - as an operation does

    assert thrown_in(caught(later), outer) is None
    assert thrown_in(caught(later), None) is outer


def test_a_chain_that_bites_its_tail_has_an_end():
    first, second = OSError(), OSError()
    first.__context__, second.__context__ = second, first
    assert thrown_in(first, None) is None


def test_no_signal_handler_is_looked_for_in_vain_in_a_thread(alarm):
    alarm(lambda *_: ring(TimeoutError()))
    found = []
    thread = threading.Thread(target=lambda: found.append(thrown_in(caught(wrong), None)))

    def wrong():
        raise OSError

    thread.start()
    thread.join()
    assert found == [None]


def test_what_carries_an_exception_is_taken_off():
    @unwrapped
    def function():
        raise Thrown(SoftTimeLimitExceeded("late"))

    with pytest.raises(SoftTimeLimitExceeded, match="late") as told:
        function()
    assert told.value.__cause__ is None
