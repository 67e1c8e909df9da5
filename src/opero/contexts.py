"""Caches by namespace: clearing them together, and using one by hand.

In memory every decorated function has a store of its own, so that a hot one cannot push out the
values of the others; the store that `get_cache_context` opens stands beside them in the namespace.
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
    """Forget, in a child process, the runs of the parent's other threads."""
    global _lock  # noqa: PLW0603 - another thread may have held the old one
    _lock = Lock()
    for members in _functions.values():
        for function in members:
            function.after_fork()
    for opened in _stored:
        opened.stored_cache.after_fork()


forks.register("caches", after_in_child=_after_fork)


def register(namespace: str, function: State) -> None:
    """Note that a decorated function caches in `namespace`, for as long as its state exists."""
    with _lock:
        _functions.setdefault(namespace, weakref.WeakSet()).add(function)


def clear_cache(namespace: str | None = None) -> None:
    """Forget the cached values of every function of a namespace, and those put there by hand.

    Args:
        namespace: Which; None for all of them.

    Raises:
        TypeError: If `namespace` is no string.
        OperoError: If a store is out of reach; the others have been cleared then.
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
    for each in namespaces.values():  # with what functions of other programs have stored there
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
    """A cache used by hand; a context manager, though nothing has to be closed.

    Keys are told apart as arguments are: by type and value, at every depth. A stored backend that
    is out of order holds nothing: `get` returns the default and `set` does nothing, with a WARNING.

    Attributes:
        namespace: The namespace it was opened in.
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
        """Return the value of `key`, or `default` if there is none that still counts.

        Args:
            key: The key.
            default: What is returned if there is no such value.
            stale: Whether an outdated value does, too, within the seconds of `cache_stale`.
        """
        entry = self._store.find(key)
        if entry is None and stale:
            entry = self._store.find_stale(key)
        return default if entry is None else entry.value

    def set(self, key: Any, value: Any) -> None:
        """Keep `value` under `key`."""
        self._store.put(key, value)

    def delete(self, key: Any) -> bool:
        """Forget `key`; return whether it was there."""
        return bool(self._store.drop(key))

    def clear(self) -> None:
        """Forget everything in the namespace, the values of decorated functions included."""
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
    """Open a namespace's cache for use by hand; opening it again gives the same values.

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
        ValueError: If an option's value is not allowed, or differs from that of the first opening.
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
                f"cache_namespace={plan.namespace!r} is open already with other options: "
                f"cache_maxsize={store.maxsize or None}, cache_ttl={store.ttl / 1e9 or None}, "
                f"cache_stale={store.late / 1e9 or None}"
            )
    return CacheContext(plan.namespace, _InMemory(store, core.Freezer()))
