"""`python -m benchmarks.hit_ratio`: what the memory store keeps, against LRU, FIFO and LFU.

The store evicts by S3-FIFO (J. Yang, Y. Zhang, Z. Qiu, Y. Yue, K. V. Rashmi, "FIFO queues are all
you need for cache eviction", SOSP 2023), which moves nothing on a hit, with queues that adapt their
sizes (see `opero.core.store`). These traces show what that costs or earns in hits. All of them are
made from a seed, so the table is the same on every run and machine.
"""

from __future__ import annotations

import argparse
import functools
import random
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import accumulate
from typing import Any

from opero import opero

Trace = Sequence[int]
Policy = Callable[[Trace, int], float]

KEYS = 10_000
"""How many different keys the skewed traces draw from."""

REQUESTS = 100_000
"""The length of each trace."""

SIZES = (100, 500, 2_000)
"""Cache sizes: 1 %, 5 % and 20 % of the keys."""


def zipf(alpha: float, requests: int = REQUESTS, keys: int = KEYS, seed: int = 1) -> list[int]:
    """Requests whose key of rank r comes up in proportion to 1 / r**alpha.

    Args:
        alpha: How skewed; the larger, the more requests go to few keys.
        requests: The trace's length.
        keys: The number of keys.
        seed: Of the random numbers.

    Returns:
        The keys in order of request.
    """
    cumulated = list(accumulate(1.0 / rank**alpha for rank in range(1, keys + 1)))
    return random.Random(seed).choices(range(keys), cum_weights=cumulated, k=requests)


def scanned(alpha: float, requests: int = REQUESTS, keys: int = KEYS, seed: int = 1) -> list[int]:
    """Zipf, and after every 10,000 requests a scan over 5,000 keys that never come back.

    Args:
        alpha: How skewed the Zipf part is.
        requests: Roughly the trace's length.
        keys: The number of keys of the Zipf part.
        seed: Of the random numbers.

    Returns:
        The keys in order of request.
    """
    skewed = zipf(alpha, requests * 2 // 3, keys, seed)
    trace: list[int] = []
    fresh = keys
    for start in range(0, len(skewed), 10_000):
        trace += skewed[start : start + 10_000]
        trace += range(fresh, fresh + 5_000)
        fresh += 5_000
    return trace


def one_hit_wonders(
    alpha: float, requests: int = REQUESTS, keys: int = KEYS, seed: int = 1
) -> list[int]:
    """Zipf, with every second request on average for a key that never comes back.

    Args:
        alpha: How skewed the Zipf part is.
        requests: The trace's length.
        keys: The number of keys of the Zipf part.
        seed: Of the random numbers.

    Returns:
        The keys in order of request.
    """
    chance = random.Random(seed + 1)
    return [
        key if chance.random() < 0.5 else keys + index
        for index, key in enumerate(zipf(alpha, requests, keys, seed))
    ]


def loop(length: int, requests: int = REQUESTS) -> list[int]:
    """The same keys in the same order, again and again: the worst case of LRU and FIFO.

    Args:
        length: The number of keys.
        requests: The trace's length.

    Returns:
        The keys in order of request.
    """
    return [index % length for index in range(requests)]


def moving(window: int, each: int = 4, requests: int = REQUESTS, seed: int = 1) -> list[int]:
    """Any of some keys, the oldest of which gives way to a new one again and again.

    Args:
        window: How many keys are hot at a time.
        each: After how many requests one of them is replaced.
        requests: The trace's length.
        seed: Of the random numbers.

    Returns:
        The keys in order of request.
    """
    draw = random.Random(seed).randrange
    return [index // each + draw(window) for index in range(requests)]


def jumping(window: int, rounds: int = 10, requests: int = REQUESTS, seed: int = 1) -> list[int]:
    """Any of some keys, all of which give way to new ones at once.

    Args:
        window: How many keys are hot at a time.
        rounds: After how many requests for each of them that happens.
        requests: The trace's length.
        seed: Of the random numbers.

    Returns:
        The keys in order of request.
    """
    draw = random.Random(seed).randrange
    return [index // (window * rounds) * window + draw(window) for index in range(requests)]


def moving_scanned(window: int, requests: int = REQUESTS, seed: int = 1) -> list[int]:
    """`moving`, and after every 5,000 requests a scan over 2,500 keys that never come back.

    Args:
        window: How many keys are hot at a time.
        requests: Roughly the trace's length.
        seed: Of the random numbers.

    Returns:
        The keys in order of request.
    """
    hot = moving(window, requests=requests * 2 // 3, seed=seed)
    trace: list[int] = []
    fresh = -1
    for start in range(0, len(hot), 5_000):
        trace += hot[start : start + 5_000]
        trace += range(fresh, fresh - 2_500, -1)
        fresh -= 2_500
    return trace


def traces(size: int, requests: int = REQUESTS) -> dict[str, list[int]]:
    """All traces of the table, by name.

    Args:
        size: How many entries the cache has that they are for.
        requests: The length of each.

    Returns:
        The traces.
    """
    table = {f"Zipf {alpha}": zipf(alpha, requests) for alpha in (0.7, 0.9, 1.0, 1.2)}
    table["Zipf 1.0 with scans"] = scanned(1.0, requests)
    table["Zipf 1.0, half one-hit wonders"] = one_hit_wonders(1.0, requests)
    table["loop over 2,400 keys"] = loop(2_400, requests)
    table["moving, as many keys"] = moving(size, requests=requests)
    table["moving, half as many again"] = moving(size * 3 // 2, requests=requests)
    table["moving slowly, 9/10 as many"] = moving(size * 9 // 10, 10, requests)
    table["jumping, 8/10 as many"] = jumping(size * 8 // 10, 10, requests)
    table["moving, 8/10, with scans"] = moving_scanned(size * 8 // 10, requests)
    return table


def _replay(call: Any, trace: Trace) -> float:
    for key in trace:
        call(key)
    hits: int = call.cache_info().hits
    return hits / len(trace)


def _identity(key: int) -> int:
    return key


def by_opero(trace: Trace, size: int) -> float:
    """The hit ratio of a function under `@opero` with a cache of this size."""
    return _replay(opero(cache=True, cache_maxsize=size)(_identity), trace)


def by_lru(trace: Trace, size: int) -> float:
    """The hit ratio of `functools.lru_cache`."""
    return _replay(functools.lru_cache(maxsize=size)(_identity), trace)


def by_fifo(trace: Trace, size: int) -> float:
    """The hit ratio of first in, first out."""
    entries: dict[int, None] = {}
    hits = 0
    for key in trace:
        if key in entries:
            hits += 1
            continue
        if len(entries) == size:
            del entries[next(iter(entries))]
        entries[key] = None
    return hits / len(trace)


def by_lfu(trace: Trace, size: int) -> float:
    """The hit ratio of cachetools' least frequently used.

    Raises:
        ImportError: cachetools is not installed.
    """
    cachetools = import_module("cachetools")
    return _replay(cachetools.cached(cachetools.LFUCache(size), info=True)(_identity), trace)


POLICIES: dict[str, Policy] = {
    "opero": by_opero,
    "LRU": by_lru,
    "FIFO": by_fifo,
    "LFU (cachetools)": by_lfu,
}


def render(requests: int = REQUESTS, sizes: Sequence[int] = SIZES) -> str:
    """The table of hit ratios.

    Args:
        requests: The length of each trace.
        sizes: The cache sizes.

    Returns:
        The text, without a line break at the end.
    """
    lines = [
        f"{'hits in percent of requests':<32}{'size':>6}"
        + "".join(f"{name:>18}" for name in POLICIES)
    ]
    tables = {size: traces(size, requests) for size in sizes}
    for name in tables[sizes[0]]:
        for size, table in tables.items():
            cells = []
            for policy in POLICIES.values():
                try:
                    cells.append(f"{policy(table[name], size):.1%}")
                except ImportError:
                    cells.append("missing")
            lines.append(f"{name:<32}{size:>6}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table.

    Args:
        arguments: The command line; None for that of the process.

    Returns:
        The exit code, 0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hit_ratio", description="Hit ratios."
    )
    parser.add_argument("--requests", type=int, default=REQUESTS, help="the length of each trace")
    options = parser.parse_args(arguments)
    print(render(options.requests))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
