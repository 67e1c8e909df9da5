"""In-memory keys: equal exactly when the values are the same, type for type, at every depth."""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import enum
import fractions
import functools
import gc
import ipaddress
import itertools
import pathlib
import re
import struct
import subprocess
import sys
import time
import types
import uuid
import weakref
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import pytest

from opero import CacheKeyError, hotpath

PYPY = sys.implementation.name == "pypy"
UTC = dt.UTC
HOUR = dt.timedelta(hours=1)
NAN = float("nan")
OTHER_NAN = struct.unpack(">d", bytes.fromhex("fff8000000000001"))[0]


class Colour(enum.Enum):
    """An enumeration with a value that could be an argument itself."""

    RED = 1
    GREEN = "green"


class Level(enum.IntEnum):
    """Members that are equal to ints."""

    LOW = 1


class Mode(enum.Flag):
    """Members that can be combined."""

    READ = 1
    WRITE = 2


@dataclass
class Point:
    """An ordinary dataclass."""

    x: Any
    y: Any = 0


@dataclass(eq=False)
class Loose:
    """A dataclass whose own equality is identity."""

    x: Any


@dataclass(frozen=True)
class Frozen:
    """A dataclass with slots."""

    __slots__ = ("x",)
    x: Any


@dataclass
class Late:
    """A dataclass with a field that is not always set."""

    x: Any
    y: Any = field(init=False)


class Further(Point):
    """Inherits the fields and adds none."""


@dataclass
class Rows(list[Any]):
    """A dataclass that is also a list."""

    title: str = ""


@dataclass(eq=False)
class Failure(Exception):
    """A dataclass with a base that holds more than the fields."""

    code: int


@dataclass(eq=False, init=False)
class Bound(functools.partial[Any]):
    """Another one, whose base was not made by a `class` statement but looks like it."""

    label: str = ""


@attrs.define(eq=False)
class Attrs:
    """An attrs class with slots."""

    x: Any


@attrs.define(slots=False)
class AttrsDict:
    """An attrs class without."""

    x: Any


class Pair(NamedTuple):
    """A named tuple."""

    a: Any
    b: Any


class SharedCounters(list[Any]):
    """A list with room for attributes."""


class Table(dict[Any, Any]):
    """A dict with wrong answers."""

    def items(self) -> Any:
        """Return nothing."""
        return ()

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0


class Text(str):
    """A str that equals everything and reads as another text."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __str__(self) -> str:
        return "something else"


class Number(int):
    """An int with wrong answers."""

    def __int__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class Slots(tuple[Any, ...]):
    """A tuple whose subclass has slots."""

    __slots__ = ()


class Kept(SharedCounters):
    """A list with slots, one of them named as in the base of a subclass."""

    __slots__ = ("extra",)


class KeptAgain(Kept):
    """Has a second slot of the same name."""

    __slots__ = ("extra",)


class Wavy(type):
    """A metaclass whose classes are all equal."""

    def __eq__(cls, other: object) -> bool:
        return isinstance(other, Wavy)

    def __hash__(cls) -> int:
        return 7


@dataclass
class WavyOne(metaclass=Wavy):
    """One of them."""

    x: Any


@dataclass
class WavyTwo(metaclass=Wavy):
    """Another of them."""

    x: Any


class Value:
    """Hashable, with its own equality."""

    def __init__(self, number: Any) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)


class Mutable:
    """Neither hashable nor a dataclass."""

    __hash__ = None  # type: ignore[assignment]


class Zone(dt.tzinfo):
    """A time zone without a hash, as in some libraries."""

    __hash__ = None  # type: ignore[assignment]

    def utcoffset(self, when: Any) -> dt.timedelta:
        """Return the same for ever."""
        return HOUR

    def dst(self, when: Any) -> None:
        """Return nothing."""

    def tzname(self, when: Any) -> str:
        """Return a name."""
        return "zone"


def with_attribute(value: Any, **attributes: Any) -> Any:
    """Return a value with attributes."""
    for name, item in attributes.items():
        setattr(value, name, item)
    return value


def with_base_slot(value: KeptAgain, extra: Any) -> KeptAgain:
    """Return a value with something in the slot that its class hides."""
    Kept.__dict__["extra"].__set__(value, extra)
    return value


def late(x: Any, **rest: Any) -> Late:
    """Return a dataclass instance whose field may not be set."""
    return with_attribute(Late(x), **rest)  # type: ignore[no-any-return]


HERE = dt.datetime(2024, 1, 1, 12, tzinfo=UTC)
VALUE = Value(1)
PARIS = zoneinfo.ZoneInfo("Europe/Paris")

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
    bytearray(b"1"),
    memoryview(b"1"),
    1 + 0j,
    2**61,
    2.0**61,
    NAN,
    OTHER_NAN,
    "nan",
    "None",
    "",
    b"",
    "a",
    b"a",
    [],
    (),
    {},
    set(),
    frozenset(),
    [1],
    [1.0],
    [True],
    ["1"],
    [[1]],
    [1, 1],
    (1,),
    (1.0,),
    ((1,),),
    {1},
    {1.0},
    {True},
    frozenset({1}),
    {1: 0},
    {1.0: 0},
    {True: 0},
    {1: 0.0},
    {1: False},
    {"1": 0},
    {"1": 0.0},
    {"1": 0, "2": 0},
    {"1": {"1": 0}},
    {b"1": 0},
    {(1,): 0},
    {None: 0},
    [("1", 0)],
    (("1", 0),),
    {("1", 0)},
    ["1", 0],
    (dict, "1", 0),
    (list, 1),
    (tuple, 1),
    [list, 1],
    (int, 1),
    list,
    dict,
    int,
    bool,
    float,
    type,
    Ellipsis,
    NotImplemented,
    range(1),
    range(0, 1, 2),
    slice(1),
    slice(0, 1),
    Colour.RED,
    Colour.GREEN,
    Colour,
    "RED",
    "green",
    Level.LOW,
    Mode.READ,
    Mode.READ | Mode.WRITE,
    Mode(0),
    Point(1),
    Point(1.0),
    Point(True),
    Point(1, 0.0),
    Point([1]),
    Further(1),
    {"x": 1, "y": 0},
    (1, 0),
    with_attribute(Point(1), z=1),
    with_attribute(Point(1), z=1.0),
    Loose(1),
    Loose(1.0),
    Frozen(1),
    Frozen(1.0),
    late(1),
    late(1, y=None),
    late(1, z=None),
    Rows("a"),
    Rows("b"),
    with_attribute(Rows("a"), extra=1),
    Attrs(1),
    Attrs(1.0),
    AttrsDict(1),
    with_attribute(AttrsDict(1), y=2),
    Pair(1, 0),
    Pair(1.0, 0),
    SharedCounters([1]),
    SharedCounters([1.0]),
    with_attribute(SharedCounters([1]), x=1),
    Kept([1]),
    with_attribute(Kept([1]), extra=1),
    with_attribute(Kept([1]), extra=1.0),
    with_attribute(KeptAgain([1]), extra=1),
    with_base_slot(KeptAgain([1]), 1),
    with_base_slot(with_attribute(KeptAgain([1]), extra=1), 1),
    Table({1: 0}),
    Table({"1": 0}),
    Text("1"),
    Text("a"),
    Number(1),
    Number(2),
    Slots((1,)),
    WavyOne(1),
    WavyTwo(1),
    collections.OrderedDict({"1": 0, "2": 0}),
    collections.OrderedDict({"2": 0, "1": 0}),
    collections.OrderedDict({1: 0}),
    with_attribute(collections.OrderedDict({1: 0}), x=1),
    collections.Counter({"1": 0}),
    collections.defaultdict(int, {"1": 0}),
    collections.defaultdict(list, {"1": 0}),
    collections.defaultdict(None, {"1": 0}),
    collections.deque([1]),
    collections.deque([1], 1),
    collections.deque([1], 2),
    types.MappingProxyType({"1": 0}),
    types.MappingProxyType(collections.OrderedDict({"1": 0})),
    types.SimpleNamespace(x=1, y=0),
    array.array("i", [1]),
    array.array("d", [1]),
    decimal.Decimal(1),
    decimal.Decimal("1.0"),
    decimal.Decimal("1E+1"),
    decimal.Decimal(10),
    decimal.Decimal(0),
    decimal.Decimal("-0"),
    decimal.Decimal("NaN"),
    decimal.Decimal("sNaN"),
    decimal.Decimal("sNaN1"),
    decimal.Decimal("Infinity"),
    fractions.Fraction(1),
    fractions.Fraction(1, 2),
    dt.date(2024, 1, 1),
    dt.datetime(2024, 1, 1),  # noqa: DTZ001
    dt.datetime(2024, 1, 1, fold=1),  # noqa: DTZ001
    "2024-01-01T00:00:00",
    HERE,
    HERE.astimezone(dt.timezone(HOUR)),
    HERE.astimezone(dt.timezone(HOUR, "name")),
    HERE.astimezone(PARIS),
    HERE.replace(tzinfo=None),
    dt.time(12),
    dt.time(12, tzinfo=UTC),
    dt.time(12, fold=1),
    HOUR,
    dt.timezone(HOUR),
    PARIS,
    3600,
    uuid.UUID(int=1),
    str(uuid.UUID(int=1)),
    pathlib.PurePosixPath("a"),
    pathlib.PureWindowsPath("a"),
    pathlib.Path("a"),
    ipaddress.ip_address("192.0.2.1"),
    ipaddress.ip_interface("192.0.2.1"),
    ipaddress.ip_network("192.0.2.1"),
    time.gmtime(0),
    tuple(time.gmtime(0)),
    VALUE,
    object(),
    object(),
    len,
    re.compile("a"),
    re.compile(b"a"),
    np.array([1]),
    np.array([1.0]),
    np.array([True]),
    np.array([[1]]),
    np.array(1),
    np.array([1], dtype=">i8"),
    np.array([1], dtype="<u8"),
    np.array([1], dtype="<i4"),
    np.array([1], dtype="<M8[s]"),
    np.array([1], dtype="<M8[ms]"),
    np.array([1], dtype=object),
    np.array([1.0], dtype=object),
    np.array(["1"]),
    np.array([b"1"]),
    np.array([NAN]),
    np.array([0.0]),
    np.array([-0.0]),
    np.array([(1,)], dtype=[("a", "<i8")]),
    np.array([(1,)], dtype=[("b", "<i8")]),
    np.int64(1),
    np.float64(1.0),
    np.float32(1.0),
    np.bool_(True),
    np.str_("1"),
    np.bytes_(b"1"),
]

WRAPPERS: dict[str, Any] = {
    "itself": lambda value: value,
    "list": lambda value: [0, value],
    "tuple": lambda value: (value, 0),
    "dict": lambda value: {"a": {"b": value}},
    "dict by number": lambda value: {0: value},
    "dataclass": lambda value: Point([value]),
    "array": lambda value: deep_array(value),
    "namespace": lambda value: types.SimpleNamespace(a={1: (value,)}),
}


def deep_array(value: Any) -> Any:
    """Return an array of objects with one object in it."""
    found = np.empty(1, dtype=object)
    found[0] = value
    return found


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_no_two_lookalikes_have_one_key(core: hotpath.Core, wrapper: str) -> None:
    """At the top and nested, looked up and kept."""
    freezer = core.Freezer()
    wrap = WRAPPERS[wrapper]
    probed = [freezer.probe(wrap(value)) for value in LOOKALIKES]
    again = [freezer.probe(wrap(value)) for value in LOOKALIKES]
    frozen = [freezer.freeze(wrap(value)) for value in LOOKALIKES]
    kept = [freezer.freeze(wrap(value)) for value in LOOKALIKES]
    assert probed == again
    assert frozen == kept
    for (a, one), (b, two) in itertools.product(enumerate(probed), enumerate(frozen)):
        assert (one == two) == (a == b), (LOOKALIKES[a], LOOKALIKES[b])
        assert (two == one) == (a == b)
    assert [hash(key) for key in probed] == [hash(key) for key in frozen]
    assert len(set(probed) | set(frozen)) == len(LOOKALIKES)


def without_hash(key: Any) -> Any:
    """Give a plain key the same hash as any other, and so to what stands for values inside it."""

    def level(part: Any) -> None:
        if hasattr(part, "items") and hasattr(part, "own"):
            part.hash = 0
            level(part.items)
        elif hasattr(part, "flat") and hasattr(part, "entries"):
            level(part.flat)
        elif isinstance(part, list | tuple):
            for item in part:
                level(item)

    if hasattr(key, "live"):
        key.hash = 0
        level(key.value)
    return key


@pytest.mark.once
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_keys_are_told_apart_if_their_hashes_are_not(wrapper: str) -> None:
    """Collisions are rare, but must not cause errors; the compiled source is the same."""
    freezer = hotpath.load("plain").Freezer()
    values = [*LOOKALIKES, {"1": 0, "2": 1}, {"2": 1, "1": 0, "3": 0}, {"2": 0, "3": 0}]
    wrap = WRAPPERS[wrapper]
    probed = [without_hash(freezer.probe(wrap(value))) for value in values]
    frozen = [without_hash(freezer.freeze(wrap(value))) for value in values]
    for (a, one), (b, two) in itertools.product(enumerate(probed), enumerate(frozen)):
        if one is not freezer.true and two is not freezer.false:
            assert (one == two) == (a == b), (values[a], values[b])
            assert (two == one) == (a == b), (values[a], values[b])


def test_hashes_of_lookalikes_rarely_collide(core: hotpath.Core) -> None:
    """Otherwise a lookup would become a search."""
    freezer = core.Freezer()
    assert len({hash(freezer.freeze(value)) for value in LOOKALIKES}) > 0.95 * len(LOOKALIKES)
    grid = [{"w": w, "h": h, "on": w > h} for w in range(50) for h in range(50)]
    assert len({hash(freezer.probe(value)) for value in grid}) > 0.99 * len(grid)
    rows = [[a, b, c] for a in range(12) for b in range(12) for c in range(12)]
    assert len({hash(freezer.probe(value)) for value in rows}) > 0.99 * len(rows)


def test_plain_scalars_are_their_own_keys(core: hotpath.Core) -> None:
    """This makes for the cheapest lookup."""
    freezer = core.Freezer()
    for value in ("text", 12345678901234567890, None):
        assert freezer.probe(value) is value
        assert freezer.freeze(value) is value
        assert freezer.keep(value) is value


def test_a_key_is_equal_to_no_value(core: hotpath.Core) -> None:
    """Even if the argument is a key, or an object that stands for a value inside one."""
    freezer = core.Freezer()
    for value in (True, 1.5, [1], {"a": 1}, {1}, Point(1)):
        key = freezer.freeze(value)
        assert key != value
        assert freezer.freeze(key) != key
    for value in ({"a": 1}, {1}, {1: 2}, Point(1)):
        inside = freezer.freeze(value).value
        assert type(inside) is not type(value)
        assert freezer.freeze(inside) != freezer.freeze(value)
        assert freezer.freeze([inside]) != freezer.freeze([value])


class TestOrder:
    """The kinds of order that count, and those that do not."""

    def test_of_dicts_and_sets_does_not(self, core: hotpath.Core) -> None:
        """At every depth, whatever the keys are."""
        freezer = core.Freezer()
        one: list[Any] = [
            {"a": 1, "b": {"c": [1], "d": 2}},
            {1: 2, "a": {(1,): 1, 2: 2}},
            set("abcdefgh"),
            {"a": {1, 2}, "b": frozenset("xyz")},
            collections.Counter("aabbb"),
            types.SimpleNamespace(a=1, b=2),
        ]
        two: list[Any] = [
            {"b": {"d": 2, "c": [1]}, "a": 1},
            {"a": {2: 2, (1,): 1}, 1: 2},
            set("hgfedcba"),
            {"b": frozenset("zyx"), "a": {2, 1}},
            collections.Counter("bbbaa"),
            types.SimpleNamespace(b=2, a=1),
        ]
        for a, b in zip(one, two, strict=True):
            assert freezer.probe(a) == freezer.freeze(b)
            assert freezer.probe(a) == freezer.probe(b)
            assert freezer.freeze(a) == freezer.freeze(b)
            assert hash(freezer.probe(a)) == hash(freezer.freeze(b))
        assert freezer.freeze(one) == freezer.freeze(two)

    def test_of_lists_counts(self, core: hotpath.Core) -> None:
        """As it does for tuples and ordered dicts."""
        freezer = core.Freezer()
        ordered = collections.OrderedDict
        assert freezer.freeze([1, 2]) != freezer.freeze([2, 1])
        assert freezer.freeze((1, 2)) != freezer.freeze((2, 1))
        assert freezer.freeze(ordered(a=1, b=2)) != freezer.freeze(ordered(b=2, a=1))

    @pytest.mark.skipif(PYPY, reason="all nans are one element of a set on PyPy")
    def test_elements_with_one_key_are_counted(self, core: hotpath.Core) -> None:
        """One set can hold several nans, or objects compared by identity."""
        freezer = core.Freezer()
        a, b, c = (float("nan") for _ in range(3))
        assert freezer.freeze({a, b}) == freezer.freeze({b, c})
        assert freezer.freeze({a, b}) != freezer.freeze({a})
        assert freezer.freeze({a, b, c}) != freezer.freeze({a, b})
        assert freezer.freeze({a: 1, b: 1}) != freezer.freeze({a: 1})
        assert freezer.freeze({a: 1, b: 2}) == freezer.freeze({b: 1, c: 2})
        one = {Loose(1), Loose(1), Loose(2)}
        two = {Loose(1), Loose(2), Loose(2)}
        assert freezer.freeze(one) != freezer.freeze(two)
        assert freezer.freeze(one) == freezer.freeze({Loose(2), Loose(1), Loose(1)})


class TestIdentity:
    """Values that are equal but different objects."""

    @pytest.mark.parametrize(
        ("one", "two"),
        [
            (struct.unpack("d", struct.pack("d", NAN))[0], NAN),
            (["ab", 10**30, b"ab"], ["".join("ab"), 10**29 * 10, bytes([97, 98])]),
            (Loose([1]), Loose([1])),
            (Point({1}), Point({1})),
            (Attrs(1), Attrs(1)),
            (late(1), late(1)),
            (Pair(1, [2]), Pair(1, [2])),
            (decimal.Decimal("sNaN1"), decimal.Decimal("sNaN1")),
            (Mode.READ | Mode.WRITE, Mode(3)),
            (HERE, dt.datetime.fromisoformat(HERE.isoformat())),
            (uuid.UUID(int=5), uuid.UUID(int=5, is_safe=uuid.SafeUUID.safe)),
            (Value(1), Value(1)),
            (np.array([[1, 2], [3, 4]]), np.asfortranarray([[1, 2], [3, 4]])),
            (np.array([[1, 2], [3, 4]]), np.array([[1, 3], [2, 4]]).T),
            (np.arange(10)[::2], np.array([0, 2, 4, 6, 8])),
            (np.array([[1], "a"], dtype=object), np.array([[1], "a"], dtype=object)),
            (np.zeros(10_000), np.zeros(10_000)),
            (bytearray(10_000), bytearray(10_000)),
            (time.gmtime(0), time.gmtime(0)),
            (slice([1], 2), slice([1], 2)),
            (Text("a"), Text("a")),
            (Table(a=1), Table(a=1)),
        ],
    )
    def test_of_equal_values_does_not_count(self, core: hotpath.Core, one: Any, two: Any) -> None:
        """Their keys are equal, and so are the hashes of these."""
        freezer = core.Freezer()
        for make in (freezer.probe, freezer.freeze):
            assert make(one) == freezer.freeze(two)
            assert hash(make(one)) == hash(freezer.freeze(two))

    def test_of_an_object_with_the_equality_of_object_counts(self, core: hotpath.Core) -> None:
        """Nothing else distinguishes it."""
        freezer = core.Freezer()
        one, two = object(), object()
        assert freezer.freeze([one]) == freezer.freeze([one])
        assert freezer.freeze([one]) != freezer.freeze([two])

    def test_of_a_time_zone_without_hash_counts(self, core: hotpath.Core) -> None:
        """Such time zones are common, and never change."""
        freezer = core.Freezer()
        zone = Zone()
        one = HERE.replace(tzinfo=zone)
        assert freezer.freeze(one) == freezer.freeze(HERE.replace(tzinfo=zone))
        assert freezer.freeze(one) != freezer.freeze(HERE.replace(tzinfo=Zone()))
        assert freezer.freeze(zone) == freezer.freeze(zone)

    def test_of_what_a_base_in_c_may_hide_counts(self, core: hotpath.Core) -> None:
        """An exception holds more than the fields of a dataclass."""
        freezer = core.Freezer()
        failure = Failure(1)
        assert freezer.freeze(failure) == freezer.freeze(failure)
        assert freezer.freeze(failure) != freezer.freeze(Failure(1))
        assert freezer.freeze(Bound(len)) != freezer.freeze(Bound(max))


class TestArrays:
    """The properties of numpy's arrays that count."""

    def test_one_byte_in_a_large_array_counts(self, core: hotpath.Core) -> None:
        """The key holds a digest of such an array, so the cache does not keep the array."""
        freezer = core.Freezer()
        one = np.zeros(1_000_000, dtype="u1")
        two = one.copy()
        two[-1] = 1
        key = freezer.freeze(one)
        assert key != freezer.freeze(two)
        assert key == freezer.freeze(one.copy())
        assert key != freezer.freeze(one[:-1])
        assert key != freezer.freeze(bytearray(one))
        assert all(not isinstance(part, bytes) or len(part) < 100 for part in gc.get_referents(key))
        texts = [np.array([b"a" * 5000]), np.array([b"a" * 4999 + b"b"])]
        assert freezer.freeze(texts[0]) != freezer.freeze(texts[1])

    def test_padding_and_layout_do_not(self, core: hotpath.Core) -> None:
        """Padding holds whatever was in that memory before."""
        freezer = core.Freezer()
        dtype = np.dtype([("a", "u1"), ("b", "<i8")], align=True)
        dirty = np.frombuffer(b"\0" + b"\xff" * 7 + b"\0" * 8, dtype)
        assert freezer.freeze(dirty) == freezer.freeze(np.zeros(1, dtype))

    @pytest.mark.parametrize(
        "value",
        [
            np.ma.array([1], mask=[True]),
            np.rec.array([(1,)], dtype=[("a", "i4")]),
            np.zeros(1, dtype=np.longdouble),
            np.zeros(1, dtype=np.clongdouble),
            np.zeros(1, dtype=[("a", np.longdouble)]),
            np.longdouble(1),
        ],
    )
    def test_an_array_that_its_bytes_do_not_tell_is_refused(
        self, core: hotpath.Core, value: Any
    ) -> None:
        """It has a mask, a subclass, or the padding inside a long double."""
        if np.dtype(np.longdouble).itemsize == 8 and not isinstance(value, np.ma.MaskedArray):
            return  # here a long double is a double
        with pytest.raises(CacheKeyError, match=r"no cache key can be made of .*cache_key="):
            core.Freezer().freeze(value)


class TestLiveAndKept:
    """A key for a lookup holds the caller's own objects; a key that is kept does not."""

    def test_a_probe_of_a_plain_tree_copies_nothing(self, core: hotpath.Core) -> None:
        """This makes it cheap."""
        value = {"a": [1, (2.5, None, True, b"b")], "c": {"d": "e"}}
        key = core.Freezer().probe(value)
        assert key.live
        assert key.value is value

    @pytest.mark.parametrize("make", ["freeze", "keep"])
    def test_what_is_kept_does_not_change(self, core: hotpath.Core, make: str) -> None:
        """Whatever happens to the argument afterwards, at any depth."""
        freezer = core.Freezer()

        def kept(value: Any) -> Any:
            return freezer.freeze(value) if make == "freeze" else freezer.keep(freezer.probe(value))

        def values() -> list[Any]:
            return [
                {"a": [1]},
                [{"a": 1}],
                ([1],),
                {"a": {"b": {}}},
                {1: [1]},
                Point([1]),
                bytearray(b"a"),
                collections.deque([1]),
                np.array([1]),
                types.SimpleNamespace(a=1),
                memoryview(bytearray(b"a")),
            ]

        def change(value: Any) -> None:
            if isinstance(value, dict):
                for item in value.values():
                    change(item)
                value["changed"] = 1
            elif isinstance(value, list | tuple):
                for item in value:
                    change(item)
                if isinstance(value, list):
                    value.append(2)
            elif isinstance(value, Point):
                change(value.x)
            elif isinstance(value, types.SimpleNamespace):
                value.a = 2
            elif isinstance(value, collections.deque):
                value.append(2)
            elif not isinstance(value, int):
                value[0] = 98

        for value, again in zip(values(), values(), strict=True):
            key = kept(value)
            number = hash(key)
            change(value)
            assert key == freezer.freeze(again), again
            assert key != freezer.freeze(value), again
            assert hash(key) == number

    def test_keep_makes_keys_of_several_arguments_last(self, core: hotpath.Core) -> None:
        """It accepts a tuple of keys, and leaves keys that need no copy unchanged."""
        freezer = core.Freezer()
        items, table = [1], {"a": 1}
        key = (freezer.probe(items), "text", freezer.probe(True), freezer.probe(table))
        kept = freezer.keep(key)
        assert kept == key
        assert hash(kept) == hash(key)
        assert kept[1] is key[1]
        assert kept[2] is key[2]
        items.append(2)
        table["b"] = 2
        assert kept == (freezer.freeze([1]), "text", freezer.freeze(True), freezer.freeze({"a": 1}))
        assert freezer.keep(kept)[0] is kept[0]

    def test_a_kept_key_is_found_by_a_probe(self, core: hotpath.Core) -> None:
        """The round trip of a cache."""
        freezer = core.Freezer()
        store = {freezer.freeze(value): at for at, value in enumerate(LOOKALIKES)}
        assert [store[freezer.probe(value)] for value in LOOKALIKES] == list(range(len(LOOKALIKES)))


class TestRefusals:
    """Values without a key."""

    @pytest.mark.parametrize("value", [Mutable(), [Mutable()], {"a": {1: Mutable()}}, {Mutable: 1}])
    def test_an_object_without_hash_is_refused_by_the_name_of_its_type(
        self, core: hotpath.Core, value: Any
    ) -> None:
        """The message also says what to do; the class itself has a key."""
        freezer = core.Freezer()
        if value == {Mutable: 1}:
            assert freezer.freeze(value) == freezer.freeze({Mutable: 1})
            return
        for make in (freezer.probe, freezer.freeze):
            with pytest.raises(CacheKeyError) as caught:
                make(value)
            assert f"{__name__}.Mutable" in str(caught.value)
            assert "cache_key=" in str(caught.value)
            assert isinstance(caught.value.__cause__, TypeError)

    def test_an_object_whose_hash_fails_otherwise_fails_the_same(self, core: hotpath.Core) -> None:
        """This is a bug in the object."""

        class Broken:
            def __hash__(self) -> int:
                raise ZeroDivisionError("broken")

        with pytest.raises(ZeroDivisionError, match="broken"):
            core.Freezer().probe([Broken()])

    def test_a_value_that_contains_itself_is_refused(self, core: hotpath.Core) -> None:
        """Whatever its types."""
        freezer = core.Freezer()
        items: list[Any] = []
        items.append(items)
        pair: list[Any] = []
        pair += [pair, pair]
        table: dict[Any, Any] = {}
        table["a"] = [table]
        numbers: dict[Any, Any] = {}
        numbers[1] = numbers
        point = Point(None)
        point.x = (point,)
        for value in (items, pair, table, numbers, point, {1: items}, Point(items)):
            for make in (freezer.probe, freezer.freeze):
                with pytest.raises(CacheKeyError, match="contains itself, or is nested more than"):
                    make(value)

    @pytest.mark.parametrize("wrap", ["list", "tuple", "dict", "dict by number", "dataclass"])
    def test_depth_is_limited(self, core: hotpath.Core, wrap: str) -> None:
        """So that no recursion in opero ends the process."""
        freezer = core.Freezer()
        around = {
            "list": lambda value: [value],
            "tuple": lambda value: (value,),
            "dict": lambda value: {"a": value},
            "dict by number": lambda value: {1: value},
            "dataclass": Loose,
        }[wrap]
        value: Any = 0
        for _ in range(60):
            value = around(value)
        assert freezer.probe(value) == freezer.freeze(value)
        layers = [value]
        for _ in range(20_000):
            layers.append(around(layers[-1]))
        with pytest.raises(CacheKeyError, match="more than 200 levels"):
            freezer.probe(layers[-1])
        while layers:
            layers.pop()  # from the outside in, as a destructor would recurse

    def test_exactly_two_hundred_levels_are_allowed(self, core: hotpath.Core) -> None:
        """The limit is the same for a lookup and for a copy."""
        freezer = core.Freezer()
        for wrap in (lambda value: [value], lambda value: (value,), lambda value: {"a": value}):
            value: Any = 1.5
            for _ in range(200):
                value = wrap(value)
            assert freezer.keep(freezer.probe(value)) == freezer.freeze(value)
            with pytest.raises(CacheKeyError):
                freezer.probe(wrap(value))

    def test_a_recursion_that_is_not_ours_is_no_recursion_error(self, core: hotpath.Core) -> None:
        """An object whose hash recurses forever counts as a value that contains itself."""

        class Endless:
            def __hash__(self) -> int:
                return hash(self)

        with pytest.raises(CacheKeyError, match="contains itself"):
            core.Freezer().probe([Endless()])


def _classes_live_for_ever() -> bool:
    """Return whether this interpreter keeps a class that nobody has: 3.13t does once it has threads."""
    kept = weakref.ref(type("Short", (SharedCounters,), {}))
    gc.collect()
    return kept() is not None


class TestClasses:
    """The recipes of classes are correct, and keep no class alive."""

    def test_a_class_is_forgotten_with_its_last_instance(self, core: hotpath.Core) -> None:
        """Otherwise a factory of classes would leak memory."""
        freezer = core.Freezer()
        before = len(freezer.shapes.recipes)

        def use() -> weakref.ref[Any]:
            cls = type("Short", (SharedCounters,), {})
            assert freezer.freeze(cls([1])) == freezer.freeze(cls([1]))
            return weakref.ref(cls)

        gone = use()
        gc.collect()
        assert gone() is None or _classes_live_for_ever()
        assert len(freezer.shapes.recipes) <= before + 1

    def test_a_class_in_the_place_of_a_dead_one_is_not_taken_for_it(
        self, core: hotpath.Core
    ) -> None:
        """Python reuses addresses."""
        freezer = core.Freezer()
        for at in range(200):
            if at % 2:
                cls = dataclass(type("Short", (), {"__annotations__": {"x": int}}))
                assert freezer.freeze(cls(1)) == freezer.freeze(cls(1))
                assert freezer.freeze(cls(1)) != freezer.freeze(cls(2))
            else:
                cls = type("Short", (), {})
                assert freezer.freeze(cls()) != freezer.freeze(cls())
            del cls
            gc.collect(0)

    def test_known_types_are_known_under_a_replaced_module(
        self, core: hotpath.Core, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Libraries that stop the clock in tests replace classes there."""
        real = dt.datetime

        class Fake(real):
            """Replaces the real class."""

        elsewhere = HERE.astimezone(dt.timezone(HOUR))
        monkeypatch.setattr(dt, "datetime", Fake)
        freezer = core.Freezer()
        assert freezer.freeze(HERE) != freezer.freeze(elsewhere)
        assert freezer.freeze(Fake(2024, 1, 1)) == freezer.freeze(Fake(2024, 1, 1))
        assert freezer.freeze(Fake(2024, 1, 1)) != freezer.freeze(real(2024, 1, 1))
        assert freezer.freeze(Fake(2024, 1, 1, tzinfo=UTC)) != freezer.freeze(Fake(2024, 1, 1))


@pytest.mark.parametrize(
    ("value", "constant"),
    [
        (None, True),
        (1, True),
        ("a", True),
        (b"a", True),
        (1.5, True),
        (1j, True),
        (True, True),
        (Ellipsis, True),
        (range(3), True),
        ((), True),
        ((1, ("a", frozenset({1, (2,)}))), True),
        ([], False),
        ({}, False),
        (set(), False),
        ((1, []), False),
        ((1, (2, {})), False),
        (frozenset({VALUE}), False),
        (VALUE, False),
        (Text("a"), False),
        (Pair(1, 2), False),
        (object(), False),
        (bytearray(), False),
    ],
)
def test_constants_are_the_exact_immutable_builtins(
    core: hotpath.Core, value: Any, constant: bool
) -> None:
    """The key of such a default is made once."""
    assert core.Freezer().is_constant(value) is constant


def test_no_key_compares_bytes_with_text(core: hotpath.Core) -> None:
    """Python has an option that makes this an error."""
    program = f"""
from opero import hotpath
freezer = hotpath.load({core.name!r}).Freezer()
values = ["a", b"a", bytearray(b"a"), 97, {{"a": 1}}, {{b"a": 1}}, ["a"], [b"a"], {{"a"}}, {{b"a"}}]
for make in (freezer.probe, freezer.freeze):
    keys = [make(value) for value in values]
    assert [[one == two for one in keys].count(True) for two in keys] == [1] * len(keys)
    assert len(dict.fromkeys(keys)) == len(keys)
"""
    source = Path(hotpath.__file__).parent.parent
    subprocess.run(
        [sys.executable, "-bb", "-c", f"import sys; sys.path.insert(0, {str(source)!r}){program}"],
        check=True,
    )
