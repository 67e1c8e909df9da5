"""Single flight for threads: one run per missing key, its outcome shared.

The first caller of a missing key leads: it puts an entry under way into the store (see `entry`), or
a `Flight` into the table of a stored cache, and runs. Callers that find it follow; the first to
follow an entry gives it a `Flight`. Each follower registers a locked mutex by `join`, checks once
more whether the flight is `done`, and waits for its mutex. Followers register before they check,
and the leader finishes before it wakes them, so the leader, which mostly has no followers, needs no
lock. Without the interpreter's lock a processor may reorder these steps; there the leader takes the
lock too.
"""

from __future__ import annotations

from opero import forks, gil
from opero.locks import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

joining: Lock = Lock()  # a finalizer may run in between and land another flight


def after_fork() -> None:
    """Make a new lock in a child process: another thread may have held the old one."""
    global joining  # noqa: PLW0603 - there is one for all flights
    joining = Lock()


forks.register("flights", after_in_child=after_fork)


class Flight:
    """One run that several threads wait for.

    Attributes:
        owner: The identifier of the thread, or greenlet, that runs.
        done: Whether the outcome is known.
        value: What the run returned.
        error: What the run raised; None if it returned.
        traceback: The error's traceback at that moment, before the followers raise it too.
        waiters: The locked mutexes of the followers; None if there are none.
    """

    __slots__ = ("done", "error", "owner", "traceback", "value", "waiters")

    def __init__(self, owner: int) -> None:
        self.owner: int = owner
        self.done: bool = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.traceback: Any = None
        self.waiters: dict[Any, bool] | None = None

    def join(self, bell: Any) -> None:
        """Register a locked mutex, which is released once the outcome is known."""
        with joining:
            if self.waiters is None:
                self.waiters = {}
            self.waiters[bell] = True

    def leave(self, bell: Any) -> None:
        """Unregister the mutex, if it is still registered."""
        with joining:
            if self.waiters is not None:
                self.waiters.pop(bell, None)

    def land(self, value: Any, error: BaseException | None) -> None:
        """Set the outcome and wake the followers."""
        if gil.FREE_THREADED:
            with joining:
                waiters = self._end(value, error)
        else:
            waiters = self._end(value, error)
        for bell in waiters:
            bell.release()

    def _end(self, value: Any, error: BaseException | None) -> dict[Any, bool]:
        """Set the outcome; return the mutexes of the followers."""
        self.value = value
        self.error = error
        self.traceback = None if error is None else error.__traceback__
        self.done = True
        if self.waiters is None:
            return {}
        with joining:
            waiters, self.waiters = self.waiters, None
        return waiters
