"""Counts what a program holds and has started: files, threads, processes, things in shared places."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any


def relations() -> dict[int, tuple[int, str, str]]:
    """Return the parent, the state and the command line of every process."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(folder.name)] = int(parent), state, command
    return found


def offspring(root: int | None = None) -> dict[int, str]:
    """Return the state and the command of every process below one, dead ones too.

    Args:
        root: Which one; this one if it is None.
    """
    known = relations()
    family = {root or os.getpid()}
    size = 0
    while len(family) > size:
        size = len(family)
        family |= {pid for pid, (parent, _, _) in known.items() if parent in family}
    family.discard(root or os.getpid())
    return {pid: f"{known[pid][1]} {known[pid][2]}".rstrip() for pid in family}


def servants(family: dict[int, str]) -> dict[int, str]:
    """Return those of a family that the standard library keeps until the program ends."""
    names = ("forkserver import", "resource_tracker import")
    return {
        pid: what
        for pid, what in family.items()
        if what[0] != "Z" and any(name in what for name in names)
    }


def count() -> dict[str, Any]:
    """Count what this process holds and has started."""
    family = offspring()
    serving = servants(family)
    # what the fork server has forked bears its name
    eldest = {pid for pid in serving if relations().get(pid, (0,))[0] == os.getpid()}
    shared = [*Path("/dev/shm").iterdir()] if Path("/dev/shm").is_dir() else []
    places = [*shared, *Path(tempfile.gettempdir()).iterdir()]
    mine = f"pym-{os.getpid()}-"
    return {
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "processes": sorted(what for pid, what in family.items() if pid not in eldest),
        "places": sum(place.name.startswith(mine) for place in places),
    }
