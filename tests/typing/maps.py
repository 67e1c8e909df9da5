"""A mapped function takes many items and gives a list, an iterator, or what can be awaited."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, assert_type

from opero import (
    CacheConfig,
    FailedItem,
    MapResult,
    NotRun,
    ParallelMode,
    Progress,
    RateLimitConfig,
    RateLimiter,
    RetryConfig,
    opero,
    operomap,
    opmap,
)
from opero.functions import MapDecorator, Mapped
from opero.stats import CacheInfo, Stats


@opmap
def bare(path: str) -> int:
    """Is decorated without parentheses."""
    return len(path)


@opmap(mode="thread", progress=False)
def scaled(item: int, factor: float = 2.0, *, unit: str = "") -> str:
    """Has parameters that all items share."""
    return f"{item * factor}{unit}"


@opmap("thread", 2, progress=False)
def needs(item: int, factor: int) -> int:
    """Has one that has to be given."""
    return item * factor


@opmap(mode="thread", on_error="raise", progress=False)
def raising(item: int, plus: int = 0) -> int:
    """Has no failures among its results."""
    return item + plus


@opmap(mode="async", progress=False)
async def later(item: int, plus: int = 0) -> list[int]:
    """Is a coroutine function."""
    return [item + plus]


@opmap(mode="async", on_error="raise", progress=False)
async def raising_later(item: int) -> float:
    """Is a coroutine function without failures among its results."""
    return item / 2


@opmap(mode="thread", progress=False)
def nothing(item: int) -> None:
    """Returns nothing."""


@operomap(mode="thread", progress=False)
def optional(item: str | None = None, **named: bool) -> bytes | None:
    """Has a variable number of parameters."""
    return item.encode() if item else None


@opmap(mode="async", progress=False)
async def named_later(item: str, limit: int = 5, **named: bool) -> int:
    """Is a coroutine function with a variable number of parameters."""
    return len(item)


@opmap
def named(item: str, **named: bool) -> int:
    """Is decorated without parentheses."""
    return len(item)


def mapped_as_told(mode: ParallelMode, workers: int) -> Mapped[int, ..., bytes | BaseException]:
    """Map in a mode that is known at run time only."""
    return opmap(mode, workers, progress=False)(undecorated)


def told(progress: Progress) -> None:
    """Is told of the progress."""
    assert_type(progress.done, int)
    assert_type(progress.total, int | None)


def show(progress: object) -> int:
    """Takes more than a `Progress` and returns something."""
    return len(str(progress))


def set_up() -> None:
    """Sets a worker up."""


def by_item(item: int) -> int:
    """Make a cache key."""
    return item


mode: ParallelMode = "thread"
threads: Executor = ThreadPoolExecutor(1)


@opmap(
    mode="process",
    workers=2,
    ordered=False,
    progress=told,
    retries=2,
    backoff_factor=2,
    min_delay=0,
    max_delay=0.5,
    retry_on=(ValueError, KeyError),
    arg_fallback={"factor": [1, 2]},
    cache=True,
    cache_ttl=60,
    cache_namespace="typing",
    rate_limit=1e9,
    cache_key=by_item,
    cache_backend="memory",
    cache_maxsize=None,
    jitter=False,
    burst=3,
    timeout=5.0,
    retry_after=lambda error: 1.5 if isinstance(error, OSError) else None,
    retry_on_result=lambda value: value is None,
    reraise=True,
    rate_limit_scope="total",
    attempt_timeout=2,
    start_method="spawn",
    worker_init=set_up,
    max_items_per_worker=100,
    max_memory_per_worker=2**30,
    executor=None,
    on_error="return",
    unpack=False,
    with_items=False,
    max_errors=0.1,
    total=1000,
    loop="auto",
)
def every_option(item: int, factor: int = 0) -> int:
    """Takes every option there is; it is not called."""
    return item * factor


@opmap(
    mode=mode,
    progress=show,
    executor=threads,
    retry=RetryConfig(attempts=2),
    cache=CacheConfig(enabled=True),
    rate_limit=RateLimitConfig(rate=1e9),
    rate_limit_scope="total",
)
def config_objects(item: int) -> int:
    """Takes its options as objects."""
    return item


@opmap(mode="async", workers=3, loop="asyncio", rate_limit=RateLimiter(1e9), progress=False)
async def limited(item: bytes) -> bytes:
    """Shares a limit."""
    return item


@opmap(mode="thread", with_items=True, ordered=False, progress="log", total=3)
def paired(item: str, plus: int = 0) -> int:
    """Gives pairs."""
    return len(item) + plus


@opmap(mode="async", with_items=True, on_error="raise", progress=False)
async def paired_later(item: bytes) -> str:
    """Is a coroutine function that gives pairs, and no failures."""
    return item.decode()


@opmap(mode="thread", unpack=True, progress=False)
def unpacked(a: int, b: str = "", *, c: float = 0.0) -> bytes:
    """Takes several arguments from an item."""
    return f"{a}{b}{c}".encode()


@opmap(mode="async", unpack=True, on_error="raise", progress=False)
async def unpacked_later(a: int, b: int = 1) -> int:
    """Is a coroutine function that does."""
    return a + b


@opmap(unpack=True, with_items=True, mode="thread", progress=False)
def unpacked_pairs(a: int, b: int = 1) -> int:
    """Gives pairs."""
    return a + b


class Shop:
    """Has mapped static methods."""

    @staticmethod
    @opmap(mode="thread", progress=False)
    def inside(item: str, times: int = 1) -> int:
        """Is mapped below."""
        return len(item) * times

    @opmap(mode="thread", progress=False)
    @staticmethod
    def outside(item: str, times: int = 1) -> int:
        """Is mapped above."""
        return len(item) * times

    def price(self, item: str, *, count: int = 1) -> float:
        """Is an ordinary method."""
        return 1.5 * len(item) * count


class Caller:
    """Is called as a function."""

    def __call__(self, item: int) -> str:
        return str(item)


def undecorated(item: int, *, b: str = "") -> bytes:
    """Is decorated by a call."""
    return (b * item).encode()


@opero(cache=True)
def resilient(item: int, b: str = "") -> bytes:
    """Is decorated by opero before it is mapped."""
    return (b * item).encode()


by_thread: MapDecorator = opmap(
    mode="thread", chunk_size=4, read_ahead=100, read_in="caller", progress=False
)
by_call = by_thread(undecorated)
over_opero = by_thread(resilient)
over_partial = by_thread(partial(undecorated, b="x"))
over_method = by_thread(Shop().price)
over_unbound = by_thread(str.upper)
over_object = by_thread(Caller())
over_builtin = opmap(mode="thread", on_error="raise", progress=False)(len)


def takes(mapped: Mapped[int, ..., Any], whole: Mapped[int, [], int]) -> None:
    """Take any mapped function, and one of known parameters."""
    assert_type(mapped([1], b="x"), MapResult[Any])
    assert_type(whole([1]), MapResult[int])


def takes_callable(function: Callable[[Iterable[int]], list[str | BaseException]]) -> None:
    """Take a function of a list."""
    assert function([1]) == ["2.0"]


def items() -> Generator[int, None, None]:
    """Yield items."""
    yield from range(3)


async def aitems() -> AsyncIterator[int]:
    """Yield items to a coroutine."""
    yield 1


assert_type(scaled([1, 2]), MapResult[str | BaseException])
assert_type(scaled(items(), factor=1.5, unit="m"), MapResult[str | BaseException])
assert_type(scaled({1: "a"}, unit="m"), MapResult[str | BaseException])
assert_type(scaled([True]), MapResult[str | BaseException])
assert_type(needs([1], factor=3), MapResult[int | BaseException])
assert_type(raising(range(3), plus=1), MapResult[int])
assert_type(nothing([1]), MapResult[BaseException | None])
assert_type(optional(["a", None], more=True), MapResult[bytes | BaseException | None])
assert_type(named_later(["a"], more=True), MapResult[int | BaseException])
assert_type(named.cache_info(), CacheInfo)
assert_type(later([1], plus=2), MapResult[list[int] | BaseException])
assert_type(raising_later([1]), MapResult[float])
assert_type(limited([b"a"]), MapResult[bytes | BaseException])
assert_type(Shop.inside(["a"], times=2), MapResult[int | BaseException])
assert_type(Shop().inside(["a"]), MapResult[int | BaseException])
assert_type(Shop.outside(["a"], times=2), MapResult[int | BaseException])
assert_type(Shop().outside(["a"]), MapResult[int | BaseException])
assert_type(by_call([1], b="x"), MapResult[bytes | BaseException])
assert_type(over_opero([1], b="x"), MapResult[bytes | BaseException])
assert_type(over_partial([1]), MapResult[bytes | BaseException])
assert_type(over_method(["a"], count=2), MapResult[float | BaseException])
assert_type(over_unbound(["a"]), MapResult[str | BaseException])
assert_type(over_object([1]), MapResult[str | BaseException])
assert_type(over_builtin(["a"]), MapResult[int])

assert_type(scaled.stream([1], unit="m"), Generator[str | BaseException, None, None])
assert_type(raising.stream([1]), Generator[int, None, None])
assert_type(next(raising_later.stream([1])), float)
scaled.stream([1]).close()
for number in raising.stream(items()):
    assert_type(number, int)

good = [result for result in scaled([1]) if not isinstance(result, BaseException)]
bad = [result for result in scaled([1]) if isinstance(result, BaseException)]
assert_type(good, list[str])
assert_type(bad, list[BaseException])

assert_type(paired(["a"], plus=1), MapResult[tuple[str, int | BaseException]])
assert_type(paired_later([b"a"]), MapResult[tuple[bytes, str]])
for name, size in paired.stream(["a"]):
    assert_type((name, size), tuple[str, int | BaseException])
assert_type(unpacked([(1, "x"), {"a": 2}], c=1.5), MapResult[bytes | BaseException])
assert_type(unpacked_later([(1,), {"a": 2}]), MapResult[int])
assert_type(unpacked_later([[1], [2, 3]]), MapResult[int])
assert_type(unpacked(csv.reader(["1,x"])), MapResult[bytes | BaseException])
assert_type(
    unpacked_pairs([(1,)]),
    MapResult[tuple[Sequence[Any] | Mapping[str, Any], int | BaseException]],
)

batch = scaled([1, 2])
assert_type(batch.failures, list[FailedItem])
for failure in batch.failures:
    assert_type((failure.index, failure.error), tuple[int, BaseException])
assert_type((batch.complete, batch.attempts, batch.retried), tuple[bool, int, int])
assert_type((batch.seconds, batch.summary()), tuple[float, str])
assert_type(batch[0:1], list[str | BaseException])
left = [each.item for each in batch if isinstance(each, NotRun)]
plain: list[str | BaseException] = batch

assert_type(scaled.cache_info(), CacheInfo)
assert_type(scaled.stats(), Stats)
assert_type(scaled.__name__, str)
assert_type(scaled.__wrapped__(1, 2.0, unit="m"), Any)
assert_type(config_objects([1]), MapResult[int | BaseException])
assert_type(config_objects.cache_invalidate(1), bool)
config_objects.cache_clear()
takes(over_opero, raising_whole := opmap(mode="thread", on_error="raise", progress=False)(by_item))
takes_callable(scaled)
threads.shutdown()


async def main() -> None:
    """Await them all."""
    pending: Coroutine[Any, Any, MapResult[str | BaseException]] = scaled.amap([1])
    assert_type(await pending, MapResult[str | BaseException])
    assert_type(await scaled.amap(aitems(), unit="m"), MapResult[str | BaseException])
    assert_type(await later.amap([1], plus=1), MapResult[list[int] | BaseException])
    assert_type(await raising_later.amap(aitems()), MapResult[float])
    assert_type(later.astream([1]), AsyncGenerator[list[int] | BaseException, None])
    async for number in raising_later.astream(aitems()):
        assert_type(number, float)
    stream = raising.astream(items(), plus=1)
    assert_type(await stream.__anext__(), int)
    await stream.aclose()
    task = asyncio.create_task(raising.amap([1]))
    assert_type(await task, MapResult[int])
    assert_type(
        await asyncio.gather(raising.amap([1]), raising.amap([2])),
        tuple[MapResult[int], MapResult[int]],
    )


asyncio.run(main())
