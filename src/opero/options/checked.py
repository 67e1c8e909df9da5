"""The checked options of one function, in the units that opero counts in."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from .configs import ArgFallback, BreakerConfig, RateLimitConfig, RetryAfter, RetryOn, RetryOnResult


@dataclass(frozen=True)
class CacheOptions:
    """How a function's values are cached, checked.

    Attributes:
        ttl: Nanoseconds for which a value stays valid; 0 means forever.
        maxsize: The most entries in memory; 0 for no limit.
        namespace: The namespace.
        key_function: Makes the key; None to make it from the arguments.
        backend: Where values are kept: "memory", "disk" or "redis".
        directory: Where the disk store is; None for the user's cache directory.
        size_limit: The most bytes on disk; None for no limit.
        url: Where Redis is.
        secret: The secret that signs entries; None for that of the environment or the key file.
        refresh: Nanoseconds before the end of `ttl` from which a hit refreshes the value.
        stale: Nanoseconds for which an outdated value may be served.
        version: Entries of other versions are not found.
        pickles: Whether values may be pickled.
    """

    ttl: int
    maxsize: int
    namespace: str
    key_function: Callable[..., Any] | None
    backend: str
    directory: str | os.PathLike[str] | None
    size_limit: int | None
    url: str = field(repr=False)
    secret: Any = field(repr=False)
    refresh: int
    stale: int
    version: str
    pickles: bool


@dataclass(frozen=True)
class RetryOptions:
    """How a function is retried, checked; see `RetryConfig`.

    Attributes:
        attempts: The most attempts in total; 0 and 1 both mean one.
        backoff_factor: The factor by which the delay's ceiling grows with each attempt.
        min_delay: The shortest delay in seconds.
        max_delay: The longest delay in seconds.
        retry_on: A tuple of types, or a predicate of the exception.
        jitter: Whether each delay is random, between `min_delay` and its ceiling.
        retry_after: Takes the exception and returns how many seconds to wait; None if not given.
        retry_on_result: A predicate of the returned value; None if not given.
        reraise: Whether to raise the last exception itself.
    """

    attempts: int
    backoff_factor: float
    min_delay: float
    max_delay: float
    retry_on: RetryOn
    jitter: bool
    retry_after: RetryAfter | None
    retry_on_result: RetryOnResult | None
    reraise: bool


@dataclass(frozen=True)
class CallOptions:
    """Every option of one decorated function, checked.

    Attributes:
        retry: How it is retried.
        arg_fallback: Which argument falls back to which values; None for none.
        fallback_on: After which exceptions the next value is tried: a tuple of types or a
            predicate.
        cache: How it is cached; None for not at all.
        limit: Its rate limit, a `RateLimitConfig` or a `RateLimiter`; None for none.
        timeout: Nanoseconds for a whole call; 0 for no limit.
        attempt_timeout: Nanoseconds for each awaited attempt; 0 for no limit.
        breaker: Its circuit breaker, a checked `BreakerConfig` or a `Breaker`; None for none.
    """

    retry: RetryOptions
    arg_fallback: ArgFallback | None
    fallback_on: RetryOn
    cache: CacheOptions | None
    limit: RateLimitConfig | Any | None
    timeout: int
    attempt_timeout: int
    breaker: BreakerConfig | Any | None

    def undecorated(self) -> CallOptions:
        """Return options with which the function behaves as if it were undecorated."""
        retry = replace(
            self.retry, attempts=1, retry_after=None, retry_on_result=None, reraise=False
        )
        return replace(
            self,
            retry=retry,
            arg_fallback=None,
            cache=None,
            limit=None,
            timeout=0,
            attempt_timeout=0,
            breaker=None,
        )
