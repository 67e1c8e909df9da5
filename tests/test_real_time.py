"""A clock that a test has stopped stops no wait: freezegun and time-machine, in either half."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from opero import hotpath, real_time

BEFORE = "from opero import *\n"

FREEZERS = {
    "freezegun": "import freezegun; freezer = freezegun.freeze_time('2024-01-01')\n",
    "freezegun, asyncio real": (
        "import freezegun; freezer = freezegun.freeze_time('2024-01-01', real_asyncio=True)\n"
    ),
    "time-machine": (
        "import time_machine; freezer = time_machine.travel('2024-01-01', tick=False)\n"
    ),
}

PREPARE = """
import asyncio, tempfile, time, threading, warnings

def flaky(errors=2):
    left = [OSError()] * errors
    def function(*_):
        if left:
            raise left.pop()
        return "value"
    return function

def awaited(function):
    async def coroutine(*args):
        return function(*args)
    return coroutine

def item(number):
    if number == 3 and number not in seen:
        seen.append(number)
        raise OSError
    return number

seen = []
"""

WAITS = {
    "retries": "assert opero(min_delay=0.02)(flaky())() == 'value'",
    "permits": "limiter = RateLimiter(50)\nfor _ in range(3): limiter.acquire_sync()",
    "a deadline": """
try:
    opero(retries=99, min_delay=0.02, max_delay=0.02, timeout=0.2)(flaky(99))()
except DeadlineExceeded:
    pass
""",
    "following another thread": """
function = opero(cache=True, timeout=0.2)(lambda: threading.Event().wait(1))
threads = [threading.Thread(target=function) for _ in range(2)]
threading.excepthook = lambda args: failed.append(args.exc_type)
failed = []
for thread in threads: thread.start()
for thread in threads: thread.join()
assert failed == [DeadlineExceeded], failed
""",
    "a time to live": """
from opero.testing import manual_clock
with manual_clock() as clock:
    function = opero(cache=True, cache_ttl=10)(flaky(0))
    function(), function(), clock.advance(11), function()
assert function.stats().misses == 2
""",
    "awaited retries": """
assert asyncio.run(opero(min_delay=0.02)(awaited(flaky()))()) == 'value'
""",
    "awaited permits": """
async def main():
    limiter = RateLimiter(50)
    for _ in range(3): await limiter.acquire()
asyncio.run(main())
""",
    "an awaited deadline": """
@opero(timeout=0.1)
async def function():
    await asyncio.get_running_loop().create_future()
try:
    asyncio.run(function())
except DeadlineExceeded:
    pass
""",
    "a map in threads": """
assert opmap(mode="thread", min_delay=0.02, progress=False)(item)(range(9)) == [*range(9)]
""",
    "a map in tasks": """
function = opmap(mode="async", min_delay=0.02, progress=False, loop="asyncio")(awaited(item))
assert function(range(9)) == [*range(9)]
""",
    "a map with a rate limit": """
assert opmap(mode="thread", workers=1, rate_limit=50, progress=False)(item)([0, 1, 2]) == [0, 1, 2]
""",
    "a stored cache": """
function = opero(cache=True, cache_backend="disk", cache_dir=tempfile.mkdtemp() + "/cache",
    cache_ttl=100, cache_key=lambda: "only")(flaky(0))
assert function() == function() == 'value'
assert function.stats().hits == 1, function.stats()
""",
}


IMPORTED_FROZEN = ("retries", "permits", "a deadline", "awaited retries")
"""What is tried where opero was imported while the clock stood."""


def run(code: str, waits: Iterable[str], half: str) -> None:
    """Run a program that waits in each way, on one half; its last line names the one that hangs."""
    switch = "OPERO_PURE_PYTHON" if half == "plain" else "OPERO_REQUIRE_COMPILED"
    environment = {name: value for name, value in os.environ.items() if name[:6] != "OPERO_"}
    environment |= {switch: "1", "OPERO_CACHE_SECRET": "a-secret-of-a-test-of-frozen-clocks"}
    for wait in waits:
        code += f"print({wait!r}, flush=True)\nexec({PREPARE + WAITS[wait]!r}, dict(globals()))\n"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


@pytest.mark.parametrize("freezer", FREEZERS)
def test_a_frozen_clock_makes_no_wait_endless(core: hotpath.Core, freezer: str) -> None:
    """Each wait ends; pytest shows which one was the last to begin."""
    run(BEFORE + FREEZERS[freezer] + "freezer.start()\n", WAITS, core.name)


@pytest.mark.parametrize("freezer", FREEZERS)
def test_opero_may_be_imported_while_the_clock_is_frozen(core: hotpath.Core, freezer: str) -> None:
    """Freezers replace what modules hold at that moment; opero is not there yet."""
    run(FREEZERS[freezer] + "freezer.start()\n" + BEFORE, IMPORTED_FROZEN, core.name)


def test_the_real_clocks_are_those_of_the_machine() -> None:
    for name in ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"):
        before = getattr(time, name)()
        now = getattr(real_time, name)()
        assert before <= now <= getattr(time, name)()


@pytest.mark.once
@pytest.mark.checkout
def test_nothing_in_opero_measures_by_a_clock_that_can_be_frozen() -> None:
    """The time of day (`time.time`) is another matter: it is what a user freezes it for."""
    package = Path(hotpath.__file__).parent
    for path in package.rglob("*.py"):
        if path.name not in {"real_time.py", "loop_time.py", "self_test.py"}:
            text = path.read_text(encoding="utf-8")
            assert "time.monotonic" not in text.replace("real_time.monotonic", ""), path
            assert "time.perf_counter" not in text, path
            for line in text.splitlines():
                if line.startswith("from time import"):
                    assert "monotonic" not in line, path
                    assert "perf_counter" not in line, path
