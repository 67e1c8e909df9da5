"""`opero.testing`: delays off, clocks that tests move, so that no test suite has to sleep."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from opero import AllFailedError, DeadlineExceeded, RateLimiter, attempts, hotpath, opero, opmap
from opero.testing import manual_clock, record_attempts, skip_waits

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


@pytest.mark.parametrize("first", [skip_waits, manual_clock])
@pytest.mark.parametrize("second", [skip_waits, manual_clock])
def test_the_two_may_overlap(core: hotpath.Core, first: Any, second: Any) -> None:
    """As in two threads or tasks: the one that goes on has what it asked for."""
    one, other = first(), second()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert (core.clock.frozen, core.clock.skipping) == (second is manual_clock, True)
    other.__exit__(None, None, None)
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


# --- attempts -------------------------------------------------------------------------------------


def flaky(failures: int, **options: Any) -> Any:
    """Make a function that fails so often before it succeeds."""
    left = [failures]

    @opero(min_delay=1, backoff_factor=2, jitter=False, **options)
    def fetch() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise TimeoutError(f"{left[0]} left")
        return "value"

    return fetch


def test_attempts_are_recorded(core: hotpath.Core) -> None:
    """How many, with which errors, how far apart; what came before does not count."""
    fetch = flaky(2, retries=5)
    other = opero(min_delay=0)(lambda: None)
    with skip_waits(), record_attempts(fetch) as record:
        assert record.attempts == 0
        fetch()
        other()
        assert record.attempts == 3
    assert (record.calls, record.attempts, record.retries) == (1, 3, 2)
    assert (record.hits, record.fallbacks) == (0, 0)
    assert record.delays == [1.0, 2.0]
    assert [str(error) for error in record.errors] == ["1 left", "0 left"]
    assert [event.kind for event in record.events] == ["retry", "retry"]
    fetch()
    assert record.attempts == 3


def test_attempts_of_several_functions_are_recorded_together(core: hotpath.Core) -> None:
    """Coroutine functions, methods and maps alike."""

    @opero(retries=2, min_delay=0)
    async def awaited() -> None:
        raise ValueError

    class Shop:
        @opero(cache=True)
        def price(self) -> int:
            return 1

    @opmap(mode="thread", workers=2, retries=3, min_delay=0)
    def mapped(item: int) -> int:
        return 1 // item

    shop = Shop()
    with record_attempts(awaited, shop.price, mapped) as record:
        with pytest.raises(AllFailedError):
            asyncio.run(awaited())
        shop.price()
        shop.price()
        mapped([0, 1])
    assert (record.calls, record.hits, record.attempts) == (5, 1, 2 + 1 + 4)
    assert len(record.errors) == 5


def test_an_assertion_on_attempts_holds(core: hotpath.Core) -> None:
    """Errors are compared by type, or by type and text."""
    fetch = flaky(2, retries=3)
    with skip_waits(), record_attempts(fetch) as record:
        fetch()
    record.assert_attempts(3)
    record.assert_attempts(3, errors=[TimeoutError, TimeoutError("0 left")], delays=[1, 2])
    record.assert_attempts(3, errors=[OSError, Exception])


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"attempts": 2}, "expected 2 attempts, but 3 were made"),
        ({"attempts": 3, "errors": []}, "expected errors: none"),
        ({"attempts": 3, "errors": [KeyError, OSError]}, "expected errors: KeyError, OSError"),
        (
            {"attempts": 3, "errors": [OSError, TimeoutError("1 left")]},
            "expected errors: OSError, TimeoutError: 1 left",
        ),
        ({"attempts": 3, "delays": [1, 3]}, "expected delays: 1 s, 3 s"),
    ],
)
def test_an_assertion_that_fails_tells_the_story(
    core: hotpath.Core, expected: dict[str, Any], message: str
) -> None:
    """What was expected, and a line for each failed attempt."""
    fetch = flaky(2, retries=3)
    with skip_waits(), record_attempts(fetch) as record:
        fetch()
    with pytest.raises(AssertionError) as caught:
        record.assert_attempts(**expected)
    lines = str(caught.value).splitlines()
    assert lines[0] == message
    assert lines[1].endswith("fetch: calls: 1, hits: 0, attempts: 3")
    assert lines[2:] == [
        "  attempt 1 of 3 failed with TimeoutError: 1 left; retrying in 1 s",
        "  attempt 2 of 3 failed with TimeoutError: 0 left; retrying in 2 s",
    ]


def test_a_deadline_and_giving_up_are_in_the_story(core: hotpath.Core) -> None:
    """The error that the deadline cut the next attempt of counts once."""
    late = flaky(9, retries=5, timeout=2)
    failing = flaky(9, retries=2)
    with skip_waits(), record_attempts(late, failing) as record:
        for function in (late, failing):
            with pytest.raises((DeadlineExceeded, AllFailedError)):
                function()
    record.assert_attempts(4, errors=[TimeoutError] * 4, delays=[1, 1])
    with pytest.raises(AssertionError, match=r"out of time: (.|\n)*; giving up"):
        record.assert_attempts(0)


def block(failures: int) -> int:
    """Try a block that fails so often."""
    for attempt in attempts(retries=3, min_delay=2, jitter=False):
        with attempt:
            if attempt.number <= failures:
                raise TimeoutError
    return attempt.number


async def awaited_block(failures: int) -> int:
    """Do the same in a coroutine."""
    async for attempt in attempts(retries=3, min_delay=2, jitter=False):
        with attempt:
            if attempt.number <= failures:
                raise TimeoutError
    return attempt.number


def test_blocks_are_recorded_by_the_function_that_they_are_in(core: hotpath.Core) -> None:
    """Though nothing is left of them when it returns."""
    with skip_waits(), record_attempts(block) as record:
        assert (block(1), block(0)) == (2, 1)
    record.assert_attempts(3, errors=[TimeoutError], delays=[2])
    with skip_waits(), record_attempts(awaited_block) as record, pytest.raises(AllFailedError):
        asyncio.run(awaited_block(3))
    record.assert_attempts(3, errors=[TimeoutError] * 3, delays=[2, 3])


def test_only_functions_are_recorded() -> None:
    """At least one."""
    with pytest.raises(TypeError, match=r"needs functions, not 3"):
        record_attempts(3).__enter__()  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs at least one decorated function"):
        record_attempts().__enter__()
