"""Turns the extensions that `setup.py` declares into extension modules, or says why it cannot.

`setup.py` hands its list to `steer`, which answers with what `setup()` is to do in the present
build. Cython is imported in `Compile.build_extensions` and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import sysconfig
from collections.abc import Collection, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from setuptools import Extension
from setuptools.command.build_ext import build_ext

DIRECTIVES = {"language_level": 3, "annotation_typing": False, "auto_pickle": False}
"""How Cython reads the sources: hints are for readers, the `.pxd` files give the C types."""

FREE_THREADED_SINCE = (3, 3)
"""The first Cython that locks an object for the moment in which one of its fields is read or set.

Modules that an older one makes are not declared to do without the interpreter's lock.
"""

FLAGS = {
    "unix": ["-O3", "-g0", "-fvisibility=hidden"],
    "mingw32": ["-O3", "-g0"],
    "msvc": ["/O2"],
}
"""Compiler options by kind of compiler. Never `-Ofast`: it changes how infinity compares."""

LINK_FLAGS = {"unix": ["-Wl,-s"] if sys.platform == "linux" else []}
"""Linker options by kind of compiler: the names of functions that nothing reads are left out."""

C_FOLDER = "c"
"""Where the generated C goes, relative to the copy of the source tree."""


class NotCompiledError(Exception):
    """No extension modules were made; the text says why."""


class _Run:
    """What the present build does with extensions.

    Attributes:
        compiling: Whether it makes them; outside a build it is None.
        names: The full names of the modules that `setup.py` declares.
        free_threaded: Which of them are safe without the interpreter's lock.
    """

    compiling: bool | None = None
    names: tuple[str, ...] = ()
    free_threaded: Collection[str] = ()


@contextlib.contextmanager
def compiling(yes: bool) -> Iterator[None]:
    """Say for the time of a `with` block whether `setup.py` is run to compile."""
    _Run.compiling = yes
    try:
        yield
    finally:
        _Run.compiling = None


def declared() -> tuple[str, ...]:
    """Return the full names of the modules that the last run of `setup.py` declared."""
    return _Run.names


def steer(extensions: Sequence[Extension], free_threaded: Collection[str]) -> dict[str, Any]:
    """Tell `setup.py` what to pass to `setup()`.

    Args:
        extensions: All extensions that there are.
        free_threaded: The full names of those that are safe without the interpreter's lock.

    Returns:
        Keyword arguments of `setup()`: without extensions, unless this build compiles.

    Raises:
        SystemExit: If `setup.py` is run by hand.
    """
    if _Run.compiling is None:
        raise SystemExit("setup.py is not run by hand: use `pip install .` or `python -m build`")
    _Run.names = tuple(extension.name for extension in extensions)
    _Run.free_threaded = free_threaded
    return {
        "ext_modules": list(extensions) if _Run.compiling else [],
        "cmdclass": {"build_ext": Compile},
    }


class Compile(build_ext):
    """The `build_ext` of setuptools, with Cython in front and one reason for any failure."""

    def run(self) -> None:
        """Compile every extension.

        Raises:
            NotCompiledError: If one could not be, for whatever reason.
        """
        try:
            self._check_python()
            super().run()
        except NotCompiledError:
            raise
        except Exception as error:
            raise NotCompiledError(f"{type(error).__name__}: {error}".rstrip(": ")) from error

    def build_extensions(self) -> None:
        """Translate the sources to C and compile that, all modules at once."""
        self._check_compiler()
        from Cython.Build import cythonize

        workers = os.cpu_count() or 1
        known = tuple(map(int, version("Cython").split(".")[:2])) >= FREE_THREADED_SINCE
        for free in (True, False):  # Cython takes directives for all modules of one go
            chosen = [
                extension
                for extension in self.extensions
                if free == (known and extension.name in _Run.free_threaded)
            ]
            translated = cythonize(
                [Extension(extension.name, list(extension.sources)) for extension in chosen],
                nthreads=workers,
                force=True,
                include_path=["src"],
                build_dir=C_FOLDER,
                compiler_directives={**DIRECTIVES, "freethreading_compatible": free},
            )
            for extension, c in zip(chosen, translated, strict=True):
                extension.sources = c.sources
                extension.extra_compile_args += FLAGS.get(self.compiler.compiler_type, [])
                extension.extra_link_args += LINK_FLAGS.get(self.compiler.compiler_type, [])
        self._forget_where_python_is()
        self.parallel = workers
        super().build_extensions()

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
            raise NotCompiledError(f"{sys.implementation.name} is faster without extension modules")
        if find_spec("Cython") is None:
            raise NotCompiledError("Cython is not installed")

    def _check_compiler(self) -> None:
        """Compile next to nothing, so that what is missing is said before anything else is."""
        headers = Path(sysconfig.get_path("include"), "Python.h")
        if not headers.exists():
            raise NotCompiledError(f"the headers of Python are not installed: no {headers}")
        command = getattr(self.compiler, "compiler_so", None)
        if command and shutil.which(command[0]) is None:
            raise NotCompiledError(f"there is no C compiler: {command[0]!r} was not found")
        probe = Path(self.build_temp, "probe.c")
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text(
            "#include <Python.h>\nint opero_probe(void) { return PY_MAJOR_VERSION; }\n"
        )
        try:
            self.compiler.compile([str(probe)], output_dir=self.build_temp)
        except Exception as error:
            raise NotCompiledError(f"the C compiler does not work: {error}") from error
