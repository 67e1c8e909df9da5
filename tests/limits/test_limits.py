"""Weights, windows and pauses of a limit, whatever its scope; and the options that choose the scope."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import time
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from itertools import accumulate
from typing import Any

import pytest
from crowd import Job, run, standing_clock, until, wait_all
from hypothesis import given
from hypothesis import strategies as st

from opero import RateLimiter, hotpath, opero
from opero.limits.windows import burst_of, cells
from opero.testing import manual_clock

MS = 10**6
SECOND = 10**9
RATES = st.floats(0.1, 1e4)
SCOPES: list[dict[str, Any]] = [
    {"scope": "process"},
    {"scope": "machine", "name": "weights"},
    {"scope": "redis", "name": "weights", "url": "redis://127.0.0.1:1"},
]
WINDOWS = st.lists(
    st.tuples(st.integers(1, 30), st.sampled_from([0.01, 0.1, 0.33, 1.0])), max_size=3
)


def spent(limiter: RateLimiter) -> RateLimiter:
    """Take all free permits of a limiter and return it."""
    while limiter.try_acquire():
        pass
    return limiter


def assert_within(taken: list[tuple[int, int]], rate: float, burst: int, windows: Any) -> None:
    """Check every window that begins and ends with a permit."""
    for first, (start, _) in enumerate(taken):
        total = 0
        for now, weight in taken[first:]:
            total += weight
            assert total <= burst + rate * (now - start) / SECOND * (1 + 1e-12) + 1e-9
            for permits, seconds in windows:
                assert now - start > seconds * SECOND or total <= permits


# --- weights ----------------------------------------------------------------------------------------


@given(rate=RATES, burst=st.integers(1, 8), windows=WINDOWS, data=st.data())
def test_no_window_has_too_many_permits_whatever_their_weights(core, rate, burst, windows, data):
    """The rate and all further windows hold, ends included, even if permits come back."""
    windows = tuple(windows)
    bucket: Any = core.WindowedBucket(rate, burst, None, cells(windows, burst))
    most = min([burst, *[burst_of(permits, burst) for permits, _ in windows]])
    longest = int(2 * SECOND / rate)
    steps = st.tuples(st.integers(0, longest), st.integers(1, most), st.booleans())
    taken = []
    now = 0
    for step, weight, back in data.draw(st.lists(steps, max_size=50)):
        now += step
        if bucket.take_many(now, weight) == 0:
            if back:
                bucket.undo(bucket.receipt(), weight)
            else:
                taken.append((now, weight))
    assert_within(taken, rate, burst, windows)


@given(permits=st.integers(1, 150), seconds=st.floats(0.001, 100), burst=st.integers(1, 60))
def test_a_window_that_is_used_as_hard_as_can_be_is_full_and_not_fuller(
    core, permits, seconds, burst
):
    """The burst comes immediately, then each permit as soon as it is free."""
    ((interval, most),) = cells(((permits, seconds),), burst)
    bucket: Any = core.WindowedBucket(1e9, 1000, None, ((interval, most),))
    length = int(seconds * SECOND)
    times = []
    now = 0
    while len(times) < 2 * permits + 2:
        wait = bucket.enter(now)
        if wait:
            now += wait
        else:
            times.append(now)
    inside = [
        sum(start <= time <= start + length for time in times) for start in times[: permits + 1]
    ]
    assert max(inside) <= permits
    assert inside[0] >= min(permits, 0.99 * permits)  # nothing is wasted at first
    assert most >= permits // 10


@given(rate=RATES, burst=st.integers(1, 8), data=st.data())
def test_many_at_once_are_as_many_one_by_one(core, rate, burst, data):
    """A weight of three takes what three permits would take if all were free."""
    one, other = core.TokenBucket(rate, burst), core.TokenBucket(rate, burst)
    steps = data.draw(st.lists(st.integers(0, int(2 * SECOND / rate)), max_size=20))
    for now in accumulate(steps, initial=0):
        weight = data.draw(st.integers(1, burst))
        wait = one.take_many(now, weight)
        if wait == 0:
            assert [other.enter(now) for _ in range(weight)] == [0] * weight
        else:
            assert one.due(now, weight, 0) == now + wait
            assert one.take_many(now + wait - 1, weight) == 1
        assert one.arrival == other.arrival


def test_a_weight_waits_for_as_many_permits(core):
    """In a thread and in a task, three at a rate of ten take 300 ms."""
    with manual_clock() as clock:
        limiter = spent(RateLimiter(10, burst=4))
        limiter.acquire_sync(3)
        assert clock.waited == pytest.approx(0.3, abs=1e-6)
        run(limiter.acquire(4))
        assert clock.waited == pytest.approx(0.7, abs=1e-6)
        assert not limiter.try_acquire()


def test_nobody_passes_one_who_waits_for_many(core):
    """Lighter waiters behind it wait, however few permits they want."""
    with standing_clock(core.clock) as clock:
        limiter = spent(RateLimiter(100, burst=5))
        heavy = Job(limiter.acquire_sync, 5)
        until(lambda: limiter._bucket.queued == 1)
        light = Job(limiter.acquire_sync)
        until(lambda: limiter._bucket.queued == 2)
        clock.advance(40 * MS)
        assert not limiter.try_acquire()
        clock.advance(10 * MS)
        heavy.result()
        assert not light.over
        clock.advance(10 * MS)
        light.result()
        assert not limiter.try_acquire()


def test_the_time_until_ones_turn_counts_the_weights_before(core):
    """A deadline that is one nanosecond too early is refused immediately."""
    with standing_clock(core.clock) as clock:
        limiter = spent(RateLimiter(100, burst=5))
        heavy = Job(limiter.acquire_sync, 5)
        until(lambda: limiter._bucket.queued == 1)
        assert limiter._wait_sync(core.clock.now() + 70 * MS - 1, 2) == -1
        late = Job(limiter._wait_sync, core.clock.now() + 70 * MS, 2)
        until(lambda: limiter._bucket.queued == 2)
        clock.advance(50 * MS)
        heavy.result()
        clock.advance(20 * MS)
        assert late.result() == 70 * MS


@pytest.mark.parametrize("weight", [6, 100])
def test_a_weight_above_the_burst_is_refused_and_both_are_named(weight):
    """It would wait for ever."""
    limiter = RateLimiter(10, burst=5)
    for ask in (limiter.try_acquire, limiter.acquire_sync, lambda w: run(limiter.acquire(w))):
        with pytest.raises(ValueError, match=f"weight={weight} .* burst=5, "):
            ask(weight)
    windowed = RateLimiter(10, burst=500, windows=[(10, 1)])
    with pytest.raises(
        ValueError, match=r"weight=6 .* at most 5, because windows=\(\(10, 1.0\),\) "
    ):
        windowed.try_acquire(6)
    assert windowed.try_acquire(5)


class Two(IntEnum):
    """A whole number of a type other than int."""

    TWO = 2


@pytest.mark.once
@pytest.mark.parametrize("options", SCOPES, ids=lambda options: options["scope"])
@pytest.mark.parametrize(
    ("weight", "error"),
    [
        *((weight, ValueError) for weight in (0, -1, 10**10)),
        *((weight, TypeError) for weight in (True, False, 1.0, 1.5, 2.0, 1 + 0j, "1", None)),
        *((weight, TypeError) for weight in (Decimal(1), Fraction(1))),
    ],
    ids=repr,
)
def test_a_weight_is_a_whole_number_from_one(options, weight, error):
    """Anything else is refused, even if it equals 1; the message names it."""
    limiter = RateLimiter(10, burst=5, **options)
    for ask in (limiter.try_acquire, limiter.acquire_sync, lambda w: run(limiter.acquire(w))):
        with pytest.raises(error, match=f"weight={re.escape(repr(weight))} is not allowed"):
            ask(weight)


def test_a_weight_may_be_whatever_can_be_an_index(core):
    """It counts as its int value."""
    for weight in (2, Two.TWO):
        assert_two(weight)


def test_a_weight_may_be_an_integer_of_numpy(core):
    """NumPy's floats, bools and arrays are refused."""
    numpy = pytest.importorskip("numpy")
    for weight in (numpy.int64(2), numpy.uint8(2), numpy.array(2)):
        assert_two(weight)
    for weight in (numpy.float64(1), numpy.array(1.0), numpy.array([1]), numpy.True_):
        with pytest.raises(TypeError, match="weight="):
            RateLimiter(10, burst=5).try_acquire(weight)


def assert_two(weight: Any) -> None:
    """Check that a weight counts as two permits."""
    with manual_clock():
        limiter = RateLimiter(10, burst=5)
        assert limiter.try_acquire(weight)
        limiter.acquire_sync(weight)
        assert [limiter.try_acquire(), limiter.try_acquire()] == [True, False]


# --- windows ------------------------------------------------------------------------------------------


def test_a_permit_is_taken_from_all_windows_or_from_none(core):
    """A permit that the slower limit refuses does not count in the faster one."""
    with standing_clock(core.clock) as clock:
        limiter = RateLimiter(1000, burst=2, windows=[(4, 1)])
        assert [limiter.try_acquire() for _ in range(3)] == [True, True, False]
        for _ in range(20):
            clock.advance(1 * MS)
            assert not limiter.try_acquire()
        clock.advance(1000 * MS)
        assert [limiter.try_acquire() for _ in range(3)] == [True, True, False]


def test_several_windows_hold_at_once_for_decorated_functions(core):
    """The limit is ten in a second and fifteen in ten seconds."""
    with manual_clock() as clock:
        starts = []

        @opero(retries=1, rate_limit=RateLimiter(100, 5, windows=[(10, 1), (15, 10)]))
        def note():
            starts.append(round(clock.now() * SECOND))

        for _ in range(40):
            note()
        assert_within([(start, 1) for start in starts], 100, 5, [(10, 1), (15, 10)])
        assert clock.waited >= 2 * 10


@pytest.mark.once
@pytest.mark.parametrize(
    ("windows", "error"),
    [
        (5, TypeError),
        ("ab", TypeError),
        ([5], TypeError),
        ([(5,)], TypeError),
        ([(0, 1)], ValueError),
        ([(1, 0)], ValueError),
        ([(1.5, 1)], TypeError),
        ([(1, float("nan"))], ValueError),
    ],
)
def test_windows_are_pairs_of_permits_and_seconds(windows, error):
    """The error names anything else."""
    with pytest.raises(error, match="windows"):
        RateLimiter(10, windows=windows)


# --- pauses ---------------------------------------------------------------------------------------------


@given(rate=RATES, burst=st.integers(1, 6), windows=WINDOWS, data=st.data())
def test_nothing_is_handed_out_in_a_pause_and_the_rate_holds_after_it(
    core, rate, burst, windows, data
):
    """Permits may be taken and given back at any time; exactly one is free after the pause."""
    bucket: Any = core.WindowedBucket(rate, burst, None, cells(tuple(windows), burst))
    longest = int(2 * SECOND / rate)
    steps = st.tuples(
        st.integers(0, longest),
        st.sampled_from(["take"] * 5 + ["back", "pause"]),
        st.integers(1, longest),
    )
    kept: list[Any] = []
    now = until = 0
    for step, what, length in data.draw(st.lists(steps, max_size=50)):
        now += step
        if what == "pause":
            bucket.pause(now, length)
            until = max(until, now + length)
        elif what == "back" and kept:
            bucket.undo(kept.pop()[1])
        elif bucket.enter(now) == 0:
            assert now >= until
            kept.append((now, bucket.receipt()))
    assert_within([(time, 1) for time, _ in kept], rate, burst, windows)


def test_after_a_pause_permits_come_one_by_one(core):
    """The pause spends the burst, so a server that answered 429 does not get it all together."""
    bucket = core.TokenBucket(10.0, 5)
    bucket.pause(0, SECOND)
    assert bucket.enter(0) == SECOND
    assert bucket.enter(SECOND - 1) == 1
    assert [bucket.enter(SECOND), bucket.enter(SECOND)] == [0, SECOND // 10]


def test_a_pause_holds_those_who_wait_and_keeps_their_order(core):
    """A shorter pause within a longer one changes nothing, nor does a pause of zero."""
    order: list[Any] = []
    limiter = RateLimiter(100)

    def wait(number):
        limiter.acquire_sync()
        order.append(number)

    async def wait_async():
        await limiter.acquire()
        order.append("task")

    with standing_clock(core.clock) as clock:
        spent(limiter)
        jobs = []
        for number in range(3):
            jobs.append(Job(run, wait_async()) if number == 1 else Job(wait, number))
            until(lambda: limiter._bucket.queued == len(jobs))
        limiter.pause(1.0)
        limiter.pause(0.2)
        limiter.pause(0)
        clock.advance(1000 * MS - 1)
        time.sleep(0.02)
        assert not limiter.try_acquire()
        assert order == []
        for number in range(3):
            clock.advance(10 * MS)
            until(lambda: len(order) > number)
    wait_all(jobs)
    assert order == [0, "task", 2]


def test_a_deadline_within_a_pause_is_told_at_once(core):
    """A wait that cannot end in time does not begin."""
    with standing_clock(core.clock):
        limiter = RateLimiter(100, burst=5)
        limiter.pause(60)
        assert limiter._wait_sync(core.clock.now() + 59 * SECOND) == -1
        assert not limiter.try_acquire()


@pytest.mark.once
@pytest.mark.parametrize(
    ("seconds", "error"),
    [(-1, ValueError), (float("nan"), ValueError), (float("inf"), ValueError), ("1", TypeError)],
)
def test_a_pause_is_a_time_in_seconds(seconds, error):
    """Anything else is refused."""
    with pytest.raises(error, match="seconds="):
        RateLimiter(10).pause(seconds)


# --- scopes ---------------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"scope": "host"}, ValueError, "scope='host'"),
        ({"scope": "machine"}, ValueError, "scope='machine' needs name="),
        ({"scope": "redis", "url": "redis://127.0.0.1:1"}, ValueError, "scope='redis' needs name="),
        ({"scope": "redis", "name": "x"}, ValueError, "scope='redis' needs url="),
        ({"scope": "machine", "name": b"x"}, TypeError, "name=b'x'"),
        ({"scope": "redis", "name": "x", "url": 5}, TypeError, "url= must be a string"),
        (
            {"scope": "machine", "name": "x", "url": "y"},
            ValueError,
            "url= is not read by scope='ma",
        ),
        ({"name": "x"}, ValueError, "name='x' is not read by scope='process'"),
    ],
)
def test_a_scope_gets_what_it_needs_and_nothing_else(options, error, match):
    """The message names the option."""
    with pytest.raises(error, match=match):
        RateLimiter(10, **options)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_has_the_windows_too(duplicate):
    """In scope "process" a copy is a separate limiter with its burst free."""
    limiter = spent(RateLimiter(0.5, burst=2, windows=[(4, 1.5)]))
    twin = duplicate(limiter)
    assert repr(twin) == repr(limiter) == "RateLimiter(0.5, burst=2, windows=((4, 1.5),))"
    assert [twin.try_acquire() for _ in range(3)] == [True, True, False]


def test_the_line_is_left_as_it_was_whatever_the_weights(core):
    """Tasks of all weights come and go, and some are cancelled."""
    limiter = RateLimiter(20_000, burst=5)

    async def main():
        tasks = [asyncio.ensure_future(limiter.acquire(1 + n % 5)) for n in range(60)]
        await asyncio.sleep(0.002)
        for task in tasks[::3]:
            task.cancel()
        await asyncio.wait(tasks)

    for _ in range(5):
        run(main())
    assert limiter._bucket.queued == 0
    assert limiter._queue._extra == 0


def test_a_bucket_in_c_is_asked_in_c_also_when_it_is_shared(core):
    """`take` of each kind uses the same call of a decorated function."""
    if core.name == "plain":
        return
    for kind in (core.TokenBucket, core.WindowedBucket, core.SharedBucket):
        assert type(kind.admit_many).__name__ in ("method_descriptor", "cython_function_or_method")
    assert hotpath.load("compiled").SharedBucket.__mro__[2] is core.TokenBucket
