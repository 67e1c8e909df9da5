"""How a worker process starts: as in the standard library, except for what `posix` describes."""

from __future__ import annotations

import multiprocessing
import sys

METHODS = multiprocessing.get_all_start_methods()
DEFAULT = "forkserver" if "forkserver" in METHODS else "spawn"

if sys.platform == "win32":
    from .windows import Child, close_server, forget_server, launch
else:
    from .posix import Child, close_server, forget_server, launch

__all__ = ["DEFAULT", "METHODS", "Child", "close_server", "forget_server", "launch"]
