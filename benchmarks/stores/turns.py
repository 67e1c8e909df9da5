"""The harness: sides take turns, as in `benchmarks.measure`, with fewer and longer loops.

What is stored goes to a file system or through a socket, so a call takes microseconds to
milliseconds. A slow side has fewer turns.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import count as counting
from itertools import islice
from time import perf_counter_ns
from typing import Any

from benchmarks.measure import EMPTY, Effort, Loop, calibrate, fresh, quiet

FULL = Effort(rounds=150, loop_ns=4_000_000, most=2_000, least=2)
QUICK = Effort(rounds=10, loop_ns=2_000_000, most=500, least=2)

PATIENCE = 20_000_000
"""Nanoseconds: a side that has used this many for each round that the effort allows, is done."""

Prepare = Callable[[], object]


def _bare(call: Callable[[], Any], rounds: range) -> int:
    start = perf_counter_ns()
    for _ in rounds:
        call()
    return perf_counter_ns() - start


def _each(call: Callable[[Any], Any], arguments: Iterator[Any]) -> int:
    start = perf_counter_ns()
    for argument in arguments:
        call(argument)
    return perf_counter_ns() - start


async def _each_awaited(call: Callable[[Any], Awaitable[Any]], arguments: Iterator[Any]) -> int:
    start = perf_counter_ns()
    for argument in arguments:
        await call(argument)
    return perf_counter_ns() - start


def bare(call: Callable[[], Any]) -> Loop:
    """The loop of calls without an argument."""
    body = fresh(_bare)
    return lambda count: body(call, range(count))


def arguments_of(new: bool) -> Iterator[Any]:
    """Arguments for one side: the same one for ever, or one that it has never seen, each time."""
    return counting(1_000) if new else iter(lambda: "abc", None)


def each(call: Callable[[Any], Any], new: bool) -> Loop:
    """The loop of calls with one argument; `new` if it is another one each time."""
    arguments = arguments_of(new)
    body = fresh(_each)
    return lambda count: body(call, islice(arguments, count))


def each_awaited(
    call: Callable[[Any], Awaitable[Any]], new: bool, run: Callable[[Any], int]
) -> Loop:
    """The same for a coroutine function; `run` runs a coroutine to its end."""
    arguments = arguments_of(new)
    body = fresh(_each_awaited)
    return lambda count: run(body(call, islice(arguments, count)))


def _nothing() -> None:
    return None


def in_turns(
    loops: Mapping[str, Loop],
    effort: Effort,
    before: Mapping[str, Prepare] | None = None,
    patience: int = PATIENCE,
) -> dict[str, float]:
    """Time every side in turns.

    Args:
        loops: The sides by name.
        effort: How long to measure.
        before: What is called before each loop of a side, off the clock; by name.
        patience: As `PATIENCE`.

    Returns:
        Nanoseconds of one call per side, the fastest of all rounds, a loop of calls of an empty
        function taken off.
    """
    before = before or {}
    every = {EMPTY: bare(_nothing), **loops}
    best = dict.fromkeys(every, float("inf"))
    spent = dict.fromkeys(every, 0)
    with quiet():
        counts = {}
        for name, loop in every.items():
            before.get(name, _nothing)()
            counts[name] = calibrate(loop, effort)
        names = list(every)
        order = random.Random(7)
        for _ in range(effort.rounds):
            order.shuffle(names)  # who comes after a side that writes much may pay for it
            for name in names:
                loop = every[name]
                if spent[name] > effort.rounds * patience:
                    continue
                before.get(name, _nothing)()
                elapsed = loop(counts[name])
                spent[name] += elapsed
                best[name] = min(best[name], elapsed / counts[name])
    empty = best.pop(EMPTY)
    return {name: max(0.0, nanoseconds - empty) for name, nanoseconds in best.items()}
