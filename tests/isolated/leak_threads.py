"""Threads that share runs, wait in line, give up or are interrupted leave nothing."""

from __future__ import annotations

import ctypes
import threading
from contextlib import suppress

import common

from opero import RateLimiter, get_logger, opero
from opero.runners import sync

get_logger().setLevel("CRITICAL")
limiter = RateLimiter(20_000)
number = 0


def fresh():
    """Return a key that was not there before."""
    global number
    number += 1
    return number


@opero(retries=1, cache=True, cache_maxsize=8)
def shared(key, gate):
    """Return once the gate is open."""
    gate.wait(5)
    if key % 2:
        raise ValueError(key)
    return [key]


@opero(retries=1, cache=True, cache_maxsize=8, timeout=0.001, cache_key=lambda key, gate: key)
def hurried(key, gate):
    """Return too late for those who follow."""
    gate.wait(5)
    return [key]


@opero(retries=1, cache=True, cache_maxsize=8)
def interrupted(key):
    """Leave the others to run once more."""
    raise KeyboardInterrupt


def in_threads(count, work, *args):
    """Do it in threads, and wait for them."""

    def quietly():
        with suppress(ValueError, TimeoutError, KeyboardInterrupt):
            work(*args)

    threads = [threading.Thread(target=quietly) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def round_():
    """Go through every way."""
    gate = threading.Event()
    threads = in_threads(3, shared, fresh(), gate)
    threads += in_threads(3, shared, fresh(), gate)
    threads += in_threads(3, hurried, fresh(), gate)
    threads += in_threads(3, interrupted, fresh())
    threads += in_threads(3, limiter.acquire_sync)
    victim = threads[0].ident
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(victim), ctypes.py_object(KeyboardInterrupt)
    )
    gate.set()
    for thread in threads:
        thread.join(10)
        if thread.is_alive():
            raise SystemExit("a thread hangs")


threading.excepthook = lambda told: None  # an interruption may arrive when all is over
common.check_growth("threads", round_, rounds=40, count=common.objects)
if sync._waiting:
    raise SystemExit(f"still waiting: {sync._waiting}")
for function in (shared, hurried, interrupted):
    if function.__opero__.store.under_way:
        raise SystemExit(f"{function}: {function.__opero__.store.under_way} runs")
