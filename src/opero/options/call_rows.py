"""The rows of a call's options, except its cache: retries, fallback, rate, time."""

from __future__ import annotations

from functools import partial
from typing import Any

from opero.core.gate import SharedGate

from . import checks
from .breaker_rows import checked
from .checks import optional, without_brackets
from .configs import BreakerConfig
from .option import CALLS, Option

_BLOCKS = (*CALLS, "attempts")
_RETRY = (*_BLOCKS, "get_retry_decorator")
_FUNCTIONS = (*CALLS, "get_retry_decorator")
_FALLBACK = (*CALLS, "get_fallback_decorator")
_LIMIT = (*CALLS, "get_rate_limit_decorator")


def _retries(name: str, value: Any) -> int:
    hint = without_brackets(value)
    if value is None:
        hint = f"{name}=1 means one attempt and no retries"
    attempts = checks.whole(name, value, hint)
    if attempts < 0:
        checks.wrong(name, value, "the total number of attempts, 0 or more")
    return attempts


def _factor(name: str, value: Any) -> float:
    factor = checks.number(name, value)
    if not 1 <= factor <= checks.LONGEST:
        hint = "1 means the same delay each time" if factor < 1 else ""
        checks.wrong(name, value, "a number from 1 to 1e9", hint=hint)
    return factor


def _timeout(name: str, value: Any) -> float:
    return checks.positive(name, value, "None means no limit")


def _retry(name: str, value: Any) -> Any:
    hint = f"write retries={value!r}" if isinstance(value, int) and value > 1 else ""
    if value is not None:
        checks.wrong(name, value, "a RetryConfig", TypeError, hint)


def _retry_after(name: str, value: Any) -> Any:
    allowed = "an ordinary function of the exception that returns seconds or None"
    if isinstance(value, type):
        checks.wrong(name, value, allowed, TypeError)
    return checks.function(name, value, allowed)


def _breaker(name: str, value: Any) -> Any:
    if value is None or value is False:
        return None
    if value is True:
        return checked(BreakerConfig())
    if isinstance(value, BreakerConfig):
        return checked(value)
    if isinstance(value, SharedGate) and value._option == name:
        return value
    allowed = "True, a BreakerConfig or a Breaker"
    hint = without_brackets(value)
    if isinstance(value, str):
        hint = f"for a breaker of that name, write Breaker({checks.shown(value)})"
    elif isinstance(value, type) and issubclass(value, (SharedGate, BreakerConfig)):
        hint = f"write {value.__name__}(), with parentheses"
    elif isinstance(value, SharedGate):
        hint = _belongs(value)
    elif isinstance(value, (int, float)):
        hint = "for the number of attempts before it can open, write BreakerConfig(minimum=...)"
    return checks.wrong(name, value, allowed, TypeError, hint)


def _rate(name: str, value: Any) -> float:
    """Check a rate; a breaker is refused with the name of the option that takes it."""
    if isinstance(value, SharedGate):
        allowed = "a number of permits per second, a RateLimitConfig or a RateLimiter"
        checks.wrong(name, value, allowed, TypeError, _belongs(value))
    return checks.rate(name, value)


def _belongs(value: SharedGate) -> str:
    """Return a hint that names the option that takes a value."""
    return f"give {type(value).__name__}(...) to {value._option}="


_PREDICATE = "an ordinary function of the returned value that returns whether it is a failure"

CALL_ROWS: tuple[Option, ...] = (
    # --- retries ----------------------------------------------------------------------------------
    Option(
        "retries",
        3,
        "int",
        _retries,
        "The most attempts in total, the first included; 0 and 1 both mean one.",
        _RETRY,
        config="RetryConfig",
        field="attempts",
        also=(
            *("attempts", "max_attempts", "max_retries", "max_tries", "tries", "num_retries"),
            *("n_retries", "retry_count", "total", "stop", "retry_attempts", "number_of_retries"),
        ),
    ),
    Option(
        "backoff_factor",
        1.5,
        "float",
        _factor,
        "The factor by which the delay's ceiling grows with each attempt, at least 1.",
        _RETRY,
        config="RetryConfig",
        field="backoff_factor",
        also=("backoff", "factor", "multiplier", "exp_base", "exponential_base", "wait_exp_base"),
    ),
    Option(
        "min_delay",
        0.1,
        "Seconds",
        checks.seconds,
        "The shortest delay between attempts, in seconds.",
        _RETRY,
        config="RetryConfig",
        field="min_delay",
        also=(
            *("delay", "wait", "sleep", "interval", "base_delay", "initial_delay", "wait_initial"),
            *("initial", "min_wait", "wait_min", "wait_time", "retry_delay", "backoff_base"),
        ),
    ),
    Option(
        "max_delay",
        30.0,
        "Seconds",
        checks.seconds,
        "The longest delay between attempts, in seconds.",
        _RETRY,
        config="RetryConfig",
        field="max_delay",
        also=("max_wait", "wait_max", "max_backoff", "max_interval", "max_value", "backoff_max"),
    ),
    Option(
        "retry_on",
        (Exception,),
        "RetryOn",
        checks.exceptions,
        "Which exceptions are worth another attempt: a type, a tuple of types, or a predicate of "
        "the exception. Any other exception is raised immediately, unchanged.",
        _RETRY,
        config="RetryConfig",
        field="retry_on",
        also=(
            *("exceptions", "exception", "on", "errors", "catch", "on_exception", "allowed"),
            *("retry_exceptions", "retryable_exceptions", "retry_if", "expected_exception"),
        ),
        written="(Exception,)",
    ),
    # --- fallback values --------------------------------------------------------------------------
    Option(
        "arg_fallback",
        None,
        "ArgFallback | FallbackConfig | None",
        partial(optional, checks.fallback),
        "The name of a parameter that takes a list or tuple of values to try in order: the "
        'function finds the current one at index 0. Or `{"parameter": [values]}`: values to try '
        "one at a time after the caller's own. Or a `FallbackConfig`.",
        _FALLBACK,
        config="FallbackConfig",
        field="argument",
        also=("fallback", "fallbacks", "fallback_arg", "fallback_argument", "argument"),
    ),
    # --- the rate ---------------------------------------------------------------------------------
    Option(
        "rate_limit",
        None,
        "float | RateLimitConfig | RateLimiter | None",
        partial(optional, _rate),
        "The most attempts to start per second; or a `RateLimitConfig`; or a `RateLimiter`, which "
        "several functions may share.",
        (*_LIMIT, "attempts"),
        config="RateLimitConfig",
        field="rate",
        also=(
            *("rate", "ratelimit", "limit", "limiter", "rps", "qps", "calls_per_second", "calls"),
            *("max_rate", "requests_per_second", "per_second", "throttle"),
        ),
        each="The most attempts that each worker starts per second; or a `RateLimitConfig`; or a "
        "`RateLimiter`, one limit for all who share it.",
        block="A `RateLimiter`; each attempt takes a permit from it. Loops may share it.",
    ),
    # --- keyword-only -----------------------------------------------------------------------------
    Option(
        "jitter",
        True,
        "bool",
        checks.flag,
        "Whether each delay is random, between `min_delay` and its ceiling; if False, it is the "
        "ceiling.",
        _RETRY,
        config="RetryConfig",
        field="jitter",
        also=("randomize", "full_jitter", "wait_jitter"),
    ),
    Option(
        "burst",
        1,
        "int",
        checks.burst,
        "How many attempts may start together after a pause.",
        _LIMIT,
        config="RateLimitConfig",
        field="burst",
        needs=("rate_limit",),
        also=("capacity", "bucket_size", "max_burst"),
    ),
    Option(
        "adaptive",
        False,
        "bool",
        checks.flag,
        "Whether the rate falls when the server rejects attempts, and rises again up to "
        "`rate_limit` while they succeed.",
        _LIMIT,
        config="RateLimitConfig",
        field="adaptive",
        needs=("rate_limit",),
        also=("adaptive_rate", "auto_throttle", "autothrottle", "throttle_mode", "aimd"),
        more="See [limits that adapt](limits.md#limits-that-adapt).",
    ),
    Option(
        "rate_floor",
        None,
        "float | None",
        partial(optional, checks.rate),
        "The lowest rate of an adaptive limit, in attempts per second; None for a hundredth of "
        "`rate_limit`.",
        _LIMIT,
        config="RateLimitConfig",
        field="floor",
        needs=("adaptive",),
        also=("floor", "min_rate", "minimum_rate"),
    ),
    Option(
        "timeout",
        None,
        "Seconds | None",
        partial(optional, _timeout),
        "The deadline of a whole call in seconds, waits included. No wait begins that would end "
        "too late. An awaited attempt is cancelled; a running ordinary function cannot be "
        "stopped.",
        _BLOCKS,
        also=(
            "timeout_seconds",
            "deadline",
            "time_limit",
            "max_time",
            "timeout_s",
            "total_timeout",
        ),
        each="The deadline of an item in seconds, counted from its first attempt, waits included; "
        "an awaited attempt is cancelled then.",
        block="The deadline of all attempts in seconds, waits included. No wait begins that would "
        "end too late; whatever the block of an `async for` awaits is cancelled.",
    ),
    Option(
        "attempt_timeout",
        None,
        "Seconds | None",
        partial(optional, _timeout),
        "How many seconds one awaited attempt may take, not counting the waits before it. Then "
        "opero cancels it, and it has failed with `AttemptTimeout`. Not for ordinary functions: "
        "nothing can stop a thread.",
        _BLOCKS,
        also=(
            *("item_timeout", "task_timeout", "worker_timeout", "per_attempt_timeout"),
            *("try_timeout", "per_try_timeout", "call_timeout"),
        ),
        each="How many seconds one attempt may take. Then its process is killed, or its coroutine "
        "cancelled (`AttemptTimeout`). Not for threads, which cannot be stopped.",
        block="How many seconds one attempt may take, not counting the waits before it. Then opero "
        "cancels whatever it awaits, and it has failed with `AttemptTimeout`. For `async for` "
        "only.",
    ),
    Option(
        "retry",
        None,
        "RetryConfig | None",
        _retry,
        "A `RetryConfig`, instead of the keywords for retries.",
        _BLOCKS,
        also=("retry_config", "retry_policy", "policy"),
    ),
    Option(
        "retry_after",
        None,
        "RetryAfter | None",
        partial(optional, _retry_after),
        "A function that takes the exception and returns how many seconds the server asks you to "
        "wait, or None; `opero.retry_after` knows the errors of the usual clients. The next delay "
        "is at least that long, up to `max_delay`, or up to the deadline with a `timeout`. If the "
        "server asks for longer, the call gives up immediately.",
        _RETRY,
        config="RetryConfig",
        field="retry_after",
        also=("respect_retry_after", "wait_from", "respect_retry_after_header"),
        more="See [when the server says how long to wait]"
        "(failures.md#when-the-server-says-how-long-to-wait).",
    ),
    Option(
        "retry_on_result",
        None,
        "RetryOnResult | None",
        partial(optional, lambda name, value: checks.function(name, value, _PREDICATE)),
        "A predicate of the returned value; true means that the attempt has failed.",
        _FUNCTIONS,
        config="RetryConfig",
        field="retry_on_result",
        also=("retry_if_result", "result_predicate", "on_predicate", "retry_if_not_result"),
    ),
    Option(
        "fallback_on",
        Exception,
        "RetryOn",
        checks.exceptions,
        "Which exceptions lead to the next value of `arg_fallback`: a type, a tuple of types, or a "
        "predicate of the exception.",
        _FALLBACK,
        config="FallbackConfig",
        field="fallback_on",
        needs=("arg_fallback",),
        also=("fallback_exceptions", "retry_on", "fallback_if"),
        written="Exception",
    ),
    Option(
        "breaker",
        None,
        "Breaker | BreakerConfig | bool | None",
        _breaker,
        "A circuit breaker: True or a `BreakerConfig` for one that belongs to this function; or a "
        "`Breaker`, which several functions may share. While it is open, no attempt begins.",
        _BLOCKS,
        also=("circuit_breaker", "circuit", "circuitbreaker", "cb", "use_circuit_breaker"),
        more="See [circuit breakers](breaker.md).",
        each="A circuit breaker, one for all workers: True or a `BreakerConfig`; or a `Breaker`, "
        "which several functions may share. While it is open, items wait.",
        block="A `Breaker`, which counts each attempt. Loops may share it. While it is open, no "
        "attempt begins.",
    ),
    Option(
        "reraise",
        False,
        "bool",
        checks.flag,
        "Whether to raise the last attempt's own exception instead of `AllFailedError`.",
        _RETRY,
        config="RetryConfig",
        field="reraise",
        also=("raise_last", "reraise_last", "re_raise"),
    ),
)
