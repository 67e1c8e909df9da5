"""The checks of what is published turn red, each on a file that has its fault."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from test_build import Tree, make_tree, needs_compiler

pytestmark = [pytest.mark.checkout, pytest.mark.once]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def contents(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `release.contents`, from the checkout."""
    monkeypatch.syspath_prepend(str(ROOT))
    return import_module("release.contents")


@pytest.fixture
def binaries(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `release.binaries`, from the checkout."""
    monkeypatch.syspath_prepend(str(ROOT))
    return import_module("release.binaries")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, Path, Path]:
    """A tree, and its plain wheel and source distribution."""
    tree = make_tree(tmp_path_factory.mktemp("release") / "tree")
    wheel = tree.wheel({"build": "plain"})
    sdist = tree.call("build_sdist", str(tree.out))
    assert wheel.code == sdist.code == 0, wheel.stderr + sdist.stderr
    return tree, tree.out / wheel.returned, tree.out / sdist.returned


def changed(wheel: Path, folder: Path, without: str = "", **added: bytes) -> Path:
    """Copy a wheel with a file less, or with files more or other than they were."""
    copy = folder / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            if name != without and name not in added:
                target.writestr(name, source.read(name))
        for name, content in added.items():
            target.writestr(name, content)
    return copy


class TestContents:
    """What `release.contents` says of wheels and source distributions."""

    def test_what_the_build_backend_makes_has_no_fault(
        self, contents: ModuleType, built: tuple[Tree, Path, Path]
    ) -> None:
        """A plain wheel and a source distribution."""
        _, wheel, sdist = built
        assert contents.wheel_faults(contents.read_wheel(wheel)) == []
        assert contents.sdist_faults(sdist) == []

    @pytest.mark.parametrize(
        ("name", "fault"),
        [
            ("opero/core/flight.c", "not wanted: opero/core/flight.c"),
            ("opero/_compiled/library.so", "not wanted: opero/_compiled/library.so"),
            ("opero/_compiled/flight.pxd", "not wanted: opero/_compiled/flight.pxd"),
            ("tests/test_x.py", "not wanted: tests/test_x.py"),
            ("benchmarks/x.py", "not wanted: benchmarks/x.py"),
            ("opero.pth", "not wanted: opero.pth"),
            ("opero/new.py", "RECORD is wrong about opero/new.py"),
            ("opero/stats.py", "RECORD is wrong about opero/stats.py"),
        ],
    )
    def test_a_file_too_much_or_other_than_recorded_is_told(
        self,
        contents: ModuleType,
        built: tuple[Tree, Path, Path],
        tmp_path: Path,
        name: str,
        fault: str,
    ) -> None:
        """Sources in C, tests, benchmarks, what editable installs have, and a file that was changed."""
        wheel = changed(built[1], tmp_path, **{name: b"x"})
        assert fault in contents.wheel_faults(contents.read_wheel(wheel))

    def test_an_entry_for_a_folder_is_no_file(
        self, contents: ModuleType, built: tuple[Tree, Path, Path], tmp_path: Path
    ) -> None:
        """Some tools that repair wheels write such entries."""
        wheel = changed(built[1], tmp_path, **{"opero/": b""})
        assert contents.wheel_faults(contents.read_wheel(wheel)) == []

    @pytest.mark.parametrize(
        "name", ["opero/py.typed", "opero/core/flight.py", "opero/__init__.py"]
    )
    def test_a_missing_file_is_told(
        self, contents: ModuleType, built: tuple[Tree, Path, Path], tmp_path: Path, name: str
    ) -> None:
        """The marker of types, a module of the registry, the package itself."""
        wheel = changed(built[1], tmp_path, without=name)
        assert f"missing: {name}" in contents.wheel_faults(contents.read_wheel(wheel))

    def test_a_compiled_wheel_needs_a_library_under_the_name_that_its_tags_ask_for(
        self, contents: ModuleType, built: tuple[Tree, Path, Path], tmp_path: Path
    ) -> None:
        """One for the Python without the lock is not one for that with it."""
        version = built[1].name.split("-")[1]
        wheel = (
            tmp_path
            / f"opero-{version}-cp314-cp314t-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
        )
        good = "opero/_compiled/library.cpython-314t-x86_64-linux-gnu.so"
        bad = good.replace("-314t-", "-314-")
        changed(built[1], tmp_path, **{bad: b""}).rename(wheel)
        faults = contents.wheel_faults(contents.read_wheel(wheel))
        assert f"not wanted: {bad}" in faults
        assert f"missing: {good}" in faults
        assert contents.read_wheel(wheel).library is None
        changed(built[1], tmp_path, **{good: b"x"}).rename(wheel)
        faults = contents.wheel_faults(contents.read_wheel(wheel))
        assert f"missing: {good}" not in faults
        assert contents.read_wheel(wheel).library == b"x"
        assert "WHEEL does not say 'Root-Is-Purelib: false'" in faults


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="these files are ELF, the format of Linux")
class TestBinaries:
    """What `release.binaries` says of libraries, of some compiled with a fault."""

    GOOD = '__attribute__((visibility("default"))) void *PyInit_x(void) { return 0; }\n'

    @pytest.fixture(autouse=True)
    def start(self, tmp_path: Path, binaries: ModuleType) -> None:
        """A place to compile in."""
        self.folder = tmp_path
        self.binaries = binaries

    def compiled(self, source: str, *flags: str) -> bytes:
        """Compile C to a shared library."""
        path = self.folder / "x.c"
        path.write_text(source)
        compiler = shutil.which("cc") or shutil.which("gcc")
        assert compiler is not None
        command = [compiler, "-shared", "-fPIC", "-fvisibility=hidden", "-O1", *flags, path.name]
        subprocess.run([*command, "-o", "x.so"], cwd=self.folder, check=True)
        return (self.folder / "x.so").read_bytes()

    def faults(self, source: str, *flags: str) -> list[str]:
        """Compile C, and say what is wrong with it as a library of one module on this machine."""
        import platform

        code = self.compiled(source, *flags)
        found: list[str] = self.binaries.faults(("x",), code, f"linux_{platform.machine()}")
        return found

    def test_a_module_that_shows_its_init_function_and_no_more_has_no_fault(self) -> None:
        """Stripped, and linked with the C library only."""
        assert self.faults(self.GOOD, "-Wl,-s") == []

    def test_each_fault_is_told(self) -> None:
        """Names shown, debugging information, folders to search, paths, foreign names."""
        assert "has .symtab" in self.faults(self.GOOD)
        assert "has .debug_info" in self.faults(self.GOOD, "-g")
        runpath = self.faults(self.GOOD, "-Wl,-s", "-Wl,-rpath,/opt/python/lib")
        assert "looks for libraries in /opt/python/lib" in runpath
        assert "holds the path /opt/python/lib" in runpath
        shown = self.GOOD + self.GOOD.replace("PyInit_x", "extra")
        assert self.faults(shown, "-Wl,-s") == ["shows extra"]
        assert self.faults("int nothing;", "-Wl,-s") == ["does not show PyInit_x"]
        foreign = "extern int foreign(void);\n" + self.GOOD.replace(
            "return 0", "foreign(); return 0"
        )
        (fault,) = self.faults(foreign, "-Wl,-s")
        assert fault.startswith("wants foreign")

    def test_a_module_for_another_machine_is_told(self) -> None:
        """As its wheel's tag would promise."""
        (fault,) = self.binaries.faults(("x",), self.compiled(self.GOOD, "-Wl,-s"), "linux_s390x")
        assert fault.startswith("is for ")

    def test_private_names_of_python_are_told_as_a_figure(self) -> None:
        """They are no fault: Cython uses some."""
        source = (
            "extern void _Py_Dealloc(void *);\nextern void *PyList_New(long);\n"
            + self.GOOD.replace("return 0", "_Py_Dealloc(PyList_New(0)); return 0")
        )
        code = self.compiled(source, "-Wl,-s")
        assert self.binaries.private_names(code) == {"_Py_Dealloc"}
        assert self.faults(source, "-Wl,-s") == []


@pytest.mark.parametrize(
    ("tag", "changelog", "faults"),
    [
        ("v1.2.3", "## [1.2.3] - 2026-01-02\n", 0),
        ("v1.2.3", "## [1.2.3] - unreleased\n", 1),
        ("v1.2.4", "## [1.2.4] - 2026-01-02\n", 1),
        ("1.2.3", "", 2),
    ],
    ids=["fits", "no date", "another version", "no v"],
)
def test_a_release_needs_one_version_in_tag_package_and_changelog(
    tag: str, changelog: str, faults: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tag that does not fit publishes nothing."""
    monkeypatch.syspath_prepend(str(ROOT))
    version = import_module("release.version")
    assert len(version.faults(tag, '__version__: Final = "1.2.3"\n', changelog)) == faults
