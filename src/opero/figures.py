"""The figures a decorated function tells about itself."""

from __future__ import annotations

from typing import NamedTuple


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
        store_failures: Times the disk or Redis store could not be used, a call going on without.
        rejected: Stored entries that were not taken, as they were forged, damaged or another's.
    """

    calls: int
    hits: int
    misses: int
    attempts: int
    retries: int
    fallbacks: int
    failures: int
    permit_wait: float
    backoff_wait: float
    stale: int = 0
    store_failures: int = 0
    rejected: int = 0
