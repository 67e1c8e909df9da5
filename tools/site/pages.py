"""Stages the pages of the site, with the files of the repository that are not in `docs/`.

A page that is only a link, such as to `../CONTRIBUTING.md`, becomes that file. Links are written
for readers of the repository. On the site, those that leave `docs/` lead to the page that shows the
file, those to the README lead to the first page, and those to other files become plain text.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

ONLY_A_LINK = re.compile(r"\[[^\]]*\]\(\.\./([\w./-]+)\)")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def file_of(markdown: str) -> str | None:
    """Return the file that a page shows, relative to the root of the repository.

    Args:
        markdown: The page.

    Returns:
        The path; None if the page has a text of its own.
    """
    found = ONLY_A_LINK.fullmatch(markdown.strip())
    return found[1] if found else None


def relinked(text: str, origin: str, page: str, pages: Mapping[str, str]) -> str:
    """Return Markdown whose links work on the site.

    Args:
        text: The Markdown.
        origin: Its place in the repository, such as `docs/faq.md` or `SECURITY.md`.
        page: The page that it becomes, relative to `docs/`.
        pages: The pages that show files, by the paths of the files.
    """

    def moved(link: re.Match[str]) -> str:
        words, target, anchor = link[1], link[2], link[3] or ""
        if re.match(r"\w+:", target):
            return link[0]
        goal = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if goal.startswith("docs/"):
            goal = goal.removeprefix("docs/")
        elif goal == "README.md":
            goal, anchor = "index.md", ""
        elif goal in pages:
            goal = pages[goal]
        else:
            return words
        return f"[{words}]({posixpath.relpath(goal, posixpath.dirname(page) or '.')}{anchor})"

    parts = FENCED.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(moved, part) for part in parts)


def stage(root: Path, into: Path) -> None:
    """Copy `docs/`, put files in place of the pages that show them, and adapt the links.

    Args:
        root: The root of the repository.
        into: The directory to write, which is emptied first.
    """
    docs = root / "docs"
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(docs, into)
    texts = {
        path.relative_to(docs).as_posix(): path.read_text(encoding="utf-8")
        for path in docs.rglob("*.md")
    }
    shown = {page: name for page, text in texts.items() if (name := file_of(text))}
    pages = {name: page for page, name in shown.items()}
    for page in texts:
        origin = shown.get(page, f"docs/{page}")
        text = (root / origin).read_text(encoding="utf-8")
        (into / page).write_text(relinked(text, origin, page, pages), encoding="utf-8")
