"""The config objects: each holds the options of one mechanism, to keep in one place and share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

RetryOn = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]
RetryAfter = Callable[[Exception], float | timedelta | None]
RetryOnResult = Callable[[Any], object]
ArgFallback = str | Mapping[str, list[Any] | tuple[Any, ...]]
CacheKey = Callable[..., Any]
Seconds = float | timedelta
CacheBackend = Literal["memory", "disk", "redis"]
"""The type of `cache_backend=`: where values are kept."""


def say_no_field(config: type, name: str, known: Sequence[str]) -> str:
    """Return the message for an unknown field; `hints` replaces this function with a better one."""
    return f"{config.__name__}() has no field {name!r}; it has {', '.join(known)}"


class Config:
    """The base of the config objects: the error for a misspelt field suggests the nearest name."""

    if not TYPE_CHECKING:

        def __new__(cls, *_: Any, **kwargs: Any) -> Any:
            """Refuse unknown fields, before `__init__` refuses them with a worse message."""
            known = [each.name for each in fields(cls)] if kwargs else []
            for name in kwargs:
                if name not in known and cls.__module__ == __name__:  # subclasses may add their own
                    raise TypeError(say_no_field(cls, name, known))
            return super().__new__(cls)


@dataclass
class CacheConfig(Config):
    """How to cache a function's values; for `cache=`.

    Attributes:
        enabled: Whether to cache values at all; False keeps the other fields and caches nothing.
        ttl: How long a value stays valid, in seconds or as a `timedelta`; None means forever.
        backend: Where to keep values: "memory", "disk" or "redis".
        namespace: The name by which `clear_cache` finds the values.
        key_function: Makes the key from the call's arguments; None uses all arguments.
        backend_options: The backend's own options, without the prefix `cache_`, such as `maxsize`
            or `dir`. They may contain a secret, so no `repr` shows them.
    """

    enabled: bool = True
    ttl: Seconds | None = None
    backend: CacheBackend = "memory"
    namespace: str = "opero"
    key_function: CacheKey | None = None
    backend_options: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass
class RetryConfig(Config):
    """How to retry a function; for `retry=`.

    Attributes:
        attempts: The most attempts in total, the first included; 0 and 1 both mean one.
        backoff_factor: The factor by which the delay's ceiling grows with each attempt, at least 1.
        min_delay: The shortest delay, in seconds or as a `timedelta`.
        max_delay: The longest delay, in seconds or as a `timedelta`.
        retry_on: An exception type, a tuple of them, or a predicate of the exception.
        jitter: Whether each delay is random, between `min_delay` and its ceiling.
        retry_after: Takes the exception and returns how many seconds the server asks you to wait,
            or None; `opero.retry_after` knows the errors of the usual clients.
        retry_on_result: A predicate of the returned value; true means that the attempt has failed.
        reraise: Whether to raise the last exception itself instead of `AllFailedError`.
    """

    attempts: int = 3
    backoff_factor: float = 1.5
    min_delay: Seconds = 0.1
    max_delay: Seconds = 30.0
    retry_on: RetryOn = (Exception,)
    jitter: bool = True
    retry_after: RetryAfter | None = None
    retry_on_result: RetryOnResult | None = None
    reraise: bool = False


@dataclass
class FallbackConfig(Config):
    """Which values an argument falls back to; for `arg_fallback=`.

    Attributes:
        argument: The name of a parameter that takes a list or tuple of values to try in order: the
            function finds the current one at index 0. Or `{"parameter": [values]}`: values to try
            after the caller's own.
        fallback_on: Which exceptions lead to the next value: a type, a tuple of types, or a
            predicate.
    """

    argument: ArgFallback
    fallback_on: RetryOn = Exception


@dataclass
class BreakerConfig(Config):
    """When a function's circuit breaker opens, and for how long; for `breaker=`.

    Each function that you decorate with it gets its own breaker; to share one, use a `Breaker`.

    Attributes:
        name: Its name in events, logs and messages; None for the name of the function.
        window: How far it looks back, in seconds or as a `timedelta`.
        failure_ratio: The share of failed attempts that opens it, above 0 and at most 1.
        minimum: The least number of attempts in the window before it can open, 1 or more.
        open_for: How long it stays open, in seconds or as a `timedelta`.
        probes: How many probes may run at the same time, and how many must succeed to close it.
        scope: Who shares it: "process"; or, by its name, "machine" or "redis".
        url: The server's address, such as "redis://host:port/0"; for "redis" only.
    """

    name: str | None = None
    window: Seconds = 30.0
    failure_ratio: float = 0.5
    minimum: int = 10
    open_for: Seconds = 30.0
    probes: int = 1
    scope: str = "process"
    url: str | None = field(default=None, repr=False)


@dataclass
class RateLimitConfig(Config):
    """How often a function may start; for `rate_limit=`.

    Attributes:
        rate: The most starts per second; None for no limit.
        burst: How many attempts may start together after a pause.
        adaptive: Whether the rate falls when the server rejects attempts, and rises again up to
            `rate` while they succeed.
        floor: The lowest rate of an adaptive limit, in starts per second; None for a hundredth of
            `rate`.
    """

    rate: float | None = None
    burst: int = 1
    adaptive: bool = False
    floor: float | None = None
