"""`call_end` events: the history of calls that were retried or had to wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from failing import failing

from opero import AllFailedError, DeadlineExceeded, Event, hotpath, opero, opmap, roster, subscribe
from opero.testing import manual_clock, skip_waits

MODES = ["thread", "process", "async", "async_process", "executor"]


@pytest.fixture
def heard() -> Iterator[list[Event]]:
    """Listen until the end of the test."""
    events: list[Event] = []
    end = subscribe(events.append, "call_end")
    yield events
    end()
    assert not roster.tracing


def outcomes(event: Event) -> list[type[BaseException] | None]:
    """Return the types of the attempts' errors."""
    assert event.history is not None
    return [None if each.error is None else type(each.error) for each in event.history]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cache": True},
        {"timeout": 100},
        {"cache": True, "timeout": 100},
        {"rate_limit": 1000, "burst": 5},
        {"retry_on_result": lambda value: value is None},
    ],
    ids=lambda options: "-".join(options),
)
def test_a_call_that_succeeds_after_retries(
    core: hotpath.Core, decorated: Any, heard: list[Event], options: dict[str, Any]
) -> None:
    """The first attempt is in its history, too, and the delays are real."""
    function = decorated(
        failing(ValueError("1"), KeyError("2")),
        retries=4,
        min_delay=2,
        backoff_factor=2,
        jitter=False,
        **options,
    )
    with manual_clock():
        assert function() == "value"
        function()
    (event,) = heard
    assert (event.attempts, event.of, event.error, event.seconds) == (3, 4, None, 6.0)
    assert outcomes(event) == [ValueError, KeyError, None]
    assert event.history is not None
    assert [each.number for each in event.history] == [1, 2, 3]
    assert [each.began for each in event.history] == [0.0, 2.0, 6.0]
    assert [each.delay for each in event.history] == [0.0, 2.0, 4.0]


def test_a_call_that_fails_for_good(core: hotpath.Core, decorated: Any, heard: list[Event]) -> None:
    """The error is what the caller gets; the number is that of its other events."""
    others: list[Event] = []
    end = subscribe(others.append, "retry", "give_up")
    function = decorated(failing(*[ValueError()] * 9), retries=2)
    with skip_waits(), pytest.raises(AllFailedError) as caught:
        function()
    end()
    (event,) = heard
    assert event.error is caught.value
    assert {each.call for each in others} == {event.call}
    assert outcomes(event) == [ValueError, ValueError]


def test_an_error_that_is_no_failure_ends_it(
    core: hotpath.Core, decorated: Any, heard: list[Event]
) -> None:
    """After a retry it is in the history; alone it is no event."""
    function = decorated(failing(ValueError(), KeyError()), retry_on=ValueError)
    with skip_waits(), pytest.raises(KeyError) as caught:
        function()
    assert outcomes(heard[0]) == [ValueError, KeyError]
    assert heard[0].error is caught.value
    function = decorated(failing(KeyError()), retry_on=ValueError)
    with pytest.raises(KeyError):
        function()
    assert len(heard) == 1


def test_calls_that_succeed_at_once_are_no_events(
    core: hotpath.Core, decorated: Any, heard: list[Event]
) -> None:
    """Nor hits, nor functions of one attempt."""
    for options in ({}, {"cache": True}, {"retries": 1}, {"rate_limit": 1e9}, {"timeout": 9}):
        function = decorated(failing(), **options)
        assert [function(), function()] == ["value"] * 2
    with pytest.raises(ValueError, match="alone"):
        decorated(failing(ValueError("alone")), retries=1)()
    assert heard == []


def test_a_wait_for_a_permit_is_told(
    core: hotpath.Core, decorated: Any, heard: list[Event]
) -> None:
    """Though the attempt succeeds at once."""
    function = decorated(failing(), retries=1, rate_limit=0.5)
    with manual_clock():
        function()
        function()
    (event,) = heard
    assert event.history is not None
    assert [each.waited for each in event.history] == [2.0]
    assert event.seconds == 2.0
    assert event.call is None


def test_a_wait_in_vain_is_told(core: hotpath.Core, decorated: Any, heard: list[Event]) -> None:
    """There is no attempt in its history."""
    function = decorated(failing(), rate_limit=0.1, timeout=5)
    with manual_clock():
        function()
        with pytest.raises(DeadlineExceeded) as caught:
            function()
    (event,) = heard
    assert event.history == ()
    assert event.error is caught.value


def test_fallback_values_are_attempts(
    core: hotpath.Core, decorated: Any, heard: list[Event]
) -> None:
    """Of one call."""
    inner = failing(ValueError(), ValueError())
    function = decorated(lambda keys: inner(), arg_fallback="keys", retries=2)
    with skip_waits():
        assert function(["a", "b"]) == "value"
    assert outcomes(heard[0]) == [ValueError, ValueError, None]
    assert heard[0].of == 4


def test_predicates_that_raise_end_it(
    core: hotpath.Core, decorated: Any, heard: list[Event]
) -> None:
    """What they raise is what the call raises."""
    errors = iter([True])
    function = decorated(failing(ValueError(), ValueError()), retry_on=lambda error: next(errors))
    with skip_waits(), pytest.raises((StopIteration, RuntimeError)):
        function()
    assert outcomes(heard[0]) == [ValueError, ValueError]
    results = iter([True])
    function = decorated(failing(), retry_on_result=lambda value: next(results))
    with skip_waits(), pytest.raises((StopIteration, RuntimeError)):
        function()
    assert heard[1].attempts == 2


def test_an_interrupt_ends_it(core: hotpath.Core, decorated: Any, heard: list[Event]) -> None:
    """Whatever it is, the listener gets to know."""
    function = decorated(failing(ValueError(), KeyboardInterrupt()))
    with skip_waits(), pytest.raises(KeyboardInterrupt):
        function()
    assert outcomes(heard[0]) == [ValueError, KeyboardInterrupt]


def test_a_cancelled_call_is_told(core: hotpath.Core, heard: list[Event]) -> None:
    """In an attempt."""
    attempts = []

    @opero(retries=3, min_delay=0)
    async def function() -> None:
        attempts.append(None)
        if len(attempts) == 1:
            raise ValueError
        await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.create_task(function())
        while len(attempts) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    (event,) = heard
    assert outcomes(event) == [ValueError, asyncio.CancelledError]


def test_functions_of_every_age_are_told_of(core: hotpath.Core, decorated: Any) -> None:
    """Those from before the listener, those of meanwhile; none afterwards."""
    old = decorated(failing(ValueError(), None, ValueError()))
    heard: list[Event] = []
    end = subscribe(heard.append, "call_end")
    new = decorated(failing(ValueError(), None, ValueError()))
    with skip_waits():
        old()
        new()
        end()
        old()
        new()
    assert len(heard) == 2


@pytest.mark.parametrize("mode", MODES)
def test_items_that_are_retried_are_told(
    core: hotpath.Core, heard: list[Event], mode: str, tmp_path: Any
) -> None:
    """With their index; items that succeed at once are not."""
    options: dict[str, Any] = {"mode": mode, "workers": 2}
    if mode == "executor":
        from concurrent.futures import ThreadPoolExecutor

        options = {"executor": ThreadPoolExecutor(2)}

    def work(item: int) -> int:
        mark = tmp_path / f"{item}"
        if item % 3 == 0 and not mark.exists():
            mark.touch()
            raise ValueError(item)
        if item == 4:
            raise KeyError(item)
        return item

    async def awaited(item: int) -> int:
        return work(item)

    function = awaited if "async" in mode else work
    mapped: Any = opmap(retries=2, min_delay=0.001, **options)(function)
    results = mapped(range(7))
    if mode == "executor":
        options["executor"].shutdown()
    assert results[:4] == [0, 1, 2, 3]
    told = {event.index: event for event in heard}
    assert sorted(told) == [0, 3, 4, 6]
    assert outcomes(told[3]) == [ValueError, None]
    assert outcomes(told[4]) == [KeyError, KeyError]
    assert isinstance(told[4].error, AllFailedError)
    assert all(event.mode == (mode if mode != "executor" else "executor") for event in heard)
    record = told[0].history[1]  # type: ignore[index]
    assert record.began >= record.delay > 0
