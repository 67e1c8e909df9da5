"""Brings files of the repository that do not stand under `docs/` into the site.

A page that is nothing but a link, as to `../CONTRIBUTING.md`, is that file on the site. Links are
written for who reads the repository; those that leave `docs/` lead to the page that has the file,
those to the README to the first page, and those to other files are plain text on the site.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

LOG = logging.getLogger("mkdocs.hooks.files_above")
"""In strict mode a warning to it ends the build."""
NOTHING_BUT_A_LINK = re.compile(r"\[[^\]]*\]\(\.\./([\w./-]+)\)")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def file_of(markdown: str) -> str | None:
    """Tell which file a page stands for.

    Args:
        markdown: The page.

    Returns:
        The file's path from the root of the repository; None if it is a page of its own.
    """
    found = NOTHING_BUT_A_LINK.fullmatch(markdown.strip())
    return found[1] if found else None


def relinked(text: str, origin: str, page: str, pages: Mapping[str, str]) -> str:
    """Let links lead to where things are on the site.

    Args:
        text: Markdown.
        origin: Where it stands in the repository, such as `docs/faq.md` or `SECURITY.md`.
        page: The page that it becomes, as a path from `docs/`.
        pages: The pages that stand for files, by the files' paths from the root.

    Returns:
        The text with other links.
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


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put a file in the place of its page, and mend links.

    Args:
        markdown: The page.
        page: Tells where it is.
        config: Tells where the repository is.
        files: All pages.

    Returns:
        The page as the site has it.
    """
    pages = {}
    for each in files.documentation_pages():
        if name := file_of(each.content_string):
            pages[name] = each.src_uri
    origin = f"docs/{page.file.src_uri}"
    if name := file_of(markdown):
        source = Path(config.config_file_path).parent / name
        if not source.is_file():
            LOG.warning("%s stands for %s, which is not there", origin, name)
            return markdown
        origin, markdown = name, source.read_text(encoding="utf-8")
    return relinked(markdown, origin, page.file.src_uri, pages)
