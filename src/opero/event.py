"""The event that the log and the listeners get."""

from __future__ import annotations

from typing import NamedTuple


class AttemptRecord(NamedTuple):
    """One attempt of a call, in the history of a `call_end` event.

    Attributes:
        number: The number of the attempt, counted from 1.
        began: Seconds from the start of the call to the start of the attempt.
        seconds: How long the attempt took.
        waited: Seconds that the call waited for permits before it.
        delay: Seconds that the call slept before it.
        error: What it raised, or a `ResultRejected`; None if it succeeded.
    """

    number: int
    began: float
    seconds: float
    waited: float
    delay: float
    error: BaseException | None


class Event(NamedTuple):
    """One event, as a listener gets it. Fields that a kind does not use are None.

    An event holds no arguments and no results. The error is the exception itself: a listener that
    keeps it also keeps its traceback and the function's local variables.

    Attributes:
        kind: What happened: one of `KINDS`.
        time: The time of day, in seconds since 1970.
        function: The qualified name of the decorated function; for a block of `attempts`, the name
            of the function that contains the loop.
        module: The function's module.
        namespace: The namespace of its cache.
        backend: Where its cache is: "memory", "disk" or "redis".
        mode: "sync" or "async" for a call; the `mode` of the map for an item of a map.
        attempt: The number of the failed attempt, counted from 1.
        of: The most attempts that this call may make.
        delay: Seconds until the next attempt.
        seconds: A duration; its meaning depends on the kind.
        error: The exception.
        reason: Why, in words.
        call: A number that the events of one call share from its first failure on, as do the start
            and end of one map. Calls that run at the same time have different numbers; a later
            call may reuse one.
        store: The store or limiter backend that failed; or the limit whose rate was cut or whose
            record the server lost.
        worker: The number of the map's worker, counted from 0.
        workers: How many workers the map has.
        items: How many items the map has or, at its end, has done; None if that is unknown.
        failed: How many items failed for good, or how many operations of a store failed.
        attempts: How many attempts the map or call made.
        retried: How many of these attempts followed a failed one.
        index: The position in the input, counted from 0, of the item that failed.
        history: The attempts of a finished call, in order.
        breaker: The name of the circuit breaker.
        state: Its new state: "open", "half_open" or "closed".
        rate: The new rate of an adaptive limit, in permits per second.
    """

    kind: str
    time: float
    function: str | None = None
    module: str | None = None
    namespace: str | None = None
    backend: str | None = None
    mode: str | None = None
    attempt: int | None = None
    of: int | None = None
    delay: float | None = None
    seconds: float | None = None
    error: BaseException | None = None
    reason: str | None = None
    call: int | None = None
    store: str | None = None
    worker: int | None = None
    workers: int | None = None
    items: int | None = None
    failed: int | None = None
    attempts: int | None = None
    retried: int | None = None
    index: int | None = None  # type: ignore[assignment] # hides tuple.index
    history: tuple[AttemptRecord, ...] | None = None
    breaker: str | None = None
    state: str | None = None
    rate: float | None = None


class Origin(NamedTuple):
    """The fields of an event that say where it comes from (see `Event`)."""

    function: str | None = None
    module: str | None = None
    namespace: str | None = None
    backend: str | None = None
    mode: str | None = None


NOWHERE = Origin()
"""The origin of an event without a function, such as the outage of a store."""

KINDS: tuple[str, ...] = (
    "hit",
    "miss",
    "retry",
    "fallback",
    "give_up",
    "permit_wait",
    "rate_cut",
    "limit_lost",
    "deadline",
    "stale",
    "refresh",
    "breaker",
    "store_down",
    "store_up",
    "call_end",
    "worker_crash",
    "map_start",
    "map_end",
)
"""The kinds of events."""

ON_REQUEST: tuple[str, ...] = ("call_end",)
"""Kinds that a listener gets only if it names them: they sum up earlier events."""
