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
)


@opero(cache=True)
def plain(a: int, *, b: str = "") -> list[str]:
    """Is decorated."""
    return [b] * a


@opero
async def later(a: int) -> int:
    """Is decorated and awaited."""
    return a


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
    opero(cache_dir="/tmp")  # E: call-overload | reportCallIssue
    opero(arg_fallback=["a"])  # E: call-overload | reportArgumentType
    opero(arg_fallback={"model": "a"})  # E: dict-item | reportArgumentType
    opero(rate_limit="5")  # E: call-overload | reportArgumentType
    opero(timeout="5")  # E: call-overload | reportArgumentType
    opero(burst=1.5)  # E: call-overload | reportArgumentType
    opero(retry=3)  # E: call-overload | reportArgumentType


def one_mechanism() -> None:
    """Give wrong options to the decorators of one mechanism."""
    get_cache_decorator(cache_max=1)  # E: call-arg | reportCallIssue
    get_cache_decorator(cache_maxsize="1")  # E: arg-type | reportArgumentType
    get_retry_decorator(jiter=False)  # E: call-arg | reportCallIssue
    get_retry_decorator(3, 2, 0, 1, OSError, False)  # E: call-arg | reportCallIssue
    get_retry_decorator(cache=True)  # E: call-arg | reportCallIssue
    get_rate_limit_decorator()  # E: call-arg | reportCallIssue
    get_rate_limit_decorator(1.0, bursts=2)  # E: call-arg | reportCallIssue
    get_fallback_decorator()  # E: call-arg | reportCallIssue
    get_fallback_decorator("a", retry_on=3)  # E: arg-type | reportArgumentType


def objects(limiter: RateLimiter) -> None:
    """Use the other objects wrongly."""
    CacheConfig(ttl="60")  # E: arg-type | reportArgumentType
    RetryConfig(retries=3)  # E: call-arg | reportCallIssue
    RateLimitConfig(rate="5")  # E: arg-type | reportArgumentType
    RateLimiter()  # E: call-arg | reportCallIssue
    RateLimiter("5")  # E: arg-type | reportArgumentType
    limiter.acquire_async()  # E: attr-defined | reportAttributeAccessIssue
    get_cache_context(cache_size=1)  # E: call-arg | reportCallIssue
    package.cache_clear()  # E: attr-defined | reportAttributeAccessIssue
    clear_cache(1)  # E: arg-type | reportArgumentType


opero(3)(4)  # E: call-overload | reportArgumentType


@opero(cache=True)  # E: prop-decorator | reportArgumentType
@property
def not_a_function(self: Shop) -> int:
    """Is no function."""
    return 1
