"""Rows of items that take no time, batches of them: what a map costs for each item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.implementations import NAMES, Implementation
from benchmarks.measure import Effort
from benchmarks.rows import OPERO, Function, Measured, Target, slower, slower_async

from . import sides, work
from .sides import Mapper, Peer
from .turns import Check, Figure, alike, in_turns, per_item


@dataclass(frozen=True)
class MapRow:
    """A row whose sides map the same function over the same items.

    Args:
        name: How the table calls it.
        function: What is mapped.
        items: Makes a number of items.
        count: How many.
        workers: How many each side has.
        options: Those of `opmap`.
        peers: The sides to compare with.
        targets: The promises.
        unit: What the figures count.
        figure: Makes it from a turn.
        check: Says whether results are right.
        known: Figures that are no side's but follow from the items, by name.
        implementations: The halves of opero that take part.
        seeded: Which regression `slowed` puts in: "calls" around the function, or "chunks" of a
            fixed size.
    """

    name: str
    function: Function
    items: Callable[[int], Sequence[Any]]
    count: int
    workers: int
    options: dict[str, Any]
    peers: tuple[Peer, ...] = ()
    targets: tuple[Target, ...] = ()
    unit: str = "ns/item"
    figure: Figure = per_item
    check: Check = alike
    known: Callable[[Sequence[Any], int], dict[str, float]] | None = None
    implementations: tuple[Implementation, ...] = NAMES
    seeded: str = "calls"
    extra: dict[str, Any] = field(default_factory=dict)

    def against(self, *names: str) -> MapRow:
        """The same row with the compiled half and only the named peers, for a gate."""
        peers = tuple(peer for peer in self.peers if peer.name in names)
        return replace(self, peers=peers, implementations=("compiled",))

    def slowed(self, calls: int) -> MapRow:
        """The same row with a regression in it, the larger the more calls."""
        if not calls:
            return self
        if self.seeded == "chunks":
            return replace(self, extra={"chunk_size": calls})
        return replace(self, extra={"calls": calls})

    def mapper(self, implementation: Implementation) -> Mapper:
        """The side of opero.

        Args:
            implementation: `compiled` or `plain`.
        """
        function = self.function
        options = {**self.options, **self.extra}
        wrap = slower_async if "async" in options["mode"] else slower
        for _ in range(options.pop("calls", 0)):
            function = wrap(function)
        mapped: Mapper = sides.opero_map(function, implementation, workers=self.workers, **options)
        return mapped

    def measure(self, effort: Effort) -> Measured:
        """Takes the figures of every side in turns."""
        items = self.items(min(self.count, effort.items or self.count))
        taking: dict[str, tuple[Mapper, Sequence[Any]]] = {}
        missing: dict[str, str] = {}
        with ExitStack() as stack:
            for name, implementation in OPERO.items():
                if implementation not in self.implementations:
                    continue
                try:
                    taking[name] = self.mapper(implementation), items
                except ImportError as error:
                    missing[name] = str(error)
            for peer in self.peers:
                try:
                    opened = stack.enter_context(peer.open(self.function, self.workers))
                except ImportError as error:
                    missing[peer.name] = str(error)
                    continue
                taking[peer.name] = opened, items[: peer.most]
            figures = in_turns(taking, effort, self.figure, self.check)
        if self.known is not None:
            figures.update(self.known(items, self.workers))
        return Measured(figures, missing)


PROCESS = MapRow(
    "process, 200,000 trivial items",
    work.same,
    work.numbers,
    200_000,
    sides.PROCESSES,
    {"mode": "process"},
    sides.OF_PROCESSES,
    (
        Target(sides.POOL.name, 1.0),
        Target.times_less(10, sides.MPIRE.name),
        Target.times_less(10, sides.JOBLIB.name),
    ),
)

THREAD = MapRow(
    "thread, 200,000 trivial items",
    work.same,
    work.numbers,
    200_000,
    sides.THREADS,
    {"mode": "thread"},
    sides.OF_THREADS,
    (Target.times_less(20, sides.THREAD_EXECUTOR.name),),
)


def coroutines(loop: str) -> MapRow:
    """The row of trivial coroutines, all sides in the same kind of event loop."""
    return MapRow(
        f"async, 100,000 trivial coroutines, 100 slots, {loop}",
        work.same_later,
        work.numbers,
        100_000,
        sides.SLOTS,
        {"mode": "async", "loop": loop},
        (sides.gather(loop), sides.pyarallel_coroutines(loop)),
        (Target.times_less(3, "gather"),),
    )


ROWS: tuple[MapRow, ...] = (PROCESS, THREAD, coroutines("uvloop"), coroutines("asyncio"))
