"""Turns the library that `setup.py` declares into one file, or says why it cannot.

    sources -> Cython: C for each module -> compiled side by side -> linked into one library
                       C for what all of them need, once ────────┘

`setup.py` hands the library to `steer`, which answers with what `setup()` is to do in the present
build. Cython is imported in `Compile.build_extensions` and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from setuptools import Extension
from setuptools.command.build_ext import build_ext

DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,
    "auto_pickle": False,
    "freethreading_compatible": True,
}
"""How Cython reads the sources: hints are for readers, the `.pxd` files give the C types.

`tests/test_free_threading.py` tests each module where threads run without the interpreter's lock.
"""

FIRST_CYTHON = (3, 3)
"""The first Cython that puts what its modules share into one of them, functions included.

It is also the first that locks an object for the moment in which one of its fields is read or set.
Modules that run without the interpreter's lock need that.
"""

NOT_SHARED = ["MemoryView"]
"""What Cython would add to the library unused: opero has no typed views of memory."""

FLAGS = {
    "unix": ["-O3", "-g0", "-fvisibility=hidden"],
    "mingw32": ["-O3", "-g0", "-DWIN32_LEAN_AND_MEAN"],
    "msvc": ["/O2", "/DWIN32_LEAN_AND_MEAN"],
}
"""Compiler options by kind of compiler. Never `-Ofast`: it changes how infinity compares.

Whole, `windows.h` would define `small`, which a queue of the store is called, as `char`.
"""

LINK_FLAGS = {"unix": ["-Wl,-s"] if sys.platform == "linux" else []}
"""Linker options by kind of compiler: the names of functions that nothing reads are left out."""

C_FOLDER = "c"
"""Where the generated C goes, relative to the copy of the source tree."""


class NotCompiledError(Exception):
    """No library was made; the text says why.

    Attributes:
        tag: The same in a word or two, for the name of a plain wheel.
    """

    def __init__(self, text: str, tag: str = "compiling_failed") -> None:
        """Keep the reason, long and short."""
        super().__init__(text)
        self.tag = tag


class _Run:
    """What the present build does with the library.

    Attributes:
        compiling: Whether it makes it; outside a build it is None.
        name: Its full name, as `setup.py` declares it.
        compiler: What compiles it.
        for_any_python: Whether what is built has to suit every Python, not only the present one.
    """

    compiling: bool | None = None
    for_any_python: bool = True
    name: str = ""
    compiler: str = ""


@contextlib.contextmanager
def compiling(yes: bool, *, for_any_python: bool) -> Iterator[None]:
    """Say for the time of a `with` block what `setup.py` is run for.

    Args:
        yes: Whether to compile.
        for_any_python: Whether what is built has to suit every Python, not only the present one.
    """
    _Run.compiling, _Run.for_any_python = yes, for_any_python
    try:
        yield
    finally:
        _Run.compiling = None


def declared() -> str:
    """Return the full name of the library that the last run of `setup.py` declared."""
    return _Run.name


def compiler() -> str:
    """Return what compiled the last library: the compiler's command, and Cython's version."""
    return f"{_Run.compiler} and Cython {version('Cython')}"


def steer(library: Extension, requires: Callable[[bool], list[str]]) -> dict[str, Any]:
    """Return what `setup.py` passes to `setup()`.

    Args:
        library: Its name, and a source for each module in it.
        requires: Returns what opero depends on, given whether that has to suit every Python.

    Returns:
        Keyword arguments of `setup()`: without the library, unless this build compiles.

    Raises:
        SystemExit: If `setup.py` is run by hand.
    """
    if _Run.compiling is None:
        raise SystemExit("setup.py is not run by hand: use `pip install .` or `python -m build`")
    _Run.name = library.name
    return {
        "ext_modules": [library] if _Run.compiling else [],
        "cmdclass": {"build_ext": Compile},
        "install_requires": requires(_Run.for_any_python),
    }


class Compile(build_ext):
    """The `build_ext` of setuptools, with Cython in front and one reason for any failure."""

    def run(self) -> None:
        """Compile the library.

        Raises:
            NotCompiledError: If it could not be, for whatever reason.
        """
        try:
            self._check_python()
            super().run()
        except NotCompiledError:
            raise
        except Exception as error:
            raise NotCompiledError(f"{type(error).__name__}: {error}".rstrip(": ")) from error

    def build_extensions(self) -> None:
        """Translate each source to C, as a module in the package of the library, and build it.

        What the modules need of Cython stands in a module of its own, which has the library's name.
        """
        self._check_compiler()
        from Cython.Build import cythonize

        (library,) = self.extensions
        package, _, name = library.name.rpartition(".")
        modules = [Path(source).stem for source in library.sources]
        units = [
            Extension(f"{package}.{module}", [source])
            for module, source in zip(modules, library.sources, strict=True)
        ]
        translated = cythonize(
            [*units, Extension(library.name, [])],
            nthreads=os.cpu_count() or 1,
            force=True,
            include_path=["src"],
            build_dir=C_FOLDER,
            compiler_directives=DIRECTIVES,
            shared_utility_qualified_name=library.name,
            shared_utility_features_disabled=NOT_SHARED,
        )
        library.sources = [c for unit in translated for c in unit.sources]
        library.export_symbols = [f"PyInit_{module}" for module in (*modules, name)]
        library.extra_compile_args += FLAGS.get(self.compiler.compiler_type, [])
        library.extra_link_args += LINK_FLAGS.get(self.compiler.compiler_type, [])
        self._forget_where_python_is()
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        """Compile the files of a library all at once; setuptools, which links it, would not."""

        def compiled(source: str) -> list[str]:
            objects: list[str] = self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=ext.include_dirs,
                debug=self.debug,
                extra_postargs=ext.extra_compile_args,
            )
            return objects

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for objects in pool.map(compiled, ext.sources):
                ext.extra_objects += objects
        ext.sources = []
        super().build_extension(ext)

    def _forget_where_python_is(self) -> None:
        """Keep the folders of the building Python out of what is linked.

        A Python with a shared library hands its own folder on as a place to look for libraries. No
        module of opero needs it, and on the machine of a user anybody might own that path.
        """
        command = getattr(self.compiler, "linker_so", None)
        if command:
            self.compiler.linker_so = [
                word for word in command if not word.startswith("-Wl,-rpath")
            ]

    def _check_python(self) -> None:
        """Raise if there is no use in looking for a compiler."""
        if sys.implementation.name != "cpython":
            raise NotCompiledError(
                f"{sys.implementation.name} runs plain Python faster than extension modules",
                f"on_{sys.implementation.name}",
            )
        if find_spec("Cython") is None:
            raise NotCompiledError("Cython is not installed", "no_cython")
        if tuple(map(int, version("Cython").split(".")[:2])) < FIRST_CYTHON:
            wanted = ".".join(map(str, FIRST_CYTHON))
            raise NotCompiledError(
                f"Cython {version('Cython')} is older than {wanted}", "old_cython"
            )

    def _check_compiler(self) -> None:
        """Compile next to nothing, so that what is missing is said before anything else is."""
        headers = Path(sysconfig.get_path("include"), "Python.h")
        if not headers.exists():
            raise NotCompiledError(
                f"Python's headers were not found: there is no {headers}", "no_python_headers"
            )
        command = getattr(self.compiler, "compiler_so", None)
        _Run.compiler = command[0] if command else self.compiler.compiler_type
        if command and shutil.which(command[0]) is None:
            raise NotCompiledError(f"no C compiler was found (tried {command[0]})", "no_c_compiler")
        probe = Path(self.build_temp, "probe.c")
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text(
            "#include <Python.h>\nint opero_probe(void) { return PY_MAJOR_VERSION; }\n"
        )
        try:
            self.compiler.compile([str(probe)], output_dir=self.build_temp)
        except Exception as error:
            raise NotCompiledError(f"the C compiler does not work: {error}") from error
