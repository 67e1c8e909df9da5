"""What a call costs in memory: nothing while it goes well, and nothing that stays when it does not.

Allocations are counted by the interpreter itself: `sys.getallocatedblocks()` asked from inside the
function tells what is alive during the call, the count of references to an argument tells whether
a tuple or dict holds it. Both are compared with those of the bare call, made by C as well: an empty
`functools.partial` passes its arguments on as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from opero import AllFailedError, DeadlineExceeded, RateLimiter, hotpath, opero
from opero.gil import FREE_THREADED
from opero.testing import manual_clock, skip_waits


class Argument:
    """Something that can be watched by a weak reference, and be a key by identity."""


class Boom(Exception):
    """An exception that can be watched by a weak reference."""


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Switch the log off, since whoever collects records holds the errors in them."""
    logger = logging.getLogger("opero")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.fixture(scope="module", autouse=True)
def frozen_past() -> Iterator[None]:
    """Hide what is there already from the garbage collector, so that collecting is quick."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Switch the garbage collector off, so that only counted references free anything."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def grown(work: Callable[[], None]) -> int:
    """Return by how many blocks memory has changed after a thousand times, in the best of three.

    What is left over is left in each of them. A message to the process that runs the tests, which
    another thread reads, comes in one.
    """
    changes = []
    for _ in range(3):
        before = sys.getallocatedblocks()
        for _ in range(1000):
            work()
        changes.append(abs(sys.getallocatedblocks() - before))
    return min(changes)


PATHS: dict[str, dict[str, Any]] = {
    "retry": {"retries": 3},
    "one attempt": {"retries": 1},
    "limit": {"rate_limit": 1e9, "burst": 1_000_000},
    "deadline": {"timeout": 3600},
    "fallback": {"arg_fallback": {"b": [1, 2]}},
    "all": {
        "rate_limit": 1e9,
        "burst": 1_000_000,
        "timeout": 3600,
        "arg_fallback": {"b": [1, 2]},
    },
}
"""Options of calls that are not cached."""

CALLS: list[Callable[[Any, Any], Any]] = [
    lambda function, argument: function(argument),
    lambda function, argument: function(argument, 2),
    lambda function, argument: function(argument, b=2),
    lambda function, argument: function(a=argument, b=2),
]
"""Ways to call a function, positional and by keyword."""


# --- a first attempt that succeeds ----------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("path", PATHS)
def test_a_first_attempt_that_succeeds_holds_nothing_that_the_bare_call_does_not(
    core: hotpath.Core, no_collector: None, path: str, call: Callable[[Any, Any], Any]
) -> None:
    """Compiled no object at all is alive for it, plain only arguments and frames of Python are."""

    def function(a: Any, b: Any = 1) -> tuple[int, int]:
        return sys.getallocatedblocks(), sys.getrefcount(a)

    decorated = opero(**PATHS[path])(function)
    argument = Argument()
    found = {"bare": (0, 0), "decorated": (0, 0)}
    targets = {"bare": functools.partial(function), "decorated": decorated}
    for _ in range(20):  # the interpreter specialises, and fills its free lists
        for name in found:
            found[name] = call(targets[name], argument)
    if core.name == "compiled":
        assert found["decorated"] == found["bare"]
    else:
        assert found["decorated"][1] <= found["bare"][1] + 8


HITS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "one": lambda function, thing, argument: function(argument),
    "by name": lambda function, thing, argument: function(argument, b=1),
    "float and bool": lambda function, thing, argument: function(2.5, b=True),
    "method": lambda function, thing, argument: thing.price(argument),
    "method, by name": lambda function, thing, argument: thing.price(argument, amount=2.5),
}
"""Ways to ask for a value that is stored."""


@pytest.mark.parametrize("way", HITS)
def test_a_hit_makes_nothing_but_its_result(
    core: hotpath.Core, no_collector: None, way: str
) -> None:
    """After a thousand hits there is not one block of memory more than before."""

    class Thing:
        @opero(cache=True)
        def price(self, item: str, *, amount: float = 1.5) -> Any:
            return [item, amount]

    function = opero(cache=True, cache_ttl=3600)(lambda a, b=1: [a, b])
    thing, argument, hit = Thing(), "argument", HITS[way]
    found = hit(function, thing, argument)

    def again() -> None:
        assert hit(function, thing, argument) is found

    for _ in range(100):
        again()
    assert grown(again) <= 50


def test_bound_methods_hold_nothing_either(core: hotpath.Core, no_collector: None) -> None:
    """The instance is passed on in place."""

    class Thing:
        @opero
        def decorated(self, a: Any) -> int:
            return sys.getrefcount(a) + 1000 * sys.getrefcount(self)

        def bare(self, a: Any) -> int:
            return sys.getrefcount(a) + 1000 * sys.getrefcount(self)

    thing, argument = Thing(), Argument()
    bare, decorated = functools.partial(thing.bare), thing.decorated
    for _ in range(20):
        expected, found = bare(argument), decorated(argument)
    if core.name == "compiled":
        assert expected == found
    else:
        assert found >= expected


# --- nothing leaks --------------------------------------------------------------------------------


def succeed(a: Any, b: Any = 1) -> Any:
    """Return something new."""
    return [a]


def fail(a: Any, b: Any = 1) -> Any:
    """Raise something new."""
    raise Boom(a)


class FailsFirst:
    """Fails in every second attempt."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, a: Any, b: Any = 1) -> Any:
        """Fail or not."""
        self.count += 1
        if self.count % 2:
            raise Boom(a)
        return [a]


QUICK = {"min_delay": 0, "max_delay": 0}
LIFE: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "success": (lambda: succeed, {}),
    "hit": (lambda: succeed, {"cache": True}),
    "hit with ttl and key": (
        lambda: succeed,
        {"cache": True, "cache_ttl": 60, "cache_key": lambda *a, **k: "key"},
    ),
    "own exception": (lambda: fail, {"retries": 1}),
    "own exception, cached": (lambda: fail, {"retries": 1, "cache": True}),
    "all failed": (lambda: fail, {"retries": 3, **QUICK}),
    "all failed, cached": (lambda: fail, {"retries": 3, "cache": True, **QUICK}),
    "no match": (lambda: fail, {"retry_on": KeyError}),
    "retry": (FailsFirst, {"retries": 3, **QUICK}),
    "retry, cached": (FailsFirst, {"retries": 3, "cache": True, "cache_maxsize": 1, **QUICK}),
    "fallback": (lambda: fail, {"retries": 1, "arg_fallback": {"b": [1, 2]}, **QUICK}),
    "limit": (lambda: succeed, {"rate_limit": 1000.0}),
    "deadline": (lambda: fail, {"timeout": 5, "min_delay": 10}),
    "deadline, cached": (lambda: fail, {"timeout": 5, "min_delay": 10, "cache": True}),
    "misfit": (lambda: succeed, {"arg_fallback": "a"}),
    "no key": (lambda: succeed, {"cache": True, "cache_key": lambda a, b=1: object.__new__(dict)}),
}
"""What can become of a call, and how to bring it about."""

WAYS: list[Callable[[Any, Any], Any]] = [*CALLS, lambda function, argument: function()]


async def awaited_life(function: Any, argument: Any, rounds: int) -> None:
    """Await a decorated coroutine function in every way."""
    for _ in range(rounds):
        for way in WAYS:
            with contextlib.suppress(Boom, AllFailedError, DeadlineExceeded, TypeError, ValueError):
                await way(function, argument)


def life(function: Any, argument: Any, rounds: int, is_async: bool) -> None:
    """Call a decorated function in every way, again and again."""
    if is_async:
        asyncio.run(awaited_life(function, argument, rounds))
        return
    for _ in range(rounds):
        for way in WAYS:
            with contextlib.suppress(Boom, AllFailedError, DeadlineExceeded, TypeError, ValueError):
                way(function, argument)


def as_coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a coroutine function of an ordinary one."""

    async def coroutine(a: Any, b: Any = 1) -> Any:
        return function(a, b)

    return coroutine


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", LIFE)
def test_no_reference_and_no_object_is_left_behind_by_any_kind_of_call(
    core: hotpath.Core, no_collector: None, kind: str, is_async: bool
) -> None:
    """Arguments, function, exceptions, all that the collector tracks: as many as before."""
    make, options = LIFE[kind]
    function = as_coroutine(make()) if is_async else make()
    argument = Argument()
    decorated = opero(jitter=False, **options)(function)

    def measured() -> list[int]:
        """Count, with nothing of a loop or of the collector's own work in the way."""
        gc.collect()
        watched = (
            argument,
            function,
            Boom,
            decorated,
            decorated.__opero__.policy,
            core.clock,
            succeed,
            fail,
        )
        return [len(gc.get_objects()), *[sys.getrefcount(each) for each in watched]]

    with skip_waits():
        life(decorated, argument, 5, is_async)
        measured()
        before = measured()
        life(decorated, argument, 40, is_async)
        after = measured()
    objects, *references = (late - early for early, late in zip(before, after, strict=True))
    assert references == [0] * len(references)
    assert abs(objects) <= 3


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_misses_leave_what_is_stored_and_nothing_else(
    core: hotpath.Core, no_collector: None, is_async: bool
) -> None:
    """Clear the cache, and every argument and value is free again."""
    function = as_coroutine(succeed) if is_async else succeed
    decorated = opero(cache=True, cache_maxsize=50)(function)
    arguments = [Argument() for _ in range(200)]
    before = [sys.getrefcount(argument) for argument in arguments]

    async def main() -> None:
        for argument in arguments * 2:
            await decorated(argument, b={"deep": [argument]})

    if is_async:
        asyncio.run(main())
        gc.collect()
    else:
        for argument in arguments * 2:
            decorated(argument, b={"deep": [argument]})
        del argument
    held = sum(sys.getrefcount(argument) for argument in arguments) - sum(before)
    assert 0 < held <= 50 * 4
    decorated.cache_clear()
    assert [sys.getrefcount(argument) for argument in arguments] == before


def test_values_have_one_reference_more_for_each_entry(
    core: hotpath.Core, no_collector: None
) -> None:
    """A hit hands out the value and keeps no count of its own."""
    value = Argument()
    decorated = opero(cache=True)(lambda x: value)
    before = sys.getrefcount(value)
    for x in range(10):
        for _ in range(20):
            decorated(x)
    assert sys.getrefcount(value) == before + 10
    for x in range(5):
        decorated.cache_invalidate(x)
    decorated.cache_clear()
    assert sys.getrefcount(value) == before


def test_many_decorated_functions_come_and_go(core: hotpath.Core) -> None:
    """A function that was decorated, called and forgotten leaves nothing, limiter and all."""

    def one() -> None:
        limiter = RateLimiter(1e6)

        @opero(cache=True, rate_limit=limiter, min_delay=0, cache_namespace="come and go")
        def function(x: int) -> int:
            if function.stats().attempts % 2:
                raise Boom
            return x

        function(1), function(1)

    for _ in range(20):
        one()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(100):
        one()
    gc.collect()
    assert abs(len(gc.get_objects()) - before) <= 20


def each_takes(instances: list[Any], value: Any) -> float:
    """Call a method of each, and return how many bytes that takes for one of them."""
    gc.collect()
    tracemalloc.start()
    try:
        for each in instances:
            with contextlib.suppress(LookupError):
                each.get(value)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / len(instances)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("options", [{}, {"cache_ttl": 60, "cache_maxsize": 5}], ids=str)
def test_an_instance_with_a_cached_method_costs_little_before_its_first_value(
    core: hotpath.Core, options: dict[str, Any]
) -> None:
    """Nothing before its first call, then less than 1 KiB, and little more for a value."""

    class Thing:
        __slots__ = ("__weakref__",)

        @opero(cache=True, retries=1, **options)
        def get(self, value: int | None) -> int:
            if value is None:
                raise LookupError
            return value

    for value in (None, 1):
        each_takes([Thing() for _ in range(20)], value)  # imports what it needs
    things = [Thing() for _ in range(200)]
    longer = 200 if FREE_THREADED else 0  # the headers of objects are, where there is no lock
    assert each_takes(things, None) < 1_024 + longer
    if core.name == "compiled":
        assert each_takes(things, 1) < 300


def test_methods_of_many_instances_leave_nothing(core: hotpath.Core, no_collector: None) -> None:
    """Bound methods, stores and weak references die with their instances, without the collector."""

    class Thing:
        @opero(cache=True)
        def method(self, x: int) -> list[int]:
            return [x]

    def one() -> None:
        thing = Thing()
        method = thing.method
        method(1), method(x=1), thing.method(2)

    for _ in range(300):
        one()
    assert grown(one) <= 100
    assert Thing.method.cache_info().currsize == 0


# --- no reference cycles --------------------------------------------------------------------------

FAILING = {kind: options for kind, (make, options) in LIFE.items() if make is LIFE["all failed"][0]}
FAILING |= {
    "fail": {"retries": 1},
    "limit": {"rate_limit": 1e6, **QUICK},
    "limit, cached": {"rate_limit": 1e6, "cache": True, **QUICK},
    "timeout": {"timeout": 3600, **QUICK},
    "timeout, cached": {"timeout": 3600, "cache": True, **QUICK},
    "predicate": {"retry_on": lambda error: len(error.args) == 1, **QUICK},
    "fallback": {"arg_fallback": {"b": [1, 2]}, **QUICK},
    "no match": {"retry_on": KeyError},
    "deadline": {"timeout": 5, "min_delay": 10},
    "deadline, cached": {"timeout": 5, "min_delay": 10, "cache": True},
    "permit too late": {"rate_limit": 0.1, "timeout": 5, **QUICK},
}


class Watch:
    """Weak references to everything that a failing call touches."""

    def __init__(self) -> None:
        self.refs: list[weakref.ref[Any]] = []

    def fail(self, a: Any, b: Any = 1) -> None:
        """Raise a watched exception."""
        error = Boom(a)
        self.refs.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    def caught(self, error: BaseException) -> None:
        """Watch what the caller has caught."""
        self.refs.append(weakref.ref(error))

    def alive(self) -> list[Any]:
        """Return what has not died."""
        return [ref() for ref in self.refs if ref() is not None]


@pytest.mark.parametrize("options", FAILING.values(), ids=FAILING)
def test_a_failing_call_leaves_no_reference_cycle(
    core: hotpath.Core, no_collector: None, options: dict[str, Any]
) -> None:
    """Argument and exceptions die with their last reference, without the garbage collector."""
    watch = Watch()
    decorated = opero(jitter=False, **options)(watch.fail)

    def call() -> None:
        argument = Argument()
        watch.refs.append(weakref.ref(argument))
        try:
            decorated(argument, b=2)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is watched
            watch.caught(error)

    with manual_clock():
        for _ in range(2):
            call()
    assert len(watch.refs) >= 5
    assert watch.alive() == []


@pytest.mark.parametrize("options", FAILING.values(), ids=FAILING)
def test_an_awaited_failing_call_leaves_no_reference_cycle(
    core: hotpath.Core, no_collector: None, options: dict[str, Any]
) -> None:
    """Nor does it leave one by way of a task."""
    watch = Watch()

    async def function(a: Any, b: Any = 1) -> None:
        await asyncio.sleep(0)
        watch.fail(a, b)

    decorated = opero(jitter=False, **options)(function)

    async def call() -> None:
        argument = Argument()
        watch.refs.append(weakref.ref(argument))
        try:
            await decorated(argument, b=2)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is watched
            watch.caught(error)

    async def main() -> None:
        for _ in range(2):
            await call()
        for _ in range(3):  # callbacks of tasks that are done
            await asyncio.sleep(0)
        assert len(watch.refs) >= 5
        assert watch.alive() == []

    with manual_clock():
        asyncio.run(main())


def test_what_an_awaited_call_returns_is_let_go(core: hotpath.Core, no_collector: None) -> None:
    """With and without a cache, a task of its own, or a failure before it."""
    refs: list[weakref.ref[Any]] = []

    async def function(a: Any) -> Argument:
        await asyncio.sleep(0)
        value = Argument()
        refs.append(weakref.ref(value))
        if len(refs) % 2:
            raise Boom(a)
        return value

    async def main() -> None:
        for options in ({}, {"cache": True}, {"timeout": 60}, {"rate_limit": 1e6}):
            decorated = opero(**options, **QUICK)(function)
            argument = Argument()
            refs.append(weakref.ref(argument))
            refs.append(weakref.ref(argument))
            value = await decorated(argument)
            decorated.cache_clear()
            del argument, value
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [ref() for ref in refs if ref() is not None] == []

    with manual_clock():
        asyncio.run(main())
    assert len(refs) == 16
