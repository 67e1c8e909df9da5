"""Which items of a map share a run, and whether its value may be stored.

A current run is recorded twice: here, for later equal items of the same map; and in the store's
table of flights, from which `cache_invalidate` and `cache_clear` remove it. A value computed before
an invalidation is not stored after it, nor given to later items.

Two maps that run at the same time do not wait for each other's runs: a map continues only while its
consumer takes results, so a stream with a paused consumer would block the other map forever. They
only share the record in the table, so that one map does not remove the other's when it ends.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from opero import hotpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.state import State

_OURS = 0
"""No thread has this identifier: it marks the flights that maps have noted."""


class _NoLoop:
    """Stands where coroutine functions note for which event loop their flights are."""

    def is_closed(self) -> bool:
        """Say that its table is still needed."""
        return False


_EVERYWHERE = _NoLoop()


class SharedRun:
    """A run of a cacheable item.

    Attributes:
        key: Its cache key.
        store: Where its value belongs.
        stored: The stored key, if values are kept outside the process; None if not.
        stale: An outdated entry that may be served if the run fails; None without.
        flight: The note in the store's table.
        followers: The items that wait for it: their spans, and their places there.
        landed: Whether its value is known, and kept for equal items that have been looked up before
            it was stored.
        value: That value.
    """

    __slots__ = ("flight", "followers", "key", "landed", "stale", "store", "stored", "value")

    def __init__(self, store: Any, key: Any, stored: Any, stale: Any) -> None:
        self.store: Any = store
        self.key: Any = key
        self.stored: Any = stored
        self.stale: Any = stale
        self.flight: Any = None
        self.followers: list[tuple[Any, int]] = []
        self.landed: bool = False
        self.value: Any = None


class SharedRuns:
    """The current runs of one map.

    Attributes:
        call: The decorated function of one item.
        under_way: The runs, by key.
        kept: The stored keys of values that are to be stored outside the process, and the values.
        landed: The runs that have such a value, in the order in which they are stored.
    """

    def __init__(self, call: State) -> None:
        """Begin without any.

        Args:
            call: The decorated function of one item; it has a cache.
        """
        compiled = type(call).__module__.startswith("opero._compiled")
        core = hotpath.load("compiled" if compiled else "plain")
        self.call = call
        self.under_way: dict[Any, SharedRun] = {}
        self.kept: list[tuple[Any, Any]] = []
        self.landed: deque[SharedRun] = deque()
        self._forgotten = 0
        self._new_flight = core.Flight
        self._asynchronous = call.awaited

    def find(self, key: Any) -> SharedRun | None:
        """Return the run of an equal item, unless its key has been invalidated since it began."""
        run = self.under_way.get(key)
        return run if run is not None and self._is_listed(run) else None

    def begin(self, store: Any, key: Any, stored: Any = None, stale: Any = None) -> SharedRun:
        """Note that an item is going to run."""
        run = SharedRun(store, key, stored, stale)
        table = self._table(store)
        flight = table.get(key)
        if flight is None or flight.owner != _OURS or not flight.waiters:
            flight = self._new_flight(_OURS)
            flight.land(None, None)  # nobody shall wait for it
            table[key] = flight
        flight.join(run)  # as the flight's "waiters" stand those who still need the note
        run.flight = flight
        self.under_way[key] = run
        return run

    def store(self, run: SharedRun, value: Any) -> None:
        """Store what a run has returned, unless its key has been invalidated since it began."""
        if run.stored is not None:
            if self._is_listed(run):
                self.kept.append((run.stored, value))
                self.landed.append(run)
                run.landed, run.value = True, value
        elif self._is_listed(run):
            entry = self.call.reserve(run.store, run.key)
            if entry is not None:
                if self._is_listed(run):
                    run.store.fill(entry, value)
                else:
                    run.store.drop(run.key)

    def end(self, run: SharedRun) -> None:
        """Leave nothing behind of a run that is over."""
        try:
            if self.under_way.get(run.key) is run:
                del self.under_way[run.key]
            run.flight.leave(run)
            table = self._table(run.store)
            if not run.flight.waiters and table.get(run.key) is run.flight:
                table.pop(run.key, None)
            if self._asynchronous and not table:
                run.store.flights.pop(_EVERYWHERE, None)
        except Exception as error:  # noqa: BLE001 - comparing keys may raise
            self.call.events.warn(
                self.call.name, f"the value is not cached: {type(error).__name__}"
            )

    def forget(self, landed: int) -> None:
        """Let go of the first runs that have landed: a lookup now finds their values.

        Args:
            landed: How many runs had been stored before the last items were looked up.
        """
        while self._forgotten < landed:
            self._forgotten += 1
            self.end(self.landed.popleft())

    def close(self) -> None:
        """Leave nothing behind of runs that nobody will end."""
        left = {id(run): run for run in [*self.landed, *self.under_way.values()]}
        self.landed.clear()
        for run in left.values():
            self.end(run)

    def _table(self, store: Any) -> Any:
        if self._asynchronous:
            return store.flights.setdefault(_EVERYWHERE, {})
        return store.flights

    def _is_listed(self, run: SharedRun) -> bool:
        try:
            return self._table(run.store).get(run.key) is run.flight
        except Exception as error:  # noqa: BLE001 - comparing keys may raise
            self.call.events.warn(
                self.call.name, f"the value is not cached: {type(error).__name__}"
            )
            return False
