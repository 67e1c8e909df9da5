"""Leaks, forks, interruptions and the interpreter's own end, each in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("isolated")
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "common")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, marks=pytest.mark.slow if script.startswith("leak") else ())
        for script in SCRIPTS
    ],
)
def test_a_script_in_a_fresh_interpreter_ends_well_and_says_nothing(script, core):
    """Exit code 0, nothing on stderr, with warnings as errors."""
    if script in {"fork_child"} and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / f"{script}.py"), core.name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr, done.stderr
    assert done.returncode == 0


@pytest.mark.once
def test_every_script_says_at_its_top_what_it_proves():
    """The docstring is what a reader of a failure sees first."""
    for script in SCRIPTS:
        assert (FOLDER / f"{script}.py").read_text(encoding="utf-8").startswith('"""')
