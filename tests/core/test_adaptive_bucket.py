"""The bucket of an adaptive limit: what it hands out while its rate changes."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opero import hotpath
from opero.core import adaptive_bucket, gate
from opero.core.gate import FAILED, NEUTRAL, REJECTED, SUCCEEDED, WITHDRAWN

MS = 10**6
SECOND = 10**9


def bucket_of(
    core: hotpath.Core, rate: float, burst: int = 1, windows: Any = (), **more: Any
) -> Any:
    return core.AdaptiveBucket(rate, burst, core.new_lock(), windows, more.get("floor", rate / 100))


def cut(bucket: Any, now: int, times: int = 1) -> None:
    """Cause `times` congestion events until `now`."""
    for each in range(times - 1, -1, -1):
        at = now - each * SECOND
        bucket.leave(at, REJECTED, at - MS, 0)


STEPS = st.lists(
    st.tuples(
        st.integers(0, SECOND),
        st.sampled_from(["take", "take", "take", "serve", "serve", "reject", "undo"]),
        st.integers(1, 3),
    ),
    max_size=120,
)


@given(rate=st.floats(0.5, 1e4), burst=st.integers(1, 8), steps=STEPS)
def test_no_window_has_more_permits_than_the_rate_at_each_moment_allows(core, rate, burst, steps):
    """The bound is the burst plus the sum of the rate over time, even with returned permits."""
    bucket = bucket_of(core, rate, burst)
    now = 0
    allowed = 0.0  # by the rate, since the beginning
    taken: list[tuple[float, int]] = []
    receipts = []
    for share, what, weight in steps:
        step = int(share * 50 / rate)
        now += step
        allowed += bucket.rate() * step / SECOND
        if what == "take" and bucket.take_many(now, min(weight, burst)) == 0:
            taken.append((allowed, min(weight, burst)))
            receipts.append((bucket.receipt(), min(weight, burst), len(taken) - 1))
        elif what == "serve":
            bucket.leave(now, SUCCEEDED, now, 0)
        elif what == "reject":
            bucket.leave(now, REJECTED, now, 0)
        elif what == "undo" and receipts:
            receipt, many, at = receipts.pop()
            bucket.undo(receipt, many)
            taken[at] = (taken[at][0], 0)
    for first, (start, _) in enumerate(taken):
        total = 0
        for then, weight in taken[first:]:
            total += weight
            assert total <= burst + (then - start) * (1 + 1e-9) + 1e-4


@pytest.mark.parametrize("burst", [1, 5])
def test_what_is_owed_stays_owed_when_the_rate_changes(core, burst):
    """The next permit moves by the ratio of the rates, and a cut spends a full bucket."""
    bucket = bucket_of(core, 10.0, burst)
    while bucket.enter(10 * SECOND) == 0:
        pass
    before = bucket.enter(10 * SECOND)
    cut(bucket, 10 * SECOND)
    assert bucket.enter(10 * SECOND) == pytest.approx(before * 10 / bucket.rate(), abs=10)
    full = bucket_of(core, 10.0, burst)
    cut(full, 10 * SECOND)
    assert full.enter(10 * SECOND) == 0
    assert full.enter(10 * SECOND) == pytest.approx(SECOND / full.rate(), abs=10)


@pytest.mark.parametrize("burst", [1, 5])
@pytest.mark.parametrize("then", [REJECTED, SUCCEEDED])
def test_a_pause_is_as_long_as_it_was_when_the_rate_changes(core, burst, then):
    """Whether the rate rises or falls meanwhile."""
    bucket = bucket_of(core, 10.0, burst)
    cut(bucket, 10 * SECOND)
    bucket.pause(10 * SECOND, 5 * SECOND)
    for each in range(1, 20):
        now = 10 * SECOND + each * 100 * MS
        bucket.leave(now, then, now - MS, 0)
    assert bucket.enter(15 * SECOND - 1) == 1
    assert bucket.enter(15 * SECOND) == 0
    assert bucket.enter(15 * SECOND) == pytest.approx(SECOND / bucket.rate(), abs=10)


def test_windows_hold_at_any_rate(core):
    """They are separate limits, which do not adapt."""
    bucket = bucket_of(core, 100.0, 1, ((SECOND, 2),))
    assert [bucket.enter(now * 10 * MS) for now in range(3)][:2] == [0, 0]
    cut(bucket, SECOND // 2)
    assert bucket.enter(SECOND // 2) == SECOND // 2
    assert bucket.enter(SECOND) == 0


@pytest.mark.parametrize("outcome", [FAILED, NEUTRAL, WITHDRAWN])
def test_other_ends_of_attempts_change_nothing(core, outcome):
    """A failure is a sign neither of too many attempts nor of success."""
    bucket = bucket_of(core, 10.0)
    cut(bucket, SECOND)
    rate = bucket.rate()
    for each in range(2, 50):
        bucket.leave(each * SECOND, outcome, each * SECOND - MS, 0)
    assert bucket.rate() == rate


def test_the_numbers_of_outcomes_are_those_of_gates():
    """The module repeats them as numbers in C."""
    assert (adaptive_bucket._SUCCEEDED, adaptive_bucket._REJECTED) == (
        gate.SUCCEEDED,
        gate.REJECTED,
    )


def test_a_short_pause_is_heeded_where_a_lower_rate_does_not_do(core):
    """A server asks for at least a second after one attempt too many; a long pause is meant."""
    bucket = bucket_of(core, 10.0)
    now = 10 * SECOND
    cut(bucket, now)
    bucket.pause_as_asked(now, SECOND)
    assert bucket.enter(now) == 0
    bucket.pause_as_asked(now, 5 * SECOND)
    assert bucket.enter(now + 5 * SECOND - 1) == 1
    cut(bucket, now + 6 * SECOND)
    bucket.pause_as_asked(now + 6 * SECOND, SECOND)
    assert bucket.enter(now + 7 * SECOND - 1) == 1


def test_those_who_wait_are_told_when_it_matters(core):
    """After each cut, and when the rate has risen by about a sixteenth since."""
    bucket = bucket_of(core, 1000.0)
    told: list[tuple[bool, float]] = []
    bucket.watcher = lambda cut: told.append((cut, bucket.rate()))
    now = SECOND
    cut(bucket, now)
    bucket.leave(now, REJECTED, now - MS, 0)
    assert [cut for cut, _ in told] == [True]
    while bucket.rate() < 1000:
        now += int(SECOND / bucket.rate())
        bucket.leave(now, SUCCEEDED, now - MS, 0)
    rises = [rate for cut, rate in told if not cut]
    assert 2 <= len(rises) <= 12
    assert all(after > before * 1.05 for before, after in pairwise(rises))


def test_a_fresh_one_has_the_same_settings_and_its_own_rate(core):
    """Each worker of a map needs one."""
    bucket = bucket_of(core, 10.0, 3, floor=2.0)
    cut(bucket, SECOND)
    fresh = bucket.fresh(None)
    assert (fresh.rate(), fresh.burst, fresh.control.floor) == (10.0, 3, 2.0)
    assert fresh.observes


@pytest.mark.parametrize(("rate", "burst", "floor"), [(1.0, 1, 1e-10), (1.0, 10**5, 1e-5)])
def test_one_that_would_fill_for_decades_at_its_floor_is_refused(core, rate, burst, floor):
    """Its times would not fit into a machine word."""
    with pytest.raises(ValueError, match="31 years"):
        core.AdaptiveBucket(rate, burst, None, (), floor)


def test_threads_that_take_and_report_at_once_stay_between_floor_and_rate(core):
    """Eight threads make some thousand steps."""
    bucket = bucket_of(core, 1e6, 1)
    clock = core.Clock()
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for each in range(2000):
            now = clock.now()
            bucket.enter(now)
            bucket.leave(now, REJECTED if each % 97 == number else SUCCEEDED, now, 0)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1e4 <= bucket.rate() <= 1e6
