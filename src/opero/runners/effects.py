"""Effects: the steps that a policy asks a runner to carry out, such as waits and attempts.

A policy decides and never waits. Two runners carry out its decisions: `sync.py` in a thread,
`aio.py` in a task. So each policy is written once. There are two kinds.

The attempts of a call are an object, `core.retrying.Retrying`, because that path must be fast. Its
`next` returns

    ATTEMPT    call the function
    SLEEP      sleep before the next attempt
    WAIT       wait in the queue of a gate
    RAISE      the call has failed

The waiters of a rate limit and a stored cache are generators. Each yields effects and is sent their
results. An effect is a tuple that begins with its kind:

    RUN, call, what                      make the attempts of a call    its value, or `Raised`
    ASK, store, operation, arguments     ask the store                  its answer
    SLEEP, clock, nanoseconds            sleep, by that clock           nanoseconds slept
    BELL, is_settled                     make a bell                    the bell (see `Bell`)
    REST, clock, bell, until             wait for the bell, or until that time    None

If the store fails, or a wait is interrupted or cancelled, the exception is raised in the generator
at its `yield`. The generator may then yield further effects to clean up, unless it is closed
(`GeneratorExit`). A generator that has failed returns `Raised`, and its driver raises the error, so
no frame of a policy gets into a traceback.
"""

from __future__ import annotations

from collections.abc import Generator

from opero.core.retrying import ATTEMPT, RAISE, SLEEP, WAIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Bell(Protocol):
        """Wakes a waiter, from any thread."""

        def ring(self) -> bool:
            """Wake the waiter; return False if it no longer exists."""

        def is_through(self) -> bool:
            """Return whether a settled waiter may continue: tasks do so in the order of bells."""


RUN, ASK, BELL, REST = range(4, 8)

__all__ = [
    "ASK",
    "ATTEMPT",
    "BELL",
    "RAISE",
    "REST",
    "RUN",
    "SLEEP",
    "WAIT",
    "Raised",
    "Steps",
]

Steps = Generator["tuple[Any, ...]", "Any", "Any"]
"""A policy: it yields effects, and returns a value or `Raised`."""


class Raised:
    """The result of an effect or a policy that has failed.

    Attributes:
        error: The exception.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException = error
