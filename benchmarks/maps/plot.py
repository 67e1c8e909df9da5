"""`python -m benchmarks.maps.plot FIGURES.json OUT.svg`: cost per item over the size of the batch.

Draws the sweep of a file that `python -m benchmarks.maps --json FIGURES.json` wrote, both axes
logarithmic. The same figures give the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.svg import WIDTH, Drawing

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Number of items and nanoseconds per item, by side."""

_OPERO = ("opero, process", "opero, thread")
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, WIDTH - 172, 72, 392
"""Between which the lines are; their names stand to the right."""
_LINE = 14
"""How far names are apart at least."""


def series(content: Mapping[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """Takes the sweep out of a file of figures.

    Args:
        content: What the file holds.

    Returns:
        The points of each side, by number of items.

    Raises:
        ValueError: If there is no sweep in the file.
    """
    if not content.get("sweep"):
        raise ValueError("there is no sweep in this file")
    return {
        side: sorted((int(size), float(cost)) for size, cost in costs.items())
        for side, costs in content["sweep"].items()
    }


def draw(lines: Series, caption: str, out: Path) -> None:
    """Draw the sweep.

    Args:
        lines: What `series` returned.
        caption: What stands below it.
        out: The file.
    """
    drawing = Drawing("opero's processes keep up with Pool.map")
    told = "nanoseconds per trivial item, by size of the batch; lower is better"
    drawing.text(16, 50, told, "note")
    sizes = [size for points in lines.values() for size, _ in points]
    costs = [cost for points in lines.values() for _, cost in points]
    across = _Axis(min(sizes), max(sizes), _LEFT, _RIGHT)
    up = _Axis(min(costs), max(costs), _BOTTOM, _TOP)
    for tick in up.ticks():
        drawing.path([(_LEFT, up.place(tick)), (_RIGHT, up.place(tick))], "grid")
        drawing.text(_LEFT - 6, up.place(tick) + 4, f"{tick:,}", "note", anchor="end")
    for tick in across.ticks():
        drawing.text(across.place(tick), _BOTTOM + 18, f"{tick:,}", "note", anchor="middle")
    ends = {}
    for side, points in lines.items():
        places = [(across.place(size), up.place(cost)) for size, cost in points]
        drawing.path(places, "line own" if side in _OPERO else "line")
        ends[side] = places[-1]
    for side, y in apart({side: y for side, (_, y) in ends.items()}).items():
        drawing.text(ends[side][0] + 6, y + 4, side, "own" if side in _OPERO else "")
    drawing.text(16, _BOTTOM + 46, caption, "note")
    drawing.save(_BOTTOM + 62, out)


class _Axis:
    """A logarithmic axis: places between `start` and `end` for values from `least` to `most`."""

    def __init__(self, least: float, most: float, start: float, end: float) -> None:
        self._from, self._to = math.log10(least), math.log10(most)
        self._start, self._end = start, end

    def place(self, value: float) -> float:
        """Return where a value is."""
        share = (math.log10(value) - self._from) / ((self._to - self._from) or 1.0)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[int]:
        """Return the powers of ten on the axis."""
        return [10**n for n in range(math.ceil(self._from), math.floor(self._to) + 1)]


def apart(places: Mapping[str, float]) -> dict[str, float]:
    """Move names that would overlap, from the bottom up.

    Args:
        places: Where each name would be.
    """
    moved: dict[str, float] = {}
    above = math.inf
    for side, y in sorted(places.items(), key=lambda place: -place[1]):
        above = moved[side] = min(y, above - _LINE)
    return moved


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the figures and draws.

    Args:
        arguments: The command line; None for that of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.maps.plot", description=__doc__)
    parser.add_argument("figures", type=Path, help="what `python -m benchmarks.maps --json` wrote")
    parser.add_argument("out", type=Path, help="the file to draw")
    options = parser.parse_args(arguments)
    content = json.loads(options.figures.read_text(encoding="utf-8"))
    draw(series(content), content["machine"], options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
