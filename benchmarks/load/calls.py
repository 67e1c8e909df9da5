"""A process of the load: threads that call a function with a stored cache and check each value.

    python -m benchmarks.load.calls JSON

It says that it is ready, begins with the first line of its input, ends with the input, and prints
what happened since the last line, as JSON, several times a second. What it has not printed is lost
when it is killed.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from opero import OperoError, opero

POPULATION = 4000
"""How many arguments there are; the nth is asked for n times less often than the first."""
READY = "ready"
"""What a process says first."""
_EVERY = 0.2
"""Seconds between two reports."""


def value_of(number: int) -> str:
    """Return what the function returns: from 500 characters to 50,000, and most of them short."""
    length = 500 * 100 ** (number * 2654435761 % 2**32 / 2**32)
    return f"{number:020} " * int(length / 21)


class Caller:
    """The threads of a process, and what they have seen."""

    def __init__(self, cache: dict[str, Any], faults: Collection[str]) -> None:
        """Decorate the function.

        Args:
            cache: The options of the cache.
            faults: What to do wrong on purpose: "wrong", "hang", "error", "die".
        """
        self._own = threading.local()
        self._faults = faults
        self._lock = threading.Lock()
        self._begun: dict[int, float] = {}
        self._hits: list[int] = []
        self._misses: list[int] = []
        self._wrong = 0
        self._errors: list[str] = []
        self.ending = threading.Event()
        self.function = opero(cache=True, retries=1, **cache)(self.make)

    def make(self, number: int) -> str:
        """Return the value of a number."""
        self._own.ran = True
        if "wrong" in self._faults and random.random() < 0.05:
            return value_of(number + 1)
        if "hang" in self._faults and random.random() < 0.05:
            time.sleep(3600)
        if "error" in self._faults and random.random() < 0.05:
            raise ConnectionError("on purpose")
        return value_of(number)

    def call(self) -> None:
        """Call until the end: mostly for the same values, rarely to forget one."""
        me = threading.get_ident()
        while not self.ending.is_set():
            number = int(POPULATION ** random.random())
            self._own.ran = False
            begun = self._begun[me] = time.monotonic()
            try:
                if random.random() < 0.005:
                    with suppress(OperoError):  # during an outage, which `stats` counts
                        self.function.cache_invalidate(number)
                    continue
                right = self.function(number) == value_of(number)
            except Exception as error:  # noqa: BLE001 - none is allowed, whichever it is
                with self._lock:
                    self._errors.append(repr(error))
                continue
            took = int((time.monotonic() - begun) * 1e6)
            with self._lock:
                (self._misses if self._own.ran else self._hits).append(took)
                self._wrong += not right
        del self._begun[me]

    def report(self) -> str:
        """Return what happened since the last report, and how long the longest call has lasted."""
        stats = self.function.stats()
        with self._lock:
            found = {
                "hits": self._hits,
                "misses": self._misses,
                "wrong": self._wrong,
                "errors": self._errors,
            }
            self._hits, self._misses, self._wrong, self._errors = [], [], 0, []
        now = time.monotonic()
        return json.dumps(
            {
                **found,
                "oldest": max((now - begun for begun in list(self._begun.values())), default=0),
                "rejected": stats.rejected,
                "outages": stats.store_failures,
            }
        )


def main() -> None:
    """Call in several threads until the input ends."""
    options = json.loads(sys.argv[1])
    caller = Caller(options["cache"], options["faults"])
    threads = [threading.Thread(target=caller.call, daemon=True) for _ in range(options["threads"])]
    print(READY, flush=True)
    sys.stdin.readline()
    for thread in threads:
        thread.start()
    input_ends = threading.Thread(target=sys.stdin.read, daemon=True)
    input_ends.start()
    while input_ends.is_alive():
        input_ends.join(_EVERY)
        print(caller.report(), flush=True)
        if "die" in options["faults"] and random.random() < 0.3:
            os._exit(3)
    caller.ending.set()
    while any(thread.is_alive() for thread in threads):
        time.sleep(_EVERY / 10)
        print(caller.report(), flush=True)
    print(caller.report(), flush=True)


if __name__ == "__main__":
    main()
