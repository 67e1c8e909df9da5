"""Type checkers see what a decorated function takes, returns and offers, and refuse the rest.

The files in `typing/` are checked as a user's files are: strictly, from outside the source tree,
against the installed package. Each line that has to be refused says so behind `# E:`; every other
line of every file has to pass.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FILES = sorted((Path(__file__).parent / "typing").glob("*.py"))
VALID = [path for path in FILES if path.name != "misuse.py"]
EXPECTED = re.compile(r"  # E: (?P<mypy>[\w-]+) \| (?P<pyright>\w+)$")


@dataclass(frozen=True)
class Line:
    """A line of a checked file."""

    file: str
    number: int


Findings = dict[Line, set[str]]


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the source tree, with copies of the checked files."""
    folder = tmp_path_factory.mktemp("typing")
    for path in FILES:
        shutil.copy(path, folder)
    return folder


def run(folder: Path, *command: str) -> str:
    """Run a checker on its own Python and return what it printed; it must not have broken down."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode in {0, 1}, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def mypy(outside: Path) -> Findings:
    """What `mypy --strict` finds."""
    arguments = ["--strict", "--config-file=", "--output=json", "--show-error-codes"]
    output = run(outside, "mypy", *arguments, *(path.name for path in FILES))
    found: Findings = defaultdict(set)
    for line in output.splitlines():
        finding: dict[str, Any] = json.loads(line)
        if finding["severity"] == "error":
            found[Line(finding["file"], finding["line"])].add(finding["code"])
    return found


@pytest.fixture(scope="module")
def pyright(outside: Path) -> Findings:
    """What pyright finds in its strict mode."""
    (outside / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}', encoding="utf-8")
    output = run(outside, "pyright", "--outputjson", "--pythonpath", sys.executable)
    report: dict[str, Any] = json.loads(output)
    assert report["summary"]["filesAnalyzed"] == len(FILES)
    found: Findings = defaultdict(set)
    for finding in report["generalDiagnostics"]:
        if finding["severity"] == "error":
            line = finding["range"]["start"]["line"] + 1
            found[Line(Path(finding["file"]).name, line)].add(finding["rule"])
    return found


def expected() -> Iterator[tuple[Line, re.Match[str]]]:
    """The lines that have to be refused, and why."""
    for path in FILES:
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if match := EXPECTED.search(text):
                yield Line(path.name, number), match
            else:
                assert "  # E:" not in text, f"{path.name}:{number} is not understood"


@pytest.mark.once
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_checkers_refuse_misuse_and_nothing_else(
    checker: str, request: pytest.FixtureRequest
) -> None:
    """Exactly the lines marked as wrong are refused, for the reason given there."""
    found: Findings = request.getfixturevalue(checker)
    reasons = {line: match[checker] for line, match in expected()}

    assert {line: found[line] for line in found.keys() - reasons.keys()} == {}
    assert {line: why for line, why in reasons.items() if why not in found.get(line, set())} == {}
    assert len(reasons) > 50


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_what_checkers_accept_runs(path: Path) -> None:
    """The files that checkers pass do what they claim: they run through without an error."""
    runpy.run_path(str(path))
