"""Many waiters before one limit: how much of it is used, and how evenly.

Each scope has sixteen waiters who take one permit after the other: eight threads and eight tasks,
in one process where the limit belongs to a process, in four where processes share it. In a second
run sixteen tasks come on top that wait for a random time, and then give up and try again.

A permit is noted by the waiter when it runs again. On a busy machine that is later than when it was
granted, by another delay each time, so that a second may show a few permits of the one before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from .table import Verdict, quantile, seconds

SCOPES: Final = ("process", "machine", "redis")
LIMITS: Final = ((1.0, 1), (100.0, 1), (10_000.0, 1), (10_000.0, 100))
"""Permits per second, and how many may be taken at once."""
WAITERS: Final = 16
FAULTS: Final = ("apart", "slow", "unfair")
"""What can be done wrong on purpose, so that a verdict turns red."""

HEAD: Final = (
    "scope", "limit", "waiters", "used", "most in a second", "wait p50", "p99", "longest",
    "permits of a waiter", "of a process",
)  # fmt: skip
_ROOT = Path(__file__).parents[2]


@dataclass
class Figures:
    """What the waiters of one limit have got.

    Attributes:
        scope: Who shares it.
        rate: Permits per second.
        burst: How many may be taken at once.
        seconds: For how long.
        patient: The permits of each patient waiter, for each process: when, after how long a wait.
        others: When the others got theirs.
        given_up: How often one of them gave up.
        waiting: Nanoseconds that those have waited who still do at the end.
    """

    scope: str
    rate: float
    burst: int
    seconds: float
    patient: list[list[list[tuple[int, int]]]]
    others: list[int] = field(default_factory=list)
    given_up: int = 0
    waiting: list[int] = field(default_factory=list)

    @property
    def used(self) -> float:
        """The share of the limit that was used."""
        return len(self.moments()) / (self.rate * self.seconds)

    @property
    def waits(self) -> list[float]:
        """How long the patient ones have waited, in seconds."""
        return [wait / 1e9 for each in self.patient for permits in each for _, wait in permits]

    @property
    def longest(self) -> float:
        """The longest wait, in seconds, of those that are not over too."""
        return max([*self.waits, *(wait / 1e9 for wait in self.waiting)], default=0.0)

    @property
    def counts(self) -> list[int]:
        """The permits of each patient waiter."""
        return [len(permits) for each in self.patient for permits in each]

    @property
    def shares(self) -> list[int]:
        """The permits of the patient waiters of each process."""
        return [sum(map(len, each)) for each in self.patient]

    def moments(self) -> list[int]:
        """Return when permits were taken, in order."""
        own = [when for each in self.patient for permits in each for when, _ in permits]
        return sorted(own + self.others)

    def worst_second(self) -> int:
        """Return how many permits were taken in the second that had the most."""
        window: deque[int] = deque()
        most = 0
        for moment in self.moments():
            window.append(moment)
            while window[0] <= moment - 10**9:
                window.popleft()
            most = max(most, len(window))
        return most

    @property
    def allowed(self) -> float:
        """How many permits a second may show: the rate, the burst, and those of 50 ms before."""
        return self.rate + self.burst + max(1.0, self.rate / 20)

    def row(self) -> list[str]:
        """Return the line of the table."""
        return [
            self.scope,
            f"{self.rate:,.0f}/s" + (f", burst {self.burst}" if self.burst > 1 else ""),
            f"{WAITERS} and {WAITERS} who give up" if self.given_up else f"{WAITERS}",
            f"{self.used:.1%}",
            f"{self.worst_second():,}",
            seconds(quantile(self.waits, 0.5)),
            seconds(quantile(self.waits, 0.99)),
            seconds(self.longest),
            f"{min(self.counts):,} to {max(self.counts):,}",
            f"{min(self.shares):,} to {max(self.shares):,}" if len(self.shares) > 1 else "",
        ]


def judge(figures: Figures) -> list[Verdict]:
    """Return what has to hold."""
    verdicts = [
        Verdict(
            "most in a second",
            f"{figures.worst_second():,}",
            f"{figures.allowed:,.0f} at most",
            figures.worst_second() <= figures.allowed,
        ),
        _fair("permits of a waiter", figures.counts, 3, figures),
    ]
    if figures.scope == "redis" or figures.rate <= 1000 * figures.burst:
        # else what is used is what the machine wakes in time: a permit is lost if nobody is awake
        least = 0.8 if figures.rate > 1000 else 0.9
        used = f"{figures.used:.1%}"
        verdicts.append(Verdict("used", used, f"{least:.0%} at least", figures.used >= least))
    if len(figures.shares) > 1:
        verdicts.append(_fair("permits of a process", figures.shares, 2, figures))
    return verdicts


def _fair(what: str, counts: list[int], times: int, figures: Figures) -> Verdict:
    """Say whether nobody has got so many times more, or less, than in turn.

    Args:
        what: What is counted.
        counts: How many permits each waiter, or all of each process, has got.
        times: How many times.
        figures: The counts of all waiters.
    """
    waiters = WAITERS // len(counts)
    mean = sum(figures.counts) / WAITERS
    least, most = int(mean) // times * waiters, times * ceil(mean) * waiters
    return Verdict(
        what,
        f"{min(counts):,} to {max(counts):,}",
        f"{least:,} to {most:,}",
        least <= min(counts) and max(counts) <= most,
    )


def run(
    scope: str,
    rate: float,
    length: float,
    *,
    burst: int = 1,
    impatient: bool = False,
    url: str = "",
    faults: Collection[str] = (),
) -> Figures:
    """Let the waiters of one limit take permits.

    Args:
        scope: One of `SCOPES`.
        rate: Permits per second.
        length: For how many seconds.
        burst: How many permits may be taken at once.
        impatient: Whether others come who give up.
        url: Where the server is, for "redis".
        faults: Some of `FAULTS`.
    """
    processes = 1 if scope == "process" else 4
    each = WAITERS // processes
    limit: dict[str, Any] = {
        "rate_limit": rate / 2 if "slow" in faults else rate, "burst": burst, "scope": scope
    }  # fmt: skip
    if scope != "process":
        limit["name"] = f"load-{uuid4().hex}"
    if scope == "redis":
        limit["url"] = url
    with ExitStack() as stack:
        members = []
        for number in range(processes):
            own = dict(limit)
            if "apart" in faults:
                own["name"] = f"{limit['name']}-{number}"
            options = {
                "limit": own,
                "threads": each // 2,
                "tasks": each // 2,
                "impatient": each if impatient else 0,
                "idle": 1 if "unfair" in faults and number == 0 else 0,
            }
            member = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.load.waiters", json.dumps(options)],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(member)
            stack.callback(member.kill)
            members.append(member)
        for member in members:
            assert member.stdout is not None
            member.stdout.readline()
        begin = time.monotonic_ns() + 200_000_000
        for member in members:
            assert member.stdin is not None
            print(begin, begin + int(length * 1e9), file=member.stdin, flush=True)
        told = []
        for member in members:
            assert member.stdout is not None
            told.append(json.loads(member.stdout.readline()))
    return Figures(
        scope,
        rate,
        burst,
        length,
        [found["patient"] for found in told],
        [when for found in told for permits in found["impatient"] for when, _ in permits],
        sum(found["given_up"] for found in told),
        [wait for found in told for wait in found["waiting"]],
    )
