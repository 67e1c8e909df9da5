"""The rate of an adaptive limit: it learns what a server allows from what the server rejects.

It is additive increase, multiplicative decrease (AIMD) in spirit: D.-M. Chiu, R. Jain, "Analysis of
the increase and decrease algorithms for congestion avoidance in computer networks", Computer
Networks and ISDN Systems 17(1), 1989. A sawtooth that halves and climbs by a fixed step uses three
quarters of a limit, and far less of one that falls and rises; so the shape between two rejections
is that of CUBIC (S. Ha, I. Rhee, L. Xu, "CUBIC: a new TCP-friendly high-speed TCP variant", ACM
SIGOPS Operating Systems Review 42(5), 2008; RFC 9438), as in the adaptive mode of AWS's SDKs:

    rate
    given ---------------------------------------------------------.-
                                                                  /    beyond it, faster and faster
    top   ------.                      .-----------.             /
                |            .---------             |  .--------
                '  cut   .--                        '--   up to it fast, then slowly
                        '
          ------+-------------- hold --+-----------+--------------> clean time

Clean time is counted in successful attempts: at a rate of ten, each is a tenth of a second, but no
more than has passed. So time without traffic is not clean, and an unused rate does not change.

A rejection is a congestion event if its attempt began after the last cut; many that were under way
then are one event. The cut goes slightly below the rate that the server was last seen to serve. If
the next attempts are rejected too, each of them halves the rate.

A rate above `top` is a probe, which may cost a rejection. Successes pay for probes, about 80 for
each: if the server's limit stays the same, about one attempt in a hundred is rejected; if it moves,
the rate follows within seconds.
"""

from __future__ import annotations

from math import exp, log

_CUT = 0.88
"""What is left of the served rate after a cut ..."""
_DEPTH = log(_CUT)
_DEEP = 0.5
"""... and of the rate after a cut that follows immediately, ..."""
_DEEPEST = 0.05
"""... but no less than this share of `top`, ..."""
_DOUBT = 0.98
"""... which each such cut lowers too."""
_AT_ONCE = 3
"""Two rejections with fewer successes than this between them are one series."""
_GRACE = 40_000_000
"""Attempts that begin within this many nanoseconds after a cut belong to its event."""
_LEAST = 0.7
"""A first cut goes no lower than this part of the rate: the served rate is a guess."""
_MARGIN = 1.03
"""The factor by which the rate that a server serves may exceed the rate of successes."""
_MEMORY = 0.7
"""The seconds over which the rate of successes is averaged."""
_HOLD = 2.0
_LONGEST_HOLD = 20.0
"""How many clean seconds a rate stays below `top`, at least and at most."""
_RECOVERY = 0.7
"""In how many clean seconds the rate grows e-fold after a series of cuts."""
_GROWTH = 0.05
"""How fast the rate grows beyond `top`: by exp(growth * seconds**3)."""
_EARNED = 0.0125
"""What a success earns; a probe costs 1."""
_SAVINGS = 25.0
_BEGINNING = 5.0
"""The most credit that can be saved, and the credit that a limit begins with."""
_UNHEARD = -(10**18)


class RateControl:
    """The rate of one adaptive limit.

    Attributes:
        given: The highest rate, in permits per second.
        floor: The lowest rate.
        rate: The current rate.
        top: The best estimate of the rate at which the server last rejected.
        base: The rate right after the last cut.
        hold: Clean seconds after which the rate is back at `top`.
        clean: Clean seconds since the last cut.
        credit: How many probes have been earned.
        served: Recent successes per second.
        heard: When the last outcome was reported, in nanoseconds.
        cut: When the rate was last cut, in nanoseconds.
        since: How many attempts that began after that cut have succeeded.
        series: Whether the last cut immediately followed another.
    """

    __slots__ = (
        "base",
        "clean",
        "credit",
        "cut",
        "floor",
        "given",
        "heard",
        "hold",
        "rate",
        "series",
        "served",
        "since",
        "top",
    )

    def __init__(self, given: float, floor: float) -> None:
        """Begin with the given rate.

        Args:
            given: The highest rate, in permits per second.
            floor: The lowest.
        """
        self.given: float = given
        self.floor: float = floor
        self.rate: float = given
        self.top: float = given
        self.base: float = given
        self.hold: float = _HOLD
        self.clean: float = _HOLD
        self.credit: float = _BEGINNING
        self.served: float = 0.0
        self.heard: int = _UNHEARD
        self.cut: int = _UNHEARD
        self.since: int = _AT_ONCE
        self.series: bool = False

    def succeeded(self, now: int, entered: int, count: int = 1) -> bool:
        """Note that the server has served an attempt; return whether the rate has changed.

        Args:
            now: The time in nanoseconds.
            entered: When the attempt began, in nanoseconds.
            count: How many such attempts there were.
        """
        gap = self._hear(now)
        self.served += count / _MEMORY
        self.credit = min(self.credit + count * _EARNED, _SAVINGS)
        if entered <= self.cut:
            return False
        self.since = min(self.since + count, _AT_ONCE)
        if self.rate >= self.given:
            return False
        self.clean += min(count / self.rate, gap)
        if self.clean < self.hold:
            left = 1 - self.clean / self.hold
            rate = self.top * exp(_DEPTH * left * left * left)
            rate = min(rate, self.base * exp(min(self.clean / _RECOVERY, 50.0)))
        else:
            beyond = self.clean - self.hold
            rate = self.top * exp(min(_GROWTH * beyond * beyond * beyond, 50.0))
        before = self.rate
        self.rate = max(self.floor, min(rate, self.given))
        return self.rate != before

    def rejected(self, now: int, entered: int) -> bool:
        """Note that the server has rejected an attempt; return whether that is a new event.

        Args:
            now: The time in nanoseconds.
            entered: When the attempt began, in nanoseconds.
        """
        self._hear(now)
        if entered <= self.cut + _GRACE:
            return False
        self.series = self.since < _AT_ONCE
        if self.series:
            self.base = max(self.floor, self.rate * _DEEP, self.top * _DEEPEST)
            self.top = max(self.base, self.top * _DOUBT)
        else:
            served = min(self.rate, self.served * _MARGIN)
            self.top = max(self.floor, served, self.rate * _LEAST)
            self.base = max(self.floor, self.top * _CUT)
        self.credit = max(0.0, self.credit - 1)
        earning = (1 - self.credit) / (_EARNED * self.top)
        self.hold = max(_HOLD, min(earning, _LONGEST_HOLD))
        self.rate = self.base
        self.clean = 0.0
        self.since = 0
        self.cut = now
        return True

    def _hear(self, now: int) -> float:
        """Return how many seconds have passed since the last outcome, and let the average fade."""
        gap = max(0.0, (now - self.heard) / 1e9)
        self.served *= exp(-min(gap / _MEMORY, 50.0))
        self.heard = max(now, self.heard)
        return gap
