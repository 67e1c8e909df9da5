"""Cost per item as the batch grows: trivial items, from a thousand to a million.

At each size the sides take turns, fewer of them for large batches. A side leaves out the sizes at
which one turn would take it too long, by what an item took at the largest size before.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from benchmarks.implementations import Implementation
from benchmarks.measure import Effort
from benchmarks.rows import unavailable

from . import sides, work
from .sides import Mapper, Peer
from .turns import in_turns

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)

PEERS: tuple[tuple[Peer, int], ...] = (
    *((peer, sides.PROCESSES) for peer in sides.OF_PROCESSES),
    (sides.THREAD_EXECUTOR, sides.THREADS),
)
"""The sides beside opero's modes, and how many workers each has."""

_LONGEST = 30e9
"""Nanoseconds that a turn may take."""

Sweep = dict[str, dict[int, float]]
"""Nanoseconds per item, by side and by number of items."""


def sweep(effort: Effort, sizes: Sequence[int] = SIZES) -> tuple[Sweep, dict[str, str]]:
    """Measures the cost per item at every size.

    Args:
        effort: How many turns a side has at most.
        sizes: How many items, smallest first.

    Returns:
        The costs, and the sides that are missing, with the reason.
    """
    costs: Sweep = {}
    latest: dict[str, float] = {}
    missing: dict[str, str] = {}
    core: Implementation = "plain" if "compiled" in unavailable() else "compiled"
    with ExitStack() as stack:
        mappers: dict[str, Mapper] = {
            f"opero, {mode}": sides.opero_map(
                work.same, core, mode=mode, workers=sides.workers_of(mode)
            )
            for mode in ("process", "thread")
        }
        for peer, workers in PEERS:
            try:
                mappers[peer.name] = stack.enter_context(peer.open(work.same, workers))
            except ImportError as error:
                missing[peer.name] = str(error)
        for size in sizes:
            items = work.numbers(size)
            taking = {
                name: (mapper, items)
                for name, mapper in mappers.items()
                if size * latest.get(name, 0.0) <= _LONGEST
            }
            turns = max(1, min(effort.turns, 1_000_000 // size))
            for name, cost in in_turns(taking, replace(effort, turns=turns)).items():
                costs.setdefault(name, {})[size] = latest[name] = cost
    return costs, missing


def text(costs: Sweep) -> str:
    """The costs as a table.

    Args:
        costs: What `sweep` returned.

    Returns:
        The text, without a line break at the end.
    """
    sizes = sorted({size for by_size in costs.values() for size in by_size})
    width = max(len(name) for name in costs)
    lines = [" ".join([" " * width, *(f"{size:>11,}" for size in sizes)])]
    for name, by_size in costs.items():
        cells = (f"{by_size[size]:>11,.0f}" if size in by_size else f"{'-':>11}" for size in sizes)
        lines.append(" ".join([f"{name:<{width}}", *cells]))
    return "\n".join(lines)
