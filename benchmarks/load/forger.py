"""Somebody who can write to the store and does: bytes flipped, entries swapped, pickles that run.

Nothing of opero is used here: what is written was never signed. Who takes such a pickle for a value
makes a file, the mark, and so is found out.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self

LEAST = 400
"""Bytes of the smallest entry: what is smaller is a lease, and no value to forge."""
_SOME = 200
"""So many entries are looked at before others are."""


class Entries(Protocol):
    """The entries of a store, as they stand there."""

    def names(self) -> Sequence[Any]:
        """Return the names of some entries."""

    def read(self, name: Any) -> bytes | None:
        """Return an entry."""

    def write(self, name: Any, data: bytes) -> None:
        """Put something in its place."""


class OnDisk:
    """The rows of the database."""

    def __init__(self, directory: Path) -> None:
        """Say where the cache is; it need not be there yet."""
        self._path = directory / "cache.db"

    def names(self) -> Sequence[Any]:
        """Return the names of those that were stored last, which are soon asked for."""
        rows = self._do(
            "SELECT key FROM Cache WHERE length(value) > ? ORDER BY store_time DESC LIMIT ?",
            (LEAST, _SOME),
        )
        return [name for (name,) in rows]

    def read(self, name: Any) -> bytes | None:
        """Return an entry."""
        for (value,) in self._do("SELECT value FROM Cache WHERE key = ?", (name,)):
            return bytes(value)
        return None

    def write(self, name: Any, data: bytes) -> None:
        """Put something in its place."""
        self._do("UPDATE Cache SET value = ? WHERE key = ?", (data, name))

    def _do(self, statement: str, arguments: tuple[Any, ...]) -> list[Any]:
        with contextlib.suppress(sqlite3.OperationalError):  # it is being made, or written to
            uri = f"{self._path.as_uri()}?mode=rw"
            connection = sqlite3.connect(uri, uri=True, timeout=1)
            with contextlib.closing(connection), connection:
                return connection.execute(statement, arguments).fetchall()
        return []


class InRedis:
    """The strings of the server."""

    def __init__(self, url: str) -> None:
        """Connect."""
        import redis

        self._client = redis.Redis.from_url(url)

    def names(self) -> Sequence[Any]:
        """Return the names of some."""
        return list(islice(self._client.scan_iter(count=_SOME), _SOME))

    def read(self, name: Any) -> bytes | None:
        """Return an entry."""
        found: Any = self._client.get(name)
        return found if found is None or len(found) > LEAST else None

    def write(self, name: Any, data: bytes) -> None:
        """Put something in its place."""
        self._client.set(name, data, keepttl=True, xx=True)


class _Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._mark,)


class Forger:
    """A thread that forges entries, all the time.

    A context manager: it ends with it.

    Attributes:
        count: How many it has forged.
    """

    def __init__(self, entries: Entries, mark: Path, pause: float = 0.01) -> None:
        """Begin.

        Args:
            entries: Where.
            mark: What a pickle makes that is taken for a value.
            pause: Seconds between two forgeries.
        """
        self.count = 0
        self._entries = entries
        self._trap = pickle.dumps(_Trap(str(mark)))
        self._pause = pause
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._forge, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _forge(self) -> None:
        names: Sequence[Any] = ()
        looked = 0.0
        while not self._ending.wait(self._pause):
            if time.monotonic() - looked > 0.5:
                names, looked = self._entries.names(), time.monotonic()
            if len(names) < 2:
                continue
            one, another = random.sample(names, 2)
            data = self._entries.read(one)
            if data is None:
                continue
            kind = random.choice(["flip", "cut", "swap", "pickle"])
            if kind == "flip":
                at = random.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
            elif kind == "cut":
                data = data[: random.randrange(LEAST, len(data))]
            elif kind == "pickle":
                data = self._trap.ljust(LEAST + 1, b".")
            self._entries.write(another if kind == "swap" else one, data)
            self.count += 1
