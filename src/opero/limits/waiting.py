"""Waiting for a gate, whatever gate it is.

    PollingQueue    threads and tasks wait in it, each until the gate lets it in
    Crowd           what it has in common with others in which nobody has a place
    Standby         a scheduler's place before a gate: it does not wait, it comes back to look

A queue (`GateQueue` of `core/gate.py`) yields effects that say how to wait (`runners/effects.py`),
so threads and tasks wait alike. A gate whose waiters take turns has its own queue, like
`RateLimiter`; any other gets a `PollingQueue`.
"""

from __future__ import annotations

from opero.runners.effects import SLEEP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from opero.core.clock import Clock
    from opero.core.gate import Gate
    from opero.runners.effects import Steps


class Standby:
    """A place before a gate for somebody who does not wait but comes back to look.

    Attributes:
        gate: The gate.
    """

    def __init__(self, gate: Gate) -> None:
        self.gate: Gate = gate

    def enter(self, now: int) -> int:
        """Pass the gate if it lets one in; return what `Gate.enter` does."""
        return self.gate.enter(now)

    def withdraw(self) -> None:
        """Let others in: nobody here waits for the gate any more."""

    def pause(self, now: int, length: int) -> None:
        """Let nobody in for some nanoseconds, as a server has asked, if the gate can be paused.

        Args:
            now: The time in nanoseconds.
            length: Nanoseconds.
        """
        pause = getattr(self.gate, "pause_as_asked", None)
        if pause is not None:
            pause(now, length)


class Crowd:
    """What waits at a gate that keeps no order, and that nobody can pause or divide.

    Attributes:
        gate: The gate.
    """

    gate: Any
    by_value = False

    def pause_soon(self, length: int) -> None:
        """Nothing: how attempts end decides at such a gate."""

    def standby(self) -> Standby:
        """Return a place for a scheduler."""
        return Standby(self.gate)

    def standby_alone(self) -> Standby:
        """Return the same: such a gate is one for all workers of a map."""
        return Standby(self.gate)

    def after_fork(self) -> None:
        """Nothing: there is no queue."""


class PollingQueue(Crowd):
    """Waiters at a gate that keeps no order: each asks again when the gate has said.

    Attributes:
        gate: The gate.
        awaited: What one waits for, as a message names it.
    """

    def __init__(self, gate: Gate, awaited: str, clock: Clock) -> None:
        """Begin with nobody waiting.

        Args:
            gate: What to ask.
            awaited: What one waits for, as in "its rate-limit permit would not come in time".
            clock: Tells the time.
        """
        self.gate: Gate = gate
        self.awaited: str = awaited
        self.clock: Clock = clock

    def steps(self, deadline: int, weight: int = 1) -> Steps:  # noqa: ARG002
        """Wait until the gate lets one in (see `GateQueue`)."""
        start = now = self.clock.now()
        while (wait := self.gate.enter(now)) > 0:
            if now + wait > deadline:
                return -1
            yield SLEEP, self.clock, wait
            now = self.clock.now()
        return now - start
