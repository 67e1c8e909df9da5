"""The README says what is so: its examples run and print what they say, its tables are complete."""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loopback import Requests, serving

import opero as package
from opero import get_logger, opero, switches
from opero.figures import CacheInfo, Stats
from opero.testing import skip_waits

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
PRINTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        mark: What the comment before it says; empty without one.
        language: Behind the fence.
        text: What is in it.
        line: The line of its fence, counted from 1.
    """

    mark: str
    language: str
    text: str
    line: int


BLOCKS = [
    Block(
        found["mark"] or "",
        found["language"],
        found["text"],
        TEXT.count("\n", 0, found.start("text")),
    )
    for found in FENCE.finditer(TEXT)
]


def chains() -> list[list[Block]]:
    """The examples; one marked `continues` goes on where the one before it ended."""
    found: list[list[Block]] = []
    for block in BLOCKS:
        if block.mark in {"continues", "prints"}:
            found[-1].append(block)
        elif block.language == "python" and block.mark != "on a cluster":  # see test_dask.py
            found.append([block])
    return found


def table(heading: str) -> list[list[str]]:
    """The cells of the first table behind `heading`, without its head."""
    lines = TEXT.partition(heading)[2].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows[2:]


def quoted(cell: str) -> str:
    """What stands between backticks at the beginning of a cell."""
    found = re.match(r"`([^`]*)`", cell)
    assert found, cell
    return found[1]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[Requests]:
    """What the examples import under this name."""
    with serving() as (_, module):
        monkeypatch.setitem(sys.modules, "requests", module)
        yield module


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The opero logger, which afterwards is what it was."""
    found = get_logger()
    handlers, level = list(found.handlers), found.level
    yield found
    found.handlers[:] = handlers
    found.setLevel(level)


@pytest.mark.parametrize("chain", chains(), ids=lambda chain: f"line_{chain[0].line}")
def test_examples_run_and_print_what_they_say(
    chain: list[Block],
    requests: Requests,
    logger: logging.Logger,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each example runs as it is printed, and prints what stands behind its `print` calls."""
    names: dict[str, Any] = {"__name__": "example"}
    expected = ""
    for block in chain:
        if block.language == "python":
            padding = "\n" * block.line  # so that a traceback names the README's own lines
            code = compile(padding + block.text, str(README), "exec", dont_inherit=True)
            with skip_waits():
                exec(code, names)
            expected += "".join(f"{line}\n" for line in PRINTED.findall(block.text))
        else:
            expected += block.text

    assert capsys.readouterr().out == expected

    for name, value in names.items():
        if name.startswith("test_"):
            value()


@pytest.mark.once
def test_examples_are_found() -> None:
    """There are many examples, and every fence has been understood."""
    assert len(chains()) > 10
    assert TEXT.count("\n```") == 2 * len(BLOCKS)
    assert {block.language for block in BLOCKS} == {"python", "sh", "text"}


@pytest.mark.once
def test_the_table_of_options_is_the_signature() -> None:
    """Names, order and defaults of the options in the table are those of `@opero`."""
    table_says = [(quoted(name), quoted(default)) for name, default, _ in table("## Options")]
    parameters = inspect.signature(opero).parameters.values()
    signature_says = [
        (parameter.name, "(Exception,)")
        if parameter.default == (Exception,)
        else (parameter.name, repr(parameter.default).replace("'", '"'))
        for parameter in parameters
        if parameter.kind is not parameter.VAR_KEYWORD
    ]

    assert table_says == signature_says
    assert all(meaning for _, _, meaning in table("## Options"))


@pytest.mark.once
def test_the_decorators_of_one_mechanism_take_the_options_in_their_table() -> None:
    """Each of the four takes its options, and none of the others that `@opero` has."""
    every = inspect.signature(opero).parameters
    given: dict[str, Any] = {
        name: parameter.default for name, parameter in every.items() if name != "kwargs"
    }
    needed = {"rate_limit": 5.0, "arg_fallback": "values"}
    rows = {quoted(name): re.findall(r"`(\w+)`", own) for name, own in table("Four decorators")}
    assert set(rows) == {name for name in package.__all__ if name.endswith("_decorator")}
    for name, cell in rows.items():
        make = getattr(package, name)
        own = {option for option in cell if option in given}
        required = {option: needed[option] for option in own & needed.keys()}
        assert {option for option in cell if option not in given} <= {"True"}
        for option in own:
            assert callable(make(**{option: given[option], **required}))
        for option in given.keys() - own:
            with pytest.raises(TypeError, match=option):
                make(**{option: given[option], **required})


@pytest.mark.once
def test_refused_options_are_named() -> None:
    """The options of coming backends in the text are those that are refused as such."""
    from opero.options import STORED_OPTIONS

    text = TEXT.partition("## Options")[2].partition("belong to the coming backends")[0]
    named = set(re.findall(r"`(cache_\w+)`", text[text.rindex("|") :]))

    assert named == set(STORED_OPTIONS)
    for option in named:
        with pytest.raises(ValueError, match=option):
            opero(cache=True, **{option: "x"})(lambda: None)


def test_the_table_of_attributes_is_complete() -> None:
    """The decorated function has what its table says, and nothing public beside its figures."""

    @opero(cache=True)
    def function() -> None:
        """Has attributes."""

    rows = table("## What the decorated function offers")
    named = {re.sub(r"^f\.|\(.*", "", quoted(name)) for name, _ in rows}
    assert named == {"__wrapped__", "cache_info", "cache_clear", "cache_invalidate", "stats"}
    assert all(hasattr(function, name) for name in named)


@pytest.mark.once
def test_the_fields_of_the_figures_are_named() -> None:
    """`cache_info` and `stats` have the fields that the text names."""
    text = TEXT.partition("## What the decorated function offers")[2].partition("```")[0]
    info = next(line for line in text.splitlines() if line.startswith("| `f.cache_info"))
    stats = text.partition("`stats()` has the fields")[2]

    assert tuple(re.findall(r"`(\w+)`", info)) == CacheInfo._fields
    assert tuple(re.findall(r"`(\w+)`", stats)) == Stats._fields


@pytest.mark.once
def test_switches_are_the_real_ones() -> None:
    """The environment variables and build settings in the text exist, and none is left out."""
    assert set(re.findall(r"OPERO_[A-Z_]+", TEXT)) == {
        switches.BUILD,
        switches.REQUIRE_COMPILED,
        switches.PURE_PYTHON,
    }
    assert set(re.findall(r"-C (\w+)=(\w+)", TEXT)) == {
        (switches.SETTING, choice) for choice in switches.CHOICES
    }


@pytest.mark.once
def test_the_two_commands_are_marked() -> None:
    """The commands for the demo and the tests stand alone in blocks that a script can find."""
    commands = {block.mark: block for block in BLOCKS if block.mark.startswith("command: ")}

    assert set(commands) == {"command: demo", "command: test"}
    for block in commands.values():
        assert block.language == "sh"
        assert block.text.count("\n") == 1
    assert commands["command: demo"].text.endswith("-m opero demo\n")
    assert commands["command: test"].text.endswith("-m pytest -n auto\n")


@pytest.mark.once
def test_measured_figures_have_their_place() -> None:
    """The measured table goes between two markers, each on a line of its own."""
    begin, end = "\n<!-- measured:begin -->\n", "\n<!-- measured:end -->\n"

    assert TEXT.count(begin) == TEXT.count(end) == 1
    assert TEXT.index(begin) < TEXT.index(end)


@pytest.mark.once
def test_links_within_the_page_lead_somewhere() -> None:
    """Every link to a heading has one."""
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }

    assert set(re.findall(r"\]\(#([^)]*)\)", TEXT)) <= headings


@pytest.mark.once
@pytest.mark.checkout
def test_links_to_files_lead_somewhere() -> None:
    """Every file that the README points at is there."""
    files = re.findall(r"\]\(([^)#:]+)\)", TEXT)

    assert files
    assert [name for name in files if not (README.parent / name).is_file()] == []


@pytest.mark.once
def test_every_public_name_is_mentioned() -> None:
    """No public name is left for readers to find in the source."""
    assert [name for name in package.__all__ if name not in TEXT and name != "__version__"] == []
