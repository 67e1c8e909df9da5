"""Rows of items that keep a processor busy: how near a map comes to the shortest time possible.

An item takes a given processor time, and returns how long its worker was occupied by it. No
schedule can end before the sum of these times, divided by the number of workers, nor before the
longest of them. A turn's figure is its time on the wall as a multiple of that, shown in
milliseconds for items that take exactly what they should. So it holds what a map loses between
items and at the end, and not what other programs take away while an item runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.rows import Target

from . import sides, work
from .tiny import MapRow

IDEAL = "ideal makespan"

_PEERS = (
    sides.POOL,
    sides.POOL_ONE_BY_ONE,
    sides.PROCESS_EXECUTOR,
    sides.MPIRE,
    sides.JOBLIB,
    sides.LOKY,
    sides.PROCESS_MAP,
    sides.PYARALLEL,
)


def shortest(durations: Sequence[int]) -> float:
    """Nanoseconds before which no schedule over the workers can end."""
    return max(sum(durations) / sides.PROCESSES, *durations)


def makespan(elapsed: int, items: Sequence[Any], results: list[Any]) -> float:
    """Milliseconds of a turn, had each item taken exactly as long as it should."""
    return elapsed / shortest(results) * shortest(items) / 1e6


def busy_enough(items: Sequence[Any], results: list[Any]) -> bool:
    """Whether every item took the time that it should."""
    return len(items) == len(results) and all(
        spent >= 0.99 * wanted for spent, wanted in zip(results, items, strict=True)
    )


def ideal(items: Sequence[Any], workers: int) -> dict[str, float]:
    """The ideal makespan as a side, in milliseconds."""
    return {IDEAL: shortest(items) / 1e6}


SKEWED = MapRow(
    "process, 1 in 100 items 100 times longer",
    work.spin,
    work.skewed,
    1_000,
    sides.PROCESSES,
    {"mode": "process"},
    _PEERS,
    (Target(IDEAL, 1.1),),
    unit="ms",
    figure=makespan,
    check=busy_enough,
    known=ideal,
    seeded="chunks",
)

EVEN = MapRow(
    "process, 2,000 items of 100 microseconds",
    work.spin,
    work.even,
    2_000,
    sides.PROCESSES,
    {"mode": "process"},
    _PEERS,
    unit="ms",
    figure=makespan,
    check=busy_enough,
    known=ideal,
    seeded="chunks",
)

ROWS: tuple[MapRow, ...] = (SKEWED, EVEN)
