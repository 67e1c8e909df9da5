"""Functions of one item that does something bad: what a map must survive.

An item is a number, which is returned in a tuple, or a pair of a word and a number: the word says
what goes wrong. Workers import them from here.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from opero import WorkerCrashedError


class Unpicklable(Exception):
    """Raised by a worker; cannot be pickled."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.lock = threading.Lock()


class TwoArguments(Exception):
    """Raised by a worker; cannot be made from its `args`."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class NoWayBack(Exception):
    """Raised by a worker; pickles, and raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise RuntimeError("this way is closed")


class Closed:
    """An item that cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("not this one")


class OneWay:
    """An item or a result that pickles, and raises when it is unpickled."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def die(how: str) -> None:
    """End this process."""
    faulthandler.disable()  # it would tell at length
    if how == "exit":
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "memory":
        _fill_memory()
    raise AssertionError(how)


def _fill_memory() -> None:
    """Take memory until there is none, and end as one does that the system kills for it."""
    import resource

    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (16 << 20),) * 2)
    kept = []
    try:
        while True:
            kept.append(bytearray(2 << 20))
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)


DEATHS = ["exit", "kill", "segfault", "memory"]


def work(item: Any, plus: int = 0) -> Any:
    """Return a number, or do what a word says."""
    if not isinstance(item, tuple):
        return item, plus
    word, number = item[:2]
    if word in DEATHS:
        die(word)
    if word == "raise":
        raise ValueError(number)
    if word == "raise lock":
        raise Unpicklable(str(number))
    if word == "raise two":
        raise TwoArguments("one", str(number))
    if word == "raise no way back":
        raise NoWayBack(number)
    if word == "system exit":
        raise SystemExit(number)
    if word == "lock":
        return threading.Lock()
    if word == "one way":
        return OneWay()
    if word == "sleep":
        time.sleep(number)
    return item


async def awork(item: Any, plus: int = 0) -> Any:
    """Do the same as a coroutine."""
    if isinstance(item, tuple) and item[0] == "sleep":
        await asyncio.sleep(item[1])
        return item
    await asyncio.sleep(0)
    return work(item, plus)


def once(item: Any) -> Any:
    """Do what the word says only the first time: (word, number, the file that tells)."""
    if isinstance(item, tuple):
        path = Path(item[2])
        if not path.exists():
            path.touch()
            work(item)
    return item


async def aonce(item: Any) -> Any:
    """Do the same as a coroutine."""
    await asyncio.sleep(0)
    return once(item)


def code_of(error: Any) -> Any:
    """Return how a worker ended: its exit code or the number of a signal, negative."""
    assert isinstance(error, WorkerCrashedError), repr(error)
    return error.exitcode


CODES = {
    "exit": 7,
    "kill": -signal.SIGKILL,
    "segfault": -signal.SIGSEGV,
    "memory": -signal.SIGKILL,
}
