"""Builds files again, elsewhere and under other circumstances, and compares the bytes.

    python -m release.reproduce FILE...

The wheels have to be of the Python that runs this. What differs from the first build: the folder
and the length of its name, the dates of the sources, the umask, the hash seed, the time zone, the
language; and nothing comes out of a compiler cache.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parent.parent
WASTE = shutil.ignore_patterns(
    ".git", "__pycache__", "*.so", "*.pyd", "*.egg-info", ".*_cache", ".hypothesis"
)
OUTPUT = {"build", "dist"}
"""The folders of the tree into which builds write; `tests/build` is none."""

CIRCUMSTANCES = {
    "CCACHE_DISABLE": "1",
    "LC_ALL": "C",
    "PYTHONHASHSEED": "4711",
    "TZ": "Pacific/Auckland",
}
"""What is set in the environment of the second build."""


def build_again(file: Path, folder: Path) -> Path:
    """Build what `file` is: a source distribution, a wheel for every platform or a compiled one.

    Args:
        file: The first build.
        folder: Where to work.

    Returns:
        The path of the second build.
    """
    tree = folder / "a-folder-whose-name-is-longer-than-usual" / "opero"
    shutil.copytree(ROOT, tree, ignore=_left_behind)
    for path in tree.rglob("*"):
        os.utime(path, (1e9, 1e9))
    if file.suffix == ".whl":
        kind = "plain" if file.name.endswith("-any.whl") else "compiled"
        wanted = ["--wheel", "--config-setting", f"build={kind}"]
    else:
        wanted = ["--sdist"]
    hidden = ("OPERO_", "SOURCE_DATE_EPOCH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    command = [sys.executable, "-m", "build", "--outdir", str(folder / "dist"), *wanted, str(tree)]
    before = os.umask(0o077)
    try:
        run = subprocess.run(
            command,
            env={**kept, **CIRCUMSTANCES},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    finally:
        os.umask(before)
    if run.returncode:
        raise SystemExit(run.stdout)
    return folder / "dist" / file.name


def _left_behind(folder: str, names: list[str]) -> set[str]:
    """Return what of a folder is no source."""
    return WASTE(folder, names) | (OUTPUT if Path(folder) == ROOT else set())


def differences(first: Path, second: Path) -> list[str]:
    """Say where two builds differ; an empty list if they are the same to the byte."""
    if first.read_bytes() == second.read_bytes():
        return []
    before, after = _members(first), _members(second)
    names = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
    return names or ["dates, order or compression"]


def _members(file: Path) -> dict[str, bytes]:
    """Return the contents of an archive, by name."""
    if file.suffix == ".whl":
        with ZipFile(file) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(file) as sdist:
        found = ((member.name, sdist.extractfile(member)) for member in sdist.getmembers())
        return {name: content.read() if content else b"" for name, content in found}


def main() -> int:
    """Build each of the files that are named on the command line again."""
    parser = argparse.ArgumentParser(prog="python -m release.reproduce", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    status = 0
    for file in parser.parse_args().files:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="opero-again-") as folder:
            found = differences(file, build_again(file, Path(folder)))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        told = f"FAULT differs in {', '.join(found)}" if found else "the same bytes"
        print(f"{file.name}: {told}, {time.monotonic() - begun:.0f} s, sha256 {digest}")
        status = status or bool(found)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
