"""What a worker's surroundings are: where it finds modules and files, and its environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def surroundings() -> dict[str, Any]:
    """Return what a worker's surroundings should be, now that it works for this map."""
    try:
        folder = str(Path.cwd())
    except OSError:
        folder = None
    return {"path": list(map(str, sys.path)), "folder": folder, "environ": dict(os.environ)}


def take_on(seen: dict[str, Any]) -> None:
    """See the same modules, files and settings as the process that calls the map does now."""
    if sys.path != seen["path"]:
        sys.path[:] = seen["path"]
    try:
        if seen["folder"] is not None and str(Path.cwd()) != seen["folder"]:
            os.chdir(seen["folder"])
    except OSError:
        pass
    if dict(os.environ) != seen["environ"]:
        for name in set(os.environ) - set(seen["environ"]):
            del os.environ[name]
        os.environ.update(seen["environ"])
