"""The rows of the fields of `BreakerConfig`: parameters of `Breaker`, not options."""

from __future__ import annotations

from functools import partial
from typing import Any

from . import checks
from .checks import optional
from .configs import BreakerConfig
from .option import Option

SCOPES = ("process", "machine", "redis")
"""Who may share a breaker."""


def _ratio(name: str, value: Any) -> float:
    ratio = checks.number(name, value)
    if not 0 < ratio <= 1:
        hint = f"{ratio:g} percent is {ratio / 100:g}" if 1 < ratio <= 100 else ""
        checks.wrong(name, value, "a share above 0, up to 1", hint=hint)
    return ratio


def _field(
    name: str,
    default: Any,
    kind: str,
    check: Any,
    doc: str,
    also: tuple[str, ...],
    secret: bool = False,
) -> Option:
    return Option(
        name, default, kind, check, doc, (), "BreakerConfig", name, also=also, secret=secret
    )


def _url(name: str, value: Any) -> str | None:
    """Check that a value is a string, and do not show it: it may contain a password."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name}= must be a string, not {type(value).__name__}")
    return value


def checked(config: BreakerConfig) -> BreakerConfig:
    """Return a configuration with every field checked, and times in seconds.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a field's value is not allowed, or the scope lacks a field that it needs or
            does not read one that was given.
    """
    fields = {row.field: row.check(row.field, getattr(config, row.field)) for row in BREAKER_ROWS}
    scope = fields["scope"]
    if scope != "process" and fields["name"] is None:
        raise ValueError(f"scope={scope!r} needs name=: processes share a breaker by its name")
    if scope == "redis" and fields["url"] is None:
        raise ValueError("scope='redis' needs url=, such as 'redis://localhost:6379/0'")
    if scope != "redis" and fields["url"] is not None:
        raise ValueError(f"url= is not read by scope={scope!r}: leave it out")
    return BreakerConfig(**fields)


BREAKER_ROWS: tuple[Option, ...] = (
    _field(
        "name",
        None,
        "str | None",
        partial(optional, checks.name),
        "Its name in events, logs and messages; None for the name of the function.",
        ("circuit_name", "circuit_breaker_name", "key"),
    ),
    _field(
        "window",
        30.0,
        "Seconds",
        checks.positive,
        "How many seconds it looks back.",
        (
            *("sampling_duration", "rolling_window", "interval", "sliding_window_size"),
            *("sliding_window", "rolling_duration", "rolling_counting_timeout", "ttl", "period"),
            "window_size",
        ),
    ),
    _field(
        "failure_ratio",
        0.5,
        "float",
        _ratio,
        "The share of failed attempts that opens it, above 0 and at most 1.",
        (
            *("failure_rate_threshold", "failure_rate", "ratio", "error_threshold_percentage"),
            *("error_percentage", "failure_percentage", "error_rate"),
            "failure_threshold_percentage",
        ),
    ),
    _field(
        "minimum",
        10,
        "int",
        checks.count,
        "The least number of attempts in the window before it can open, 1 or more.",
        (
            *("fail_max", "failure_threshold", "minimum_throughput", "minimum_number_of_calls"),
            *("volume_threshold", "max_failures", "maxfail", "threshold", "min_calls"),
            *("request_volume_threshold", "max_fails", "minimum_calls", "failures"),
        ),
    ),
    _field(
        "open_for",
        30.0,
        "Seconds",
        checks.positive,
        "How many seconds it stays open.",
        (
            *("recovery_timeout", "reset_timeout", "break_duration", "wait_duration_in_open_state"),
            *("timeout", "timeout_duration", "cooldown", "sleep_window", "cool_down"),
            *("open_duration", "half_open_after", "duration_of_break", "open_timeout"),
            "recovery_time",
        ),
    ),
    _field(
        "probes",
        1,
        "int",
        checks.count,
        "How many probes may run at the same time, and how many must succeed to close it.",
        (
            *("success_threshold", "half_open_max_calls", "half_open_requests", "half_open_max"),
            *("permitted_number_of_calls_in_half_open_state", "max_requests", "trial_calls"),
        ),
    ),
    _field(
        "scope",
        "process",
        "str",
        partial(checks.choice, choices=SCOPES),
        'Who shares it: "process"; or, by its name, "machine" or "redis".',
        ("storage", "state_storage"),
    ),
    _field(
        "url",
        None,
        "str | None",
        _url,
        'The server\'s address, such as "redis://host:port/0"; for "redis" only.',
        ("redis_url", "redis", "dsn"),
        secret=True,
    ),
)
"""A row for each field, in the order of the fields."""
