"""Rows of plain functions: hits, the first attempt, a free permit, misses, one failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from opero import opero, subscribe

from . import peers
from .measure import method, new_argument, one_argument, three_arguments
from .rows import CallRow, Function, Side, Target

BY_HAND = "try/except by hand"

RETRY_NO_DELAY: dict[str, Any] = {"retries": 3, "min_delay": 0.0, "max_delay": 0.0}


def identity() -> Function:
    """A function that does nothing, so that a figure is the decorator's own."""

    def function(argument: object) -> object:
        return argument

    return function


def three() -> Function:
    """A function of three parameters."""

    def function(first: object, second: object, third: object) -> object:
        return first

    return function


def of_instance() -> Function:
    """A method that does nothing."""

    def function(self: object, argument: object) -> object:
        return argument

    return function


def flaky() -> Function:
    """A function that fails in every odd call, so that each decorated call takes two attempts."""
    failing = True

    def function(argument: object) -> object:
        nonlocal failing
        if failing:
            failing = False
            raise ValueError("first attempt")
        failing = True
        return argument

    return function


def cached(function: Function) -> Function:
    """`@opero` with a cache, all else as it comes."""
    return opero(cache=True)(function)


def cached_with_ttl(function: Function) -> Function:
    """`@opero` with a cache and a time to live, all else as it comes."""
    return opero(cache=True, cache_ttl=peers.TTL)(function)


def stored(function: Function) -> Function:
    """`@opero` with a cache as large as those of the peers, all else as it comes."""
    return opero(cache=True, cache_maxsize=peers.MAXSIZE)(function)


def retried(function: Function) -> Function:
    """`@opero` as it comes: three attempts."""
    return opero(function)


def retried_at_once(function: Function) -> Function:
    """`@opero` with three attempts and no delay between them."""
    return opero(**RETRY_NO_DELAY)(function)


def limited(function: Function) -> Function:
    """`@opero` with a rate limit alone, which no call ever waits for."""
    return opero(retries=1, rate_limit=peers.PLENTY)(function)


def watched(function: Function) -> Function:
    """`@opero` with a breaker alone, which stays closed."""
    return opero(retries=1, breaker=True)(function)


def refreshed(function: Function) -> Function:
    """`@opero` with a cache whose values are made anew before their time is over."""
    return opero(cache=True, cache_ttl=peers.TTL, cache_refresh=peers.TTL / 10)(function)


def everything(function: Function) -> Function:
    """`@opero` with cache, time to live, retries and rate limit at once."""
    return opero(
        cache=True,
        cache_ttl=peers.TTL,
        cache_maxsize=peers.MAXSIZE,
        rate_limit=peers.PLENTY,
        **RETRY_NO_DELAY,
    )(function)


def _by_hand(function: Function) -> Function:
    def by_hand(argument: object) -> object:
        try:
            return function(argument)
        except ValueError:
            return function(argument)

    return by_hand


@contextmanager
def listening(*kinds: str) -> Iterator[None]:
    """Have one listener of some kinds of events meanwhile."""

    def listener(event: object) -> None:
        pass

    unsubscribe = subscribe(listener, *kinds)
    try:
        yield
    finally:
        unsubscribe()


def all_hits(decorated: Any) -> None:
    """Says that the loop measured hits."""
    stats = decorated.stats()
    assert stats.misses == 1, f"a row of hits missed: {stats}"


def all_misses(decorated: Any) -> None:
    """Says that the loop measured misses, and no waits."""
    stats = decorated.stats()
    assert stats.hits == 0, f"a row of misses hit: {stats}"
    assert stats.permit_wait == 0, f"a free permit was waited for: {stats}"


def all_first_attempts(decorated: Any) -> None:
    """Says that every call succeeded at once."""
    stats = decorated.stats()
    assert stats.attempts == stats.calls, f"a row of first attempts retried: {stats}"
    assert stats.permit_wait == 0, f"a free permit was waited for: {stats}"


def all_second_attempts(decorated: Any) -> None:
    """Says that every call took two attempts and no wait."""
    stats = decorated.stats()
    assert stats.attempts == 2 * stats.calls, f"a row of one failure per call: {stats}"
    assert stats.backoff_wait == 0, f"no delay was waited for: {stats}"


def _hit(name: str, argument: object, *, ttl: bool) -> CallRow:
    return CallRow(
        f"hit, one {name} argument, TTL set" if ttl else f"hit, one {name} argument",
        one_argument(argument),
        identity,
        cached_with_ttl if ttl else cached,
        (peers.lru_hit(), *peers.caches()) if ttl else (peers.lru_hit(),),
        (Target(peers.LRU, 0.8 if ttl else 0.7),),
        with_bare=False,
        check=all_hits,
    )


HITS: tuple[CallRow, ...] = (
    _hit("str", "abc", ttl=False),
    _hit("str", "abc", ttl=True),
    _hit("int", 12_345, ttl=False),
    _hit("int", 12_345, ttl=True),
    CallRow(
        "hit, three arguments, one by keyword",
        three_arguments("abc", keyword=True),
        three,
        cached_with_ttl,
        (peers.lru_hit(), *peers.caches()),
        (Target(peers.LRU, 0.5),),
        with_bare=False,
        check=all_hits,
    ),
    CallRow(
        "hit, three arguments, all positional",
        three_arguments("abc", keyword=False),
        three,
        cached_with_ttl,
        (peers.lru_hit(), *peers.caches()),
        (Target(peers.LRU, 0.85),),
        with_bare=False,
        check=all_hits,
    ),
    CallRow(
        "hit, a method, one str argument",
        method("abc"),
        of_instance,
        cached_with_ttl,
        (peers.lru_hit(), *peers.caches()),
        (Target(peers.LRU, 0.75),),
        with_bare=False,
        check=all_hits,
    ),
)

ROWS: tuple[CallRow, ...] = (
    *HITS,
    CallRow(
        "retry, first attempt succeeds: added",
        one_argument("abc"),
        identity,
        retried,
        (peers.lru_hit(), *peers.retries()),
        (
            Target(peers.LRU, 0.6),
            Target.times_less(200, "tenacity"),
            Target.times_less(40, "backoff"),
            Target.times_less(40, "pyresilience"),
        ),
        added=True,
        check=all_first_attempts,
    ),
    CallRow(
        "permit free: added",
        one_argument("abc"),
        identity,
        limited,
        (peers.lru_hit(), *peers.limiters()),
        (Target(peers.LRU, 1.2),),
        added=True,
        check=all_first_attempts,
    ),
    CallRow(
        "miss and store",
        new_argument(),
        identity,
        stored,
        (peers.lru_miss(), *peers.caches(calls_through=True)),
        (Target(peers.LRU, 1.4),),
        check=all_misses,
    ),
    CallRow(
        "everything on, miss and store",
        new_argument(),
        identity,
        everything,
        (peers.lru_miss(), *peers.caches(calls_through=True), peers.everything()),
        (Target(peers.LRU, 1.6),),
        check=all_misses,
    ),
    CallRow(
        "one failure, no delay, then success",
        one_argument("abc"),
        flaky,
        retried_at_once,
        (Side(BY_HAND, _by_hand), *peers.retries(), peers.tenacity_without_sleep()),
        (Target.times_less(20, "tenacity"),),
        with_bare=False,
        check=all_second_attempts,
        yardstick=BY_HAND,
    ),
    CallRow(
        "breaker closed: added",
        one_argument("abc"),
        identity,
        watched,
        (peers.lru_hit(), *peers.breakers()),
        (Target(peers.LRU, 0.6),),
        added=True,
        check=all_first_attempts,
    ),
    CallRow(
        "hit, one str argument, TTL and refresh set",
        one_argument("abc"),
        identity,
        refreshed,
        (peers.lru_hit(),),
        (Target(peers.LRU, 0.8),),
        with_bare=False,
        check=all_hits,
    ),
    CallRow(
        "retry, first attempt succeeds, a listener to failures: added",
        one_argument("abc"),
        identity,
        retried,
        (peers.lru_hit(),),
        (Target(peers.LRU, 0.6),),
        added=True,
        check=all_first_attempts,
        during=partial(listening, "retry", "fallback", "give_up"),
    ),
    CallRow(
        "hit, one str argument, TTL set, a listener to hits",
        one_argument("abc"),
        identity,
        cached_with_ttl,
        (peers.lru_hit(),),
        with_bare=False,
        check=all_hits,
        during=partial(listening, "hit"),
        yardstick=peers.LRU,
    ),
)
