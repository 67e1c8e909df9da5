"""The row of two threads: what two of them get out of one cached function at the same time.

Only a free-threaded build can run them at once, so there is nothing to measure on any other.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Any

from . import calls, interpreter, peers
from .implementations import NAMES, Implementation, using
from .measure import Effort, Loop, calibrate, one_argument, quiet
from .rows import COMPILED, OPERO, Decorate, Function, Measured, Target

ALONE = "one thread"
LRU_TOGETHER = "lru_cache, two threads"

_ARGUMENT = "abc"


def missing() -> str | None:
    """Why two threads cannot run at once here, or None if they can."""
    if not interpreter.free_threaded(sysconfig.get_config_vars()):
        return "this Python is not free-threaded"
    if sys._is_gil_enabled():  # type: ignore[attr-defined,unused-ignore]
        return "this Python is free-threaded, and its lock is on"
    return None


def together(loops: tuple[Loop, ...], count: int) -> float:
    """Runs loops in a thread each, at the same time.

    Args:
        loops: The loops, one for each thread.
        count: How many calls each of them makes.

    Returns:
        Nanoseconds for each call, from the first thread's start to the last one's end.
    """
    start = threading.Barrier(len(loops))
    spans: list[tuple[int, int]] = []

    def run(loop: Loop) -> None:
        start.wait()
        begun = perf_counter_ns()
        loop(count)
        spans.append((begun, perf_counter_ns()))

    threads = [threading.Thread(target=run, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun, ended = zip(*spans, strict=True)
    elapsed: int = max(ended) - min(begun)
    return elapsed / (len(loops) * count)


def locking(function: Function, times: int) -> Function:
    """Takes a lock that all threads share: the seeded regression."""
    lock = threading.Lock()

    def locked(argument: Any) -> Any:
        for _ in range(times):
            with lock:
                pass
        return function(argument)

    return locked


@dataclass(frozen=True)
class ThreadsRow:
    """Hits of one cached function by two threads, in nanoseconds per call of either.

    Args:
        opero: The decorator under test.
        implementations: The halves of opero that take part.
        with_lru: Whether `lru_cache` is shown for scale.
        seed: How often each call takes a lock that all threads share; 0 for none.
    """

    opero: Decorate = calls.cached
    implementations: tuple[Implementation, ...] = NAMES
    with_lru: bool = True
    seed: int = 0
    name: str = "two threads, one cached function"
    unit: str = "ns"
    targets: tuple[Target, ...] = (Target(ALONE, 1 / 1.6),)

    def against(self, *names: str) -> ThreadsRow:
        """The same row with the compiled half only, for a gate."""
        return replace(self, implementations=("compiled",), with_lru=False)

    def slowed(self, calls: int) -> ThreadsRow:
        """The same row with a regression in it: a lock that both threads take that often."""
        return replace(self, seed=calls)

    def measure(self, effort: Effort) -> Measured:
        """Takes the figures of every side in turns; one thread is the compiled half alone."""
        reason = missing()
        halves = {name: half for name, half in OPERO.items() if half in self.implementations}
        if reason is not None:
            return Measured({}, dict.fromkeys((*halves, ALONE), reason))
        lost: dict[str, str] = {}
        sides: dict[str, Function] = {}
        for name, half in halves.items():
            try:
                with using(half):
                    sides[name] = self.opero(calls.identity())
            except ImportError as error:
                lost[name] = str(error)
        if self.seed:
            sides = {name: locking(side, self.seed) for name, side in sides.items()}
        if self.with_lru:
            sides[LRU_TOGETHER] = peers.lru_hit().decorate(calls.identity())
        turns: dict[str, Callable[[], float]] = {}
        with quiet():
            for name, side in sides.items():
                turns[name] = self._turn((side, side), effort)
                if name == COMPILED:
                    turns[ALONE] = self._turn((side,), effort)
            best = dict.fromkeys(turns, float("inf"))
            for _ in range(3 * effort.rounds):
                for name, turn in turns.items():
                    best[name] = min(best[name], turn())
        return Measured(best, lost)

    def _turn(self, sides: tuple[Function, ...], effort: Effort) -> Callable[[], float]:
        """A turn is long enough that starting the threads does not matter."""
        shape = one_argument(_ARGUMENT)
        loops = tuple(shape.loop(side) for side in sides)
        count = _LONGER * calibrate(loops[0], effort)
        return lambda: together(loops, count)


_LONGER = 5
"""How many loops of the other rows are a turn of a thread."""

ROWS: tuple[ThreadsRow, ...] = (ThreadsRow(),)
