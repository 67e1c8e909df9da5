"""Calls of coroutine functions over a stored cache: a flight's own task awaits the store."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Any

from opero.core.clock import NEVER
from opero.real_time import monotonic
from opero.runners import aio, task_flight, task_lingering
from opero.runners.loops import running_loop
from opero.thrown import Thrown
from opero.tracebacks import shorten

from .stored_cache import ELSEWHERE, Known, Miss, StoredCache, Unavailable
from .stored_refresh import StoredRefresh

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.call import AsyncCall
    from opero.core.canonical import StoredKey


class AsyncStoredCache(StoredCache):
    """The stored values of a coroutine function; `flights` are by event loop, and then by key."""

    async def recall(self, call: AsyncCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a call from the store, or run it.

        Args:
            call: The decorated function.
            args: The positional arguments.
            kwargs: The keyword arguments.
        """
        try:
            running_loop()
            return await self._recall(call, args, kwargs)
        except Thrown as thrown:
            shorten(thrown.error)
            raise thrown.error from thrown.error.__cause__
        except BaseException as failure:
            shorten(failure)
            raise

    async def _recall(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key = self.key(call, args, kwargs)
        since = monotonic()
        found: Any = None
        reachable = True
        try:
            found = await aio.drive(self.look(key))
        except Unavailable:
            reachable = False
        if self.hits(call, found):
            if self.is_early(found, call.clock):
                with suppress(Exception):  # no failure here concerns the caller
                    refresh = TaskRefresh(self, call, key, found, args, kwargs)
                    task_lingering.begin(refresh, self, key.full)
            return found.value

        miss = Miss(key, args, kwargs, found, reachable, since)
        try:
            while True:
                if reachable:
                    await self._leave_outdated(key, since)
                value = await task_flight.share(call, self, key.full, args, kwargs, miss)
                if type(value) is not Known:
                    return value
                if value.serves(miss):
                    return value.value
        except Exception as error:  # from a refresh, or from a flight that was cancelled
            stale = await aio.drive(self.serve_stale(call, key, found, error))
            if stale is None:
                raise
            return stale.value

    async def _leave_outdated(self, key: StoredKey, since: float) -> None:
        """Keep callers from joining a run whose value another process has invalidated since."""
        table = self.flights.get(asyncio.get_running_loop())
        flight = None if table is None else table.get(key.full)
        if flight is None or not flight.is_open():
            return
        if not await aio.drive(self.may_join(key, flight, since)) and flight.is_listed():
            flight.table.pop(key.full, None)

    def find(self, _full: bytes) -> None:
        """Return None: only asking the store again would show a value from another flight."""

    async def lead(
        self,
        call: AsyncCall,
        flight: Any,
        _args: tuple[Any, ...],
        _kwargs: dict[str, Any],
        miss: Miss,
    ) -> Any:
        """Run a call in a flight, which is cancelled at the latest deadline of its callers."""
        try:
            flight.enter()
            return await aio.drive(self.run(call, miss, NEVER, flight, flight.is_listed))
        except GeneratorExit:
            flight.abandon()
            raise
        except (KeyboardInterrupt, SystemExit):
            flight.end_program()
            raise
        finally:
            flight.land()

    async def ask_async(self, operation: str, *arguments: Any) -> Any:
        """Ask the store something, in this task (see `ask`)."""
        ticket = self.admit(operation)
        outer = sys.exc_info()[1]
        try:
            answer = await getattr(self.store.async_operations, operation)(*arguments)
        except Exception as error:  # noqa: BLE001 - any library's
            raise self.failed(operation, ticket, error, outer) from None
        finally:
            outer = None  # the traceback may hold this frame
        self.worked(operation, ticket)
        return answer

    def ground(self, full: bytes | None) -> None:
        """Keep the run of one key, or of all (None), from being joined or stored."""
        for flights in list(self.flights.values()):
            if full is None:
                flights.clear()
            else:
                flights.pop(full, None)


class TaskRefresh(StoredRefresh):
    """One stored value to renew in a task."""

    __slots__ = ()

    async def make(self, flight: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the call, store its result, and return it."""
        miss = self.miss(args, kwargs, NEVER)
        renewal = self.cache.renew(self.call, miss, NEVER, flight, flight.is_listed)
        try:
            value = await aio.drive(renewal)
        except Thrown as thrown:
            raise thrown.error from thrown.error.__cause__
        if value is ELSEWHERE:
            self.leave_alone()
            raise asyncio.CancelledError
        return value
