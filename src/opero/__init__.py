"""opero makes any function resilient with one decorator: cache, retries, fallback, rate limit."""

from __future__ import annotations

from .contexts import clear_cache, get_cache_context
from .decorators import (
    get_cache_decorator,
    get_fallback_decorator,
    get_rate_limit_decorator,
    get_retry_decorator,
    opero,
    operomap,
    opmap,
)
from .exceptions import (
    AllFailedError,
    AttemptTimeout,
    BreakerOpenError,
    CacheKeyError,
    DeadlineExceeded,
    NotRun,
    OperoError,
    ResultRejected,
    WorkerCrashedError,
)
from .hotpath import COMPILED
from .limits import Breaker, RateLimiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from opero.map.progress import Progress
    from opero.map.result import FailedItem, MapResult

    from .blocks import Attempt, AttemptLoops, attempts
    from .event import AttemptRecord, Event
    from .events import subscribe
    from .functions import ParallelMode
    from .http_errors import retry_after, transient_error
    from .logs import configure_logging, get_logger
    from .options import (
        BreakerConfig,
        CacheBackend,
        CacheConfig,
        FallbackConfig,
        RateLimitConfig,
        RetryConfig,
    )

__version__ = "3.0.0"
"""The version of opero."""

__all__ = [
    "COMPILED",
    "AllFailedError",
    "Attempt",
    "AttemptLoops",
    "AttemptRecord",
    "AttemptTimeout",
    "Breaker",
    "BreakerConfig",
    "BreakerOpenError",
    "CacheBackend",
    "CacheConfig",
    "CacheKeyError",
    "DeadlineExceeded",
    "Event",
    "FailedItem",
    "FallbackConfig",
    "MapResult",
    "NotRun",
    "OperoError",
    "ParallelMode",
    "Progress",
    "RateLimitConfig",
    "RateLimiter",
    "ResultRejected",
    "RetryConfig",
    "WorkerCrashedError",
    "__version__",
    "attempts",
    "clear_cache",
    "configure_logging",
    "get_cache_context",
    "get_cache_decorator",
    "get_fallback_decorator",
    "get_logger",
    "get_rate_limit_decorator",
    "get_retry_decorator",
    "opero",
    "operomap",
    "opmap",
    "retry_after",
    "subscribe",
    "transient_error",
]

_LATER = {  # imported on first use, because their modules need others, such as `typing`
    "Attempt": "blocks",
    "AttemptLoops": "blocks",
    "attempts": "blocks",
    "AttemptRecord": "event",
    "CacheBackend": "options",
    "BreakerConfig": "options",
    "CacheConfig": "options",
    "Event": "event",
    "FailedItem": "map.result",
    "FallbackConfig": "options",
    "MapResult": "map.result",
    "ParallelMode": "functions",
    "Progress": "map.progress",
    "RateLimitConfig": "options",
    "RetryConfig": "options",
    "configure_logging": "logs",
    "get_logger": "logs",
    "retry_after": "http_errors",
    "subscribe": "events",
    "transient_error": "http_errors",
}


if not TYPE_CHECKING:  # with `__getattr__`, checkers would accept any misspelt name

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
