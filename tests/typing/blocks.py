"""Blocks of code that are run again, in functions and in coroutines."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import assert_type

import opero
from opero import Attempt, AttemptLoops, Breaker, RateLimiter, RetryConfig, attempts, retry_after
from opero.stats import Stats

POLICY = attempts(
    retries=2,
    backoff_factor=2,
    min_delay=timedelta(0),
    max_delay=1,
    retry_on=(OSError, ValueError),
    jitter=False,
    retry_after=retry_after,
    reraise=True,
    rate_limit=RateLimiter(1e9),
    breaker=Breaker(),
    timeout=timedelta(minutes=1),
)
assert_type(POLICY, AttemptLoops)


def once() -> str:
    """Leaves the block by its result."""
    for attempt in opero.attempts(3, retry_on=lambda error: isinstance(error, OSError)):
        assert_type(attempt, Attempt)
        with attempt as same:
            assert_type(same, Attempt)
            assert_type(attempt.number, int)
            return "value"
    raise AssertionError


async def awaited(policy: AttemptLoops) -> int:
    """Goes on behind the loop."""
    number = 0
    async for attempt in policy:
        with attempt:
            await asyncio.sleep(0)
            number = attempt.number
            if number == 1:
                raise OSError
    return number


assert once() == "value"
assert asyncio.run(awaited(attempts(min_delay=0, attempt_timeout=5))) == 2
assert asyncio.run(awaited(attempts(retry=RetryConfig(min_delay=0)))) == 2
assert_type(POLICY.stats(), Stats)
