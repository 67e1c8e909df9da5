"""A store that is out of order: one warning, few attempts, and back to work by itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

PROBE_FIRST: Final = 0.5
"""Seconds after its first failure until somebody tries the store again."""

PROBE_LAST: Final = 10.0
"""The longest that nobody tries it: each attempt that fails doubles the time up to this."""

_LOGGER: Final = logging.getLogger("opero")


class Outage:
    """Keeps callers away from a store that fails, and lets one through now and then to probe it.

    So a store that hangs costs one caller its time limit every `PROBE_FIRST` to `PROBE_LAST`
    seconds, and the others nothing. Threads and tasks may share one.

    Attributes:
        what: The store, as the log calls it.
        failures: Operations that failed or were skipped, in all.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Start in good order.

        Args:
            what: The store, such as "the redis cache at 127.0.0.1:6379"; it goes into the log.
            clock: Returns seconds.
        """
        self.what = what
        self.failures = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._out = False
        self._since = 0.0
        self._pause = 0.0
        self._probe_at = 0.0
        self._missed = 0

    def blocks(self) -> bool:
        """Tell whether to leave the store alone now, and count that as a failure.

        Who is told False tries it, and then calls `failed` or `worked`. During an outage one
        caller is told so when the time for a probe has come. If that one never reports, since it
        was cancelled, the next is let through as much later.
        """
        if not self._out:
            return False
        with self._lock:
            if not self._out:
                return False
            now = self._clock()
            if now >= self._probe_at:
                self._probe_at = now + self._pause
                return False
            self.failures += 1
            self._missed += 1
            return True

    def failed(self, error: Exception) -> None:
        """Take note that an operation failed; the first of an outage is a line in the log.

        Args:
            error: What was raised.
        """
        with self._lock:
            now = self._clock()
            first = not self._out
            self.failures += 1
            if first:
                self._out = True
                self._since = now
                self._missed = 0
                self._pause = PROBE_FIRST
                self._probe_at = now + PROBE_FIRST
            elif now >= self._probe_at - self._pause:
                pass
            self._missed += 1
        if first:
            _LOGGER.warning("x")

    def worked(self) -> None:
        """Take note that an operation succeeded; the first after an outage ends it."""
