"""`python -m opero doctor`: which implementation runs and why, and what is installed around it.

    hotpath, switches, opero._compiled, installed distributions -> Findings -> text
    self_test ──────────────────────────────────────────────────────┘

The examination imports the compiled modules, because a file that is there may still not load. It
imports nothing of the optional parts: it asks the import system and the installed metadata.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Final, Literal

from . import __version__, build_record, hotpath, self_test, switches

PARTS: Final = (
    "orjson",
    "xxhash",
    "tqdm",
    "cloudpickle",
    "uvloop",
    "diskcache",
    "diskcache_community",
    "redis",
)
"""What opero or a coming part of it can use; module and distribution have one name."""


@dataclass(slots=True)
class Findings:
    """What the examination found.

    Attributes:
        facts: Names and values, in the order they are told.
        halves: The halves that are installed and load.
        trials: Each trial of the self-test: its half, its name, and its fault or nothing.
        parts: Name and version of each optional part; the version says so when it is absent.
        problems: What is wrong, in sentences; none when the installation is healthy.
    """

    facts: list[tuple[str, str]] = field(default_factory=list)
    halves: list[Literal["compiled", "plain"]] = field(default_factory=lambda: ["plain"])
    trials: list[tuple[str, str, str]] = field(default_factory=list)
    parts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """All of it, for people."""
        lines = [f"{name:<22}  {value}" for name, value in self.facts]
        lines += ["", "self-test"]
        for half in dict.fromkeys(half for half, _, _ in self.trials):
            faults = {name: fault for each, name, fault in self.trials if each == half}
            told = ", ".join(f"{name} FAILED" if fault else name for name, fault in faults.items())
            lines.append(f"  {half:<10}  {told}")
        lines += ["", "optional parts"]
        lines += [f"  {name:<19}  {version}" for name, version in self.parts]
        lines += ["", *(f"problem: {problem}" for problem in self.problems)]
        lines.append("not healthy" if self.problems else "healthy")
        return "\n".join(lines)


def examine(environ: Mapping[str, str] = os.environ) -> Findings:
    """Examine the running installation.

    Args:
        environ: Where the switches stand.

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
    ]
    found.facts += [
        (name, repr(environ[name]) if name in environ else "not set")
        for name in (switches.PURE_PYTHON, switches.REQUIRE_COMPILED, switches.BUILD)
    ]
    found.parts += [(name, _version(name)) for name in PARTS]
    try:
        hotpath.load("compiled")
    except hotpath.MissingLibraryError as error:
        told = _with_record(str(error))
    except Exception as error:  # noqa: BLE001 - a broken library may raise anything
        told = f"they do not load, {type(error).__name__}: {error}"
        found.problems.append(f"compiled modules: {told}")
    else:
        told = f"in {import_module('opero._compiled.library').__file__}"
        found.halves.insert(0, "compiled")
    found.facts.append(("compiled modules", told))
    return found


def try_out(found: Findings) -> None:
    """Try every mechanism once on each half that is installed, and add what came of it.

    Args:
        found: What `examine` returned.
    """
    found.trials += self_test.run(tuple(found.halves))
    found.problems += [
        f"{name} does not work, {half}: {fault}" for half, name, fault in found.trials if fault
    ]


def present() -> int:
    """Examine the installation, try it out, and print what was found.

    Returns:
        The exit code: 0 when it is healthy, else 1.
    """
    found = examine()
    try_out(found)
    print(found.text())
    return 1 if found.problems else 0


def _with_record(reason: str) -> str:
    """Return `reason` with what the build wrote down, if the build is the reason."""
    record = build_record.why_plain() if reason.startswith(hotpath.BUILT_PLAIN) else ""
    return (
        reason.replace(hotpath.BUILT_PLAIN, f"{hotpath.BUILT_PLAIN}: {record}")
        if record
        else reason
    )


def _version(name: str) -> str:
    """The version of an installed distribution, without importing it."""
    try:
        present = util.find_spec(name) is not None
    except (ImportError, ValueError):
        present = False
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return "present, of unknown version" if present else "not installed"
    return version if present else f"{version} by its metadata, but there is no module"


def _gil() -> str:
    """Whether this Python has a GIL, and whether it is on."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "with the GIL"
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"free-threaded, the GIL is {'on' if enabled else 'off'}"
