"""What a call that fails ends in: rejected results, the last error itself, recursion."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import inspect
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from opero import (
    AllFailedError,
    CacheConfig,
    DeadlineExceeded,
    OperoError,
    ResultRejected,
    RetryConfig,
    get_retry_decorator,
    hotpath,
    opero,
    opmap,
)
from opero.exceptions import describe

Options = dict[str, Any]


def as_coroutine_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a coroutine function that does the same."""

    @functools.wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args, **kwargs)

    return awaited


class Kind:
    """An ordinary function or a coroutine function, decorated and called."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def decorate(self, function: Callable[..., Any], **options: Any) -> Any:
        """Decorate a function, or a coroutine function that does the same."""
        return opero(**options)(as_coroutine_function(function) if self.asynchronous else function)

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call it, or run it in an event loop."""
        if not self.asynchronous:
            return function(*args, **kwargs)

        async def main() -> tuple[Any, BaseException | None]:
            try:
                return await function(*args, **kwargs), None
            except Exception as error:  # noqa: BLE001 - `asyncio.run` shows odd ones, and fails
                return None, error

        value, error = asyncio.run(main())
        if error is not None:
            raise error
        return value


@pytest.fixture(params=[False, True], ids=["call", "await"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Both kinds of functions."""
    return Kind(request.param)


MECHANISMS: dict[str, Options] = {
    "plain": {},
    "cache": {"cache": True},
    "limit": {"rate_limit": 1e6, "burst": 99},
    "timeout": {"timeout": 30},
    "all": {"cache": True, "rate_limit": 1e6, "burst": 99, "timeout": 30},
}
mechanisms = pytest.mark.parametrize("options", MECHANISMS.values(), ids=MECHANISMS)
QUICK: Options = {"min_delay": 0, "retries": 3}


# --- rejected results ------------------------------------------------------------------------------


@mechanisms
def test_a_rejected_value_is_a_failed_attempt(
    core: hotpath.Core, kind: Kind, options: Options
) -> None:
    """The next attempt may return a better one."""
    values = iter([None, "", "value"])
    function = kind.decorate(
        lambda: next(values), retry_on_result=lambda value: not value, **QUICK, **options
    )
    assert kind.call(function) == "value"
    assert function.stats().attempts == 3
    assert (function.stats().retries, function.stats().failures) == (2, 0)


@mechanisms
def test_values_that_were_rejected_stand_in_the_errors(
    core: hotpath.Core, kind: Kind, options: Options
) -> None:
    """In order, beside the exceptions of other attempts."""
    values = iter([{"status": 1}, {"status": 2}])

    def fetch() -> Any:
        try:
            return next(values)
        except StopIteration:
            raise OSError("gone") from None

    function = kind.decorate(
        fetch, retry_on=OSError, retry_on_result=lambda value: "status" in value, **QUICK, **options
    )
    with pytest.raises(AllFailedError) as caught:
        kind.call(function)
    first, second, third = caught.value.errors
    assert isinstance(first, ResultRejected)
    assert isinstance(second, ResultRejected)
    assert (first.value, second.value) == ({"status": 1}, {"status": 2})
    assert isinstance(third, OSError)
    assert caught.value.__cause__ is third
    assert isinstance(first, OperoError)
    assert "status" not in str(first)  # values are nobody's business but the caller's


@mechanisms
def test_a_rejected_value_is_never_cached(core: hotpath.Core, kind: Kind, options: Options) -> None:
    """The next call asks again."""
    if "cache" not in options:
        return
    values = iter([None, None, None, "value"])
    function = kind.decorate(
        lambda: next(values), retry_on_result=lambda value: value is None, **QUICK, **options
    )
    with pytest.raises(AllFailedError):
        kind.call(function)
    assert function.cache_info().currsize == 0
    assert kind.call(function) == "value" == kind.call(function)
    assert function.stats().hits == 1


def test_a_rejected_value_is_not_stored_on_disk(
    core: hotpath.Core, kind: Kind, tmp_path: Any
) -> None:
    """Nor anywhere else outside the process."""
    values = iter([None, None, None, "value"])
    function = kind.decorate(
        lambda number: next(values),
        cache=True,
        cache_backend="disk",
        cache_dir=tmp_path / "cache",
        cache_key=lambda number: number,
        retry_on_result=lambda value: value is None,
        **QUICK,
    )
    with pytest.raises(AllFailedError):
        kind.call(function, 1)
    assert function.cache_info().currsize == 0
    assert kind.call(function, 1) == "value" == kind.call(function, 1)
    assert function.stats().hits == 1


@mechanisms
def test_with_one_attempt_the_rejection_itself_is_raised(
    core: hotpath.Core, kind: Kind, options: Options
) -> None:
    """As any other exception of a single attempt."""
    function = kind.decorate(lambda: 7, retries=1, retry_on_result=bool, **options)
    with pytest.raises(ResultRejected) as caught:
        kind.call(function)
    assert caught.value.value == 7
    assert function.stats().failures == 1


def test_a_rejected_value_leads_to_the_next_fallback_value(core: hotpath.Core, kind: Kind) -> None:
    """Unless `fallback_on` says otherwise."""
    tried: list[int] = []

    def fetch(host: int) -> int:
        tried.append(host)
        return host

    options = {"arg_fallback": {"host": [2, 3]}, "retry_on_result": lambda value: value < 3}
    assert kind.call(kind.decorate(fetch, **QUICK, **options), 1) == 3
    assert tried == [1, 2, 3]
    tried.clear()
    function = kind.decorate(fetch, fallback_on=OSError, **QUICK, **options)
    with pytest.raises(AllFailedError):
        kind.call(function, 1)
    assert tried == [1, 1, 1]


def test_what_the_predicate_raises_is_raised(core: hotpath.Core, kind: Kind) -> None:
    """At once: it is a fault of the program, not of the attempt."""
    function = kind.decorate(
        lambda: {"code": 1}, retry_on_result=lambda value: value["status"] == 503, **QUICK
    )
    with pytest.raises(KeyError, match="status"):
        kind.call(function)
    assert function.stats().attempts == 1


def test_every_way_to_say_it(core: hotpath.Core) -> None:
    """As an option, in a config, and by the decorator that only retries."""
    for decorator in (
        opero(retries=2, min_delay=0, retry_on_result=bool),
        opero(retry=RetryConfig(attempts=2, min_delay=0, retry_on_result=bool)),
        get_retry_decorator(retries=2, min_delay=0, retry_on_result=bool),
    ):
        with pytest.raises(AllFailedError):
            decorator(lambda: 1)()
        assert decorator(lambda: 0)() == 0


def one_in_three(item: int) -> int | None:
    """Return None for every third item."""
    return item if item % 3 else None


async def awaited_one_in_three(item: int) -> int | None:
    """Return None for every third item."""
    return item if item % 3 else None


def is_none(value: Any) -> bool:
    """Reject None."""
    return value is None


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("mode", ["thread", "process", "async", "async_process"])
def test_items_of_a_map_are_rejected_too(core: hotpath.Core, mode: Any, cache: bool) -> None:
    """Each by itself, in every mode; the others are cached."""
    function: Any = awaited_one_in_three if mode.startswith("async") else one_in_three
    mapped = opmap(
        mode,
        workers=2,
        progress=False,
        retries=2,
        min_delay=0,
        retry_on_result=is_none,
        cache=cache,
    )(function)
    results = mapped(range(7))
    for item, result in enumerate(results):
        if item % 3:
            assert result == item
        else:
            assert isinstance(result, AllFailedError)
            assert [type(error) for error in result.errors] == [ResultRejected] * 2
    assert mapped.stats().attempts == 4 + 2 * 3
    if cache:
        assert mapped.cache_info().currsize == 4


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_what_the_predicate_raises_is_the_failure_of_its_item(
    core: hotpath.Core, mode: Any
) -> None:
    """It is not tried again, and the others go on."""
    function: Any = awaited_one_in_three if mode == "async" else one_in_three
    mapped = opmap(
        mode, workers=2, progress=False, retries=3, retry_on_result=lambda value: value > 99
    )(function)
    results = mapped(range(4))
    assert [type(result) for result in results] == [TypeError, int, int, TypeError]
    assert mapped.stats().attempts == 4


@pytest.mark.parametrize("value", [{"a": [1]}, threading.Lock()], ids=["dict", "lock"])
def test_a_rejection_survives_a_pickle_and_a_copy(core: hotpath.Core, value: Any) -> None:
    """Without its value, if that cannot be pickled; a note says so."""

    @opero(retries=2, min_delay=0, retry_on_result=bool)
    def function() -> Any:
        return value

    with pytest.raises(AllFailedError) as caught:
        function()
    error = caught.value
    for made in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        first, second = made.errors
        assert type(first) is type(second) is ResultRejected
        assert str(first) == str(error.errors[0])
        assert first._origin is None or made.errors == error.errors
        if isinstance(value, dict):
            assert first.value == value
        elif first.value is None:
            assert first.__notes__ == ["opero: the value could not be pickled"]


# --- the last error itself --------------------------------------------------------------------------


@mechanisms
def test_the_last_error_itself_is_raised_with_a_note(
    core: hotpath.Core, kind: Kind, options: Options
) -> None:
    """`except` clauses written for the function hold, and the traceback tells of the attempts."""
    errors = [OSError(1), OSError(2), OSError(3)]
    raised = iter(errors)

    def failing() -> None:
        raise next(raised)

    function = kind.decorate(failing, reraise=True, **QUICK, **options)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - it is compared below
        kind.call(function)
    assert caught.value is errors[2]
    assert caught.value.__notes__ == ["opero: 3 attempts were made"]
    assert not hasattr(errors[0], "__notes__")
    assert "opero: 3 attempts were made" in "".join(traceback.format_exception(caught.value))
    assert function.stats().failures == 1


def test_notes_do_not_pile_up(core: hotpath.Core, kind: Kind) -> None:
    """An instance that is raised again and again says it once; notes of others stay."""
    error = OSError("always the same")
    error.add_note("mine")

    def failing() -> None:
        raise error

    for retries in (3, 2):
        function = kind.decorate(failing, retries=retries, min_delay=0, reraise=True)
        for _ in range(2):
            with pytest.raises(OSError, match="always"):
                kind.call(function)
        assert error.__notes__ == ["mine", f"opero: {retries} attempts were made"]


def test_a_single_attempt_is_not_worth_a_note(core: hotpath.Core, kind: Kind) -> None:
    """Its exception is untouched; with fallback values it says how many there were."""
    for options, notes in (
        ({}, None),
        ({"rate_limit": 1e6}, None),
        ({"arg_fallback": {"key": [1]}}, ["opero: 2 attempts were made"]),
        (
            {"arg_fallback": {"key": [1]}, "fallback_on": KeyError},
            ["opero: 1 attempt was made"],
        ),
    ):

        def failing(key: int = 0) -> None:
            raise OSError("no")

        function = kind.decorate(failing, retries=1, reraise=True, **options)
        with pytest.raises(OSError, match="no") as caught:
            kind.call(function)
        assert getattr(caught.value, "__notes__", None) == notes


def test_an_error_that_does_not_match_has_no_note(core: hotpath.Core, kind: Kind) -> None:
    """It propagates at once, unchanged."""

    def failing() -> None:
        raise KeyError

    function = kind.decorate(failing, reraise=True, retry_on=OSError, **QUICK)
    with pytest.raises(KeyError) as caught:
        kind.call(function)
    assert not hasattr(caught.value, "__notes__")


def test_a_deadline_is_a_deadline_all_the_same(core: hotpath.Core, kind: Kind) -> None:
    """It is the wait that was not begun, not the last error, that has ended the call."""

    def failing() -> None:
        raise OSError

    function = kind.decorate(failing, reraise=True, retries=3, min_delay=10, timeout=1)
    with pytest.raises(DeadlineExceeded):
        kind.call(function)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """Takes no attributes."""

    code: int


class Odd(Exception):
    """Has notes of its own kind."""

    __notes__ = "text"


@pytest.mark.parametrize("make", [lambda: Frozen(1), Odd], ids=["frozen", "odd"])
def test_an_error_that_takes_no_notes_is_raised_without(
    core: hotpath.Core, kind: Kind, make: Callable[[], Exception]
) -> None:
    """A note is not worth another error."""
    error = make()

    def failing() -> None:
        raise error

    function = kind.decorate(failing, reraise=True, **QUICK)
    with pytest.raises((Frozen, Odd)) as caught:
        kind.call(function)
    assert caught.value is error or isinstance(error, Frozen)


@pytest.mark.parametrize("mode", ["thread", "process", "async"])
def test_items_of_a_map_end_in_their_own_errors(core: hotpath.Core, mode: Any) -> None:
    """With the note, which travels."""
    function: Any = afailing_item if mode == "async" else failing_item
    mapped = opmap(mode, workers=2, progress=False, retries=2, min_delay=0, reraise=True)(function)
    results = mapped([1, 2])
    assert [repr(result) for result in results] == ["OSError(1)", "OSError(2)"]
    assert all("opero: 2 attempts were made" in result.__notes__ for result in results)


def failing_item(item: int) -> None:
    """Fail."""
    raise OSError(item)


async def afailing_item(item: int) -> None:
    """Fail."""
    raise OSError(item)


# --- recursion --------------------------------------------------------------------------------------


@mechanisms
def test_a_failing_leaf_of_a_recursion_is_attempted_retries_times_in_all(
    core: hotpath.Core, kind: Kind, options: Options
) -> None:
    """What an inner call has given up is given up by the outer ones, unchanged."""
    leaves = []

    if kind.asynchronous:

        @opero(**QUICK, **options)
        async def descend(depth: int) -> int:
            if depth == 0:
                leaves.append(depth)
                raise OSError("leaf")
            return 1 + await descend(depth - 1)
    else:

        @opero(**QUICK, **options)
        def descend(depth: int) -> int:
            if depth == 0:
                leaves.append(depth)
                raise OSError("leaf")
            return 1 + descend(depth - 1)

    with pytest.raises(AllFailedError) as caught:
        kind.call(descend, 8)
    assert len(leaves) == 3
    assert [str(error) for error in caught.value.errors] == ["leaf"] * 3
    assert descend.stats().attempts == 8 + 3


def test_in_a_task_group_too(core: hotpath.Core) -> None:
    """The group that an inner call's failure comes in is not tried again."""
    leaves = []

    @opero(**QUICK)
    async def walk(depth: int) -> None:
        if depth == 0:
            leaves.append(depth)
            raise OSError("leaf")
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(walk(depth - 1))

    with pytest.raises(ExceptionGroup):
        asyncio.run(walk(3))
    assert len(leaves) <= 8 * 3


def test_a_failure_of_another_function_is_an_error_like_any_other(
    core: hotpath.Core, kind: Kind
) -> None:
    """Two functions that both retry do so each for itself: a failing leaf costs their product."""
    leaves = []

    def leaf() -> None:
        leaves.append(1)
        raise OSError

    inner = kind.decorate(leaf, **QUICK)

    if kind.asynchronous:

        @opero(**QUICK)
        async def outer() -> None:
            await inner()
    else:

        @opero(**QUICK)
        def outer() -> None:
            inner()

    with pytest.raises(AllFailedError):
        kind.call(outer)
    assert len(leaves) == 9


@pytest.mark.parametrize("retries", [1, 3])
@pytest.mark.parametrize("cache", [False, True, "disk"])
def test_a_recursion_that_is_too_deep_ends_in_recursion_error(
    core: hotpath.Core, retries: int, cache: bool | str, tmp_path: Any
) -> None:
    """Soon, and leaves nothing behind: what was too deep can be called again from less deep."""
    options: Options = {"cache": bool(cache)}
    if cache == "disk":
        options = {
            "cache": CacheConfig(True, backend="disk", backend_options={"dir": tmp_path / "d"})
        }
        options["cache"].namespace = f"deep {retries}"
    attempts = []

    @opero(retries=retries, min_delay=0, **options)
    def depth(number: int) -> int:
        attempts.append(number)
        return 0 if number == 0 else 1 + depth(number - 1)

    limit = sys.getrecursionlimit()
    deep = 60 if cache == "disk" else 3 * limit
    if cache == "disk":
        sys.setrecursionlimit(250)
    try:
        with pytest.raises(RecursionError):
            depth(deep)
    finally:
        sys.setrecursionlimit(limit)
    assert len(attempts) == len(set(attempts))  # none was tried again
    assert depth.stats().failures == 0
    assert depth(5) == 5
    assert depth(9) == 9


def identity(number: int) -> int:
    """Return the number."""
    return number


ROOMS = {
    "memory": {},
    "small": {"cache_maxsize": 8},
    "all": {"cache_ttl": 60, "timeout": 60, "rate_limit": 1e6, "burst": 999},
    "disk": {"cache_backend": "disk", "cache_namespace": "rooms"},
}


@pytest.mark.parametrize("function", [identity, abs], ids=["python", "C"])
@pytest.mark.parametrize("options", ROOMS.values(), ids=ROOMS)
def test_wherever_the_stack_ends_nothing_is_left_behind(
    core: hotpath.Core, options: Options, function: Any, tmp_path: Any
) -> None:
    """Be it in the key, the lookup, the lease, the call or the storing: no run, and no lease."""
    if "cache_backend" in options:
        if function is abs:
            return
        options = {**options, "cache_dir": tmp_path / "cache"}
    cached = opero(cache=True, retries=3, min_delay=0, **options)(function)
    depth = len(inspect.stack(0))
    limit = sys.getrecursionlimit()
    rooms = range(100)
    ends = []
    for room in rooms:
        try:
            sys.setrecursionlimit(depth + room)
            ends.append(cached(room))
        except RecursionError:  # of the call, or as the limit is too low
            ends.append(-1)
        finally:
            sys.setrecursionlimit(limit)
    assert ends[0] == -1
    assert ends[-1] == 99
    for room in rooms:  # whose run was left behind would now run on its own, and not be cached
        assert cached(room) == room
        hits = cached.stats().hits
        assert cached(room) == room
        assert cached.stats().hits == hits + 1
    assert cached.cache_info().currsize == (8 if "cache_maxsize" in options else 100)


@pytest.mark.parametrize("options", [{}, {"timeout": 60}], ids=["cache", "timeout"])
def test_a_recursion_of_tasks_without_end_ends_in_recursion_error(
    core: hotpath.Core, options: Options
) -> None:
    """Though each run has a task of its own, whose stack begins anew."""

    @opero(cache=True, retries=3, min_delay=0, **options)
    async def endless(number: int) -> int:
        return 1 + await endless(number + 1)

    @opero(cache=True, **options)
    async def deep(number: int) -> int:
        return 0 if number == 0 else 1 + await deep(number - 1)

    async def main() -> None:
        with pytest.raises(RecursionError):
            await endless(0)
        assert endless.stats().attempts <= sys.getrecursionlimit() + 1
        assert await deep(sys.getrecursionlimit() // 2) == sys.getrecursionlimit() // 2

    asyncio.run(main())


# --- odd exceptions ---------------------------------------------------------------------------------


class Falsy(Exception):
    """Is no truth."""

    def __bool__(self) -> bool:
        return False


class NoText(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class NotText(Exception):
    """Has a text that is none."""

    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # noqa: PLE0307 - on purpose


class NoEquality(Exception):
    """Cannot be compared, nor hashed."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no equality")

    __hash__ = None  # type: ignore[assignment]


class NoAttributes(Exception):
    """Raises another error for attributes that it has not."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


ODD = [Falsy, NoText, NotText, NoEquality, NoAttributes]


@pytest.mark.parametrize("options", [{}, {"reraise": True}], ids=["all failed", "reraise"])
@pytest.mark.parametrize("make", ODD)
def test_odd_exceptions_are_failures_like_others(
    core: hotpath.Core, kind: Kind, make: type[Exception], options: Options
) -> None:
    """Through retries, fallback, pickles and copies."""
    error = make()

    def failing(key: int = 0) -> None:
        raise error

    for more in ({}, {"arg_fallback": {"key": [1]}}, {"cache": True}):
        function = kind.decorate(failing, **QUICK, **options, **more)
        with pytest.raises((AllFailedError, make)) as caught:
            kind.call(function)
        assert function.stats().attempts == (6 if "arg_fallback" in more else 3)
        if not options:
            assert all(each is error for each in caught.value.errors)
            for made in (pickle.loads(pickle.dumps(caught.value)), copy.deepcopy(caught.value)):
                assert len(made.errors) == len(caught.value.errors)
        else:
            assert caught.value is error


@pytest.mark.parametrize("make", ODD)
def test_odd_exceptions_are_described(make: type[Exception]) -> None:
    """By the class, if there is no more."""
    assert describe(make()).startswith(make.__name__)


@pytest.mark.parametrize("mode", ["thread", "process", "async"])
def test_odd_exceptions_of_items_are_their_failures(core: hotpath.Core, mode: Any) -> None:
    """In every engine."""
    function: Any = araise_odd if mode == "async" else raise_odd
    mapped = opmap(mode, workers=2, progress=False, retries=2, min_delay=0)(function)
    for kind, result in zip(ODD, mapped(range(len(ODD))), strict=True):
        assert isinstance(result, AllFailedError), kind
        assert len(result.errors) == 2


def raise_odd(number: int) -> None:
    """Raise one of the odd exceptions."""
    raise ODD[number]


async def araise_odd(number: int) -> None:
    """Raise one of the odd exceptions."""
    raise ODD[number]
