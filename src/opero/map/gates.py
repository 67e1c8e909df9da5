"""The gates of a map: what each worker slot passes before it gets an item."""

from __future__ import annotations

from opero.core.gate import WITHDRAWN, leave_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from opero.core.clock import Clock
    from opero.core.gate import GateQueue, Standby


class MapGates:
    """The gates of one map, in the order in which an item passes them.

    Attributes:
        alike: Whether what one slot does not get, no other gets.
        observed: Whether a gate wants to know how attempts end.
    """

    def __init__(self, queues: Sequence[GateQueue], workers: int, clock: Clock) -> None:
        """Stand before the gates.

        Args:
            queues: Where those who call the function wait.
            workers: How many worker slots have gates of their own; 0 if all share them.
            clock: Tells the time.
        """
        self._clock = clock
        self._rows: list[list[Standby]] = [
            [queue.standby_alone() for _ in range(workers)] if workers else [queue.standby()]
            for queue in queues
        ]
        self._passed: dict[int, int] = {}
        self._tickets: dict[int, list[int]] = {}
        self.alike: bool = workers < 2
        self._alone = workers > 0
        self.observed: bool = any(place.gate.observes for row in self._rows for place in row)

    def enter(self, slot: int, now: int) -> int:
        """Pass all gates for a slot.

        A slot that is let in by some of them goes on at the next one when it asks again.

        Returns:
            0 if all have let it in, else nanoseconds until the next one might.
        """
        first = self._passed.pop(slot, 0)
        tickets = self._tickets.setdefault(slot, [])
        if not first:
            tickets.clear()
        for at in range(first, len(self._rows)):
            answer = self._place(at, slot).enter(now)
            if answer > 0:
                if at:
                    self._passed[slot] = at
                return answer
            tickets.append(-answer)
        return 0

    def tickets(self, slot: int) -> list[int]:
        """Return what the gates gave the attempt of a slot that they have just let in."""
        return self._tickets.pop(slot)

    def leave(self, slot: int, outcome: int, entered: int, tickets: list[int]) -> None:
        """Tell the gates that observe how an attempt of a slot has ended."""
        gates = tuple(self._place(at, slot).gate for at in range(len(tickets)))
        leave_all(gates, self._clock.now(), outcome, entered, tickets)

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
        for slot in self._passed:
            self.leave(slot, WITHDRAWN, now, self._tickets.pop(slot))
        self._passed.clear()
        for row in self._rows:
            for place in row:
                place.withdraw()

    def _place(self, at: int, slot: int) -> Standby:
        row = self._rows[at]
        return row[slot % len(row)]
