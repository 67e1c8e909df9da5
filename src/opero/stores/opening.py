"""From checked options to a `StoredCache`: directories, secrets, and stores opened once.

A place that others can write to is an error. A place that cannot be used, or a user without a home
directory, turns the cache off, with one warning: the function runs without a cache.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from opero import forks
from opero.locks import Lock
from opero.logs import is_heard, warn
from opero.private_places import UnusablePlaceError

from . import directories, secret
from .in_threads import InThreads
from .open_store import OpenStore
from .signing import Signer
from .stored_cache import StoredCache
from .sync import SyncStoredCache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.events import Events
    from opero.hotpath import Core
    from opero.options import CacheOptions

_lock = Lock()
_stores: dict[tuple[str, str], tuple[int | None, OpenStore]] = {}
"""The open stores, by kind and place, and the size limit that each was opened with."""
_reasons: set[str] = set()
"""The reasons for caches being off that have been logged."""


def open_stored_cache(
    plan: CacheOptions, name: str, asynchronous: bool, core: Core, events: Events
) -> StoredCache:
    """Open the stored cache of one function.

    Args:
        plan: The checked options, of a stored backend.
        name: The function's name, for messages.
        asynchronous: Whether it is a coroutine function.
        core: The active implementation.
        events: Writes the log.

    Returns:
        The stored cache, without an owner yet.

    Raises:
        UnsafePlaceError: If others can write to the cache directory or the key file.
        ImportError: If the backend's library is not installed; it says how to install it.
        ValueError: If the secret is too short, or the URL is not valid.
    """
    try:
        store = store_of(plan)
        secrets = secret.secrets_of(plan.secret, os.environ)
    except OSError as error:
        store, secrets = _nothing(str(error)), [os.urandom(32)]
    signer = Signer(secrets, plan.pickles)
    kind: type[StoredCache] = SyncStoredCache
    if asynchronous:
        from .aio import AsyncStoredCache

        kind = AsyncStoredCache
    made = kind(name, events, core.Canonical(), store, signer)
    made.last(plan.ttl / 1e9 or None, plan.stale / 1e9, plan.refresh / 1e9)
    return made


def store_of(plan: CacheOptions) -> OpenStore:
    """Return the store that the options name; it opens at its first use."""
    if plan.backend == "disk":
        return _disk(plan)
    return _redis(plan)


def _disk(plan: CacheOptions) -> OpenStore:
    from .disk import DiskBackend

    try:
        place = directories.cache_dir(plan.directory)
    except UnusablePlaceError:
        raise
    except OSError:  # the directory cannot be made: an outage, which the first call reports
        place = Path.cwd() / directories.entries_of(plan.directory)
    path = str(place)
    with _lock:
        found = _stores.get(("disk", path))
        if found is None:
            backend = DiskBackend(place, plan.size_limit)
            store = OpenStore(f"the disk cache in {path}", backend, InThreads(backend))
            found = _stores["disk", path] = plan.size_limit, store
    limit, store = found
    if limit != plan.size_limit:
        raise ValueError(
            f"cache_size_limit={plan.size_limit!r} is not allowed: this process already uses "
            f"{path} with {limit!r}"
        )
    return store


def _redis(plan: CacheOptions) -> OpenStore:
    from .redis import AsyncRedisBackend, RedisBackend

    with _lock:
        found = _stores.get(("redis", plan.url))
        if found is None:
            backend = RedisBackend(plan.url)
            what = f"the Redis cache at {backend.where}"
            found = None, OpenStore(what, backend, AsyncRedisBackend(plan.url))
            _stores["redis", plan.url] = found
    return found[1]


def _nothing(why: str) -> OpenStore:
    """Return a store that is off, and log why."""
    from .off import open_nothing

    _say(why)
    return open_nothing(partial(_say, why))


def _say(why: str) -> None:
    """Log why a cache is off, once for each reason.

    Most programs decorate their functions before they set up logging, so nobody hears it then; each
    use of the cache says it again until somebody does.
    """
    if why in _reasons or not is_heard():
        return
    with _lock:
        first = why not in _reasons
        _reasons.add(why)
    if first:
        warn("the cache is off, and calls go on without it: %s", why)


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held the old one
    _lock = Lock()


forks.register("stores", after_in_child=_after_fork)
