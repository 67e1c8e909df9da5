"""The database of a cache on disk: one file, its log, and the connections to both.

diskcache creates the file in a separate directory, and opero moves it to its place. So no process
ever sees half a database, and diskcache never opens one that may have been tampered with.

Writes go to SQLite's write-ahead log first; a checkpoint copies them to the file. SQLite's own
checkpoints do not wait for readers: if there is always a reader, they never empty the log, and it
grows without bound. So a thread that is about to write checks the size of the log. From
`CHECKPOINT` bytes on, it waits until all readers have reached the end of the log, and empties it.
If that takes too long, for example because a reader is stopped, the log may grow to a quarter of
the limit. After that, all writes fail until the log can be emptied.

A connection is used only while the file that it opened is still the one in the directory; a deleted
directory is created again. A damaged database is renamed, and a new one begins. The last damaged
one is kept while there is room for it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import tempfile
import time
import urllib.parse  # noqa: F401 - early: `Path.as_uri` may import it while another thread forks
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from random import random
from threading import get_ident
from typing import Any, Final, TypeVar

try:
    import diskcache
except ImportError:
    try:
        import diskcache_community as diskcache
    except ImportError as _error:
        raise ImportError(
            "a cache on disk needs the diskcache package, or its fork diskcache-community: "
            "pip install 'diskcache>=5.6.3,<6' platformdirs",
            name="diskcache",
        ) from _error

from opero.exceptions import UnsafePlaceError, describe
from opero.logs import warn
from opero.private_places import closed_directory, private_file
from opero.real_time import monotonic

from .connections import Connection, connect, enter, visiting
from .turns import Turns

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LONGEST: Final = 5.0
"""Seconds after which SQLite gives up any operation."""

IDLE: Final = 8
"""How many idle connections to keep."""

CHECKPOINT: Final = 4 << 20
"""The size of the log, in bytes, at which to empty it; less if the limit is below 32 MiB."""

PATIENCE: Final = 0.1
"""Seconds that a checkpoint waits for readers while the log may still grow further."""

LEAST: Final = 512 << 10
"""The lowest limit in bytes, which an empty database and its log need; lower ones are raised."""

PAGE: Final = 4096
"""The size of a page in a new SQLite database, in bytes."""

_NEW: Final = "cache.new-"
_ASIDE: Final = "cache.db.damaged-"

_SETTINGS: Final[dict[str, Any]] = {
    "eviction_policy": "least-recently-stored",
    "sqlite_auto_vacuum": 2,
    "sqlite_journal_mode": "wal",
}

_PRAGMAS: Final = (
    "PRAGMA trusted_schema = OFF",  # the schema must not run functions with side effects
    "PRAGMA cell_size_check = ON",
    "PRAGMA mmap_size = 0",  # a page that changes while it is read must not crash the process
    "PRAGMA synchronous = NORMAL",
    "PRAGMA cache_size = 8192",
    "PRAGMA secure_delete = OFF",  # Debian turns it on, which would write removed data twice
    "PRAGMA wal_autocheckpoint = 0",  # see above
)

_COLUMNS: Final = (
    "SELECT rowid, key, raw, store_time, expire_time, mode, filename, value FROM Cache LIMIT 0"
)

_BUSY: Final = 5
_ERROR: Final = 1
"""SQLite's codes for a lock held elsewhere, and for a statement that does not fit the schema."""

_DAMAGE: Final = ("no such", "table ", "views ", "cannot modify", "Could not decode", "malformed")


_T = TypeVar("_T")


class TamperedError(Exception):
    """The database holds something that opero did not write, so opero did not read further."""


class RenewedError(Exception):
    """The database was damaged, and a new one has replaced it."""


class LockedError(sqlite3.OperationalError):
    """Another thread or process still uses the database."""

    sqlite_errorcode = _BUSY


class Database:
    """The file, its log, and a few idle connections.

    Attributes:
        room: The greatest size of the file in bytes; None for no bound.
        log: The greatest size of its log in bytes; None for no bound.
        page: The size of a page in bytes.
    """

    def __init__(self, directory: Path, size_limit: int | None, timeout: float) -> None:
        """Set the place; nothing is opened yet.

        Args:
            directory: The directory; created, for its owner only, if it does not exist.
            size_limit: The greatest size of all files together in bytes; None for no bound.
            timeout: Seconds to wait for another process's write to end.
        """
        self._directory = directory
        self._path = directory / "cache.db"
        self._log_path = directory / "cache.db-wal"
        self._timeout = timeout
        self._limit = size_limit
        self.room: int | None = None
        self.log: int | None = None
        self._checkpoint = CHECKPOINT
        if size_limit is not None:
            limit = self._limit = max(size_limit, LEAST)
            self.log = limit // 4 + limit // 128 + 24 * PAGE  # an entry of a quarter, and pages
            self.room = limit - self.log - limit // 256 - 2 * PAGE * 4  # its index in memory
            self._checkpoint = min(CHECKPOINT, limit // 8)
        self._next = self._checkpoint
        self.page: int = PAGE
        self._prepared: tuple[int, int] | None = None
        self._idle: deque[Connection] = deque()
        self._turns = Turns()
        weakref.finalize(self, _close_all, self._idle)

    # --- connections ----------------------------------------------------------------------------

    def borrow(self) -> Connection:
        """Return an idle connection to the current file, or a new one."""
        found = _identity_of(self._path)
        while True:
            connection = enter(self._take)
            if connection is None:
                break
            if connection.file == found:
                connection.until[0] = monotonic() + LONGEST
                return connection  # type: ignore[no-any-return]
            connection.leave()
        if found is None or found != self._prepared:
            with self._locked():
                return self._connect(prepare=True)
        return self._connect(prepare=False)

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not (connection.closed or connection.inherited):
                connection.user = get_ident()
                return connection
        return None

    def give_back(self, connection: Connection) -> None:
        """Return a connection, so that another thread can use it."""
        if len(self._idle) < IDLE and not connection.inherited:
            connection.user = 0
            self._idle.append(connection)
        else:
            connection.leave()

    def give_up(self, connection: Connection, error: BaseException) -> None:
        """Close a connection after a failure.

        Raises:
            RenewedError: If the database was damaged and a new one has replaced it.
        """
        connection.leave()
        if _is_damage(error) and self._set_aside(connection.file, error):
            raise RenewedError from error

    def close(self) -> None:
        """Close the idle connections."""
        _close_all(self._idle)

    def _connect(self, *, prepare: bool) -> Connection:
        file = self._find_file()
        url = f"{self._path.as_uri()}?mode=rw"  # does not create the file if it is gone by now
        connection = connect(url, self._timeout)
        try:
            connection.file = file
            connection.until[0] = monotonic() + LONGEST
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            if prepare:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(_COLUMNS)
                ((page,),) = connection.execute("PRAGMA page_size").fetchall()
                self.page = page
                self._tidy_directory()
                self._prepared = file
            connection.execute("PRAGMA busy_timeout = 0")  # `patiently` waits
        except BaseException as error:
            connection.leave()
            if _is_damage(error) and self._set_aside(file, error, locked=prepare):
                raise RenewedError from error
            raise
        return connection

    # --- transactions ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self, connection: Connection, need: int) -> Iterator[None]:
        """Begin a transaction when the log has room; a failure inside rolls it back.

        Args:
            connection: A connection of this database.
            need: About how many bytes will be written.
        """
        end = monotonic() + self._timeout
        if not self._turns.take(connection, self._timeout):
            raise LockedError("the database is locked by another thread")
        try:
            patiently(lambda: self._begin(connection, need), end)
            try:
                yield
                if connection.inherited:
                    raise OSError("the process was forked in the middle of a transaction")
                connection.execute("COMMIT")
            except BaseException:
                if not connection.inherited:
                    with contextlib.suppress(sqlite3.Error):  # it is closed after this
                        connection.execute("ROLLBACK")
                raise
        finally:
            self._turns.give(connection)

    def _begin(self, connection: Connection, need: int) -> None:
        """Begin a transaction; if the log has grown large, empty it first."""
        while True:
            connection.execute("BEGIN IMMEDIATE")
            size = self._log_size()
            full = self.log is not None and size > max(0, self.log - need)
            if size <= self._next and not full:
                return
            connection.execute("ROLLBACK")
            emptied = self._empty_log(connection)
            self._next = self._checkpoint if emptied else size + self._checkpoint
            if emptied:
                self._tidy_directory()
                with contextlib.suppress(sqlite3.OperationalError):  # the disk is full
                    self._shrink(connection)
            elif full:
                raise LockedError("the log of the database is full, and a reader still needs it")

    def _log_size(self) -> int:
        try:
            return os.stat(self._log_path).st_size  # noqa: PTH116 - faster
        except FileNotFoundError:
            return 0

    def _empty_log(self, connection: Connection) -> bool:
        """Copy the log to the file and empty the log; return whether it worked."""
        connection.execute(f"PRAGMA busy_timeout = {PATIENCE * 1000:.0f}")
        try:
            ((busy, *_),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.OperationalError:  # the disk is full or fails
            return False
        finally:
            connection.execute("PRAGMA busy_timeout = 0")
        return not busy

    def shrink(self, connection: Connection) -> None:
        """Return unused space to the system, as time allows."""
        end = monotonic() + self._timeout
        while self._shrink(connection) and monotonic() < end:
            if not self._empty_log(connection):
                return

    def _shrink(self, connection: Connection) -> bool:
        """Shrink the file by as much as the log can take; return whether it shrank."""
        pages, free = self.pages(connection)
        too_large = self.room is not None and pages * self.page > self.room
        if free < (1 if too_large else max(64, pages // 4)):
            return False
        step = self._checkpoint // (3 * self.page)  # moving a page changes two others
        count = free if pages - free <= step else min(free, step)
        connection.executescript(f"PRAGMA incremental_vacuum({count})")  # runs it to the end
        return True

    @staticmethod
    def pages(connection: Connection) -> tuple[int, int]:
        """Return how many pages the file has, and how many of them are free."""
        ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
        ((free,),) = connection.execute("PRAGMA freelist_count").fetchall()
        return pages, free

    # --- files ----------------------------------------------------------------------------------

    def _find_file(self) -> tuple[int, int]:
        """Create the database if it is missing, make it private, and return its identity."""
        self._make_directory()
        try:
            status = os.lstat(self._path)
        except FileNotFoundError:
            self._make_file()
            status = os.lstat(self._path)
        if not stat.S_ISREG(status.st_mode):
            raise TamperedError(f"{self._path} is not a regular file")
        _check_owner(self._path, status)
        if stat.S_IMODE(status.st_mode) != 0o600 and os.name == "posix":
            self._path.chmod(0o600)
        return _identity(status)

    def _make_file(self) -> None:
        """Let diskcache create a database elsewhere, and move it to its place."""
        for left in self._directory.glob(f"{_NEW}*"):  # left by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        here: Path | None = self._directory
        if os.path.expandvars(self._directory) != str(self._directory):
            here = None  # diskcache would expand it too
        with tempfile.TemporaryDirectory(prefix=_NEW, dir=here) as name:
            new = Path(name, "cache.db")
            new.parent.chmod(0o700)  # whatever the umask
            new.touch()
            new.chmod(0o600)
            made = diskcache.Cache.__new__(diskcache.Cache)
            with visiting():
                try:
                    made.__init__(name, timeout=self._timeout, **_SETTINGS)
                finally:  # if the disk is full, it is still open
                    with contextlib.suppress(AttributeError):
                        made.close()
            shutil.move(new, self._path)

    def _make_directory(self) -> None:
        """Create the directory again, for its owner only, if it was deleted."""
        try:
            closed_directory(self._directory, "the cache directory", "remove it")
        except UnsafePlaceError as error:  # it exists, but has been changed since
            raise TamperedError(str(error)) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let only one process at a time create or rename a database."""
        if fcntl is None:
            yield
            return
        self._make_directory()
        lock = private_file(self._directory / "cache.lock", "the lock of the cache", "remove it")
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
            fcntl.flock(lock, fcntl.LOCK_UN)  # a child forked meanwhile holds it too
        finally:
            os.close(lock)

    def _set_aside(
        self, file: tuple[int, int], error: BaseException, *, locked: bool = False
    ) -> bool:
        """Rename a damaged database, unless another process did; return whether it is gone."""
        aside = self._path.with_name(f"{_ASIDE}{time.time_ns():x}-{os.getpid()}")
        try:
            with contextlib.nullcontext() if locked else self._locked():
                if _identity_of(self._path) != file:
                    return True
                self._remove_aside()
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

    def _tidy_directory(self) -> None:
        """Remove the damaged database that was kept, if there is no longer room for it."""
        if self._limit is not None:
            with contextlib.suppress(OSError):
                files = [entry.stat().st_size for entry in os.scandir(self._directory)]
                if sum(files) + self._checkpoint > self._limit:
                    self._remove_aside()

    def _remove_aside(self) -> None:
        for path in self._directory.glob(f"{_ASIDE}*"):
            with contextlib.suppress(OSError):
                path.unlink()


def patiently(work: Callable[[], _T], end: float) -> _T:
    """Repeat an operation until the database is no longer locked.

    SQLite's own waits grow to a tenth of a second between two attempts: when many processes write
    all the time, some of them would get no turn for seconds.

    Args:
        work: The operation; raises sqlite3.OperationalError if the database is locked.
        end: The monotonic time after which to raise that error.
    """
    pause = 0.0
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            if _code(error) != _BUSY or monotonic() >= end:
                raise
        pause = min(pause + 0.0005, 0.002)
        time.sleep(pause * (0.5 + random()))


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's code for an error."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return int(code) & 0xFF
    text = str(error)  # on PyPy
    return _BUSY if "locked" in text else _ERROR if text.startswith(_DAMAGE) else 0


def _close_all(idle: deque[Connection]) -> None:
    while True:
        try:
            connection = idle.pop()
        except IndexError:
            return
        connection.leave()


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
    """Return whether an error means that the file is not an intact diskcache database."""
    if type(error) is sqlite3.DatabaseError:  # malformed, or not a database
        return True
    if not isinstance(error, sqlite3.OperationalError):
        return False
    return _code(error) == _ERROR
