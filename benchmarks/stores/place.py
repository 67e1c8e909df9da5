"""Where the sides of one row keep things."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

T = TypeVar("T")

SECRET = "a secret for figures, not for data"


class MissingError(Exception):
    """A side cannot be had here; the message says why."""


class Place:
    """A temporary directory, a Redis server and an event loop, each made when it is asked for.

    A context manager: at its end nothing of it is left.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._folders = 0
        self._url = ""
        self._missing = ""
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="opero-bench-", ignore_cleanup_errors=True)
        )
        self._root = Path(folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def folder(self) -> Path:
        """Make a directory that no other side has."""
        self._folders += 1
        folder = self._root / f"side-{self._folders}"
        folder.mkdir(mode=0o700)
        return folder

    def url(self) -> str:
        """Return the URL of a Redis server that all sides share.

        Raises:
            MissingError: If there is no redis-server.
        """
        from .server import serving

        if self._missing:
            raise MissingError(self._missing)
        if not self._url:
            try:
                self._url = self._stack.enter_context(serving(self.folder()))
            except MissingError as error:
                self._missing = str(error)
                raise
        return self._url

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop that all sides share."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._stack.callback(self._close)
        return self._loop.run_until_complete(work)

    def _close(self) -> None:
        assert self._loop is not None
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
