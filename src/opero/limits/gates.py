"""Which gates the attempts of a function pass: a row for each option that makes one, in order."""

from __future__ import annotations

from .limiter import RateLimiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opero.core.gate import GateQueue
    from opero.options import CallOptions


def gates_of(plan: CallOptions) -> tuple[GateQueue, ...]:
    """Return the queues of a function's gates, in the order in which its attempts pass them."""
    return tuple(queue for make in ROWS if (queue := make(plan)) is not None)


def _rate_limit(plan: CallOptions) -> GateQueue | None:
    limit = plan.limit
    if limit is None:
        return None
    if not isinstance(limit, RateLimiter):
        assert limit.rate is not None
        limit = RateLimiter(limit.rate, limit.burst)
    queue: GateQueue = limit._queue
    return queue


ROWS: list[Callable[[CallOptions], GateQueue | None]] = [_rate_limit]
"""Each makes the queue of one gate from the checked options; None if its option is not given."""
