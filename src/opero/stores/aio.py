"""Calls of coroutine functions over a stored cache: a flight's own task awaits the store."""

from __future__ import annotations

import asyncio
from secrets import token_hex
from typing import Any

from opero.core.clock import NEVER
from opero.exceptions import DeadlineExceeded
from opero.real_time import monotonic
from opero.runners import aio

from .renewer import renewer
from .stored_cache import Claim, Pause, Steps, StoredCache, Unavailable


class AsyncStoredCache(StoredCache):
    """The stored values of a coroutine function; `flights` are by event loop, and then by key."""

    async def recall(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
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
            found = await self._drive(self.look(key))
        except Unavailable:
            reachable = False
        if self.hits(call, found):
            return found.value

        def work(flight: Any, table: Any) -> Any:
            return self._run(call, key, args, kwargs, found, reachable, flight, table)

        try:
            return await aio.fly(call, self.flights, key.full, args, kwargs, _nothing, work)
        except DeadlineExceeded as error:  # the flight was cut, and could not serve it itself
            if self.serves_stale(call, found, error):
                return found.value
            raise

    async def _run(
        self,
        call: Any,
        key: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        found: Any,
        reachable: bool,
        flight: Any,
        table: Any,
    ) -> Any:
        flight.enter()
        token = token_hex(8)
        claim = Claim(False, None, None, found)
        try:
            if reachable:
                try:  # the flight is cut when the time of its last caller is over
                    claim = await self._drive(self.begin(call, key, found, NEVER, token))
                except Unavailable:
                    pass
            if claim.known:
                return claim.value
            begun = monotonic()
            try:
                value = await aio.run(call, args, kwargs, flight)
            except Exception as error:
                if self.serves_stale(call, claim.stale, error):
                    return claim.stale.value
                raise
            # else it was invalidated meanwhile
            if claim.token is not None and table.get(key.full) is flight:
                try:
                    await self._drive(self.finish(call, key, claim, value, monotonic() - begun))
                except Unavailable:
                    pass
        finally:
            renewer.abandon(token)
        return value

    async def _drive(self, steps: Steps) -> Any:
        """Take steps until they end; return what they return."""
        answer: Any = None
        try:
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration as end:
                    return end.value
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    answer = None
                else:
                    answer = await self._ask(step.operation, *step.arguments)
        finally:
            steps.close()

    async def _ask(self, operation: str, *arguments: Any) -> Any:
        self.admit(operation)
        try:
            answer = await getattr(self.store.async_operations, operation)(*arguments)
        except Exception as error:  # noqa: BLE001 - any library's
            raise self.failed(operation, error) from None
        self.worked(operation)
        return answer

    def ground(self, full: bytes | None) -> None:
        """Keep the run of one key, or of all (None), from being joined or stored."""
        for flights in list(self.flights.values()):
            if full is None:
                flights.clear()
            else:
                flights.pop(full, None)


def _nothing() -> None:
    return None
