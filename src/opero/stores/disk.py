"""A directory as a backend, on diskcache: SQLite, shared by the processes of one user.

diskcache keeps names and bytes in a table, expires and evicts. What it does beyond that is out of
reach here. It pickles (CVE-2025-69872): `_Bytes` refuses every way to it, for keys and for values,
whatever the database says. It obeys settings in the database: `_Cache` ignores them. It keeps large
values in files: here they are in the table, so no file name in a row is ever opened or removed. It
retries for a minute: here SQLite waits for a lock for `timeout` seconds, once per operation, and
`LONGEST` ends what takes too long for any other reason.

Threads borrow connections from a small store of idle ones, so that none is left behind by a thread
that has ended. A connection is used only while the file that it opened is still the one in the
directory: a directory that was deleted is made again. A database that is damaged is set aside under
another name, and a new one begins.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Final, TypeVar, cast

try:
    import diskcache
except ImportError as _error:
    raise ImportError(
        "a cache on disk needs the diskcache package: "
        "pip install 'diskcache>=5.6.3,<6' platformdirs",
        name="diskcache",
    ) from _error

from opero import forks
from opero.exceptions import UnsafePlaceError, describe
from opero.logs import warn
from opero.private_places import closed_directory, private_file
from opero.real_time import monotonic
from opero.thrown import out_of_handler

from .backends import Swapped

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LONGEST: Final = 5.0
"""Seconds after which SQLite gives up what it does, whatever it is."""

NAMES: Final = 500
"""How many rows one transaction of `delete` removes, and one query of `get_many` asks for."""

PAGE: Final = 5000
"""How many names one `scan` returns at most."""

BATCH: Final = 4 << 20
"""How many bytes one transaction of `put_many` has, unless a single entry has more."""

EXPIRED: Final = 20
"""How many expired rows one `put` removes on the way."""

IDLE: Final = 8
"""How many idle connections are kept."""

WAIT: Final = 2.0
"""Seconds to wait for another process's write to end, by default."""

_DAMAGE: Final = ("no such", "table ", "views ", "cannot modify", "Could not decode", "malformed")
_END: Final = "\U0010ffff"
"""Sorts after every character of a name."""


class TamperedError(Exception):
    """The database holds what opero did not write, and it was not looked at any further."""


class _Bytes(diskcache.Disk):  # type: ignore[misc]
    """Lets str through as keys and bytes as values, and refuses all else, pickles above all."""

    def __init__(self, directory: str, **_settings: Any) -> None:
        super().__init__(directory)

    def hash(self, *_: Any) -> int:
        raise TamperedError("no key is hashed here")

    def put(self, key: Any) -> tuple[str, bool]:
        if type(key) is not str:
            raise TamperedError(f"a key is {type(key).__name__}, not str")
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        if type(key) is not str or type(raw) is not int or raw != 1:
            raise TamperedError("a key in the database is none of opero's")
        return key

    def store(self, value: Any, read: bool, **_: Any) -> tuple[int, int, None, bytes]:
        if type(value) is not bytes or read:
            raise TamperedError(f"a value is {type(value).__name__}, not bytes")
        return 0, diskcache.core.MODE_RAW, None, value

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> bytes:
        if (
            type(mode) is not int
            or mode != diskcache.core.MODE_RAW
            or filename is not None
            or type(value) is not bytes
            or read
        ):
            raise TamperedError("a value in the database is none of opero's")
        return value

    def filename(self, *_: Any, **__: Any) -> tuple[str, str]:
        raise TamperedError("no value is kept in a file here")

    def remove(self, *_: Any) -> None:
        raise TamperedError("no value is kept in a file here")

    def _write(self, *_: Any, **__: Any) -> int:
        raise TamperedError("no value is kept in a file here")


_SETTINGS: Final[dict[str, Any]] = {
    "statistics": 0,
    "tag_index": 0,
    "eviction_policy": "least-recently-stored",
    "size_limit": 2**30,
    "cull_limit": EXPIRED,
    "sqlite_auto_vacuum": 1,
    "sqlite_cache_size": 2**13,
    "sqlite_journal_mode": "wal",
    "sqlite_mmap_size": 0,
    "sqlite_synchronous": 1,
    "disk_min_file_size": 2**31,
    "disk_pickle_protocol": 0,
}
"""Every setting that diskcache has, so that none is taken from the database."""

_GET: Final = (
    "SELECT mode, filename, value FROM Cache"
    " WHERE key = ? AND raw = 1 AND (expire_time IS NULL OR expire_time > ?)"
)

_FOREIGN: Final = b""
"""Stands for a value that opero did not write: it is not signed, and the next run replaces it."""

_COUNTERS: Final = ("count", "size", "hits", "misses")

_PRAGMAS: Final = (
    "PRAGMA trusted_schema = OFF",  # what the schema says runs no function with side effects
    "PRAGMA cell_size_check = ON",
    "PRAGMA mmap_size = 0",  # a page that somebody changes while it is looked at must not crash us
    "PRAGMA synchronous = NORMAL",
    "PRAGMA cache_size = 8192",
    "PRAGMA journal_size_limit = 16777216",
)


class _Connection(sqlite3.Connection):
    """A connection that gives up what takes too long.

    Attributes:
        until: The monotonic time at which it gives up, alone in a list.
        file: The device and inode of the file that it opened.
        pid: The process that opened it.
    """

    until: list[float]
    file: tuple[int, int] = (0, 0)
    pid = 0

    def leave(self) -> None:
        """Close it, unless it is the parent process's: that would disturb the parent."""
        if self.pid == os.getpid():
            self.close()
        else:
            _forget(self)


class _Cache(diskcache.Cache):  # type: ignore[misc]
    """diskcache's table and statements, on the connection that the calling thread has borrowed."""

    def __init__(self, size_limit: int | None) -> None:
        # Not diskcache's: it opens a connection for good. `prepare` does when there is one.
        self._lent = threading.local()
        self._limit = size_limit

    def prepare(self) -> None:
        """Make the tables in one transaction, unless they are there."""
        # diskcache would expand variables in the name of the directory, and make it: it gets one
        # that is there, and nothing of ours looks at it.
        with self.transact():
            super().__init__(os.path.sep, timeout=0, disk=_Bytes, **_SETTINGS)

    @contextlib.contextmanager
    def on(self, connection: _Connection) -> Iterator[Callable[..., Any]]:
        """Let this thread's statements run on a connection meanwhile."""
        before = getattr(self._lent, "connection", None)
        self._lent.connection = connection
        try:
            yield connection.execute
        finally:
            self._lent.connection = before

    @property
    def _con(self) -> _Connection:
        connection: _Connection = self._lent.connection
        return connection

    @property
    def _sql_retry(self) -> Callable[..., Any]:
        return self._con.execute  # SQLite has waited already

    @contextlib.contextmanager
    def _transact(
        self, *_: Any, **__: Any
    ) -> Iterator[tuple[Callable[..., Any], Callable[[Any], None]]]:
        """Begin a transaction, unless one has begun; what fails in it undoes it."""
        connection = self._con
        if connection.in_transaction:
            yield connection.execute, _remove_no_file
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection.execute, _remove_no_file
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # the connection is closed after this
                connection.execute("ROLLBACK")
            raise

    def reset(self, key: str, value: Any = None, **_: Any) -> Any:
        """Set what opero sets; the database has no say, and runs no PRAGMA."""
        if key in _COUNTERS:
            value = 0
        elif key not in _SETTINGS:
            return value
        setattr(self, key, value)
        return value

    def close(self) -> None:
        """Do nothing: the connection is the backend's."""

    def _cull(self, now: float, sql: Callable[..., Any], *_: Any) -> None:
        """Remove some expired rows, and the oldest while the table is too large."""
        sql(
            "DELETE FROM Cache WHERE rowid IN (SELECT rowid FROM Cache"
            " WHERE expire_time IS NOT NULL AND expire_time < ? ORDER BY expire_time LIMIT ?)",
            (now, EXPIRED),
        )
        if self._limit is None:
            return
        while self._used(sql) > self._limit:
            oldest = "SELECT rowid FROM Cache ORDER BY store_time LIMIT 10"
            if not sql(f"DELETE FROM Cache WHERE rowid IN ({oldest})").rowcount:
                return

    def _used(self, sql: Callable[..., Any]) -> int:
        """Return how many bytes of the database are in use."""
        ((pages,),) = sql("PRAGMA page_count").fetchall()
        ((free,),) = sql("PRAGMA freelist_count").fetchall()
        return int((pages - free) * self._page_size)


def _remove_no_file(name: Any) -> None:
    """Take the place of diskcache's removal of files: what a row names is left alone."""


class _Renewed(Exception):
    """The database was damaged; there is a new one now."""


_Method = TypeVar("_Method", bound=Callable[..., Any])


def _again(method: _Method) -> _Method:
    """Let a method of `DiskBackend` begin once more if it found the database damaged."""

    @functools.wraps(method)
    def twice(*arguments: Any) -> Any:
        try:
            return method(*arguments)
        except _Renewed:
            return method(*arguments)

    return cast("_Method", twice)


class DiskBackend:
    """A `Backend` in a directory, for the threads and processes of one user.

    Attributes:
        where: The directory, for messages.
    """

    def __init__(self, directory: Path, size_limit: int | None, timeout: float = WAIT) -> None:
        """Say where; nothing is opened yet.

        Args:
            directory: It is made, for its owner only, if it is not there.
            size_limit: Bytes; the oldest entries go when the database is larger. None: no bound.
            timeout: Seconds to wait for another process's write to end.
        """
        self.where: str = str(directory)
        self._directory = directory
        self._path = directory / "cache.db"
        self._timeout = timeout
        self._limit = size_limit
        self._cache = _Cache(size_limit)
        self._disk = _Bytes(self.where)
        self._prepared: tuple[int, int] | None = None
        self._idle: deque[_Connection] = deque()
        weakref.finalize(self, _close_all, self._idle)
        _backends.add(self)

    # --- entries --------------------------------------------------------------------------------

    @_again
    def get_many(self, names: Sequence[str], /) -> list[bytes | None]:
        """As `Backend.get_many`."""
        if len(names) == 1:
            return [self._get(names[0])]
        found: dict[str, bytes] = {}
        with self._open() as sql:
            for start in range(0, len(names), NAMES):
                some = names[start : start + NAMES]
                rows = sql(
                    "SELECT key, mode, filename, value FROM Cache WHERE raw = 1"
                    f" AND key IN ({','.join('?' * len(some))})"
                    " AND (expire_time IS NULL OR expire_time > ?)",
                    (*some, time.time()),
                )
                for key, mode, filename, value in rows:
                    found[key] = self._value(mode, filename, value)
        return [found.get(name) for name in names]

    def _get(self, name: str) -> bytes | None:
        connection = self._borrow()  # what `_open` does, in fewer steps: this is the hit
        try:
            row = connection.execute(_GET, (name, time.time())).fetchone()
        except BaseException as error:
            self._give_up(connection, error)
            raise
        self._give_back(connection)
        return None if row is None else self._value(*row)

    def _entry(self, name: str) -> bytes | None:
        """Return an entry, on the connection that this thread has borrowed."""
        row = self._cache._con.execute(_GET, (name, time.time())).fetchone()
        return None if row is None else self._value(*row)

    def _value(self, mode: Any, filename: Any, value: Any) -> bytes:
        """Return what a row holds, unless opero did not write it."""
        try:
            return self._disk.fetch(mode, filename, value, False)
        except TamperedError:
            return _FOREIGN

    @_again
    def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None, /) -> None:
        """As `Backend.put_many`."""
        batch: list[tuple[str, bytes]] = []
        size = 0
        with self._open():
            for name, data in entries:
                self._check(data)
                if batch and (size + len(data) > BATCH or len(batch) == NAMES):
                    self._put_batch(batch, ttl)
                    batch, size = [], 0
                batch.append((name, data))
                size += len(data)
            self._put_batch(batch, ttl)

    def _check(self, data: bytes) -> None:
        if self._limit is not None and len(data) > self._limit:
            raise ValueError(f"an entry of {len(data)} bytes is larger than the whole cache may be")

    def _put_batch(self, batch: list[tuple[str, bytes]], ttl: float | None) -> None:
        with self._cache.transact():
            for name, data in batch:
                self._cache.set(name, data, expire=ttl)

    @_again
    def delete(self, names: Sequence[str], /) -> list[bool]:
        """As `Backend.delete`."""
        there: list[bool] = []
        with self._open() as sql:
            for start in range(0, len(names), NAMES):
                with self._cache.transact():
                    there += [self._remove(sql, name) for name in names[start : start + NAMES]]
        return there

    def _remove(self, sql: Callable[..., Any], name: str) -> bool:
        live = "(expire_time IS NULL OR expire_time > ?)"
        removed = sql(f"DELETE FROM Cache WHERE key = ? AND {live}", (name, time.time())).rowcount
        if not removed:
            sql("DELETE FROM Cache WHERE key = ?", (name,))  # one that has expired
        return bool(removed)

    @_again
    def scan(
        self, prefix: str, suffix: str, after: str, expired: bool = False, /
    ) -> tuple[list[str], str | None]:
        """As `Backend.scan`."""
        begins = "key > ?" if after else "key >= ?"  # one bound, so that SQLite begins there
        ends = f" AND substr(key, {-len(suffix)}) = ?" if suffix else ""
        since = float("-inf") if expired else time.time()
        with self._open() as sql:
            rows = sql(
                f"SELECT key FROM Cache WHERE {begins} AND key < ?"
                f" AND (expire_time IS NULL OR expire_time > ?){ends} ORDER BY key LIMIT ?",
                (after or prefix, prefix + _END, since, *filter(None, [suffix]), PAGE),
            ).fetchall()
        names = [name for (name,) in rows]
        return names, names[-1] if len(names) == PAGE else None

    @_again
    def swap(
        self,
        name: str,
        old: bytes | None,
        new: bytes | None,
        ttl: float | None,
        unless: str | None = None,
        along: tuple[str, bytes, float | None] | None = None,
        /,
    ) -> Swapped:
        """As `Backend.swap`."""
        if along is not None:
            self._check(along[1])
        with self._open() as sql:
            if unless is not None:
                entry = self._entry(unless)  # most are there, and reading waits for nobody
                if entry is not None:
                    return Swapped(None, entry)
            with self._cache.transact():
                if unless is not None:
                    entry = self._entry(unless)
                    if entry is not None:
                        return Swapped(None, entry)
                found = self._entry(name)
                if found != old:
                    return Swapped(found, None)
                if new is None:
                    self._remove(sql, name)
                else:
                    self._cache.set(name, new, expire=ttl)
                if along is not None:
                    self._cache.set(along[0], along[1], expire=along[2])
                return Swapped(found, None)

    # --- connections ----------------------------------------------------------------------------

    def close(self) -> None:
        """Close the idle connections. The backend can still be used: it opens others."""
        _close_all(self._idle)

    @contextlib.contextmanager
    def _open(self) -> Iterator[Callable[..., Any]]:
        """Borrow a connection; it is closed, and not used again, if anything fails."""
        connection = self._borrow()
        try:
            with self._cache.on(connection) as sql:
                yield sql
        except BaseException as error:
            self._give_up(connection, error)
            raise
        self._give_back(connection)

    def _give_back(self, connection: _Connection) -> None:
        if len(self._idle) < IDLE:
            self._idle.append(connection)
        else:
            connection.leave()

    def _give_up(self, connection: _Connection, error: BaseException) -> None:
        connection.leave()
        if _is_damage(error) and self._set_aside(connection.file, error):
            raise _Renewed from error

    def _borrow(self) -> _Connection:
        """Get an idle connection to the file that is there now, or a new one."""
        found = _identity_of(self._path)
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if connection.file == found and connection.pid == os.getpid():
                connection.until[0] = monotonic() + LONGEST
                return connection
            connection.leave()
        if found is None or found != self._prepared:
            with self._locked():
                return self._connect(prepare=True)
        return self._connect(prepare=False)

    def _connect(self, *, prepare: bool) -> _Connection:
        file = self._make_file()
        connection: _Connection = sqlite3.connect(
            self._path,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
        try:
            connection.file = file
            connection.pid = os.getpid()
            connection.until = [monotonic() + LONGEST]
            connection.set_progress_handler(_alarm(connection.until), 100_000)
            if prepare:
                connection.execute("PRAGMA auto_vacuum = FULL")  # before there is a table
                connection.execute("PRAGMA journal_mode = WAL")
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            if prepare:
                with self._cache.on(connection):
                    self._cache.prepare()
                self._prepared = file
        except BaseException as error:
            connection.leave()
            damaged = _is_damage(error) or (
                isinstance(error, (TypeError, AttributeError, ValueError))
                and out_of_handler(error, error.__context__) is None
            )
            if damaged and self._set_aside(file, error, locked=prepare):
                raise _Renewed from error
            raise
        return connection

    def _make_file(self) -> tuple[int, int]:
        """Make the database a file that only its owner can use, if it is none; return which."""
        self._make_directory()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        try:
            os.close(os.open(self._path, flags, 0o600))
        except FileExistsError:
            pass
        status = os.lstat(self._path)
        if not stat.S_ISREG(status.st_mode):
            raise TamperedError(f"{self._path} is not a regular file")
        _check_owner(self._path, status)
        if stat.S_IMODE(status.st_mode) != 0o600 and os.name == "posix":
            self._path.chmod(0o600)
        return _identity(status)

    def _make_directory(self) -> None:
        """Make the directory as it was first, if somebody has deleted it."""
        try:
            closed_directory(self._directory, "the cache directory", "remove it")
        except UnsafePlaceError as error:  # it is there, and somebody has changed it since
            raise TamperedError(str(error)) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time make or set aside a database."""
        if fcntl is None:
            yield
            return
        self._make_directory()
        path = self._directory / "cache.lock"
        lock = private_file(path, "the lock of the cache", "remove it")
        try:
            end = monotonic() + self._timeout
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if monotonic() >= end:
                        raise
                    time.sleep(0.005)
            yield
        finally:
            os.close(lock)

    def _set_aside(
        self, file: tuple[int, int], error: BaseException, *, locked: bool = False
    ) -> bool:
        """Rename a damaged database, unless another process has; return whether it is gone."""
        aside = self._path.with_name(f"cache.db.damaged-{time.time_ns():x}-{os.getpid()}")
        try:
            with contextlib.nullcontext() if locked else self._locked():
                if _identity_of(self._path) != file:
                    return True
                self._path.rename(aside)
                for suffix in ("-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")
        except OSError:
            return False  # the next failure tries again
        warn(
            "the cache database %s is damaged (%s); it is kept as %s, and a new one begins",
            str(self._path),
            describe(error),
            aside.name,
        )
        return True


def _alarm(until: list[float]) -> Callable[[], bool]:
    """Make what SQLite asks now and then whether to stop: whether it is later than `until[0]`.

    It is made of functions in C alone. One in Python would let signal handlers run inside SQLite,
    which drops what they raise.
    """
    return map(operator.lt, map(until.__getitem__, repeat(0)), iter(monotonic, None)).__next__


_backends: weakref.WeakSet[DiskBackend] = weakref.WeakSet()
_forgotten: list[_Connection] = []


def _before_fork() -> None:
    """Close what a forked child must neither use nor close."""
    for backend in list(_backends):
        backend.close()


forks.register("stores", before=_before_fork)


def _close_all(idle: deque[_Connection]) -> None:
    while True:
        try:
            connection = idle.pop()
        except IndexError:
            return
        connection.leave()


def _forget(connection: _Connection) -> None:
    """Keep a connection open for good, past the interpreter's end."""
    _forgotten.append(connection)
    with contextlib.suppress(ImportError, AttributeError):
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        return _identity(os.lstat(path))
    except FileNotFoundError:
        return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _check_owner(path: Path, status: os.stat_result) -> None:
    if os.name == "posix" and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
        raise TamperedError(f"{path} belongs to somebody else, or others can write to it")


def _is_damage(error: BaseException) -> bool:
    """Return whether an error says that the file is no sound database of diskcache's."""
    if type(error) is sqlite3.DatabaseError:  # malformed, or no database at all
        return True
    if not isinstance(error, sqlite3.OperationalError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    return code == 1 or (code is None and str(error).startswith(_DAMAGE))
