"""Checks that cibuildwheel would build exactly the wheels that are promised.

python -m release.identifiers
"""

from __future__ import annotations

import subprocess
import sys
from itertools import product

PYTHONS = ("cp311", "cp312", "cp313", "cp314", "cp314t", "cp315", "cp315t")
"""What there are compiled wheels for; "t" is the free-threaded build."""

PLATFORMS = {
    "linux": ("manylinux_x86_64", "manylinux_aarch64", "musllinux_x86_64", "musllinux_aarch64"),
    "macos": ("macosx_arm64", "macosx_x86_64"),
    "windows": ("win_amd64",),
}
"""Where, by the name of cibuildwheel's platform."""

ARCHITECTURES = {"linux": "x86_64,aarch64", "macos": "arm64,x86_64", "windows": "AMD64"}


def expected(platform: str) -> set[str]:
    """Return the identifiers of the wheels for `platform`."""
    return {f"{python}-{place}" for python, place in product(PYTHONS, PLATFORMS[platform])}


def selected(platform: str) -> set[str]:
    """Return the identifiers that cibuildwheel selects, by what `pyproject.toml` says."""
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers"]
    run = subprocess.run(
        [*command, "--platform", platform, "--archs", ARCHITECTURES[platform], "."],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return set(run.stdout.split())


def main() -> int:
    """Print how many wheels there are for each platform, and fail on any difference."""
    status = 0
    for platform in PLATFORMS:
        found, wanted = selected(platform), expected(platform)
        print(f"{platform}: {len(found)} wheels")
        for word, names in (("missing", wanted - found), ("not wanted", found - wanted)):
            if names:
                status = 1
                print(f"{platform}: {word}: {', '.join(sorted(names))}")
    return status


if __name__ == "__main__":
    sys.exit(main())
