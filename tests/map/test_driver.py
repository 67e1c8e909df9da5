"""The loop of a map, with an engine that does what a die says: every outcome, in any order."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import weakref
from collections import Counter
from contextlib import aclosing
from typing import Any

import pytest
from crowd import run, standing_clock
from hypothesis import given
from hypothesis import strategies as st

from opero import AllFailedError, opero
from opero.core.chunk import ChunkSizer
from opero.map.driver import drive
from opero.map.engines.base import Crash, Report
from opero.map.jobs import Job
from opero.map.output import NOTHING
from opero.map.progress import Silent
from opero.map.reader import InPlace
from opero.map.scheduler import Scheduler
from opero.map.task_driver import drive_async
from opero.map.task_reader import TaskReader

MILLISECOND = 10**6


class Flop(Exception):
    """An error of an attempt."""


class Death(Exception):
    """The error that reports a worker's end."""


class Dice:
    """An engine without workers: `wait` makes up what has come of the jobs.

    Attributes:
        slots: How many jobs it has at once.
        closed: How it was closed: once, or not yet.
        started: How often each item was.
        in_vain: How often in a row nothing came of waiting.
    """

    def __init__(self, slots: int, clock: Any, seed: int, failing: float = 0.0) -> None:
        self.slots = slots
        self.closed: list[bool] = []
        self.started: Counter[Any] = Counter()
        self.failed: Counter[Any] = Counter()
        self.in_vain = 0
        self.fault: BaseException | None = None
        self.bad: set[Any] = set()
        self.woken = False
        self._clock = clock
        self._dice = random.Random(seed)
        self._failing = failing
        self._jobs: dict[int, Job] = {}

    def start(self, slot: int, job: Job) -> None:
        """Take a job into an idle slot."""
        assert not self.closed
        assert slot not in self._jobs
        assert 0 <= slot < self.slots
        self._jobs[slot] = job

    def wait(self, timeout: float | None) -> list[Report | Crash]:
        """Let time pass, and end some of the jobs, in any order."""
        assert self._jobs or timeout is not None, "the driver would wait for ever"
        if self.fault is not None:
            raise self.fault
        self.in_vain += 1
        assert self.in_vain < 200, "the driver spins"
        if not self._jobs or (timeout is not None and self._dice.random() < 0.3):
            self._clock.advance(int((timeout or 0) * 1e9) + 1)
            return []
        self._clock.advance(self._dice.randrange(3 * MILLISECOND))
        count = self._dice.randint(0, len(self._jobs))
        ended = self._dice.sample(sorted(self._jobs), count)
        if ended:
            self.in_vain = 0
        return [self._end(slot, self._jobs.pop(slot)) for slot in ended]

    def _end(self, slot: int, job: Job) -> Report | Crash:
        results: list[Any] = []
        failures: list[tuple[int, BaseException]] = []
        for place, value in enumerate(job.values):
            fate = self._dice.random()
            self.started[value] += 1
            if value in self.bad or fate < self._failing:
                self.failed[value] += 1
                failures.append((place, Flop(value)))
                results.append(NOTHING)
            elif fate < 1.5 * self._failing:
                self.failed[value] += 1
                known = self._dice.randint(0, place)
                return self._die(slot, job, results[:known], failures, place)
            elif fate < 1.7 * self._failing:
                return self._die(slot, job, results, failures, None)
            else:
                results.append(-value)
        return Report(slot, job, results, failures, self._dice.randrange(MILLISECOND))

    def _die(self, slot: int, job: Job, results: Any, failures: Any, at: int | None) -> Crash:
        lost = [place for place, _ in failures if place >= len(results)]
        for place in lost:
            self.failed[job.values[place]] -= 1
        known = [failure for failure in failures if failure[0] < len(results)]
        return Crash(slot, job, results, known, at, Death())

    def wake(self) -> None:
        """Do nothing: `wait` does not block."""

    def close(self, abandon: bool) -> None:
        """Note the end."""
        assert not self.closed
        self.closed.append(abandon)


class AsyncDice(Dice):
    """The same engine for a running loop."""

    async def wait(self, timeout: float | None) -> Any:  # type: ignore[override]
        """Let others run in between; with nothing to do, until cancelled."""
        await asyncio.sleep(0)
        while not self._jobs and timeout is None and not self.woken:
            await asyncio.sleep(0.001)
        if self.woken:
            self.woken = False
            return []
        return super().wait(timeout)

    def wake(self) -> None:
        """Let `wait` return."""
        self.woken = True

    async def close(self, abandon: bool) -> None:  # type: ignore[override]
        """Note the end."""
        super().close(abandon)


def negative(x: Any) -> Any:
    """Pose as the function; no worker ever calls it."""
    return -x


def new_scheduler(call: Any, slots: int, window: int = 0, ordered: bool = True) -> Scheduler:
    """Make a scheduler of an input of unknown length."""
    return Scheduler(call.__opero__, {}, ChunkSizer(slots, MILLISECOND, 0, -1), window, ordered)


def quiet() -> Silent:
    """Make a bar that shows nothing."""
    return Silent(None)


def collect(scheduler: Scheduler, engine: Any, source: Any, raises: bool = False) -> list[Any]:
    """Run a map to its end."""
    clock = scheduler.call.clock
    parts = drive(scheduler, lambda: engine, InPlace(source), clock, quiet, raises)
    return [result for part in parts for result in part]


def acollect(scheduler: Scheduler, engine: Any, source: Any, raises: bool = False) -> list[Any]:
    """Do the same from a coroutine."""
    clock = scheduler.call.clock

    async def main() -> list[Any]:
        results = []
        items = TaskReader(source) if hasattr(source, "__aiter__") else InPlace(source)
        async with aclosing(
            drive_async(scheduler, lambda: engine, items, clock, quiet, raises)
        ) as parts:
            async for part in parts:
                results += part
        return results

    return run(main())


async def slowly(values: Any) -> Any:
    """Yield values, some immediately and some later."""
    for value in values:
        if value % 3:
            await asyncio.sleep(0)
        yield value


def check(engine: Dice, results: list[Any], count: int, retries: int, ordered: bool) -> None:
    """Compare results with the dice."""
    assert engine.closed == [False]
    assert len(results) == count
    values = {result for result in results if isinstance(result, int)}
    failures = [result for result in results if not isinstance(result, int)]
    for failure in failures:
        assert isinstance(failure, AllFailedError if retries > 1 else (Flop, Death))
    for value in range(count):
        assert (engine.failed[value] < retries) == (-value in values)
        assert engine.failed[value] <= retries
    if ordered:
        for value, result in enumerate(results):
            assert result == -value or isinstance(result, Exception)


maps = given(
    count=st.integers(0, 60),
    slots=st.integers(1, 5),
    window=st.sampled_from([0, 1, 7]),
    ordered=st.booleans(),
    retries=st.integers(1, 3),
    failing=st.sampled_from([0.0, 0.1, 0.4]),
    seed=st.integers(0, 2**32),
)


@maps
def test_every_item_gets_its_outcome_whatever_the_engine_does(
    core, count, slots, window, ordered, retries, failing, seed
):
    """Reports come in any order, workers die, and waits end early."""
    call = opero(retries=retries, min_delay=0.001, max_delay=0.01)(negative)
    with standing_clock(core.clock):
        engine = Dice(slots, core.clock, seed, failing)
        scheduler = new_scheduler(call, slots, window, ordered)
        results = collect(scheduler, engine, range(count))
    check(engine, results, count, retries, ordered)


@maps
@pytest.mark.parametrize("asynchronous", [False, True], ids=["iterable", "async iterable"])
def test_so_it_does_from_a_coroutine(
    core, asynchronous, count, slots, window, ordered, retries, failing, seed
):
    """Inputs of both kinds work."""
    call = opero(retries=retries, min_delay=0.0001, max_delay=0.001)(negative)
    engine = AsyncDice(slots, core.clock, seed, failing)
    scheduler = new_scheduler(call, slots, window, ordered)
    source = slowly(range(count)) if asynchronous else range(count)
    results = acollect(scheduler, engine, source)
    check(engine, results, count, retries, ordered)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_consumer_that_stops_ends_the_map(core, ordered):
    """An endless input is read only up to the window; the engine is abandoned."""
    read = []

    def source():
        for value in itertools.count():
            read.append(value)
            yield value

    call = opero(retries=3, min_delay=0.001, max_delay=0.01)(negative)
    with standing_clock(core.clock):
        engine = Dice(3, core.clock, 5, 0.2)
        scheduler = new_scheduler(call, 3, 20, ordered)
        parts = drive(scheduler, lambda: engine, InPlace(source()), core.clock, quiet, False)
        taken = 0
        while taken < 500:
            taken += len(next(parts))
            assert len(read) - taken <= 20 + 12 * scheduler.sizer.size()
        parts.close()
    assert engine.closed == [True]
    assert scheduler.output._order == scheduler._queue == type(scheduler._queue)()


@pytest.mark.parametrize("kind", [Dice, AsyncDice])
def test_an_engine_that_fails_ends_the_map(core, kind):
    """Its exception is raised, and it is closed all the same."""
    engine = kind(2, core.clock, 1)
    engine.fault = OSError("no more workers")
    go = collect if kind is Dice else acollect
    with pytest.raises(OSError, match="no more workers"):
        go(new_scheduler(opero(negative), 2), engine, range(5))
    assert engine.closed == [True]


@pytest.mark.parametrize("kind", [Dice, AsyncDice])
def test_the_first_failure_comes_after_the_results_before_it(core, kind):
    """With `raises`, no later result and no other failure comes."""
    engine = kind(1, core.clock, 1)
    engine.bad = {30, 31}
    scheduler = new_scheduler(opero(retries=1)(negative), 1)
    results: list[Any] = []

    async def amain() -> None:
        parts = drive_async(scheduler, lambda: engine, InPlace(range(100)), core.clock, quiet, True)
        async for part in parts:
            results.extend(part)

    def main() -> None:
        items = InPlace(range(100))
        for part in drive(scheduler, lambda: engine, items, core.clock, quiet, True):
            results.extend(part)

    with standing_clock(core.clock), pytest.raises(Flop, match="30"):
        main() if kind is Dice else run(amain())
    assert results == [-value for value in range(30)]
    assert engine.closed == [True]


def test_an_engine_is_closed_if_the_input_cannot_be_read(core):
    """What reading the input raised comes out."""

    class Closed:
        def __aiter__(self):
            raise OSError("closed")

    engine = AsyncDice(1, core.clock, 1)
    with pytest.raises(OSError, match="closed"):
        acollect(new_scheduler(opero(negative), 1), engine, Closed())
    assert engine.closed == [False]


def test_the_engine_is_closed_even_if_the_input_does_not_let_itself_be(core):
    """What closing the input raises comes out afterwards."""

    class Sticky:
        """Yields 5 for ever, and cannot be closed."""

        def __aiter__(self):
            return self

        async def __anext__(self):
            return 5

        async def aclose(self):
            raise OSError("cannot be closed")

    engine = AsyncDice(1, core.clock, 1)
    engine.bad = {5}
    scheduler = new_scheduler(opero(retries=1)(negative), 1)
    with pytest.raises(OSError, match="cannot be closed"):
        acollect(scheduler, engine, Sticky(), raises=True)
    assert engine.closed == [True]


def test_an_item_that_comes_while_everybody_is_busy_does_not_let_the_driver_spin(core):
    """The item waits, because a retry has taken the only worker."""

    class Patient(AsyncDice):
        """Runs a job until it is told to end it."""

        async def wait(self, timeout):
            while not self._jobs:
                await asyncio.sleep(0.001)
                if timeout is not None or self.woken:
                    self.woken = False
                    return []
            (slot,) = self._jobs
            job = self._jobs.pop(slot)
            if self.started[job.values[0]] == 1:
                gate.set()
                await asyncio.sleep(0.2)
            self.started[job.values[0]] += 1
            bad = job.values[0] == 0 and self.started[0] == 1
            failures = [(0, Flop())] if bad else []
            return [Report(slot, job, [NOTHING if bad else -job.values[0]], failures, 1)]

    gate = asyncio.Event()

    async def source():
        yield 0
        await gate.wait()
        yield 1

    call = opero(retries=2, min_delay=0.01, max_delay=0.01)(negative)
    engine = Patient(1, core.clock, 1)
    rounds = 0
    scheduler = new_scheduler(call, 1)
    collect_ready = scheduler.collect

    def counted() -> Any:
        nonlocal rounds
        rounds += 1
        return collect_ready()

    scheduler.collect = counted  # type: ignore[method-assign]
    assert acollect(scheduler, engine, source()) == [0, -1]
    assert rounds < 50


@pytest.mark.parametrize("raises", [False, True], ids=["the input", "an item"])
def test_what_a_map_raises_holds_nothing_in_a_circle(core, raises):
    """Once the caller drops the exception it is gone, without the garbage collector."""

    def source():
        yield from range(20)
        raise Flop("the input")

    engine = Dice(2, core.clock, 3)
    if raises:
        engine.bad = {7}
    scheduler = new_scheduler(opero(retries=1)(negative), 2)
    gc.collect()
    gc.disable()
    try:
        with standing_clock(core.clock):
            try:
                collect(scheduler, engine, source(), raises)
            except Flop as error:
                watched = weakref.ref(error)
        assert watched() is None
    finally:
        gc.enable()
