"""Calls of functions for threads leave nothing: no block, no reference to an argument or a value."""

from __future__ import annotations

import sys
from contextlib import suppress

import common

from opero import RateLimiter, attempts, get_logger, opero
from opero.testing import manual_clock

get_logger().setLevel("CRITICAL")


class Thing:
    """An argument, a value, an instance."""

    @opero(retries=1, cache=True, cache_maxsize=4)
    def method(self, x):
        """Be cached for each instance."""
        return [x]

    @classmethod
    def make(cls):
        """Return one."""
        return cls()


class Failure(Exception):
    """What fails."""


def fail(*args, **kwargs):
    """Raise."""
    raise Failure


fast = {"min_delay": 0, "max_delay": 0}
plain = opero(retries=1)(lambda x, *, y=None: x)
retried = opero(retries=3, **fast)(fail)
once = opero(retries=1)(fail)
cached = opero(retries=1, cache=True, cache_maxsize=8)(lambda x, y=0: [x])
expiring = opero(retries=1, cache=True, cache_ttl=1, cache_maxsize=None)(lambda x: [x])
cached_failure = opero(retries=2, cache=True, **fast)(fail)
fallback = opero(retries=2, arg_fallback={"x": [1, 2]}, **fast)(lambda x: fail())
listed = opero(retries=1, arg_fallback="x", **fast)(lambda x: x if len(x) == 1 else fail())
limited = opero(retries=1, rate_limit=RateLimiter(1e9))(lambda x: x)
streamed = opero(retries=2, **fast)(lambda x, y=1: (yield from [x] * y))
stream_failure = opero(retries=2, **fast)(lambda x: (yield fail()))
picky_stream = opero(retries=2, retry_on_result=lambda x: True, **fast)(lambda x: (yield x))
late = opero(retries=3, min_delay=5, max_delay=5, timeout=1)(fail)
too_many = opero(retries=1, rate_limit=RateLimiter(0.001), timeout=0.5)(lambda: None)
too_many()
number = 0


def fresh():
    """Return a key that was not there before."""
    global number
    number += 1
    return number


def expected(function, *args, **kwargs):
    """Call what fails."""
    with suppress(Exception):
        function(*args, **kwargs)


def everything():
    """Go through every way a call can take."""
    thing = Thing()
    plain(thing)
    plain(x=thing, y=thing)
    expected(plain)
    expected(plain, 1, 2, 3, z=4)
    expected(once, thing)
    expected(retried, thing, x=thing)
    cached(fresh())
    cached(thing)
    cached(x=thing, y=[thing.__class__])
    cached((thing, 1))
    cached({"a": [1, 2, {"b": "c" * 20}]}, y=b"bytes")
    cached({"a": [1, 2, {"b": "c" * 20}]}, y=b"bytes")
    cached(1)
    cached(1)
    expected(cached)
    expected(cached, 1, q=2)
    cached.cache_invalidate(1)
    cached.cache_invalidate("not there")
    expected(cached_failure, fresh())
    expected(cached_failure, thing)
    expected(fallback, thing)
    expected(fallback, x=thing)
    listed([thing, 1, 2])
    expected(listed, 5)
    expected(listed, x=())
    limited(thing)
    list(streamed(thing, 3))
    next(streamed(thing, 3))
    streamed(thing).close()
    expected(streamed)
    expected(lambda: next(stream_failure(thing)))
    expected(lambda: next(picky_stream(thing)))
    expected(lambda: streamed(thing).throw(Failure))
    items = streamed(thing, 3)
    next(items)
    expected(lambda: items.throw(Failure))
    expected(late, thing)
    expected(too_many)
    thing.method(1)
    thing.method(fresh())
    thing.method(x=1)
    bound = thing.method
    bound(1)
    bound.cache_invalidate(1)
    Thing.method(thing, 1)
    cached.cache_info(), cached.stats(), repr(cached), repr(bound)
    opero(retries=2, cache=True, rate_limit=5)(lambda x: x)(1)


shared_policy = attempts(retries=2, min_delay=0)


def block(policy, work):
    """Run something in a block."""
    for attempt in policy:
        with attempt:
            return work(fresh())
    raise AssertionError


def blocks():
    """Let blocks succeed, fail and be left."""
    for policy in (shared_policy, attempts(retries=2, min_delay=0, retry_on=Failure)):
        block(policy, lambda x: [x])
        expected(block, policy, lambda x: [][x])
        for _ in policy:
            break
        expected(list, policy)


def expiry():
    """Let values run out, over and over."""
    with manual_clock() as clock:
        expiring(fresh())
        expiring("same")
        clock.advance(2)


common.check_growth("calls", everything)
expiring.cache_clear()
common.check_growth("blocks", blocks)
common.check_growth("expiry", expiry)
common.check_growth("clearing", lambda: (cached(fresh()), cached.cache_clear()))

thing, value = Thing(), object()
keep = opero(retries=1, cache=True)(lambda x: value)
before = sys.getrefcount(thing), sys.getrefcount(value)
for _ in range(50):
    keep(1)
    keep(key := fresh())
    keep.cache_invalidate(key)
    plain(thing)
    plain(thing, y=thing)
    plain(x=thing)
    limited(thing)
    list(streamed(thing, 3))
    next(streamed(x=thing, y=3))
    expected(lambda: next(stream_failure(thing)))
    expected(once, thing)
    expected(retried, thing)
    expected(cached, thing, thing, thing)
    listed([thing])
keep.cache_clear()
after = sys.getrefcount(thing), sys.getrefcount(value)
if before != after:
    raise SystemExit(f"references: {before} before, {after} after")
