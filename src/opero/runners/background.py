"""The threads in which values of ordinary functions are refreshed.

There are none until a value is to be refreshed, and each ends a little after its last refresh. What
there is no room for is dropped: the next hit asks again. They are daemons, so that a refresh that
hangs does not keep the program from ending.
"""

from __future__ import annotations

import atexit
import contextvars
import sys
import threading
from collections import deque
from typing import Any

from opero import forks
from opero.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .refreshes import Refresh

MOST_THREADS = 8
"""How many refreshes run at the same time, at most."""
MOST_OF_ONE = 4
"""How many of them may be of one function, so that a slow one leaves room for others."""
MOST_WAITING = 128
"""How many may wait for a thread."""

_LINGER = 0.5
"""How long a thread stays, in seconds, after its last refresh."""


class Background:
    """Threads that run refreshes."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: deque[Refresh] = deque()
        self._running: dict[Any, int] = {}
        self._threads: set[threading.Thread] = set()
        self._idle: list[Any] = []  # a bell for each thread that waits: a lock that is held
        self._closed = False

    def offer(self, refresh: Refresh) -> bool:
        """Run a refresh in the background, unless there is no room, or somebody has been quicker.

        Returns:
            Whether it has been taken.
        """
        with self._lock:
            if self._closed or len(self._waiting) >= MOST_WAITING:
                return False
            try:
                if not refresh.claim():
                    return False
                self._waiting.append(refresh)
                self._wake()
            except BaseException:  # interrupted, or no thread can be started
                if refresh in self._waiting:
                    self._waiting.remove(refresh)
                refresh.give_back()
                raise
        return True

    def _wake(self) -> None:
        """See to it that a thread looks for what waits."""
        if self._idle:
            self._idle.pop().release()
        elif len(self._threads) < MOST_THREADS:
            self._start()

    def close(self) -> None:
        """Begin nothing more, and let the threads end; what runs is left alone."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            while self._idle:
                self._idle.pop().release()

    def after_fork(self) -> None:
        """Forget, in a child process, what the parent's threads are at."""
        closed = self._closed
        self.__init__()  # type: ignore[misc]  # all of it belongs to the parent
        self._closed = closed

    def _start(self) -> None:
        options: dict[str, Any] = {}
        if sys.version_info >= (3, 14):  # a refresh brings its context along
            options["context"] = contextvars.Context()
        thread = threading.Thread(target=self._work, name="opero-refresh", daemon=True, **options)
        self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            if not thread.is_alive():  # it was not interrupted after that
                self._threads.discard(thread)
            raise

    def _work(self) -> None:
        """Run refreshes; this is what a thread does."""
        threads = self._threads
        refresh: Refresh | None
        try:
            while (refresh := self._next()) is not None:
                try:
                    refresh.context.run(refresh.lead)
                except Exception:  # noqa: BLE001 - telling of it may fail; no caller is there
                    pass
                finally:
                    self._done(refresh)
                    refresh = None  # it holds the arguments
        except BaseException:  # noqa: BLE001 - SystemExit, or what ends a greenlet: it ends this one
            pass
        finally:
            threads.discard(threading.current_thread())

    def _next(self) -> Refresh | None:
        """Return the next refresh; None if the thread is to end."""
        while True:
            with self._lock:
                found = self._take()
                if found is not None or self._closed:
                    return found
                bell = threading.Lock()  # that of gevent, where it has put its own there
                bell.acquire()
                self._idle.append(bell)
            if bell.acquire(timeout=_LINGER):
                continue
            with self._lock:
                try:
                    self._idle.remove(bell)
                except ValueError:  # it has been rung at the last moment
                    continue
                found = self._take()
                if found is None:
                    self._threads.discard(threading.current_thread())
                return found

    def _take(self) -> Refresh | None:
        """Take out the first refresh of a function of which not too many run."""
        for at, refresh in enumerate(self._waiting):
            running = self._running.get(refresh.call, 0)
            if running < MOST_OF_ONE:
                del self._waiting[at]
                self._running[refresh.call] = running + 1
                return refresh
        return None

    def _done(self, refresh: Refresh) -> None:
        with self._lock:
            running = self._running.get(refresh.call, 0) - 1
            if running > 0:
                self._running[refresh.call] = running
            else:
                self._running.pop(refresh.call, None)


background: Background = Background()
"""That of this process."""

forks.register("refreshes", after_in_child=background.after_fork)
atexit.register(background.close)
