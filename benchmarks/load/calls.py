"""A process of the load: threads and tasks that call over a stored cache, and check each value.

    python -m benchmarks.load.calls JSON

It says that it is ready, begins with the first line of its input, ends with the input, and prints
what happened since the last line, as JSON, several times a second. What it has not printed is lost
when it is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from opero import OperoError, opero

POPULATION = 4000
"""How many arguments there are; the nth is asked for n times less often than the first."""
READY = "ready"
"""What a process says first."""
_EVERY = 0.2
"""Seconds between two reports."""

_faults: set[str] = set()
"""What to do wrong on purpose: "wrong", "hang", "error", "die"."""
_call: ContextVar[_Call] = ContextVar("_call")
"""The call that the code belongs to which runs now."""


def value_of(number: int) -> str:
    """Return what both functions return: from 500 characters to 50,000, and most of them short."""
    length = 500 * 100 ** (number * 2654435761 % 2**32 / 2**32)
    return f"{number:020} " * int(length / 21)


def make(number: int) -> str:
    """Return the value of a number, in a thread."""
    if _by_chance("hang"):
        time.sleep(3600)
    return _value(number)


async def make_awaited(number: int) -> str:
    """Return the value of a number, in a task."""
    if _by_chance("hang"):
        await asyncio.sleep(3600)
    return _value(number)


def _value(number: int) -> str:
    _call.get().ran = True
    if _by_chance("error"):
        raise ConnectionError("on purpose")
    return value_of(number + _by_chance("wrong"))


def _by_chance(fault: str) -> bool:
    return fault in _faults and random.random() < 0.05


class _Call:
    """A call that is under way.

    Attributes:
        number: Its argument.
        begun: When it began.
        ran: Whether it has run the function.
        right: Whether its value is right; None if it asks for none.
    """

    def __init__(self) -> None:
        self.number = int(POPULATION ** random.random())
        self.begun = time.monotonic()
        self.ran = False
        self.right: bool | None = None


class Caller:
    """The threads and tasks of a process, and what they have seen."""

    def __init__(self, cache: dict[str, Any]) -> None:
        """Decorate the functions.

        Args:
            cache: The options of the cache.
        """
        self._lock = threading.Lock()
        self._under_way: set[_Call] = set()
        self._hits: list[int] = []
        self._misses: list[int] = []
        self._wrong = 0
        self._errors: list[str] = []
        self.ending = threading.Event()
        self.function = opero(cache=True, retries=1, **cache)(make)
        self.awaited = opero(cache=True, retries=1, **cache)(make_awaited)

    def call(self) -> None:
        """Call until the end: mostly for the same values, rarely to forget one."""
        while not self.ending.is_set():
            with self._one() as call:
                if random.random() < 0.005:
                    with suppress(OperoError):  # during an outage, which `stats` counts
                        self.function.cache_invalidate(call.number)
                else:
                    call.right = self.function(call.number) == value_of(call.number)

    def await_all(self, count: int) -> None:
        """Do the same in so many tasks."""

        async def all_of_them() -> None:
            await asyncio.gather(*(self._await() for _ in range(count)))

        asyncio.run(all_of_them())

    async def _await(self) -> None:
        while not self.ending.is_set():
            with self._one() as call:
                if random.random() < 0.005:
                    with suppress(OperoError):
                        self.awaited.cache_invalidate(call.number)
                else:
                    call.right = await self.awaited(call.number) == value_of(call.number)

    @contextmanager
    def _one(self) -> Iterator[_Call]:
        """Note what becomes of a call."""
        call = _Call()
        token = _call.set(call)
        self._under_way.add(call)
        try:
            yield call
        except Exception as error:  # noqa: BLE001 - none is allowed, whichever it is
            with self._lock:
                self._errors.append(repr(error))
        finally:
            self._under_way.discard(call)
            _call.reset(token)
        if call.right is not None:
            took = int((time.monotonic() - call.begun) * 1e6)
            with self._lock:
                (self._misses if call.ran else self._hits).append(took)
                self._wrong += not call.right

    def report(self) -> str:
        """Return what happened since the last report, and how long the longest call has lasted."""
        stats = self.function.stats(), self.awaited.stats()
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
                "oldest": max((now - call.begun for call in self._under_way.copy()), default=0),
                "rejected": sum(each.rejected for each in stats),
                "outages": sum(each.store_failures for each in stats),
            }
        )


def main() -> None:
    """Call in several threads and tasks until the input ends."""
    options = json.loads(sys.argv[1])
    _faults.update(options["faults"])
    caller = Caller(options["cache"])
    works = [threading.Thread(target=caller.call, daemon=True) for _ in range(options["threads"])]
    if options["tasks"]:
        tasks = (options["tasks"],)
        works.append(threading.Thread(target=caller.await_all, args=tasks, daemon=True))
    print(READY, flush=True)
    sys.stdin.readline()
    for work in works:
        work.start()
    input_ends = threading.Thread(target=sys.stdin.read, daemon=True)
    input_ends.start()
    while input_ends.is_alive():
        input_ends.join(_EVERY)
        print(caller.report(), flush=True)
        if "die" in _faults and random.random() < 0.3:
            os._exit(3)
    caller.ending.set()
    while any(work.is_alive() for work in works):
        time.sleep(_EVERY / 10)
        print(caller.report(), flush=True)
    print(caller.report(), flush=True)


if __name__ == "__main__":
    main()
