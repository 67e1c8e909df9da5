"""What a side is, what a row of them is, and the sides that are opero.

Every opener imports its library itself: one that is not installed, and a server that is not there,
make the side a missing one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.implementations import Implementation, using
from benchmarks.measure import Effort, Loop
from benchmarks.rows import OPERO, Function, Measured, Target, slower, slower_async
from opero import opero

from . import turns, values
from .place import SECRET, MissingError, Place

MICROSECOND = 1_000
"""In nanoseconds."""

Open = Callable[[Place, Function], AbstractContextManager[Function]]
"""Opens a side's store, and gives the function that is called in the loop."""


@dataclass(frozen=True)
class Side:
    """Who caches.

    Args:
        name: How the table calls it.
        open: Opens it for a row's function.
    """

    name: str
    open: Open


@contextmanager
def decorated(
    place: Place, function: Function, half: Implementation, backend: str
) -> Iterator[Function]:
    """Cache a function by opero.

    Args:
        place: Where.
        function: What is cached.
        half: `compiled` or `plain`.
        backend: `disk` or `redis`.
    """
    where: dict[str, Any]
    where = {"cache_dir": place.folder()} if backend == "disk" else {"cache_url": place.url()}
    with using(half):
        cached: Any = opero(
            cache=True,
            cache_ttl=values.TTL,
            cache_backend=backend,
            cache_namespace=f"bench-{half}",
            cache_secret=SECRET,
            **where,
        )(function)
    yield cached
    assert cached.stats().store_failures == 0, "the store failed"
    assert cached.stats().rejected == 0, "the store's entries were not taken"
    if inspect.iscoroutinefunction(function):
        place.run(cached.__opero__.stored_cache.store.async_operations.close())
    cached.__opero__.stored_cache.store.operations.close()


def of_opero(backend: str) -> tuple[Side, ...]:
    """The sides of opero's two halves."""

    def side(name: str, half: Implementation) -> Side:
        return Side(name, lambda place, function: decorated(place, function, half, backend))

    return tuple(side(name, half) for name, half in OPERO.items())


@dataclass(frozen=True)
class StoreRow:
    """A row whose sides cache the same function, and are called in a loop.

    Args:
        name: How the table calls it.
        function: What is cached.
        backend: Where opero keeps it.
        peers: The sides to compare with.
        new: Whether each call is one that has never been made, so that it is a miss that stores.
        rounds: The largest number of rounds.
        unit: What the figures count.
        targets: The promises.
        calls: How many Python calls stand around opero's own, which is a regression to be seen.
        halves: The sides of opero that take part.
    """

    name: str
    function: Function
    backend: str
    peers: tuple[Side, ...] = ()
    new: bool = False
    rounds: int = 150
    unit: str = "µs"
    targets: tuple[Target, ...] = ()
    calls: int = 0
    halves: tuple[str, ...] = tuple(OPERO)

    def against(self, *names: str) -> StoreRow:
        """The same row with the compiled half and only the named peers."""
        peers = tuple(peer for peer in self.peers if peer.name in names)
        return replace(self, peers=peers, halves=tuple(OPERO)[:1])

    def slowed(self, calls: int) -> StoreRow:
        """The same row with Python calls around opero's own."""
        return replace(self, calls=calls)

    def measure(self, effort: Effort) -> Measured:
        """Takes the figures of every side in turns."""
        own = [side for side in of_opero(self.backend) if side.name in self.halves]
        loops: dict[str, Loop] = {}
        missing: dict[str, str] = {}
        with Place() as place, ExitStack() as stack:
            for side in (*own, *self.peers):
                try:
                    call = stack.enter_context(side.open(place, self.function))
                except (ImportError, MissingError) as error:
                    missing[side.name] = str(error)
                    continue
                if side.name in OPERO:
                    call = self._slow(call)
                loops[side.name] = self._loop(place, call)
            for loop in loops.values():
                loop(3)  # the first call stores
            runs, calls = values.runs[0], [0]
            effort = replace(effort, rounds=min(effort.rounds, self.rounds))
            counted = {name: _counting(loop, calls) for name, loop in loops.items()}
            figures = turns.in_turns(counted, effort)
            runs = values.runs[0] - runs
        if self.new:
            assert runs == calls[0], "some calls were no misses"
        else:
            assert not runs, "some calls were no hits"
        return Measured({name: ns / MICROSECOND for name, ns in figures.items()}, missing)

    def _slow(self, call: Function) -> Function:
        for _ in range(self.calls):
            call = (slower_async if inspect.iscoroutinefunction(self.function) else slower)(call)
        return call

    def _loop(self, place: Place, call: Function) -> Loop:
        if inspect.iscoroutinefunction(self.function):
            return turns.each_awaited(call, self.new, place.run)
        return turns.each(call, self.new)


def _counting(loop: Loop, calls: list[int]) -> Loop:
    """The same loop, which counts its calls."""

    def counting(count: int) -> int:
        calls[0] += count
        return loop(count)

    return counting
