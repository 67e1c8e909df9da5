"""`python -m benchmarks`: the table of the call rows, both opero cores against their peers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from . import table
from .measure import FULL, QUICK
from .rows import unavailable


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints.

    Args:
        arguments: The command line; None for that of the process.

    Returns:
        The exit code: 0, or 2 when no row has the name asked for.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures to a file as well"
    )
    parser.add_argument(
        "--readme", action="store_true", help="print the table of docs/performance.md"
    )
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds, shorter loops")
    parser.add_argument(
        "--row", metavar="TEXT", default="", help="only rows with this text in their name"
    )
    options = parser.parse_args(arguments)

    rows = [row for row in table.ROWS if options.row in row.name]
    if not rows:
        print(
            f"no row has {options.row!r} in its name; there are:",
            *(row.name for row in table.ROWS),
            sep="\n  ",
        )
        return 2
    effort = QUICK if options.quick else FULL
    results = table.measure(rows, effort)
    print(table.readme(results, effort) if options.readme else table.text(results, effort))
    for name, reason in unavailable().items():
        print(f"opero {name} is missing here: {reason}")
    if options.json is not None:
        options.json.write_text(
            json.dumps(table.as_json(results, effort), indent=1) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
