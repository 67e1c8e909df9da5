"""Two small HTTP clients, one for threads and one for tasks: what a user would decorate.

Both make one request on a connection of their own, turn every status but 200 into `BadStatus`, and
let a stalled socket end as `TimeoutError`, so that one `retry_on` serves both.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

TRANSIENT: Final = frozenset({429, 500, 502, 503, 504})
"""Statuses that may be gone at the next attempt."""


class BadStatus(Exception):
    """The server answered, but not with what was asked for.

    Attributes:
        status: The HTTP status.
        path: What was asked for, without the query.
    """

    def __init__(self, status: int, path: str) -> None:
        super().__init__(status, path)
        self.status = status
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} answered {self.status}"


def transient(error: BaseException) -> bool:
    """Whether another attempt may succeed: the predicate that the demo gives to `retry_on`."""
    if isinstance(error, BadStatus):
        return error.status in TRANSIENT
    return isinstance(error, (OSError, http.client.HTTPException))


def fetch(address: str, path: str, key: str = "", by: str = "", timeout: float = 5.0) -> str:
    """Ask the server once, from a thread.

    Args:
        address: `host:port`.
        path: The path without its query.
        key: What to ask for.
        by: Who asks.
        timeout: Seconds that each wait on the socket may take.

    Returns:
        The text of the answer.

    Raises:
        BadStatus: The answer was another than 200.
        TimeoutError: The server stalled.
        OSError: The server could not be reached, or went away.
    """
    with _answered(address, path, key, by, timeout) as response:
        return response.read().decode()


def lines(address: str, path: str, key: str, by: str = "", timeout: float = 5.0) -> Iterator[str]:
    """Ask the server once, from a thread, and yield each line of its answer as it comes.

    Args:
        address: `host:port`.
        path: The path without its query.
        key: What to ask for.
        by: Who asks.
        timeout: Seconds that each wait on the socket may take.

    Raises:
        BadStatus: The answer was another than 200.
        http.client.IncompleteRead: The server went away in the middle of it.
        OSError: The server could not be reached, or went away before it had answered.
    """
    with _answered(address, path, key, by, timeout) as response:
        while line := response.readline():
            yield line.decode().rstrip()
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)


@contextmanager
def _answered(
    address: str, path: str, key: str, by: str, timeout: float
) -> Iterator[http.client.HTTPResponse]:
    """Ask on a connection of its own, and give out an answer whose status is 200."""
    host, _, port = address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
    try:
        connection.request("GET", _target(path, key, by), headers={"Connection": "close"})
        response = connection.getresponse()
        if response.status != HTTPStatus.OK:
            response.read()  # the server is not to find that its client has hung up
            raise BadStatus(response.status, path)
        yield response
    finally:
        connection.close()


async def lines_async(
    address: str, path: str, key: str, by: str = "", timeout: float = 5.0
) -> AsyncIterator[str]:
    """Do what `lines` does, from a task.

    Args:
        address: `host:port`.
        path: The path without its query.
        key: What to ask for.
        by: Who asks.
        timeout: Seconds that the head of the answer may take.

    Raises:
        ConnectionError: The server could not be reached, or went away.
    """
    async with _asked(address, path, key, by) as reader:
        try:
            told = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout)
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the server went away before it had answered") from error
        left = int(told.decode("latin-1").lower().partition("content-length: ")[2].split()[0])
        while left:
            line = await reader.readline()
            if not line:
                raise ConnectionError(f"the server went away {left} bytes before the end")
            left -= len(line)
            yield line.decode().rstrip()


async def fetch_async(
    address: str, path: str, key: str = "", by: str = "", timeout: float = 5.0
) -> str:
    """Ask the server once, from a task.

    Args:
        address: `host:port`.
        path: The path without its query.
        key: What to ask for.
        by: Who asks.
        timeout: Seconds that the answer may take.

    Returns:
        The text of the answer.

    Raises:
        BadStatus: The answer was another than 200.
        TimeoutError: The server stalled.
        OSError: The server could not be reached, or went away.
    """
    async with _asked(address, path, key, by) as reader:
        try:
            status, body = await asyncio.wait_for(_answer(reader), timeout)
        except TimeoutError:
            raise TimeoutError(f"{path} said nothing for {timeout:g} s") from None
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the server went away before it had answered") from error
    if status != HTTPStatus.OK:
        raise BadStatus(status, path)
    return body.decode()


@asynccontextmanager
async def _asked(address: str, path: str, key: str, by: str) -> AsyncIterator[asyncio.StreamReader]:
    """Ask on a connection of its own, and give out what reads the answer."""
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        target = _target(path, key, by)
        head = f"GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode("ascii"))
        yield reader
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.rstrip().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines)
    body = await reader.readexactly(int(fields["content-length"]))
    return int(status_line.split(" ")[1]), body


def _target(path: str, key: str, by: str) -> str:
    query = urlencode({name: value for name, value in (("key", key), ("by", by)) if value})
    return f"{path}?{query}" if query else path
