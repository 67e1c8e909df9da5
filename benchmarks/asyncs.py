"""Rows of coroutine functions: a hit, the first attempt, a free permit, each awaited."""

from __future__ import annotations

from . import peers
from .calls import all_first_attempts, all_hits, cached, limited, retried
from .measure import awaited_argument
from .rows import BARE, CallRow, Function, Target


def identity() -> Function:
    """A coroutine function that does nothing."""

    async def function(argument: object) -> object:
        return argument

    return function


ROWS: tuple[CallRow, ...] = (
    CallRow(
        "awaited hit",
        awaited_argument("abc"),
        identity,
        cached,
        peers.async_caches(),
        (Target(BARE, 1.35),),
        check=all_hits,
    ),
    CallRow(
        "awaited retry, first attempt succeeds",
        awaited_argument("abc"),
        identity,
        retried,
        (),
        (Target(BARE, 2.2),),
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
    ),
    CallRow(
        "awaited permit free: added",
        awaited_argument("abc"),
        identity,
        limited,
        peers.async_limiters(),
        (),
        added=True,
        check=all_first_attempts,
    ),
)
