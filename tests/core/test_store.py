"""The memory store: bounded, forgetful in time, good at keeping what is used, safe for threads."""

from __future__ import annotations

import gc
import itertools
import random
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from opero import hotpath

SECOND = 1_000_000_000


class Value:
    """A value to store that supports weak references."""


class Instance:
    """An instance with cached methods that equals every other one."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instance)

    def __hash__(self) -> int:
        return 1


class SameHash:
    """A key whose hash collides with that of every other one."""

    def __init__(self, name: int) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameHash) and self.name == other.name

    def __hash__(self) -> int:
        return 7


def still_clock(core: hotpath.Core) -> Any:
    """Make a clock that only the test moves."""
    clock = core.Clock()
    clock.freeze()
    return clock


def new_store(core: hotpath.Core, maxsize: int = 100, ttl: int = 0, clock: Any = None) -> Any:
    """Make a store whose time stands still."""
    return core.MemoryStore(still_clock(core) if clock is None else clock, maxsize, ttl)


# --- what is stored is found ----------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, False, 0, "", "value", object()])
def test_a_stored_value_is_found_whatever_it_is(core: hotpath.Core, value: object) -> None:
    """`None` and all false values are values like any other."""
    store = new_store(core)
    store.put("key", value)
    assert store.find("key").value is value


def test_a_key_that_was_never_stored_is_not_found(core: hotpath.Core) -> None:
    """A miss is None, not an entry."""
    assert new_store(core).find("key") is None


def test_a_new_value_replaces_the_old_one(core: hotpath.Core) -> None:
    """There is one value for each key."""
    store = new_store(core)
    store.put("key", 1)
    store.put("key", 2)
    assert (store.find("key").value, len(store)) == (2, 1)


def test_keys_with_one_hash_are_kept_apart(core: hotpath.Core) -> None:
    """A hash collision is not a hit."""
    store = new_store(core)
    for name in range(50):
        store.put(SameHash(name), name)
    assert list(range(50)) == [store.find(SameHash(name)).value for name in range(50)]


def test_a_dropped_key_is_gone(core: hotpath.Core) -> None:
    """`drop` returns whether there was anything to drop."""
    store = new_store(core)
    store.put("key", 1)
    assert [store.drop("key"), store.drop("key")] == [True, False]
    assert (store.find("key"), len(store)) == (None, 0)


def test_an_entry_in_the_hands_of_a_reader_keeps_its_value(core: hotpath.Core) -> None:
    """Dropping, replacing or clearing cannot turn a hit that is under way into None."""
    store = new_store(core)
    entries = []
    for forget in (store.drop, lambda key: store.put(key, "new"), lambda key: store.clear()):
        store.put("key", "value")
        entries.append(store.find("key"))
        forget("key")
    assert [entry.value for entry in entries] == ["value"] * 3


def test_a_cleared_store_is_empty_and_usable(core: hotpath.Core) -> None:
    """Neither values nor evictions from before count."""
    store = new_store(core, maxsize=3)
    for key in range(10):
        store.put(key, key)
    store.clear()
    assert len(store) == 0
    assert [store.find(key) for key in range(10)] == [None] * 10
    store.put(1, "one")
    assert store.find(1).value == "one"


def test_a_reserved_place_is_no_value_before_it_is_filled(core: hotpath.Core) -> None:
    """Lookups do not find it, but it takes up room, and can be reserved and filled again."""
    store = new_store(core, maxsize=2)
    entry = store.reserve("key")
    assert (store.find("key"), len(store)) == (None, 1)
    assert store.reserve("key") is entry
    store.fill(entry, "value")
    assert store.find("key").value == "value"


@pytest.mark.parametrize("maxsize", [0, 1, 20])
def test_a_place_that_was_taken_away_is_filled_in_vain(core: hotpath.Core, maxsize: int) -> None:
    """A drop, a clear or an eviction between `reserve` and `fill` is final."""
    store = new_store(core, maxsize, ttl=SECOND)
    takers = [lambda: store.drop("key"), store.clear]
    if maxsize:
        takers.append(lambda: [store.put(number, number) for number in range(2 * maxsize)])
    for take in takers:
        entry = store.reserve("key")
        assert take() is not True  # there was no value yet
        store.fill(entry, "too late")
        assert store.find("key") is None
        store.put("key", "new")
        assert store.find("key").value == "new"
        store.clear()


class Meddled:
    """A key compared by Python code that does something once during the comparison."""

    meddle: Any = None

    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Meddled)
        meddle = Meddled.meddle
        if meddle is not None and "second" in {self.name, other.name}:
            Meddled.meddle = None
            meddle()
        return self.name == other.name


@pytest.mark.parametrize("maxsize", [0, 20])
def test_a_key_that_a_race_has_put_into_the_dictionary_twice_is_dropped_twice(
    core: hotpath.Core, maxsize: int
) -> None:
    """A dictionary looks past the place where another thread inserts the same key."""
    store = new_store(core, maxsize)
    store.put(Meddled("first"), 1)
    store.put(Meddled("second"), 2)

    def meddle() -> None:
        store.drop(Meddled("first"))
        store.put(Meddled("third"), 3)

    Meddled.meddle = meddle
    store.put(Meddled("third"), 3)
    values = [entry.value for entry in store.entries.values()]
    assert values in ([2, 3, 3], [2, 3])  # a dictionary without the lock of the interpreter sees it
    assert store.drop(Meddled("third"))
    assert store.find(Meddled("third")) is None
    assert store.find(Meddled("second")).value == 2
    assert len(store) == 1


class Alike:
    """A key with the same hash as all others that does something once when compared."""

    act: Any = None
    same = 0

    def __hash__(self) -> int:
        return self.same

    def __eq__(self, other: object) -> bool:
        act, self.act = self.act, None
        if act is not None:
            act()
        return self is other


def stores_that_miss(core: hotpath.Core) -> Iterator[tuple[Any, Alike]]:
    """Yield stores together with a key that the next look-up in their dictionary may miss.

    A look-up that compares keys by Python code does not see that the dictionary was rebuilt, if
    that happened twice and has brought its table back to the same address. How many insertions that
    takes is the interpreter's own affair, so there are stores for every number that it might be; with
    CPython up to 3.13 it is some of these.
    """
    for before in range(12):
        for meanwhile in range(10, 24):
            store = new_store(core, maxsize=30)
            hole, other, key = Alike(), Alike(), Alike()

            def come_and_go(count: int, store: Any = store) -> None:
                for number in range(1000, 1000 + count):
                    store.put(number, number)
                    store.drop(number)

            def rebuild(other: Any = other, count: int = meanwhile, store: Any = store) -> None:
                store.drop(other)
                come_and_go(count, store)
                store.put(other, 0)

            come_and_go(before)
            for each in (hole, other, key):
                store.put(each, 0)
            store.drop(hole)
            other.act = rebuild
            yield store, key


def test_a_key_is_dropped_even_if_a_race_hides_it_from_a_look_up(core: hotpath.Core) -> None:
    """An invalidation must not leave an older value behind."""
    for store, key in stores_that_miss(core):
        assert store.drop(key)
        assert store.find(key) is None


def test_an_entry_is_evicted_even_if_a_race_hides_it_from_a_look_up(core: hotpath.Core) -> None:
    """Otherwise it would stay forever, outside all queues."""
    for store, key in stores_that_miss(core):
        (entry,) = [entry for entry in store.entries.values() if entry.key is key]
        store.forget(entry)
        assert entry not in store.entries.values()


@pytest.mark.parametrize("first", [Alike, str], ids=["objects", "str first"])
def test_a_store_that_is_cleared_in_the_midst_of_a_put_finds_what_comes_after(
    core: hotpath.Core, first: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value being put comes after the clear; CPython must not lose its hash."""
    monkeypatch.setattr(Alike, "same", 0x123456789)  # nothing that lies around in memory
    for more in range(12):
        store = new_store(core, maxsize=30)
        store.put(first(), 0)
        other, key = Alike(), Alike()
        store.put(other, 0)
        other.act = store.clear
        store.put(key, "value")
        assert len(store) == 1
        for number in range(more):
            store.put(number + 0.5, number)
        assert store.find(key).value == "value"
        assert store.drop(key)
        assert len(store) == more


class Incomparable:
    """A key with the hash of others that cannot be compared while a flag is set."""

    broken = False

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        if Incomparable.broken:
            raise IndexError("they cannot be compared")
        return self is other


@pytest.mark.parametrize(("maxsize", "ttl"), [(1, 0), (4, 0), (0, SECOND)])
def test_keys_that_cannot_be_compared_for_a_while_do_not_stay_for_ever(
    core: hotpath.Core, maxsize: int, ttl: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors in comparisons leave every entry in a queue."""
    clock = core.Clock()
    clock.freeze()
    store = core.MemoryStore(clock, maxsize, ttl)
    for _ in range(maxsize + 2):
        store.put(Incomparable(), 0)
    clock.advance(2 * SECOND)
    monkeypatch.setattr(Incomparable, "broken", True)
    for _ in range(20):
        with suppress(IndexError):
            store.put(Incomparable(), 0)
    for number in range(3):  # it compares no keys, but those that it evicts may be compared
        with suppress(IndexError):
            store.put(number + 0.5, 0)
    monkeypatch.setattr(Incomparable, "broken", False)
    queued = {id(entry) for entry in [*store.small, *store.main]}
    assert all(id(entry) in queued for entry in store.entries.values())
    clock.advance(2 * SECOND)
    for number in range(100):
        store.put(number, 0)
        assert all(store.find(number) for _ in range(4))  # so that it drives out those in `main`
    assert not any(type(key) is Incomparable for key in store.entries)


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [1, 999_999_999, SECOND, 300 * SECOND])
@pytest.mark.parametrize("maxsize", [0, 10])
def test_a_value_counts_until_its_time_is_up_and_no_longer(
    core: hotpath.Core, ttl: int, maxsize: int
) -> None:
    """It is found one nanosecond before it expires, and not when it expires."""
    clock = still_clock(core)
    store = new_store(core, maxsize, ttl, clock)
    store.put("key", 1)
    clock.advance(ttl - 1)
    assert store.find("key").value == 1
    clock.advance(1)
    assert store.find("key") is None


def test_a_value_that_is_stored_again_lives_anew(core: hotpath.Core) -> None:
    """Its lifetime begins with the last `put`, and a hit does not prolong it."""
    clock = still_clock(core)
    store = new_store(core, 10, 10 * SECOND, clock)
    store.put("key", 1)
    clock.advance(6 * SECOND)
    store.find("key")
    store.put("key", 2)
    clock.advance(6 * SECOND)
    assert store.find("key").value == 2
    clock.advance(4 * SECOND)
    assert store.find("key") is None


def test_without_a_time_to_live_a_value_counts_for_ever(core: hotpath.Core) -> None:
    """A century later it is still found."""
    clock = still_clock(core)
    store = new_store(core, 10, 0, clock)
    store.put("key", 1)
    clock.advance(100 * 365 * 86400 * SECOND)
    assert store.find("key").value == 1


def test_an_unbounded_store_forgets_what_is_out_of_date(core: hotpath.Core) -> None:
    """Without a bound, only expiry limits its growth: each put does some of that work."""
    clock = still_clock(core)
    store = new_store(core, 0, SECOND, clock)
    for key in range(10_000):
        store.put(key, key)
        clock.advance(SECOND // 10)
        assert len(store) <= 30, "ten count at any moment"
    assert len(store.small) <= 30


def test_an_unbounded_store_without_expiry_keeps_everything(core: hotpath.Core) -> None:
    """It evicts nothing."""
    store = new_store(core, 0)
    for key in range(5000):
        store.put(key, key)
    assert all(store.find(key).value == key for key in range(5000))


# --- room -----------------------------------------------------------------------------------------


@given(
    maxsize=st.integers(1, 40),
    keys=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), max_size=300),
)
def test_there_are_never_more_entries_than_maxsize(
    core: hotpath.Core, maxsize: int, keys: list[tuple[int, int]]
) -> None:
    """Whatever is stored, and however often it is used, the bound holds after each step."""
    store = new_store(core, maxsize)
    for key, hits in keys:
        store.put(key, key)
        assert len(store) <= maxsize
        assert store.find(key).value == key, "a value that was just stored is found"
        for _ in range(hits):
            store.find(key)
        assert len(store.small) + len(store.main) <= 2 * maxsize + 17
        assert len(store.ghosts) <= max(128, 4 * maxsize)


def test_a_store_is_filled_before_anything_is_evicted(core: hotpath.Core) -> None:
    """All of `maxsize` is usable."""
    for maxsize in (1, 2, 9, 10, 11, 100):
        store = new_store(core, maxsize)
        for key in range(maxsize):
            store.put(key, key)
        assert [key for key in range(maxsize) if store.find(key) is None] == []


@pytest.mark.parametrize("maxsize", [1, 2, 3, 10, 19, 20, 50])
def test_a_value_just_stored_is_there_even_when_all_others_are_hot(
    core: hotpath.Core, maxsize: int
) -> None:
    """A function that is called twice with new arguments runs once."""
    store = new_store(core, maxsize)
    for _ in range(5):
        for key in range(maxsize):
            if store.find(key) is None:
                store.put(key, key)
    for key in range(1000, 1100):
        store.put(key, key)
        assert store.find(key).value == key


@pytest.mark.parametrize("maxsize", [10, 50, 1000])
def test_hot_keys_survive_a_scan(core: hotpath.Core, maxsize: int) -> None:
    """A long series of keys used once does not push out keys that are used all the time."""
    store = new_store(core, maxsize)
    hot = [f"hot {number}" for number in range(maxsize // 2)]
    for _ in range(4):
        for key in hot:
            if store.find(key) is None:
                store.put(key, key)
    for key in range(20 * maxsize):
        store.put(key, key)
    assert hot == [key for key in hot if store.find(key) is not None]


def test_hot_keys_that_cool_down_make_room(core: hotpath.Core) -> None:
    """Keys that were hot do not stay forever after the load has moved on."""
    store = new_store(core, 10)
    for generation in range(5):
        keys = [(generation, number) for number in range(8)]
        for _ in range(20):
            for key in keys:
                if store.find(key) is None:
                    store.put(key, key)
        assert keys == [key for key in keys if store.find(key) is not None]


def test_a_key_that_comes_back_is_found_after_its_put(core: hotpath.Core) -> None:
    """A key that was evicted before is not the first to be evicted again."""
    store = new_store(core, 1)
    for key in (0, 1, 0, 2, 1, 0, 1):
        store.put(key, key)
        assert store.find(key).value == key


def test_a_key_that_comes_back_soon_after_its_eviction_goes_to_the_main_queue(
    core: hotpath.Core,
) -> None:
    """Its ghost remembers it, so the next scan does not evict it."""
    store = new_store(core, 100)
    for key in range(101):
        store.put(key, key)
    assert store.find(0) is None
    store.put(0, 0)
    for key in range(1000, 1050):
        store.put(key, key)
    assert store.find(0).value == 0


def asked(store: Any, keys: Iterable[int]) -> int:
    """Ask a store for keys, and put the missing ones; return how many it had."""
    hits = 0
    for key in keys:
        if store.find(key) is None:
            store.put(key, key)
        else:
            hits += 1
    return hits


def moving(size: int, count: int) -> list[int]:
    """Return keys from a set of `size`, of which every fourth request replaces one."""
    draw = random.Random(3)
    return [index // 4 + draw.randrange(size) for index in range(count)]


@pytest.mark.parametrize("maxsize", [20, 300])
def test_probation_takes_as_much_as_the_keys_in_use_ask_for(
    core: hotpath.Core, maxsize: int
) -> None:
    """It grows while the keys change, shrinks while some stay in use, and stays in bounds."""
    store = new_store(core, maxsize)
    least = store.probation
    asked(store, range(3 * maxsize))
    assert store.probation == least == max(1, maxsize // 10)
    trace = moving(maxsize, 30_000)
    asked(store, trace[:20_000])
    assert maxsize * 7 // 10 <= store.probation <= maxsize * 9 // 10
    assert asked(store, trace[20_000:]) > 6_800
    draw = random.Random(5)
    weights = [1 / rank for rank in range(1, 20 * maxsize + 1)]
    asked(store, draw.choices(range(-20 * maxsize, 0), weights, k=30_000))
    assert least <= store.probation <= maxsize * 4 // 10
    store.clear()
    assert store.probation == least


def test_a_loop_does_not_pass_for_keys_that_move_on(core: hotpath.Core) -> None:
    """Longer probation would not have kept a key that returns long after its eviction."""
    store = new_store(core, 100)
    assert asked(store, [index % 150 for index in range(9_000)]) > 2_000
    assert store.probation < 50


def test_a_skewed_load_is_answered_about_as_well_as_the_best_choice_could(
    core: hotpath.Core,
) -> None:
    """On a Zipf trace, the hit ratio is within a tenth of that of the hottest keys."""
    draw = random.Random(7)
    weights = [1 / rank for rank in range(1, 2001)]
    trace = draw.choices(range(2000), weights, k=30_000)
    store = new_store(core, 200)
    hits = 0
    for key in trace:
        if store.find(key) is None:
            store.put(key, key)
        else:
            hits += 1
    best = sum(key < 200 for key in trace)
    assert hits > 0.9 * best


# --- nothing stays behind -------------------------------------------------------------------------


def values_alive(store: Any, forget: Any) -> int:
    """Store 30 values, remove them, and count those that are still in memory."""
    refs = []
    for key in range(30):
        value = Value()
        refs.append(weakref.ref(value))
        store.put(key, value)
    del value
    forget(store)
    gc.collect()
    return sum(ref() is not None for ref in refs)


def test_a_cleared_value_leaves_memory(core: hotpath.Core) -> None:
    """A store that is cleared holds nothing."""
    assert values_alive(new_store(core), lambda store: store.clear()) == 0


def test_an_evicted_value_leaves_memory(core: hotpath.Core) -> None:
    """The store keeps no reference to an evicted value."""

    def forget(store: Any) -> None:
        for key in itertools.count(1000):
            store.put(key, None)
            if key > 1200:
                return

    assert values_alive(new_store(core, 40), forget) == 0


@pytest.mark.parametrize("maxsize", [0, 40, 1000])
def test_dropped_values_do_not_pile_up(core: hotpath.Core, maxsize: int) -> None:
    """However many values are dropped one by one, only a few wait for removal."""

    def forget(store: Any) -> None:
        for key in range(30):
            store.drop(key)

    assert values_alive(new_store(core, maxsize), forget) <= 16


def test_replaced_values_do_not_pile_up(core: hotpath.Core) -> None:
    """Storing one key repeatedly keeps about as many values as there may be keys."""
    store = new_store(core, 10)
    refs = []
    for _ in range(1000):
        value = Value()
        refs.append(weakref.ref(value))
        store.put("key", value)
    del value
    gc.collect()
    assert sum(ref() is not None for ref in refs) <= 2 * 10 + 17
    assert store.find("key").value is not None


@pytest.mark.parametrize("forget", ["nothing", "drop", "evict"])
@pytest.mark.parametrize(("maxsize", "ttl"), [(0, 0), (0, SECOND), (3, 0), (100, SECOND)])
def test_a_value_that_refers_to_its_store_does_not_keep_it_alive(
    core: hotpath.Core, maxsize: int, ttl: int, forget: str
) -> None:
    """The garbage collector sees the cycle through the store, whatever happened to the entry."""
    store = new_store(core, maxsize, ttl)
    refs = []
    for key in range(5):
        value = Value()
        value.store = store  # type: ignore[attr-defined]
        refs.append(weakref.ref(value))
        store.put(("a key that holds it too", value), value)
        if forget == "drop" and key > 2:
            store.drop(("a key that holds it too", value))
        if forget == "evict" and key > 2:
            store.put(key, None)
    refs.append(weakref.ref(store))
    del store, value
    gc.collect()
    assert [ref() for ref in refs] == [None] * 6


def test_a_value_is_not_collected_as_long_as_anybody_holds_its_entry(core: hotpath.Core) -> None:
    """Even if the store is part of a cycle that is otherwise garbage."""
    store = new_store(core)
    value = Value()
    value.store = store  # type: ignore[attr-defined]
    value.content = ["whole"]  # type: ignore[attr-defined]
    store.put("key", value)
    entry = store.find("key")
    ref = weakref.ref(value)
    del store, value
    gc.collect()
    assert entry.value is ref()
    assert entry.value.content == ["whole"]
    assert entry.value.store.find("key") is entry
    del entry
    gc.collect()
    assert ref() is None


def test_a_finalizer_that_uses_the_store_finds_it_whole(core: hotpath.Core) -> None:
    """A finalizer stores another value in the middle of an eviction."""
    store = new_store(core, 5)
    born = itertools.count(1000)

    class Phoenix:
        def __del__(self) -> None:
            key = next(born)
            if key < 1200:
                store.put(key, Phoenix())

    for key in range(200):
        store.put(key, Phoenix())
        assert len(store) <= 5 + 1
    store.put("last", None)
    assert len(store) <= 5
    born = itertools.count(10_000)
    store.clear()


# --- against a model ------------------------------------------------------------------------------


class StoreMachine(RuleBasedStateMachine):
    """Drives a store and a dictionary with expiry through the same steps."""

    core: hotpath.Core
    KEYS = st.integers(0, 25) | st.sampled_from(["a", "b", (1, 2)])

    @initialize(
        maxsize=st.sampled_from([0, 1, 2, 5, 12, 30]),
        ttl=st.sampled_from([0, 1, SECOND // 2, 5 * SECOND]),
    )
    def begin(self, maxsize: int, ttl: int) -> None:
        """Make an empty store and an empty model."""
        self.clock = still_clock(self.core)
        self.store = self.core.MemoryStore(self.clock, maxsize, ttl)
        self.maxsize, self.ttl = maxsize, ttl
        self.model: dict[Any, tuple[int, int]] = {}
        self.serial = itertools.count()

    def living(self, key: Any) -> int | None:
        """Return the value that counts, according to the model."""
        value, expires = self.model.get(key, (None, 0))
        return value if not self.ttl or expires > self.clock.now() else None

    @rule(key=KEYS)
    def put(self, key: Any) -> None:
        """Store a value that was never stored before."""
        value = next(self.serial)
        self.store.put(key, value)
        self.model[key] = (value, self.clock.now() + self.ttl)
        assert self.store.find(key).value == value

    @rule(key=KEYS, times=st.integers(1, 4))
    def find(self, key: Any, times: int) -> None:
        """Look for a key, once or often."""
        for _ in range(times):
            entry = self.store.find(key)
            if entry is not None:
                assert self.living(key) == entry.value
            elif not self.maxsize:
                assert self.living(key) is None

    @rule(key=KEYS)
    def drop(self, key: Any) -> None:
        """Forget a key."""
        held = key in self.store.entries
        assert held == self.store.drop(key)
        if not self.maxsize and self.living(key) is not None:
            assert held
        self.model.pop(key, None)
        assert self.store.find(key) is None

    @rule()
    def clear(self) -> None:
        """Forget everything."""
        self.store.clear()
        self.model.clear()

    @precondition(lambda self: self.ttl)
    @rule(share=st.sampled_from([0.1, 0.5, 1.0, 2.0]))
    def wait(self, share: float) -> None:
        """Let time pass."""
        self.clock.advance(max(1, int(self.ttl * share)))

    @invariant()
    def the_bound_holds(self) -> None:
        """There are never more than `maxsize` entries."""
        if self.maxsize:
            assert len(self.store) <= self.maxsize

    @invariant()
    def what_is_held_was_stored(self) -> None:
        """Every entry is the last one of its key."""
        for key, entry in self.store.entries.items():
            assert key == entry.key
            assert self.model[key][0] == entry.value

    @invariant()
    def every_entry_can_be_evicted(self) -> None:
        """Every entry is in a queue."""
        if self.maxsize:
            entries = [*self.store.small, *self.store.main]
            queued = {id(entry) for entry in entries}
            assert len(queued) == len(entries) == len(self.store.small) + len(self.store.main)
            assert all(id(entry) in queued for entry in self.store.entries.values())


def test_the_store_behaves_like_a_dictionary_with_expiry(core: hotpath.Core) -> None:
    """Random steps against a model find no wrong value, no expired value and no extra key."""
    machine = type("Machine", (StoreMachine,), {"core": core})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )


@pytest.mark.once
@given(
    maxsize=st.integers(1, 25),
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "find", "find", "drop"]), st.integers(0, 40)),
        max_size=200,
    ),
)
def test_both_halves_evict_alike(
    core: hotpath.Core, maxsize: int, steps: list[tuple[str, int]]
) -> None:
    """After the same steps, the active half and the plain one hold the same keys."""
    stores = [new_store(core, maxsize), new_store(hotpath.load("plain"), maxsize)]
    for step, key in steps:
        for store in stores:
            if step == "put":
                store.put(key, key)
            else:
                getattr(store, step)(key)
        one, other = stores
        assert set(one.entries) == set(other.entries)
        assert (one.share, one.probation) == (other.share, other.probation)


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("maxsize", "ttl"), [(8, 0), (50, 200_000), (0, 200_000)])
def test_threads_find_the_store_consistent(core: hotpath.Core, maxsize: int, ttl: int) -> None:
    """Four threads that put, find, drop and clear get no wrong value, no error, and no leak."""
    store = core.MemoryStore(core.Clock(), maxsize, ttl)
    troubles: list[BaseException] = []

    def work(seed: int) -> None:
        draw = random.Random(seed)
        try:
            for _ in range(1500):
                key = draw.randrange(60)
                deed = draw.random()
                if deed < 0.45:
                    entry = store.find(key)
                    assert entry is None or entry.value == key * 7
                elif deed < 0.9:
                    store.put(key, key * 7)
                elif deed < 0.995:
                    store.drop(key)
                else:
                    store.clear()
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            troubles.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    for key in range(100, 200):
        store.put(key, key * 7)
    if maxsize:
        assert len(store) <= maxsize
    store.clear()
    assert len(store) == 0


# --- a store for each instance --------------------------------------------------------------------


def instance_stores(core: hotpath.Core) -> Any:
    """Make a set of instance stores whose time stands still."""
    return core.InstanceStores(still_clock(core), 10, 0)


def test_an_instance_gets_its_store_back(core: hotpath.Core) -> None:
    """Its first call creates the store, and later calls use it."""
    stores, instance = instance_stores(core), Instance()
    assert stores.of(instance) is stores.of(instance)


def test_equal_instances_have_stores_of_their_own(core: hotpath.Core) -> None:
    """Identity counts, not equality or the hash."""
    stores, one, other = instance_stores(core), Instance(), Instance()
    assert one == other
    assert stores.of(one) is not stores.of(other)
    assert len(stores.all()) == 2


def test_an_instance_that_cannot_be_hashed_has_a_store_too(core: hotpath.Core) -> None:
    """Identity requires nothing from the class."""

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

    stores, instance = instance_stores(core), Unhashable()
    assert stores.of(instance) is stores.of(instance)


def test_the_bound_and_the_expiry_are_those_of_each_store(core: hotpath.Core) -> None:
    """`cache_maxsize` applies to each instance."""
    stores = core.InstanceStores(still_clock(core), 3, 5)
    assert (stores.of(Instance()).maxsize, stores.of(Instance()).ttl) == (3, 5)


@pytest.mark.refcounts
def test_a_store_never_keeps_its_instance_alive(core: hotpath.Core) -> None:
    """The instance is freed with its last reference, and the store with it."""
    stores, instance = instance_stores(core), Instance()
    value = Value()
    stores.of(instance).put("key", value)
    refs = [weakref.ref(instance), weakref.ref(stores.of(instance)), weakref.ref(value)]
    del instance, value
    assert [ref() for ref in refs] == [None, None, None]
    assert (stores.all(), stores.stores) == ([], {})


def test_an_instance_in_a_reference_cycle_can_be_collected(core: hotpath.Core) -> None:
    """The store does not hinder the garbage collector."""
    stores, instance = instance_stores(core), Instance()
    instance.itself = instance  # type: ignore[attr-defined]
    stores.of(instance).put("key", 1)
    ref = weakref.ref(instance)
    del instance
    gc.collect()
    assert (ref(), stores.all()) == (None, [])


@pytest.mark.refcounts
def test_two_instances_are_never_mixed_when_memory_is_used_again(core: hotpath.Core) -> None:
    """Thousands of instances live one after another, most at the same address."""
    stores = instance_stores(core)
    addresses = set()
    for number in range(3000):
        instance = Instance()
        addresses.add(id(instance))
        assert stores.of(instance).find("key") is None
        stores.of(instance).put("key", number)
        del instance
    assert len(addresses) < 3000
    assert len(stores.all()) <= 1


def test_a_store_left_over_under_a_reused_identity_is_not_used(core: hotpath.Core) -> None:
    """Even if the end of the old instance went unnoticed, the new one gets a new store."""
    stores, old, new = instance_stores(core), Instance(), Instance()
    stores.of(old).put("key", "of the old one")
    held = stores.stores[id(old)]
    del old
    stores.stores[id(new)] = held
    assert stores.of(new).find("key") is None
    assert stores.of(new) is not held


def test_the_late_end_of_an_old_instance_leaves_the_new_ones_store_alone(
    core: hotpath.Core,
) -> None:
    """The callback of a dead weak reference removes only its own store."""
    stores, old, new = instance_stores(core), Instance(), Instance()
    stores.of(old)
    mine = stores.of(new)
    identity = id(old)
    stores.stores[identity] = stores.stores[id(new)]
    del old
    assert stores.of(new) is mine
    assert stores.stores[identity] is mine


@pytest.mark.skipif(
    not hasattr(type, "__weakrefoffset__"), reason="on PyPy, every instance has weak references"
)
def test_an_instance_without_weak_references_has_no_store_of_its_own(core: hotpath.Core) -> None:
    """Every request for one returns None."""

    class Slotted:
        __slots__ = ("x",)

    stores = instance_stores(core)
    for instance in (Slotted(), 1, "a", (1,)):
        assert stores.of(instance) is None
        assert stores.of(instance) is None
    assert stores.all() == []


def test_threads_that_meet_at_a_new_instance_share_its_store(core: hotpath.Core) -> None:
    """Of two stores created at the same moment, one is used."""
    for _ in range(30):
        stores, instance = instance_stores(core), Instance()
        barrier = threading.Barrier(4)
        found: list[Any] = []

        def work(barrier: Any, stores: Any, instance: Any, found: list[Any]) -> None:
            barrier.wait()
            found.append(stores.of(instance))

        given = (barrier, stores, instance, found)
        threads = [threading.Thread(target=work, args=given) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {id(store) for store in found} == {id(stores.of(instance))}


# --- values that linger ---------------------------------------------------------------------------


def lingering(core: hotpath.Core, maxsize: int = 100, early: int = 20, late: int = 50) -> Any:
    """Make a store whose values are fresh for 100 seconds."""
    times = (100 * SECOND, early * SECOND, late * SECOND)
    return core.MemoryStore(still_clock(core), maxsize, *times)


def test_a_lingering_value_is_a_plain_hit_then_looked_at_closer_then_gone(
    core: hotpath.Core,
) -> None:
    """At each of its three times."""
    store = lingering(core)
    store.put("key", "value")
    for seconds, plain, fresh, serves in (
        *[(79, True, True, True), (1, False, True, True), (19, False, True, True)],
        *[(1, False, False, True), (49, False, False, True), (1, False, False, False)],
    ):
        store.clock.advance(seconds * SECOND)
        assert (store.find("key") is not None) == plain
        entry = store.look_closer("key")
        assert (entry is not None) == serves
        assert entry is None or store.is_fresh(entry) == fresh


def test_one_of_many_postpones_a_lingering_value(core: hotpath.Core) -> None:
    """Hits are plain again until it expires."""
    store = lingering(core)
    store.put("key", "value")
    store.clock.advance(80 * SECOND)
    entry = store.look_closer("key")
    expires = entry.expires
    assert [store.postpone(entry, expires, entry.fresh) for _ in range(3)] == [True, False, False]
    assert store.find("key") is entry
    store.clock.advance(20 * SECOND)
    assert store.find("key") is None


def test_a_value_that_is_renewed_is_followed_after_its_end(core: hotpath.Core) -> None:
    """No other run begins until the renewal ends."""
    store = lingering(core)
    store.put("key", "value")
    entry = store.look_closer("key")
    store.postpone(entry, entry.expires, entry.fresh)
    flight = store.begin_refresh(entry, 7)
    assert store.begin_refresh(entry, 8) is None
    store.clock.advance(101 * SECOND)
    mine = store.new_run("key", 9)
    assert store.begin(mine) is entry
    assert not store.begin_again(entry, 9)
    assert store.follow(entry) is flight
    store.end_refresh(entry, flight, None, ValueError())
    assert flight.done
    assert store.follow(entry) is None
    assert store.begin_again(entry, 9)
    assert (store.follow(entry).owner, len(store)) == (9, 0)
    store.settle(entry, "new")
    assert (store.find("key").value, len(store)) == ("new", 1)


def test_a_run_that_fails_leaves_the_outdated_value(core: hotpath.Core) -> None:
    """For as long as it may serve."""
    store = lingering(core)
    store.put("key", "value")
    entry = store.look_closer("key")
    for seconds, left in ((101, "value"), (48, "value"), (2, None)):
        store.clock.advance(seconds * SECOND)
        assert store.begin_again(entry, 7)
        assert len(store) == 0
        store.release(entry)
        assert len(store) == 1
        found = store.look_closer("key")
        assert (None if found is None else found.value) == left
        assert store.find("key") is None


@pytest.mark.parametrize("forget", ["drop", "clear"])
def test_a_value_that_dies_while_it_is_renewed_stays_dead(core: hotpath.Core, forget: str) -> None:
    """The late value goes into an entry that no lookup finds."""
    store = lingering(core)
    store.put("key", "value")
    entry = store.look_closer("key")
    store.postpone(entry, entry.expires, entry.fresh)
    flight = store.begin_refresh(entry, 7)
    if forget == "drop":
        store.drop("key")
    else:
        store.clear()
    store.fill(entry, "late")
    store.end_refresh(entry, flight, "late", None)
    assert (store.find("key"), store.look_closer("key"), len(store)) == (None, None, 0)
    assert store.begin_refresh(entry, 7) is None


def test_a_store_without_a_bound_keeps_a_value_as_long_as_it_may_serve(core: hotpath.Core) -> None:
    """No longer than that."""
    store = lingering(core, maxsize=0)
    store.put("old", 1)
    for seconds, there in ((90, True), (40, True), (30, False)):
        store.clock.advance(seconds * SECOND)
        for number in range(3):
            store.put((seconds, number), number)
        assert ("old" in [entry.key for entry in store.entries.values()]) == there


def test_after_a_fork_a_lingering_value_is_renewed_anew(core: hotpath.Core) -> None:
    """The threads that were renewing it exist only in the parent."""
    store = lingering(core)
    store.put("key", "value")
    store.clock.advance(81 * SECOND)
    entry = store.look_closer("key")
    expires = entry.expires
    store.postpone(entry, expires, entry.fresh)
    store.begin_refresh(entry, 7)
    store.strand()
    assert (entry.expires, entry.flight) == (expires, None)
