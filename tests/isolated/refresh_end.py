"""The interpreter ends at once and without a word while refreshes run, wait, and have lost their loop."""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
import threading

import common

from opero import opero
from opero.testing import manual_clock

begun = []
forever = threading.Event()


def options(**more):
    """Return the options of a function that is refreshed."""
    return {"retries": 1, "cache": True, "cache_ttl": 100, "cache_refresh": 20, **more}


@opero(**options())
def function(key):
    """Hang in a refresh."""
    begun.append(key)
    if begun.count(key) > 1:
        forever.wait()


@opero(**options())
async def coroutine_function(key):
    """Do the same in a task."""
    begun.append(key)
    if begun.count(key) > 1:
        await asyncio.get_running_loop().create_future()


directory = tempfile.mkdtemp()


@opero(**options(cache_backend="disk", cache_dir=directory, cache_secret="x" * 32))
def stored(key):
    """Hang in a refresh that holds a lease."""
    begun.append(key)
    if begun.count(key) > 1:
        forever.wait()


async def call(key):
    """Call a coroutine function, and let the refresh begin if it has begun."""
    await coroutine_function(key)
    await asyncio.sleep(0)


async def call_only(key):
    """Leave at once a refresh that has not made its first step."""
    await coroutine_function(key)


with manual_clock() as clock:
    for key in range(10):
        function(key)
    stored("stored")
    for key in ("cancelled", "closed", "unbegun"):
        asyncio.run(coroutine_function(key))
    clock.advance(85)
    for key in range(10):
        function(key)
    stored("stored")
    common.until(
        lambda: begun.count("stored") == 2 and sum(begun.count(key) > 1 for key in range(10)) == 4
    )
    asyncio.run(call("cancelled"))
    for key, work in (("closed", call), ("unbegun", call_only)):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(work(key))
        loop.close()
    assert begun.count("cancelled") == begun.count("closed") == 2
    gc.collect()
    coroutine_function.cache_clear()
    gc.collect()

    # what a loop has left undone is asked for again by the next hit
    asyncio.run(coroutine_function("again"))
    clock.advance(85)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(call("again"))
    loop.close()
    del loop
    coroutine_function.__opero__.store.flights.clear()
    gc.collect()
    asyncio.run(call("again"))
    assert begun.count("again") == 3, begun.count("again")

    loop = asyncio.new_event_loop()  # one is left at the end
    clock.advance(0)
    loop.run_until_complete(coroutine_function("left"))
    clock.advance(85)
    loop.run_until_complete(call("left"))
    loop.close()
shutil.rmtree(directory)
common.blocks()
