"""The words in which a policy tells a runner what to do: what to wait for, and attempts.

A policy decides and never waits. Two runners carry out what it says: `sync.py` in a thread,
`aio.py` in a task. So each policy is written once. There are two kinds.

The attempts of a call are an object, `core.retrying.Retrying`, since they are on a path that has
to be fast. Its `next` returns

    ATTEMPT    call the function
    SLEEP      sleep before the next attempt
    WAIT       wait in the queue of a gate
    RAISE      the call has failed

The waiters of a rate limit and a stored cache are generators. Each yields effects, and is sent what
came of them. An effect is a tuple that begins with its kind:

    RUN, call, what                      make the attempts of a call    its value, or `Raised`
    ASK, store, operation, arguments     have the store answer          its answer
    SLEEP, clock, nanoseconds            sleep, by that clock           nanoseconds slept
    BELL, is_settled                     make a bell                    the bell (see `Bell`)
    REST, clock, bell, until             wait for the bell, or until that time    None

What a store fails with is raised in the generator where it asked; a wait that is interrupted, or
cancelled, where it waited. That may yield further effects to tidy up, unless it is closed
(`GeneratorExit`). One that has failed returns `Raised`, and its driver raises: no frame of a policy
gets into a traceback.
"""

from __future__ import annotations

from collections.abc import Generator

from opero.core.retrying import ATTEMPT, RAISE, SLEEP, WAIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Bell(Protocol):
        """What a waiter is woken by, from any thread."""

        def ring(self) -> bool:
            """Wake the waiter; false if it is gone for good."""

        def is_through(self) -> bool:
            """Return whether the waiter, being settled, may go on: tasks go in order of bells."""


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
    """What came of something that has failed.

    Attributes:
        error: What it raised.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException = error
