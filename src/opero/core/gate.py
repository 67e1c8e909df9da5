"""What every attempt passes before it is made: the interface of token buckets, and of what follows.

    enter(now) -> > 0    not now: nanoseconds until it might come in
                  <= 0   come in; negated, it is the attempt's ticket
    leave(now, outcome, entered, ticket)   how the attempt ended, for a gate that observes

A call enters its gates in order before each attempt: the first one, retries and fallback values
alike. It asks each gate where it stands, in `core/call.py`; a runner waits where one says no, in
the gate's queue (`limits/waiting.py`). A map's scheduler does the same for its items. A gate that
`refuses` turns callers away: they try another fallback value, or do without, rather than queue.

A ticket is the gate's own number for an attempt. Times do not tell attempts apart: a clock that
tests hold still lets in many at the same one.
"""

from __future__ import annotations

from contextvars import ContextVar

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
            """Pass the gate if it lets one in; return what `Gate.enter` does."""

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
            by_value: Whether each fallback value of a function has a gate of its own. Then
                `of(value, number)` returns the queue before the one of value `number`.
        """

        gate: Gate
        awaited: str
        by_value: bool

        def steps(self, deadline: int, weight: int) -> Generator[Any, Any, Any]:
            """Wait, by effects, until the gate lets one in, unless that would be too late.

            At a gate that refuses, this is until it might let one in: then it is asked again.
            Where one is let in here, the ticket is 0.

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


SUCCEEDED, FAILED, REJECTED, NEUTRAL, WITHDRAWN = range(5)
"""How an attempt ended, as a gate learns it.

    SUCCEEDED   it returned, and `retry_on_result` does not reject what
    FAILED      it raised what `retry_on` matches, was rejected, took too long, or lost its worker
    REJECTED    it failed, and the server asks for less: by `retry_after`, or with status 429 or 503
    NEUTRAL     it raised something else, was cancelled, or a predicate of the user's raised
    WITHDRAWN   it was not made: it came in, and the call ended at a later gate
"""


PROBES: ContextVar[tuple[Any, ...]] = ContextVar("PROBES", default=())
"""The gates that have let an attempt in to try, by which this context runs, and the tickets of
those attempts: while one is under way, what it calls may pass its gate too. A task that it has
started keeps the context for longer."""


def probed(gates: tuple[Gate, ...], tickets: list[int]) -> tuple[Any, ...]:
    """Return those gates that have let an attempt in to try, each with the ticket that it gave."""
    return tuple(
        [
            (gate, ticket)
            for gate, ticket in zip(gates, tickets, strict=True)
            if gate.refuses and not gate.is_common(ticket)
        ]
    )


def enter_all(gates: tuple[Gate, ...], now: int, first: int, tickets: list[int] | None) -> int:
    """Enter gates, one after the other.

    Args:
        gates: The gates.
        now: The time in nanoseconds.
        first: The number of the first one to enter.
        tickets: The tickets of those before it, which those that follow go to; None if no gate
            wants them back.

    Returns:
        How many gates have let the attempt in; all of them, or the number of the one that has not.
    """
    for at in range(first, len(gates)):
        answer = gates[at].enter(now)
        if answer > 0:
            return at
        if tickets is not None:
            tickets.append(-answer)
    return len(gates)


def leave_all(
    gates: tuple[Gate, ...], now: int, outcome: int, entered: int, tickets: list[int]
) -> None:
    """Tell the gates that observe how an attempt has ended.

    Args:
        gates: The gates.
        now: The time in nanoseconds.
        outcome: How it ended.
        entered: When it came in, in nanoseconds.
        tickets: The tickets of those that have let it in.
    """
    for at in range(len(tickets)):
        gate = gates[at]
        if gate.observes:
            gate.leave(now, outcome, entered, tickets[at])


class SharedGate:
    """What several functions have in common if they are given the same one, as a `RateLimiter`."""

    __slots__ = ()
    _option = "rate_limit"  # the option that takes it


class Gate:
    """Decides whether an attempt may begin now.

    Attributes:
        observes: Whether it wants to know how attempts end. If not, nobody calls `leave`.
        refuses: Whether an attempt that it does not let in is refused, rather than queued.
    """

    __slots__ = ("observes", "refuses")

    def __init__(self, observes: bool = False, refuses: bool = False) -> None:
        self.observes: bool = observes
        self.refuses: bool = refuses

    def enter(self, now: int) -> int:  # noqa: ARG002
        """Let an attempt in, or say when to ask again.

        Args:
            now: The time in nanoseconds.

        Returns:
            Nanoseconds until the attempt might begin; 0 or less if it may begin now. Negated, that
            is its ticket.
        """
        return 0

    def opens_in(self, now: int) -> int:  # noqa: ARG002
        """Return nanoseconds until it might let an attempt in, if it refuses; do not enter.

        Args:
            now: The time in nanoseconds.
        """
        return 0

    def is_common(self, ticket: int) -> bool:
        """Return whether any number of attempts may have this ticket, and need not ask for it."""
        return ticket == 0

    def holds(self, now: int, ticket: int) -> bool:  # noqa: ARG002
        """Return whether an attempt that was let in a while ago, and has waited since, may begin.

        Args:
            now: The time in nanoseconds.
            ticket: Its ticket.
        """
        return True

    def consults(self, now: int) -> bool:  # noqa: ARG002
        """Return whether an attempt that was not let in should look into the gate's queue first.

        A gate that `refuses` does not want callers to queue. One whose state is elsewhere may want
        one of them to ask there, by the `steps` of its queue, and then to enter again.

        Args:
            now: The time in nanoseconds.
        """
        return False

    def is_within(self) -> bool:
        """Return whether this context runs inside a probe, and what it asks is part of that."""
        for gate, ticket in PROBES.get():  # noqa: SIM110 - a generator would be slower, and no C
            if gate is self and self.is_under_way(ticket):
                return True
        return False

    def is_under_way(self, ticket: int) -> bool:  # noqa: ARG002
        """Return whether a probe has not reported yet that has this ticket."""
        return False

    def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:
        """Take note of how an attempt that came in has ended.

        Args:
            now: The time in nanoseconds.
            outcome: How it ended: `SUCCEEDED`, `FAILED`, `REJECTED`, `NEUTRAL` or `WITHDRAWN`.
            entered: When it came in, in nanoseconds.
            ticket: What `enter` returned, negated.
        """
