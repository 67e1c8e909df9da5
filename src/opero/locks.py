"""A lock that stays usable after Ctrl-C, another signal, or an exception sent to a thread.

Up to Python 3.13, `with lock:` acquires a lock and schedules its release in one step. Since 3.14
these are two steps, and an exception between them leaves a lock of the standard library locked
forever (https://github.com/python/cpython/issues/148874).
"""

from __future__ import annotations

import sys
import threading

if sys.version_info < (3, 14):
    Lock = threading.RLock
else:
    import _thread

    class Lock(_thread.RLock):  # type: ignore[misc]  # typeshed says that it is final
        """A reentrant lock for use with `with`."""

        __slots__ = ()

        _taken = property(_thread.RLock.__enter__)

        def __enter__(self) -> bool:  # type: ignore[override]  # `with` gives no arguments
            """Acquire it: unlike a call, an attribute read has no interrupt check after it."""
            return self._taken  # type: ignore[no-any-return]
