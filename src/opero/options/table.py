"""The table of options: one row for each. Everything else that lists options follows it.

checks and defaults         `reading.py` and `opero.map.options` read the rows
hints                       `hints.py` reads the rows' names and `also`
signatures and docstrings   of `decorators.py`, `functions.py` and `contexts.py`: generated
tables of the docs          generated

`python -m tools.write_options` writes the generated parts; a test fails if they are out of date.
"""

from __future__ import annotations

from typing import Any

from .breaker_rows import BREAKER_ROWS
from .cache_rows import CACHE_ROWS
from .call_rows import CALL_ROWS
from .map_rows import MAP_ROWS
from .option import Option

POSITIONAL: dict[str, tuple[str, ...]] = {
    "opero": (
        *("retries", "backoff_factor", "min_delay", "max_delay", "retry_on", "arg_fallback"),
        *("cache", "cache_ttl", "cache_key", "cache_namespace", "cache_backend", "rate_limit"),
    ),
    "opmap": (
        *("mode", "workers", "ordered", "progress"),
        *("retries", "backoff_factor", "min_delay", "max_delay", "retry_on", "arg_fallback"),
        *("cache", "cache_ttl", "cache_namespace", "rate_limit"),
    ),
    "get_cache_decorator": (
        *("cache", "cache_ttl", "cache_key", "cache_namespace", "cache_backend"),
    ),
    "get_retry_decorator": ("retries", "backoff_factor", "min_delay", "max_delay", "retry_on"),
    "get_rate_limit_decorator": ("rate_limit",),
    "get_fallback_decorator": ("arg_fallback",),
    "attempts": ("retries", "backoff_factor", "min_delay", "max_delay", "retry_on"),
    "get_cache_context": ("cache_backend", "cache_namespace"),
}
"""The positional parameters of each function; their order is public and must not change."""

OPTIONS: dict[str, Option] = {
    option.name: option for option in (*CALL_ROWS, *CACHE_ROWS, *MAP_ROWS)
}
"""Every option, by name."""


_READ_BY: dict[str, tuple[Option, ...]] = {
    function: (
        *(OPTIONS[name] for name in first),
        *(each for each in OPTIONS.values() if function in each.readers and each.name not in first),
    )
    for function, first in POSITIONAL.items()
}


def read_by(function: str) -> tuple[Option, ...]:
    """Return the options that a function reads, the positional ones first."""
    return _READ_BY[function]


def fields_of(config: Any) -> dict[str, Option]:
    """Return the options that are fields of a config object or its class, by field name.

    A backend's options are in its `backend_options`.
    """
    kind = config if isinstance(config, type) else type(config)
    for each in kind.__mro__:  # a subclass has the same fields
        if each.__name__ in _FIELDS:
            return _FIELDS[each.__name__]
    return {}


_FIELDS: dict[str, dict[str, Option]] = {}
for _option in (*OPTIONS.values(), *BREAKER_ROWS):
    if _option.config:
        _FIELDS.setdefault(_option.config, {})[_option.field] = _option
