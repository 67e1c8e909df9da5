"""A directory as a backend, on diskcache: SQLite, shared by the processes of one user.

diskcache creates the table; this module uses it with a few statements. It does not use diskcache's
own methods: they pickle (CVE-2025-69872), obey settings in the database, keep large values in
files, and retry for a minute. Here, names are text and values are bytes in the table, a row never
causes a file to be opened or removed, and SQLite waits for a lock for `timeout` seconds, once per
operation.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from opero.real_time import monotonic

from .backends import Swap, Swapped
from .connections import Connection
from .database import Database, RenewedError, TamperedError, patiently

__all__ = ["DiskBackend", "TamperedError"]

NAMES: Final = 500
"""How many rows one transaction of `delete` removes, and one query of `get_many` reads."""

SCAN: Final = 5000
"""How many names one `scan` returns at most."""

BATCH: Final = 4 << 20
"""How many bytes one transaction of `put_many` has at most, unless a single entry has more."""

EXPIRED: Final = 20
"""How many expired rows each transaction also removes."""

OLDEST: Final = 64
"""How many of the oldest rows one transaction removes at most to make room."""

WAIT: Final = 2.0
"""Seconds to wait for another process's write to end, by default."""

_END: Final = "\U0010ffff"
"""Sorts after every character of a name."""

_BESIDE: Final = 256
"""About how many bytes a row and its index entries take in addition to the value."""

_PAGES: Final = 4
"""About how many pages a small change writes."""

_LIVE: Final = "(expire_time IS NULL OR expire_time > ?)"

_GET: Final = f"SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1 AND {_LIVE}"

_PUT: Final = """
INSERT INTO Cache(key, raw, store_time, expire_time, access_time, tag, size, mode, filename, value)
    VALUES (?, 1, ?, ?, ?, NULL, 0, 1, NULL, ?)
    ON CONFLICT(key, raw) DO UPDATE SET
        store_time = excluded.store_time, expire_time = excluded.expire_time,
        access_time = excluded.access_time, access_count = 0,
        tag = NULL, size = 0, mode = 1, filename = NULL, value = excluded.value
"""

_DELETE_EXPIRED: Final = (
    "DELETE FROM Cache WHERE rowid IN (SELECT rowid FROM Cache"
    " WHERE expire_time IS NOT NULL AND expire_time < ? ORDER BY expire_time LIMIT ?)"
)

_FOREIGN: Final = b""
"""Stands for a value that opero did not write: it has no signature, so the next run replaces it."""

_T = TypeVar("_T")
_Method = TypeVar("_Method", bound=Callable[..., Any])


def _patiently(method: _Method) -> _Method:
    """Repeat a method of `DiskBackend` if the database was locked or damaged."""

    @functools.wraps(method)
    def again(self: DiskBackend, *arguments: Any) -> Any:
        def once() -> Any:
            return method(self, *arguments)

        end = monotonic() + self._timeout
        try:
            return patiently(once, end)
        except RenewedError:
            return patiently(once, end)

    return cast("_Method", again)


class DiskBackend:
    """A `Backend` in a directory, for the threads and processes of one user.

    Attributes:
        where: The directory, for messages.
    """

    def __init__(self, directory: Path, size_limit: int | None, timeout: float = WAIT) -> None:
        """Set the place; nothing is opened yet.

        Args:
            directory: The directory; created, for its owner only, if it does not exist.
            size_limit: The greatest size of the directory in bytes, at least 512 KiB; beyond it,
                the oldest entries are removed. None for no bound.
            timeout: Seconds to wait for another process's write to end.
        """
        self.where: str = str(directory)
        self._timeout = timeout
        self._database = Database(directory, size_limit, timeout)
        self._largest = None if size_limit is None else size_limit // 4
        self._batch, self._names = BATCH, NAMES
        if size_limit is not None:
            self._batch = min(BATCH, size_limit // 8)
            self._names = min(NAMES, max(8, size_limit >> 15))

    # --- entries --------------------------------------------------------------------------------

    @_patiently
    def get_many(self, names: Sequence[str], /) -> list[bytes | None]:
        """See `Backend.get_many`."""
        if len(names) == 1:
            return [self._get(names[0])]
        found: dict[str, bytes] = {}
        with self._open() as connection:
            for start in range(0, len(names), NAMES):
                some = names[start : start + NAMES]
                rows = connection.execute(
                    "SELECT key, mode, filename, value FROM Cache WHERE raw = 1"
                    f" AND key IN ({','.join('?' * len(some))}) AND {_LIVE}",
                    (*some, time.time()),
                )
                for key, mode, filename, value in rows:
                    found[key] = _value(mode, filename, value)
        return [found.get(name) for name in names]

    def _get(self, name: str) -> bytes | None:
        connection = self._database.borrow()  # `_open` in fewer steps, because hits come here
        try:
            found = _entry(connection, name)
        except BaseException as error:
            self._database.give_up(connection, error)
            raise
        self._database.give_back(connection)
        return found

    @_patiently
    def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None, /) -> None:
        """See `Backend.put_many`."""
        batch: list[tuple[str, bytes]] = []
        size = 0
        with self._open() as connection:
            for name, data in entries:
                self._check(data)
                if batch and (size + len(data) > self._batch or len(batch) == self._names):
                    self._put_batch(connection, batch, size, ttl)
                    batch, size = [], 0
                batch.append((name, data))
                size += len(data)
            self._put_batch(connection, batch, size, ttl)

    def _put_batch(
        self, connection: Connection, batch: list[tuple[str, bytes]], size: int, ttl: float | None
    ) -> None:
        def put() -> None:
            for name, data in batch:
                _put(connection, name, data, ttl)

        self._change(connection, size, len(batch), put)

    def _check(self, data: bytes) -> None:
        if self._largest is not None and len(data) > self._largest:
            raise ValueError(
                f"an entry of {len(data)} bytes is larger than a quarter of cache_size_limit"
            )

    @_patiently
    def delete(self, names: Sequence[str], /) -> list[bool]:
        """See `Backend.delete`."""
        there: list[bool] = []
        with self._open() as connection:
            for start in range(0, len(names), self._names):
                some = names[start : start + self._names]
                with self._database.writing(connection, self._need(0, len(some))):
                    there += [_remove(connection, name) for name in some]
            if len(names) > 1:
                self._database.shrink(connection)
        return there

    @_patiently
    def scan(
        self, prefix: str, suffix: str, after: str, expired: bool = False, /
    ) -> tuple[list[str], str | None]:
        """As `Backend.scan`."""
        begins = "key > ?" if after else "key >= ?"  # one bound, so SQLite starts there
        ends = f" AND substr(key, {-len(suffix)}) = ?" if suffix else ""
        since = float("-inf") if expired else time.time()
        with self._open() as connection:
            rows = connection.execute(
                f"SELECT key FROM Cache WHERE {begins} AND key < ?"
                f" AND {_LIVE}{ends} ORDER BY key LIMIT ?",
                (after or prefix, prefix + _END, since, *filter(None, [suffix]), SCAN),
            ).fetchall()
        names = [name for (name,) in rows]
        return names, names[-1] if len(names) == SCAN else None

    @_patiently
    def swap(self, change: Swap, /) -> Swapped:
        """As `Backend.swap`."""
        name, old, new, ttl, unless, along = change
        if along is not None:
            self._check(along[1])
        size = len(new or b"") + (0 if along is None else len(along[1]))
        with self._open() as connection:
            if unless is not None:
                entry = _entry(connection, unless)  # usually exists, and reading never waits
                if entry is not None:
                    return Swapped(None, entry)

            def swap() -> Swapped:
                entry = None if unless is None else _entry(connection, unless)
                if entry is not None:
                    return Swapped(None, entry)
                found = _entry(connection, name)
                if found != old:
                    return Swapped(found, None)
                if new is None:
                    _remove(connection, name)
                else:
                    _put(connection, name, new, ttl)
                if along is not None:
                    _put(connection, *along)
                return Swapped(found, None)

            return self._change(connection, size, 2, swap)

    # --- changes --------------------------------------------------------------------------------

    def _change(self, connection: Connection, size: int, rows: int, change: Callable[[], _T]) -> _T:
        """Make a change in one transaction, after making room for it.

        Args:
            connection: The connection.
            size: The size of the values to store in bytes.
            rows: The greatest number of rows to touch.
            change: Makes the change.
        """
        need = self._need(size, rows)
        end = monotonic() + self._timeout
        while True:
            with self._database.writing(connection, need):
                if self._make_room(connection, need):
                    return change()
            if monotonic() > end:
                raise sqlite3.OperationalError("the cache is full; the next write evicts more")

    def _need(self, size: int, rows: int) -> int:
        return size + size // 128 + (_PAGES + rows) * self._database.page

    def _make_room(self, connection: Connection, need: int) -> bool:
        """Remove some expired rows and some of the oldest; return whether there is room now."""
        connection.execute(_DELETE_EXPIRED, (time.time(), EXPIRED))
        room = self._database.room
        if room is None:
            return True
        short = self._short(connection, room, need)
        if short <= 0:
            return True
        gone: list[int] = []
        for rowid, length in connection.execute(
            "SELECT rowid, length(value) FROM Cache ORDER BY store_time LIMIT ?", (OLDEST,)
        ):
            if short <= 0:
                break
            gone.append(rowid)
            short -= (length or 0) + _BESIDE
        marks = ",".join("?" * len(gone))
        connection.execute(f"DELETE FROM Cache WHERE rowid IN ({marks})", gone)
        return not gone or self._short(connection, room, need) <= 0

    def _short(self, connection: Connection, room: int, need: int) -> int:
        """Return how many bytes are missing."""
        pages, free = self._database.pages(connection)
        short = (pages - free) * self._database.page + need - room
        if pages * self._database.page > room:  # already too large: it is enough not to grow
            short = min(short, need - free * self._database.page)
        return short

    @contextlib.contextmanager
    def _open(self) -> Iterator[Connection]:
        """Borrow a connection; any failure closes it for good."""
        connection = self._database.borrow()
        try:
            yield connection
        except BaseException as error:
            self._database.give_up(connection, error)
            raise
        self._database.give_back(connection)

    def close(self) -> None:
        """Close the idle connections. You can still use the backend: it opens new ones."""
        self._database.close()


def _entry(connection: Connection, name: str) -> bytes | None:
    row = connection.execute(_GET, (name, time.time())).fetchone()
    return None if row is None else _value(*row)


def _value(mode: Any, filename: Any, value: Any) -> bytes:
    """Return the value of a row, or `_FOREIGN` if opero did not write it."""
    raw = type(mode) is int and mode == 1
    return value if raw and filename is None and type(value) is bytes else _FOREIGN


def _put(connection: Connection, name: str, data: bytes, ttl: float | None) -> None:
    now = time.time()
    connection.execute(_PUT, (name, now, None if ttl is None else now + ttl, now, data))


def _remove(connection: Connection, name: str) -> bool:
    removed = connection.execute(
        f"DELETE FROM Cache WHERE key = ? AND {_LIVE}", (name, time.time())
    ).rowcount
    if not removed:
        connection.execute("DELETE FROM Cache WHERE key = ?", (name,))  # removes an expired entry
    return bool(removed)
