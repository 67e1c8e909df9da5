"""`opero.testing`: delays off, clocks that tests move, so that no test suite has to sleep."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from opero import AllFailedError, DeadlineExceeded, RateLimiter, hotpath, opero, testing
from opero.testing import manual_clock, skip_waits

HOUR = 3600


def failing_test() -> None:
    """Be the body of a test that fails."""
    raise ZeroDivisionError


def new_object() -> object:
    """Return something that is not equal to what another call returns."""
    return object()


def failing(**options: Any) -> Any:
    """Make a function whose attempts fail, hours apart."""

    @opero(min_delay=HOUR, max_delay=HOUR, **options)
    def function() -> None:
        raise ValueError

    return function


@pytest.mark.once
def test_the_module_offers_three_names() -> None:
    """Two ways to control time, and the type of what they give."""
    assert sorted(testing.__all__) == ["MovableClock", "manual_clock", "skip_waits"]


@pytest.mark.parametrize("context", [skip_waits, manual_clock])
def test_a_backoff_of_hours_is_over_at_once(core: hotpath.Core, context: Any) -> None:
    """And the clock says that the hours have passed."""
    with context() as clock, pytest.raises(AllFailedError):
        failing(retries=5)()
    assert clock.waited >= 4 * HOUR


@pytest.mark.parametrize("context", [skip_waits, manual_clock])
def test_an_awaited_backoff_of_hours_is_over_at_once(core: hotpath.Core, context: Any) -> None:
    """Other tasks run in between nevertheless."""
    order: list[str] = []

    @opero(retries=2, min_delay=HOUR, max_delay=HOUR)
    async def function() -> None:
        order.append("attempt")
        raise ValueError

    async def main() -> None:
        other = asyncio.get_running_loop()
        other.call_soon(order.append, "other")
        await function()

    with context() as clock, pytest.raises(AllFailedError):
        asyncio.run(main())
    assert clock.waited >= HOUR
    assert order == ["attempt", "other", "attempt"]


@pytest.mark.parametrize("context", [skip_waits, manual_clock])
def test_permits_that_take_hours_are_there_at_once(core: hotpath.Core, context: Any) -> None:
    """For decorated functions, and for a limiter used by hand in all of its ways."""
    limiter = RateLimiter(1 / HOUR)
    function = opero(rate_limit=limiter)(lambda: None)

    async def main() -> None:
        await limiter.acquire()
        async with limiter:
            pass

    with context() as clock:
        for _ in range(3):
            function()
        limiter.acquire_sync()
        with limiter:
            pass
        asyncio.run(main())
        assert not limiter.try_acquire()
    assert clock.waited >= 6 * HOUR


@pytest.mark.parametrize("context", [skip_waits, manual_clock])
def test_waits_that_are_skipped_count_against_a_deadline(core: hotpath.Core, context: Any) -> None:
    """As if they had been waited for."""
    with context(), pytest.raises(DeadlineExceeded) as caught:
        failing(retries=10, timeout=2.5 * HOUR)()
    assert len(caught.value.errors) == 3


def test_time_stands_still_until_the_test_moves_it(core: hotpath.Core) -> None:
    """`manual_clock` alone decides when a value expires."""
    function = opero(cache=True, cache_ttl=60)(new_object)
    with manual_clock() as clock:
        first = function()
        assert (clock.waited, clock.now()) == (0.0, clock.started)
        clock.advance(59.999)
        assert function() is first
        clock.advance(0.001)
        assert function() is not first
        assert clock.waited == pytest.approx(60.0)


def test_time_runs_on_while_only_waits_are_skipped(core: hotpath.Core) -> None:
    """`skip_waits` does not stop it."""
    with skip_waits() as clock:
        before = clock.now()
        while clock.now() == before:
            pass
        assert clock.now() > before
        clock.advance(HOUR)
        assert clock.waited >= HOUR


def test_time_does_not_go_back(core: hotpath.Core) -> None:
    """Neither by the test's hand nor when it ends."""
    with manual_clock() as clock:
        with pytest.raises(ValueError, match=r"seconds=-1 is not allowed"):
            clock.advance(-1)
        clock.advance(HOUR)
        inside = clock.now()
    assert clock.now() >= inside


def test_afterwards_everything_is_as_before(core: hotpath.Core) -> None:
    """Also when the test fails."""
    for context in (skip_waits, manual_clock):
        with pytest.raises(ZeroDivisionError), context():
            failing_test()
        assert (core.clock.frozen, core.clock.skipping) == (False, False)


@pytest.mark.parametrize("outer", [skip_waits, manual_clock])
@pytest.mark.parametrize("inner", [skip_waits, manual_clock])
def test_the_two_can_be_nested(core: hotpath.Core, outer: Any, inner: Any) -> None:
    """The inner one leaves the outer one as it was."""
    with outer():
        state = core.clock.frozen, core.clock.skipping
        with inner():
            assert core.clock.skipping
            assert core.clock.frozen == (manual_clock in (outer, inner))
        assert (core.clock.frozen, core.clock.skipping) == state
    assert (core.clock.frozen, core.clock.skipping) == (False, False)


def test_waits_are_real_outside(core: hotpath.Core) -> None:
    """A short one is waited for."""
    function = opero(retries=2, min_delay=0.005, jitter=False)(lambda: 1 / 0)
    before = time.monotonic_ns()
    with pytest.raises(AllFailedError):
        function()
    assert time.monotonic_ns() - before >= 5_000_000


def test_threads_see_the_same_time(core: hotpath.Core) -> None:
    """The clock is the process's."""
    function = opero(cache=True, cache_ttl=HOUR)(new_object)
    found: list[object] = []
    with manual_clock() as clock:
        found.append(function())
        for seconds in (HOUR / 2, HOUR):
            clock.advance(seconds)
            thread = threading.Thread(target=lambda: found.append(function()))
            thread.start()
            thread.join()
    assert found[0] is found[1]
    assert found[0] is not found[2]


def test_both_halves_are_not_moved_together(core: hotpath.Core) -> None:
    """Each half has one clock, and a test moves that of the active one."""
    other = hotpath.load("plain" if core.name == "compiled" else core.name)
    before = other.clock.offset
    with manual_clock() as clock:
        clock.advance(HOUR)
    assert other is core or other.clock.offset == before
