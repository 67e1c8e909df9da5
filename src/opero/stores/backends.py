"""The interface of backends: bytes under names that expire, with five primitives.

    DiskBackend, RedisBackend      a Backend: for threads
    AsyncRedisBackend              an AsyncBackend: for tasks of an event loop
    InThreads(backend)             an AsyncBackend made of a Backend (see `in_threads`)

`operations` derives everything else from these five, once for all backends: single entries,
clearing, counting, and the leases that say who computes what.

A backend knows nothing of values, keys, secrets, leases or statistics. It does not catch its
library's exceptions: any of them means that the store does not work, and the caller goes on
without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Swap(NamedTuple):
    """An atomic change of the bytes under a name, in one round trip.

    Attributes:
        name: The name.
        old: The expected bytes, never empty; None for nothing.
        new: The new bytes, never empty; None to remove the name.
        ttl: How many seconds it stays.
        unless: A name that must not exist; if it does, nothing changes.
        along: A name, its value and its time to live: stored in the same step if the change is
            made, so that a value is stored only while its lease is held. Only one of `unless` and
            `along` is given.
    """

    name: str
    old: bytes | None
    new: bytes | None
    ttl: float | None = None
    unless: str | None = None
    along: tuple[str, bytes, float | None] | None = None


class Swapped(NamedTuple):
    """The result of a swap; it was done if `found` is what the caller expected and `entry` is None.

    Attributes:
        found: The bytes under the name before; None for nothing.
        entry: The bytes under the name `unless`; None for nothing.
    """

    found: bytes | None
    entry: bytes | None


class Backend(Protocol):
    """Bytes under names, shared by processes and machines; several threads may use it.

    Names are printable ASCII. A `ttl` is in seconds, at least a thousandth; None means forever. Any
    exception except `ValueError` means that the store does not work; `ValueError` means that a
    value is too large for it.
    """

    def get_many(self, names: Sequence[str], /) -> list[bytes | None]:
        """Return the bytes under each name, or None, in few round trips."""

    def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None, /) -> None:
        """Store entries for `ttl` seconds with few round trips, one after the other."""

    def delete(self, names: Sequence[str], /) -> list[bool]:
        """Remove names in this order, with few round trips; return whether each existed.

        An expired entry did not, and is removed all the same if it is still kept.
        """

    def scan(
        self, prefix: str, suffix: str, after: str, expired: bool = False, /
    ) -> tuple[list[str], str | None]:
        """Return some names that begin with `prefix` and end with `suffix`.

        Args:
            prefix: Their beginning.
            suffix: Their end.
            after: "" at first, then what the last scan returned.
            expired: Whether to return the names of expired entries still kept too, so that `delete`
                can remove them.

        Returns:
            Names, perhaps none; and where to continue, or None if there are no more. A name that
            exists from the first scan to the last is among them at least once.
        """

    def swap(self, change: Swap, /) -> Swapped:
        """Change the bytes under a name if they are the expected ones."""

    def close(self) -> None:
        """Close everything. The backend can still be used: it reopens what it needs."""


class AsyncBackend(Protocol):
    """A backend whose methods are coroutines; otherwise they are those of `Backend`.

    A task cancelled in `swap` may still have made the change.
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
