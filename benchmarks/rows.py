"""What a row of the table is: a shape of call, the sides that are timed on it, and the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from .implementations import NAMES, Implementation, using
from .measure import EMPTY, Effort, Loop, Shape, interleaved

Function = Callable[..., Any]
Decorate = Callable[[Function], Function]

BARE = "bare call"
COMPILED = "opero compiled"
PLAIN = "opero plain"
OPERO: Mapping[str, Implementation] = {COMPILED: "compiled", PLAIN: "plain"}


@dataclass(frozen=True)
class Side:
    """Something that a row compares opero with.

    Args:
        name: How the table calls it.
        decorate: Turns the row's function into what is called in the loop; imports what it needs,
        and an
            `ImportError` makes the table say that the side is missing.
        calls_through: Whether every call reaches the function, so that a row of added costs takes
        the
            bare call off. False for a cache hit.
        shape: Makes the side's own shape of call, where it differs from the row's.
    """

    name: str
    decorate: Decorate
    calls_through: bool = True
    shape: Callable[[], Shape] | None = None


@dataclass(frozen=True)
class Target:
    """A promise about opero's figure.

    Args:
        against: The side that it is divided by; "" for none, then the figure itself is judged.
        most: The largest ratio (or figure) that keeps the promise.
    """

    against: str
    most: float

    @classmethod
    def times_less(cls, times: float, against: str) -> Target:
        """The promise to cost `times` times less than `against`."""
        return cls(against, 1.0 / times)


@dataclass(frozen=True)
class Measured:
    """The figures of one row.

    Args:
        figures: By side, in the row's unit.
        missing: The sides that could not be measured, and why.
    """

    figures: Mapping[str, float]
    missing: Mapping[str, str] = field(default_factory=dict)

    def value(self, target: Target, side: str = COMPILED) -> float | None:
        """The figure of opero in the terms of a target.

        Args:
            target: The promise.
            side: Which of opero's two implementations.

        Returns:
            The ratio, or None when either side is missing.
        """
        own = self.figures.get(side)
        if own is None or not target.against:
            return own
        other = self.figures.get(target.against)
        return None if other is None else own / other

    def met(self, target: Target) -> bool | None:
        """Whether the compiled figure keeps a promise; None when it cannot be judged."""
        value = self.value(target)
        return None if value is None else value <= target.most


class Row(Protocol):
    """One line of DESIGN's table of promises, with what is measured for it."""

    @property
    def name(self) -> str:
        """How the table calls it."""

    @property
    def unit(self) -> str:
        """What the figures count: `ns`, `ms`, `modules`, `MiB` ..."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """What is promised; empty for a row that is shown for scale only."""

    def measure(self, effort: Effort) -> Measured:
        """Takes the figures of every side in one run."""

    def against(self, *names: str) -> Row:
        """The same row with the compiled half and only the named peers, for a gate."""

    def slowed(self, calls: int) -> Row:
        """The same row with a regression in it, the larger the more calls."""


@dataclass(frozen=True)
class CallRow:
    """A row whose sides are decorated functions, called in a loop.

    Args:
        name: How the table calls it.
        shape: How the sides are called.
        function: Makes the undecorated function, a new one for each side.
        opero: The decorator under test; it runs once per implementation.
        peers: The sides to compare with.
        targets: The promises.
        added: Whether figures are what a side adds to the bare call (its loop minus the loop over
        the
            undecorated function) instead of the whole call.
        with_bare: Whether the undecorated function is a side too (always with `added`).
        check: Looks at the decorated function after the run and raises `AssertionError` if the loop
        did
            not measure what the row says.
        implementations: The halves of opero that take part.
        yardstick: The side that its instructions are divided by; "" for that of the first target.
        during: Makes a context in which the loops run, such as one that listens to events.
    """

    name: str
    shape: Shape
    function: Callable[[], Function]
    opero: Decorate
    peers: tuple[Side, ...] = ()
    targets: tuple[Target, ...] = ()
    added: bool = False
    with_bare: bool = True
    check: Callable[[Any], None] | None = None
    implementations: tuple[Implementation, ...] = NAMES
    unit: str = "ns"
    yardstick: str = ""
    during: Callable[[], AbstractContextManager[object]] = nullcontext

    def decorated(self, implementation: Implementation) -> Function:
        """The row's function under `@opero`.

        Args:
            implementation: `compiled` or `plain`.

        Returns:
            A new decorated function.
        """
        with using(implementation):
            return self.opero(self.function())

    def sides(self) -> tuple[dict[str, Function], dict[str, str]]:
        """Everything that is called in this row.

        Returns:
            The callables by side, and the reasons by side that is missing.
        """
        callables: dict[str, Function] = {}
        missing: dict[str, str] = {}
        if self.with_bare or self.added:
            callables[BARE] = self.function()
        for name, implementation in OPERO.items():
            if implementation not in self.implementations:
                continue
            try:
                callables[name] = self.decorated(implementation)
            except ImportError as error:
                missing[name] = str(error)
        for peer in self.peers:
            try:
                callables[peer.name] = peer.decorate(self.function())
            except ImportError as error:
                missing[peer.name] = str(error)
        return callables, missing

    def against(self, *names: str) -> CallRow:
        """The same row with the compiled half and only the named peers, for a gate.

        Args:
            names: The peers to keep.

        Returns:
            The smaller row.
        """
        peers = tuple(peer for peer in self.peers if peer.name in names)
        return replace(self, peers=peers, implementations=("compiled",))

    def slowed(self, calls: int) -> CallRow:
        """The same row with a regression in it: more Python calls around opero's own.

        Args:
            calls: How many.

        Returns:
            The slower row.
        """
        if not calls:
            return self
        wrap = slower_async if self.shape.is_async else slower

        def slow(function: Function) -> Function:
            decorated = self.opero(function)
            for _ in range(calls):
                decorated = wrap(decorated)
            return decorated

        return replace(self, opero=slow, check=None)

    def loops(self, callables: Mapping[str, Function]) -> dict[str, Loop]:
        """One loop per side, and the empty one.

        Args:
            callables: The sides to call.

        Returns:
            The loops by side.
        """
        shapes = {
            peer.name: peer.shape() for peer in self.peers if peer.shape and peer.name in callables
        }
        loops = {EMPTY: self.shape.loop(None)}
        loops.update(
            (name, shapes.get(name, self.shape).loop(call)) for name, call in callables.items()
        )
        return loops

    def subtract(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Takes the bare call off the sides that contain it, if the row is about added costs.

        Args:
            figures: The costs of whole calls, by side.

        Returns:
            The row's figures.
        """
        if not self.added:
            return dict(figures)
        hits = {peer.name for peer in self.peers if not peer.calls_through}
        bare = figures[BARE]
        return {
            name: figure if name == BARE or name in hits else figure - bare
            for name, figure in figures.items()
        }

    def whole(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Puts the bare call back on, where `subtract` took it off.

        Args:
            figures: The row's figures, by side.

        Returns:
            The costs of whole calls.
        """
        if not self.added:
            return dict(figures)
        hits = {peer.name for peer in self.peers if not peer.calls_through}
        bare = figures[BARE]
        return {
            name: figure if name == BARE or name in hits else figure + bare
            for name, figure in figures.items()
        }

    def measure(self, effort: Effort) -> Measured:
        """Takes the figures of every side in turns."""
        callables, missing = self.sides()
        with self.during():
            figures = interleaved(self.loops(callables), effort)
        if self.check is not None:
            for name in OPERO.keys() & callables.keys():
                self.check(callables[name])
        return Measured(self.subtract(figures), missing)


def slower(function: Function) -> Function:
    """Put a Python function around another: the seeded regression."""

    def slower(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return slower


def slower_async(function: Function) -> Function:
    """Put a coroutine function around another: the seeded regression."""

    async def slower(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return slower


def unavailable() -> dict[str, str]:
    """The implementations that cannot be loaded here, and why."""
    reasons: dict[str, str] = {}
    for name in NAMES:
        try:
            with using(name):
                pass
        except ImportError as error:
            reasons[name] = str(error)
    return reasons
