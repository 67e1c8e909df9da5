"""A process of the load before a limit: threads and tasks that take permits, and note when.

    python -m benchmarks.load.waiters JSON

It says that it is ready, reads the moment to begin at, in nanoseconds of the machine's clock, and
prints at the end, as JSON, what each waiter got: pairs of when, and after how long a wait.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import time
from typing import Any

from opero import RateLimiter

PATIENCE = 0.2
"""Seconds after which an impatient one gives up at the latest."""

Permits = list[tuple[int, int]]


class Waiters:
    """The threads and tasks of one process."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Make the limiter.

        Args:
            options: `limit`, what `RateLimiter` takes; `threads`, `tasks` and `impatient`, how many
                there are; `idle`, how many threads do not begin.
        """
        self._limiter = RateLimiter(**options["limit"])
        self._options = options
        self.patient: list[Permits] = []
        self.impatient: list[Permits] = []
        self.given_up = 0
        self._waiting: dict[int, int] = {}
        self.end = 0

    def run(self, begin: int, end: int) -> dict[str, Any]:
        """Take permits from `begin` to `end`, in nanoseconds, and return what there was."""
        self.end = end
        options = self._options
        count = options["threads"] + options["tasks"]
        self.patient = [[] for _ in range(count)]
        self.impatient = [[] for _ in range(options["impatient"])]
        works = [
            threading.Thread(target=self._thread, args=(number,), daemon=True)
            for number in range(options["idle"], options["threads"])
        ]
        works.append(threading.Thread(target=lambda: asyncio.run(self._tasks()), daemon=True))
        time.sleep(max(0, begin - time.monotonic_ns()) / 1e9)
        for work in works:
            work.start()
        time.sleep(max(0, end - time.monotonic_ns()) / 1e9)
        now = time.monotonic_ns()
        return {
            "patient": [list(permits) for permits in self.patient],
            "impatient": [list(permits) for permits in self.impatient],
            "given_up": self.given_up,
            "waiting": [now - since for since in list(self._waiting.values())],
        }

    def _thread(self, number: int) -> None:
        permits = self.patient[number]
        while (begun := time.monotonic_ns()) < self.end:
            self._waiting[number] = begun
            self._limiter.acquire_sync()
            self._note(permits, begun)
            del self._waiting[number]

    async def _tasks(self) -> None:
        threads = self._options["threads"]
        await asyncio.gather(
            *(self._task(threads + number) for number in range(self._options["tasks"])),
            *(self._impatient(permits) for permits in self.impatient),
        )

    async def _task(self, number: int) -> None:
        permits = self.patient[number]
        while (begun := time.monotonic_ns()) < self.end:
            self._waiting[number] = begun
            await self._limiter.acquire()
            self._note(permits, begun)
            del self._waiting[number]

    async def _impatient(self, permits: Permits) -> None:
        while (begun := time.monotonic_ns()) < self.end:
            try:
                async with asyncio.timeout(random.random() * PATIENCE):
                    await self._limiter.acquire()
            except TimeoutError:
                self.given_up += 1
                continue
            self._note(permits, begun)

    def _note(self, permits: Permits, begun: int) -> None:
        now = time.monotonic_ns()
        if now < self.end:
            permits.append((now, now - begun))


def main() -> None:
    """Wait for the beginning, take permits, and leave without those who still wait."""
    waiters = Waiters(json.loads(sys.argv[1]))
    print("ready", flush=True)
    begin, end = map(int, sys.stdin.readline().split())
    print(json.dumps(waiters.run(begin, end)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
