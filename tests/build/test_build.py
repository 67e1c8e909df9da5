"""The build backend, by real builds of a copy of the source tree with one small module to compile."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from opero import switches
from opero.build_record import WHY_PLAIN

pytestmark = [pytest.mark.checkout, pytest.mark.once, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
MODULE = "flight"
"""The module that the copy compiles."""

LIBRARY = "library"
"""The name of the file that it is in."""

CALL_HOOK = """
import json, sys
sys.path.insert(0, ".")
hook, arguments, hidden = json.loads(sys.argv[1])
sys.argv = ["hook"]
for name in hidden:
    sys.modules[name] = None
from build_backend import hooks
print("\\nreturned " + json.dumps(getattr(hooks, hook)(*arguments)))
"""

NO_COMPILER = {"CC": "/nonexistent/cc", "PATH": ""}


def compiler_is_missing() -> bool:
    """Return whether this machine cannot compile, nor is asked to."""
    if sys.platform == "win32" or switches.is_on(switches.REQUIRE_COMPILED, os.environ):
        return False
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return shutil.which(command.split()[0]) is None or not headers.exists()


needs_compiler = pytest.mark.skipif(compiler_is_missing(), reason="this machine has no C compiler")


class Outcome(NamedTuple):
    """What a hook did, run in a process of its own."""

    code: int
    returned: Any
    stderr: str

    def complaint(self) -> str:
        """Return what opero itself said on stderr."""
        return "\n".join(line for line in self.stderr.splitlines() if line.startswith("opero: "))


class Tree:
    """A source tree to build from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder.parent / f"{folder.name}-out"
        self.out.mkdir()
        self.compiled = folder / "src" / "opero" / "_compiled"

    def call(
        self, hook: str, *arguments: object, hidden: tuple[str, ...] = (), **environ: str
    ) -> Outcome:
        """Call a hook in a new process, with `hidden` modules missing and `environ` added."""
        call = json.dumps([hook, arguments, hidden])
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OPERO_")}
        run = subprocess.run(
            [sys.executable, "-c", CALL_HOOK, call],
            cwd=self.folder,
            env={**kept, "PYTHONDONTWRITEBYTECODE": "1", **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.search(r"^returned (.*)$", run.stdout, re.MULTILINE)
        return Outcome(run.returncode, json.loads(found[1]) if found else None, run.stderr)

    def wheel(
        self, settings: dict[str, str], hidden: tuple[str, ...] = (), **environ: str
    ) -> Outcome:
        """Build a wheel into `out`."""
        return self.call("build_wheel", str(self.out), settings, hidden=hidden, **environ)

    def files(self) -> set[str]:
        """Return the paths of all files."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix() for path in paths}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A copy of the checkout, whose `setup.py` declares one module."""
    return make_tree(tmp_path / "tree")


def make_tree(folder: Path) -> Tree:
    """Copy the checkout, so that its `setup.py` declares one module."""
    folder.mkdir()
    for name in ("CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    waste = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "*.egg-info")
    for name in ("build_backend", "examples", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=waste)
    setup = (ROOT / "setup.py").read_text()
    cut = (
        "LIBRARY.sources = "
        f'[each for each in LIBRARY.sources if each.endswith("/{MODULE}.py")]\n\nif __name'
    )
    assert setup.count("if __name") == 1
    (folder / "setup.py").write_text(setup.replace("if __name", cut))
    return Tree(folder)


def contents(wheel: Path) -> set[str]:
    """Return the names of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def why_plain(wheel: Path) -> str:
    """Return why a wheel says that it is plain; nothing if it does not."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(f"/{WHY_PLAIN}")]
        return "".join(archive.read(name).decode().strip() for name in names)


def binaries(wheel: Path) -> set[str]:
    """Return the files in a wheel that are not Python, by name."""
    return {
        name.rpartition("/")[2].partition(".")[0]
        for name in contents(wheel)
        if name.endswith((".so", ".pyd"))
    }


@needs_compiler
def test_one_build_command_makes_an_sdist_and_from_it_a_compiled_wheel(tree: Tree) -> None:
    """`python -m build` ships sources without C, and code without sources, and leaves no traces."""
    before = tree.files()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tree.out)]
    run = subprocess.run(
        [*command, "-C", "build=compiled"],
        cwd=tree.folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert tree.files() == before

    (sdist,) = tree.out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        shipped = {name.partition("/")[2] for name in archive.getnames()}
    assert before <= shipped
    assert not [name for name in shipped if name.endswith((".c", ".so", ".pyd", ".pyc"))]

    (wheel,) = tree.out.glob("*.whl")
    assert not wheel.name.endswith("-any.whl")
    assert binaries(wheel) == {LIBRARY}
    installed = contents(wheel)
    assert "opero/py.typed" in installed
    assert f"opero/core/{MODULE}.py" in installed
    assert {name.partition("/")[0].partition("-")[0] for name in installed} == {"opero"}
    assert not [name for name in installed if name.endswith((".pyx", ".pxd", ".c"))]


def test_a_plain_build_needs_neither_compiler_nor_cython(tree: Tree) -> None:
    """`build=plain` makes a wheel for every platform where there is nothing to compile with."""
    outcome = tree.wheel({"build": "plain"}, hidden=("Cython",), **NO_COMPILER)
    assert outcome.code == 0, outcome.stderr
    assert outcome.returned.endswith("-py3-none-any.whl")
    wheel = tree.out / outcome.returned
    assert not binaries(wheel)
    told = "this is the wheel for any platform, built with build=plain"
    assert outcome.complaint() == f"opero: plain Python: {told}"
    assert why_plain(wheel) == told


def test_nothing_that_older_builds_left_gets_into_a_plain_wheel(tree: Tree) -> None:
    """Stale objects and C, in the tree or in `build`, are not packed."""
    for name in ("build/lib/opero/_compiled/a.so", "src/opero/_compiled/b.abi3.so"):
        path = tree.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"stale")
    (tree.folder / "src/opero/core/c.c").write_text("stale")
    outcome = tree.wheel({}, OPERO_BUILD="plain")
    assert outcome.returned.endswith("-py3-none-any.whl"), outcome.stderr
    names = {Path(name).name for name in contents(tree.out / outcome.returned)}
    assert not names & {"a.so", "b.abi3.so", "c.c"}


def test_without_a_compiler_auto_builds_plain_and_says_so(tree: Tree) -> None:
    """The line, the file name, which pip prints, and the wheel itself say what was not found."""
    outcome = tree.wheel({}, **NO_COMPILER)
    assert outcome.code == 0, outcome.stderr
    assert outcome.returned.endswith("-0.no_c_compiler-py3-none-any.whl")
    wheel = tree.out / outcome.returned
    assert not binaries(wheel)
    told = "no C compiler was found (tried /nonexistent/cc)"
    assert outcome.complaint() == f"opero: plain Python: {told}"
    assert why_plain(wheel) == told


def test_an_editable_install_without_a_compiler_keeps_the_reason_too(tree: Tree) -> None:
    """The doctor of a checkout knows it as well."""
    outcome = tree.call("build_editable", str(tree.out), {}, **NO_COMPILER)
    assert outcome.code == 0, outcome.stderr
    assert why_plain(tree.out / outcome.returned) == (
        "no C compiler was found (tried /nonexistent/cc)"
    )


def test_without_cython_auto_builds_plain_and_says_so(tree: Tree) -> None:
    """A build without isolation may lack Cython; the fallback names it."""
    outcome = tree.wheel({}, hidden=("Cython",))
    assert outcome.returned.endswith("-0.no_cython-py3-none-any.whl"), outcome.stderr
    assert outcome.complaint() == "opero: plain Python: Cython is not installed"
    assert why_plain(tree.out / outcome.returned) == "Cython is not installed"


@needs_compiler
def test_a_build_that_fails_half_way_leaves_nothing_of_it_in_the_wheel(tree: Tree) -> None:
    """One module compiles and the next does not: auto then makes a wheel with neither."""
    broken = 'cdef extern from *:\n    """\n    #error "not C"\n    """\n'
    (tree.compiled / "broken.pyx").write_text(broken)
    setup = tree.folder / "setup.py"
    added = 'LIBRARY.sources.append("src/opero/_compiled/broken.pyx")'
    setup.write_text(setup.read_text().replace("if __name", f"{added}\n\nif __name"))
    outcome = tree.wheel({"build": "auto"})
    assert outcome.returned.endswith("-0.compiling_failed-py3-none-any.whl"), outcome.stderr
    assert not binaries(tree.out / outcome.returned)
    assert outcome.complaint().startswith("opero: plain Python: CompileError: ")
    assert why_plain(tree.out / outcome.returned).startswith("CompileError: ")


@needs_compiler
def test_a_compiled_build_says_what_compiled_it_and_keeps_no_reason(tree: Tree) -> None:
    """The line is for people: another name of the same compiler gives the same bytes."""
    outcome = tree.wheel({})
    assert re.fullmatch(r"opero: compiled by \S+ and Cython 3\.\S+", outcome.complaint())
    assert why_plain(tree.out / outcome.returned) == ""


@pytest.mark.parametrize(
    ("settings", "environ"),
    [({"build": "compiled"}, {}), ({"build": "auto"}, {"OPERO_REQUIRE_COMPILED": "1"})],
)
def test_where_compiled_is_required_no_compiler_is_a_loud_failure(
    tree: Tree, settings: dict[str, str], environ: dict[str, str]
) -> None:
    """The build ends with an error that names the compiler, and without a wheel."""
    outcome = tree.wheel(settings, **NO_COMPILER, **environ)
    assert outcome.code != 0
    assert outcome.complaint() == "opero: no C compiler was found (tried /nonexistent/cc)"
    assert not list(tree.out.iterdir())


@pytest.mark.parametrize(
    ("settings", "environ", "words"),
    [
        ({"build": "fast"}, {}, "build='fast': use one of auto, compiled, plain"),
        ({"bulid": "plain"}, {}, "unknown config setting bulid: use build=auto|compiled|plain"),
        ({}, {"OPERO_BUILD": "yes"}, "OPERO_BUILD='yes': use one of auto, compiled, plain"),
        ({}, {"OPERO_REQUIRE_COMPILED": "si"}, "OPERO_REQUIRE_COMPILED='si': use one of 1, true"),
        ({"build": "plain"}, {"OPERO_REQUIRE_COMPILED": "1"}, "OPERO_REQUIRE_COMPILED is on: "),
        ({"editable-mode": "strict"}, {}, "editable-mode=strict is not supported"),
    ],
)
def test_a_wrong_setting_is_refused_in_words(
    tree: Tree, settings: dict[str, str], environ: dict[str, str], words: str
) -> None:
    """Every hook refuses what means nothing, and names what is allowed."""
    outcome = tree.call("get_requires_for_build_wheel", settings, **environ)
    assert outcome.code != 0
    assert words in outcome.complaint()


def test_settings_of_setuptools_are_passed_on(tree: Tree) -> None:
    """A build tag, which setuptools reads, ends up in the name of the wheel."""
    outcome = tree.wheel({"build": "plain", "--build-option": "--build-number=7"})
    assert outcome.returned.endswith("-7-py3-none-any.whl"), outcome.stderr


def test_cython_is_asked_for_only_where_something_may_be_compiled(tree: Tree) -> None:
    """Plain wheels and source distributions are made without it."""

    def requirements(hook: str, **settings: str) -> Any:
        return tree.call(hook, settings).returned

    assert requirements("get_requires_for_build_wheel") == ["Cython>=3.3"]
    assert requirements("get_requires_for_build_editable", build="compiled") == ["Cython>=3.3"]
    assert requirements("get_requires_for_build_wheel", build="plain") == []
    assert requirements("get_requires_for_build_sdist") == []


@needs_compiler
def test_an_editable_install_replaces_the_library_of_this_python_only(tree: Tree) -> None:
    """Compiled puts them beside their types, plain takes them away; other Pythons keep theirs."""
    suffix = EXTENSION_SUFFIXES[0]
    mine, stale = tree.compiled / f"{LIBRARY}{suffix}", tree.compiled / f"gone{suffix}"
    foreign = tree.compiled / f"{LIBRARY}.cpython-27-somewhere.so"
    before = tree.files()
    stale.write_bytes(b"stale")
    foreign.write_bytes(b"of another Python")

    outcome = tree.call("build_editable", str(tree.out), {"build": "compiled"})
    assert outcome.code == 0, outcome.stderr
    left = tree.files() - before
    assert left == {str(path.relative_to(tree.folder)) for path in (mine, foreign)}
    editable = contents(tree.out / outcome.returned)
    assert [name for name in editable if name.endswith(".pth")]
    assert not binaries(tree.out / outcome.returned)
    loader = tree.compiled / "__init__.py"
    names = re.compile(r"(?<=^MODULES: Final = )\(.*?\)", re.MULTILINE | re.DOTALL)
    loader.write_text(names.sub(f'("{MODULE}",)', loader.read_text()))
    load = f"import opero._compiled.{MODULE} as module; print(module.__file__)"
    environ = {**os.environ, "PYTHONPATH": str(tree.folder / "src"), "OPERO_PURE_PYTHON": "1"}
    environ.pop("OPERO_REQUIRE_COMPILED", None)
    run = subprocess.run(
        [sys.executable, "-c", load], env=environ, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(mine)

    outcome = tree.call("build_editable", str(tree.out), {"build": "plain"})
    assert outcome.code == 0, outcome.stderr
    assert not mine.exists()
    assert foreign.exists()


def test_metadata_tells_the_version_that_the_package_tells(tree: Tree) -> None:
    """The version is written once, in `opero/__init__.py`, and metadata needs no compiler."""
    source = tree.folder / "src" / "opero" / "__init__.py"
    text, count = re.subn(r'(?m)^(__version__\b.*= )"[^"]+"', r'\1"7.8.9"', source.read_text())
    assert count == 1
    source.write_text(text)
    before = tree.files()
    outcome = tree.call("prepare_metadata_for_build_wheel", str(tree.out), {}, **NO_COMPILER)
    assert outcome.returned == "opero-7.8.9.dist-info", outcome.stderr
    assert tree.files() == before


def test_two_builds_of_the_same_sources_have_the_same_bytes(tree: Tree) -> None:
    """Whatever the day, the umask, the hash seed and the dates of the sources are."""
    built = []
    for seed, umask in ((1, 0o022), (2, 0o077)):
        for path in tree.folder.rglob("*.py"):
            os.utime(path, (seed * 1e8, seed * 1e8))
        before = os.umask(umask)
        try:
            plain = tree.wheel({"build": "plain"}, PYTHONHASHSEED=str(seed))
            sdist = tree.call("build_sdist", str(tree.out), PYTHONHASHSEED=str(seed))
        finally:
            os.umask(before)
        assert plain.code == sdist.code == 0, plain.stderr + sdist.stderr
        files = [tree.out / plain.returned, tree.out / sdist.returned]
        built.append([path.read_bytes() for path in files])
        for path in files:
            path.unlink()
    assert built[0] == built[1]


def test_the_date_in_an_archive_is_the_one_that_is_asked_for(tree: Tree) -> None:
    """`SOURCE_DATE_EPOCH` dates every file of a wheel and of a source distribution."""
    date = {"SOURCE_DATE_EPOCH": "1700000000"}
    plain = tree.wheel({"build": "plain"}, **date)
    sdist = tree.call("build_sdist", str(tree.out), **date)
    with zipfile.ZipFile(tree.out / plain.returned) as archive:
        assert {each.date_time for each in archive.infolist()} == {(2023, 11, 14, 22, 13, 20)}
    with tarfile.open(tree.out / sdist.returned) as archive:
        assert {each.mtime for each in archive.getmembers()} == {1700000000}


@pytest.mark.parametrize("date", ["yesterday", "0", "-1", "99999999999", "1e9"])
def test_a_date_that_no_archive_can_hold_is_refused_in_words(tree: Tree, date: str) -> None:
    """It is not guessed at, since the bytes depend on it."""
    outcome = tree.wheel({"build": "plain"}, SOURCE_DATE_EPOCH=date)
    assert outcome.code != 0
    assert outcome.complaint().startswith(f"opero: SOURCE_DATE_EPOCH='{date}': use seconds since")
    assert not list(tree.out.iterdir())


def test_the_record_of_a_wheel_tells_what_is_in_it(tree: Tree) -> None:
    """Each file with its hash and its size, once, and nothing else."""
    outcome = tree.wheel({"build": "plain"})
    with zipfile.ZipFile(tree.out / outcome.returned) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
        told = {name: rest for name, *rest in csv.reader(archive.read(record).decode().split())}
        found = {name: archive.read(name) for name in archive.namelist()}
    assert len(found) == len(told)
    assert told.pop(record) == ["", ""]
    del found[record]
    for name, content in found.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        assert told[name] == [f"sha256={digest}", str(len(content))]


def test_setup_py_run_by_hand_says_what_to_run_instead(tree: Tree) -> None:
    """There is one door, so that no build goes past the settings and the checks."""
    run = subprocess.run(
        [sys.executable, "setup.py", "bdist_wheel"],
        cwd=tree.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "pip install ." in run.stderr


class TestWheelCheck:
    """What `_wheel.check` lets pass."""

    @pytest.fixture(autouse=True)
    def module(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        """The module that is tested, from the checkout."""
        monkeypatch.syspath_prepend(str(ROOT))
        self.check = import_module("build_backend._wheel").check
        self.error = import_module("build_backend._wheel").WrongContentsError

    @staticmethod
    def make(folder: Path, tag: str, *names: str) -> tuple[Path, Path]:
        """Write a wheel with these files, and the sources that it should come from."""
        sources = folder / "src"
        (sources / "opero").mkdir(parents=True)
        (sources / "opero" / "__init__.py").touch()
        wheel = folder / f"opero-1-{tag}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name in names:
                archive.writestr(name, b"")
            pure = str(tag == "py3-none-any").lower()
            archive.writestr("opero-1.dist-info/WHEEL", f"Root-Is-Purelib: {pure}\nTag: {tag}\n")
        return wheel, sources

    def test_wheels_that_hold_what_they_promise_pass(self, tmp_path: Path) -> None:
        """One plain and one compiled wheel."""
        plain = self.make(tmp_path / "a", "py3-none-any", "opero/__init__.py")
        self.check(*plain, "")
        names = ("opero/__init__.py", "opero/_compiled/x.cpython-313-x86_64-linux-gnu.so")
        compiled = self.make(tmp_path / "b", "cp313-cp313-linux_x86_64", *names)
        self.check(*compiled, "opero._compiled.x")

    @pytest.mark.parametrize(
        ("tag", "names", "expected"),
        [
            ("cp313-cp313-linux_x86_64", ["opero/__init__.py"], ""),
            ("cp313-cp313-linux_x86_64", ["opero/__init__.py"], "opero.x"),
            ("py3-none-any", ["opero/__init__.py", "opero/x.so"], ""),
            ("py3-none-any", ["opero/__init__.py", "opero/x.so"], "opero.x"),
            (
                "cp313-cp313-win_amd64",
                ["opero/__init__.py", "opero/x.pyd", "opero/y.pyd"],
                "opero.x",
            ),
            ("py3-none-any", [], ""),
            ("py3-none-any", ["opero/__init__.py", "opero/x.pxd"], ""),
            ("py3-none-any", ["opero/__init__.py", "tests/test_x.py"], ""),
        ],
        ids=[
            "a platform and no code",
            "code is missing",
            "code and no platform",
            "expected code and no platform",
            "two libraries",
            "a source is missing",
            "C types",
            "tests",
        ],
    )
    def test_wheels_that_do_not_are_refused(
        self, tmp_path: Path, tag: str, names: list[str], expected: str
    ) -> None:
        """Whatever is missing, not wanted or under the wrong tag."""
        with pytest.raises(self.error, match="is not handed on"):
            self.check(*self.make(tmp_path, tag, *names), expected)


def test_a_tree_that_is_read_only_can_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy that is built keeps modes, but it can always be written to."""
    monkeypatch.syspath_prepend(str(ROOT))
    module = import_module("build_backend._tree")
    folder = tmp_path / "src" / "opero"
    folder.mkdir(parents=True)
    (folder / "a.py").touch(0o444)
    folder.chmod(0o555)
    folder.parent.chmod(0o555)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    with module.fresh_copy() as copy:
        modes = [path.stat().st_mode & 0o200 for path in copy.rglob("*")]
    assert modes == [0o200] * 3
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
