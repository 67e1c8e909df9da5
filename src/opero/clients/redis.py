"""Connections to Redis: one client per URL and process, and one per URL and event loop.

redis-py connects, authenticates, packs commands and parses replies. This module adds what redis-py
does not promise:

- Time. No command is sent twice, and none takes longer than `LIMIT`, including the time to connect,
  whatever the server does. Only the resolver of host names has its own limits.
- Order. A connection that missed a reply is closed and never used again: after an error, a
  cancelled task, or Ctrl-C. So no command gets the reply of another.
- Life. A connection that died while idle is replaced before a command is lost on it. A forked child
  makes its own connections. Those of an event loop are closed when the loop ends.

redis-py's connection pools do not help here. A signal handler that calls a cached function may find
their lock taken by its own thread, and an interrupt may leave it taken. The pool for tasks returns
connections in steps that a second cancellation cuts short, and does not notice a restarted server
until the event loop has polled the socket. Its time limits apply to each piece of a reply, or
mistake a busy loop for a slow server.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import select
import socket
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final

from opero import forks
from opero.real_time import monotonic

try:
    from redis.asyncio import connection as aio
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.backoff import NoBackoff
    from redis.exceptions import (
        AskError,
        ClusterCrossSlotError,
        ClusterError,
        NoScriptError,
        ReadOnlyError,
        RedisError,
        ResponseError,
    )
    from redis.exceptions import TimeoutError as LateError
    from redis.retry import Retry
except ImportError as _error:
    raise ImportError(
        "caches and limits in Redis need the redis package: pip install 'redis>=5.0' platformdirs",
        name="redis",
    ) from _error

from . import redis_url

SILENCE: Final = 0.5
"""Seconds to make a connection; for threads, also the longest pause within a reply.
`?socket_timeout=` in the URL changes it."""

LIMIT: Final = 2 * SILENCE
"""Seconds for a command, connecting included; twice `?socket_timeout=` if the URL has that. Each
further reply of a batch gets the same time after the one before."""

CONNECTIONS: Final = 64
"""The most connections of an event loop's client; `?max_connections=` changes it."""

IDLE: Final = 32
"""How many idle connections a client for threads keeps."""

LATE: Final = 0.05
"""A timer that fires this many seconds late shows that the program was busy, not the server."""

_OF_CLUSTERS: Final = (AskError, ClusterCrossSlotError, ClusterError)
"""The errors of a server in a cluster if another server has the keys, or some of them."""

_IN_CLUSTERS: Final = ("MOVED ", "ASK ", "CROSSSLOT ", "CLUSTERDOWN ")
"""Their messages, for versions of redis-py without these exceptions."""

__all__ = ["AsyncClient", "Client", "Command", "NoScriptError", "Script", "async_client", "client"]

Command = Sequence[Any]
"""The name of a command and its arguments: str, bytes, int or float."""


class Script:
    """A Lua script, which the server knows by its digest once it has run there.

    Attributes:
        source: The script.
        digest: The digest for `EVALSHA`.
    """

    __slots__ = ("digest", "source")

    def __init__(self, source: str) -> None:
        self.source: str = source
        self.digest: str = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class Client:
    """Runs commands for the threads of this process; each command has a connection to itself.

    Attributes:
        where: Host and port, or the path of the socket: for messages, without user and password.
    """

    def __init__(self, url: str) -> None:
        """Read the URL; nothing is connected yet.

        Args:
            url: `redis://`, `rediss://` or `unix://`, as redis-py reads it.

        Raises:
            ValueError: If it is not such a URL, or has a setting that redis-py does not know.
        """
        self._target = _Target(url)
        self.where: str = self._target.where
        self._idle: deque[Any] = deque()

    def run(self, *command: Any) -> Any:
        """Run one command.

        Args:
            command: Its name and its arguments: str, bytes, int or float.

        Returns:
            The reply: bytes, int, list or None.

        Raises:
            redis.RedisError: If the server cannot be reached, does not answer in time, or answers
                with an error.
        """
        return self.batch((command,))[0]

    def batch(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands together and read their replies.

        Returns:
            The replies, in order.

        Raises:
            redis.RedisError: As in `run`. All commands run even if one fails; the first error is
                raised.
        """
        connection = self._take()
        whole = False
        try:
            replies = self._exchange(connection, commands)
            whole = not any(isinstance(reply, ReadOnlyError) for reply in replies)
        except ResponseError as error:  # while connecting
            raise _explained(error) from None
        finally:
            if whole and len(self._idle) < IDLE:
                self._idle.append(connection)
            else:
                connection.disconnect()
        return _checked(replies)

    def script(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script, atomically in Redis; send its source only if the server lacks it.

        Raises:
            redis.RedisError: As in `run`.
        """
        try:
            return self.run("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return self.run("EVAL", script.source, len(keys), *keys, *arguments)

    def close(self) -> None:
        """Close the idle connections. The client can still be used: it connects again."""
        with suppress(IndexError):
            while True:
                self._idle.pop().disconnect()

    def _take(self) -> Any:
        """Get an idle connection that is alive, or a new one that is not connected yet."""
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if _is_quiet(connection._sock):
                    return connection
                connection.disconnect()
        return self._target.for_threads()

    def _exchange(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        limit = self._target.limit
        connection.until = monotonic() + limit
        if connection._sock is None:
            connection.connect()
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(connection.read_response())
            except ResponseError as error:
                replies.append(error)
            connection.until = monotonic() + limit
        return replies


class AsyncClient:
    """Runs commands for the tasks of one event loop; each command has a connection to itself.

    At most `CONNECTIONS` are open; further callers wait for one, at most for `LIMIT`.

    Attributes:
        where: As in `Client`.
    """

    def __init__(self, url: str) -> None:
        """Read the URL, in a running event loop.

        Args:
            url: As in `Client`.

        Raises:
            ValueError: As in `Client`.
        """
        self._target = _Target(url)
        self.where: str = self._target.where
        self._loop = asyncio.get_running_loop()
        self._idle: list[Any] = []
        self._open: set[Any] = set()
        self._places = asyncio.Semaphore(self._target.connections)

    async def run(self, *command: Any) -> Any:
        """Run one command, like `Client.run`."""
        return (await self.batch((command,)))[0]

    async def batch(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands together and read their replies; as `Client.batch`."""
        if self._places.locked():
            try:
                async with asyncio.timeout(self._target.limit):
                    await self._places.acquire()
            except TimeoutError:
                raise LateError(self._late()) from None
        else:
            await self._places.acquire()
        whole = False
        connection = None
        watch = _LoopWatch(self._loop, self._target.limit)
        try:
            connection = watch.connection = self._take()
            replies = await self._exchange(connection, commands, watch)
            whole = not any(isinstance(reply, ReadOnlyError) for reply in replies)
        except (RedisError, OSError) as error:
            if watch.expired:
                raise LateError(self._late()) from error
            if isinstance(error, ResponseError):  # while connecting
                raise _explained(error) from None
            raise
        finally:
            watch.stop()
            if connection is not None:
                if whole:
                    self._idle.append(connection)
                else:
                    self._drop(connection)
            self._places.release()
        return _checked(replies)

    async def script(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script; as `Client.script`."""
        try:
            return await self.run("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self.run("EVAL", script.source, len(keys), *keys, *arguments)

    def close(self) -> None:
        """Close all connections, even those in use, in the client's own event loop."""
        while self._open:
            self._drop(next(iter(self._open)))
        self._idle.clear()

    def bury(self) -> None:
        """Close the sockets of an event loop that is already closed."""
        for connection in self._open:
            _bury(connection)
        self._open.clear()
        self._idle.clear()

    def _late(self) -> str:
        return f"{self.where} did not answer within {self._target.limit:g} s"

    def _take(self) -> Any:
        """Get an idle connection that is alive, or a new one that is not connected yet."""
        while self._idle:
            connection = self._idle.pop()
            if _is_silent(connection):
                return connection
            self._drop(connection)
        connection = self._target.for_tasks()
        self._open.add(connection)
        return connection

    def _drop(self, connection: Any) -> None:
        """Close a connection immediately: send nothing more, and read nothing more."""
        self._open.discard(connection)
        writer = connection._writer
        if writer is not None:
            connection._writer = connection._reader = None
            writer.transport.abort()

    async def _exchange(
        self, connection: Any, commands: Sequence[Command], watch: _LoopWatch
    ) -> list[Any]:
        watch.start()
        if not connection.is_connected:
            await connection.connect()
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except ResponseError as error:
                replies.append(error)
            watch.start()
        return replies


def client(url: str) -> Client:
    """Return the client of this URL for the threads of this process.

    Raises:
        ValueError: As `Client` does.
    """
    found = _clients.get(url)
    return _clients.setdefault(url, Client(url)) if found is None else found


def async_client(url: str) -> AsyncClient:
    """Return the client of this URL for the running event loop.

    It is closed when the loop ends as `asyncio.run` ends it. If a loop is merely closed, its
    sockets are closed when another loop asks for a client.

    Raises:
        ValueError: As `AsyncClient` does.
        RuntimeError: If no event loop is running in this thread.
    """
    loop = asyncio.get_running_loop()
    clients = _loops[loop][0] if loop in _loops else _open_loop(loop)
    found = clients.get(url)
    if found is None:
        found = clients[url] = AsyncClient(url)
    return found


_Clients = dict[str, AsyncClient]

_clients: dict[str, Client] = {}
_loops: dict[asyncio.AbstractEventLoop, tuple[_Clients, AsyncGenerator[None, None]]] = {}
"""The clients of each event loop, by URL, and what closes them when it ends."""
_inherited: list[Any] = []
"""In a forked child, the parent's connections: closing them would disturb its event loop."""


@atexit.register
def _close_clients() -> None:
    for each in list(_clients.values()):
        each.close()


def _after_fork() -> None:
    for each in _clients.values():
        each._idle = deque()
    for clients, _ in _loops.values():
        _inherited.append(dict(clients))
        clients.clear()
    _loops.clear()


forks.register("stores", after_in_child=_after_fork)


def _open_loop(loop: asyncio.AbstractEventLoop) -> _Clients:
    for old in list(_loops):
        if old.is_closed():
            left = _loops.pop(old, None)
            if left is not None:
                for each in left[0].values():
                    each.bury()
    clients: _Clients = {}
    keeper = _keep(loop, clients)
    _loops[loop] = clients, keeper
    with suppress(StopIteration):  # up to its `yield`: the loop knows it, and closes it at its end
        keeper.__anext__().send(None)
    return clients


async def _keep(loop: asyncio.AbstractEventLoop, clients: _Clients) -> AsyncGenerator[None, None]:
    """Close the clients of a loop when the loop closes its asynchronous generators."""
    try:
        yield
    finally:
        _loops.pop(loop, None)
        for each in clients.values():
            each.close()
        await asyncio.sleep(0)  # the sockets are closed a moment later
        await asyncio.sleep(0)


class _LoopWatch:
    """Closes a connection whose reply comes too late.

    Attributes:
        connection: The connection.
        expired: Whether it was closed.
    """

    __slots__ = ("_due", "_limit", "_loop", "_pardoned", "_timer", "connection", "expired")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float) -> None:
        self.connection: Any = None
        self.expired = False
        self._loop = loop
        self._limit = limit
        self._due = 0.0
        self._pardoned = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the time of the next reply."""
        self._due = self._loop.time() + self._limit
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._ring)

    def stop(self) -> None:
        """Close nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _ring(self) -> None:
        timer, self._timer = self._timer, None
        if timer is None:
            return
        now = self._loop.time()
        if now - timer.when() > LATE and not self._pardoned:
            self._pardoned = True  # the reply may have come, but the loop was too busy to read it
            self._due = max(self._due, now + self._limit / 2)
        if now < self._due - 0.001:
            self._timer = self._loop.call_at(self._due, self._ring)
            return
        self.expired = True
        writer = self.connection._writer
        if writer is not None:  # else it is connecting, which has its own limit
            writer.transport.abort()


class _Target:
    """The settings in a URL; makes connections to its server.

    Attributes:
        where: Host and port, or the path of the socket.
        silence: Seconds, see `SILENCE`.
        limit: Seconds, see `LIMIT`.
        connections: See `CONNECTIONS`.
    """

    def __init__(self, url: str) -> None:
        settings = redis_url.read(url)
        kind = settings.pop("connection_class")
        self.where: str = settings.get("path") or (
            f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
        )
        self.silence = redis_url.take_number(settings, "socket_timeout", SILENCE)
        self.limit = self.silence * LIMIT / SILENCE
        self.connections = int(redis_url.take_number(settings, "max_connections", CONNECTIONS))
        settings.setdefault("socket_connect_timeout", self.silence)
        self._settings = settings
        self._kind = _bounded(kind)
        self._aio_kind: Any = getattr(aio, kind.__name__)
        try:
            self.for_threads()
            self.for_tasks()
        except (TypeError, ValueError, RedisError) as error:
            trouble = redis_url.refusal(url, error)
        else:
            return
        raise ValueError(trouble)

    def for_threads(self) -> Any:
        """Make a connection that is not connected yet."""
        made = self._kind(
            **self._settings, socket_timeout=self.silence, retry=Retry(NoBackoff(), 0)
        )
        made.silence = self.silence
        return made

    def for_tasks(self) -> Any:
        """Make a connection for an event loop; `_LoopWatch` limits the time of its replies."""
        return self._aio_kind(
            **self._settings, socket_timeout=None, retry=AsyncRetry(NoBackoff(), 0)
        )


def _checked(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise _explained(reply)
    return replies


def _explained(error: Exception) -> Exception:
    """Return a server's error with a helpful message, without the command's arguments."""
    text = str(error)
    if isinstance(error, _OF_CLUSTERS) or text.startswith(_IN_CLUSTERS) or "cluster" in text:
        return ResponseError(f"{redis_url.CLUSTER} ({type(error).__name__}: {text})")
    said, unknown, _ = text.partition(", with args beginning with")
    if unknown:  # keys and values follow
        return type(error)(f"{said}; if this is a Sentinel: {redis_url.SENTINEL}")
    return error


class _Bounded:
    """A mixin for redis-py's connections: its socket has a time limit.

    Attributes:
        until: The monotonic time of the limit.
        silence: Seconds that one read or write may take.
    """

    until = 0.0
    silence = SILENCE

    def _connect(self) -> Any:
        return _Socket(super()._connect(), self)  # type: ignore[misc]


class _Socket:
    """A socket that never waits beyond its connection's `until`."""

    __slots__ = ("_connection", "_sock")

    def __init__(self, sock: socket.socket, connection: _Bounded) -> None:
        self._sock = sock
        self._connection = weakref.proxy(connection)

    def recv(self, *arguments: Any) -> bytes:
        self._hurry()
        return self._sock.recv(*arguments)

    def recv_into(self, *arguments: Any) -> int:
        self._hurry()
        return self._sock.recv_into(*arguments)

    def sendall(self, *arguments: Any) -> None:
        self._hurry()
        self._sock.sendall(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def _hurry(self) -> None:
        left = self._connection.until - monotonic()
        if left <= 0:
            raise TimeoutError("the time limit of this command has passed")
        self._sock.settimeout(min(left, self._connection.silence))


@cache
def _bounded(kind: type) -> Any:
    """Return a connection class of redis-py with `_Bounded` mixed in."""
    return type(f"Bounded{kind.__name__}", (_Bounded, kind), {})


def _is_quiet(sock: Any) -> bool:
    """Return whether an idle socket is still connected and has nothing to read."""
    try:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(sock.fileno(), select.POLLIN)
            return not poll.poll(0)
        return not select.select([sock], [], [], 0)[0]
    except (OSError, ValueError, AttributeError):
        return False


def _is_silent(connection: Any) -> bool:
    """Return whether an idle connection of an event loop is connected, with nothing to read."""
    reader, writer = connection._reader, connection._writer
    if reader is None or writer is None or reader.at_eof() or writer.transport.is_closing():
        return False
    return not getattr(reader, "_buffer", b"") and _is_quiet(writer.get_extra_info("socket"))


def _bury(connection: Any) -> None:
    """Close the socket of a connection without its event loop, which is closed."""
    writer = connection._writer
    connection._writer = connection._reader = None
    transport: Any = getattr(writer, "transport", None)
    sock = getattr(transport, "_sock", None)
    if sock is not None:
        sock.close()
        transport._closing = True  # else the transport warns about what nobody can fix any more
        transport._sock = None
