"""How a CPython was built, and which of those at hand the gates should run on.

opero is judged on interpreters as people run them: built with profile-guided optimisation (PGO).
Without it CPython's own code, which is most of each yardstick, is slower, and opero looks better
than it is. `sysconfig` knows how a Python was built; where it is installed says nothing.

`python benchmarks/interpreter.py CANDIDATE...` prints those that the gates should run on, a line
for each: minor version, `PGO` or `no-PGO`, full version, path. It needs nothing but a Python.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
"""What `sysconfig.get_config_vars()` returns, or a part of it."""

_COMPILED_WITH = ("PY_CFLAGS", "PY_CORE_CFLAGS", "PY_CFLAGS_NODIST", "CFLAGS", "CFLAGS_NODIST")
_USES_PROFILE = re.compile(r"-fprofile(-instr)?-use\b|-fauto-profile\b")
_OPTION = re.compile(r"--(enable|disable)-optimizations(?:=([^\s']+))?(?=['\s]|$)")

_TELL = """
import json, platform, sys, sysconfig
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": platform.python_version(),
    "path": sys.executable,
    "config": {
        name: value
        for name, value in sysconfig.get_config_vars().items()
        if isinstance(value, (str, int, type(None)))
    },
}))
"""


def with_pgo(config: Config) -> bool | None:
    """Returns whether a CPython was built with profile-guided optimisation.

    Args:
        config: What its `sysconfig.get_config_vars()` returns.

    Returns:
        None if that says nothing about it, as on Windows.

    Three things say so: the option `--enable-optimizations` of `configure`; a compiler flag that
    uses a profile; and a `PGO_PROF_USE_FLAG` that is empty beside a `PGO_PROF_GEN_FLAG` that is
    not. `configure` always sets both or neither. Debian and Ubuntu run `make profile-opt` without
    the option, and delete the flags of that build from what they install.
    """
    if config.get("CONFIG_ARGS") is None and config.get("PGO_PROF_GEN_FLAG") is None:
        return None
    if config.get("Py_DEBUG"):
        return False
    answers = _OPTION.findall(str(config.get("CONFIG_ARGS") or ""))
    if answers:
        word, value = answers[-1]  # as for `configure`, the last one counts
        if word == "enable" and value != "no":
            return True
    if any(_USES_PROFILE.search(str(config.get(name) or "")) for name in _COMPILED_WITH):
        return True
    return bool(config.get("PGO_PROF_GEN_FLAG")) and config.get("PGO_PROF_USE_FLAG") == ""


def free_threaded(config: Config) -> bool:
    """Returns whether a CPython was built without the interpreter's lock.

    Args:
        config: What its `sysconfig.get_config_vars()` returns.
    """
    return bool(config.get("Py_GIL_DISABLED"))


def description(config: Config | None = None) -> str:
    """How a CPython was built, in a few words.

    Args:
        config: What its `sysconfig.get_config_vars()` returns; None for the Python that runs.
    """
    config = sysconfig.get_config_vars() if config is None else config
    optimised = with_pgo(config)
    word = "with PGO" if optimised else "without PGO"
    if optimised is None:
        word = "with or without PGO"
    return f"{word}, free-threaded" if free_threaded(config) else word


@dataclass(frozen=True)
class Found:
    """A CPython at hand.

    Args:
        version: Its full version.
        path: Its executable.
        pgo: Whether it was built with PGO.
    """

    version: str
    path: str
    pgo: bool

    @property
    def minor(self) -> str:
        """Its minor version, such as `3.13`."""
        return ".".join(self.version.split(".")[:2])

    @property
    def order(self) -> tuple[int, ...]:
        """What versions are sorted by; of one that is no release yet, what comes before that."""
        return tuple(int(part) for part in re.findall(r"\d+", self.version)[:3])


def examine(candidate: str) -> Found:
    """Asks a Python how it was built.

    Args:
        candidate: Its executable.

    Returns:
        What it is.

    Raises:
        ValueError: It does not run, or is none that the gates can run on; the message says why.
    """
    try:
        ran = subprocess.run([candidate, "-c", _TELL], capture_output=True, text=True, check=False)
        told = json.loads(ran.stdout)
    except (OSError, ValueError) as error:
        raise ValueError("it does not run") from error
    if told["implementation"] != "cpython":
        raise ValueError(f"it is {told['implementation']}")
    if free_threaded(told["config"]):
        raise ValueError("it is free-threaded")
    return Found(told["version"], told["path"], bool(with_pgo(told["config"])))


def chosen(found: Iterable[Found], minors: Sequence[str] = ()) -> list[Found]:
    """Chooses what the gates run on.

    Args:
        found: What there is, in order of preference.
        minors: The minor versions that count; empty for all.

    Returns:
        The oldest and the newest minor version that was built with PGO, which may be the same; if
        there is none, the newest. Of each minor version the first.
    """
    first: dict[tuple[bool, str], Found] = {}
    for one in found:
        if not minors or one.minor in minors:
            first.setdefault((one.pgo, one.minor), one)
    ordered = sorted(first.values(), key=lambda one: one.order)
    optimised = [one for one in ordered if one.pgo]
    if not optimised:
        return ordered[-1:]
    return list(dict.fromkeys((optimised[0], optimised[-1])))


def main(arguments: Sequence[str]) -> int:
    """Examines candidates and prints the chosen ones.

    Args:
        arguments: Executables, and before them at will `--minors=3.11,3.12`.

    Returns:
        The exit code: 0, or 1 if there is none.
    """
    minors: list[str] = []
    found = []
    for argument in arguments:
        if argument.startswith("--minors="):
            minors = argument.partition("=")[2].split(",")
            continue
        try:
            found.append(examine(argument))
        except ValueError as error:
            print(f"no gates on {argument}: {error}", file=sys.stderr)
    picked = chosen(found, minors)
    for one in picked:
        print(one.minor, "PGO" if one.pgo else "no-PGO", one.version, one.path)
    return 0 if picked else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
