"""The gates that a function's attempts pass: a row for each option that makes one, in order."""

from __future__ import annotations

from .breaker import Breaker
from .limiter import RateLimiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from opero.core.gate import GateQueue
    from opero.event import Origin
    from opero.options import CallOptions


def gates_of(plan: CallOptions, origin: Origin) -> tuple[GateQueue, ...]:
    """Return the queues of a function's gates, in the order in which attempts pass them.

    Args:
        plan: The checked options.
        origin: The function.
    """
    return tuple(queue for make in ROWS if (queue := make(plan, origin)) is not None)


def _breaker(plan: CallOptions, origin: Origin) -> GateQueue | None:
    breaker = plan.breaker
    if breaker is None:
        return None
    if not isinstance(breaker, Breaker):
        breaker = Breaker._of(breaker, origin)
    queue: Any = breaker._queue if plan.arg_fallback is None else breaker._values
    return queue  # type: ignore[no-any-return]


def _rate_limit(plan: CallOptions, _: Origin) -> GateQueue | None:
    limit = plan.limit
    if limit is None:
        return None
    if not isinstance(limit, RateLimiter):
        assert limit.rate is not None
        limit = RateLimiter(limit.rate, limit.burst, adaptive=limit.adaptive, floor=limit.floor)
    queue: GateQueue = limit._queue
    return queue


ROWS: list[Callable[[CallOptions, Origin], GateQueue | None]] = [_breaker, _rate_limit]
"""Each makes the queue of one gate from the checked options, or None without its option."""
