"""The documentation as tests see it: pages, fenced blocks, tables, links.

How pages are written, so that the tests can run them:

- Every fenced block begins at the margin, with its language behind the fence; `python` is run as it
  stands, by `docs/test_docs.py`, in a namespace of its own, on both implementations, with waits skipped.
- A line `print(...)  # what` is held to print exactly `what`. What a block prints otherwise stands in
  a `text` block behind it, marked `<!-- prints -->`.
- Functions whose names begin with `test_` are called after the block, without arguments.
- `requests` is a stand-in that asks a real server on loopback; see `loopback.py`. Home, caches and
  keys are a temporary directory's.

A comment on the line before a fence is its mark:

- `<!-- continues -->`: goes on in the namespace of the block before it.
- `<!-- prints -->`: the output of the block before it.
- `<!-- with redis -->`: needs a Redis; its address is put in the place of `REDIS`.
- `<!-- before: NAME -->`, `<!-- after: NAME -->`: run like any other; `docs/test_migration.py` compares
  what the two print. One with `if __name__ == "__main__":` is left to that test, and so is one that
  needs a library which this Python is too old for.
- `<!-- today: TOOLS -->`, `<!-- script: FILE -->`: run as programs of their own by `docs/test_why.py`, which
  compares what they print; the first is a program of other tools, which fails as the page says.
- `<!-- from: PATH -->`: a part of that file, letter by letter; `examples/test_recipes.py` compares them.
- `<!-- on a cluster -->`, `<!-- file: NAME -->`, `<!-- acl -->`: have tests of their own.
- `<!-- opero 2 -->`: a program for opero 2.x, which does not run; `docs/test_opero_2.py` reads it.
- `<!-- command: NAME -->`: a command that CI takes from the README.

Any other mark, and any Python that does not stand in such a block, fails `docs/test_docs.py`.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
INCLUDED = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md")
"""Files outside of `docs/` that are pages of the site; `tools/site/pages.py` says how."""
REDIS = "redis://localhost:6379/0"
"""What the examples call a Redis; in the tests it is another one."""
SCRIPT = 'if __name__ == "__main__":'
"""What a block has that only a process of its own can run."""
SINCE = {"pyarallel": (3, 12)}
"""Libraries whose examples run from a later Python on than opero's own."""
LANGUAGES = {"python", "sh", "text", "toml", "yaml", "ini", "json", "promql"}
"""What may stand behind a fence; only the first is Python."""
MARK = re.compile(
    r"continues|prints|with redis|on a cluster|opero 2|acl"
    r"|(?:before|after|file|from|command|script|today): .+",
    re.DOTALL,
)
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
ANY_FENCE = re.compile(r"^[ \t>*+-]*(?:`{3,}|~{3,})", re.MULTILINE)
"""A line that Markdown could take for the beginning or the end of a block."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        path: The page it stands on.
        mark: What the comment before it says; empty without one.
        language: Behind the fence.
        text: What is in it.
        line: The line of its fence, counted from 1.
    """

    path: Path
    mark: str
    language: str
    text: str
    line: int

    @property
    def elsewhere(self) -> bool:
        """Whether another test runs it."""
        if self.mark.startswith(("before: ", "after: ")):
            return SCRIPT in self.text or not self.runs_here
        return self.mark in {"on a cluster", "opero 2"} or self.mark.startswith(
            ("file: ", "from: ", "script: ", "today: ")
        )

    @property
    def runs_here(self) -> bool:
        """Whether this Python has the libraries that it imports."""
        imported = re.findall(r"^(?:from|import) (\w+)", self.text, re.MULTILINE)
        return all(sys.version_info >= SINCE.get(name, (3,)) for name in imported)


def pages() -> list[Path]:
    """The README, every page of the site, and what they include."""
    found = [README, *sorted(DOCS.rglob("*.md")), *(ROOT / name for name in INCLUDED)]
    return [path for path in found if path.is_file()]


def name_of(path: Path) -> str:
    """What a page is called in the output of tests."""
    return path.relative_to(ROOT).as_posix()


@cache
def text_of(name: str) -> str:
    """The text of a page, by its path from the root of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks_in(path: Path, text: str) -> list[Block]:
    """The fenced blocks of a page.

    Raises:
        AssertionError: If there is a fence that is not understood, so that nothing would run it.
    """
    found = [
        Block(
            path,
            match["mark"] or "",
            match["language"],
            match["text"],
            text.count("\n", 0, match.start("text")),
        )
        for match in FENCE.finditer(text)
    ]
    fences = len(ANY_FENCE.findall(text))
    assert fences == 2 * len(found), f"{path}: a fence is indented, quoted or not closed"
    for block in found:
        place = f"{path}:{block.line}"
        assert block.language in LANGUAGES, f"{place}: language {block.language!r}"
        assert not block.mark or MARK.fullmatch(block.mark), f"{place}: mark {block.mark!r}"
        if SCRIPT in block.text and block.language == "python":
            assert block.elsewhere, f"{place}: a script, which no test runs"
    return found


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page that is there."""
    return blocks_in(path, text_of(name_of(path)))


def chains(found: list[Block]) -> list[list[Block]]:
    """The examples among blocks; one marked `continues` goes on where the one before it ended.

    Raises:
        AssertionError: If one goes on where nothing began.
    """
    made: list[list[Block]] = []
    open_chain: list[Block] | None = None
    for block in found:
        if block.mark in {"continues", "prints"}:
            assert open_chain is not None, f"{block.path}:{block.line}: goes on from nothing"
            open_chain.append(block)
        elif block.language == "python":
            open_chain = [block]
            if not block.elsewhere:
                made.append(open_chain)
    return made


def marked(mark: str) -> Block:
    """The one block with this mark, wherever it stands."""
    [found] = [block for path in pages() for block in blocks(path) if block.mark == mark]
    return found


def table(name: str, heading: str) -> list[list[str]]:
    """The cells of the first table behind `heading` on a page, without its head."""
    _, found, rest = text_of(name).partition(heading)
    assert found, f"{name}: {heading!r} is not there"
    lines = rest.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows[2:]


def section(name: str, heading: str) -> str:
    """The text between a heading and the next one of any level."""
    text = text_of(name)
    assert f"\n{heading}\n" in text, f"{name}: {heading!r} is not there"
    return text.partition(f"\n{heading}\n")[2].partition("\n#")[0]


def quoted(cell: str) -> str:
    """What stands between backticks at the beginning of a cell, or of the link that it begins with."""
    found = re.match(r"(?:<a [^>]*>)?`([^`]*)`", cell)
    assert found, cell
    return found[1]


def links(text: str) -> list[str]:
    """The targets of the links and pictures in a page, those to other hosts left out."""
    prose = FENCE.sub("", text)
    return [
        target for target in re.findall(r"\]\(([^)\s]+)\)", prose) if not re.match(r"\w+:", target)
    ]


def anchors(text: str) -> set[str]:
    """What a link into a page may name: its headings, as GitHub and the site spell them, and ids."""
    ids = set(re.findall(r'<a id="(\w+)"', text))
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return ids | {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def file_of(text: str) -> str | None:
    """The file that a page is on the site, if it is nothing but a link to it."""
    found = re.fullmatch(r"\[[^\]]*\]\(\.\./([\w./-]+)\)\s*", text)
    return found[1] if found else None
