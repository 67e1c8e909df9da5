"""Signed entries: every value comes back as it was, and nothing that an attacker writes comes at all.

The attacker can read, write, swap and replay the entries of a store. He does not have the secret.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import math
import pickle
import struct
import sys
import threading
import traceback
import uuid
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opero import hotpath
from opero.stores import codecs, secret
from opero.stores.codecs import BYTES, JSON, PICKLE, TEXT, Codec, NotEncodable
from opero.stores.signing import Forged, Signer

SECRET = b"a secret of 24 bytes ..."
OTHER = b"another one, 24 bytes .."
KEY = b"opero1:a full key"
FORMAT = b"opero\x02"
MAC_END = len(FORMAT) + 32
HEADER = struct.Struct(">dddB")

once = pytest.mark.once


def signer(*secrets: bytes, pickles: bool = True) -> Signer:
    return Signer(secrets or [SECRET], pickles)


def entry(value: Any = "value", key: bytes = KEY, *secrets: bytes) -> bytes:
    return signer(*secrets).close(key, value, 5.0, math.inf, 0.25)


def forged(data: Any, key: bytes = KEY, by: Signer | None = None) -> Forged:
    """Return the refusal of an entry, and fail if it opens."""
    with pytest.raises(Forged) as caught:
        (by or signer()).open(key, data)
    return caught.value


def authentic(body: bytes, key: bytes = KEY, form: bytes = FORMAT) -> bytes:
    """Signer any body, as only who has the secret can; written anew from the description."""
    keyed = blake2b(SECRET, person=b"opero cache key").digest()
    said = form + len(key).to_bytes(8, "big") + key + body
    return (
        form + blake2b(said, key=keyed, digest_size=32, person=b"opero cache mac").digest() + body
    )


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Word(str):
    __slots__ = ()


class Whole(int):
    pass


class Row(list):  # type: ignore[type-arg]
    pass


class Table(dict):  # type: ignore[type-arg]
    pass


Point = namedtuple("Point", "x y")  # noqa: PYI024 - the older kind


@dataclass(frozen=True)
class Box:
    inside: Any


class Saboteur:
    """Makes a file where it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


class Angry:
    """Does what it likes when it is pickled."""

    def __reduce__(self) -> Any:
        raise ZeroDivisionError("with a password in its message")


def same(one: Any, two: Any) -> bool:
    """Return whether two values are of the same types and content, bit by bit and in order."""
    kind = type(one)
    if kind is not type(two):
        return False
    if kind is float:
        return struct.pack("d", one) == struct.pack("d", two)
    if kind is complex:
        return same(one.real, two.real) and same(one.imag, two.imag)
    if kind in {list, tuple, Row, Point}:
        return len(one) == len(two) and all(map(same, one, two))
    if kind in {dict, Table, OrderedDict}:
        return same(list(one), list(two)) and same(list(one.values()), list(two.values()))
    if kind in {set, frozenset}:
        return len(one) == len(two) and {(type(x), x) for x in one} == {(type(x), x) for x in two}
    if kind is Box:
        return same(one.inside, two.inside)
    return bool(one == two)


anything = st.characters() | st.characters(categories=["Cs"])
words = st.text(anything, max_size=5)
plain_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
hashables = (
    plain_leaves
    | words
    | st.integers(-(2**70), 2**70)
    | st.binary(max_size=4)
    | st.sampled_from(
        [Colour.RED, Number.ONE, Word("a"), Whole(1), math.inf, -math.inf, -0.0, 2**64]
    )
    | st.sampled_from([-(2**63) - 1, dt.timedelta(1), fractions.Fraction(1, 3), range(3), ...])
    | st.datetimes()
    | st.dates()
    | st.uuids()
    | st.decimals(allow_nan=False)
)
leaves = hashables | st.just(math.nan) | st.binary(max_size=4).map(bytearray) | st.complex_numbers()


def around(inner: Any) -> Any:
    """Return containers of values."""
    return (
        st.lists(inner, max_size=4)
        | st.dictionaries(words, inner, max_size=4)
        | st.dictionaries(hashables, inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(inner, max_size=3).map(Row)
        | st.dictionaries(words, inner, max_size=3).map(Table)
        | st.dictionaries(words, inner, max_size=3).map(OrderedDict)
        | st.sets(hashables, max_size=3)
        | st.frozensets(hashables, max_size=3)
        | st.tuples(inner, inner).map(lambda pair: Point(*pair))
        | inner.map(Box)
    )


values = st.recursive(leaves, around, max_leaves=12)
plain_values = st.recursive(
    plain_leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


# Values come back as they were.


@settings(max_examples=200)
@given(value=values, times=st.tuples(*[st.floats(0, allow_nan=False)] * 3))
def test_any_value_comes_back_with_exactly_the_same_types(
    value: Any, times: tuple[float, float, float]
) -> None:
    data = signer().close(KEY, value, *times)
    opened = signer().open(KEY, data)
    assert same(opened.value, value)
    assert (opened.made_at, opened.fresh_until, opened.made_in) == times


@settings(max_examples=100)
@given(value=plain_values)
def test_plain_data_needs_no_pickle(value: Any) -> None:
    no_pickles = signer(pickles=False)
    assert same(no_pickles.open(KEY, no_pickles.close(KEY, value, 0, 0, 0)).value, value)


@settings(max_examples=200)
@given(value=values)
def test_without_pickles_a_value_comes_back_exactly_or_is_refused(value: Any) -> None:
    no_pickles = signer(pickles=False)
    try:
        data = no_pickles.close(KEY, value, 0, 0, 0)
    except NotEncodable:
        return
    assert same(no_pickles.open(KEY, data).value, value)


CODECS = [
    (b"", BYTES),
    (b"\x00\xff", BYTES),
    (bytearray(b"a"), PICKLE),
    (memoryview, PICKLE),
    ("", TEXT),
    ("\ud800", TEXT),
    ("\ud83d\ude00", TEXT),
    (Word("a"), PICKLE),
    (None, JSON),
    (True, JSON),
    (-0.0, JSON),
    (5e-324, JSON),
    (1.7976931348623157e308, JSON),
    (1e16, JSON),
    (0.1 + 0.2, JSON),
    (math.nan, PICKLE),
    (-math.inf, PICKLE),
    (2**64 - 1, JSON),
    (-(2**63), JSON),
    (2**64, PICKLE),
    (-(2**63) - 1, PICKLE),
    (Whole(1), PICKLE),
    (Number.ONE, PICKLE),
    (Colour.RED, PICKLE),
    ([], JSON),
    ({}, JSON),
    ((), PICKLE),
    ([1, [2.0, {"a": None}]], JSON),
    ([(1,)], PICKLE),
    ({"a": b"b"}, PICKLE),
    ({1: 2}, PICKLE),
    ({Word("a"): 1}, PICKLE),
    ({True: 1}, PICKLE),
    ([math.nan], PICKLE),
    ([2**64], PICKLE),
    (["\ud800"], PICKLE),
    ({"\ud800": 1}, PICKLE),
    (Row([1]), PICKLE),
    (Table(a=1), PICKLE),
    (OrderedDict(a=1), PICKLE),
    ([Colour.RED], PICKLE),
    ([Number.ONE], PICKLE),
    ([dt.datetime(2026, 1, 1)], PICKLE),  # noqa: DTZ001
    ([uuid.UUID(int=1)], PICKLE),
    ([decimal.Decimal("1.0")], PICKLE),
    (Box(1), PICKLE),
    ([Box(1)], PICKLE),
    (Point(1, 2), PICKLE),
    ({1, 2}, PICKLE),
]


@pytest.mark.parametrize(("value", "codec"), CODECS, ids=[f"{n}" for n in range(len(CODECS))])
def test_each_value_is_written_by_the_fastest_codec_that_brings_it_back(
    value: Any, codec: int
) -> None:
    every = Codec(pickles=True)
    written, data = every.write(value)
    assert written == codec
    assert same(every.read(codec, data), value)
    assert same(every.read(codec, memoryview(data)), value)


def test_the_scan_agrees_with_the_codecs(core: hotpath.Core) -> None:
    is_plain = core.Canonical().is_plain
    for value, codec in CODECS:
        if value not in (["\ud800"], {"\ud800": 1}):  # the writer has to find out about these
            assert is_plain(value) is (codec in {JSON, TEXT}), value


def nested(depth: int, kind: type = list) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
def test_a_deeply_nested_value_comes_back_or_is_refused(kind: type) -> None:
    no_pickles = signer(pickles=False)
    value = nested(200, kind)
    assert no_pickles.open(KEY, no_pickles.close(KEY, value, 0, 0, 0)).value == value
    with pytest.raises(NotEncodable):
        no_pickles.close(KEY, nested(201, kind), 0, 0, 0)
    deeper = signer().open(KEY, signer().close(KEY, nested(250, kind), 0, 0, 0)).value
    assert deeper == nested(250, kind)


@once
def test_a_value_without_an_end_is_refused_and_nothing_crashes() -> None:
    with pytest.raises(NotEncodable, match="RecursionError"):
        signer().close(KEY, nested(200_000), 0, 0, 0)
    circle: list[Any] = []
    circle.append(circle)
    assert signer().open(KEY, signer().close(KEY, circle, 0, 0, 0)).value[0][0] is not None
    with pytest.raises(NotEncodable, match="list"):
        signer(pickles=False).close(KEY, circle, 0, 0, 0)


def test_a_small_value_that_would_be_endless_as_json_is_pickled(
    core: hotpath.Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    if core.name == "plain":  # in compiled code it is a constant, and large
        monkeypatch.setattr("opero.core.canonical._MOST_NODES", 1000)
    value: Any = []
    for _ in range(64):
        value = [value, value]
    assert Codec(pickles=True).write(value)[0] == PICKLE


@once
def test_a_value_that_breaks_its_own_pickling_is_refused_with_the_reasons_type() -> None:
    for value in (Angry(), [Angry()], threading.Lock(), lambda: 0, (n for n in ())):
        with pytest.raises(NotEncodable) as caught:
            signer().close(KEY, value, 0, 0, 0)
        assert "password" not in str(caught.value)
    with pytest.raises(NotEncodable, match="ZeroDivisionError"):
        signer().close(KEY, Angry(), 0, 0, 0)


@once
def test_an_interrupt_in_the_middle_of_a_pickle_is_no_refusal() -> None:
    class Interrupted:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        signer().close(KEY, Interrupted(), 0, 0, 0)


@once
@pytest.mark.parametrize(
    ("value", "named"),
    [
        ((1,), "tuple"),
        ({"a": [1, (2,)]}, "dict that holds a tuple"),
        ([Box(1)], "list that holds a test_signing.Box"),
        ({1, 2}, "set"),
        ({2.5: 1, (1,): 2}, "tuple"),
        (Word("a"), "test_signing.Word"),
    ],
)
def test_without_pickles_a_refusal_names_the_type(value: Any, named: str) -> None:
    with pytest.raises(NotEncodable, match="without a pickle") as caught:
        signer(pickles=False).close(KEY, value, 0, 0, 0)
    assert named in str(caught.value)


@once
def test_pickles_can_be_read_by_every_python_that_opero_runs_on() -> None:
    assert Codec(pickles=True).write((1,))[1][:2] == b"\x80\x05"


@once
@settings(max_examples=100)
@given(value=plain_values)
def test_json_with_and_without_orjson_means_the_same(value: Any) -> None:
    fast, slow = Codec(pickles=False), Codec(pickles=False)
    slow._dumps, slow._loads = codecs._plain_dumps, codecs._plain_loads
    if type(value) is not str:
        for one, two in ((fast, slow), (slow, fast), (slow, slow)):
            assert same(two.read(*one.write(value)), value)


@once
def test_without_orjson_the_standard_library_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orjson", None)
    without = Codec(pickles=True)
    assert without.write({"ä": [1.5, "\u2028"]}) == (JSON, '{"ä":[1.5,"\u2028"]}'.encode())
    assert without.write(["\ud800"])[0] == PICKLE


# Nothing else comes.


@once
@pytest.mark.parametrize("value", ["value", b"bytes", {"a": [1.5]}, Box(1)])
def test_an_entry_with_one_flipped_bit_does_not_open(value: Any) -> None:
    data = entry(value)
    opener = signer()
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            forged(bytes(changed), by=opener)


@once
@pytest.mark.parametrize("value", ["value", b"", {"a": [1.5]}, Box(1)])
def test_an_entry_that_was_cut_or_lengthened_does_not_open(value: Any) -> None:
    data = entry(value)
    opener = signer()
    for length in range(len(data)):
        forged(data[:length], by=opener)
        forged(data[length + 1 :], by=opener)
    for more in (b"\0", b"\xff", data, b"\0" * 1000):
        forged(data + more, by=opener)
        forged(more + data, by=opener)


@once
@pytest.mark.parametrize(
    "data", [b"", b"\0" * 100, FORMAT, b"x" * 70, None, "text" * 30, 7, memoryview(b"x" * 99), []]
)
def test_what_is_no_entry_does_not_open(data: Any) -> None:
    assert not forged(data).authentic


@once
def test_large_entries_are_signed_as_small_ones_are() -> None:
    data = bytearray(entry(b"x" * 1_000_000))
    assert signer().open(KEY, bytes(data)).value == b"x" * 1_000_000
    for at in (0, 7, MAC_END, MAC_END + 20, 500_000, len(data) - 1):
        data[at] ^= 1
        forged(bytes(data))
        data[at] ^= 1
    assert authentic(HEADER.pack(5.0, 1.0, 2.0, BYTES) + b"x" * 70_000) == signer().close(
        KEY, b"x" * 70_000, 5.0, 1.0, 2.0
    )


@once
@given(
    one=st.binary(max_size=30),
    two=st.binary(max_size=30),
)
def test_an_entry_opens_under_its_own_key_only(one: bytes, two: bytes) -> None:
    data = entry("value", one)
    assert signer().open(one, data).value == "value"
    if one != two:
        forged(data, two)


@once
def test_entries_of_two_calls_cannot_be_swapped_nor_replayed_elsewhere(core: hotpath.Core) -> None:
    def key(namespace: str, argument: Any, version: str = "", name: str = "f") -> bytes:
        return core.Canonical().stored_key(namespace, ("module", name), version, (argument,)).full

    keys = [
        key("opero", 1),
        key("opero", 2),
        key("opero", 1.0),
        key("opero", True),
        key("other", 1),
        key("opero", 1, "2"),
        key("opero", 1, name="g"),
    ]
    entries = [entry(at, each) for at, each in enumerate(keys)]
    for at, each in enumerate(keys):
        assert signer().open(each, entries[at]).value == at
        for other, data in enumerate(entries):
            if other != at:
                forged(data, each)


@once
def test_the_end_of_a_key_cannot_pass_for_the_start_of_an_entry() -> None:
    data = entry("value", b"key" + b"tail")
    moved = FORMAT + data[len(FORMAT) : MAC_END] + b"tail" + data[MAC_END:]
    forged(moved, b"key")


@once
def test_parts_of_two_entries_make_no_third() -> None:
    one, two = entry({"user": "mallory"}), entry({"user": "malice!"})
    forged(one[:MAC_END] + two[MAC_END:])
    start = MAC_END + HEADER.size
    later = signer().close(KEY, {"user": "mallory"}, 5.0, 1e12, 0.0)
    forged(one[:MAC_END] + later[MAC_END:start] + one[start:])
    forged(later[:MAC_END] + one[MAC_END:start] + later[start:])
    forged(one[:start] + two[start:])


@once
def test_a_pickle_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    bad = pickle.dumps(Saboteur(canary))
    header = HEADER.pack(5.0, math.inf, 0.0, PICKLE)
    good = entry(Box(1))
    for data in (
        bad,
        bad.ljust(200, b"\0"),
        FORMAT + b"\0" * 32 + header + bad,
        FORMAT + good[len(FORMAT) : MAC_END] + header + bad,
        good[: MAC_END + HEADER.size] + bad,
        good + bad,
        FORMAT + blake2b(header + bad, digest_size=32).digest() + header + bad,
        FORMAT + blake2b(KEY + header + bad, key=b"", digest_size=32).digest() + header + bad,
        entry(Saboteur(canary), KEY, OTHER),
        entry(Saboteur(canary), b"another key"),
    ):
        assert not forged(data).authentic
    assert not canary.exists()
    assert signer().open(KEY, entry(Saboteur(canary))).value is None
    assert canary.exists()  # so it would have shown


@once
def test_without_pickles_even_an_authentic_pickle_is_not_read(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    refusal = forged(entry(Saboteur(canary)), by=signer(pickles=False))
    assert refusal.authentic
    assert "pickle" in str(refusal)
    assert not canary.exists()


@once
def test_an_entry_cannot_be_made_to_be_read_by_another_codec() -> None:
    data = bytearray(entry(b"cos\nsystem\n(S'true'\ntR."))
    assert data[MAC_END + HEADER.size - 1] == BYTES
    for codec in (TEXT, JSON, PICKLE, 4, 255):
        data[MAC_END + HEADER.size - 1] = codec
        assert not forged(bytes(data)).authentic


@once
def test_nothing_of_an_entry_is_read_before_its_mac_is_found_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Untouched:
        def unpack_from(self, *_: Any) -> Any:
            raise AssertionError("parsed")

    monkeypatch.setattr("opero.stores.signing._HEADER", Untouched())
    monkeypatch.setattr(Codec, "read", Untouched.unpack_from)
    data = authentic(HEADER.pack(5.0, 1.0, 2.0, BYTES))
    for changed in (data[:-1] + b"\7", b"another" + data[7:]):
        with pytest.raises(Forged):
            Signer.open(signer(), KEY, changed + b"more than enough")
    with pytest.raises(AssertionError, match="parsed"):
        signer().open(KEY, authentic(b"x" * HEADER.size))


@once
@pytest.mark.parametrize(
    "form", [b"opero\x00", b"opero\x01", b"opero\xff", b"OPERO\x02", b"xpero\x02"]
)
def test_an_entry_of_another_format_does_not_open_even_with_the_secret(form: bytes) -> None:
    body = HEADER.pack(5.0, 1.0, 2.0, BYTES) + b"value"
    assert signer().open(KEY, authentic(body)).value == b"value"
    refusal = forged(authentic(body, form=form))
    assert refusal.authentic
    assert "format" in str(refusal)
    assert not forged(form + authentic(body)[len(form) :]).authentic


@once
@pytest.mark.parametrize(
    ("codec", "body"),
    [
        (4, b""),
        (255, b"x"),
        (JSON, b""),
        (JSON, b"{"),
        (TEXT, b"\xff"),
        (PICKLE, b""),
        (PICKLE, b"c"),
    ],
)
def test_an_authentic_entry_that_cannot_be_read_does_not_open(codec: int, body: bytes) -> None:
    assert forged(authentic(HEADER.pack(5.0, 1.0, 2.0, codec) + body)).authentic


@once
def test_an_entry_of_a_class_that_has_gone_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    data = entry(Box(1))
    monkeypatch.delitem(globals(), "Box")
    refusal = forged(data)
    assert refusal.authentic
    assert "AttributeError" in str(refusal)


# Secrets.


@once
def test_an_entry_signed_with_another_secret_does_not_open() -> None:
    for other in (OTHER, SECRET + b"\0", SECRET[:-1], SECRET * 10):
        forged(entry("value", KEY, other))


@once
def test_of_several_secrets_the_first_one_signs_and_all_open() -> None:
    old, new = entry("old", KEY, SECRET), entry("new", KEY, OTHER, SECRET)
    both = signer(OTHER, SECRET)
    assert both.open(KEY, old).value == "old"
    assert both.open(KEY, new).value == "new"
    assert signer(OTHER).open(KEY, new).value == "new"
    forged(new, by=signer(SECRET))
    forged(old, by=signer(OTHER))
    with pytest.raises(ValueError, match="secret"):
        Signer([], True)


@once
def test_secrets_are_told_apart_to_the_last_byte_of_long_ones() -> None:
    long = b"x" * 500
    assert signer(long).open(KEY, entry("value", KEY, long)).value == "value"
    forged(entry("value", KEY, long), by=signer(long[:-1] + b"y"))


def words_of(thing: Any) -> str:
    """Return all that a curious logger could write of a thing."""
    seen = [repr(thing), str(thing), repr(dir(thing))]
    for name in dir(thing):
        try:
            seen.append(repr(getattr(thing, name)))
        except Exception:  # noqa: BLE001
            continue
    return "\n".join(seen)


@once
def test_a_secret_is_nowhere_to_be_seen() -> None:
    closer = signer(SECRET, OTHER)
    refusal = forged(entry("value", b"another key"), by=closer)
    text = words_of(closer) + words_of(closer._keyed[0]) + words_of(refusal)
    text += "".join(traceback.format_exception(refusal))
    derived = blake2b(SECRET, person=b"opero cache key").digest()
    for hidden in (SECRET.decode(), SECRET.hex(), derived.hex(), repr(derived), OTHER.decode()):
        assert hidden not in text
    assert repr(closer) == "<Signer with 2 secrets, pickles=True>"
    with pytest.raises(TypeError):
        pickle.dumps(closer)


@once
@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("sixteen bytes ok", [b"sixteen bytes ok"]),
        ("ää" * 4, ["ää".encode() * 4]),
        (SECRET, [SECRET]),
        ([SECRET, "sixteen bytes ok"], [SECRET, b"sixteen bytes ok"]),
        ((SECRET,), [SECRET]),
    ],
)
def test_secrets_can_be_given(given: Any, found: list[bytes]) -> None:
    assert secret.secrets_of(given, {secret.VARIABLE: "not looked at, not looked at"}) == found


@once
def test_the_variable_holds_one_secret_or_more() -> None:
    environ = {secret.VARIABLE: "first-secret-0123\n  second,secret-012 "}
    assert secret.secrets_of(None, environ) == [b"first-secret-0123", b"second,secret-012"]


@once
@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("geheim", ValueError),
        (b"geheim", ValueError),
        ("", ValueError),
        ([], ValueError),
        ((), ValueError),
        ([SECRET, "geheim"], ValueError),
        (["geheim \ud800"], ValueError),
        (bytearray(b"geheim" * 9), TypeError),
        ([SECRET, None], TypeError),
        (["geheim" * 9, 7], TypeError),
        ({"geheim" * 9}, TypeError),
        (7, TypeError),
    ],
)
def test_a_wrong_secret_is_refused_and_not_shown(given: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="cache_secret") as caught:
        secret.secrets_of(given, {})
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@once
@pytest.mark.parametrize("text", ["", "  ", "geheim", "long-enough-012345 geheim"])
def test_a_wrong_variable_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match=secret.VARIABLE) as caught:
        secret.secrets_of(None, {secret.VARIABLE: text})
    assert "geheim" not in str(caught.value)


@once
def test_a_phrase_in_the_variable_is_several_secrets_and_the_message_says_so() -> None:
    with pytest.raises(ValueError, match="holds 3 secrets, separated by spaces; number 1 is too"):
        secret.secrets_of(None, {secret.VARIABLE: "correct horse battery-staple"})
