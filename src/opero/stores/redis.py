"""Redis as a backend, for threads and for tasks: the same commands, run by two kinds of client.

Each operation is written once, as a generator: it yields a batch of commands, is sent their
replies, and returns what the operation returns. `RedisBackend` and `AsyncRedisBackend` drive it.

Entries expire by Redis (`PX`). What must not be torn apart is a Lua script, which Redis runs in one
step. `clear` and `count` look names up with `SCAN`, a thousand at a time, never with `KEYS`; names
are removed with `UNLINK`, so that large values do not hold the server up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Sequence
from typing import Any, Final, TypeVar

from .backends import LEASE, lease_of, mark_of
from .redis_clients import AsyncClient, Client, Command, NoScriptError, Script, async_client, client

NAMES: Final = 1000
"""How many names one `SCAN` looks at, and how many commands or names a batch has at most."""

FEW: Final = 100
"""How many entries one `MGET` asks for: its reply has one time limit."""

BATCH: Final = 1 << 20
"""How many bytes one batch of `put_many` has, unless a single entry has more."""

FOREVER: Final = 1e10
"""A time to live of so many seconds, three hundred years, is for ever."""

_T = TypeVar("_T")
_Steps = Generator[Sequence[Command], list[Any], _T]
"""An operation: yields commands, is sent their replies, returns its result."""

_HOLDS = """
local mark = redis.call('GET', KEYS[1])
if not mark or #mark ~= #ARGV[1] + 9 or string.sub(mark, 1, #mark - 8) ~= ARGV[1] .. '/' then
  return 0
end
"""
"""Ends a script unless the token `ARGV[1]` holds the lease `KEYS[1]`; see `backends.mark_of`."""

_TAKE = Script("""
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
return redis.call('GET', KEYS[1])
""")
_GET_AND_TAKE = Script("""
local entry = redis.call('GET', KEYS[2])
if entry then return {entry, false} end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return {false, false} end
return {false, redis.call('GET', KEYS[1])}
""")
_RENEW = Script(
    _HOLDS
    + """
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
)
_RELEASE = Script(_HOLDS + "return redis.call('DEL', KEYS[1])")
_SEIZE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")
_SETTLE = Script(
    _HOLDS
    + """
if ARGV[3] == '' then
  redis.call('SET', KEYS[2], ARGV[2])
else
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
end
redis.call('DEL', KEYS[1])
return 1
"""
)


# --- the operations -----------------------------------------------------------------------------


def _get(name: str) -> _Steps[bytes | None]:
    (entry,) = yield (("GET", name),)
    return entry  # type: ignore[no-any-return]


def _get_many(names: Sequence[str]) -> _Steps[list[bytes | None]]:
    entries: list[bytes | None] = []
    for start in range(0, len(names), NAMES):
        end = min(start + NAMES, len(names))
        batch = [("MGET", *names[few : min(few + FEW, end)]) for few in range(start, end, FEW)]
        for some in (yield batch):
            entries += some
    return entries


def _put(name: str, data: bytes, ttl: float | None) -> _Steps[None]:
    yield (_set(name, data, ttl),)


def _put_many(entries: Sequence[tuple[str, bytes]], ttl: float | None) -> _Steps[None]:
    batch: list[Command] = []
    size = 0
    for name, data in entries:
        if batch and (size + len(data) > BATCH or len(batch) == NAMES):
            yield batch
            batch, size = [], 0
        batch.append(_set(name, data, ttl))
        size += len(data)
    if batch:
        yield batch


def _delete(name: str) -> _Steps[bool]:
    # The lease first: a run that settles between the two commands finds that it lost it.
    _, removed = yield ("UNLINK", lease_of(name)), ("UNLINK", name)
    return bool(removed)


def _clear(prefix: str) -> _Steps[int]:
    # All leases first: then no run that is under way settles behind the back of the second scan.
    yield from _unlink(prefix, of_leases=True)
    return (yield from _unlink(prefix, of_leases=False))


def _unlink(prefix: str, *, of_leases: bool) -> _Steps[int]:
    removed = 0
    cursor: Any = b"0"
    while True:
        (reply,) = yield (_scan(cursor, prefix, LEASE if of_leases else ""),)
        cursor, names = reply
        names = [name for name in names if name.endswith(LEASE.encode()) == of_leases]
        if names:
            (unlinked,) = yield (("UNLINK", *names),)
            removed += unlinked
        if int(cursor) == 0:
            return removed


def _count(prefix: str) -> _Steps[int]:
    found: set[bytes] = set()  # a scan may name one twice
    cursor: Any = b"0"
    while True:
        (reply,) = yield (_scan(cursor, prefix, ""),)
        cursor, names = reply
        found.update(name for name in names if not name.endswith(LEASE.encode()))
        if int(cursor) == 0:
            return len(found)


def _take(name: str, token: str, seconds: float) -> _Steps[str | None]:
    mark = yield from _run(_TAKE, (lease_of(name),), (mark_of(token), _milliseconds(seconds)))
    return _text(mark)


def _get_and_take(name: str, token: str, seconds: float) -> _Steps[tuple[bytes | None, str | None]]:
    keys = (lease_of(name), name)
    found = yield from _run(_GET_AND_TAKE, keys, (mark_of(token), _milliseconds(seconds)))
    return found[0], _text(found[1])


def _renew(name: str, token: str, seconds: float) -> _Steps[bool]:
    arguments = (token, mark_of(token), _milliseconds(seconds))
    return bool((yield from _run(_RENEW, (lease_of(name),), arguments)))


def _release(name: str, token: str) -> _Steps[None]:
    yield from _run(_RELEASE, (lease_of(name),), (token,))


def _seize(name: str, token: str, seconds: float, mark: str) -> _Steps[bool]:
    arguments = (mark, mark_of(token), _milliseconds(seconds))
    return bool((yield from _run(_SEIZE, (lease_of(name),), arguments)))


def _settle(name: str, token: str, data: bytes, ttl: float | None) -> _Steps[bool]:
    arguments = (token, data, "" if _endless(ttl) else _milliseconds(ttl))
    return bool((yield from _run(_SETTLE, (lease_of(name), name), arguments)))


def _run(script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> _Steps[Any]:
    """Run a script by its digest; send its source only to a server that does not know it."""
    try:
        (reply,) = yield (("EVALSHA", script.digest, len(keys), *keys, *arguments),)
    except NoScriptError:
        (reply,) = yield (("EVAL", script.source, len(keys), *keys, *arguments),)
    return reply


def _set(name: str, data: bytes, ttl: float | None) -> Command:
    if _endless(ttl):
        return ("SET", name, data)
    return ("SET", name, data, "PX", _milliseconds(ttl))


def _scan(cursor: Any, prefix: str, suffix: str) -> Command:
    escaped = re.sub(r"([*?\[\]\\^])", r"\\\1", prefix)
    return ("SCAN", cursor, "MATCH", f"{escaped}*{suffix}", "COUNT", NAMES)


def _endless(ttl: float | None) -> bool:
    return ttl is None or ttl >= FOREVER


def _milliseconds(seconds: float | None) -> int:
    assert seconds is not None
    return max(1, math.ceil(min(seconds, FOREVER) * 1000))


def _text(mark: bytes | None) -> str | None:
    return None if mark is None else mark.decode("utf-8", "replace")


# --- their drivers ------------------------------------------------------------------------------


def _drive(runner: Client, steps: _Steps[_T]) -> _T:
    try:
        commands = next(steps)
        while True:
            try:
                replies = runner.batch(commands)
            except NoScriptError as error:
                commands = steps.throw(error)
            else:
                commands = steps.send(replies)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def _drive_async(runner: AsyncClient, steps: _Steps[_T]) -> _T:
    try:
        commands = next(steps)
        while True:
            try:
                replies = await runner.batch(commands)
            except NoScriptError as error:
                commands = steps.throw(error)
            else:
                commands = steps.send(replies)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


class RedisBackend:
    """A `Backend` in Redis, for threads.

    Attributes:
        where: Host and port, or the path of the socket: for messages.
    """

    def __init__(self, url: str) -> None:
        """Read the URL; nothing is connected yet.

        Args:
            url: `redis://`, `rediss://` or `unix://`, as redis-py reads it.

        Raises:
            ValueError: If it is no such URL; the message does not show it.
        """
        self._client = client(url)
        self.where: str = self._client.where

    def get(self, name: str) -> bytes | None:
        """As `Backend.get`."""
        return _drive(self._client, _get(name))

    def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """As `Backend.get_many`."""
        return _drive(self._client, _get_many(names))

    def put(self, name: str, data: bytes, ttl: float | None) -> None:
        """As `Backend.put`."""
        _drive(self._client, _put(name, data, ttl))

    def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None) -> None:
        """As `Backend.put_many`."""
        _drive(self._client, _put_many(entries, ttl))

    def delete(self, name: str) -> bool:
        """As `Backend.delete`."""
        return _drive(self._client, _delete(name))

    def clear(self, prefix: str) -> int:
        """As `Backend.clear`."""
        return _drive(self._client, _clear(prefix))

    def count(self, prefix: str) -> int:
        """As `Backend.count`."""
        return _drive(self._client, _count(prefix))

    def take(self, name: str, token: str, seconds: float) -> str | None:
        """As `Backend.take`."""
        return _drive(self._client, _take(name, token, seconds))

    def renew(self, name: str, token: str, seconds: float) -> bool:
        """As `Backend.renew`."""
        return _drive(self._client, _renew(name, token, seconds))

    def release(self, name: str, token: str) -> None:
        """As `Backend.release`."""
        _drive(self._client, _release(name, token))

    def seize(self, name: str, token: str, seconds: float, mark: str) -> bool:
        """As `Backend.seize`."""
        return _drive(self._client, _seize(name, token, seconds, mark))

    def settle(self, name: str, token: str, data: bytes, ttl: float | None) -> bool:
        """As `Backend.settle`."""
        return _drive(self._client, _settle(name, token, data, ttl))

    def get_and_take(
        self, name: str, token: str, seconds: float
    ) -> tuple[bytes | None, str | None]:
        """As `Backend.get_and_take`."""
        return _drive(self._client, _get_and_take(name, token, seconds))

    def close(self) -> None:
        """Close idle connections, those of others with the same URL too; they connect again."""
        self._client.close()


class AsyncRedisBackend:
    """An `AsyncBackend` in Redis; each event loop that uses it has connections of its own.

    Attributes:
        where: As in `RedisBackend`.
    """

    def __init__(self, url: str) -> None:
        """Read the URL; as `RedisBackend`, and outside of event loops too."""
        self._url = url
        self.where: str = client(url).where

    async def get(self, name: str) -> bytes | None:
        """As `Backend.get`."""
        return await self._drive(_get(name))

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """As `Backend.get_many`."""
        return await self._drive(_get_many(names))

    async def put(self, name: str, data: bytes, ttl: float | None) -> None:
        """As `Backend.put`."""
        await self._drive(_put(name, data, ttl))

    async def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None) -> None:
        """As `Backend.put_many`."""
        await self._drive(_put_many(entries, ttl))

    async def delete(self, name: str) -> bool:
        """As `Backend.delete`."""
        return await self._drive(_delete(name))

    async def clear(self, prefix: str) -> int:
        """As `Backend.clear`."""
        return await self._drive(_clear(prefix))

    async def count(self, prefix: str) -> int:
        """As `Backend.count`."""
        return await self._drive(_count(prefix))

    async def take(self, name: str, token: str, seconds: float) -> str | None:
        """As `Backend.take`."""
        return await self._drive(_take(name, token, seconds))

    async def renew(self, name: str, token: str, seconds: float) -> bool:
        """As `Backend.renew`."""
        return await self._drive(_renew(name, token, seconds))

    async def release(self, name: str, token: str) -> None:
        """As `Backend.release`."""
        await self._drive(_release(name, token))

    async def seize(self, name: str, token: str, seconds: float, mark: str) -> bool:
        """As `Backend.seize`."""
        return await self._drive(_seize(name, token, seconds, mark))

    async def settle(self, name: str, token: str, data: bytes, ttl: float | None) -> bool:
        """As `Backend.settle`."""
        return await self._drive(_settle(name, token, data, ttl))

    async def get_and_take(
        self, name: str, token: str, seconds: float
    ) -> tuple[bytes | None, str | None]:
        """As `Backend.get_and_take`."""
        return await self._drive(_get_and_take(name, token, seconds))

    async def close(self) -> None:
        """Close the idle connections of the running loop; they connect again."""
        async_client(self._url).close()

    async def _drive(self, steps: _Steps[_T]) -> _T:
        return await _drive_async(async_client(self._url), steps)
