"""Calls of ordinary functions over a stored cache: this thread asks the store, and sleeps."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from opero.core.clock import NEVER
from opero.core.flight import Flight
from opero.real_time import monotonic
from opero.runners import sync
from opero.runners.background import background
from opero.thrown import Thrown

from .stored_cache import ELSEWHERE, Known, Miss, StoredCache, Unavailable
from .stored_refresh import StoredRefresh

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
        try:
            return self._recall(call, args, kwargs)
        except Thrown as thrown:
            raise thrown.error from thrown.error.__cause__

    def _recall(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key = self.key(call, args, kwargs)
        since = monotonic()
        found: Any = None
        reachable = True
        try:
            found = sync.drive(self.look(key))
        except Unavailable:
            reachable = False
        if self.hits(call, found):
            if self.is_early(found, call.clock):
                with suppress(Exception):  # no thread can be started: the next hit asks again
                    background.offer(ThreadRefresh(self, call, key, found, args, kwargs))
            return found.value
        deadline = call.clock.now() + call.timeout if call.timeout else NEVER
        try:
            miss = Miss(key, args, kwargs, found, reachable, since)
            return self.lead(call, miss, deadline)
        except Exception as error:  # from another thread's run, or from the wait for it
            stale = sync.drive(self.serve_stale(call, key, found, error))
            if stale is None:
                raise
            return stale.value

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
                    self.flights.pop(full, None)  # noted by a map, or left over
                    continue
                if miss.reachable and not sync.drive(self.may_join(miss.key, other, miss.since)):
                    value = sync.LOST
                else:
                    value = sync.follow(call, other, miss.args, miss.kwargs, deadline)
                if value is sync.LOST:
                    if self.flights.get(full) is other:
                        self.flights.pop(full, None)
                elif type(value) is Known:
                    if value.serves(miss):
                        return value.value
                elif value is not sync.AGAIN:
                    return value

            def is_listed() -> bool:
                return self.flights.get(full) is flight

            value = sync.drive(self.run(call, miss, deadline, flight, is_listed))
            self.land(full, flight, value, None)
            return value.value if type(value) is Known else value
        except BaseException as error:
            self.land(full, flight, None, error)
            raise
        finally:
            flight = other = None  # they hold the error, and its traceback holds this frame

    def land(self, full: bytes, flight: Flight, value: Any, error: BaseException | None) -> None:
        """End a flight, and pass its outcome to its followers."""
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


class ThreadRefresh(StoredRefresh):
    """One stored value to renew in a thread."""

    __slots__ = ()

    def lead(self) -> None:
        """Run the call in this thread, and store its result; raise no `Exception`.

        `sync.follow` looks for a frame of this name, and for its flight.
        """
        call, cache, full = self.call, self.cache, self.key.full
        flight: Any = Flight(call.identify())
        outcome: Any = ELSEWHERE
        failed: BaseException | None = None

        def is_listed() -> bool:
            return cache.flights.get(full) is flight

        try:
            begun = self.begin()
            if begun is not None and cache.flights.setdefault(full, flight) is flight:
                renewal = cache.renew(call, self.miss(*begun), begun.deadline, flight, is_listed)
                outcome = sync.drive(renewal)
        except BaseException as error:
            failed = error.error if isinstance(error, Thrown) else error
            if not isinstance(failed, Exception):
                raise
        finally:
            self.settle(flight, outcome, failed)
            flight = outcome = failed = begun = renewal = None

    def settle(self, flight: Any, outcome: Any, failed: BaseException | None) -> None:
        """Pass the outcome to the followers, and report how the refresh ended."""
        if outcome is ELSEWHERE and failed is None:  # followers run the call themselves
            self.cache.land(self.key.full, flight, None, GeneratorExit())
            self.leave_alone()
        else:
            self.cache.land(self.key.full, flight, None if failed else outcome, failed)
            self.end(failed)
