"""Rows of coroutine functions: a hit, misses, the first attempt, a free permit, a deadline."""

from __future__ import annotations

import asyncio
import sys

from opero import opero

from . import peers
from .calls import (
    all_first_attempts,
    all_hits,
    all_misses,
    cached_with_ttl,
    limited,
    retried,
    stored,
    watched,
)
from .measure import awaited_argument, awaited_in_timeout, awaited_new_argument
from .rows import BARE, CallRow, Function, Side, Target

TIMEOUT = "asyncio.timeout"

_STARTS_EAGERLY = sys.version_info >= (3, 12)
"""Whether a task can take its first step when it is made."""


def identity() -> Function:
    """A coroutine function that does nothing."""

    async def function(argument: object) -> object:
        return argument

    return function


def suspending() -> Function:
    """A coroutine function that lets the event loop turn once."""
    sleep = asyncio.sleep

    async def function(argument: object) -> object:
        await sleep(0)
        return argument

    return function


def timed(function: Function) -> Function:
    """`@opero` with a deadline alone."""
    return opero(retries=1, timeout=peers.DEADLINE)(function)


def _around() -> Side:
    """The undecorated function, awaited within `async with asyncio.timeout()`."""

    def as_it_is(function: Function) -> Function:
        return function

    return Side(TIMEOUT, as_it_is, shape=lambda: awaited_in_timeout("abc", peers.DEADLINE))


ROWS: tuple[CallRow, ...] = (
    CallRow(
        "awaited hit",
        awaited_argument("abc"),
        identity,
        cached_with_ttl,
        peers.async_caches(),
        (Target(BARE, 1.5),),
        check=all_hits,
    ),
    CallRow(
        "awaited miss and store, never suspends",
        awaited_new_argument(),
        identity,
        stored,
        peers.async_stores(),
        (Target(peers.ASYNC_LRU, 0.35 if _STARTS_EAGERLY else 0.8),),
        check=all_misses,
    ),
    CallRow(
        "awaited miss and store, suspends once",
        awaited_new_argument(),
        suspending,
        stored,
        peers.async_stores(),
        (Target(peers.ASYNC_LRU, 0.65 if _STARTS_EAGERLY else 0.85),),
        check=all_misses,
    ),
    CallRow(
        "awaited retry, first attempt succeeds",
        awaited_argument("abc"),
        identity,
        retried,
        (),
        (Target(BARE, 2.3),),
        check=all_first_attempts,
    ),
    CallRow(
        "awaited retry, first attempt succeeds: added",
        awaited_argument("abc"),
        identity,
        retried,
        peers.retries(),
        (Target.times_less(100, "tenacity"),),
        added=True,
        check=all_first_attempts,
        yardstick=BARE,
    ),
    CallRow(
        "awaited, permit free",
        awaited_argument("abc"),
        identity,
        limited,
        peers.async_limiters(),
        (Target(BARE, 3.0),),
        check=all_first_attempts,
    ),
    CallRow(
        "awaited with timeout=",
        awaited_argument("abc"),
        identity,
        timed,
        (_around(), *peers.async_timeouts()),
        (Target(TIMEOUT, 0.4),),
        check=all_first_attempts,
    ),
    CallRow(
        "awaited with timeout=, suspends once",
        awaited_argument("abc"),
        suspending,
        timed,
        (_around(), *peers.async_timeouts()),
        check=all_first_attempts,
        yardstick=TIMEOUT,
    ),
    CallRow(
        "awaited, breaker closed",
        awaited_argument("abc"),
        identity,
        watched,
        peers.async_breakers(),
        check=all_first_attempts,
        yardstick=BARE,
    ),
)
