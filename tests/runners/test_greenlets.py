"""Under gevent a wait belongs to a greenlet: it shares runs, stands in line, and never hangs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROLOGUE = """
from gevent import monkey
monkey.patch_all()
import sys, time
import gevent
from opero import RateLimiter, hotpath, opero

hotpath.core = hotpath.load(sys.argv[1])
stored = {"cache_backend": "disk", "cache_dir": sys.argv[2], "cache_namespace": "greenlets"}
more = stored if sys.argv[3] == "disk" else {}

def outcomes(jobs):
    gevent.joinall(jobs, timeout=20)
    return [job.value if job.successful() else job.exception for job in jobs]
"""

LONG = """
runs = []

@opero(cache=True, retries=1, **more)
def fetch(key):
    runs.append(key)
    time.sleep(1.3)  # longer than followers wait until they look whether it is still under way
    return key

assert outcomes([gevent.spawn(fetch, 1) for _ in range(5)]) == [1] * 5
assert runs == [1], runs
"""

RECURSION = """
depth = []

@opero(cache=True, retries=1, **more)
def again(key):
    depth.append(key)
    time.sleep(0.01)
    return key if len(depth) == 3 else again(key)

assert outcomes([gevent.spawn(again, 1)]) == [1]
assert depth == [1] * 3, depth
"""

RINGS = """
for size in (2, 3, 4):
    seen = []

    @opero(cache=True, retries=1, **more)
    def ring(size, key):
        seen.append(key)
        time.sleep(0.05)
        return key if seen.count(key) > 1 else ring(size, (key + 1) % size)

    got = outcomes([gevent.spawn(ring, size, key) for key in range(size)])
    assert all(isinstance(each, int) for each in got), got
"""

LINES = """
limiter = RateLimiter(10)
order, ticks = [], []

@opero(retries=1, rate_limit=limiter, **more)
def work(key):
    order.append(key)

def tick():
    for _ in range(20):
        ticks.append(len(order))
        time.sleep(0.01)

jobs = [gevent.spawn(work, key) for key in range(4)]
outcomes([*jobs, gevent.spawn(tick)])
assert order == [0, 1, 2, 3], order
assert 1 in ticks and 2 in ticks, ticks  # others run while one waits
"""


REFRESHES = """
from opero.runners.background import background
from opero.testing import manual_clock
runs = []

@opero(cache=True, retries=1, cache_ttl=100, cache_refresh=20, **more)
def fetch(key):
    runs.append(key)
    gevent.sleep(0.02 if len(runs) > 3 else 0)
    return runs.count(key)

with manual_clock() as clock:
    assert [fetch(key) for key in range(3)] == [1] * 3
    clock.advance(85)
    begun = time.monotonic()
    assert outcomes([gevent.spawn(fetch, key % 3) for key in range(9)]) == [1] * 9
    deadline = time.monotonic() + 10
    while background._waiting or background._running:
        assert time.monotonic() < deadline
        gevent.sleep(0.001)
    assert [fetch(key) for key in range(3)] == [2] * 3
    assert sorted(runs) == [0, 0, 1, 1, 2, 2], runs
"""


@pytest.mark.parametrize("store", ["memory", pytest.param("disk", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "program",
    [LONG, RECURSION, RINGS, REFRESHES],
    ids=["long run", "recursion", "rings", "refreshes"],
)
def test_greenlets_share_runs_and_never_wait_for_themselves(core, tmp_path, program, store):
    """Like threads, although all of them are in one thread."""
    run(core, tmp_path, program, store)


def test_greenlets_stand_in_line_for_permits_and_let_others_run(core, tmp_path):
    """First come, first served."""
    run(core, tmp_path, LINES, "memory")


def run(core, tmp_path, program: str, store: str) -> None:
    """Run a program in an interpreter that gevent has patched."""
    script = tmp_path / "program.py"
    script.write_text(f"{PROLOGUE}{program}print('ok')\n")
    done = subprocess.run(
        [sys.executable, script, core.name, tmp_path / "cache", store],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OPERO_PURE_PYTHON": "", "OPERO_CACHE_SECRET": "x" * 32},
    )
    assert done.stdout.strip() == "ok", done.stdout + done.stderr
