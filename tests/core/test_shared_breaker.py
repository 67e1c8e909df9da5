"""The breaker on shared words: random schedules against a model, and the races one by one."""

from __future__ import annotations

import gc
import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opero import hotpath
from opero.core.breaker import CLOSED, HALF_OPEN, OPEN
from opero.core.gate import FAILED, NEUTRAL, REJECTED, SUCCEEDED, WITHDRAWN
from opero.core.shared_breaker import GLANCE, word_count
from opero.core.shared_counters import STRIDE

MS = 10**6
WINDOW, OPEN_FOR, LEASE = 1000 * MS, 400 * MS, 300 * MS
START = 3_600_000 * MS


@pytest.fixture(scope="module")
def lock_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return the descriptor of the file that plain processes lock."""
    path = tmp_path_factory.mktemp("words") / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


class Memory:
    """Words that breakers share, as processes share the words in a file."""

    def __init__(self, lock: int, probes: int = 1) -> None:
        self.bytes = bytearray((word_count(probes) + 1) * STRIDE)
        self.lock = lock
        self.probes = probes

    def join(self, core: Any, **changes: Any) -> Any:
        """Return the breaker of one more process."""
        if core.name == "plain":
            self.bytes[0] |= 1  # as a plain process does, which then waits for others
        words = core.SharedCounters(self.bytes, 0, word_count(self.probes), self.lock)
        options = {
            "window": WINDOW, "failure_ratio": 0.5, "minimum": 4, "open_for": OPEN_FOR,
            "lease": LEASE, "probes": self.probes,
        } | changes  # fmt: skip
        clock = core.Clock()
        return core.SharedBreaker(words, core.new_lock(), clock, clock, *options.values())


@pytest.fixture
def memory(lock_file) -> Memory:
    return Memory(lock_file)


def attempt(breaker: Any, now: int, outcome: int = SUCCEEDED) -> int:
    """Make an attempt that takes no time; return what `enter` did."""
    answer: int = breaker.enter(now)
    if answer <= 0:
        breaker.leave(now, outcome, now, -answer)
    return answer


def open_it(breaker: Any, now: int) -> None:
    for _ in range(4):
        assert attempt(breaker, now, FAILED) <= 0
    assert breaker.state_at(now) == OPEN


# --- random schedules against a model -----------------------------------------------------------------


class Model:
    """The expected content of the words, in plain lists."""

    def __init__(self, probes: int) -> None:
        self.generation = 0
        self.until: int | None = None
        self.counts: dict[int, list[int]] = {}
        self.leases: dict[Any, int] = {}  # when each is over, by its probe
        self.probes = probes
        self.good = 0

    def next(self, until: int | None) -> None:
        self.generation += 1
        self.until = until
        self.counts, self.leases, self.good = {}, {}, 0

    def state(self, now: int) -> int:
        if self.until is None:
            return CLOSED
        return OPEN if now < self.until else HALF_OPEN

    def free(self, now: int) -> bool:
        busy = sum(now // MS < over for over in self.leases.values())
        return self.good + busy < self.probes

    def count(self, now: int, failed: bool) -> None:
        index = now // (WINDOW // 10)
        for old in [each for each in self.counts if each <= index - 10]:
            del self.counts[old]
        tenth = self.counts.setdefault(index, [0, 0])
        tenth[0] += 1
        tenth[1] += failed
        attempts, failures = map(sum, zip(*self.counts.values(), strict=True))
        if failed and attempts >= 4 and failures / attempts >= 0.5:
            self.next(until_of(now))


def until_of(now: int) -> int:
    return ((now + OPEN_FOR) // MS + 1) * MS


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([1, 50, 99, 100, 301, 402, 1000]), st.just(0)),
        st.tuples(st.just("enter"), st.integers(0, 3), st.just(0)),
        st.tuples(
            st.just("leave"),
            st.integers(0, 30),
            st.sampled_from([SUCCEEDED, FAILED, FAILED, REJECTED, NEUTRAL, WITHDRAWN]),
        ),
        st.tuples(st.sampled_from(["die", "fork", "trip", "reset"]), st.integers(0, 3), st.just(0)),
    ),
    max_size=80,
)


@settings(max_examples=60)
@given(steps=STEPS, probes=st.sampled_from([1, 1, 3]), mixed=st.booleans())
def test_processes_agree_with_a_model_whatever_happens(core, lock_file, steps, probes, mixed):
    """Outcomes, clocks, processes that die during attempts, forks, newcomers of either half."""
    memory, model = Memory(lock_file, probes), Model(probes)
    cores = [core, hotpath.load("plain")] if mixed else [core]
    joined = 0

    def join() -> Any:
        nonlocal joined
        joined += 1
        return memory.join(cores[joined % len(cores)])

    processes = [join() for _ in range(4)]
    running: list[tuple[Any, int, int]] = []  # by whom, ticket, generation in which it came in
    now = START
    for step, number, outcome in steps:
        if step == "wait":
            now += number * MS
        elif step == "enter":
            process = processes[number]
            answer = process.enter(now)
            state = model.state(now)
            assert (answer <= 0) == (state == CLOSED or (state == HALF_OPEN and model.free(now)))
            if answer > 0:
                exact = model.until - now if state == OPEN else 0
                assert answer == exact if exact else answer <= GLANCE
                continue
            running.append((process, -answer, model.generation))
            if state == HALF_OPEN:
                for probe in [each for each, over in model.leases.items() if over <= now // MS]:
                    del model.leases[probe]
                model.leases[process, -answer] = now // MS + LEASE // MS + 1
        elif step == "leave" and running:
            process, ticket, generation = running.pop(number % len(running))
            process.leave(now, outcome, now, ticket)
            counts = outcome in {SUCCEEDED, FAILED, REJECTED}
            if generation != model.generation:
                continue
            if model.until is None:
                if counts:
                    model.count(now, outcome != SUCCEEDED)
            elif model.leases.pop((process, ticket), None) is not None and counts:
                if outcome == SUCCEEDED:
                    model.good += 1
                    if model.good == probes:
                        model.next(None)
                else:
                    model.next(until_of(now))
        elif step == "die":
            running = [each for each in running if each[0] is not processes[number]]
            processes[number] = join()
        elif step == "fork":
            processes[number].after_fork(core.new_lock())  # and the parent has gone
            model.leases = {
                (None if each[0] is processes[number] else each[0], each[1]): over
                for each, over in model.leases.items()
            }
        elif step == "trip":
            processes[number].trip(now, 0, "test")
            model.next(until_of(now))
        elif step == "reset":
            processes[number].reset("test")
            model.next(None)
        for process in processes:
            assert process.state_at(now) == model.state(now)


# --- one by one -----------------------------------------------------------------------------------------


def test_a_newcomer_takes_the_state_and_the_counts_as_they_are(core, memory):
    """It resets nothing, and its own failure is the fourth."""
    first = memory.join(core)
    for _ in range(3):
        attempt(first, START, FAILED)
    second = memory.join(core)
    assert second.state_at(START) == CLOSED
    attempt(second, START, FAILED)
    assert (
        first.state_at(START) == second.state_at(START) == memory.join(core).state_at(START) == OPEN
    )
    assert first.enter(START) == second.enter(START) == until_of(START) - START


def test_it_opens_only_from_the_minimum_and_the_ratio_on(core, memory):
    """Seven of a hundred are seven per cent, despite the rounding of floats."""
    breaker = memory.join(core, failure_ratio=0.07, minimum=100)
    for _ in range(93):
        attempt(breaker, START)
    for number in range(7):
        assert breaker.state_at(START) == CLOSED, number
        attempt(breaker, START, FAILED)
    assert breaker.state_at(START) == OPEN


def test_failures_that_have_left_the_window_do_not_count(core, memory):
    """They leave tenth by tenth."""
    breaker = memory.join(core)
    for _ in range(3):
        attempt(breaker, START, FAILED)
    attempt(breaker, START + WINDOW, FAILED)
    assert breaker.state_at(START + WINDOW) == CLOSED
    for _ in range(2):
        attempt(breaker, START + 2 * WINDOW - 1, FAILED)
    attempt(breaker, START + 2 * WINDOW - 1, FAILED)
    assert breaker.state_at(START + 2 * WINDOW) == OPEN


def test_of_twenty_who_come_at_the_moment_of_half_open_one_probes(core, memory):
    """The others are told to try again soon, because the probe may end at any time."""
    breakers = [memory.join(core) for _ in range(20)]
    open_it(breakers[0], START)
    then = until_of(START)
    assert all(each.enter(then - 1) == 1 for each in breakers)
    answers = [each.enter(then) for each in breakers]
    assert sum(answer <= 0 for answer in answers) == 1
    assert all(0 < answer <= GLANCE for answer in answers if answer > 0)


def test_a_probe_whose_process_has_died_is_given_up_when_its_lease_is_over(core, memory):
    """No report will ever come."""
    dead, other = memory.join(core), memory.join(core)
    open_it(other, START)
    then = until_of(START)
    assert dead.enter(then) <= 0
    del dead
    assert other.enter(then + LEASE - MS) > 0
    assert other.state_at(then + LEASE) == HALF_OPEN
    assert attempt(other, then + LEASE + MS) <= 0
    assert other.state_at(then + LEASE + MS) == CLOSED


def test_a_probe_that_outlives_its_lease_decides_only_while_nobody_has_taken_over(core, memory):
    """Its report is late, and another probe is under way."""
    late, other = memory.join(core), memory.join(core)
    open_it(other, START)
    then = until_of(START)
    ticket = -late.enter(then)
    over = then + LEASE + MS
    second = -other.enter(over)
    assert second >= 0
    late.leave(over, SUCCEEDED, then, ticket)
    assert other.state_at(over) == HALF_OPEN
    other.leave(over, FAILED, over, second)
    assert late.state_at(over) == OPEN
    again = until_of(over)
    ticket = -late.enter(again)
    late.leave(again + 10 * LEASE, SUCCEEDED, again, ticket)
    assert other.state_at(again + 10 * LEASE) == CLOSED


@pytest.mark.parametrize("outcome", [NEUTRAL, WITHDRAWN])
def test_a_probe_that_says_nothing_makes_room_for_the_next_at_once(core, memory, outcome):
    """It was cancelled, or not made at all."""
    breaker = memory.join(core)
    open_it(breaker, START)
    then = until_of(START)
    attempt(breaker, then, outcome)
    assert breaker.state_at(then) == HALF_OPEN
    assert breaker.enter(then) <= 0


def test_reports_of_an_older_generation_change_nothing(core, memory):
    """From attempts admitted while closed, and from probes overtaken by `trip` or `reset`."""
    breaker = memory.join(core)
    old = [-breaker.enter(START) for _ in range(9)]
    breaker.reset("test")
    for _ in range(3):
        attempt(breaker, START, FAILED)
    for ticket in old[:4]:
        breaker.leave(START, FAILED, START, ticket)
    assert breaker.state_at(START) == CLOSED
    attempt(breaker, START, FAILED)  # the fourth of this generation
    assert breaker.state_at(START) == OPEN
    then = until_of(START)
    probe = -breaker.enter(then)
    for ticket in old[4:]:
        breaker.leave(then, SUCCEEDED, START, ticket)
    assert breaker.state_at(then) == HALF_OPEN
    breaker.trip(then, 0, "test")
    breaker.leave(then, SUCCEEDED, then, probe)
    assert breaker.state_at(then) == OPEN
    breaker.leave(then, SUCCEEDED, then, probe)  # and twice
    assert breaker.state_at(then) == OPEN


def test_a_child_leaves_its_parents_probe_to_the_parent(core, memory):
    """The fork happens during the probe, and both processes report."""
    parent, other = memory.join(core), memory.join(core)
    open_it(parent, START)
    then = until_of(START)
    ticket = -parent.enter(then)
    held = parent.held
    parent.after_fork(core.new_lock())  # what happens in the child
    parent.leave(then, FAILED, then, ticket)
    assert other.state_at(then) == HALF_OPEN
    assert other.enter(then) > 0
    parent.held = held  # back in the parent
    parent.leave(then, SUCCEEDED, then, ticket)
    assert other.state_at(then) == CLOSED


def test_a_busy_tenth_counts_by_halves_and_keeps_the_ratio(core, memory):
    """A tenth has room for 65,535 attempts."""
    breaker = memory.join(core)
    attempt(breaker, START, FAILED)
    at = 1 + START // (WINDOW // 10) % 10
    word = breaker.words.load(at)
    breaker.words.swap(at, word, word >> 32 << 32 | 65_535 << 16 | 30_000)
    for _ in range(5000):
        attempt(breaker, START, FAILED)
        if breaker.state_at(START) == OPEN:
            break
    word = breaker.words.load(at)
    attempts, failures = word >> 16 & 65_535, word & 65_535
    assert attempts == 32_767 + (failures - 15_000)
    assert failures == (attempts + 1) // 2  # about as many as it would have taken of them all


def test_one_who_has_waited_for_the_lock_takes_no_lease_of_a_later_moment(core, memory):
    """Measured by its outdated time, the other lease seems longer than leases are."""
    late, other = memory.join(core), memory.join(core)
    open_it(other, START)
    then = until_of(START)
    assert other.enter(then + 50 * MS) <= 0
    assert late.opens_in(then) > 0
    assert late.enter(then) > 0


def test_probes_that_have_all_succeeded_close_it_though_the_last_one_has_died(core, lock_file):
    """It had recorded its success, and was killed before the next step."""
    memory = Memory(lock_file, 2)
    breaker = memory.join(core)
    open_it(breaker, START)
    then = until_of(START)
    good = breaker.words.load(0) >> 41 << 40 | ((1 << 40) - 1)
    breaker.words.swap(11, 0, good)
    breaker.words.swap(12, 0, good)
    assert attempt(breaker, then) <= 0
    assert breaker.state_at(then) == CLOSED


def test_a_clock_that_tests_have_moved_is_not_heeded(core, memory):
    """Other processes use the machine's time."""
    breaker = memory.join(core)
    breaker.trip(breaker.real.now(), 0, "test")
    clock = core.Clock()
    clock.advance(10 * OPEN_FOR)
    words = core.SharedCounters(memory.bytes, 0, word_count(1), memory.lock)
    moved = core.SharedBreaker(
        words, core.new_lock(), clock, core.Clock(), WINDOW, 0.5, 4, 3600 * 10**9, LEASE, 1
    )
    moved.trip(clock.now(), 0, "test")
    assert moved.state_at(clock.now()) == OPEN
    assert moved.enter(clock.now()) > 3599 * 10**9
    assert moved.opens_in(clock.now()) > 3599 * 10**9
    clock.freeze()
    assert moved.state_at(clock.now()) == OPEN


def test_each_process_tells_of_each_state_once(core, memory):
    """The process that causes it reports why; the others report it when they notice it."""
    told: dict[str, list[tuple[int, str]]] = {"one": [], "two": []}
    one, two = memory.join(core), memory.join(core)
    one.watcher = lambda *what: told["one"].append(what)
    two.watcher = lambda *what: told["two"].append(what)
    open_it(one, START)
    two.enter(START)
    two.enter(START)
    then = until_of(START)
    attempt(two, then)
    attempt(one, then)
    attempt(one, then)
    elsewhere = "another process has said so"
    assert told["one"] == [(OPEN, "4 of 4 attempts failed within 1 s"), (CLOSED, elsewhere)]
    assert told["two"] == [
        (OPEN, elsewhere),
        (HALF_OPEN, "it has been open for long enough"),
        (CLOSED, "the probe succeeded"),
    ]


def test_generations_go_round(core, memory):
    """After a million generations, the first number comes again."""
    breaker = memory.join(core)
    breaker.words.swap(0, 0, ((1 << 20) - 1) << 41)
    for _ in range(4):
        attempt(breaker, START, FAILED)
    assert breaker.state_at(START) == OPEN
    then = until_of(START)
    attempt(breaker, then)
    assert breaker.state_at(then) == CLOSED
    assert breaker.enter(then) == -1


@pytest.mark.parametrize(
    ("new_memory", "change"),
    [
        (lambda: bytearray(256), bytearray.clear),
        (lambda: mmap.mmap(-1, 256), mmap.mmap.close),
    ],
    ids=["alone", "mapped"],
)
def test_words_that_a_collector_finds_let_their_memory_go(core, new_memory, change):
    """Memory that is still in use can be neither resized nor closed."""
    memory = new_memory()
    words = core.SharedCounters(memory, 0, 2, -1)
    cycle: list[Any] = [words]
    cycle.append(cycle)
    with pytest.raises(BufferError):
        change(memory)
    del words, cycle
    gc.collect()
    change(memory)
