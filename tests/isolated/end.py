"""The interpreter ends at once and without a word while threads wait and loops are left open."""

from __future__ import annotations

import asyncio
import threading
import time

import common

from opero import RateLimiter, opero

limiter = RateLimiter(0.001)
limiter.acquire_sync()


@opero(retries=1, cache=True)
def forever(key):
    """Wait for the end."""
    threading.Event().wait()


@opero(retries=2, cache=True)
async def forever_task(key):
    """Do the same in a loop."""
    await asyncio.get_running_loop().create_future()


class Last:
    """Calls cached functions when the interpreter takes everything down."""

    def __del__(self):
        try:
            quick(1)
            limiter.try_acquire()
        except TypeError:  # a global is gone already
            pass


quick = opero(retries=1, cache=True)(lambda key: Last() if key == 0 else key)
quick(0)
keep = Last()
keep.itself = keep
for work, args in (
    (forever, (1,)),
    (forever, (1,)),
    (limiter.acquire_sync, ()),
    (limiter.acquire_sync, ()),
):
    threading.Thread(target=work, args=args, daemon=True).start()


def in_loop():
    """Leave a loop running in a daemon thread."""
    asyncio.run(forever_task(1))


threading.Thread(target=in_loop, daemon=True).start()
while (
    limiter._bucket.queued < 2
    or not forever.__opero__.store.under_way
    or not forever_task.__opero__.store.flights
):
    time.sleep(0.001)
common.blocks()
