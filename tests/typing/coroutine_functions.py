"""A coroutine function stays one: calling gives a coroutine, awaiting gives the value."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import assert_type

from opero import (
    RateLimiter,
    get_cache_decorator,
    get_fallback_decorator,
    get_rate_limit_decorator,
    get_retry_decorator,
    opero,
)
from opero.stats import Stats


@opero
async def without_parentheses(a: int, *, b: str = "") -> str:
    """Is decorated without parentheses."""
    return b * a


@opero(cache=True, cache_ttl=60, timeout=5)
async def with_options(a: int) -> list[int]:
    """Is decorated with options."""
    return [a]


@get_cache_decorator()
async def cached(a: int) -> int:
    """Is cached."""
    return a


@get_retry_decorator()
async def retried(a: int) -> int:
    """Is attempted again."""
    return a


@get_rate_limit_decorator(1e9)
async def limited(a: int) -> int:
    """Is limited."""
    return a


@get_fallback_decorator({"a": [2, 3]})
async def falling_back(a: int) -> int:
    """Falls back."""
    return a


class Client:
    """Has decorated methods that are coroutine functions."""

    @opero(cache=True)
    async def fetch(self, path: str) -> bytes:
        """Is a method."""
        return path.encode()

    @opero
    @classmethod
    async def make(cls, name: str) -> Client:
        """Is a class method."""
        return cls()

    @staticmethod
    @opero
    async def join(a: str, b: str) -> str:
        """Is a static method."""
        return a + b


async def awaits(function: Callable[[int], Awaitable[int]]) -> int:
    """Take any coroutine function."""
    return await function(1)


async def main() -> None:
    """Await them all."""
    client = Client()
    limiter = RateLimiter(1e9)
    assert_type(await without_parentheses(2, b="x"), str)
    assert_type(await with_options(a=1), list[int])
    assert_type(await cached(1), int)
    assert_type(await retried(1), int)
    assert_type(await limited(1), int)
    assert_type(await falling_back(1), int)
    assert_type(await client.fetch("/"), bytes)
    assert_type(await Client.fetch(client, path="/"), bytes)
    assert_type(await Client.make("x"), Client)
    assert_type(await client.make("x"), Client)
    assert_type(await Client.join("a", b="b"), str)
    assert_type(await client.join("a", "b"), str)
    assert_type(client.fetch.cache_invalidate("/"), bool)
    assert_type(with_options.cache_invalidate(1), bool)
    assert_type(without_parentheses.stats(), Stats)
    assert_type(await without_parentheses.__wrapped__(1), str)
    assert_type(await awaits(cached), int)
    assert_type(await asyncio.gather(cached(1), retried(2)), tuple[int, int])
    task = asyncio.create_task(cached(1))
    assert_type(await task, int)
    async with limiter as held:
        assert_type(held, RateLimiter)
    await limiter.acquire()


asyncio.run(main())
