"""The gates on time and memory: the promises of the rows, with a margin for noise.

A busy machine only adds time. So what is red is measured again, after all other rows and a pause,
and longer than before; of each side the least figure of all tries counts. A regression stays red
however often it is measured, and a disturbed yardstick makes nothing green that is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from benchmarks import asyncs, calls, entries, imports, install, keys, peers, table, threads
from benchmarks.maps import rows as maps
from benchmarks.measure import Effort
from benchmarks.rows import CallRow, Measured, Row, Target

from .verdict import Verdict

NOISE = 0.10
"""How much a figure may lie above its promise."""

MARGINS: Mapping[str, float] = {"bytes": 0.02, "modules": 0.0}
"""The same by unit, where the figure is counted and not measured."""

TRIES = 5
"""How often a promise is measured before it is red."""

PAUSE = 2.0
"""Seconds before what is red is measured again."""

KNOWN_MISSES: Mapping[tuple[str, str], tuple[float, str]] = {
    ("permit free: added", peers.LRU): (
        1.5,
        "the exact clock takes 22 of 38 ns, an lru_cache hit 27; a coarse one would admit early",
    ),
    ("retry, first attempt succeeds: added", peers.LRU): (
        0.75,
        "missed on 3.15: a bare call stays in the interpreter's loop, one from C enters it anew",
    ),
    ("miss and store", peers.LRU): (
        1.75,
        "beside what LRU does: an entry that other callers can join, and S3-FIFO's ghosts",
    ),
    ("everything on, miss and store", peers.LRU): (
        2.15,
        "what limits a plain miss, and the exact clock for the permit, 22 of 146 ns",
    ),
    ("process, 1 in 100 items 100 times longer", "ideal makespan"): (
        1.16,
        "each chunk needs the caller for a moment, while as many workers as processors are busy",
    ),
    ("process, 200,000 trivial items", "Pool.map"): (
        1.2,
        "Pool.map cuts four chunks for each worker in advance; opero's grow as items prove quick",
    ),
    ("process, 200,000 trivial items", "joblib"): (
        1 / 5,
        "joblib makes its batches larger from turn to turn while it is kept open; 6 to 12 times",
    ),
}
"""Promises that are not kept, by row and by what they are against: the ratio (or figure) that the
gate holds instead, and what limits it. An entry goes as soon as its promise is kept."""

GROUPS: Mapping[str, tuple[Row, ...]] = {
    "calls": (*calls.ROWS, *keys.GATED, *asyncs.ROWS),
    "entries": entries.GATED,
    "imports": imports.ROWS,
    "threads": threads.ROWS,
    "install": install.ROWS,
    "maps": maps.GATED,
}
"""The rows whose promises are gates."""

MISSING: Mapping[str, Callable[[], str | None]] = {
    "threads": threads.missing,
    "install": install.missing,
}
"""By group: why its rows cannot be measured here, if so."""

_KINDS: Mapping[str, str] = {"bytes": "memory", "MiB": "memory", "modules": "modules"}


def judge(row: Row, target: Target, value: float | None) -> Verdict:
    """Judges one promise.

    Args:
        row: The row.
        target: The promise.
        value: The ratio (or figure); None if it could not be had.

    Returns:
        The verdict.
    """
    held: float | None = None
    note = "" if not target.against or target.most >= 1 / 3 else table.promise(target, row.unit)
    if (row.name, target.against) in KNOWN_MISSES:
        most, reason = KNOWN_MISSES[row.name, target.against]
        if value is not None and value <= target.most:
            note = "the promise is kept now, perhaps no known miss any more"
        else:
            held, note = most, f"held to {most:g}: {reason}"
    if value is None:
        note = "could not be measured, is everything of the bench extra installed?"
    return Verdict(
        row.name,
        _KINDS.get(row.unit, "time"),
        target.against or row.unit,
        value,
        target.most,
        MARGINS.get(row.unit, NOISE),
        held,
        note,
    )


def least(row: Row, tries: Sequence[Measured]) -> Measured:
    """The least figure of each side in all tries; a side that is missing in one is missing.

    Args:
        row: The row that was measured.
        tries: What came of it, each time.

    Returns:
        The figures to judge by. Of rows about added costs the calls are compared as wholes, so
        that a slow bare call in one try does not make what was added look small.
    """
    missing = {side: why for measured in tries for side, why in measured.missing.items()}
    figures = [measured.figures for measured in tries]
    if isinstance(row, CallRow):
        figures = [row.whole(each) for each in figures]
    best = {
        side: min(each[side] for each in figures)
        for side in figures[0]
        if all(side in each for each in figures)
    }
    return Measured(row.subtract(best) if isinstance(row, CallRow) else best, missing)


def gates(rows: Iterable[Row], effort: Effort, tries: int, pause: float) -> list[Verdict]:
    """Measures and judges every promise of the rows.

    Args:
        rows: The rows; those without promises say nothing.
        effort: How long to measure at first; each further try takes half as long again as that.
        tries: How often what is red is measured.
        pause: Seconds to wait before measuring again.

    Returns:
        One verdict per promise.
    """
    smaller = [row.against(*(target.against for target in row.targets)) for row in rows]
    pending = [row for row in smaller if row.targets]
    order = [row.name for row in pending]
    measured: dict[str, list[Measured]] = {name: [] for name in order}
    judged: dict[str, list[Verdict]] = {}
    for number in range(tries):
        if number:
            time.sleep(pause)
        longer = replace(effort, rounds=effort.rounds + number * effort.rounds // 2)
        for row in pending:
            measured[row.name].append(row.measure(longer))
            best = least(row, measured[row.name])
            judged[row.name] = [judge(row, target, best.value(target)) for target in row.targets]
        pending = [row for row in pending if any(verdict.red for verdict in judged[row.name])]
        if not pending:
            break
    return [verdict for name in order for verdict in judged[name]]
