"""What every attempt passes before it is made: the interface of token buckets, and of what follows.

    enter(now) -> 0             come in
                  nanoseconds   come again after them, or wait in the gate's queue
    leave(now, outcome, entered)   how the attempt ended, for a gate that observes

A call enters its gates in order before each attempt: the first one, retries and fallback values
alike. It asks each gate where it stands, in `core/call.py`; a runner waits where one says no, in
the gate's queue (`limits/waiting.py`). A map's scheduler does the same for its items.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, Protocol

    class Standby(Protocol):
        """A place before a gate for somebody who does not wait but comes back to look.

        Attributes:
            gate: The gate.
        """

        gate: Gate

        def enter(self, now: int) -> int:
            """Pass the gate if it lets one in; return 0, else nanoseconds until it might."""

        def withdraw(self) -> None:
            """Let others in: nobody here waits for the gate any more."""

        def pause(self, now: int, length: int) -> None:
            """Let nobody in for some nanoseconds, if the gate can be paused.

            Args:
                now: The time in nanoseconds.
                length: Nanoseconds.
            """

    class GateQueue(Protocol):
        """Those who wait for one gate (see `opero.limits`).

        Attributes:
            gate: What a call asks before it waits.
            awaited: What one waits for, as a message names it.
        """

        gate: Gate
        awaited: str

        def steps(self, deadline: int, weight: int) -> Generator[Any, Any, Any]:
            """Wait, by effects, until the gate lets one in, unless that would be too late.

            Args:
                deadline: The latest time, in nanoseconds of opero's clock.
                weight: How many permits to get at once.

            Returns:
                Nanoseconds waited, or -1 if it would be after `deadline`.
            """

        def pause_soon(self, length: int) -> None:
            """Let nobody in for some nanoseconds, if the gate can be paused; this does not wait.

            Args:
                length: Nanoseconds.
            """

        def standby(self) -> Standby:
            """Return a place for a scheduler, whose gate all its workers share."""

        def standby_alone(self) -> Standby:
            """Return a place before a gate of the same settings, for one worker alone."""

        def after_fork(self) -> None:
            """Forget, in a child process, those who wait in the parent."""


WITHDRAWN = "withdrawn"
"""The outcome of an attempt that was not made: it came in, and the call ended at a later gate."""


class SharedGate:
    """What several functions have in common if they are given the same one, as a `RateLimiter`."""

    __slots__ = ()


class Gate:
    """Decides whether an attempt may begin now.

    Attributes:
        observes: Whether it wants to know how attempts end. If not, nobody calls `leave`.
    """

    __slots__ = ("observes",)

    def __init__(self, observes: bool = False) -> None:
        self.observes: bool = observes

    def enter(self, now: int) -> int:  # noqa: ARG002
        """Let an attempt in, or say when to ask again.

        Args:
            now: The time in nanoseconds.

        Returns:
            0 if the attempt may begin, else nanoseconds until it might.
        """
        return 0

    def leave(self, now: int, outcome: Any, entered: int) -> None:
        """Take note of how an attempt that came in has ended.

        Args:
            now: The time in nanoseconds.
            outcome: What the attempt raised; None if it returned, `WITHDRAWN` if it was not made.
            entered: When it came in, in nanoseconds.
        """
