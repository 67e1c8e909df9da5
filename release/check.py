"""Checks files that are to be published, and prints how large they are.

python -m release.check dist/*
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from . import binaries, contents


def faults(path: Path) -> list[str]:
    """Print the figures of a file, and return what is wrong with it."""
    if path.suffix != ".whl":
        print(f"{path.name}: {path.stat().st_size:,} bytes")
        return contents.sdist_faults(path)
    wheel = contents.read_wheel(path)
    unpacked = sum(map(len, wheel.files.values()))
    print(
        f"{path.name}: {path.stat().st_size:,} bytes, {unpacked:,} unpacked, "
        f"{len(wheel.library or b''):,} of them compiled"
    )
    found = contents.wheel_faults(wheel)
    if wheel.library:
        found += binaries.faults((*wheel.registry, "library"), wheel.library, wheel.platform)
        private = sorted(binaries.private_names(wheel.library))
        print(f"  private names of Python, {len(private)}: {', '.join(private)}")
    if "linux" in wheel.platform:
        found += _platform_faults(wheel)
    return found


def _platform_faults(wheel: contents.Wheel) -> list[str]:
    """Print which systems auditwheel finds a wheel to run on, and see whether there are any."""
    command = [sys.executable, "-m", "auditwheel", "show", "--json", str(wheel.path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        return [f"auditwheel: {run.stderr.strip()}"]
    told = json.loads(run.stdout)
    tag, symbols = told["overall_tag"], told["versioned_symbols"]
    print(f"  auditwheel: {tag}, by {json.dumps(symbols)}, and {json.dumps(told['external_libs'])}")
    return [] if tag.startswith(("manylinux", "musllinux")) else [f"runs on {tag} only"]


def main() -> int:
    """Check the files that are named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m release.check", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="wheels and source distributions")
    files = parser.parse_args().files
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, files)]
    status = subprocess.run(command, check=False).returncode
    for path in files:
        for fault in faults(path):
            status = 1
            print(f"  FAULT {fault}")
    return status


if __name__ == "__main__":
    sys.exit(main())
