"""The attempts of one call, with a record of each, for listeners of `call_end`.

While `call_end` has a listener, this replaces `Retrying` for each call that may be retried or may
have to wait, from its first attempt (see `State.trace`). A call that needs one attempt and no wait
is not reported.
"""

from __future__ import annotations

import sys

from .retrying import Retrying

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class TracedRetrying(Retrying):
    """One call between its attempts, and its history so far.

    Attributes:
        began: When the call began, in nanoseconds.
        history: The content of an `AttemptRecord` for each attempt.
        started: When the current attempt began.
        paused: When the current wait at a gate began.
        kept: Nanoseconds that the next attempt has waited at gates.
        delayed: Nanoseconds that the next attempt has slept.
        running: Whether an attempt is under way.
        eventful: Whether the call has been retried or has waited.
        told: Whether its end has been reported.
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
        """Begin with the first attempt, or after it; the arguments are those of `Retrying`."""
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
        if error is not None:  # the call began before there was a listener
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
        if self.attempts is not None:  # an attempt failed, or was refused
            self.eventful = True
        if todo == 0:
            self.started = self.call.clock.now()
            self.running = True
        elif todo == 2:
            self.paused = self.call.clock.now()
        return todo

    def returned(self, value: Any) -> bool:
        """Record what the attempt returned; return whether that is the call's result."""
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
        """Record what the attempt raised."""
        Retrying.failed(self, error)
        self.note(error)

    def slept(self, nanoseconds: int) -> None:
        """Record how long the runner slept."""
        Retrying.slept(self, nanoseconds)
        self.delayed += nanoseconds

    def waited(self, nanoseconds: int) -> None:
        """Record how long the runner waited at a gate; below 0 if in vain."""
        Retrying.waited(self, nanoseconds)
        self.kept += self.call.clock.now() - self.paused
        self.eventful = True

    def abandoned(self) -> None:
        """Tell the gates that the call ends here: it was interrupted, cancelled or closed."""
        Retrying.abandoned(self)
        error = sys.exc_info()[1] if self.error is None else self.error
        if self.running:
            self.note(error)
        self.end(error)

    def note(self, error: BaseException | None) -> None:
        """Record the attempt that has ended; it raised `error`, or None."""
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
        """Report that the call has ended; it raised `error`, or None."""
        if self.eventful and not self.told:
            self.told = True
            seconds = (self.call.clock.now() - self.began) / 1e9
            self.call.events.call_end(self.call, self.attempts, self.history, seconds, error)
