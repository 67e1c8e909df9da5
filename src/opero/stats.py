"""What a decorated function counts: the table of counters, and what `cache_info()` returns.

`Stats` is the table. A row more is a counter more: `call.add(name, amount)` counts it from Python,
and `stats()` has it. What C code counts is also in the `enum` of `_compiled/call.pyx`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class CacheInfo(NamedTuple):
    """What `cache_info()` returns.

    Attributes:
        hits: Calls answered from the cache.
        misses: Calls that found no value.
        maxsize: The greatest number of entries (of each instance, for a method); None: no bound.
        currsize: The number of entries now (of all living instances together, for a method).
    """

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class Stats(NamedTuple):
    """What `stats()` returns; counted since the function was decorated.

    Attributes:
        calls: Calls of the decorated function.
        hits: Calls answered from the cache.
        misses: Calls that found no value in the cache.
        attempts: Times the function itself was started.
        retries: Attempts that began another round.
        fallbacks: Attempts that took the next fallback value within a round.
        failures: Runs that ended in an exception.
        permit_wait: Seconds spent waiting for rate-limit permits.
        backoff_wait: Seconds spent waiting between rounds.
        stale: Calls answered with an outdated value, as `cache_stale` allows.
        refreshes: Runs in the background that began to renew a value, as `cache_refresh` asks.
        store_failures: Times the disk or Redis store could not be used, a call going on without.
        rejected: Stored entries that were not taken, as they were forged, damaged or another's;
            each counts once.
        refused: Attempts that a circuit breaker refused.
        breaker_wait: Seconds spent waiting for a circuit breaker to let an attempt in.
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
    """Return the stats for some counts; waits, of type `float`, are counted in nanoseconds."""
    unset = Stats._field_defaults
    values: dict[str, Any] = {
        name: count / 1e9 if isinstance(unset[name], float) else count
        for name, count in counts.items()
    }
    return Stats(**values)
