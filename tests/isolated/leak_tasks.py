"""Calls of coroutine functions leave nothing: not when they succeed, fail, are shared, or are cut."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import common

from opero import OperoError, RateLimiter, attempts, get_logger, opero

get_logger().setLevel("CRITICAL")


class Failure(Exception):
    """What fails."""


async def fail(*args):
    """Raise, after a wait."""
    await asyncio.sleep(0)
    raise Failure


async def give(x):
    """Return, after a wait."""
    await asyncio.sleep(0)
    return [x]


async def wait(x):
    """Wait for ever."""
    await asyncio.get_running_loop().create_future()


async def yield_some(x):
    """Yield, after waits."""
    for _ in range(3):
        await asyncio.sleep(0)
        yield [x]


async def yield_none(x):
    """Raise, after a wait."""
    yield await fail()


async def exhaust(items):
    """Take all items."""
    return [item async for item in items]


fast = {"min_delay": 0, "max_delay": 0}
limiter = RateLimiter(1e6)
plain = opero(retries=2)(give)
retried = opero(retries=2, **fast)(fail)
cached = opero(retries=1, cache=True, cache_maxsize=8)(give)
cached_failure = opero(retries=2, cache=True, **fast)(fail)
limited = opero(retries=2, rate_limit=limiter)(give)
timed = opero(retries=1, timeout=60)(give)
timed_failure = opero(retries=2, timeout=60, **fast)(fail)
streamed = opero(retries=2)(yield_some)
timed_stream = opero(retries=2, timeout=90, attempt_timeout=60)(yield_some)
stream_failure = opero(retries=2, timeout=60, **fast)(yield_none)
picky_stream = opero(retries=2, retry_on_result=bool, **fast)(yield_some)
late = opero(retries=2, min_delay=9, max_delay=9, timeout=1)(fail)
cut = opero(retries=2, timeout=0.0001)(wait)
cached_cut = opero(retries=2, cache=True, timeout=0.0001)(wait)
forever = opero(retries=2, **fast)(wait)
cached_forever = opero(retries=2, cache=True)(wait)
number = 0


def fresh():
    """Return a key that was not there before."""
    global number
    number += 1
    return number


async def everything():
    """Go through every way a call can take."""
    calls = [
        plain(1),
        retried(1),
        cached("same"),
        cached(fresh()),
        cached_failure(1),
        limited(1),
        timed(1),
        timed_failure(1),
        late(1),
        exhaust(streamed(1)),
        exhaust(timed_stream(1)),
        exhaust(stream_failure(1)),
        exhaust(picky_stream(1)),
        anext(streamed(1)),
    ]
    calls += [cached(fresh())] * 1 + [cached(0) for _ in range(3)]
    calls += [cached_failure(0) for _ in range(3)]
    await asyncio.gather(*calls, return_exceptions=True)
    cached.cache_invalidate(0)
    del calls
    for _ in range(6):
        await asyncio.sleep(0)  # the loop closes the stream that was left alone


async def cutting():
    """Let deadlines pass."""
    calls = [cut(1), cached_cut(1), cached_cut(1), cached_cut(fresh())]
    await asyncio.gather(*calls, return_exceptions=True)


async def cancelling():
    """Cancel callers at several moments."""
    tasks = [asyncio.ensure_future(call(fresh())) for call in (forever, cached_forever, plain)]
    tasks += [asyncio.ensure_future(cached_forever(0)) for _ in range(3)]
    early = asyncio.ensure_future(cached_forever(fresh()))
    early.cancel()
    for turn in range(3):
        await asyncio.sleep(0)
        tasks[turn].cancel()
    for task in tasks:
        task.cancel()
    await asyncio.wait([*tasks, early])


async def closing():
    """Close coroutines at several moments."""
    for call in (plain, cached, limited, timed, forever, cached_forever):
        call(fresh()).close()
        begun = call(fresh())
        begun.send(None)
        begun.close()
    for stream in (streamed, timed_stream, stream_failure, picky_stream):
        stream(1)
        await stream(1).aclose()
        exhaust(stream(1)).close()
    begun = streamed(1)
    await anext(begun)
    await begun.aclose()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


shared_policy = attempts(retries=2, min_delay=0, attempt_timeout=0.001, timeout=5)
hasty = opero(retries=2, min_delay=0, attempt_timeout=0.001)(wait)
cached_hasty = opero(retries=2, min_delay=0, attempt_timeout=0.001, cache=True)(wait)


async def block(policy, work):
    """Run something in a block."""
    async for attempt in policy:
        with attempt:
            return await work(fresh())
    raise AssertionError


async def blocks():
    """Cut attempts of functions and of blocks, let them fail, cancel and leave them."""
    for policy in (shared_policy, attempts(retries=2, min_delay=0, attempt_timeout=0.001)):
        for work in (give, fail, wait):
            with suppress(OperoError):
                await block(policy, work)
        async for _ in policy:
            break
        begun = block(policy, give)
        begun.send(None)
        begun.close()
        task = asyncio.ensure_future(block(policy, wait))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    for call in (hasty, cached_hasty):
        with suppress(OperoError):
            await call(fresh())
    await asyncio.sleep(0)


async def lining_up():
    """Wait in line, and leave it."""
    slow = RateLimiter(100)
    await slow.acquire()
    tasks = [asyncio.ensure_future(slow.acquire()) for _ in range(4)]
    tasks += [asyncio.ensure_future(limiter.acquire()) for _ in range(4)]
    await asyncio.sleep(0)
    for task in tasks[:4]:
        task.cancel()
    await asyncio.wait(tasks)


common.check_tasks("calls", everything)
common.check_tasks("deadlines", cutting, rounds=30)
common.check_tasks("cancellations", cancelling)
common.check_tasks("closing", closing)
common.check_tasks("blocks", blocks, rounds=20)
common.check_tasks("line", lining_up, rounds=50)


def one_loop():
    """Use a loop for one call of each kind."""
    asyncio.run(everything())
    asyncio.run(cancelling())


common.check_growth("loops", one_loop, rounds=20, count=common.objects)
for function in (cached, cached_failure, cached_cut, cached_forever):
    if function.__opero__.store.flights:
        raise SystemExit(f"{function}: {function.__opero__.store.flights}")
