"""The doctor tells a healthy installation from a broken one, and the command line its words."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import opero
from opero import build_record, doctor, hotpath, opmap, self_test
from opero.__main__ import main

pytestmark = pytest.mark.once


def run(*words: str, tree: Path | None = None, **switches: str) -> subprocess.CompletedProcess[str]:
    """`python -m opero` in a process of its own, of another source tree if one is named."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OPERO_")}
    if tree is not None:
        environ["PYTHONPATH"] = str(tree)
    return subprocess.run(
        [sys.executable, "-m", "opero", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**environ, **switches},
        cwd=tree,
    )


@pytest.fixture
def plain_tree(tmp_path: Path) -> Path:
    """A copy of opero as a plain installation has it: no compiled module."""
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(Path(opero.__file__).parent, tmp_path / "opero", ignore=ignored)
    return tmp_path


def test_a_healthy_installation_is_told_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Version, implementation, reason, Python and parts stand in the report; the exit code is 0."""
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert f"{opero.__version__} in " in told
    assert f"{hotpath.core.name}: {hotpath.REASON}" in " ".join(told.split())
    assert platform.python_version() in told
    for name in doctor.PARTS:
        assert f"  {name}" in told
    assert f"library{sysconfig.get_config_var('EXT_SUFFIX')}\n" in told or not hotpath.COMPILED
    kept = ", ".join(f"{half} ok" for half in installed_halves())
    for name in self_test.TRIALS:
        assert f"  {self_test.promise(name)} -> {kept}\n" in told
    assert told.endswith("\nhealthy; exit code 0\n")


def installed_halves() -> list[str]:
    """Name the halves that this installation has."""
    return ["compiled", "plain"] if hotpath.COMPILED else ["plain"]


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("cache", {"cache": False}),
        ("retry", {"retries": 2}),
        ("retry", {"retry_on": ValueError}),
        ("fallback", {"arg_fallback": {"host": ["second"]}}),
        ("rate limit", {"rate_limit": 1e6}),
        ("deadline", {"timeout": 60}),
        ("single flight", {"cache": False}),
    ],
)
def test_the_self_test_tells_a_mechanism_that_does_not_work(
    name: str, broken: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An opero that does less than it is told makes its trial fail."""

    def lesser(**options: Any) -> Any:
        return opero.opero(**{**options, **broken})

    monkeypatch.setattr(self_test, "opero", lesser)
    assert self_test._fault(self_test.TRIALS[name])


def test_a_map_that_loses_an_item_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report names the trial, and the installation is not healthy."""

    def losing(**options: Any) -> Any:
        return lambda function: lambda items: opmap(**options)(function)(items)[:-1]

    monkeypatch.setattr(self_test, "opmap", losing)
    found = doctor.Findings()
    doctor.try_out(found)
    assert {name for _, name, fault in found.trials if fault} == {
        "map in threads",
        "map in processes",
    }
    told = found.text()
    assert "problem:   map in threads does not work, plain: AssertionError: " in told
    assert f"  {self_test.promise('map in threads')} -> plain FAILED\n" in told
    assert f"  {self_test.promise('cache')} -> plain ok\n" in told
    assert told.endswith("\nTo report it, send this whole output.\nnot healthy; exit code 1")


@pytest.mark.parametrize("columns", ["80", "100", "120", ""])
def test_no_line_is_wider_than_the_terminal_or_100_columns(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a path may be, which stays whole; it has a line of its own then."""
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["doctor"]) == 0
    width = min(int(columns or 100), 100)
    wider = [line for line in capsys.readouterr().out.splitlines() if len(line) > width]
    assert [line for line in wider if len(line.split()) > 1] == []


def test_what_is_wrong_is_told_in_lines_that_fit() -> None:
    """A long error does not break them either."""
    found = doctor.examine()
    found.trials = [("plain", name, "fault") for name in self_test.TRIALS]
    found.parts = [
        (name, "1.2.3 in the metadata, but the module is missing") for name in doctor.PARTS
    ]
    found.problems = ["something " * 40]
    lines = found.text(80).splitlines()
    assert [line for line in lines if len(line) > 80 and len(line.split()) > 1] == []
    assert lines[-1] == "not healthy; exit code 1"


def test_a_plain_installation_is_healthy(plain_tree: Path) -> None:
    """Without compiled modules opero is meant to run as plain Python."""
    ran = run("doctor", tree=plain_tree)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = "opero was built as plain Python"
    assert f"plain: {told}." in ran.stdout
    assert "compiled   not installed\n" in ran.stdout
    assert ran.stderr == ""


@pytest.mark.parametrize(
    "why",
    [
        "no C compiler was found (tried gcc)",
        "this is the wheel for any platform, built with build=plain",
        "CompileError: command '/usr/bin/gcc' failed with exit code 1",
        "Command '['cc']' returned non-zero exit status 1.",
    ],
)
def test_a_plain_installation_says_why_it_was_built_so(plain_tree: Path, why: str) -> None:
    """The reason is the one that the build wrote beside the metadata."""
    record = plain_tree / f"opero-{opero.__version__}.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Name: opero\nVersion: {opero.__version__}\n")
    (record / build_record.WHY_PLAIN).write_text(f"{why}\n")
    ran = run("doctor", tree=plain_tree)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    words = " ".join(ran.stdout.split())
    assert f"plain: opero was built as plain Python: {why.rstrip('.')}. python" in words


def test_a_compiled_installation_does_not_ask_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the build of another opero on the path wrote down is not told."""
    monkeypatch.setattr(build_record, "why_plain", lambda: "no C compiler was found")
    monkeypatch.setattr(hotpath, "REASON", "All compiled modules are installed and load.")
    assert "no C compiler" not in dict(doctor.examine().facts)["runs"]


def test_a_switch_is_told_with_its_value(plain_tree: Path) -> None:
    """Who wonders why it is plain sees the switch that says so."""
    ran = run("doctor", tree=plain_tree, OPERO_PURE_PYTHON="1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "plain: OPERO_PURE_PYTHON=1 is set." in ran.stdout
    assert "switches   OPERO_PURE_PYTHON='1'\n" in ran.stdout


def test_a_library_that_does_not_load_is_not_healthy(plain_tree: Path) -> None:
    """A file that is there and is no library is named, and the exit code is 1."""
    name = f"library{sysconfig.get_config_var('EXT_SUFFIX')}"
    (plain_tree / "opero" / "_compiled" / name).write_bytes(b"not a library")
    ran = run("doctor", tree=plain_tree)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    words = " ".join(ran.stdout.split())
    assert "problem: the modules fail to load, ImportError: " in words
    assert "Install opero again, with this Python" in words
    assert name in ran.stdout
    assert ran.stdout.endswith("\nnot healthy; exit code 1\n")


def test_modules_of_another_version_are_not_healthy(plain_tree: Path) -> None:
    """All load, but what opero looks for is not in them: the exit code is 1."""
    for name in ("__init__", "library", *hotpath.MODULES):
        (plain_tree / "opero" / "_compiled" / f"{name}.py").write_text("")
    ran = run("doctor", tree=plain_tree)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    words = " ".join(ran.stdout.split())
    assert "problem: the modules fail to load, ImportError: " in words
    assert "Install opero again, with this Python" in words
    assert "belongs to another version of opero" in words


def test_files_made_for_another_python_are_named(plain_tree: Path) -> None:
    """A library that this Python does not look at explains why there are no modules."""
    stranger = plain_tree / "opero" / "_compiled" / "library.cpython-39-somewhere.so"
    stranger.write_bytes(b"")
    ran = run("doctor", tree=plain_tree)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    words = " ".join(ran.stdout.split())
    assert f"this is {sys.implementation.cache_tag}, not {stranger.name}" in words


def test_the_examination_imports_no_optional_part() -> None:
    """The doctor asks the metadata: a part that crashes on import is still told."""
    code = (
        "import json, sys; from opero import doctor; before = set(sys.modules); "
        "doctor.examine(); print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(doctor.PARTS) & set(json.loads(ran.stdout))


@pytest.mark.parametrize("name", doctor.PARTS)
def test_a_part_is_told_with_its_version_or_its_absence(name: str) -> None:
    """The version is that of the installed distribution."""
    told = dict(doctor.examine().parts)[name]
    try:
        assert metadata.version(name) == told
    except metadata.PackageNotFoundError:
        assert told == "not installed"


def test_a_part_whose_files_are_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata without a module is not called installed."""
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "1.2.3")
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: None)
    assert doctor._version("orjson") == "1.2.3 in the metadata, but the module is missing"


def test_damaged_metadata_have_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a disk that was full leaves them: `metadata.version` then returns None."""
    monkeypatch.setattr(metadata, "version", lambda name: None)
    parts = dict(doctor.examine().parts)
    assert parts["xxhash"] == "installed, version unknown"
    assert "None" not in " ".join(parts.values())


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints it and ends with 0."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert f"opero {opero.__version__}\n" == capsys.readouterr().out


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Who does not know the commands is told them."""
    assert main([]) == 0
    told = capsys.readouterr().out
    assert "demo" in told
    assert "doctor" in told


@pytest.mark.parametrize("words", [["demo"], ["demo", "--seed", "3", "--only", "limit"]])
def test_the_demo_is_said_to_be_in_the_checkout(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Who knew it as a command is told the command that runs it now; the exit code is 2."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "python examples/demo" in capsys.readouterr().err


def test_an_import_of_opero_does_not_import_its_commands() -> None:
    """Who uses the library does not pay for its doctor or an event loop."""
    code = "import json, sys, opero; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = json.loads(ran.stdout)
    assert "opero" in modules
    assert not {"opero.doctor", "opero.self_test", "asyncio"} & set(modules)


def test_an_unknown_command_is_told(plain_tree: Path) -> None:
    """The error names the word and the commands there are; the exit code is 2."""
    ran = run("dance", tree=plain_tree)
    assert ran.returncode == 2
    assert "'dance'" in ran.stderr
    assert "demo" in ran.stderr
    assert "doctor" in ran.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe is another error there")
def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    """`python -m opero doctor | head -1` prints no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "opero", "--help"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, "")


@pytest.mark.skipif(sys.platform == "win32", reason="no shell there closes it like this")
def test_it_needs_no_output() -> None:
    """`python -m opero --help >&-` prints no traceback."""
    command = ["sh", "-c", 'exec "$0" -m opero --help >&-', sys.executable]
    ran = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_letters_that_the_output_lacks_are_escaped(plain_tree: Path) -> None:
    """An installation in a folder with other letters can be examined in an ASCII terminal."""
    tree = plain_tree / "d\u00fcne"
    tree.mkdir()
    (plain_tree / "opero").rename(tree / "opero")
    ran = run("doctor", tree=tree, PYTHONIOENCODING="ascii")
    assert "d\\xfcne" in ran.stdout, ran.stderr
    assert ran.returncode == 0
