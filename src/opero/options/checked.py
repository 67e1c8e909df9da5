"""What the checks let through: the options of one function, in the units that opero counts in."""

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
        ttl: Nanoseconds for which a value counts; 0 for ever.
        maxsize: Entries in memory; 0 for no bound.
        namespace: The namespace.
        key_function: Makes the key; None to go by the arguments.
        backend: Where they are kept: "memory", "disk" or "redis".
        directory: Where the disk store is; None for the user's cache directory.
        size_limit: Bytes on disk; None for no bound.
        url: Where Redis is.
        secret: What entries are signed with; None for what the environment or the key file says.
        refresh: Nanoseconds before the end of `ttl` from which a hit renews the value.
        stale: Nanoseconds for which an outdated value may be served.
        version: What the user retires old values by.
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
    """How a function is attempted again, checked; see `RetryConfig`.

    Attributes:
        attempts: The greatest number of attempts in all; 0 and 1 both mean one.
        backoff_factor: What the delay's ceiling grows by from attempt to attempt.
        min_delay: The shortest delay in seconds.
        max_delay: The longest delay in seconds.
        retry_on: A tuple of types, or a predicate of the exception.
        jitter: Whether the delay is drawn at random below its ceiling.
        retry_after: How many seconds the server asks to wait, by the exception; None without.
        retry_on_result: A predicate of the returned value; None without.
        reraise: Whether the last exception itself is raised.
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
        retry: How it is attempted again.
        arg_fallback: Which argument falls back to which values; None without.
        fallback_on: After which exceptions the next value is tried: a tuple of types or a
            predicate.
        cache: How it is cached; None without.
        limit: Its rate limit, a `RateLimitConfig` or a `RateLimiter`; None without.
        timeout: Nanoseconds for a whole call; 0 for no bound.
        attempt_timeout: Nanoseconds for each awaited attempt of it; 0 for no bound.
        breaker: Its circuit breaker, a checked `BreakerConfig` or a `Breaker`; None without.
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
        """Return options with which a function does what it would do undecorated."""
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
