"""The options: three config objects, and every check that an option has to pass.

A wrong option fails when the function is decorated, with a message that names the option, its value
and what is allowed.
"""

from __future__ import annotations

import inspect
import math
import operator
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

RetryOn = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]
RetryAfter = Callable[[Exception], float | None]
RetryOnResult = Callable[[Any], object]
ArgFallback = str | Mapping[str, list[Any] | tuple[Any, ...]]

_MOST = 10**9
"""The greatest whole number that an option may ask for."""
_LONGEST = 1e9
"""The longest time, in seconds, that an option may ask for: about 31 years."""


@dataclass
class CacheConfig:
    """How a function's values are cached; for `cache=`.

    Attributes:
        enabled: Whether they are cached at all.
        ttl: Seconds for which a value counts; None for ever.
        backend: Where they are kept: "memory", "disk" or "redis".
        namespace: The name under which `clear_cache` finds them.
        key_function: Makes the key from the call's own arguments; None: from all of them.
        backend_options: The backend's own options, without the prefix `cache_`, such as `maxsize`
            or `dir`. They may hold a secret, so no `repr` shows them.
    """

    enabled: bool = False
    ttl: float | None = None
    backend: str = "memory"
    namespace: str = "opero"
    key_function: Callable[..., Any] | None = None
    backend_options: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass
class RetryConfig:
    """How a function is attempted again; for `retry=`.

    Attributes:
        attempts: The greatest number of attempts in all; 0 and 1 both mean one.
        backoff_factor: What the delay grows by from attempt to attempt, at least 1.
        min_delay: The shortest delay in seconds.
        max_delay: The longest delay in seconds.
        retry_on: An exception type, a tuple of them, or a predicate of the exception.
        jitter: Whether the delay is drawn at random below its ceiling.
        retry_after: Tells from the exception how many seconds the server asks to wait, or None;
            `opero.retry_after` knows the usual clients' errors.
        retry_on_result: A predicate of the returned value; true means that the attempt has failed.
        reraise: Whether the last exception itself is raised, in place of `AllFailedError`.
    """

    attempts: int = 3
    backoff_factor: float = 1.5
    min_delay: float = 0.1
    max_delay: float = 30.0
    retry_on: RetryOn = (Exception,)
    jitter: bool = True
    retry_after: RetryAfter | None = None
    retry_on_result: RetryOnResult | None = None
    reraise: bool = False


@dataclass
class RateLimitConfig:
    """How often a function may start; for `rate_limit=`.

    Attributes:
        rate: Starts per second; None for no limit.
        burst: Starts that may follow each other at once after a pause.
    """

    rate: float | None = None
    burst: int = 1


@dataclass(frozen=True)
class CacheOptions:
    """A checked `CacheConfig`.

    Attributes:
        ttl: Nanoseconds for which a value counts; 0 for ever.
        maxsize: Entries in memory; 0 for no bound.
        namespace: The namespace.
        key_function: Makes the key; None to go by the arguments.
        backend: One of `BACKENDS`.
        directory: Where the disk store is; None for the user's cache directory.
        size_limit: Bytes on disk; None for no bound.
        url: Where Redis is.
        secret: What entries are signed with; None for what the environment or the key file says.
        stale: Seconds for which an outdated value may be served.
        version: What the user retires old values by.
        pickles: Whether values may be pickled.
    """

    ttl: int
    maxsize: int
    namespace: str
    key_function: Callable[..., Any] | None
    backend: str = "memory"
    directory: str | os.PathLike[str] | None = None
    size_limit: int | None = None
    url: str = field(default="", repr=False)
    secret: Any = field(default=None, repr=False)
    stale: float = 0.0
    version: str = ""
    pickles: bool = True


@dataclass(frozen=True)
class CallOptions:
    """Every option of one decorated function, checked.

    Attributes:
        retry: How it is attempted again.
        arg_fallback: Which argument falls back to which values; None without.
        cache: How it is cached; None without.
        limit: Its rate limit; None without.
        timeout: Nanoseconds for a whole call; 0 for no bound.
        fallback_on: After which exceptions the next value is tried: a tuple of types or a
            predicate.
    """

    retry: RetryConfig
    arg_fallback: ArgFallback | None
    cache: CacheOptions | None
    limit: RateLimitConfig | Any | None
    timeout: int
    fallback_on: RetryOn = (Exception,)


CACHE_DEFAULTS: dict[str, Any] = {
    "cache_ttl": None,
    "cache_key": None,
    "cache_namespace": "opero",
    "cache_backend": "memory",
    "cache_maxsize": 1024,
}
DEFAULT_NAMESPACES = ("opero", "opero_opmap_item")
_SIZE_LIMIT = 2**30
_URL = "redis://localhost:6379/0"
RETRY_DEFAULTS: dict[str, Any] = {
    "retries": 3,
    "backoff_factor": 1.5,
    "min_delay": 0.1,
    "max_delay": 30.0,
    "retry_on": (Exception,),
    "jitter": True,
    "retry_after": None,
    "retry_on_result": None,
    "reraise": False,
}
_READ_BY = {
    "memory": ("maxsize",),
    "disk": ("dir", "size_limit", "secret", "stale", "version", "pickle"),
    "redis": ("url", "secret", "stale", "version", "pickle"),
}
"""Which options each backend reads."""
STORED_OPTIONS = tuple(
    sorted({f"cache_{name}" for names in _READ_BY.values() for name in names} - {"cache_maxsize"})
)
"""Options of the backends that keep values outside the process."""
OPTIONS = (
    *RETRY_DEFAULTS,
    *CACHE_DEFAULTS,
    "arg_fallback",
    "burst",
    "cache",
    "fallback_on",
    "rate_limit",
    "retry",
    "timeout",
)
"""Every option of `opero`, the memory store's included."""
BACKENDS = ("memory", "disk", "redis")


def plan(
    *,
    retry: RetryConfig,
    arg_fallback: ArgFallback | None,
    cache: CacheConfig,
    limit: RateLimitConfig | Any | None,
    timeout: float | None,
    fallback_on: RetryOn = Exception,
    attempts_named: str = "retries",
) -> CallOptions:
    """Check the options of one function; `attempts_named` is what the caller calls them.

    Raises:
        TypeError: If an option has the wrong type.
        ValueError: If an option has a value that is not allowed.
    """
    if isinstance(limit, RateLimitConfig) and limit.rate is None:
        limit = None
    if not isinstance(cache.enabled, bool):
        _wrong("enabled", cache.enabled, "True or False", TypeError)
    cached = check_cache(cache)
    return CallOptions(
        retry=_check_retry(retry, attempts_named),
        arg_fallback=_check_arg_fallback(arg_fallback),
        cache=cached if cache.enabled else None,
        limit=limit,
        timeout=0 if timeout is None else max(1, int(1e9 * _positive("timeout", timeout))),
        fallback_on=_check_retry_on(fallback_on, "fallback_on"),
    )


def cache_config(cache: bool | CacheConfig, options: Mapping[str, Any]) -> CacheConfig:
    """Make one config of `cache=` and the `cache_*` keywords beside it.

    Raises:
        TypeError: If `cache` is neither a bool nor a `CacheConfig`.
        ValueError: If both a `CacheConfig` and keywords are given.
    """
    if isinstance(cache, CacheConfig):
        _refuse_both("cache=CacheConfig(...)", options, CACHE_DEFAULTS)
        return cache
    if not isinstance(cache, bool):
        _wrong("cache", cache, "True, False or a CacheConfig", TypeError)
    named = {"cache_ttl", "cache_key", "cache_namespace", "cache_backend"}
    return CacheConfig(
        enabled=cache,
        ttl=options["cache_ttl"],
        backend=options["cache_backend"],
        namespace=options["cache_namespace"],
        key_function=options["cache_key"],
        backend_options={
            name.removeprefix("cache_"): value
            for name, value in options.items()
            if name not in named and value != CACHE_DEFAULTS.get(name, _UNSET)
        },
    )


def retry_config(retry: RetryConfig | None, options: Mapping[str, Any]) -> RetryConfig:
    """Make one config of `retry=` and the keywords beside it.

    Raises:
        TypeError: If `retry` is neither None nor a `RetryConfig`.
        ValueError: If both a `RetryConfig` and keywords are given.
    """
    if retry is None:
        return RetryConfig(
            attempts=options["retries"],
            backoff_factor=options["backoff_factor"],
            min_delay=options["min_delay"],
            max_delay=options["max_delay"],
            retry_on=options["retry_on"],
            jitter=options["jitter"],
            retry_after=options["retry_after"],
            retry_on_result=options["retry_on_result"],
            reraise=options["reraise"],
        )
    if not isinstance(retry, RetryConfig):
        _wrong("retry", retry, "a RetryConfig", TypeError)
    _refuse_both("retry=RetryConfig(...)", options, RETRY_DEFAULTS)
    return retry


def limit_config(rate_limit: float | RateLimitConfig | None, burst: int) -> RateLimitConfig | None:
    """Make one config of `rate_limit=` and `burst=`.

    Raises:
        TypeError: If `rate_limit` is no number or `RateLimitConfig`.
        ValueError: If `burst` is given beside a `RateLimitConfig`, or a value is off.
    """
    if isinstance(rate_limit, RateLimitConfig):
        refuse_burst(rate_limit, burst)
        check_burst(rate_limit.burst)
        if rate_limit.rate is not None:
            check_rate("rate", rate_limit.rate)
        return rate_limit
    check_burst(burst)
    if rate_limit is None:
        return None
    return RateLimitConfig(check_rate("rate_limit", rate_limit), burst)


def refuse_burst(rate_limit: object, burst: int) -> None:
    """Refuse `burst=` beside an object that has its own.

    Raises:
        ValueError: If it is given.
    """
    kind = type(rate_limit).__name__
    _refuse_both(f"rate_limit={kind}(...)", {"burst": burst}, {"burst": 1})


def check_cache(cache: CacheConfig) -> CacheOptions:
    """Check how a function is cached."""
    backend = cache.backend
    if backend not in BACKENDS:
        _wrong("cache_backend", backend, "one of 'memory', 'disk', 'redis'")
    if not isinstance(cache.backend_options, Mapping):
        _wrong("backend_options", cache.backend_options, "a dict of options", TypeError)
    options = dict(cache.backend_options)
    for name, value in options.items():
        if f"cache_{name}" not in {*STORED_OPTIONS, "cache_maxsize"}:
            raise TypeError(unknown(f"cache_{name}", (*CACHE_DEFAULTS, *STORED_OPTIONS)))
        if name not in _READ_BY[backend]:
            shown = "..." if name == "secret" else repr(value)
            raise ValueError(f"cache_{name}={shown} is not read by cache_backend={backend!r}")
    maxsize = options.pop("maxsize", CACHE_DEFAULTS["cache_maxsize"])
    bound = 1 if maxsize is None else _whole("cache_maxsize", maxsize)
    if bound < 1:
        _wrong("cache_maxsize", maxsize, "1 or more entries, or None for no bound")
    if not isinstance(cache.namespace, str):
        _wrong("cache_namespace", cache.namespace, "a string", TypeError)
    if not cache.namespace:
        _wrong("cache_namespace", cache.namespace, "a string with at least one character")
    key = cache.key_function
    if key is not None and (not callable(key) or inspect.iscoroutinefunction(key)):
        _wrong("cache_key", key, "an ordinary function of the call's arguments", TypeError)
    ttl = 0 if cache.ttl is None else max(1, int(1e9 * _positive("cache_ttl", cache.ttl)))
    return CacheOptions(
        ttl,
        0 if maxsize is None else bound,
        cache.namespace,
        key,
        backend,
        **({} if backend == "memory" else _check_stored(options, ttl)),
    )


def _check_stored(options: dict[str, Any], ttl: int) -> dict[str, Any]:
    """Check the options of a stored backend, but for those that the store itself checks."""
    directory = options.get("dir")
    if directory is not None and not isinstance(directory, (str, os.PathLike)):
        _wrong("cache_dir", directory, "a path", TypeError)
    size_limit = options.get("size_limit", _SIZE_LIMIT)
    if size_limit is not None and not (
        isinstance(size_limit, int) and not _is_flag(size_limit) and 0 < size_limit < 2**63
    ):
        _wrong("cache_size_limit", size_limit, "a number of bytes, or None for no bound")
    url = options.get("url", _URL)
    if not isinstance(url, str):
        _wrong("cache_url", url, "a URL such as redis://localhost:6379/0", TypeError)
    version = options.get("version", "")
    if not isinstance(version, str):
        _wrong("cache_version", version, "a string", TypeError)
    stale = options.get("stale")
    if stale is not None:
        stale = _number("cache_stale", stale)
        if not 0 <= stale <= _LONGEST:
            _wrong("cache_stale", stale, "0 seconds or more")
        if stale and not ttl:
            raise ValueError(f"cache_stale={stale!r} needs cache_ttl=: without, nothing gets stale")
    return {
        "directory": directory,
        "size_limit": size_limit,
        "url": url,
        "secret": options.get("secret"),
        "stale": stale or 0.0,
        "version": version,
        "pickles": check_flag("cache_pickle", options.get("pickle", True)),
    }


def check_rate(option: str, rate: Any) -> float:
    """Check a rate in permits per second and return it."""
    number = _number(option, rate)
    if not 1 / _LONGEST <= number <= 1e9:
        _wrong(option, rate, "a number of permits per second between 1e-9 and 1e9")
    return number


def check_burst(burst: Any) -> int:
    """Check a number of permits and return it."""
    if _whole("burst", burst) < 1:
        _wrong("burst", burst, "1 permit or more")
    return int(burst)


def check_count(option: str, value: Any) -> int:
    """Check a number of things of which there has to be one at least, and return it."""
    number = _whole(option, value)
    if number < 1:
        _wrong(option, value, "1 or more")
    return number


def check_positive(option: str, value: Any) -> float:
    """Check a time in seconds and return it."""
    return _positive(option, value)


def check_flag(option: str, value: Any) -> bool:
    """Check that a value is True or False, and return it."""
    if not isinstance(value, bool):
        _wrong(option, value, "True or False", TypeError)
    return value


def check_choice(option: str, value: Any, choices: tuple[str, ...]) -> str:
    """Check that a value is one of a few words, and return it."""
    if not isinstance(value, str) or value not in choices:
        _wrong(option, value, f"one of {', '.join(map(repr, choices))}")
    return value


def unknown(option: str, known: tuple[str, ...], function: str = "opero") -> str:
    """Say that there is no such option, and which one is nearest."""
    from difflib import get_close_matches

    near = get_close_matches(option, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
    return f"{function}() has no option {option!r}; {hint}"


_UNSET: Any = object()


def _check_retry(retry: RetryConfig, named: str) -> RetryConfig:
    attempts = _whole(named, retry.attempts)
    if attempts < 0:
        _wrong(named, attempts, "the number of attempts in all, 0 or more")
    factor = _number("backoff_factor", retry.backoff_factor)
    if not 1 <= factor <= _LONGEST:
        _wrong("backoff_factor", factor, "a number from 1 to 1e9")
    shortest = _seconds("min_delay", retry.min_delay)
    longest = _seconds("max_delay", retry.max_delay)
    if longest < shortest:
        _wrong("max_delay", longest, f"at least min_delay, which is {shortest!r}")
    if not isinstance(retry.jitter, bool):
        _wrong("jitter", retry.jitter, "True or False", TypeError)
    return RetryConfig(
        attempts,
        factor,
        shortest,
        longest,
        _check_retry_on(retry.retry_on),
        retry.jitter,
        _check_retry_after(retry.retry_after),
        _check_retry_on_result(retry.retry_on_result),
        check_flag("reraise", retry.reraise),
    )


def _check_retry_on(retry_on: Any, named: str = "retry_on") -> RetryOn:
    allowed = "an exception type, a tuple of them, or a predicate of the exception"
    if isinstance(retry_on, (type, tuple)):
        kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                _wrong(named, kind, allowed, TypeError)
            if issubclass(kind, (KeyboardInterrupt, SystemExit, GeneratorExit)):
                _wrong(named, kind, "an exception that does not end the program")
        return kinds
    if not callable(retry_on) or inspect.iscoroutinefunction(retry_on):
        _wrong(named, retry_on, allowed, TypeError)
    predicate: Callable[[Exception], bool] = retry_on
    return predicate


def _check_retry_on_result(predicate: Any) -> RetryOnResult | None:
    if predicate is None:
        return None
    if not callable(predicate) or inspect.iscoroutinefunction(predicate):
        allowed = "an ordinary function of the returned value that tells whether it is a failure"
        _wrong("retry_on_result", predicate, allowed, TypeError)
    function: RetryOnResult = predicate
    return function


def _check_retry_after(retry_after: Any) -> RetryAfter | None:
    if retry_after is None:
        return None
    if (
        not callable(retry_after)
        or isinstance(retry_after, type)
        or inspect.iscoroutinefunction(retry_after)
    ):
        allowed = "an ordinary function of the exception that returns seconds or None"
        _wrong("retry_after", retry_after, allowed, TypeError)
    function: RetryAfter = retry_after
    return function


def _check_arg_fallback(arg_fallback: Any) -> ArgFallback | None:
    allowed = "a parameter's name, or a dict of one parameter and the list of values to try"
    if arg_fallback is None or (isinstance(arg_fallback, str) and arg_fallback):
        return arg_fallback
    if not isinstance(arg_fallback, Mapping):
        kind = ValueError if isinstance(arg_fallback, str) else TypeError
        _wrong("arg_fallback", arg_fallback, allowed, kind)
    if len(arg_fallback) != 1:
        _wrong("arg_fallback", dict(arg_fallback), allowed)
    ((name, values),) = arg_fallback.items()
    if not isinstance(name, str):
        _wrong("arg_fallback", dict(arg_fallback), allowed, TypeError)
    if not isinstance(values, (list, tuple)) or not values:
        _wrong(f"arg_fallback[{name!r}]", values, "a list or tuple with at least one value")
    return {name: tuple(values)}


def _refuse_both(config: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if value is not defaults.get(name, _UNSET) and value != defaults.get(name, _UNSET):
            raise ValueError(f"{name}={value!r} beside {config}: say it inside the config object")


def _whole(option: str, value: Any) -> int:
    try:
        number = None if _is_flag(value) else int(operator.index(value))
    except TypeError:  # an array has an `__index__` too
        number = None
    if number is None:
        _wrong(option, value, "a whole number", TypeError)
    if abs(number) > _MOST:
        _wrong(option, value, f"a whole number up to {_MOST}")
    return number


def _number(option: str, value: Any) -> float:
    number = None
    try:
        if not _is_flag(value) and hasattr(type(value), "__float__"):
            number = float(value)
    except TypeError:  # an array has a `__float__` too
        pass
    except OverflowError:
        number = math.inf
    if number is None:
        _wrong(option, value, "a number", TypeError)
    if not math.isfinite(number):
        _wrong(option, value, "a finite number")
    return number


def _is_flag(value: Any) -> bool:
    """Tell whether a value is a bool, numpy's included, which can pass for 0 or 1."""
    return isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b"


def _seconds(option: str, value: Any) -> float:
    seconds = _number(option, value)
    if not 0 <= seconds <= _LONGEST:
        _wrong(option, value, "a number of seconds from 0 to 1e9")
    return seconds


def _positive(option: str, value: Any) -> float:
    seconds = _number(option, value)
    if not 0 < seconds <= _LONGEST:
        _wrong(option, value, "a number of seconds above 0, up to 1e9")
    return seconds


def _wrong(option: str, value: Any, allowed: str, kind: type[Exception] = ValueError) -> NoReturn:
    raise kind(f"{option}={value!r} is not allowed: it has to be {allowed}")
