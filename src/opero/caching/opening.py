"""From checked options to an archive: places, secrets, and stores opened once for a process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opero.locks import Lock

from . import places, secret
from .archive import Archive
from .calls import SyncArchive
from .outages import Outage
from .sealing import Seal
from .shelves import AsyncShelf, InThreads, Shelf


class Depot:
    """A store, and whether it is in order: shared by all functions of this process that use it.

    Attributes:
        what: What it is, for messages; nothing secret.
        shelf: It, for threads.
        ashelf: It, for tasks.
        outage: Tells whether it is worth asking.
    """

    def __init__(self, what: str, shelf: Shelf, ashelf: AsyncShelf) -> None:
        self.what = what
        self.shelf = shelf
        self.ashelf = ashelf
        self.outage: Outage = Outage(what)


class _Opened:
    """A shelf that is opened when it is first asked, and again if that failed."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._shelf: Any = None
        self._lock = Lock()

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if self._shelf is None:
                self._shelf = self._make()
        return getattr(self._shelf, name)


_lock = Lock()
_depots: dict[tuple[str, str], tuple[Any, Depot]] = {}


def archive(plan: Any, name: str, asynchronous: bool, core: Any, journal: Any) -> Archive:
    """Open the archive of one function.

    Args:
        plan: The checked options: a `CachePlan` of a stored backend.
        name: The function's name, for messages.
        asynchronous: Whether it is a coroutine function.
        core: The active implementation.
        journal: Writes the log.

    Returns:
        The archive, which belongs to nobody yet.

    Raises:
        UnsafePlaceError: If the cache directory or the key file is not safe.
        ImportError: If the backend's library is not installed; it says how to install it.
        ValueError: If the secret is too short, or the URL is none.
    """
    opened = depot(plan)
    seal = Seal(secret.secrets_of(plan.secret, os.environ), plan.pickles)
    kind: type[Archive] = SyncArchive
    if asynchronous:
        from .acalls import AsyncArchive

        kind = AsyncArchive
    made = kind(name, journal, core.Canonical(), opened, seal)
    made.last(plan.ttl / 1e9 or None, plan.stale)
    return made


def depot(plan: Any) -> Depot:
    """Return the store that a plan names; it is opened when it is first asked for something."""
    if plan.backend == "disk":
        return _disk(plan)
    return _redis(plan)


def _disk(plan: Any) -> Depot:
    from .disk import DiskShelf

    def place() -> Path:
        return places.cache_dir(plan.directory)

    try:
        path = str(place())
    except OSError:  # it cannot be made: an outage, which the first call reports
        path = os.path.abspath(os.fspath(plan.directory or places.user_cache_directory()))
    with _lock:
        found = _depots.get(("disk", path))
        if found is None:
            shelf: Any = _Opened(lambda: DiskShelf(place(), plan.size_limit))
            found = plan.size_limit, Depot(f"the disk cache in {path}", shelf, InThreads(shelf))
            _depots["disk", path] = found
    if found[0] != plan.size_limit:
        raise ValueError(
            f"cache_size_limit={plan.size_limit!r} is not allowed: {path} is used with "
            f"{found[0]!r} already"
        )
    return found[1]


def _redis(plan: Any) -> Depot:
    from .clients import client
    from .remote import AsyncRedisShelf, RedisShelf

    with _lock:
        found = _depots.get(("redis", plan.url))
        if found is None:
            what = f"the Redis cache at {client(plan.url).where}"
            found = None, Depot(what, RedisShelf(plan.url), AsyncRedisShelf(plan.url))
            _depots["redis", plan.url] = found
    return found[1]


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held the old one
    _lock = Lock()
    for _, each in _depots.values():
        if isinstance(each.shelf, _Opened):
            each.shelf._lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
