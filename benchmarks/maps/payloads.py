"""Rows of large items: a mebibyte goes to a worker and comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import sides, work
from .tiny import MapRow


def microseconds(elapsed: int, items: Sequence[Any], results: list[Any]) -> float:
    """Microseconds for each item."""
    return elapsed / len(items) / 1e3


def _row(name: str, items: Any) -> MapRow:
    return MapRow(
        name,
        work.same,
        items,
        64,
        sides.PROCESSES,
        {"mode": "process"},
        sides.OF_PROCESSES,
        unit="us/item",
        figure=microseconds,
    )


ROWS: tuple[MapRow, ...] = (
    _row("process, 64 items of 1 MiB: bytes", work.payloads),
    _row("process, 64 items of 1 MiB: buffers", work.blocks),
)
