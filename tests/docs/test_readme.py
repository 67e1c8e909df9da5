"""The README is short, has its two commands, and says where the rest is; see also `docs/test_docs.py`."""

from __future__ import annotations

import sys

import pytest
from documents import README, blocks, links, marked, text_of
from loopback import serving

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
    assert text_of("README.md").count("\n") < 150


@pytest.mark.parametrize(
    "page",
    [
        *("quickstart", "install", "opero", "opmap", "modes", "backends", "keys", "failures"),
        *("limits", "breaker", "blocks", "streams", "events", "telemetry", "testing"),
        *("performance", "security", "limitations", "when-not", "faq"),
        *("migration/index", "reference/index"),
    ],
)
def test_it_leads_to_every_page_of_the_guide(page: str) -> None:
    """Nobody has to guess where a detail is told."""
    assert f"docs/{page}.md" in {link.partition("#")[0] for link in links(text_of("README.md"))}


def test_both_programs_do_the_same_work(capsys: pytest.CaptureFixture[str]) -> None:
    """They print the same and send the same requests, and a second look at known books sends none."""
    seen = {}
    for role in ("before", "after"):
        block = marked(f"{role}: prices")
        with serving() as (server, requests), pytest.MonkeyPatch.context() as patched:
            patched.setitem(sys.modules, "requests", requests)
            names = {"__name__": "example"}
            exec(compile(block.text, str(README), "exec", dont_inherit=True), names)
            asked = len(server.seen)
            again = names["price"]("dune") if role == "before" else names["price"](["dune"])[0]
            assert (again, len(server.seen)) == (9.5, asked)
            seen[role] = sorted(server.seen)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == printed[1]
    assert seen["before"] == seen["after"]
    assert seen["after"] == [*["GET /books/dune"] * 2, *["GET /books/emma"] * 2, "GET /books/lost"]


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_screen_has_what_convinces(page: str) -> None:
    """A sentence, a program with and without opero, a picture, and how to install."""
    text = text_of(page)
    order = ["# opero\n\nopero makes", "<!-- after: ", "figures/calls.svg", "pip install"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "<!-- before: " in text[: text.index("figures/calls.svg")]


def test_what_is_saved_is_what_the_readme_says() -> None:
    """The lines of both programs are counted."""
    before, after = (marked(f"{role}: prices").text.count("\n") for role in ("before", "after"))
    assert f"The same by hand: {before} lines instead of {after}" in text_of("README.md")
    assert after <= before / 2
