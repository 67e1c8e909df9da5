"""The threads that refresh values of ordinary functions.

If there is no room for a refresh, it is dropped: the next hit asks again.
"""

from __future__ import annotations

import atexit
from typing import Any

from opero import forks

from .daemon_threads import DaemonThreads
from .refreshes import Refresh

MOST_THREADS = 8
"""The most refreshes that run at the same time."""
MOST_OF_ONE = 4
"""The most of these for one function, so that a slow function leaves room for others."""
MOST_WAITING = 128
"""The most refreshes that may wait for a thread."""


class Background(DaemonThreads[Refresh]):
    """Threads that run refreshes."""

    def __init__(self) -> None:
        super().__init__("opero-refresh", MOST_THREADS)
        self._running: dict[Any, int] = {}

    def offer(self, refresh: Refresh) -> bool:
        """Run a refresh in the background, if there is room and no other is under way.

        Returns:
            Whether it was accepted.
        """
        offered = False
        try:
            with self._lock:
                if self._closed or len(self._waiting) >= MOST_WAITING or not refresh.claim():
                    return False
                starts = self._enqueue(refresh)
                offered = True
            if starts:
                self._start()
        except BaseException:  # interrupted, or no thread can be started
            if self._withdraw(refresh) or not offered:
                refresh.give_back()
            raise
        return True

    def after_fork(self) -> None:
        """Forget the jobs of the parent's threads in a child process."""
        super().after_fork()
        self._running = {}

    def carry_out(self, job: Refresh) -> None:
        """Run a refresh."""
        try:
            job.context.run(job.lead)
        finally:
            self._done(job)

    def take(self) -> Refresh | None:
        """Take out the first refresh whose function does not have too many running."""
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
"""The background threads of this process."""

forks.register("refreshes", after_in_child=background.after_fork)
atexit.register(background.close)
