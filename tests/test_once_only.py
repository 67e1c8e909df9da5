"""What a cache cannot give to two callers, and what opero cannot retry: generators and the like."""

from __future__ import annotations

import asyncio
import csv
import functools
import io
import itertools
import re
import types
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from opero import hotpath, opero, opmap


class Once:
    """An iterator written in Python."""

    def __iter__(self) -> Once:
        return self

    def __next__(self) -> int:
        raise StopIteration


class NotIterable:
    """Says that it is no iterator."""

    __next__ = None


class Reusable:
    """Can be iterated over again and again."""

    def __iter__(self) -> Iterator[int]:
        return iter((1, 2))


async def awaitable() -> int:
    """Return a number."""
    return 1


async def items() -> Any:
    """Yield a number."""
    yield 1


@types.coroutine
def old_style() -> Any:
    """Be awaited in the old way."""
    yield


ITERATORS: dict[str, Callable[[], Any]] = {
    "generator": lambda: (n for n in range(3)),
    "map": lambda: map(str, range(3)),
    "zip": lambda: zip((1,), (2,), strict=True),
    "list_iterator": lambda: iter([1]),
    "chain": lambda: itertools.chain((1,), (2,)),
    "callable_iterator": lambda: re.finditer("a", "aa"),
    "reader": lambda: csv.reader(["a,b"]),
    "StringIO": lambda: io.StringIO("a"),
    "Once": Once,
    "async_generator": items,
}

AWAITABLES: dict[str, Callable[[], Any]] = {"coroutine": awaitable}

GOOD: tuple[Any, ...] = (
    None,
    "text",
    [iter(())],
    (1,),
    range(3),
    Reusable(),
    NotIterable(),
    mock.MagicMock(),
    mock.AsyncMock(),
    mock.mock_open()(),
    {1: 2}.keys(),
    Once,
    awaitable,
    Path("a"),
    b"",
    memoryview(b""),
)


@pytest.fixture(params=["memory", "disk"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What makes a function cached, in memory and outside the process."""
    if request.param == "memory":
        return {"cache": True, "retries": 1}
    directory = tmp_path / "cache"
    directory.mkdir(mode=0o700)
    return {
        "cache": True,
        "retries": 1,
        "cache_backend": "disk",
        "cache_dir": directory,
        "cache_namespace": "mine",
    }


@pytest.mark.parametrize("name", ITERATORS)
def test_an_iterator_is_not_cached_but_refused(
    core: hotpath.Core, options: dict[str, Any], name: str
) -> None:
    """At each call; the error says what to return instead."""

    def function(n: int) -> Any:
        return ITERATORS[name]()

    async def later(n: int) -> Any:
        return ITERATORS[name]()

    text = rf"function is cached, but it returned an? {name}, .*a list or a tuple of its items"
    cached = opero(**options)(function)
    for _ in range(2):
        with pytest.raises(TypeError, match=text):
            cached(1)
    assert cached.cache_info().currsize == 0
    with pytest.raises(TypeError, match=text.replace("function", "later")):
        asyncio.run(opero(**options)(later)(1))


def test_an_awaitable_is_not_cached_but_refused(
    core: hotpath.Core, options: dict[str, Any]
) -> None:
    """An ordinary function that returns a coroutine is not a coroutine function."""

    def function(n: int) -> Any:
        return awaitable()

    cached = opero(**options)(function)
    for _ in range(2):
        with pytest.raises(TypeError, match=r"function is cached.* a coroutine, .*async def"):
            cached(1)
    cached = opero(**options)(lambda n: asyncio.gather())

    async def main() -> None:
        with pytest.raises(TypeError, match=r"a Future, .*async def"):
            cached(1)

    asyncio.run(main())


@pytest.mark.parametrize("value", GOOD, ids=lambda value: type(value).__name__)
def test_what_can_be_used_again_is_cached(core: hotpath.Core, value: Any) -> None:
    """Also what holds an iterator, which is the user's business."""
    function = opero(cache=True)(lambda n: value)
    assert function(1) is function(1) is value
    assert function.stats().hits == 1


def test_without_a_cache_anything_is_returned(core: hotpath.Core) -> None:
    """Each caller gets one of its own."""
    function = opero(retries=2)(lambda n: iter(range(n)))
    assert list(function(2)) == list(function(2)) == [0, 1]


def test_an_item_of_a_map_that_returns_an_iterator_fails(core: hotpath.Core) -> None:
    """Alone, if the map caches."""
    mapped = opmap(mode="thread", progress=False, cache=True, retries=1)(
        lambda n: iter(()) if n == 1 else n
    )
    zero, one, two = mapped([0, 1, 2])
    assert (zero, two) == (0, 2)
    assert isinstance(one, TypeError)
    assert "a list or a tuple of its items" in str(one)


def test_followers_of_a_run_get_the_same_error(core: hotpath.Core) -> None:
    """They would have shared the iterator."""

    async def function(n: int) -> Any:
        await asyncio.sleep(0)
        return iter(())

    async def main() -> list[Any]:
        cached = opero(cache=True)(function)
        return await asyncio.gather(*(cached(1) for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in asyncio.run(main())] == [TypeError] * 3


# --- at decoration --------------------------------------------------------------------------------


def generator() -> Iterator[int]:
    """Yield a number."""
    yield 1


class Thing:
    """Has generator functions."""

    def method(self) -> Iterator[int]:
        """Yield a number."""
        yield 1

    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    "function",
    [
        generator,
        items,
        functools.partial(generator),
        functools.lru_cache(generator),
        Thing().method,
        Thing(),
    ],
)
def test_what_is_known_to_return_a_generator_is_refused(
    core: hotpath.Core, function: Callable[..., Any]
) -> None:
    """By whatever keeps what it returns; each message says what to do."""
    for decorate in (opero(cache=True), opmap):
        with pytest.raises(TypeError, match="generator function"):
            decorate(function)


@pytest.mark.parametrize("maker", [contextmanager, asynccontextmanager])
def test_a_context_manager_made_of_a_generator_is_refused(core: hotpath.Core, maker: Any) -> None:
    """The message says which order works."""
    made = maker(items if maker is asynccontextmanager else generator)
    for function in (made, functools.partial(made)):
        for decorate in (opero, opero(cache=True)):
            with pytest.raises(TypeError, match="put @contextmanager above @opero"):
                decorate(function)

    class Class:
        with pytest.raises(TypeError, match=r"Class\.method"):

            @opero
            @maker
            def method(self) -> Iterator[int]:
                yield 1


def test_a_wrapper_that_makes_a_list_of_a_generator_is_decorated(core: hotpath.Core) -> None:
    """What it wraps says nothing about what it returns."""

    def listed(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return list(function(*args))

        return wrapper

    assert opero(cache=True)(listed(generator))() == [1]


# --- cache_key ------------------------------------------------------------------------------------


def test_a_cache_key_that_does_not_take_the_arguments_is_named(
    core: hotpath.Core, options: dict[str, Any]
) -> None:
    """A method's gets the instance first; what it gets are the arguments as they are given."""

    class Api:
        @opero(cache_key=lambda path: path, **options)
        def get(self, path: str) -> str:
            return path

        @opero(cache_key=lambda self, path: path, **options)
        def put(self, path: str, again: int = 0) -> str:
            return path

    with pytest.raises(TypeError, match=r"Api\.get\(\): cache_key= .* the instance first.*takes 1"):
        Api().get("/a")
    with pytest.raises(TypeError, match=r"Api\.put\(\): cache_key= .*'again'"):
        Api().put("/a", again=1)
    assert Api().put("/a") == "/a"


def test_what_a_cache_key_raises_says_where_it_was_raised(
    core: hotpath.Core, options: dict[str, Any]
) -> None:
    """It stays the exception that it is, with a note."""

    def key(n: Any) -> Any:
        return n["missing"]

    function = opero(cache_key=key, **options)(lambda n: n)
    with pytest.raises(KeyError) as caught:
        function({})
    assert "cache_key=" in caught.value.__notes__[0]
    with pytest.raises(TypeError, match="subscriptable") as other:
        function(1)
    assert "cache_key=" in other.value.__notes__[0]
