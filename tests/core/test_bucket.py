"""The token bucket: over any window `w` never more than `burst + rate * w` permits."""

from __future__ import annotations

import threading
from fractions import Fraction
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opero import hotpath

SECOND = 1_000_000_000
RATES = st.floats(1e-3, 1e6)
BURSTS = st.integers(1, 20)


def assert_within_rate(times: list[int], rate: float, burst: int) -> None:
    """Check every window that begins and ends with a permit: no other window contains more."""
    times = sorted(times)
    pace = Fraction(rate) / SECOND
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + pace * (times[last] - start)


def token(bucket: Any) -> int:
    """Return a receipt for the permit that was taken last."""
    return int(bucket.arrival + bucket.refunded)


@given(rate=RATES, burst=BURSTS, data=st.data())
def test_no_window_has_more_permits_than_burst_plus_rate_times_its_length(
    core: hotpath.Core, rate: float, burst: int, data: st.DataObject
) -> None:
    """Whatever the times at which callers come, the promised bound holds exactly."""
    longest = int(3 * SECOND / rate)
    steps = data.draw(st.lists(st.integers(0, longest), max_size=60))
    bucket = core.TokenBucket(rate, burst)
    times = [now for now in accumulate(steps, initial=0) if bucket.enter(now) == 0]
    assert_within_rate(times, rate, burst)


@given(rate=RATES, burst=st.integers(1, 6), data=st.data())
def test_no_window_has_too_many_permits_when_some_are_given_back(
    core: hotpath.Core, rate: float, burst: int, data: st.DataObject
) -> None:
    """A returned permit does not count, whenever it returns; its room is used only once."""
    bucket = core.TokenBucket(rate, burst)
    steps = st.tuples(st.integers(0, 2 * bucket.interval), st.integers(0, 3))
    kept: list[tuple[int, int]] = []
    now = 0
    for step, back in data.draw(st.lists(steps, max_size=40)):
        now += step
        if bucket.enter(now) == 0:
            kept.append((now, token(bucket)))
        if back and len(kept) >= back:
            bucket.undo(kept.pop(-back)[1])
    assert_within_rate([time for time, _ in kept], rate, burst)


@given(rate=RATES, burst=BURSTS, start=st.integers(0, 10**18))
def test_a_pause_frees_the_whole_burst_and_not_one_permit_more(
    core: hotpath.Core, rate: float, burst: int, start: int
) -> None:
    """After a pause, `burst` permits are free together."""
    bucket = core.TokenBucket(rate, burst)
    granted = [bucket.enter(start) == 0 for _ in range(burst + 5)]
    assert [True] * burst + [False] * 5 == granted


@given(rate=RATES, burst=BURSTS, count=st.integers(1, 50))
def test_the_answer_is_exactly_how_long_the_next_permit_takes(
    core: hotpath.Core, rate: float, burst: int, count: int
) -> None:
    """After exactly that time a caller gets a permit; a nanosecond earlier it does not."""
    bucket = core.TokenBucket(rate, burst)
    now = 0
    for _ in range(count):
        while (wait := bucket.enter(now)) > 0:
            assert bucket.enter(now + wait - 1) == 1
            now += wait
    assert now == max(0, count - burst) * bucket.interval


@pytest.mark.parametrize(
    ("rate", "interval"), [(1.0, SECOND), (3.0, 333_333_334), (1e9, 1), (0.1, 10 * SECOND)]
)
def test_the_interval_is_rounded_up_so_that_the_rate_is_never_exceeded(
    core: hotpath.Core, rate: float, interval: int
) -> None:
    """If a rate does not divide a second evenly, the actual rate is slightly lower."""
    assert interval == core.TokenBucket(rate, 1).interval


def test_a_burst_of_one_spaces_permits_evenly(core: hotpath.Core) -> None:
    """At two per second, permits lie half a second apart."""
    bucket = core.TokenBucket(2.0, 1)
    half = SECOND // 2
    assert [0, half, 1, 0] == [bucket.enter(now) for now in (0, 0, half - 1, half)]


def test_a_refused_caller_takes_nothing(core: hotpath.Core) -> None:
    """Asking too early does not delay the next permit."""
    bucket = core.TokenBucket(1.0, 1)
    bucket.enter(0)
    assert [bucket.enter(SECOND // 2) for _ in range(3)] == [SECOND // 2] * 3


def test_nobody_passes_those_who_wait_in_line(core: hotpath.Core) -> None:
    """While callers are queued, `take` grants nothing even if a permit is free."""
    bucket = core.TokenBucket(1.0, 1)
    bucket.queued = 1
    assert bucket.interval == bucket.enter(0)
    assert bucket.admit(0) == 0


def test_a_permit_that_is_given_back_is_free_again(core: hotpath.Core) -> None:
    """Undoing the last permit restores the bucket."""
    bucket = core.TokenBucket(1.0, 1)
    bucket.enter(0)
    bucket.undo(token(bucket))
    assert bucket.enter(0) == 0


def test_permits_given_back_out_of_order_make_room_only_once(core: hotpath.Core) -> None:
    """Of four permits two were used, a second apart, so no fifth is free at that time."""
    bucket = core.TokenBucket(1.0, 2)
    tokens = []
    for _ in range(2):
        bucket.enter(0)
        tokens.append(token(bucket))
    bucket.undo(tokens[0])
    assert bucket.enter(1) == 0
    assert bucket.enter(SECOND) == 0
    bucket.undo(tokens[1])
    assert bucket.enter(SECOND) > 0


def test_a_permit_of_long_ago_gives_nothing_back(core: hotpath.Core) -> None:
    """A pause has already made up for its room."""
    bucket = core.TokenBucket(1.0, 1)
    bucket.enter(0)
    old = token(bucket)
    bucket.enter(5 * SECOND)
    bucket.undo(old)
    assert bucket.enter(5 * SECOND) == SECOND


@pytest.mark.parametrize(("rate", "burst"), [(1e-10, 1), (1e-9, 2), (1.0, 10**10)])
def test_a_bucket_that_would_fill_for_decades_is_refused(
    core: hotpath.Core, rate: float, burst: int
) -> None:
    """Its times would not fit into a machine word."""
    with pytest.raises(ValueError, match="31 years"):
        core.TokenBucket(rate, burst)


def run_together(count: int, work) -> None:  # type: ignore[no-untyped-def]
    """Run `work(number)` in `count` threads that begin at the same moment."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> None:
        barrier.wait()
        work(number)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("burst", [1, 7, 500])
def test_threads_together_get_no_more_than_the_burst_at_one_moment(
    core: hotpath.Core, burst: int
) -> None:
    """Eight threads that ask at the same moment share one burst."""
    bucket = core.TokenBucket(1.0, burst, core.new_lock())
    granted: list[int] = []

    def work(number: int) -> None:
        granted.extend(number for _ in range(200) if bucket.enter(5 * SECOND) == 0)

    run_together(8, work)
    assert burst == len(granted)


@pytest.mark.parametrize(("rate", "burst"), [(20_000.0, 1), (100_000.0, 10)])
def test_threads_together_stay_within_the_rate_as_time_goes_on(
    core: hotpath.Core, rate: float, burst: int
) -> None:
    """The bound applies to the permits of all threads as one sequence."""
    bucket = core.TokenBucket(rate, burst, core.new_lock())
    clock = core.Clock()
    granted: list[int] = []

    def work(number: int) -> None:
        for _ in range(400):
            now = clock.now()
            if bucket.enter(now) == 0:
                granted.append(now)

    run_together(6, work)
    assert granted
    assert_within_rate(granted[:400], rate, burst)


def test_a_lock_guards_every_step_if_there_is_one(core: hotpath.Core) -> None:
    """If the interpreter does not make a step atomic, the given mutex does."""
    entered = []

    class Lock:
        def __enter__(self) -> None:
            entered.append(True)

        def __exit__(self, *details: object) -> None:
            entered.append(False)

    bucket = core.TokenBucket(1.0, 1, Lock())
    bucket.enter(0)
    assert entered == [True, False]
