"""The changelog has the form of Keep a Changelog 1.1.0."""

from __future__ import annotations

import re
from datetime import date

import pytest

import opero

pytestmark = [pytest.mark.checkout, pytest.mark.once]

KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
RELEASED = re.compile(r"\[(?P<version>\d+\.\d+\.\d+)\] - (?P<date>\d{4}-\d\d-\d\d)( \[YANKED\])?")


@pytest.fixture(scope="module")
def text(pytestconfig: pytest.Config) -> str:
    """The changelog."""
    return (pytestconfig.rootpath / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parts(text: str) -> dict[str, str]:
    """What stands under each heading of a version."""
    head, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    assert head.startswith("# Changelog\n")
    found = dict(part.split("\n", 1) for part in parts)
    assert len(found) == len(parts), "a version has two headings"
    return found


def versions(parts: dict[str, str]) -> list[tuple[tuple[int, ...], date]]:
    """Return number and date of each released version."""
    found = []
    for heading in list(parts)[1:]:
        match = RELEASED.fullmatch(heading)
        assert match, f"'## {heading}' is no '## [1.2.3] - 2001-02-03'"
        number = tuple(map(int, match["version"].split(".")))
        found.append((number, date.fromisoformat(match["date"])))
    return found


def test_it_says_which_rules_it_follows(text: str) -> None:
    """Those of the changelog and those of the version numbers, by their addresses."""
    assert "(https://keepachangelog.com/en/1.1.0/)" in text
    assert "(https://semver.org/spec/v2.0.0.html)" in text


def test_what_is_not_released_stands_first(parts: dict[str, str]) -> None:
    """Under a heading that is always there."""
    assert next(iter(parts)) == "[Unreleased]"


def test_releases_stand_newest_first_with_their_dates(parts: dict[str, str]) -> None:
    """By number and by day."""
    released = versions(parts)
    assert released == sorted(released, reverse=True)
    assert [day for _, day in released] == sorted((day for _, day in released), reverse=True)


def test_changes_stand_under_their_kinds(parts: dict[str, str]) -> None:
    """Each of the six kinds once at most, with entries below, and nothing beside them."""
    for version, part in parts.items():
        lead, *kinds = re.split(r"^### ", part, flags=re.MULTILINE)
        assert lead.strip() == "", version
        names = [kind.partition("\n")[0] for kind in kinds]
        assert set(names) <= set(KINDS), version
        assert len(set(names)) == len(names), version
        for kind in kinds:
            lines = [line for line in kind.split("\n")[1:] if line and not line.startswith("[")]
            assert lines, f"{version}: nothing is {kind}"
            assert lines[0].startswith("- "), version
            assert all(line.startswith(("- ", "  ")) for line in lines), version


def test_this_version_has_words_about_it(parts: dict[str, str]) -> None:
    """It is the newest released one, or a later one whose changes stand first."""
    mine = tuple(map(int, re.findall(r"\d+", opero.__version__)))
    newest = max((number for number, _ in versions(parts)), default=(0, 0, 0))
    assert mine >= newest
    assert mine == newest or parts["[Unreleased]"].strip()
