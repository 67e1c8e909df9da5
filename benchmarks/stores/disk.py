"""Rows of the cache on disk: whole calls, a hit, and a miss that stores what the function returns.

diskcache and joblib are used as their READMEs show it; cachier with a file for each entry, which is
its quicker way once there are many. All of them pickle, and none of them authenticates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module

from benchmarks.rows import Function

from . import values
from .place import Place
from .sides import Side, StoreRow

LASTS = timedelta(seconds=values.TTL)


@contextmanager
def _diskcache(place: Place, function: Function) -> Iterator[Function]:
    with import_module("diskcache").Cache(str(place.folder())) as cache:
        yield cache.memoize(expire=values.TTL)(function)


@contextmanager
def _joblib(place: Place, function: Function) -> Iterator[Function]:
    yield import_module("joblib").Memory(place.folder(), verbose=0).cache(function)


@contextmanager
def _cachier(place: Place, function: Function) -> Iterator[Function]:
    cachier = import_module("cachier").cachier
    options = {"cache_dir": place.folder(), "separate_files": True, "stale_after": LASTS}
    yield cachier(**options)(function)


PEERS = (
    Side("diskcache.memoize", _diskcache),
    Side("joblib.Memory", _joblib),
    Side("cachier", _cachier),
)

HITS = tuple(
    StoreRow(f"disk hit, {kind}", function, "disk", PEERS)
    for kind, function in values.KINDS.items()
)

MISSES = tuple(
    StoreRow(
        f"disk miss and store, {kind}",
        function,
        "disk",
        PEERS,
        new=True,
        rounds=40 if function is values.megabyte else 150,
    )
    for kind, function in values.KINDS.items()
)

ROWS = (*HITS, *MISSES)
