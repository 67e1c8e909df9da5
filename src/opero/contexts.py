"""Caches by namespace: clear them together, or use one by hand.

In memory, each decorated function has its own store, so a busy function cannot evict the values of
others. `get_cache_context` opens one more store in the namespace.
"""

from __future__ import annotations

import weakref
from types import TracebackType

from . import forks, hotpath
from .exceptions import OperoError
from .locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, Unpack

    from .core.keys import Freezer
    from .core.state import State, StoredValues
    from .core.store import MemoryStore
    from .functions import StoreOptions
    from .options import CacheBackend, Seconds
    from .stores.by_hand import Stored

    class _MoreForContext(StoreOptions, total=False):
        cache_ttl: Seconds | None
        cache_maxsize: int | None
        cache_stale: Seconds | None


_lock = Lock()
_functions: dict[str, weakref.WeakSet[State]] = {}
_opened: dict[tuple[str, str], MemoryStore] = {}
_stored: weakref.WeakSet[Stored] = weakref.WeakSet()


def _after_fork() -> None:
    """Forget the runs of the parent's other threads, in a child process."""
    global _lock  # noqa: PLW0603 - another thread may have held the old one
    _lock = Lock()
    for members in _functions.values():
        for function in members:
            function.after_fork()
    for opened in _stored:
        opened.stored_cache.after_fork()


forks.register("caches", after_in_child=_after_fork)


def register(namespace: str, function: State) -> None:
    """Record that a decorated function caches in `namespace`, as long as its state exists."""
    with _lock:
        _functions.setdefault(namespace, weakref.WeakSet()).add(function)


def clear_cache(namespace: str | None = None) -> None:
    """Forget the cached values of every function in a namespace, and those put there by hand.

    Args:
        namespace: The namespace; None for all of them.

    Raises:
        TypeError: If `namespace` is not a string.
        OperoError: If a store cannot be reached; the other stores are still cleared.
    """
    given: Any = namespace
    if given is not None and not isinstance(given, str):
        called = callable(given) and not isinstance(given, type)
        hint = "; the function's own cache_clear() clears its cache" if called else ""
        raise TypeError(
            f"namespace={given!r} is not allowed: use the name of a namespace, or None for "
            f"all{hint}"
        )
    with _lock:
        functions = [
            function
            for name, members in _functions.items()
            if namespace in {None, name}
            for function in members
        ]
        stores = [store for (_, name), store in _opened.items() if namespace in {None, name}]
        opened = [each for each in _stored if namespace in {None, each.stored_cache.namespace}]
    outside = [each.stored_cache for each in functions if each.stored_cache is not None]
    for function in functions:
        if function.stored_cache is None:
            function.cache_clear()
        else:
            function.stored_cache.ground(None)
            function.restart_cache_info()
    for store in stores:
        store.clear()
    everything: list[StoredValues] = [*outside, *(stored.stored_cache for stored in opened)]
    namespaces = {(id(each.store), each.namespace): each for each in everything}
    failure: OperoError | None = None
    for each in namespaces.values():  # includes values that functions of other programs stored
        try:
            each.clear_namespace()
        except OperoError as error:
            failure = error
    for each in outside:  # a run that began meanwhile may have found an old value
        each.ground(None)
    if failure is not None:
        raise failure


class _InMemory:
    """The store of a context, in memory."""

    def __init__(self, store: MemoryStore, freezer: Freezer) -> None:
        self._store = store
        self._freezer = freezer

    def find(self, key: Any) -> Any:
        return self._store.find(self._freezer.freeze(key))

    def find_stale(self, key: Any) -> Any:
        return self._store.look_closer(self._freezer.freeze(key))

    def put(self, key: Any, value: Any) -> None:
        self._store.put(self._freezer.freeze(key), value)

    def drop(self, key: Any) -> bool:
        return bool(self._store.drop(self._freezer.freeze(key)))

    def __len__(self) -> int:
        return len(self._store)


class CacheContext:
    """A cache used by hand. It is a context manager, but you need not close it.

    Keys differ as arguments do: by type and value, at every depth. While a stored backend is
    unavailable, `get` returns the default and `set` does nothing; the log has a WARNING.

    Attributes:
        namespace: The namespace of this cache.
    """

    def __init__(self, namespace: str, store: _InMemory | Stored) -> None:
        self.namespace = namespace
        self._store = store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def get(self, key: Any, default: Any = None, *, stale: bool = False) -> Any:
        """Return the value of `key`, or `default` if there is none or it has expired.

        Args:
            key: The key.
            default: The value to return otherwise.
            stale: Whether to accept a value that expired less than `cache_stale` seconds ago.
        """
        entry = self._store.find(key)
        if entry is None and stale:
            entry = self._store.find_stale(key)
        return default if entry is None else entry.value

    def set(self, key: Any, value: Any) -> None:
        """Store `value` under `key`."""
        self._store.put(key, value)

    def delete(self, key: Any) -> bool:
        """Forget `key`; return whether it existed."""
        return bool(self._store.drop(key))

    def clear(self) -> None:
        """Forget everything in the namespace, including the values of decorated functions."""
        clear_cache(self.namespace)

    def __contains__(self, key: object) -> bool:
        return self._store.find(key) is not None

    def __len__(self) -> int:
        return len(self._store)


def get_cache_context(
    cache_backend: CacheBackend = "memory",
    cache_namespace: str = "opero",
    **options: Unpack[_MoreForContext],
) -> CacheContext:
    """Open a namespace's cache for use by hand; open it again to see the same values.

    Args:
        cache_backend: Where to keep values: "memory"; "disk", which outlives the process and which
            all processes on this machine share; or "redis", which machines share too.
        cache_namespace: The name by which `clear_cache` finds the values.
        **options: `cache_ttl`: How many seconds a value stays valid; None means forever.
            `cache_maxsize` (memory): The most values to keep (for a method: for each instance);
            None for no limit. `cache_stale` (memory, disk, redis): How many seconds after
            `cache_ttl` an outdated value may still be served if the run fails. `cache_secret`
            (disk, redis): The secret that signs entries: a `str` or `bytes` of 16 bytes or more; or
            a list of them: the first signs, and all verify. None uses the environment variable
            `OPERO_CACHE_SECRET`, or else the user's key file. `cache_version` (disk, redis): A
            version of your choice; entries of other versions are not found. `cache_pickle` (disk,
            redis): Whether values may be pickled. `cache_dir` (disk): The directory; None for the
            user's cache directory. `cache_size_limit` (disk): How many bytes the cache may take
            before the oldest entries are evicted; None for no limit. `cache_url` (redis): The
            server's address: `redis://`, `rediss://` or `unix://`.

    Returns:
        The cache, which is also a context manager.

    Raises:
        TypeError: If an option is unknown or has the wrong type.
        ValueError: If an option's value is not allowed, or if the namespace is already open with
            other options.
    """
    from .options import cache_options

    given = {"cache_backend": cache_backend, "cache_namespace": cache_namespace, **options}
    plan = cache_options("get_cache_context", given)
    core = hotpath.core
    if plan.backend != "memory":
        from opero.stores.by_hand import open_by_hand

        stored = open_by_hand(plan, core)
        with _lock:
            _stored.add(stored)
        return CacheContext(plan.namespace, stored)
    with _lock:
        store = _opened.get((core.name, plan.namespace))
        if store is None:
            store = core.MemoryStore(core.clock, plan.maxsize, plan.ttl, 0, plan.stale)
            _opened[core.name, plan.namespace] = store
        elif options and (store.maxsize, store.ttl, store.late) != (
            plan.maxsize,
            plan.ttl,
            plan.stale,
        ):
            raise ValueError(
                f"cache_namespace={plan.namespace!r} is already open with other options; use the "
                f"same: cache_maxsize={store.maxsize or None}, "
                f"cache_ttl={store.ttl / 1e9 or None}, cache_stale={store.late / 1e9 or None}"
            )
    return CacheContext(plan.namespace, _InMemory(store, core.Freezer()))
