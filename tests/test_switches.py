"""The parser of the switches, which the build backend and the import share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opero import switches
from opero.switches import SwitchError, is_on, wanted_at_build, wanted_at_import

pytestmark = pytest.mark.once

ON = ("1", "true", "yes", "on")
OFF = ("", "0", "false", "no", "off")


@pytest.mark.parametrize("word", [*ON, *(word.upper() for word in ON), " 1 ", "True\n"])
def test_on_has_one_reading(word: str) -> None:
    """Every usual way to say yes, in any case and with spaces around."""
    assert is_on("OPERO_X", {"OPERO_X": word})


@pytest.mark.parametrize("word", [*OFF, *(word.upper() for word in OFF), "  "])
def test_off_has_one_reading(word: str) -> None:
    """Every usual way to say no, the empty string and zero among them."""
    assert not is_on("OPERO_X", {"OPERO_X": word})


def test_a_switch_that_is_not_set_is_off() -> None:
    """As if it were set to nothing."""
    assert not is_on("OPERO_X", {})


@given(st.text())
def test_any_other_word_is_an_error_that_names_the_switch(word: str) -> None:
    """Whatever is neither on nor off is not guessed at."""
    environ = {"OPERO_X": word}
    plain_word = word.strip().lower()
    if plain_word in ON or plain_word in OFF:
        assert is_on("OPERO_X", environ) == (plain_word in ON)
    else:
        with pytest.raises(SwitchError, match=r"OPERO_X=.*use one of 1, true"):
            is_on("OPERO_X", environ)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "auto"),
        ({"OPERO_PURE_PYTHON": "0", "OPERO_REQUIRE_COMPILED": ""}, "auto"),
        ({"OPERO_PURE_PYTHON": "1"}, "plain"),
        ({"OPERO_REQUIRE_COMPILED": "yes"}, "compiled"),
        ({"OPERO_PURE_PYTHON": "off", "OPERO_REQUIRE_COMPILED": "on"}, "compiled"),
    ],
)
def test_an_import_chooses_what_its_switches_insist_on(
    environ: dict[str, str], expected: str
) -> None:
    """Without a switch that is on, it may choose for itself."""
    assert wanted_at_import(environ) == expected


def test_an_import_does_not_read_the_switch_of_the_build() -> None:
    """How opero was built is not for the environment of a run to say."""
    assert wanted_at_import({"OPERO_BUILD": "nonsense"}) == "auto"


def test_switches_that_contradict_each_other_are_an_error_that_names_both() -> None:
    """Neither silently wins."""
    with pytest.raises(SwitchError, match="OPERO_PURE_PYTHON and OPERO_REQUIRE_COMPILED"):
        wanted_at_import({"OPERO_PURE_PYTHON": "1", "OPERO_REQUIRE_COMPILED": "1"})


@pytest.mark.parametrize(
    ("setting", "environ", "expected"),
    [
        (None, {}, "auto"),
        ("", {}, "auto"),
        ("plain", {}, "plain"),
        ("Compiled ", {}, "compiled"),
        (["plain", "plain"], {}, "plain"),
        (None, {"OPERO_BUILD": "plain"}, "plain"),
        ("", {"OPERO_BUILD": "plain"}, "plain"),
        ("auto", {"OPERO_BUILD": "plain"}, "auto"),
        ("compiled", {"OPERO_BUILD": "plain"}, "compiled"),
        (None, {"OPERO_REQUIRE_COMPILED": "1"}, "compiled"),
        ("auto", {"OPERO_REQUIRE_COMPILED": "1"}, "compiled"),
        ("plain", {"OPERO_REQUIRE_COMPILED": "0"}, "plain"),
        ("auto", {"OPERO_PURE_PYTHON": "1"}, "auto"),
    ],
)
def test_a_build_makes_what_it_is_told_to(
    setting: object, environ: dict[str, str], expected: str
) -> None:
    """The config setting goes before its environment twin; requiring makes auto strict."""
    assert wanted_at_build(environ, setting) == expected


@pytest.mark.parametrize(
    ("setting", "environ", "words"),
    [
        ("fast", {}, "build='fast': use one of auto, compiled, plain"),
        (None, {"OPERO_BUILD": "1"}, "OPERO_BUILD='1': use one of auto, compiled, plain"),
        (["plain", "compiled"], {}, "given more than once, as compiled, plain"),
        ("plain", {"OPERO_REQUIRE_COMPILED": "1"}, "OPERO_REQUIRE_COMPILED is on: change one"),
        (None, {"OPERO_BUILD": "plain", "OPERO_REQUIRE_COMPILED": "1"}, "change one"),
    ],
)
def test_a_build_refuses_what_means_nothing_or_contradicts_itself(
    setting: object, environ: dict[str, str], words: str
) -> None:
    """The error names the setting or variable, and what is allowed."""
    with pytest.raises(SwitchError, match=words):
        wanted_at_build(environ, setting)


@pytest.mark.checkout
def test_nobody_else_reads_the_variables() -> None:
    """A second reading of a switch would be a second meaning."""
    root = Path(__file__).resolve().parent.parent
    names = (switches.BUILD, switches.REQUIRE_COMPILED, switches.PURE_PYTHON)
    readers = {
        path.relative_to(root).as_posix()
        for folder in ("src", "build_backend")
        for path in (root / folder).rglob("*.py")
        if any(f'"{name}"' in path.read_text() for name in names)
    }
    assert readers == {"src/opero/switches.py"}
