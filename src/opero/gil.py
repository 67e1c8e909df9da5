"""Whether threads run at the same time, or take turns under the interpreter's lock (the GIL).

This is a property of the build, not of the moment: a free-threaded interpreter that turned its lock
on for an import turns it off again without notice.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FREE_THREADED = "free-threading" in sys.version
"""Whether this interpreter was built to run without the lock, as `sys.version` says since 3.13."""


def look_up(table: dict[Any, Any], key: Any) -> Any:
    """Return the value of a key, or None, in a dict that other threads change.

    Compiled modules have this in C (`_compiled/gil.pxd`). Cython's code for `table.get` takes the
    reference a moment after the look-up; without the lock, another thread may have freed the
    object by then.
    """
    return table.get(key)
