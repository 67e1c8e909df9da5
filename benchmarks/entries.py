"""Rows of cached entries: how many bytes each of them takes in the memory of the process.

A cache of 1,024 entries, which is full and has evicted as many. The arguments and what the function
returns are made before, so a figure is what the cache itself needs for an entry: its key, its
place in the dictionary, the links or queues that say who is to go, the time at which it ends.

*Counted*: `tracemalloc` sees what Python's allocators hand out, down to the byte, without what
they need themselves and lose by rounding. A cache written in Rust allocates past them.

*Resident*: the pages that the system gives a fresh interpreter for 200 such caches, no matter
which code asks for them. `python -m benchmarks.entries SIDE CACHES` is that interpreter.

One more row says what an instance with a cached method takes before it has any entry.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opero import opero

from . import calls, peers
from .implementations import NAMES, Implementation, using
from .measure import Effort
from .rows import OPERO, Decorate, Function, Measured, Side, Target

Fill = Callable[[Function, Sequence[Any]], None]
"""Calls a cached function once with each argument."""

_STATM = Path("/proc/self/statm")


def with_one(function: Function, arguments: Sequence[Any]) -> None:
    """Call `f(argument)`."""
    for argument in arguments:
        function(argument)


def with_three(function: Function, arguments: Sequence[Any]) -> None:
    """Call `f(argument, 2, third=3)`."""
    for argument in arguments:
        function(argument, 2, third=3)


def numbers(count: int) -> list[Any]:
    """Different ints, none of which Python keeps anyway."""
    return list(range(1_000, 1_000 + count))


def words(count: int) -> list[Any]:
    """Different strings."""
    return [f"key {number}" for number in range(count)]


def _opero(implementation: Implementation) -> Decorate:
    def decorate(function: Function) -> Function:
        with using(implementation):
            return calls.cached_with_ttl(function)

    return decorate


def _fill(decorate: Decorate, function: Function, fill: Fill, arguments: Sequence[Any]) -> Function:
    """Make a cache that is full and has evicted as many as it holds."""
    cached = decorate(function)
    fill(cached, arguments)
    return cached


def counted(decorate: Decorate, function: Function, fill: Fill, arguments: Sequence[Any]) -> float:
    """Count what Python's allocators hand out for a full cache.

    Args:
        decorate: Puts the cache around the function.
        function: What is cached.
        fill: Calls it.
        arguments: What it is called with: twice as many as the cache holds.

    Returns:
        Bytes per entry. What a cache takes when it is empty, after its first call, is not in it.
    """
    _fill(decorate, function, fill, arguments[:1])  # imports what it needs
    enabled = gc.isenabled()
    gc.disable()
    tracemalloc.start()
    try:
        empty = _fill(decorate, function, fill, arguments[:1])
        gc.collect()  # and so all free lists are empty
        before, _peak = tracemalloc.get_traced_memory()
        fill(empty, arguments)
        gc.collect()
        after, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        if enabled:
            gc.enable()
    return (after - before) / peers.MAXSIZE


@dataclass(frozen=True)
class EntryRow:
    """Bytes per entry, counted.

    Args:
        name: How the table calls it.
        function: Makes the function that is cached.
        fill: How it is called.
        arguments: Makes a number of different arguments.
        peers: The sides to compare with.
        targets: The promises.
        implementations: The halves of opero that take part.
        seed: How many pointers are in the tuple that each of opero's entries keeps in addition,
            which is the seeded regression; 0 for no tuple.
    """

    name: str
    function: Callable[[], Function]
    fill: Fill
    arguments: Callable[[int], list[Any]]
    peers: tuple[Side, ...]
    targets: tuple[Target, ...]
    implementations: tuple[Implementation, ...] = NAMES
    seed: int = 0
    unit: str = "bytes"

    def against(self, *names: str) -> EntryRow:
        """The same row with the compiled half and only the named peers, for a gate."""
        peers = tuple(peer for peer in self.peers if peer.name in names)
        return replace(self, peers=peers, implementations=("compiled",))

    def slowed(self, calls: int) -> EntryRow:
        """The same row with a regression in it: an entry keeps a tuple in addition."""
        return replace(self, seed=calls)

    def measure(self, effort: Effort) -> Measured:
        """Counts the bytes of every side once: they are the same each time."""
        arguments = self.arguments(2 * peers.MAXSIZE)
        sides = {name: _opero(half) for name, half in OPERO.items() if half in self.implementations}
        sides.update((peer.name, peer.decorate) for peer in self.peers)
        figures: dict[str, float] = {}
        missing: dict[str, str] = {}
        for name, decorate in sides.items():
            function = self.function()
            if self.seed and name in OPERO:
                function = _larger(function, self.seed)
            try:
                figures[name] = counted(decorate, function, self.fill, arguments)
            except ImportError as error:
                missing[name] = str(error)
        return Measured(figures, missing)


def _larger(function: Function, pointers: int) -> Function:
    """Let each result be a tuple of its own: the seeded regression."""

    @functools.wraps(function)
    def larger(*args: Any, **kwargs: Any) -> Any:
        return (function(*args, **kwargs),) * pointers

    return larger


def resident(side: str, count: int) -> float:
    """What the process grows by, for many full caches of a side.

    Args:
        side: One of `SIDES`.
        count: How many caches: so many that single pages do not matter.

    Returns:
        Bytes per entry.

    Raises:
        ImportError: The side's library is not installed.
        OSError: The system does not tell what a process has.
    """
    arguments = numbers(2 * peers.MAXSIZE)
    decorate = SIDES[side]

    def full() -> Function:
        return _fill(decorate, calls.identity(), with_one, arguments)

    caches = [full()]  # imports what it needs
    gc.collect()
    before = _pages()
    caches += (full() for _ in range(count))
    gc.collect()
    return (_pages() - before) / (count * peers.MAXSIZE)


def _pages() -> int:
    """Bytes of memory that this process has now."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ResidentRow:
    """Bytes per entry, as the system sees them; for scale, and for caches that are not counted.

    Args:
        peers: The sides to compare with.
        implementations: The halves of opero that take part.
    """

    peers: tuple[Side, ...] = (peers.lru_hit(), *peers.caches())
    implementations: tuple[Implementation, ...] = NAMES
    name: str = "bytes per entry, one int argument, resident"
    unit: str = "bytes"
    targets: tuple[Target, ...] = ()

    def against(self, *names: str) -> ResidentRow:
        """The same row with the compiled half and only the named peers."""
        peers = tuple(peer for peer in self.peers if peer.name in names)
        return replace(self, peers=peers, implementations=("compiled",))

    def slowed(self, calls: int) -> ResidentRow:
        """The same row; it has no gate."""
        return self

    def measure(self, effort: Effort) -> Measured:
        """Measures every side once, in a fresh interpreter of its own: a cache for each round."""
        halves = [name for name, half in OPERO.items() if half in self.implementations]
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        figures: dict[str, float] = {}
        missing: dict[str, str] = {}
        for side in (*halves, *(peer.name for peer in self.peers)):
            ran = subprocess.run(
                [sys.executable, "-m", __name__, side, str(effort.rounds)],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": path, "OPERO_REQUIRE_COMPILED": "0"},
                check=False,
            )
            if ran.returncode:
                missing[side] = ran.stderr.strip().rpartition("\n")[2]
            else:
                figures[side] = float(ran.stdout)
        return Measured(figures, missing)


@dataclass(frozen=True)
class InstanceRow:
    """Bytes per instance whose cached method was called, and has no value yet, counted; for scale.

    Args:
        implementations: The halves of opero that take part.
    """

    implementations: tuple[Implementation, ...] = NAMES
    name: str = "bytes per instance with a cached method, before its first value"
    unit: str = "bytes"
    peers: tuple[Side, ...] = ()
    targets: tuple[Target, ...] = ()

    def against(self, *names: str) -> InstanceRow:
        """The same row with the compiled half, for a gate."""
        return replace(self, implementations=("compiled",))

    def slowed(self, calls: int) -> InstanceRow:
        """The same row; it has no gate."""
        return self

    def measure(self, effort: Effort) -> Measured:
        """Counts the bytes of each half once: they are the same each time."""
        halves = {name: half for name, half in OPERO.items() if half in self.implementations}
        return Measured({name: _each_instance(half) for name, half in halves.items()}, {})


def _each_instance(implementation: Implementation, count: int = 1_000) -> float:
    with using(implementation):
        method = opero(cache=True, retries=1)(_no_value)

    class Thing:
        get = method

    def call(thing: Thing) -> None:
        with contextlib.suppress(LookupError):
            thing.get(1)

    first = Thing()
    call(first)  # imports what it needs
    things = [Thing() for _ in range(count)]
    gc.collect()
    tracemalloc.start()
    try:
        for thing in things:
            call(thing)
        gc.collect()
        taken, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return taken / count


def _no_value(self: Any, key: int) -> Any:
    raise LookupError(key)


def _targets(lru: float, cachetools: float) -> tuple[Target, ...]:
    return (Target(peers.LRU, lru), Target("cachetools", cachetools))


_VISIBLE = (
    peers.lru_hit(),
    *(side for side in peers.caches() if side.name in ("cachetools", "pyresilience")),
)
"""The sides whose memory is counted: those that are not written in Rust."""

SIDES: Mapping[str, Decorate] = {
    **{name: _opero(half) for name, half in OPERO.items()},
    **{side.name: side.decorate for side in (peers.lru_hit(), *peers.caches())},
}
"""All sides, by name."""

# What is promised was measured when the rows were made, and not designed. Against `lru_cache`: the
# most of CPython up to 3.13, rounded up to the next hundredth, so that each gate is red when an
# entry gets one pointer more. Against cachetools: about a half, in round numbers.
GATED: tuple[EntryRow, ...] = (
    EntryRow(
        "bytes per entry, one int argument",
        calls.identity,
        with_one,
        numbers,
        _VISIBLE,
        _targets(1.24, 0.5),
    ),
    EntryRow(
        "bytes per entry, one str argument",
        calls.identity,
        with_one,
        words,
        _VISIBLE,
        _targets(1.27, 0.5),
    ),
    EntryRow(
        "bytes per entry, three arguments, one by keyword",
        calls.three,
        with_three,
        words,
        _VISIBLE,
        _targets(1.06, 0.55),
    ),
)

ROWS: tuple[EntryRow | ResidentRow | InstanceRow, ...] = (*GATED, ResidentRow(), InstanceRow())


if __name__ == "__main__":
    print(resident(sys.argv[1], int(sys.argv[2])))
