"""An ordinary function keeps its parameters and its return type, and gains attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_type

from opero import (
    CacheConfig,
    RateLimitConfig,
    RateLimiter,
    RetryConfig,
    get_cache_decorator,
    get_fallback_decorator,
    get_rate_limit_decorator,
    get_retry_decorator,
    opero,
    retry_after,
)
from opero.functions import Decorated
from opero.stats import CacheInfo, Stats


@opero
def without_parentheses(a: int, b: str = "b", /, c: float = 1.0, *, d: bool) -> list[str]:
    """Has parameters of every named kind."""
    return [b] * a if d else []


@opero()
def with_parentheses(a: int, *more: int, **named: str) -> dict[str, int]:
    """Has a variable number of parameters."""
    return {name: a + sum(more) for name in named}


def by_first(keys: list[str]) -> str:
    """Make a cache key."""
    return keys[0]


@opero(
    retries=2,
    backoff_factor=2,
    min_delay=0,
    max_delay=0.5,
    retry_on=(ValueError, KeyError),
    arg_fallback="keys",
    cache=True,
    cache_ttl=60,
    cache_key=by_first,
    cache_namespace="typing",
    cache_backend="memory",
    rate_limit=1e9,
    jitter=False,
    burst=3,
    timeout=5.0,
    retry_after=retry_after,
    cache_maxsize=None,
)
def every_option(keys: list[str]) -> str:
    """Takes every option there is."""
    return keys[0]


@opero(
    retry=RetryConfig(attempts=2, retry_on=ValueError),
    cache=CacheConfig(enabled=True, ttl=60, backend_options={"maxsize": 10}),
    rate_limit=RateLimitConfig(rate=1e9, burst=2),
    arg_fallback={"model": ["small", "smaller"]},
)
def config_objects(question: str, model: str = "large") -> str | None:
    """Takes its options as objects."""
    return question + model


def is_worth_it(error: Exception) -> bool:
    """Decide about another attempt."""
    return isinstance(error, OSError)


limiter = RateLimiter(1e9, burst=2)


@opero(retry_on=is_worth_it, rate_limit=limiter)
def shared_limit() -> int:
    """Shares its limit with others."""
    return 1


@get_cache_decorator(cache_ttl=1.5, cache_maxsize=10)
def cached(a: int) -> int:
    """Is cached."""
    return a


@get_retry_decorator(retries=5, retry_on=OSError, jitter=False, retry_after=retry_after)
def retried(a: int) -> int:
    """Is attempted again."""
    return a


@get_rate_limit_decorator(1e9, burst=2)
def limited(a: int) -> int:
    """Is limited."""
    return a


@get_fallback_decorator("hosts", fallback_on=OSError)
def falling_back(hosts: Sequence[str] = ("a", "b")) -> str:
    """Falls back."""
    return hosts[0]


def undecorated(a: int, *, b: str = "") -> bytes:
    """Is decorated by a call."""
    return (b * a).encode()


by_call = opero(cache=True)(undecorated)
directly = opero(undecorated)


def calls(function: Callable[[int], int]) -> int:
    """Take any function."""
    return function(2)


def takes_decorated(function: Decorated[[int], int]) -> CacheInfo:
    """Take a decorated function only."""
    return function.cache_info()


assert_type(without_parentheses(1, "x", 2.0, d=True), list[str])
assert_type(without_parentheses(2, d=False), list[str])
assert_type(with_parentheses(1, 2, 3, x="y"), dict[str, int])
assert_type(every_option(["a", "b"]), str)
assert_type(config_objects("q", model="tiny"), str | None)
assert_type(shared_limit(), int)
assert_type(cached(1), int)
assert_type(retried(a=1), int)
assert_type(limited(1), int)
assert_type(falling_back(), str)
assert_type(falling_back(["c"]), str)
assert_type(by_call(2, b="x"), bytes)
assert_type(directly(2, b="x"), bytes)

assert_type(cached.cache_info(), CacheInfo)
assert_type(cached.cache_info().hits, int)
assert_type(cached.cache_info().maxsize, int | None)
assert_type(cached.cache_invalidate(1), bool)
assert_type(cached.cache_invalidate(a=1), bool)
assert_type(cached.stats(), Stats)
assert_type(cached.stats().permit_wait, float)
assert_type(cached.__wrapped__(1), int)
assert_type(cached.__name__, str)
assert_type(cached.__qualname__, str)
assert_type(cached.__module__, str)
assert_type(by_call.cache_invalidate(2, b="x"), bool)
assert_type(without_parentheses.cache_invalidate(1, "x", 2.0, d=True), bool)

assert_type(calls(cached), int)
assert_type(takes_decorated(retried), CacheInfo)
assert_type(sorted([2, 1], key=cached), list[int])
assert_type(list(map(cached, [1, 2])), list[int])
cached.cache_clear()
