"""A real HTTP server that misbehaves on purpose, and remembers who asked for what and when.

It listens on a free loopback port and runs in one thread of its own. What goes wrong is a pure
function of the seed, the key and how often that key was asked for, so a promise about it can be
checked; *when* requests arrive is the server's own observation, taken from the monotonic clock as
it reads them.

    client -> request -> Arrival in the log -> what the path does -> response (or a hang-up)

    /item      answers 200
    /flaky     fails, stalls and says 429 in the order of `troubles(seed, key)`, then answers 200
    /shaky     answers 500 or hangs up in the order of `mishaps(seed, key)`, then answers 200
    /broken    answers 500 for ever
    /backup    answers 200
    /slow      answers 200 after `SLOW` seconds
    /stall     says nothing for `STALL` seconds, or until the client hangs up
    /limited   answers 429 to clients that come faster than the limit it was given
    /changing  the same, for a limit that `allow` changes at any time
    /service   answers 200, but 503 while `down` is set
    /stream    hangs up on the first `DEAF` requests for a key, then sends `TOKENS` line by line; a
               key that begins with "cut" is sent half of them
    anything else answers 404
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal, Self
from urllib.parse import parse_qs, urlsplit

SLOW: Final = 0.3
"""Seconds that `/slow` takes: long enough for a crowd to gather behind one request."""

STALL: Final = 3.0
"""Seconds after which a stalled request is answered after all, so that nothing hangs for ever."""

JITTER: Final = 0.15
"""Seconds by which a permitted request may reach the server late (a busy machine, a sleeping
thread that wakes up late) and so come too close to the next one. Over any window of w seconds the
server therefore lets `burst + rate * (w + JITTER)` requests pass: a bound on bunching, which no
one who is really faster than the rate can stay within."""

START: Final = 10.0
"""Seconds that the server's thread may take to start listening, or to end."""

DEAF: Final = 2
"""Requests for a key on which `/stream` hangs up before it has sent anything."""

TOKENS: Final = ("Once", "upon", "a", "time", "there", "was")
"""What `/stream` sends, a line each."""

BEAT: Final = 0.02
"""Seconds between two tokens of `/stream`."""

MOST_TROUBLES: Final = 3

Trouble = Literal["500", "429", "stall"]
KINDS: Final[tuple[Trouble, ...]] = ("500", "429", "stall")


def troubles(seed: int, key: str) -> tuple[Trouble, ...]:
    """What `/flaky` does to the first requests for a key, before it answers.

    Args:
        seed: The seed of the run.
        key: The key that is asked for. One that ends in a number gets that kind of trouble first,
            counted round, so that a few keys in a row meet every kind whatever the seed is.

    Returns:
        None to `MOST_TROUBLES` kinds of trouble, in order.
    """
    chance = random.Random(f"{seed}/{key}")
    count = chance.randint(0, MOST_TROUBLES)
    drawn = [chance.choice(KINDS) for _ in range(count)]
    tail = key.rpartition("-")[2]
    if tail.isdecimal() and int(tail) < len(KINDS):
        drawn = [KINDS[int(tail)], *drawn[1:]]
    return tuple(drawn)


MOST_MISHAPS: Final = 2

Mishap = Literal["500", "drop"]
MISHAPS: Final[tuple[Mishap, ...]] = ("500", "drop")


def mishaps(seed: int, key: str) -> tuple[Mishap, ...]:
    """What `/shaky` does to the first requests for a key, before it answers.

    Args:
        seed: The seed of the run.
        key: The key that is asked for. About one in ten meets something; "0" and "1" do for sure,
            so that every run has both kinds.

    Returns:
        None to `MOST_MISHAPS` kinds of mishap, in order.
    """
    if key in {"0", "1"}:
        return (MISHAPS[int(key)],)
    chance = random.Random(f"{seed}/{key}/shaky")
    if chance.random() >= 0.1:
        return ()
    return tuple(chance.choice(MISHAPS) for _ in range(chance.randint(1, MOST_MISHAPS)))


def answer(seed: int, path: str, key: str) -> str:
    """The text that a good answer carries: one of its own for each seed, path and key."""
    return f"{path.lstrip('/')} {key} of {seed}"


@dataclass(slots=True)
class Arrival:
    """One request as the server saw it.

    Attributes:
        at: When it was read, in seconds of the monotonic clock.
        path: The path without its query.
        key: What was asked for.
        by: Who asked, as the client says.
        nth: How many requests for this path and key came before it from the same client.
        status: What it was answered; 0 for nothing.
        stalled: Whether the server held the answer back.
        dropped: Whether the server hung up instead of answering.
        hung_up: Whether the client went away before it was answered.
    """

    at: float
    path: str
    key: str
    by: str
    nth: int
    status: int = 0
    stalled: bool = False
    dropped: bool = False
    hung_up: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """The rate that `/limited` holds its clients to.

    Attributes:
        rate: Requests per second.
        burst: Requests that may come at once after a rest.
    """

    rate: float
    burst: int

    def excess(self, times: Iterable[float]) -> float:
        """How far the worst window lies above `burst + rate * window`.

        Args:
            times: Arrivals, in seconds.

        Returns:
            The largest number of requests too many over all windows; negative or zero when the
            limit was kept to the letter. Minus infinity when nothing arrived.
        """
        worst = lowest = float("-inf")
        for index, at in enumerate(sorted(times)):
            level = index - self.rate * at
            lowest = level if index == 0 else min(lowest, level)
            worst = max(worst, level - lowest + 1 - self.burst)
        return worst

    def pace(self, times: Iterable[float]) -> float | None:
        """Requests per second once the burst had been used up.

        Args:
            times: Arrivals, in seconds.

        Returns:
            The rate, or None when there was nothing beyond the burst.
        """
        ordered = sorted(times)
        if len(ordered) <= self.burst:
            return None
        return (len(ordered) - self.burst) / max(ordered[-1] - ordered[0], 1e-9)

    @property
    def tolerated(self) -> float:
        """Requests above the limit that `JITTER` explains."""
        return self.rate * JITTER


class Gate:
    """Says of each arrival whether the limit, `JITTER` allowed for, still holds with it.

    Deliberately not opero's own bucket: a leaking level of requests, so that one mistake cannot
    hide in both.
    """

    __slots__ = ("_at", "_level", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit: Limit = limit
        self._level = 0.0
        self._at = float("-inf")

    def admits(self, at: float) -> bool:
        """Count an arrival and say whether it was within the limit.

        Args:
            at: When it arrived, in seconds; never earlier than the one before.
        """
        leaked = self.limit.rate * (at - self._at)
        self._level = max(0.0, self._level - leaked) + 1.0
        self._at = at
        return self._level <= self.limit.burst + self.limit.tolerated


class DemoServer:
    """The server: a context manager that listens while it is entered.

    Attributes:
        seed: What decides its troubles.
        limit: What `/limited` allows.
        address: `host:port` while it listens.
        down: Whether `/service` is out of order.
    """

    def __init__(self, seed: int, limit: Limit) -> None:
        """Prepare a server that does not listen yet.

        Args:
            seed: Decides which requests fail, stall or are refused.
            limit: What `/limited` allows.
        """
        self.seed = seed
        self.limit = limit
        self.address: str = ""
        self.down = False
        self._gate = Gate(limit)
        self._changing = Gate(limit)
        self._log: list[Arrival] = []
        self._counts: dict[tuple[str, str, str], int] = {}
        self._open: set[asyncio.Task[None]] = set()
        self._listening = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="opero-demo-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._listening.wait(START):
            raise RuntimeError(f"the demo server did not start within {START:g} s")
        if self._failure is not None:
            raise RuntimeError("the demo server could not start") from self._failure
        return self

    def __exit__(self, *_: object) -> None:
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            with suppress(RuntimeError):  # the loop has closed: it is over already
                loop.call_soon_threadsafe(stopping.set)
        self._thread.join(START)

    def allow(self, limit: Limit) -> None:
        """Change the limit of `/changing`, from now on."""
        self._changing = Gate(limit)

    def seen(self, path: str, key: str | None = None, by: str | None = None) -> list[Arrival]:
        """The requests for a path so far, in the order they arrived.

        Args:
            path: The path without its query.
            key: Only those for this key.
            by: Only those of this client.
        """
        return [
            arrival
            for arrival in tuple(self._log)
            if arrival.path == path
            and (key is None or arrival.key == key)
            and (by is None or arrival.by == by)
        ]

    def eventually(self, happened: Callable[[], bool], within: float = 2.0) -> bool:
        """Wait for something that the server notices a moment after its client does.

        Args:
            happened: Says whether it has.
            within: Seconds to wait at most.

        Returns:
            Whether it happened in time.
        """
        end = time.monotonic() + within
        while not happened():
            if time.monotonic() >= end:
                return False
            time.sleep(0.005)
        return True

    @property
    def talking(self) -> int:
        """How many connections are open."""
        return len(self._open)

    @property
    def closed(self) -> bool:
        """Whether it is over: no thread, no conversation, and no one listens at its port."""
        if self._thread.is_alive() or self._open:
            return False
        host, _, port = self.address.partition(":")
        try:
            socket.create_connection((host, int(port)), timeout=1.0).close()
        except OSError:
            return True
        return False

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - reported to the thread that waits for the server to start
            self._failure = error
        finally:
            self._listening.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1024)
        host, port = server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        self._listening.set()
        await self._stopping.wait()
        server.close()
        if self._open:  # stalls end by themselves now: they wait for this moment too
            _, late = await asyncio.wait(tuple(self._open), timeout=START / 2)
            for task in late:
                task.cancel()
        await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, EOFError, ValueError):
            pass  # a client that went away, or never spoke HTTP
        finally:
            self._open.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        at = time.monotonic()
        _method, target, _version = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        arrival = self._note(at, target)
        status, wait = self._decide(arrival)
        if wait and await self._hold_back(wait, reader):
            arrival.hung_up = True
            return
        if arrival.dropped:
            return
        arrival.status = status
        if arrival.path == "/stream":
            await self._send_tokens(arrival.key, writer)
            return
        text = answer(self.seed, arrival.path, arrival.key) if status == HTTPStatus.OK else ""
        writer.write(_response(status, text))
        await writer.drain()

    def _note(self, at: float, target: str) -> Arrival:
        url = urlsplit(target)
        query = parse_qs(url.query)
        key = query.get("key", [""])[0]
        by = query.get("by", [""])[0]
        nth = self._counts.get((url.path, key, by), 0)
        self._counts[url.path, key, by] = nth + 1
        arrival = Arrival(at, url.path, key, by, nth)
        self._log.append(arrival)
        return arrival

    def _decide(self, arrival: Arrival) -> tuple[int, float]:
        """The status to answer, and the seconds to hold it back."""
        if arrival.path == "/flaky":
            planned = troubles(self.seed, arrival.key)
            trouble = planned[arrival.nth] if arrival.nth < len(planned) else None
            if trouble == "stall":
                arrival.stalled = True
                return HTTPStatus.OK, STALL
            return int(trouble or HTTPStatus.OK), 0.0
        if arrival.path == "/shaky":
            met = mishaps(self.seed, arrival.key)
            mishap = met[arrival.nth] if arrival.nth < len(met) else None
            arrival.dropped = mishap == "drop"
            return (int(mishap) if mishap == "500" else HTTPStatus.OK), 0.0
        if arrival.path == "/limited":
            admitted = self._gate.admits(arrival.at)
            return (HTTPStatus.OK if admitted else HTTPStatus.TOO_MANY_REQUESTS), 0.0
        if arrival.path == "/changing":
            admitted = self._changing.admits(arrival.at)
            return (HTTPStatus.OK if admitted else HTTPStatus.TOO_MANY_REQUESTS), 0.0
        if arrival.path == "/service":
            return (HTTPStatus.SERVICE_UNAVAILABLE if self.down else HTTPStatus.OK), 0.0
        if arrival.path == "/stream":
            arrival.dropped = arrival.nth < DEAF
            return HTTPStatus.OK, 0.0
        if arrival.path == "/stall":
            arrival.stalled = True
            return HTTPStatus.OK, STALL
        if arrival.path == "/slow":
            return HTTPStatus.OK, SLOW
        if arrival.path == "/broken":
            return HTTPStatus.INTERNAL_SERVER_ERROR, 0.0
        if arrival.path in ("/item", "/backup"):
            return HTTPStatus.OK, 0.0
        return HTTPStatus.NOT_FOUND, 0.0

    async def _send_tokens(self, key: str, writer: asyncio.StreamWriter) -> None:
        """Send the tokens line by line, or half of them."""
        tokens = TOKENS[: len(TOKENS) // 2] if key.startswith("cut") else TOKENS
        length = sum(len(token) + 1 for token in TOKENS)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode("ascii"))
        for token in tokens:
            writer.write(f"{token}\n".encode("ascii"))
            await writer.drain()
            await asyncio.sleep(BEAT)

    async def _hold_back(self, seconds: float, reader: asyncio.StreamReader) -> bool:
        """Wait before an answer; return early when the client leaves or the server stops.

        Returns:
            Whether the client hung up.
        """
        assert self._stopping is not None
        gone = asyncio.ensure_future(reader.read(1))
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({gone, stop}, timeout=seconds, return_when="FIRST_COMPLETED")
            return gone.done()
        finally:
            for waiting in (gone, stop):
                waiting.cancel()
            await asyncio.gather(gone, stop, return_exceptions=True)


def _response(status: int, text: str) -> bytes:
    body = text.encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        lines.append("Retry-After: 1")
    return "\r\n".join((*lines, "", "")).encode("ascii") + body
