"""One thing that happened, as it is logged and as listeners get it."""

from __future__ import annotations

from typing import NamedTuple


class AttemptRecord(NamedTuple):
    """One attempt of a call, in the history of a `call_end` event.

    Attributes:
        number: Which it was, counted from 1.
        began: Seconds from the beginning of the call to that of the attempt.
        seconds: How long it took.
        waited: Seconds that it had to wait for permits before it.
        delay: Seconds that the call slept before it.
        error: What it raised, or what stands for a rejected result; None if it succeeded.
    """

    number: int
    began: float
    seconds: float
    waited: float
    delay: float
    error: BaseException | None


class Event(NamedTuple):
    """One thing that happened, as a listener gets it; a field that a kind does not use is None.

    There are no arguments and no results in it. The error is the exception itself; a listener that
    keeps it keeps its traceback, and what the function had in its variables.

    Attributes:
        kind: What happened: one of `KINDS`.
        time: The time of day, in seconds since 1970.
        function: The qualified name of the decorated function, or of the one that has the loop, for
            a block of code below `attempts`.
        module: The function's module.
        namespace: The namespace of its cache.
        backend: Where its cache is: "memory", "disk" or "redis".
        mode: "sync" or "async" for a call; the `mode` of the map for an item of a map.
        attempt: The number of the attempt that has failed, counted from 1.
        of: The greatest number of attempts of this call.
        delay: Seconds until the next attempt.
        seconds: Seconds that it took; what exactly depends on the kind.
        error: The exception.
        reason: Why, in words.
        call: A number that the events of one call share from its first failure on, or those of one
            map's begin and end. What runs at the same time has different ones; a later call may
            have it again.
        store: The store, or the place of a limiter, that failed; or the limit whose rate is cut,
            or that the server has lost.
        worker: The number of the map's worker, counted from 0.
        workers: How many workers the map has.
        items: How many items the map has, or at its end had done; None if that is not known.
        failed: How many of them failed for good; how many operations of a store failed.
        attempts: How many attempts a map, or a call, has made.
        retried: How many of them it has made because another failed.
        index: The place in the input, counted from 0, of the map's item that has failed.
        history: The attempts of a call that is over, in order.
        breaker: The name of the circuit breaker.
        state: Its new state: "open", "half_open" or "closed".
        rate: The rate of an adaptive limit from now on, in permits per second.
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
    index: int | None = None  # type: ignore[assignment] # tuple.index, which nobody needs here
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
"""The origin of what belongs to no function, such as an outage of a store."""

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
"""The kinds to be named by those who want them: what they sum up has been told one by one."""
