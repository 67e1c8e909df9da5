"""Both kinds of key against an independent idea of what the same value is, on random values.

Pairs are made in three ways: at random, by rebuilding a value from new parts in another order, and
by changing one leaf or one container of it to what looks most like it.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import fractions
import json
import math
import pathlib
import random
import struct
import sys
import uuid
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from opero import hotpath

UTC = dt.UTC
EAST = dt.timezone(dt.timedelta(hours=1))


class Colour(enum.Enum):
    """An enumeration."""

    ONE = 1
    TEXT = "1"


class Level(enum.IntEnum):
    """Members that are equal to ints."""

    ONE = 1


@dataclass
class Point:
    """A dataclass."""

    x: Any
    y: Any


@dataclass(eq=False)
class Loose:
    """A dataclass, hashable by identity."""

    x: Any


class Pair(NamedTuple):
    """A named tuple."""

    x: Any
    y: Any


class SharedCounters(list[Any]):
    """A subclass of list."""


class Text(str):
    """A subclass of str."""

    __slots__ = ()


# What the same value is, as slowly and plainly as can be.


def same(one: Any, two: Any) -> bool:
    """Return whether two values are the same: type for type, content for content."""
    if type(one) is not type(two):
        return False
    if one is None or isinstance(one, bool | enum.Enum):
        return one is two
    if isinstance(one, float) and not isinstance(one, np.generic):
        return struct.pack("d", one) == struct.pack("d", two)
    if isinstance(one, complex):
        return same(one.real, two.real) and same(one.imag, two.imag)
    if isinstance(one, Point):
        return same(one.x, two.x) and same(one.y, two.y)
    if isinstance(one, Loose):
        return same(one.x, two.x)
    if isinstance(one, collections.deque):
        return same(one.maxlen, two.maxlen) and same(list(one), list(two))
    if isinstance(one, collections.OrderedDict):
        return same(list(one.items()), list(two.items()))
    if isinstance(one, dict):
        return same_in_any_order(list(one.items()), list(two.items()))
    if isinstance(one, set | frozenset):
        return same_in_any_order(list(one), list(two))
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, decimal.Decimal):
        return one.as_tuple() == two.as_tuple()
    if isinstance(one, dt.datetime):
        return repr(one) == repr(two)
    if isinstance(one, np.ndarray):
        if one.dtype != two.dtype or one.shape != two.shape:
            return False
        if one.dtype == object:
            return same(one.ravel().tolist(), two.ravel().tolist())
        return one.tobytes() == two.tobytes()
    if isinstance(one, np.generic):
        return one.dtype == two.dtype and one.tobytes() == two.tobytes()
    return bool(one == two)


def same_in_any_order(one: list[Any], two: list[Any]) -> bool:
    """Return whether each item of `one` has a different partner in `two`."""
    left = list(two)
    for item in one:
        for at, other in enumerate(left):
            if same(item, other):
                del left[at]
                break
        else:
            return False
    return not left


# Values.

LOOKALIKES: list[Any] = [
    None,
    0,
    0.0,
    -0.0,
    False,
    1,
    1.0,
    True,
    "1",
    b"1",
    "",
    b"",
    math.nan,
    struct.unpack(">d", bytes.fromhex("fff8000000000001"))[0],
    "nan",
    2**63,
    2**64,
    float(2**63),
    -(2**63),
    1 + 0j,
    complex(-0.0, 0),
    Colour.ONE,
    Colour.TEXT,
    Level.ONE,
    Text("1"),
    decimal.Decimal(1),
    decimal.Decimal("1.0"),
    fractions.Fraction(1),
    dt.datetime(2024, 1, 1, 1),  # noqa: DTZ001
    dt.datetime(2024, 1, 1, 1, fold=1),  # noqa: DTZ001
    dt.datetime(2024, 1, 1, 1, tzinfo=EAST),
    dt.datetime(2024, 1, 1, 0, tzinfo=UTC),
    "2024-01-01T01:00:00",
    dt.date(2024, 1, 1),
    dt.time(1),
    dt.timedelta(1),
    uuid.UUID(int=1),
    pathlib.PurePosixPath("1"),
    range(1),
    int,
    str,
    Point,
    ...,
]

NUMPY: list[Any] = [np.int64(1), np.float64(1), np.bool_(True), np.str_("1")]
"""Not in sets: some other numbers fail when they are compared with these."""

HASHABLE = st.one_of(
    st.sampled_from(LOOKALIKES),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.text("a1é\ud800", max_size=3),
    st.binary(max_size=2),
    st.decimals(places=1, min_value=-1, max_value=1),
)


def hashable_container(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy of containers that can be in a set."""
    few = st.lists(inner, max_size=3)
    return st.one_of(
        few.map(tuple),
        few.map(frozenset),
        st.builds(Pair, inner, inner),
        st.builds(Loose, inner),
    )


def container(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy of containers of anything."""
    few = st.lists(inner, max_size=3)
    members = st.recursive(HASHABLE, hashable_container, max_leaves=3)
    return st.one_of(
        few,
        few.map(tuple),
        few.map(SharedCounters),
        few.map(collections.deque),
        st.lists(members, max_size=3).map(set),
        st.dictionaries(st.text("ab1é", max_size=2), inner, max_size=3),
        st.dictionaries(members, inner, max_size=3),
        st.dictionaries(st.text("ab1", max_size=2), inner, max_size=3).map(collections.OrderedDict),
        st.builds(Point, inner, inner),
        few.map(array_of),
        st.lists(st.integers(0, 3), max_size=3).map(np.array),
        st.lists(st.floats(), max_size=3).map(lambda numbers: np.array(numbers, dtype=float)),
    )


def array_of(items: list[Any]) -> Any:
    """Return an array of objects."""
    found = np.empty(len(items), dtype=object)
    for at, item in enumerate(items):
        found[at] = item
    return found


VALUES = st.recursive(
    st.recursive(HASHABLE, hashable_container, max_leaves=4) | st.sampled_from(NUMPY), container
)


# What can be done to a value.


def parts_of(value: Any) -> tuple[list[Any], Any] | None:
    """Return the parts of a container, and a function that makes such a container of new parts."""
    if isinstance(value, Point):
        return [value.x, value.y], lambda parts: Point(*parts)
    if isinstance(value, Loose):
        return [value.x], lambda parts: Loose(*parts)
    if isinstance(value, Pair):
        return list(value), lambda parts: Pair(*parts)
    if isinstance(value, collections.deque):
        return list(value), lambda parts: collections.deque(parts, value.maxlen)
    if isinstance(value, dict):
        kind = type(value)
        flat = [part for pair in value.items() for part in pair]
        return flat, lambda parts: kind(zip(parts[::2], parts[1::2], strict=True))
    if isinstance(value, list | tuple | set | frozenset):
        return list(value), type(value)
    if isinstance(value, np.ndarray) and value.dtype == object:
        return value.tolist(), array_of
    return None


def rebuilt(value: Any, source: random.Random) -> Any:
    """Return the same value made of new parts, with dicts and sets in another order."""
    if type(value) is float:
        return struct.unpack("d", struct.pack("d", value))[0]
    if type(value) is str:
        return "".join(list(value))
    if isinstance(value, np.ndarray) and value.dtype != object:
        return np.concatenate([value, value])[: len(value)]
    known = parts_of(value)
    if known is None:
        return value
    parts, make = known
    parts = [rebuilt(part, source) for part in parts]
    if type(value) is dict:
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
        source.shuffle(pairs)
        return dict(pairs)
    if isinstance(value, set | frozenset):
        source.shuffle(parts)
    return make(parts)


def changed(value: Any, source: random.Random) -> Any:
    """Return the value with one part replaced by something that looks like it."""
    known = parts_of(value)
    if known is not None and known[0] and source.random() < 0.8:
        parts, make = known
        at = source.randrange(len(parts))
        parts[at] = changed(parts[at], source)
        try:
            return make(parts)
        except TypeError:
            return value  # the new part cannot be in a set
    return source.choice(variants(value))


def variants(value: Any) -> list[Any]:
    """Return values that look like a value."""
    found: list[Any] = [[value], (value,), None, source_text(value)]
    if isinstance(value, bool | int | float) and not isinstance(value, np.generic):
        found += [-value, value == 1, str(value)]
        if math.isfinite(value):
            found += [int(value), float(value) if abs(value) < 2**1000 else 0.5, value + 1]
            found += [decimal.Decimal(value), fractions.Fraction(value)]
    if type(value) is str:
        found += [value.encode("utf-8", "replace"), Text(value), list(value), value + "\0"]
    if type(value) is bytes:
        found += [bytearray(value), value.decode("latin-1"), list(value)]
    if isinstance(value, list | tuple | collections.deque):
        found += [list(value), tuple(value), SharedCounters(value), collections.deque(value)]
        found += [collections.deque(value, 5), array_of(list(value)), [*value, None]]
        if len(value) == 2:
            found += [Pair(*value), Point(*value)]
    if isinstance(value, set | frozenset):
        found += [set(value), frozenset(value), list(value), dict.fromkeys(value)]
    if isinstance(value, dict):
        found += [dict(value), collections.OrderedDict(value), list(value.items())]
        found += [collections.defaultdict(None, value), collections.Counter(value)]
    if isinstance(value, Point):
        found += [vars(value), (value.x, value.y), Point(value.y, value.x), Pair(value.x, value.y)]
    if isinstance(value, enum.Enum):
        found += [value.value, value.name]
    if isinstance(value, dt.datetime):
        found += [value.replace(fold=1 - value.fold), value.isoformat(), value.date()]
        found += [value.replace(tzinfo=UTC), value.astimezone(EAST)]
    if isinstance(value, np.ndarray):
        found += [value.tolist(), value.reshape(-1, 1), value.astype(object)]
        found += [value[::-1]]
    return found


def source_text(value: Any) -> str:
    """Return the text that a careless key would be made from."""
    return repr(value)


def check(core: hotpath.Core, one: Any, two: Any) -> None:
    """Compare every key of two values."""
    expected = same(one, two)
    freezer = core.Freezer()
    keys = [
        (make, freezer.probe(one) if make == "probe" else freezer.freeze(one))
        for make in ("probe", "freeze")
    ]
    others = [freezer.probe(two), freezer.freeze(two)]
    for make, key in keys:
        for other in others:
            assert (key == other) == expected, make
            assert (other == key) == expected, make
            if expected:
                assert hash(key) == hash(other)
    canonical = core.Canonical()
    encodings = canonical.encode(one), canonical.encode(two)
    assert (encodings[0] == encodings[1]) == expected
    plain = hotpath.load("plain").Canonical()
    assert encodings == (plain.encode(one), plain.encode(two))


@settings(max_examples=150)
@given(one=VALUES, two=VALUES)
def test_random_values_have_one_key_exactly_if_they_are_the_same(
    core: hotpath.Core, one: Any, two: Any
) -> None:
    """In memory, stored, compiled and plain."""
    check(core, one, two)


@settings(max_examples=150)
@given(value=VALUES, seed=st.integers(0, 2**32))
def test_a_value_made_of_new_parts_in_another_order_has_the_same_key(
    core: hotpath.Core, value: Any, seed: int
) -> None:
    """Neither identity nor the order of dicts and sets counts."""
    other = rebuilt(value, random.Random(seed))
    assert same(value, other)
    check(core, value, other)


@settings(max_examples=250)
@given(value=VALUES, seed=st.integers(0, 2**32))
def test_a_value_with_one_thing_changed_has_another_key(
    core: hotpath.Core, value: Any, seed: int
) -> None:
    """Unless the change had no effect."""
    check(core, value, changed(value, random.Random(seed)))


@settings(max_examples=40)
@given(
    calls=st.lists(
        st.tuples(
            st.lists(VALUES, max_size=2).map(tuple),
            st.dictionaries(st.text("ab", max_size=1), VALUES, max_size=2),
        ),
        min_size=2,
        max_size=2,
    )
)
def test_calls_have_one_key_exactly_if_their_arguments_are_the_same(
    core: hotpath.Core, calls: list[Any]
) -> None:
    """As `*args` and `**kwargs`, kept and stored."""
    one, two = calls
    expected = same(one, two)
    freezer, canonical = core.Freezer(), core.Canonical()
    key = freezer.keep(tuple(map(freezer.probe, one)))
    assert (key == tuple(map(freezer.probe, two))) == expected
    stored = [canonical.stored_key("n", ("m", "f"), "", call) for call in calls]
    assert (stored[0].full == stored[1].full) == expected
    assert (stored[0].name == stored[1].name) == expected


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=8)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=100)
@given(value=JSON)
def test_json_is_the_same_with_and_without_orjson(core: hotpath.Core, value: Any) -> None:
    """Both sort, escape and space alike, and lose nothing."""
    module = sys.modules[core.Canonical.__module__]
    encoding = core.Canonical().encode(value)
    assert encoding == b"J" + module._plain_json(value)
    assert json.loads(encoding[1:]) == value
