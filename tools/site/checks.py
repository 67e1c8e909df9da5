"""Checks a built site: its links, its search, and that its pages load nothing from other hosts.

A link that a reader may follow to another host is fine; a file that the browser would load from
there by itself is not. The theme's script would load Mermaid from another host for diagrams, so the
site has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tools.site.llms import sections

LOADED = {
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
"""The attribute of each element whose address a browser loads by itself."""
LOADED_BY_CSS = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s;]+)""")
ELSEWHERE = ("http:", "https:", "//")
FOUND = {
    "429": "limits.html",
    "deadline": "failures.html",
    "jupyter": "faq.html",
    "opentelemetry": "telemetry.html",
    "redis": "backends.html",
}
"""What a reader may search for, and a page that must be among the answers."""


class Page(HTMLParser):
    """What a page refers to, and what others can refer to in it.

    Attributes:
        loaded: The addresses on other hosts that a browser loads by itself.
        targets: The addresses on the site that the page links to or loads.
        anchors: The ids of its elements.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.targets: list[str] = []
        self.anchors: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        values = dict(attrs)
        loaded = values.get(LOADED.get(tag, "")) or ""
        address = values.get("href") or "" if tag == "a" else loaded
        if loaded.startswith(ELSEWHERE):
            self.loaded.append(loaded)
        elif address and not re.match(r"\w+:|//", address):
            self.targets.append(address)
        if "mermaid" in (values.get("class") or "").split():
            self.loaded.append("Mermaid")
        if name := values.get("id"):
            self.anchors.append(name)


def loaded_from_elsewhere(path: Path) -> list[str]:
    """Return what a page or style sheet makes a browser load from other hosts.

    Args:
        path: The file; other kinds of files load nothing.
    """
    if path.suffix == ".html":
        return Page(path.read_text(encoding="utf-8")).loaded
    if path.suffix == ".css":
        return LOADED_BY_CSS.findall(path.read_text(encoding="utf-8"))
    return []


def of_navigation(nav: list[Any], docs: Path) -> list[str]:
    """Return what is wrong with the navigation: pages that it lacks, and pages that do not exist.

    Args:
        nav: The navigation.
        docs: The directory of the pages.
    """
    listed = [page for _, entries in sections(nav) for _, page in entries]
    present = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    return [
        *(f"the navigation lacks {page}" for page in sorted(present - {*listed})),
        *(f"the navigation lists {page}, which does not exist" for page in {*listed} - present),
    ]


def of_links(site: Path) -> Iterator[str]:
    """What is wrong with links, images and anchors.

    What a page refers to outside the site exists in a checkout only.

    Args:
        site: The built site.
    """
    site = site.resolve()
    read = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    for path, page in sorted(read.items()):
        name = path.relative_to(site)
        if name.name == "404.html":
            continue  # its addresses are absolute
        for twice in sorted({each for each in page.anchors if page.anchors.count(each) > 1}):
            yield f"{name}: the anchor #{twice} is there more than once"
        for target in dict.fromkeys(page.targets):
            file, _, anchor = unquote(target).partition("#")
            goal = (path.parent / file).resolve() if file else path
            if goal.is_dir():
                goal /= "index.html"
            if not (goal.exists() and goal.is_relative_to(site)):
                yield f"{name}: {target} leads nowhere"
            elif anchor and goal in read and anchor not in read[goal].anchors:
                yield f"{name}: {target} leads to an anchor that does not exist"


def of_search(site: Path) -> Iterator[str]:
    """Which pages the search does not find by the words of `FOUND`.

    Args:
        site: The built site.
    """
    items = json.loads((site / "search.json").read_text(encoding="utf-8"))["items"]
    for word, page in FOUND.items():
        texts = (
            f"{item['title']} {item['text']}".lower()
            for item in items
            if item["location"].partition("#")[0] == page
        )
        if not any(word in text for text in texts):
            yield f"the search for {word!r} does not find {page}"


def of_signatures(site: Path) -> Iterator[str]:
    """Whether the reference shows the options' types, as an editor does, and not `Any`.

    Args:
        site: The built site.
    """
    page = site / "reference" / "decorators.html"
    text = unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))
    if untyped := re.findall(r"\w+: Any\b(?= =)|-> Any\b", text):
        yield f"{page.name}: {', '.join(untyped)}"


def of_site(site: Path) -> list[str]:
    """Return what is wrong with a built site.

    Args:
        site: The directory.
    """
    site = site.resolve()
    elsewhere = [
        f"{path.relative_to(site)} loads {address} from elsewhere"
        for path in sorted(site.rglob("*"))
        for address in loaded_from_elsewhere(path)
    ]
    return [*elsewhere, *of_links(site), *of_search(site), *of_signatures(site)]
