"""Calls of ordinary functions over a stored cache: this thread asks the store, and sleeps."""

from __future__ import annotations

from typing import Any

from opero.core.clock import NEVER
from opero.core.flight import Flight
from opero.runners import sync

from .stored_cache import Miss, StoredCache, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.call import Call


class SyncStoredCache(StoredCache):
    """The stored values of an ordinary function; `flights` are by full key."""

    def recall(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a call from the store, or run it.

        Args:
            call: The decorated function.
            args: The positional arguments.
            kwargs: The keyword arguments.
        """
        key = self.key(call, args, kwargs)
        found: Any = None
        reachable = True
        try:
            found = sync.drive(self.look(key))
        except Unavailable:
            reachable = False
        if self.hits(call, found):
            return found.value
        deadline = call.clock.now() + call.timeout if call.timeout else NEVER
        return self.lead(call, Miss(key, args, kwargs, found, reachable), deadline)

    def lead(self, call: Call, miss: Miss, deadline: int) -> Any:
        """Run a call whose value is missing, or follow another thread that does."""
        full = miss.key.full
        flight: Flight | None = Flight(call.identify())
        assert flight is not None
        try:
            while True:
                other = self.flights.setdefault(full, flight)
                if other is flight:
                    break
                if other.done and self.flights.get(full) is other:
                    self.flights.pop(full, None)  # a map has noted it, or it was not tidied up
                    continue
                value = sync.follow(call, other, miss.args, miss.kwargs, deadline)
                if value is sync.LOST:
                    if self.flights.get(full) is other:
                        self.flights.pop(full, None)
                elif value is not sync.AGAIN:
                    return value

            def is_listed() -> bool:
                return self.flights.get(full) is flight

            value = sync.drive(self.run(call, miss, deadline, None, is_listed))
            self._land(full, flight, value, None)
            return value
        except BaseException as error:
            self._land(full, flight, None, error)
            raise
        finally:
            flight = other = None  # they hold the error, whose traceback holds this frame

    def _land(self, full: bytes, flight: Flight, value: Any, error: BaseException | None) -> None:
        try:
            if self.flights.get(full) is flight:
                self.flights.pop(full, None)
        finally:
            flight.land(value, error)

    def ground(self, full: bytes | None) -> None:
        """Keep the run of one key, or of all (None), from being joined or stored."""
        if full is None:
            self.flights.clear()
        else:
            self.flights.pop(full, None)
