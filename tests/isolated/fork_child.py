"""A child process made by fork works with caches and limiters that other threads of its parent used."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import warnings

import common

from opero import RateLimiter, opero
from opero.gil import FREE_THREADED

warnings.simplefilter("ignore", DeprecationWarning)  # of fork in a process with threads

gate = threading.Event()
limiter = RateLimiter(50)
runs = []


@opero(retries=1, cache=True)
def fetch(key):
    """Wait in the parent, be quick in the child."""
    runs.append(key)
    if os.getpid() == parent:
        gate.wait(20)
    return key


class Source:
    """Has a cached method."""

    @opero(retries=1, cache=True)
    def fetch(self, key):
        """Do the same."""
        return fetch(("method", key))


@opero(retries=1, cache=True)
async def fetch_async(key):
    """Wait for ever in the parent's loop."""
    if os.getpid() == parent:
        while not gate.is_set():
            await asyncio.sleep(0.005)
    return key


@opero(retries=1, rate_limit=limiter)
def limited():
    """Need a permit."""
    return "permit"


def in_child(work):
    """Do it in a child; fail if it fails or takes more than five seconds."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        name = getattr(work, "__name__", work)
        raise SystemExit(f"{name}: the child ended with {os.waitstatus_to_exitcode(status)}")


parent = os.getpid()
source = Source()
threads = [
    threading.Thread(target=fetch, args=(1,)),
    threading.Thread(target=fetch, args=(1,)),
    threading.Thread(target=fetch, args=((2, "two"),)),
    threading.Thread(target=source.fetch, args=(3,)),
    threading.Thread(target=lambda: asyncio.run(fetch_async(4))),
]
for thread in threads:
    thread.daemon = True
    thread.start()
while fetch.__opero__.store.under_way < 3 or not fetch_async.__opero__.store.flights:
    time.sleep(0.001)


def cached_functions():
    """The runs of the parent's threads are not waited for, nor counted as the child's."""
    return fetch(1) == 1 and fetch((2, "two")) == (2, "two") and fetch(1) == 1


def cached_methods():
    """The same for an instance's cache."""
    return source.fetch(3) == ("method", 3)


def cached_coroutines():
    """The same on a loop of the child's own."""
    return asyncio.run(fetch_async(4)) == 4


def own_threads():
    """Threads of the child share runs as usual."""
    results = []
    workers = [threading.Thread(target=lambda: results.append(fetch(1))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(4)
    return results == [1] * 4


def line():
    """The parent's waiters are not in the child's line."""
    begun = time.monotonic()
    done = [limited() for _ in range(3)] == ["permit"] * 3
    return done and time.monotonic() - begun < 2 and limiter._bucket.queued == 0


for work in (cached_functions, cached_methods, cached_coroutines, own_threads):
    in_child(work)

waiters = [threading.Thread(target=limiter.acquire_sync, daemon=True) for _ in range(300)]
for waiter in waiters:
    waiter.start()
while limiter._bucket.queued < 100:
    time.sleep(0.001)
in_child(line)

# Forks at random moments, while other threads are busy in every lock that there is.
busy = threading.Event()
quick = opero(retries=1, cache=True, cache_maxsize=4)(lambda key: key)
brisk = RateLimiter(50_000)


def bustle(number):
    """Use everything, over and over."""
    step = 0
    while not busy.is_set():
        step += 1
        quick(step % 9)
        quick((step % 9, "x"))
        brisk.acquire_sync()
        opero(retries=1, cache=True)(lambda: 1)()


def all_at_once():
    """Use the same in the child."""
    for step in range(9):
        if quick(step) != step or quick((step, "x")) != (step, "x"):
            return False
        brisk.acquire_sync()
        brisk.try_acquire()
        opero(retries=1, cache=True)(lambda: 1)()
    return True


bustlers = [threading.Thread(target=bustle, args=(number,), daemon=True) for number in range(3)]
if FREE_THREADED:  # a dict's own lock may stay taken in the child, also one that opero never sees
    bustlers = []
for bustler in bustlers:
    bustler.start()
for _ in range(15):
    in_child(all_at_once)
    time.sleep(0.001)
busy.set()
gate.set()
for thread in threads + bustlers:
    thread.join(10)
    if thread.is_alive():
        raise SystemExit("a thread of the parent hangs")
if sorted(map(str, runs)) != ["('method', 3)", "(2, 'two')", "1"]:
    raise SystemExit(f"the parent ran {runs}")
common.blocks()
