"""Further limits: "at most n permits in any s seconds", several at the same time.

Each is a separate token bucket. One with a burst of `b` and an interval `i` between permits lets
through `b + floor(s / i)` in any window of `s` seconds, its ends included. For `n` permits it has
to be `floor(s / i) <= n - b`, which is `i > s / (n - b + 1)`: the shortest such `i` leaves a steady
flow of nearly `n - b + 1` permits in `s`. The more may come at once, the less is left to flow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opero.options import checks

Windows = tuple[tuple[int, float], ...]


def check_windows(windows: Any) -> Windows:
    """Check `windows=` and return it as tuples.

    Raises:
        TypeError: If it is no sequence of pairs of numbers.
        ValueError: If a pair is not of 1 permit or more and a time above 0.
    """
    what = f"windows={windows!r} is not allowed: use pairs of permits and seconds"
    if not isinstance(windows, Iterable) or isinstance(windows, (str, bytes)):
        raise TypeError(what)
    checked = []
    for pair in windows:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(what)
        permits = checks.count("windows: permits", pair[0])
        checked.append((permits, checks.positive("windows: seconds", pair[1])))
    return tuple(checked)


def burst_of(permits: int, burst: int) -> int:
    """Return how many of a window's permits may come at once.

    It is the limiter's own burst, but no less than a tenth of the permits, and no more than half of
    them, so that the other half is left for a steady flow.
    """
    return max(1, permits // 10, min(burst, permits // 2))


def cells(windows: Windows, burst: int) -> tuple[tuple[int, int], ...]:
    """Return the interval in nanoseconds, and the burst, of each window's bucket.

    Args:
        windows: The permits and the seconds of each.
        burst: The limiter's own burst.
    """
    found = []
    for permits, seconds in windows:
        most = burst_of(permits, burst)
        found.append((int(seconds * 1e9) // (permits - most + 1) + 1, most))
    return tuple(found)
