"""`python -m benchmarks.maps.plot FIGURES.json OUT.svg`: cost per item over the size of the batch.

Draws the sweep of a file that `python -m benchmarks.maps --json FIGURES.json` wrote, both axes
logarithmic. The same figures give the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import drawing

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Number of items and nanoseconds per item, by side."""

_OPERO = {"opero, process": "#b2182b", "opero, thread": "#ef8a62"}
_PEERS = ("#08306b", "#2171b5", "#6baed6", "#00441b", "#238b45", "#74c476", "#54278f", "#969696")
_MARKS = "osD^vP<X"


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
    """Draws the sweep.

    Args:
        lines: What `series` returned.
        caption: What stands below it.
        out: The file; its suffix says which kind.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    pyplot = drawing.pyplot(9)
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    peers = [side for side in lines if side not in _OPERO]
    for side, points in lines.items():
        sizes, costs = zip(*points, strict=True)
        if side in _OPERO:
            style = {"color": _OPERO[side], "linewidth": 2.6, "marker": "o", "zorder": 3}
        else:
            place = peers.index(side)
            color = _PEERS[place % len(_PEERS)]
            mark = _MARKS[place % len(_MARKS)]
            style = {"color": color, "linewidth": 1.1, "marker": mark, "markersize": 4}
        axes.plot(sizes, costs, label=side, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("items in the batch")
    axes.set_ylabel("nanoseconds per item")
    axes.set_title("A map over trivial items: what it costs for each")
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    drawing.save(figure, caption, 7, out)


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
