"""What a demo run hands back: rows of figures, promises kept or broken, and how they are told.

stats() of a function + the server's log of its requests -> Row
a claim + whether it held + what was measured            -> Promise
rows and promises of all scenes                          -> Report -> text, exit code
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from opero.stats import Stats

from .server import Arrival, Limit

# fmt: off
COLUMNS: Final = (
    "", "calls", "hits", "attempts", "retries", "fallbacks", "failed", "permit s", "backoff s",
    "requests", "500", "429", "stalls", "rate/s",
)
# fmt: on
LEGEND: Final = "calls to backoff s: stats() of the function; requests to rate/s: the server's log"


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
        return (
            self.name,
            f"{sum(own.calls for own in self.stats)}",
            f"{sum(own.hits for own in self.stats)}",
            f"{sum(own.attempts for own in self.stats)}",
            f"{sum(own.retries for own in self.stats)}",
            f"{sum(own.fallbacks for own in self.stats)}",
            f"{sum(own.failures for own in self.stats)}",
            f"{sum(own.permit_wait for own in self.stats):.2f}",
            f"{sum(own.backoff_wait for own in self.stats):.2f}",
            f"{len(self.arrivals)}",
            f"{statuses.count(HTTPStatus.INTERNAL_SERVER_ERROR)}",
            f"{statuses.count(HTTPStatus.TOO_MANY_REQUESTS)}",
            f"{sum(arrival.stalled for arrival in self.arrivals)}",
            "-" if rate is None else f"{rate:.1f}",
        )


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that opero says it does, and whether it did.

    Attributes:
        scene: Where it was put to the test.
        claim: What is promised.
        held: Whether it was kept.
        measured: What was seen, in words.
    """

    scene: str
    claim: str
    held: bool
    measured: str

    def __str__(self) -> str:
        measured = f" ({self.measured})" if self.measured else ""
        return f"{'ok    ' if self.held else 'BROKEN'}  {self.scene}: {self.claim}{measured}"


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

    def promise(self, claim: str, held: bool, measured: str = "") -> None:
        """Add a promise and whether it held."""
        self.promises.append(Promise(self.name, claim, bool(held), measured))


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

    def text(self) -> str:
        """The table, the promises, and the verdict."""
        rows = [row for scene in self.scenes for row in scene.rows]
        parts = [_table([COLUMNS, *(row.cells() for row in rows)]), LEGEND, ""] if rows else []
        parts += [str(promise) for promise in self.promises]
        parts.append("")
        kept = len(self.promises) - len(self.broken)
        parts.append(f"{kept} of {len(self.promises)} promises kept in {self.seconds:.1f} s")
        return "\n".join(parts)


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
