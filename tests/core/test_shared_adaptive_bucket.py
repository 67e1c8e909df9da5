"""The bucket of an adaptive limit that processes share: several over the same words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from throttling import TokenServer, run, steps

from opero import hotpath
from opero.core import gate, shared_adaptive_bucket
from opero.core.gate import REJECTED, SUCCEEDED
from opero.core.shared_adaptive_bucket import WORDS

MS = 10**6
SECOND = 10**9
Make = Callable[..., Any]


@pytest.fixture
def make(core: hotpath.Core, tmp_path: Path) -> Iterator[Make]:
    """Make buckets over the same words."""
    lock = (tmp_path / "lock").open("w")
    memory = bytearray(64 * (WORDS + 4 + 8))
    empty = (-(10**18) << 1).to_bytes(8, "little", signed=True)

    def bucket(rate: float = 100.0, burst: int = 1, floor: float = 1.0, anew: bool = False) -> Any:
        if anew or not any(memory):
            for at in range(WORDS + 4):
                memory[64 * at : 64 * at + 8] = empty if at else bytes(8)
        words = core.SharedCounters(memory, 0, WORDS + 3, lock.fileno())
        return core.SharedAdaptiveBucket(
            rate, burst, core.new_lock(), (), words, core.Clock(), core.Clock(), floor
        )

    yield bucket
    lock.close()


STEPS = st.lists(
    st.tuples(st.integers(0, SECOND), st.booleans(), st.integers(0, SECOND), st.integers(0, 2)),
    max_size=60,
)


@given(steps=STEPS)
def test_what_several_learn_is_what_one_would(core, make, steps):
    """The rate is the same to a billionth, and the interval to a nanosecond."""
    first = make(anew=True)
    buckets = [first, make(), make()]
    control = core.RateControl(100.0, 1.0)
    now = SECOND
    for step, success, since, which in steps:
        now += step
        buckets[which].leave(now, SUCCEEDED if success else REJECTED, now - since, 0)
        (control.succeeded if success else control.rejected)(now, now - since)
        assert all(each.rate() == pytest.approx(control.rate, rel=1e-4) for each in buckets)


def test_a_newcomer_resets_nothing(make):
    """It adopts the current rate."""
    first = make()
    first.leave(SECOND, REJECTED, SECOND - MS, 0)
    assert first.rate() < 70
    assert make().rate() == first.rate()
    assert make().interval == first.interval


def test_no_window_has_more_permits_than_the_rate_allows(make):
    """Two buckets share the words, and one cuts the rate and raises it again."""
    buckets = [make(1000.0), make(1000.0)]
    now = SECOND
    taken = []
    for each in range(4000):
        now += MS // 2
        if buckets[each % 2].enter(now) == 0:
            taken.append(now)
            buckets[each % 2].leave(now, SUCCEEDED, now - 1, 0)
        if each % 1000 == 500:
            buckets[0].leave(now, REJECTED, now - 1, 0)
    gaps = [after - before for before, after in pairwise(taken)]
    assert min(gaps) >= MS
    assert max(gaps) > 1.2 * MS


def test_a_pause_is_as_long_as_it_was_when_another_changes_the_rate(make):
    """The words hold the pause too."""
    one, other = make(10.0), make(10.0)
    one.pause(SECOND, 5 * SECOND)
    for each in range(1, 20):
        now = SECOND + each * 100 * MS
        other.leave(now, REJECTED, now - MS, 0)
    assert one.enter(6 * SECOND - 1) == 1
    assert one.enter(6 * SECOND) == 0
    assert other.enter(6 * SECOND) == pytest.approx(SECOND / one.rate(), abs=10)


def test_a_process_that_died_with_the_lease_holds_nobody_up(make):
    """The lease expires; a rejection waits for that, and a success is dropped."""
    bucket = make()
    bucket.leave(SECOND, REJECTED, SECOND - MS, 0)
    rate = bucket.rate()
    lease = bucket.first + 2
    bucket.words.put(lease, bucket.real.now() + 4 * MS)
    bucket.leave(2 * SECOND, SUCCEEDED, 2 * SECOND - MS, 0)
    assert bucket.rate() == rate
    bucket.leave(2 * SECOND, REJECTED, 2 * SECOND - MS, 0)
    assert bucket.rate() < rate
    bucket.words.put(lease, bucket.real.now() + 3600 * SECOND)  # of a process with another clock
    bucket.leave(3 * SECOND, REJECTED, 3 * SECOND - MS, 0)
    assert bucket.words.load(lease) == 0


def test_a_short_pause_is_heeded_where_a_lower_rate_does_not_do(make):
    """Whichever process cut the rate."""
    one, other = make(10.0), make(10.0)
    now = 10 * SECOND
    one.leave(now, REJECTED, now - MS, 0)
    other.pause_as_asked(now, SECOND)
    assert one.enter(now) == 0
    one.leave(now + SECOND, REJECTED, now + SECOND - MS, 0)
    other.pause_as_asked(now + SECOND, SECOND)
    assert one.enter(now + 2 * SECOND - 1) == 1


def test_those_who_wait_in_a_process_are_told_of_what_it_learns(make):
    """After a cut, and when the rate has risen by a sixteenth."""
    bucket = make(1000.0)
    told: list[bool] = []
    bucket.watcher = told.append
    now = SECOND
    bucket.leave(now, REJECTED, now - MS, 0)
    bucket.leave(now, REJECTED, now - MS, 0)
    while bucket.rate() < 1000:
        now += int(SECOND / bucket.rate())
        bucket.leave(now, SUCCEEDED, now - MS, 0)
    assert told[0] is True
    assert 2 <= told[1:].count(False) <= 12
    assert told.count(True) == 1


def test_the_numbers_of_outcomes_are_those_of_gates():
    """The module repeats them as numbers in C."""
    numbers = (shared_adaptive_bucket._SUCCEEDED, shared_adaptive_bucket._REJECTED)
    assert numbers == (gate.SUCCEEDED, gate.REJECTED)


def test_a_fresh_one_is_nobody_elses(make):
    """Each worker of a map needs one."""
    bucket = make(10.0, 3, 2.0)
    bucket.leave(SECOND, REJECTED, SECOND - MS, 0)
    fresh = bucket.fresh(None)
    assert (fresh.rate(), fresh.burst, fresh.control.floor) == (10.0, 3, 2.0)


@pytest.mark.parametrize("asks", ["never", "whole seconds"])
def test_callers_of_several_processes_use_what_the_server_allows(make, asks):
    """Like one process: more than 85 % of it, less than 2 % rejected, after ten seconds."""
    limit, seconds = steps((100, 25), (20, 25), (100, 25))
    buckets = [make(120.0, floor=1.2) for _ in range(3)]
    outcome = run(buckets, TokenServer(limit), seconds, most=120, asks=asks)
    assert outcome.share > 0.85
    assert outcome.rejected < 0.02
