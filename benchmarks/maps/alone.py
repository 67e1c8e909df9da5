"""One stream in an interpreter of its own: its memory, and the start of its workers.

`python -m benchmarks.maps.alone JSON` is that interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from . import sides, work
from .sides import Stream, Streamer

_STATUS = Path("/proc/self/status")


class MissingError(Exception):
    """A side cannot be had here."""


def find(name: str) -> Stream:
    """The side of this name."""
    return next(side for side in sides.STREAMS if side.name == name)


def run(side: str, workers: int, count: int, seed: int = 0) -> dict[str, float]:
    """Stream items in a fresh interpreter.

    Args:
        side: The name of one of `sides.STREAMS`.
        workers: How many it has.
        count: How many items.
        seed: How many of the latest results the consumer keeps, which is a regression to be seen.

    Returns:
        `mebibytes` that the process grew by at its peak; `first`, the milliseconds until the first
        result; `last`, until the last one; `ns`, the nanoseconds per item.

    Raises:
        MissingError: If the side's library cannot be imported.
    """
    order = {"side": side, "workers": workers, "count": count, "seed": seed}
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    ran = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(order)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    if ran.returncode == 3:
        raise MissingError(ran.stderr.strip().rpartition("\n")[2])
    if ran.returncode:
        raise RuntimeError(f"{side} failed:\n{ran.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(ran.stdout.strip().rpartition("\n")[2])
    return figures


def peak() -> float:
    """Mebibytes of memory that this process had at most."""
    if _STATUS.exists():
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    import resource

    divisor = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / divisor


def stream(streamer: Streamer, count: int, seed: int = 0) -> dict[str, float]:
    """Stream items, and look at the clock and at the memory.

    Args:
        streamer: Who streams.
        count: How many items.
        seed: How many of the latest results are kept.

    Returns:
        The figures of `run`.
    """
    before = peak()
    start = perf_counter_ns()
    results = iter(streamer(iter(range(count))))
    total = next(results)
    first = perf_counter_ns() - start
    if seed:
        results = _kept(results, seed)
    seen = 1
    for result in results:
        total += result
        seen += 1
    elapsed = perf_counter_ns() - start
    assert (seen, total) == (count, count * (count - 1) // 2), "the results are wrong"
    return {
        "mebibytes": peak() - before,
        "first": first / 1e6,
        "last": elapsed / 1e6,
        "ns": elapsed / count,
    }


def _kept(results: Iterable[Any], most: int) -> Iterator[Any]:
    last: deque[Any] = deque(maxlen=most)
    for result in results:
        last.append(result)
        yield result


def main(arguments: list[str]) -> int:
    """Stream what the JSON says, and print the figures as JSON."""
    order = json.loads(arguments[0])
    side = find(order["side"])
    function = work.same_later if side.coroutines else work.same
    try:
        with side.open(function, order["workers"]) as streamer:
            figures = stream(streamer, order["count"], order["seed"])
    except ImportError as error:
        print(error, file=sys.stderr)
        return 3
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
