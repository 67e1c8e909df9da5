"""The attempts of one call, with a note of each: for those who want to know a call's history.

While somebody listens to `call_end`, each call that may be retried or may have to wait is run by
this in the place of `Retrying`, its first attempt too (see `State.trace`). Calls that get by with
one attempt at once are told of to nobody.
"""

from __future__ import annotations

import sys

from .retrying import Retrying

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class TracedRetrying(Retrying):
    """One call between its attempts, and what has become of it so far.

    Attributes:
        began: When the call began, in nanoseconds.
        history: What an `AttemptRecord` is made of, for each attempt.
        started: When the attempt that is under way began.
        paused: When the wait at a gate that is under way began.
        kept: Nanoseconds that the next attempt has waited at gates.
        delayed: Nanoseconds that it has slept.
        running: Whether an attempt is under way.
        eventful: Whether the call has been retried or has had to wait.
        told: Whether its end has been told.
    """

    __slots__ = (
        "began",
        "delayed",
        "eventful",
        "history",
        "kept",
        "paused",
        "running",
        "started",
        "told",
    )

    def __init__(
        self,
        call: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline: int,
        flight: Any,
        error: BaseException | None,
        passed: int,
        entered: int,
        tickets: list[int] | None,
        spare: bool,
    ) -> None:
        """Begin with the first attempt, or behind it; the arguments are those of `Retrying`."""
        self.began: int = call.clock.now()
        self.started: int = self.began
        self.paused: int = 0
        self.kept: int = 0
        self.delayed: int = 0
        self.eventful: bool = False
        self.running: bool = False
        self.told: bool = False
        self.history: list[Any] = []
        Retrying.__init__(
            self, call, args, kwargs, deadline, flight, error, passed, entered, tickets, spare
        )
        if error is not None:  # the call began before anybody wanted to know
            self.note(error)

    def next(self) -> int:
        """Return what to do next."""
        try:
            todo = Retrying.next(self)
        except BaseException as error:  # the user's predicates may raise anything
            self.end(error)
            raise
        if todo == 3:
            self.end(self.error)
            return todo
        if self.attempts is not None:  # one has failed, or was refused
            self.eventful = True
        if todo == 0:
            self.started = self.call.clock.now()
            self.running = True
        elif todo == 2:
            self.paused = self.call.clock.now()
        return todo

    def returned(self, value: Any) -> bool:
        """Take note of what the attempt has returned; return whether that is the call's result."""
        try:
            accepted = Retrying.returned(self, value)
        except BaseException as error:
            self.note(error)
            self.end(error)
            raise
        self.note(self.error)
        if accepted:
            self.end(None)
        return accepted

    def failed(self, error: BaseException) -> None:
        """Take note of what the attempt has raised."""
        Retrying.failed(self, error)
        self.note(error)

    def slept(self, nanoseconds: int) -> None:
        """Take note of how long the runner has slept."""
        Retrying.slept(self, nanoseconds)
        self.delayed += nanoseconds

    def waited(self, nanoseconds: int) -> None:
        """Take note of how long the runner has waited at a gate; below 0 if in vain."""
        Retrying.waited(self, nanoseconds)
        self.kept += self.call.clock.now() - self.paused
        self.eventful = True

    def abandoned(self) -> None:
        """Let the gates know that the call ends here: it is interrupted, cancelled or closed."""
        Retrying.abandoned(self)
        error = sys.exc_info()[1] if self.error is None else self.error
        if self.running:
            self.note(error)
        self.end(error)

    def note(self, error: BaseException | None) -> None:
        """Note the attempt that is over, which has raised `error`."""
        self.history.append(
            (
                len(self.history) + 1,
                (self.started - self.began) / 1e9,
                (self.call.clock.now() - self.started) / 1e9,
                self.kept / 1e9,
                self.delayed / 1e9,
                error,
            )
        )
        self.kept = 0
        self.delayed = 0
        self.running = False

    def end(self, error: BaseException | None) -> None:
        """Tell that the call is over; it has raised `error`."""
        if self.eventful and not self.told:
            self.told = True
            seconds = (self.call.clock.now() - self.began) / 1e9
            self.call.events.call_end(self.call, self.attempts, self.history, seconds, error)
