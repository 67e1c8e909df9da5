"""Ctrl-C ends every wait at once, in a real process with the default handler, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import common

from opero import RateLimiter, get_logger, opero

get_logger().setLevel("CRITICAL")
limiter = RateLimiter(0.001)
limiter.acquire_sync()
gate = threading.Event()


@opero(retries=1, cache=True)
def shared():
    """Be led by another thread."""
    gate.wait(20)
    return "value"


@opero(retries=3, min_delay=60, max_delay=60)
def failing():
    """Back off for a minute."""
    raise ValueError


@opero(retries=3, min_delay=60, max_delay=60, cache=True, timeout=600)
async def failing_task():
    """Back off for a minute, in a task."""
    raise ValueError


@opero(retries=1, rate_limit=limiter)
def limited():
    """Wait for a quarter of an hour."""


def interrupted(name, work):
    """Interrupt it after a moment; fail if it goes on."""
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    begun = time.monotonic()
    try:
        timer.start()  # a busy machine may take longer for that than the moment
        work()
    except KeyboardInterrupt:
        pass
    else:
        raise SystemExit(f"{name}: no KeyboardInterrupt")
    if time.monotonic() - begun > 5:
        raise SystemExit(f"{name}: it took {time.monotonic() - begun} s")
    timer.join()


leader = threading.Thread(target=shared, daemon=True)
leader.start()
while not shared.__opero__.store.under_way:
    time.sleep(0.001)
interrupted("follower", shared)
interrupted("backoff", failing)
interrupted("permit", limited)
interrupted("permit by hand", limiter.acquire_sync)
interrupted("task in backoff", lambda: asyncio.run(failing_task()))
interrupted("task in line", lambda: asyncio.run(limiter.acquire()))
if limiter._bucket.queued:
    raise SystemExit("somebody is still in line")
if failing_task.__opero__.store.flights:
    raise SystemExit("a run is left")
gate.set()
leader.join(5)
if shared() != "value" or shared.stats().attempts != 1:
    raise SystemExit("the leader's value was lost")
common.blocks()
