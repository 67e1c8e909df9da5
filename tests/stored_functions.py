"""Functions whose results are stored, for tests: in this process, and in processes of their own.

`python tests/stored_functions.py NAME OPTIONS ARGUMENTS` decorates one anew and calls it with each
of the arguments, as a program that was started again would; options and arguments are JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

LOG = "OPERO_TEST_LOG"
"""The environment variable with the file in which each run leaves a line."""


LEASE = "OPERO_TEST_LEASE"
"""The environment variable that says how long a lease of a program lasts, in seconds."""


def log(what: object) -> None:
    """Leave a line, whole, whoever else writes."""
    line = f"{what}\n".encode()
    handle = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


def runs() -> list[str]:
    """Return the lines so far."""
    path = Path(os.environ[LOG])
    return path.read_text().splitlines() if path.exists() else []


def double(x: Any, plus: Any = 0) -> Any:
    """Return twice the argument."""
    log(f"double {x!r} {plus!r}")
    return [x, x, plus]


async def adouble(x: Any, plus: Any = 0) -> Any:
    """Return twice the argument."""
    log(f"adouble {x!r} {plus!r}")
    await asyncio.sleep(0)
    return [x, x, plus]


def slow(x: Any) -> Any:
    """Take a while."""
    log(f"begun {x!r} {os.getpid()}")
    time.sleep(0.2)
    return {"x": x}


async def aslow(x: Any) -> Any:
    """Take a while."""
    log(f"begun {x!r} {os.getpid()}")
    await asyncio.sleep(0.2)
    return {"x": x}


def hangs(x: Any) -> Any:
    """Hang, in the first process that comes; be quick in the others."""
    log(f"hangs {os.getpid()}")
    if len(runs()) == 1:
        time.sleep(60)
    return x


def fails(x: Any) -> Any:
    """Fail if told so by a file."""
    log(f"fails {x!r}")
    if Path(os.environ[LOG] + ".fail").exists():
        raise ConnectionError("down")
    return {"made": time.time()}


async def afails(x: Any) -> Any:
    """Fail if told so by a file."""
    return fails(x)


def pair(x: Any) -> Any:
    """Return what JSON cannot say."""
    log(f"pair {x!r}")
    return (x, x)


@dataclasses.dataclass(frozen=True)
class Account:
    """Has a method that is cached by value."""

    name: str

    def balance(self, currency: str) -> str:
        """Return something."""
        log(f"balance {self.name} {currency}")
        return f"{self.name} {currency}"


def main() -> None:
    """Call a function as a program of its own."""
    from opero import opero
    from opero.stores import leases

    leases.SECONDS = float(os.environ.get(LEASE, leases.SECONDS))
    name, options, arguments = sys.argv[1:]
    sys.modules.setdefault("stored_functions", sys.modules["__main__"])
    function = globals()[name]
    function.__module__ = "stored_functions"
    decorated = opero(**json.loads(options))(function)
    print("ready", flush=True)
    sys.stdin.readline()
    for argument in json.loads(arguments):
        value = decorated(argument)
        if inspect.iscoroutine(value):
            value = asyncio.run(_awaited(value))
        print(json.dumps(value), flush=True)


async def _awaited(value: Any) -> Any:
    return await value


if __name__ == "__main__":
    main()
