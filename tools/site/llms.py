"""Writes `llms.txt`, the list of pages for language models, and `llms-full.txt`, their text.

The format is that of https://llmstxt.org: a title, a summary, and a list of links per section. The
links lead to the Markdown of the pages, which is copied beside their HTML. The pages of the API
reference have no text of their own, so their links lead to the HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.site.pages import FENCED

MARK = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
GENERATED = re.compile(r"^::: ", re.MULTILINE)
"""A page with such a line gets its text from docstrings."""
LEFT_OUT = ("changelog.md", "contributing.md", "security-policy.md")
"""Pages about the project, not about its use: linked, but not in the full text."""


def sections(nav: list[Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The groups of the navigation, each with the titles (or "") and paths of its pages."""
    for entry in nav:
        [(title, below)] = entry.items()
        if isinstance(below, str):
            yield "", [(title, below)]
        else:
            pairs = [("", each) if isinstance(each, str) else (*each.items(),)[0] for each in below]
            yield title, pairs


def heading(text: str) -> str:
    """Return the title of a page."""
    found = re.search(r"^# (.*)$", text, re.MULTILINE)
    return found[1] if found else ""


def summary(text: str) -> str:
    """Return the first sentence of what a page says before its first section, or ""."""
    opening = FENCED.sub("", MARK.sub("", text)).partition("\n## ")[0]
    for paragraph in re.split(r"\n{2,}", opening):
        if re.match(r"[\w@`\[*\"]", paragraph):
            plain = LINK.sub(r"\1", " ".join(paragraph.split()))
            return re.split(r"(?<=[.:])\s", plain)[0].rstrip(":.") + "."
    return ""


def write(project: dict[str, Any], staged: Path, site: Path) -> None:
    """Write both files and the Markdown of the pages.

    Args:
        project: The settings of the site.
        staged: The pages as Markdown.
        site: The built site.
    """
    lines = [f"# {project['site_name']}", "", f"> {project['site_description']}"]
    full = list(lines)
    for section, entries in sections(project["nav"]):
        lines += ["", f"## {section}", ""] if section else [""]
        for title, page in entries:
            text = (staged / page).read_text(encoding="utf-8")
            generated = bool(GENERATED.search(text))
            target = page.removesuffix(".md") + ".html" if generated else page
            told = "" if generated else summary(text)
            lines.append(f"- [{title or heading(text)}]({target})" + (f": {told}" if told else ""))
            if not generated:
                (site / page).write_text(text, encoding="utf-8")
                if page not in LEFT_OUT:
                    full += ["", MARK.sub("", text).strip()]
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (site / "llms-full.txt").write_text("\n".join(full) + "\n", encoding="utf-8")
