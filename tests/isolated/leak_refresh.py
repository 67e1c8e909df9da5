"""Refreshes leave no memory behind, whether they renew a value, fail, or are overtaken."""

from __future__ import annotations

import asyncio
import time

import common

from opero import opero
from opero.runners import background, task_lingering
from opero.testing import manual_clock

fails = [False]


@opero(retries=1, cache=True, cache_ttl=100, cache_refresh=20, cache_stale=50)
def function(key):
    """Return, or fail."""
    if fails[0]:
        raise ConnectionError
    return [key]


@opero(retries=1, cache=True, cache_ttl=100, cache_refresh=20, cache_stale=50)
async def coroutine_function(key):
    """Do the same."""
    await asyncio.sleep(0)
    return [key]


def settle():
    """Wait until no thread refreshes anything."""
    end = time.monotonic() + 10
    at_work = background.background
    while at_work._waiting or at_work._running:
        assert time.monotonic() < end
        time.sleep(0.0001)


def renew():
    """Find a value near its end."""
    function(object)
    clock.advance(85)
    function(object)
    settle()


def fail():
    """The same, in vain; then serve the outdated value, and forget it."""
    function(object)
    fails[0] = True
    clock.advance(85)
    function(object)
    settle()
    clock.advance(20)
    function(object)
    fails[0] = False
    function.cache_invalidate(object)


async def renew_in_task():
    """Do the same in a loop."""
    await coroutine_function(object)
    clock.advance(85)
    await coroutine_function(object)
    while task_lingering._tasks:
        await asyncio.sleep(0)


with manual_clock() as clock:
    common.check_growth("a refresh", renew)
    common.check_growth("a refresh that fails", fail)
    common.check_tasks("a refresh in a task", renew_in_task)
