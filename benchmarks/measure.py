"""The harness: several sides of one row, timed in turns, the fastest loop of each side kept.

    side --> fresh copy of the loop --> calibrated count --+
    side --> fresh copy of the loop --> calibrated count --+--> round after round --> minimum per
    empty loop --------------------------------------------+                      side minus empty

A busy machine only ever adds time, so the minimum over many short loops converges on the true cost,
and because the sides take turns within one round, a slow second hits all of them alike. Each side
gets a copy of the loop with a code object of its own: CPython specialises a call site for what it
sees there, and a site shared by a Python function and a C callable would be specialised for
neither.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count as counting
from itertools import islice
from time import perf_counter_ns
from types import FunctionType
from typing import Any, TypeVar, cast

Loop = Callable[[int], int]
"""Runs its call the given number of times and returns the nanoseconds that this took."""

EMPTY = "(empty loop)"
"""The name under which `interleaved` wants the loop without a call."""

Template = TypeVar("Template", bound=Callable[..., Any])


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        rounds: How often every side has its turn.
        loop_ns: How long one loop of one side should take, in nanoseconds.
        most: The largest number of calls in one loop.
        least: The smallest number of calls in one loop.
        turns: How often every side of a row of the map has its turn, at most.
        items: The largest number of items in a map; None for as many as the row has.
    """

    rounds: int = 200
    loop_ns: int = 300_000
    most: int = 5_000
    least: int = 10
    turns: int = 15
    items: int | None = None


FULL = Effort()
QUICK = Effort(rounds=40, loop_ns=150_000, turns=5)
SMOKE = Effort(rounds=2, loop_ns=10_000, most=20, least=2, turns=1, items=200)


def fresh(template: Template) -> Template:
    """Copies a loop so that it has a code object, and so a specialised call site, of its own.

    Args:
        template: A plain function without free variables.

    Returns:
        The copy.
    """
    assert isinstance(template, FunctionType)
    code = template.__code__.replace(co_name=f"{template.__name__}_copy")
    copy: Any = FunctionType(code, template.__globals__, template.__name__)
    return cast("Template", copy)


# The shapes of calls. What is not the call itself is the same in the loop and in its empty twin.


def _one(call: Callable[[Any], Any], argument: Any, rounds: range) -> int:
    start = perf_counter_ns()
    for _ in rounds:
        call(argument)
    return perf_counter_ns() - start


def _one_with_option(call: Callable[..., Any], argument: Any, option: Any, rounds: range) -> int:
    start = perf_counter_ns()
    for _ in rounds:
        call(argument, option=option)
    return perf_counter_ns() - start


def _three(call: Callable[..., Any], argument: Any, rounds: range) -> int:
    start = perf_counter_ns()
    for _ in rounds:
        call(argument, 2, third=3)
    return perf_counter_ns() - start


def _three_positional(call: Callable[..., Any], argument: Any, rounds: range) -> int:
    start = perf_counter_ns()
    for _ in rounds:
        call(argument, 2, 3)
    return perf_counter_ns() - start


def _method(instance: Any, argument: Any, rounds: range) -> int:
    start = perf_counter_ns()
    for _ in rounds:
        instance.method(argument)
    return perf_counter_ns() - start


def _nothing(argument: Any, rounds: range) -> int:
    start = perf_counter_ns()
    for _ in rounds:
        pass
    return perf_counter_ns() - start


def _each(call: Callable[[Any], Any], arguments: Iterator[Any]) -> int:
    start = perf_counter_ns()
    for argument in arguments:
        call(argument)
    return perf_counter_ns() - start


def _each_nothing(arguments: Iterator[Any]) -> int:
    start = perf_counter_ns()
    for _argument in arguments:
        pass
    return perf_counter_ns() - start


async def _awaited(call: Callable[[Any], Awaitable[Any]], argument: Any, rounds: range) -> int:
    start = perf_counter_ns()
    for _ in rounds:
        await call(argument)
    return perf_counter_ns() - start


async def _each_awaited(call: Callable[[Any], Awaitable[Any]], arguments: Iterator[Any]) -> int:
    start = perf_counter_ns()
    for argument in arguments:
        await call(argument)
    return perf_counter_ns() - start


async def _awaited_in_timeout(
    call: Callable[[Any], Awaitable[Any]], argument: Any, seconds: float, rounds: range
) -> int:
    timeout = asyncio.timeout
    start = perf_counter_ns()
    for _ in rounds:
        async with timeout(seconds):
            await call(argument)
    return perf_counter_ns() - start


@dataclass(frozen=True)
class Shape:
    """How a row calls its sides, for example with one argument.

    Args:
        loop: From the callable (None: the empty loop) to its `Loop`.
        is_async: Whether the callables are coroutine functions.
    """

    loop: Callable[[Callable[..., Any] | None], Loop]
    is_async: bool = False


def one_argument(argument: Any, option: Any = None) -> Shape:
    """The shape `f(argument)`, or `f(argument, option=option)`, the same objects every time."""

    def loop(call: Callable[..., Any] | None) -> Loop:
        if call is None:
            empty = fresh(_nothing)
            return lambda count: empty(argument, range(count))
        if option is not None:
            longer = fresh(_one_with_option)
            return lambda count: longer(call, argument, option, range(count))
        body = fresh(_one)
        return lambda count: body(call, argument, range(count))

    return Shape(loop)


def three_arguments(first: Any, *, keyword: bool) -> Shape:
    """The shape `f(first, 2, third=3)`, or `f(first, 2, 3)`."""

    def loop(call: Callable[..., Any] | None) -> Loop:
        if call is None:
            empty = fresh(_nothing)
            return lambda count: empty(first, range(count))
        body = fresh(_three if keyword else _three_positional)
        return lambda count: body(call, first, range(count))

    return Shape(loop)


def method(argument: Any) -> Shape:
    """The shape `instance.method(argument)`, where the callable is what the class has as `method`.

    Args:
        argument: The same object every time.
    """

    def loop(call: Callable[..., Any] | None) -> Loop:
        if call is None:
            empty = fresh(_nothing)
            return lambda count: empty(argument, range(count))
        instance = type("Instance", (), {"method": call})()
        body = fresh(_method)
        return lambda count: body(instance, argument, range(count))

    return Shape(loop)


def new_argument() -> Shape:
    """The shape `f(n)` with an `n` that this side has never seen, so that every call is a miss."""

    def loop(call: Callable[..., Any] | None) -> Loop:
        numbers = counting(1_000)
        if call is None:
            empty = fresh(_each_nothing)
            return lambda count: empty(islice(numbers, count))
        body = fresh(_each)
        return lambda count: body(call, islice(numbers, count))

    return Shape(loop)


def awaited_argument(argument: Any) -> Shape:
    """The shape `await f(argument)`; the clock runs inside the event loop, not around it."""

    def loop(call: Callable[..., Any] | None) -> Loop:
        if call is None:
            empty = fresh(_nothing)
            return lambda count: empty(argument, range(count))
        body = fresh(_awaited)
        return lambda count: _run(body(call, argument, range(count)))

    return Shape(loop, is_async=True)


def awaited_in_timeout(argument: Any, seconds: float) -> Shape:
    """The shape `await f(argument)` within `async with asyncio.timeout(seconds)`."""

    def loop(call: Callable[..., Any] | None) -> Loop:
        if call is None:
            empty = fresh(_nothing)
            return lambda count: empty(argument, range(count))
        body = fresh(_awaited_in_timeout)
        return lambda count: _run(body(call, argument, seconds, range(count)))

    return Shape(loop, is_async=True)


def awaited_new_argument() -> Shape:
    """The shape `await f(n)` with an `n` that this side has never seen: each call is a miss."""

    def loop(call: Callable[..., Any] | None) -> Loop:
        numbers = counting(1_000)
        if call is None:
            empty = fresh(_each_nothing)
            return lambda count: empty(islice(numbers, count))
        body = fresh(_each_awaited)
        return lambda count: _run(body(call, islice(numbers, count)))

    return Shape(loop, is_async=True)


_event_loops: list[asyncio.AbstractEventLoop] = []


def _run(awaitable: Awaitable[int]) -> int:
    return _event_loops[-1].run_until_complete(awaitable)


@contextmanager
def event_loop() -> Iterator[None]:
    """Gives awaited shapes one plain asyncio loop to run in, and closes it."""
    loop = asyncio.new_event_loop()
    _event_loops.append(loop)
    try:
        yield
    finally:
        _event_loops.pop()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the garbage collector out of the loops."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def calibrate(loop: Loop, effort: Effort) -> int:
    """Finds how many calls fill one loop, and warms the side up on the way.

    Args:
        loop: The side's loop.
        effort: What to aim at.

    Returns:
        A number of calls between `effort.least` and `effort.most`.
    """
    fastest = min(loop(effort.least) for _ in range(3)) / effort.least
    return max(effort.least, min(effort.most, int(effort.loop_ns / max(fastest, 1.0))))


def interleaved(loops: Mapping[str, Loop], effort: Effort) -> dict[str, float]:
    """Times every side in turns.

    Args:
        loops: The sides by name; `EMPTY` names the loop without a call.
        effort: How long to measure.

    Returns:
        Nanoseconds of one call per side, the fastest of all rounds, the empty loop taken off.
    """
    with event_loop(), quiet():
        counts = {name: calibrate(loop, effort) for name, loop in loops.items()}
        best = dict.fromkeys(loops, float("inf"))
        for _ in range(effort.rounds):
            for name, loop in loops.items():
                best[name] = min(best[name], loop(counts[name]) / counts[name])
    empty = best.pop(EMPTY)
    return {name: nanoseconds - empty for name, nanoseconds in best.items()}
