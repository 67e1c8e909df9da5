"""Turns for the threads of a process to write to a database, so that none waits for long.

SQLite lets one connection write, while all others poll. In one process, the thread that has just
written is the only one awake: it would keep writing, and the others would wait for seconds. Here it
may continue for `FAIR` seconds, because waking another thread for each value costs more than the
value. Then the waiting threads get their turns in order.
"""

from __future__ import annotations

import threading
from collections import deque

from opero.locks import Lock
from opero.real_time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .connections import Connection

FAIR = 0.02
"""Seconds after which other threads may no longer go ahead of one that waits."""

LOOK = 0.05
"""Seconds after which a waiting thread checks whether an interrupted one has left its turn."""


class _Place:
    """The place of a thread among those that wait.

    Attributes:
        connection: The connection that it writes with.
        bell: Released when it may be this thread's turn.
        first_at: The monotonic time from which no other thread goes ahead of it.
    """

    __slots__ = ("bell", "connection", "first_at")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.bell = threading.Lock()
        self.bell.acquire()
        self.first_at = monotonic() + FAIR


class Turns:
    """Whose turn it is. Closing a connection ends its turn, so an interrupt leaves none taken."""

    def __init__(self) -> None:
        """It is nobody's."""
        self._lock = Lock()
        self._turn: Connection | None = None
        self._waiting: deque[_Place] = deque()

    def take(self, connection: Connection, timeout: float) -> bool:
        """Wait until it is this connection's turn.

        Args:
            connection: The connection that the calling thread writes with.
            timeout: How many seconds to wait.

        Returns:
            Whether the connection has its turn; False after the timeout.
        """
        with self._lock:
            if self._free() and not (self._waiting and monotonic() > self._waiting[0].first_at):
                self._turn = connection
                return True
            place = _Place(connection)
            self._waiting.append(place)
        end = monotonic() + timeout
        try:
            while not self._next(place):
                if monotonic() > end:
                    return False
                place.bell.acquire(timeout=LOOK)
            return True
        finally:
            with self._lock:
                if place in self._waiting:
                    self._waiting.remove(place)

    def give(self, connection: Connection) -> None:
        """End this connection's turn, if it has it."""
        with self._lock:
            if self._turn is connection:
                self._turn = None
                if self._waiting and self._waiting[0].bell.locked():
                    self._waiting[0].bell.release()

    def _next(self, place: _Place) -> bool:
        with self._lock:
            while self._waiting[0].connection.closed:
                self._waiting.popleft()
            if self._waiting[0] is not place or not self._free():
                return False
            self._waiting.popleft()
            self._turn = place.connection
            return True

    def _free(self) -> bool:
        return self._turn is None or self._turn.closed
