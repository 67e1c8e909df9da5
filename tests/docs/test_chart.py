"""The picture of what a call costs is drawn from the table beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from documents import DOCS, ROOT, text_of

sys.path.insert(0, str(ROOT))

from benchmarks import chart

pytestmark = pytest.mark.once

PAGE = """
<!-- measured:begin -->
| what | opero | opero, plain Python | for comparison |
|---|---:|---:|---|
| hit | 39.2 | 2,509 | lru_cache 63.6, cachetools, json key 7,725, tenacity, no sleep(0) 45,112 |
| import opero (ms) | 13.0 | 11.3 | cachetools 6.2 |
| awaited | 219 | 758 | bare call 96.0 |

Some machine.
How it was measured.
<!-- measured:end -->
"""


def test_the_rows_in_nanoseconds_are_read() -> None:
    """Names of sides may have commas in them, as figures have; rows in other units are left out."""
    lines, machine = chart.read(PAGE)
    assert machine == "Some machine."
    assert [(line.name, line.sides) for line in lines] == [
        (
            "hit",
            {
                "opero": 39.2,
                "opero, plain Python": 2509.0,
                "lru_cache": 63.6,
                "cachetools, json key": 7725.0,
                "tenacity, no sleep(0)": 45112.0,
            },
        ),
        ("awaited", {"opero": 219.0, "opero, plain Python": 758.0, "bare call": 96.0}),
    ]


def test_a_page_without_the_table_is_an_error() -> None:
    """Nothing is drawn from nothing."""
    with pytest.raises(ValueError, match="no measured table"):
        chart.read("# A page\n")


def test_the_picture_is_the_same_each_time(tmp_path: Path) -> None:
    """The same table gives the same bytes, in which every side is named."""
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    one, two = tmp_path / "one.svg", tmp_path / "two.svg"
    assert [chart.main([str(page), str(out)]) for out in (one, two)] == [0, 0]
    assert one.read_bytes() == two.read_bytes()
    drawn = one.read_text(encoding="utf-8")
    for text in ("hit", "awaited", "39.2", "cachetools, json key", "bare call", "Some machine."):
        assert f">{text}<" in drawn


def test_the_picture_of_the_documentation_is_of_its_table() -> None:
    """Who measures again draws again: every row, every side, each of opero's figures."""
    lines, machine = chart.read(text_of("docs/performance.md"))
    drawn = (DOCS / "figures" / "calls.svg").read_text(encoding="utf-8")
    assert len(lines) > 8
    for line in lines:
        for text in (line.name, *line.sides, f"{line.sides['opero']:,g}"):
            assert f">{text}<" in drawn
    assert f">{machine}<" in drawn
