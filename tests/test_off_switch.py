"""`opero.testing.disabled`: decorated functions do what they would do undecorated."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

import pytest

from opero import AllFailedError, attempts, hotpath, off_switch, opero, opmap, roster
from opero.testing import disabled, enabled, manual_clock, skip_waits

EVERYTHING: dict[str, Any] = {
    "retries": 3,
    "cache": True,
    "cache_ttl": 60,
    "rate_limit": 0.001,
    "timeout": 5,
}


@pytest.fixture(autouse=True)
def on_again():
    """Find opero switched on, and leave it so."""
    assert not off_switch.is_off
    yield
    assert not off_switch.is_off


class Counter:
    """Makes functions that count their runs and fail as often as they are told."""

    def __init__(self) -> None:
        self.runs = 0

    def function(self, value: object = None, *, fail: bool = False) -> object:
        self.runs += 1
        if fail:
            raise ValueError(value)
        return value


def test_an_ordinary_function_runs_at_each_call_once(core: hotpath.Core) -> None:
    """No cache, no retries, no limit, and its own exception."""
    counter = Counter()

    @opero(**EVERYTHING)
    def function(value: object, fail: bool = False) -> object:
        return counter.function(value, fail=fail)

    with disabled():
        assert [function(1), function(1), function(value=1)] == [1, 1, 1]
        assert counter.runs == 3
        with pytest.raises(ValueError, match="2"):
            function(2, fail=True)
        assert counter.runs == 4
        with pytest.raises(TypeError, match=r"function\(\) missing 1 required"):
            function()  # type: ignore[call-arg]
    assert not any(function.stats())
    assert function.cache_info().currsize == 0


def test_a_coroutine_function_is_awaited_as_it_is(core: hotpath.Core) -> None:
    """What the call returns is the function's own coroutine."""
    counter = Counter()

    @opero(**EVERYTHING)
    async def function(value: object, fail: bool = False) -> object:
        await asyncio.sleep(0)
        return counter.function(value, fail=fail)

    async def main() -> None:
        with disabled():
            made = function(1)
            assert made.cr_code is function.__wrapped__.__code__
            assert await made == 1
            assert await asyncio.gather(*[function(1) for _ in range(3)]) == [1, 1, 1]
            with pytest.raises(ValueError, match="2"):
                await function(2, fail=True)

    asyncio.run(main())
    assert counter.runs == 5
    assert not any(function.stats())


def test_methods_class_methods_and_static_methods_are_off(core: hotpath.Core) -> None:
    """Also bound before, and called on the class."""

    class Shop(Counter):
        @opero(**EVERYTHING)
        def price(self, item: str, discount: int = 0) -> tuple[Any, ...]:
            self.runs += 1
            return self, item, discount

        @classmethod
        @opero(**EVERYTHING)
        def of_class(cls, item: str) -> tuple[Any, ...]:
            return cls, item

        @staticmethod
        @opero(**EVERYTHING)
        def of_none(item: str) -> str:
            return item

    shop = Shop()
    bound = shop.price
    with disabled():
        assert shop.price("A", discount=1) == (shop, "A", 1)
        assert bound("A") == Shop.price(shop, "A") == (shop, "A", 0)
        assert Shop.of_class("A") == (Shop, "A") == shop.of_class("A")
        assert Shop.of_none("A") == "A"
    assert shop.runs == 3
    assert not any(Shop.price.stats())


def test_fallback_values_are_passed_as_they_are(core: hotpath.Core) -> None:
    """The caller's own list, not a copy of it."""
    keys = ["first", "second"]

    @opero(arg_fallback="key")
    def of_list(key: list[str]) -> list[str]:
        return key

    @opero(arg_fallback={"model": ["small"]})
    def of_value(model: str) -> str:
        return model

    with disabled():
        assert of_list(keys) is keys
        assert of_value("large") == "large"


def test_generator_functions_are_what_they_are(core: hotpath.Core) -> None:
    """Ordinary and asynchronous ones."""

    @opero(retries=3)
    def numbers(fail: bool) -> Any:
        if fail:
            raise ValueError("at once")
        yield 1

    @opero(retries=3)
    async def awaited(fail: bool) -> Any:
        if fail:
            raise ValueError("at once")
        yield 1

    async def all_of(fail: bool) -> list[int]:
        return [each async for each in awaited(fail)]

    with disabled():
        assert inspect.isgenerator(numbers(False))
        assert list(numbers(False)) == asyncio.run(all_of(False)) == [1]
        for run in (lambda: list(numbers(True)), lambda: asyncio.run(all_of(True))):
            with pytest.raises(ValueError, match="at once"):
                run()
    assert not any(numbers.stats())
    assert not any(awaited.stats())


def test_blocks_are_run_once(core: hotpath.Core) -> None:
    """With their own error."""
    numbers = []

    def block() -> None:
        for attempt in attempts(retries=3):
            with attempt:
                numbers.append(attempt.number)
                raise ValueError("at once")

    with disabled(), pytest.raises(ValueError, match="at once"):
        block()
    assert numbers == [1]


@pytest.mark.parametrize("mode", ["thread", "process", "async"])
def test_maps_are_loops(core: hotpath.Core, mode: str) -> None:
    """In the caller's thread, without retries; what fails stands in its place."""
    ran = []

    def work(item: int) -> int:
        ran.append((item, threading.get_ident()))
        return 1 // item

    async def awaited(item: int) -> int:
        return work(item)

    mapped = opmap(mode=mode, workers=2, retries=3)(awaited if mode == "async" else work)
    with disabled():
        results = mapped([1, 0, 1])
    assert [results[0], type(results[1]), results[2]] == [1, ZeroDivisionError, 1]
    assert [item for item, _ in ran] == [1, 0, 1]
    if mode != "async":
        assert {thread for _, thread in ran} == {threading.get_ident()}


def test_functions_that_are_decorated_meanwhile_are_off_too(core: hotpath.Core) -> None:
    """And on afterwards."""
    counter = Counter()
    with disabled(), skip_waits():
        function = opero(retries=3)(counter.function)
        with pytest.raises(ValueError, match="1"):
            function(1, fail=True)
    with skip_waits(), pytest.raises(AllFailedError):
        function(1, fail=True)
    assert counter.runs == 4


def test_it_is_nested_and_undone_in_order(core: hotpath.Core) -> None:
    """Within `disabled`, `enabled` undoes it for a while; an error changes nothing of that."""
    function = opero(retries=2, min_delay=0)(Counter().function)

    def attempts() -> int:
        before = function.stats().attempts
        with pytest.raises((ValueError, AllFailedError)):
            function(fail=True)
        return function.stats().attempts - before

    assert attempts() == 2
    with enabled():
        assert attempts() == 2
    with disabled():
        assert attempts() == 0
        with disabled():
            assert attempts() == 0
            with enabled():
                assert attempts() == 2
            with pytest.raises(KeyError), enabled():
                raise KeyError
            assert attempts() == 0
        assert attempts() == 0
    assert attempts() == 2


@pytest.mark.parametrize("first", [disabled, enabled])
@pytest.mark.parametrize("second", [disabled, enabled])
def test_blocks_that_overlap_end_in_any_order(core: hotpath.Core, first: Any, second: Any) -> None:
    """As those of two threads or tasks do: the latest of those under way holds."""
    counter = Counter()
    function = opero(cache=True)(counter.function)
    function("A")

    def is_off() -> bool:
        before = counter.runs
        function("A")
        return counter.runs > before

    one, other = first(), second()
    one.__enter__()
    other.__enter__()
    assert is_off() == off_switch.is_off == (second is disabled)
    one.__exit__(None, None, None)
    assert is_off() == off_switch.is_off == (second is disabled)
    other.__exit__(None, None, None)
    assert not is_off()


def test_it_holds_in_all_threads(core: hotpath.Core) -> None:
    """Also in those that were started before."""
    counter = Counter()
    function = opero(cache=True)(counter.function)
    function("A")
    go, off = threading.Event(), threading.Event()
    seen = []

    def work() -> None:
        function("A")
        go.set()
        off.wait()
        seen.append(function("A"))

    thread = threading.Thread(target=work)
    thread.start()
    go.wait()
    with disabled():
        off.set()
        thread.join()
    assert counter.runs == 2
    assert seen == ["A"]


def test_what_was_cached_before_is_there_afterwards(core: hotpath.Core) -> None:
    """A value of meanwhile is not stored."""
    counter = Counter()
    function = opero(cache=True, cache_ttl=60)(lambda: (counter.function(), counter.runs)[1])
    with manual_clock():
        assert function() == 1
        with disabled():
            assert function() == 2
        assert function() == 1


def test_decorators_that_stand_on_each_other_are_all_off(core: hotpath.Core) -> None:
    """The inner one is a decorated function as well."""
    counter = Counter()
    function = opero(retries=2)(opero(retries=3)(counter.function))
    with disabled(), pytest.raises(ValueError, match="None"):
        function(fail=True)
    assert counter.runs == 1


def test_a_call_that_is_under_way_goes_on_as_it_began(core: hotpath.Core) -> None:
    """With its retries; a call that begins meanwhile, and within it, is off."""
    counter = Counter()
    held = []

    @opero(retries=3, min_delay=0)
    def function() -> None:
        if not held:
            held.append(disabled())
            held[0].__enter__()
        counter.function(fail=True)

    try:
        with pytest.raises(AllFailedError):
            function()
        assert counter.runs == 3
        with pytest.raises(ValueError, match="None"):
            function()
    finally:
        held[0].__exit__(None, None, None)
    assert counter.runs == 4


def test_no_function_is_kept_alive_by_being_known(core: hotpath.Core) -> None:
    """The roster refers to states weakly."""
    before = len(roster.living())
    function = opero(cache=True)(lambda: None)
    assert len(roster.living()) == before + 1
    del function
    assert len(roster.living()) == before
