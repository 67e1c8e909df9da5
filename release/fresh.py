"""Installs a file into a fresh environment without a compiler, and tests it there.

    python -m release.fresh FILE... [--python PYTHON]

`FILE` is a wheel or a source distribution. Of the latter, and of a wheel for every platform, plain
Python has to come out; of any other wheel compiled Python.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ("hypothesis>=6.100", "pytest>=8.2", "pytest-timeout>=2.3", "pytest-xdist>=3.6")
"""What `installed.py` needs, besides two extras of opero, since it imports every module."""


def install_and_test(file: Path, python: str) -> None:
    """Install `file` for `python` and test it.

    Args:
        file: A wheel or a source distribution.
        python: The interpreter to make the environment with.

    Raises:
        CalledProcessError: If a step fails.
        ValueError: If it is compiled where it should be plain, or the other way round.
    """
    compiled = file.suffix == ".whl" and not file.name.endswith("-any.whl")
    with tempfile.TemporaryDirectory(prefix="opero-fresh-") as folder:
        home = Path(folder, "environment")
        subprocess.run([python, "-m", "venv", str(home)], check=True)
        programs = home / ("Scripts" if sys.platform == "win32" else "bin")
        interpreter = str(programs / "python")
        environ = _without_compiler(programs)
        if compiled:
            environ["OPERO_REQUIRE_COMPILED"] = "1"
        install = [interpreter, "-m", "pip", "install", "--quiet", f"{file}[disk,redis]"]
        subprocess.run([*install, *REQUIREMENTS], env=environ, cwd=folder, check=True)
        outside = Path(folder, "outside")
        outside.mkdir()
        shutil.copy(ROOT / "pyproject.toml", outside)
        waste = shutil.ignore_patterns("__pycache__")
        for name in ("release", "tests"):
            shutil.copytree(ROOT / name, outside / name, ignore=waste)
        tell = [interpreter, "-c", "import opero; print(opero.COMPILED)"]
        told = subprocess.run(
            tell, env=environ, cwd=outside, stdout=subprocess.PIPE, text=True, check=True
        )
        if told.stdout.strip() != str(compiled):
            raise ValueError(f"{file.name}: compiled is {told.stdout.strip()}, not {compiled}")
        command = [interpreter, "-m", "release.installed", "-n", "2"]
        subprocess.run(command, env=environ, cwd=outside, check=True)


def _without_compiler(programs: Path) -> dict[str, str]:
    """Return an environment in which no program is found but those in `programs`."""
    hidden = ("OPERO_", "PYTHONPATH", "CFLAGS", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    compiler = {"CC": str(programs / "no-compiler"), "CXX": str(programs / "no-compiler")}
    return {**kept, **compiler, "PATH": str(programs)}


def main() -> int:
    """Install and test each of the files that are named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m release.fresh", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--python", default=sys.executable, help="default: the one that runs this")
    arguments = parser.parse_args()
    status = 0
    for file in arguments.files:
        try:
            install_and_test(file.absolute(), arguments.python)
        except (subprocess.CalledProcessError, ValueError) as error:
            status = 1
            print(f"FAULT {file.name}: {error}")
        else:
            print(f"{file.name}: installed without a compiler, and tested")
    return status


if __name__ == "__main__":
    sys.exit(main())
