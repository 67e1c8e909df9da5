"""A server with a limit that changes, and callers of it, in virtual time.

    bucket -> permit -> half the latency -> server: serves or rejects -> half the latency -> leave

What the server allows is known at each moment, so a share can be told that nobody measures.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from opero.core.gate import REJECTED, SUCCEEDED

SECOND = 10**9
SETTLED = 10.0
"""Seconds after which callers are judged."""

Limit = Callable[[float], float]
Asks = Literal["never", "exactly", "whole seconds"]


def steps(*parts: tuple[float, float]) -> tuple[Limit, float]:
    """Return a limit of so many per second for so many seconds each, and how long that is."""

    def limit(time: float) -> float:
        for rate, length in parts:
            if time < length:
                return rate
            time -= length
        return parts[-1][0]

    return limit, sum(length for _, length in parts)


class TokenServer:
    """Serves a burst, and then as many as its limit says."""

    def __init__(self, limit: Limit, burst: float = 10) -> None:
        self.limit = limit
        self.burst = burst
        self.level = burst
        self.time = 0.0

    def wait(self, now: float) -> float:
        """Serve, and return 0; or return seconds until that would be done."""
        rate = self.limit(now)
        self.level = min(self.burst, self.level + (now - self.time) * rate)
        self.time = now
        if self.level >= 1 - 1e-9:
            self.level -= 1
            return 0.0
        return (1 - self.level) / rate


class WindowServer:
    """Serves so many in each second of the clock."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.second = -1
        self.count = 0

    def wait(self, now: float) -> float:
        """Do the same."""
        second = math.floor(now)
        if second != self.second:
            self.second, self.count = second, 0
        if self.count < self.limit(second):
            self.count += 1
            return 0.0
        return second + 1 - now


class SlidingServer:
    """Serves so many in any second."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.served: deque[float] = deque()

    def wait(self, now: float) -> float:
        """Do the same."""
        while self.served and self.served[0] <= now - 1:
            self.served.popleft()
        if len(self.served) < self.limit(now):
            self.served.append(now)
            return 0.0
        return self.served[0] + 1 - now


@dataclass
class Outcome:
    """What callers achieved after they had settled.

    Attributes:
        share: The part of what the server allowed that they used.
        rejected: The part of their attempts that was rejected.
        attempts: How many they made in all.
        rates: The rate at each full second.
    """

    share: float
    rejected: float
    attempts: int
    rates: list[float]


def run(
    buckets: Sequence[Any],
    server: Any,
    seconds: float,
    *,
    most: float,
    latency: float = 0.05,
    slots: int = 64,
    asks: Asks = "never",
    seed: int = 0,
) -> Outcome:
    """Let callers have a server do all that it does for them.

    Args:
        buckets: The limits of those who call; each has as many slots.
        server: One of the servers.
        seconds: How long.
        most: The given rate of all of them.
        latency: Seconds for a request and its answer; it varies by a third.
        slots: How many attempts are under way at once.
        asks: Whether a rejection says how long to wait.
        seed: For the latencies.
    """
    chance = random.Random(seed)
    heap: list[tuple[float, int, str, Any]] = []
    free = [slots] * len(buckets)
    served = rejected = attempts = serial = 0
    now = 0.0
    rates: list[float] = []

    def later(kind: str, what: Any) -> None:
        nonlocal serial
        serial += 1
        heapq.heappush(heap, (now + latency / 2 * chance.uniform(0.7, 1.3), serial, kind, what))

    while now < seconds:
        if now >= len(rates):
            rates.append(sum(bucket.rate() for bucket in buckets))
        nanoseconds = round(now * SECOND)
        wait = SECOND
        for at, bucket in enumerate(buckets):
            while free[at]:
                answer = bucket.enter(nanoseconds)
                if answer > 0:
                    wait = min(wait, answer)
                    break
                free[at] -= 1
                attempts += 1
                later("arrives", (at, nanoseconds, -answer))
        then = (nanoseconds + wait) / SECOND
        if not heap or heap[0][0] > then:
            now = max(now + 1e-9, then)
            continue
        now, _, kind, what = heapq.heappop(heap)
        nanoseconds = round(now * SECOND)
        if kind == "arrives":
            later("answer", (*what, server.wait(now)))
            continue
        at, entered, ticket, refused = what
        free[at] += 1
        if now >= SETTLED:
            served += not refused
            rejected += bool(refused)
        buckets[at].leave(nanoseconds, REJECTED if refused else SUCCEEDED, entered, ticket)
        if refused and asks != "never":
            told = refused if asks == "exactly" else math.ceil(refused)
            buckets[at].pause_as_asked(nanoseconds, round(told * SECOND))
    moments = [SETTLED + (seconds - SETTLED) * (each + 0.5) / 1000 for each in range(1000)]
    allowed = sum(min(server.limit(each), most) for each in moments) / 1000 * (seconds - SETTLED)
    return Outcome(served / allowed, rejected / max(1, served + rejected), attempts, rates)
