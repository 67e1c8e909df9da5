"""What a demo run hands back: promises kept or broken, rows of figures, and how they are printed.

a claim + whether it held + what was measured            -> Promise
stats() of a function + the server's log of its requests -> Row
promises and rows of all scenes                          -> Report -> text, exit code

No line is longer than the width that is asked for. A line reads `ok  promise -> what happened`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from opero.stats import Stats

from .server import Arrival, Limit

WIDTH: Final = 100
"""Columns of a line, at most; a narrower terminal has fewer."""

COLUMNS: Final = (
    *("", "calls", "hits", "attempts", "retries", "failed", "wait s"),
    *("asked", "errors", "rate/s"),
)
LEGEND: Final = (
    "calls to wait s: stats() of the functions; asked to rate/s: requests in the server's log; "
    "errors: answers of 500 and 429, and stalls"
)


ADVICE: Final = (
    "What to do: run it again while nothing else is running.",
    "If it breaks again, report this output and that of: python -m opero doctor",
)


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 request`, `5 requests`, `2 retries`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: decorated functions by their own account and by the server's.

    Attributes:
        name: What was driven.
        stats: The functions' own accounts, told as their sums.
        arrivals: The requests the server saw of them.
        limit: The limit the server held them to, if there was one.
    """

    name: str
    stats: Sequence[Stats]
    arrivals: Sequence[Arrival]
    limit: Limit | None = None

    def cells(self) -> tuple[str, ...]:
        """The line's cells, in the order of `COLUMNS`."""
        statuses = [arrival.status for arrival in self.arrivals]
        rate = self.limit.pace(arrival.at for arrival in self.arrivals) if self.limit else None
        waited = sum(own.permit_wait + own.backoff_wait for own in self.stats)
        errors = (
            statuses.count(HTTPStatus.INTERNAL_SERVER_ERROR),
            statuses.count(HTTPStatus.TOO_MANY_REQUESTS),
            sum(arrival.stalled for arrival in self.arrivals),
        )
        return (
            self.name,
            f"{sum(own.calls for own in self.stats)}",
            f"{sum(own.hits for own in self.stats)}",
            f"{sum(own.attempts for own in self.stats)}",
            f"{sum(own.retries for own in self.stats)}",
            f"{sum(own.failures for own in self.stats)}",
            f"{waited:.2f}",
            f"{len(self.arrivals)}",
            f"{sum(errors)}",
            "-" if rate is None else f"{rate:.1f}",
        )


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that opero says it does, and whether it did.

    Attributes:
        scene: Where it was put to the test.
        claim: What is promised.
        held: Whether it was kept.
        measured: What happened, in words, with units.
    """

    scene: str
    claim: str
    held: bool
    measured: str

    def text(self, width: int = WIDTH) -> str:
        """The promise and what happened, in lines of this width."""
        mark = "ok    " if self.held else "BROKEN"
        told = f"  {mark}  {self}"
        if len(told) <= width:
            return told
        return (
            f"{_wrapped(f'  {mark}  ', self.claim, width)}\n"
            f"{_wrapped(' ' * 10 + '-> ', self.measured, width)}"
        )

    def __str__(self) -> str:
        return f"{self.claim} -> {self.measured}"


@dataclass(slots=True)
class Scene:
    """What one scene of the demo found.

    Attributes:
        name: The scene.
        rows: One for each function that was driven.
        promises: What was checked.
        aside: Seconds of it that went by without opero, in a serial run to compare with.
    """

    name: str
    rows: list[Row] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)
    aside: float = 0.0

    def row(
        self, what: str, arrivals: Sequence[Arrival], *stats: Stats, limit: Limit | None = None
    ) -> None:
        """Add a line to the table."""
        self.rows.append(Row(f"{self.name}, {what}", stats, arrivals, limit))

    def promise(self, claim: str, held: bool, measured: str) -> None:
        """Add a promise, whether it held, and what happened."""
        self.promises.append(Promise(self.name, claim, bool(held), measured))

    def text(self, width: int = WIDTH) -> str:
        """The scene's name, and its promises."""
        return "\n".join([self.name, *(promise.text(width) for promise in self.promises)])


@dataclass(slots=True)
class Report:
    """The whole run.

    Attributes:
        scenes: What each scene found.
        seconds: How long all of it took.
    """

    scenes: list[Scene] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def promises(self) -> list[Promise]:
        """All promises, in the order they were checked."""
        return [promise for scene in self.scenes for promise in scene.promises]

    @property
    def broken(self) -> list[Promise]:
        """The promises that were not kept."""
        return [promise for promise in self.promises if not promise.held]

    @property
    def exit_code(self) -> int:
        """0 when there were promises and every one was kept, else 1."""
        return 0 if self.promises and not self.broken else 1

    def text(self, width: int = WIDTH) -> str:
        """All scenes, and the verdict."""
        return "\n".join([*(scene.text(width) for scene in self.scenes), "", self.verdict(width)])

    def verdict(self, width: int = WIDTH) -> str:
        """Which promises were broken and what to do about it; how many were kept; the exit code."""
        parts = [
            _wrapped("broken: ", f"{promise.scene}: {promise.claim}", width)
            for promise in self.broken
        ]
        if self.broken:
            parts += ADVICE
        kept = len(self.promises) - len(self.broken)
        parts.append(
            f"{kept} of {counted(len(self.promises), 'promise')} kept in {self.seconds:.1f} s; "
            f"exit code {self.exit_code}"
        )
        return "\n".join(parts)

    def figures(self, width: int = WIDTH) -> str:
        """The table of figures, for `--figures`; a terminal of 100 columns holds it."""
        rows = [row for scene in self.scenes for row in scene.rows]
        table = _table([COLUMNS, *(row.cells() for row in rows)])
        return f"{table}\n{_wrapped('', LEGEND, width)}\n"


def _wrapped(head: str, text: str, width: int) -> str:
    """A text behind its head, in lines of this width; those after the first are indented."""
    return textwrap.fill(
        text,
        width,
        initial_indent=head,
        subsequent_indent=" " * (len(head) + 2 * bool(head)),
        break_on_hyphens=False,
    )


def _table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    told = []
    for line in lines:
        first, *numbers = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        told.append("  ".join((first, *numbers)).rstrip())
    told.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(told)
