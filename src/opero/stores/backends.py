"""What a store is to the rest of opero: bytes under names, and leases for who computes what.

    DiskBackend, RedisBackend      a Backend: for threads
    AsyncRedisBackend              an AsyncBackend: for tasks of an event loop
    InThreads(backend)             an AsyncBackend made of a Backend

A backend knows nothing of values, keys, secrets or statistics. It lets its library's exceptions
out: whatever is raised, the store is out of order, and the caller goes on without it.

A lease says who computes a missing entry. It stands beside the entry under a name of its own
(`lease_of`) as the holder's token and a number that is drawn anew whenever the holder renews it:
both together are the mark that others watch. It expires by the store's clock. `clear` and `delete`
take leases away too, so that a run which began before them does not store what it finds (`settle`).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from opero.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

_Found = tuple[bytes | None, str | None]
_T = TypeVar("_T")

LEASE: Final = ":lease"
"""Ends the name of a lease; the names of entries end with 32 hex digits."""

_NUMBER: Final = 8
"""Hex digits of the number in a mark."""


class Backend(Protocol):
    """Bytes under names, for processes and hosts to share.

    Names are printable ASCII. Any exception means that the store is out of order.
    """

    def get(self, name: str) -> bytes | None:
        """Return the entry, or None if there is none."""

    def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Return several entries with few round trips."""

    def put(self, name: str, data: bytes, ttl: float | None) -> None:
        """Store an entry for `ttl` seconds; None for ever."""

    def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None) -> None:
        """Store several entries with few round trips; not all at once."""

    def delete(self, name: str) -> bool:
        """Remove an entry and its lease; tell whether there was an entry."""

    def clear(self, prefix: str) -> int:
        """Remove every entry and lease whose name begins with `prefix`; return how many entries.

        It goes in steps, and others can use the store meanwhile. Runs that were under way when it
        began do not settle.
        """

    def count(self, prefix: str) -> int:
        """Return how many entries have names that begin with `prefix`."""

    def take(self, name: str, token: str, seconds: float) -> str | None:
        """Take the lease of an entry for `seconds`.

        Returns:
            None if it is now held by `token`; else the mark of who holds it, which is another
            whenever the holder has renewed it.
        """

    def renew(self, name: str, token: str, seconds: float) -> bool:
        """Hold the lease for `seconds` from now; false if `token` does not hold it any more."""

    def release(self, name: str, token: str) -> None:
        """Give the lease back, if `token` holds it."""

    def seize(self, name: str, token: str, seconds: float, mark: str) -> bool:
        """Take the lease from a holder whose mark is still `mark`; tell whether it was."""

    def settle(self, name: str, token: str, data: bytes, ttl: float | None) -> bool:
        """Store the entry and give the lease back in one step, if `token` still holds it.

        Returns:
            Whether it did; if not, nothing is stored.
        """

    def get_and_take(
        self, name: str, token: str, seconds: float
    ) -> tuple[bytes | None, str | None]:
        """Return the entry; if there is none, take its lease, in one step.

        Returns:
            The entry or None, and what `take` returned or None.
        """

    def close(self) -> None:
        """Close what is open. The backend can still be used: it opens again what it needs."""


class AsyncBackend(Protocol):
    """A backend whose methods are coroutines; each does what the one of `Backend` does.

    Who is cancelled in `take` or `get_and_take` may hold the lease all the same: `release` it.
    """

    async def get(self, name: str) -> bytes | None:
        """As `Backend.get`."""

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """As `Backend.get_many`."""

    async def put(self, name: str, data: bytes, ttl: float | None) -> None:
        """As `Backend.put`."""

    async def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None) -> None:
        """As `Backend.put_many`."""

    async def delete(self, name: str) -> bool:
        """As `Backend.delete`."""

    async def clear(self, prefix: str) -> int:
        """As `Backend.clear`."""

    async def count(self, prefix: str) -> int:
        """As `Backend.count`."""

    async def take(self, name: str, token: str, seconds: float) -> str | None:
        """As `Backend.take`."""

    async def renew(self, name: str, token: str, seconds: float) -> bool:
        """As `Backend.renew`."""

    async def release(self, name: str, token: str) -> None:
        """As `Backend.release`."""

    async def seize(self, name: str, token: str, seconds: float, mark: str) -> bool:
        """As `Backend.seize`."""

    async def settle(self, name: str, token: str, data: bytes, ttl: float | None) -> bool:
        """As `Backend.settle`."""

    async def get_and_take(self, name: str, token: str, seconds: float) -> _Found:
        """As `Backend.get_and_take`."""

    async def close(self) -> None:
        """As `Backend.close`."""


def lease_of(name: str) -> str:
    """Return the name under which the lease of an entry stands."""
    return name + LEASE


def mark_of(token: str) -> str:
    """Return a new mark of a holder: what stands in the store as its lease."""
    return f"{token}/{os.urandom(_NUMBER // 2).hex()}"


def holds(token: str, mark: str) -> bool:
    """Tell whether a mark is one of this holder."""
    return mark[: -_NUMBER - 1] == token and mark[-_NUMBER - 1 : -_NUMBER] == "/"


class InThreads:
    """Makes an `AsyncBackend` of a `Backend`: each call runs in the loop's default executor.

    A thread cannot be interrupted. So the call of a cancelled task goes on and its outcome is
    dropped, and a lease that it takes is given back at once. What has not begun does not begin,
    except what others wait for: `release`, `settle`, `delete`, `clear` and `put`.
    """

    def __init__(self, backend: Backend) -> None:
        """Wrap a backend.

        Args:
            backend: It must be usable by several threads at once.
        """
        self._backend = backend

    async def get(self, name: str) -> bytes | None:
        """As `Backend.get`."""
        return await _idle(self._backend.get, name)

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """As `Backend.get_many`."""
        return await _idle(self._backend.get_many, names)

    async def put(self, name: str, data: bytes, ttl: float | None) -> None:
        """As `Backend.put`."""
        await _surely(self._backend.put, name, data, ttl)

    async def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None) -> None:
        """As `Backend.put_many`."""
        await _surely(self._backend.put_many, entries, ttl)

    async def delete(self, name: str) -> bool:
        """As `Backend.delete`."""
        return await _surely(self._backend.delete, name)

    async def clear(self, prefix: str) -> int:
        """As `Backend.clear`."""
        return await _surely(self._backend.clear, prefix)

    async def count(self, prefix: str) -> int:
        """As `Backend.count`."""
        return await _idle(self._backend.count, prefix)

    async def take(self, name: str, token: str, seconds: float) -> str | None:
        """As `Backend.take`."""
        backend = self._backend
        job = functools.partial(_take, backend, name, token, seconds)
        return (await _taken(backend, name, token, job))[1]

    async def renew(self, name: str, token: str, seconds: float) -> bool:
        """As `Backend.renew`."""
        return await _idle(self._backend.renew, name, token, seconds)

    async def release(self, name: str, token: str) -> None:
        """As `Backend.release`."""
        await _surely(self._backend.release, name, token)

    async def seize(self, name: str, token: str, seconds: float, mark: str) -> bool:
        """As `Backend.seize`."""
        return await _idle(self._backend.seize, name, token, seconds, mark)

    async def settle(self, name: str, token: str, data: bytes, ttl: float | None) -> bool:
        """As `Backend.settle`."""
        return await _surely(self._backend.settle, name, token, data, ttl)

    async def get_and_take(self, name: str, token: str, seconds: float) -> _Found:
        """As `Backend.get_and_take`."""
        backend = self._backend
        job = functools.partial(backend.get_and_take, name, token, seconds)
        return await _taken(backend, name, token, job)

    async def close(self) -> None:
        """As `Backend.close`."""
        await _surely(self._backend.close)


async def _idle(work: Callable[..., _T], *arguments: Any) -> _T:
    """Run `work` in a thread; it does not begin if the task is cancelled first."""
    return await _submit(functools.partial(work, *arguments))


async def _surely(work: Callable[..., _T], *arguments: Any) -> _T:
    """Run `work` in a thread, whether or not the task still waits for it."""
    import asyncio

    return await asyncio.shield(_submit(functools.partial(work, *arguments)))


def _submit(work: Callable[[], _T]) -> asyncio.Future[_T]:
    import asyncio

    future = asyncio.get_running_loop().run_in_executor(None, work)
    future.add_done_callback(_looked_at)
    return future


def _looked_at(future: asyncio.Future[Any]) -> None:
    """Let asyncio not report the failure of something that nobody waits for any more."""
    if not future.cancelled():
        future.exception()


def _take(backend: Backend, name: str, token: str, seconds: float) -> _Found:
    return None, backend.take(name, token, seconds)


async def _taken(backend: Backend, name: str, token: str, job: Callable[[], _Found]) -> _Found:
    """Run `job` in a thread; if nobody waits for it any more, give back the lease that it took."""
    lock = Lock()
    unwanted = False
    mine = False

    def work() -> _Found:
        nonlocal mine
        found = job()
        with lock:
            mine = found == (None, None)
            give_back = mine and unwanted
        if give_back:
            backend.release(name, token)
        return found

    try:
        return await _submit(work)
    except BaseException:
        with lock:
            unwanted = True
            give_back = mine
        if give_back:
            _submit(functools.partial(backend.release, name, token))
        raise
