"""The measured tables of docs/performance.md: how they are laid out, and how they are read again.

A table has one column per peer. Rows stand in one table if they are of one family and have most of
their peers in common, so that few cells stay empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

OPERO: Final = "opero"
PLAIN: Final = "opero, plain Python"
_FAMILIES: Final = {"everything": "hit", "miss": "hit", "one": "retry"}
"""The family of rows whose first word is not its name."""
_MOST_PEERS: Final = 8
_MEASURED = re.compile(
    r"^<!-- (?P<what>measured[\w ]*):begin -->\n(?P<text>.*?)^<!-- (?P=what):end -->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Line:
    """A row of a table.

    Attributes:
        name: What was measured, with its unit unless that is nanoseconds.
        figures: The figure of each side as the table writes it, opero's two halves first.
    """

    name: str
    figures: Mapping[str, str]

    @property
    def peers(self) -> list[str]:
        """The sides that are not opero."""
        return [side for side in self.figures if side not in (OPERO, PLAIN)]

    @property
    def family(self) -> tuple[str, str]:
        """The first word of the name, and the unit."""
        word = re.split(r"[ ,:]", self.name)[0]
        unit = re.search(r" \(([^()]*)\)$", self.name)
        return _FAMILIES.get(word, word), unit[1] if unit else "ns"

    def number(self, side: str) -> float:
        """Return the figure of a side."""
        return float(self.figures[side].replace(",", ""))


@dataclass
class _Group:
    family: tuple[str, str]
    peers: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def common(self, line: Line) -> float:
        """Return the share of peers in common with a row; -1 if the row does not fit."""
        together = dict.fromkeys([*self.peers, *line.peers])
        if not together:  # opero alone
            return 1.0 if line.family[1] == self.family[1] else -1.0
        if line.family != self.family or len(together) > _MOST_PEERS:
            return -1.0
        if not line.peers or not self.peers:
            return 1.0
        return len({*line.peers} & {*self.peers}) / min(len(line.peers), len(self.peers))

    def add(self, line: Line) -> None:
        """Take a row in."""
        self.lines.append(line)
        self.peers = list(dict.fromkeys([*self.peers, *line.peers]))

    def text(self) -> Iterator[str]:
        """The lines of the table."""
        columns = (OPERO, PLAIN, *self.peers)
        yield f"| what | {' | '.join(columns)} |"
        yield f"|---|{'---:|' * len(columns)}"
        for line in self.lines:
            cells = (line.figures.get(column, "") for column in columns)
            yield f"| {line.name} | {' | '.join(cells)} |"


def tables(lines: Sequence[Line]) -> str:
    """Lay rows out in tables.

    Args:
        lines: The rows.

    Returns:
        The Markdown, without a line break at the end.
    """
    groups: list[_Group] = []
    for line in lines:
        best = max(groups, key=lambda group: group.common(line), default=None)
        if best is None or best.common(line) <= 0.5:
            best = _Group(line.family)
            groups.append(best)
        best.add(line)
    return "\n\n".join("\n".join(group.text()) for group in groups)


def read(page: str) -> tuple[dict[str, Line], str]:
    """Read all measured tables of a page.

    Args:
        page: The Markdown.

    Returns:
        The rows by name, and the machine of the first table.

    Raises:
        ValueError: If there is no measured table on the page.
    """
    lines: dict[str, Line] = {}
    machine = ""
    for measured in _MEASURED.finditer(page):
        columns: list[str] = []
        for text in measured["text"].splitlines():
            if not text.startswith("|"):
                columns = []
                machine = machine or text
                continue
            cells = [cell.strip() for cell in text.strip("|").split("|")]
            if not columns:
                columns = cells
            elif not cells[0].startswith("---"):
                figures = zip(columns[1:], cells[1:], strict=True)
                lines[cells[0]] = Line(cells[0], {side: text for side, text in figures if text})
    if not lines:
        raise ValueError("there is no measured table on this page")
    return lines, machine
