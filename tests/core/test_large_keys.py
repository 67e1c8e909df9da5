"""A key costs time linear in the size of a value, however often the value holds the same part."""

from __future__ import annotations

import collections
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opero import CacheKeyError, hotpath, opero


@dataclass(frozen=True)
class Pair:
    """Holds two values of any type."""

    one: Any
    two: Any


class Plain:
    """Identified by its own equality."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)


AROUND: dict[str, Callable[[Any, Any], Any]] = {
    "list": lambda one, two: [one, two],
    "tuple": lambda one, two: (one, two),
    "dict": lambda one, two: {"a": one, "b": two},
    "dict by number": lambda one, two: {1: one, 2: two},
    "dataclass": Pair,
    "deque": lambda one, two: collections.deque([one, two]),
    "namespace": lambda one, two: types.SimpleNamespace(a=one, b=two),
    "list and tuple": lambda one, two: [(one,), (two,)],
    "dict of lists": lambda one, two: {"a": [one], "b": {"c": two}},
    "mixed": lambda one, two: (Pair([one], {"k": two}), 1.5, b"b"),
}
LEAVES: dict[str, Callable[[], Any]] = {
    "int": lambda: 1,
    "float": lambda: 1.5,
    "array": lambda: np.arange(3),
    "long text": lambda: "é" * 2000,
    "long bytes": lambda: b"b" * 2000,
}


def nested(levels: int, around: Callable[[Any, Any], Any], leaf: Any, shared: bool = True) -> Any:
    """Return a value in which each level holds the next twice, as the same or an equal object."""
    if shared:
        for _ in range(levels):
            leaf = around(leaf, leaf)
        return leaf
    if levels == 0:
        return leaf
    return around(
        nested(levels - 1, around, leaf, shared=False),
        nested(levels - 1, around, leaf, shared=False),
    )


def keys_of(core: hotpath.Core, value: Any) -> list[Any]:
    """Return every key of a value."""
    freezer = core.Freezer()
    probe = freezer.probe(value)
    return [probe, freezer.keep(probe), freezer.freeze(value), core.Canonical().encode(value)]


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("around", AROUND)
def test_forty_levels_that_hold_the_next_one_twice_have_keys(
    core: hotpath.Core, around: str, leaf: str
) -> None:
    """A walk through the tree would never end; equal values of new parts have the same keys."""
    make, last = AROUND[around], LEAVES[leaf]
    keys = keys_of(core, nested(40, make, last()))
    again = keys_of(core, nested(40, make, last()))
    other = keys_of(core, nested(40, make, "another leaf"))
    assert keys == again
    assert [hash(key) for key in keys] == [hash(key) for key in again]
    assert [one == two for one, two in zip(keys, other, strict=True)] == [False] * 4
    assert all(one == keys[0] for one in keys[:3])
    assert len(keys[3]) < 3000


def test_a_function_is_called_with_such_values(core: hotpath.Core, tmp_path: Any) -> None:
    """In memory and on disk, with a hit for an equal value made of new parts."""
    options = {"cache_backend": "disk", "cache_dir": tmp_path, "cache_secret": "s" * 32}
    for given_options in ({}, options):
        depth = opero(cache=True, retries=1, **given_options)(depth_of)  # type: ignore[call-overload]
        for make in AROUND.values():
            assert depth(nested(40, make, 1)) == depth(nested(40, make, 1))
        assert depth.stats().hits == len(AROUND)


def depth_of(value: Any) -> int:
    """Return something about a value."""
    return len(str(type(value)))


@pytest.mark.slow
@settings(max_examples=60)
@given(
    around=st.sampled_from(sorted(AROUND)),
    levels=st.integers(0, 13),
    leaf=st.sampled_from(sorted(LEAVES)),
    other=st.sampled_from([None, "levels", "leaf"]),
)
def test_sharing_does_not_count(
    core: hotpath.Core, around: str, levels: int, leaf: str, other: str | None
) -> None:
    """A part held twice and two equal parts make the same value, at any size."""
    make, last = AROUND[around], LEAVES[leaf]
    shared = keys_of(core, nested(levels, make, last()))
    changed = last() if other != "leaf" else "another"
    copied = keys_of(core, nested(levels + (other == "levels"), make, changed, shared=levels > 8))
    assert [one == two for one, two in zip(shared, copied, strict=True)] == [other is None] * 4
    plain = hotpath.load("plain")
    assert keys_of(plain, nested(levels, make, last()))[3] == shared[3]


@pytest.mark.parametrize("wide", [1, 2, 10, 40])
@pytest.mark.parametrize("kind", ["plain", "float", "object"])
def test_a_wide_tree_has_one_key_whatever_way_it_is_made(
    core: hotpath.Core, wide: int, kind: str
) -> None:
    """On both sides of the bounds, which depend only on its shape."""

    def make(shared: bool, last: int) -> Any:
        leaf = {"plain": "a", "float": 0.5, "object": Plain(1)}[kind]
        row = [leaf] * wide
        rows = [row if shared else list(row) for _ in range(40)]
        table = [rows if shared else [list(row) for row in rows] for _ in range(wide)]
        return [table, [last]]

    keys = keys_of(core, make(True, 1)) if kind != "object" else []
    freezer = core.Freezer()
    assert freezer.freeze(make(True, 1)) == freezer.probe(make(False, 1))
    assert freezer.freeze(make(True, 1)) != freezer.probe(make(False, 2))
    if keys:
        assert keys[3] == core.Canonical().encode(make(False, 1))
        assert keys[3] != core.Canonical().encode(make(False, 2))


def test_objects_in_large_values_count_as_they_do_in_small_ones(core: hotpath.Core) -> None:
    """By their own equality; classes by identity."""
    freezer = core.Freezer()

    def make(leaf: Any, other: Any = None) -> Any:
        return {"b": nested(30, AROUND["mixed"], leaf), "a": [other]}

    assert freezer.freeze(make(Plain(1))) == freezer.freeze(make(Plain(1)))
    assert freezer.freeze(make(Plain(1))) != freezer.freeze(make(Plain(2)))
    assert freezer.freeze(make(Plain(1), Plain(2))) != freezer.freeze(make(Plain(2), Plain(1)))
    one, two = object(), object()
    assert freezer.freeze(make(one)) == freezer.freeze(make(one))
    assert freezer.freeze(make(one)) != freezer.freeze(make(two))
    twins = [dataclass(type("Twin", (), {"__annotations__": {"x": int}})) for _ in range(2)]
    values = [make(twin(1)) for twin in twins]
    assert freezer.freeze(values[0]) == freezer.freeze(make(twins[0](1)))
    assert freezer.freeze(values[0]) != freezer.freeze(values[1])
    turned = dict(reversed(make(Plain(1), Plain(2)).items()))
    assert freezer.freeze(turned) == freezer.freeze(make(Plain(1), Plain(2)))


@pytest.mark.parametrize("around", AROUND)
def test_large_values_that_contain_themselves_are_refused(core: hotpath.Core, around: str) -> None:
    """So are those that are nested too deep."""
    inner: list[Any] = []
    inner.append(nested(40, AROUND[around], inner))
    deep: Any = 1
    for _ in range(500):
        deep = AROUND[around](deep, deep)
    for value in (inner, deep):
        with pytest.raises(CacheKeyError, match="contains itself, or is nested more than 200"):
            core.Freezer().probe(value)
        with pytest.raises(CacheKeyError, match="contains itself, or is nested more than 200"):
            core.Canonical().encode(value)


def test_an_object_without_key_in_a_large_value_is_refused(core: hotpath.Core) -> None:
    """By the name of its type, as in a small one."""
    value = nested(40, AROUND["mixed"], bytearray(b"a"))
    assert core.Freezer().probe(value) == core.Freezer().probe(value)
    unhashable = type("Odd", (), {"__hash__": None})()
    with pytest.raises(CacheKeyError, match="Odd"):
        core.Freezer().probe(nested(40, AROUND["mixed"], unhashable))
    with pytest.raises(CacheKeyError, match="Odd"):
        core.Canonical().encode(nested(40, AROUND["mixed"], unhashable))


def test_a_large_value_is_not_kept_alive_by_its_key(core: hotpath.Core) -> None:
    """The key holds a digest."""
    freezer = core.Freezer()
    value = [[float(number)] for number in range(200_000)]
    key = freezer.freeze({"a": value, "b": [value, value]})
    assert not isinstance(key.value, dict | list)


def test_composed_functions_are_captured_once_each(core: hotpath.Core) -> None:
    """Although each captures the previous one twice."""
    from opero.captures import Captures

    def both(one: Any, two: Any) -> Any:
        return lambda value: one(two(value))

    def encoded(number: int) -> bytes:
        function: Any = lambda value: value + number  # noqa: E731
        for _ in range(40):
            function = both(function, function)
        code = Captures(function).read()
        return core.Canonical().stored_key("n", ("m", "f"), "", (), (), code).full

    began = time.perf_counter()
    assert encoded(1) == encoded(1)
    assert encoded(1) != encoded(2)
    assert time.perf_counter() - began < 60
