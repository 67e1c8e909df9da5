"""What a store is asked for, derived from the five primitives of its backend.

    Operations(backend)         for threads
    AsyncOperations(backend)    for tasks of an event loop

Where one question to the backend is enough, the two classes ask it. Where it takes several, or a
look at the answer, it is written once as a generator, here or in `leases`, which says by effects
what to ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from opero.runners import sync
from opero.runners.effects import ASK, answer_of

from . import leases
from .backends import AsyncBackend, Backend
from .leases import LEASE, Steps, lease_of

FOREVER = 1e10
"""A time to live of so many seconds, three hundred years, is for ever."""

_T = TypeVar("_T")


def clear(store: object, prefix: str) -> Steps[int]:
    """Remove every entry and lease whose name begins with `prefix`; return how many entries.

    What has expired goes too. All leases go first, so that no run that is under way stores its
    value behind the second scan.
    """
    removed = 0
    for of_leases in (True, False):
        after: str | None = ""
        while after is not None:
            names, after = answer_of(
                (yield ASK, store, "scan", (prefix, LEASE if of_leases else "", after, True))
            )
            names = [name for name in names if name.endswith(LEASE) == of_leases]
            if names:
                there = answer_of((yield ASK, store, "delete", (names,)))
                removed += 0 if of_leases else sum(there)
    return removed


def count(store: object, prefix: str) -> Steps[int]:
    """Return how many entries have names that begin with `prefix`."""
    found: set[str] = set()  # a scan may name one twice
    after: str | None = ""
    while after is not None:
        names, after = answer_of((yield ASK, store, "scan", (prefix, "", after)))
        found.update(name for name in names if not name.endswith(LEASE))
    return len(found)


class Operations:
    """What a store is asked for by threads.

    Entries:
        `get`, `get_many`, `put`, `put_many`, `delete`, `clear`, `count`. A `ttl` is in seconds;
        None is for ever. What is deleted or cleared loses its lease too: a run that is under way
        does not settle.

    Leases:
        `take`, `get_and_take`, `renew`, `release`, `seize`, `settle`, as in `leases`.
    """

    def __init__(self, backend: Backend) -> None:
        """Ask this backend."""
        self._backend = backend

    def get(self, name: str) -> bytes | None:
        """Return the entry, or None if there is none."""
        return self._backend.get_many((name,))[0]

    def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Return several entries."""
        return self._backend.get_many(names)

    def put(self, name: str, data: bytes, ttl: float | None) -> None:
        """Store an entry."""
        self._backend.put_many(((name, data),), lifetime(ttl))

    def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None) -> None:
        """Store several entries; not all at once."""
        self._backend.put_many(entries, lifetime(ttl))

    def delete(self, name: str) -> bool:
        """Remove an entry and its lease; return whether there was an entry."""
        # The lease first: a run that settles between the two finds that it has lost it.
        return self._backend.delete((lease_of(name), name))[1]

    def clear(self, prefix: str) -> int:
        """Remove every entry and lease whose name begins with `prefix`; return how many entries.

        It goes in steps, and others can use the store meanwhile. Runs that were under way when it
        began do not settle.
        """
        return self._drive(clear(self, prefix))

    def count(self, prefix: str) -> int:
        """Return how many entries have names that begin with `prefix`."""
        return self._drive(count(self, prefix))

    def take(self, name: str, token: str, seconds: float) -> str | None:
        """As `leases.take`."""
        return self._drive(leases.take(self, name, token, seconds))

    def get_and_take(
        self, name: str, token: str, seconds: float
    ) -> tuple[bytes | None, str | None]:
        """As `leases.get_and_take`."""
        return self._drive(leases.get_and_take(self, name, token, seconds))

    def renew(self, name: str, token: str, seconds: float, mark: str | None = None) -> str | None:
        """As `leases.renew`."""
        return self._drive(leases.renew(self, name, token, seconds, mark))

    def release(self, name: str, token: str, mark: str | None = None) -> None:
        """As `leases.release`."""
        self._drive(leases.release(self, name, token, mark))

    def seize(self, name: str, token: str, seconds: float, mark: str) -> bool:
        """As `leases.seize`."""
        return self._drive(leases.seize(self, name, token, seconds, mark))

    def settle(
        self, name: str, token: str, data: bytes, ttl: float | None, mark: str | None = None
    ) -> bool:
        """As `leases.settle`."""
        return self._drive(leases.settle(self, name, token, data, lifetime(ttl), mark))

    def close(self) -> None:
        """Close what the backend has open; it opens again what it needs."""
        self._backend.close()

    def ask(self, primitive: str, *arguments: Any) -> Any:
        """Ask the backend something."""
        return getattr(self._backend, primitive)(*arguments)

    def _drive(self, steps: Steps[_T]) -> _T:
        result: _T = sync.drive(steps)
        return result


class AsyncOperations:
    """What a store is asked for by tasks; each method does what the one of `Operations` does.

    Who is cancelled in `take` or `get_and_take` may hold the lease all the same: `release` it.
    """

    def __init__(self, backend: AsyncBackend) -> None:
        """Ask this backend."""
        self._backend = backend

    async def get(self, name: str) -> bytes | None:
        """As `Operations.get`."""
        return (await self._backend.get_many((name,)))[0]

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """As `Operations.get_many`."""
        return await self._backend.get_many(names)

    async def put(self, name: str, data: bytes, ttl: float | None) -> None:
        """As `Operations.put`."""
        await self._backend.put_many(((name, data),), lifetime(ttl))

    async def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None) -> None:
        """As `Operations.put_many`."""
        await self._backend.put_many(entries, lifetime(ttl))

    async def delete(self, name: str) -> bool:
        """As `Operations.delete`."""
        return (await self._backend.delete((lease_of(name), name)))[1]

    async def clear(self, prefix: str) -> int:
        """As `Operations.clear`."""
        return await self._drive(clear(self, prefix))

    async def count(self, prefix: str) -> int:
        """As `Operations.count`."""
        return await self._drive(count(self, prefix))

    async def take(self, name: str, token: str, seconds: float) -> str | None:
        """As `leases.take`."""
        return await self._drive(leases.take(self, name, token, seconds))

    async def get_and_take(
        self, name: str, token: str, seconds: float
    ) -> tuple[bytes | None, str | None]:
        """As `leases.get_and_take`."""
        return await self._drive(leases.get_and_take(self, name, token, seconds))

    async def renew(
        self, name: str, token: str, seconds: float, mark: str | None = None
    ) -> str | None:
        """As `leases.renew`."""
        return await self._drive(leases.renew(self, name, token, seconds, mark))

    async def release(self, name: str, token: str, mark: str | None = None) -> None:
        """As `leases.release`."""
        await self._drive(leases.release(self, name, token, mark))

    async def seize(self, name: str, token: str, seconds: float, mark: str) -> bool:
        """As `leases.seize`."""
        return await self._drive(leases.seize(self, name, token, seconds, mark))

    async def settle(
        self, name: str, token: str, data: bytes, ttl: float | None, mark: str | None = None
    ) -> bool:
        """As `leases.settle`."""
        return await self._drive(leases.settle(self, name, token, data, lifetime(ttl), mark))

    async def close(self) -> None:
        """As `Operations.close`."""
        await self._backend.close()

    async def ask_async(self, primitive: str, *arguments: Any) -> Any:
        """Ask the backend something."""
        return await getattr(self._backend, primitive)(*arguments)

    async def _drive(self, steps: Steps[_T]) -> _T:
        from opero.runners import aio  # threads do without asyncio

        result: _T = await aio.drive(steps)
        return result


def lifetime(ttl: float | None) -> float | None:
    """Return the time to live that a backend is given."""
    return None if ttl is None or ttl >= FOREVER else ttl
