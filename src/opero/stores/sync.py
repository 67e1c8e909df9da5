"""Calls of ordinary functions over a stored cache: this thread asks the store, and sleeps."""

from __future__ import annotations

import time
from secrets import token_hex
from threading import get_ident
from typing import Any

from opero.core.clock import NEVER
from opero.core.flight import Flight
from opero.real_time import monotonic
from opero.runners import sync

from .renewer import renewer
from .stored_cache import Claim, Pause, Steps, StoredCache, Unavailable


class SyncStoredCache(StoredCache):
    """The stored values of an ordinary function; `flights` are by full key."""

    def recall(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
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
            found = self._drive(self.look(key))
        except Unavailable:
            reachable = False
        if self.hits(call, found):
            return found.value
        deadline = call.clock.now() + call.timeout if call.timeout else NEVER
        return self.lead(call, key, args, kwargs, found, reachable, deadline)

    def lead(
        self,
        call: Any,
        key: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        found: Any,
        reachable: bool,
        deadline: int,
    ) -> Any:
        """Run a call whose value is missing, or follow another thread that does."""
        flight: Flight | None = Flight(get_ident())
        assert flight is not None
        try:
            while True:
                other = self.flights.setdefault(key.full, flight)
                if other is flight:
                    break
                if other.done and self.flights.get(key.full) is other:
                    self.flights.pop(key.full, None)  # a map has noted it, or it was not tidied up
                    continue
                value = sync.follow(call, self, key.full, other, args, kwargs, deadline)
                if value is not sync.AGAIN:
                    return value
            value = self._run(call, key, args, kwargs, found, reachable, deadline, flight)
            self._land(key.full, flight, value, None)
            return value
        except BaseException as error:
            self._land(key.full, flight, None, error)
            raise
        finally:
            flight = other = None  # they hold the error, whose traceback holds this frame

    def _run(
        self,
        call: Any,
        key: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        found: Any,
        reachable: bool,
        deadline: int,
        flight: Flight,
    ) -> Any:
        token = token_hex(8)
        claim = Claim(False, None, None, found)
        try:
            if reachable:
                try:
                    claim = self._drive(self.begin(call, key, found, deadline, token))
                except Unavailable:
                    pass
            if claim.known:
                return claim.value
            begun = monotonic()
            try:
                value = sync.run(call, args, kwargs, deadline)
            except Exception as error:
                if self.serves_stale(call, claim.stale, error):
                    return claim.stale.value
                raise
            # else it was invalidated meanwhile
            if claim.token is not None and self.flights.get(key.full) is flight:
                try:
                    self._drive(self.finish(call, key, claim, value, monotonic() - begun))
                except Unavailable:
                    pass
        finally:
            renewer.abandon(token)
        return value

    def _drive(self, steps: Steps) -> Any:
        """Take steps until they end; return what they return."""
        answer: Any = None
        try:
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration as end:
                    return end.value
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    answer = None
                else:
                    answer = self.ask(step.operation, *step.arguments)
        finally:
            steps.close()

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
