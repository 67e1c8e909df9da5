"""Everything else that opero exports."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import assert_type

import opero as package
from opero import (
    AllFailedError,
    AttemptRecord,
    AttemptTimeout,
    Breaker,
    BreakerConfig,
    BreakerOpenError,
    CacheBackend,
    CacheConfig,
    CacheKeyError,
    DeadlineExceeded,
    Event,
    FallbackConfig,
    OperoError,
    ParallelMode,
    Progress,
    RateLimitConfig,
    RateLimiter,
    ResultRejected,
    RetryConfig,
    WorkerCrashedError,
    clear_cache,
    configure_logging,
    get_cache_context,
    get_cache_decorator,
    get_fallback_decorator,
    get_logger,
    get_rate_limit_decorator,
    get_retry_decorator,
    opero,
    opmap,
    retry_after,
    subscribe,
    transient_error,
)
from opero.contexts import CacheContext
from opero.integrations import opentelemetry, prometheus, structlog
from opero.stats import CacheInfo, Stats
from opero.testing import (
    AttemptsRecord,
    MovableClock,
    disabled,
    enabled,
    manual_clock,
    record_attempts,
    skip_waits,
)

assert_type(package.COMPILED, bool)
assert_type(package.__version__, str)


@opero(cache=True, cache_namespace="surface")
def double(a: int) -> int:
    """Double it."""
    return 2 * a


def stored() -> None:
    """Use the options of the stored backends; for the checkers only."""

    @opero(
        cache=True,
        cache_backend="redis",
        cache_url="redis://localhost:6379/0",
        cache_secret=["a secret of 16 or more", b"an older one, of bytes"],
        cache_ttl=60,
        cache_refresh=10,
        cache_stale=60,
        cache_version="2",
        cache_pickle=False,
    )
    def stored_in_redis(a: int) -> int:
        """Double it."""
        return 2 * a

    @opmap(cache=True, cache_backend="disk", cache_dir="/tmp", cache_size_limit=None)
    def stored_on_disk(a: int) -> int:
        """Double it."""
        return 2 * a

    with get_cache_context("disk", "surface", cache_dir="/tmp", cache_ttl=5) as on_disk:
        on_disk.set("key", 1)
    assert_type(stored_in_redis(1), int)


def shared() -> None:
    """Use limits that processes and hosts share; for the checkers only."""
    machine = RateLimiter(5.0, 2, scope="machine", name="prices", windows=[(100, 60.0)])
    redis = RateLimiter(5, scope="redis", name="prices", url="redis://localhost:6379/0")
    assert_type(machine.scope, str)
    assert_type(machine.name, str | None)
    assert_type(machine.windows, tuple[tuple[int, float], ...])
    redis.acquire_sync(2)

    @opero(rate_limit=redis)
    def limited_by_redis(a: int) -> int:
        """Double it."""
        return 2 * a

    assert_type(limited_by_redis(1), int)


@opero(retries=2)
def fails() -> int:
    """Always fail."""
    raise OSError("no")


heard: list[Event] = []
unsubscribe = subscribe(heard.append, "retry", "give_up")
rejecting = opero(retries=2, retry_on=transient_error, retry_on_result=bool)(lambda: "no")
rejected: list[Exception] = []
with skip_waits():
    try:
        rejecting()
    except AllFailedError as error:
        rejected = error.errors
assert [each.value for each in rejected if isinstance(each, ResultRejected)] == ["no", "no"]
unsubscribe()
assert [event.kind for event in heard] == ["retry", "give_up"]
assert_type(transient_error(OSError()), bool)

histories: list[tuple[AttemptRecord, ...] | None] = []
unsubscribe = subscribe(lambda event: histories.append(event.history), "call_end")
with skip_waits(), record_attempts(rejecting) as record:
    try:
        rejecting()
    except AllFailedError:
        assert_type(record, AttemptsRecord)
unsubscribe()
record.assert_attempts(2, errors=[ResultRejected, ResultRejected])
assert_type(record.delays, list[float])
assert [[attempt.number for attempt in each or ()] for each in histories] == [[1, 2]]
with disabled():
    assert rejecting() == "no"
    with enabled(), skip_waits():
        assert_type(rejecting.stats().attempts, int)
for instrument in (opentelemetry.instrument, prometheus.instrument, structlog.instrument):
    end: Callable[[], None] = instrument()
    end()

MINUTE = timedelta(minutes=1)


@opero(
    min_delay=MINUTE,
    max_delay=2 * MINUTE,
    timeout=MINUTE,
    arg_fallback=FallbackConfig("hosts"),
    cache=True,
    cache_backend="disk",
    cache_key=len,
    cache_ttl=MINUTE,
    cache_refresh=MINUTE / 2,
    cache_stale=MINUTE,
    retry_on_result=lambda value: value is None,
    reraise=True,
)
@get_retry_decorator(RetryConfig(min_delay=MINUTE, max_delay=MINUTE))
@get_cache_decorator(CacheConfig(ttl=MINUTE))
@get_rate_limit_decorator(RateLimitConfig(1e9))
@get_fallback_decorator(FallbackConfig("hosts", fallback_on=OSError))
def timed(hosts: list[str]) -> str:
    """Take config objects, and times as timedeltas."""
    return hosts[0]


assert RateLimiter(1e9, windows=[(10**6, MINUTE)]).windows == ((10**6, 60.0),)


with skip_waits() as clock:
    assert_type(clock, MovableClock)
    try:
        fails()
    except AllFailedError as error:
        assert_type(error.errors, list[Exception])
        assert_type(error.message, str)
    assert_type(clock.waited, float)
    assert_type(clock.started, float)

with manual_clock() as clock:
    clock.advance(1.5)
    assert_type(clock.now(), float)

timed_out = DeadlineExceeded("too late", [ValueError("x")])
assert isinstance(timed_out, TimeoutError)
assert_type(timed_out.errors, list[Exception])
assert issubclass(CacheKeyError, OperoError)
assert issubclass(AllFailedError, OperoError)

crashed = WorkerCrashedError("gone", signal="SIGKILL")
assert_type(crashed.exitcode, int | None)
assert_type(crashed.signal, str | None)
assert_type(crashed.message, str)
assert issubclass(AttemptTimeout, TimeoutError)

modes: list[ParallelMode] = ["thread", "process", "async", "async_process"]
backends: list[CacheBackend] = ["memory", "disk", "redis"]
progress = Progress(done=1, failed=0, retried=0, total=None, elapsed=0.5)
assert_type(progress.total, int | None)
assert_type((progress.done, progress.failed, progress.retried), tuple[int, int, int])
assert_type(progress.elapsed, float)

with get_cache_context("memory", "surface", cache_ttl=10, cache_maxsize=None) as cache:
    assert_type(cache, CacheContext)
    assert_type(cache.namespace, str)
    cache.set("key", 1)
    assert cache.get("key") == cache.get("no key", 1, stale=True) == 1
    assert "key" in cache
    assert_type(len(cache), int)
    assert_type(cache.delete("key"), bool)
    cache.clear()
clear_cache()
clear_cache("surface")

limiter = RateLimiter(1e9, 2)
adaptive = RateLimiter(1e9, 2, adaptive=True, floor=1e3)
assert_type(adaptive.rate, float)
assert_type(adaptive.floor, float | None)
assert_type(limiter.try_acquire(), bool)
assert_type(limiter.try_acquire(2), bool)
limiter.pause(0)
assert_type(limiter.rate_limit, float)
assert_type(limiter.burst, int)
limiter.acquire_sync()
with limiter as held:
    assert_type(held, RateLimiter)

info: CacheInfo = double.cache_info()
assert_type((info.hits, info.misses, info.currsize), tuple[int, int, int])
assert_type(info.maxsize, int | None)
stats: Stats = double.stats()
assert_type((stats.calls, stats.hits, stats.misses), tuple[int, int, int])
assert_type((stats.attempts, stats.retries, stats.fallbacks), tuple[int, int, int])
assert_type((stats.failures, stats.stale, stats.refreshes), tuple[int, int, int])
assert_type((stats.store_failures, stats.rejected), tuple[int, int])
assert_type((stats.permit_wait, stats.backoff_wait), tuple[float, float])
assert_type((stats.refused, stats.breaker_wait), tuple[int, float])


@opero(rate_limit=1e9, adaptive=True, rate_floor=1e3, breaker=BreakerConfig("surface", minimum=2))
def guarded(a: int) -> int:
    return a


@opmap(rate_limit=1e9, adaptive=True, rate_floor=1e3, mode="thread", workers=1)
def guarded_items(a: int) -> int:
    return a


assert_type(guarded(1), int)
assert guarded_items([1]) == [1]

assert_type(RetryConfig().attempts, int)
assert_type(RetryConfig(retry_after=retry_after).jitter, bool)
assert_type(RetryConfig(retry_on_result=bool, reraise=True).reraise, bool)
assert FallbackConfig("hosts", fallback_on=(OSError,)).argument == "hosts"
assert_type(retry_after(ValueError("no")), float | None)
breaker = Breaker("shop", window=timedelta(seconds=5), failure_ratio=0.2, minimum=3, probes=2)
assert_type(breaker.state, str)
assert_type((breaker.name, breaker.scope), tuple[str, str])
assert_type((breaker.window, breaker.open_for, breaker.failure_ratio), tuple[float, float, float])
assert_type((breaker.minimum, breaker.probes), tuple[int, int])
breaker.trip(timedelta(seconds=1))
breaker.reset()
assert_type(BreakerConfig(open_for=5).minimum, int)
assert_type(BreakerOpenError("open").retry_after, float)
assert_type(RateLimitConfig(rate=1.0).rate, float | None)
assert_type(RateLimitConfig(rate=1.0).burst, int)
config = CacheConfig(enabled=True, backend="memory", namespace="surface", key_function=len)
assert_type(config.ttl, float | timedelta | None)
assert_type((config.enabled, config.namespace), tuple[bool, str])
assert config.key_function is len
assert_type(get_logger("client"), logging.Logger)


def configured() -> logging.Logger:
    """Configure logging; for the checkers only."""
    return configure_logging(logging.DEBUG, format="%(message)s")
