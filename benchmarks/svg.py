"""Draws charts as SVG by hand: readable on a phone, in the light and the dark theme of a page.

The colours follow `prefers-color-scheme`, which in an embedded image is the scheme of the page
around it. The picture has a background of its own, so it stays readable where a browser does not do
that.
The same drawing gives the same file, byte for byte.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

WIDTH: Final = 480
"""In units, of which letters have 13: they are legible where the picture is as wide as a phone."""
_SHOWN: Final = 600
"""In pixels, on a page with room."""
_NAMESPACE: Final = "http://www.w3.org/2000/svg"
_STYLE: Final = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 }
.group, .own { font-weight: 600 }
.note { font-size: 10.5px; fill: #59636e }
.page { fill: #ffffff }
.bar { fill: #b6bec8 }
.bar.own { fill: #4051b5 }
.line { fill: none; stroke: #8c959f; stroke-width: 1.5 }
.line.own { stroke: #4051b5; stroke-width: 3 }
.grid { stroke: #d8dee4; stroke-width: 1 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .note { fill: #9ba4ae }
  .page { fill: #171a21 }
  .bar { fill: #5b6470 }
  .bar.own { fill: #8c9eff }
  .line { stroke: #7d8590 }
  .line.own { stroke: #8c9eff }
  .grid { stroke: #343b44 }
}"""


class Drawing:
    """A picture in the making: shapes are added from the top down, then it is saved."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._shapes: list[str] = []
        self.text(16, 28, title, "title")

    def text(self, x: float, y: float, words: str, style: str = "", *, anchor: str = "") -> None:
        """Write words.

        Args:
            x: Where they start, or what `anchor` says.
            y: Where their line is.
            words: What to write.
            style: Classes of the style sheet.
            anchor: SVG's `text-anchor`, "" for the start.
        """
        more = f' text-anchor="{anchor}"' if anchor else ""
        named = f' class="{style}"' if style else ""
        self._shapes.append(f'<text x="{x:g}" y="{y:g}"{named}{more}>{escape(words)}</text>')

    def bar(self, x: float, y: float, width: float, style: str) -> None:
        """Draw a bar of the height of a line of text, with its top at `y`."""
        self._shapes.append(
            f'<rect class="{style}" x="{x:g}" y="{y:g}" width="{width:.1f}" height="12" rx="2"/>'
        )

    def path(self, points: list[tuple[float, float]], style: str) -> None:
        """Draw a line through points."""
        through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._shapes.append(f'<polyline class="{style}" points="{through}"/>')

    def save(self, height: float, out: Path) -> None:
        """Write the picture.

        Args:
            height: Of the picture, in units.
            out: The file.
        """
        size = f'width="{_SHOWN}" height="{_SHOWN * height / WIDTH:.0f}"'
        lines = [
            f'<svg xmlns="{_NAMESPACE}" viewBox="0 0 {WIDTH} {height:g}" {size} role="img">',
            f"<title>{escape(self._title)}</title>",
            f"<style>\n{_STYLE}\n</style>",
            f'<rect class="page" width="{WIDTH}" height="{height:g}" rx="8"/>',
            *self._shapes,
            "</svg>",
        ]
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")
