"""`python -m benchmarks.gates`: rows as gates, red on a regression and not by noise.

Two kinds of gate, both on the compiled core; the rows of the map have those of time alone:

- *instructions*: one call under callgrind, as a ratio to the row's yardstick (an `lru_cache` hit
  of the same shape, `orjson.dumps`, a bare await ...) counted in the same run. Judged against the
  ratio accepted for this Python minor version, which `expected/X.Y.json` holds: at most 5 % more.
  Another patch release or build of CPython runs the yardstick differently: then 25 %.
- *time*: the promises of the table, as ratios in one run of interleaved minima, with 10 % for
  noise. What is red is measured again, three times in all, and stays red only if red each time.

`--accept` writes what was counted as the new expectation: do that in the change that explains it.
`--prove` seeds regressions (Python calls around opero's own) and shows that each gate turns red.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import asyncs, calls, instructions, keys, peers, table
from .maps import rows as maps
from .measure import QUICK, Effort
from .rows import BARE, COMPILED, CallRow, Row, Target

MARGIN = 0.05
"""How much more instructions than accepted are let through on the build that was accepted."""

MARGIN_OTHER_BUILD = 0.25
"""The same on another patch release or build of CPython."""

NOISE = 0.10
"""How much a time ratio may lie above its promise."""

TRIES = 3
"""How often a time gate is measured before it is red."""

SEEDS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""How many Python calls `--prove` adds, until the gate is red."""

KNOWN_MISSES: Mapping[tuple[str, str], tuple[float, str]] = {
    ("awaited hit", BARE): (
        1.9,
        "a true coroutine made from C costs 1.3 to 1.4 of a bare one before any lookup",
    ),
    ("awaited retry, first attempt succeeds", BARE): (
        2.4,
        "the guard around the first attempt is a second coroutine, made from C",
    ),
    ("process, 1 in 100 items 100 times longer", "ideal makespan"): (
        1.16,
        "each chunk needs the caller for a moment, while as many workers as processors are busy",
    ),
    ("hit, one int argument, TTL set", peers.LRU): (
        0.95,
        "missed on 3.13 only, by ints above 256; not understood",
    ),
}
"""Promises that are not kept, by row and by what they are against: the ratio (or figure) that the
gate holds instead, and what limits it. An entry goes as soon as its promise is kept."""

EXPECTED = Path(__file__).parent / "expected"

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


TIMED: tuple[Row, ...] = (*table.ROWS, *maps.GATED)
"""The rows whose promises are gates of time."""


@dataclass(frozen=True)
class Verdict:
    """What one gate says.

    Args:
        gate: The row, and what it is judged by.
        value: The ratio (or figure) of opero; None if it could not be had.
        limit: The largest one that passes; None if there is no limit to judge by.
        note: What the reader should know about the limit or the value.
    """

    gate: str
    value: float | None
    limit: float | None
    note: str = ""

    @property
    def red(self) -> bool:
        """Whether the gate fails; one that cannot be judged does."""
        return self.value is None or self.limit is None or self.value > self.limit


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


def ratios(counted: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Turns counts into the ratios that the instruction gates judge.

    Args:
        counted: Instructions per call, by row and side.

    Returns:
        opero's instructions (of an 'added' row: the added ones) by row, divided by the yardstick's.
    """
    by_row = {}
    for row in COUNTED:
        figures = row.subtract(counted[row.name])
        by_row[row.name] = figures[COMPILED] / counted[row.name][YARDSTICKS[row.name]]
    return by_row


def judge_instructions(
    counted: Mapping[str, Mapping[str, float]], expected: Mapping[str, Any] | None
) -> list[Verdict]:
    """Judges counts by what was accepted.

    Args:
        counted: Instructions per call, by row and side.
        expected: The content of `expected_file()`; None if there is none.

    Returns:
        One verdict per counted row.
    """
    accepted: Mapping[str, float] = expected["ratios"] if expected else {}
    same = expected is not None and expected["build"] == build()
    margin = MARGIN if same else MARGIN_OTHER_BUILD
    verdicts = []
    for name, ratio in ratios(counted).items():
        gate = f"{name} [instructions / {YARDSTICKS[name]}]"
        if name not in accepted:
            verdicts.append(Verdict(gate, ratio, None, "nothing accepted yet: --accept"))
            continue
        note = f"accepted {accepted[name]:.3f} + {margin:.0%}"
        if not same:
            note += ", another build"
        if same and ratio < accepted[name] * (1 - MARGIN):
            note += "; better now: --accept it"
        verdicts.append(Verdict(gate, ratio, accepted[name] * (1 + margin), note))
    return verdicts


def judge_time(row: Row, target: Target, values: Iterable[float | None]) -> Verdict:
    """Judges one promise by the values measured for it.

    Args:
        row: The row.
        target: The promise.
        values: The ratios (or figures) of all tries.

    Returns:
        The verdict on the best of them.
    """
    value = min((value for value in values if value is not None), default=None)
    against = f" / {target.against}" if target.against else f" {row.unit}"
    note = f"promise {table.promise(target, row.unit)} + {NOISE:.0%}"
    limit = target.most
    if (row.name, target.against) in KNOWN_MISSES:
        limit, reason = KNOWN_MISSES[row.name, target.against]
        note = f"promise {table.promise(target, row.unit)} MISSED: {reason}; held to {limit:g}"
        if value is not None and value <= target.most:
            note = f"promise {table.promise(target, row.unit)} kept now: no known miss any more"
    if value is None:
        note += "; could not be measured, is everything of the bench extra installed?"
    return Verdict(f"{row.name} [time{against}]", value, limit * (1 + NOISE), note)


def time_gates(rows: Iterable[Row], effort: Effort, tries: int = TRIES) -> list[Verdict]:
    """Measures and judges every promise of the rows.

    Args:
        rows: The rows; those without promises say nothing.
        effort: How long to measure one try.
        tries: How often what is red is measured.

    Returns:
        One verdict per promise.
    """
    verdicts: list[Verdict] = []
    for full in rows:
        if not full.targets:
            continue
        row = full.against(*(target.against for target in full.targets))
        values: dict[Target, list[float | None]] = {target: [] for target in row.targets}
        for _ in range(tries):
            measured = row.measure(effort)
            for target in row.targets:
                values[target].append(measured.value(target))
            judged = [judge_time(row, target, values[target]) for target in row.targets]
            if not any(verdict.red for verdict in judged):
                break
        verdicts += judged
    return verdicts


def render(verdicts: Sequence[Verdict]) -> str:
    """The gates as a table.

    Args:
        verdicts: What they say.

    Returns:
        The text, without a line break at the end.
    """

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}" if value < 0.1 else f"{value:.3f}"

    width = max(len(verdict.gate) for verdict in verdicts)
    lines = [f"{'gate':<{width}}  {'value':>9}  {'limit':>9}  verdict"]
    for verdict in verdicts:
        word = "RED" if verdict.red else "ok "
        lines.append(
            f"{verdict.gate:<{width}}  {shown(verdict.value):>9}  {shown(verdict.limit):>9}  {word}"
            f"  ({verdict.note})"
        )
    return "\n".join(lines)


def counted_here(seed: int = 0) -> dict[str, dict[str, float]]:
    """Counts the instructions of every counted row in a process of its own.

    Args:
        seed: How many Python calls to put around opero's own.

    Returns:
        Instructions per call, by row and side.
    """
    return instructions.count(["-m", "benchmarks.gates", "--run-loops", str(seed)])


def prove(with_instructions: bool, effort: Effort = QUICK) -> bool:
    """Seeds a regression into every row and prints which one turns which gate red.

    Args:
        with_instructions: Whether instructions can be counted here.
        effort: How long to measure one time gate.

    Returns:
        Whether every gate turned red.
    """
    verdicts: list[Verdict] = []
    already = 0
    if with_instructions:
        here = {"build": build(), "ratios": ratios(counted_here())}
        verdicts += judge_instructions(counted_here(seed=1), here)
        print("instruction gates with 1 Python call added, judged by this build's own count:\n")
        print(render(verdicts))
    print(
        "\ntime gates: how many added Python calls it takes to be red (for imports: modules;\n"
        "for skewed items: the size of a chunk; for streams: 100,000 results kept)\n"
    )
    timed = []
    for row in TIMED:
        for target in row.targets:
            seed, verdict = _first_red(row.against(target.against), target, effort)
            already += seed == 0
            timed.append(replace(verdict, note=f"{seed} added; {verdict.note}"))
    print(render(timed))
    verdicts += timed
    green = sum(not verdict.red for verdict in verdicts)
    turned = len(verdicts) - green - already
    print(f"\n{turned} gates turned red, {already} were red as it is, {green} stayed green")
    return not green and not already


def _first_red(row: Row, target: Target, effort: Effort) -> tuple[int, Verdict]:
    for seed in SEEDS:
        values = []
        for _ in range(TRIES):
            values.append(row.slowed(seed).measure(effort).value(target))
            verdict = judge_time(row, target, values)
            if not verdict.red:
                break
        if verdict.red:
            break
    return seed, verdict


def accept(counted: Mapping[str, Mapping[str, float]]) -> Path:
    """Writes counts as what is expected from now on of this Python minor version.

    Args:
        counted: Instructions per call, by row and side.

    Returns:
        The file.
    """
    content = {
        "build": build(),
        "ratios": {name: round(ratio, 4) for name, ratio in ratios(counted).items()},
        "instructions": {
            name: {side: round(value) for side, value in sides.items()}
            for name, sides in counted.items()
        },
    }
    path = expected_file()
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the gates.

    Args:
        arguments: The command line; None for that of the process.

    Returns:
        The exit code: 0 if all gates are green (with `--prove`: if all turned red), else 1.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gates", description="Gates on the rows of calls and maps."
    )
    parser.add_argument(
        "--instructions",
        choices=("auto", "require", "off"),
        default="auto",
        help="auto: count if valgrind is there and say so if not; require: red if not",
    )
    parser.add_argument(
        "--accept", action="store_true", help="write the counts as the new expectation"
    )
    parser.add_argument(
        "--prove", action="store_true", help="seed regressions and show the gates turn red"
    )
    parser.add_argument("--calls", action="store_true", help="the rows of calls only, no maps")
    parser.add_argument("--run-loops", type=int, metavar="N", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)

    if options.run_loops is not None:
        print(json.dumps(instructions.run_loops(row.slowed(options.run_loops) for row in COUNTED)))
        return 0

    print(table.machine())
    reason = "switched off" if options.instructions == "off" else instructions.missing()
    if reason is not None:
        print(f"no instruction gates: {reason}; the time gates alone judge")
        if options.instructions == "require" or options.accept:
            return 1
    if options.accept:
        print(f"wrote {accept(counted_here())}")
        return 0
    if options.prove:
        return 0 if prove(reason is None) else 1

    verdicts: list[Verdict] = []
    if reason is None:
        path = expected_file()
        expected = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        verdicts += judge_instructions(counted_here(), expected)
    verdicts += time_gates(table.ROWS if options.calls else TIMED, QUICK)
    print(render(verdicts))
    red = sum(verdict.red for verdict in verdicts)
    print(f"{len(verdicts) - red} gates are green, {red} red")
    return 1 if red else 0


if __name__ == "__main__":
    raise SystemExit(main())
