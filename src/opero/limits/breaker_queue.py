"""Waiters for a circuit breaker, and events about its state."""

from __future__ import annotations

import weakref

from opero import forks
from opero.core.clock import NEVER
from opero.locks import Lock
from opero.runners.effects import BELL, REST

from .waiting import Crowd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from opero.core.clock import Clock
    from opero.event import Origin
    from opero.runners.effects import Steps

STATES = ("closed", "open", "half_open")
"""What users call the states of `core/breaker.py`, by their numbers."""


class BreakerQueue(Crowd):
    """Callers that wait until a breaker might let them through, and then ask it.

    They have no order: when the breaker closes, all may continue, and the first to ask is a probe.

    Attributes:
        gate: The breaker: a `CircuitBreaker`, or one that looks the same and is shared.
        name: What users call it.
        awaited: What one waits for, as a message names it.
    """

    glance = NEVER
    """How often waiters look again, in nanoseconds, whatever the breaker has said."""

    def __init__(
        self,
        gate: Any,
        name: str,
        clock: Clock,
        new_lock: Callable[[], Any],
        origin: Origin | None,
    ) -> None:
        """Begin with nobody waiting, and tell what happens to the breaker from now on.

        Args:
            gate: The breaker.
            name: What users call it.
            clock: Tells the time.
            new_lock: Makes a lock for the gate, or None, after a fork.
            origin: The function that the breaker belongs to alone; None if several may share it.
        """
        self.gate: Any = gate
        self.name: str = name
        self.awaited: str = f"the circuit breaker {name!r}"
        self._clock = clock
        self._new_lock = new_lock
        self._origin = origin
        self._lock = Lock()
        self._waiters: dict[int, Callable[[], bool]] = {}
        gate.watcher = self._changed
        _queues.add(self)

    def steps(self, deadline: int, weight: int = 1) -> Steps:  # noqa: ARG002
        """Wait until the breaker might let one in, unless that would be too late.

        Args:
            deadline: The latest time, in nanoseconds of opero's clock.
            weight: Nothing: an attempt is an attempt.

        Returns:
            Nanoseconds waited, or -1 if it would be after `deadline`.
        """
        clock = self._clock
        start = now = clock.now()
        bell: Any = None
        try:
            while (wait := self.gate.opens_in(now)) > 0:
                if now + wait > deadline:
                    return -1
                if bell is None:
                    bell = yield BELL, bool
                    with self._lock:
                        self._waiters[id(bell)] = bell.ring
                else:
                    yield REST, clock, bell, now + min(wait, self.glance)
                now = clock.now()
        finally:
            if bell is not None:
                with self._lock:
                    self._waiters.pop(id(bell), None)
        return max(0, now - start)

    def inquire(self) -> None:
        """Ask where the breaker's state is, soon, on behalf of somebody who does not wait."""

    def look(self) -> None:
        """See to it that the breaker knows how it stands; that may take a while."""

    def heed(self, ring: Callable[[], bool]) -> None:
        """Ring whenever one might ask again: a map's scheduler does not wait here, but comes back.

        Args:
            ring: Called in any thread, and not for long.
        """
        with self._lock:
            self._waiters[id(ring)] = ring

    def ignore(self, ring: Callable[[], bool]) -> None:
        """Ring no more."""
        with self._lock:
            self._waiters.pop(id(ring), None)

    def after_fork(self) -> None:
        """Forget the parent's waiters and its current probes."""
        self._lock = Lock()
        self._waiters.clear()
        self.gate.after_fork(self._new_lock())

    def _changed(self, state: int, reason: str | None) -> None:
        """Let the waiters ask again, and report what has happened."""
        with self._lock:
            bells = list(self._waiters.values())
        for ring in bells:
            ring()
        if reason is not None:
            from opero.events import tell

            told = {} if self._origin is None else {"origin": self._origin}
            tell("breaker", breaker=self.name, state=STATES[state], reason=reason, **told)


_queues: weakref.WeakSet[Any] = weakref.WeakSet()
"""The queues of all breakers: decorated functions hold only these."""


def _after_fork() -> None:
    for queue in list(_queues):
        queue.after_fork()


forks.register("breakers", after_in_child=_after_fork)
