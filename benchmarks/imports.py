"""The rows of `import opero`: how long a fresh interpreter takes for it, and what it drags in.

The time is the processor's, not the clock's on the wall: on a quiet machine they are the same, and
on a busy one only the former is about the import.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from .implementations import NAMES, Implementation
from .measure import Effort
from .rows import OPERO, Measured, Target, unavailable

HEAVY = ("asyncio", "cloudpickle", "diskcache", "redis", "tqdm", "uvloop")
"""What `import opero` must leave alone."""

PEERS = ("cachetools", "cachebox", "moka_py", "tenacity", "stamina", "backoff", "pyresilience")

SEEDS = ("asyncio", "http.server", "unittest.mock", "xml.dom.minidom", "sqlite3", "ensurepip")
"""Standard modules for the seeded regression of the import rows."""

_PROGRAM = """
import sys
from time import process_time_ns
sys.path[:] = {path!r}
start = process_time_ns()
import {modules}
took = process_time_ns() - start
print(took, *(name for name in {heavy!r} if name in sys.modules))
"""


def _fresh_import(modules: str, implementation: str = "compiled") -> tuple[int, list[str]]:
    """Imports a module in an interpreter of its own.

    Args:
        modules: What to import, separated by commas.
        implementation: Which core opero is told to choose.

    Returns:
        Nanoseconds of processor time, and the heavy modules that came along.

    Raises:
        ImportError: A module is not installed.
    """
    program = _PROGRAM.format(
        path=[entry or str(Path.cwd()) for entry in sys.path], modules=modules, heavy=HEAVY
    )
    environment = dict(os.environ)
    environment["OPERO_PURE_PYTHON"] = "1" if implementation == "plain" else "0"
    environment["OPERO_REQUIRE_COMPILED"] = "0" if implementation == "plain" else "1"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if ran.returncode != 0:
        raise ImportError(ran.stderr.strip().rpartition("\n")[2])
    took, *heavy = ran.stdout.split()
    return int(took), heavy


@dataclass(frozen=True)
class ImportRow:
    """`import opero` against the imports of its peers, in milliseconds.

    Args:
        modules: What opero's side imports; more than opero is a seeded regression.
        implementations: The halves of opero that take part.
        peers: The modules that the other sides import.
    """

    modules: str = "opero"
    implementations: tuple[Implementation, ...] = NAMES
    peers: tuple[str, ...] = PEERS
    name: str = "import opero"
    unit: str = "ms"
    targets: tuple[Target, ...] = (Target("", 25.0),)

    def against(self, *names: str) -> ImportRow:
        """The same row with the compiled half and only the named peers, for a gate."""
        peers = tuple(peer for peer in self.peers if peer in names)
        return replace(self, peers=peers, implementations=("compiled",))

    def slowed(self, calls: int) -> ImportRow:
        """The same row with a regression in it: opero drags the first `calls` of `SEEDS` in."""
        return replace(self, modules=", ".join(("opero", *SEEDS[:calls])))

    def measure(self, effort: Effort) -> Measured:
        """Takes the fastest of several fresh interpreters per side, in turns."""
        missing = {f"opero {name}": reason for name, reason in unavailable().items()}
        sides: dict[str, tuple[str, Implementation]] = {
            name: (self.modules, how)
            for name, how in OPERO.items()
            if how in self.implementations and name not in missing
        }
        sides.update((peer, (peer, "compiled")) for peer in self.peers)
        best: dict[str, float] = {}
        for _ in range(max(1, min(10, effort.rounds // 4))):
            for side, (modules, implementation) in sides.items():
                if side in missing:
                    continue
                try:
                    took, _heavy = _fresh_import(modules, implementation)
                except ImportError as error:
                    missing[side] = str(error)
                    continue
                best[side] = min(best.get(side, float("inf")), took / 1e6)
        return Measured(best, missing)


@dataclass(frozen=True)
class HeavyRow:
    """How many heavy modules `import opero` brings into an interpreter.

    Args:
        modules: What is imported; more than opero is a seeded regression.
        implementations: The halves of opero that take part.
    """

    modules: str = "opero"
    implementations: tuple[Implementation, ...] = NAMES
    name: str = "import opero: heavy modules"
    unit: str = "modules"
    targets: tuple[Target, ...] = (Target("", 0.0),)

    def against(self, *names: str) -> HeavyRow:
        """The same row with the compiled half only, for a gate."""
        return replace(self, implementations=("compiled",))

    def slowed(self, calls: int) -> HeavyRow:
        """The same row with a regression in it: opero drags the first `calls` of `SEEDS` in."""
        return replace(self, modules=", ".join(("opero", *SEEDS[:calls])))

    def measure(self, effort: Effort) -> Measured:
        """Counts them in one fresh interpreter per implementation."""
        missing = {f"opero {name}": reason for name, reason in unavailable().items()}
        figures = {
            side: float(len(_fresh_import(self.modules, implementation)[1]))
            for side, implementation in OPERO.items()
            if implementation in self.implementations and side not in missing
        }
        return Measured(figures, missing)


ROWS: tuple[ImportRow | HeavyRow, ...] = (ImportRow(), HeavyRow())
