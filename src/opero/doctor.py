"""`python -m opero doctor`: which implementation runs and why, and what is installed around it.

    hotpath, switches, opero._compiled, installed distributions -> Findings -> text
    self_test ──────────────────────────────────────────────────────┘

The examination imports the compiled modules, because a file that exists may still fail to load. It
does not import the optional parts: it asks the import system and the installed metadata.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Final, Literal

from . import __version__, build_record, hotpath, self_test, switches

PARTS: Final = {
    "xxhash": "cache keys",
    "cloudpickle": "functions sent to worker processes",
    "tqdm": "progress bars",
    "orjson": "quicker cache keys",
    "uvloop": "quicker event loops",
    "diskcache": 'cache_backend="disk"',
    "diskcache_community": "a fork of diskcache, used instead",
    "redis": 'cache_backend="redis", scope="redis"',
}
"""What opero can use, and for what; module and distribution have the same name."""

WIDTH: Final = 100
"""Columns of a line, at most; a narrower terminal has fewer."""

_LEFT: Final = 11
"""Columns of the names on the left."""

_ADVICE: Final = "To report it, send this whole output."


@dataclass(slots=True)
class Findings:
    """What the examination found.

    Attributes:
        facts: Names and values, in the order they are printed.
        halves: The halves that are installed and load.
        trials: For each trial of the self-test, its half, its name, and its fault or "".
        parts: Name and version of each optional part; the version says if the part is missing.
        problems: What is wrong, in sentences; empty when the installation is healthy.
    """

    facts: list[tuple[str, str]] = field(default_factory=list)
    halves: list[Literal["compiled", "plain"]] = field(default_factory=lambda: ["plain"])
    trials: list[tuple[str, str, str]] = field(default_factory=list)
    parts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def text(self, width: int = WIDTH) -> str:
        """Return all findings as text, in lines of this width; only a path may be longer."""
        lines = [_beside(name, value, width) for name, value in self.facts]
        halves = list(dict.fromkeys(half for half, _, _ in self.trials))
        promises = dict.fromkeys(name for _, name, _ in self.trials)
        faults = {(half, name): fault for half, name, fault in self.trials}
        lines += ["", "self-test: what opero promises -> what happened"]
        for name in promises:
            told = [f"{half} {'FAILED' if faults[half, name] else 'ok'}" for half in halves]
            lines.append(f"  {self_test.promise(name)} -> {', '.join(told)}")
        lines += ["", "other packages that opero uses"]
        long = max(map(len, PARTS))
        lines += [
            _beside(f"  {name:<{long}}  ", f"{version:<13}  {PARTS[name]}", width)
            for name, version in self.parts
        ]
        lines.append("")
        for problem in self.problems:
            lines.append(_beside("problem:", problem, width))
        if self.problems:
            lines.append(_ADVICE)
        health = "not healthy" if self.problems else "healthy"
        lines.append(f"{health}; exit code {self.exit_code}")
        return "\n".join(lines)

    @property
    def exit_code(self) -> int:
        """0 when the installation is healthy, else 1."""
        return 1 if self.problems else 0


def _beside(name: str, value: str, width: int) -> str:
    """Return a value to the right of its name, in as many lines as it takes; keep paths whole."""
    return textwrap.fill(
        value,
        width,
        initial_indent=name.ljust(_LEFT),
        subsequent_indent=" " * _LEFT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def examine(environ: Mapping[str, str] = os.environ) -> Findings:
    """Examine the running installation.

    Args:
        environ: The environment, which holds the switches.

    Returns:
        What was found; `problems` is empty when the installation is healthy.
    """
    found = Findings()
    python = f"{platform.python_implementation()} {platform.python_version()}, {_gil()}"
    found.facts += [
        ("opero", f"{__version__} in {Path(__file__).parent}"),
        ("runs", f"{hotpath.core.name}: {_with_record(hotpath.REASON)}"),
        ("python", f"{python}, {sys.executable}"),
        ("platform", platform.platform()),
        ("switches", _switches(environ)),
    ]
    found.parts += [(name, _version(name)) for name in PARTS]
    try:
        hotpath.load("compiled")
    except hotpath.MissingLibraryError as error:
        told = "not installed" if str(error) in hotpath.REASON else _with_record(str(error))
    except Exception as error:  # noqa: BLE001 - a broken library may raise anything
        told = f"the modules fail to load, {type(error).__name__}: {error}"
        found.problems.append(
            f"{told}. Install opero again, with this Python; until then {switches.PURE_PYTHON}=1 "
            "chooses plain Python."
        )
    else:
        told = _inside(Path(import_module("opero._compiled.library").__file__ or ""))
        found.halves.insert(0, "compiled")
    found.facts.append(("compiled", told))
    return found


def try_out(found: Findings) -> None:
    """Try every mechanism once on each installed half, and add the results.

    Args:
        found: What `examine` returned.
    """
    found.trials += self_test.run(tuple(found.halves))
    found.problems += [
        f"{name} does not work, {half}: {fault}" for half, name, fault in found.trials if fault
    ]


def present() -> int:
    """Examine the installation, try it out, and print the findings.

    Returns:
        The exit code: 0 when it is healthy, else 1.
    """
    found = examine()
    try_out(found)
    print(found.text(min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)))
    return found.exit_code


def _with_record(reason: str) -> str:
    """Return `reason`; if it is the build, add what the build recorded."""
    told = build_record.why_plain() if reason.startswith(hotpath.BUILT_PLAIN) else ""
    record = told.rstrip(".")  # `reason` has a period
    return (
        reason.replace(hotpath.BUILT_PLAIN, f"{hotpath.BUILT_PLAIN}: {record}")
        if record
        else reason
    )


def _inside(file: Path) -> str:
    """Return the path of a file of opero, without the folder that the first line shows."""
    folder = Path(__file__).parent
    return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


def _switches(environ: Mapping[str, str]) -> str:
    """Return the environment variables that are set, with their values."""
    names = (switches.PURE_PYTHON, switches.REQUIRE_COMPILED, switches.BUILD)
    given = [f"{name}={environ[name]!r}" for name in names if name in environ]
    return ", ".join(given) or f"none is set ({', '.join(names)})"


def _version(name: str) -> str:
    """Return the version of an installed distribution, without importing it."""
    try:
        present = util.find_spec(name) is not None
    except (ImportError, ValueError):
        present = False
    version: str | None
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = None
    if version is None:  # also if the metadata is damaged
        return "installed, version unknown" if present else "not installed"
    return version if present else f"{version} in the metadata, but the module is missing"


def _gil() -> str:
    """Say whether this Python has a GIL, and whether it is on."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "with the GIL"
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"free-threaded, the GIL is {'on' if enabled else 'off'}"
