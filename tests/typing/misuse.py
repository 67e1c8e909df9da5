"""What checkers have to refuse, line by line: `# E: code of mypy | rule of pyright`."""

from __future__ import annotations

import opero as package
from opero import (
    CacheConfig,
    RateLimitConfig,
    RateLimiter,
    RetryConfig,
    clear_cache,
    get_cache_context,
    get_cache_decorator,
    get_fallback_decorator,
    get_rate_limit_decorator,
    get_retry_decorator,
    opero,
    opmap,
)


@opero(cache=True)
def plain(a: int, *, b: str = "") -> list[str]:
    """Is decorated."""
    return [b] * a


@opero
async def later(a: int) -> int:
    """Is decorated and awaited."""
    return a


@opmap(mode="thread")
def mapped(item: int, *, b: str = "") -> list[str]:
    """Is mapped."""
    return [b] * item


@opmap(mode="thread", workers=2)
def needs(item: int, factor: int) -> int:
    """Is mapped and needs a shared argument."""
    return item * factor


@opmap(mode="async", on_error="raise")
async def mapped_later(item: int) -> int:
    """Is mapped and awaited."""
    return item


class Shop:
    """Has decorated methods."""

    @opero(cache=True)
    def price(self, item: str) -> float:
        """Is a method."""
        return 1.0

    @classmethod
    @opero
    def make(cls, name: str) -> Shop:
        """Is a class method."""
        return cls()

    @opero
    @staticmethod
    def parse(cents: int) -> str:
        """Is a static method."""
        return str(cents)


class Mapping:
    """Has a mapped method."""

    @opmap(mode="thread")
    def price(self, item: str, *, count: int = 1) -> float:
        """Is a method."""
        return 1.5 * len(item) * count


def mapped_methods(mapping: Mapping) -> None:
    """Maps wrongly by a method."""
    mapping.price([1])  # E: list-item | reportArgumentType
    mapping.price("a", "b")  # E: call-arg | reportCallIssue
    mapping.price(["a"], count="b")  # E: arg-type | reportArgumentType
    mapping.price(["a"], many=2)  # E: call-arg | reportCallIssue
    mapping.price(mapping, ["a"])  # E: call-arg | reportCallIssue
    mapping.price.stream([1])  # E: list-item | reportArgumentType
    mapping.price.cache_invalidate(1)  # E: arg-type | reportArgumentType
    Mapping.price(["a"])  # E: call-arg | reportCallIssue
    Mapping.price(mapping, [1])  # E: list-item | reportArgumentType
    whole: list[float] = mapping.price(["a"])  # E: assignment | reportAssignmentType
    print(whole)


async def calls(shop: Shop) -> None:
    """Call with wrong arguments."""
    plain("1")  # E: arg-type | reportArgumentType
    plain()  # E: call-arg | reportCallIssue
    plain(1, "b")  # E: call-arg | reportCallIssue
    plain(1, b=2)  # E: arg-type | reportArgumentType
    plain(1, c=2)  # E: call-arg | reportCallIssue
    number: int = plain(1)  # E: assignment | reportAssignmentType
    print(number)
    await later("1")  # E: arg-type | reportArgumentType
    text: str = await later(1)  # E: assignment | reportAssignmentType
    print(text)
    shop.price(1)  # E: arg-type | reportArgumentType
    shop.price(shop, "item")  # E: call-arg | reportCallIssue
    Shop.price("item")  # E: call-arg | reportCallIssue
    Shop.make(1)  # E: arg-type | reportArgumentType
    shop.make()  # E: call-arg | reportCallIssue
    Shop.parse("1")  # E: arg-type | reportArgumentType
    shop.parse("1")  # E: arg-type | reportArgumentType


def attributes(shop: Shop) -> None:
    """Use the attributes wrongly."""
    plain.cache_invalidate("1")  # E: arg-type | reportArgumentType
    plain.cache_invalidate()  # E: call-arg | reportCallIssue
    plain.cache_clear(1)  # E: call-arg | reportCallIssue
    plain.cache_information()  # E: attr-defined | reportAttributeAccessIssue
    print(plain.stats().attempt)  # E: attr-defined | reportAttributeAccessIssue
    shop.price.cache_invalidate(1)  # E: arg-type | reportArgumentType
    shop.price.cache_invalidate(shop, "item")  # E: call-arg | reportCallIssue
    Shop.make.cache_invalidate(1)  # E: arg-type | reportArgumentType


def options() -> None:
    """Give wrong options."""
    opero(retires=3)  # E: call-overload | reportCallIssue
    opero(retries="3")  # E: call-overload | reportArgumentType
    opero(retry_on="ValueError")  # E: call-overload | reportArgumentType
    opero(retry_on=(ValueError, 3))  # E: arg-type | reportArgumentType
    opero(retry_on=[ValueError])  # E: call-overload | reportArgumentType
    opero(cache="yes")  # E: call-overload | reportArgumentType
    opero(cache_ttl="60")  # E: call-overload | reportArgumentType
    opero(cache_key="key")  # E: call-overload | reportArgumentType
    opero(cache_dir=5)  # E: call-overload | reportArgumentType
    opero(cache_place="/tmp")  # E: call-overload | reportCallIssue
    opero(arg_fallback=["a"])  # E: call-overload | reportArgumentType
    opero(arg_fallback={"model": "a"})  # E: dict-item | reportArgumentType
    opero(rate_limit="5")  # E: call-overload | reportArgumentType
    opero(timeout="5")  # E: call-overload | reportArgumentType
    opero(burst=1.5)  # E: call-overload | reportArgumentType
    opero(retry=3)  # E: call-overload | reportArgumentType
    opero(retry_after=30)  # E: call-overload | reportArgumentType


def one_mechanism() -> None:
    """Give wrong options to the decorators of one mechanism."""
    get_cache_decorator(cache_max=1)  # E: call-arg | reportCallIssue
    get_cache_decorator(cache_maxsize="1")  # E: arg-type | reportArgumentType
    get_retry_decorator(jiter=False)  # E: call-arg | reportCallIssue
    get_retry_decorator(3, 2, 0, 1, OSError, False)  # E: call-arg | reportCallIssue
    get_retry_decorator(retry_after="7")  # E: arg-type | reportArgumentType
    get_retry_decorator(cache=True)  # E: call-arg | reportCallIssue
    get_rate_limit_decorator()  # E: call-arg | reportCallIssue
    get_rate_limit_decorator(1.0, bursts=2)  # E: call-arg | reportCallIssue
    get_fallback_decorator()  # E: call-arg | reportCallIssue
    get_fallback_decorator("a", fallback_on=3)  # E: arg-type | reportArgumentType


def objects(limiter: RateLimiter) -> None:
    """Use the other objects wrongly."""
    CacheConfig(ttl="60")  # E: arg-type | reportArgumentType
    RetryConfig(retries=3)  # E: call-arg | reportCallIssue
    RateLimitConfig(rate="5")  # E: arg-type | reportArgumentType
    RateLimiter()  # E: call-arg | reportCallIssue
    RateLimiter("5")  # E: arg-type | reportArgumentType
    limiter.acquire_async()  # E: attr-defined | reportAttributeAccessIssue
    limiter.pause("1")  # E: arg-type | reportArgumentType
    limiter.try_acquire("2")  # E: arg-type | reportArgumentType
    RateLimiter(5, scope="host")  # E: arg-type | reportArgumentType
    RateLimiter(5, 1, "machine")  # E: call-arg | reportCallIssue
    RateLimiter(5, windows=[100, 60])  # E: list-item | reportArgumentType
    get_cache_context("file")  # E: arg-type | reportArgumentType
    CacheConfig(backend="file")  # E: arg-type | reportArgumentType
    get_cache_context(cache_size=1)  # E: call-arg | reportCallIssue
    package.cache_clear()  # E: attr-defined | reportAttributeAccessIssue
    clear_cache(1)  # E: arg-type | reportArgumentType


opero(3)(4)  # E: call-overload | reportArgumentType


@opero(cache=True)  # E: prop-decorator | reportArgumentType
@property
def not_a_function(self: Shop) -> int:
    """Is no function."""
    return 1


async def maps() -> None:
    """Map wrongly."""
    mapped(1)  # E: arg-type | reportArgumentType
    mapped(["1"])  # E: list-item | reportArgumentType
    mapped()  # E: call-arg | reportCallIssue
    mapped(item=[1])  # E: call-arg | reportCallIssue
    mapped([1], b=2)  # E: arg-type | reportArgumentType
    mapped([1], c=2)  # E: call-arg | reportCallIssue
    mapped([1], "b")  # E: call-arg | reportCallIssue
    needs([1])  # E: call-arg | reportCallIssue
    needs([1], factor="2")  # E: arg-type | reportArgumentType
    whole: list[list[str]] = mapped([1])  # E: assignment | reportAssignmentType
    print(whole)
    mapped([1])[0].append("")  # E: union-attr | reportAttributeAccessIssue
    mapped.stream(["1"])  # E: list-item | reportArgumentType
    mapped.stream([1], c=2)  # E: call-arg | reportCallIssue
    await mapped.amap(["1"])  # E: list-item | reportArgumentType
    mapped.astream([1], b=2)  # E: arg-type | reportArgumentType
    await mapped.astream([1])  # E: misc | reportGeneralTypeIssues
    text: list[str] = await mapped_later.amap([1])  # E: assignment | reportAssignmentType
    print(text)
    async for _ in mapped_later.amap([1]):  # E: attr-defined | reportGeneralTypeIssues
        pass
    mapped.cache_invalidate([1])  # E: arg-type | reportArgumentType
    mapped.map([1])  # E: attr-defined | reportAttributeAccessIssue
    mapped.__wrapped__("1")  # E: arg-type | reportArgumentType


def map_options() -> None:
    """Give wrong options."""
    opmap(mode="threads")  # E: call-overload | reportArgumentType
    opmap(mode=3)  # E: call-overload | reportArgumentType
    opmap(worker=4)  # E: call-overload | reportCallIssue
    opmap(workers="4")  # E: call-overload | reportArgumentType
    opmap(workers=2.5)  # E: call-overload | reportArgumentType
    opmap(ordered="yes")  # E: call-overload | reportArgumentType
    opmap(progress=None)  # E: call-overload | reportArgumentType
    opmap(progress=takes_text)  # E: arg-type | reportArgumentType
    opmap(chunk_size="all")  # E: call-overload | reportArgumentType
    opmap(rate_limit_scope="map")  # E: call-overload | reportArgumentType
    opmap(attempt_timeout="5")  # E: call-overload | reportArgumentType
    opmap(start_method="clone")  # E: call-overload | reportArgumentType
    opmap(executor=4)  # E: call-overload | reportArgumentType
    opmap(on_error="ignore")  # E: call-overload | reportArgumentType
    opmap(cache_backend="file")  # E: call-overload | reportArgumentType
    opmap(unpack="no")  # E: call-overload | reportArgumentType
    opmap(loop="trio")  # E: call-overload | reportArgumentType
    opmap(cache_dir=5)  # E: call-overload | reportArgumentType
    opmap(cache_place="/tmp")  # E: call-overload | reportCallIssue
    opmap()(takes_nothing)  # E: arg-type | reportArgumentType
    opmap(mode="async")(takes_nothing)  # E: arg-type | reportCallIssue
    opmap(takes_nothing)  # E: arg-type | reportCallIssue
    opmap(4)  # E: call-overload | reportCallIssue


def takes_text(text: str) -> None:
    """Is told of no progress."""


def takes_nothing() -> int:
    """Takes no item."""
    return 1
