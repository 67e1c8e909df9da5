"""`python -m benchmarks.maps`: the table of the map rows, opero against its peers."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.measure import FULL, QUICK, Effort
from benchmarks.rows import unavailable

from . import rows, sides
from .sweep import SIZES, sweep
from .sweep import text as sweep_text

SWEEP = "sweep"
"""The name of the sweep, for `--row`."""


def method(effort: Effort) -> str:
    """How the figures were taken, in one or two lines."""
    return (
        f"fastest of at most {effort.turns} turns in which all sides map the same items, warm;\n"
        f"{sides.PROCESSES} processes, {sides.THREADS} threads, or {sides.SLOTS} coroutines at once"
    )


def figures(effort: Effort, wanted: str = "", sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Measures what is wanted.

    Args:
        effort: How long.
        wanted: Only rows with this text in their name.
        sizes: The sizes of the sweep.

    Returns:
        `results`, the rows with their figures; `costs`, those of the sweep, empty without it; and
        `missing`, what the sweep had to leave out.
    """
    results = table.measure([row for row in rows.ROWS if wanted in row.name], effort)
    costs, missing = sweep(effort, sizes) if wanted in SWEEP else ({}, {})
    return {"results": results, "costs": costs, "missing": missing}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints.

    Args:
        arguments: The command line; None for that of the process.

    Returns:
        The exit code: 0, or 2 when no row has the name asked for.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.maps", description=__doc__)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures to a file as well"
    )
    parser.add_argument(
        "--readme",
        action="store_true",
        help="print the table of docs/performance.md: promises only",
    )
    parser.add_argument("--quick", action="store_true", help="fewer turns, a shorter sweep")
    parser.add_argument(
        "--row", metavar="TEXT", default="", help=f"only rows with this text in their name; {SWEEP}"
    )
    options = parser.parse_args(arguments)

    names = [*(row.name for row in rows.ROWS), SWEEP]
    if not any(options.row in name for name in names):
        print(f"no row has {options.row!r} in its name; there are:", *names, sep="\n  ")
        return 2
    effort = QUICK if options.quick else FULL
    if options.readme:
        results = table.measure([row for row in rows.PROMISED if options.row in row.name], effort)
        print(table.readme(results, effort, method))
        return 0
    found = figures(effort, options.row, SIZES[:5] if options.quick else SIZES)
    results, costs = found["results"], found["costs"]
    if results:
        print(table.text(results, effort, method))
    if costs:
        print("\nns per item, by the number of items in the batch:\n")
        print(sweep_text(costs))
    for name, reason in {**unavailable(), **found["missing"]}.items():
        print(f"{name} is missing here: {reason}")
    if options.json is not None:
        content = {
            **table.as_json(results, effort),
            "turns": effort.turns,
            "processors": os.cpu_count(),
            "compiled": "compiled" not in unavailable(),
            SWEEP: costs,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
