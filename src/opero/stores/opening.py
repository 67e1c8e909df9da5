"""From checked options to a `StoredCache`: directories, secrets, and stores opened once.

A place that others can write to is refused. One that cannot be used, or a user without a home,
turns the cache off, with one warning: the function runs as without a cache.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from opero import forks
from opero.locks import Lock

from . import directories, secret
from .backends import AsyncBackend, Backend, InThreads, Swapped
from .operations import AsyncOperations, Operations
from .outages import Outage
from .signing import Signer
from .stored_cache import StoredCache
from .sync import SyncStoredCache


class StoreHandle:
    """A store, and whether it is in order: shared by all functions of this process that use it.

    Attributes:
        what: What it is, for messages; nothing secret.
        backend: It, for threads.
        abackend: It, for tasks.
        outage: Tells whether it is worth asking.
    """

    def __init__(
        self, what: str, backend: Backend, abackend: AsyncBackend, outage: Outage | None = None
    ) -> None:
        self.what = what
        self.backend = Operations(backend)
        self.abackend = AsyncOperations(abackend)
        self.outage: Outage = outage or Outage(what)


class _Off(Outage):
    """The state of a store that there is not: it is never asked."""

    def blocks(self, *_: Any) -> bool:
        self.failures += 1
        return True


class _Nothing:
    """The backend of a store that there is not: nothing is in it, and nothing can be put there."""

    def get_many(self, names: Sequence[str], /) -> list[bytes | None]:
        return [None] * len(names)

    def put_many(self, *_: Any) -> None:
        return None

    def delete(self, names: Sequence[str], /) -> list[bool]:
        return [False] * len(names)

    def scan(self, *_: Any) -> tuple[list[str], str | None]:
        return [], None

    def swap(self, *_: Any) -> Swapped:
        return Swapped(None, None)

    def close(self) -> None:
        return None


class _Opened:
    """A backend that is opened when it is first asked, and again if that failed."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._backend: Any = None
        self._lock = Lock()
        _opened.append(self)

    def after_fork(self) -> None:
        """Have a lock of its own in a child process."""
        self._lock = Lock()

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if self._backend is None:
                self._backend = self._make()
        return getattr(self._backend, name)


_lock = Lock()
_opened: list[_Opened] = []
_reasons: set[str] = set()
_LOGGER: Final = logging.getLogger("opero")
_handles: dict[tuple[str, str], tuple[Any, StoreHandle]] = {}


def open_stored_cache(
    plan: Any, name: str, asynchronous: bool, core: Any, events: Any
) -> StoredCache:
    """Open the stored_cache of one function.

    Args:
        plan: The checked options: a `CacheOptions` of a stored backend.
        name: The function's name, for messages.
        asynchronous: Whether it is a coroutine function.
        core: The active implementation.
        events: Writes the log.

    Returns:
        The stored_cache, which belongs to nobody yet.

    Raises:
        UnsafePlaceError: If others can write to the cache directory or the key file.
        ImportError: If the backend's library is not installed; it says how to install it.
        ValueError: If the secret is too short, or the URL is none.
    """
    try:
        opened = handle(plan)
        secrets = secret.secrets_of(plan.secret, os.environ)
    except OSError as error:
        opened, secrets = _off(str(error)), [os.urandom(32)]
    signer = Signer(secrets, plan.pickles)
    kind: type[StoredCache] = SyncStoredCache
    if asynchronous:
        from .aio import AsyncStoredCache

        kind = AsyncStoredCache
    made = kind(name, events, core.Canonical(), opened, signer)
    made.last(plan.ttl / 1e9 or None, plan.stale)
    return made


def handle(plan: Any) -> StoreHandle:
    """Return the store that a plan names; it is opened when it is first asked for something."""
    if plan.backend == "disk":
        return _disk(plan)
    return _redis(plan)


def _disk(plan: Any) -> StoreHandle:
    from .disk import DiskBackend

    def place() -> Path:
        return directories.cache_dir(plan.directory)

    try:
        path = str(place())
    except directories.UnusablePlaceError:
        raise
    except OSError:  # it cannot be made: an outage, which the first call reports
        path = os.path.abspath(os.fspath(plan.directory or directories.user_cache_directory()))
    with _lock:
        found = _handles.get(("disk", path))
        if found is None:
            backend: Any = _Opened(lambda: DiskBackend(place(), plan.size_limit))
            found = (
                plan.size_limit,
                StoreHandle(f"the disk cache in {path}", backend, InThreads(backend)),
            )
            _handles["disk", path] = found
    if found[0] != plan.size_limit:
        raise ValueError(
            f"cache_size_limit={plan.size_limit!r} is not allowed: {path} is used with "
            f"{found[0]!r} already"
        )
    return found[1]


def _off(why: str) -> StoreHandle:
    """Return a store in which nothing is, and say why, once for each reason."""
    nothing = _Nothing()
    with _lock:
        first = why not in _reasons
        _reasons.add(why)
    if first:
        _LOGGER.warning("the cache is off, and calls go on without it: %s", why)
    what = "a cache that is off"
    return StoreHandle(what, nothing, InThreads(nothing), _Off(what))


def _redis(plan: Any) -> StoreHandle:
    from .redis import AsyncRedisBackend, RedisBackend
    from .redis_clients import client

    with _lock:
        found = _handles.get(("redis", plan.url))
        if found is None:
            what = f"the Redis cache at {client(plan.url).where}"
            found = None, StoreHandle(what, RedisBackend(plan.url), AsyncRedisBackend(plan.url))
            _handles["redis", plan.url] = found
    return found[1]


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held the old one
    _lock = Lock()
    for each in _opened:
        each.after_fork()


forks.register("stores", after_in_child=_after_fork)
