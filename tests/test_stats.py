"""The figures: what `stats()` counts, for ordinary and coroutine functions alike."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from opero import RateLimiter, get_cache_decorator, hotpath, opero, stats
from opero.testing import manual_clock

FIELDS = (
    "calls",
    "hits",
    "misses",
    "attempts",
    "retries",
    "fallbacks",
    "failures",
    "permit_wait",
    "backoff_wait",
    "stale",
    "refreshes",
    "store_failures",
    "rejected",
    "refused",
    "breaker_wait",
)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Callable[..., tuple[Any, Callable[..., None]]]:
    """Make a decorated function that raises what it is given, and a way to call it."""

    def make(**options: Any) -> tuple[Any, Callable[..., None]]:
        outcomes: list[Any] = []

        def body(x: Any) -> Any:
            outcome = outcomes.pop(0) if outcomes else "value"
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        if request.param:

            @opero(**options)
            async def function(x: Any = None) -> Any:
                return body(x)

        else:

            @opero(**options)
            def function(x: Any = None) -> Any:  # type: ignore[misc]
                return body(x)

        def call(*deeds: Any, x: Any = None) -> None:
            """Call once; the attempts do one deed each, the others return."""
            outcomes[:] = deeds

            async def main() -> None:
                await function(x)

            with contextlib.suppress(Exception):
                asyncio.run(main()) if request.param else function(x)

        return function, call

    return make


def figures(function: Any, **expected: float) -> None:
    """Check that all figures are zero but those that are expected."""
    assert dict.fromkeys(FIELDS, 0) | expected == pytest.approx(function.stats()._asdict())


def test_a_new_function_has_no_figures(make: Any) -> None:
    """Nothing but zeros."""
    function, _ = make(cache=True, rate_limit=1.0)
    figures(function)
    assert function.stats()._fields == FIELDS


def test_calls_and_attempts_are_counted(make: Any) -> None:
    """Each call that runs the function makes an attempt."""
    function, call = make()
    for _ in range(3):
        call()
    figures(function, calls=3, attempts=3)


def test_hits_and_misses_are_counted(make: Any) -> None:
    """A hit makes no attempt."""
    function, call = make(cache=True)
    for x in (1, 1, 2, 1):
        call(x=x)
    figures(function, calls=4, hits=2, misses=2, attempts=2)


def test_retries_are_the_attempts_that_began_another_round(make: Any) -> None:
    """And the backoff between rounds is summed up in seconds."""
    function, call = make(retries=4, min_delay=1, backoff_factor=2, jitter=False)
    with manual_clock():
        call(ValueError(), ValueError(), "value")
    figures(function, calls=1, attempts=3, retries=2, backoff_wait=3.0)


def test_fallbacks_are_the_attempts_with_the_next_value_of_a_round(make: Any) -> None:
    """They are no retries."""
    function, call = make(retries=2, min_delay=5, jitter=False, arg_fallback={"x": ["b", "c"]})
    with manual_clock():
        call(*[ValueError()] * 4)
    figures(function, calls=1, attempts=5, retries=1, fallbacks=3, backoff_wait=5.0)


@pytest.mark.parametrize(
    ("options", "deeds", "expected"),
    [
        ({"retries": 1}, [ValueError()], {}),
        ({"retries": 2, "min_delay": 0}, [ValueError()] * 2, {"attempts": 2, "retries": 1}),
        ({"retry_on": KeyError}, [ValueError()], {}),
        ({"timeout": 1, "min_delay": 5}, [ValueError()] * 3, {}),
        ({"cache": True, "retries": 1}, [ValueError()], {"misses": 1}),
        ({"arg_fallback": "x"}, [], {"attempts": 0, "failures": 0}),
    ],
    ids=[
        "own exception",
        "all failed",
        "no match",
        "deadline",
        "cached",
        "a call that did not begin",
    ],
)
def test_failures_are_the_runs_that_ended_in_an_exception(
    make: Any, options: dict[str, Any], deeds: list[Any], expected: dict[str, int]
) -> None:
    """Whichever exception it was."""
    function, call = make(**options)
    with manual_clock():
        call(*deeds)
    figures(function, **{"calls": 1, "attempts": 1, "failures": 1, **expected})


def test_waits_for_permits_are_summed_up_in_seconds(make: Any) -> None:
    """A permit that is free costs nothing."""
    function, call = make(rate_limit=2.0)
    with manual_clock():
        for _ in range(4):
            call()
    figures(function, calls=4, attempts=4, permit_wait=1.5)


def test_a_permit_that_would_come_too_late_is_a_failure_without_attempt(make: Any) -> None:
    """And nothing was waited for."""
    limiter = RateLimiter(0.1)
    limiter.try_acquire()
    function, call = make(rate_limit=limiter, timeout=1)
    with manual_clock():
        call()
    figures(function, calls=1, failures=1)


def test_figures_are_of_one_function(make: Any) -> None:
    """Each has its own."""
    one, call_one = make()
    other, _ = make()
    call_one()
    figures(one, calls=1, attempts=1)
    figures(other)


def test_clearing_the_cache_leaves_the_figures_alone(make: Any) -> None:
    """Only `cache_info` counts from the last `cache_clear`."""
    function, call = make(cache=True)
    call(x=1)
    call(x=1)
    function.cache_clear()
    figures(function, calls=2, hits=1, misses=1, attempts=1)


def state(function: Any) -> Any:
    """Return the object that counts: the state of a decorated function."""
    return getattr(function, "__opero__", function)


def test_every_counter_can_be_added_to(make: Any) -> None:
    """By its name; a wait in nanoseconds."""
    function, _ = make()
    for place, name in enumerate(stats.COUNTERS):
        state(function).add(name, 1 + place)
    expected = {name: 1 + place for place, name in enumerate(FIELDS)}
    for name in ("permit_wait", "backoff_wait", "breaker_wait"):
        expected[name] /= 1e9
    figures(function, **expected)
    spelt = str(b"retries", "ascii")  # another object than the name in the table
    state(function).add(spelt, -1)
    assert function.stats().retries == expected["retries"] - 1


def test_a_row_more_in_the_table_is_a_counter_more(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Stats` is the one place that says what is counted."""

    class More(NamedTuple):
        calls: int = 0
        hits: int = 0
        misses: int = 0
        attempts: int = 0
        parties: int = 0
        parting: float = 0.0

    monkeypatch.setattr(stats, "Stats", More)
    monkeypatch.setattr(stats, "COUNTERS", More._fields)
    function, call = make()
    state(function).add("parties", 2)
    state(function).add("parting", 2_500_000_000)
    call()
    assert function.stats() == More(calls=1, attempts=1, parties=2, parting=2.5)


@pytest.mark.checkout
@pytest.mark.once
def test_there_is_room_for_every_counter_in_c() -> None:
    """The array is of one size, so that it lies in the object itself."""
    source = Path(hotpath.__file__).with_name("_compiled") / "counting.pxd"
    [room] = re.findall(
        r"^ *#define OPERO_COUNTERS (\d+)$", source.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(stats.COUNTERS) <= int(room)


def test_figures_are_a_snapshot(make: Any) -> None:
    """What was read stays as it was."""
    function, call = make()
    before = function.stats()
    call()
    assert (before.calls, function.stats().calls) == (0, 1)


def test_the_sums_add_up_whatever_happens(make: Any) -> None:
    """Calls are hits and misses; attempts are first ones, retries and fallbacks."""
    function, call = make(
        cache=True, retries=2, min_delay=1, rate_limit=5.0, burst=2, arg_fallback={"x": ["b"]}
    )
    with manual_clock() as clock:
        for number in range(12):
            call(*[ValueError()] * (number % 5), x=number % 7)
        stats = function.stats()
        assert stats.calls == stats.hits + stats.misses == 12
        assert stats.attempts == stats.misses + stats.retries + stats.fallbacks
        assert clock.waited == pytest.approx(stats.permit_wait + stats.backoff_wait)


def test_threads_lose_no_count_of_a_wait(core: hotpath.Core) -> None:
    """The backoff of calls that wait at the same time is added up for each of them."""
    inside = threading.Barrier(4)

    @opero(retries=2, min_delay=0.002, jitter=False)
    def function(failing: list[int]) -> None:
        if failing:
            inside.wait()
            failing.pop()
            raise ValueError

    threads = [threading.Thread(target=function, args=([1],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert function.stats().backoff_wait >= 4 * 0.002


def test_tasks_lose_no_count_of_a_wait(core: hotpath.Core) -> None:
    """Likewise for calls that await their backoff together."""

    @opero(retries=2, min_delay=1, jitter=False)
    async def function(failing: list[int]) -> None:
        if failing:
            failing.pop()
            raise ValueError

    async def main() -> None:
        await asyncio.gather(*[function([1]) for _ in range(10)])

    with manual_clock():
        asyncio.run(main())
    stats = function.stats()
    assert (stats.calls, stats.attempts, stats.retries) == (10, 20, 10)
    assert stats.backoff_wait >= 10.0


def test_threads_that_share_a_run_are_all_counted_as_misses(core: hotpath.Core) -> None:
    """But only one of them makes an attempt."""

    @get_cache_decorator()
    def function() -> int:
        while function.stats().misses < 5:
            time.sleep(0)
        return 1

    threads = [threading.Thread(target=function) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures(function, calls=5, misses=5, attempts=1)


def test_tasks_that_share_a_run_are_all_counted_as_misses(core: hotpath.Core) -> None:
    """But only one of them makes an attempt."""

    @get_cache_decorator()
    async def function() -> int:
        await asyncio.sleep(0)
        return 1

    async def main() -> None:
        await asyncio.gather(*[function() for _ in range(5)])

    asyncio.run(main())
    figures(function, calls=5, misses=5, attempts=1)
