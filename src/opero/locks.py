"""A lock that no interrupt leaves taken: Ctrl-C, another signal, an exception sent to a thread.

Up to Python 3.13 `with lock:` takes a lock and sees to its release in one step. Since 3.14 these
are two, and an exception between them leaves a lock of the standard library taken for good
(https://github.com/python/cpython/issues/148874).
"""

from __future__ import annotations

import sys
import threading

if sys.version_info < (3, 14):
    Lock = threading.RLock
else:
    import _thread

    class Lock(_thread.RLock):  # type: ignore[misc]  # typeshed says that it is final
        """A reentrant lock, to be taken by `with`."""

        __slots__ = ()

        _taken = property(_thread.RLock.__enter__)

        def __enter__(self) -> bool:  # type: ignore[override]  # `with` gives no arguments
            """Take it: unlike a call, reading an attribute lets no interrupt in when it is done."""
            return self._taken  # type: ignore[no-any-return]
