"""How large the directory of a cache on disk gets, and how much is stored and found meanwhile.

    python -m benchmarks.stores.disk_size             # ten seconds for each crowd
    python -m benchmarks.stores.disk_size --seconds 2

Several threads, of one process or of several, store values of one size and read what is there, as
fast as they can. Ten times a second somebody adds up the sizes of all files in the directory. The
limit is `cache_size_limit`: 8 MiB for values of 200,000 bytes, 64 MiB for values of 1,000 bytes.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opero.stores.disk import DiskBackend

NAMES = 100_000


@dataclass(frozen=True)
class Crowd:
    """Who stores and reads, and what.

    Attributes:
        processes: How many processes.
        writers: Threads of each that store values.
        readers: Threads of each that read.
        size: Bytes of a value.
        limit: `cache_size_limit`.
    """

    processes: int
    writers: int
    readers: int
    size: int
    limit: int


CROWDS = (
    Crowd(1, 1, 0, 200_000, 8 << 20),
    Crowd(1, 2, 0, 200_000, 8 << 20),
    Crowd(1, 8, 0, 200_000, 8 << 20),
    Crowd(1, 4, 4, 200_000, 8 << 20),
    Crowd(4, 1, 1, 200_000, 8 << 20),
    Crowd(1, 1, 0, 1_000, 64 << 20),
    Crowd(1, 4, 4, 1_000, 64 << 20),
    Crowd(4, 1, 1, 1_000, 64 << 20),
)


class Work:
    """What one process does, and how long each thing took.

    Attributes:
        puts: Seconds of each value that was stored.
        gets: Seconds of each look-up.
        failures: How many of both failed.
    """

    def __init__(self, directory: Path, crowd: Crowd, end: float) -> None:
        """Say where, what, and until which monotonic time."""
        self._backend = DiskBackend(directory, crowd.limit)
        self._size = crowd.size
        self._end = end
        self.puts: list[float] = []
        self.gets: list[float] = []
        self.failures = 0
        self._threads = [threading.Thread(target=self._put) for _ in range(crowd.writers)]
        self._threads += [threading.Thread(target=self._get) for _ in range(crowd.readers)]

    def run(self) -> None:
        """Do it."""
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        self._backend.close()

    def _put(self) -> None:
        chance = random.Random()
        data = os.urandom(self._size)
        while (begun := time.monotonic()) < self._end:
            try:
                self._backend.put_many([(f"{chance.randrange(NAMES):032x}", data)], None)
            except Exception:  # noqa: BLE001 - it is counted
                self.failures += 1
            else:
                self.puts.append(time.monotonic() - begun)

    def _get(self) -> None:
        chance = random.Random()
        while (begun := time.monotonic()) < self._end:
            try:
                self._backend.get_many([f"{chance.randrange(NAMES):032x}"])
            except Exception:  # noqa: BLE001 - it is counted
                self.failures += 1
            else:
                self.gets.append(time.monotonic() - begun)


def sizes(directory: Path) -> tuple[int, int]:
    """Return the bytes of all files in a directory, and of the largest log among them."""
    found: dict[str, int] = {}
    for entry in os.scandir(directory):
        try:
            found[entry.name] = entry.stat().st_size
        except FileNotFoundError:
            continue
    return sum(found.values()), found.get("cache.db-wal", 0)


def measure(crowd: Crowd, seconds: float) -> str:
    """Let a crowd work, and return a line about it."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        DiskBackend(directory, crowd.limit).put_many([("0" * 32, b"first")], None)
        end = time.monotonic() + seconds
        parts = [name, *map(str, (crowd.writers, crowd.readers, crowd.size, crowd.limit, seconds))]
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", __spec__.name, "--work", *parts],
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(crowd.processes)
        ]
        largest = log = 0
        while time.monotonic() < end + 0.5:
            total, in_log = sizes(directory)
            largest, log = max(largest, total), max(log, in_log)
            time.sleep(0.02)
        puts: list[float] = []
        gets: list[float] = []
        failures = 0
        for worker in workers:
            for line in worker.communicate()[0].splitlines():
                kind, *values = line.split()
                if kind == "failures":
                    failures += int(values[0])
                else:
                    (puts if kind == "puts" else gets).extend(map(float, values))
        last, _ = sizes(directory)
    share = 100 / crowd.limit
    return (
        f"{crowd.processes:9} {crowd.writers:7} {crowd.readers:7} {crowd.size:8,}"
        f" {len(puts) / seconds:8,.0f} {_quantiles(puts)}"
        f" {len(gets) / seconds:8,.0f} {_quantiles(gets)}"
        f" {failures:8} {largest * share:8.0f} {last * share:5.0f} {log * share:5.0f}"
    )


def _quantiles(seconds: list[float]) -> str:
    if not seconds:
        return f"{'':7} {'':7}"
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 2] * 1e3:7.2f} {ordered[len(ordered) * 99 // 100] * 1e3:7.1f}"


def work(directory: str, *numbers: str) -> None:
    """Work as one process of a crowd, and print how long everything took."""
    writers, readers, size, limit = map(int, numbers[:4])
    done = Work(
        Path(directory),
        Crowd(1, writers, readers, size, limit),
        time.monotonic() + float(numbers[4]),
    )
    done.run()
    print("puts", *(f"{value:.6f}" for value in done.puts))
    print("gets", *(f"{value:.6f}" for value in done.gets))
    print("failures", done.failures)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each crowd")
    parser.add_argument("--work", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        work(*options.work)
        return
    print("                                   stored                    looked up         ", end="")
    print("                 directory, % of the limit")
    print("processes writers readers    bytes  per second  p50 ms  p99", end=" ")
    print("per second  p50 ms  p99 failures  largest  last   log")
    for crowd in CROWDS:
        print(measure(crowd, options.seconds), flush=True)


if __name__ == "__main__":
    main()
