"""Methods, class methods and static methods are mapped like functions, in every mode and form."""

from __future__ import annotations

import abc
import asyncio
import concurrent.futures as cf
import copy
import dataclasses
import enum
import functools
import gc
import inspect
import multiprocessing
import pickle
import re
import subprocess
import sys
import types
import weakref
from pathlib import Path
from typing import Any

import pytest
from crowd import PATIENCE, until

from opero import hotpath, opero, opmap
from opero.exceptions import AllFailedError
from opero.map.mapped import MappedMethod

QUIET: dict[str, Any] = {"mode": "thread", "progress": False, "workers": 2, "retries": 1}
MODES = ("thread", "process", "async", "async_process")


def quiet(mode: str, **more: Any) -> Any:
    return opmap(**{**QUIET, "mode": mode, **more})


class Shop:
    """A class with a mapped method for every mode."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @quiet("thread")
    def thread(self, item: int, plus: int = 0) -> int:
        """Tell the price."""
        return self.factor * item + plus

    @quiet("process")
    def process(self, item: int, plus: int = 0) -> int:
        """Tell the price."""
        return self.factor * item + plus

    @quiet("async")
    async def coroutine(self, item: int, plus: int = 0) -> int:
        """Tell the price."""
        await asyncio.sleep(0)
        return self.factor * item + plus

    @quiet("async_process")
    async def async_process(self, item: int, plus: int = 0) -> int:
        """Tell the price."""
        await asyncio.sleep(0)
        return self.factor * item + plus

    @quiet("process")
    @classmethod
    def of_class(cls, item: int) -> tuple[str, int]:
        return cls.__name__, item

    @classmethod
    @quiet("process")
    def of_class_below(cls, item: int) -> tuple[str, int]:
        return cls.__name__, item

    @quiet("async_process")
    @classmethod
    async def awaited_of_class(cls, item: int) -> tuple[str, int]:
        return cls.__name__, item

    @quiet("process")
    @staticmethod
    def static(item: int) -> int:
        return -item

    @staticmethod
    @quiet("process")
    def static_below(item: int) -> int:
        return -item

    @quiet("process")
    def __private(self, item: int) -> int:
        return self.factor * item

    def private(self, items: list[int]) -> Any:
        return self.__private(items)

    @quiet("process")
    def raising(self, item: int) -> int:
        raise ValueError(self.factor * item)

    @quiet("process")
    def changing(self, item: int) -> int:
        self.factor += 1
        return self.factor

    @quiet("process")
    @opero(cache=True, retries=2)
    def over_opero(self, item: int) -> int:
        return self.factor * item


class Corner(Shop):
    """A subclass that overrides one method."""

    @quiet("process")
    def process(self, item: int, plus: int = 0) -> int:
        return -self.factor * item

    def both(self, items: list[int]) -> tuple[Any, Any]:
        return self.process(items), super().process(items)

    def both_streams(self, items: list[int]) -> tuple[Any, Any]:
        return list(self.process.stream(items)), list(super().process.stream(items))


class Slotted:
    """A class without weak references and dictionary."""

    __slots__ = ("factor",)

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @quiet("thread")
    def thread(self, item: int) -> int:
        return self.factor * item

    @quiet("process")
    def process(self, item: int) -> int:
        return self.factor * item


NAMES = ("thread", "process", "coroutine", "async_process")


async def _collected(stream: Any) -> list[Any]:
    return [result async for result in stream]


def every_form(mapped: Any, items: list[Any], **shared: Any) -> list[list[Any]]:
    """Map by all four forms."""
    return [
        list(mapped(items, **shared)),
        list(mapped.stream(items, **shared)),
        asyncio.run(mapped.amap(items, **shared)),
        asyncio.run(_collected(mapped.astream(items, **shared))),
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.once
def test_a_method_maps_over_items_in_every_mode_and_form(name: str) -> None:
    """`shop.price(items)`, `.stream`, `.amap`, `.astream`; each instance by itself."""
    shop, other = Shop(2), Shop(3)
    assert every_form(getattr(shop, name), [1, 2, 3]) == [[2, 4, 6]] * 4
    assert every_form(getattr(other, name), [1, 2, 3], plus=1) == [[4, 7, 10]] * 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.once
def test_a_method_is_called_on_its_class_with_the_instance_first(name: str) -> None:
    """`Shop.price(shop, items)`, as a plain function is."""
    mapped = getattr(Shop, name)
    shop = Corner(2) if name != "process" else Shop(2)
    assert mapped(shop, [1, 2], plus=1) == [3, 5]
    assert list(mapped.stream(shop, [1, 2], plus=1)) == [3, 5]
    assert asyncio.run(mapped.amap(shop, [1, 2], plus=1)) == [3, 5]
    assert asyncio.run(_collected(mapped.astream(shop, [1, 2], plus=1))) == [3, 5]


@pytest.mark.once
def test_class_methods_and_static_methods_are_mapped_in_both_orders() -> None:
    """They work on the class, on an instance, and in a subclass."""
    for cls in (Shop, Corner):
        for name in ("of_class", "of_class_below", "awaited_of_class"):
            expected = [(cls.__name__, 1), (cls.__name__, 2)]
            assert getattr(cls, name)([1, 2]) == getattr(cls(1), name)([1, 2]) == expected
        assert every_form(cls.of_class, [1]) == [[(cls.__name__, 1)]] * 4
        for name in ("static", "static_below"):
            assert getattr(cls, name)([1]) == getattr(cls(1), name)([1]) == [-1]
            assert list(getattr(cls(1), name).stream([1])) == [-1]


@pytest.mark.once
def test_a_class_method_below_its_decorator_takes_the_class_where_it_cannot_know_it() -> None:
    """From Python 3.13 on, the attributes of a bound class method do not show the class."""
    if sys.version_info < (3, 13):
        assert list(Shop.of_class_below.stream([1])) == [("Shop", 1)]
        return
    with pytest.raises(
        TypeError, match=r"of_class_below\.stream\(\) is missing its class: put @cl"
    ):
        Shop.of_class_below.stream([1])
    assert list(Shop.of_class_below.stream(Shop, [1])) == [("Shop", 1)]


@pytest.mark.once
def test_an_inherited_method_and_that_of_super_are_mapped() -> None:
    """Each finds its own function in the worker."""
    corner = Corner(2)
    assert corner.both([1, 2]) == ([-2, -4], [2, 4])
    assert corner.both_streams([1, 2]) == ([-2, -4], [2, 4])
    assert corner.thread([5]) == [10]
    assert Shop.process(corner, [1]) == [2]


@pytest.mark.once
def test_private_methods_and_slotted_instances_are_mapped() -> None:
    """A method over `@opero` uses the worker's cache and retries."""
    assert Shop(2).private([1, 2]) == [2, 4]
    assert Slotted(2).thread([1]) == Slotted(2).process([1]) == [2]
    assert Shop(2).over_opero([1, 1]) == [2, 2]


@pytest.mark.once
def test_what_a_worker_does_to_self_stays_there() -> None:
    """The instance travels once per map, and not back."""
    shop = Shop(10)
    shop.changing([1] * 20)
    assert shop.factor == 10
    shop.factor = 100
    assert min(shop.changing([1] * 4)) == 101


class Counted:
    """A class that counts how often it is pickled."""

    pickles = 0

    def __getstate__(self) -> dict[str, Any]:
        type(self).pickles += 1
        return {"big": b"x" * 100_000}

    @quiet("process")
    def process(self, item: int) -> int:
        return item

    @quiet("thread")
    def thread(self, item: int) -> int:
        return item


@pytest.mark.once
def test_an_instance_is_pickled_once_for_a_map() -> None:
    """It is not pickled per item or per worker, nor at all for threads."""
    counted = Counted()
    assert counted.process(range(500)) == list(range(500))
    assert Counted.pickles == 1
    counted.thread(range(10))
    assert Counted.pickles == 1


class Locked:
    """A class whose instances cannot travel."""

    def __init__(self) -> None:
        self.name = "x"
        self.frame = sys._getframe()

    @quiet("process")
    def process(self, item: int) -> int:
        return item

    @quiet("thread")
    def thread(self, item: int) -> int:
        return item


class Secretive(Locked):
    """A class whose `__getstate__` fails."""

    def __reduce__(self) -> Any:
        raise RuntimeError("no")


@pytest.mark.once
def test_an_instance_that_cannot_travel_is_named_and_so_is_its_attribute() -> None:
    """The error comes before anything runs; threads need no pickle."""
    with pytest.raises(
        TypeError, match=r"instance, .*Locked cannot be pickled: it.frame is a frame: "
    ):
        Locked().process([1])
    with pytest.raises(TypeError, match=r"instance, whose method is mapped, of type .*Secretive"):
        Secretive().process([1])
    assert Locked().thread([1]) == Secretive().thread([1]) == [1]


# --- each item has what it has in a plain map -------------------------------------------------------


def flaky_class() -> Any:
    """Make a class whose methods fail, for the active half."""

    class Flaky:
        """Fails the first time for each item."""

        def __init__(self) -> None:
            self.seen: list[Any] = []

        @quiet("thread", retries=2, min_delay=0, max_delay=0)
        def once(self, item: int) -> int:
            self.seen.append(item)
            if self.seen.count(item) < 2:
                raise ValueError(item)
            return item

        @quiet("thread", arg_fallback="keys")
        def listed(self, item: int, keys: list[str]) -> str:
            self.seen.append(keys[0])
            if keys[0] == "bad":
                raise ValueError(keys[0])
            return f"{item} {keys[0]}"

        @quiet("thread", arg_fallback="item")
        def item_listed(self, item: list[str]) -> str:
            if item[0] == "bad":
                raise ValueError(item[0])
            return item[0]

        @quiet("thread", arg_fallback={"model": ["small"]})
        def plain(self, item: int, model: str) -> str:
            if model == "big":
                raise ValueError(model)
            return f"{item} {model}"

        @quiet("thread", arg_fallback={"item": [7]})
        def item_plain(self, item: int) -> int:
            if item != 7:
                raise ValueError(item)
            return item

        @quiet("process", arg_fallback={"item": [7]})
        def item_plain_in_process(self, item: int) -> int:
            if item != 7:
                raise ValueError(item)
            return item

    return Flaky


def test_retries_and_fallback_values_of_a_method(core: hotpath.Core) -> None:
    """The item or another argument has the fallback values."""
    flaky = flaky_class()()
    assert flaky.once([1, 2]) == [1, 2]
    assert flaky.once.stats().attempts == 4
    assert flaky.listed([1, 2], keys=["bad", "good"]) == ["1 good", "2 good"]
    assert flaky.item_listed([["bad", "good"], ["good"]]) == ["good", "good"]
    assert flaky.plain([1], model="big") == ["1 small"]
    assert flaky.item_plain([1, 7]) == [7, 7]
    (failed,) = flaky.listed([1], keys=["bad", "bad"])
    assert isinstance(failed, AllFailedError)
    (wrong,) = flaky.listed([1], keys=[])
    assert isinstance(wrong, ValueError)


@pytest.mark.once
def test_fallback_values_of_an_item_travel_with_the_instance() -> None:
    """That also holds for processes."""
    assert flaky_class()().item_plain_in_process([1, 7]) == [7, 7]


def test_a_cache_belongs_to_the_instance_and_keeps_it_not_alive(core: hotpath.Core) -> None:
    """A cache of `@opero` does the same."""
    runs: list[tuple[int, int]] = []

    class Priced:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @opmap(**QUIET, cache=True)
        def price(self, item: int, plus: int = 0) -> int:
            runs.append((self.factor, item))
            return self.factor * item + plus

    one, two = Priced(1), Priced(2)
    assert (one.price([1, 2, 1]), two.price([1, 2, 1])) == ([1, 2, 1], [2, 4, 2])
    assert sorted(runs) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert one.price([2, 1]) == [2, 1]
    assert list(one.price.stream([2, 1])) == [2, 1]
    assert asyncio.run(two.price.amap([1])) == [2]
    assert len(runs) == 4
    assert one.price.cache_info() == Priced.price.cache_info()
    assert one.price.cache_info().currsize == 4
    assert one.price.stats().hits == Priced.price.stats().hits
    assert 5 <= one.price.stats().hits <= 7  # the second 1 finds the first one stored, or follows
    assert one.price.cache_invalidate(1)
    assert not one.price.cache_invalidate(1)
    assert two.price([1]) == [2]
    assert len(runs) == 4
    assert one.price([1]) == [1]
    assert len(runs) == 5
    assert Priced.price.cache_invalidate(two, 1)
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None
    two.price.cache_clear()
    assert Priced.price.cache_info().currsize == 0


def test_slotted_instances_count_by_value_as_in_opero(core: hotpath.Core) -> None:
    """Without weak references, equality decides which instances are the same."""
    runs: list[int] = []

    class Point:
        __slots__ = ("x",)

        def __init__(self, x: int) -> None:
            self.x = x

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Point) and self.x == other.x

        def __hash__(self) -> int:
            return hash(self.x)

        @opmap(**QUIET, cache=True)
        def plus(self, item: int) -> int:
            runs.append(item)
            return self.x + item

    assert Point(1).plus([1, 2]) == Point(1).plus([2, 1])[::-1] == [2, 3]
    assert Point(2).plus([1]) == [3]
    assert sorted(runs) == [1, 1, 2]


def test_a_stored_cache_takes_the_instance_by_content(core: hotpath.Core, tmp_path: Any) -> None:
    """`@opero` on disk does the same; an instance without a key fails its own items."""
    runs: list[int] = []

    class Sized:
        def __init__(self, size: int) -> None:
            self.size = size

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Sized) and self.size == other.size

        def __hash__(self) -> int:
            return self.size

        @opmap(
            **QUIET, cache=True, cache_backend="disk", cache_dir=tmp_path,
            cache_key=lambda self, item: (self.size, item),
        )  # fmt: skip
        def price(self, item: int) -> int:
            runs.append(item)
            return self.size * item

    assert Sized(2).price([1, 2]) == Sized(2).price([1, 2]) == [2, 4]
    assert sorted(runs) == [1, 2]
    assert Sized(2).price.cache_invalidate(1)
    assert Sized(3).price([1]) == [3]
    assert len(runs) == 3


# --- what it looks like ---------------------------------------------------------------------------


def test_a_bound_map_looks_like_a_bound_method(core: hotpath.Core) -> None:
    """To inspect, isinstance, help, weak references, comparison, copies and pickles."""
    shop = Shop(2)
    bound: Any = shop.process
    assert type(bound) is MappedMethod
    assert inspect.ismethod(bound)
    assert isinstance(bound, types.MethodType)
    assert inspect.isfunction(Shop.process)
    assert bound.__self__ is shop
    assert bound.__func__ is Shop.process
    assert bound.__wrapped__(shop, 3) == 6
    assert (bound.__name__, bound.__doc__) == ("process", "Tell the price.")
    assert (bound.__qualname__, bound.__module__) == ("Shop.process", __name__)
    assert str(inspect.signature(bound)) == "(item: 'int', plus: 'int' = 0) -> 'int'"
    assert bound == shop.process
    assert hash(bound) == hash(shop.process)
    assert bound != Shop(2).process
    assert weakref.WeakMethod(bound)() == bound
    assert repr(bound).startswith("<bound opero map of Shop.process of <")
    assert {"stream", "amap", "astream", "cache_info", "stats"} <= set(dir(bound))
    assert copy.copy(bound) == bound
    other = copy.deepcopy(bound)
    assert other.__self__ is not shop
    assert (type(other), other.__self__.factor) == (MappedMethod, 2)
    arrived = pickle.loads(pickle.dumps(bound))
    assert type(arrived) is MappedMethod
    assert arrived([1]) == [2]
    with pytest.raises(AttributeError):
        bound.mine = 1
    Shop.thread.mine = 1  # type: ignore[attr-defined]
    assert shop.thread.mine == 1  # type: ignore[attr-defined]
    del Shop.thread.mine  # type: ignore[attr-defined]
    assert inspect.iscoroutinefunction(shop.coroutine) == inspect.iscoroutinefunction(
        Shop.coroutine
    )
    kinds = {found.name: found.kind for found in inspect.classify_class_attrs(Shop)}
    assert {kinds["thread"], kinds["coroutine"]} == {"method"}
    assert {kinds["of_class"], kinds["of_class_below"]} == {"class method"}
    assert {kinds["static"], kinds["static_below"]} == {"static method"}


def test_a_property_can_return_a_bound_map(core: hotpath.Core) -> None:
    """Other descriptors can do so, too."""

    class Held:
        factor = 3

        @opmap(**QUIET)
        def price(self, item: int) -> int:
            return self.factor * item

        @property
        def as_property(self) -> Any:
            return self.price

        @functools.cached_property
        def as_cached_property(self) -> Any:
            return self.price

        partial = functools.partialmethod(price, [1, 2])

    held = Held()
    assert held.as_property([1]) == held.as_cached_property([1]) == [3]
    assert held.partial() == [3, 6]


def test_a_map_may_be_given_to_a_class_later(core: hotpath.Core) -> None:
    """A map that is assigned in `__init__` stays a plain function."""

    def price(this: Any, item: int) -> int:
        return int(this.factor * item)

    class Late:
        factor = 3

        def __init__(self) -> None:
            self.own = opmap(**QUIET)(self.plain)

        def plain(self, item: int) -> int:
            return self.factor + item

        placed = opmap(**QUIET)(price)

    assert Late().placed([1, 2]) == Late.placed(Late(), [1, 2]) == [3, 6]  # type: ignore[misc]
    assert Late().own([1]) == [4]
    Late.later = opmap(**QUIET)(price)  # type: ignore[attr-defined]
    assert Late().later([1]) == [3]  # type: ignore[attr-defined]


@pytest.mark.once
def test_a_method_of_a_class_maps_over_its_instances() -> None:
    """If the class is decorated from outside, `self` is the item."""
    shops = [Shop(1), Shop(2)]

    def worth(self: Shop) -> int:
        return self.factor

    worth.__qualname__ = "Shop.worth"
    assert opmap(**QUIET)(worth)(shops) == [1, 2]


# --- mistakes -------------------------------------------------------------------------------------


def test_a_call_without_instance_or_items_says_what_is_missing(core: hotpath.Core) -> None:
    """That holds on the class and on an instance, in all forms."""
    missing = r"^Shop\.thread{}\(\) is missing its instance: call it on one, or pass one first: "
    for form in ("", ".stream", ".amap", ".astream"):
        call = functools.reduce(getattr, form.split(".")[1:], Shop.thread)
        for args in ((), ([1],)):
            with pytest.raises(TypeError, match=missing.format(re.escape(form))):
                call(*args)  # type: ignore[operator]
        bound = functools.reduce(getattr, form.split(".")[1:], Shop(1).thread)
        with pytest.raises(TypeError, match=r"is missing the items: pass an iterable of them$"):
            bound()
        with pytest.raises(TypeError, match=r"write Shop\.thread.*\(items, plus=2\)$"):
            bound([1], 2)
        with pytest.raises(TypeError, match=r"write Shop\.thread.*\(items, plus=2\)$"):
            call(Shop(1), [1], 2)  # type: ignore[operator]
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'minus'"):
        Shop(1).thread([1], minus=2)  # type: ignore[call-arg]


@pytest.mark.once
def test_a_method_that_takes_no_item_is_refused_when_its_class_is_made() -> None:
    """Before Python 3.12 another error wraps this one."""
    for wrong in (lambda self: 1, lambda self, *, item: 1, lambda: 1, len):
        with pytest.raises((TypeError, RuntimeError)) as caught:
            type("Refused", (), {"work": opmap(**QUIET)(wrong)})
        error = caught.value.__cause__ if type(caught.value) is RuntimeError else caught.value
        assert type(error) is TypeError


@pytest.mark.once
def test_further_parameters_of_a_method_are_taken_by_keyword_only() -> None:
    """Functions do the same; the item itself may be positional-only."""

    class Positional:
        @opmap(**QUIET)
        def fine(self, item: int, /, plus: int = 0) -> int:
            return item + plus

    assert Positional().fine([1], plus=1) == [2]
    with pytest.raises(TypeError, match=r"takes 'plus' by position only"):

        class Refused:
            @opmap(**QUIET)
            def wrong(self, item: int, plus: int, /) -> int:
                return item + plus


# --- executors ------------------------------------------------------------------------------------


def square_of(owner: Any, item: int) -> int:
    return int(owner.factor * item)


@pytest.mark.once
def test_methods_are_mapped_by_executors() -> None:
    """Processes receive the instance with the method."""
    context = multiprocessing.get_context("forkserver")
    with cf.ThreadPoolExecutor(2) as threads, cf.ProcessPoolExecutor(2, context) as processes:
        for executor in (threads, processes):

            class Bought:
                def __init__(self, factor: int) -> None:
                    self.factor = factor

                @opmap(executor=executor, progress=False, retries=1)
                def price(self, item: int) -> int:
                    return self.factor * item

                @opmap(executor=executor, progress=False, retries=1)
                @classmethod
                def name(cls, item: int) -> str:
                    return f"{cls.__name__} {item}"

            assert Bought(3).price([1, 2]) == Bought.price(Bought(3), [1, 2]) == [3, 6]
            assert Bought.name([1]) == Bought(1).name([1]) == ["Bought 1"]
            assert list(Bought(3).price.stream(range(4))) == [0, 3, 6, 9]
        assert opmap(executor=processes, progress=False)(functools.partial(square_of, Shop(2)))(
            [1]
        ) == [2]


# --- classes of every kind --------------------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class SlottedData:
    factor: int

    @quiet("process")
    def price(self, item: int) -> int:
        return self.factor * item


class Color(enum.Enum):
    RED = 2

    @quiet("process")
    def times(self, item: int) -> int:
        return int(self.value) * item


class Abstract(abc.ABC):
    @quiet("process")
    @abc.abstractmethod
    def price(self, item: int) -> int: ...


class Concrete(Abstract):
    def __init__(self, factor: int = 2) -> None:
        self.factor = factor

    @quiet("process")
    def price(self, item: int) -> int:
        return self.helper(item)

    def helper(self, item: int) -> int:
        return self.factor * item

    @quiet("process")
    def __call__(self, item: int) -> int:
        return self.factor + item

    @quiet("process", unpack=True)
    def both(self, item: int, count: int) -> int:
        return self.factor * item * count


class Derived(Concrete):
    @quiet("process")
    def of_super(self, item: int) -> int:
        return super().helper(item)


@pytest.mark.once
def test_methods_of_any_class_are_mapped_in_processes() -> None:
    """The test has slots, enums, abstract methods, `__call__`, `super()` and `unpack`."""
    assert SlottedData(3).price([1, 2]) == [3, 6]
    assert (Color.RED.times([1, 2]), list(Color)) == ([2, 4], [Color.RED])
    with pytest.raises(TypeError, match="abstract"):
        Abstract()  # type: ignore[abstract]
    concrete = Concrete()
    assert concrete.price([1, 2]) == concrete.both([(1, 1), {"item": 2, "count": 1}]) == [2, 4]
    assert concrete([1, 2]) == [3, 4]
    assert Derived(4).of_super([1]) == [4]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.once
def test_no_map_keeps_its_instance_alive(name: str) -> None:
    """It is free once the map is over, or its stream is closed and its threads have ended."""
    shop = Shop(2)
    getattr(shop, name)([1])
    stream = getattr(shop, name).stream(range(100))
    next(stream)
    stream.close()
    del stream
    gone = weakref.ref(shop)
    del shop
    until(lambda: gc.collect() >= 0 and gone() is None)


SCRIPT = """\
import asyncio, sys
from opero import opero, opmap

QUIET = {"workers": 2, "retries": 1, "progress": False, "start_method": sys.argv[1]}

class Shop:
    def __init__(self, factor):
        self.factor = factor

    @opmap(mode="process", **QUIET)
    def price(self, item, plus=0):
        return self.helper(item) + plus

    @opmap(mode="async_process", **QUIET)
    async def later(self, item):
        await asyncio.sleep(0)
        return self.helper(item)

    @opmap(mode="process", **QUIET)
    @classmethod
    def name(cls, item):
        return cls.__name__, item

    @opmap(mode="process", **QUIET)
    def nested(self, item):
        return list(self.price([item, item])), list(self.price.stream([item], plus=1))

    @opmap(mode="process", **QUIET)
    def names(self, item):
        return list(self.name.stream([item])), list(type(self).name([item]))

    @opmap(mode="process", **QUIET)
    def found(self, item):
        known = [self.kept(item), self.kept(item)]
        return known, self.kept.cache_invalidate(item), self.kept.cache_info().hits

    @opmap(mode="process", **QUIET)
    def itself(self, item):
        self.price.stream
        return type(self).price, self.price, Shop

    @opero(cache=True)
    def kept(this, item):
        return this.factor * item

    def helper(self, item):
        return self.factor * item

class Corner(Shop):
    @opmap(mode="process", **QUIET)
    def price(self, item, plus=0):
        return -super().helper(item)

    @opmap(mode="process", **QUIET)
    def inherited(self, item):
        return list(super().price.stream([item])), list(self.price.stream([item]))

print(Shop(2).price([1, 2], plus=1), list(Shop(2).later.stream([1])), Corner(3).price([1]))
print(Corner.name([1]), Shop(2).nested([1]), Shop.price(Shop(2), [1]))
print(Corner(1).names([1]), Shop(2).found([1]), Corner(2).inherited([1]))
function, method, kind = Shop(3).itself([1])[0]
print(function is Shop.price, method([1]), kind is Shop)
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.once
def test_methods_of_a_script_travel_with_their_class(method: str, tmp_path: Path) -> None:
    """Any start method works; a worker also maps with them, and asks their caches."""
    script = tmp_path / "shop.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-W", "error", str(script), method]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=tmp_path
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "[3, 5] [2] [-3]",
        "[('Corner', 1)] [([2, 2], [3])] [2]",
        "[([('Corner', 1)], [('Corner', 1)])] [([2, 2], True, 1)] [([2], [-2])]",
        "True [3] True",
    ]
