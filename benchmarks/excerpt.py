"""`python -m benchmarks.excerpt docs/performance.md README.md`: the figures that the README shows.

Takes rows of the tables that `python -m benchmarks --readme` and its like printed, and writes them
between two comments of the README, so that both pages tell of the same run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import published

BEGIN: Final = "<!-- figures:begin -->\n"
END: Final = "<!-- figures:end -->"
"""What stands around the table in the README."""


@dataclass(frozen=True)
class Line:
    """A line of the README's table.

    Attributes:
        row: The row's name in the table of the run.
        words: What the README calls it.
        peers: With whom it compares.
    """

    row: str
    words: str
    peers: tuple[str, ...]


LINES: Final = (
    Line("hit, one str argument", "a cache hit", ("lru_cache",)),
    Line(
        "retry, first attempt succeeds: added",
        "what retries add, if the first attempt succeeds",
        ("tenacity", "stamina", "backoff"),
    ),
    Line(
        "permit free: added",
        "what a rate limit adds, if it is not reached",
        ("limits", "pyrate-limiter"),
    ),
    Line(
        "breaker closed: added",
        "what a closed circuit breaker adds",
        ("circuitbreaker", "pybreaker"),
    ),
    Line("awaited hit", "an awaited cache hit", ("async-lru",)),
    Line(
        "process, 200,000 trivial items (ns/item)",
        "an item of a map in processes",
        ("Pool.map", "ProcessPoolExecutor", "joblib"),
    ),
)
"""The README's table."""


def table(page: str) -> str:
    """Makes the README's table.

    Args:
        page: The page with the tables of the runs.

    Returns:
        The Markdown, with a line break at the end.

    Raises:
        KeyError: If the page lacks a row or a peer.
    """
    rows, _ = published.read(page)
    out = ["| | opero | for comparison |", "|---|---:|---|"]
    for line in LINES:
        figures = rows[line.row].figures
        told = [f"{peer} {figures[peer]}" for peer in line.peers]
        out.append(f"| {line.words} | {figures[published.OPERO]} | {', '.join(told)} |")
    return "\n".join([*out, ""])


def written(readme: str, page: str) -> str:
    """The README with the table of this page in it.

    Args:
        readme: The README as it is.
        page: The page with the tables of the runs.

    Returns:
        The README as it should be.
    """
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table(page)}{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the page and writes the README.

    Args:
        arguments: The command line; None for that of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.excerpt", description=__doc__)
    parser.add_argument("page", type=Path, help="where the tables are")
    parser.add_argument("readme", type=Path, help="the file to write to")
    options = parser.parse_args(arguments)
    page, readme = (path.read_text(encoding="utf-8") for path in (options.page, options.readme))
    options.readme.write_text(written(readme, page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
