"""Seeded regressions: proof that each gate turns red.

Instructions are judged with one Python call added around opero's own, or eight where a task costs
many times more than a call; the promises, which leave room, with 0, 1, 2, 4 ... of them until they
are red. For other rows it is not calls that are added: see their `slowed`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from benchmarks.measure import Effort
from benchmarks.rows import Measured, Row, Target

from . import counted, promised
from .verdict import Verdict

SEEDS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""How much is added until the gate is red."""

COUNTED_SEEDS = (1, 8)
"""The same for instructions, of which one call more is enough to see, but for rows of tasks."""

TRIES = 3
"""How often a gate must be red with the same seed."""


def in_counts() -> list[Verdict]:
    """What the gates on instructions say of more Python calls; judged by this build's count.

    Returns:
        One verdict per row: that on the smallest seed that turns its gate red.
    """
    plain, *seeded = counted.count(0, *COUNTED_SEEDS)
    here = {"build": counted.build(), "ratios": counted.ratios(plain)}
    best: dict[str, Verdict] = {}
    for seed, counts in zip(COUNTED_SEEDS, seeded, strict=True):
        for verdict in counted.judge(counts, here):
            if verdict.row not in best or not best[verdict.row].red:
                note = f"{seed} Python calls added" if seed > 1 else "1 Python call added"
                best[verdict.row] = replace(verdict, note=note, proved=verdict.red)
    return list(best.values())


def in_promises(rows: Iterable[Row], effort: Effort) -> list[Verdict]:
    """What the gates on promises say of the smallest seed that turns them red.

    Args:
        rows: The rows.
        effort: How long to measure.

    Returns:
        One verdict per promise: it is proved if a seed turned the gate red, and nothing else did.
    """
    verdicts = []
    for row in rows:
        for target in row.targets:
            seed, verdict = first_red(row.against(target.against), target, effort)
            if seed == 0:  # a gate that is red anyway proves nothing
                verdict = replace(verdict, note="red without any seed", proved=False)
            else:
                verdict = replace(verdict, note=f"{seed} added", proved=verdict.red)
            verdicts.append(verdict)
    return verdicts


def first_red(row: Row, target: Target, effort: Effort) -> tuple[int, Verdict]:
    """Seeds more and more until a gate is red.

    Args:
        row: The row, without a seed.
        target: The promise.
        effort: How long to measure one try.

    Returns:
        The last seed, and the verdict on it.
    """
    for seed in SEEDS:
        tries: list[Measured] = []
        for _ in range(TRIES):
            tries.append(row.slowed(seed).measure(effort))
            verdict = promised.judge(row, target, promised.least(row, tries).value(target))
            if not verdict.red:
                break
        if verdict.red:
            break
    return seed, verdict
