"""What the scripts share: which half is tested, what may grow, and a bound on how long they take."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

from opero import hotpath

hotpath.core = hotpath.load(sys.argv[1])
faulthandler.dump_traceback_later(40, exit=True)


def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def blocks() -> int:
    """Return how many blocks of memory are in use, garbage put aside."""
    for _ in range(3):
        gc.collect()
    return sys.getallocatedblocks()


def objects() -> int:
    """Return how many objects the garbage collector knows of, garbage put aside."""
    for _ in range(3):
        gc.collect()
    return len(gc.get_objects())


def check_growth(
    name: str,
    work: Callable[[], Any],
    rounds: int = 120,
    per_round: float = 0.2,
    count: Callable[[], int] = blocks,
) -> None:
    """Fail if doing something over and over needs more and more memory.

    Tables and free lists of the interpreter grow for a while, too, and stop; a leak does not. So it
    is tried up to 30 times, and once without growth is enough.

    Args:
        name: What is done.
        work: Does it once.
        rounds: How often.
        per_round: How many each may add: below 1, one leaked object per round is seen.
        count: What is counted: blocks of memory, or `objects`.
    """
    grown = []
    for _ in range(30):
        before = count()
        for _ in range(rounds):
            work()
        grown.append(count() - before)
        if grown[-1] <= rounds * per_round:
            return
    raise SystemExit(f"{name}: {grown} {count.__name__} more after {rounds} rounds each")


def check_tasks(name: str, work: Callable[[], Any], rounds: int = 120) -> None:
    """Do the same for a coroutine function, in one loop."""
    loop = asyncio.new_event_loop()
    try:
        check_growth(name, lambda: loop.run_until_complete(work()), rounds)
        left = asyncio.all_tasks(loop)
        if left:
            raise SystemExit(f"{name}: tasks left over: {left}")
    finally:
        loop.close()
