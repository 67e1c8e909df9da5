"""Tells whether the extension modules of an editable install are those of the sources, by a stamp.

The stamp lies beside the extension modules of one Python, and tells the size, the dates and the
hash of each of them and of all that they are made from. `_finder.py` loads this file by its path at
each import of opero: it is short, and imports what is loaded anyway.
"""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES

SUFFIX = EXTENSION_SUFFIXES[0]
"""How the names of the extension modules of this Python end."""

CORE, COMPILED = "src/opero/core", "src/opero/_compiled"
FOR_ALL = ("setup.py", "build_backend/_compile.py")
"""What every extension module depends on, as it does on every `.pxd` file."""


def is_current(root: str) -> bool:
    """Tell whether every file that counts has the size and the dates that the stamp tells."""
    return {path: state for path, (_, state) in read(root).items()} == states(root)


def beside(root: str, ending: str) -> str:
    """Return the path of a file of this Python's own beside its extension modules."""
    return f"{root}/{COMPILED}/.{SUFFIX.rpartition('.')[0].strip('.') or 'python'}.{ending}"


def read(root: str) -> dict[str, tuple[str, str]]:
    """Return what the stamp tells of each file; nothing if there is none, or none that is whole."""
    try:
        with open(beside(root, "stamp"), encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(" ", 4) for line in file]
        return {path: (digest, f"{size} {m} {c}") for digest, size, m, c, path in lines}
    except (FileNotFoundError, ValueError):
        return {}


def states(root: str) -> dict[str, str]:
    """Return size and dates of every file that counts.

    A tool can set back when a file was modified, but hardly when it was changed: both are told.
    """
    found = {}
    for folder, endings in ((COMPILED, (SUFFIX, ".pxd", ".pyx")), (CORE, (".py",))):
        with os.scandir(f"{root}/{folder}") as entries:
            for entry in entries:
                name = entry.name
                if not name.endswith(endings) or name[0] == "." or name == "__init__.py":
                    continue
                if f"{COMPILED}/{name}x" not in found:  # else a twin in `.pyx` is compiled instead
                    found[f"{folder}/{name}"] = _state(entry.stat())
    for path in FOR_ALL:
        found[path] = _state(os.stat(f"{root}/{path}"))
    return found


def _state(stat: os.stat_result) -> str:
    """Return size and dates of a file as the stamp tells them."""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
