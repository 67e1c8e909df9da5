"""Rows of memory: how much a process grows at its peak while it streams, results not kept.

Every figure is a fresh interpreter's, taken once: what it had at most, minus what it had before the
stream began, its libraries imported. The memory of the workers is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.implementations import NAMES, Implementation
from benchmarks.measure import Effort
from benchmarks.rows import COMPILED, OPERO, Measured, Target, unavailable

from . import alone, sides
from .sides import Stream

MOST = 64.0
"""Mebibytes that a stream may take."""


@dataclass(frozen=True)
class MemoryRow:
    """The growth of a process that streams, in mebibytes.

    Args:
        name: How the table calls it.
        mode: opero's mode.
        count: How many items.
        peers: The sides to compare with.
        targets: The promises.
        implementations: The halves of opero that take part.
        seed: How many of the latest results are kept, which is the seeded regression.
    """

    name: str
    mode: str
    count: int
    peers: tuple[Stream, ...] = ()
    targets: tuple[Target, ...] = (Target("", MOST),)
    implementations: tuple[Implementation, ...] = NAMES
    seed: int = 0
    unit: str = "MiB"

    def against(self, *names: str) -> MemoryRow:
        """The same row with the compiled half and only the named peers, for a gate."""
        peers = tuple(peer for peer in self.peers if peer.name in names)
        return replace(self, peers=peers, implementations=("compiled",))

    def slowed(self, calls: int) -> MemoryRow:
        """The same row with a regression in it: 100,000 results more are kept for each call."""
        return replace(self, seed=100_000 * calls)

    def measure(self, effort: Effort) -> Measured:
        """Takes the figure of every side, one after the other."""
        count = min(self.count, effort.items or self.count)
        lost = {f"opero {half}": reason for half, reason in unavailable().items()}
        missing = {name: why for name, why in lost.items() if OPERO[name] in self.implementations}
        names = {
            name: f"opero {self.mode} {half}"
            for name, half in OPERO.items()
            if half in self.implementations and name not in missing
        }
        names.update((peer.name, peer.name) for peer in self.peers)
        figures: dict[str, float] = {}
        for name, side in names.items():
            seed = self.seed if name == COMPILED else 0
            workers = sides.workers_of(self.mode)
            try:
                figures[name] = alone.run(side, workers, count, seed)["mebibytes"]
            except alone.MissingError as error:
                missing[name] = str(error)
        return Measured(figures, missing)


def _streams(mode: str) -> MemoryRow:
    return MemoryRow(f"{mode}, stream of 10,000,000 items", mode, 10_000_000)


def _for_scale(mode: str, peers: tuple[Stream, ...]) -> MemoryRow:
    return MemoryRow(f"{mode}, stream of 200,000 items", mode, 200_000, peers, ())


THREAD = _streams("thread")
PROCESS = _streams("process")
ASYNC = _streams("async")

ROWS: tuple[MemoryRow, ...] = (THREAD, PROCESS, ASYNC)

FOR_SCALE: tuple[MemoryRow, ...] = (
    _for_scale("process", sides.STREAMS_OF_PROCESSES),
    _for_scale("thread", (sides.THREAD_EXECUTOR_STREAM,)),
    _for_scale("async", sides.STREAMS_OF_COROUTINES),
)
"""The peers, on as many items as each of them has memory for."""
