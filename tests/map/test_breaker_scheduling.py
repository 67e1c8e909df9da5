"""A map's scheduler before a breaker, without any worker: simulated services that come and go."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice
from typing import Any

import pytest
from crowd import standing_clock
from hypothesis import given
from hypothesis import strategies as st
from test_scheduler import MILLISECOND, Crash, Flop, new_scheduler

from opero import AllFailedError, get_logger, opero
from opero.core.breaker import CLOSED, OPEN
from opero.core.clock import NEVER
from opero.core.gate import FAILED, NEUTRAL, REJECTED, SUCCEEDED, WITHDRAWN
from opero.limits import gates as rows
from opero.map.gates import MapGates
from opero.map.output import NOTHING
from opero.map.scheduler import Scheduler

OPEN_FOR = 50 * MILLISECOND


class Fatal(Exception):
    """An error that is not worth a retry."""


@pytest.fixture(autouse=True)
def silence(monkeypatch):
    """Turn the log off: these maps fail thousands of times."""
    monkeypatch.setattr(get_logger(), "disabled", True)


def toy_breaker(core: Any, threshold: int = 2) -> Any:
    """Make a breaker that opens after some failures in a row, and notes its calls."""

    class Toy(core.Gate):
        def __init__(self) -> None:
            super().__init__(observes=True, refuses=True)
            self.failures = 0
            self.opens: int | None = None
            self.probe: int | None = None
            self.serial = 0
            self.entered = 0
            self.left: Counter[int] = Counter()
            self.tickets: dict[int, int] = {}

        def enter(self, now: int) -> int:
            if self.opens is None:
                self.entered += 1
                return 0
            if now < self.opens:
                return self.opens - now
            if self.probe is not None:
                return OPEN_FOR
            self.serial += 1
            self.probe = self.serial
            self.entered += 1
            return -self.probe

        def opens_in(self, now: int) -> int:
            if self.opens is None:
                return 0
            if now < self.opens:
                return self.opens - now
            return 0 if self.probe is None else OPEN_FOR

        def state_at(self, now: int) -> int:
            return CLOSED if self.opens is None else OPEN

        def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:
            assert now >= entered
            self.left[outcome] += 1
            if ticket:
                assert ticket == self.probe, "a probe reports twice"
                self.probe = None
                if outcome == SUCCEEDED:
                    self.opens, self.failures = None, 0
                elif outcome in {FAILED, REJECTED}:
                    self.opens = now + OPEN_FOR
            elif self.opens is None:
                self.failures = self.failures + 1 if outcome in {FAILED, REJECTED} else 0
                if self.failures >= threshold:
                    self.opens = now + OPEN_FOR

    return Toy()


class ToyQueue:
    """The queues of toy breakers: one for all, or one for each fallback value."""

    awaited = "the breaker"

    def __init__(self, core: Any, by_value: bool = False, threshold: int = 2) -> None:
        self.core = core
        self.by_value = by_value
        self.threshold = threshold
        self.gate = toy_breaker(core, threshold)
        self.values: dict[Any, ToyQueue] = {}

    def of(self, value: Any, number: int = 0) -> ToyQueue:
        """Return the queue of a value."""
        if not self.by_value:
            return self
        if value not in self.values:
            self.values[value] = ToyQueue(self.core, threshold=self.threshold)
        return self.values[value]


def decorated(monkeypatch: Any, queue: Any, function: Any, **options: Any) -> Any:
    """Decorate a function with a toy breaker."""
    with monkeypatch.context() as patch:
        patch.setattr(rows, "ROWS", [lambda *_: queue, *rows.ROWS])
        return opero(**options)(function)


class World:
    """Simulated workers, and services that are sometimes down."""

    def __init__(self, scheduler: Scheduler, queue: Any, slots: int, dice: random.Random) -> None:
        self.scheduler = scheduler
        self.queue = queue
        self.dice = dice
        self.clock = scheduler.call.clock
        self.began = self.clock.now()
        self.idle = list(range(slots))
        self.running: dict[int, Any] = {}
        self.down: dict[Any, list[tuple[int, int]]] = {}
        self.tried: Counter[Any] = Counter()
        self.results: list[Any] = []
        self.crashes = 0.0

    def is_down(self, service: Any) -> bool:
        """Return whether a service is down now."""
        now = self.clock.now() - self.began
        return any(first <= now < last for first, last in self.down.get(service, ()))

    def run(self, items: list[Any]) -> list[Any]:
        """Go through the whole map; return its results."""
        scheduler = self.scheduler
        source = iter(items)
        while not scheduler.over:
            moved = self.feed(source) + self.hand_out()
            ready = scheduler.collect()
            self.results += ready
            if moved or ready:
                continue
            wake = scheduler.wake(self.clock.now())
            waits = bool(self.idle) and wake != NEVER
            if self.running and (not waits or self.dice.random() < 0.7):
                self.finish(self.dice.choice(sorted(self.running)))
            else:
                assert waits, "nothing can happen any more, and not all is done"
                assert wake > self.clock.now(), "a driver would spin"
                self.clock.move_to(wake)
        self.results += scheduler.collect()
        return self.results

    def feed(self, source: Any) -> int:
        """Read as much as the scheduler asks for."""
        count = self.scheduler.demand()
        if not count:
            return 0
        values = list(islice(source, count))
        self.scheduler.feed(values)
        if len(values) < count:
            self.scheduler.close()
        return 1

    def hand_out(self) -> int:
        """Give idle workers something to do."""
        moved = 0
        for slot in list(self.idle):
            job = self.scheduler.assign(slot, self.clock.now())
            if job is None:
                continue
            moved = 1
            self.idle.remove(slot)
            self.running[slot] = job
            assert job.values
        probes = [job for job in self.running.values() if any(job.admission.tickets)]
        gates = [id(job.admission.gates[0]) for job in probes]
        assert len(gates) == len(set(gates)), "two probes of one breaker at the same time"
        assert all(len(job.values) == 1 for job in probes)
        return moved

    def service(self, value: Any) -> Any:
        """Return which service an attempt uses."""
        if isinstance(value, tuple) and hasattr(value, "named"):
            return value.named.get("host", [*value.args, "a"][1])
        return "a"

    def finish(self, slot: int) -> None:
        """Let one worker report."""
        job = self.running.pop(slot)
        self.idle.append(slot)
        self.clock.advance(self.dice.randrange(1, 5 * MILLISECOND))
        results: list[Any] = []
        failures: list[tuple[int, BaseException]] = []
        for place, value in enumerate(job.values):
            item = value.args[0] if hasattr(value, "named") else value
            service = self.service(value)
            self.tried[item] += 1
            if self.dice.random() < self.crashes:
                self.scheduler.crash(job, results, failures, place, Crash())
                return
            if self.is_down(service):
                failures.append((place, Flop(item)))
                results.append(NOTHING)
            else:
                results.append((item, service))
        self.scheduler.report(job, results, failures, self.dice.randrange(MILLISECOND))


def identity(item: Any, host: str = "a") -> Any:
    """Pose as the function; no worker ever calls it."""
    return item


def scheduler_of(
    function: Any, slots: int, window: int = 30, ordered: bool = True, chunk: int = 0
) -> Scheduler:
    """Make a scheduler with the gates of a function."""
    call = function.__opero__
    gates = MapGates(call.queues, 0, call.clock)
    return new_scheduler(function, slots, window, ordered, gates, chunk)


outages = st.lists(
    st.tuples(st.integers(0, 400), st.integers(1, 200)).map(
        lambda pair: (pair[0] * MILLISECOND, sum(pair) * MILLISECOND)
    ),
    max_size=3,
)

limits = st.sampled_from([{}, {"rate_limit": 2000}, {"rate_limit": 300, "burst": 3}])


@given(
    count=st.integers(0, 60),
    slots=st.integers(1, 5),
    window=st.sampled_from([0, 1, 7, 40]),
    ordered=st.booleans(),
    chunk=st.sampled_from([0, 1, 7]),
    down=outages,
    crashes=st.sampled_from([0.0, 0.2]),
    limit=limits,
    cache=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_a_batch_over_a_service_that_dies_and_comes_back_loses_nothing(
    core, count, slots, window, ordered, chunk, down, crashes, limit, cache, seed
):
    """Every item gets its value in order, with one probe at a time; no ticket is lost."""
    queue = ToyQueue(core)
    with pytest.MonkeyPatch.context() as patch:
        function = decorated(
            patch, queue, identity, retries=500, retry_on=(Flop, Crash), min_delay=0.001,
            max_delay=0.002, cache=cache, **limit,
        )  # fmt: skip
    scheduler = scheduler_of(function, slots, window, ordered, chunk)
    with standing_clock(core.clock):
        world = World(scheduler, queue, slots, random.Random(seed))
        world.down = {"a": down}
        world.crashes = crashes
        results = world.run(list(range(count)))
    wanted = [(item, "a") for item in range(count)]
    assert results == wanted if ordered else sorted(results) == wanted
    gate = queue.gate
    assert gate.probe is None
    assert gate.left[SUCCEEDED] == count
    assert gate.left[NEUTRAL] == 0
    assert gate.left[WITHDRAWN] == 0  # none has waited for a permit in the place of a probe
    assert sum(gate.left.values()) == function.stats().attempts
    assert not scheduler._held
    assert not scheduler._admitted
    assert not scheduler._heap


@given(
    count=st.integers(0, 40),
    slots=st.integers(1, 5),
    window=st.sampled_from([0, 3, 40]),
    first=outages,
    second=outages,
    retries=st.sampled_from([1, 2, 500]),
    limit=limits,
    seed=st.integers(0, 2**32),
)
def test_each_fallback_value_has_its_breaker(
    core, count, slots, window, first, second, retries, limit, seed
):
    """A dead value is skipped, its backup is not; items that both refuse wait for a probe."""
    queue = ToyQueue(core, by_value=True)
    with pytest.MonkeyPatch.context() as patch:
        function = decorated(
            patch, queue, identity, retries=retries, min_delay=0.001, max_delay=0.002,
            arg_fallback={"host": ["b"]}, **limit,
        )  # fmt: skip
    scheduler = scheduler_of(function, slots, window)
    with standing_clock(core.clock):
        world = World(scheduler, queue, slots, random.Random(seed))
        world.down = {"a": first, "b": second}
        results = world.run(list(range(count)))
    assert len(results) == count
    for item, result in enumerate(results):
        if retries == 500 or not isinstance(result, AllFailedError):
            assert result in {(item, "a"), (item, "b")}
        else:
            assert 1 <= len(result.errors) <= 2 * retries
            assert len(result.errors) == world.tried[item]
    for each in queue.values.values():
        assert each.gate.probe is None
    assert not scheduler._held


@given(
    count=st.integers(0, 40),
    slots=st.integers(1, 4),
    down=outages,
    timeout=st.sampled_from([0.004, 0.03, 0.12]),
    seed=st.integers(0, 2**32),
)
def test_an_item_whose_time_leaves_no_room_fails_and_leaves_the_rest(
    core, count, slots, down, timeout, seed
):
    """Time counts from the first attempt on; items that have not begun wait."""
    queue = ToyQueue(core)
    with pytest.MonkeyPatch.context() as patch:
        function = decorated(
            patch, queue, identity, retries=500, min_delay=0.001, max_delay=0.002, timeout=timeout
        )
    scheduler = scheduler_of(function, slots)
    with standing_clock(core.clock):
        world = World(scheduler, queue, slots, random.Random(seed))
        world.down = {"a": down}
        results = world.run(list(range(count)))
    assert len(results) == count
    for item, result in enumerate(results):
        if isinstance(result, BaseException):
            assert type(result).__name__ in {"BreakerOpenError", "DeadlineExceeded"}
            assert result.index == item
            assert [error.args for error in result.errors] == [(item,)] * world.tried[item]
        else:
            assert result == (item, "a")
    assert queue.gate.probe is None
    assert not scheduler._held
