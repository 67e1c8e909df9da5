"""A fresh copy of the source tree for each build.

No build can then find what an older one left, and none leaves anything in the tree: no `build`
folder, no `.egg-info`, no C.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ._settings import ROOT

PARTS = (
    ".ci",
    ".editorconfig",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "SECURITY.md",
    "benchmarks",
    "build_backend",
    "docs",
    "examples",
    "noxfile.py",
    "pyproject.toml",
    "release",
    "setup.py",
    "src",
    "tests",
    "tools",
    "zensical.toml",
)
"""What is copied. `MANIFEST.in` picks from it what a source distribution holds."""

LEFT_BEHIND = shutil.ignore_patterns(
    "__pycache__",
    "*.py[cod]",
    "*.so",
    "*.c",
    "*.egg-info",
    ".*_cache",
    ".benchmarks",
    ".hypothesis",
)
"""What older builds and test runs may have left among the sources."""


@contextlib.contextmanager
def fresh_copy() -> Iterator[Path]:
    """Copy the source tree to a temporary directory, and remove it at the end.

    The copy can be written to, even if the tree cannot.

    Yields:
        The path of the copy.
    """
    with tempfile.TemporaryDirectory(prefix="opero-build-") as folder:
        copy = Path(folder, "opero")
        copy.mkdir()
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, copy / part, ignore=LEFT_BEHIND)
            elif source.exists():
                shutil.copy2(source, copy / part)
        for path in copy.rglob("*"):
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
        yield copy


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make `folder` the working directory, and put it and `sys.argv` back at the end."""
    before, arguments = Path.cwd(), sys.argv
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.argv = arguments
