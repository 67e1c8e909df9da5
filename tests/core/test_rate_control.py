"""The rate of an adaptive limit: what it does on each success and rejection, and what comes of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from throttling import (
    Limit,
    Outcome,
    SlidingServer,
    TokenServer,
    WindowServer,
    run,
    steps,
)

from opero import hotpath

MS = 10**6
SECOND = 10**9

STEPS = st.lists(
    st.tuples(st.integers(0, SECOND), st.booleans(), st.integers(0, 2 * SECOND)), max_size=80
)


def serve(control: Any, now: int, seconds: float) -> int:
    """Let a server serve as much as the rate allows for some time; return the end of that time."""
    end = now + seconds * SECOND
    while now < end:
        now += int(SECOND / control.rate)
        control.succeeded(now, now - MS)
    return now


@given(given_rate=st.floats(0.01, 1e6), share=st.floats(0.001, 1), steps=STEPS)
def test_the_rate_stays_between_the_floor_and_the_given_rate(core, given_rate, share, steps):
    """Whatever happens and whenever, even if attempts are reported long after they began."""
    floor = given_rate * share
    control = core.RateControl(given_rate, floor)
    now = 0
    for step, success, since in steps:
        now += step
        (control.succeeded if success else control.rejected)(now, now - since)
        assert floor <= control.rate <= given_rate
        assert 0 <= control.credit <= 25


@given(steps=STEPS)
def test_both_halves_come_to_the_same_rate(steps):
    """They use the same arithmetic."""
    controls = []
    for name in ("plain", "compiled"):
        try:
            controls.append(hotpath.load(name).RateControl(100.0, 1.0))
        except hotpath.MissingLibraryError:
            pytest.skip("there is no compiled half")
    now = 0
    for step, success, since in steps:
        now += step
        for control in controls:
            (control.succeeded if success else control.rejected)(now, now - since)
    assert controls[0].rate == controls[1].rate


def test_many_that_were_under_way_are_one_event(core):
    """Attempts that began before the cut show nothing new, however many there are."""
    control = core.RateControl(100.0, 1.0)
    now = serve(control, 0, 5)
    assert control.rejected(now, now - 50 * MS)
    rate = control.rate
    assert not any(control.rejected(now + each * MS, now - each * MS) for each in range(40))
    assert not control.rejected(
        now + MS, now
    )  # nor did this one begin later, on a clock that stands
    assert control.rate == rate
    assert 60 < rate < 100


def test_rejections_right_after_a_cut_halve_the_rate_each_time(core):
    """A limit that has fallen to a tenth is found within four round trips."""
    control = core.RateControl(100.0, 1.0)
    now = serve(control, 0, 5)
    rates = []
    for _ in range(5):
        now += 50 * MS
        assert control.rejected(now, now - MS)
        rates.append(control.rate)
    assert 80 < rates[0] < 90
    assert rates[1:4] == pytest.approx([rates[0] / 2**each for each in range(1, 4)])
    assert rates[4] < 10
    assert control.series


def test_what_begins_right_after_a_cut_belongs_to_the_same_event(core):
    """If the server answers fast, the next attempt would otherwise halve the rate within 5 ms."""
    control = core.RateControl(100.0, 1.0)
    now = serve(control, 0, 5)
    assert control.rejected(now, now - 5 * MS)
    assert not control.rejected(now + 15 * MS, now + 10 * MS)
    assert control.rejected(now + 55 * MS, now + 50 * MS)


def test_time_without_traffic_raises_nothing(core):
    """Nothing shows that an unused rate is right."""
    control = core.RateControl(100.0, 1.0)
    now = serve(control, 0, 5)
    control.rejected(now, now - MS)
    rate = control.rate
    control.succeeded(now + 3600 * SECOND, now + 3600 * SECOND - MS)
    assert control.rate < rate * 1.01


def test_a_burst_at_one_moment_raises_nothing(core):
    """Clean time never exceeds the time that has passed, not even if the clock stands still."""
    control = core.RateControl(10.0, 0.1)
    control.rejected(SECOND, SECOND - MS)
    control.succeeded(2 * SECOND, 2 * SECOND - MS)
    rate = control.rate
    for _ in range(1000):
        control.succeeded(2 * SECOND, 2 * SECOND - MS)
    assert control.rate == rate


def test_a_rate_of_which_little_is_used_rises_slowly(core):
    """Half as many attempts count as half as much clean time."""
    used, half = core.RateControl(1000.0, 1.0), core.RateControl(1000.0, 1.0)
    now = SECOND
    for control in (used, half):
        control.rejected(now, now - MS)
    serve(used, now, 1.0)
    for _ in range(40):
        now += int(2 * SECOND / half.rate)
        half.succeeded(now, now - MS)
    assert half.clean * 2 == pytest.approx((now - SECOND) / SECOND, rel=0.05)


def test_the_rate_is_given_again_after_some_clean_seconds(core):
    """From a tenth, with attempts at the full rate: within ten seconds."""
    control = core.RateControl(100.0, 1.0)
    now = serve(control, 0, 20)
    for _ in range(5):
        now += 50 * MS
        control.rejected(now, now - MS)
    assert control.rate < 10
    serve(control, now, 10)
    assert control.rate == 100.0


def test_a_success_from_before_the_cut_does_not_raise_the_rate(core):
    """It was served at another rate."""
    control = core.RateControl(100.0, 1.0)
    control.rejected(10 * SECOND, 9 * SECOND)
    rate = control.rate
    assert not control.succeeded(11 * SECOND, 10 * SECOND)
    assert control.rate == rate
    assert control.succeeded(12 * SECOND, 11 * SECOND)
    assert control.rate > rate


# --- what comes of it -------------------------------------------------------------------------------

STANDS = steps((50, 60))
FALLS = steps((100, 30), (10, 30), (100, 30))
STAIRS = steps(*[(rate, 15) for rate in (100, 70, 40, 20, 10, 20, 40, 70, 100)])
PROFILES = {"stands": STANDS, "falls": FALLS, "stairs": STAIRS}


def achieved(
    core: Any, limit: tuple[Limit, float], server: Any = TokenServer, **more: Any
) -> Outcome:
    """Run callers of one adaptive limit of 120 against a server."""
    buckets = [core.AdaptiveBucket(120.0, 1, None, (), 1.2)]
    return run(buckets, server(limit[0]), limit[1], most=120, **more)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("latency", [0.005, 0.05])
@pytest.mark.parametrize("asks", ["never", "exactly", "whole seconds"])
@pytest.mark.parametrize("profile", PROFILES)
def test_callers_use_what_the_server_allows_and_are_rarely_rejected(
    core, profile, asks, latency, seed
):
    """More than 85 % of it, with less than 2 % rejected, after the first ten seconds."""
    outcome = achieved(core, PROFILES[profile], asks=asks, latency=latency, seed=seed)
    assert outcome.share > 0.85
    assert outcome.rejected < 0.02


@pytest.mark.parametrize("server", [WindowServer, SlidingServer])
@pytest.mark.parametrize("latency", [0.02, 0.1])
@pytest.mark.parametrize("rate", [10, 50, 100])
def test_the_same_where_it_counts_by_the_second(core, server, latency, rate):
    """With a constant limit; a server that counts whole seconds rejects one attempt too many."""
    outcome = achieved(core, steps((rate, 60)), server, latency=latency)
    assert outcome.share > 0.85
    assert outcome.rejected < (0.03 if server is WindowServer else 0.02)


def test_a_limit_of_which_nothing_is_rejected_stays_as_it_is(core):
    """The server allows more than the callers need."""
    outcome = achieved(core, steps((500, 20)))
    assert outcome.rejected == 0
    assert outcome.rates == [120.0] * len(outcome.rates)
