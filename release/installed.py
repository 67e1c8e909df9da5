"""Tests the opero that is installed, as far as that needs neither its sources nor other packages.

    python -m release.installed [ARGUMENT OF PYTEST...]

It is run beside a copy of `tests/` and `pyproject.toml`, and never where `src/` is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

TESTS = (
    "attempts",
    "backends",
    "binding",
    "bucket",
    "chunk",
    "clock",
    "deadline",
    "differential",
    "driver",
    "extensions",
    "fallback",
    "public_api",
    "single_flight",
    "stats",
    "store",
)
"""What is compiled, in both halves, and that it is all there. The rest is plain Python: it is the
same in every wheel, and its tests need packages that not every platform has wheels of."""


def main() -> int:
    """Refuse an opero that comes from a checkout; then run the tests."""
    if Path("src").exists():
        print("there is a folder src: run this outside the checkout")
        return 2
    import opero

    home = sysconfig.get_path("platlib")
    if not os.path.realpath(opero.__file__).startswith(os.path.realpath(home)):
        print(f"opero is not installed, but comes from {opero.__file__}")
        return 2
    print(f"opero {opero.__version__}, {'compiled' if opero.COMPILED else 'plain'}, in {home}")
    doctor = subprocess.run([sys.executable, "-m", "opero", "doctor"], check=False)
    if doctor.returncode:
        return doctor.returncode
    chosen = ["--everything", "-m", "not checkout and not redis"]
    command = [sys.executable, "-m", "pytest", "-q", *chosen]
    files = []
    for name in TESTS:
        (path,) = Path("tests").glob(f"**/test_{name}.py")
        files.append(str(path))
    return subprocess.run([*command, *sys.argv[1:], *files], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
