"""The self-test of `python -m opero doctor`: each mechanism once, on each installed half.

It takes about a second. It only shows that the installation works on this machine; the tests and
the demo in the source tree show that opero keeps its promises.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Literal

from . import AllFailedError, DeadlineExceeded, hotpath, opero, opmap

Half = Literal["compiled", "plain"]
"""One of the two implementations."""

ITEMS: Final = 40
"""How many items each map has."""

RATE: Final = 200.0
"""Permits a second in the trial of the rate limit."""


def run(halves: tuple[Half, ...]) -> list[tuple[str, str, str]]:
    """Try each mechanism on each half.

    Args:
        halves: "compiled", "plain" or both.

    Returns:
        For each trial the half, its name, and what went wrong; "" if it passed.
    """
    found: list[tuple[str, str, str]] = []
    active = hotpath.core
    try:
        for half in halves:
            hotpath.core = hotpath.load(half)
            found += [(half, name, _fault(trial)) for name, trial in TRIALS.items()]
    finally:
        hotpath.core = active
    return found


def promise(name: str) -> str:
    """Return what a trial shows, in words that begin with its name."""
    return f"{name}: {(TRIALS[name].__doc__ or '').rstrip('.').lower()}"


def _fault(trial: Callable[[], None]) -> str:
    """Run one trial, and return what went wrong."""
    try:
        trial()
    except Exception as error:  # noqa: BLE001 - that is the finding
        return f"{type(error).__name__}: {error}"
    return ""


def _same(what: str, got: object, wanted: object) -> None:
    """Raise an error that names both values if they differ."""
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, expected {wanted!r}")


def _cache() -> None:
    """A second call is a hit."""
    calls = []

    @opero(cache=True)
    def square(number: int) -> int:
        calls.append(number)
        return number * number

    _same("the values", [square(3), square(3), square(4)], [9, 9, 16])
    _same("the calls", calls, [3, 4])
    _same("the hits", square.cache_info().hits, 1)


def _retry() -> None:
    """A call that fails twice succeeds in attempt 3."""
    attempts = []

    @opero(retries=3, min_delay=0, max_delay=0)
    def flaky(succeeds: bool) -> str:
        attempts.append(1)
        if succeeds and len(attempts) == 3:
            return "done"
        raise ConnectionError("not yet")

    _same("the value", flaky(True), "done")
    _same("the attempts", len(attempts), 3)
    try:
        flaky(False)
    except AllFailedError as error:
        _same("the errors", len(error.errors), 3)
    else:
        raise AssertionError("a call that always fails raised nothing")


def _fallback() -> None:
    """When two values fail, the third is tried."""

    @opero(arg_fallback={"host": ["second", "third"]})
    def ask(host: str) -> str:
        if host != "third":
            raise ConnectionError(host)
        return host

    _same("the value", ask("first"), "third")


def _limit() -> None:
    """6 calls at 200 per second take 25 ms."""

    @opero(rate_limit=RATE)
    def paced() -> None: ...

    begun = time.monotonic()
    for _ in range(6):
        paced()
    took = time.monotonic() - begun
    if took < 4.5 / RATE:
        raise AssertionError(f"6 calls took {took:.4f} s at {RATE:g} calls per second")


def _deadline() -> None:
    """A call that never ends is cut after 20 ms."""

    @opero(timeout=0.02)
    async def endless() -> None:
        await asyncio.sleep(1)

    try:
        asyncio.run(endless())
    except DeadlineExceeded:
        return
    raise AssertionError("a call went on after its deadline")


def _single_flight() -> None:
    """10 tasks that miss one key run once."""
    runs = []

    @opero(cache=True)
    async def slow(key: str) -> str:
        runs.append(key)
        await asyncio.sleep(0)
        return key.upper()

    async def ask_often() -> list[str]:
        return await asyncio.gather(*(slow("a") for _ in range(10)))

    _same("the values", asyncio.run(ask_often()), ["A"] * 10)
    _same("the runs for ten tasks", len(runs), 1)


def _double(number: int) -> int:
    """Return twice the number; worker processes find this function by its name."""
    return 2 * number


def _map(mode: Any) -> None:
    mapped: Any = opmap(mode=mode, workers=2, progress=False)(_double)
    _same("the results", list(mapped(range(ITEMS))), list(range(0, 2 * ITEMS, 2)))


def _map_in_threads() -> None:
    """40 items come back in their order."""
    _map("thread")


def _map_in_processes() -> None:
    """40 items come back in their order."""
    _map("process")


TRIALS: Final[dict[str, Callable[[], None]]] = {
    "cache": _cache,
    "retry": _retry,
    "fallback": _fallback,
    "rate limit": _limit,
    "deadline": _deadline,
    "single flight": _single_flight,
    "map in threads": _map_in_threads,
    "map in processes": _map_in_processes,
}
"""The trials by name."""
