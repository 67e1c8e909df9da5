"""The harness of the map rows: the sides take turns over the same items.

A turn is one whole map. Before its first one a side maps a few items, so that its workers are there
and have loaded the function; the results of the first turn are compared with what they have to be.
A slow side may have no second one. As for calls, the fastest turn of each side is kept, and the
garbage collector of this process is off.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any

from benchmarks.measure import Effort, quiet

from .sides import Mapper

Figure = Callable[[int, Sequence[Any], "list[Any]"], float]
"""Makes a figure from the nanoseconds of a turn, its items and its results."""

Check = Callable[[Sequence[Any], "list[Any]"], bool]
"""Whether results are those of the items."""

_FEW = 100
"""How many items warm a side up."""

_PATIENCE = 250_000_000
"""Nanoseconds: a side that has used this many for each turn that the effort allows, is done."""


def alike(items: Sequence[Any], results: list[Any]) -> bool:
    """Whether each result is its item, as it is when the function does nothing."""
    return results == list(items)


def per_item(elapsed: int, items: Sequence[Any], results: list[Any]) -> float:
    """Nanoseconds for each item."""
    return elapsed / len(items)


def in_turns(
    sides: Mapping[str, tuple[Mapper, Sequence[Any]]],
    effort: Effort,
    figure: Figure = per_item,
    check: Check = alike,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, float]:
    """Let every side map in turn.

    Args:
        sides: How each side maps, and what; by name.
        effort: How often.
        figure: What to make of a turn.
        check: What the results of the first turn have to be.
        before: What is called before each turn of a side, off the clock; by name.

    Returns:
        The least figure of each side.

    Raises:
        AssertionError: If the results of a side are wrong.
    """
    best = dict.fromkeys(sides, float("inf"))
    spent = dict.fromkeys(sides, 0)
    for mapper, items in sides.values():
        mapper(items[:_FEW])
    for turn in range(effort.turns):
        for name, (mapper, items) in sides.items():
            if spent[name] > effort.turns * _PATIENCE:
                continue
            if before and name in before:
                before[name]()
            with quiet():
                start = perf_counter_ns()
                results = mapper(items)
                elapsed = perf_counter_ns() - start
            if turn == 0:
                assert check(items, results), f"the results of {name} are wrong"
            spent[name] += elapsed
            best[name] = min(best[name], figure(elapsed, items, results))
            del results
    gc.collect()
    return best
