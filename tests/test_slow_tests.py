"""`pytest` alone leaves slow tests out, but not those that its command line names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

TESTS = """
import pytest

@pytest.mark.slow
@pytest.mark.parametrize("x", [1, 2])
def test_long(x):
    pass

class TestMore:
    @pytest.mark.slow
    def test_longer(self):
        pass

def test_short():
    pass
"""


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        (["test_a.py"], 1),
        (["test_a.py", "--everything"], 4),
        (["test_a.py", "-m", "slow"], 3),
        (["test_a.py::test_long"], 2),
        (["test_a.py::test_long[2]"], 1),
        (["test_a.py::TestMore"], 1),
        (["test_a.py::TestMore::test_longer", "test_a.py::test_short"], 2),
    ],
)
def test_which_tests_run(tmp_path: Path, words: list[str], passed: int) -> None:
    """A test that is named runs, whatever it takes."""
    (tmp_path / "test_a.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "slow_tests", "-p", "no:xdist", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert f"{passed} passed" in ran.stdout, ran.stdout + ran.stderr
    assert ran.returncode == 0
