"""Connections to SQLite, none of which is in use while the process forks.

A child process gets SQLite as it was at the fork. A mutex that another thread held then stays
taken for good, and so does every lock on a file that SQLite remembers to have, though the child
does not have it. So a fork waits until no thread is inside SQLite and closes what is idle, and
a thread that wants in meanwhile waits for the fork. Both waits are bounded: if a thread does not
come out in time, or nobody called `_before_fork`, the child leaves SQLite alone, and its caches on
disk are out of order.

The program may have threads that use SQLite in their own way, and nobody sees those. So a child
opens its first connection in a thread of its own. If that does not come back, the child leaves
SQLite alone, too.
"""

from __future__ import annotations

import contextlib
import math
import operator
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from itertools import repeat
from threading import get_ident
from typing import Any, Final

from opero import forks
from opero.locks import Lock
from opero.real_time import monotonic

FORK_WAIT: Final = 3.0
"""Seconds that a fork waits for threads inside SQLite: longer than these wait for a lock."""

ENTRANCE_WAIT: Final = 10.0
"""Seconds that a thread waits outside for a fork to end."""


class Visit:
    """One use of SQLite, by one thread.

    Attributes:
        user: The thread that is inside; 0 for none.
    """

    user: int = 0

    def enter(self) -> None:
        """Go in, after any fork that is under way.

        Raises:
            OSError: If this thread forks, or the fork does not end, or this process must not.
        """
        enter(lambda: _take(self))

    def leave(self) -> None:
        """Come out again."""
        with _lock:
            _visits.discard(self)


def connect(url: str, timeout: float) -> Connection:
    """Open a connection.

    Args:
        url: The file.
        timeout: Seconds to wait for others while it is opened.

    Raises:
        OSError: As `Visit.enter`, or if SQLite hangs in this child process.
        sqlite3.Error: If it cannot be opened.
    """
    global _proven, _off  # noqa: PLW0603 - of this process
    if _proven:
        return _open(url, timeout)
    outcome: list[Connection | BaseException] = []

    def work() -> None:
        try:
            connection = _open(url, timeout)
            connection.execute("SELECT randomblob(1)")  # which has a mutex of its own
        except BaseException as error:  # noqa: BLE001 - it is raised below
            outcome.append(error)
        else:
            outcome.append(connection)

    thread = threading.Thread(target=work, name="opero-sqlite", daemon=True)
    thread.start()
    thread.join(FORK_WAIT)
    if not outcome:
        _off = _WHY
        raise OSError(_off)
    _proven = True
    (found,) = outcome
    if isinstance(found, BaseException):
        raise found
    found.user = get_ident()
    return found


def _open(url: str, timeout: float) -> Connection:
    return sqlite3.connect(
        url,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
        uri=True,
    )


class Connection(sqlite3.Connection, Visit):
    """A connection that gives up what takes too long.

    Attributes:
        until: The monotonic time at which it gives up, alone in a list.
        file: The device and inode of the file that it opened.
        closed: Whether it is.
        inherited: Whether a parent process opened it.
    """

    until: list[float]
    file: tuple[int, int] = (0, 0)
    closed: bool = False
    inherited: bool = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Open it, and use it."""
        self.until = [math.inf]
        self.enter()
        try:
            super().__init__(*arguments, **options)
            self.set_progress_handler(_alarm(self.until), 100_000)
        except BaseException:
            Visit.leave(self)
            raise

    def leave(self) -> None:
        """Close it, unless it is the parent process's: that would disturb the parent."""
        if self.inherited or self.closed:
            return
        if self.user != get_ident():
            try:
                self.enter()
            except OSError:
                return  # the fork that is under way closes it
        self.shut()

    def shut(self) -> None:
        """Close it; nobody else uses it."""
        self.closed = True
        self.close()
        Visit.leave(self)


def _alarm(until: list[float]) -> Callable[[], bool]:
    """Make what SQLite asks now and then whether to stop: whether it is later than `until[0]`.

    It is made of functions in C alone. One in Python would let signal handlers run inside SQLite,
    which drops what they raise.
    """
    return map(operator.lt, map(until.__getitem__, repeat(0)), iter(monotonic, None)).__next__


@contextlib.contextmanager
def visiting() -> Iterator[None]:
    """Have no fork meanwhile: another library uses SQLite for us."""
    visit = Visit()
    visit.enter()
    try:
        yield
    finally:
        visit.leave()


def enter(take: Callable[[], Any]) -> Any:
    """Take what is going to be used, when no fork is under way.

    Args:
        take: Marks it as used; called under a lock.

    Returns:
        What `take` returns.

    Raises:
        OSError: As `Visit.enter`.
    """
    end = 0.0
    while True:
        with _lock:
            if not _forking and _off is None:
                return take()
        if _off is not None:
            raise OSError(_off)
        now = monotonic()
        end = end or now + ENTRANCE_WAIT
        if get_ident() in _forking or now > end:
            raise OSError("the process is being forked")
        time.sleep(0.001)


def _take(visit: Visit) -> None:
    visit.user = get_ident()
    _visits.add(visit)


_lock = Lock()
"""Held for a few steps at a time, and never over a fork."""
_visits: weakref.WeakSet[Visit] = weakref.WeakSet()
"""What is open or in use; what nobody holds any more goes by itself."""
_forking: list[int] = []
"""The threads that fork."""
_off: str | None = None
"""Why this process leaves SQLite alone, or None."""
_proven = True
"""Whether no mutex of SQLite can be one that a thread of the parent process has left taken."""
_inherited: list[Visit] = []

_WHY: Final = (
    "this process was forked while SQLite was in use, and would hang or do damage with it: "
    "fork earlier, or start processes by 'spawn' or 'forkserver'"
)


def _before_fork() -> None:
    """Wait for the threads that are inside, and close what a child must neither use nor close."""
    me = get_ident()
    with _lock:
        _forking.append(me)
    end = monotonic() + FORK_WAIT
    while True:
        with _lock:
            visits = list(_visits)
        inside = False
        for visit in visits:
            if visit.user not in {0, me}:
                inside = True
            elif isinstance(visit, Connection) and not visit.user:
                visit.shut()
        if not inside or _off is not None or monotonic() > end:
            return
        time.sleep(0.001)


def _after_in_parent() -> None:
    with _lock:
        if get_ident() in _forking:
            _forking.remove(get_ident())


def _after_in_child() -> None:
    global _lock, _off, _proven, _visits  # noqa: PLW0603 - those of this process
    _lock = Lock()  # another thread may have held the old one
    _proven = False
    _forking.clear()
    inherited, _visits = list(_visits), weakref.WeakSet()
    if not inherited:
        return
    _off = _WHY
    for visit in inherited:
        if isinstance(visit, Connection):
            visit.inherited = True
            _forget(visit)


forks.register(
    "stores",
    before=_before_fork,
    after_in_parent=_after_in_parent,
    after_in_child=_after_in_child,
)


def _forget(connection: Connection) -> None:
    """Keep a connection open for good, past the interpreter's end."""
    _inherited.append(connection)
    with contextlib.suppress(ImportError, AttributeError):
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
