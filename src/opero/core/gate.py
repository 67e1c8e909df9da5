"""Gates, which every attempt passes before it is made: the interface of token buckets and breakers.

    enter(now) -> > 0    not now: nanoseconds until the attempt might enter
                  <= 0   entered; negated, it is the attempt's ticket
    leave(now, outcome, entered, ticket)   how the attempt ended, for a gate that observes

A call enters its gates in order before each attempt: the first one, retries and fallback values
alike. `core/call.py` asks each gate; if one says no, a runner waits in the gate's queue
(`limits/waiting.py`). A map's scheduler does the same for its items. A gate that `refuses` turns
callers away: they try another fallback value, or fail, instead of queueing.

A ticket is the gate's own number for an attempt. Times cannot identify attempts: a clock that tests
have stopped admits many at the same time.
"""

from __future__ import annotations

from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, Protocol

    class Standby(Protocol):
        """A place before a gate for a caller that does not wait but comes back to ask.

        Attributes:
            gate: The gate.
        """

        gate: Gate

        def enter(self, now: int) -> int:
            """Enter the gate if it admits the caller; return what `Gate.enter` does."""

        def withdraw(self) -> None:
            """Leave the place to others."""

        def pause(self, now: int, length: int) -> None:
            """Admit nothing for some nanoseconds, if the gate can be paused.

            Args:
                now: The time in nanoseconds.
                length: Nanoseconds.
            """

    class GateQueue(Protocol):
        """The callers that wait for one gate (see `opero.limits`).

        Attributes:
            gate: The gate, which a call asks before it waits.
            awaited: What callers wait for, as messages name it.
            by_value: Whether each fallback value of a function has its own gate. Then
                `of(value, number)` returns the queue before the one of value `number`.
        """

        gate: Gate
        awaited: str
        by_value: bool

        def steps(self, deadline: int, weight: int) -> Generator[Any, Any, Any]:
            """Wait, by effects, until the gate admits the caller, unless that would be too late.

            At a gate that refuses, wait until it might: then the caller asks it again. A caller
            admitted here has ticket 0.

            Args:
                deadline: The latest time, in nanoseconds of opero's clock.
                weight: How many permits to get at once.

            Returns:
                Nanoseconds waited, or -1 if that would be after `deadline`.
            """

        def pause_soon(self, length: int) -> None:
            """Admit nothing for some nanoseconds, if the gate can be paused; do not wait.

            Args:
                length: Nanoseconds.
            """

        def standby(self) -> Standby:
            """Return a place for a scheduler, whose gate all its workers share."""

        def standby_alone(self) -> Standby:
            """Return a place before a new gate with the same settings, for one worker alone."""

        def after_fork(self) -> None:
            """Forget, in a child process, the callers that wait in the parent."""


SUCCEEDED, FAILED, REJECTED, NEUTRAL, WITHDRAWN = range(5)
"""How an attempt ended, as a gate learns it.

    SUCCEEDED   it returned, and `retry_on_result` does not reject the value
    FAILED      it raised what `retry_on` matches, was rejected, took too long, or lost its worker
    REJECTED    it failed, and the server asks for less: by `retry_after`, or with status 429 or 503
    NEUTRAL     it raised something else, was cancelled, or the user's predicate raised
    WITHDRAWN   it was not made: it entered, and the call ended at a later gate
"""


PROBES: ContextVar[tuple[Any, ...]] = ContextVar("PROBES", default=())
"""The gates that have admitted the probes this context runs in, and the probes' tickets: while a
probe is under way, the calls it makes may pass its gate too. A task that it has started keeps the
context for longer."""


def probed(gates: tuple[Gate, ...], tickets: list[int]) -> tuple[Any, ...]:
    """Return the gates that have admitted an attempt as a probe, each with its ticket."""
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
        first: The index of the first one to enter.
        tickets: The tickets of the gates before it; the new ones are appended. None if no gate
            wants them back.

    Returns:
        How many gates have admitted the attempt: all, or the index of the one that has not.
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
    """Report to the gates that observe how an attempt has ended.

    Args:
        gates: The gates.
        now: The time in nanoseconds.
        outcome: How it ended.
        entered: When it entered, in nanoseconds.
        tickets: The tickets of the gates that have admitted it.
    """
    for at in range(len(tickets)):
        gate = gates[at]
        if gate.observes:
            gate.leave(now, outcome, entered, tickets[at])


class SharedGate:
    """The base of gates that several functions may share, such as a `RateLimiter`."""

    __slots__ = ()
    _option = "rate_limit"  # the option that takes it


class Gate:
    """Decides whether an attempt may begin now.

    Attributes:
        observes: Whether it wants to know how attempts end. If not, nobody calls `leave`.
        refuses: Whether an attempt that it does not admit is refused instead of queued.
    """

    __slots__ = ("observes", "refuses")

    def __init__(self, observes: bool = False, refuses: bool = False) -> None:
        self.observes: bool = observes
        self.refuses: bool = refuses

    def enter(self, now: int) -> int:  # noqa: ARG002
        """Admit an attempt, or return when to ask again.

        Args:
            now: The time in nanoseconds.

        Returns:
            Nanoseconds until the attempt might begin; 0 or less if it may begin now. Negated, that
            is its ticket.
        """
        return 0

    def opens_in(self, now: int) -> int:  # noqa: ARG002
        """Return nanoseconds until it might admit an attempt, if it refuses; do not enter.

        Args:
            now: The time in nanoseconds.
        """
        return 0

    def is_common(self, ticket: int) -> bool:
        """Return whether any number of attempts may share this ticket, without asking for it."""
        return ticket == 0

    def holds(self, now: int, ticket: int) -> bool:  # noqa: ARG002
        """Return whether an attempt admitted a while ago, which has waited since, may begin.

        Args:
            now: The time in nanoseconds.
            ticket: Its ticket.
        """
        return True

    def consults(self, now: int) -> bool:  # noqa: ARG002
        """Return whether an attempt that was not admitted should run the gate's queue first.

        A gate that `refuses` does not let callers queue. But if its state is elsewhere, one of them
        may have to ask there, by the `steps` of its queue, and then enter again.

        Args:
            now: The time in nanoseconds.
        """
        return False

    def is_within(self) -> bool:
        """Return whether this context runs inside a probe, so that its calls are part of it."""
        for gate, ticket in PROBES.get():  # noqa: SIM110 - a generator would be slower, and no C
            if gate is self and self.is_under_way(ticket):
                return True
        return False

    def is_under_way(self, ticket: int) -> bool:  # noqa: ARG002
        """Return whether a probe with this ticket has not reported yet."""
        return False

    def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:
        """Note how an attempt that entered has ended.

        Args:
            now: The time in nanoseconds.
            outcome: How it ended: `SUCCEEDED`, `FAILED`, `REJECTED`, `NEUTRAL` or `WITHDRAWN`.
            entered: When it entered, in nanoseconds.
            ticket: What `enter` returned, negated.
        """
