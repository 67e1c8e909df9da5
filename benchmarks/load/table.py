"""Verdicts, and how figures and verdicts are printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Verdict(NamedTuple):
    """What has to hold.

    Attributes:
        what: What was looked at.
        found: What was found.
        wanted: What is wanted.
        holds: Whether it is so.
    """

    what: str
    found: str
    wanted: str
    holds: bool

    def __str__(self) -> str:
        word = "ok " if self.holds else "RED"
        return f"  {word}  {self.what}: {self.found} (wanted: {self.wanted})"


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that so large a share of all does not exceed; 0 if there are none."""
    if not values:
        return 0.0
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def text(head: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> str:
    """Return a table; the first column is flush left, the others are flush right."""
    if markdown:
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    )


def seconds(value: float) -> str:
    """Return a time in the unit that suits it."""
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s"
