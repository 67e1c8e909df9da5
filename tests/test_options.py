"""The options: what is accepted, and that what is wrong fails at decoration and says why."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

import opero as package
from opero import (
    AllFailedError,
    Breaker,
    BreakerConfig,
    CacheConfig,
    FallbackConfig,
    RateLimitConfig,
    RateLimiter,
    RetryConfig,
    attempts,
    get_cache_context,
    get_cache_decorator,
    get_fallback_decorator,
    get_rate_limit_decorator,
    get_retry_decorator,
    hotpath,
    opero,
    opmap,
)
from opero.map.options import map_options
from opero.options import call_options
from opero.testing import manual_clock, skip_waits

NAN, INF = float("nan"), float("inf")


async def coroutine_function(*args: Any) -> bool:
    """Stand for a predicate or key function that would have to be awaited."""
    return True


WRONG_RETRY: list[tuple[str, Any, type[Exception], str]] = [
    ("retries", "3", TypeError, "a whole number"),
    ("retries", 3.0, TypeError, "a whole number"),
    ("retries", None, TypeError, "a whole number"),
    ("retries", True, TypeError, "a whole number"),
    ("retries", -1, ValueError, "0 or more"),
    ("retries", 10**30, ValueError, "a whole number up to"),
    ("backoff_factor", "2", TypeError, "a number"),
    ("backoff_factor", None, TypeError, "a number"),
    ("backoff_factor", True, TypeError, "a number"),
    ("backoff_factor", 0.99, ValueError, "a number from 1"),
    ("backoff_factor", NAN, ValueError, "a finite number"),
    ("backoff_factor", INF, ValueError, "a finite number"),
    ("backoff_factor", 1e10, ValueError, "a number from 1 to 1e9"),
    ("min_delay", "1", TypeError, "a number"),
    ("min_delay", 1j, TypeError, "a number"),
    ("min_delay", -0.1, ValueError, "a number of seconds from 0"),
    ("min_delay", NAN, ValueError, "a finite number"),
    ("min_delay", INF, ValueError, "a finite number"),
    ("min_delay", 10**400, ValueError, "a finite number"),
    ("max_delay", "1", TypeError, "a number"),
    ("max_delay", None, TypeError, "a number"),
    ("max_delay", -1, ValueError, "a number of seconds from 0"),
    ("max_delay", 1e10, ValueError, "to 1e9"),
    ("max_delay", INF, ValueError, "a finite number"),
    ("max_delay", 0.05, ValueError, "at least min_delay, which is 0.1"),
    ("retry_on", None, TypeError, "an exception type, a tuple of them, or a predicate"),
    ("retry_on", "ValueError", TypeError, "an exception type, a tuple of them, or a predicate"),
    ("retry_on", [ValueError], TypeError, "an exception type, a tuple of them, or a predicate"),
    ("retry_on", coroutine_function, TypeError, "a predicate of the exception"),
    ("jitter", 1, TypeError, "True or False"),
    ("jitter", None, TypeError, "True or False"),
    ("retry_after", 30, TypeError, "returns seconds or None"),
    ("retry_after", ValueError, TypeError, "returns seconds or None"),
    ("retry_after", coroutine_function, TypeError, "an ordinary function of the exception"),
    ("retry_on_result", 5, TypeError, "an ordinary function of the returned value"),
    ("retry_on_result", coroutine_function, TypeError, "an ordinary function of the returned"),
    ("reraise", 1, TypeError, "True or False"),
    ("reraise", None, TypeError, "True or False"),
]
WRONG_CACHE: list[tuple[str, Any, type[Exception], str]] = [
    ("cache", 1, TypeError, "True, False or a CacheConfig"),
    ("cache", "memory", TypeError, "True, False or a CacheConfig"),
    ("cache", None, TypeError, "True, False or a CacheConfig"),
    ("cache", CacheConfig, TypeError, "True, False or a CacheConfig"),
    ("cache_ttl", "300", TypeError, "a number"),
    ("cache_ttl", True, TypeError, "a number"),
    ("cache_ttl", 0, ValueError, "above 0"),
    ("cache_ttl", -1, ValueError, "above 0"),
    ("cache_ttl", NAN, ValueError, "a finite number"),
    ("cache_ttl", INF, ValueError, "a finite number"),
    ("cache_ttl", 1e10, ValueError, "up to 1e9"),
    ("cache_key", "key", TypeError, "an ordinary function of the call's arguments"),
    ("cache_key", 5, TypeError, "an ordinary function of the call's arguments"),
    ("cache_key", coroutine_function, TypeError, "an ordinary function of the call's arguments"),
    ("cache_namespace", 5, TypeError, "a string"),
    ("cache_namespace", None, TypeError, "a string"),
    ("cache_namespace", b"x", TypeError, "a string"),
    ("cache_namespace", "", ValueError, "at least one character"),
    ("cache_backend", "memori", ValueError, "one of 'memory', 'disk', 'redis'"),
    ("cache_backend", None, ValueError, "one of 'memory', 'disk', 'redis'"),
    ("cache_maxsize", "1024", TypeError, "a whole number"),
    ("cache_maxsize", 10.5, TypeError, "a whole number"),
    ("cache_maxsize", True, TypeError, "a whole number"),
    ("cache_maxsize", 0, ValueError, "1 or more entries, or None"),
    ("cache_maxsize", -1, ValueError, "1 or more entries, or None"),
    ("cache_maxsize", 10**30, ValueError, "a whole number up to"),
]
WRONG_LIMIT: list[tuple[str, Any, type[Exception], str]] = [
    ("rate_limit", "5", TypeError, "a number"),
    ("rate_limit", True, TypeError, "a number"),
    ("rate_limit", [5], TypeError, "a number"),
    ("rate_limit", RateLimiter, TypeError, "a number"),
    ("rate_limit", SimpleNamespace(bucket="not a limiter"), TypeError, "a number"),
    ("rate_limit", 0, ValueError, "permits per second"),
    ("rate_limit", -5, ValueError, "permits per second"),
    ("rate_limit", NAN, ValueError, "a finite number"),
    ("rate_limit", INF, ValueError, "a finite number"),
    ("rate_limit", 1e10, ValueError, "between 1e-9 and 1e9"),
    ("rate_limit", 1e-10, ValueError, "between 1e-9 and 1e9"),
    ("burst", "1", TypeError, "a whole number"),
    ("burst", 1.5, TypeError, "a whole number"),
    ("burst", None, TypeError, "a whole number"),
    ("burst", True, TypeError, "a whole number"),
    ("burst", 0, ValueError, "1 permit or more"),
    ("burst", -1, ValueError, "1 permit or more"),
    ("burst", 10**30, ValueError, "a whole number up to"),
]
WRONG_FALLBACK: list[tuple[str, Any, type[Exception], str]] = [
    ("arg_fallback", 5, TypeError, "a parameter's name, or a dict"),
    ("arg_fallback", ["key"], TypeError, "a parameter's name, or a dict"),
    ("arg_fallback", "", ValueError, "a parameter's name, or a dict"),
    ("arg_fallback", {}, ValueError, "a parameter's name, or a dict"),
    ("arg_fallback", {"a": [1], "b": [2]}, ValueError, "a dict of one parameter"),
    ("arg_fallback", {5: [1]}, TypeError, "a parameter's name, or a dict"),
]
WRONG_FALLBACK_ON: list[tuple[str, Any, type[Exception], str]] = [
    ("fallback_on", None, TypeError, "an exception type, a tuple of them, or a predicate"),
    ("fallback_on", [OSError], TypeError, "an exception type, a tuple of them, or a predicate"),
    ("fallback_on", KeyboardInterrupt, ValueError, "does not end a program"),
    ("fallback_on", coroutine_function, TypeError, "a predicate of the exception"),
]
WRONG_OTHERS: list[tuple[str, Any, type[Exception], str]] = [
    ("timeout", "5", TypeError, "a number"),
    ("timeout", True, TypeError, "a number"),
    ("timeout", 0, ValueError, "above 0"),
    ("timeout", -1, ValueError, "above 0"),
    ("timeout", NAN, ValueError, "a finite number"),
    ("timeout", INF, ValueError, "a finite number"),
    ("timeout", 1e10, ValueError, "up to 1e9"),
    ("retry", 3, TypeError, "a RetryConfig"),
    ("retry", True, TypeError, "a RetryConfig"),
    ("retry", {"attempts": 3}, TypeError, "a RetryConfig"),
    ("retry", RetryConfig, TypeError, "a RetryConfig"),
]
WRONG = [
    *WRONG_RETRY,
    *WRONG_CACHE,
    *WRONG_LIMIT,
    *WRONG_FALLBACK,
    *WRONG_FALLBACK_ON,
    *WRONG_OTHERS,
]


def refused(
    make: Callable[[], Any], kind: type[Exception], option: str, value: Any, allowed: str
) -> None:
    """Check that `make` raises exactly `kind`, naming option, value and what is allowed."""
    pattern = rf"^{option}={re.escape(repr(value))} is not allowed: use .*"
    with pytest.raises(kind, match=pattern + re.escape(allowed)) as caught:
        make()
    assert kind is type(caught.value)


def names(entry: Any) -> str:
    """Name a test by option and value."""
    return entry if isinstance(entry, str) else repr(entry)[:20]


# --- wrong values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "value", "kind", "allowed"), WRONG, ids=names)
def test_a_wrong_value_fails_at_decoration_and_says_what_is_allowed(
    core: hotpath.Core, option: str, value: Any, kind: type[Exception], allowed: str
) -> None:
    """Whatever else is on or off, the option, its value and the choice are named."""
    refused(lambda: opero(**{option: value}), kind, option, value, allowed)


@pytest.mark.parametrize(
    ("option", "value", "kind", "allowed"),
    [entry for entry in WRONG_CACHE if entry[0] != "cache"],
    ids=names,
)
def test_a_wrong_cache_option_fails_while_the_cache_is_on(
    core: hotpath.Core, option: str, value: Any, kind: type[Exception], allowed: str
) -> None:
    """The same options, in the company in which they are usually given."""
    refused(lambda: opero(cache=True, **{option: value}), kind, option, value, allowed)


@pytest.mark.parametrize(
    ("make", "option", "value", "kind", "allowed"),
    [
        *[(get_retry_decorator, *entry) for entry in WRONG_RETRY],
        *[(get_cache_decorator, *entry) for entry in WRONG_CACHE],
        *[(get_rate_limit_decorator, *entry) for entry in WRONG_LIMIT if entry[0] != "burst"],
        *[(get_fallback_decorator, *entry) for entry in WRONG_FALLBACK],
    ],
    ids=names,
)
@pytest.mark.once
def test_the_decorators_of_one_mechanism_refuse_the_same_values(
    make: Callable[..., Any], option: str, value: Any, kind: type[Exception], allowed: str
) -> None:
    """They are the same code."""
    refused(lambda: make(**{option: value}), kind, option, value, allowed)


@pytest.mark.parametrize(
    ("option", "value", "kind", "allowed"),
    [entry for entry in WRONG_LIMIT if entry[0] == "burst"],
    ids=names,
)
@pytest.mark.once
def test_a_wrong_burst_is_refused_everywhere(
    option: str, value: Any, kind: type[Exception], allowed: str
) -> None:
    """As a keyword, in the config object, and by the limiter."""
    refused(lambda: get_rate_limit_decorator(5, burst=value), kind, option, value, allowed)
    refused(lambda: RateLimiter(5, burst=value), kind, option, value, allowed)
    for rate in (5, None):
        config = RateLimitConfig(rate, burst=value)
        refused(lambda: opero(rate_limit=config), kind, option, value, allowed)


@pytest.mark.parametrize(
    ("option", "value", "kind", "allowed"),
    [entry for entry in WRONG_RETRY if entry[0] != "retries"],
    ids=names,
)
@pytest.mark.once
def test_a_wrong_value_in_a_retry_config_fails_at_decoration(
    option: str, value: Any, kind: type[Exception], allowed: str
) -> None:
    """The config object itself is a plain dataclass; it is checked when it is used."""
    config = RetryConfig(**{option: value})
    refused(lambda: opero(retry=config), kind, option, value, allowed)


@pytest.mark.parametrize("value", ["3", -1, None])
@pytest.mark.once
def test_a_wrong_number_of_attempts_in_a_retry_config_is_called_attempts(value: Any) -> None:
    """The message uses the name that the user wrote."""
    kind = ValueError if value == -1 else TypeError
    refused(lambda: opero(retry=RetryConfig(attempts=value)), kind, "attempts", value, "number")


@pytest.mark.parametrize(
    ("field", "option", "value", "kind", "allowed"),
    [
        ("enabled", "enabled", "no", TypeError, "True or False"),
        ("enabled", "enabled", None, TypeError, "True or False"),
        ("ttl", "ttl", -1, ValueError, "above 0"),
        ("ttl", "ttl", "5", TypeError, "a number"),
        ("backend", "backend", "file", ValueError, "'memory', 'disk', 'redis'"),
        ("namespace", "namespace", "", ValueError, "at least one character"),
        ("key_function", "key_function", 5, TypeError, "an ordinary function"),
        ("backend_options", "backend_options", None, TypeError, "a dict"),
        ("backend_options", "backend_options", "maxsize", TypeError, "a dict"),
    ],
)
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.once
def test_a_wrong_value_in_a_cache_config_fails_at_decoration(
    enabled: bool, field: str, option: str, value: Any, kind: type[Exception], allowed: str
) -> None:
    """Whether the cache is enabled or not."""
    config = CacheConfig(**{"enabled": enabled, field: value})
    refused(lambda: opero(cache=config), kind, option, value, allowed)
    refused(lambda: get_cache_decorator(config), kind, option, value, allowed)


@pytest.mark.parametrize("value", [0, -1, NAN, "5"])
@pytest.mark.once
def test_a_wrong_rate_is_refused_everywhere(value: Any) -> None:
    """In the config object it is called rate, in the limiter rate_limit."""
    kind = TypeError if value == "5" else ValueError
    refused(lambda: opero(rate_limit=RateLimitConfig(value)), kind, "rate", value, "number")
    refused(lambda: RateLimiter(value), kind, "rate_limit", value, "number")


@pytest.mark.parametrize(
    "kind", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError]
)
@pytest.mark.once
def test_exceptions_that_end_the_program_cannot_be_asked_to_be_retried(
    kind: type[BaseException],
) -> None:
    """Alone or in a tuple, naming one is a mistake."""
    for retry_on in (kind, (ValueError, kind)):
        with pytest.raises(ValueError, match=rf"^retry_on={re.escape(repr(kind))} is not allowed"):
            opero(retry_on=retry_on)


@pytest.mark.parametrize("member", ["ValueError", 5, None, ValueError(), int, (KeyError,)])
@pytest.mark.once
def test_a_tuple_of_exception_types_holds_nothing_else(member: Any) -> None:
    """The member that is none is named."""
    with pytest.raises(TypeError, match=rf"^retry_on={re.escape(repr(member))} is not allowed"):
        opero(retry_on=(OSError, member))


@pytest.mark.parametrize("values", ["abc", 5, None, {"a"}, [], ()])
@pytest.mark.once
def test_listed_fallback_values_are_a_list_or_tuple_with_something_in_it(values: Any) -> None:
    """A string is no list of values."""
    with pytest.raises(
        ValueError,
        match=r"^arg_fallback\['model'\]=.* is not allowed: use a list or tuple with",
    ):
        opero(arg_fallback={"model": values})


@pytest.mark.once
def test_a_limiter_that_would_fill_for_decades_fails_at_decoration() -> None:
    """A rate and a burst that are fine alone may be too much together."""
    with pytest.raises(ValueError, match="31 years"):
        opero(rate_limit=1e-9, burst=5)(lambda: None)


# --- options of stored backends -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"cache_dir": 5}, TypeError, "^cache_dir=5 is not allowed: .*a path"),
        ({"cache_size_limit": 0}, ValueError, "^cache_size_limit=0 .*bytes, or None"),
        ({"cache_size_limit": True}, ValueError, "^cache_size_limit=True"),
        ({"cache_size_limit": 1.5}, ValueError, "^cache_size_limit=1.5"),
        ({"cache_version": 3}, TypeError, "^cache_version=3 .*a string"),
        ({"cache_stale": -1, "cache_ttl": 5}, ValueError, "^cache_stale=-1.* seconds from 0"),
        ({"cache_stale": 5}, ValueError, "^cache_stale=5.* needs cache_ttl="),
        ({"cache_pickle": "no"}, TypeError, "^cache_pickle='no' .*True or False"),
        ({"cache_maxsize": 5}, ValueError, "^cache_maxsize=5 is not read by cache_backend='disk'"),
        ({"cache_url": "x"}, ValueError, "^cache_url=... is not read by cache_backend='disk'"),
        ({"cache_backend": "redis", "cache_url": 5}, TypeError, "^cache_url=5 .*a URL such as"),
        (
            {"cache_backend": "redis", "cache_dir": "x"},
            ValueError,
            "^cache_dir='x' is not read by cache_backend='redis'",
        ),
    ],
)
@pytest.mark.once
def test_a_wrong_option_of_a_stored_backend_is_named(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """At decoration, by whatever takes it."""
    given = {"cache_backend": "disk", **options}
    with pytest.raises(error, match=words):
        opero(cache=True, **given)
    with pytest.raises(error, match=words):
        get_cache_decorator(**given)
    with pytest.raises(error, match=words):
        get_cache_context(**given)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cache_dir", "x"),
        ("cache_size_limit", 5),
        ("cache_url", "x"),
        ("cache_secret", "x"),
        ("cache_version", "x"),
        ("cache_pickle", True),
    ],
)
@pytest.mark.once
def test_an_option_that_the_chosen_backend_does_not_read_is_an_error(
    option: str, value: Any
) -> None:
    """As a keyword, and inside a `CacheConfig` without the prefix; a secret is not shown."""
    shown = re.escape("..." if option in {"cache_secret", "cache_url"} else repr(value))
    bare = option.removeprefix("cache_")
    pattern = f"^{option}={shown} is not read by cache_backend='memory': it is an option of "
    for make in (
        lambda: opero(cache=True, **{option: value}),
        lambda: get_cache_decorator(**{option: value}),
        lambda: get_cache_decorator(cache=False, **{option: value}),
        lambda: get_cache_context(**{option: value}),
    ):
        with pytest.raises(ValueError, match=pattern):
            make()
    for enabled in (True, False):
        config = CacheConfig(enabled, ttl=5, backend_options={bare: value})
        with pytest.raises(ValueError, match=f"^{bare}={shown} is not read by backend='memory'"):
            opero(cache=config)


@pytest.mark.once
def test_no_repr_shows_a_secret_or_a_password() -> None:
    """Neither that of a config nor that of what is made of it."""
    url = "redis://:hush-password@localhost:1/0"
    options = {"secret": "hush-hush-hush-hush", "url": url}
    config = CacheConfig(True, backend="redis", backend_options=options)
    assert "hush" not in repr(config)
    assert "hush" not in repr(call_options("opero", {"cache": config}))


# --- misspelt options -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "option", "meant"),
    [
        (opero, "retris", "retries"),
        (opero, "retry_no", "retry_on"),
        (opero, "backof_factor", "backoff_factor"),
        (opero, "mindelay", "min_delay"),
        (opero, "max_dealy", "max_delay"),
        (opero, "argfallback", "arg_fallback"),
        (opero, "cach", "cache"),
        (opero, "retry_attempts", "retries"),
        (opero, "fallback_args", "arg_fallback"),
        (get_cache_decorator, "enabled", "cache"),
        (opero, "cache_tll", "cache_ttl"),
        (opero, "cache_keys", "cache_key"),
        (opero, "cache_name_space", "cache_namespace"),
        (opero, "cache_backends", "cache_backend"),
        (opero, "cache_max_size", "cache_maxsize"),
        (opero, "cache_directory", "cache_dir"),
        (opero, "ratelimit", "rate_limit"),
        (opero, "jiter", "jitter"),
        (opero, "bursts", "burst"),
        (opero, "time_out", "timeout"),
        (get_retry_decorator, "jiter", "jitter"),
        (get_retry_decorator, "retrys", "retries"),
        (get_cache_decorator, "cache_maxsiz", "cache_maxsize"),
        (get_cache_decorator, "cachettl", "cache_ttl"),
        (get_rate_limit_decorator, "brust", "burst"),
        (get_fallback_decorator, "retryon", "fallback_on"),
        (get_cache_context, "cache_tl", "cache_ttl"),
        (get_cache_context, "maxsize", "cache_maxsize"),
    ],
)
@pytest.mark.once
def test_a_misspelt_option_names_its_nearest_neighbour(
    make: Callable[..., Any], option: str, meant: str
) -> None:
    """The message also says whose option it would have been."""
    required: tuple[Any, ...] = ()
    if make is get_rate_limit_decorator:
        required = (5,)
    if make is get_fallback_decorator:
        required = ("key",)
    pattern = rf"^{make.__name__}\(\) has no option '{option}'; did you mean '{meant}'\?$"
    with pytest.raises(TypeError, match=pattern):
        make(*required, **{option: 1})


@pytest.mark.once
@pytest.mark.parametrize("period", ["period", "time_period", "per"])
@pytest.mark.parametrize("make", [opero, opmap, RateLimitConfig, RateLimiter, attempts])
def test_the_period_of_another_librarys_limit_is_no_burst(make: Any, period: str) -> None:
    with pytest.raises(TypeError, match=rf"'{period}': a rate is per second, so write 100 / 60"):
        make(**{period: 60})


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("verbose", r"did you mean 'progress', an option of opmap\(\)\?"),
        ("workrs", r"did you mean 'workers', an option of opmap\(\)\?"),
        ("workers", r"it is an option of opmap\(\)"),
        ("gossip", "it has adaptive, "),
        ("max_flux", "it has adaptive, "),
    ],
)
@pytest.mark.once
def test_a_name_that_is_like_none_of_ours_is_not_taken_for_one(option: str, said: str) -> None:
    """A wrong guess is worse than the list of options; one of a map is an option of that."""
    with pytest.raises(TypeError, match=rf"^opero\(\) has no option '{option}'; {said}"):
        opero(**{option: 1})


@pytest.mark.once
def test_a_misspelt_backend_option_names_its_nearest_neighbour() -> None:
    """Inside a `CacheConfig` too."""
    config = CacheConfig(True, backend_options={"maxsiz": 5})
    with pytest.raises(
        TypeError, match=r"^backend_options has no option 'maxsiz'; did you mean 'maxsize'"
    ):
        opero(cache=config)


@pytest.mark.once
def test_an_option_that_resembles_nothing_is_answered_with_all_there_are() -> None:
    """Then the list is the help."""
    with pytest.raises(TypeError, match="has no option 'zzz'; it has adaptive, ") as caught:
        opero(zzz=1)
    for option in ("retries", "cache_ttl", "timeout", "jitter", "rate_limit"):
        assert option in str(caught.value)


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (get_retry_decorator, "timeout"),
        (get_retry_decorator, "cache"),
        (get_cache_decorator, "retries"),
        (get_rate_limit_decorator, "jitter"),
        (get_fallback_decorator, "retries"),
        (get_cache_context, "cache_key"),
    ],
)
@pytest.mark.once
def test_an_option_of_another_mechanism_is_no_option(make: Callable[..., Any], option: str) -> None:
    """Each of the four decorators takes the options of its own mechanism only."""
    required = (5,) if make is get_rate_limit_decorator else ()
    required = ("key",) if make is get_fallback_decorator else required  # type: ignore[assignment]
    with pytest.raises(TypeError, match=rf"^{make.__name__}\(\) has no option '{option}'"):
        make(*required, **{option: 1})


@pytest.mark.parametrize(
    ("make", "option", "meant"),
    [
        (opero, "attempts", "retries"),
        (opero, "max_attempts", "retries"),
        (opero, "tries", "retries"),
        (opero, "MAX_RETRIES", "retries"),
        (opero, "delay", "min_delay"),
        (opero, "max_wait", "max_delay"),
        (opero, "backoff", "backoff_factor"),
        (opero, "exceptions", "retry_on"),
        (opero, "ttl", "cache_ttl"),
        (opero, "maxsize", "cache_maxsize"),
        (opero, "key", "cache_key"),
        (opero, "backend", "cache_backend"),
        (opero, "namespace", "cache_namespace"),
        (opero, "redis_url", "cache_url"),
        (opero, "timeout_seconds", "timeout"),
        (opero, "deadline", "timeout"),
        (opero, "rate", "rate_limit"),
        (opero, "calls_per_second", "rate_limit"),
        (opero, "fallback", "arg_fallback"),
        (opmap, "n_jobs", "workers"),
        (opmap, "max_workers", "workers"),
        (opmap, "chunksize", "chunk_size"),
        (opmap, "return_exceptions", "on_error"),
        (opmap, "attempts", "retries"),
        (get_retry_decorator, "exceptions", "retry_on"),
        (get_cache_decorator, "ttl", "cache_ttl"),
        (get_cache_context, "ttl", "cache_ttl"),
    ],
)
@pytest.mark.once
def test_the_name_that_others_have_for_an_option_is_understood(
    make: Callable[..., Any], option: str, meant: str
) -> None:
    """Those of tenacity, cachetools, joblib, concurrent.futures and others."""
    with pytest.raises(TypeError, match=rf"no option '{option}'; did you mean '{meant}'\?$"):
        make(**{option: 1})


@pytest.mark.once
def test_a_name_that_may_mean_two_options_names_both() -> None:
    """As joblib's `backend` may, which is a mode, or where values are kept."""
    with pytest.raises(TypeError, match="did you mean 'mode' or 'cache_backend'"):
        opmap(backend="thread")


@pytest.mark.parametrize(
    ("make", "field", "meant"),
    [
        (RetryConfig, "retries", "'attempts'"),
        (RetryConfig, "max_attempts", "'attempts'"),
        (RetryConfig, "max_dealy", "'max_delay'"),
        (CacheConfig, "cache_ttl", "'ttl'"),
        (CacheConfig, "key", "'key_function'"),
        (CacheConfig, "maxsize", "backend_options={'maxsize': ...}"),
        (CacheConfig, "cache_dir", "backend_options={'dir': ...}"),
        (RateLimitConfig, "rate_limit", "'rate'"),
        (FallbackConfig, "arg_fallback", "'argument'"),
        (RateLimiter, "rate", "'rate_limit'"),
        (RateLimiter, "busrt", "'burst'"),
        (Breaker, "fail_max", "'minimum'"),
        (Breaker, "failure_threshold", "'minimum'"),
        (Breaker, "recovery_timeout", "'open_for'"),
        (Breaker, "reset_timeout", "'open_for'"),
        (Breaker, "open_fro", "'open_for'"),
        (Breaker, "success_threshold", "'probes'"),
        (Breaker, "failure_rate_threshold", "'failure_ratio'"),
        (BreakerConfig, "fail_max", "'minimum'"),
        (BreakerConfig, "failure_threshold", "'minimum'"),
        (BreakerConfig, "recovery_timeout", "'open_for'"),
        (BreakerConfig, "reset_timeout", "'open_for'"),
        (BreakerConfig, "open_fro", "'open_for'"),
        (BreakerConfig, "success_threshold", "'probes'"),
        (BreakerConfig, "failure_rate_threshold", "'failure_ratio'"),
    ],
)
@pytest.mark.once
def test_a_field_that_a_config_object_does_not_have_names_its_nearest_neighbour(
    make: type[Any], field: str, meant: str
) -> None:
    """Or the field that stands for the option."""
    pattern = rf"^{make.__name__}\(\) has no \w+ '{field}'; did you mean {re.escape(meant)}\?$"
    with pytest.raises(TypeError, match=pattern):
        make(**{field: 1})
    with pytest.raises(TypeError, match=rf"^{make.__name__}\(\) has no \w+ 'zzz'; it has "):
        make(zzz=1)


@pytest.mark.once
def test_a_subclass_of_a_config_object_takes_what_it_likes() -> None:
    """And is taken as one."""

    class Patient(RetryConfig):
        def __init__(self, patience: int) -> None:
            super().__init__(attempts=patience, min_delay=0, max_delay=0)

    function = opero(retry=Patient(patience=4))(lambda: 1 / 0)
    with pytest.raises(AllFailedError) as caught:
        function()
    assert len(caught.value.errors) == 4


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: opero(cache="disk"), "write cache=True, cache_backend='disk'"),
        (lambda: opero(cache=60), "write cache=True, cache_ttl=60"),
        (lambda: opero(retry=3), "write retries=3"),
        (lambda: opero(RetryConfig()), "write retry=RetryConfig(...)"),
        (lambda: opero(retries=CacheConfig()), "write cache=CacheConfig(...)"),
        (
            lambda: get_cache_decorator(RetryConfig()),
            "give it to opero(), opmap(), attempts() or get_retry_decorator()",
        ),
        (lambda: opero(retry_on=[ValueError]), "write a tuple, in parentheses"),
        (lambda: opero(retry_on="ValueError"), "write the type itself, without quotes"),
        (lambda: opero(retry_on=ValueError("x")), "write the type, ValueError"),
        (lambda: opero(retry_on=(OSError, "x")), "write the type itself"),
        (lambda: opero(rate_limit="5/s"), "5 means 5 per second"),
        (lambda: opero(rate_limit=0), "None means no limit"),
        (lambda: opero(timeout=0), "None means no limit"),
        (lambda: opero(cache=True, cache_ttl=0), "None means forever"),
        (lambda: opero(cache=True, cache_maxsize=0), "leave cache=True out to cache nothing"),
        (lambda: opero(cache=True, cache_backend="redsi"), "did you mean 'redis'?"),
        (lambda: opero(min_delay=60), "give a max_delay= too"),
        (lambda: opero(workers=4), "it is an option of opmap()"),
        (lambda: opero(n_jobs=4), "did you mean 'workers', an option of opmap()?"),
        (lambda: get_retry_decorator(print), "write the decorator with parentheses"),
        (lambda: get_cache_decorator(print), "write the decorator with parentheses"),
        (lambda: get_rate_limit_decorator(print), "write the decorator with parentheses"),
        (lambda: get_fallback_decorator(print), "write the decorator with parentheses"),
        (
            lambda: opero(rate_limit=RateLimiter),
            "write RateLimiter(5), with its rate in parentheses",
        ),
        (lambda: opmap(mode="processes"), "did you mean 'process'?"),
        (lambda: opmap(workers=0), "None means as many as this process has CPUs"),
        (lambda: package.clear_cache(print), "cache_clear() clears its cache"),
    ],
)
@pytest.mark.once
def test_a_message_says_what_to_do(make: Callable[[], Any], hint: str) -> None:
    """Where what was written shows what was meant."""
    with pytest.raises((TypeError, ValueError), match=re.escape(hint)):
        make()


@pytest.mark.once
def test_a_value_that_shows_itself_badly_is_refused_all_the_same() -> None:
    """Its `repr` is the user's code, and may be long."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(TypeError, match=r"^retries=<Broken> is not allowed: use a whole number$"):
        opero(retries=Broken())
    with pytest.raises(TypeError, match=r"^timeout=\[0, 0, .*\.\.\. is not allowed") as caught:
        opero(timeout=[0] * 10_000)
    assert len(str(caught.value)) < 1000


# --- options without effect -----------------------------------------------------------------------


@pytest.mark.parametrize("decorator", [opero, opmap])
@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"cache_ttl": 5}, "without cache=True"),
        ({"cache_ttl": timedelta(minutes=1)}, "without cache=True"),
        ({"cache_key": len}, "without cache=True"),
        ({"cache_namespace": "x"}, "without cache=True"),
        ({"cache_backend": "disk"}, "without cache=True"),
        ({"cache_maxsize": 5}, "without cache=True"),
        ({"cache_maxsize": None}, "without cache=True"),
        ({"cache_dir": "x"}, "without cache=True and cache_backend='disk'"),
        ({"cache_version": "2"}, "without cache=True and cache_backend='disk' or 'redis'"),
        ({"cache_secret": "hush" * 4}, "without cache=True and cache_backend='disk' or 'redis'"),
        ({"burst": 5}, "without rate_limit="),
        ({"rate_limit": None, "burst": 5}, "without rate_limit="),
        ({"fallback_on": OSError}, "without arg_fallback="),
    ],
    ids=str,
)
@pytest.mark.once
def test_an_option_without_effect_is_a_wrong_option(
    decorator: Callable[..., Any], options: dict[str, Any], missing: str
) -> None:
    """The message says what it misses, and no secret."""
    option = [*options][-1]
    with pytest.raises(ValueError, match=rf"^{option}=.* has no effect {missing}") as caught:
        decorator(**options)
    assert "hush" not in str(caught.value)
    assert f"or leave {option} out" in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"cache_ttl": None, "cache_backend": "memory", "cache_maxsize": 1024, "burst": 1},
        {"fallback_on": Exception, "cache_namespace": "opero", "cache_dir": None},
        {"cache": CacheConfig(enabled=False, ttl=5, backend_options={"maxsize": 5})},
        {"rate_limit": RateLimitConfig(None, burst=5)},
        {"retry": RetryConfig(attempts=1, min_delay=5, max_delay=5)},
        {"retries": 1, "min_delay": 5, "max_delay": 5, "retry_on": OSError, "jitter": False},
        {"retries": 0, "retry_after": package.retry_after, "backoff_factor": 3},
    ],
    ids=lambda options: " ".join(options),
)
def test_a_default_may_be_spelled_out_and_a_mechanism_switched_off(
    core: hotpath.Core, options: dict[str, Any]
) -> None:
    """By its config object, or by the number that means that there are no retries."""
    function = opero(**options)(lambda value: value)
    assert function("value") == "value"
    assert get_cache_decorator(cache=False, cache_ttl=5)(len)("four") == 4


# --- seconds --------------------------------------------------------------------------------------


def test_every_time_may_be_a_timedelta(core: hotpath.Core) -> None:
    """As a keyword, in a config object, and in the answer of `retry_after`."""
    second = timedelta(seconds=1)
    seen: list[int] = []

    @opero(
        retries=3,
        min_delay=2 * second,
        max_delay=10 * second,
        jitter=False,
        retry_after=lambda error: 5 * second,
        timeout=timedelta(minutes=1),
        cache=True,
        cache_ttl=timedelta(minutes=2),
    )
    def function(value: int) -> int:
        seen.append(value)
        if len(seen) == 1:
            raise OSError
        return value

    with manual_clock() as clock:
        assert function(1) == 1
        assert pytest.approx(clock.waited, abs=0.1) == 5
        clock.advance(timedelta(minutes=1))
        assert (function(1), len(seen)) == (1, 2)
        clock.advance(timedelta(minutes=1))
        assert (function(1), len(seen)) == (1, 3)

    config = RetryConfig(2, min_delay=second, max_delay=second, jitter=False)
    cached = CacheConfig(ttl=3 * second)
    failing = opero(retry=config, cache=cached)(lambda: 1 / 0)
    with manual_clock() as clock, pytest.raises(AllFailedError):
        failing()
    assert pytest.approx(clock.waited, abs=0.1) == 1


def test_the_times_of_other_objects_may_be_timedeltas(core: hotpath.Core) -> None:
    """Those of a limiter, of a cache used by hand, of a stored backend, of a map."""
    limiter = RateLimiter(1000, windows=[(2, timedelta(seconds=10))])
    assert limiter.windows == ((2, 10.0),)
    with manual_clock() as clock:
        limiter.pause(timedelta(seconds=3))
        limiter.acquire_sync()
        assert clock.waited >= 3
        context = get_cache_context(cache_namespace="timedeltas", cache_ttl=timedelta(seconds=9))
        context.set("key", "value")
        clock.advance(timedelta(seconds=8))
        assert context.get("key") == "value"
        clock.advance(timedelta(seconds=1))
        assert context.get("key") is None
    stored = {"cache": True, "cache_backend": "disk", "cache_ttl": 5}
    checked = call_options("opero", {**stored, "cache_stale": timedelta(hours=1)}).cache
    assert checked is not None
    assert checked.stale == 3600 * 10**9
    given = {"mode": "process", "attempt_timeout": timedelta(milliseconds=1500)}
    assert map_options(given).attempt_timeout == 1.5


@pytest.mark.parametrize("option", ["min_delay", "max_delay", "timeout", "cache_ttl"])
@pytest.mark.parametrize("time", [timedelta(seconds=-1), timedelta.max])
@pytest.mark.once
def test_a_timedelta_has_the_bounds_of_a_number(option: str, time: timedelta) -> None:
    """And is shown as it was given."""
    refused(lambda: opero(**{option: time}), ValueError, option, time, "a number of seconds")


@pytest.mark.parametrize("value", [Decimal("sNaN"), "5", b"5", 5j, [5], (5,), {5}], ids=repr)
@pytest.mark.parametrize("option", ["min_delay", "timeout", "rate_limit", "backoff_factor"])
@pytest.mark.once
def test_what_only_resembles_a_number_is_none(option: str, value: Any) -> None:
    """Whatever it can be converted to."""
    kind = ValueError if isinstance(value, Decimal) else TypeError
    refused(lambda: opero(**{option: value}), kind, option, value, "number")


@pytest.mark.once
def test_times_and_texts_of_numpy_are_no_numbers() -> None:
    """A `timedelta64` has a unit that a float would lose."""
    numpy = pytest.importorskip("numpy")
    for value in (numpy.timedelta64(5, "ms"), numpy.str_("5"), numpy.complex128(5)):
        refused(lambda: opero(timeout=value), TypeError, "timeout", value, "a number")


class Later:
    """An instance that is called, and answers later."""

    async def __call__(self, *args: Any) -> bool:
        return True


@pytest.mark.parametrize(
    "options",
    [
        {"retry_on": Later()},
        {"retry_on_result": Later()},
        {"retry_after": Later()},
        {"cache": True, "cache_key": Later()},
        {"arg_fallback": "key", "fallback_on": Later()},
        {"retry_on": functools.partial(coroutine_function)},
        {"cache": True, "cache_key": Later().__call__},
        {"retry_on_result": lambda value: (yield value)},
    ],
    ids=lambda options: [*options][-1],
)
@pytest.mark.once
def test_a_function_that_answers_later_is_refused(options: dict[str, Any]) -> None:
    """What it returns would count as true, whatever it is."""
    with pytest.raises(TypeError, match=r"does not return its answer when called$"):
        opero(**options)


# --- what is accepted -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"retries": 0},
        {"retries": 1_000_000},
        {"backoff_factor": 1},
        {"backoff_factor": Fraction(3, 2)},
        {"min_delay": 0, "max_delay": 0},
        {"min_delay": Decimal("0.5")},
        {"min_delay": 30.0},
        {"max_delay": 1e9},
        {"retry_on": ()},
        {"retry_on": OSError},
        {"retry_on": (OSError, KeyError)},
        {"retry_on": lambda error: True},
        {"retry_on": isinstance},
        {"cache": True, "cache_ttl": 1e-9},
        {"cache": True, "cache_ttl": 300},
        {"cache": True, "cache_maxsize": None},
        {"cache": True, "cache_maxsize": 1},
        {"cache": True, "cache_key": len},
        {"rate_limit": 1e-9},
        {"rate_limit": 1e9, "burst": 1000},
        {"rate_limit": Fraction(1, 3)},
        {"rate_limit": None, "burst": 1},
        {"rate_limit": RateLimitConfig()},
        {"timeout": 1e-9},
        {"timeout": 1e9},
        {"jitter": False},
        {"retry_after": package.retry_after},
    ],
    ids=lambda options: " ".join(options),
)
def test_an_allowed_value_is_accepted(core: hotpath.Core, options: dict[str, Any]) -> None:
    """The bounds themselves are allowed, and any kind of number."""
    function = opero(**options)(lambda value: value)
    assert function("value") == "value"


def test_numbers_of_numpy_are_numbers(core: hotpath.Core) -> None:
    """A whole number is whatever can be an index, a number whatever can be a float."""
    numpy = pytest.importorskip("numpy")
    function = opero(
        retries=numpy.int64(2),
        min_delay=numpy.float32(0.5),
        cache=True,
        cache_maxsize=numpy.uint8(7),
        timeout=numpy.float64(5),
    )(lambda: 1)
    assert (function(), function.cache_info().maxsize) == (1, 7)
    assert type(function.__opero__.store.maxsize) is int


@pytest.mark.parametrize("option", ["retries", "burst"])
@pytest.mark.once
def test_what_numpy_has_besides_numbers_is_none(option: str) -> None:
    """A bool of numpy counts nothing, nor does an array."""
    numpy = pytest.importorskip("numpy")
    for value in (numpy.True_, numpy.array([2, 3])):
        refused(lambda: opero(**{option: value}), TypeError, option, value, "a whole number")
        refused(lambda: opero(timeout=value), TypeError, "timeout", value, "a number")


# --- config objects -------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("config", "defaults"),
    [
        (
            CacheConfig,
            {
                "enabled": True,
                "ttl": None,
                "backend": "memory",
                "namespace": "opero",
                "key_function": None,
                "backend_options": {},
            },
        ),
        (
            RetryConfig,
            {
                "attempts": 3,
                "backoff_factor": 1.5,
                "min_delay": 0.1,
                "max_delay": 30.0,
                "retry_on": (Exception,),
                "jitter": True,
                "retry_after": None,
                "retry_on_result": None,
                "reraise": False,
            },
        ),
        (RateLimitConfig, {"rate": None, "burst": 1, "adaptive": False, "floor": None}),
        (
            BreakerConfig,
            {
                "name": None,
                "window": 30.0,
                "failure_ratio": 0.5,
                "minimum": 10,
                "open_for": 30.0,
                "probes": 1,
                "scope": "process",
                "url": None,
            },
        ),
    ],
)
def test_the_config_objects_have_the_fields_and_defaults_of_the_reference(
    config: type[Any], defaults: dict[str, Any]
) -> None:
    """In this order, so that positional use works as printed."""
    fields = {field.name: getattr(config(), field.name) for field in dataclasses.fields(config)}
    assert defaults == fields
    assert list(defaults) == list(fields)


def test_a_cache_config_says_how_values_are_cached(core: hotpath.Core) -> None:
    """Expiry, namespace, key and backend options take effect."""
    config = CacheConfig(
        enabled=True,
        ttl=10,
        namespace="of my own",
        key_function=lambda text: text.lower(),
        backend_options={"maxsize": 5},
    )
    calls: list[str] = []

    @opero(cache=config)
    def function(text: str) -> str:
        calls.append(text)
        return text

    with manual_clock() as clock:
        assert [function("A"), function("a")] == ["A", "A"]
        clock.advance(10)
        assert function("a") == "a"
    assert function.cache_info().maxsize == 5
    package.clear_cache("of my own")
    assert function.cache_info().currsize == 0


def test_a_cache_config_that_is_not_enabled_caches_nothing(core: hotpath.Core) -> None:
    """It switches the cache off, and keeps its other fields for the day when it is on."""
    runs: list[int] = []
    function = opero(cache=CacheConfig(enabled=False, ttl=5))(runs.append)
    function(1)
    function(1)
    assert runs == [1, 1]


def test_a_retry_config_says_how_a_function_is_attempted_again(core: hotpath.Core) -> None:
    """Number, delays, factor, jitter and exceptions take effect."""
    config = RetryConfig(
        attempts=3, backoff_factor=3, min_delay=2, max_delay=5, retry_on=KeyError, jitter=False
    )

    @opero(retry=config)
    def function() -> None:
        raise KeyError

    with skip_waits() as clock, pytest.raises(AllFailedError) as caught:
        function()
    assert len(caught.value.errors) == 3
    assert pytest.approx(function.stats().backoff_wait, abs=0.5) == 7
    assert pytest.approx(clock.waited, abs=0.5) == 7


def test_a_rate_limit_config_says_how_often_a_function_starts(core: hotpath.Core) -> None:
    """Rate and burst take effect."""
    function = opero(rate_limit=RateLimitConfig(rate=0.5, burst=2))(lambda: None)
    with manual_clock() as clock:
        for _ in range(4):
            function()
        assert pytest.approx(clock.waited) == 4.0


def test_a_rate_limit_config_makes_a_limiter_for_each_function(core: hotpath.Core) -> None:
    """Only a `RateLimiter` is shared."""
    config = RateLimitConfig(rate=1)
    one, other = opero(rate_limit=config)(lambda: 1), opero(rate_limit=config)(lambda: 2)
    with manual_clock() as clock:
        assert (one(), other(), clock.waited) == (1, 2, 0.0)


def test_each_decorator_of_one_mechanism_takes_its_config_object(core: hotpath.Core) -> None:
    """As its first argument, or by the name of that."""
    runs: list[Any] = []

    def failing(value: Any) -> Any:
        runs.append(value)
        raise OSError

    retried = get_retry_decorator(RetryConfig(2, min_delay=0, max_delay=0))(failing)
    with pytest.raises(AllFailedError):
        retried(1)
    assert runs == [1, 1]
    fallback = FallbackConfig({"value": ["b", "c"]}, fallback_on=OSError)
    for decorator in (get_fallback_decorator(fallback), opero(retries=1, arg_fallback=fallback)):
        runs.clear()
        with pytest.raises(AllFailedError):
            decorator(failing)("a")
        assert runs == ["a", "b", "c"]
    cached = get_cache_decorator(CacheConfig(ttl=60))(lambda: runs.append("cached"))
    cached()
    cached()
    assert runs.count("cached") == 1
    limited = get_rate_limit_decorator(RateLimitConfig(0.5, burst=2))(lambda: None)
    with manual_clock() as clock:
        for _ in range(3):
            limited()
        assert pytest.approx(clock.waited) == 2.0
    with pytest.raises(
        ValueError, match=r"^jitter=False is not allowed together with retries=RetryConfig"
    ):
        get_retry_decorator(RetryConfig(), jitter=False)


def test_a_cache_config_caches_by_itself(core: hotpath.Core) -> None:
    """Whoever writes one wants a cache."""
    runs: list[int] = []
    function = opero(cache=CacheConfig())(runs.append)
    function(1)
    function(1)
    assert runs == [1]


def test_a_rate_limiter_is_shared_by_several_functions(core: hotpath.Core) -> None:
    """Their attempts together stay within its rate."""
    limiter = RateLimiter(2.0)
    one = opero(rate_limit=limiter)(lambda: 1)
    other = get_rate_limit_decorator(limiter)(lambda: 2)
    with manual_clock() as clock:
        assert [one(), other(), one(), other()] == [1, 2, 1, 2]
        assert pytest.approx(clock.waited) == 1.5


def test_a_config_that_is_changed_after_decoration_changes_nothing(core: hotpath.Core) -> None:
    """Options are read once."""
    retry = RetryConfig(attempts=2, min_delay=0)
    cache = CacheConfig(enabled=True)
    function = opero(retry=retry, cache=cache)(lambda: 1 / 0)
    retry.attempts = 9
    cache.enabled = False
    with pytest.raises(AllFailedError) as caught:
        function()
    assert len(caught.value.errors) == 2
    assert function.cache_info().maxsize == 1024


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({"retry": RetryConfig()}, {"retries": 5}),
        ({"retry": RetryConfig()}, {"min_delay": 1}),
        ({"retry": RetryConfig()}, {"retry_on": KeyError}),
        ({"retry": RetryConfig()}, {"jitter": False}),
        ({"cache": CacheConfig(True)}, {"cache_ttl": 5}),
        ({"cache": CacheConfig(True)}, {"cache_namespace": "x"}),
        ({"cache": CacheConfig(True)}, {"cache_maxsize": 5}),
        ({"cache": CacheConfig(True)}, {"cache_key": len}),
        ({"rate_limit": RateLimitConfig(5)}, {"burst": 2}),
        ({"rate_limit": RateLimiter(5)}, {"burst": 2}),
    ],
    ids=repr,
)
@pytest.mark.once
def test_a_config_object_and_a_keyword_for_the_same_thing_contradict_each_other(
    config: dict[str, Any], options: dict[str, Any]
) -> None:
    """The message names the keyword and says where to put it."""
    ((option, value),) = options.items()
    pattern = rf"^{option}={re.escape(repr(value))} is not allowed together with .*: give it to [A-Za-z]+\(\.\.\.\) instead$"
    with pytest.raises(ValueError, match=pattern):
        opero(**config, **options)


@pytest.mark.once
def test_a_debugger_that_looks_at_variables_changes_no_options() -> None:
    """Until Python 3.12, looking at a frame's variables writes to what `locals()` returned."""
    seen: list[str] = []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        seen.extend(frame.f_locals)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function = opero(cache=True, cache_ttl=5)(len)
        retried = get_retry_decorator(jitter=False)(len)
        mapped = opmap(mode="thread", progress=False)(len)
    finally:
        sys.settrace(before)
    assert "given" in seen
    assert (function("four"), retried("four"), mapped(["four"])) == (4, 4, [4])


# --- nothing is decided too late ------------------------------------------------------------------


def test_a_wrong_option_fails_before_there_is_a_function(core: hotpath.Core) -> None:
    """`opero(...)` itself raises, not the decorator that it returns, nor the first call."""
    with pytest.raises(ValueError, match="retries"):
        opero(retries=-1)


def test_a_wrong_option_is_refused_for_coroutine_functions_likewise(core: hotpath.Core) -> None:
    """It is the same check."""
    with pytest.raises(ValueError, match="no parameter of that name"):
        opero(arg_fallback="missing")(coroutine_function)
    assert asyncio.run(opero(retries=0)(coroutine_function)(1))


@pytest.mark.parametrize(
    "option",
    [
        "cache",
        "cache_backend",
        "cache_ttl",
        "breaker",
        "rate_limit",
        "adaptive",
        "retries",
        "retry_on",
    ],
)
@pytest.mark.parametrize("wrap", [str, lambda url: [url], lambda url: {"url": url}, str.encode])
@pytest.mark.parametrize("password", ["s3cr3t", "s3cr3t/p4ss", "s3cr3t@p4ss", "s3cr3t'\np4ss"])
@pytest.mark.once
def test_a_url_that_was_given_to_another_option_is_shown_without_its_password(
    option: str, wrap: Any, password: str
) -> None:
    """Somebody may write cache_backend= for cache_url=."""
    value = wrap(f"redis://bob:{password}@localhost:6379/0")
    with pytest.raises((TypeError, ValueError)) as caught:
        opero(**{option: value})(lambda x: x)
    said = str(caught.value)
    assert option in said
    assert not [piece for piece in ("s3cr3t", "p4ss", "bob") if piece in said]
