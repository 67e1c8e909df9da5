"""Generator functions: retried until their first item is out, and generators like any other then."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import inspect
import logging
import pickle
import sys
import traceback
import types
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from typing import Any

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opero import (
    AllFailedError,
    AttemptTimeout,
    Breaker,
    BreakerConfig,
    BreakerOpenError,
    DeadlineExceeded,
    RateLimiter,
    hotpath,
    opero,
    subscribe,
)
from opero.core.gate import FAILED, NEUTRAL, SUCCEEDED
from opero.exceptions import ResultRejected
from opero.limits import gates
from opero.limits.waiting import PollingQueue
from opero.testing import disabled, manual_clock, record_attempts, skip_waits

AT_ONCE: dict[str, Any] = {"min_delay": 0.0, "max_delay": 0.0}


class Flaky:
    """Two generator functions that fail a few times, each behind or before its first item.

    Attributes:
        failures: How often an attempt fails before its first item.
        log: What has happened.
    """

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.log: list[Any] = []

    def _begin(self) -> None:
        self.log.append("begun")
        if self.log.count("begun") <= self.failures:
            raise OSError(f"attempt {self.log.count('begun')}")

    def items(self, count: int = 3) -> Generator[Any, Any, str]:
        """Yield some numbers."""
        try:
            self._begin()
            for number in range(count):
                sent = yield number
                if sent is not None:
                    self.log.append(sent)
            return "end"
        finally:
            self.log.append("closed")

    async def items_later(self, count: int = 3) -> AsyncGenerator[Any, Any]:
        """Yield some numbers."""
        try:
            await asyncio.sleep(0)
            self._begin()
            for number in range(count):
                sent = yield number
                if sent is not None:
                    self.log.append(sent)
        finally:
            await asyncio.sleep(0)
            self.log.append("closed")


async def in_list(items: AsyncIterator[Any]) -> list[Any]:
    """Return the items as a list."""
    return [item async for item in items]


# --- what is retried ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"timeout": 5.0}, {"rate_limit": 1000.0, "burst": 9}])
def test_attempts_are_made_until_the_first_item_is_out(
    core: hotpath.Core, options: dict[str, Any]
) -> None:
    """Each attempt has its own generator; the caller gets the items of the last one."""
    flaky = Flaky(2)
    function = opero(retries=3, **AT_ONCE, **options)(flaky.items)
    with skip_waits():
        assert list(function()) == [0, 1, 2]
    assert flaky.log == ["begun", "closed"] * 3
    later = Flaky(2)
    awaited = opero(retries=3, **AT_ONCE, **options)(later.items_later)
    with skip_waits():
        assert asyncio.run(in_list(awaited())) == [0, 1, 2]
    assert later.log == ["begun", "closed"] * 3
    for each in (function, awaited):
        stats = each.stats()
        assert (stats.calls, stats.attempts, stats.retries, stats.failures) == (1, 3, 2, 0)


def test_nothing_runs_before_the_first_item_is_asked_for(core: hotpath.Core) -> None:
    """As with any generator, one that never starts leaves nothing behind."""
    flaky = Flaky()
    limiter = RateLimiter(1.0)
    function = opero(rate_limit=limiter)(flaky.items)
    awaited = opero(rate_limit=limiter, timeout=1.0)(flaky.items_later)
    function().close()
    never, never_awaited = function(), awaited()
    del never, never_awaited
    assert flaky.log == []
    assert limiter.try_acquire()
    assert function.stats().attempts == awaited.stats().attempts == 0
    assert (function.stats().calls, awaited.stats().calls) == (2, 1)


@pytest.mark.parametrize("wrong", [((1, 2), {}), ((), {"nothing": 1})], ids=["many", "unknown"])
def test_arguments_that_do_not_fit_are_refused_at_the_call(core: hotpath.Core, wrong: Any) -> None:
    """The call fails, not the first item, and with the function's own message."""
    args, kwargs = wrong
    flaky = Flaky()
    for func in (flaky.items, flaky.items_later):
        with pytest.raises(TypeError) as plain:
            func(*args, **kwargs)
        with pytest.raises(TypeError) as decorated:
            opero(func)(*args, **kwargs)
        assert str(decorated.value) == str(plain.value)


def test_giving_up_raises_at_the_first_item(core: hotpath.Core) -> None:
    """The error holds those of all attempts, and its traceback is short."""
    for retries, expected in ((2, AllFailedError), (1, OSError)):
        flaky = Flaky(9)
        items = opero(retries=retries, **AT_ONCE)(flaky.items)()
        with pytest.raises(expected) as raised:
            next(items)
        assert _frames_of_opero(raised.value) <= 2
        for error in getattr(raised.value, "errors", [raised.value]):
            assert _frames_of_opero(error) <= 2
        with pytest.raises(StopIteration):
            next(items)
        assert len(flaky.log) == 2 * retries

        later = Flaky(9)
        awaited = opero(retries=retries, **AT_ONCE)(later.items_later)
        with pytest.raises(expected) as raised:
            asyncio.run(in_list(awaited()))
        assert _frames_of_opero(raised.value) <= 2
        for error in getattr(raised.value, "errors", [raised.value]):
            assert _frames_of_opero(error) <= 2
        assert len(later.log) == 2 * retries


def _frames_of_opero(error: BaseException) -> int:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return sum(str(frame.f_globals["__name__"]).startswith("opero.") for frame in frames)


def test_an_error_behind_the_first_item_goes_up_as_it_is(core: hotpath.Core) -> None:
    """The caller already has an item, which another attempt would repeat."""
    calls: list[str] = []

    @opero(retries=3, **AT_ONCE)
    def breaks() -> Iterator[int]:
        calls.append("called")
        yield 1
        raise OSError("in mid-stream")

    @opero(retries=3, **AT_ONCE)
    async def breaks_later() -> AsyncIterator[int]:
        calls.append("called")
        yield 1
        raise OSError("in mid-stream")

    async def later() -> None:
        items = breaks_later()
        assert await anext(items) == 1
        with pytest.raises(OSError, match="in mid-stream") as raised:
            await anext(items)
        assert _frames_of_opero(raised.value) == 0

    items = breaks()
    assert next(items) == 1
    with pytest.raises(OSError, match="in mid-stream") as raised:
        next(items)
    assert _frames_of_opero(raised.value) == 0
    asyncio.run(later())
    assert len(calls) == 2
    assert breaks.stats().failures == breaks_later.stats().failures == 0


def test_a_stream_without_items_is_a_success(core: hotpath.Core) -> None:
    """Its end is the outcome of the call; its return value is passed on."""
    flaky = Flaky()
    items = opero(flaky.items)(0)
    with pytest.raises(StopIteration) as end:
        next(items)
    assert end.value.value == "end"
    assert asyncio.run(in_list(opero(flaky.items_later)(0))) == []
    assert flaky.log == ["begun", "closed"] * 2


def test_a_first_item_may_be_rejected(core: hotpath.Core) -> None:
    """Its generator is closed before anything else; without an item, the predicate gets None."""
    log: list[Any] = []
    answers: list[Any] = ["error", None, "token"]

    def asked(item: object) -> bool:
        log.append(item)
        return item in {"error", None}

    def answer() -> Iterator[Any]:
        item = answers[min(log.count("closed"), 2)]
        try:
            if item is not None:
                yield item
        finally:
            log.append("closed")

    async def answer_later() -> AsyncIterator[Any]:
        with closing(answer()) as items:
            for item in items:
                yield item

    expected = ["error", "closed", "waited", "closed", None, "waited", "token"]
    with skip_waits(), _telling(log):
        assert list(opero(retry_on_result=asked)(answer)()) == ["token"]
        assert log == [*expected, "closed"]
        log.clear()
        assert asyncio.run(in_list(opero(retry_on_result=asked)(answer_later)())) == ["token"]
        assert log == [*expected, "closed"]
        log.clear()
        answers[:] = ["error"] * 3
        for run in (list, lambda items: asyncio.run(in_list(items))):
            function = answer if run is list else answer_later
            with pytest.raises(AllFailedError) as raised:
                run(opero(retry_on_result=asked)(function)())
            assert [type(error) for error in raised.value.errors] == [ResultRejected] * 3


@contextmanager
def _telling(log: list[Any]) -> Iterator[None]:
    """Record each retry, which is reported before the wait begins."""
    end = subscribe(lambda event: log.append("waited"), "retry")
    try:
        yield
    finally:
        end()


def test_a_predicate_that_raises_closes_the_generator(core: hotpath.Core) -> None:
    """Otherwise only the garbage collector would."""

    def broken(item: object) -> bool:
        raise ValueError("predicate")

    flaky = Flaky()
    with pytest.raises(ValueError, match="predicate"):
        next(opero(retry_on_result=broken)(flaky.items)())
    assert flaky.log == ["begun", "closed"]
    with pytest.raises(ValueError, match="predicate"):
        asyncio.run(in_list(opero(retry_on_result=broken)(flaky.items_later)()))
    assert flaky.log == ["begun", "closed"] * 2


def test_a_rejected_generator_that_does_not_close_costs_a_warning(
    core: hotpath.Core, caplog: pytest.LogCaptureFixture
) -> None:
    """Its attempt has already failed, and the next one may succeed."""
    attempts: list[int] = []

    def stubborn() -> Iterator[int]:
        attempts.append(1)
        try:
            yield len(attempts) % 2
        finally:
            if len(attempts) % 2:
                raise OSError("cannot close")

    async def stubborn_later() -> AsyncIterator[int]:
        with closing(stubborn()) as items:
            yield next(items)

    def odd(item: int) -> bool:
        return item == 1

    with skip_waits(), caplog.at_level(logging.WARNING, "opero"):
        assert list(opero(retry_on_result=odd)(stubborn)()) == [0]
        assert asyncio.run(in_list(opero(retry_on_result=odd)(stubborn_later)())) == [0]
    told = [record.getMessage() for record in caplog.records if "closing" in record.getMessage()]
    assert [line.partition(": ")[2] for line in told] == [
        "closing a rejected stream failed: OSError"
    ] * 2


@pytest.mark.parametrize("fallback", ["key", {"key": ["second", "third"]}], ids=["list", "dict"])
def test_fallback_values_are_tried_until_one_yields(core: hotpath.Core, fallback: Any) -> None:
    """Each attempt gets one value."""
    tried: list[Any] = []

    def ask(key: Any) -> Iterator[str]:
        value = key[0] if isinstance(key, list) else key
        tried.append(value)
        if value != "third":
            raise OSError(value)
        yield value

    async def ask_later(key: Any) -> AsyncIterator[str]:
        for item in ask(key):
            yield item

    given = ["first", "second", "third"] if fallback == "key" else "first"
    function = opero(arg_fallback=fallback, retries=1)(ask)
    assert list(function(given)) == ["third"]
    assert asyncio.run(in_list(opero(arg_fallback=fallback, retries=1)(ask_later)(given))) == [
        "third"
    ]
    assert tried == ["first", "second", "third"] * 2
    assert function.stats().fallbacks == 2


def test_a_deadline_ends_with_the_first_item(core: hotpath.Core) -> None:
    """It begins with the first `next()`, and later items may take any time."""
    with manual_clock() as clock:
        flaky = Flaky()
        items = opero(timeout=1.0)(flaky.items)()
        clock.advance(5.0)
        assert next(items) == 0
        clock.advance(5.0)
        assert list(items) == [1, 2]

        async def later() -> None:
            items = opero(timeout=1.0)(Flaky().items_later)()
            clock.advance(5.0)
            assert await anext(items) == 0
            clock.advance(5.0)
            assert [item async for item in items] == [1, 2]

        asyncio.run(later())


def test_a_deadline_cuts_the_way_to_the_first_item(core: hotpath.Core) -> None:
    """Waits are not begun; an awaited attempt is cancelled, and cleans up."""
    log: list[str] = []

    async def hangs() -> AsyncIterator[int]:
        try:
            await asyncio.sleep(3600)
            yield 1
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    async def main() -> None:
        items = opero(timeout=0.01)(hangs)()
        with pytest.raises(DeadlineExceeded, match="an attempt was still running then"):
            await anext(items)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        with pytest.raises(StopAsyncIteration):
            await anext(items)

    asyncio.run(main())
    assert log == ["closed"]
    slow = opero(retries=3, min_delay=5.0, jitter=False, timeout=1.0)
    with pytest.raises(DeadlineExceeded):
        next(slow(Flaky(9).items)())
    with pytest.raises(DeadlineExceeded):
        asyncio.run(in_list(slow(Flaky(9).items_later)()))


def test_an_attempt_may_have_a_time_limit_of_its_own(core: hotpath.Core) -> None:
    """It too ends with the first item; a generator that swallows the cut is closed."""
    log: list[str] = []

    async def stalls(swallows: bool) -> AsyncIterator[int]:
        log.append("begun")
        try:
            if log.count("begun") < 3:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    if not swallows:
                        raise
                    log.append("swallowed")
            yield len(log)
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    async def main(swallows: bool, **options: Any) -> None:
        log.clear()
        function = opero(retries=3, attempt_timeout=0.01, **AT_ONCE, **options)(stalls)
        steps = ["begun", "swallowed", "closed"] if swallows else ["begun", "closed"]
        assert await in_list(function(swallows)) == [2 * len(steps) + 1]
        assert log == [*steps, *steps, "begun", "closed"]
        log.clear()
        with pytest.raises(AllFailedError) as raised:
            await in_list(opero(retries=2, attempt_timeout=0.01, **AT_ONCE)(stalls)(swallows))
        assert [type(error) for error in raised.value.errors] == [AttemptTimeout] * 2
        assert log == [*steps, *steps]
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    for swallows in (False, True):
        asyncio.run(main(swallows))
        asyncio.run(main(swallows, timeout=60.0))
    with pytest.raises(ValueError, match=r"ordinary generator function.*as an asynchronous one"):
        opero(attempt_timeout=1.0)(Flaky().items)


def test_a_gate_learns_how_the_way_to_the_first_item_has_ended(
    core: hotpath.Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each attempt, when the item is out rather than at the end of the stream."""
    outcomes: list[int] = []

    class Observer(core.Gate):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__(True)

        def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:
            outcomes.append(outcome)

    queue = PollingQueue(Observer(), "the observer", core.clock)
    monkeypatch.setattr(gates, "ROWS", [*gates.ROWS, lambda *_: queue])

    class Broken(Exception):
        """Breaks an attempt."""

    async def script_later(*steps: Any) -> AsyncIterator[Any]:
        for step in steps:
            await asyncio.sleep(0)
            if isinstance(step, BaseException):
                raise step
            yield step

    def script(*steps: Any) -> Iterator[Any]:
        for step in steps:
            if isinstance(step, BaseException):
                raise step
            yield step

    def odd(item: object) -> bool:
        if item == "raise":
            raise ValueError
        return item == 1

    plans: list[tuple[tuple[Any, ...], list[int]]] = [
        ((2, 4), [SUCCEEDED]),
        ((), [SUCCEEDED]),
        ((2, Broken()), [SUCCEEDED]),
        ((Broken(),), [FAILED, FAILED]),
        ((KeyError(),), [NEUTRAL]),
        ((1,), [FAILED, FAILED]),
        (("raise",), [NEUTRAL]),
        ((asyncio.CancelledError(),), [NEUTRAL]),
        ((KeyboardInterrupt(),), [NEUTRAL]),
    ]
    decorate = opero(retries=2, retry_on=Broken, retry_on_result=odd, **AT_ONCE)

    async def first_two(items: AsyncIterator[Any]) -> None:
        await anext(items)
        assert outcomes == [SUCCEEDED]
        await anext(items)

    for steps, expected in plans:
        outcomes.clear()
        items = decorate(script)(*steps)
        with contextlib.suppress(BaseException):
            next(items)
            assert outcomes == [SUCCEEDED]
            next(items)
        assert outcomes == expected
        outcomes.clear()
        with contextlib.suppress(BaseException):
            asyncio.run(first_two(decorate(script_later)(*steps)))
        assert outcomes == expected


def test_events_tell_the_way_to_the_first_item(core: hotpath.Core) -> None:
    """As with any call; later failures are the caller's."""
    told: list[Any] = []
    end = subscribe(told.append, "retry", "fallback", "give_up", "permit_wait", "deadline")
    try:
        function = opero(retries=2, rate_limit=1e6, burst=9, **AT_ONCE)(Flaky(1).items)
        list(function())
        awaited = opero(retries=2, arg_fallback={"count": [2]}, **AT_ONCE)(Flaky(1).items_later)
        asyncio.run(in_list(awaited(3)))
        with pytest.raises(AllFailedError):
            next(opero(retries=2, **AT_ONCE)(Flaky(9).items)())
    finally:
        end()
    assert [(event.kind, event.function, event.mode) for event in told] == [
        ("permit_wait", "Flaky.items", "sync"),
        ("retry", "Flaky.items", "sync"),
        ("permit_wait", "Flaky.items", "sync"),
        ("fallback", "Flaky.items_later", "async"),
        ("retry", "Flaky.items", "sync"),
        ("give_up", "Flaky.items", "sync"),
    ]


def test_streams_are_switched_off_for_tests(core: hotpath.Core) -> None:
    """Like all decorated functions."""
    with disabled():
        for func in (Flaky(1).items, Flaky(1).items_later):
            function = opero(retries=3, **AT_ONCE)(func)
            with pytest.raises(OSError, match="attempt 1"):
                next(function()) if func.__name__ == "items" else asyncio.run(in_list(function()))
            assert function.stats().calls == 0


def test_a_host_whose_breaker_is_open_is_passed_over(core: hotpath.Core) -> None:
    """Each value has a breaker, which failures before the first item open."""
    asked: list[str] = []

    def stream_of(host: str) -> Iterator[str]:
        asked.append(host)
        if host == "main":
            raise OSError(host)
        yield host
        raise OSError("in mid-stream")

    async def later(host: str) -> AsyncIterator[str]:
        for item in stream_of(host):
            yield item

    options: dict[str, Any] = {"retries": 1, "arg_fallback": {"host": ["backup"]}}
    for func in (stream_of, later):
        asked.clear()
        function = opero(**options, breaker=BreakerConfig(minimum=2))(func)
        for _ in range(4):
            items = function("main")
            with pytest.raises(OSError, match="in mid-stream"):
                list(items) if func is stream_of else asyncio.run(in_list(items))
        assert asked == ["main", "backup", "main", "backup", "backup", "backup"]
        assert function.stats().refused == 2

    shop = Breaker("shop", minimum=1)
    for func in (stream_of, later):
        shop.trip()
        function = opero(retries=3, breaker=shop)(func)
        items = function("backup")
        with pytest.raises(BreakerOpenError):
            next(items) if func is stream_of else asyncio.run(anext(items))
        assert function.stats().attempts == 0


def test_the_history_of_a_stream_is_told(core: hotpath.Core) -> None:
    """The history of a retried stream ends with its first item."""
    told: list[Any] = []
    end = subscribe(told.append, "call_end")
    try:
        items = opero(retries=3, **AT_ONCE)(Flaky(2).items)()
        next(items)
        assert len(told) == 1
        asyncio.run(in_list(opero(retries=3, **AT_ONCE)(Flaky(1).items_later)()))
        with pytest.raises(AllFailedError):
            next(opero(retries=2, **AT_ONCE)(Flaky(2).items)())
        assert list(opero(retries=2)(Flaky(0).items)()) == [0, 1, 2]
    finally:
        end()
    errors = [[type(record.error) for record in event.history] for event in told]
    assert errors == [[OSError, OSError, type(None)], [OSError, type(None)], [OSError, OSError]]
    with record_attempts(function := opero(retries=3, **AT_ONCE)(Flaky(2).items)) as record:
        list(function())
    record.assert_attempts(3, errors=[OSError, OSError])


def test_a_recursion_is_tried_as_often_as_the_options_say(core: hotpath.Core) -> None:
    """The attempts do not multiply at each level."""
    leaves: list[int] = []

    @opero(retries=3, **AT_ONCE)
    def down(depth: int) -> Iterator[int]:
        if depth == 0:
            leaves.append(1)
            raise OSError("leaf")
        yield from down(depth - 1)

    @opero(retries=3, **AT_ONCE)
    async def down_later(depth: int) -> AsyncIterator[int]:
        if depth == 0:
            leaves.append(1)
            raise OSError("leaf")
        async for item in down_later(depth - 1):
            yield item

    with pytest.raises(AllFailedError):
        next(down(4))
    assert len(leaves) == 3
    with pytest.raises(AllFailedError):
        asyncio.run(in_list(down_later(4)))
    assert len(leaves) == 6


# --- a generator like any other -------------------------------------------------------------------


def plan(steps: list[tuple[str, int]], log: list[Any]) -> Generator[int, Any, int]:
    """Follow the plan: yield, return, raise, or catch what is thrown."""
    try:
        for kind, number in steps:
            if kind == "yield":
                log.append((yield number))
            elif kind == "catch":
                try:
                    log.append((yield number))
                except ArithmeticError as error:
                    log.append(str(error))
            elif kind == "return":
                return number
            else:
                raise LookupError(number)
        return -1
    finally:
        log.append("finally")


async def plan_later(steps: list[tuple[str, int]], log: list[Any]) -> AsyncGenerator[int, Any]:
    """Do the same in a coroutine that suspends from time to time."""
    try:
        for kind, number in steps:
            await asyncio.sleep(0)
            if kind == "yield":
                log.append((yield number))
            elif kind == "catch":
                try:
                    log.append((yield number))
                except ArithmeticError as error:
                    log.append(str(error))
            elif kind == "return":
                return
            else:
                raise LookupError(number)
    finally:
        await asyncio.sleep(0)
        log.append("finally")


STEPS = st.lists(
    st.tuples(st.sampled_from(["yield", "yield", "catch", "return", "raise"]), st.integers(0, 9)),
    max_size=5,
)
MOVES = st.lists(
    st.one_of(
        st.just(("next", None)),
        st.tuples(st.just("send"), st.one_of(st.none(), st.integers(0, 9))),
        st.tuples(
            st.just("throw"),
            st.sampled_from(
                [ArithmeticError, KeyError, StopIteration, StopAsyncIteration, KeyboardInterrupt]
            ),
        ),
        st.just(("close", None)),
    ),
    max_size=7,
)


def moved(items: Generator[int, Any, int], moves: list[tuple[str, Any]]) -> list[Any]:
    """Drive a generator; return the outcome of each move."""
    came: list[Any] = []
    for move, what in moves:
        try:
            if move == "throw":
                came.append(items.throw(what("thrown")))
            elif move == "send":
                came.append(items.send(what))
            elif move == "close":
                came.append(items.close())
            else:
                came.append(next(items))
        except StopIteration as end:
            came.append(("end", end.value))
        except BaseException as error:  # noqa: BLE001 - it is the outcome
            came.append((type(error), str(error), type(error.__cause__)))
    return came


async def moved_later(items: AsyncGenerator[int, Any], moves: list[tuple[str, Any]]) -> list[Any]:
    """Do the same with an asynchronous generator."""
    came: list[Any] = []
    for move, what in moves:
        try:
            if move == "throw":
                came.append(await items.athrow(what("thrown")))
            elif move == "send":
                came.append(await items.asend(what))
            elif move == "close":
                await items.aclose()
            else:
                came.append(await anext(items))
        except BaseException as error:  # noqa: BLE001 - it is the outcome
            came.append((type(error), str(error), type(error.__cause__)))
    return came


@given(steps=STEPS, moves=MOVES)
def test_it_does_what_the_bare_generator_does(
    core: hotpath.Core, steps: list[tuple[str, int]], moves: list[tuple[str, Any]]
) -> None:
    """Whatever is sent or thrown into it, and when it is closed."""
    expected: list[Any] = []
    log: list[Any] = []
    assert moved(opero(retries=1)(plan)(steps, log), moves) == moved(plan(steps, expected), moves)
    assert log == expected


@given(steps=STEPS, moves=MOVES)
def test_it_does_what_the_bare_asynchronous_generator_does(
    core: hotpath.Core, steps: list[tuple[str, int]], moves: list[tuple[str, Any]]
) -> None:
    """The same as the bare generator, for asynchronous ones."""
    expected: list[Any] = []
    log: list[Any] = []

    async def main() -> None:
        decorated = opero(retries=1)(plan_later)(steps, log)
        bare = plan_later(steps, expected)
        assert await moved_later(decorated, moves) == await moved_later(bare, moves)

    asyncio.run(main())
    assert log == expected


@opero
def numbers(count: int = 2) -> Iterator[int]:
    """Yield numbers."""
    yield from range(count)


@opero
async def numbers_later(count: int = 2) -> AsyncIterator[int]:
    """Yield numbers."""
    for number in range(count):
        yield number


class Shop:
    """Has generator functions of all kinds."""

    def __init__(self) -> None:
        self.factor = 3

    @opero
    def prices(self, count: int) -> Iterator[int]:
        """Yield prices."""
        for number in range(count):
            yield self.factor * number

    @opero
    @classmethod
    def named(cls) -> Iterator[str]:
        """Yield the name."""
        yield cls.__name__

    @opero
    @staticmethod
    def fixed() -> Iterator[int]:
        """Yield one."""
        yield 1

    @opero
    async def prices_later(self, count: int) -> AsyncIterator[int]:
        """Yield prices."""
        for number in range(count):
            yield self.factor * number


class Called:
    """Is called, and yields."""

    def __call__(self, number: int) -> Iterator[int]:
        """Yield a number."""
        yield number


def test_what_it_returns_is_a_generator(core: hotpath.Core) -> None:
    """It is a real generator: frameworks check the function and its result."""
    function, awaited = opero(numbers.__wrapped__), opero(numbers_later.__wrapped__)
    for each in (function, functools.partial(function, 1), Shop().prices):
        assert inspect.isgeneratorfunction(each)
        assert not inspect.isasyncgenfunction(each)
        assert not inspect.iscoroutinefunction(each)
    for each in (awaited, functools.partial(awaited, 1), Shop().prices_later):
        assert inspect.isasyncgenfunction(each)
        assert not inspect.isgeneratorfunction(each)
        assert not inspect.iscoroutinefunction(each)
    items, later = function(), awaited()
    assert isinstance(items, types.GeneratorType)
    assert isinstance(later, types.AsyncGeneratorType)
    assert inspect.isgenerator(items)
    assert inspect.isasyncgen(later)
    assert (items.__name__, later.__name__) == ("numbers", "numbers_later")
    assert repr(Shop().prices(1)).startswith("<generator object Shop.prices at")
    assert inspect.getgeneratorstate(items) == inspect.GEN_CREATED
    assert isinstance(function, types.FunctionType)
    assert str(inspect.signature(function)) == "(count: 'int' = 2) -> 'Iterator[int]'"


def test_methods_and_whatever_else_can_be_called(core: hotpath.Core) -> None:
    """They are bound to the object that they are called on."""
    shop = Shop()
    assert list(shop.prices(3)) == list(Shop.prices(shop, 3)) == [0, 3, 6]
    assert list(shop.named()) == list(Shop.named()) == ["Shop"]
    assert list(shop.fixed()) == [1]
    assert asyncio.run(in_list(shop.prices_later(3))) == [0, 3, 6]
    assert list(opero(Called())(4)) == [4]
    assert list(opero(functools.partial(numbers.__wrapped__, 1))()) == [0]
    assert list(opero(retries=2)(opero(numbers.__wrapped__))(2)) == [0, 1]
    again = opero(retries=2)(opero(numbers_later.__wrapped__))
    assert asyncio.run(in_list(again(2))) == [0, 1]


@pytest.mark.once
def test_it_travels_like_a_function() -> None:
    """By its name, or by value, and it stays a generator function."""
    assert pickle.loads(pickle.dumps(numbers)) is numbers
    assert copy.deepcopy(numbers) is numbers
    assert list(pickle.loads(pickle.dumps(Shop().prices))(2)) == [0, 3]

    @opero(retries=3, **AT_ONCE)
    def local(log: list[Any], steps: list[tuple[str, int]]) -> Any:
        log.append("begun")
        if len(log) < 3:
            raise OSError
        return (yield from plan(steps, log))

    @opero(retries=3, **AT_ONCE)
    async def local_later(log: list[Any], steps: list[tuple[str, int]]) -> Any:
        log.append("begun")
        if len(log) < 3:
            raise OSError
        items = plan(steps, log)
        item = next(items)
        while True:
            try:
                sent = yield item
            except BaseException as error:  # noqa: BLE001 - handed on
                item = items.throw(error)
            else:
                item = items.send(sent)

    arrived = cloudpickle.loads(cloudpickle.dumps(local))
    arrived_later = cloudpickle.loads(cloudpickle.dumps(local_later))
    assert inspect.isgeneratorfunction(arrived)
    assert inspect.isasyncgenfunction(arrived_later)
    steps = [("catch", 1), ("yield", 2), ("yield", 3)]
    moves: list[tuple[str, Any]] = [
        ("next", None),
        ("throw", ArithmeticError),
        ("send", 5),
        ("close", None),
        ("next", None),
    ]
    log: list[Any] = []
    assert moved(arrived(log, steps), moves) == [1, 2, 3, None, ("end", None)]
    assert log == ["begun", "begun", "begun", "thrown", 5, "finally"]
    log.clear()
    came = asyncio.run(moved_later(arrived_later(log, steps), moves))
    assert came == [1, 2, 3, (StopAsyncIteration, "", type(None))]
    assert log == ["begun", "begun", "begun", "thrown", 5, "finally"]
    assert arrived.stats().retries == arrived_later.stats().retries == 2


# --- cleaning up ----------------------------------------------------------------------------------


def test_a_forgotten_stream_is_closed(core: hotpath.Core) -> None:
    """By the garbage collector, at its first item or later."""
    for taken in (1, 2):
        flaky = Flaky()
        items = opero(flaky.items)()
        for _ in range(taken):
            next(items)
        del items
        gc.collect()
        assert flaky.log == ["begun", "closed"]

        async def later(flaky: Flaky, taken: int) -> None:
            items = opero(flaky.items_later)()
            for _ in range(taken):
                await anext(items)
            del items
            gc.collect()
            for _ in range(10):
                await asyncio.sleep(0)

        flaky = Flaky()
        asyncio.run(later(flaky, taken))
        assert flaky.log == ["begun", "closed"]


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_loop_that_ends_closes_streams(core: hotpath.Core, forgotten: bool) -> None:
    """Each is closed once; if one generator closes the other, the loop knows only the outer one."""
    told: list[Any] = []
    kept: list[Any] = []

    async def main(function: Callable[..., Any]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        for _ in range(3):
            items = function()
            assert await anext(items) == 0
            if not forgotten:
                kept.append(items)

    bare, flaky = Flaky(), Flaky()
    asyncio.run(main(bare.items_later))
    asyncio.run(main(opero(flaky.items_later)))
    assert told == []
    assert flaky.log == bare.log
    if not forgotten:
        asyncio.run(main(opero(opero(flaky.items_later))))
        assert told == []
        assert flaky.log.count("closed") == 6
    assert sys.get_asyncgen_hooks() == (None, None)


def test_a_stream_keeps_neither_its_arguments_nor_what_it_has_yielded(core: hotpath.Core) -> None:
    """It keeps arguments until its first item, after which nothing is retried."""

    class Thing:
        """Can be referred to weakly."""

    def drops(thing: Any) -> Iterator[Any]:
        del thing
        yield Thing()
        yield 2
        yield 3

    async def drops_later(thing: Any) -> AsyncIterator[Any]:
        del thing
        yield Thing()
        yield 2
        yield 3

    thing = Thing()
    given = weakref.ref(thing)
    items = opero(drops)(thing)
    del thing
    first = weakref.ref(next(items))
    gc.collect()
    assert given() is None
    assert next(items) == 2
    gc.collect()
    assert first() is None

    async def main() -> None:
        thing = Thing()
        given = weakref.ref(thing)
        items = opero(drops_later)(thing)
        del thing
        first = weakref.ref(await anext(items))
        gc.collect()
        assert given() is None
        assert await anext(items) == 2
        gc.collect()
        assert first() is None
        await items.aclose()

    asyncio.run(main())


def test_a_failed_stream_leaves_no_cycle(core: hotpath.Core) -> None:
    """Its error is freed with the last reference to it."""

    class Broken(Exception):
        """Can be referred to weakly."""

    def breaks(at: int) -> Iterator[int]:
        yield from range(at)
        raise Broken

    async def breaks_later(at: int) -> AsyncIterator[int]:
        for number in range(at):
            yield number
        raise Broken

    def failed(run: Callable[[], Any]) -> Any:
        try:
            run()
        except Broken as error:
            return weakref.ref(error)

    async def failed_later(items: AsyncIterator[int]) -> Any:
        try:
            await in_list(items)
        except Broken as error:
            return weakref.ref(error)

    decorate = opero(retries=2, retry_on=Broken, reraise=True, **AT_ONCE)

    async def main() -> None:
        for at in (0, 1, 2):
            seen = await failed_later(decorate(breaks_later)(at))
            assert seen() is None

    gc.collect()
    gc.disable()
    try:
        for at in (0, 1, 2):
            items = decorate(breaks)(at)
            seen = failed(lambda items=items: list(items))
            assert seen() is None
        asyncio.run(main())
    finally:
        gc.enable()


def test_cancellation_before_the_first_item_is_passed_on_once(core: hotpath.Core) -> None:
    """The function cleans up, and nothing is retried."""
    log: list[str] = []

    async def hangs() -> AsyncIterator[int]:
        log.append("begun")
        try:
            await asyncio.sleep(3600)
            yield 1
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async def main(**options: Any) -> None:
        task = asyncio.ensure_future(in_list(opero(retries=3, **options)(hangs)()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    asyncio.run(main(timeout=60.0))
    assert log == ["begun", "cancelled"] * 2


def test_what_is_thrown_before_the_first_item_finds_nothing_to_do(core: hotpath.Core) -> None:
    """As with any generator that has not begun."""
    flaky = Flaky()
    items = opero(flaky.items)()
    with pytest.raises(KeyError):
        items.throw(KeyError())
    assert list(items) == []
    with pytest.raises(TypeError, match="can't send non-None value to a just-started generator"):
        opero(flaky.items)().send(1)

    async def main() -> None:
        items = opero(flaky.items_later)()
        with pytest.raises(KeyError):
            await items.athrow(KeyError())
        await opero(flaky.items_later)().aclose()
        with pytest.raises(TypeError, match="can't send non-None value to a just-started async"):
            await opero(flaky.items_later)().asend(1)

    asyncio.run(main())
    assert flaky.log == []


class Book(Flaky):
    """Keeps account of streams that are cancelled, fail and are rejected at any moment."""

    def __init__(self, core: hotpath.Core) -> None:
        super().__init__()
        self.entered: list[int] = []
        self.left: list[int] = []
        self.open = 0
        self.begun = 0
        book = self

        class Observer(core.Gate):  # type: ignore[name-defined]
            def __init__(self) -> None:
                super().__init__(True)

            def enter(self, now: int) -> int:
                book.entered.append(len(book.entered) + 1)
                return -len(book.entered)

            def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:
                book.left.append(ticket)

        self.queue = PollingQueue(Observer(), "the observer", core.clock)

    async def stream(self, plan: list[tuple[int, str]]) -> AsyncIterator[str]:
        """Do the next step of a plan in each attempt: wait, then say or raise something."""
        self.begun += 1
        self.open += 1
        try:
            waits, what = plan.pop(0) if plan else (0, "good")
            for _ in range(waits):
                await asyncio.sleep(0)
            if what == "raises":
                raise OSError
            if what == "ends":
                return
            yield what
            for _ in range(waits):
                await asyncio.sleep(0)
            yield "more"
        finally:
            self.open -= 1
            await asyncio.sleep(0)


@given(
    plans=st.lists(
        st.tuples(
            st.lists(
                st.tuples(
                    st.integers(0, 3), st.sampled_from(["raises", "ends", "bad", "good", "good"])
                ),
                max_size=4,
            ),
            st.integers(0, 12),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=60)
def test_every_attempt_that_begins_ends_once(core: hotpath.Core, plans: list[Any]) -> None:
    """For its generator and for the gates, whenever its task is cancelled."""
    book = Book(core)
    rows = gates.ROWS
    gates.ROWS = [*rows, lambda *_: book.queue]
    try:
        functions = [
            opero(retries=3, retry_on_result=lambda item: item == "bad", **AT_ONCE, **options)(
                book.stream
            )
            for options in ({}, {"timeout": 60.0, "attempt_timeout": 30.0})
        ]
    finally:
        gates.ROWS = rows

    async def read(function: Any, plan: list[tuple[int, str]]) -> None:
        async with aclosing(function(plan)) as items:
            async for _ in items:
                pass

    async def main() -> None:
        tasks = []
        for plan, patience, timed in plans:
            task = asyncio.ensure_future(read(functions[timed], plan.copy()))
            tasks.append((task, patience))
        for turn in range(13):
            for task, patience in tasks:
                if patience == turn:
                    task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task for task, _ in tasks], timeout=20)
        for task, _ in tasks:
            assert task.done()
            assert task.cancelled() or isinstance(task.exception(), (AllFailedError, type(None)))
            assert task.cancelling() <= 1

    asyncio.run(main())
    assert book.open == 0
    assert sorted(book.left) == book.entered
    assert len(book.entered) >= book.begun
    assert book.begun == sum(function.stats().attempts for function in functions)


# --- with what people put above -------------------------------------------------------------------


def test_a_context_manager_above_is_retried_until_its_yield(core: hotpath.Core) -> None:
    """The with block is not retried: its errors reach the generator."""
    flaky = Flaky(2)

    @contextmanager
    @opero(retries=3, **AT_ONCE)
    def connection() -> Iterator[str]:
        flaky._begin()
        try:
            yield "connection"
        except KeyError:
            flaky.log.append("key")
        finally:
            flaky.log.append("closed")

    with connection() as made:
        assert made == "connection"
    with connection():
        raise KeyError
    with pytest.raises(ValueError, match="in the block"), connection():
        raise ValueError("in the block")
    assert flaky.log == ["begun"] * 3 + ["closed", "begun", "key", "closed", "begun", "closed"]

    later = Flaky(2)

    @asynccontextmanager
    @opero(retries=3, **AT_ONCE)
    async def connection_later() -> AsyncIterator[str]:
        later._begin()
        try:
            yield "connection"
        except KeyError:
            later.log.append("key")
        finally:
            await asyncio.sleep(0)
            later.log.append("closed")

    async def main() -> None:
        async with connection_later() as made:
            assert made == "connection"
        async with connection_later():
            raise KeyError
        with pytest.raises(ValueError, match="in the block"):
            async with connection_later():
                raise ValueError("in the block")

    asyncio.run(main())
    assert later.log == flaky.log


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, RuntimeError, KeyError])
def test_a_context_manager_lets_errors_of_its_block_through(
    core: hotpath.Core, error: type[Exception]
) -> None:
    """The same object, even a `StopIteration`, which a generator alone cannot pass on."""

    @contextmanager
    @opero
    def block() -> Iterator[None]:
        yield

    @asynccontextmanager
    @opero
    async def block_later() -> AsyncIterator[None]:
        yield

    thrown = error("in the block")
    with pytest.raises(error) as raised, block():
        raise thrown
    assert raised.value is thrown

    async def main() -> None:
        with pytest.raises(error) as raised:
            async with block_later():
                raise thrown
        assert raised.value is thrown

    asyncio.run(main())


def test_other_generators_go_on_with_it(core: hotpath.Core) -> None:
    """They use `yield from` or `aclosing`."""
    flaky = Flaky(1)
    function = opero(**AT_ONCE)(flaky.items)

    def outer() -> Generator[int, Any, str]:
        return (yield from function())

    items = outer()
    assert (next(items), items.send("hello")) == (0, 1)
    items.close()
    assert flaky.log == ["begun", "closed", "begun", "hello", "closed"]

    later = Flaky(1)

    async def main() -> None:
        async with aclosing(opero(**AT_ONCE)(later.items_later)()) as items:
            async for item in items:
                if item == 1:
                    break

    asyncio.run(main())
    assert later.log == ["begun", "closed", "begun", "closed"]


FIXTURES: list[str] = []


@pytest.fixture
def torn_down() -> Iterator[None]:
    """Check that the fixture that requests this one has run to its end."""
    FIXTURES.clear()
    yield
    assert FIXTURES == ["starting", "starting", "starting", "stopped"]


@pytest.fixture
@opero(retries=3, **AT_ONCE)
def service(torn_down: None) -> Iterator[str]:
    """A service that does not start immediately."""
    FIXTURES.append("starting")
    if len(FIXTURES) < 3:
        raise OSError
    yield "service"
    FIXTURES.append("stopped")


@pytest.mark.once
def test_a_fixture_is_retried_and_torn_down(service: str) -> None:
    """It is retried until it yields, and runs to its end after the test."""
    assert service == "service"
    assert FIXTURES == ["starting"] * 3


# --- what is refused ------------------------------------------------------------------------------


GENERATOR_FUNCTIONS: dict[str, Any] = {
    "ordinary": numbers.__wrapped__,
    "asynchronous": numbers_later.__wrapped__,
    "partial": functools.partial(numbers.__wrapped__, 1),
    "called": Called(),
    "decorated": numbers,
}


@pytest.mark.parametrize("function", GENERATOR_FUNCTIONS.values(), ids=GENERATOR_FUNCTIONS)
@pytest.mark.parametrize(
    "options", [{"cache": True}, {"cache": True, "cache_backend": "disk"}], ids=["memory", "disk"]
)
def test_a_cache_of_a_stream_is_refused(
    core: hotpath.Core, function: Any, options: dict[str, Any]
) -> None:
    """The first caller would use it up."""
    with pytest.raises(
        TypeError, match="is a generator function, and its first caller would use up"
    ):
        opero(**options)(function)


def test_a_context_manager_below_is_refused_with_the_order_that_works(core: hotpath.Core) -> None:
    """Following the message works."""
    for maker, func in (
        (contextmanager, numbers.__wrapped__),
        (asynccontextmanager, numbers_later.__wrapped__),
    ):
        made = maker(func)
        for thing in (made, functools.partial(made)):
            with pytest.raises(TypeError, match="put @contextmanager above @opero, and"):
                opero(thing)
    with contextlib.suppress(StopIteration), contextmanager(opero(numbers.__wrapped__))(1) as item:
        assert item == 0


def test_a_generator_made_a_coroutine_is_refused(core: hotpath.Core) -> None:
    """It yields to the event loop, not to its caller."""
    with pytest.raises(TypeError, match="write it as a coroutine function"):
        opero(types.coroutine(numbers.__wrapped__))
    with pytest.raises(TypeError, match="leave lru_cache out"):
        opero(functools.lru_cache(numbers.__wrapped__))
