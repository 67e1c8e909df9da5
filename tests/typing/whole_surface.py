"""Everything else that opero exports."""

from __future__ import annotations

import logging
import sys

import opero as package
from opero import (
    AllFailedError,
    AttemptTimeout,
    CacheBackend,
    CacheConfig,
    CacheKeyError,
    DeadlineExceeded,
    OperoError,
    ParallelMode,
    Progress,
    RateLimitConfig,
    RateLimiter,
    RetryConfig,
    WorkerCrashedError,
    clear_cache,
    configure_logging,
    get_cache_context,
    get_logger,
    opero,
    opmap,
    retry_after,
)
from opero.testing import MovableClock, manual_clock, skip_waits

if sys.version_info >= (3, 11):
    from typing import assert_type
else:
    from typing_extensions import assert_type

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


@opero(retries=2)
def fails() -> int:
    """Always fail."""
    raise OSError("no")


with skip_waits() as clock:
    assert_type(clock, MovableClock)
    try:
        fails()
    except AllFailedError as error:
        assert_type(error.errors, list[Exception])
        assert_type(error.message, str)
    assert_type(clock.waited, float)

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
assert issubclass(AttemptTimeout, TimeoutError)

modes: list[ParallelMode] = ["thread", "process", "async", "async_process"]
backends: list[CacheBackend] = ["memory", "disk", "redis"]
progress = Progress(done=1, failed=0, retried=0, total=None, elapsed=0.5)
assert_type(progress.total, int | None)

with get_cache_context("memory", "surface", cache_ttl=10, cache_maxsize=None) as cache:
    cache.set("key", 1)
    assert "key" in cache
    assert_type(len(cache), int)
    assert_type(cache.delete("key"), bool)
    cache.clear()
clear_cache()
clear_cache("surface")

limiter = RateLimiter(1e9, 2)
assert_type(limiter.try_acquire(), bool)
assert_type(limiter.rate_limit, float)
assert_type(limiter.burst, int)
limiter.acquire_sync()
with limiter as held:
    assert_type(held, RateLimiter)

assert_type(RetryConfig().attempts, int)
assert_type(RetryConfig(retry_after=retry_after).jitter, bool)
assert_type(retry_after(ValueError("no")), float | None)
assert_type(RateLimitConfig(rate=1.0).burst, int)
assert_type(CacheConfig().ttl, float | None)
assert_type(get_logger("client"), logging.Logger)
configure = configure_logging
assert callable(configure)
