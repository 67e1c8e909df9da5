"""Exceptions come back with those behind them, those in them, and all that can be pickled."""

from __future__ import annotations

import threading
import traceback

import pytest

from opero import opmap
from opero.exceptions import AllFailedError, DeadlineExceeded, ErrorStandIn
from opero.map.serialization.errors import RemoteTraceback, pack_error, unpack_error

pytestmark = pytest.mark.once


class Low(Exception):
    """A class of this module, as a cause."""


class High(Exception):
    """An error that cannot be made from its `args`."""

    def __init__(self, code, *, detail):
        super().__init__(f"code {code}")
        self.code, self.detail = code, detail


class Held(Exception):
    """An error that cannot be pickled."""

    def __init__(self):
        super().__init__(threading.Lock())


def raised(make):
    """Return what a function raises."""
    try:
        make()
    except BaseException as error:  # noqa: BLE001 - a group may be any
        return error
    raise AssertionError


def there_and_back(error):
    """Return the exception that comes back from a round trip."""
    return unpack_error(pack_error(error))


def chained():
    """Raise an exception with a cause that has a context."""
    try:
        try:
            raise Low("deep reason")
        except Low:
            raise KeyError("middle")  # noqa: B904 - it is to be a context
    except KeyError as error:
        high = High(7, detail={"a": 1})
        high.add_note("item 42")
        raise high from error


def test_causes_and_contexts_come_back_as_they_were():
    """The first one ends with the text of all of them."""
    error = there_and_back(raised(chained))
    assert (type(error), error.args, error.code, error.detail) == (High, ("code 7",), 7, {"a": 1})
    assert error.__notes__ == ["item 42"]
    middle = error.__cause__
    assert (type(middle), middle.args, middle.__suppress_context__) == (
        KeyError,
        ("middle",),
        False,
    )
    low = middle.__context__
    assert (type(low), low.args) == (Low, ("deep reason",))
    assert type(low.__cause__) is RemoteTraceback
    text = "".join(traceback.format_exception(error))
    assert text.count("deep reason") == 3  # in the text of the worker twice: the line, the error
    assert "in chained\n    raise high from error" in text


def test_what_from_none_hides_stays_hidden_and_is_there():
    """It is not shown, as without opero."""

    def hide():
        try:
            raise Low
        except Low:
            raise ValueError("shown") from None

    error = there_and_back(raised(hide))
    assert type(error.__context__) is Low
    assert error.__suppress_context__ is True
    assert type(error.__cause__) is RemoteTraceback
    assert "Low" not in "".join(traceback.format_exception(error))


def test_one_that_cannot_travel_takes_no_other_with_it():
    """A stand-in replaces it."""
    cause = Held()
    error = ValueError("fine")
    error.__cause__ = cause
    cause.__context__ = Low("fine, too")
    error = there_and_back(error)
    assert (type(error), error.args) == (ValueError, ("fine",))
    assert type(error.__cause__) is ErrorStandIn
    assert "Held" in str(error.__cause__)
    assert type(error.__cause__.__context__) is Low


def test_groups_come_back_with_all_that_is_in_them():
    """Members may be at any depth, with causes, notes and attributes."""
    inner = raised(chained)
    deep = ExceptionGroup("deep", [inner, Held()])
    deep.add_note("a note")
    deep.extra = 5
    group = there_and_back(BaseExceptionGroup("all", [KeyboardInterrupt(), deep]))
    assert type(group) is BaseExceptionGroup
    first, back = group.exceptions
    assert type(first) is KeyboardInterrupt
    assert (type(back), back.message, back.extra) == (ExceptionGroup, "deep", 5)
    assert back.__notes__ == ["a note"]
    high, stand_in = back.exceptions
    assert (type(high), high.code, type(high.__cause__)) == (High, 7, KeyError)
    assert type(stand_in) is ErrorStandIn


@pytest.mark.parametrize("kind", [AllFailedError, DeadlineExceeded])
def test_errors_of_attempts_come_back_likewise(kind):
    """Errors of opero contain others."""
    error = kind("both failed", [raised(chained), Held()])
    error.__cause__ = error.errors[-1]
    error = there_and_back(error)
    assert (type(error), str(error)) == (kind, "both failed")
    high, stand_in = error.errors
    assert (type(high), high.detail, type(high.__cause__)) == (High, {"a": 1}, KeyError)
    assert type(stand_in) is type(error.__cause__) is ErrorStandIn


def test_chains_that_are_long_or_lead_back_come_to_an_end():
    """Some code builds such chains."""
    one, other = ValueError(1), ValueError(2)
    one.__cause__, other.__cause__ = other, one
    error = there_and_back(one)
    assert (error.args, error.__cause__.args) == ((1,), (2,))
    last = error
    for number in range(500):
        following = ValueError(number)
        following.__context__ = last
        last = following
    assert there_and_back(last).__context__.args == (498,)


def test_maps_return_them(tmp_path):
    """They travel all the way from a process."""
    (error,) = opmap(workers=1, retries=1, progress=False)(fail)([tmp_path])
    assert type(error.__cause__) is KeyError
    assert type(error.__cause__.__context__) is Low


def fail(_):
    """Fail in a worker."""
    chained()
