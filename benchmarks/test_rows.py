"""The rows under pytest-benchmark: `pytest benchmarks --benchmark-only -p no:logging`.

The same rows, loops and sides as in `python -m benchmarks`, for those who want pytest-benchmark's
statistics, history and comparison. A round is one loop of `_CALLS` calls, the empty loop included;
the ratios that are promised come from the interleaved minima of `python -m benchmarks` instead.
With pytest's own logging, which keeps every record, the row of failures would measure that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .measure import Loop, event_loop
from .rows import CallRow
from .table import ROWS

_CALLS = 100

_LOOPS: list[tuple[str, str, Loop]] = [
    (row.name, side, loop)
    for row in ROWS
    if isinstance(row, CallRow)
    for side, loop in row.loops(row.sides()[0]).items()
]


@pytest.fixture(autouse=True)
def _loop() -> Iterator[None]:
    with event_loop():
        yield


@pytest.mark.parametrize(
    ("row", "side", "loop"), _LOOPS, ids=[f"{row}: {side}" for row, side, _ in _LOOPS]
)
def test_row(benchmark: Any, row: str, side: str, loop: Loop) -> None:
    """Times one side of one row."""
    benchmark.group = f"{row}, {_CALLS} calls"
    benchmark.name = side
    benchmark.pedantic(loop, args=(_CALLS,), rounds=50, iterations=1, warmup_rounds=3)
