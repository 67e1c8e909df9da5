"""How a limit or a breaker talks to its Redis: with time limits, and rarely while it fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opero.clients.outages import Outage
from opero.clients.redis import async_client, client
from opero.thrown import thrown_in


class RedisContact:
    """What one limit, or one breaker, asks a server; threads and tasks may share it."""

    def __init__(self, url: str, what: str, instead: str) -> None:
        """Prepare to ask; ask nothing yet.

        Args:
            url: Where the server is.
            what: What it is asked about, for the log, such as "the rate limit 'search'".
            instead: What is done while the server cannot be asked, for the log.

        Raises:
            ValueError: If it is not a Redis URL.
        """
        self._url = url
        self._outage: Outage = Outage(f"{what} in Redis at {client(url).where}", instead=instead)

    def blocks(self) -> bool:
        """Return whether the server would be left alone now."""
        return self._outage.refuses()

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Have the server do something; None if that fails, or it is to be left alone.

        Args:
            operation: "script" or "run".
            arguments: What that takes.
        """
        reply = None
        with self._asking() as allowed:
            if allowed:
                reply = getattr(client(self._url), operation)(*arguments)
        return reply

    async def ask_async(self, operation: str, *arguments: Any) -> Any:
        """Do the same in a task."""
        reply = None
        with self._asking() as allowed:
            if allowed:
                reply = await getattr(async_client(self._url), operation)(*arguments)
        return reply

    @contextmanager
    def _asking(self) -> Iterator[bool]:
        """Yield whether the server may be asked, and note how that goes."""
        ticket = self._outage.enter()
        if not ticket:
            yield False
            return
        outer = sys.exc_info()[1]
        try:
            yield True
        except Exception as error:  # noqa: BLE001 - whatever it is, limit and breaker go on
            thrown = thrown_in(error, outer)
            if thrown is not None:
                raise thrown from thrown.__cause__
            self._outage.leave(ticket, error=error)
        else:
            self._outage.leave(ticket)
        finally:
            outer = None  # its traceback may hold this frame
