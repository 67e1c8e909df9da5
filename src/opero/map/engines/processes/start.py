"""How a worker process is started: as the standard library does it, but for what `posix` says."""

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
