"""What a gate says, and the table of what all of them say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RED = "RED"
PROVED = "proved"
NOT_PROVED = "NOT PROVED"

_HEAD = ("gate", "of", "against", "value", "target", "margin", "verdict", "")


@dataclass(frozen=True)
class Verdict:
    """What one gate says.

    Args:
        row: The name of its row.
        of: What is judged: `instructions`, `time`, `memory` or `modules`.
        against: What the value is divided by; a unit if it is a figure and no ratio.
        value: The ratio (or figure) of opero; None if it could not be had.
        target: What was promised or accepted; None if there is nothing to judge by.
        margin: How much more is let through, as a share of the target.
        held: What the gate holds in place of the target, if that is known to be missed.
        note: What the reader should know about the target or the value.
        proved: Whether a seeded regression turned the gate red; None if none was seeded.
    """

    row: str
    of: str
    against: str
    value: float | None
    target: float | None
    margin: float
    held: float | None = None
    note: str = ""
    proved: bool | None = None

    @property
    def gate(self) -> str:
        """The gate's name, the same in each run."""
        return f"{self.row} [{self.of} / {self.against}]"

    @property
    def limit(self) -> float | None:
        """The largest value that passes."""
        most = self.target if self.held is None else self.held
        return None if most is None else most * (1 + self.margin)

    @property
    def red(self) -> bool:
        """Whether the gate fails; one that cannot be judged does."""
        return self.value is None or self.limit is None or self.value > self.limit

    @property
    def word(self) -> str:
        """The verdict: `ok`, `known miss` or `RED`; of a proof `proved` or `NOT PROVED`."""
        if self.proved is not None:
            return PROVED if self.proved else NOT_PROVED
        return RED if self.red else "ok" if self.held is None else "known miss"


def number(value: float | None) -> str:
    """A ratio or a figure with the digits that matter; `-` for None."""
    return "-" if value is None else f"{value:.4f}" if 0 < value < 0.1 else f"{value:.3f}"


def columns(lines: Sequence[Sequence[str]], right: set[int]) -> str:
    """Lines of cells as text, every column as wide as its widest cell.

    Args:
        lines: The cells; every line has as many.
        right: The columns that are aligned to the right.

    Returns:
        The text, without a line break at the end.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def render(verdicts: Sequence[Verdict]) -> str:
    """The gates as a table.

    Args:
        verdicts: What they say.

    Returns:
        The text, without a line break at the end.
    """
    lines = [
        (
            verdict.row,
            verdict.of,
            verdict.against,
            number(verdict.value),
            number(verdict.target),
            f"{verdict.margin:.0%}",
            verdict.word,
            verdict.note,
        )
        for verdict in verdicts
    ]
    return columns([_HEAD, *lines], right={3, 4, 5})


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many gates are green, red, and held to less than was promised; or how many are proved."""
    words = [verdict.word for verdict in verdicts]
    kinds = ("ok", "known miss", RED)
    if any(verdict.proved is not None for verdict in verdicts):
        kinds = (PROVED, NOT_PROVED)
    return ", ".join(f"{words.count(word)} {word}" for word in kinds)
