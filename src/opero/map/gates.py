"""The gates of a map: what an item passes before it gets a worker slot.

There are two kinds. A breaker may refuse, and is shared by the whole map, or exists for each
fallback value: the scheduler asks it first, and holds the item if it is refused (`refused.py`). A
rate limit has a queue: the slot that will run the item passes it.
"""

from __future__ import annotations

from typing import NamedTuple

from opero.core.breaker import CLOSED
from opero.core.gate import WITHDRAWN, Gate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from opero.core.clock import Clock
    from opero.core.gate import GateQueue, Standby


class Admission(NamedTuple):
    """What to report to the gates that want to know how an attempt ends.

    Attributes:
        entered: When it came in, in nanoseconds.
        gates: The gates.
        tickets: The tickets that they returned.
        many: Whether any number of attempts may start with it: no gate counts them or probes.
    """

    entered: int
    gates: tuple[Gate, ...]
    tickets: tuple[int, ...]
    many: bool


class MapGates:
    """The gates of one map, in the order in which an item passes them.

    Attributes:
        alike: Whether what one slot does not get, no other gets.
        observed: Whether a gate wants to know how attempts end.
        counted: Whether a gate with a queue lets items in, each for itself.
        breaker: Where those wait whom a gate refuses, before they ask it again; None without.
        bell: Wakes the driver of the map; any thread may call it.
        changed: Whether a breaker that has refused an item may let it in now.
    """

    def __init__(self, queues: Sequence[GateQueue], workers: int, clock: Clock) -> None:
        """Stand before the gates.

        Args:
            queues: Where the function's callers wait.
            workers: How many worker slots have their own gates; 0 if all share them.
            clock: Tells the time.
        """
        self._clock = clock
        breakers = [queue for queue in queues if queue.gate.refuses]
        self.breaker: Any = breakers[0] if breakers else None
        queued = [queue for queue in queues if queue is not self.breaker]
        self._rows: list[list[Standby]] = [
            [queue.standby_alone() for _ in range(workers)] if workers else [queue.standby()]
            for queue in queued
        ]
        self._passed: dict[int, list[int]] = {}
        self._heeded: dict[int, Any] = {}
        self._ring = self._changed
        self.bell: Callable[[], object] = _nothing
        self.changed: bool = False
        self.alike: bool = workers < 2 or not queued
        self._alone = workers > 0
        self.observed: bool = any(queue.gate.observes for queue in queues)
        self.counted: bool = bool(queued)

    def is_probing(self, now: int) -> bool:
        """Return whether what the breaker lets in next is a probe, where all items have one."""
        return self.breaker is not None and self.breaker.gate.state_at(now) != CLOSED

    def heed(self, queue: Any) -> None:
        """Wake the driver when the breaker of a queue may let in what it has refused."""
        if id(queue) not in self._heeded and hasattr(queue, "heed"):
            self._heeded[id(queue)] = queue
            queue.heed(self._ring)

    def ignore(self) -> None:
        """Leave nothing with the breakers."""
        while self._heeded:
            self._heeded.popitem()[1].ignore(self._ring)

    def _changed(self) -> bool:
        self.changed = True
        self.bell()
        return True

    def enter(self, slot: int, now: int) -> tuple[int, list[int]]:
        """Pass all gates with a queue for a slot.

        A slot that some gates have let in continues at the next gate when it asks again.

        Returns:
            Nanoseconds until the next one might let it in, 0 if all have; and the tickets of those
            that have.
        """
        tickets = self._passed.pop(slot, [])
        for at in range(len(tickets), len(self._rows)):
            answer = self._place(at, slot).enter(now)
            if answer > 0:
                if tickets:
                    self._passed[slot] = tickets
                return answer, tickets
            tickets.append(-answer)
        return 0, tickets

    def keep(self, slot: int, tickets: list[int]) -> None:
        """Record that a slot has passed all gates with a queue, so that it need not next time."""
        if tickets:
            self._passed[slot] = tickets

    def admission(
        self, slot: int, now: int, tickets: list[int], gate: Gate | None, ticket: int
    ) -> Admission:
        """Return what the gates get back that observe.

        Args:
            slot: Which slot has passed those with a queue.
            now: The time in nanoseconds.
            tickets: Their tickets.
            gate: The one that might have refused; None without.
            ticket: Its ticket.
        """
        passed: list[tuple[Gate, int]] = [] if gate is None else [(gate, ticket)]
        passed += [(self._place(at, slot).gate, each) for at, each in enumerate(tickets)]
        observing = [each for each in passed if each[0].observes]
        gates, kept = tuple([gate for gate, _ in observing]), tuple([each for _, each in observing])
        many = not self._rows and (gate is None or gate.is_common(ticket))
        return Admission(now, gates, kept, many)

    def leave(self, admission: Admission, outcome: int, times: int = 1) -> None:
        """Tell the gates that observe how `times` attempts ended."""
        now = self._clock.now()
        for gate, ticket in zip(admission.gates, admission.tickets, strict=True):
            for _ in range(times):
                gate.leave(now, outcome, admission.entered, ticket)

    def pause(self, length: int) -> None:
        """Let no item in for some nanoseconds, at gates that belong to this map's slots alone."""
        if self._alone:
            now = self._clock.now()
            for row in self._rows:
                for place in row:
                    place.pause(now, length)

    def withdraw(self) -> None:
        """Let others in: no item waits for a gate any more."""
        now = self._clock.now()
        for slot, tickets in self._passed.items():
            self.leave(self.admission(slot, now, tickets, None, 0), WITHDRAWN)
        self._passed.clear()
        for row in self._rows:
            for place in row:
                place.withdraw()

    def _place(self, at: int, slot: int) -> Standby:
        row = self._rows[at]
        return row[slot % len(row)]


def _nothing() -> None:
    """Wake nobody."""
