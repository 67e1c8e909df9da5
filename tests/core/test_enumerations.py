"""Keys of enum members, listed and made: by class, name and value, in memory and stored."""

from __future__ import annotations

import datetime as dt
import enum
import sys
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from opero import hotpath


class Colour(enum.Enum):
    """Makes members for what it does not know, all of one name."""

    RED = 1
    GREEN = 2
    CRIMSON = 1  # noqa: PIE796 - another name of RED

    @classmethod
    def _missing_(cls, value: object) -> Any:
        made = object.__new__(cls)
        made._name_, made._value_ = "UNKNOWN", value
        return made


class Status(enum.IntEnum):
    """Makes ints, whose value says nothing."""

    OK = 200

    @classmethod
    def _missing_(cls, value: object) -> Any:
        made = int.__new__(cls, value)  # type: ignore[call-overload]
        made._name_, made._value_ = "OK", None
        return made


class Word(str, enum.Enum):  # noqa: UP042 - the old way
    """Makes texts with something else about them."""

    YES = "yes"

    @classmethod
    def _missing_(cls, value: object) -> Any:
        made = str.__new__(cls, "other")
        made._name_, made._value_, made.raw = "OTHER", "other", value
        return made


class Day(dt.date, enum.Enum):
    """Makes dates of one name and value."""

    FIRST = 2024, 1, 1

    @classmethod
    def _missing_(cls, value: object) -> Any:
        made = dt.date.__new__(cls, 2024, 1, value)  # type: ignore[call-overload]
        made._name_, made._value_ = "OTHER", None
        return made


class Mode(enum.Flag, boundary=enum.KEEP):
    """Members that can be combined, and keep bits without a name."""

    READ = 1
    WRITE = 2
    BOTH = 3


class Loose(enum.IntFlag):
    """The same, and they are ints."""

    READ = 1
    WRITE = 2


class Odd(enum.Enum):
    """Values that have no key of their own."""

    LENGTH = len
    ITEMS = {"a": [len]}  # noqa: RUF012
    NOTHING = object()


VALUES = st.sampled_from([0, 1, 2, 3, 7, 8, 200, True, 1.0, "yes", "no", None, (7,), (7.0,)])
MEMBERS = st.one_of(
    st.builds(Colour, VALUES),
    st.builds(Word, VALUES),
    st.builds(Status, st.sampled_from([200, 404, 500])),
    st.builds(Day, st.integers(1, 3)),
    st.builds(Mode, st.integers(0, 15)),
    st.builds(Loose, st.integers(0, 15)),
    st.sampled_from(list(Odd)),
)


def told(member: Any) -> Any:
    """Return all that there is to a member, by `repr`, which shows types."""
    content = {name: item for name, item in vars(member).items() if name[0] != "_"}
    plain = int.__repr__(member) if isinstance(member, int) else None
    if isinstance(member, dt.date):
        plain = member.isoformat()
    value = id(member) if isinstance(member, Odd) else repr(member._value_)
    return type(member), member._name_, value, plain, repr(content)


@given(one=MEMBERS, two=MEMBERS)
def test_random_members_have_one_key_exactly_if_they_are_the_same(
    core: hotpath.Core, one: Any, two: Any
) -> None:
    """In memory and stored, alone and in a list, compiled and plain."""
    expected = told(one) == told(two)
    freezer, canonical = core.Freezer(), core.Canonical()
    plain = hotpath.load("plain").Canonical()
    for first, second in ((one, two), ([one], [two]), ({one: 1}, {two: 1})):
        assert (freezer.probe(first) == freezer.freeze(second)) == expected
        encodings = canonical.encode(first), canonical.encode(second)
        assert (encodings[0] == encodings[1]) == expected
        assert encodings == (plain.encode(first), plain.encode(second))


@given(
    names=st.lists(st.sampled_from("ABCD"), min_size=1, unique=True),
    values=st.lists(VALUES, min_size=4, max_size=4),
    at=st.integers(0, 3),
    other=VALUES,
)
def test_a_member_whose_value_is_another_one_has_another_key(
    core: hotpath.Core, names: list[str], values: list[Any], at: int, other: Any
) -> None:
    """So a new version of the program does not find values stored for the old one."""
    canonical = core.Canonical()
    name = names[at % len(names)]

    def encoded(values: list[Any]) -> bytes:
        made = enum.Enum("Made", list(zip(names, values, strict=False)), module=__name__)  # type: ignore[misc]
        sys.modules[__name__].Made = made
        try:
            return canonical.encode(made[name])
        finally:
            delattr(sys.modules[__name__], "Made")

    changed = list(values)
    changed[at % len(names)] = other
    # else there is a second name of another member
    assume([values.count(value) for value in values] == [1] * 4 and changed.count(other) == 1)
    same = repr(values[at % len(names)]) == repr(other)
    assert (encoded(values) == encoded(changed)) == same


def test_a_listed_member_counts_by_its_name_if_its_value_has_no_key(core: hotpath.Core) -> None:
    """Only one member has that name."""
    freezer, canonical = core.Freezer(), core.Canonical()
    for make in (freezer.freeze, canonical.encode):
        assert len({make(member) for member in Odd}) == len(Odd) == 3
        assert make(Odd.LENGTH) == make(Odd.LENGTH)


def test_a_made_member_whose_value_has_no_key_is_refused(core: hotpath.Core) -> None:
    """Another member may have the same name."""
    from opero import CacheKeyError

    with pytest.raises(CacheKeyError, match="code, not data"):
        core.Canonical().encode(Colour(len))
    assert core.Freezer().freeze(Colour(len)) != core.Freezer().freeze(Colour(max))
