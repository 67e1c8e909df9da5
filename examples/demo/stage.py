"""What a scene plays on, and the driving of threads, tasks and calls that scenes have in common."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from .server import DemoServer, Limit, answer

T = TypeVar("T")

LONGEST: Final = 8.0
"""Seconds that the threads or tasks of one scene may take."""

PACE: Final = Limit(rate=1_000.0, burst=50)
"""How fast a map fetches URLs."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a scene plays on.

    Attributes:
        server: The server to drive.
        hot_calls: Calls of the hot loop; the awaited one makes a fifth of them.
        files: How many files of the standard library are measured; None for all.
        urls: How many URLs are fetched in one map.
        pace: How fast that map may ask.
    """

    server: DemoServer
    hot_calls: int = 100_000
    files: int | None = None
    urls: int = 3_000
    pace: Limit = PACE

    @property
    def address(self) -> str:
        """Where the server listens."""
        return self.server.address

    def answer(self, path: str, key: str) -> str:
        """What the server answers when all is well."""
        return answer(self.server.seed, path, key)


def outcome_of(run: Callable[[], T]) -> T | BaseException:
    """The value of a call, or the exception it raised."""
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - whatever it is, the checks look at it
        return error


def timed(run: Callable[[], T]) -> tuple[T | BaseException, float]:
    """The outcome of a call, and the seconds it took."""
    started = time.monotonic()
    outcome = outcome_of(run)
    return outcome, time.monotonic() - started


def first_of(wrong: Sequence[object]) -> str:
    """The first outcome that was not what it should be, to help find the cause."""
    return f"; first: {type(wrong[0]).__name__}: {wrong[0]}"[:160] if wrong else ""


def in_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own, for `LONGEST` seconds at most."""
    return asyncio.run(asyncio.wait_for(work, LONGEST))


def in_threads(jobs: Sequence[Callable[[], T]]) -> list[T | BaseException]:
    """Run each job in a thread of its own.

    Args:
        jobs: What to run.

    Returns:
        What came of each, in their order; a `TimeoutError` for one that took more than `LONGEST`.
    """
    late = TimeoutError(f"a thread was still busy after {LONGEST:g} s")
    outcomes: list[T | BaseException] = [late] * len(jobs)

    def work(index: int) -> None:
        outcomes[index] = outcome_of(jobs[index])

    threads = [
        threading.Thread(target=work, args=(index,), name=f"opero-demo-{index}", daemon=True)
        for index in range(len(jobs))
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + LONGEST
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return outcomes.copy()
