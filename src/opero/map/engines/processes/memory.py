"""How much resident memory a process has, including pages that it shares with others."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS = Path("/proc/self/statm")

if _STATUS.exists():
    import resource

    MEASURED = True
    _PAGE = resource.getpagesize()

    def resident() -> int:
        """Return how many bytes of this process are in memory."""
        return int(_STATUS.read_bytes().split()[1]) * _PAGE

elif sys.platform != "win32":
    import resource

    MEASURED = True
    _UNIT = 1 if sys.platform == "darwin" else 1024

    def resident() -> int:
        """Return the most bytes of this process that have been in memory."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT

else:
    MEASURED = False

    def resident() -> int:
        """Return 0: this system does not report it."""
        return 0
