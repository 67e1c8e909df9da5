"""How late others see what happens to a shared breaker, and what an attempt pays for it.

    python -m benchmarks.stores.breakers

Two processes share a breaker. One opens it by hand and notes when; the other makes attempts all the
time, which succeed or fail, and notes when the first one is refused. The clock of a machine is the
same for both. What a closed breaker adds to an attempt is the difference to the same function
without one, in the best of several turns.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from opero import Breaker, BreakerOpenError, hotpath, opero

from .place import Place

ROUNDS = 15
CALLS = 20_000


def watch(options: dict[str, Any], outcome: str) -> None:
    """Attempt until refused, for each line of the input; print when that was."""
    for line in sys.stdin:
        breaker = Breaker(**{**options, "name": line.strip()})
        failing = outcome == "fail"

        @opero(breaker=breaker, retries=1)
        def attempt(failing: bool = failing) -> None:
            if failing:
                raise ConnectionError

        breaker.state  # noqa: B018 - from here on it knows the server
        print("ready", flush=True)
        while True:
            try:
                attempt()
            except BreakerOpenError:
                break
            except ConnectionError:
                time.sleep(0.001)
        print(time.monotonic_ns(), flush=True)


def lateness(options: dict[str, Any], outcome: str) -> list[float]:
    """Return how many milliseconds late another process sees that a breaker is open."""
    command = [sys.executable, "-m", "benchmarks.stores.breakers", outcome, repr(options)]
    found = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(ROUNDS):
            name = uuid4().hex
            breaker = Breaker(**{**options, "name": name})
            print(name, file=process.stdin, flush=True)
            process.stdout.readline()
            time.sleep(0.1 + 0.07 * number)  # at another moment of the second each time
            breaker.trip()
            opened = time.monotonic_ns()
            found.append(max(0.0, (int(process.stdout.readline()) - opened) / 1e6))
        process.stdin.close()
    return found


def best(call: Callable[[], Any]) -> float:
    """Return nanoseconds of a call, the best of several turns."""
    turns = []
    for _ in range(9):
        begun = time.perf_counter_ns()
        for _ in range(CALLS):
            call()
        turns.append((time.perf_counter_ns() - begun) / CALLS)
    return min(turns)


def added(breaker: Breaker | None) -> float:
    """Return what an attempt that succeeds takes, in nanoseconds."""

    @opero(breaker=breaker, retries=3)
    def attempt() -> None:
        pass

    return best(attempt)


def main() -> None:
    """Print a table."""
    settings: dict[str, Any] = {"minimum": 10**6, "open_for": 60.0}
    with Place() as place:
        scopes: dict[str, dict[str, Any]] = {
            "machine": {**settings, "scope": "machine"},
            "redis": {**settings, "scope": "redis", "url": place.url()},
        }
        bare = added(None)
        alone = added(Breaker("alone", **settings)) - bare
        print(f"{hotpath.core.name} half, Python {sys.version.split()[0]}")
        print(f"process   a closed breaker adds {alone:6.0f} ns")
        for scope, options in scopes.items():
            name = uuid4().hex
            print(
                f"{scope:9} a closed breaker adds {added(Breaker(name, **options)) - bare:6.0f} ns"
            )
            for outcome in ("succeed", "fail"):
                late = lateness(options, outcome)
                print(
                    f"{scope:9} others whose attempts {outcome + ':':8} late by "
                    f"{statistics.median(late):7.2f} ms, {max(late):7.2f} ms at most"
                )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        import ast

        watch(ast.literal_eval(sys.argv[2]), sys.argv[1])
    else:
        main()
