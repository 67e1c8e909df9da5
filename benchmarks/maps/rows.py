"""All rows of the map, in the order of the table, and those that are gates."""

from __future__ import annotations

from benchmarks.rows import Row

from . import busy, first, memory, payloads, resilience, tiny

PROMISED: tuple[Row, ...] = (
    tiny.PROCESS,
    busy.SKEWED,
    *tiny.ROWS[1:],
    *memory.ROWS,
    first.FIRST_MAP,
)
"""What is promised."""

ROWS: tuple[Row, ...] = (
    *PROMISED,
    busy.EVEN,
    *payloads.ROWS,
    *resilience.ROWS,
    *first.ROWS,
    *memory.FOR_SCALE,
)
"""All of them."""

GATED: tuple[Row, ...] = (
    tiny.PROCESS,
    busy.SKEWED,
    *tiny.ROWS[1:3],
    memory.THREAD,
    memory.PROCESS,
    first.FIRST_MAP,
)
"""The promises that are gates: those that take seconds."""
