"""The rows of the options of a call, but for those of its cache: retries, fallback, rate, time."""

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
        hint = f"{name}=1 is one attempt, without retries"
    attempts = checks.whole(name, value, hint)
    if attempts < 0:
        checks.wrong(name, value, "the number of attempts in all, 0 or more")
    return attempts


def _factor(name: str, value: Any) -> float:
    factor = checks.number(name, value)
    if not 1 <= factor <= checks.LONGEST:
        hint = "1 means the same delay each time" if factor < 1 else ""
        checks.wrong(name, value, "a number from 1 to 1e9", hint=hint)
    return factor


def _timeout(name: str, value: Any) -> float:
    return checks.positive(name, value, "None means no bound")


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
        hint = f"a breaker of that name is Breaker({checks.shown(value)})"
    elif isinstance(value, type) and issubclass(value, (SharedGate, BreakerConfig)):
        hint = f"write {value.__name__}(), with parentheses"
    elif isinstance(value, SharedGate):
        hint = _belongs(value)
    elif isinstance(value, (int, float)):
        hint = "how many attempts it looks at is BreakerConfig(minimum=...)"
    return checks.wrong(name, value, allowed, TypeError, hint)


def _rate(name: str, value: Any) -> float:
    """Check a rate; what is for another option is refused with the name of that."""
    if isinstance(value, SharedGate):
        allowed = "a number of permits per second, a RateLimitConfig or a RateLimiter"
        checks.wrong(name, value, allowed, TypeError, _belongs(value))
    return checks.rate(name, value)


def _belongs(value: SharedGate) -> str:
    """Say which option takes a value."""
    return f"give {type(value).__name__}(...) to {value._option}="


_PREDICATE = "an ordinary function of the returned value that tells whether it is a failure"

CALL_ROWS: tuple[Option, ...] = (
    # --- how a function is attempted again --------------------------------------------------------
    Option(
        "retries",
        3,
        "int",
        _retries,
        "The greatest number of attempts in all; 0 and 1 both mean one.",
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
        "What the delay's ceiling grows by from attempt to attempt, at least 1.",
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
        "the exception. Any other goes up at once, unchanged.",
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
        "The name of a parameter that holds a list or tuple of values to try in order, each as its "
        'element 0; or `{"parameter": [values]}`, whose values are tried one at a time after the '
        "caller's own; or a `FallbackConfig`.",
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
        "The greatest number of attempts started per second; or a `RateLimitConfig`; or a "
        "`RateLimiter`, which several functions may share.",
        (*_LIMIT, "attempts"),
        config="RateLimitConfig",
        field="rate",
        also=(
            *("rate", "ratelimit", "limit", "limiter", "rps", "qps", "calls_per_second", "calls"),
            *("max_rate", "requests_per_second", "per_second", "throttle"),
        ),
        each="The greatest number of attempts started per second, by each worker; or a "
        "`RateLimitConfig`; or a `RateLimiter`, which is one for all that share it.",
        block="A `RateLimiter`, of which each attempt takes a permit; loops may share it.",
    ),
    # --- by keyword only --------------------------------------------------------------------------
    Option(
        "jitter",
        True,
        "bool",
        checks.flag,
        "Whether a delay is drawn between `min_delay` and its ceiling, or is the ceiling.",
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
        "How many attempts may start at once after a pause.",
        _LIMIT,
        config="RateLimitConfig",
        field="burst",
        needs=("rate_limit",),
        also=("capacity", "bucket_size", "max_burst", "time_period"),
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
        "Seconds for a whole call, waits included. A wait that would not end in time is not begun; "
        "an awaited attempt is cut, a running ordinary one cannot be.",
        _BLOCKS,
        also=(
            "timeout_seconds",
            "deadline",
            "time_limit",
            "max_time",
            "timeout_s",
            "total_timeout",
        ),
        each="Seconds for an item, from its first attempt on, waits included; it cuts an awaited "
        "attempt too.",
        block="Seconds for all attempts, waits included. A wait that would not end in time is not "
        "begun; what the block of an `async for` awaits is cut.",
    ),
    Option(
        "attempt_timeout",
        None,
        "Seconds | None",
        partial(optional, _timeout),
        "Seconds for one awaited attempt, waits before it not included: then it is cancelled and "
        "has failed with `AttemptTimeout`. Not for ordinary functions: nothing stops a thread.",
        _BLOCKS,
        also=(
            *("item_timeout", "task_timeout", "worker_timeout", "per_attempt_timeout"),
            *("try_timeout", "per_try_timeout", "call_timeout"),
        ),
        each="Seconds for one attempt: then its process is killed, or its coroutine cancelled "
        "(`AttemptTimeout`). Not for threads, which cannot be stopped.",
        block="Seconds for one attempt, waits before it not included: then what it awaits is "
        "cancelled, and it has failed with `AttemptTimeout`. For `async for` only.",
    ),
    Option(
        "retry",
        None,
        "RetryConfig | None",
        _retry,
        "A `RetryConfig`, in place of the keywords for retries.",
        _BLOCKS,
        also=("retry_config", "retry_policy", "policy"),
    ),
    Option(
        "retry_after",
        None,
        "RetryAfter | None",
        partial(optional, _retry_after),
        "A function that returns, for an exception, how many seconds the server asks to wait, or "
        "None; `opero.retry_after` knows the usual clients' errors. The next delay is that long at "
        "least, up to `max_delay`, or up to the deadline with a `timeout`; for longer waits the "
        "call gives up at once.",
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
        "A predicate of the returned value; true means that this attempt has failed.",
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
        "After which exceptions the next value of `arg_fallback` is tried: a type, a tuple of "
        "types, or a predicate of the exception.",
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
        "A circuit breaker: True for one of the function's own, or a `BreakerConfig`; or a "
        "`Breaker`, which several functions may share. While it is open, no attempt begins.",
        _BLOCKS,
        also=("circuit_breaker", "circuit", "circuitbreaker", "cb", "use_circuit_breaker"),
        more="See [circuit breakers](breaker.md).",
        each="A circuit breaker, one for all workers: True, or a `BreakerConfig`; or a `Breaker`, "
        "which several functions may share. While it is open, items wait.",
        block="A `Breaker`, which counts each attempt; loops may share it. While it is open, no "
        "attempt begins.",
    ),
    Option(
        "reraise",
        False,
        "bool",
        checks.flag,
        "Whether the last attempt's own exception is raised, in place of `AllFailedError`.",
        _RETRY,
        config="RetryConfig",
        field="reraise",
        also=("raise_last", "reraise_last", "re_raise"),
    ),
)
