"""All rows of stores and shared limits, in the order of the table."""

from __future__ import annotations

from benchmarks.rows import Row

from . import disk, permits, remote, signing

ROWS: tuple[Row, ...] = (*disk.ROWS, *remote.ROWS, *permits.ROWS, *signing.ROWS)
"""All of them."""

IN_README: tuple[Row, ...] = tuple(
    row for row in ROWS if "KiB" not in row.name or row.name.startswith("disk hit")
)
"""Those of docs/performance.md, where a KiB of text is much like a small dict."""
