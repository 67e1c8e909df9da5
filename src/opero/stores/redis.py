"""Redis as a backend, for threads and for tasks: the same commands, run by two kinds of client.

Each primitive is written once (see `steps`): it asks the client to run a batch of commands or a
script, and returns the primitive's result. Both backends have all primitives as methods.

Redis expires entries (`PX`). `swap` is a Lua script, which Redis runs atomically. `SCAN` finds
names, a thousand at a time, never `KEYS`; `UNLINK` removes them, so that large values do not block
the server.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from opero.clients.redis import Command, Script, async_client, client
from opero.runners.effects import ASK

from .backends import Swap, Swapped
from .steps import Steps, Task, in_task, in_thread

NAMES: Final = 1000
"""How many names one `SCAN` reads, and the most commands or names in one batch."""

FEW: Final = 100
"""How many entries one `MGET` reads: one time limit covers its whole reply."""

BATCH: Final = 1 << 20
"""How many bytes one batch of `put_many` has, unless a single entry has more."""

_SWAP = Script("""
if ARGV[4] == 'unless' then
  local entry = redis.call('GET', KEYS[2])
  if entry then return {false, entry} end
end
local found = redis.call('GET', KEYS[1])
if (found or '') ~= ARGV[1] then return {found, false} end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
elseif ARGV[3] == '' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
if ARGV[4] == 'along' then
  if ARGV[6] == '' then
    redis.call('SET', KEYS[2], ARGV[5])
  else
    redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[6])
  end
end
return {found, false}
""")
"""Changes `KEYS[1]` from `ARGV[1]` to `ARGV[2]` for `ARGV[3]` milliseconds; "" means no entry."""


# --- the primitives -----------------------------------------------------------------------------


def _batch(store: object, commands: Sequence[Command]) -> Steps[list[Any]]:
    return (yield ASK, store, "batch", (commands,))  # type: ignore[no-any-return]


def _get_many(store: object, names: Sequence[str]) -> Steps[list[bytes | None]]:
    if len(names) == 1:
        return (yield from _batch(store, (("GET", names[0]),)))
    entries: list[bytes | None] = []
    for start in range(0, len(names), NAMES):
        end = min(start + NAMES, len(names))
        batch = [("MGET", *names[few : min(few + FEW, end)]) for few in range(start, end, FEW)]
        for some in (yield from _batch(store, batch)):
            entries += some
    return entries


def _put_many(
    store: object, entries: Sequence[tuple[str, bytes]], ttl: float | None
) -> Steps[None]:
    batch: list[Command] = []
    size = 0
    for name, data in entries:
        if batch and (size + len(data) > BATCH or len(batch) == NAMES):
            yield from _batch(store, batch)
            batch, size = [], 0
        batch.append(_set(name, data, ttl))
        size += len(data)
    if batch:
        yield from _batch(store, batch)


def _delete(store: object, names: Sequence[str]) -> Steps[list[bool]]:
    there: list[bool] = []
    for start in range(0, len(names), NAMES):
        some = [("UNLINK", name) for name in names[start : start + NAMES]]
        there += map(bool, (yield from _batch(store, some)))
    return there


def _scan(
    store: object,
    prefix: str,
    suffix: str,
    after: str,
    expired: bool = False,  # noqa: ARG001 - Redis keeps nothing that has expired
) -> Steps[tuple[list[str], str | None]]:
    pattern = f"{_escaped(prefix)}*{_escaped(suffix)}"
    command = ("SCAN", after or "0", "MATCH", pattern, "COUNT", NAMES)
    ((cursor, names),) = yield from _batch(store, (command,))
    found = [name.decode() for name in names if name.isascii()]  # no others are ours
    return found, None if int(cursor) == 0 else str(int(cursor))


def _swap(store: object, change: Swap) -> Steps[Swapped]:
    name, old, new, ttl, unless, along = change
    keys: tuple[str, ...] = (name,)
    arguments: tuple[Any, ...] = (old or b"", new or b"", _milliseconds(ttl))
    if along is not None:
        keys = name, along[0]
        arguments = (*arguments, "along", along[1], _milliseconds(along[2]))
    elif unless is not None:
        keys = name, unless
        arguments = (*arguments, "unless")
    else:
        arguments = (*arguments, "")
    return Swapped(*(yield ASK, store, "script", (_SWAP, keys, arguments)))


def _set(name: str, data: bytes, ttl: float | None) -> Command:
    if ttl is None:
        return ("SET", name, data)
    return ("SET", name, data, "PX", _milliseconds(ttl))


def _escaped(text: str) -> str:
    """Escape a text, so that a pattern matches it literally."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)


def _milliseconds(seconds: float | None) -> int | str:
    return "" if seconds is None else max(1, math.ceil(seconds * 1000))


# --- the backends -------------------------------------------------------------------------------


class _InRedis:
    """The part that both backends share.

    Attributes:
        where: Host and port, or the path of the socket, for messages.
    """

    def __init__(self, url: str) -> None:
        """Parse the URL without connecting; this needs no event loop.

        Args:
            url: `redis://`, `rediss://` or `unix://`.

        Raises:
            ValueError: If the URL is not valid; the message does not show it.
        """
        self._url = url
        self.where: str = client(url).where


class RedisBackend(_InRedis):
    """A `Backend` in Redis, for threads."""

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Ask the server something."""
        return getattr(client(self._url), operation)(*arguments)

    def close(self) -> None:
        """Close idle connections, also those of other users of the URL, who then reconnect."""
        client(self._url).close()

    get_many: Callable[..., list[bytes | None]] = in_thread(_get_many)
    put_many: Callable[..., None] = in_thread(_put_many)
    delete: Callable[..., list[bool]] = in_thread(_delete)
    scan: Callable[..., tuple[list[str], str | None]] = in_thread(_scan)
    swap: Callable[..., Swapped] = in_thread(_swap)


class AsyncRedisBackend(_InRedis):
    """An `AsyncBackend` in Redis; each event loop that uses it has its own connections."""

    async def ask_async(self, operation: str, *arguments: Any) -> Any:
        """Ask the server something."""
        return await getattr(async_client(self._url), operation)(*arguments)

    async def close(self) -> None:
        """Close the idle connections of the running loop; later use reconnects."""
        async_client(self._url).close()

    get_many: Task[list[bytes | None]] = in_task(_get_many)
    put_many: Task[None] = in_task(_put_many)
    delete: Task[list[bool]] = in_task(_delete)
    scan: Task[tuple[list[str], str | None]] = in_task(_scan)
    swap: Task[Swapped] = in_task(_swap)
