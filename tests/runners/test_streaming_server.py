"""Streams over HTTP from a server that fails, with the clients that people use.

The server is real, and so are httpx, http.client and FastAPI; only delays are skipped.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from typing import Any

import httpx
import pytest
from documents import DOCS, blocks
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from language_model import LanguageModel, serving

from opero import (
    AllFailedError,
    AttemptTimeout,
    DeadlineExceeded,
    RateLimiter,
    hotpath,
    opero,
    retry_after,
    transient_error,
)
from opero.testing import skip_waits

TOKENS = [f"token {number}" for number in range(5)]
RESILIENT: dict[str, Any] = {
    "retries": 6,
    "retry_on": transient_error,
    "retry_after": retry_after,
}
SHORT = 0.3
"""For how many seconds a client waits for the next event where the server stalls."""

Log = list[str]


@pytest.fixture
def server() -> Iterator[LanguageModel]:
    """Return a server."""
    with serving() as server:
        yield server


def _token(line: str) -> str | None:
    """Return the token of a line; None if it has none."""
    _, data, token = line.rstrip().partition("data: ")
    return token if data and token != "[DONE]" else None


# --- the clients ----------------------------------------------------------------------------------


def by_http_client(url: str, log: Log, read: float = 20.0) -> Iterator[str]:
    """Stream with the standard library."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=read)
    try:
        connection.request("GET", "/stream")
        with connection.getresponse() as response:
            if response.status != 200:
                raise Refused(response)
            while line := response.readline():
                if (token := _token(line.decode())) is not None:
                    yield token
                if b"[DONE]" in line:
                    return
            raise ConnectionError("the stream broke off")  # which `readline` does not tell
    finally:
        connection.close()
        log.append("closed")


class Refused(Exception):
    """The error that people raise for a status with `http.client`."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        super().__init__(response.status)
        self.status = response.status
        self.headers = response.headers


def by_httpx(url: str, log: Log, read: float = 20.0) -> Iterator[str]:
    """Stream with httpx, in a thread."""
    with httpx.Client(timeout=read, trust_env=False) as client:
        try:
            with client.stream("GET", f"{url}/stream") as response:
                response.raise_for_status()
                for line in response.iter_lines():
                    if (token := _token(line)) is not None:
                        yield token
        finally:
            log.append("closed")


async def by_awaited_httpx(url: str, log: Log, read: float = 20.0) -> AsyncIterator[str]:
    """Stream with httpx, in a task."""
    async with httpx.AsyncClient(timeout=read, trust_env=False) as client:
        try:
            async with client.stream("GET", f"{url}/stream") as response:
                response.raise_for_status()
                async for line in response.aiter_lines():
                    if (token := _token(line)) is not None:
                        yield token
        finally:
            log.append("closed")


CLIENTS: dict[str, Callable[..., Any]] = {
    "http.client": by_http_client,
    "httpx": by_httpx,
    "awaited httpx": by_awaited_httpx,
}


class Story:
    """One stream of a client, read to its end or to a token.

    Attributes:
        function: The decorated client.
        log: What the client has noted.
        tokens: What has come.
    """

    def __init__(
        self,
        client: str,
        url: str,
        until: int | None = None,
        read: float = 20.0,
        **options: Any,
    ) -> None:
        self.function: Any = opero(**{**RESILIENT, **options})(CLIENTS[client])
        self.log: Log = []
        self.tokens: list[str] = []
        self._url = url
        self._until = until
        self._read = read

    def read(self) -> list[str]:
        """Read it; the tokens are there even if it breaks."""
        with skip_waits():
            if self.function.__wrapped__ is by_awaited_httpx:
                asyncio.run(self._read_later())
            else:
                with closing(self.function(self._url, self.log, self._read)) as tokens:
                    for token in tokens:
                        self.tokens.append(token)
                        if len(self.tokens) == self._until:
                            break
        return self.tokens

    async def _read_later(self) -> None:
        async with aclosing(self.function(self._url, self.log, self._read)) as tokens:
            async for token in tokens:
                self.tokens.append(token)
                if len(self.tokens) == self._until:
                    break


every_client = pytest.mark.parametrize("client", CLIENTS)


# --- before the first token -----------------------------------------------------------------------


@every_client
def test_a_stream_is_tried_until_it_speaks(
    core: hotpath.Core, server: LanguageModel, client: str
) -> None:
    """Whatever fails first, each attempt closes its connection before the next one."""
    script = ["hangs up", "503", "429 after 2", "0 and dies", "stalls", "5 tokens"]
    server.script = script.copy()
    story = Story(client, server.url, read=SHORT, retries=20)
    assert story.read() == TOKENS
    assert server.closed.acquire(timeout=20)
    assert server.seen[:6] == script
    stats = story.function.stats()
    assert (stats.calls, stats.retries, stats.failures) == (1, stats.attempts - 1, 0)
    assert stats.attempts == len(story.log)  # six, unless the machine is very busy
    assert stats.backoff_wait >= 2


@every_client
def test_a_server_that_never_speaks_is_given_up(
    core: hotpath.Core, server: LanguageModel, client: str
) -> None:
    """The error holds all attempts' errors; other statuses are raised immediately."""
    server.script = ["503"]
    story = Story(client, server.url, retries=3)
    with pytest.raises(AllFailedError) as raised:
        story.read()
    assert len(raised.value.errors) == len(server.seen) == 3
    assert story.log == ["closed"] * 3
    assert story.tokens == []


@every_client
def test_the_next_host_is_asked_before_the_first_token(
    core: hotpath.Core, server: LanguageModel, client: str
) -> None:
    """After the first token, no other host is asked."""
    with serving() as backup:
        server.script, backup.script = ["503", "2 and dies"], ["5 tokens"]
        story = Story(client, server.url, retries=1, arg_fallback={"url": [backup.url]})
        assert story.read() == TOKENS
        story.tokens.clear()
        with pytest.raises((httpx.RemoteProtocolError, ConnectionError, http.client.HTTPException)):
            story.read()
        assert story.tokens == TOKENS[:2]
        assert (server.seen, backup.seen) == (["503", "2 and dies"], ["5 tokens"])


@every_client
def test_every_attempt_pays_a_permit_and_no_token_does(
    core: hotpath.Core, server: LanguageModel, client: str
) -> None:
    """Three attempts take three permits."""
    server.script = ["503", "503", "5 tokens"]
    limiter = RateLimiter(0.001, burst=4)
    story = Story(client, server.url, rate_limit=limiter, retry_after=None)
    assert story.read() == TOKENS
    assert limiter.try_acquire()
    assert not limiter.try_acquire()


def test_an_attempt_that_stalls_before_its_first_token_is_cut(
    core: hotpath.Core, server: LanguageModel
) -> None:
    """By an `attempt_timeout=` below the client's own, or by the deadline of the call."""
    server.script = ["stalls", "5 tokens"]
    story = Story("awaited httpx", server.url, attempt_timeout=SHORT, retries=20)
    assert story.read() == TOKENS
    assert server.closed.acquire(timeout=20)
    assert len(story.log) == story.function.stats().attempts >= 2

    server.script = ["stalls"]
    story = Story("awaited httpx", server.url, attempt_timeout=0.05, retries=2)
    with pytest.raises(AllFailedError) as raised:
        story.read()
    assert [type(error) for error in raised.value.errors] == [AttemptTimeout] * 2
    story = Story("awaited httpx", server.url, timeout=SHORT)
    with pytest.raises(DeadlineExceeded):
        story.read()
    assert story.log == ["closed"]


# --- behind the first token -----------------------------------------------------------------------


@every_client
@pytest.mark.parametrize("end", ["dies", "stalls"])
def test_a_stream_that_breaks_later_is_the_callers(
    core: hotpath.Core, server: LanguageModel, client: str, end: str
) -> None:
    """The client's own error follows the tokens; there is no second attempt."""
    server.script = [f"3 and {end}"]  # and again, if the machine is too busy for the first token
    read = 20.0 if end == "dies" else SHORT
    story = Story(client, server.url, read=read, timeout=60.0, retries=20)
    with pytest.raises(
        (httpx.HTTPError, ConnectionError, TimeoutError, http.client.HTTPException)
    ) as raised:
        story.read()
    assert not isinstance(raised.value, AllFailedError)
    assert story.tokens == TOKENS[:3]
    assert story.function.stats().retries == len(server.seen) - 1 == len(story.log) - 1
    if end == "stalls":
        assert server.closed.acquire(timeout=20)


@every_client
def test_a_caller_who_leaves_closes_the_connection(
    core: hotpath.Core, server: LanguageModel, client: str
) -> None:
    """Immediately, so that the server stops sending."""
    server.script = ["503", "3 and stalls"]
    story = Story(client, server.url, until=2)
    assert story.read() == TOKENS[:2]
    assert story.log == ["closed"] * 2
    assert server.closed.acquire(timeout=20)


@pytest.mark.once
def test_the_server_sees_a_client_leave_that_has_not_read_everything(server: LanguageModel) -> None:
    """The system then resets the connection instead of closing it."""
    server.script = ["3 and stalls"]
    with socket.create_connection(("127.0.0.1", server.server_port)) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: here\r\n\r\n")
        while b"token 2" not in client.recv(10_000, socket.MSG_PEEK):
            pass
    assert server.closed.acquire(timeout=20)


@every_client
def test_a_stream_without_tokens_may_count_as_a_failure(
    core: hotpath.Core, server: LanguageModel, client: str
) -> None:
    """By default it counts as a success."""
    server.script = ["0 tokens"]
    assert Story(client, server.url).read() == []
    server.script = ["0 tokens", "5 tokens"]
    story = Story(client, server.url, retry_on_result=lambda first: first is None)
    assert story.read() == TOKENS
    assert story.function.stats().attempts == 2


# --- what the documentation shows -----------------------------------------------------------------


def _documented(server: LanguageModel, backup: LanguageModel) -> dict[str, Any]:
    """Run the example from the page, with real addresses."""
    page = DOCS / "streams.md"
    [first] = [block for block in blocks(page) if "client.stream" in block.text]
    [second] = [block for block in blocks(page) if "StreamingResponse(" in block.text]
    names: dict[str, Any] = {"__name__": "example"}
    for block in (first, second):
        text = block.text.replace("https://api.example.com", server.url)
        text = text.replace("https://backup.example.com", backup.url)
        text = text.replace("httpx.AsyncClient(", "httpx.AsyncClient(trust_env=False, ")
        exec(compile(text, str(page), "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize(
    ("script", "status", "answer"),
    [
        (["429 after 1", "hangs up", "2 tokens"], 200, "data: token 0\n\ndata: token 1\n\n"),
        (["503"], 503, '{"detail":"no model answers"}'),
        (["0 tokens"], 502, '{"detail":"the model has said nothing"}'),
    ],
)
def test_a_route_streams_what_the_model_says(
    core: hotpath.Core, server: LanguageModel, script: list[str], status: int, answer: str
) -> None:
    """Through FastAPI; the status is known before it is sent."""

    async def ask(names: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(names["app"])
        async with names["client"], httpx.AsyncClient(transport=transport) as client:
            return await client.get("http://app/story", params={"prompt": "hello"})

    with serving() as backup, skip_waits():
        server.script, backup.script = script, ["503"]
        response = asyncio.run(ask(_documented(server, backup)))
    assert (response.status_code, response.text) == (status, answer)


def test_a_route_may_return_the_stream_itself(core: hotpath.Core, server: LanguageModel) -> None:
    """Frameworks see an asynchronous generator, or an ordinary one."""
    app = FastAPI()
    log: Log = []

    @opero(**RESILIENT)
    async def connection() -> AsyncIterator[str]:
        log.append("connecting")
        if log.count("connecting") == 1:
            raise ConnectionError
        yield server.url
        log.append("released")

    @opero(**RESILIENT)
    def settings() -> Iterator[str]:
        log.append("reading")
        if log.count("reading") == 1:
            raise ConnectionError
        yield "settings"
        log.append("read")

    @app.get("/{client}")
    async def tell(
        client: str, url: str = Depends(connection), named: str = Depends(settings)
    ) -> StreamingResponse:
        assert named == "settings"
        return StreamingResponse(opero(**RESILIENT)(CLIENTS[client])(url, log))

    async def ask(client: str) -> str:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport) as asking:
            return (await asking.get(f"http://app/{client}")).text

    for client in ("httpx", "awaited httpx"):
        log.clear()
        server.script = ["503", "5 tokens"]
        with skip_waits():
            assert asyncio.run(ask(client)) == "".join(TOKENS)
        assert log.count("closed") == 2
        assert [log.count(step) for step in ("connecting", "released", "reading", "read")] == [
            2,
            1,
            2,
            1,
        ]


def test_two_streams_at_once_are_two_streams(core: hotpath.Core, server: LanguageModel) -> None:
    """Tasks that read streams of one function do not affect each other."""
    server.script = ["503", "hangs up", "503", *["5 tokens"] * 8]
    function = opero(**{**RESILIENT, "timeout": 60.0})(by_awaited_httpx)

    async def read(log: Log) -> list[str]:
        return [token async for token in function(server.url, log)]

    async def main() -> list[list[str]]:
        return await asyncio.gather(*(read([]) for _ in range(8)))

    with skip_waits():
        assert asyncio.run(main()) == [TOKENS] * 8
    assert function.stats().attempts == 11
