"""What a map returns: a list that knows what has become of the batch, in every mode and form."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import itertools
import json
import pickle
import threading
import time
import traceback
import weakref

import pytest
from crowd import PATIENCE, run

from opero import (
    AllFailedError,
    AttemptTimeout,
    FailedItem,
    MapResult,
    NotRun,
    WorkerCrashedError,
    opmap,
    subscribe,
)
from opero.map.finished_frames import without_locals
from opero.map.item_notes import note_item
from opero.stores.stored_cache import StoredCache

QUIET = {"progress": False, "workers": 2, "min_delay": 0.001, "max_delay": 0.002}


def third(x):
    if x % 3 == 1:
        raise ValueError(f"no third of {x}")
    return x // 3


async def athird(x):
    await asyncio.sleep(0)
    return third(x)


WAYS = {"thread": third, "async": athird, "process": third, "async_process": athird}
every_way = pytest.mark.parametrize("mode", WAYS)
ways = pytest.mark.parametrize("mode", ["thread", "async"])  # those that share the test's memory


async def aslowly(x):
    await asyncio.sleep(0.2)
    return third(x)


def mapped_third(mode, **options):
    return opmap(mode=mode, **QUIET, **options)(WAYS[mode])


def of_mode(mode, function):
    """Return an ordinary function as one that goes with a mode."""
    if mode == "thread":
        return function

    async def later(*args, **named):
        await asyncio.sleep(0)
        return function(*args, **named)

    return later


def taken(stream):
    """Return what a stream gives, and what it raises at its end."""
    got = []
    try:
        got.extend(stream)
    except Exception as error:  # noqa: BLE001 - it is looked at
        return got, error
    return got, None


def texts(results):
    """Return results in a form that compares."""
    return [repr(each) for each in results]


# --- the list ---------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("ordered", [True, False])
def test_a_batch_tells_its_failures_by_place_and_item(mode, ordered):
    """In the order of the input, however the results come."""
    items = [9, 4, 30, 1, 7, 3]
    batch = mapped_third(mode, retries=2, ordered=ordered)(items)
    assert isinstance(batch, MapResult)
    assert [failure[:2] for failure in batch.failures] == [(1, 4), (3, 1), (4, 7)]
    assert all(isinstance(failure.error, AllFailedError) for failure in batch.failures)
    assert {id(failure.error) for failure in batch.failures} <= set(map(id, batch))
    assert (batch.complete, batch.attempts, batch.retried) == (True, 9, 3)
    assert batch.seconds > 0
    if ordered:
        assert [batch[1], batch[3], batch[4]] == [failure.error for failure in batch.failures]


@every_way
def test_the_awaited_form_returns_the_same(mode):
    """From iterables of both kinds."""

    async def items():
        for x in range(5):
            yield x

    mapped = mapped_third(mode, retries=1)
    for given in (range(5), items()):
        batch = run(mapped.amap(given))
        assert isinstance(batch, MapResult)
        assert [failure[:2] for failure in batch.failures] == [(1, 1), (4, 4)]
        assert (batch.attempts, batch.retried, batch.complete) == (5, 0, True)


def test_a_batch_is_a_list_like_any_other():
    """It compares, prints, slices, is copied and written as JSON as one."""
    batch = opmap(mode="thread", **QUIET)(abs)([-1, 2, -3])
    assert batch == [1, 2, 3]
    assert batch == [1, 2, 3]
    assert batch != [1, 2]
    assert repr(batch) == "[1, 2, 3]"
    assert json.dumps(batch) == "[1, 2, 3]"
    assert type(batch[1:]) is list
    assert type(batch * 2) is list
    assert isinstance(batch, list)
    assert sorted(batch, reverse=True) == [3, 2, 1]
    assert not opmap(mode="thread", **QUIET)(abs)([])
    with pytest.raises(TypeError, match="unhashable"):
        hash(batch)
    with pytest.raises(AttributeError):
        batch.colour = "red"


def test_an_empty_batch_has_figures_too():
    """Nothing failed, nothing was attempted."""
    batch = mapped_third("thread")([])
    assert (batch, batch.failures, batch.complete, batch.attempts) == ([], [], True, 0)
    assert batch.summary().endswith("0 succeeded, 0 attempts")


class Awkward(Exception):
    """Cannot be made from its arguments, which is what a pickle tries."""

    def __init__(self, code, *, why):
        super().__init__(f"{code}: {why}")
        self.code = code


@dataclasses.dataclass(frozen=True, eq=False)
class Frozen(Exception):
    """Lets nobody set an attribute."""

    code: int


class Slotted(Exception):
    """Has a slot beside what every exception has."""

    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Broken(Exception):
    """Does not show its message."""

    def __str__(self):
        raise RuntimeError("no message")


def awkward(x):
    if x == 1:
        raise Awkward(7, why="of that")
    if x == 2:
        raise Frozen(5)
    if x == 3:
        raise Slotted(6)
    if x == 4:
        raise Broken(1)
    if x == 5:
        raise ValueError(threading.Lock())
    return x


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_batch_pickles_whatever_failed_in_it(protocol, pairs):
    """With its figures; a failure is the same object in the list and among the failures."""
    batch = opmap(mode="thread", retries=1, with_items=pairs, **QUIET)(awkward)(range(7))
    copied = pickle.loads(pickle.dumps(batch, protocol))
    assert type(copied) is MapResult
    outcomes = [each[1] for each in copied] if pairs else copied
    assert [outcomes[0], outcomes[6]] == [0, 6]
    kinds = [type(each).__name__ for each in outcomes[1:6]]
    assert kinds == ["Awkward", "Frozen", "Slotted", "Broken", "ErrorStandIn"]
    assert [failure[:2] for failure in copied.failures] == [(x, x) for x in range(1, 6)]
    assert all(failure.error is outcomes[failure.index] for failure in copied.failures)
    assert outcomes[1].code == 7
    assert copied.failures[0].error.__notes__ == ["opero: item 1 of awkward"]
    assert (copied.attempts, copied.seconds) == (batch.attempts, batch.seconds)
    assert copied.summary().partition(" in ")[0] == batch.summary().partition(" in ")[0]


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_batch_can_be_copied(how):
    """With all that it knows."""
    batch = mapped_third("thread", retries=1)(range(5))
    copied = how(batch)
    assert type(copied) is MapResult
    assert texts(copied) == texts(batch)
    assert (copied[0], copied.summary()) == (0, batch.summary())
    assert copied.failures[1].error is copied[4]
    assert (copied[1] is batch[1]) == (how is copy.copy)
    copied.append(1)
    assert len(batch) == 5


def test_an_item_that_cannot_be_pickled_costs_no_pickle_of_the_batch():
    """It is missing in the copy, as the results never had it."""
    locks = [threading.Lock() for _ in range(2)]
    batch = opmap(mode="thread", retries=1, **QUIET)(third)(locks)
    assert [failure.item for failure in batch.failures] == locks
    copied = pickle.loads(pickle.dumps(batch))
    assert [failure.item for failure in copied.failures] == [None, None]
    assert [type(failure.error) for failure in copied.failures] == [TypeError, TypeError]


def test_the_summary_counts_failures_by_the_type_of_the_last_attempt():
    """Not all of them as `AllFailedError`."""

    def work(x):
        raise {0: KeyError, 1: ValueError}.get(x % 3, ValueError)(x) if x < 6 else OSError(x)

    summary = opmap(mode="thread", retries=2, **QUIET)(work)(range(7)).summary()
    assert summary.startswith("test_the_summary_counts")
    assert "work: 7 items in " in summary
    assert "0 succeeded, 7 failed (4 ValueError, 2 KeyError, 1 OSError)" in summary
    assert summary.endswith("14 attempts, 7 of them retries")
    assert "\n" not in summary


@ways
def test_what_the_cache_answers_takes_no_attempt(mode):
    """Nor do equal items; the failures of those are theirs too."""

    def slowly(x):
        time.sleep(0.2)  # so that the equal ones wait for it
        return third(x)

    slowly.__qualname__ = "slowly"
    mapped = opmap(mode=mode, retries=1, cache=True, **QUIET)(
        slowly if mode == "thread" else aslowly
    )
    assert mapped([3]).attempts == 1
    batch = mapped([3, 4, 4, 4])
    assert [failure[:2] for failure in batch.failures] == [(1, 4), (2, 4), (3, 4)]
    assert batch.attempts == 1
    assert batch[1] is batch[2] is batch[3]
    name = "slowly" if mode == "thread" else "aslowly"
    assert batch[1].__notes__ == [f"opero: item 1 of {name}, and 2 equal to it"]


def test_a_returned_exception_is_no_failure():
    """It only looks like one in the list."""
    batch = opmap(mode="thread", retries=1, **QUIET)(lambda x: ValueError(x))([1, 2])
    assert texts(batch) == ["ValueError(1)", "ValueError(2)"]
    assert batch.failures == []
    assert "2 succeeded" in batch.summary()


def test_the_event_of_the_end_has_the_figures():
    """Those of this map, not of all."""
    heard = []
    unsubscribe = subscribe(heard.append, "map_end")
    try:
        mapped = mapped_third("thread", retries=3)
        mapped(range(6))
        mapped(range(3))
    finally:
        unsubscribe()
    assert [(each.items, each.failed, each.attempts, each.retried) for each in heard] == [
        (6, 2, 10, 4),
        (3, 1, 5, 2),
    ]


# --- which item -------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("retries", [1, 2])
@pytest.mark.parametrize("ordered", [True, False])
def test_what_a_map_raises_tells_which_item_it_was(mode, retries, ordered):
    """By a note that every traceback shows; opero's own by attributes, too."""
    mapped = mapped_third(mode, retries=retries, on_error="raise", ordered=ordered, chunk_size=5)
    items = [*range(0, 999, 3), 1000, *range(0, 99, 3)]
    with pytest.raises(ValueError if retries == 1 else AllFailedError) as caught:
        mapped(items)
    assert caught.value.__notes__ == [f"opero: item 333 of {WAYS[mode].__name__}"]
    assert "item 333" in "".join(traceback.format_exception(caught.value))
    if retries == 2:
        assert (caught.value.index, caught.value.item) == (333, 1000)
        copied = pickle.loads(pickle.dumps(caught.value))
        assert (copied.index, copied.item) == (333, 1000)


def slow_or_dead(x):
    if x == 2:
        import os

        os._exit(3)
    if x == 4:
        time.sleep(60)
    return x


def test_the_death_of_a_worker_and_a_time_limit_tell_the_item():
    """It is the one that they ended."""
    mapped = opmap(mode="process", retries=1, attempt_timeout=2, **QUIET)(slow_or_dead)
    batch = mapped([0, 1, 2, 3, 4, 5])
    assert [type(failure.error) for failure in batch.failures] == [
        WorkerCrashedError,
        AttemptTimeout,
    ]
    assert [(each.error.index, each.error.item) for each in batch.failures] == [(2, 2), (4, 4)]
    assert batch[4].__notes__ == ["opero: item 4 of slow_or_dead"]


CONSTANT = KeyError("always the same")


@ways
def test_one_exception_for_many_items_bears_one_note(mode):
    """However many items raise it, and however many maps."""

    def work(x):
        raise CONSTANT

    vars(CONSTANT).pop("__notes__", None)
    for _ in range(3):
        batch = opmap(mode=mode, retries=1, **QUIET)(of_mode(mode, work))(range(50))
        assert all(each is CONSTANT for each in batch)
        assert [failure.index for failure in batch.failures] == list(range(50))
    (note,) = CONSTANT.__notes__
    assert note.startswith("opero: item ")
    assert "items before it" in note


def test_notes_of_the_user_and_of_an_inner_map_stay():
    """Each map adds its own."""

    def inner(x):
        error = ValueError(x)
        error.add_note("mine")
        raise error

    inner.__qualname__ = "inner"
    inner_map = opmap(mode="thread", retries=1, on_error="raise", **QUIET)(inner)

    def outer(x):
        return inner_map([x, x])

    outer.__qualname__ = "outer"
    batch = opmap(mode="thread", retries=1, **QUIET)(outer)([7])
    notes = batch[0].__notes__
    assert notes[0] == "mine"
    assert notes[1].startswith("opero: item ")
    assert notes[1].endswith("of inner")
    assert notes[2] == "opero: item 0 of outer"


@pytest.mark.once
@pytest.mark.parametrize("error", [Frozen(1), Slotted(2), Broken(3), KeyboardInterrupt()])
def test_an_exception_of_any_class_takes_the_note(error):
    """One that refuses attributes gets it all the same, and none breaks."""
    note_item(error, "work", 3, "item")
    note_item(error, "other", 4, "item")
    assert error.__notes__ == ["opero: item 3 of work", "opero: item 4 of other"]
    assert not hasattr(error, "item")


@pytest.mark.once
def test_notes_that_are_no_list_cost_nothing():
    """A class may do as it likes."""

    class Own(Exception):
        @property
        def __notes__(self):
            raise RuntimeError("no notes")

    error = Own()
    note_item(error, "work", 3, "item")
    assert repr(error) == "Own()"


# --- with items -------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("ordered", [True, False])
def test_results_come_behind_their_items(mode, ordered):
    """In all four forms; failures too."""
    mapped = mapped_third(mode, retries=1, with_items=True, ordered=ordered)
    items = [3, 1, 9, 300, 4, 6]

    def check(got):
        assert all(type(each) is tuple and len(each) == 2 for each in got)
        outcomes = dict(got)
        assert {x: outcomes[x] for x in (3, 9, 300, 6)} == {3: 1, 9: 3, 300: 100, 6: 2}
        assert [type(outcomes[x]) for x in (1, 4)] == [ValueError, ValueError]
        if ordered:
            assert [item for item, _ in got] == items

    async def astream():
        return [each async for each in mapped.astream(items)]

    batch = mapped(items)
    check(batch)
    assert [failure[:2] for failure in batch.failures] == [(1, 1), (4, 4)]
    check(list(mapped.stream(iter(items))))
    check(run(mapped.amap(items)))
    check(run(astream()))


@ways
def test_pairs_with_a_cache_and_with_fallback_values_have_the_items_that_were_given(mode):
    """Not what an attempt got in their place."""
    cached = mapped_third(mode, with_items=True, cache=True, ordered=False)
    assert sorted(cached([3, 6, 3])) == [(3, 1), (3, 1), (6, 2)]
    assert cached([3]) == [(3, 1)]

    def first(keys):
        if keys[0] == "bad":
            raise ValueError(keys)
        return keys.pop()

    async def afirst(keys):
        return first(keys)

    options = {"arg_fallback": "keys", "retries": 1, "with_items": True, **QUIET}
    items = [["bad", "good"], ["fine"]]
    batch = opmap(mode=mode, **options)(first if mode == "thread" else afirst)(items)
    assert batch == [(["bad", "good"], "good"), (["fine"], "fine")]
    assert batch[0][0] is items[0]


@ways
@pytest.mark.parametrize("ordered", [True, False])
def test_a_failure_ends_a_map_of_pairs(mode, ordered):
    """The stream gives the pairs that are ready before it."""
    mapped = mapped_third(mode, retries=1, with_items=True, on_error="raise", ordered=ordered)
    got, error = taken(mapped.stream([0, 3, 4, 6]))
    assert isinstance(error, ValueError)
    assert set(got) <= {(0, 0), (3, 1), (6, 2)}
    if ordered:
        assert got in ([], [(0, 0)], [(0, 0), (3, 1)])


# --- when to stop -----------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("ordered", [True, False])
def test_too_many_errors_end_a_map_and_the_rest_did_not_run(mode, ordered):
    """Every item of an input with a length is accounted for."""
    mapped = mapped_third(mode, retries=1, max_errors=3, ordered=ordered, chunk_size=2)
    batch = mapped(range(1000))
    assert len(batch) == 1000
    assert not batch.complete
    left = [each for each in batch if isinstance(each, NotRun)]
    assert 3 <= len(batch.failures) <= 6  # what runs ends
    assert batch.attempts == 1000 - len(left) <= 30
    assert not any(isinstance(failure.error, NotRun) for failure in batch.failures)
    assert all(each.item == each.index for each in left)
    assert f"{len(left)} not run, stopped early" in batch.summary()
    if ordered:
        assert all(batch[each.index] is each for each in left)
    ran = {*range(1000)} - {each.index for each in left}
    assert sorted(each for each in batch if isinstance(each, int)) == sorted(
        x // 3 for x in ran if x % 3 != 1
    )
    again = mapped_third(mode, retries=1)([each.item for each in left])
    assert again.complete
    assert len(again.failures) + len(batch.failures) == 333


@ways
@pytest.mark.parametrize(
    ("most", "bad", "count", "stops"),
    [
        (1, {5}, 10, True),
        (2, {5}, 10, False),
        (3, {7, 8, 9}, 10, False),  # nothing was left to stop
        (0.5, {0, 1, 2, 3, 4}, 15, False),  # too few to tell
        (0.5, {*range(9)}, 40, False),
        (0.5, {*range(20)}, 40, True),
        (0.1, {0, 19}, 40, True),
        (0.1, {0, 25}, 60, False),
        (1.0, {*range(40)}, 60, True),
        (1.0, {*range(1, 40)}, 60, False),
    ],
)
def test_max_errors_is_a_number_or_a_share_of_what_is_done(mode, most, bad, count, stops):
    """A share counts once twenty items are done."""

    def work(x):
        if x in bad:
            raise ValueError(x)
        return x

    options = {**QUIET, "workers": 1}
    mapped = opmap(mode=mode, retries=1, max_errors=most, chunk_size=1, **options)
    batch = mapped(of_mode(mode, work))(range(count))
    assert (not batch.complete) == stops
    assert len(batch) == count
    ran = [x for x, each in enumerate(batch) if not isinstance(each, NotRun)]
    assert ran == list(range(len(ran)))
    if stops:
        failed = len(bad & set(ran))
        assert failed >= most if isinstance(most, int) else failed >= most * len(ran)
    else:
        assert len(ran) == count


@every_way
def test_an_endless_input_is_not_read_any_further(mode):
    """A list has what was read; a stream raises at its end, so that nobody takes it for the whole."""
    mapped = mapped_third(mode, retries=1, max_errors=2)
    read = itertools.count(1)
    batch = mapped(iter(lambda: next(read), -1))
    assert not batch.complete
    assert len(batch) <= next(read)
    assert "stopped early" in batch.summary()
    got, error = taken(mapped.stream(itertools.count(1)))
    assert isinstance(error, NotRun)
    assert error.index == len(got)
    assert error.item is None
    assert sum(isinstance(each, ValueError) for each in got) >= 2

    async def astream():
        got = []
        try:
            async for each in mapped.astream(itertools.count(1)):
                got.append(each)  # noqa: PERF401 - it is kept when the stream raises
        except NotRun as error:
            return got, error

    got, error = run(astream())
    assert error.index == len(got)


@ways
def test_a_stream_of_an_input_with_a_length_accounts_for_every_item(mode):
    """What did not run comes as such, and nothing is raised."""
    mapped = mapped_third(mode, retries=1, max_errors=2)
    got, error = taken(mapped.stream(range(3000)))
    assert error is None
    assert len(got) == 3000
    assert isinstance(got[-1], NotRun)


@ways
def test_only_items_that_failed_for_good_count(mode):
    """One that will be tried again does not; one that waits for that is not tried again."""
    tried = {}

    def work(x):
        tried[x] = tried.get(x, 0) + 1
        if x == "fatal":
            time.sleep(0.05)
            raise KeyError(x)
        if tried[x] == 1 or x == "late":
            raise ValueError(x)
        return x

    mapped = opmap(mode=mode, retries=2, min_delay=0, max_errors=1, workers=2, progress=False)
    batch = mapped(of_mode(mode, work))(["a", "b", "c"])
    assert (batch, batch.complete, batch.retried) == (["a", "b", "c"], True, 3)
    mapped = opmap(
        mode=mode, retries=2, min_delay=30, max_delay=30, max_errors=1, workers=2,
        retry_on=ValueError, progress=False,
    )  # fmt: skip
    tried.clear()
    late, fatal, rest = mapped(of_mode(mode, work))(["late", "fatal", "rest"])
    assert isinstance(late, NotRun)
    assert repr(late.__cause__) == "ValueError('late')"
    assert "was not tried again" in str(late)
    assert isinstance(fatal, KeyError)
    assert isinstance(rest, NotRun)


@every_way
@pytest.mark.parametrize("scope", ["worker", "total"])
def test_items_that_wait_for_a_permit_are_left_out(mode, scope):
    """Though nothing has come of any item beside them yet."""
    limit = {"rate_limit": 10, "rate_limit_scope": scope}
    batch = mapped_third(mode, retries=1, max_errors=1, **limit)([1, 4, 7, 10, 13])
    assert [type(each) for each in batch[-2:]] == [NotRun, NotRun]
    assert "failed (max_errors=1)" in str(batch[-1])


@ways
@pytest.mark.parametrize("scope", ["worker", "total"])
def test_items_of_a_chunk_none_of_which_has_run_are_left_out(mode, scope):
    """They wait for a permit when the map ends."""

    def work(x):
        raise ValueError(x)

    limits = {"rate_limit": 100, "rate_limit_scope": scope}
    mapped = opmap(mode=mode, retries=1, max_errors=1, workers=3, **limits, progress=False)
    batch = mapped(of_mode(mode, work))(range(30))
    assert not batch.complete
    assert [type(result) in {ValueError, NotRun} for result in batch] == [True] * 30
    assert 1 <= len(batch.failures) <= 4
    assert [result.index for result in batch if isinstance(result, NotRun)][-1] == 29


@ways
def test_items_of_a_chunk_that_waits_behind_a_retry_are_left_out(mode):
    """A retry that is due goes first."""

    def work(x):
        if x % 2:
            raise ValueError(x)
        return x

    options = {"retries": 2, "min_delay": 0.002, "max_errors": 2, "workers": 2, "chunk_size": 3}
    for _ in range(3 if "process" in mode else 20):
        batch = opmap(mode=mode, **options, progress=False)(of_mode(mode, work))(range(60))
        assert (len(batch), batch.complete) == (60, False)
        assert all(
            result == place or isinstance(result, (AllFailedError, NotRun))
            for place, result in enumerate(batch)
        )


@ways
def test_equal_items_that_wait_for_one_another_are_left_out_together(mode):
    """And nothing is cached of them."""

    def work(x):
        if x == "bad":
            raise ValueError(x)
        return x

    options = {**QUIET, "workers": 1, "chunk_size": 1}
    mapped = opmap(mode=mode, retries=1, cache=True, max_errors=1, **options)(of_mode(mode, work))
    batch = mapped(["bad", "x", "x", "y", "x"])
    assert [type(each) for each in batch] == [ValueError, *[NotRun] * 4]
    assert [each.index for each in batch[1:]] == [1, 2, 3, 4]
    assert mapped.cache_info().currsize == 0
    assert mapped(["x"]) == ["x"]


@ways
def test_an_item_without_a_key_counts_as_failed(mode):
    """It fails before any attempt."""
    options = {"cache": True, "cache_key": lambda x: 1 // (x - x), "max_errors": 2, **QUIET}
    batch = opmap(mode=mode, retries=1, **options)(of_mode(mode, abs))(range(100))
    assert len(batch.failures) >= 2
    assert batch.attempts == 0
    assert len(batch) == 100


@ways
def test_what_does_not_run_is_not_looked_up_in_a_store(mode, tmp_path, monkeypatch):
    """Each look takes its time."""
    looked = []

    def find_many(self, keys, find=StoredCache.find_many):
        looked.extend(keys)
        return find(self, keys)

    monkeypatch.setattr(StoredCache, "find_many", find_many)
    options = {"cache_dir": tmp_path, "cache_secret": 16 * "s", "cache_namespace": f"rest {mode}"}
    mapped = mapped_third(
        mode, retries=1, max_errors=1, cache=True, cache_backend="disk", **options
    )
    batch = mapped(range(50_000))
    assert len(batch) == 50_000
    assert isinstance(batch[-1], NotRun)
    assert len(looked) < 40_000


def test_the_end_by_errors_is_told(caplog):
    """A warning, and the reason in the event."""
    heard = []
    unsubscribe = subscribe(heard.append, "map_end")
    try:
        mapped_third("thread", retries=1, max_errors=2, chunk_size=1)(range(100))
    finally:
        unsubscribe()
    (event,) = heard
    assert event.reason == "too many items failed"
    assert event.items < 20
    assert "third: 2 items have failed, which ends the map" in caplog.text


@pytest.mark.once
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_errors": 0}, "1 ends the map with the first"),
        ({"max_errors": -2}, "a whole number of 1 or more"),
        ({"max_errors": 0.0}, "share between 0.0 and 1.0"),
        ({"max_errors": 1.5}, "share between 0.0 and 1.0"),
        ({"max_errors": float("nan")}, "share between 0.0 and 1.0"),
        ({"max_errors": True}, "max_errors=True"),
        ({"max_errors": "10%"}, "max_errors='10%'"),
        ({"max_errors": 3, "on_error": "raise"}, "leave one of them out"),
        ({"with_items": 1}, "True or False"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(given, words):
    """At decoration."""
    with pytest.raises((TypeError, ValueError), match=words):
        opmap(mode="thread", **given)(abs)


# --- what is kept -----------------------------------------------------------------------------------


class Thing:
    """Can be watched."""

    def __init__(self, number):
        self.number = number


def gone(things):
    """Return whether nothing of a weak set is left, once other threads have let go of it, too."""
    deadline = time.monotonic() + PATIENCE
    while len(things) and time.monotonic() < deadline:
        time.sleep(0.001)
    return not len(things)


def watched(things, seen):
    """Return a function whose attempts hold things, several frames deep, and fail if odd."""

    def load(item):
        mine = Thing(item.number)
        seen.append(weakref.ref(mine))
        try:
            {}["no such key"]
        except KeyError as error:
            if item.number % 2:
                raise ValueError(item.number) from error
        return Thing(-item.number)

    def work(item):
        mine = Thing(item.number)
        seen.append(weakref.ref(mine))
        closure = [lambda: mine]
        result = load(item)
        things.append(weakref.ref(result))
        del closure
        return result

    return work


@ways
@pytest.mark.parametrize("form", ["plain", "awaited"])
@pytest.mark.parametrize("retries", [1, 3])
def test_failures_keep_neither_locals_nor_the_other_items(mode, form, retries):
    """The traceback shows file, line and source all the same, with its causes."""
    seen = []
    items = [Thing(number) for number in range(20)]
    given = [weakref.ref(item) for item in items]
    mapped = opmap(mode=mode, retries=retries, chunk_size=4, **QUIET)
    function = mapped(of_mode(mode, watched([], seen)))
    held = [items]
    del items
    batch = function(held.pop()) if form == "plain" else run(function.amap(held.pop()))
    gc.collect()
    assert len(seen) >= 40
    assert not any(each() for each in seen)
    assert [each() is not None for each in given] == [False, True] * 10
    text = "".join(traceback.format_exception(batch[5]))
    assert "raise ValueError(item.number) from error" in text
    assert 'in load\n    {}["no such key"]' in text
    assert "result = load(item)" in text
    assert __file__ in text


@ways
def test_what_a_failing_map_raises_keeps_no_locals(mode):
    """Nor does the one of a stream."""
    seen = []
    mapped = opmap(mode=mode, retries=2, on_error="raise", **QUIET)
    function = mapped(of_mode(mode, watched([], seen)))
    _, error = taken(function.stream([Thing(2), Thing(1)]))
    gc.collect()
    assert isinstance(error, AllFailedError)
    assert not any(each() for each in seen)


@ways
@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream_keeps_no_result_that_was_taken(mode, ordered):
    """Each is free when its consumer lets go of it."""
    things = []
    mapped = opmap(mode=mode, retries=1, ordered=ordered, **QUIET)
    stream = mapped(of_mode(mode, watched(things, [])))
    results = stream.stream(Thing(2 * number) for number in range(200))
    alive = weakref.WeakSet()
    for result in results:
        alive.add(result)
        del result
        assert gone(alive)
    assert len(things) == 200


def thing(x):
    return Thing(x)


async def athing(x):
    return Thing(x)


@pytest.mark.parametrize("mode", ["process", "async_process"])
@pytest.mark.parametrize("form", ["stream", "astream"])
@pytest.mark.parametrize("pairs", [False, True])
def test_a_stream_from_processes_keeps_no_result_that_was_taken(mode, form, pairs):
    """In both forms, alone or behind its item."""
    mapped = opmap(mode=mode, retries=1, with_items=pairs, **QUIET)
    stream = getattr(mapped(thing if mode == "process" else athing), form)(range(100))
    alive = weakref.WeakSet()
    taken = []

    def take(result):
        alive.add(result[1] if pairs else result)
        taken.append(1)

    async def main():
        async for result in stream:
            take(result)
            del result
            assert gone(alive)

    if form == "astream":
        run(main())
    else:
        for result in stream:
            take(result)
            del result
            assert gone(alive)
    assert len(taken) == 100


@pytest.mark.once
def test_a_frame_that_has_not_ended_keeps_its_variables():
    """A generator that has caught an exception goes on, and so does a coroutine, and a function."""
    caught = []

    def risky():
        raise ValueError("caught")

    def generator():
        for number in range(3):
            try:
                risky()
            except ValueError as error:
                caught.append(error)
            yield number

    async def coroutine():
        mine = Thing(2)
        for _ in range(3):
            try:
                risky()
            except ValueError as error:
                caught.append(error)
            await asyncio.sleep(0)
        return mine.number

    running = generator()
    assert next(running) == 0
    without_locals(caught[0])
    assert list(running) == [1, 2]
    suspended = coroutine()
    suspended.send(None)
    without_locals(caught[-1])
    suspended.send(None)
    suspended.send(None)
    with pytest.raises(StopIteration) as ended:
        suspended.send(None)
    assert ended.value.value == 2
    mine = Thing(1)
    try:
        risky()
    except ValueError as error:
        without_locals(error)
    assert mine.number == 1


@pytest.mark.once
def test_the_causes_and_the_members_of_a_group_let_go_of_their_variables_too():
    """However they hang together, in a circle even."""
    seen = []

    def fail(number):
        mine = Thing(number)
        seen.append(weakref.ref(mine))
        raise ValueError(number)

    errors = []
    for number in range(4):
        try:
            fail(number)
        except ValueError as error:
            errors.append(error)
    group = ExceptionGroup("several", errors[:2])
    group.__cause__ = errors[2]
    errors[2].__context__ = errors[3]
    errors[3].__context__ = group
    without_locals(group)
    gc.collect()
    assert not any(each() for each in seen)
    errors[3].__context__ = None


def test_a_failed_item_is_a_named_tuple():
    """It unpacks."""
    batch = mapped_third("thread", retries=1)([1])
    ((index, item, error),) = batch.failures
    assert (index, item) == (0, 1)
    assert batch.failures == [FailedItem(0, 1, error)]
