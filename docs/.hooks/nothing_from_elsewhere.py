"""Fails a build of the documentation whose pages would load anything from another host.

A link that a reader may follow is no matter; what a browser fetches by itself is. The theme's
script would load Mermaid from another host, but only for its diagrams, so there must be none.
"""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

LOG = logging.getLogger("mkdocs.hooks.nothing_from_elsewhere")
"""In strict mode a warning to it ends the build."""
FETCHED = {
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "link": "href",
    "object": "data",
    "script": "src",
    "source": "src",
    "video": "src",
}
"""The attribute of each element whose address a browser fetches without being asked to."""


FETCHED_BY_CSS = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s;]+)""")


class Fetches(HTMLParser):
    """Collects what a page fetches from other hosts.

    Attributes:
        found: The addresses.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        address = dict(attrs).get(FETCHED.get(tag, "")) or ""
        if address.startswith(("http:", "https:", "//")):
            self.found.append(address)
        if "mermaid" in (dict(attrs).get("class") or "").split():
            self.found.append("Mermaid")


def fetched(path: Path) -> list[str]:
    """Tell what a page or a style sheet makes a browser fetch from other hosts.

    Args:
        path: The file; of any other kind it fetches nothing.

    Returns:
        The addresses.
    """
    if path.suffix == ".html":
        reader = Fetches()
        reader.feed(path.read_text(encoding="utf-8"))
        return reader.found
    if path.suffix == ".css":
        return FETCHED_BY_CSS.findall(path.read_text(encoding="utf-8"))
    return []


def on_post_build(config: MkDocsConfig) -> None:
    """Look at everything that was built.

    Args:
        config: Says where it is.
    """
    for path in sorted(Path(config.site_dir).rglob("*")):
        for address in fetched(path):
            LOG.warning("%s fetches from elsewhere: %s", path.name, address)
