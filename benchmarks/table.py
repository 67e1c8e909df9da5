"""The table: every row's figures beside its targets, as text, JSON, and Markdown for the docs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from . import asyncs, calls, entries, imports, interpreter, keys, published, threads
from .measure import Effort
from .rows import BARE, COMPILED, PLAIN, Measured, Row, Target

ROWS: tuple[Row, ...] = (
    *calls.HITS,
    *keys.ROWS,
    *calls.ROWS[len(calls.HITS) :],
    *asyncs.ROWS,
    *threads.ROWS,
    *imports.ROWS,
    *entries.ROWS,
)
"""The call rows in the order of the promises."""

Result = tuple[Row, Measured]

_HEAD = ("", "compiled", "plain", "against", "its figure", "ratio", "target", "")


def measure(rows: Iterable[Row], effort: Effort) -> list[Result]:
    """Takes the figures of several rows, one after the other.

    Args:
        rows: What to measure.
        effort: How long to measure each side.

    Returns:
        The rows with their figures.
    """
    results = []
    for row in rows:
        if sys.stderr.isatty():
            print(f"\r\033[K{row.name}", end="", file=sys.stderr, flush=True)
        results.append((row, row.measure(effort)))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return results


def cpu() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> str:
    """Python and how it was built, processor and system in one line."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    system = f"{platform.system()} {platform.machine()}"
    cores = os.cpu_count()
    return f"{python} ({interpreter.description()}), {cpu()} ({cores} cores), {system}"


def method(effort: Effort) -> str:
    """How the figures were taken, in one line."""
    return (
        f"ns per call unless said otherwise: fastest of {effort.rounds} rounds in which all sides "
        "take turns, empty loop\ntaken off; 'added': the undecorated function's call taken off too"
    )


def number(value: float | None) -> str:
    """A figure with three digits that matter."""
    if value is None:
        return "missing"
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def comparison(ratio: float | None) -> str:
    """A ratio as people read it: `0.65`, or `213 x less` where it is small."""
    if ratio is None:
        return ""
    if ratio > 1 / 3:
        return f"{ratio:.2f}"
    return f"{1 / ratio:,.0f} x less" if ratio > 0 else "nothing"


def promise(target: Target, unit: str) -> str:
    """A target as people read it."""
    if not target.against:
        return f"{target.most:g} {unit} or less"
    if target.most < 1 / 3:
        return f"{1 / target.most:.0f} x less"
    return f"{target.most:.2f} or less"


def verdict(measured: Measured, target: Target) -> str:
    """`met`, `MISSED`, or `not judged` when a side is missing."""
    met = measured.met(target)
    return "not judged" if met is None else "met" if met else "MISSED"


def lines(row: Row, measured: Measured) -> list[tuple[str, ...]]:
    """The lines of one row: its targets first, the other peers for scale behind them.

    Args:
        row: The row.
        measured: Its figures.

    Returns:
        One tuple of cells per line.
    """
    figures = measured.figures
    own = (row.name, number(figures.get(COMPILED)), number(figures.get(PLAIN)))
    cells: list[tuple[str, ...]] = []
    for target in row.targets:
        value = measured.value(target)
        ratio = comparison(value) if target.against else ""
        other = number(figures.get(target.against)) if target.against else ""
        word = verdict(measured, target)
        if target.against in measured.missing:
            word += f": {measured.missing[target.against]}"
        cells.append((target.against, other, ratio, promise(target, row.unit), word))
    judged = {target.against for target in row.targets}
    for name, figure in figures.items():
        if name not in judged and name not in (COMPILED, PLAIN):
            ratio = "" if name == BARE else comparison(measured.value(Target(name, 0.0)))
            cells.append((name, number(figure), ratio, "", ""))
    for name, reason in measured.missing.items():
        if name not in judged:
            cells.append((name, "missing", "", "", reason))
    unit = "" if row.unit == "ns" else f" ({row.unit})"
    first = (own[0] + unit, *own[1:])
    return [(first if index == 0 else ("", "", "")) + tail for index, tail in enumerate(cells)]


def text(results: Sequence[Result], effort: Effort, how: Callable[[Effort], str] = method) -> str:
    """The table for a terminal.

    Args:
        results: The rows with their figures.
        effort: How long was measured.
        how: Says how the figures were taken.

    Returns:
        The text, without a line break at the end.
    """
    table = [_HEAD, *(line for row, measured in results for line in lines(row, measured))]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEAD))]
    right = {1, 2, 4, 5}
    rendered = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]
    verdicts = [verdict(measured, target) for row, measured in results for target in row.targets]
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in ("met", "MISSED", "not judged"))
    return "\n".join(
        [machine(), how(effort), "", *rendered, "", f"targets of the compiled core: {counts}"]
    )


def readme(results: Sequence[Result], effort: Effort, how: Callable[[Effort], str] = method) -> str:
    """The Markdown tables for docs/performance.md, some rows of which the README repeats.

    Args:
        results: The rows with their figures.
        effort: How long was measured.
        how: Says how the figures were taken.

    Returns:
        The Markdown, without a line break at the end.
    """
    rows = []
    for row, measured in results:
        if row.unit == "modules" or not measured.figures:
            continue
        unit = "" if row.unit == "ns" else f" ({row.unit})"
        figures = {
            published.OPERO: number(measured.figures.get(COMPILED)),
            published.PLAIN: number(measured.figures.get(PLAIN)),
        }
        for name, figure in measured.figures.items():
            if name not in (COMPILED, PLAIN):
                figures[name] = number(figure)
        rows.append(published.Line(f"{row.name}{unit}", figures))
    told = [f"{machine()}.", f"{how(effort)}.".replace("\n", " ")]
    return "\n".join([published.tables(rows), "", *told])


def as_json(results: Sequence[Result], effort: Effort) -> dict[str, Any]:
    """Everything measured, for `--json`.

    Args:
        results: The rows with their figures.
        effort: How long was measured.

    Returns:
        What `json.dump` takes.
    """
    return {
        "python": platform.python_version(),
        "machine": machine(),
        "rounds": effort.rounds,
        "rows": [
            {
                "name": row.name,
                "unit": row.unit,
                "figures": dict(measured.figures),
                "missing": dict(measured.missing),
                "targets": [
                    {
                        "against": target.against,
                        "most": target.most,
                        "value": measured.value(target),
                        "met": measured.met(target),
                    }
                    for target in row.targets
                ],
            }
            for row, measured in results
        ],
    }
