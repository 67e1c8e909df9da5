"""The operations of a store, built from the five primitives of its backend.

    Operations(backend)         for threads
    AsyncOperations(backend)    for tasks of an event loop

Each operation is written once, as a generator, here or in `leases`, and yields effects to ask the
backend (`runners/effects.py`). Both classes have all operations as methods. Only `get`, which every
hit calls, is not a generator.

Entries:
    `get`, `get_many`, `put`, `put_many`, `delete`, `clear`, `count`. A `ttl` is in seconds; None
    means forever.

Leases:
    `holder`, `take`, `get_and_take`, `renew`, `release`, `seize`, `settle`: see `leases`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opero.runners.effects import ASK

from . import leases
from .backends import AsyncBackend, Backend
from .leases import LEASE, lease_of
from .steps import Steps, Task, in_task, in_thread


def get_many(store: object, names: Sequence[str]) -> Steps[list[bytes | None]]:
    """Return several entries."""
    return (yield ASK, store, "get_many", (names,))  # type: ignore[no-any-return]


def put(store: object, name: str, data: bytes, ttl: float | None) -> Steps[None]:
    """Store an entry."""
    return put_many(store, ((name, data),), ttl)


def put_many(store: object, entries: Sequence[tuple[str, bytes]], ttl: float | None) -> Steps[None]:
    """Store several entries, not atomically."""
    yield ASK, store, "put_many", (entries, leases.lifetime(ttl))


def delete(store: object, name: str) -> Steps[bool]:
    """Remove an entry and its lease; return whether there was an entry.

    A run that is under way does not store its value.
    """
    # The lease first: a run that settles between the two steps notices that it lost its lease.
    _, there = yield ASK, store, "delete", ((lease_of(name), name),)
    return there  # type: ignore[no-any-return]


def clear(store: object, prefix: str) -> Steps[int]:
    """Remove every entry and lease whose name begins with `prefix`; return the number of entries.

    This takes several steps, and others can use the store meanwhile. Expired entries go too. All
    leases go first, so that no run that is under way stores its value after the second scan.
    """
    removed = 0
    for of_leases in (True, False):
        after: str | None = ""
        while after is not None:
            names, after = yield (
                ASK,
                store,
                "scan",
                (prefix, LEASE if of_leases else "", after, True),
            )
            names = [name for name in names if name.endswith(LEASE) == of_leases]
            if names:
                there = yield ASK, store, "delete", (names,)
                removed += 0 if of_leases else sum(there)
    return removed


def count(store: object, prefix: str) -> Steps[int]:
    """Return how many entries have names that begin with `prefix`."""
    found: set[str] = set()  # a scan may return a name twice
    after: str | None = ""
    while after is not None:
        names, after = yield ASK, store, "scan", (prefix, "", after)
        found.update(name for name in names if not name.endswith(LEASE))
    return len(found)


class Operations:
    """The operations of a store, for threads."""

    def __init__(self, backend: Backend) -> None:
        """Ask this backend."""
        self._backend = backend

    def ask(self, primitive: str, *arguments: Any) -> Any:
        """Ask the backend something."""
        return getattr(self._backend, primitive)(*arguments)

    def close(self) -> None:
        """Close what the backend has open; it opens again what it needs."""
        self._backend.close()

    def get(self, name: str) -> bytes | None:
        """Return an entry, or None if there is none."""
        return self._backend.get_many((name,))[0]

    get_many: Callable[..., list[bytes | None]] = in_thread(get_many)
    put: Callable[..., None] = in_thread(put)
    put_many: Callable[..., None] = in_thread(put_many)
    delete: Callable[..., bool] = in_thread(delete)
    clear: Callable[..., int] = in_thread(clear)
    count: Callable[..., int] = in_thread(count)
    holder: Callable[..., str | None] = in_thread(leases.holder)
    take: Callable[..., str | None] = in_thread(leases.take)
    get_and_take: Callable[..., tuple[bytes | None, str | None]] = in_thread(leases.get_and_take)
    renew: Callable[..., str | None] = in_thread(leases.renew)
    release: Callable[..., None] = in_thread(leases.release)
    seize: Callable[..., bool] = in_thread(leases.seize)
    settle: Callable[..., bool] = in_thread(leases.settle)


class AsyncOperations:
    """The operations of a store, for tasks.

    A task that is cancelled in `take` or `get_and_take` may still hold the lease: `release` it.
    """

    def __init__(self, backend: AsyncBackend) -> None:
        """Ask this backend."""
        self._backend = backend

    async def ask_async(self, primitive: str, *arguments: Any) -> Any:
        """Ask the backend something."""
        return await getattr(self._backend, primitive)(*arguments)

    async def close(self) -> None:
        """Close what the backend has open; it opens again what it needs."""
        await self._backend.close()

    async def get(self, name: str) -> bytes | None:
        """Return an entry, or None if there is none."""
        return (await self._backend.get_many((name,)))[0]

    get_many: Task[list[bytes | None]] = in_task(get_many)
    put: Task[None] = in_task(put)
    put_many: Task[None] = in_task(put_many)
    delete: Task[bool] = in_task(delete)
    clear: Task[int] = in_task(clear)
    count: Task[int] = in_task(count)
    holder: Task[str | None] = in_task(leases.holder)
    take: Task[str | None] = in_task(leases.take)
    get_and_take: Task[tuple[bytes | None, str | None]] = in_task(leases.get_and_take)
    renew: Task[str | None] = in_task(leases.renew)
    release: Task[None] = in_task(leases.release)
    seize: Task[bool] = in_task(leases.seize)
    settle: Task[bool] = in_task(leases.settle)
