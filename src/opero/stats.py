"""What a decorated function counts: the table of counters, and what `cache_info()` returns.

`Stats` is the table. To add a counter, add a row: Python code counts with `call.add(name, amount)`,
and `stats()` returns the sum. Counters of C code are also in the `enum` of `_compiled/call.pyx`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class CacheInfo(NamedTuple):
    """What `cache_info()` returns.

    Attributes:
        hits: Calls answered from the cache.
        misses: Calls that found no value.
        maxsize: The greatest number of entries (for a method, per instance); None for no limit.
        currsize: The number of entries now (for a method, of all living instances together).
    """

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class Stats(NamedTuple):
    """What `stats()` returns: counts since the function was decorated.

    Attributes:
        calls: Calls of the decorated function.
        hits: Calls answered from the cache.
        misses: Calls that found no value in the cache.
        attempts: How often the function itself was started.
        retries: Attempts that began another round.
        fallbacks: Attempts that took the next fallback value within a round.
        failures: Runs that ended in an exception.
        permit_wait: Seconds spent waiting for rate-limit permits.
        backoff_wait: Seconds spent waiting between rounds.
        stale: Calls answered with an outdated value, as `cache_stale` allows.
        refreshes: Background runs started to renew a value, because of `cache_refresh`.
        store_failures: How often a call continued without the disk or Redis store, which failed.
        rejected: Stored entries rejected because they were forged, damaged or belonged to another
            function; each counts once.
        refused: Attempts that a circuit breaker refused.
        breaker_wait: Seconds spent waiting for a circuit breaker to let an attempt through.
    """

    calls: int = 0
    hits: int = 0
    misses: int = 0
    attempts: int = 0
    retries: int = 0
    fallbacks: int = 0
    failures: int = 0
    permit_wait: float = 0.0
    backoff_wait: float = 0.0
    stale: int = 0
    refreshes: int = 0
    store_failures: int = 0
    rejected: int = 0
    refused: int = 0
    breaker_wait: float = 0.0


COUNTERS: tuple[str, ...] = Stats._fields
"""The names of all counters."""


def stats_of(counts: Mapping[str, int]) -> Stats:
    """Return the stats for some counts; counts of waits are in nanoseconds."""
    unset = Stats._field_defaults
    values: dict[str, Any] = {
        name: count / 1e9 if isinstance(unset[name], float) else count
        for name, count in counts.items()
    }
    return Stats(**values)
