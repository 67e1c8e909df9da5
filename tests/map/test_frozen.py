"""Frozen programs, in which every process runs the program from its top: none multiplies.

`python -m release.frozen` freezes programs by PyInstaller. Here a script stands for one.
"""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from crowd import PATIENCE

from opero.exceptions import OperoError
from opero.map.engines.processes import frozen

pytestmark = [pytest.mark.once, pytest.mark.slow]

PROGRAM = """\
import multiprocessing, os, sys

sys.frozen = True
multiprocessing.set_executable({program!r})
with open({begun!r}, "a") as file:
    file.write("begun\\n")
if os.path.getsize({begun!r}) > 120:
    os._exit(9)  # twenty of them

from opero import opmap

def double(item):
    return 2 * item

print(*opmap(workers=2, retries=1, progress=False, start_method={method!r})(double)(range(3)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_frozen_program_without_freeze_support_says_so_and_does_not_multiply(
    method: str, tmp_path: Path
) -> None:
    """Those that are started run the program again, once each; a fork needs nothing of it."""
    script, program, begun = (str(tmp_path / name) for name in ("app.py", "app", "begun"))
    text = PROGRAM.format(program=program, begun=begun, method=method)
    Path(script).write_text(text, encoding="utf-8")
    line = f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n'
    Path(program).write_text(line, encoding="utf-8")
    Path(program).chmod(stat.S_IRWXU)
    done = subprocess.run(
        [program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    told = "must call multiprocessing.freeze_support() first"
    assert "should be a worker, but runs the program again" in done.stderr
    assert Path(begun).read_text(encoding="utf-8").count("begun") <= 15
    if method == "fork":
        assert (done.returncode, done.stdout) == (0, "0 2 4\n")
    else:
        assert done.returncode == 1
        assert told in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "helper"),
    [
        ([], False),
        (["-c", "import json"], False),
        (["-c"], False),
        (["serve", "--multiprocessing-fork"], False),
        (["--multiprocessing-fork", "tracker_fd=5", "pipe_handle=7"], True),
        (
            ["-B", "-S", "-I", "-c", "from multiprocessing.resource_tracker import main;main(5)"],
            True,
        ),
        (["-c", "import sys; from multiprocessing.forkserver import main; main(3)"], True),
    ],
)
def test_a_helper_of_a_frozen_program_is_known_by_its_arguments(
    arguments: list[str], helper: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary program may have any arguments."""
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    frozen.refuse_to_multiply()
    assert frozen.remedy() == ""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert "freeze_support" in frozen.remedy()
    if helper:
        with pytest.raises(OperoError, match=r"must call multiprocessing\.freeze_support\(\)"):
            frozen.refuse_to_multiply()
    else:
        frozen.refuse_to_multiply()
