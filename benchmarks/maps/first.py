"""Rows of the first result and of the first map: how long after the call they are there.

The input is an iterator over 20,000 trivial items; the clock stops at the first result, and the
rest is drained before the next turn. Warm: the workers are there and have mapped before. Cold: each
turn has a fresh interpreter, which has imported opero or the peer, and whose map finds no worker.
The first map of a fresh process is 1,000 such items, and its clock stops at the last result.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from benchmarks.implementations import NAMES, Implementation
from benchmarks.measure import Effort, quiet
from benchmarks.rows import OPERO, Measured, Target, unavailable

from . import alone, sides, work
from .sides import Stream

_COLD_TURNS = 3


@dataclass(frozen=True)
class FirstRow:
    """The first or last result of a stream, in milliseconds.

    Args:
        name: How the table calls it.
        mode: opero's mode.
        peers: The sides to compare with.
        cold: Whether every turn has an interpreter of its own.
        count: How many items.
        stop: Where the clock stops, at the "first" or the "last" result.
        implementations: The halves of opero that take part.
    """

    name: str
    mode: str
    peers: tuple[Stream, ...]
    cold: bool = False
    count: int = 20_000
    stop: str = "first"
    implementations: tuple[Implementation, ...] = NAMES
    targets: tuple[Target, ...] = ()
    unit: str = "ms"

    def against(self, *names: str) -> FirstRow:
        """The same row with the compiled half and only the named peers, for a gate."""
        peers = tuple(peer for peer in self.peers if peer.name in names)
        return replace(self, peers=peers, implementations=("compiled",))

    def slowed(self, calls: int) -> FirstRow:
        """The same row, of 20,000 items more for each call."""
        return replace(self, count=self.count + 20_000 * calls)

    def measure(self, effort: Effort) -> Measured:
        """Takes the figures of every side in turns."""
        count = min(self.count, effort.items or self.count)
        lost = {f"opero {half}": reason for half, reason in unavailable().items()}
        missing = {name: why for name, why in lost.items() if OPERO[name] in self.implementations}
        streams = {
            name: sides.opero_stream(self.mode, half)
            for name, half in OPERO.items()
            if half in self.implementations and name not in missing
        }
        streams.update((peer.name, peer) for peer in self.peers)
        best: dict[str, float] = {}
        with ExitStack() as stack:
            turns: dict[str, Callable[[], float]] = {}
            for name, side in streams.items():
                try:
                    turns[name] = self._turn(stack, side, count)
                except ImportError as error:
                    missing[name] = str(error)
            for _ in range(min(effort.turns, _COLD_TURNS) if self.cold else effort.turns):
                for name in turns.keys() - missing.keys():
                    try:
                        best[name] = min(best.get(name, float("inf")), turns[name]())
                    except alone.MissingError as error:
                        missing[name] = str(error)
        return Measured({name: best[name] for name in streams if name in best}, missing)

    def _turn(self, stack: ExitStack, side: Stream, count: int) -> Callable[[], float]:
        """Open a side, if it is to be warm; return what takes one turn of it."""
        workers = sides.workers_of(self.mode)

        def cold() -> float:
            return alone.run(side.name, workers, count)[self.stop]

        if self.cold:
            return cold
        function = work.same_later if side.coroutines else work.same
        streamer = stack.enter_context(side.open(function, workers))

        def warm() -> float:
            with quiet():
                return alone.stream(streamer, count)[self.stop]

        warm()
        return warm


FIRST_MAP = FirstRow(
    "process, first map of a fresh process",
    "process",
    (sides.PROCESS_EXECUTOR_STREAM,),
    cold=True,
    count=1_000,
    stop="last",
    targets=(Target(sides.PROCESS_EXECUTOR_STREAM.name, 1.2),),
)

ROWS: tuple[FirstRow, ...] = (
    FirstRow("process, first result, warm", "process", sides.STREAMS_OF_PROCESSES),
    FirstRow("process, first result, cold", "process", sides.STREAMS_OF_PROCESSES, cold=True),
    FirstRow("thread, first result", "thread", (sides.THREAD_EXECUTOR_STREAM,)),
    FirstRow("async, first result", "async", sides.STREAMS_OF_COROUTINES),
)
