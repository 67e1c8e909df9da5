"""The README is short, has its two commands, and says where the rest is; see also `docs/test_docs.py`."""

from __future__ import annotations

import re

import pytest
from documents import README, blocks, links, text_of

pytestmark = pytest.mark.once


def test_the_two_commands_are_marked() -> None:
    """The commands for the demo and the tests stand alone in blocks that a script can find."""
    commands = {block.mark: block for block in blocks(README) if block.mark.startswith("command: ")}

    assert set(commands) == {"command: demo", "command: test"}
    for block in commands.values():
        assert block.language == "sh"
        assert block.text.count("\n") == 1
    assert commands["command: demo"].text.endswith("/python examples/demo\n")
    assert commands["command: test"].text.endswith("-m pytest -n auto\n")


def test_it_is_read_in_a_few_minutes() -> None:
    """What is longer belongs on a page."""
    assert text_of("README.md").count("\n") < 300


@pytest.mark.parametrize(
    "page",
    [
        *("quickstart", "install", "opero", "opmap", "modes", "backends", "keys", "failures"),
        *("limits", "testing", "performance", "security", "limitations", "faq"),
        *("migration/index", "reference/index"),
    ],
)
def test_it_leads_to_every_page_of_the_guide(page: str) -> None:
    """Nobody has to guess where a detail is told."""
    assert f"docs/{page}.md" in {link.partition("#")[0] for link in links(text_of("README.md"))}


@pytest.mark.parametrize(
    "subject",
    [
        *("Choosing a mode", "When a worker dies", "From processes to a cluster"),
        *("Choosing a backend", "A batch that survives its own death", "Running Redis"),
        *("Threat model", "Key rotation"),
    ],
)
def test_what_people_look_for_first_is_there_in_short_with_a_link(subject: str) -> None:
    """A bold line that leads to the page where it is told in full."""
    assert re.search(rf"\*\*\[{subject}\]\(docs/[^)]+\)", text_of("README.md"))
