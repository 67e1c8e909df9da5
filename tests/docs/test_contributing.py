"""What CONTRIBUTING.md says is so, and the tools that developers run agree with each other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.checkout, pytest.mark.once]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "opero"
FILES = {".json", ".md", ".pxd", ".py", ".pyx", ".toml", ".yaml"}


def read(name: str) -> str:
    """Return the text of a file of the checkout."""
    return (ROOT / name).read_text(encoding="utf-8")


def parts() -> list[str]:
    """Return what the build backend copies of the checkout."""
    for node in ast.parse(read("build_backend/_tree.py")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PARTS":
            return list(ast.literal_eval(node.value))
    raise AssertionError("build_backend/_tree.py names no PARTS")


def paths_in(text: str) -> set[str]:
    """Return what looks like a path, but for addresses in the web."""
    tokens = re.findall(r"[\w.*/-]+", re.sub(r"https?://\S+", "", text))
    stripped = {token.rstrip(".") for token in tokens}
    return {
        token
        for token in stripped
        if Path(token).suffix in FILES
        or ("/" in token and token[0] in "." + "abcdefghijklmnopqrstuvwxyz")
    }


def missing_in(text: str) -> set[str]:
    """Return the paths that lead nowhere, neither from the root nor from the package."""
    return {
        path
        for path in paths_in(text)
        if not any(ROOT.glob(path.rstrip("/"))) and not any(PACKAGE.glob(path.rstrip("/")))
    }


def imported_folders() -> set[str]:
    """Return the folders of the checkout that tests import when they are collected."""
    names = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
    return {name for name in names if (ROOT / name).is_dir()}


def requirements(text: str) -> dict[str, str]:
    """Return the bounds of each quoted requirement, by its name."""
    return dict(re.findall(r'"([A-Za-z0-9-]+)((?:[<>=!~]=?[\d.]+,?)+)"', text))


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_every_path_leads_somewhere(name: str) -> None:
    """Files, folders and patterns, from the root of the checkout or from the package."""
    assert missing_in(read(name)) == set()


def test_paths_that_lead_nowhere_are_seen() -> None:
    """Whatever form they have, and whether or not they are marked as code."""
    assert len(paths_in(read("CONTRIBUTING.md"))) > 60
    text = "`src/opero/no.py`, core/nothing.py, `.ci/none`, [x](NO.md) and tests/*.none/"
    assert missing_in(text) == {
        "src/opero/no.py",
        "core/nothing.py",
        ".ci/none",
        "NO.md",
        "tests/*.none/",
    }


def test_every_name_is_one_of_the_sources() -> None:
    """Functions, classes, constants, markers and switches that stand as code are still called so."""
    named = set(re.findall(r"`@?([A-Za-z_]\w*(?:\.\w+)*)(?:=[^`]*)?`", read("CONTRIBUTING.md")))
    folders = ("src", "tests", "benchmarks", "build_backend")
    files = [
        path for folder in folders for path in (ROOT / folder).rglob("*.p*") if path.suffix in FILES
    ]
    here = Path(__file__)
    sources = "\n".join(path.read_text(encoding="utf-8") for path in files if path != here)
    sources += "".join(map(read, (".ci/run", "noxfile.py", "pyproject.toml", "setup.py")))
    known = set(re.findall(r"\w+", sources))
    assert {name for name in named if not set(name.split(".")) <= known} == set()
    assert len(named) > 50


def test_every_room_has_its_line() -> None:
    """Each package and public module of opero, and each folder of the checkout, is in the table."""
    table = read("CONTRIBUTING.md").partition("## Where things live")[2].partition("\n## ")[0]
    rooms = {
        f"src/opero/{path.name}{'/' if path.is_dir() else ''}"
        for path in PACKAGE.iterdir()
        if (path.suffix == ".py" and not path.name.startswith("__"))
        or (path.is_dir() and path.name != "__pycache__")
    }
    rooms |= {f"{name}/" for name in parts() if (ROOT / name).is_dir() and name != "src"}
    assert {room for room in rooms if f"`{room}`" not in table} == set()
    assert len(rooms) > 15


def test_sessions_of_nox_are_told_and_explained() -> None:
    """Each has a docstring, which `nox -l` shows; those that CONTRIBUTING.md runs exist."""
    sessions = {
        node.name: ast.get_docstring(node)
        for node in ast.parse(read("noxfile.py")).body
        if isinstance(node, ast.FunctionDef) and "session" in ast.dump(node.args)
    }
    assert sessions.keys() == {
        "lint", "types", "tests", "plain", "community", "bench", "gates", "docs", "wheels",
    }  # fmt: skip
    assert all(sessions.values())
    run = re.findall(r"nox (?:-R )?-s ([a-z]+)", read("CONTRIBUTING.md") + read("noxfile.py"))
    assert set(run) <= sessions.keys()
    assert len(run) > 4


def test_hooks_have_the_versions_of_the_lint_extra() -> None:
    """A tool that stands both in the hooks and in the extra has the same bounds in both."""
    extra = read("pyproject.toml").partition("\nlint = [")[2].partition("\n]")[0]
    linters = requirements(extra)
    hooks = requirements(read(".pre-commit-config.yaml"))
    shared = linters.keys() & hooks.keys()
    assert shared == {"cython-lint", "ruff", "zizmor"}
    assert {name: hooks[name] for name in shared} == {name: linters[name] for name in shared}


def test_one_tool_has_one_version_among_the_hooks() -> None:
    """Hooks that need the same package share an environment."""
    found = re.findall(r"additional_dependencies: \[(.*)\]", read(".pre-commit-config.yaml"))
    names = [re.match(r'"([A-Za-z0-9-]+)', each) for each in set(found)]
    assert len({name[1] for name in names if name}) == len(set(found)) > 2


def test_a_source_distribution_picks_from_what_is_copied_for_a_build() -> None:
    """`MANIFEST.in` and the backend name the same files and folders."""
    manifest = re.findall(r"^(?:include|graft) (.+)$", read("MANIFEST.in"), re.MULTILINE)
    picked = [name for line in manifest for name in line.split()]
    assert sorted(picked) == sorted(parts())
    assert [name for name in parts() if not (ROOT / name).exists()] == []


def test_what_a_plain_pytest_leaves_out_runs_elsewhere() -> None:
    """Slow tests: in each session of nox that tests, in the workflow, on each Python of `.ci/run`."""
    assert read(".github/workflows/tests.yml").count("pytest -n auto --everything") == 1
    for session in re.findall(r"def (tests|plain)\((.*?)\n@nox", read("noxfile.py"), re.DOTALL):
        assert '"--everything"' in session[1], session[0]
    assert "-m slow" in read(".ci/run")
    assert read(".ci/run").count("--everything") == 2


def test_what_tests_import_stands_beside_them_where_a_wheel_is_tested() -> None:
    """There, pytest collects every file of tests, also those that it then deselects."""
    (copied,) = re.findall(r"^    cp -R (.+) \"\$1\"$", read(".ci/common"), re.MULTILINE)
    assert {"benchmarks", "tools"} <= imported_folders() <= set(copied.split())
