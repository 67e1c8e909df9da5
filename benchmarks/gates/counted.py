"""The gates on instructions: one call under callgrind, as a ratio to the row's yardstick.

The yardstick (an `lru_cache` hit of the same shape, `orjson.dumps`, a bare await ...) is counted in
the same run. The accepted ratios are in `expected/X.Y.json`, one file for each Python.

`python -m benchmarks.gates.counted SEED` is what callgrind watches. It imports no more than the
rows need, because under callgrind the imports take as long as the loops.
"""

from __future__ import annotations

import json
import platform
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import asyncs, calls, instructions, keys, peers
from benchmarks.rows import BARE, COMPILED, CallRow

from .verdict import Verdict

MARGIN = 0.05
"""How much more instructions than accepted are let through on the build that was accepted."""

MARGIN_OTHER_BUILD = 0.25
"""The same on another patch release or build of CPython, which runs the yardstick differently."""

EXPECTED = Path(__file__).parents[1] / "expected"

YARDSTICKS: Mapping[str, str] = {
    **{row.name: peers.LRU for row in calls.ROWS},
    **{row.name: keys.ORJSON for row in keys.ROWS},
    **{row.name: BARE for row in asyncs.ROWS},
    calls.ROWS[-1].name: calls.BY_HAND,
}
"""What each counted row is divided by."""

COUNTED: tuple[CallRow, ...] = tuple(
    row.against(YARDSTICKS[row.name]) for row in (*calls.ROWS, *keys.ROWS, *asyncs.ROWS)
)

Counts = Mapping[str, Mapping[str, float]]
"""Instructions per call, by row and side."""


def build() -> dict[str, str]:
    """What decides how many instructions CPython itself takes."""
    configured = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    optimised = [flag for flag in ("--enable-optimizations", "--with-lto") if flag in configured]
    return {
        "python": platform.python_version(),
        "compiler": platform.python_compiler(),
        "machine": platform.machine(),
        "options": " ".join([str(sysconfig.get_config_var("OPT") or ""), *optimised]),
    }


def expected_file() -> Path:
    """Where the accepted counts of this Python minor version are."""
    return EXPECTED / f"{sys.version_info[0]}.{sys.version_info[1]}.json"


def expected() -> dict[str, Any] | None:
    """The content of `expected_file()`; None if there is none."""
    path = expected_file()
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


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
            note = "accepted on another build of CPython"
        elif ratio < target * (1 - MARGIN):
            note = "better now: --accept it"
        verdicts.append(
            Verdict(name, "instructions", YARDSTICKS[name], ratio, target, margin, note=note)
        )
    return verdicts


def judged() -> list[Verdict]:
    """Counts, and judges by what was accepted of this Python."""
    return judge(count(0)[0], expected())


def accept(counts: Counts) -> Path:
    """Writes counts as what is expected from now on of this Python minor version.

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
    path = expected_file()
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def main(arguments: Sequence[str]) -> int:
    """Runs the loops of the rows, and prints their order as JSON."""
    [seed] = map(int, arguments)
    print(json.dumps(instructions.run_loops(row.slowed(seed) for row in COUNTED)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
