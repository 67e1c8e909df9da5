"""The exceptions: their family, what they carry, and that they survive a pickle with all of it."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opero import (
    AllFailedError,
    BreakerOpenError,
    CacheKeyError,
    DeadlineExceeded,
    OperoError,
    WorkerCrashedError,
    get_retry_decorator,
    hotpath,
    opero,
)
from opero.testing import skip_waits

pytestmark = pytest.mark.once

FAILURES = (AllFailedError, BreakerOpenError, DeadlineExceeded)
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


class HttpError(Exception):
    """An exception whose `__init__` takes other arguments than it hands up."""

    def __init__(self, status: int, *, url: str) -> None:
        super().__init__(f"{status} from {url}")
        self.status = status
        self.url = url


class KeywordOnly(Exception):
    """An exception that cannot be made from its args."""

    def __init__(self, *, code: int) -> None:
        super().__init__()
        self.code = code


class Slotted(ValueError):
    """An exception with slots beside its dict."""

    __slots__ = ("place",)


class OwnReduce(Exception):
    """An exception that says itself how it is pickled."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__("sum", left + right)
        self.left, self.right = left, right

    def __reduce__(self) -> tuple[Any, ...]:
        return OwnReduce, (self.left, self.right)


class OwnNew(Exception):
    """An exception whose `__new__` takes what its `__init__` does."""

    def __new__(cls, code: int, text: str) -> Self:
        """Make one from two arguments."""
        return super().__new__(cls, text)

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class LyingArgs(Exception):
    """An exception that a plain pickle rebuilds from the wrong arguments, without complaint."""

    def __init__(self, code: int, text: str = "unknown") -> None:
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class Hostile(Exception):
    """An exception that makes trouble wherever it can."""

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Holder(Exception):
    """An exception that holds something."""

    def __init__(self, held: object) -> None:
        super().__init__("holds something")
        self.held = held
        self.size = 5


class Incomparable:
    """An argument that cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


class OwnFailure(AllFailedError):
    """A failure of a user's own."""


class OwnFailureWithCode(AllFailedError):
    """A failure of a user's own with an `__init__` of its own."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}", [ValueError(code)])
        self.code = code


def carried(*errors: Exception, kind: type[Any] = AllFailedError, protocol: int = 4) -> Any:
    """Return a failure with these errors after it went through a pickle."""
    return pickle.loads(pickle.dumps(kind("all failed", list(errors)), protocol))


# --- the family -----------------------------------------------------------------------------------


def test_every_exception_of_opero_is_an_opero_error() -> None:
    """One `except` clause catches them all."""
    for kind in (AllFailedError, BreakerOpenError, DeadlineExceeded, CacheKeyError):
        assert issubclass(kind, OperoError)


def test_an_opero_error_is_a_runtime_error() -> None:
    """Who catches the standard exception catches opero's."""
    assert issubclass(OperoError, RuntimeError)


def test_a_passed_deadline_is_a_timeout_error() -> None:
    """It is caught where the standard library's timeouts are."""
    assert issubclass(DeadlineExceeded, TimeoutError)


def test_a_key_that_cannot_be_made_is_a_type_error() -> None:
    """As an unhashable argument is for `functools.lru_cache`."""
    assert issubclass(CacheKeyError, TypeError)


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_carries_message_and_errors(kind: type[Any]) -> None:
    """Both are attributes, and the text is the message."""
    errors = [ValueError(1), KeyError(2)]
    failure = kind("all failed", errors)
    assert ("all failed", "all failed", errors) == (str(failure), failure.message, failure.errors)


@pytest.mark.parametrize("kind", FAILURES)
def test_errors_are_an_empty_list_if_there_are_none(kind: type[Any]) -> None:
    """As the reference says, they may be left out."""
    assert [] == kind("message").errors == kind("message", None).errors


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_keeps_a_list_of_its_own(kind: type[Any]) -> None:
    """Who changes the list afterwards does not change the failure."""
    errors: list[Exception] = [ValueError()]
    failure = kind("message", errors)
    errors.clear()
    assert len(failure.errors) == 1


def test_a_passed_deadline_has_no_error_number() -> None:
    """It comes from no system call, though its base class is an `OSError`."""
    failure = DeadlineExceeded("late", [ValueError()])
    assert (failure.errno, failure.strerror) == (None, None)
    assert "late" in repr(failure)


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_can_be_copied(kind: type[Any]) -> None:
    """`copy` uses the same way as pickle."""
    failure = kind("all failed", [HttpError(503, url="/x")])
    for twin in (copy.copy(failure), copy.deepcopy(failure)):
        assert (kind, "all failed") == (type(twin), str(twin))
        assert [error.status for error in twin.errors] == [503]


# --- through a pickle -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*FAILURES, OwnFailure])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_failure_survives_a_pickle_with_all_of_its_errors(kind: type[Any], protocol: int) -> None:
    """Type, message, errors in order, and the last one as the cause."""
    failure = carried(ValueError(1, "one"), KeyError("two"), kind=kind, protocol=protocol)
    assert (kind, "all failed") == (type(failure), str(failure))
    assert [(ValueError, (1, "one")), (KeyError, ("two",))] == [
        (type(error), error.args) for error in failure.errors
    ]
    assert failure.__cause__ is failure.errors[-1]


def test_a_failure_without_errors_survives_a_pickle() -> None:
    """There is no cause then."""
    failure = carried()
    assert (failure.errors, failure.__cause__) == ([], None)


@pytest.mark.parametrize(
    "error",
    [
        HttpError(503, url="http://x/"),
        KeywordOnly(code=5),
        OwnReduce(2, 3),
        OwnNew(7, "seven"),
        LyingArgs(404, "not here"),
        LyingArgs(404),
        OSError(2, "No such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        ImportError("gone", name="module", path="/x"),
        StopIteration(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_survives_whatever_its_init_takes(error: Exception) -> None:
    """Type, text, args and attributes arrive as they were."""
    (twin,) = carried(error).errors
    assert type(error) is type(twin)
    assert (str(error), error.args) == (str(twin), twin.args)
    assert vars(error) == vars(twin)
    for name in ("errno", "filename", "start", "reason", "name", "value"):
        assert getattr(error, name, None) == getattr(twin, name, None)


def test_an_exception_with_slots_survives() -> None:
    """What its own pickle would carry is carried."""
    error = Slotted("text")
    error.place = 7
    error.extra = 8  # type: ignore[attr-defined]
    (twin,) = carried(error).errors
    assert (Slotted, ("text",), 8) == (type(twin), twin.args, twin.extra)


@pytest.mark.parametrize(
    "held",
    [threading.Lock(), lambda: None, open, iter([]), {"deep": [threading.Lock()]}],
    ids=["lock", "lambda", "builtin", "iterator", "nested lock"],
)
def test_an_attribute_that_cannot_be_pickled_stays_behind(held: object) -> None:
    """The exception travels without it, and with everything else."""
    (twin,) = carried(Holder(held)).errors
    assert (Holder, ("holds something",), 5) == (type(twin), twin.args, twin.size)


def test_an_exception_of_a_local_class_is_replaced_by_one_that_says_what_it_was() -> None:
    """Its class cannot be found by name on the other side, so type and text go as words."""

    class Local(Exception):
        pass

    (twin,) = carried(Local("bad luck")).errors
    assert isinstance(twin, OperoError)
    assert all(word in str(twin) for word in (__name__, "Local", "bad luck"))


def test_an_exception_whose_args_cannot_be_pickled_is_replaced_likewise() -> None:
    """The failure as a whole always arrives."""
    (twin,) = carried(ValueError(threading.Lock())).errors
    assert isinstance(twin, OperoError)
    assert all(word in str(twin) for word in ("builtins", "ValueError", "<unlocked"))


def test_an_exception_that_resists_everything_is_replaced_too() -> None:
    """Neither a broken `__reduce__` nor a broken `__str__` stops the failure."""
    failure = carried(Hostile(threading.Lock()), ValueError("fine"))
    assert [OperoError, ValueError] == [
        OperoError if isinstance(error, OperoError) else type(error) for error in failure.errors
    ]
    assert "Hostile" in str(failure.errors[0])


def test_an_exception_whose_args_cannot_be_compared_survives() -> None:
    """Whether it came back as it was is not asked of them."""
    (twin,) = carried(ValueError(Incomparable(), 5)).errors
    assert (ValueError, Incomparable, 5) == (type(twin), type(twin.args[0]), twin.args[1])


def test_failures_inside_failures_survive() -> None:
    """A function that retries calls another that retries."""
    inner = AllFailedError("inner", [HttpError(500, url="/a"), HttpError(503, url="/b")])
    inner.__cause__ = inner.errors[-1]
    middle = DeadlineExceeded("middle", [inner, ValueError("x")])
    failure = carried(middle, KeyError("k"))
    assert [DeadlineExceeded, KeyError] == [type(error) for error in failure.errors]
    twin = failure.errors[0].errors[0]
    assert (AllFailedError, "inner", [500, 503]) == (
        type(twin),
        twin.message,
        [error.status for error in twin.errors],
    )
    assert twin.__cause__ is twin.errors[-1]


def test_the_work_for_nested_failures_grows_with_their_depth_only() -> None:
    """It does not double with each level: the innermost error is looked at a few times at most."""
    looks = []

    class Leaf(ValueError):
        def __reduce__(self) -> tuple[Any, ...]:
            looks.append(self)
            return ValueError, ("leaf",)

    failure: Exception = Leaf()
    for level in range(10):
        failure = AllFailedError(f"level {level}", [failure])
    pickle.dumps(failure)
    assert len(looks) <= 20


def test_a_failure_that_contains_itself_does_not_hang() -> None:
    """An error may refer to the failure that holds it; what cannot be told twice stays behind."""
    error = Holder(None)
    failure = AllFailedError("all failed", [error])
    error.held = failure
    twin = pickle.loads(pickle.dumps(failure))
    assert (AllFailedError, [Holder]) == (type(twin), [type(each) for each in twin.errors])


def test_a_failure_of_a_users_own_class_survives_whatever_its_init_takes() -> None:
    """Alone, and inside another one."""
    mine = OwnFailureWithCode(7)
    for twin in (pickle.loads(pickle.dumps(mine)), carried(mine).errors[0]):
        assert (OwnFailureWithCode, 7, "code 7") == (type(twin), twin.code, str(twin))
        assert [error.args for error in twin.errors] == [(7,)]


def test_a_failure_of_a_users_own_local_class_does_not_stop_the_one_around_it() -> None:
    """It is replaced by one that says what it was, as any exception is."""

    class Local(AllFailedError):
        pass

    (twin,) = carried(Local("mine", [ValueError(1)])).errors
    assert isinstance(twin, OperoError)
    assert "mine" in str(twin)


def test_attributes_that_a_user_adds_to_a_failure_survive() -> None:
    """Notes and marks travel with it."""
    failure = AllFailedError("all failed", [ValueError()])
    failure.ticket = 42  # type: ignore[attr-defined]
    failure.lock = threading.Lock()  # type: ignore[attr-defined]
    twin = pickle.loads(pickle.dumps(failure))
    assert (twin.ticket, hasattr(twin, "lock")) == (42, False)


@given(
    errors=st.lists(
        st.one_of(
            st.builds(ValueError, st.text(), st.integers()),
            st.builds(HttpError, st.integers(), url=st.text()),
            st.builds(OwnReduce, st.integers(), st.integers()),
            st.builds(LyingArgs, st.integers(), st.text()),
            st.builds(OSError, st.integers(1, 100), st.text(min_size=1)),
            st.builds(Holder, st.integers() | st.builds(threading.Lock)),
        ),
        max_size=5,
    ),
    kind=st.sampled_from(FAILURES),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_any_failure_pickles_to_an_equal_one(
    errors: list[Exception], kind: type[Any], protocol: int
) -> None:
    """Whatever mixture of exceptions it carries; and its twin pickles likewise."""
    failure = carried(*errors, kind=kind, protocol=protocol)
    again = pickle.loads(pickle.dumps(failure))
    for twin in (failure, again):
        assert [(type(error), str(error), error.args) for error in errors] == [
            (type(error), str(error), error.args) for error in twin.errors
        ]


# --- as they are raised ---------------------------------------------------------------------------


def test_a_raised_failure_pickles_with_its_tracebacks_left_behind(core: hotpath.Core) -> None:
    """What a worker process sends home is what a decorated function raises."""

    @get_retry_decorator(retries=2, min_delay=0)
    def fails() -> None:
        raise HttpError(503, url="/x")

    with pytest.raises(AllFailedError) as caught:
        fails()
    twin = pickle.loads(pickle.dumps(caught.value))
    assert str(caught.value) == str(twin)
    assert [error.status for error in twin.errors] == [503, 503]


def test_a_raised_deadline_pickles_with_its_errors(core: hotpath.Core) -> None:
    """The errors so far are worth as much as those of a failure."""

    @opero(retries=5, min_delay=10, max_delay=10, timeout=15)
    def fails() -> None:
        raise HttpError(503, url="/x")

    with skip_waits(), pytest.raises(DeadlineExceeded) as caught:
        fails()
    twin = pickle.loads(pickle.dumps(caught.value))
    assert [error.status for error in twin.errors] == [503, 503]
    assert twin.__cause__ is twin.errors[-1]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "WorkerCrashedError('gone')"),
        ({"exitcode": 3}, "WorkerCrashedError('gone', exitcode=3)"),
        ({"signal": "SIGKILL"}, "WorkerCrashedError('gone', signal='SIGKILL')"),
        (
            {"exitcode": -9, "signal": "SIGKILL"},
            "WorkerCrashedError('gone', exitcode=-9, signal='SIGKILL')",
        ),
    ],
)
def test_a_crash_shows_what_is_known_of_it(given: dict[str, Any], text: str) -> None:
    """And nothing else; it arrives as it was."""
    error = WorkerCrashedError("gone", **given)
    assert repr(error) == repr(pickle.loads(pickle.dumps(error))) == text
    assert eval(text).args == error.args
