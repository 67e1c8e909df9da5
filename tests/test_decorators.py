"""The decorated function: what one call does, step by step, and that it stays a function.

deadline( cache + single flight( retries( fallback values( breaker( permit( attempt )))))))
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import inspect
import itertools
import logging
import operator
import pickle
import sys
import threading
import time
import typing
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from crowd import flights_of, followers

from opero import (
    AllFailedError,
    CacheConfig,
    CacheKeyError,
    DeadlineExceeded,
    RateLimiter,
    clear_cache,
    get_cache_decorator,
    get_fallback_decorator,
    get_rate_limit_decorator,
    get_retry_decorator,
    hotpath,
    opero,
)
from opero.testing import manual_clock, skip_waits

DECORATORS = {
    "opero": opero,
    "opero()": opero(),
    "opero(cache)": opero(cache=True, retries=2, timeout=60),
    "cache": get_cache_decorator(),
    "retry": get_retry_decorator(),
    "rate limit": get_rate_limit_decorator(1e6),
    "fallback": get_fallback_decorator({"x": [0]}),
}
every_decorator = pytest.mark.parametrize("decorate", DECORATORS.values(), ids=DECORATORS)


class Script:
    """A function body that does what it was told, a deed for each attempt, and notes its calls."""

    def __init__(self, *deeds: object) -> None:
        self.deeds = list(deeds)
        self.seen: list[Any] = []

    def __call__(self, *arguments: Any) -> Any:
        """Do the next deed; the last one is done again and again."""
        self.seen.append(arguments[0] if len(arguments) == 1 else arguments)
        deed = self.deeds.pop(0) if len(self.deeds) > 1 else self.deeds[0]
        if isinstance(deed, BaseException) or (
            isinstance(deed, type) and issubclass(deed, BaseException)
        ):
            raise deed
        return deed


class Either:
    """Makes a function of a script, ordinary or coroutine, and calls it to the end."""

    def __init__(self, is_async: bool) -> None:
        self.is_async = is_async

    def decorated(self, script: Script, decorate: Callable[[Any], Any]) -> Any:
        """Decorate a function of one argument that does what the script says."""
        if self.is_async:

            async def function(x: Any = None) -> Any:
                await asyncio.sleep(0)
                return script(x)

        else:

            def function(x: Any = None) -> Any:  # type: ignore[misc]
                return script(x)

        return decorate(function)

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a decorated function and wait for its result."""
        if not self.is_async:
            return function(*args, **kwargs)

        async def main() -> Any:
            return await function(*args, **kwargs)

        return asyncio.run(main())


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def either(request: pytest.FixtureRequest) -> Either:
    """Both kinds of function."""
    return Either(request.param)


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work(number)` in threads that begin together; return results or exceptions."""
    barrier = threading.Barrier(count)
    found: list[Any] = [None] * count

    def begin(number: int) -> None:
        barrier.wait()
        try:
            found[number] = work(number)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            found[number] = error

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


# --- 1. the cache comes first ---------------------------------------------------------------------


def test_a_hit_is_answered_without_running_the_function(core: hotpath.Core, either: Either) -> None:
    """The same arguments, the same object."""
    script = Script([1], [2])
    function = either.decorated(script, opero(cache=True))
    assert either.call(function, 1) is either.call(function, 1)
    assert script.seen == [1]


def test_a_hit_touches_nothing_else(core: hotpath.Core, either: Either) -> None:
    """It takes no permit, makes no attempt, and waits for nothing."""
    script = Script("value")
    limiter = RateLimiter(0.001)
    function = either.decorated(
        script, opero(cache=True, rate_limit=limiter, retries=3, timeout=1, arg_fallback={"x": [9]})
    )
    with manual_clock() as clock:
        either.call(function, 1)
        for _ in range(5):
            assert either.call(function, 1) == "value"
        assert clock.waited == 0.0
        assert (function.stats().attempts, function.stats().hits) == (1, 5)
        clock.advance(1000)
        assert limiter.try_acquire(), "the hits took no permit"


@pytest.mark.parametrize("value", [None, False, 0, "", (), NotImplemented])
def test_none_is_a_value_like_any_other(core: hotpath.Core, either: Either, value: object) -> None:
    """So is everything else that is not true."""
    script = Script(value)
    function = either.decorated(script, opero(cache=True))
    assert either.call(function, 1) is value
    assert either.call(function, 1) is value
    assert script.seen == [1]


def test_only_returned_values_are_stored_never_an_exception(
    core: hotpath.Core, either: Either
) -> None:
    """After a failure the next call runs the function again."""
    script = Script(ValueError("once"), "value")
    function = either.decorated(script, opero(cache=True, retries=1))
    with pytest.raises(ValueError, match="once"):
        either.call(function, 1)
    assert function.cache_info().currsize == 0
    assert either.call(function, 1) == "value"


def test_a_returned_exception_is_a_value(core: hotpath.Core, either: Either) -> None:
    """Only what is raised is a failure."""
    error = ValueError()
    script = Script([error])
    function = either.decorated(script, opero(cache=True))
    assert [[error]] * 2 == [either.call(function, 1), either.call(function, 1)]
    assert script.seen == [1]


def test_values_expire_when_their_time_is_up(core: hotpath.Core, either: Either) -> None:
    """At `cache_ttl` seconds a value does not count any more."""
    script = Script(1, 2)
    function = either.decorated(script, opero(cache=True, cache_ttl=60))
    with manual_clock() as clock:
        assert either.call(function, "x") == 1
        clock.advance(59.999999)
        assert either.call(function, "x") == 1
        clock.advance(0.000001)
        assert either.call(function, "x") == 2


def test_the_number_of_values_is_bounded(core: hotpath.Core, either: Either) -> None:
    """`cache_maxsize` is the greatest number of entries."""
    function = either.decorated(Script("value"), opero(cache=True, cache_maxsize=5))
    for number in range(20):
        either.call(function, number)
    assert (function.cache_info().maxsize, function.cache_info().currsize) == (5, 5)


def test_the_number_of_values_may_be_unbounded(core: hotpath.Core) -> None:
    """`None` means no bound."""
    function = opero(cache=True, cache_maxsize=None)(lambda x: x)
    for number in range(3000):
        function(number)
    assert (function.cache_info().maxsize, function.cache_info().currsize) == (None, 3000)


def test_a_stored_value_belongs_to_the_arguments_as_they_were(
    core: hotpath.Core, either: Either
) -> None:
    """Neither the caller who changes them later nor the function that does moves it elsewhere."""

    class Changing(Script):
        def __call__(self, *arguments: Any) -> Any:
            arguments[0]["list"].append("by the function")
            return super().__call__(*arguments)

    function = either.decorated(Changing("first", "second", "third"), opero(cache=True))
    mine: dict[str, Any] = {"list": [1]}
    assert either.call(function, mine) == "first"
    assert either.call(function, {"list": [1]}) == "first"
    assert either.call(function, mine) == "second"
    mine["list"].append("by the caller")
    assert either.call(function, {"list": [1, "by the function"]}) == "second"
    assert either.call(function, {"list": [1, "by the function", "by the caller"]}) == "third"


def test_a_key_of_ones_own_is_made_from_the_calls_own_arguments(
    core: hotpath.Core, either: Either
) -> None:
    """`cache_key` gets them as they were given, and its result may be unhashable."""
    given: list[Any] = []

    def key(*args: Any, **kwargs: Any) -> list[Any]:
        given.append((args, kwargs))
        return [len(args)]

    script = Script("first", "second", "third")
    function = either.decorated(script, opero(cache=True, cache_key=key))
    assert either.call(function, object()) == "first"
    assert either.call(function, {"un": {"hashable"}}) == "first"
    assert either.call(function, x=1) == "second"
    assert [len(args) for args, _ in given[1:]] == [1, 0]
    assert given[-1][1] == {"x": 1}


def test_a_key_that_cannot_be_made_is_an_error_that_names_the_argument(
    core: hotpath.Core, either: Either
) -> None:
    """The function does not run."""
    script = Script("value")
    function = either.decorated(script, opero(cache=True))
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(CacheKeyError, match="argument 'x'"):
        either.call(function, loop)
    assert script.seen == []


def test_a_result_of_cache_key_that_makes_no_key_is_named(
    core: hotpath.Core, either: Either
) -> None:
    """It is not the user's argument that is at fault."""
    loop: list[Any] = []
    loop.append(loop)
    function = either.decorated(Script("value"), opero(cache=True, cache_key=lambda x: loop))
    with pytest.raises(CacheKeyError, match="the result of cache_key"):
        either.call(function, 1)


def test_a_value_that_cannot_be_stored_is_returned_all_the_same(
    core: hotpath.Core, either: Either, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning says so, without the arguments."""
    broken: list[bool] = []

    class Key:
        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> bool:
            if broken:
                raise RuntimeError("S3CR3T")
            return self is other

    class Breaking(Script):
        def __call__(self, *arguments: Any) -> Any:
            if len(self.seen) == 2:  # another one is compared with the first to make room
                broken.append(True)
            return super().__call__(*arguments)

    script = Breaking("first", "second", "third")
    function = either.decorated(script, opero(cache=True, cache_maxsize=2))
    first = Key()
    assert [either.call(function, first) for _ in range(3)] == ["first"] * 3
    assert [either.call(function, Key()), either.call(function, Key())] == ["second", "third"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{function.__qualname__}: the value is not cached" in caplog.text
    assert "S3CR3T" not in caplog.text
    assert flights_of(function) == []


def test_arguments_that_do_not_fit_are_a_type_error_and_not_retried(
    core: hotpath.Core, either: Either
) -> None:
    """With or without a cache, Python's rules hold, and no delay follows."""
    for options in ({}, {"cache": True}, {"rate_limit": 1e6, "burst": 5}, {"timeout": 5}):
        script = Script("value")
        function = either.decorated(script, opero(**options))
        with manual_clock() as clock:
            for args, kwargs in (((1, 2), {}), ((), {"y": 1}), ((1,), {"x": 1})):
                with pytest.raises(TypeError, match="argument"):
                    either.call(function, *args, **kwargs)
            assert clock.waited == 0.0
        assert script.seen == []


@pytest.mark.parametrize(
    ("signature", "fits", "misfits"),
    [
        ("(x, /)", [((1,), {})], [((), {"x": 1}), ((1,), {"x": 1}), ((1, 1), {}), ((), {})]),
        ("(x)", [((1,), {}), ((), {"x": 1})], [((1,), {"x": 1}), ((1, 1), {}), ((), {"y": 1})]),
        ("(x, y=2)", [((1,), {}), ((1, 2), {})], [((1, 2), {"y": 2}), ((), {"y": 2})]),
        ("(*, x)", [((), {"x": 1})], [((1,), {}), ((1,), {"x": 1}), ((), {})]),
    ],
)
def test_a_stored_value_is_no_answer_to_a_call_that_does_not_fit(
    core: hotpath.Core, either: Either, signature: str, fits: list[Any], misfits: list[Any]
) -> None:
    """By name what goes by position only, twice, or missing: an error and no hit."""
    prefix = "async " if either.is_async else ""
    scope: dict[str, Any] = {}
    exec(f"{prefix}def function{signature}: return 'value'", scope)
    function = opero(cache=True)(scope["function"])
    for args, kwargs in fits:
        assert either.call(function, *args, **kwargs) == "value"
    hits = function.stats().hits
    for args, kwargs in misfits:
        with pytest.raises(TypeError):
            either.call(function, *args, **kwargs)
    assert function.stats().hits == hits == len(fits) - 1


def test_a_type_error_from_inside_the_function_is_retried(
    core: hotpath.Core, either: Either
) -> None:
    """Only a call that does not fit is beyond help."""
    script = Script(TypeError("inside"), "value")
    function = either.decorated(script, opero(min_delay=0))
    assert either.call(function, 1) == "value"


# --- 2. single flight -----------------------------------------------------------------------------


def wait_until(condition: Callable[[], bool]) -> None:
    """Let other threads run until the condition holds."""
    while not condition():
        time.sleep(0)


def test_threads_that_miss_one_key_share_one_run(core: hotpath.Core) -> None:
    """Eight callers, one run, one value."""
    entered = []

    @opero(cache=True)
    def function(x: int) -> list[int]:
        entered.append(x)
        wait_until(lambda: followers(function) == 7)
        return [x]

    found = in_threads(8, lambda number: function(1))
    assert entered == [1]
    assert len({id(value) for value in found}) == 1
    assert (function.stats().misses, function.stats().hits, function.stats().attempts) == (8, 0, 1)


def test_tasks_that_miss_one_key_share_one_run(core: hotpath.Core) -> None:
    """A hundred callers, one run, one value."""
    entered = []

    @opero(cache=True)
    async def function(x: int) -> list[int]:
        entered.append(x)
        await asyncio.sleep(0)
        return [x]

    async def main() -> list[Any]:
        return await asyncio.gather(*[function(1) for _ in range(100)])

    found = asyncio.run(main())
    assert entered == [1]
    assert len({id(value) for value in found}) == 1


def test_callers_of_different_keys_do_not_wait_for_each_other(core: hotpath.Core) -> None:
    """Each key has a flight of its own."""
    both = threading.Barrier(2)
    function = opero(cache=True)(lambda x: both.wait() * 0 + x)
    assert in_threads(2, function) == [0, 1]


def test_threads_share_a_failure_too(core: hotpath.Core) -> None:
    """The very same exception goes to every caller, and is not stored."""
    entered = []

    @opero(cache=True, retries=1)
    def function() -> None:
        entered.append(1)
        wait_until(lambda: followers(function) == 3)
        raise ValueError("shared")

    found = in_threads(4, lambda number: function())
    assert entered == [1]
    assert [str(error) for error in found] == ["shared"] * 4
    assert len({id(error) for error in found}) == 1
    assert function.cache_info().currsize == 0


def test_tasks_share_a_failure_too(core: hotpath.Core) -> None:
    """The very same exception goes to every caller, and is not stored."""
    entered = []

    @opero(cache=True, retries=2, min_delay=0)
    async def function() -> None:
        entered.append(1)
        await asyncio.sleep(0)
        raise ValueError("shared")

    async def main() -> list[Any]:
        return await asyncio.gather(*[function() for _ in range(20)], return_exceptions=True)

    found = asyncio.run(main())
    assert entered == [1, 1]
    assert [AllFailedError] * 20 == [type(error) for error in found]
    assert len({id(error) for error in found}) == 1
    assert function.cache_info().currsize == 0


def test_a_cancelled_waiter_does_not_disturb_the_others(core: hotpath.Core) -> None:
    """Be it the one that came first or another."""
    for victim in (0, 1, 2):
        going = []

        @opero(cache=True)
        async def function() -> str:
            while not going:
                await asyncio.sleep(0)
            return "value"

        async def main() -> list[Any]:
            tasks = [asyncio.create_task(function()) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            tasks[victim].cancel()
            await asyncio.sleep(0)
            going.append(True)
            return await asyncio.gather(*tasks, return_exceptions=True)

        found = asyncio.run(main())
        assert isinstance(found.pop(victim), asyncio.CancelledError)
        assert found == ["value", "value"]


def test_the_run_is_cancelled_when_its_last_waiter_is_gone(core: hotpath.Core) -> None:
    """And not before."""
    ended: list[str] = []

    @opero(cache=True)
    async def function() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main() -> None:
        tasks = [asyncio.create_task(function()) for _ in range(2)]
        for _ in range(3):
            await asyncio.sleep(0)
        tasks[0].cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert ended == []
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert ended == ["cancelled"]

    asyncio.run(main())
    assert function.cache_info().currsize == 0


def test_nothing_is_left_behind_per_key_afterwards(core: hotpath.Core, either: Either) -> None:
    """No flight, no task, neither after a value nor after a failure."""
    script = Script(ValueError(), "value", KeyError(), "other")
    function = either.decorated(script, opero(cache=True, retries=1))
    for number in range(4):
        with contextlib.suppress(ValueError, KeyError):
            either.call(function, number)
    assert dict(function.__opero__.store.flights) == {}


def test_a_function_that_calls_itself_with_the_same_arguments_does_not_hang(
    core: hotpath.Core, either: Either
) -> None:
    """What would recurse without a cache recurses with one."""
    depth = []
    function: Any

    def body() -> int:
        depth.append(1)
        return len(depth)

    if either.is_async:

        @opero(cache=True, retries=1)
        async def function(x: int) -> int:
            return body() if len(depth) > 3 else (body() and await function(x))

    else:

        @opero(cache=True, retries=1)
        def function(x: int) -> int:
            return body() if len(depth) > 3 else (body() and function(x))

    assert either.call(function, 1) == 5


def test_recursion_with_other_arguments_is_cached_at_each_level(core: hotpath.Core) -> None:
    """The usual example."""

    @get_cache_decorator()
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(40) == 102334155
    assert fibonacci.stats().attempts == 41


@pytest.mark.parametrize(
    "forget", [operator.methodcaller("cache_invalidate", 1), operator.methodcaller("cache_clear")]
)
def test_a_value_invalidated_while_it_is_computed_is_not_stored(
    core: hotpath.Core, either: Either, forget: Callable[[Any], Any]
) -> None:
    """It was out of date before it was there."""

    class Forgetful(Script):
        def __call__(self, *arguments: Any) -> Any:
            if len(self.seen) == 0:
                forget(function)
            return super().__call__(*arguments)

    function = either.decorated(Forgetful("old", "new", "newer"), opero(cache=True))
    assert either.call(function, 1) == "old"
    assert function.cache_info().currsize == 0
    assert [either.call(function, 1), either.call(function, 1)] == ["new", "new"]


# --- 3. retry -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 1), (2, 2), (3, 3), (7, 7)])
def test_retries_is_the_total_number_of_attempts(
    core: hotpath.Core, either: Either, retries: int, attempts: int
) -> None:
    """And 0 and 1 both mean one."""
    script = Script(ValueError())
    function = either.decorated(script, get_retry_decorator(retries=retries, min_delay=0))
    with pytest.raises((AllFailedError, ValueError)):
        either.call(function)
    assert attempts == len(script.seen)


def test_the_first_success_ends_the_call(core: hotpath.Core, either: Either) -> None:
    """No attempt is made after it."""
    script = Script(ValueError(), "value", KeyError())
    function = either.decorated(script, opero(retries=5, min_delay=0))
    assert either.call(function) == "value"
    assert len(script.seen) == 2


def test_without_jitter_the_delays_are_the_ceilings(core: hotpath.Core, either: Either) -> None:
    """`min(max_delay, min_delay * backoff_factor ** (n - 1))` before attempt n+1."""
    times: list[float] = []

    class Timed(Script):
        def __call__(self, *arguments: Any) -> Any:
            times.append(clock.waited)
            return super().__call__(*arguments)

    function = either.decorated(
        Timed(ValueError()),
        opero(retries=6, min_delay=1, backoff_factor=2, max_delay=5, jitter=False),
    )
    with manual_clock() as clock, pytest.raises(AllFailedError):
        either.call(function)
    delays = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pytest.approx([1, 2, 4, 5, 5]) == delays


def test_with_jitter_delays_lie_between_the_shortest_and_the_ceiling(
    core: hotpath.Core, either: Either
) -> None:
    """It is the default, and the delays differ."""
    delays = set()
    function = either.decorated(
        Script(ValueError()), opero(retries=3, min_delay=1, backoff_factor=3, max_delay=9)
    )
    for _ in range(20):
        with manual_clock() as clock, pytest.raises(AllFailedError):
            either.call(function)
        assert 2 <= clock.waited <= 4.000001
        delays.add(clock.waited)
    assert len(delays) > 10


@pytest.mark.parametrize(
    ("retry_on", "again"),
    [
        (ValueError, True),
        (Exception, True),
        ((KeyError, ValueError), True),
        (KeyError, False),
        ((), False),
        (lambda error: str(error) == "no", True),
        (lambda error: False, False),
    ],
)
def test_retry_on_takes_a_type_a_tuple_or_a_predicate(
    core: hotpath.Core, either: Either, retry_on: Any, again: bool
) -> None:
    """What matches is attempted again."""
    script = Script(ValueError("no"), "value")
    function = either.decorated(script, opero(retry_on=retry_on, min_delay=0))
    if again:
        assert either.call(function) == "value"
    else:
        with pytest.raises(ValueError, match="no"):
            either.call(function)
    assert again == (len(script.seen) == 2)


def test_what_does_not_match_propagates_at_once_unchanged(
    core: hotpath.Core, either: Either
) -> None:
    """The very same exception, without cause or context, also in a later attempt."""
    error = KeyError("mine")
    for script in (Script(error), Script(ValueError(), error)):
        function = either.decorated(script, opero(retry_on=ValueError, retries=5, min_delay=0))
        with pytest.raises(KeyError) as caught:
            either.call(function)
        assert caught.value is error
        assert (error.__cause__, error.__context__) == (None, None)
        assert any(frame.name == "function" for frame in caught.traceback)


@pytest.mark.parametrize(
    "kind", [asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit]
)
@pytest.mark.parametrize(
    "options",
    [
        {"retry_on": Exception},
        {"retry_on": BaseException},
        {"retry_on": lambda error: True},
        {"arg_fallback": {"x": [1, 2]}},
        {"cache": True},
        {"rate_limit": 1e6},
        {"timeout": 60},
    ],
    ids=[
        "Exception",
        "BaseException",
        "callable",
        "arg_fallback",
        "cache",
        "rate_limit",
        "timeout",
    ],
)
def test_what_ends_a_task_or_the_program_is_never_retried_cached_or_wrapped(
    core: hotpath.Core, either: Either, kind: type[BaseException], options: dict[str, Any]
) -> None:
    """It goes up as it is, from the first attempt."""
    script = Script(kind(), "value")
    function = either.decorated(script, opero(min_delay=0, **options))
    caught = []

    async def main() -> None:
        try:
            await function(0)
        except kind as error:
            caught.append(error)

    try:  # asyncio lets two of the kinds out of a task past whoever awaits it
        asyncio.run(main()) if either.is_async else function(0)
    except kind as error:
        caught.append(error)
    assert {kind} == {type(error) for error in caught}
    assert script.seen == [0]
    assert function.cache_info().currsize == 0


def test_a_predicate_that_raises_ends_the_call_with_its_own_error(
    core: hotpath.Core, either: Either
) -> None:
    """A broken predicate is not hidden, and does not hide what the function has raised."""

    def broken(error: Exception) -> bool:
        raise RuntimeError("broken predicate")

    for options in ({"retry_on": broken}, {"fallback_on": broken, "arg_fallback": {"x": [1]}}):
        failure = ValueError()
        function = either.decorated(Script(failure), opero(**options))
        with pytest.raises(RuntimeError, match="broken predicate") as caught:
            either.call(function)
        assert caught.value.__context__ is failure


def test_a_predicate_that_raises_the_error_again_makes_no_circle(
    core: hotpath.Core, either: Either
) -> None:
    """Nor does one that raises what the error came from."""
    before = KeyError()
    failure = ValueError()
    failure.__context__ = before
    for raised in (failure, before):

        def broken(error: Exception, raised: Exception = raised) -> bool:
            raise raised

        function = either.decorated(Script(failure), opero(retry_on=broken))
        with pytest.raises(type(raised)) as caught:
            either.call(function)
        assert caught.value is raised
        assert (failure.__context__, before.__context__) == (before, None)


def test_a_single_attempt_asks_no_predicate(core: hotpath.Core, either: Either) -> None:
    """There is nothing to decide, also where a permit was waited for."""
    for options in ({}, {"rate_limit": 100.0}):
        asked: list[Exception] = []
        function = either.decorated(
            Script(ValueError("it failed")), opero(retries=1, retry_on=asked.append, **options)
        )
        for _ in range(2):
            with pytest.raises(ValueError, match="it failed"):
                either.call(function)
        assert asked == []
        assert function.stats().failures == 2


# --- 5. the rate limit ----------------------------------------------------------------------------


def test_every_attempt_pays_a_permit(core: hotpath.Core, either: Either) -> None:
    """First tries, retries and fallback values alike: the starts are evenly spaced."""
    times: list[float] = []

    class Timed(Script):
        def __call__(self, *arguments: Any) -> Any:
            times.append(clock.waited)
            return super().__call__(*arguments)

    function = either.decorated(
        Timed(ValueError()),
        opero(retries=2, min_delay=0, rate_limit=2.0, arg_fallback={"x": ["b", "c"]}),
    )
    with manual_clock() as clock:
        for _ in range(2):
            with pytest.raises(AllFailedError):
                either.call(function, "a")
    assert pytest.approx([number / 2 for number in range(12)]) == times


def test_a_function_never_starts_more_often_than_the_rate_allows(
    core: hotpath.Core, either: Either
) -> None:
    """A burst after a pause, then one after the other."""
    times: list[float] = []

    class Timed(Script):
        def __call__(self, *arguments: Any) -> Any:
            times.append(clock.waited)

    function = either.decorated(Timed(None), opero(rate_limit=10.0, burst=3))
    with manual_clock() as clock:
        for _ in range(6):
            either.call(function)
        clock.advance(100)
        for _ in range(4):
            either.call(function)
    assert pytest.approx([0, 0, 0, 0.1, 0.2, 0.3, 100.3, 100.3, 100.3, 100.4]) == times


def test_backoff_and_permit_are_waited_for_one_after_the_other(
    core: hotpath.Core, either: Either
) -> None:
    """A permit is asked for when the backoff is over, and is free by then if that took longer."""
    function = either.decorated(
        Script(ValueError(), "value"), opero(rate_limit=1.0, min_delay=5, jitter=False)
    )
    with manual_clock() as clock:
        either.call(function)
        assert pytest.approx(clock.waited) == 5.0
    assert pytest.approx((function.stats().permit_wait, function.stats().backoff_wait)) == (
        0.0,
        5.0,
    )


# --- 6. failure -----------------------------------------------------------------------------------


def test_when_the_attempts_are_used_up_every_error_is_told_in_order(
    core: hotpath.Core, either: Either
) -> None:
    """The last one is the cause."""
    errors = [ValueError(1), KeyError(2), OSError(3)]
    function = either.decorated(Script(*errors), opero(retries=3, min_delay=0))
    with pytest.raises(AllFailedError) as caught:
        either.call(function)
    assert all(one is other for one, other in zip(errors, caught.value.errors, strict=True))
    assert caught.value.__cause__ is errors[-1]
    assert "function failed in all 3 attempts; the last error: OSError: 3" in str(caught.value)


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("options", [{}, {"cache": True}, {"rate_limit": 1e6}, {"timeout": 60}])
def test_a_function_with_one_attempt_and_no_fallback_raises_its_own_exception_untouched(
    core: hotpath.Core, either: Either, retries: int, options: dict[str, Any]
) -> None:
    """There is nothing to add to it."""
    error = ValueError("mine")
    function = either.decorated(Script(error), opero(retries=retries, **options))
    with pytest.raises(ValueError, match="mine") as caught:
        either.call(function)
    assert caught.value is error
    assert (error.__cause__, error.__context__) == (None, None)


def test_a_failure_pickles_with_all_errors(core: hotpath.Core, either: Either) -> None:
    """As raised, tracebacks and all."""
    function = either.decorated(Script(ValueError(1), KeyError(2)), opero(retries=2, min_delay=0))
    with pytest.raises(AllFailedError) as caught:
        either.call(function)
    twin = pickle.loads(pickle.dumps(caught.value))
    assert [ValueError, KeyError] == [type(error) for error in twin.errors]


# --- 7. the deadline ------------------------------------------------------------------------------


def test_a_backoff_that_cannot_end_in_time_is_not_begun(core: hotpath.Core, either: Either) -> None:
    """The call ends at once, with the errors so far."""
    function = either.decorated(
        Script(ValueError(1), ValueError(2), "too late"),
        opero(min_delay=4, backoff_factor=2, jitter=False, timeout=10, retries=5),
    )
    with manual_clock() as clock:
        with pytest.raises(DeadlineExceeded) as caught:
            either.call(function)
        assert pytest.approx(clock.waited) == 4.0, "the second delay, of 8 s, was not begun"
    assert [error.args[0] for error in caught.value.errors] == [1, 2]
    assert caught.value.__cause__ is caught.value.errors[-1]
    assert "function cannot finish within its timeout of 10 s" in str(caught.value)


def test_a_wait_for_a_permit_that_cannot_end_in_time_is_not_begun(
    core: hotpath.Core, either: Either
) -> None:
    """Nor is a place in the line kept."""
    limiter = RateLimiter(0.1)
    function = either.decorated(Script("value"), opero(rate_limit=limiter, timeout=5))
    with manual_clock() as clock:
        assert either.call(function) == "value"
        with pytest.raises(DeadlineExceeded) as caught:
            either.call(function)
        assert (clock.waited, caught.value.errors) == (0.0, [])
        clock.advance(6)
        assert either.call(function) == "value"
        assert pytest.approx(clock.waited) == 10.0


def test_the_deadline_is_for_the_whole_call_waits_included(
    core: hotpath.Core, either: Either
) -> None:
    """Backoff, permits and attempts all count."""

    class Slow(Script):
        def __call__(self, *arguments: Any) -> Any:
            clock.advance(2)
            return super().__call__(*arguments)

    function = either.decorated(
        Slow(ValueError()),
        opero(retries=100, min_delay=1, max_delay=1, rate_limit=1.0, timeout=10),
    )
    with manual_clock() as clock:
        with pytest.raises(DeadlineExceeded) as caught:
            either.call(function)
        assert pytest.approx(clock.waited) == 11.0, "the last attempt began in time, after 9 s"
    assert len(caught.value.errors) == 4


def test_a_call_that_is_over_in_time_does_not_notice_its_deadline(
    core: hotpath.Core, either: Either
) -> None:
    """Its value, or its failure, is what it would have been."""
    function = either.decorated(Script(ValueError(), "value"), opero(timeout=60, min_delay=1))
    with manual_clock():
        assert either.call(function) == "value"
    function = either.decorated(Script(ValueError()), opero(timeout=60, min_delay=1, retries=2))
    with manual_clock(), pytest.raises(AllFailedError):
        either.call(function)


def test_an_awaited_attempt_is_cut_when_the_deadline_passes(core: hotpath.Core) -> None:
    """The attempt sees that it is cancelled, the caller a timeout."""
    ended: list[str] = []

    @opero(timeout=0.01)
    async def function() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cut")
            raise

    async def main() -> None:
        await function()

    with pytest.raises(TimeoutError) as caught:
        asyncio.run(main())
    assert (DeadlineExceeded, ["cut"]) == (type(caught.value), ended)


def test_a_running_ordinary_attempt_is_not_cut(core: hotpath.Core) -> None:
    """It cannot be; its value counts even though it is late."""

    @opero(timeout=1)
    def function() -> str:
        clock.advance(100)
        return "late, but there"

    with manual_clock() as clock:
        assert function() == "late, but there"


def test_a_deadline_belongs_to_one_call(core: hotpath.Core, either: Either) -> None:
    """The next one has all of its time again."""
    function = either.decorated(Script("value"), opero(timeout=5, rate_limit=0.25))
    with manual_clock() as clock:
        for _ in range(5):
            assert either.call(function) == "value"
        assert pytest.approx(clock.waited) == 16.0


# --- a function like any other --------------------------------------------------------------------


@every_decorator
def test_an_ordinary_function_stays_one(core: hotpath.Core, decorate: Any) -> None:
    """There is no event loop anywhere."""

    def function(x: int) -> int:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return x + 1

    wrapped = decorate(function)
    assert wrapped(1) == 2
    assert not inspect.iscoroutinefunction(wrapped)


@every_decorator
def test_a_coroutine_function_stays_one(core: hotpath.Core, decorate: Any) -> None:
    """`inspect.iscoroutinefunction` is true, and a call returns a coroutine."""

    async def function(x: int) -> int:
        return x + 1

    wrapped = decorate(function)
    assert inspect.iscoroutinefunction(wrapped)

    async def main() -> list[int]:
        coroutines = [wrapped(1), wrapped(1), wrapped(x=2)]
        assert [inspect.iscoroutine(each) for each in coroutines] == [True] * 3
        return [await coroutines[0], await coroutines[1], await asyncio.create_task(coroutines[2])]

    assert asyncio.run(main()) == [2, 2, 3]


@every_decorator
def test_the_attributes_that_wraps_keeps_are_kept(core: hotpath.Core, decorate: Any) -> None:
    """Name, module, documentation, annotations, and what a user put there."""

    def function(x: int, y: str = "y") -> float:
        """Say something."""
        return 0.0

    function.mark = "mine"  # type: ignore[attr-defined]
    wrapped = decorate(function)
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__", "mark"):
        assert getattr(function, name) == getattr(wrapped, name)
    assert wrapped.__wrapped__ is function
    assert inspect.unwrap(wrapped) is function


@every_decorator
def test_attributes_of_the_function_cannot_break_the_wrapper(
    core: hotpath.Core, decorate: Any
) -> None:
    """Whatever they are called."""

    def function(x: int) -> int:
        return x

    for name in (
        "calls",
        "hits",
        "name",
        "store",
        "policy",
        "timeout",
        "limiter",
        "method",
        "func",
    ):
        setattr(function, name, "the user's own")
    wrapped = decorate(function)
    assert [wrapped(1), wrapped(2)] == [1, 2]
    assert wrapped.stats().calls == 2


@every_decorator
def test_the_signature_is_kept(core: hotpath.Core, decorate: Any) -> None:
    """For `inspect`, `help` and type hints at run time."""

    def function(a: int, /, x: str = "x", *rest: int, z: float, **more: object) -> bool:
        return True

    wrapped = decorate(function)
    assert inspect.signature(function) == inspect.signature(wrapped)
    assert typing.get_type_hints(function) == typing.get_type_hints(wrapped)
    assert inspect.getsource(function) == inspect.getsource(wrapped)


def test_it_works_with_and_without_parentheses(core: hotpath.Core) -> None:
    """Both ways mean the defaults."""

    @opero
    def bare(x: int) -> int:
        return x

    @opero()
    def called(x: int) -> int:
        return x

    assert [bare(1), called(2)] == [1, 2]
    for function in (bare, called):
        assert function.__opero__.policy.rounds == 3
        assert function.cache_info().maxsize == 0


def test_defaults_are_those_of_the_reference(core: hotpath.Core) -> None:
    """Three attempts, 0.1 s growing by 1.5 up to 30 s, with jitter, on any `Exception`."""
    policy = opero(lambda: None).__opero__.policy
    assert (3, 1.5, 0.1, 30.0, True, (Exception,)) == (
        policy.rounds,
        policy.factor,
        policy.min_delay,
        policy.max_delay,
        policy.jitter,
        policy.types,
    )


@every_decorator
def test_arguments_reach_the_function_as_they_were_given(core: hotpath.Core, decorate: Any) -> None:
    """Positional, by keyword, extra ones, and names that the wrapper might use itself."""

    def function(x: Any = 0, *rest: Any, self: Any = None, args: Any = None, **more: Any) -> Any:
        return x, rest, self, args, more

    wrapped = decorate(function)
    for args, kwargs in (
        ((), {}),
        ((1, 2, 3), {}),
        ((1,), {"self": 5, "args": 6, "kwargs": 7, "function": 8, "deadline": 9}),
        ((1, 2), {"instance": 1, "call": 2, "key": 3}),
    ):
        assert function(*args, **kwargs) == wrapped(*args, **kwargs)


def test_no_state_of_one_call_lives_on_the_function(core: hotpath.Core) -> None:
    """Calls that overlap, in threads and in recursion, do not mix their attempts."""

    @opero(retries=3, min_delay=0)
    def function(depth: int, failures: dict[int, int]) -> int:
        failures[depth] = failures.get(depth, 0) + 1
        if failures[depth] < 3:
            raise ValueError(depth)
        return depth + (function(depth - 1, failures) if depth else 0)

    found = in_threads(4, lambda number: [function(5, {}) for _ in range(20)])
    assert found == [[15] * 20] * 4


# --- methods --------------------------------------------------------------------------------------


class Base:
    """A class whose methods are decorated in every way."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.runs = 0

    @opero(cache=True)
    def plain(self, x: int) -> tuple[int, int]:
        """Add nothing."""
        self.runs += 1
        return self.number, x

    @opero
    def uncached(self, x: int) -> tuple[int, int]:
        """Run each time."""
        self.runs += 1
        return self.number, x

    @opero(cache=True)
    async def awaited(self, x: int) -> tuple[int, int]:
        """Run once, awaited."""
        self.runs += 1
        return self.number, x

    @opero(cache=True)
    @classmethod
    def of_class(cls, x: int) -> tuple[str, int]:
        """Decorated above."""
        return cls.__name__, x

    @classmethod
    @opero(cache=True)
    def of_class_below(cls, x: int) -> tuple[str, int]:
        """Decorated below."""
        return cls.__name__, x

    @opero(cache=True)
    @staticmethod
    def static(x: int) -> int:
        """Decorated above."""
        return x

    @staticmethod
    @opero(cache=True)
    def static_below(x: int) -> int:
        """Decorated below."""
        return x

    @property
    @opero(cache=True)
    def computed(self) -> int:
        """Run once."""
        self.runs += 1
        return self.number


class Derived(Base):
    """Inherits them all."""


@opero(cache=True, retries=2)
def at_module_level(x: int) -> int:
    """Can be found by name."""
    return x


@opero(cache=True)
async def awaited_at_module_level(x: int) -> int:
    """Can be found by name too."""
    return x


@functools.cache
def code_of_things() -> Any:
    """Compile the classes above."""
    source = "\n\n".join(inspect.getsource(kind) for kind in (Base, Derived))
    return compile(source, __file__, "exec", dont_inherit=False)


@pytest.fixture
def things(core: hotpath.Core) -> tuple[Any, Any]:
    """The classes above, made anew by the half under test."""
    scope = dict(vars(sys.modules[__name__]))
    exec(code_of_things(), scope)
    return scope["Base"], scope["Derived"]


def test_a_method_gets_its_instance(things: Any) -> None:
    """From the instance and from the class."""
    base, derived = things
    for kind in (base, derived):
        thing = kind(5)
        assert (5, 1) == thing.plain(1) == thing.plain(x=1) == kind.plain(thing, 1)
        assert (5, 1) == thing.uncached(1) == thing.uncached(x=1) == base.uncached(thing, x=1)
        assert 5 == thing.computed == thing.computed


def test_a_method_is_cached_for_each_instance(things: Any) -> None:
    """Instances of a class, and of its subclass, do not see each other's values."""
    base, derived = things
    one, other, third = base(1), base(2), derived(3)
    for _ in range(2):
        assert [thing.plain(9) for thing in (one, other, third)] == [(1, 9), (2, 9), (3, 9)]
    assert [thing.runs for thing in (one, other, third)] == [1, 1, 1]


def test_equal_instances_are_still_two(core: hotpath.Core) -> None:
    """`self` counts by identity, so even instances that say they are equal are told apart."""

    class Equal:
        def __init__(self, name: str) -> None:
            self.name = name

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

        @opero(cache=True)
        def method(self) -> str:
            return self.name

    assert [Equal("one").method(), Equal("two").method()] == ["one", "two"]


def test_a_cached_method_never_keeps_its_instance_alive(things: Any) -> None:
    """The last reference gone, the instance is gone, ordinary method or coroutine."""
    base, _ = things
    thing = base(1)
    thing.plain(1)
    asyncio.run(thing.awaited(1))
    assert base.plain.cache_info().currsize == 1
    ref = weakref.ref(thing)
    del thing
    assert ref() is None
    assert base.plain.cache_info().currsize == 0


@pytest.mark.parametrize(
    "outer", [get_retry_decorator(), get_cache_decorator(), get_rate_limit_decorator(1e6)]
)
def test_a_cached_method_below_another_decorator_never_keeps_its_instance_alive(
    core: hotpath.Core, outer: Any
) -> None:
    """The decorators may be stacked."""

    class Thing:
        @outer
        @get_cache_decorator()
        def method(self, x: int) -> int:
            return x

    thing = Thing()
    assert [thing.method(1), thing.method(1), thing.method(2)] == [1, 1, 2]
    ref = weakref.ref(thing)
    del thing
    gc.collect()
    assert ref() is None


def other_wrapper(function: Any) -> Any:
    """Wrap a function as a decorator of somebody else does."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize("outer", [property, other_wrapper, functools.cached_property])
def test_a_cached_method_below_something_that_is_not_of_opero_lets_its_instance_go_too(
    core: hotpath.Core, outer: Any
) -> None:
    """A property, or a decorator that knows nothing of opero."""

    class Thing:
        @outer
        @opero(cache=True)
        def method(self) -> int:
            return 5

    thing = Thing()
    found = thing.method
    assert (found() if callable(found) else found) == 5
    ref = weakref.ref(thing)
    del thing, found
    gc.collect()
    assert ref() is None


def test_a_cached_method_written_outside_its_class_lets_its_instance_go_too(
    core: hotpath.Core,
) -> None:
    """It is known by its `self`; called with something else, it counts that by its content."""

    def method(self: Any, x: int) -> tuple[str, int]:
        return type(self).__name__, x

    class Thing:
        inside = opero(cache=True)(method)

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    outside: Any = opero(cache=True)(method)
    Thing.outside = outside  # type: ignore[attr-defined]
    thing: Any = Thing()
    for bound in (thing.inside, thing.outside):
        assert [bound(1), bound(1), bound(x=2)] == [("Thing", 1), ("Thing", 1), ("Thing", 2)]
        assert bound.stats().hits == 1
    ref = weakref.ref(thing)
    del thing, bound
    gc.collect()
    assert ref() is None
    assert outside.cache_info().currsize == 0
    assert [outside(1, 2), outside(1, 2), outside(1.0, 2)] == [("int", 2), ("int", 2), ("float", 2)]
    assert outside.stats().hits == 2


def test_a_cached_method_that_is_being_called_keeps_its_instance_alive_until_it_ends(
    core: hotpath.Core,
) -> None:
    """The call itself holds it, also when it was the only reference."""

    class Thing:
        @opero(cache=True)
        def method(self, x: int) -> int:
            return x + self.one

        one = 1

    assert Thing().method(2) == 3


def test_an_instance_without_weak_references_needs_a_key_of_ones_own(core: hotpath.Core) -> None:
    """Without one the error says what to do; with one it works."""

    class Slotted:
        __slots__ = ()

        @opero(cache=True)
        def method(self) -> int:
            return 1

        @opero(cache=True, cache_key=lambda self: "key")
        def keyed(self) -> int:
            return 2

        @opero
        def uncached(self) -> int:
            return 3

    with pytest.raises(CacheKeyError, match="__weakref__"):
        Slotted().method()
    assert [Slotted().keyed(), Slotted().uncached()] == [2, 3]


def test_the_key_function_of_a_method_gets_the_instance(core: hotpath.Core) -> None:
    """It is one of the call's own arguments, so instances can share values."""

    class Thing:
        def __init__(self, name: str) -> None:
            self.name = name
            self.runs = 0

        @opero(cache=True, cache_key=lambda self, x: (self.name, x))
        def method(self, x: int) -> int:
            self.runs += 1
            return x

    one, twin = Thing("same"), Thing("same")
    assert [one.method(1), twin.method(1), twin.method(1)] == [1, 1, 1]
    assert [one.runs, twin.runs] == [1, 0]


def test_a_class_method_gets_its_class(things: Any) -> None:
    """Decorated above or below `classmethod`, on class and instance, in class and subclass."""
    base, derived = things
    for name in ("of_class", "of_class_below"):
        for _ in range(2):
            assert ("Base", 1) == getattr(base, name)(1) == getattr(base(0), name)(x=1)
            assert ("Derived", 1) == getattr(derived, name)(1) == getattr(derived(0), name)(x=1)
        assert getattr(base, name).cache_info().currsize == 2


def test_a_static_method_gets_its_arguments_only(things: Any) -> None:
    """Decorated above or below `staticmethod`, on class and instance."""
    base, derived = things
    for name in ("static", "static_below"):
        for thing in (base, base(0), derived, derived(0)):
            assert getattr(thing, name)(7) == 7
        assert getattr(base, name).cache_info()[:2] == (3, 1)


def test_an_awaited_method_is_cached_for_each_instance(things: Any) -> None:
    """And is a coroutine function on class and instance."""
    base, _ = things
    one, other = base(1), base(2)

    async def main() -> list[Any]:
        return await asyncio.gather(one.awaited(9), one.awaited(x=9), other.awaited(9))

    assert asyncio.run(main()) == [(1, 9), (1, 9), (2, 9)]
    assert [one.runs, other.runs] == [1, 1]
    assert inspect.iscoroutinefunction(base.awaited)
    assert inspect.iscoroutinefunction(one.awaited)
    assert not inspect.iscoroutinefunction(one.plain)


def test_a_bound_method_looks_like_one(things: Any) -> None:
    """It has its instance, its function, a signature without `self`, and the function's names."""
    base, _ = things
    thing = base(1)
    method = thing.plain
    assert method.__self__ is thing
    assert method.__func__ is base.plain
    assert str(inspect.signature(method)) == "(x: 'int') -> 'tuple[int, int]'"
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__wrapped__"):
        assert getattr(base.plain, name) == getattr(method, name)
    with pytest.raises(AttributeError, match="nothing_like_that"):
        method.nothing_like_that  # noqa: B018


def test_bound_methods_are_equal_when_instance_and_function_are_the_same(things: Any) -> None:
    """As Python's own are, by identity of the instance."""
    base, _ = things
    one, other = base(1), base(1)
    assert one.plain == one.plain
    assert hash(one.plain) == hash(one.plain)
    assert one.plain != other.plain
    assert one.plain != one.uncached
    assert one.plain != 5
    assert len({one.plain, one.plain}) == 1


def test_a_bound_method_has_the_figures_and_the_cache_of_the_function(things: Any) -> None:
    """`cache_invalidate` is about its own instance."""
    base, _ = things
    one, other = base(1), base(2)
    for thing in (one, other):
        thing.plain(5)
    assert base.plain.cache_info() == one.plain.cache_info()
    assert base.plain.stats() == one.plain.stats()
    assert [one.plain.cache_invalidate(5), one.plain.cache_invalidate(x=5)] == [True, False]
    one.plain(5), other.plain(5)
    assert [one.runs, other.runs] == [2, 1]
    assert base.plain.cache_invalidate(other, 5)
    other.plain(5)
    assert other.runs == 2


def test_a_method_can_be_called_in_every_way_python_has(things: Any) -> None:
    """Directly, through a variable, unpacked, by `map`, `partial` and `methodcaller` alike."""
    base, _ = things
    thing = base(4)
    method = thing.plain
    args, kwargs = (1,), {"x": 1}
    assert {(4, 1)} == {
        thing.plain(1),
        method(1),
        method(*args),
        method(**kwargs),
        *map(method, [1]),
        functools.partial(method, 1)(),
        functools.partial(base.plain, thing)(x=1),
        functools.reduce(lambda _, x: method(x), [1], None),
    }
    assert sorted(map(thing.uncached, [1, 2, 3]), key=lambda p: p[1] % 3) == [
        (4, 3),
        (4, 1),
        (4, 2),
    ]


def test_a_function_put_into_a_class_later_is_a_method_of_it(core: hotpath.Core) -> None:
    """It binds, and counts its instance by identity like any argument."""

    class Thing:
        pass

    @opero(cache=True)
    def method(self: Any, x: int) -> tuple[int, int]:
        return id(self), x

    Thing.method = method  # type: ignore[attr-defined]
    one, other = Thing(), Thing()
    for thing in (one, other):
        assert (id(thing), 1) == thing.method(1)  # type: ignore[attr-defined]


def test_a_cached_method_of_a_nested_class_is_one(core: hotpath.Core) -> None:
    """Its instances die as those of any other class."""

    class Outer:
        class Inner:
            @opero(cache=True)
            def method(self) -> int:
                return 1

    thing = Outer.Inner()
    thing.method()
    ref = weakref.ref(thing)
    del thing
    assert ref() is None


# --- other callables ------------------------------------------------------------------------------


class Callable5:
    """Something that is called."""

    def __call__(self, x: int) -> int:
        """Add five."""
        return x + 5


@every_decorator
def test_other_callables_can_be_decorated(core: hotpath.Core, decorate: Any) -> None:
    """A lambda, a partial, an instance with `__call__`, a bound method, a decorated function."""

    def three(a: int, b: int, x: int) -> int:
        return a + b + x

    for function, expected in (
        (lambda x: x, 1),
        (functools.partial(three, 1, 2), 4),
        (Callable5(), 6),
        (Callable5().__call__, 6),
        (opero(lambda x: -x), -1),
    ):
        wrapped = decorate(function)
        assert expected == wrapped(1) == wrapped(x=1)
        assert isinstance(wrapped.__name__, str)
        assert isinstance(wrapped.__qualname__, str)


def test_a_builtin_function_can_be_decorated(core: hotpath.Core) -> None:
    """With a cache too, as long as it tells its signature."""
    assert opero(cache=True)(len)("abc") == 3
    assert opero(max)(1, 3) == 3


def test_a_builtin_without_a_signature_cannot_be_cached(core: hotpath.Core) -> None:
    """Nobody knows which of its calls are the same, unless `cache_key` says so."""
    with pytest.raises(ValueError, match="no signature"):
        opero(cache=True)(max)


@every_decorator
def test_an_async_callable_is_awaited(core: hotpath.Core, decorate: Any) -> None:
    """An instance with an `async def __call__`, and a partial of a coroutine function."""

    class Awaitable:
        async def __call__(self, x: int) -> int:
            return x + 5

    async def add(a: int, x: int) -> int:
        return a + x

    async def main() -> list[int]:
        return [await decorate(Awaitable())(x=1), await decorate(functools.partial(add, 2))(x=1)]

    assert asyncio.run(main()) == [6, 3]


def test_the_four_decorators_can_be_stacked(core: hotpath.Core, either: Either) -> None:
    """Each applies its own mechanism, in the order in which they stand."""
    script = Script(ValueError(), "value")

    def decorate(function: Any) -> Any:
        for one in (
            get_rate_limit_decorator(1.0),
            get_fallback_decorator({"x": ["b"]}),
            get_retry_decorator(retries=2, min_delay=3, jitter=False, retry_on=AllFailedError),
            get_cache_decorator(cache_ttl=60),
        ):
            function = one(function)
        return function

    function = either.decorated(script, decorate)
    with manual_clock() as clock:
        assert "value" == either.call(function, "a") == either.call(function, "a")
        assert pytest.approx(clock.waited) == 1.0
    assert script.seen == ["a", "b"]
    assert function.cache_info()[:2] == (1, 1)


@pytest.mark.parametrize(
    ("decorate", "mechanism"),
    [
        (get_cache_decorator(), "cache"),
        (get_retry_decorator(min_delay=0), "retry"),
        (get_rate_limit_decorator(1.0), "rate limit"),
        (get_fallback_decorator({"x": ["b"]}), "fallback"),
    ],
)
def test_each_of_the_four_decorators_applies_one_mechanism_only(
    core: hotpath.Core, either: Either, decorate: Any, mechanism: str
) -> None:
    """The others are off."""
    script = Script(ValueError(), "value", "value", "value")
    function = either.decorated(script, decorate)
    with manual_clock() as clock:
        for _ in range(3):
            with contextlib.suppress(ValueError):
                either.call(function, "a")
        assert (mechanism == "rate limit") == (clock.waited > 0.5)
    stats = function.stats()
    assert (mechanism == "cache") == (stats.hits > 0)
    assert (mechanism == "retry") == (stats.retries > 0)
    assert (mechanism == "fallback") == (stats.fallbacks > 0)


def test_the_decorators_do_not_share_anything_between_functions(core: hotpath.Core) -> None:
    """One decorator on two functions: two caches, two limits."""
    decorate = opero(cache=True, rate_limit=1.0)
    one, other = decorate(lambda x: "one"), decorate(lambda x: "other")
    with manual_clock() as clock:
        assert [one(1), other(1)] == ["one", "other"]
        assert clock.waited == 0.0


# --- refusals -------------------------------------------------------------------------------------


def generator(x: int) -> Iterator[int]:
    """Yield something."""
    yield x


async def async_generator(x: int) -> Any:
    """Yield something, awaited."""
    yield x


class Generating:
    """Something that is called and yields."""

    def __call__(self, x: int) -> Iterator[int]:
        """Yield something."""
        yield x


@pytest.mark.parametrize(
    "function",
    [
        generator,
        async_generator,
        functools.partial(generator),
        Generating(),
        staticmethod(generator),
        classmethod(generator),
    ],
)
@every_decorator
def test_generator_functions_are_decorated_unless_cached(
    core: hotpath.Core, decorate: Any, function: Any
) -> None:
    """They are streams (see `test_streams`); what they yield is used up by the first caller."""
    if decorate in (DECORATORS["cache"], DECORATORS["opero(cache)"]):
        with pytest.raises(TypeError, match="generator function"):
            decorate(function)
    else:
        made = decorate(function)
        func = getattr(made, "__func__", made)
        assert inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func)


@pytest.mark.parametrize("thing", [int, Callable5, property(len), functools.cached_property(len)])
@every_decorator
def test_what_is_no_function_is_refused(core: hotpath.Core, decorate: Any, thing: Any) -> None:
    """A class or a property is a mistake that is told at decoration."""
    with pytest.raises(TypeError, match="opero decorates functions"):
        decorate(thing)


@pytest.mark.parametrize("thing", [5, "function", None, [len]])
def test_what_cannot_be_called_is_refused(core: hotpath.Core, thing: Any) -> None:
    """With what it is."""
    with pytest.raises(TypeError, match="opero decorates functions"):
        opero()(thing)


# --- pickle, copy, repr, weak references ----------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "function",
    [at_module_level, awaited_at_module_level, Base.plain, Base.static, Base.awaited],
)
def test_a_decorated_function_pickles_by_reference(function: Any, protocol: int) -> None:
    """Like the function that it replaces: the same object comes back."""
    assert pickle.loads(pickle.dumps(function, protocol)) is function


@pytest.mark.once
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_bound_method_pickles_with_its_instance(protocol: int) -> None:
    """Like Python's own."""
    method = pickle.loads(pickle.dumps(Derived(5).plain, protocol))
    assert method(1) == (5, 1)
    of_class = pickle.loads(pickle.dumps(Derived.of_class, protocol))
    assert of_class(1) == ("Derived", 1)


def test_a_decorated_function_has_a_call_method_as_callable_objects_do(
    core: hotpath.Core,
) -> None:
    """What looks for one, a mock's spec or a task queue, finds it and can read its signature."""
    add = opero(retries=1)(lambda one, two=2: one + two)
    assert add.__call__(1, two=3) == 4
    with pytest.raises(TypeError, match="missing 1 required"):
        add.__call__()
    assert list(inspect.signature(add.__call__).parameters) == ["args", "kwargs"]
    assert inspect.getfullargspec(add.__call__).varargs == "args"
    assert add.__call__.__module__.startswith("opero.")
    assert mock.create_autospec(add, return_value=5)(1) == 5

    class Shop:
        @opero(retries=1)
        def price(self, net: int) -> int:
            return net

    assert Shop().price.__call__(3) == 3
    assert callable(mock.create_autospec(Shop)().price)


def test_a_local_function_does_not_pickle(core: hotpath.Core) -> None:
    """No function does that cannot be found by name."""
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(opero(lambda: None))


def test_a_copy_of_a_decorated_function_is_the_function(core: hotpath.Core) -> None:
    """As for any function."""
    assert copy.copy(at_module_level) is at_module_level
    assert copy.deepcopy(at_module_level) is at_module_level


def test_the_representation_names_the_function(core: hotpath.Core) -> None:
    """So that logs and tracebacks can be read."""
    wrapped = opero(Base.__init__)
    assert "Base.__init__" in repr(wrapped)
    assert "Base.plain" in repr(Base(1).plain)


def test_a_decorated_function_can_be_referred_to_weakly_and_has_attributes(
    core: hotpath.Core,
) -> None:
    """It can be put wherever a function can."""
    wrapped = opero(cache=True)(lambda: None)
    wrapped.mark = 5
    assert (5, wrapped) == (wrapped.mark, weakref.ref(wrapped)())
    assert {wrapped: 1}[wrapped] == 1
    ref = weakref.ref(wrapped)
    del wrapped
    gc.collect()
    assert ref() is None


def test_an_attribute_that_is_not_there_is_an_attribute_error(core: hotpath.Core) -> None:
    """For `hasattr` and for whoever reads the message."""
    wrapped = opero(lambda: None)
    assert not hasattr(wrapped, "nothing_like_that")
    with pytest.raises(AttributeError, match="nothing_like_that"):
        wrapped.nothing_like_that  # noqa: B018


# --- what a decorated function offers -------------------------------------------------------------


def test_cache_info_counts_hits_and_misses_since_the_last_clear(
    core: hotpath.Core, either: Either
) -> None:
    """As that of `functools.lru_cache` does, with the same four fields."""
    function = either.decorated(Script("value"), opero(cache=True, cache_maxsize=7))
    for x in (1, 1, 2):
        either.call(function, x)
    assert function.cache_info()._fields == ("hits", "misses", "maxsize", "currsize")
    assert function.cache_info() == (1, 2, 7, 2)
    function.cache_clear()
    assert function.cache_info() == (0, 0, 7, 0)
    either.call(function, 1)
    assert function.cache_info() == (0, 1, 7, 1)
    assert (function.stats().hits, function.stats().misses) == (1, 3)


def test_cache_clear_forgets_every_value(core: hotpath.Core, either: Either) -> None:
    """The next call runs the function."""
    script = Script(1, 2)
    function = either.decorated(script, opero(cache=True))
    assert either.call(function, "x") == 1
    function.cache_clear()
    assert either.call(function, "x") == 2


def test_cache_invalidate_forgets_the_value_of_one_call(core: hotpath.Core, either: Either) -> None:
    """Given by its arguments, in any spelling; it says whether there was one."""
    script = Script(1, 2, 3)
    function = either.decorated(script, opero(cache=True))
    assert [either.call(function, "x"), either.call(function, "y")] == [1, 2]
    assert [function.cache_invalidate(x="x"), function.cache_invalidate("x")] == [True, False]
    assert [either.call(function, "x"), either.call(function, "y")] == [3, 2]


def test_cache_invalidate_uses_the_key_function(core: hotpath.Core, either: Either) -> None:
    """The key of a call is the same wherever it is made."""
    function = either.decorated(Script(1, 2), opero(cache=True, cache_key=lambda x: x % 10))
    assert 1 == either.call(function, 3) == either.call(function, 13)
    assert function.cache_invalidate(23)
    assert either.call(function, 3) == 2


def test_cache_methods_of_a_function_without_cache_do_no_harm(
    core: hotpath.Core, either: Either
) -> None:
    """There is nothing to tell and nothing to forget."""
    function = either.decorated(Script("value"), opero)
    either.call(function)
    function.cache_clear()
    assert not function.cache_invalidate(1)
    assert function.cache_info() == (0, 0, 0, 0)


def test_the_cache_of_the_function_below_can_be_reached_from_above(core: hotpath.Core) -> None:
    """A decorator without a cache hands the cache methods on to the one below that has one."""
    runs: list[int] = []
    function = get_retry_decorator()(get_cache_decorator(cache_maxsize=5)(runs.append))
    function(1)
    function(1)
    assert function.cache_info() == (1, 1, 5, 1)
    assert function.cache_invalidate(1)
    function.cache_clear()
    assert function.cache_info().currsize == 0


def test_a_hit_returns_its_value_even_if_it_is_invalidated_meanwhile(core: hotpath.Core) -> None:
    """A log handler is one who may do so in the middle of a hit."""
    function = opero(cache=True)(lambda x: "value")
    function(1)
    logger = logging.getLogger("opero")

    class Spoiler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            function.cache_invalidate(1)

    spoiler = Spoiler()
    logger.addHandler(spoiler)
    logger.setLevel(logging.DEBUG)
    try:
        assert function(1) == "value"
    finally:
        logger.removeHandler(spoiler)
        logger.setLevel(logging.NOTSET)


def test_a_value_of_a_cleared_namespace_is_computed_again(core: hotpath.Core) -> None:
    """`clear_cache` reaches every function of a namespace."""
    runs: list[int] = []
    function = opero(cache=CacheConfig(True, namespace="decorators"))(runs.append)
    function(1)
    clear_cache("another")
    function(1)
    clear_cache("decorators")
    function(1)
    assert runs == [1, 1]


# --- waiting in different ways --------------------------------------------------------------------


def test_waiting_for_a_permit_blocks_the_thread_or_awaits(core: hotpath.Core) -> None:
    """While a coroutine function waits, others run."""
    order: list[str] = []

    @opero(rate_limit=1.0)
    async def limited(name: str) -> None:
        order.append(name)

    async def other() -> None:
        order.append("other")

    async def main() -> None:
        await limited("first")
        waiting = asyncio.create_task(limited("second"))
        await asyncio.gather(waiting, other())

    with skip_waits():
        asyncio.run(main())
    assert order == ["first", "other", "second"]


def test_waiters_are_served_first_come_first_served(core: hotpath.Core) -> None:
    """In the order of their calls."""
    order: list[int] = []

    @opero(rate_limit=1000.0)
    async def limited(number: int) -> None:
        order.append(number)

    async def main() -> None:
        await asyncio.gather(*[limited(number) for number in range(10)])

    with skip_waits():
        asyncio.run(main())
    assert list(range(10)) == order


def test_a_cancelled_waiter_gives_its_permit_back(core: hotpath.Core) -> None:
    """The next one gets it instead, at the same moment."""
    order: list[str] = []

    @opero(rate_limit=1.0)
    async def limited(name: str) -> None:
        order.append(name)

    async def main() -> None:
        await limited("first")
        tasks = [asyncio.create_task(limited(name)) for name in ("cancelled", "second")]
        await asyncio.sleep(0)
        core.clock.advance(1_000_000_000)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    core.clock.freeze()
    try:
        asyncio.run(main())
    finally:
        core.clock.thaw()
    assert order == ["first", "second"]
