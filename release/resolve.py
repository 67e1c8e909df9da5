"""Checks that pip finds a wheel of everything that opero requires, wherever opero's own wheel goes.

    python -m release.resolve WHEEL...

A wheel spares people a compiler only if all that it requires has wheels too. So for each Python and
each platform that a wheel is for, pip resolves its requirements from wheels alone, as on the oldest
system of that platform. Nothing is installed, and you need none of those Pythons; the check
needs the network, or the index that pip is configured for.

pip evaluates markers for the Python that runs it. So this evaluates those of opero for the target.
What opero requires is pure Python or requires nothing itself, so no other marker counts.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.parser import HeaderParser
from itertools import product
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

from .identifiers import PYTHONS

EXTRAS = ("", "disk", "redis")
"""The extras whose requirements are resolved too, and none."""

ANY_PYTHON = (*PYTHONS, "pp311")
"""Where the wheel for any platform goes; there is no compiled wheel for the last one."""

OLDEST_GLIBC = 28
"""The minor version of the oldest glibc 2 that compiled wheels are for: cibuildwheel's default."""

SYSTEMS = {
    "manylinux": ("linux", ("x86_64", "aarch64")),
    "musllinux": ("linux", ("x86_64", "aarch64")),
    "macosx": ("darwin", ("arm64", "x86_64")),
    "win": ("win32", ("amd64",)),
}
"""For the first word of a platform tag: `sys_platform`, and the machines that have wheels."""

PATIENCE = 180
"""Seconds after which pip is taken to hang."""


class Target(NamedTuple):
    """A Python on a platform.

    Attributes:
        python: Its tag with a "t" if it is free-threaded, as in "cp314t" or "pp311".
        system: The first word of the platform tag, a key of `SYSTEMS`.
        machine: The rest of it, as in "x86_64".
    """

    python: str
    system: str
    machine: str

    @property
    def version(self) -> str:
        """The version, as in "3.14"."""
        digits = self.python[2:].rstrip("t")
        return f"{digits[0]}.{digits[1:]}"

    @property
    def is_cpython(self) -> bool:
        """Whether it is CPython."""
        return self.python.startswith("cp")

    def platforms(self) -> list[str]:
        """Return the tags of the wheels that its oldest system takes, the best first."""
        if self.system == "manylinux":
            glibcs = range(OLDEST_GLIBC, 4 if self.machine == "x86_64" else 16, -1)
            old = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
            names = [(f"manylinux_2_{minor}", old.get(minor, "")) for minor in glibcs]
            return [f"{name}_{self.machine}" for pair in names for name in pair if name]
        if self.system == "musllinux":
            return [f"musllinux_1_{minor}_{self.machine}" for minor in (2, 1, 0)]
        if self.system == "macosx":
            return [f"macosx_15_0_{self.machine}"]  # pip adds those of older systems
        return [f"{self.system}_{self.machine}"]

    def pip_options(self) -> list[str]:
        """Return what makes pip resolve for it."""
        if self.is_cpython:
            abis = [self.python, *([] if self.python.endswith("t") else ["abi3"]), "none"]
        else:
            abis = [f"pypy{self.python[2:]}_pp73", "none"]
        options = ["--implementation", self.python[:2], "--python-version", self.version]
        for name, values in (("--abi", abis), ("--platform", self.platforms())):
            options += [word for value in values for word in (name, value)]
        return options

    def environment(self) -> dict[str, str]:
        """Return the values of the markers that opero's requirements ask for."""
        return {
            "python_version": self.version,
            "platform_python_implementation": "CPython" if self.is_cpython else "PyPy",
            "sys_platform": SYSTEMS[self.system][0],
        }


def targets(wheel: str) -> list[Target]:
    """Return where a wheel goes, by its name."""
    tags = parse_wheel_filename(wheel)[3]
    if any(tag.platform == "any" for tag in tags):
        found = [
            Target(python, system, machine)
            for system, (_, machines) in SYSTEMS.items()
            for python, machine in product(ANY_PYTHON, machines)
        ]
        # PyPy has no build for musl, where xxhash has no wheels for it.
        return [each for each in found if each.is_cpython or each.system != "musllinux"]
    found = []
    for tag in tags:
        system = next((name for name in SYSTEMS if tag.platform.startswith(name)), "manylinux")
        machines = SYSTEMS[system][1]
        found += [Target(tag.abi, system, each) for each in machines if tag.platform.endswith(each)]
    return sorted(set(found))


def requirements(wheel: Path, target: Target) -> list[str]:
    """Return what a wheel requires of a target, without markers."""
    with ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        headers = HeaderParser().parsestr(archive.read(name).decode())
    found: list[str] = []
    for line in headers.get_all("Requires-Dist", []):
        each = Requirement(line)
        environments = [{**target.environment(), "extra": extra} for extra in EXTRAS]
        if each.marker is None or any(map(each.marker.evaluate, environments)):
            found.append(f"{each.name}{each.specifier}")
    return sorted(set(found))


@contextlib.contextmanager
def pip() -> Iterator[str]:
    """Make an environment that has pip, for the time of a `with` block; uv makes some without.

    Yields:
        Its interpreter.
    """
    with tempfile.TemporaryDirectory(prefix="opero-resolve-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        yield str(Path(folder, "Scripts" if sys.platform == "win32" else "bin", "python"))


def fault(wheel: Path, target: Target, python: str) -> str:
    """Resolve what a wheel requires of a target.

    Args:
        wheel: The file.
        target: Where it goes.
        python: An interpreter that has pip.

    Returns:
        What pip says if something has no wheel there, else an empty string.
    """
    command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--no-input"]
    only = ["--ignore-installed", "--only-binary=:all:", "--target", "nowhere"]
    run = subprocess.run(
        [*command, *only, *target.pip_options(), *requirements(wheel, target)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    errors = [line for line in run.stderr.splitlines() if line.startswith("ERROR: ")]
    return "; ".join(errors or [run.stderr.strip()]) if run.returncode else ""


def main() -> int:
    """Resolve each of the wheels that are named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m release.resolve", description=__doc__)
    parser.add_argument("wheels", nargs="+", type=Path)
    status = 0
    for wheel in parser.parse_args().wheels:
        wanted = targets(wheel.name)
        with pip() as python, ThreadPoolExecutor(4) as pool:
            count = len(wanted)
            faults = list(pool.map(fault, [wheel] * count, wanted, [python] * count))
        for target, told in zip(wanted, faults, strict=True):
            if told:
                status = 1
                print(f"FAULT {wheel.name} on {' '.join(target)}: {told}")
        good = faults.count("")
        print(f"{wheel.name}: all it requires has wheels on {good} of {len(wanted)} targets")
    return status


if __name__ == "__main__":
    sys.exit(main())
