"""The tables of docs/performance.md, and the picture of what a call costs, drawn from them."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from documents import DOCS, ROOT, text_of

sys.path.insert(0, str(ROOT))

from benchmarks import chart, published
from benchmarks.published import Line

pytestmark = pytest.mark.once

PAGE = """
<!-- measured:begin -->
| what | opero | opero, plain Python | lru_cache | tenacity, no sleep(0) |
|---|---:|---:|---:|---:|
| hit | 39.2 | 2,509 | 63.6 |  |
| one failure | 1,400 | 4,898 |  | 45,112 |

| what | opero | opero, plain Python | cachetools |
|---|---:|---:|---:|
| import opero (ms) | 13.0 | 11.3 | 6.2 |

Some machine.
How it was measured.
<!-- measured:end -->
"""


def line(name: str, **peers: str) -> Line:
    """A row of a table."""
    return Line(name, {published.OPERO: "1.0", published.PLAIN: "2.0", **peers})


def test_the_tables_are_read() -> None:
    """An empty cell is no figure; the machine is named below the tables."""
    lines, machine = published.read(PAGE)
    assert machine == "Some machine."
    assert {name: dict(each.figures) for name, each in lines.items()} == {
        "hit": {"opero": "39.2", "opero, plain Python": "2,509", "lru_cache": "63.6"},
        "one failure": {
            "opero": "1,400",
            "opero, plain Python": "4,898",
            "tenacity, no sleep(0)": "45,112",
        },
        "import opero (ms)": {"opero": "13.0", "opero, plain Python": "11.3", "cachetools": "6.2"},
    }
    assert lines["one failure"].number("tenacity, no sleep(0)") == 45112.0


def test_a_page_without_a_table_is_an_error() -> None:
    """Nothing is drawn from nothing."""
    with pytest.raises(ValueError, match="no measured table"):
        published.read("# A page\n")


def test_rows_share_a_table_if_they_share_peers() -> None:
    """And are of one family and in one unit; a table has a column for each peer."""
    lines = [
        line("hit, a", lru_cache="3", cachetools="4"),
        line("hit, b", lru_cache="3"),
        line("hit, c (bytes)", lru_cache="3"),
        line("hit, d", orjson="3"),
        line("miss and store", lru_cache="3", cachetools="4", cachebox="5"),
        line("awaited hit", lru_cache="3"),
    ]
    tables = published.tables(lines).split("\n\n")
    assert [len(table.splitlines()) - 2 for table in tables] == [3, 1, 1, 1]
    assert tables[0].splitlines()[0].endswith("| lru_cache | cachetools | cachebox |")
    assert tables[0].splitlines()[3] == "| hit, b | 1.0 | 2.0 | 3 |  |  |"
    page = f"<!-- measured:begin -->\n{published.tables(lines)}\n\nM.\n<!-- measured:end -->"
    assert published.read(page)[0] == {each.name: each for each in lines}


def test_the_picture_of_the_documentation_is_of_its_tables(tmp_path: Path) -> None:
    """If you measure again, draw again; the same tables give the same bytes."""
    out = tmp_path / "calls.svg"
    assert chart.main([str(DOCS / "performance.md"), str(out)]) == 0
    assert out.read_bytes() == (DOCS / "figures" / "calls.svg").read_bytes()


def test_the_picture_has_every_peer_of_the_rows_that_it_draws() -> None:
    """So none is left out because it is quick."""
    lines, machine = published.read(text_of("docs/performance.md"))
    root = ET.parse(DOCS / "figures" / "calls.svg").getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert machine in texts
    for name, title in chart.GROUPS.items():
        assert title in texts
        sides = chart.sides(lines[name])
        assert {*lines[name].peers} - {*chart.YARDSTICKS} <= {*sides}
        assert {*sides, *(lines[name].figures[side] for side in sides)} <= texts
