"""`python -m benchmarks.history FOLDER OUT.svg`: what the gates said over many runs, as a chart.

FOLDER holds what `python -m benchmarks.gates --json FILE` wrote, at any depth and under any name
that ends in `.json`, as CI's artefacts are unpacked. Every gate has a panel: its value in each run,
one line for each Python, and dashed the limit. The same files give the same chart, byte for byte.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import drawing
from benchmarks.gates.record import Record, RecordError, read

_COLUMNS = 4
_COLORS = ("#b2182b", "#2166ac", "#1b7837", "#762a83", "#e08214", "#35978f")
_TITLE = 52
"""How many characters of a gate's name fit in a line above its panel."""


def load(folder: Path) -> tuple[list[Record], list[str]]:
    """Read all records in a folder.

    Args:
        folder: Where they are, at any depth.

    Returns:
        The records by date, and what is wrong with the files that are none.
    """
    records: list[Record] = []
    errors: list[str] = []
    for path in sorted(folder.rglob("*.json")):
        try:
            records.append(read(path))
        except RecordError as error:
            errors.append(str(error))
    return sorted(records, key=lambda record: record.date), errors


def runs(records: Sequence[Record]) -> list[tuple[str, str]]:
    """The runs, in order: what was measured on several Pythons at one commit is one of them.

    Args:
        records: The records by date.

    Returns:
        The commit of each run, or its date if that is unknown, and its day.
    """
    found: dict[str, str] = {}
    for record in records:
        found.setdefault(record.commit or record.date, record.date[:10])
    return list(found.items())


def points(
    records: Sequence[Record], gate: str, field: str = "value"
) -> dict[str, list[tuple[int, float]]]:
    """What a gate said, by Python.

    Args:
        records: The records by date.
        gate: The gate's name.
        field: `value` or `limit`.

    Returns:
        The number of the run and the figure, by minor version; runs without one are left out. Of
        several records of one run the last counts.
    """
    places = {run: place for place, (run, _day) in enumerate(runs(records))}
    lines: dict[str, dict[int, float]] = {}
    for record in records:
        figure = record.gates.get(gate)
        number = None if figure is None else getattr(figure, field)
        if number is not None:
            python = ".".join(record.python.split(".")[:2])
            lines.setdefault(python, {})[places[record.commit or record.date]] = number
    return {python: sorted(lines[python].items()) for python in sorted(lines, key=_version)}


def _version(python: str) -> list[int]:
    return [int(part) for part in python.split(".")]


def draw(records: Sequence[Record], out: Path) -> None:
    """Draw the chart.

    Args:
        records: The records by date; one at least.
        out: The file; its suffix says which kind.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    pyplot = drawing.pyplot(8)
    gates = list(dict.fromkeys(gate for record in records for gate in record.gates))
    pythons = sorted({python for gate in gates for python in points(records, gate)}, key=_version)
    colors = {python: _COLORS[at % len(_COLORS)] for at, python in enumerate(pythons)}
    rows = -(-len(gates) // _COLUMNS)
    figure, grid = pyplot.subplots(
        rows, _COLUMNS, figsize=(13, 1.2 + 1.9 * rows), layout="constrained", squeeze=False
    )
    panels = list(grid.flat)
    for gate, axes in zip(gates, panels, strict=False):
        _panel(axes, records, gate, colors)
    for axes in panels[len(gates) :]:
        axes.set_axis_off()
    lines = pyplot.matplotlib.lines
    handles = [
        *(
            lines.Line2D([], [], color=colors[python], marker="o", markersize=3)
            for python in pythons
        ),
        lines.Line2D([], [], color="#777777", linestyle="--", linewidth=0.8),
    ]
    labels = [*(f"CPython {python}" for python in pythons), "limit"]
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    named = runs(records)
    first, last = (f"{day} ({run[:10]})" for run, day in (named[0], named[-1]))
    caption = f"{len(named)} runs, from {first} to {last}; less is better"
    drawing.save(figure, caption, 8, out)


def _panel(axes: Any, records: Sequence[Record], gate: str, colors: dict[str, str]) -> None:
    for python, line in points(records, gate, "limit").items():
        places, limits = zip(*line, strict=True)
        style = {"linestyle": "--", "linewidth": 0.8, "alpha": 0.6}
        axes.plot(places, limits, color=colors.get(python, "#777777"), **style)
    for python, line in points(records, gate).items():
        places, values = zip(*line, strict=True)
        axes.plot(places, values, color=colors[python], marker="o", markersize=3, linewidth=1.2)
    row, _, what = gate.partition(" [")
    axes.set_title(f"{_short(row)}\n{_short(what.rstrip(']'))}", fontsize=7.5)
    axes.set_xlim(-0.5, max(len(runs(records)) - 0.5, 0.5))
    axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
    axes.set_xticks([])
    axes.grid(visible=True, axis="y", color="#dddddd", linewidth=0.6)


def _short(text: str) -> str:
    return text if len(text) <= _TITLE else text[: _TITLE - 3] + "..."


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the records and draw.

    Args:
        arguments: The command line; None for that of the process.

    Returns:
        The exit code: 0; 1 if a file could not be read, the others drawn, or if there is none.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("folder", type=Path, help="where `python -m benchmarks.gates --json` wrote")
    parser.add_argument("out", type=Path, help="the file to draw")
    options = parser.parse_args(arguments)
    records, errors = load(options.folder)
    for error in errors:
        print(error, file=sys.stderr)
    if not records:
        print(f"{options.folder}: there are no records of gates", file=sys.stderr)
        return 1
    draw(records, options.out)
    print(f"{options.out}: {len(records)} records of {len(runs(records))} runs")
    return 1 if errors else 0


if __name__ == "__main__":
    raise SystemExit(main())
