"""The page about the failures of other tools is true: each program fails as it says, with what is installed.

A program of another tool that no longer prints what the page says is good news: the tool has been
mended. The section is then to be rewritten or taken out.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from documents import DOCS, Block, blocks, text_of

pytestmark = [pytest.mark.once, pytest.mark.checkout]

PAGE = "docs/why.md"
PRINTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)
TODAY = [block for block in blocks(DOCS / "why.md") if block.mark.startswith("today: ")]
SCRIPTS = [block for block in blocks(DOCS / "why.md") if block.mark.startswith("script: ")]

STANDARD = {"concurrent.futures", "functools"}
"""The tools that come with Python."""


def run(block: Block, folder: Path) -> tuple[str, str]:
    """Run a block as a program, at home in `folder`; return what it has to print, and what it prints."""
    if "signal.SIGKILL" in block.text and not hasattr(signal, "SIGKILL"):
        pytest.skip("there is no SIGKILL here")
    script = folder / "program.py"
    script.write_text(block.text, encoding="utf-8")
    environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder)}
    environment.pop("XDG_CONFIG_HOME", None)
    ended = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expected = "".join(f"{line}\n" for line in PRINTED.findall(block.text))
    return expected, ended.stdout + ended.stderr


def tools(block: Block) -> list[str]:
    """The tools that a program is of."""
    return block.mark.removeprefix("today: ").split(", ")


def installed(tool: str) -> str:
    """A tool with its version, or Python's if it belongs to the standard library."""
    if tool in STANDARD:
        return f"{tool} of Python {sys.version.split()[0]}"
    try:
        return f"{tool} {version(tool)}"
    except PackageNotFoundError:
        pytest.skip(f"{tool} is not installed")


@pytest.mark.parametrize("block", TODAY, ids=lambda block: f"{block.line}-{block.mark[7:]}")
def test_the_tools_of_today_fail_as_the_page_says(block: Block, tmp_path: Path) -> None:
    """Each program prints what the comments on its `print` calls say, in one of three runs.

    On a busy machine a hundred threads may not start within the time of one query.
    """
    names = " and ".join(installed(tool) for tool in tools(block))
    for _ in range(3):
        expected, printed = run(block, tmp_path)
        if printed == expected:
            break
    assert printed == expected, (
        f"{PAGE}:{block.line}: {names} no longer fails as the page says: "
        "rewrite the section, or take it out"
    )


@pytest.mark.parametrize("block", SCRIPTS, ids=lambda block: block.mark[8:])
def test_opero_does_what_the_page_says(block: Block, tmp_path: Path) -> None:
    """The programs that need a process of their own; `test_docs.py` runs the others."""
    expected, printed = run(block, tmp_path)
    assert printed == expected


def test_every_program_of_another_tool_is_followed_by_one_with_opero() -> None:
    """And the page names each tool that it runs, with its version if it has one."""
    programs = [block for block in blocks(DOCS / "why.md") if block.language == "python"]
    assert len(programs) == 2 * len(TODAY)
    assert programs[::2] == TODAY
    assert all("from opero import" in block.text for block in programs[1::2])
    named = text_of(PAGE).partition("\n## What was run\n")[2]
    for tool in sorted({tool for block in TODAY for tool in tools(block)}):
        assert tool in named
