"""Functions that tests run in worker processes; a worker imports this in no time."""

from __future__ import annotations

import faulthandler
import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


class Wrapper:
    """Stands where the function was, as a decorator's object does."""

    def __init__(self, func: Any) -> None:
        functools.update_wrapper(self, func)
        del self.__wrapped__
        self.func = func

    def __call__(self, *args: Any) -> Any:
        raise AssertionError("a worker is to call the function, not what wraps it")


def increment(value):
    return value + 1


def add(value, more=0, *, much=0):
    return value + more + much


async def add_async(value, more=0):
    return value + more


@Wrapper
def wrapped(value):
    return value, "wrapped"


def fails_at_odd(value):
    if value % 2:
        raise LookupError("odd", value)
    return value


def ends(how):
    """Return numbers; what is no number is a way to end the process."""
    if how == "exit":
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    faulthandler.disable()  # it would tell at length
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "abort":
        os.kill(os.getpid(), signal.SIGABRT)
    return how


def fills_memory(value):
    """Use up the memory that the process may have, and end as one does that the system kills."""
    if value != "fill":
        return value
    import resource

    most = 400 << 20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    kept = []
    try:
        while True:
            kept.append(bytearray(16 << 20))
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)


def runs_out_of_memory(value):
    if value != "fill":
        return value
    return bytearray(1 << 60)


def writes_then_ends(value):
    """Leave a line per attempt; the item (path, None) waits and then ends the process."""
    path, number = value
    with Path(path).open("a") as file:
        file.write(f"{number}\n")
    if number is None:
        time.sleep(0.4)
        os._exit(1)
    return number


def naps(seconds):
    time.sleep(seconds)
    return seconds


def who(_):
    return os.getpid()


def surroundings(_):
    return str(Path.cwd()), os.environ.get("OPERO_TEST_SETTING"), sys.path[-1]


def blob(size):
    return bytearray(b"x") * size


def length(value):
    return len(value)


def first_length(texts):
    return len(texts[0])


def gives(kind):
    """Return, or raise, something that does not travel."""
    if kind == "lambda":
        return lambda: 1
    if kind == "lock":
        return threading.Lock()
    if kind == "one way":
        return OneWay()
    if kind == "fatal":
        return FatalToPack()
    if kind == "raise lock":
        raise HasLock("message")
    if kind == "raise odd":
        raise OddArguments("a", "b")
    if kind == "raise one way":
        raise OneWayError("message")
    if kind == "raise local":

        class Local(Exception):
            pass

        raise Local("message")
    if kind == "exit":
        raise SystemExit(3)
    if kind == "interrupt":
        raise KeyboardInterrupt
    return kind


def _never(*_):
    raise RuntimeError("this way is closed")


class OneWay:
    """Can be packed, cannot be unpacked."""

    def __reduce__(self):
        return _never, ()


class OneWayError(Exception):
    def __reduce__(self):
        return _never, ()


class FatalToPack:
    def __reduce__(self):
        os._exit(9)


def _end(*_):
    os._exit(11)


class FatalToUnpack:
    def __reduce__(self):
        return _end, ()


class HasLock(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


class OddArguments(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Unpackable:
    def __reduce__(self):
        raise pickle.PicklingError("not this one")


def nested(value):
    """Run a map of its own in a worker."""
    from drive import run_map

    return run_map(increment, list(range(value)), workers=2, start_method="fork")


def forks(value):
    """Fork, and let the child end at its leisure: it holds nothing that matters."""
    child = os.fork()
    if child == 0:
        time.sleep(12)
        os._exit(0)
    if value == "die":
        os._exit(5)
    return value


def interrupts_itself(value):
    os.kill(os.getpid(), signal.SIGINT)
    done = subprocess.run(
        [sys.executable, "-c", "import signal; print(signal.getsignal(2))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return value, done.stdout.strip()


def prints(value):
    sys.stdout.write(f"said {value}\n")
    return value


async def sleeps(seconds):
    """Await; a text ends the process instead, a negative number blocks the loop."""
    import asyncio

    if isinstance(seconds, str):
        await asyncio.sleep(0.05)
        return ends(seconds)
    if seconds < 0:
        time.sleep(60)
    await asyncio.sleep(seconds)
    return seconds
