"""The threads of a process write to a database one after the other, and none waits for long.

SQLite lets one connection write, and all others poll. In one process, the thread that has just
written is the only one awake: it would keep writing, and the others would lose for seconds. Here it
may go on for `FAIR` seconds, since waking another thread for each value costs more than the value;
then the waiting threads get their turns in order.
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
"""Seconds that a thread waits before others may not go before it any more."""

LOOK = 0.05
"""Seconds after which a thread that waits looks whether an interrupted one has left its turn."""


class _Place:
    """The place of a thread among those who wait.

    Attributes:
        connection: What it writes with.
        bell: Released when the turn may be its own.
        first_at: The monotonic time from which nobody goes before it.
    """

    __slots__ = ("bell", "connection", "first_at")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.bell = threading.Lock()
        self.bell.acquire()
        self.first_at = monotonic() + FAIR


class Turns:
    """Whose turn it is. A connection that is closed has left: an interrupt leaves no turn taken."""

    def __init__(self) -> None:
        """It is nobody's."""
        self._lock = Lock()
        self._turn: Connection | None = None
        self._waiting: deque[_Place] = deque()

    def take(self, connection: Connection, timeout: float) -> bool:
        """Wait until it is this connection's turn.

        Args:
            connection: What the calling thread writes with.
            timeout: Seconds.

        Returns:
            Whether it is; False if the time is over.
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
