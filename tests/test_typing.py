"""Type checkers see what a decorated function takes, returns and offers, and refuse the rest.

The files in `typing/` are checked as a user's files are: strictly, from outside the source tree,
against the installed package. Each line that checkers must refuse says so after `# E:`; every other
line of every file has to pass. And the package itself has to tell the type of whatever it exports.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import opero
import opero.testing
from opero.contexts import CacheContext
from opero.functions import Bound, BoundMap, BoundTo, Decorated, Mapped, StoreOptions, UnboundMap
from opero.stats import CacheInfo, Stats

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
    assert find_spec(command[0]), f"{command[0]} is missing: pip install -e '.[slow,test]'"
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
        },
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
def pyright_errors(outside: Path) -> list[tuple[Line, str]]:
    """The errors that pyright finds in its strict mode, each with its line."""
    (outside / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}', encoding="utf-8")
    output = run(outside, "pyright", "--outputjson", "--pythonpath", sys.executable)
    report: dict[str, Any] = json.loads(output)
    assert report["summary"]["filesAnalyzed"] == len(FILES)
    return [
        (Line(Path(found["file"]).name, found["range"]["start"]["line"] + 1), found["rule"])
        for found in report["generalDiagnostics"]
        if found["severity"] == "error"
    ]


@pytest.fixture(scope="module")
def pyright(pyright_errors: list[tuple[Line, str]]) -> Findings:
    """What pyright finds, by line."""
    found: Findings = defaultdict(set)
    for line, rule in pyright_errors:
        found[line].add(rule)
    return found


def expected() -> Iterator[tuple[Line, re.Match[str]]]:
    """The lines that have to be refused, and why."""
    for path in FILES:
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if match := EXPECTED.search(text):
                yield Line(path.name, number), match
            else:
                assert "  # E:" not in text, f"{path.name}:{number} is not understood"


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.once
def test_a_wrong_option_is_one_error(pyright_errors: list[tuple[Line, str]]) -> None:
    """It is told once, at the option, and not for each form that a decorator has."""
    lines = (Path(__file__).parent / "typing/misuse.py").read_text(encoding="utf-8").splitlines()
    wrong = [
        n
        for n, line in enumerate(lines, 1)
        if re.match(r"    op(ero|map)\(\w+=.*\)  # E", line) and ")(" not in line
    ]
    told = Counter(line.number for line, _ in pyright_errors if line.file == "misuse.py")

    assert {number: told[number] for number in wrong if told[number] != 1} == {}
    assert len(wrong) > 30


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_what_checkers_accept_runs(path: Path) -> None:
    """The files that checkers pass do what they claim: they run through without an error."""
    runpy.run_path(str(path))


# --- nothing is left out ------------------------------------------------------------------------

OFFERED = [
    opero.AllFailedError,
    opero.Breaker,
    opero.BreakerConfig,
    opero.BreakerOpenError,
    opero.CacheConfig,
    opero.DeadlineExceeded,
    opero.Progress,
    opero.RateLimitConfig,
    opero.RateLimiter,
    opero.RetryConfig,
    opero.WorkerCrashedError,
    opero.testing.MovableClock,
    Bound,
    BoundMap,
    BoundTo,
    CacheContext,
    CacheInfo,
    Decorated,
    Mapped,
    Stats,
    UnboundMap,
]
"""What users hold in their hands."""


def offered_by(kind: type) -> set[str]:
    """Return the attributes and methods of a class, by its code and by its docstrings."""
    names = {name for name in dir(kind) if not name.startswith("_")}
    for base in kind.__mro__:
        section = re.search(r"\n *Attributes:\n(.*?)(\n *\n|\Z)", base.__doc__ or "", re.DOTALL)
        names |= set(re.findall(r"^ +(\w+): ", section[1], re.MULTILINE)) if section else set()
    return names - {*dir(tuple), *dir(OSError)}


@pytest.fixture(scope="module")
def mentioned() -> set[str]:
    """Every name, attribute and keyword in the files that checkers have to accept."""
    found = set()
    for path in VALID:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.keyword) and node.arg:
                found.add(node.arg)
    return found


@pytest.mark.once
@pytest.mark.parametrize("module", [opero, opero.testing], ids=["opero", "opero.testing"])
def test_every_public_name_is_checked(module: Any, mentioned: set[str]) -> None:
    """Whatever `__all__` lists is used in the files that checkers have to accept."""
    assert set(module.__all__) - mentioned == set()


@pytest.mark.once
@pytest.mark.parametrize("decorator", [opero.opero, opero.opmap], ids=["opero", "opmap"])
def test_every_option_is_checked(decorator: Any, mentioned: set[str]) -> None:
    """Each is given by its name somewhere, and so is each of the stored backends."""
    parameters = inspect.signature(decorator).parameters.keys() - {"kwargs"}
    assert {*parameters, *StoreOptions.__annotations__} - mentioned == set()


@pytest.mark.once
@pytest.mark.parametrize("kind", OFFERED, ids=lambda kind: kind.__name__)
def test_every_attribute_and_method_is_checked(kind: type, mentioned: set[str]) -> None:
    """Those of all objects that users get from opero or make of its classes."""
    assert offered_by(kind)
    assert offered_by(kind) - mentioned == set()


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize(
    ("platform", "version"), [("Linux", "3.14"), ("Darwin", "3.12"), ("Windows", "3.11")]
)
def test_the_installed_package_tells_every_type(
    platform: str, version: str, tmp_path: Path
) -> None:
    """`pyright --verifytypes` finds no symbol of an unknown type, nor of one that is inferred."""
    arguments = ["--verifytypes", "opero", "--ignoreexternal", "--outputjson"]
    target = ["--pythonplatform", platform, "--pythonversion", version]
    report = json.loads(run(tmp_path, "pyright", *arguments, *target))
    found: dict[str, Any] = report["typeCompleteness"]

    assert Path(found["packageRootDirectory"]) == Path(inspect.getfile(opero)).parent
    assert Path(found["pyTypedPath"]).name == "py.typed"
    uncertain = [symbol["name"] for symbol in found["symbols"] if not symbol["isTypeKnown"]]
    ambiguous = [symbol["name"] for symbol in found["symbols"] if symbol["isTypeAmbiguous"]]
    assert (uncertain, ambiguous) == ([], [])
    assert found["completenessScore"] == 1
    assert len(found["symbols"]) > 1000
