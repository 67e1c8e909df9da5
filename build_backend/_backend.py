"""The hooks: setuptools builds in a fresh copy of the tree, compiled and, if need be, again plain.

    settings -> choice -> compile in a copy -> check the wheel -> hand it on
                             | not possible, and "auto"
                             +-> plain in another copy -> check -> hand on

An editable install takes the library out of such a wheel and puts it into the source tree. The rest
is the plain editable wheel of setuptools.

One line on stderr says whether the wheel is compiled or plain, and why: pip needs `-v` to show it.
So a plain wheel also keeps the reason, which `python -m opero doctor` prints; and where you did not
ask for a plain wheel, its file name has the reason in short. pip prints that name without `-v`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from setuptools import build_meta

from . import _archive, _settings, _tree, _wheel
from ._compile import NotCompiledError, compiler, compiling, declared
from ._settings import ROOT, ConfigSettings, switches

COMPILED_FOLDER = ROOT / "src" / "opero" / "_compiled"
"""Where an editable install puts the library."""

ASKED_FOR = "this is the wheel for any platform, built with build=plain"
"""Why a wheel is plain that was asked to be."""


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """End the build with one line instead of a traceback where the user has to act."""
    try:
        yield
    except (
        switches.SwitchError,
        _archive.WrongEpochError,
        NotCompiledError,
        _wheel.WrongContentsError,
    ) as error:
        raise SystemExit(f"opero: {error}") from error


def get_requires_for_build_wheel(config_settings: ConfigSettings | None = None) -> list[str]:
    """Return what a wheel needs besides the `requires` of `pyproject.toml`: Cython, or nothing."""
    with _one_line_errors():
        choice, _ = _settings.read(config_settings)
    if choice == "compiled" or (choice == "auto" and sys.implementation.name == "cpython"):
        return [_settings.CYTHON]
    return []


def get_requires_for_build_editable(config_settings: ConfigSettings | None = None) -> list[str]:
    """Return what an editable install needs: the same as a wheel."""
    return get_requires_for_build_wheel(config_settings)


def get_requires_for_build_sdist(config_settings: ConfigSettings | None = None) -> list[str]:
    """Return what a source distribution needs: nothing, since it holds no generated code."""
    with _one_line_errors():
        _settings.read(config_settings)
    return []


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: ConfigSettings | None = None
) -> str:
    """Write the metadata: a plain wheel depends on what every Python can have.

    Args:
        metadata_directory: Where to.
        config_settings: As the front end passed them.

    Returns:
        The name of the `.dist-info` folder.
    """
    target = os.path.abspath(metadata_directory)
    with _one_line_errors():
        choice, rest = _settings.read(config_settings)
        with (
            _tree.fresh_copy() as copy,
            _tree.working_in(copy),
            compiling(False, for_any_python=choice == "plain"),
        ):
            return str(build_meta.prepare_metadata_for_build_wheel(target, rest))


def prepare_metadata_for_build_editable(
    metadata_directory: str, config_settings: ConfigSettings | None = None
) -> str:
    """Write the metadata of an editable install: the same as a wheel's."""
    return prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def build_sdist(sdist_directory: str, config_settings: ConfigSettings | None = None) -> str:
    """Make a source distribution.

    Args:
        sdist_directory: Where to put it.
        config_settings: As the front end passed them.

    Returns:
        Its file name.
    """
    target = Path(sdist_directory).absolute()
    with _one_line_errors(), tempfile.TemporaryDirectory(prefix="opero-sdist-") as folder:
        _archive.epoch(os.environ)
        _, rest = _settings.read(config_settings)
        with (
            _tree.fresh_copy() as copy,
            _tree.working_in(copy),
            compiling(False, for_any_python=True),
        ):
            name = str(build_meta.build_sdist(folder, rest))
        _archive.rewrite_sdist(Path(folder, name))
        shutil.move(Path(folder, name), target / name)
        return name


def build_wheel(
    wheel_directory: str,
    config_settings: ConfigSettings | None = None,
    metadata_directory: str | None = None,  # noqa: ARG001
) -> str:
    """Make a wheel: compiled, or plain Python where that is wanted or all there can be.

    Args:
        wheel_directory: Where to put it.
        config_settings: As the front end passed them.
        metadata_directory: Not read: the metadata is cheap to make and cannot disagree.

    Returns:
        Its file name.
    """
    target = Path(wheel_directory).absolute()
    target.mkdir(parents=True, exist_ok=True)
    with _one_line_errors():
        _archive.epoch(os.environ)
        choice, rest = _settings.read(config_settings)
        with _checked_wheel(choice, rest) as (wheel, _):
            shutil.move(wheel, target / wheel.name)
            return wheel.name


def build_editable(
    wheel_directory: str,
    config_settings: ConfigSettings | None = None,
    metadata_directory: str | None = None,  # noqa: ARG001
) -> str:
    """Make an editable wheel, and put the library into the source tree.

    Args:
        wheel_directory: Where to put it.
        config_settings: As the front end passed them.
        metadata_directory: Not read: the metadata is cheap to make and cannot disagree.

    Returns:
        Its file name.
    """
    target = os.path.abspath(wheel_directory)
    with _one_line_errors():
        choice, rest = _settings.read(config_settings)
        with _checked_wheel(choice, rest) as (wheel, why_plain):
            _put_library(wheel)
        with _tree.working_in(ROOT), compiling(False, for_any_python=choice == "plain"):
            name = str(build_meta.build_editable(target, rest))
        _archive.rewrite_wheel(Path(target, name), why_plain)
        return name


@contextlib.contextmanager
def _checked_wheel(
    choice: str, config_settings: dict[str, str | list[str] | None]
) -> Iterator[tuple[Path, str]]:
    """Make a wheel in a temporary directory, and check what is in it.

    Yields:
        Its path, until the end of the `with` block, and why it is plain: nothing if it is compiled.
    """
    with tempfile.TemporaryDirectory(prefix="opero-wheel-") as folder:
        target = Path(folder)
        why_plain = ASKED_FOR if choice == "plain" else ""
        try:
            wheel = _make_wheel(target, config_settings, why_plain)
        except NotCompiledError as error:
            if choice == "compiled":
                raise
            why_plain = str(error)
            tagged = {"--build-option": f"--build-number=0.{error.tag}", **config_settings}
            wheel = _make_wheel(target, tagged, why_plain)
        kind = f"plain Python: {why_plain}" if why_plain else f"compiled by {compiler()}"
        print(f"opero: {kind}", file=sys.stderr, flush=True)
        yield wheel, why_plain


def _make_wheel(
    folder: Path, config_settings: dict[str, str | list[str] | None], why_plain: str
) -> Path:
    """Make one wheel from one fresh copy of the tree, and check it."""
    asked_for = why_plain == ASKED_FOR
    with (
        _tree.fresh_copy() as copy,
        _tree.working_in(copy),
        compiling(not why_plain, for_any_python=asked_for),
    ):
        wheel = folder / str(build_meta.build_wheel(str(folder), config_settings))
        _wheel.check(wheel, copy / "src", "" if why_plain else declared())
    _archive.rewrite_wheel(wheel, why_plain)
    return wheel


def _put_library(wheel: Path) -> None:
    """Put the library of `wheel` into the source tree, in place of what is in it.

    Only files that this Python would load are touched: one tree serves several Pythons. A plain
    wheel has none, so it only clears. A file is replaced and not overwritten, because a running
    process may have it mapped.
    """
    fresh = {path.name for path in _wheel.unpack_binaries(wheel, wheel.parent)}
    for path in list(COMPILED_FOLDER.iterdir()):
        _, dot, suffix = path.name.partition(".")
        if dot + suffix in EXTENSION_SUFFIXES and path.name not in fresh:
            path.unlink()
    for name in fresh:
        staged = COMPILED_FOLDER / f".{name}.new"
        shutil.copyfile(wheel.parent / name, staged)
        staged.chmod(0o755)
        staged.replace(COMPILED_FOLDER / name)
