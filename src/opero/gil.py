"""Whether threads run at the same time, or take turns under the interpreter's lock (the GIL).

It is a property of the build, not of the moment: a free-threaded interpreter that has turned its
lock on for one import turns it off again, and never tells those who have asked before.
"""

from __future__ import annotations

import sys

FREE_THREADED = "free-threading" in sys.version
"""Whether this interpreter was built to run without the lock, as `sys.version` says since 3.13."""


def is_off() -> bool:
    """Tell whether threads run without the lock at this moment."""
    return FREE_THREADED and not getattr(sys, "_is_gil_enabled", bool)()
