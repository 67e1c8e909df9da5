"""A block does what a function below `@opero` does, whatever the options and whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from crowd import standing_clock
from hypothesis import given
from hypothesis import strategies as st
from timeout_plans import VirtualLoop

from opero import Breaker, OperoError, RateLimiter, attempts, opero, subscribe
from opero.testing import manual_clock


class Flop(Exception):
    """Worth another attempt."""


class Asks(Flop):
    """Says how long the server wants to be left alone."""

    retry_after = 3.0


class Fatal(Exception):
    """Worth no other attempt."""


class Unheard(BaseException):
    """No `Exception`."""


def asked(error: Exception) -> float | None:
    """Return the seconds that an error asks for."""
    return getattr(error, "retry_after", None)


OPTIONS = st.fixed_dictionaries(
    {
        "retries": st.integers(0, 4),
        "min_delay": st.sampled_from([0, 0.5, 2]),
        "backoff_factor": st.sampled_from([1, 1.5, 3]),
        "max_delay": st.sampled_from([2, 4, 60]),
        "retry_on": st.sampled_from(
            [Flop, (Flop, KeyError), lambda error: isinstance(error, Flop)]
        ),
        "retry_after": st.sampled_from([None, asked]),
        "reraise": st.booleans(),
        "timeout": st.sampled_from([None, 1.03, 6.03, 30.03]),
        "rate": st.sampled_from([None, 0.25, 2, 100]),
        "breaker": st.booleans(),
    }
)
OUTCOMES = st.lists(
    st.sampled_from([None, Flop, Flop, Flop, Asks, KeyError, Fatal, KeyboardInterrupt, Unheard]),
    max_size=6,
)
TIMES = st.lists(st.sampled_from([0, 0, 0.25, 1, 3]), min_size=6, max_size=6)


def gates_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return options with gates of their own."""
    given = {name: value for name, value in options.items() if name not in {"rate", "breaker"}}
    if options["rate"] is not None:
        given["rate_limit"] = RateLimiter(options["rate"])
    if options["breaker"]:
        given["breaker"] = Breaker(minimum=2, failure_ratio=0.6, open_for=5)
    return {"jitter": False, **given}


def about(seconds: float | None) -> float | None:
    """Return seconds, rounded."""
    return None if seconds is None else round(seconds, 6)


def story(play: Callable[[], list[Any]]) -> list[Any]:
    """Play something; return what has come of it and what was told meanwhile."""
    heard: list[Any] = []
    end = subscribe(heard.append, "retry", "give_up", "deadline", "permit_wait", "breaker")
    try:
        outcomes = play()
    finally:
        end()
    told = [
        (
            each.kind,
            each.attempt,
            each.of,
            about(each.delay),
            about(each.seconds),
            type(each.error),
            each.state,
        )
        for each in heard
    ]
    return [outcomes, told]


def shape(error: BaseException) -> Any:
    """Return what an error says, without the name of what has failed."""
    inner = [shape(each) for each in getattr(error, "errors", ())]
    return type(error), getattr(error, "__notes__", None), inner, type(error.__cause__)


@given(options=OPTIONS, outcomes=OUTCOMES, times=TIMES)
def test_a_loop_is_a_call(core, options, outcomes, times):
    """Three in a row: the same outcomes, at the same times, the same events, the same figures."""
    plan = list(zip(outcomes, times, strict=False))

    def by(make: Callable[[dict[str, Any], Callable[[], Any]], Any]) -> list[Any]:
        with manual_clock() as clock:
            left = iter(plan)

            def body() -> float:
                kind, seconds = next(left, (None, 0))
                clock.advance(seconds)
                if kind is not None:
                    raise kind
                return round(clock.waited, 6)

            def play() -> list[Any]:
                seen: list[Any] = []
                for _ in range(3):
                    try:
                        seen.append(call())
                    except BaseException as error:  # noqa: BLE001 - it is the outcome
                        seen.append(shape(error))
                    seen.append(round(clock.waited, 6))
                return seen

            call, figures = make(gates_of(options), body)
            return [*story(play), [about(each) for each in figures()]]

    def function(given: dict[str, Any], body: Callable[[], Any]) -> Any:
        work = opero(**given)(lambda: body())
        return work, work.stats

    def block(given: dict[str, Any], body: Callable[[], Any]) -> Any:
        policy = attempts(**given)

        def work() -> Any:
            for attempt in policy:
                with attempt:
                    return body()
            raise AssertionError

        return work, policy.stats

    assert by(block) == by(function)


ASYNC_OUTCOMES = st.lists(
    st.sampled_from([None, Flop, Flop, Asks, Fatal, "swallow", "refuse"]), max_size=6
)


@given(
    options=OPTIONS,
    limit=st.sampled_from([None, 0.77, 2.52]),
    outcomes=ASYNC_OUTCOMES,
    times=TIMES,
    cancel=st.sampled_from([None, None, 1.1, 4.6]),
)
def test_a_loop_in_a_coroutine_is_an_awaited_call(core, options, limit, outcomes, times, cancel):
    """With deadlines that cut, and a cancellation by others."""
    if limit is not None and options["timeout"] is not None and limit >= options["timeout"]:
        limit = None
    plan = list(zip(outcomes, times, strict=False))

    def by(make: Callable[[dict[str, Any], Callable[[], Any]], Any]) -> list[Any]:
        left = iter(plan)
        loop = VirtualLoop(core.clock)

        async def body() -> float:
            kind, seconds = next(left, (None, 0))
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                if kind == "swallow":
                    return -1
                if kind == "refuse":
                    raise Flop("refused") from None
                raise
            if kind is not None and not isinstance(kind, str):
                raise kind
            return round(loop.time(), 6)

        async def calls() -> list[Any]:
            seen: list[Any] = []
            for _ in range(3):
                task = asyncio.ensure_future(call())
                if cancel is not None:
                    loop.call_later(cancel, task.cancel)
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
                if task.cancelled():
                    seen.append("cancelled")
                else:
                    error = task.exception()
                    seen.append(task.result() if error is None else shape(error))
                seen.append((round(loop.time(), 6), task.cancelling()))
            return seen

        with standing_clock(core.clock):
            given = gates_of(options)
            if limit is not None:
                given["attempt_timeout"] = limit
            call, figures = make(given, body)
            try:
                told = story(lambda: loop.run_until_complete(calls()))
                return [*told, [about(each) for each in figures()]]
            finally:
                loop.close()

    def function(given: dict[str, Any], body: Callable[[], Any]) -> Any:
        @opero(**given)
        async def work() -> Any:
            return await body()

        return work, work.stats

    def block(given: dict[str, Any], body: Callable[[], Any]) -> Any:
        policy = attempts(**given)

        async def work() -> Any:
            async for attempt in policy:
                with attempt:
                    return await body()
            raise AssertionError

        return work, policy.stats

    assert by(block) == by(function)


def test_the_names_differ() -> None:
    """A message says that it is a block."""
    for attempt in attempts(retries=2, min_delay=0):
        with suppress(OperoError), attempt:
            assert "the block in test_the_names_differ" in repr(attempt)
