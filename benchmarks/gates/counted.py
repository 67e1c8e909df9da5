"""The gates on instructions: one call under callgrind, as a ratio to the row's yardstick.

The yardstick (an `lru_cache` hit of the same shape, `orjson.dumps`, a bare await ...) is counted in
the same run. The accepted ratios are in `expected/`, one file for each build of a Python: CPython's
own code, and so the yardstick, takes other instructions in each of them.

`python -m benchmarks.gates.counted SEED` is what callgrind watches. It imports no more than the
rows need, because under callgrind the imports take as long as the loops.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import asyncs, calls, instructions, interpreter, keys
from benchmarks.rows import COMPILED, CallRow

from .verdict import Verdict

MARGIN = 0.05
"""How much more instructions than accepted are let through on the build that was accepted."""

MARGIN_OTHER_BUILD = 0.25
"""The same on another patch release or build of CPython, which runs the yardstick differently."""

EXPECTED = Path(__file__).parents[1] / "expected"

_LIKENESS = ("built", "machine", "python", "compiler", "options")
"""What makes builds of a minor version alike, the weightiest first."""

ROWS: tuple[CallRow, ...] = (*calls.ROWS, *keys.ROWS, *asyncs.ROWS)

YARDSTICKS: Mapping[str, str] = {row.name: row.yardstick or row.targets[0].against for row in ROWS}
"""What each counted row is divided by."""

COUNTED: tuple[CallRow, ...] = tuple(row.against(YARDSTICKS[row.name]) for row in ROWS)

Counts = Mapping[str, Mapping[str, float]]
"""Instructions per call, by row and side."""


def build() -> dict[str, str]:
    """What decides how many instructions CPython itself takes."""
    config = sysconfig.get_config_vars()
    linked = "--with-lto" in str(config.get("CONFIG_ARGS") or "")
    return {
        "python": platform.python_version(),
        "built": interpreter.description(config) + (", with LTO" if linked else ""),
        "compiler": platform.python_compiler(),
        "machine": platform.machine(),
        "options": str(config.get("OPT") or ""),
    }


def accepted_file(build: Mapping[str, str]) -> Path:
    """Where the accepted counts of a build of CPython are.

    Args:
        build: What `build()` returned there.
    """
    told = "-".join(build[key] for key in ("python", "built", "compiler", "machine"))
    return EXPECTED / (re.sub(r"[^\w.]+", "-", told).lower() + ".json")


def expected() -> dict[str, Any] | None:
    """The accepted counts to judge by.

    Returns:
        Those of this very build of CPython; else those of the most similar build of this minor
        version, the same use of PGO before the same patch release; None if there are none.
    """
    here = build()
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}."
    found: list[dict[str, Any]] = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(EXPECTED.glob("*.json"))
    ]
    found = [each for each in found if each["build"]["python"].startswith(minor)]

    def likeness(accepted: Mapping[str, Any]) -> tuple[bool, ...]:
        there = accepted["build"]
        return there == here, *(there.get(key) == here[key] for key in _LIKENESS)

    return max(found, key=likeness, default=None)


def count(*seeds: int) -> list[Counts]:
    """Counts the instructions of every counted row, at the same time for each seed.

    The rows of one count share a process: split over several, they would begin from other states of
    the allocators and of the interpreter, and some would count 4 % more.

    Args:
        seeds: How many Python calls to put around opero's own; 0 for opero as it is.

    Returns:
        What was counted for each seed.

    Raises:
        instructions.CountingError: valgrind failed.
    """

    def counted(seed: int) -> Counts:
        return instructions.count(["-m", "benchmarks.gates.counted", str(seed)])

    with ThreadPoolExecutor(len(seeds)) as pool:
        return list(pool.map(counted, seeds))


def ratios(counts: Counts) -> dict[str, float]:
    """Turns counts into the ratios that the gates judge.

    Args:
        counts: Instructions per call, by row and side.

    Returns:
        opero's instructions (of an 'added' row: the added ones) by row, divided by the yardstick's.
        A row whose yardstick is not installed is left out, as orjson is not on CPython 3.15.
    """
    by_row = {}
    for row in COUNTED:
        if YARDSTICKS[row.name] not in counts[row.name]:
            continue
        figures = row.subtract(counts[row.name])
        by_row[row.name] = figures[COMPILED] / counts[row.name][YARDSTICKS[row.name]]
    return by_row


def judge(counts: Counts, expected: Mapping[str, Any] | None) -> list[Verdict]:
    """Judges counts by what was accepted.

    Args:
        counts: Instructions per call, by row and side.
        expected: What `expected()` returned.

    Returns:
        One verdict per counted row.
    """
    accepted: Mapping[str, float] = expected["ratios"] if expected else {}
    same = expected is not None and expected["build"] == build()
    margin = MARGIN if same else MARGIN_OTHER_BUILD
    found = ratios(counts)
    lost = "its yardstick is not installed"
    verdicts = [
        Verdict(name, "instructions", YARDSTICKS[name], None, target, margin, note=lost)
        for name, target in accepted.items()
        if name not in found
    ]
    for name, ratio in found.items():
        target = accepted.get(name)
        note = ""
        if target is None:
            note = "nothing accepted yet: --accept"
        elif not same:
            note = f"accepted on {_named(expected)}"
        elif ratio < target * (1 - MARGIN):
            note = "better now: --accept it"
        verdicts.append(
            Verdict(name, "instructions", YARDSTICKS[name], ratio, target, margin, note=note)
        )
    return verdicts


def _named(expected: Mapping[str, Any] | None) -> str:
    """Which build the accepted counts are of."""
    told = expected["build"] if expected else {}
    return "another build: " + ", ".join(
        told.get(key, "?") for key in ("python", "built", "compiler", "machine")
    )


def judged() -> list[Verdict]:
    """Counts, and judges by what was accepted of this Python."""
    return judge(count(0)[0], expected())


def accept(counts: Counts) -> Path:
    """Writes counts as what is expected from now on of this build of CPython.

    Args:
        counts: Instructions per call, by row and side.

    Returns:
        The file.
    """
    content = {
        "build": build(),
        "ratios": {name: round(ratio, 4) for name, ratio in ratios(counts).items()},
        "instructions": {
            name: {side: round(value) for side, value in sides.items()}
            for name, sides in counts.items()
        },
    }
    path = accepted_file(build())
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def main(arguments: Sequence[str]) -> int:
    """Runs the loops of the rows, and prints their order as JSON."""
    [seed] = map(int, arguments)
    print(json.dumps(instructions.run_loops(row.slowed(seed) for row in COUNTED)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
