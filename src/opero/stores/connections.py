"""Connections to SQLite that are never in use while the process forks.

A child process inherits SQLite's state from the moment of the fork. A mutex that another thread
held then stays locked forever. SQLite also believes that it still holds its file locks, which the
child does not. So a fork waits until no thread is inside SQLite, then closes idle connections; a
thread that wants to use SQLite meanwhile waits for the fork. Both waits are bounded. If a thread
does not come out in time, or nobody called `_before_fork`, the child does not use SQLite, and its
caches on disk do not work.

The program may also have threads that use SQLite on their own, unknown to opero. So a child opens
its first connection in a separate thread. If that thread hangs, the child does not use SQLite
either.
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
"""Seconds that a fork waits for threads inside SQLite: longer than they wait for a lock."""

ENTRANCE_WAIT: Final = 10.0
"""Seconds that a thread outside SQLite waits for a fork to end."""


class Visit:
    """One use of SQLite, by one thread.

    Attributes:
        user: The thread that is inside SQLite; 0 for none.
    """

    user: int = 0

    def enter(self) -> None:
        """Enter SQLite, after any fork that is under way.

        Raises:
            OSError: If this thread is forking, the fork does not end, or this process must not use
                SQLite.
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
            connection.execute("SELECT randomblob(1)")  # takes a mutex that nothing else takes
        except BaseException as error:  # noqa: BLE001 - raised below
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
    """A connection that gives up operations that take too long.

    Attributes:
        until: A list with one item, the monotonic time at which the connection gives up.
        file: The device and inode of the file that it opened.
        closed: Whether it is closed.
        inherited: Whether a parent process opened it.
    """

    until: list[float]
    file: tuple[int, int] = (0, 0)
    closed: bool = False
    inherited: bool = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Open the connection and mark it as used."""
        self.until = [math.inf]
        self.enter()
        try:
            super().__init__(*arguments, **options)
            self.set_progress_handler(_alarm(self.until), 100_000)
        except BaseException:
            Visit.leave(self)
            raise

    def leave(self) -> None:
        """Close it, unless it belongs to the parent process, which closing would disturb."""
        if self.inherited or self.closed:
            return
        if self.user != get_ident():
            try:
                self.enter()
            except OSError:
                return  # the current fork closes it
        self.shut()

    def shut(self) -> None:
        """Close it; no other thread uses it."""
        self.closed = True
        self.close()
        Visit.leave(self)


def _alarm(until: list[float]) -> Callable[[], bool]:
    """Return a function that SQLite calls regularly to ask whether to stop, at `until[0]`.

    It consists of functions in C only. A Python function would let signal handlers run inside
    SQLite, which drops the exceptions they raise.
    """
    return map(operator.lt, map(until.__getitem__, repeat(0)), iter(monotonic, None)).__next__


@contextlib.contextmanager
def visiting() -> Iterator[None]:
    """Make forks wait while another library uses SQLite for opero."""
    visit = Visit()
    visit.enter()
    try:
        yield
    finally:
        visit.leave()


def enter(take: Callable[[], Any]) -> Any:
    """Take something to use, once no fork is under way.

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
"""Held for a few steps at a time, and never during a fork."""
_visits: weakref.WeakSet[Visit] = weakref.WeakSet()
"""Visits that are open or in use; those without references drop out."""
_forking: list[int] = []
"""The threads that are forking."""
_off: str | None = None
"""Why this process must not use SQLite, or None."""
_proven = True
"""Whether it is certain that no thread of the parent process left a mutex of SQLite locked."""
_inherited: list[Visit] = []

_WHY: Final = (
    "this process was forked while SQLite was in use, and would hang or do damage with it: "
    "fork earlier, or start processes by 'spawn' or 'forkserver'"
)


def _before_fork() -> None:
    """Wait for threads inside SQLite, and close what a child must neither use nor close."""
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
    """Keep a connection open forever, even past the end of the interpreter."""
    _inherited.append(connection)
    with contextlib.suppress(ImportError, AttributeError):
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
