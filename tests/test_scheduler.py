"""The map's scheduler, without any worker: a simulation reports what hypothesis makes up."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import islice
from typing import Any, NamedTuple

import pytest
from crowd import standing_clock
from hypothesis import given
from hypothesis import strategies as st

from opero import AllFailedError, DeadlineExceeded, opero
from opero.concurrency.scheduler import NOTHING, Scheduler
from opero.core.chunk import ChunkSizer
from opero.core.clock import NEVER

MILLISECOND = 10**6


class Flop(Exception):
    """What an attempt raises that is worth another."""


class Fatal(Exception):
    """What an attempt raises that is not."""


class Crash(Exception):
    """What a worker's death is told as."""


class Script(NamedTuple):
    """What comes of the attempts of one item, in order; the last one repeats."""

    outcomes: tuple[str, ...]

    def outcome(self, attempt: int) -> str:
        """Return what comes of attempt number `attempt`, counted from 0."""
        return self.outcomes[min(attempt, len(self.outcomes) - 1)]


class World:
    """Workers that exist only in time: each runs one job and says what the scripts say."""

    def __init__(self, scheduler: Scheduler, scripts: list[Script], slots: int, dice: Any) -> None:
        self.scheduler = scheduler
        self.scripts = scripts
        self.dice = dice
        self.clock = scheduler.call.clock
        self.idle = list(range(slots))
        self.running: dict[int, Any] = {}
        self.attempts: Counter[Any] = Counter()
        self.starts: list[tuple[int, int, Any]] = []
        self.earliest: dict[Any, int] = {}
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
                self.clock.move_to(wake)
            else:
                assert self.collect(), "nothing can happen any more, and not all is done"
        self.collect()
        return self.results

    def feed(self, source: Any) -> int:
        """Read as much input as is asked for."""
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
        """Give every idle worker something to do."""
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
        """Remember when an item may be tried again at the earliest."""
        least = int(self.scheduler.call.policy.min_delay * 1e9)
        self.earliest[value] = self.clock.now() + least


def identity(x: Any) -> Any:
    """Stand for the function; no worker ever calls it."""
    return x


def new_scheduler(
    function: Any, slots: int, window: int, ordered: bool, buckets: Any = None, chunk: int = 0
) -> Scheduler:
    """Make a scheduler whose chunks are sized by measured time, or fixed."""
    sizer = ChunkSizer(slots, 2 * MILLISECOND, chunk, -1)
    return Scheduler(function, {}, sizer, window, ordered, buckets)


scripts = st.lists(
    st.lists(st.sampled_from(["ok", "ok", "flop", "fatal", "crash"]), min_size=1, max_size=5).map(
        lambda outcomes: Script(tuple(outcomes))
    ),
    max_size=60,
)


def expected(script: Script, value: int, rounds: int) -> Any:
    """Return what has to come of an item: its value, or the type of its failure."""
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
    """Whatever fails, crashes and comes late: the right one, in order, within the window."""
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
    assert scheduler.failed == sum(isinstance(each, type) for each in wanted)
    assert all(world.attempts[value] <= retries for value in items)
    assert not world.running
    assert scheduler._heap == []
    assert not scheduler._line
    assert not scheduler._order


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
    """A success is run once and stored; a failure is shared by all that wait, and not stored."""
    function = opero(retries=2, retry_on=(Flop,), min_delay=0.01, cache=True)(identity)
    for value in stored:
        function.store.put(value, ("stored", value))
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
            assert function.store.find(value).value == outcome
        else:
            assert function.store.find(value) is None
    if ordered:
        assert list(map(seen, results)) == wanted
    else:
        assert Counter(map(seen, results)) == Counter(wanted)
    assert scheduler._running == {}
    assert scheduler._keys == {}
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
    """Over any time w no more than burst + rate * w attempts start: in all, or for each worker."""
    function = opero(retries=3, retry_on=(Flop, Crash), min_delay=0, max_delay=0)(identity)
    buckets = [core.TokenBucket(rate, burst, core.new_lock()) for _ in range(1 if total else slots)]
    scheduler = new_scheduler(function, slots, 100, True, buckets)
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
    function = opero(
        retries=5, retry_on=(Flop, Crash), min_delay=0.004, max_delay=0.02, timeout=timeout
    )(identity)
    buckets = [core.TokenBucket(200, 1, core.new_lock())] if limited else None
    scheduler = new_scheduler(function, slots, 100, True, buckets)
    with standing_clock(core.clock):
        world = World(scheduler, scripts, slots, random.Random(seed))
        results = world.run(list(range(len(scripts))))
    first: dict[Any, int] = {}
    for _, now, value in world.starts:
        begun = first.setdefault(value, now)
        if not world.running and slots == 1 and not limited:
            assert now < begun + timeout * 1e9 + 5 * MILLISECOND
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
    """Without delay between them; the round fails when the last one has."""

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
            tried.append((job.call or ((job.values[0],), {}), core.clock.now()))
            scheduler.report(job, [NOTHING], [(0, Flop())], 1)
    models = [kwargs.get("model", args[1] if len(args) > 1 else "a") for (args, kwargs), _ in tried]
    assert models == ["a", "b", "c", "a", "b", "c"]
    assert tried[3][1] - tried[2][1] == 10**9
    assert tried[2][1] == tried[0][1]
    assert isinstance(scheduler.collect()[0], AllFailedError)


def test_an_item_that_holds_no_fallback_values_fails_alone(core):
    """The others run; no worker sees it."""

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
    """What it had not begun goes to another worker, what it had reported stays."""
    scheduler = new_scheduler(opero(retries=1)(identity), 2, 10, True, chunk=4)
    scheduler.feed([0, 1, 2, 3])
    scheduler.close()
    job = scheduler.assign(0, core.clock.now())
    scheduler.crash(job, ["zero"], [], None, Crash())
    job = scheduler.assign(1, core.clock.now())
    assert job.values == [1, 2, 3]
    scheduler.report(job, ["one", "two", "three"], [], 1)
    assert scheduler.collect() == ["zero", "one", "two", "three"]
    assert scheduler.failed == 0


# --- chunks ---------------------------------------------------------------------------------------


@given(
    paces=st.lists(st.integers(0, 10**9), min_size=1, max_size=40),
    workers=st.integers(1, 64),
    left=st.integers(-1, 10**6),
    fixed=st.sampled_from([0, 0, 5]),
)
def test_a_chunk_has_at_least_one_item_and_a_fair_share_at_most(core, paces, workers, left, fixed):
    """It takes no more than the aim by the last measure, nor half of a worker's share.

    Unless a sixteenth of the aim is more than that share.
    """
    sizer = ChunkSizer(workers, 2 * MILLISECOND, fixed, left)
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
            assert size <= max(1, sizer.left // (2 * workers), sizer.current // 16)
        if sizer.pace > 2 * MILLISECOND:
            assert size == 1
        sizer.fed(size)
        sizer.observe(size, size * pace)
        before = max(before, sizer.current)


def test_an_input_of_known_length_ends_in_small_chunks(core):
    """So that all workers end at about the same time."""
    sizer = ChunkSizer(4, 2 * MILLISECOND, 0, 10_000)
    sizes = []
    while sizer.left:
        sizes.append(min(sizer.size(), sizer.left))
        sizer.fed(sizes[-1])
        sizer.observe(sizes[-1], sizes[-1] * 1000)
    assert sum(sizes) == 10_000
    assert max(sizes) > 500
    assert max(sizes[-8:]) * 1000 <= 2 * MILLISECOND // 16


def test_an_empty_report_changes_nothing(core):
    """There is nothing to divide by."""
    sizer = ChunkSizer(1, 1, 0, -1)
    sizer.observe(0, 5)
    assert (sizer.size(), sizer.pace) == (1, 0)


@pytest.mark.parametrize("ordered", [True, False])
def test_an_empty_input_is_over_at_once(core, ordered):
    """And hands on nothing."""
    scheduler = new_scheduler(opero(identity), 1, 10, ordered)
    scheduler.feed([])
    scheduler.close()
    assert scheduler.over
    assert (scheduler.demand(), scheduler.assign(0, 0), scheduler.collect()) == (0, None, [])
