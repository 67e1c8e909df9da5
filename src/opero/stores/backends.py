"""What a backend is: bytes under names that expire, by five primitives.

    DiskBackend, RedisBackend      a Backend: for threads
    AsyncRedisBackend              an AsyncBackend: for tasks of an event loop
    InThreads(backend)             an AsyncBackend made of a Backend (see `in_threads`)

Everything else that a store is asked for is derived from the five, once for all backends, in
`operations`: single entries, clearing, counting, and the leases that say who computes what.

A backend knows nothing of values, keys, secrets, leases or statistics. It lets its library's
exceptions out: what they are, the store is out of order, and the caller goes on without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Swap(NamedTuple):
    """A change of what stands under a name, made in one step and one round trip.

    Attributes:
        name: The name.
        old: What is expected there, never empty; None for nothing.
        new: What is to stand there, never empty; None to remove it.
        ttl: For how many seconds.
        unless: A name under which nothing may stand; else nothing is changed.
        along: A name, its value and its time to live: stored in the same step if the change is
            made. With it, a value is stored only while its lease is held. Only one of `unless` and
            `along` is given.
    """

    name: str
    old: bytes | None
    new: bytes | None
    ttl: float | None = None
    unless: str | None = None
    along: tuple[str, bytes, float | None] | None = None


class Swapped(NamedTuple):
    """What a swap found; it was done if `found` is what the caller expected and `entry` is None.

    Attributes:
        found: What stood under the name before; None for nothing.
        entry: What stands under the name `unless`; None for nothing.
    """

    found: bytes | None
    entry: bytes | None


class Backend(Protocol):
    """Bytes under names, for processes and hosts to share; threads may use it at once.

    Names are printable ASCII. A `ttl` is in seconds, at least a thousandth; None is for ever. Any
    exception means that the store is out of order, but for a `ValueError`: then a value is too
    large for it.
    """

    def get_many(self, names: Sequence[str], /) -> list[bytes | None]:
        """Return what stands under each name, None for nothing, with few round trips."""

    def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None, /) -> None:
        """Store entries for `ttl` seconds with few round trips, one after the other."""

    def delete(self, names: Sequence[str], /) -> list[bool]:
        """Remove names in this order, with few round trips; return whether each was there.

        What has expired was not, and is removed all the same if it is still kept.
        """

    def scan(
        self, prefix: str, suffix: str, after: str, expired: bool = False, /
    ) -> tuple[list[str], str | None]:
        """Return some names that begin with `prefix` and end with `suffix`.

        Args:
            prefix: What they begin with.
            suffix: What they end with.
            after: "" at first, then what the last scan returned.
            expired: Whether to return also the names of what has expired and is still kept, so
                that `delete` can remove it.

        Returns:
            Names, perhaps none; and what to go on from, or None if there are no more. A name that
            is there from the first scan to the last is among them at least once.
        """

    def swap(self, change: Swap, /) -> Swapped:
        """Change what stands under a name if that is what is expected."""

    def close(self) -> None:
        """Close what is open. The backend can still be used: it opens again what it needs."""


class AsyncBackend(Protocol):
    """A backend whose methods are coroutines; each does what the one of `Backend` does.

    A task cancelled in `swap` may have changed the name all the same.
    """

    async def get_many(self, names: Sequence[str], /) -> list[bytes | None]:
        """As `Backend.get_many`."""

    async def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None, /) -> None:
        """As `Backend.put_many`."""

    async def delete(self, names: Sequence[str], /) -> list[bool]:
        """As `Backend.delete`."""

    async def scan(
        self, prefix: str, suffix: str, after: str, expired: bool = False, /
    ) -> tuple[list[str], str | None]:
        """As `Backend.scan`."""

    async def swap(self, change: Swap, /) -> Swapped:
        """As `Backend.swap`."""

    async def close(self) -> None:
        """As `Backend.close`."""
