"""The row of installing: how long `pip install .` takes in a checkout, compiler and all.

A copy of the sources is compiled in an isolated build environment, as pip does it, without ccache.
The time is that on the wall, as two cores need it. It asks for a quiet machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter_ns

from .measure import Effort
from .rows import COMPILED, Measured, Target

CHECKOUT = Path(__file__).resolve().parents[1]

_SOURCES = (
    "build_backend",
    "src",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "MANIFEST.in",
)
_BUILT = shutil.ignore_patterns("*.so", "*.c", "__pycache__", "*.egg-info")


def missing() -> str | None:
    """Why there is nothing to install or nothing to do it with, or None if there is."""
    if not all((CHECKOUT / name).exists() for name in _SOURCES):
        return "there are no sources beside the benchmarks"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "this Python has no headers"
    if find_spec("pip") is None:
        return "pip is not installed"
    return None


@dataclass(frozen=True)
class InstallRow:
    """Seconds of `pip install .`.

    Args:
        times: How often it is installed on the clock; more than once is a seeded regression.
    """

    times: int = 1
    name: str = "pip install ."
    unit: str = "s"
    targets: tuple[Target, ...] = (Target("", 60.0),)

    def against(self, *names: str) -> InstallRow:
        """The same row, which has no peers."""
        return self

    def slowed(self, calls: int) -> InstallRow:
        """The same row with a regression in it: it is installed more often."""
        return replace(self, times=1 + calls)

    def measure(self, effort: Effort) -> Measured:
        """Installs once, compiled."""
        reason = missing()
        if reason is not None:
            return Measured({}, {COMPILED: reason})
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "opero")
            source.mkdir()
            for name in _SOURCES:
                if (CHECKOUT / name).is_dir():
                    shutil.copytree(CHECKOUT / name, source / name, ignore=_BUILT)
                else:
                    shutil.copy(CHECKOUT / name, source)
            start = perf_counter_ns()
            for number in range(self.times):
                _install(source, Path(folder, f"installed-{number}"))
            return Measured({COMPILED: (perf_counter_ns() - start) / 1e9})


def _install(source: Path, target: Path) -> None:
    """Runs pip; what it installs goes to a folder of its own, without what opero depends on."""
    environment = {**os.environ, "CCACHE_DISABLE": "1", "OPERO_REQUIRE_COMPILED": "1"}
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["-C", "build=compiled", "--target", str(target), str(source)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{ran.stderr[-2000:]}")


ROWS: tuple[InstallRow, ...] = (InstallRow(),)
