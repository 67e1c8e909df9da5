"""The peers: the same job on libraries that people use for it today, as their READMEs show it.

Where a library offers a choice, it is given the quicker one that still does the job (cachetools
without the lock that it leaves to the user, pyrate-limiter's default bucket rather than its slower
constant-memory one, limits' fixed window), so that a ratio never flatters opero. Every adapter
imports its library itself: one that is not installed is reported as missing.
"""

from __future__ import annotations

import functools
import logging
from importlib import import_module
from typing import Any

from .rows import Function, Side

MAXSIZE = 1024
TTL = 3600
PLENTY = 10**9
"""Permits per second: one for every nanosecond, so that no call ever waits for one."""

DEADLINE = 60.0
"""Seconds: a deadline that no call reaches."""

LRU = "lru_cache"
ASYNC_LRU = "async-lru"


def _lru(function: Function) -> Function:
    return functools.lru_cache(maxsize=MAXSIZE)(function)


def lru_hit() -> Side:
    """A cached call of `functools.lru_cache`, the yardstick of most rows."""
    return Side(LRU, _lru, calls_through=False)


def lru_miss() -> Side:
    """A call of `functools.lru_cache` that runs the function and stores what it returns."""
    return Side(LRU, _lru)


def _cachetools(function: Function) -> Any:
    cachetools = import_module("cachetools")
    return cachetools.cached(cachetools.TTLCache(maxsize=MAXSIZE, ttl=TTL))(function)


def _cachebox(function: Function) -> Any:
    cachebox = import_module("cachebox")
    return cachebox.cached(cachebox.TTLCache(MAXSIZE, TTL))(function)


def _moka(function: Function) -> Any:
    return import_module("moka_py").cached(maxsize=MAXSIZE, ttl=TTL)(function)


def _async_lru(function: Function) -> Any:
    return import_module("async_lru").alru_cache(maxsize=MAXSIZE, ttl=TTL)(function)


def _async_lru_without_ttl(function: Function) -> Any:
    return import_module("async_lru").alru_cache(maxsize=MAXSIZE)(function)


def _pyresilience_cache(function: Function) -> Any:
    resilience = import_module("pyresilience")
    config = resilience.CacheConfig(max_size=MAXSIZE, ttl=float(TTL))
    return resilience.resilient(cache=config)(function)


def caches(*, calls_through: bool = False) -> tuple[Side, ...]:
    """Caches with a size and a time to live, for plain functions."""
    return (
        Side("cachetools", _cachetools, calls_through),
        Side("cachebox", _cachebox, calls_through),
        Side("moka-py", _moka, calls_through),
        Side("pyresilience", _pyresilience_cache, calls_through),
    )


def async_caches() -> tuple[Side, ...]:
    """Caches with a size and a time to live, for coroutine functions."""
    return (
        Side(ASYNC_LRU, _async_lru, calls_through=False),
        Side("cachebox", _cachebox, calls_through=False),
        Side("moka-py", _moka, calls_through=False),
        Side("pyresilience", _pyresilience_cache, calls_through=False),
    )


def async_stores() -> tuple[Side, ...]:
    """Caches whose every call runs the coroutine function and stores what it returns.

    async-lru has no time to live here, as it takes a timer for each entry.
    """
    return (
        Side(ASYNC_LRU, _async_lru_without_ttl),
        Side("cachebox", _cachebox),
        Side("moka-py", _moka),
        Side("pyresilience", _pyresilience_cache),
    )


def _silence(logger: str) -> None:
    """Keeps a library's warnings off the terminal; its log records are made all the same."""
    handlers = logging.getLogger(logger).handlers
    if not any(isinstance(handler, logging.NullHandler) for handler in handlers):
        handlers.append(logging.NullHandler())


def _tenacity(function: Function) -> Any:
    tenacity = import_module("tenacity")
    return tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())(function)


def _no_sleep(seconds: float) -> None:
    pass


def tenacity_without_sleep() -> Side:
    """Tell tenacity not to sleep at all; `time.sleep(0)` alone takes the system some 50,000 ns."""

    def decorate(function: Function) -> Any:
        tenacity = import_module("tenacity")
        return tenacity.retry(
            stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none(), sleep=_no_sleep
        )(function)

    return Side("tenacity, no sleep(0)", decorate)


def _stamina(function: Function) -> Any:
    stamina = import_module("stamina")
    # By itself it picks those of whatever is installed: structlog's prints to the terminal.
    stamina.instrumentation.set_on_retry_hooks([stamina.instrumentation.LoggingOnRetryHook])
    _silence("stamina")
    return stamina.retry(on=Exception, attempts=3, wait_initial=0.0, wait_max=0.0, wait_jitter=0.0)(
        function
    )


def _backoff(function: Function) -> Any:
    backoff = import_module("backoff")
    _silence("backoff")
    return backoff.on_exception(backoff.constant, Exception, max_tries=3, interval=0, jitter=None)(
        function
    )


def _pyresilience_retry(function: Function) -> Any:
    resilience = import_module("pyresilience")
    config = resilience.RetryConfig(max_attempts=3, delay=0.0, jitter=False)
    return resilience.resilient(retry=config)(function)


def retries() -> tuple[Side, ...]:
    """Three attempts with no delay between them, for plain and coroutine functions alike."""
    return (
        Side("tenacity", _tenacity),
        Side("stamina", _stamina),
        Side("backoff", _backoff),
        Side("pyresilience", _pyresilience_retry),
    )


def _limits(function: Function) -> Function:
    limits = import_module("limits")
    storage = import_module("limits.storage").MemoryStorage()
    limiter = import_module("limits.strategies").FixedWindowRateLimiter(storage)
    rate = limits.RateLimitItemPerSecond(PLENTY)

    @functools.wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        if not limiter.hit(rate, "benchmark"):
            raise RuntimeError("no permit")
        return function(*args, **kwargs)

    return limited


def _throttled(function: Function) -> Any:
    throttled = import_module("throttled")
    quota = throttled.per_sec(PLENTY, burst=PLENTY)
    return throttled.Throttled(key="benchmark", quota=quota)(function)


def _pyrate(function: Function) -> Any:
    pyrate = import_module("pyrate_limiter")
    bucket = pyrate.InMemoryBucket([pyrate.Rate(PLENTY, pyrate.Duration.SECOND)])
    # Its thread that empties the bucket would disturb the other sides.
    factory = pyrate.SingleBucketFactory(bucket, schedule_leak=False)
    return pyrate.Limiter(factory).as_decorator()(function)


def _ratelimit(function: Function) -> Any:
    return import_module("ratelimit").limits(calls=PLENTY, period=1)(function)


def _pyresilience_permit(function: Function) -> Any:
    resilience = import_module("pyresilience")
    config = resilience.RateLimiterConfig(max_calls=PLENTY, period=1.0)
    return resilience.resilient(rate_limiter=config)(function)


def limiters() -> tuple[Side, ...]:
    """Rate limits that no call ever waits for, for plain functions."""
    return (
        Side("limits", _limits),
        Side("throttled-py", _throttled),
        Side("pyrate-limiter", _pyrate),
        Side("pyresilience", _pyresilience_permit),
        Side("ratelimit", _ratelimit),
    )


def _aiolimiter(function: Function) -> Function:
    limiter = import_module("aiolimiter").AsyncLimiter(PLENTY, 1.0)

    @functools.wraps(function)
    async def limited(*args: Any, **kwargs: Any) -> Any:
        async with limiter:
            return await function(*args, **kwargs)

    return limited


def async_limiters() -> tuple[Side, ...]:
    """Rate limits that no call ever waits for, for coroutine functions."""
    return (
        Side("aiolimiter", _aiolimiter),
        Side("pyrate-limiter", _pyrate),
        Side("pyresilience", _pyresilience_permit),
    )


def _circuitbreaker(function: Function) -> Any:
    breaker = import_module("circuitbreaker").CircuitBreaker(name="benchmark")
    return breaker(function)


def _pybreaker(function: Function) -> Any:
    return import_module("pybreaker").CircuitBreaker()(function)


def _nopanic(function: Function) -> Any:
    return import_module("nopanic").circuit_breaker()(function)


def _interlock(function: Function) -> Any:
    return import_module("interlock").CircuitBreaker(name="benchmark")(function)


def _pyresilience_breaker(function: Function) -> Any:
    resilience = import_module("pyresilience")
    window = resilience.CircuitBreakerConfig(sliding_window_size=100)
    return resilience.resilient(circuit_breaker=window)(function)


def breakers() -> tuple[Side, ...]:
    """Circuit breakers that stay closed, each with its own defaults but for pyresilience's window.

    nopanic, interlock-cb and pyresilience keep a window of outcomes, as opero does; circuitbreaker
    and pybreaker count failures in a row.
    """
    return (
        Side("circuitbreaker", _circuitbreaker),
        Side("pybreaker", _pybreaker),
        Side("nopanic", _nopanic),
        Side("interlock-cb", _interlock),
        Side("pyresilience", _pyresilience_breaker),
    )


def async_breakers() -> tuple[Side, ...]:
    """The same, for coroutine functions; pybreaker counts none of their failures."""
    return tuple(side for side in breakers() if side.name != "pybreaker")


def _wait_for(function: Function) -> Function:
    asyncio = import_module("asyncio")

    @functools.wraps(function)
    async def timed(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.wait_for(function(*args, **kwargs), DEADLINE)

    return timed


def _anyio(function: Function) -> Function:
    anyio = import_module("anyio")

    @functools.wraps(function)
    async def timed(*args: Any, **kwargs: Any) -> Any:
        with anyio.fail_after(DEADLINE):
            return await function(*args, **kwargs)

    return timed


def _pyresilience_timeout(function: Function) -> Any:
    resilience = import_module("pyresilience")
    return resilience.resilient(timeout=resilience.TimeoutConfig(seconds=DEADLINE))(function)


def async_timeouts() -> tuple[Side, ...]:
    """Deadlines that no call reaches, for coroutine functions."""
    return (
        Side("asyncio.wait_for", _wait_for),
        Side("anyio.fail_after", _anyio),
        Side("pyresilience", _pyresilience_timeout),
    )


def _pyresilience_everything(function: Function) -> Any:
    resilience = import_module("pyresilience")
    return resilience.resilient(
        retry=resilience.RetryConfig(max_attempts=3, delay=0.0, jitter=False),
        rate_limiter=resilience.RateLimiterConfig(max_calls=PLENTY, period=1.0),
        cache=resilience.CacheConfig(max_size=MAXSIZE, ttl=float(TTL)),
    )(function)


def everything() -> Side:
    """The cache, the retries and the rate limit of pyresilience at once."""
    return Side("pyresilience", _pyresilience_everything)
