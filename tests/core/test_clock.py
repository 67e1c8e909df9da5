"""The clock: monotonic, in whole nanoseconds, and movable, but never backwards."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opero import hotpath
from opero.core.clock import NEVER

SECOND = 1_000_000_000


def test_now_is_the_monotonic_time_of_the_machine_in_nanoseconds(core: hotpath.Core) -> None:
    """An unmoved clock reads the same as `time.monotonic_ns`."""
    clock = core.Clock()
    before = time.monotonic_ns()
    now = clock.now()
    assert before <= now <= time.monotonic_ns()


def test_the_time_is_a_whole_number(core: hotpath.Core) -> None:
    """It counts nanoseconds, so rounding loses nothing."""
    clock = core.Clock()
    assert [int, int] == [type(clock.now()), type(clock.coarse())]


def test_the_cheap_reading_is_never_ahead_of_the_exact_one(core: hotpath.Core) -> None:
    """`coarse` may be late, so a value may live slightly longer but never shorter."""
    clock = core.Clock()
    for _ in range(1000):
        assert clock.coarse() <= clock.now()


def test_advance_moves_both_readings(core: hotpath.Core) -> None:
    """Moving the clock moves it for every reader."""
    clock = core.Clock()
    clock.freeze()
    start = clock.now()
    clock.advance(5)
    assert start + 5 == clock.now() == clock.coarse()


def test_move_to_goes_forward_to_a_time(core: hotpath.Core) -> None:
    """A skipped wait ends exactly at its end."""
    clock = core.Clock()
    clock.freeze()
    end = clock.now() + 7 * SECOND
    clock.move_to(end)
    assert end == clock.now()


def test_move_to_a_time_that_has_passed_does_nothing(core: hotpath.Core) -> None:
    """Time does not go back."""
    clock = core.Clock()
    clock.freeze()
    start = clock.now()
    clock.move_to(start - SECOND)
    assert start == clock.now()


def test_a_frozen_clock_stands_still(core: hotpath.Core) -> None:
    """All readings of a frozen clock are the same."""
    clock = core.Clock()
    clock.freeze()
    assert {clock.now()} == {reading() for reading in (clock.now, clock.coarse) * 500}


def test_a_thawed_clock_runs_on_from_where_it_stood(core: hotpath.Core) -> None:
    """Moves made while it was frozen stay in effect."""
    clock = core.Clock()
    clock.freeze()
    clock.advance(3600 * SECOND)
    stood_at = clock.now()
    clock.thaw()
    assert stood_at <= clock.now() < stood_at + 3600 * SECOND


def test_thawing_a_running_clock_does_nothing(core: hotpath.Core) -> None:
    """Only a frozen clock can be thawed."""
    clock = core.Clock()
    clock.advance(SECOND)
    clock.thaw()
    assert clock.offset == SECOND


def test_never_is_later_than_any_deadline(core: hotpath.Core) -> None:
    """The current time plus the longest option is still earlier than `NEVER`."""
    assert core.clock.now() + 10**18 < NEVER
    assert NEVER < 2**63


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("advance"), st.integers(0, 10**15)),
            st.tuples(st.just("move_to"), st.integers(-(10**15), 10**15)),
            st.tuples(st.sampled_from(["freeze", "thaw"]), st.none()),
        ),
        max_size=20,
    )
)
@pytest.mark.parametrize("reading", ["now", "coarse"])
def test_time_never_goes_back_whatever_is_done_to_the_clock(
    core: hotpath.Core, reading: str, steps: list[tuple[str, int | None]]
) -> None:
    """Each of the two readings only grows, unless a thaw finds the coarse one some ms late."""
    clock = core.Clock()
    last = getattr(clock, reading)()
    for step, size in steps:
        if step == "move_to":
            assert size is not None
            clock.move_to(clock.now() + size)
        elif size is None:
            getattr(clock, step)()
        else:
            clock.advance(size)
        now = getattr(clock, reading)()
        assert now >= last - (SECOND if reading == "coarse" and step == "thaw" else 0)
        last = now
