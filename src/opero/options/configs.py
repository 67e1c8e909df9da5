"""The config objects: the options of one mechanism each, to be kept in one place and shared."""

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
"""Where values are kept: the type of `cache_backend=`."""


def say_no_field(config: type, name: str, known: Sequence[str]) -> str:
    """Say that a config object has no such field; `hints`, which knows all options, says it so."""
    return f"{config.__name__}() has no field {name!r}; there are {', '.join(known)}"


class Config:
    """What the config objects have in common: a misspelt field names its nearest neighbour."""

    if not TYPE_CHECKING:

        def __new__(cls, *_: Any, **kwargs: Any) -> Any:
            """Refuse fields that there are none of, before `__init__` does it in other words."""
            known = [each.name for each in fields(cls)] if kwargs else []
            for name in kwargs:
                if name not in known and cls.__module__ == __name__:  # others take what they like
                    raise TypeError(say_no_field(cls, name, known))
            return super().__new__(cls)


@dataclass
class CacheConfig(Config):
    """How a function's values are cached; for `cache=`.

    Attributes:
        enabled: Whether they are cached at all; False keeps the other fields, and caches nothing.
        ttl: Seconds for which a value counts, or a `timedelta`; None for ever.
        backend: Where they are kept: "memory", "disk" or "redis".
        namespace: The name under which `clear_cache` finds them.
        key_function: Makes the key from the call's own arguments; None: from all of them.
        backend_options: The backend's own options, without the prefix `cache_`, such as `maxsize`
            or `dir`. They may hold a secret, so no `repr` shows them.
    """

    enabled: bool = True
    ttl: Seconds | None = None
    backend: CacheBackend = "memory"
    namespace: str = "opero"
    key_function: CacheKey | None = None
    backend_options: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass
class RetryConfig(Config):
    """How a function is attempted again; for `retry=`.

    Attributes:
        attempts: The greatest number of attempts in all; 0 and 1 both mean one.
        backoff_factor: What the delay's ceiling grows by from attempt to attempt, at least 1.
        min_delay: The shortest delay, in seconds or as a `timedelta`.
        max_delay: The longest delay, in seconds or as a `timedelta`.
        retry_on: An exception type, a tuple of them, or a predicate of the exception.
        jitter: Whether the delay is drawn at random below its ceiling.
        retry_after: Tells from the exception how many seconds the server asks to wait, or None;
            `opero.retry_after` knows the usual clients' errors.
        retry_on_result: A predicate of the returned value; true means that the attempt has failed.
        reraise: Whether the last exception itself is raised, in place of `AllFailedError`.
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
        argument: The name of a parameter that holds a list or tuple of values, each of which is
            tried as its element 0; or `{"parameter": [values]}`, tried after the caller's own.
        fallback_on: After which exceptions the next value is tried: a type, a tuple of types, or a
            predicate.
    """

    argument: ArgFallback
    fallback_on: RetryOn = Exception


@dataclass
class BreakerConfig(Config):
    """When a function's circuit breaker opens, and for how long; for `breaker=`.

    Each function that is decorated with it has a breaker of its own; several share a `Breaker`.

    Attributes:
        name: What events, log and messages call it; None for the name of the function.
        window: Seconds that it looks back, or a `timedelta`.
        failure_ratio: The share of failed attempts that opens it, above 0 and at most 1.
        minimum: How many attempts there must have been in the window, 1 or more.
        open_for: Seconds for which it stays open, or a `timedelta`.
        probes: How many probes may be under way at once, and must succeed to close it.
        scope: Who shares it: "process", or by its name "machine" or "redis".
        url: Where the server is, as "redis://host:port/0"; for "redis".
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
        rate: Starts per second; None for no limit.
        burst: Starts that may follow each other at once after a pause.
        adaptive: Whether the rate falls when the server rejects attempts, and rises again up to
            `rate` while they succeed.
        floor: The lowest rate of an adaptive limit, in starts per second; None for a hundredth of
            `rate`.
    """

    rate: float | None = None
    burst: int = 1
    adaptive: bool = False
    floor: float | None = None
