"""Whether threads run at the same time, or take turns under the interpreter's lock (the GIL).

It is a property of the build, not of the moment: a free-threaded interpreter that has turned its
lock on for one import turns it off again, and never tells those who have asked before.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FREE_THREADED = "free-threading" in sys.version
"""Whether this interpreter was built to run without the lock, as `sys.version` says since 3.13."""


def look_up(table: dict[Any, Any], key: Any) -> Any:
    """Return what a dict that other threads change has under a key, or None.

    Compiled modules have this in C (`_compiled/gil.pxd`). What Cython makes of `table.get` counts
    the reference a moment after it has looked; without the lock, another thread may have freed the
    object by then.
    """
    return table.get(key)
