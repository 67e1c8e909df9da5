"""The compiled modules: all there, loading, in step with their sources, and never lost quietly.

The registry (`hotpath.MODULES`), the order in which the library is loaded, `setup.py`, the `.pxd`
files and what is installed must agree.
"""

from __future__ import annotations

import copyreg
import os
import pkgutil
import re
import runpy
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement

import opero
from opero import hotpath, switches
from opero.gil import FREE_THREADED

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "opero"
PACKAGE = Path(opero.__file__).parent
PUBLIC = sorted(
    module.name
    for module in pkgutil.walk_packages(opero.__path__, "opero.")
    if "-" not in module.name  # PyInstaller's hook
) + [f"opero._compiled.{module}" for module in hotpath.MODULES if hotpath.COMPILED]
"""Every module that is installed, in both halves."""

TWINS = ("call", "clock", "entry", "shared_counters")
"""The modules with a source of their own in C's terms, which may keep more to themselves."""


def installed() -> dict[str, Path]:
    """Return what this Python would find in the package of the compiled half, and the files."""
    found = {}
    for path in (PACKAGE / "_compiled").iterdir():
        name, dot, suffix = path.name.partition(".")
        if dot + suffix in EXTENSION_SUFFIXES:
            found[name] = path
    return found


def python(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Python with no switch set but those in `environ`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OPERO_")}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**kept, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_library_is_on_disk_and_no_other() -> None:
    """Or none, where opero was built as plain Python."""
    if installed() or switches.is_on(switches.REQUIRE_COMPILED, os.environ):
        assert installed().keys() == {"library"}
    else:
        assert not hotpath.COMPILED


def test_the_modules_in_the_library_are_those_of_the_registry() -> None:
    """Each once."""
    loaded = import_module("opero._compiled").MODULES
    assert sorted(loaded) == sorted(hotpath.MODULES)


def test_compiled_means_that_every_class_comes_from_the_library() -> None:
    """No module of the compiled half can be Python in disguise, nor the other way round."""
    halves = ["plain", *(["compiled"] if installed() else [])]
    for half in halves:
        for module in hotpath.MODULES:
            package = "core" if half == "plain" else "_compiled"
            loaded = import_module(f"opero.{package}.{module}")
            assert isinstance(loaded.__loader__, ExtensionFileLoader) == (half == "compiled")
            assert loaded.__spec__.loader is loaded.__loader__
            assert loaded.__package__ == loaded.__spec__.parent == f"opero.{package}"
            assert getattr(import_module(f"opero.{package}"), module) is loaded
            if half == "compiled":
                assert loaded.__file__ == loaded.__spec__.origin == str(installed()["library"])
    assert hotpath.core is hotpath.load("compiled" if hotpath.COMPILED else "plain")


def test_what_only_new_has_made_is_no_object_of_ours() -> None:
    """Its fields would hold None, where code in C looks for something else without a question."""
    if installed():
        hotpath.load("compiled")
    kinds = [
        kind
        for name in hotpath.MODULES
        if installed()
        for kind in vars(import_module(f"opero._compiled.{name}")).values()
        if isinstance(kind, type) and kind.__module__ == f"opero._compiled.{name}"
    ]
    kinds = [kind for kind in kinds if not kind.__flags__ & 1 << 9]  # a class written in Python
    assert {"Call", "Entry", "Key"} <= {kind.__name__ for kind in kinds} or not installed()
    for kind in kinds:
        for make in (kind.__new__, object.__new__, lambda kind: copyreg.__newobj__(kind)):
            with pytest.raises(TypeError, match="not safe"):
                make(kind)
        assert f"__pyx_unpickle_{kind.__name__}" not in vars(sys.modules[kind.__module__])


@pytest.mark.slow
@pytest.mark.parametrize("module", PUBLIC)
def test_every_module_imports_alone_and_without_a_warning(module: str) -> None:
    """In an isolated interpreter where any warning is an error."""
    run = python("-I", "-W", "error", "-c", f"import {module}")
    assert run.returncode == 0, run.stderr
    assert not run.stderr


@pytest.mark.checkout
class TestSources:
    """What the checkout declares."""

    def test_setup_py_declares_the_modules_of_the_registry(self) -> None:
        """The same names, and for each the source that also runs as plain Python, or its twin."""
        library = runpy.run_path(str(ROOT / "setup.py"))["LIBRARY"]
        assert library.name == "opero._compiled.library"
        assert library.sources == [
            f"src/opero/_compiled/{module}.pyx"
            if module in TWINS
            else f"src/opero/core/{module}.py"
            for module in sorted(hotpath.MODULES)
        ]
        assert all((ROOT / source).is_file() for source in library.sources)

    @pytest.mark.parametrize(
        ("version", "implementation", "here", "anywhere"),
        [
            ("3.11", "CPython", True, True),
            ("3.13", "CPython", True, True),
            ("3.14", "CPython", True, False),
            ("3.15", "CPython", False, False),
            ("3.11", "PyPy", False, False),
            ("3.12", "GraalVM", False, False),
        ],
    )
    def test_orjson_is_required_only_where_it_has_wheels(
        self, version: str, implementation: str, here: bool, anywhere: bool
    ) -> None:
        """No marker names a free-threaded Python: only what is built by one, or for any, leaves it out."""
        there = {"python_version": version, "platform_python_implementation": implementation}
        assert ("orjson" in self.required(False, **there)) == (here and not FREE_THREADED)
        assert ("orjson" in self.required(True, **there)) == anywhere

    @pytest.mark.parametrize(
        ("platform", "implementation", "wanted"),
        [
            ("linux", "CPython", True),
            ("darwin", "CPython", True),
            ("win32", "CPython", False),
            ("emscripten", "CPython", False),
            ("linux", "PyPy", False),
            ("linux", "GraalVM", False),
        ],
    )
    def test_uvloop_is_required_only_where_it_has_wheels(
        self, platform: str, implementation: str, wanted: bool
    ) -> None:
        """Elsewhere opero runs on asyncio's own loop."""
        there = {"sys_platform": platform, "platform_python_implementation": implementation}
        assert ("uvloop" in self.required(True, **there)) == wanted

    @staticmethod
    def required(for_any_python: bool, **there: str) -> set[str]:
        """Return what opero requires of the environment `there`, by name."""
        requires = runpy.run_path(str(ROOT / "setup.py"))["requires"]
        found = map(Requirement, requires(for_any_python))
        names = {each.name for each in found if not each.marker or each.marker.evaluate(there)}
        assert {"cloudpickle", "tqdm", "xxhash"} <= names
        return names

    def test_every_module_of_the_registry_has_its_types_and_no_other_file_does(self) -> None:
        """A `.pxd` that nothing is compiled with would be a lie about speed.

        `bits`, `counting`, `gil`, `marks` and `readers` are no modules of the core: what they have is for those that
        are compiled.
        """
        types = {path.stem for path in SOURCES.glob("**/*.pxd")}
        twins = {path.stem for path in SOURCES.glob("**/*.pyx")}
        assert types | twins == {*hotpath.MODULES, "bits", "counting", "gil", "marks", "readers"}
        assert twins == set(TWINS)

    def test_every_module_of_the_core_is_in_the_registry(self) -> None:
        """A mechanism that is left out would run as Python without anybody noticing."""
        modules = {path.stem for path in (SOURCES / "core").glob("*.py")} - {"__init__"}
        assert modules == set(hotpath.MODULES)

    @pytest.mark.parametrize("module", hotpath.MODULES)
    def test_c_attributes_and_slots_are_the_same(self, module: str) -> None:
        """An attribute that only one half has is a difference between the halves.

        A twin may keep more in C, and keep what is private in its own way. A class without C types
        is the same Python class in both halves.
        """
        files = sorted(SOURCES.glob(f"_compiled/{module}.p*"))
        text = "\n".join(path.read_text() for path in files)
        outer = bases_of(text)
        inherited = attributes_in(outer)
        typed = attributes_in(f"{outer}\n{text}")
        typed = {name: found for name, found in typed.items() if name not in inherited}
        plain = slots_in(import_module(f"opero.core.{module}"))
        if module in TWINS:
            shared = typed.keys() & plain.keys()
            assert shared
            for name in shared:
                public = {slot for slot in plain[name] if not slot.startswith("_")}
                assert public <= typed[name], name
        else:
            assert typed == {name: plain.get(name) for name in typed}

    def test_the_library_is_not_older_than_its_sources(self) -> None:
        """In an editable install: what is tested is what was edited, not what it was before."""
        if PACKAGE != SOURCES or not installed():
            return
        compiled = min(path.stat().st_mtime for path in installed().values())
        sources = [ROOT / "setup.py", *SOURCES.glob("_compiled/*.p*"), *SOURCES.glob("core/*.py")]
        edited = [path.name for path in sources if path.stat().st_mtime > compiled]
        assert not edited, "compile it again: pip install -e ."


def bases_of(text: str) -> str:
    """Return the C types of the modules whose classes are extended in `text`, and theirs."""
    extended = set(re.findall(r"^cdef class \w+\((\w+)\)", text, re.MULTILINE))
    outer = ""
    for module, names in re.findall(r"^from \.(\w+) cimport (.*)$", text, re.MULTILINE):
        if extended & set(re.findall(r"\w+", names)):
            base = (SOURCES / f"_compiled/{module}.pxd").read_text()
            outer += f"{bases_of(base)}\n{base}\n"
    return outer


def attributes_in(text: str) -> dict[str, set[str]]:
    """Return the attributes that C code gives to each of its classes, inherited ones included.

    Pointers are left out: they are for C, as the plain half has nothing like them.
    """
    found: dict[str, set[str]] = {}
    attributes: set[str] = set()
    for line in text.splitlines():
        code = line.partition("#")[0].rstrip(" :")
        head = re.match(r"cdef class (\w+)(?:\((\w+)\))?", code)
        if head:
            attributes = found.setdefault(head[1], set())
            attributes |= found.get(head[2], set())
        elif code and not code[0].isspace():
            attributes = set()  # what follows belongs to no class
        elif re.match(r" {4}cdef [^(=]+$", code):
            names = (part.split()[-1] for part in code.split(",") if "*" not in part)
            attributes.update(name.partition("[")[0] for name in names)
    return found


def slots_in(module: ModuleType) -> dict[str, set[str]]:
    """Return the slots of each class of a module that has any, inherited ones included.

    A class that extends one of Python's own is left out: that keeps it out of C.
    """
    found = {}
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__:
            line = [each for each in value.__mro__ if each is not object]
            if all(each.__module__.startswith("opero.core.") for each in line):
                found[name] = {slot for each in line for slot in vars(each).get("__slots__", ())}
    return found


class TestAnInstallation:
    """What an import makes of installations in every state, by copies of the package."""

    TELL = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from opero import hotpath\n"
        "print(hotpath.core.name, hotpath.COMPILED, hotpath.REASON, sep='|')"
    )

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A copy of the package without a library, to be put on the import path."""
        waste = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
        shutil.copytree(PACKAGE, tmp_path / "opero", ignore=waste)
        self.folder = tmp_path
        return tmp_path

    def pretend(self, *modules: str) -> None:
        """Put a stand-in for each of `modules` into the copy, in files of their own."""
        for name in ("__init__", "library"):
            (self.folder / "opero" / "_compiled" / f"{name}.py").write_text("")
        for module in modules:
            path = self.folder / "opero" / "_compiled" / f"{module}.py"
            sealing = "def without_new(kind): pass\n" if module == "call" else ""
            path.write_text(f"from opero.core.{module} import *\n{sealing}")

    def tell(self, **environ: str) -> tuple[list[str], str]:
        """Return name, `COMPILED` and reason as the copy tells them, and its stderr."""
        run = python("-c", self.TELL, str(self.folder), **environ)
        return run.stdout.strip().split("|"), run.stderr

    def test_without_a_library_is_plain_and_says_so_when_asked(self, folder: Path) -> None:
        """A plain installation is a healthy one: no warning."""
        told, stderr = self.tell()
        assert told[:2] == ["plain", "False"]
        assert told[2] == "opero was built as plain Python."
        assert not stderr

    def test_with_all_modules_is_compiled(self, folder: Path) -> None:
        """Also where compiled is required."""
        self.pretend(*hotpath.MODULES)
        for environ in ({}, {"OPERO_REQUIRE_COMPILED": "1"}):
            told, stderr = self.tell(**environ)
            assert told[:2] == ["compiled", "True"]
            assert not stderr

    def test_with_all_modules_is_plain_if_pure_python_is_asked_for(self, folder: Path) -> None:
        """`OPERO_PURE_PYTHON` decides, and is given as the reason."""
        self.pretend(*hotpath.MODULES)
        told, stderr = self.tell(OPERO_PURE_PYTHON="1")
        assert told == ["plain", "False", "OPERO_PURE_PYTHON=1 is set."]
        assert not stderr

    def test_that_is_plain_fails_where_compiled_is_required(self, folder: Path) -> None:
        """The error says how opero was built."""
        _, stderr = self.tell(OPERO_REQUIRE_COMPILED="1")
        told = "ImportError: OPERO_REQUIRE_COMPILED is on. opero was built as plain Python."
        assert stderr.splitlines()[-1].startswith(told)
        assert "Unset it to run plain Python" in stderr

    def test_that_lacks_one_module_warns_and_is_plain(self, folder: Path) -> None:
        """No build makes such a thing, so something happened to it."""
        self.pretend(*(module for module in hotpath.MODULES if module != "store"))
        told, stderr = self.tell()
        assert told[:2] == ["plain", "False"]
        assert "RuntimeWarning: opero runs as plain Python. A compiled module fails to" in stderr
        assert "'opero._compiled.store'" in stderr

    def test_that_lacks_one_module_fails_where_compiled_is_required(self, folder: Path) -> None:
        """The error names that module and no other."""
        self.pretend(*(module for module in hotpath.MODULES if module != "store"))
        _, stderr = self.tell(OPERO_REQUIRE_COMPILED="1")
        assert "ImportError: OPERO_REQUIRE_COMPILED is on. A compiled module fails to" in stderr
        assert "'opero._compiled.store'" in stderr

    def test_with_a_library_that_lacks_a_module_warns_and_is_plain(self, folder: Path) -> None:
        """It is another version's; what is in it was loaded, and is not used."""
        if not installed():
            return
        shutil.copy(installed()["library"], folder / "opero" / "_compiled")
        loader = folder / "opero" / "_compiled" / "__init__.py"
        loader.write_text(loader.read_text().replace('    "call",', '    "recall",\n    "call",'))
        told, stderr = self.tell()
        assert told[:2] == ["plain", "False"]
        assert "RuntimeWarning: opero runs as plain Python. A compiled module fails to" in stderr
        assert "PyInit_recall" in stderr

    def test_with_a_broken_library_warns_and_is_plain(self, folder: Path) -> None:
        """A library that is there and does not load is not taken for one that is not there."""
        path = folder / "opero" / "_compiled" / f"library{EXTENSION_SUFFIXES[0]}"
        path.write_bytes(b"not a shared object")
        told, stderr = self.tell()
        assert told[:2] == ["plain", "False"]
        assert "RuntimeWarning: opero runs as plain Python. A compiled module fails to" in stderr
        assert path.name in stderr

    def test_with_a_broken_library_fails_where_compiled_is_required(self, folder: Path) -> None:
        """The error says what the loader said."""
        path = folder / "opero" / "_compiled" / f"library{EXTENSION_SUFFIXES[0]}"
        path.write_bytes(b"not a shared object")
        _, stderr = self.tell(OPERO_REQUIRE_COMPILED="1")
        last = stderr.splitlines()[-1]
        assert last.startswith("ImportError: OPERO_REQUIRE_COMPILED is on. A compiled module")
        assert path.name in last

    def test_with_a_module_of_another_version_says_so(self, folder: Path) -> None:
        """A module without the class that is asked of it is an older or newer one."""
        self.pretend(*hotpath.MODULES)
        (folder / "opero" / "_compiled" / "store.py").write_text("class MemoryStore: pass\n")
        told, stderr = self.tell()
        assert told[:2] == ["plain", "False"]
        assert "opero._compiled.store has no InstanceStores" in stderr

    def test_for_another_python_is_plain_and_names_what_there_is(self, folder: Path) -> None:
        """A tree that was compiled for one Python and is run by another."""
        (folder / "opero" / "_compiled" / "library.cpython-27-somewhere.so").write_bytes(b"")
        told, stderr = self.tell()
        assert told[:2] == ["plain", "False"]
        assert f"this is {sys.implementation.cache_tag}, not library.cpython-27" in told[2]
        assert not stderr

    def test_refuses_both_switches_at_once(self, folder: Path) -> None:
        """The error names both."""
        _, stderr = self.tell(OPERO_PURE_PYTHON="1", OPERO_REQUIRE_COMPILED="1")
        last = stderr.splitlines()[-1]
        assert "SwitchError: OPERO_PURE_PYTHON and OPERO_REQUIRE_COMPILED are both on" in last


class TestLoad:
    """`hotpath.load`."""

    def test_gives_the_same_half_each_time(self) -> None:
        """So that there is one clock per half."""
        assert hotpath.load("plain") is hotpath.load("plain")

    def test_refuses_a_name_that_is_none(self) -> None:
        """The error names the two that there are."""
        name: Any = "fast"
        with pytest.raises(ValueError, match="'fast': use 'plain' or 'compiled'"):
            hotpath.load(name)

    def test_a_lock_is_made_where_methods_are_not_atomic(self) -> None:
        """Plain methods can be interrupted; compiled ones cannot, under the interpreter's lock."""
        lock = hotpath.load("plain").new_lock()
        assert lock is not None
        with lock:
            assert lock.acquire(blocking=False), "a finalizer may come back in the middle"
            lock.release()
        if installed():
            assert (hotpath.load("compiled").new_lock() is None) != FREE_THREADED
