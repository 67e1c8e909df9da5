"""How many machine instructions one call takes, counted by callgrind instead of timed.

Counts do not wobble with the load of the machine: two runs differ by a fraction of a percent. One
process under callgrind runs every loop; `os.getppid` is the marker between them, because callgrind
can write its counters out and zero them whenever a C function of a given name is entered:

    warm up   | n calls |  2n calls |  next side ...
              ^ mark    ^ mark      ^ mark

What one call takes is the difference between the two loops divided by n; starting Python, importing
and warming up fall before the first mark, and the marker and the loop's set-up cancel.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .measure import EMPTY, event_loop, quiet
from .rows import CallRow

_WARM_UP = 1_500
"""Calls before the first mark: enough to fill a cache of 1,024 entries and specialise the loop."""

_CALLS = 500
_MARKER = "getppid"


class CountingError(RuntimeError):
    """Callgrind did not run or did not deliver what was asked of it."""


def missing() -> str | None:
    """Why instructions cannot be counted here, or None if they can."""
    if not sys.platform.startswith("linux"):
        return f"instructions are counted on Linux only, this is {sys.platform}"
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    return None


def run_loops(rows: Iterable[CallRow]) -> list[list[str]]:
    """Runs every loop of the rows with marks between them; the part that callgrind watches.

    Args:
        rows: What to run.

    Returns:
        The row's and the side's name of every pair of loops, in the order in which they ran.
    """
    order = []
    mark = os.getppid
    with event_loop(), quiet():
        for row in rows:
            callables, _missing = row.sides()
            with row.during():
                for side, loop in row.loops(callables).items():
                    loop(_WARM_UP)
                    mark()
                    loop(_CALLS)
                    mark()
                    loop(2 * _CALLS)
                    mark()
                    order.append([row.name, side])
    return order


def count(arguments: Iterable[str]) -> dict[str, dict[str, float]]:
    """Counts the instructions of one call in a Python program that calls `run_loops`.

    Args:
        arguments: What follows `python` on the command line; the program prints the order as JSON.

    Returns:
        Instructions per call by row and side, the empty loop taken off.

    Raises:
        CountingError: valgrind failed, or its files do not match the loops.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "counts")
        command = [
            "valgrind",
            "--tool=callgrind",
            f"--dump-before={_MARKER}",
            f"--callgrind-out-file={out}",
            sys.executable,
            *arguments,
        ]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OPERO_REQUIRE_COMPILED": "1"}
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if ran.returncode != 0:
            raise CountingError(f"{' '.join(command)}\n{ran.stderr[-2000:]}")
        order = json.loads(ran.stdout)
        # Dump k holds what ran before mark k: three per side, the first of them all in between.
        totals = [_total(Path(f"{out}.{number + 1}")) for number in range(3 * len(order))]
    counted: dict[str, dict[str, float]] = {}
    for index, (row, side) in enumerate(order):
        short, long = totals[3 * index + 1], totals[3 * index + 2]
        counted.setdefault(row, {})[side] = (long - short) / _CALLS
    for sides in counted.values():
        empty = sides.pop(EMPTY)
        for side in sides:
            sides[side] -= empty
    return counted


def _total(dump: Path) -> int:
    try:
        found = re.search(r"^totals: (\d+)$", dump.read_text(encoding="utf-8"), re.MULTILINE)
    except FileNotFoundError:
        found = None
    if found is None:
        raise CountingError(f"callgrind wrote no totals at the mark that belongs to {dump.name}")
    return int(found[1])
