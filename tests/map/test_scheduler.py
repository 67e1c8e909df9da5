"""The map's scheduler, without any worker: a simulation reports what hypothesis makes up."""

from __future__ import annotations

import gc
import math
import random
import weakref
from collections import Counter
from itertools import islice
from typing import Any, NamedTuple

import pytest
from crowd import standing_clock
from hypothesis import given
from hypothesis import strategies as st

from opero import (
    AllFailedError,
    AttemptTimeout,
    DeadlineExceeded,
    RateLimiter,
    get_logger,
    hotpath,
    opero,
)
from opero.core.clock import NEVER
from opero.map.gates import MapGates
from opero.map.invocation import Invocation
from opero.map.output import NOTHING
from opero.map.scheduler import Scheduler
from opero.stats import Stats

MILLISECOND = 10**6


class Flop(Exception):
    """An error that is worth a retry."""


class Fatal(Exception):
    """An error that is not worth a retry."""


class Crash(Exception):
    """The error that reports a worker's death."""


class Script(NamedTuple):
    """The outcomes of one item's attempts, in order; the last one repeats."""

    outcomes: tuple[str, ...]

    def outcome(self, attempt: int) -> str:
        """Return what comes of attempt number `attempt`, counted from 0."""
        return self.outcomes[min(attempt, len(self.outcomes) - 1)]


class World:
    """Simulated workers: each runs one job with the outcomes of the scripts."""

    def __init__(self, scheduler: Scheduler, scripts: list[Script], slots: int, dice: Any) -> None:
        self.scheduler = scheduler
        self.scripts = scripts
        self.dice = dice
        self.clock = scheduler.call.clock
        self.idle = list(range(slots))
        self.running: dict[int, Any] = {}
        self.attempts: Counter[Any] = Counter()
        self.starts: list[tuple[int, int, Any]] = []
        self.begun: dict[Any, int] = {}
        self.earliest: dict[Any, int] = {}
        self.latest: dict[Any, int] = {}
        self.results: list[Any] = []
        self.most_read_ahead = 0
        self.largest = 1

    def run(self, items: list[Any], crashes: bool = True) -> list[Any]:
        """Go through the whole map and return its results."""
        scheduler = self.scheduler
        source = iter(items)
        while not scheduler.over:
            moved = self.feed(source) + self.hand_out()
            if self.dice.random() < 0.7:
                moved += self.collect()
            if moved:
                continue
            wake = scheduler.wake(self.clock.now())
            waits = bool(self.idle) and wake != NEVER
            if self.running and (not waits or self.dice.random() < 0.6):
                self.finish(self.dice.choice(sorted(self.running)), crashes)
            elif waits:
                assert wake > self.clock.now(), "a driver would spin"
                self.clock.move_to(wake - 1)
                for slot in self.idle:
                    assert scheduler.assign(slot, wake - 1) is None, "a driver would oversleep"
                self.clock.move_to(wake)
                settled = scheduler.settled
                if not self.hand_out() and scheduler.settled == settled:
                    assert scheduler._permits, "a driver would wake in vain"
            else:
                assert self.collect(), "nothing can happen any more, and not all is done"
        self.collect()
        return self.results

    def feed(self, source: Any) -> int:
        """Read as much input as the scheduler asks for."""
        count = self.scheduler.demand()
        if not count:
            return 0
        self.largest = max(self.largest, self.scheduler.sizer.size())
        values = list(islice(source, count))
        self.scheduler.feed(values)
        if len(values) < count:
            self.scheduler.close()
        ahead = self.scheduler.read - self.scheduler.handed
        self.most_read_ahead = max(self.most_read_ahead, ahead)
        return 1

    def hand_out(self) -> int:
        """Give every idle worker a job."""
        moved = 0
        now = self.clock.now()
        for slot in list(self.idle):
            job = self.scheduler.assign(slot, now)
            if job is None:
                continue
            moved = 1
            self.idle.remove(slot)
            self.running[slot] = job
            assert job.values
            if job.trial is not None:
                (value,) = job.values  # what has failed is tried alone
                assert now >= self.earliest[value], "a retry before its delay is over"
                assert now < self.latest[value], "an attempt after its deadline"
            for value in job.values:
                self.begun[value] = now
            self.starts += [(slot, now, value) for value in job.values]
        return moved

    def collect(self) -> int:
        """Take what is ready."""
        ready = self.scheduler.collect()
        self.results += ready
        return len(ready)

    def finish(self, slot: int, crashes: bool) -> None:
        """Let one worker report what its script says."""
        job = self.running.pop(slot)
        self.idle.append(slot)
        self.clock.advance(self.dice.randrange(5 * MILLISECOND))
        results: list[Any] = []
        failures: list[tuple[int, BaseException]] = []
        for place, value in enumerate(job.values):
            attempt = self.attempts[value]
            outcome = self.scripts[value].outcome(attempt)
            if outcome == "crash" and crashes:
                known = self.dice.randint(0, place)
                kept = [failure for failure in failures if failure[0] < known]
                for other in job.values[:known]:
                    self.attempts[other] += 1
                self.attempts[value] += 1
                for each in [value, *(job.values[place] for place, _ in kept)]:
                    self.note(each)
                self.scheduler.crash(job, results[:known], kept, place, Crash())
                return
            results.append(NOTHING if outcome != "ok" else ("done", value, attempt))
            if outcome != "ok":
                failures.append((place, Flop(value) if outcome != "fatal" else Fatal(value)))
        for value in job.values:
            self.attempts[value] += 1
        for place, _ in failures:
            self.note(job.values[place])
        self.scheduler.report(job, results, failures, self.dice.randrange(MILLISECOND))

    def note(self, value: Any) -> None:
        """Note the earliest time at which an item may be retried."""
        call = self.scheduler.call
        self.earliest[value] = self.clock.now() + int(call.policy.min_delay * 1e9)
        self.latest.setdefault(value, self.begun[value] + (call.timeout or NEVER))


def identity(x: Any) -> Any:
    """Pose as the function; no worker ever calls it."""
    return x


def new_scheduler(
    function: Any, slots: int, window: int, ordered: bool, gates: Any = None, chunk: int = 0
) -> Scheduler:
    """Make a scheduler whose chunks are sized by measured time, or fixed."""
    sizer = hotpath.core.ChunkSizer(slots, 2 * MILLISECOND, chunk, -1)
    return Scheduler(function.__opero__, {}, sizer, window, ordered, gates)


def gates_of(function: Any, workers: int = 0) -> MapGates | None:
    """Return the gates of a map, for each of some workers or for all together."""
    if not function.__opero__.queues:
        return None
    return MapGates(function.__opero__.queues, workers, function.__opero__.clock)


scripts = st.lists(
    st.lists(st.sampled_from(["ok", "ok", "flop", "fatal", "crash"]), min_size=1, max_size=5).map(
        lambda outcomes: Script(tuple(outcomes))
    ),
    max_size=60,
)


def expected(script: Script, value: int, rounds: int) -> Any:
    """Return the right outcome of an item: its value, or the type of its failure."""
    for attempt in range(rounds):
        outcome = script.outcome(attempt)
        if outcome == "ok":
            return ("done", value, attempt)
        if outcome == "fatal":
            return Fatal
    if rounds > 1:
        return AllFailedError
    return Crash if script.outcome(0) == "crash" else Flop


def seen(outcome: Any) -> Any:
    """Return a result in the same form."""
    return type(outcome) if isinstance(outcome, BaseException) else outcome


@given(
    scripts=scripts,
    slots=st.integers(1, 5),
    window=st.integers(1, 40),
    ordered=st.booleans(),
    retries=st.integers(1, 4),
    chunk=st.sampled_from([0, 0, 1, 7]),
    seed=st.integers(0, 2**32),
)
def test_every_item_has_exactly_one_outcome(
    core, scripts, slots, window, ordered, retries, chunk, seed
):
    """Whatever fails, crashes or is late, outcomes are right, in order, within the window."""
    function = opero(retries=retries, retry_on=(Flop, Crash), min_delay=0.01)(identity)
    scheduler = new_scheduler(function, slots, window, ordered, chunk=chunk)
    items = list(range(len(scripts)))
    with standing_clock(core.clock):
        world = World(scheduler, scripts, slots, random.Random(seed))
        results = [seen(result) for result in world.run(items)]
    wanted = [expected(script, value, retries) for value, script in enumerate(scripts)]
    if ordered:
        assert results == wanted
    else:
        assert Counter(results) == Counter(wanted)
    assert world.most_read_ahead <= max(window, 4 * slots * world.largest)
    assert (scheduler.read, scheduler.settled, scheduler.handed) == (len(items),) * 3
    assert scheduler.output.failed == sum(isinstance(each, type) for each in wanted)
    assert all(world.attempts[value] <= retries for value in items)
    assert not world.running
    assert scheduler._heap == []
    assert not scheduler._queue
    assert not scheduler.output._order


@given(
    items=st.lists(st.integers(0, 8), max_size=50),
    stored=st.sets(st.integers(0, 8)),
    scripts=st.lists(
        st.sampled_from([("ok",), ("flop", "ok"), ("flop",), ("fatal",)]), min_size=9, max_size=9
    ),
    slots=st.integers(1, 4),
    window=st.integers(1, 30),
    ordered=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_equal_items_share_a_run_and_stored_ones_need_none(
    core, items, stored, scripts, slots, window, ordered, seed
):
    """A success is stored; all waiting items share a failure, which is not stored."""
    function = opero(retries=2, retry_on=(Flop,), min_delay=0.01, cache=True)(identity)
    for value in stored:
        function.__opero__.store.put(value, ("stored", value))
    scheduler = new_scheduler(function, slots, window, ordered)
    with standing_clock(core.clock):
        world = World(scheduler, list(map(Script, scripts)), slots, random.Random(seed))
        results = world.run(items)
    started = Counter(value for _, _, value in world.starts)
    wanted = []
    for value in items:
        outcome = expected(Script(scripts[value]), value, 2)
        wanted.append(("stored", value) if value in stored else outcome)
        if value in stored:
            assert not started[value]
        elif isinstance(outcome, tuple):
            assert started[value] == len(scripts[value])
            assert function.__opero__.store.find(value).value == outcome
        else:
            assert function.__opero__.store.find(value) is None
    if ordered:
        assert list(map(seen, results)) == wanted
    else:
        assert Counter(map(seen, results)) == Counter(wanted)
    assert scheduler._runs.under_way == {}
    assert scheduler._leaders == {}
    assert function.__opero__.store.flights == {}
    assert function.cache_info().hits + function.cache_info().misses == len(items)


@given(
    scripts=scripts,
    slots=st.integers(1, 4),
    rate=st.sampled_from([50, 1000, 7]),
    burst=st.integers(1, 5),
    total=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_permits_are_never_exceeded(core, scripts, slots, rate, burst, total, seed):
    """In any time w, at most burst + rate * w attempts start, in all or per worker."""
    options = {"retries": 3, "retry_on": (Flop, Crash), "min_delay": 0, "max_delay": 0}
    function = opero(**options, rate_limit=rate, burst=burst)(identity)
    scheduler = new_scheduler(function, slots, 100, True, gates_of(function, 0 if total else slots))
    with standing_clock(core.clock):
        world = World(scheduler, scripts, slots, random.Random(seed))
        world.run(list(range(len(scripts))))
    assert scheduler.settled == len(scripts)
    for slot in range(1 if total else slots):
        times = [now for who, now, _ in world.starts if total or who == slot]
        for first in range(len(times)):
            for last in range(first, len(times)):
                passed = (times[last] - times[first]) / 1e9
                assert last - first + 1 <= burst + math.floor(rate * passed + 1e-9)


@given(
    scripts=scripts,
    slots=st.integers(1, 4),
    timeout=st.sampled_from([0.005, 0.05, 1]),
    limited=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_no_attempt_begins_after_its_deadline(core, scripts, slots, timeout, limited, seed):
    """An item whose next attempt could not begin in time ends with `DeadlineExceeded`."""
    options = {"retries": 5, "retry_on": (Flop, Crash), "min_delay": 0.004, "max_delay": 0.02}
    rate = 200 if limited else None
    function = opero(**options, timeout=timeout, rate_limit=rate)(identity)
    scheduler = new_scheduler(function, slots, 100, True, gates_of(function))
    with standing_clock(core.clock):
        world = World(scheduler, scripts, slots, random.Random(seed))
        results = world.run(list(range(len(scripts))))
    for value, result in enumerate(results):
        right = expected(scripts[value], value, 5)
        assert seen(result) == right or isinstance(result, DeadlineExceeded)


def test_a_failure_of_arguments_that_do_not_fit_is_not_tried_again(core):
    """It would fail in the same way each time."""

    @opero(retries=3)
    def two(x, y):
        return x

    scheduler = new_scheduler(two, 1, 10, True)
    scheduler.feed([1])
    scheduler.close()
    job = scheduler.assign(0, core.clock.now())
    error = TypeError("two() missing 1 required positional argument: 'y'")
    scheduler.report(job, [NOTHING], [(0, error)], 1)
    assert scheduler.over
    assert scheduler.collect() == [error]


def test_fallback_values_take_their_place_one_after_the_other(core):
    """They follow without delay; the round fails when the last one has failed."""

    @opero(retries=2, min_delay=1, max_delay=1, arg_fallback={"model": ["b", "c"]})
    def ask(question, model="a"):
        return question

    scheduler = new_scheduler(ask, 1, 10, True)
    with standing_clock(core.clock):
        scheduler.feed(["q"])
        scheduler.close()
        tried = []
        for _ in range(6):
            wake = scheduler.wake(core.clock.now())
            if wake != NEVER:
                core.clock.move_to(wake)
            job = scheduler.assign(0, core.clock.now())
            (given,) = job.values
            given = given if job.invoked else Invocation((given,), {})
            assert given.args[0] == "q"
            tried.append((given, core.clock.now()))
            scheduler.report(job, [NOTHING], [(0, Flop())], 1)
    models = [named.get("model", [*args, "a"][1]) for (args, named), _ in tried]
    assert models == ["a", "b", "c", "a", "b", "c"]
    assert tried[3][1] - tried[2][1] == 10**9
    assert tried[2][1] == tried[0][1]
    assert isinstance(scheduler.collect()[0], AllFailedError)


def test_an_item_that_holds_no_fallback_values_fails_alone(core):
    """The others run, and no worker sees it."""

    @opero(retries=2, arg_fallback="keys")
    def use(keys):
        return keys

    scheduler = new_scheduler(use, 1, 10, True, chunk=3)
    scheduler.feed([["a"], "no list", ["b"]])
    scheduler.close()
    job = scheduler.assign(0, core.clock.now())
    assert job.values == [["a"], ["b"]]
    scheduler.report(job, [1, 2], [], 1)
    first, error, last = scheduler.collect()
    assert (first, last) == (1, 2)
    assert isinstance(error, ValueError)


def test_a_worker_that_dies_between_two_items_costs_none(core):
    """Its remaining items go to another worker, and reported results stay."""
    scheduler = new_scheduler(opero(retries=1)(identity), 2, 10, True, chunk=4)
    scheduler.feed([0, 1, 2, 3])
    scheduler.close()
    job = scheduler.assign(0, core.clock.now())
    scheduler.crash(job, ["zero"], [], None, Crash())
    job = scheduler.assign(1, core.clock.now())
    assert job.values == [1, 2, 3]
    scheduler.report(job, ["one", "two", "three"], [], 1)
    assert scheduler.collect() == ["zero", "one", "two", "three"]
    assert scheduler.output.failed == 0


def test_what_a_dead_worker_leaves_goes_before_what_is_in_line(core):
    """Its items came earlier, and others may wait for them."""
    scheduler = new_scheduler(opero(retries=1)(identity), 2, 20, True, chunk=2)
    scheduler.feed([0, 1])
    job = scheduler.assign(0, core.clock.now())
    scheduler.feed([2, 3])
    scheduler.crash(job, [], [], 0, Crash())
    assert scheduler.assign(0, core.clock.now()).values == [1]
    assert scheduler.assign(1, core.clock.now()).values == [2, 3]


def test_a_failure_that_no_attempt_can_mend_is_final(core):
    """A lost executor causes one; it counts as a failed run."""
    error = Flop()
    error.beyond_retry = True  # type: ignore[attr-defined]
    function = opero(retries=5)(identity)
    scheduler = new_scheduler(function, 1, 10, True)
    scheduler.feed([1])
    scheduler.report(scheduler.assign(0, core.clock.now()), [NOTHING], [(0, error)], 1)
    assert scheduler.collect() == [error]
    assert (function.stats().failures, function.stats().retries) == (1, 0)


def test_retries_that_are_due_at_the_same_time_keep_their_order(core):
    """Nothing else is compared."""
    scheduler = new_scheduler(opero(min_delay=1, max_delay=1)(identity), 1, 10, True, chunk=2)
    with standing_clock(core.clock):
        scheduler.feed([1, 2])
        job = scheduler.assign(0, core.clock.now())
        scheduler.report(job, [NOTHING] * 2, [(0, Flop()), (1, Flop())], 1)
        core.clock.advance(10**9)
        assert scheduler.assign(0, core.clock.now()).values == [1]
        assert scheduler.assign(0, core.clock.now()).values == [2]


# --- how far ahead --------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(("window", "bound"), [(20, 20), (1, 8), (0, 1000)])
def test_reading_stops_where_the_window_ends(core, ordered, window, bound):
    """A slow item or an idle consumer stops it, and it continues later."""
    scheduler = new_scheduler(opero(identity), 2, window, ordered, chunk=1)
    scheduler.feed([0])
    slow = scheduler.assign(0, core.clock.now())
    while scheduler.read < bound and scheduler.demand():
        scheduler.feed([scheduler.read])
        run_one(scheduler, "done")
    assert scheduler.read == bound
    assert scheduler.demand() == (0 if window else 1)
    assert len(scheduler.collect()) == (0 if ordered else bound - 1)
    scheduler.report(slow, ["slow"], [], 1)
    assert len(scheduler.collect()) == (bound if ordered else 1)
    assert scheduler.demand() == 1


def test_nothing_is_read_while_there_is_work_in_line(core):
    """Otherwise the input would run ahead of the workers."""
    scheduler = new_scheduler(opero(identity), 2, 0, True, chunk=3)
    assert scheduler.demand() == 3
    scheduler.feed([1, 2, 3])
    assert scheduler.demand() == 0
    scheduler.assign(0, core.clock.now())
    assert scheduler.demand() == 3
    scheduler.close()
    assert scheduler.demand() == 0


def test_what_has_been_read_is_told_to_the_sizer(core):
    """That makes the last chunks small."""
    sizer = hotpath.core.ChunkSizer(1, MILLISECOND, 0, 10)
    Scheduler(opero(identity).__opero__, {}, sizer, 0, True).feed([1, 2, 3])
    assert sizer.left == 7


def test_a_report_tells_the_sizer_how_long_its_items_took(core):
    """The next chunk becomes larger or smaller."""
    scheduler = new_scheduler(opero(identity), 1, 0, True)
    scheduler.feed([1])
    scheduler.report(scheduler.assign(0, core.clock.now()), [1], [], 1000)
    assert (scheduler.sizer.pace, scheduler.demand()) == (1000, 4)


@pytest.mark.parametrize("options", [{"timeout": 5}, {"rate_limit": 5}], ids=str)
def test_items_that_begin_when_they_are_handed_out_go_one_by_one(core, options):
    """Items that wait within a chunk may have neither a deadline nor a permit."""
    function = opero(**options)(identity)
    scheduler = new_scheduler(function, 2, 10, True, gates_of(function), chunk=3)
    assert scheduler.demand() == 1


# --- bad items, and bad options -------------------------------------------------------------------


class Sour:
    """A value that raises in every comparison."""

    def __init__(self, mood: int = 0) -> None:
        self.mood = mood

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        raise Flop("do not compare me")


class Nameless:
    """A value that cannot have a key."""

    __hash__ = None  # type: ignore[assignment]


def key_of(x: Any) -> Any:
    """Make a key of strings only."""
    if isinstance(x, str):
        raise Flop(x)
    return x


@pytest.mark.parametrize(
    ("options", "bad", "kind"),
    [
        ({"cache_key": key_of}, "no key", Flop),
        ({"cache_key": lambda x: x}, Nameless(), TypeError),
        ({}, Nameless(), TypeError),
    ],
    ids=["cache_key", "the key of cache_key", "the item"],
)
def test_an_item_without_a_key_fails_alone(core, options, bad, kind):
    """The other items succeed, and no worker sees it."""
    function = opero(cache=True, **options)(identity)
    scheduler = new_scheduler(function, 1, 10, True, chunk=3)
    scheduler.feed([1, bad, 2])
    scheduler.close()
    job = scheduler.assign(0, core.clock.now())
    assert job.values == [1, 2]
    scheduler.report(job, ["one", "two"], [], 1)
    first, error, last = scheduler.collect()
    assert (first, last) == ("one", "two")
    assert isinstance(error, kind)
    assert (scheduler.output.failed, scheduler.over) == (1, True)


def test_keys_that_do_not_let_themselves_be_compared_cost_only_their_items(core):
    """At worst such an item fails, or is not stored."""
    function = opero(cache=True, cache_key=lambda x: x)(identity)
    scheduler = new_scheduler(function, 1, 10, True, chunk=4)
    scheduler.feed([Sour(), Sour(), 3])
    scheduler.close()
    job = scheduler.assign(0, core.clock.now())
    scheduler.report(job, list(range(len(job.values))), [], 1)
    assert scheduler.over
    assert len(scheduler.collect()) == 3
    scheduler.end()


def test_a_predicate_that_raises_fails_its_item_alone(core):
    """Its error is the item's failure, and refers to the attempt's."""

    def worth(error):
        raise Fatal("which one?")

    scheduler = new_scheduler(opero(retries=3, retry_on=worth)(identity), 1, 10, True, chunk=2)
    scheduler.feed([1, 2])
    scheduler.close()
    job = scheduler.assign(0, core.clock.now())
    flop = Flop()
    scheduler.report(job, [NOTHING, "two"], [(0, flop)], 1)
    error, result = scheduler.collect()
    assert isinstance(error, Fatal)
    assert error.__context__ is flop
    assert result == "two"
    assert scheduler.over


# --- invalidation, and maps beside each other ------------------------------------------------------


def run_one(scheduler: Scheduler, result: Any) -> None:
    """Hand out one job, and report one outcome for each of its items."""
    job = scheduler.assign(0, scheduler.call.clock.now())
    scheduler.report(job, [result] * len(job.values), [], 1)


async def aidentity(x: Any) -> Any:
    """Pose as a coroutine function."""
    return x


@pytest.mark.parametrize("function", [identity, aidentity], ids=["plain", "coroutine"])
@pytest.mark.parametrize("by", ["key", "function", "nothing"])
def test_what_is_invalidated_while_it_runs_is_not_stored(core, function, by):
    """Later items do not get it either; earlier ones share it."""
    call = opero(cache=True)(function)
    scheduler = new_scheduler(call, 1, 20, True, chunk=2)
    scheduler.feed([1, 1])
    job = scheduler.assign(0, core.clock.now())
    assert job.values == [1]
    if by == "key":
        call.cache_invalidate(1)
    elif by == "function":
        call.cache_clear()
    scheduler.feed([1, 2])
    scheduler.close()
    scheduler.report(job, ["old"], [], 1)
    assert (call.__opero__.store.find(1) is None) == (by != "nothing")
    while not scheduler.over:
        run_one(scheduler, "new")
    later = "old" if by == "nothing" else "new"
    assert scheduler.collect() == ["old", "old", later, "new"]
    assert call.__opero__.store.find(1).value == later
    assert call.__opero__.store.flights == {}


@pytest.mark.parametrize("function", [identity, aidentity], ids=["plain", "coroutine"])
def test_maps_at_the_same_time_do_not_wait_for_each_other_and_both_store(core, function):
    """One map's end, even by a failure, does not prevent the other's value."""
    call = opero(cache=True, retries=1)(function)
    one, other = (new_scheduler(call, 1, 10, True) for _ in range(2))
    for scheduler in (one, other):
        scheduler.feed([1])
        scheduler.close()
    job = one.assign(0, core.clock.now())
    one.report(job, [NOTHING], [(0, Fatal())], 1)
    one.end()
    assert call.__opero__.store.find(1) is None
    run_one(other, "value")
    assert call.__opero__.store.find(1).value == "value"
    assert call.__opero__.store.flights == {}


def test_the_end_of_a_map_leaves_nothing_behind(core):
    """No run, place in a line, or item remains."""
    limiter = RateLimiter(1)
    call = opero(cache=True, rate_limit=limiter)(identity)
    scheduler = new_scheduler(call, 1, 10, True, gates_of(call))
    with standing_clock(core.clock):
        assert limiter.try_acquire()
        scheduler.feed([1])
        assert scheduler.assign(0, core.clock.now()) is None
        assert limiter._bucket.queued == 1
        scheduler.end()
        assert limiter._bucket.queued == 0
    assert call.__opero__.store.flights == {}
    assert not scheduler._queue
    assert scheduler.demand() == 0


# --- permits --------------------------------------------------------------------------------------


def test_a_map_stands_in_the_line_of_a_shared_limiter(core):
    """A later caller does not get the permit that the map waits for."""
    limiter = RateLimiter(10)
    function = opero(rate_limit=limiter)(identity)
    scheduler = new_scheduler(function, 1, 10, True, gates_of(function))
    scheduler.feed([1])
    with standing_clock(core.clock):
        assert limiter.try_acquire()
        assert scheduler.assign(0, core.clock.now()) is None
        later = limiter._queue.standby()
        assert later.enter(core.clock.now()) > 0
        core.clock.move_to(scheduler.wake(core.clock.now()))
        assert later.enter(core.clock.now()) > 0
        assert scheduler.assign(0, core.clock.now()).values == [1]
        assert function.stats().permit_wait == pytest.approx(0.1)
        core.clock.advance(10**8)
        assert later.enter(core.clock.now()) == 0
    assert limiter._bucket.queued == 0


def test_a_permit_that_nobody_wants_any_more_goes_to_the_next(core):
    """A map without items does not hold up the others."""
    limiter = RateLimiter(10)
    function = opero(rate_limit=limiter, timeout=0.15, retries=2, min_delay=0, max_delay=0)
    call = function(identity)
    scheduler = new_scheduler(call, 1, 10, True, gates_of(call))
    scheduler.feed([1])
    with standing_clock(core.clock):
        job = scheduler.assign(0, core.clock.now())
        scheduler.report(job, [NOTHING], [(0, Flop())], 1)
        assert scheduler.assign(0, core.clock.now()) is None
        core.clock.advance(2 * 10**8)
        assert scheduler.assign(0, core.clock.now()) is None  # it was too late
        assert isinstance(scheduler.collect()[0], DeadlineExceeded)
        assert limiter._bucket.queued == 0
        assert limiter.try_acquire()


def test_each_worker_has_permits_of_its_own(core):
    """Without `rate_limit_scope="total"`, a waiting worker leaves its item to another."""
    function = opero(rate_limit=10)(identity)
    scheduler = new_scheduler(function, 2, 10, True, gates_of(function, 2))
    with standing_clock(core.clock):
        scheduler.feed([1])
        assert scheduler.assign(0, core.clock.now()).values == [1]
        scheduler.feed([2])
        assert scheduler.assign(0, core.clock.now()) is None
        assert scheduler.assign(1, core.clock.now()).values == [2]


def test_a_wait_for_a_permit_counts_from_the_first_refusal_to_the_start(core):
    """It does not matter how often the worker asks meanwhile."""
    function = opero(rate_limit=10)(identity)
    scheduler = new_scheduler(function, 1, 10, True, gates_of(function))
    with standing_clock(core.clock):
        for item in range(2):
            scheduler.feed([item])
            while scheduler.assign(0, core.clock.now()) is None:
                core.clock.advance(25 * MILLISECOND)
    assert function.stats().permit_wait == pytest.approx(0.1)


def test_a_permit_that_would_come_after_the_deadline_is_not_waited_for(core):
    """The item fails immediately, and the next one gets its place."""
    function = opero(rate_limit=1, timeout=0.5, retries=2, min_delay=0, max_delay=0)(identity)
    scheduler = new_scheduler(function, 1, 10, True, gates_of(function))
    with standing_clock(core.clock):
        scheduler.feed([1])
        job = scheduler.assign(0, core.clock.now())
        scheduler.report(job, [NOTHING], [(0, Flop())], 1)
        assert scheduler.assign(0, core.clock.now()) is None
        (failure,) = scheduler.collect()
    assert isinstance(failure, DeadlineExceeded)
    assert "permit" in str(failure)


def test_a_permit_is_for_one_attempt(core):
    """A waiting chunk is handed out item by item."""
    function = opero(rate_limit=10, burst=2)(identity)
    scheduler = new_scheduler(function, 1, 10, True, gates_of(function))
    with standing_clock(core.clock):
        scheduler.feed([1, 2, 3])
        assert scheduler.assign(0, core.clock.now()).values == [1]
        assert scheduler.assign(0, core.clock.now()).values == [2]
        assert scheduler.assign(0, core.clock.now()) is None
        assert function.stats().attempts == 2


# --- figures --------------------------------------------------------------------------------------


def test_the_figures_mean_what_they_mean_for_single_calls(core):
    """Items count as calls; a wait counts once it is over."""
    function = opero(retries=3, min_delay=0.5, max_delay=0.5, cache=True)(identity)
    scheduler = new_scheduler(function, 1, 10, True, chunk=4)
    with standing_clock(core.clock):
        scheduler.feed([1, 1, 2])
        scheduler.close()
        job = scheduler.assign(0, core.clock.now())
        scheduler.report(job, [NOTHING, "two"], [(0, Flop())], 1)
        assert function.stats()[:7] == (3, 0, 3, 2, 1, 0, 0)
        assert function.stats().backoff_wait == 0
        core.clock.move_to(scheduler.wake(core.clock.now()))
        scheduler.report(scheduler.assign(0, core.clock.now()), [NOTHING], [(0, Flop())], 1)
        core.clock.move_to(scheduler.wake(core.clock.now()))
        scheduler.report(scheduler.assign(0, core.clock.now()), [NOTHING], [(0, Flop())], 1)
    assert scheduler.over
    assert function.stats() == Stats(
        calls=3, misses=3, attempts=4, retries=2, failures=1, backoff_wait=1.0
    )
    assert scheduler.output.failed == 2  # the item, and the equal one that shared its run
    assert scheduler.retried == 2


def test_attempts_that_a_dead_worker_had_not_begun_are_not_counted(core):
    """They count once they begin."""
    function = opero(retries=1)(identity)
    scheduler = new_scheduler(function, 1, 10, True, chunk=4)
    scheduler.feed([0, 1, 2, 3])
    job = scheduler.assign(0, core.clock.now())
    scheduler.crash(job, [0], [], 1, Crash())
    assert function.stats().attempts == 2
    job = scheduler.assign(0, core.clock.now())
    assert job.values == [2, 3]
    scheduler.crash(job, [], [], None, Crash())
    assert function.stats().attempts == 2


# --- deadlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delay", "kind"), [(0.8, type(None)), (0.9, DeadlineExceeded)])
def test_a_deadline_counts_from_the_first_attempt_on(core, delay, kind):
    """A wait that would end at the deadline or later does not begin."""
    function = opero(retries=2, min_delay=delay, max_delay=delay, timeout=1)(identity)
    scheduler = new_scheduler(function, 1, 10, True)
    with standing_clock(core.clock):
        core.clock.advance(10**9)
        scheduler.feed([1])
        scheduler.close()
        core.clock.advance(10**9)  # in line nothing runs out
        job = scheduler.assign(0, core.clock.now())
        core.clock.advance(10**8)
        scheduler.report(job, [NOTHING], [(0, Flop())], 1)
        (failure,) = scheduler.collect() or [None]
    assert type(failure) is kind
    if failure is not None:
        assert [type(error) for error in failure.errors] == [Flop]


def test_an_attempt_that_is_cut_at_the_deadline_has_exceeded_it(core):
    """`retries` and `retry_on` do not matter; an earlier cut is an ordinary failure."""
    function = opero(retries=2, retry_on=(AttemptTimeout,), min_delay=0, max_delay=0, timeout=1)
    scheduler = new_scheduler(function(identity), 1, 10, True)
    with standing_clock(core.clock):
        scheduler.feed([1])
        job = scheduler.assign(0, core.clock.now())
        assert job.deadline == core.clock.now() + 10**9
        core.clock.advance(6 * 10**8)
        scheduler.report(job, [NOTHING], [(0, AttemptTimeout("long"))], 1)
        again = scheduler.assign(0, core.clock.now())
        assert again.deadline == job.deadline
        core.clock.advance(4 * 10**8)
        scheduler.report(again, [NOTHING], [(0, AttemptTimeout("long"))], 1)
    (failure,) = scheduler.collect()
    assert isinstance(failure, DeadlineExceeded)
    assert "an attempt was still running" in str(failure)
    assert len(failure.errors) == 1


# --- memory ---------------------------------------------------------------------------------------


class Payload:
    """An object with weak references."""


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("options", [{}, {"cache": True, "cache_key": id}, {"retries": 2}], ids=str)
def test_what_has_been_handed_on_is_let_go(core, monkeypatch, ordered, options):
    """Items, results and failures are free without the garbage collector."""
    monkeypatch.setattr(get_logger(), "disabled", True)  # pytest keeps what is logged
    function = opero(min_delay=0, max_delay=0, **options)(identity)
    scheduler = new_scheduler(function, 1, 10, ordered, chunk=3)
    items = [Payload() for _ in range(3)]
    watched = [weakref.ref(item) for item in items]
    gc.disable()
    try:
        scheduler.feed(items)
        del items
        while scheduler.settled < 3:
            job = scheduler.assign(0, core.clock.now())
            results: list[Any] = [Payload() for _ in job.values]
            failures = [] if scheduler.settled else [(0, Flop())]
            watched += map(weakref.ref, results)
            watched += [weakref.ref(error) for _, error in failures]
            scheduler.report(job, results, failures, 1)
            del job, results, failures
        assert len(scheduler.collect()) == 3
        function.cache_clear()
        assert not any(ref() for ref in watched)
    finally:
        gc.enable()


# --- chunks ---------------------------------------------------------------------------------------


@given(
    paces=st.lists(st.integers(0, 10**9), min_size=1, max_size=40),
    workers=st.integers(1, 64),
    left=st.integers(-1, 10**6),
    fixed=st.sampled_from([0, 0, 5]),
)
def test_a_chunk_has_at_least_one_item_and_a_fair_share_at_most(core, paces, workers, left, fixed):
    """It takes no more than the aim by the last measure, nor half of a worker's share.

    Unless a thirty-second of the aim is more than that share.
    """
    sizer = hotpath.core.ChunkSizer(workers, 2 * MILLISECOND, fixed, left)
    assert sizer.size() == fixed or sizer.size() == 1
    before = 1
    for pace in paces:
        size = sizer.size()
        assert size >= 1
        if fixed:
            assert size == fixed
            continue
        assert size <= before * 4
        if sizer.left >= 0:
            assert size <= max(1, sizer.left // (2 * workers), sizer.current // 32)
        if sizer.pace > 2 * MILLISECOND:
            assert size == 1
        sizer.fed(size)
        sizer.observe(size, size * pace)
        before = max(before, sizer.current)


def test_an_input_of_known_length_ends_in_small_chunks(core):
    """So all workers end at about the same time."""
    sizer = hotpath.core.ChunkSizer(4, 2 * MILLISECOND, 0, 10_000)
    sizes = []
    while sizer.left:
        sizes.append(min(sizer.size(), sizer.left))
        sizer.fed(sizes[-1])
        sizer.observe(sizes[-1], sizes[-1] * 1000)
    assert sum(sizes) == 10_000
    assert max(sizes) > 500
    assert max(sizes[-8:]) * 1000 <= 2 * MILLISECOND // 32


def test_an_empty_report_changes_nothing(core):
    """It has no items to divide by."""
    sizer = hotpath.core.ChunkSizer(1, 1, 0, -1)
    sizer.observe(0, 5)
    assert (sizer.size(), sizer.pace) == (1, 0)


@pytest.mark.parametrize("ordered", [True, False])
def test_an_empty_input_is_over_at_once(core, ordered):
    """It hands on nothing."""
    scheduler = new_scheduler(opero(identity), 1, 10, ordered)
    scheduler.feed([])
    scheduler.close()
    assert scheduler.over
    assert (scheduler.demand(), scheduler.assign(0, 0), scheduler.collect()) == (0, None, [])


def test_known_items_are_looked_up_many_at_a_time(core):
    """New items among them are still handed out in chunks of the measured size."""
    function = opero(cache=True, cache_maxsize=None)(identity)
    for known in range(10_000):
        function(known)
    scheduler = new_scheduler(function, 1, 0, True)
    items = iter([*range(10_000), *range(-1, -3000, -1)])
    feeds = jobs = 0
    results = []
    while not scheduler.over:
        count = scheduler.demand()
        if count:
            values = list(islice(items, count))
            scheduler.feed(values)
            feeds += 1
            if len(values) < count:
                scheduler.close()
        most = scheduler.sizer.size()
        job = scheduler.assign(0, core.clock.now())
        if job is not None:
            jobs += 1
            assert len(job.values) <= most
            assert min(job.values) < 0
            scheduler.report(job, job.values, [], 1000 * len(job.values))
        results += scheduler.collect()
    assert results == [*range(10_000), *range(-1, -3000, -1)]
    assert feeds < 10_000 // 256 + jobs


@pytest.mark.parametrize("width", [1, 16])
def test_under_a_deadline_no_more_is_handed_out_than_begins_at_once(core, width):
    """The time of a whole chunk begins when it is handed out."""
    function = opero(timeout=60)(identity)
    scheduler = Scheduler(
        function.__opero__, {}, hotpath.core.ChunkSizer(2, MILLISECOND, 0, -1), 0, True, None, width
    )
    for _ in range(6):
        count = scheduler.demand()
        assert 1 <= count <= width
        scheduler.feed(list(range(count)))
        job = scheduler.assign(0, core.clock.now())
        scheduler.report(job, job.values, [], len(job.values))
    assert count == width
