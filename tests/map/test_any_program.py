"""Maps in programs that are started in every way there is, without a guard: real subprocesses."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from opero.map.engines.processes.start import METHODS

SCRIPT = Path(__file__).with_name("isolated_map") / "any_program.py"

pytestmark = pytest.mark.once


def arguments(way: str, folder: Path) -> tuple[list[str], str | None]:
    """Return how the program is started, and what it reads from the standard input."""
    code = SCRIPT.read_text()
    if way == "file":
        return [str(SCRIPT)], None
    if way == "module":
        package = folder / "a_package"
        package.mkdir()
        (package / "__init__.py").touch()
        shutil.copy(SCRIPT, package / "program.py")
        return ["-m", "a_package.program"], None
    if way == "package":
        package = folder / "a_package"
        package.mkdir()
        (package / "__init__.py").touch()
        shutil.copy(SCRIPT, package / "__main__.py")
        return ["-m", "a_package"], None
    if way == "standard input":
        return ["-"], code
    if way == "command":
        return ["-c", code], None
    if way == "interactive":
        (folder / "empty.py").touch()
        return ["-i", str(folder / "empty.py")], f"exec({code!r})\n"
    source = folder / "source"
    source.mkdir()
    shutil.copy(SCRIPT, source / "__main__.py")
    zipapp.create_archive(source, folder / "program.pyz")
    return [str(folder / "program.pyz")], None


WAYS = ("file", "module", "package", "standard input", "command", "interactive", "zip")


@pytest.mark.parametrize(
    ("way", "method"),
    [
        pytest.param(way, method, marks=() if number % 3 == 0 else pytest.mark.slow)
        for number, (method, way) in enumerate(itertools.product(METHODS, WAYS))
    ],
)
def test_a_program_maps_its_own_functions_however_it_was_started(way, method, tmp_path):
    """Classes come back as themselves; nothing complains."""
    args, typed = arguments(way, tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "error", *args, method],
        input=typed, capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert "all is well" in done.stdout, done.stderr
    assert done.stderr.replace(">>> ", "").strip() == ""
    assert done.returncode == 0
