"""`python -m benchmarks.stores`: stored caches and shared limits, opero against its peers."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks import table
from benchmarks.measure import Effort
from benchmarks.rows import unavailable

from . import rows
from .turns import FULL, QUICK


def method(effort: Effort) -> str:
    """How the figures were taken, in one or two lines."""
    return (
        f"whole calls, one at a time: fastest of at most {effort.rounds} rounds in which all\n"
        "sides take turns, warm; files in the temporary directory, a redis-server on loopback"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints.

    Args:
        arguments: The command line; None for that of the process.

    Returns:
        The exit code: 0, or 2 when no row has the name asked for.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores", description=__doc__)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures to a file as well"
    )
    parser.add_argument(
        "--readme", action="store_true", help="print the table of docs/performance.md"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument(
        "--row", metavar="TEXT", default="", help="only rows with this text in their name"
    )
    options = parser.parse_args(arguments)

    wanted = [row for row in rows.ROWS if options.row in row.name]
    if not wanted:
        names = [row.name for row in rows.ROWS]
        print(f"no row has {options.row!r} in its name; there are:", *names, sep="\n  ")
        return 2
    effort = QUICK if options.quick else FULL
    if options.readme:
        wanted = [row for row in wanted if row in rows.IN_README]
    results = table.measure(wanted, effort)
    if options.readme:
        print(table.readme(results, effort, method))
    else:
        print(table.text(results, effort, method))
        for name, reason in unavailable().items():
            print(f"{name} is missing here: {reason}")
    if options.json is not None:
        content = {
            **table.as_json(results, effort),
            "processors": os.cpu_count(),
            "compiled": "compiled" not in unavailable(),
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
