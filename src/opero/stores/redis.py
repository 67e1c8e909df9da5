"""Redis as a backend, for threads and for tasks: the same commands, run by two kinds of client.

Each primitive is written once, as a generator: it yields a batch of commands, is sent their
replies, and returns what the primitive returns. `RedisBackend` and `AsyncRedisBackend` drive it.

Entries expire by Redis (`PX`). `swap` is a Lua script, which Redis runs in one step. Names are
looked up with `SCAN`, a thousand at a time, never with `KEYS`, and removed with `UNLINK`, so that
large values do not hold the server up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Sequence
from typing import Any, Final, TypeVar

from opero.clients.redis import Command, NoScriptError, Script, async_client, client

from .backends import Swapped

NAMES: Final = 1000
"""How many names one `SCAN` looks at, and how many commands or names a batch has at most."""

FEW: Final = 100
"""How many entries one `MGET` asks for: its reply has one time limit."""

BATCH: Final = 1 << 20
"""How many bytes one batch of `put_many` has, unless a single entry has more."""

_T = TypeVar("_T")
_Steps = Generator[Sequence[Command], list[Any], _T]
"""A primitive: yields commands, is sent their replies, returns its result."""

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
"""Changes `KEYS[1]` from `ARGV[1]` to `ARGV[2]` for `ARGV[3]` milliseconds; empty is nothing."""


# --- the primitives -----------------------------------------------------------------------------


def _get_many(names: Sequence[str]) -> _Steps[list[bytes | None]]:
    if len(names) == 1:
        return list((yield (("GET", names[0]),)))
    entries: list[bytes | None] = []
    for start in range(0, len(names), NAMES):
        end = min(start + NAMES, len(names))
        batch = [("MGET", *names[few : min(few + FEW, end)]) for few in range(start, end, FEW)]
        for some in (yield batch):
            entries += some
    return entries


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


def _delete(names: Sequence[str]) -> _Steps[list[bool]]:
    there: list[bool] = []
    for start in range(0, len(names), NAMES):
        there += map(bool, (yield [("UNLINK", name) for name in names[start : start + NAMES]]))
    return there


def _scan(prefix: str, suffix: str, after: str) -> _Steps[tuple[list[str], str | None]]:
    pattern = f"{_escaped(prefix)}*{_escaped(suffix)}"
    command = ("SCAN", after or "0", "MATCH", pattern, "COUNT", NAMES)
    ((cursor, names),) = yield (command,)
    found = [name.decode() for name in names if name.isascii()]  # no others are ours
    return found, None if int(cursor) == 0 else str(int(cursor))


def _swap(
    name: str,
    old: bytes | None,
    new: bytes | None,
    ttl: float | None,
    unless: str | None,
    along: tuple[str, bytes, float | None] | None,
) -> _Steps[Swapped]:
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
    try:
        (reply,) = yield (("EVALSHA", _SWAP.digest, len(keys), *keys, *arguments),)
    except NoScriptError:  # the server has never seen it, or has forgotten it
        (reply,) = yield (("EVAL", _SWAP.source, len(keys), *keys, *arguments),)
    return Swapped(*reply)


def _set(name: str, data: bytes, ttl: float | None) -> Command:
    if ttl is None:
        return ("SET", name, data)
    return ("SET", name, data, "PX", _milliseconds(ttl))


def _escaped(text: str) -> str:
    """Let a text stand for itself in a pattern."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)


def _milliseconds(seconds: float | None) -> int | str:
    return "" if seconds is None else max(1, math.ceil(seconds * 1000))


# --- their drivers ------------------------------------------------------------------------------


class _Primitives:
    """What both backends have: each runs the steps of a primitive in its own way.

    Attributes:
        where: Host and port, or the path of the socket: for messages.
    """

    def __init__(self, url: str) -> None:
        """Read the URL; nothing is connected yet, and no event loop has to run.

        Args:
            url: `redis://`, `rediss://` or `unix://`.

        Raises:
            ValueError: If it is no such URL; the message does not show it.
        """
        self._url = url
        self.where: str = client(url).where

    def _drive(self, steps: _Steps[Any]) -> Any:
        raise NotImplementedError

    def get_many(self, names: Sequence[str], /) -> Any:
        """As `Backend.get_many`."""
        return self._drive(_get_many(names))

    def put_many(self, entries: Sequence[tuple[str, bytes]], ttl: float | None, /) -> Any:
        """As `Backend.put_many`."""
        return self._drive(_put_many(entries, ttl))

    def delete(self, names: Sequence[str], /) -> Any:
        """As `Backend.delete`."""
        return self._drive(_delete(names))

    def scan(
        self,
        prefix: str,
        suffix: str,
        after: str,
        expired: bool = False,  # noqa: ARG002
        /,
    ) -> Any:
        """As `Backend.scan`; Redis keeps nothing that has expired."""
        return self._drive(_scan(prefix, suffix, after))

    def swap(
        self,
        name: str,
        old: bytes | None,
        new: bytes | None,
        ttl: float | None,
        unless: str | None = None,
        along: tuple[str, bytes, float | None] | None = None,
        /,
    ) -> Any:
        """As `Backend.swap`."""
        return self._drive(_swap(name, old, new, ttl, unless, along))


class RedisBackend(_Primitives):
    """A `Backend` in Redis, for threads."""

    def close(self) -> None:
        """Close idle connections, those of others with the same URL too; they connect again."""
        client(self._url).close()

    def _drive(self, steps: _Steps[_T]) -> _T:
        runner = client(self._url)
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


class AsyncRedisBackend(_Primitives):
    """An `AsyncBackend` in Redis; each event loop that uses it has connections of its own."""

    async def close(self) -> None:
        """Close the idle connections of the running loop; they connect again."""
        async_client(self._url).close()

    async def _drive(self, steps: _Steps[_T]) -> _T:
        runner = async_client(self._url)
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
