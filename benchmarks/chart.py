"""`python -m benchmarks.chart docs/performance.md OUT.svg`: what a call costs, as a picture.

Draws the table that `python -m benchmarks --readme` printed, so that picture and table cannot be of
different runs: a line for each row that is in nanoseconds, a mark for each side, the axis
logarithmic. The same table gives the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import drawing

_MEASURED = re.compile(
    r"^<!-- measured:begin -->\n(?P<table>.*?)\n\n(?P<machine>[^\n]+)\n.*?^<!-- measured:end -->$",
    re.MULTILINE | re.DOTALL,
)
_SIDE = re.compile(r"(?P<name>.+?) (?P<figure>\d[\d,.]*)(?:, |$)")
_OPERO = ("opero", "opero, plain Python")
_COLORS = ("#08306b", "#2171b5", "#6baed6", "#00441b", "#238b45", "#74c476", "#54278f", "#969696")
_MARKS = "sD^vP<X>"


@dataclass(frozen=True)
class WaitQueue:
    """A row of the table.

    Attributes:
        name: What was measured.
        sides: Nanoseconds by side, opero's two halves first.
    """

    name: str
    sides: dict[str, float]


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def read(page: str) -> tuple[list[WaitQueue], str]:
    """Reads the table of a page.

    Args:
        page: The Markdown.

    Returns:
        The rows that are in nanoseconds, in their order, and the machine's name.

    Raises:
        ValueError: If there is no measured table on the page.
    """
    found = _MEASURED.search(page)
    if found is None:
        raise ValueError("there is no measured table on this page")
    lines = []
    for row in found["table"].splitlines()[2:]:
        name, compiled, plain, peers = (cell.strip() for cell in row.strip("|").split(" | "))
        if re.search(r"\(\w+\)$", name):
            continue  # a unit of its own
        sides = {_OPERO[0]: _number(compiled), _OPERO[1]: _number(plain)}
        sides.update((side["name"], _number(side["figure"])) for side in _SIDE.finditer(peers))
        lines.append(WaitQueue(name, sides))
    return lines, found["machine"]


def draw(lines: Sequence[WaitQueue], machine: str, out: Path) -> None:
    """Draws the rows.

    Args:
        lines: What `read` returned.
        machine: What stands below the picture.
        out: The file; its suffix says which kind.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    pyplot = drawing.pyplot(9)
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    places = range(len(lines), 0, -1)
    peers = list(dict.fromkeys(side for line in lines for side in line.sides if side not in _OPERO))
    for side in (*_OPERO, *peers):
        points = [
            (line.sides[side], place)
            for line, place in zip(lines, places, strict=True)
            if side in line.sides
        ]
        if side in _OPERO:
            color = ("#b2182b", "#ef8a62")[_OPERO.index(side)]
            style = {"color": color, "marker": "o", "s": 80, "zorder": 3}
        else:
            place = peers.index(side)
            mark = _MARKS[(place // len(_COLORS) + place) % len(_MARKS)]
            style = {"color": _COLORS[place % len(_COLORS)], "marker": mark, "s": 26, "zorder": 2}
        axes.scatter(*zip(*points, strict=True), label=side, **style)
    for line, place in zip(lines, places, strict=True):
        cost = line.sides[_OPERO[0]]
        axes.annotate(f"{cost:,g}", (cost, place), (0, 7), textcoords="offset points", ha="center")
    axes.set_xscale("log")
    axes.set_xlabel("nanoseconds per call")
    axes.set_yticks(list(places), [line.name for line in lines])
    axes.set_title("What a call costs, and what the same costs elsewhere")
    axes.grid(visible=True, axis="both", which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    drawing.save(figure, machine, 7, out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the table and draws.

    Args:
        arguments: The command line; None for that of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart", description=__doc__)
    parser.add_argument("page", type=Path, help="where the table stands")
    parser.add_argument("out", type=Path, help="the file to draw")
    options = parser.parse_args(arguments)
    draw(*read(options.page.read_text(encoding="utf-8")), options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
