"""The options: one table, and all their checks.

option, table, *_rows   the table, one row for each option
configs                 the config objects that users make
checks                  the checks of single values
hints, spelling         the messages for a misspelt name
reading                 given -> checked
checked                 the checked options

A wrong option fails when you decorate the function, with a message that says what is wrong and what
to write instead.
"""

from __future__ import annotations

from .cache_rows import BACKENDS
from .checked import CacheOptions, CallOptions, RetryOptions
from .configs import (
    ArgFallback,
    BreakerConfig,
    CacheBackend,
    CacheConfig,
    CacheKey,
    FallbackConfig,
    RateLimitConfig,
    RetryAfter,
    RetryConfig,
    RetryOn,
    RetryOnResult,
    Seconds,
)
from .reading import Reading, cache_options, call_options
from .table import OPTIONS, POSITIONAL, read_by

__all__ = [
    "BACKENDS",
    "OPTIONS",
    "POSITIONAL",
    "ArgFallback",
    "BreakerConfig",
    "CacheBackend",
    "CacheConfig",
    "CacheKey",
    "CacheOptions",
    "CallOptions",
    "FallbackConfig",
    "RateLimitConfig",
    "Reading",
    "RetryAfter",
    "RetryConfig",
    "RetryOn",
    "RetryOnResult",
    "RetryOptions",
    "Seconds",
    "cache_options",
    "call_options",
    "read_by",
]
