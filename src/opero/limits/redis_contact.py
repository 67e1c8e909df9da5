"""The way of a limit or a breaker to its Redis: asked within bounds, left alone while it fails."""

from __future__ import annotations

from typing import Any

from opero.clients.outages import Outage
from opero.clients.redis import async_client, client


class RedisContact:
    """What one limit, or one breaker, asks a server; threads and tasks may share it."""

    def __init__(self, url: str, what: str, instead: str) -> None:
        """Ask nothing yet.

        Args:
            url: Where the server is.
            what: What it is asked about, for the log, such as "the rate limit 'search'".
            instead: What is done while the server cannot be asked, for the log.

        Raises:
            ValueError: If the URL is not one of Redis.
        """
        self._url = url
        self._what = f"{what} in Redis at {client(url).where}"
        self._instead = instead
        self._outage: Outage = Outage(self._what, instead=instead)

    def after_fork(self) -> None:
        """Know of no outage, in a child process."""
        self._outage = Outage(self._what, instead=self._instead)

    def blocks(self) -> bool:
        """Return whether to leave the server alone now."""
        return self._outage.blocks(writing=True)

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Have the server do something; None if that fails.

        Args:
            operation: "script", which may write, or "run".
            arguments: What that takes.
        """
        try:
            reply = getattr(client(self._url), operation)(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, limit and breaker go on
            self._outage.failed(error, operation == "script")
            return None
        self._outage.worked(operation == "script")
        return reply

    async def ask_async(self, operation: str, *arguments: Any) -> Any:
        """Do the same in a task."""
        try:
            reply = await getattr(async_client(self._url), operation)(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, limit and breaker go on
            self._outage.failed(error, operation == "script")
            return None
        self._outage.worked(operation == "script")
        return reply
