"""`python -m benchmarks.chart docs/performance.md OUT.svg`: what a decorated call costs, as bars.

Draws rows of the tables that `python -m benchmarks --readme` printed, so that picture and tables
are of the same run. The axis is linear. The same tables give the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from . import published
from .published import OPERO, Line
from .svg import WIDTH, Drawing

GROUPS: Final = {
    "hit, three arguments, one by keyword": "A cache hit, three arguments",
    "retry, first attempt succeeds: added": "Retries, first attempt succeeds: added to the call",
    "permit free: added": "A rate limit that is not reached: added to the call",
    "breaker closed: added": "A closed circuit breaker: added to the call",
}
"""The rows that are drawn, and what the picture calls them."""
YARDSTICKS: Final = ("bare call", "lru_cache")
"""Sides that do something else, and so are not drawn; `lru_cache` is, beside a cache hit."""
_LEFT, _RIGHT = 118, WIDTH - 62
"""Between which the bars are."""


def sides(line: Line) -> list[str]:
    """Return the sides of a row that are drawn: opero, then the others, the cheapest first."""
    left_out = YARDSTICKS[:1] if line.name.startswith("hit") else YARDSTICKS
    peers = [peer for peer in line.peers if peer not in left_out]
    return [OPERO, *sorted(peers, key=line.number)]


def draw(lines: Mapping[str, Line], machine: str, out: Path) -> None:
    """Draw the rows.

    Args:
        lines: The rows by name.
        machine: What stands below the picture.
        out: The file.
    """
    most = math.ceil(max(lines[name].number(OPERO) for name in GROUPS))
    drawing = Drawing(f"With opero, none of these costs over {most} ns")
    longest = max(lines[name].number(side) for name in GROUPS for side in sides(lines[name]))
    y = 50.0
    drawing.text(16, y, "nanoseconds; a shorter bar is better", "note")
    for name, title in GROUPS.items():
        y += 28
        drawing.text(16, y, title, "group")
        y += 8
        for side in sides(lines[name]):
            style = "own" if side == OPERO else ""
            width = max((_RIGHT - _LEFT) * lines[name].number(side) / longest, 1.5)
            drawing.text(_LEFT - 8, y + 11, side, style, anchor="end")
            drawing.bar(_LEFT, y, width, f"bar {style}".strip())
            drawing.text(_LEFT + width + 6, y + 11, lines[name].figures[side], style)
            y += 17
    drawing.text(16, y + 22, machine, "note")
    drawing.save(y + 38, out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the tables and draw.

    Args:
        arguments: The command line; None for that of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart", description=__doc__)
    parser.add_argument("page", type=Path, help="where the tables are")
    parser.add_argument("out", type=Path, help="the file to draw")
    options = parser.parse_args(arguments)
    draw(*published.read(options.page.read_text(encoding="utf-8")), options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
