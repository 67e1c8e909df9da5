"""`transient_error`: what another attempt may mend, told by the shape of a client's exception."""

from __future__ import annotations

import asyncio
import errno
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import requests
from crowd import PATIENCE

from opero import AllFailedError, AttemptTimeout, hotpath, opero, transient_error

once = pytest.mark.once
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
OTHERS = (400, 401, 403, 404, 409, 410, 418, 422, 501, 505, 511)


# --- a real server ---------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Answers `/status/N`, hangs up on `/reset`, is slow on `/slow`, and breaks off on `/broken`."""

    protocol_version = "HTTP/1.1"
    done: threading.Event

    def do_GET(self) -> None:
        """Answer."""
        if self.path == "/reset":
            self.close_connection = True
            return
        if self.path == "/slow":
            self.done.wait(2)
            return
        status = int(self.path.rpartition("/")[2]) if "status" in self.path else 200
        self.send_response(status)
        self.send_header("Content-Length", "100" if self.path == "/broken" else "2")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"ok")
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the base class
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Run a server on a loopback port."""
    done = threading.Event()
    kind = type("MyHandler", (Handler,), {"done": done})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        done.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def nobody() -> Iterator[str]:
    """Give an address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def patience(url: str) -> float:
    """Return after how many seconds a client gives up: soon where that is the test."""
    return 0.3 if url.endswith("/slow") else PATIENCE


def by_httpx(url: str) -> None:
    """Ask with httpx."""
    with httpx.Client(trust_env=False, timeout=patience(url)) as client:
        client.get(url).raise_for_status()


def by_requests(url: str) -> None:
    """Ask with requests."""
    with requests.Session() as session:
        session.trust_env = False
        session.get(url, timeout=patience(url)).raise_for_status()


def by_urllib(url: str) -> None:
    """Ask with urllib."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=patience(url)) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise


async def by_async_httpx(url: str) -> None:
    """Ask with httpx's client for tasks."""
    async with httpx.AsyncClient(trust_env=False, timeout=patience(url)) as client:
        (await client.get(url)).raise_for_status()


def by_awaiting(url: str) -> None:
    """Ask with httpx in an event loop."""
    asyncio.run(by_async_httpx(url))


CLIENTS = {
    "httpx": by_httpx,
    "async httpx": by_awaiting,
    "requests": by_requests,
    "urllib": by_urllib,
}
clients = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)


def raised(client: Callable[[str], None], url: str) -> Exception:
    """Return what a client raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each client has its own
        client(url)
    return caught.value


@once
@clients
def test_the_status_of_an_answer_decides(client: Callable[[str], None], server: str) -> None:
    """Seven of them are worth another attempt."""
    for status in TRANSIENT:
        assert transient_error(raised(client, f"{server}/status/{status}")), status
    for status in OTHERS:
        assert not transient_error(raised(client, f"{server}/status/{status}")), status


@once
@clients
@pytest.mark.parametrize("path", ["/reset", "/slow", "/broken"])
def test_a_lost_connection_and_a_timeout_are_transient(
    client: Callable[[str], None], server: str, path: str
) -> None:
    assert transient_error(raised(client, server + path))


@once
@clients
def test_a_server_that_is_not_there_may_be_there_later(
    client: Callable[[str], None], nobody: str
) -> None:
    assert transient_error(raised(client, nobody))


@once
@clients
def test_what_is_wrong_with_the_url_stays_wrong(client: Callable[[str], None]) -> None:
    assert not transient_error(raised(client, "nonsense://127.0.0.1/"))


@clients
def test_it_is_ready_for_retry_on(
    core: hotpath.Core, client: Callable[[str], None], server: str
) -> None:
    """A 503 is asked three times, a 404 once."""
    fetch = opero(retries=3, min_delay=0, retry_on=transient_error)(client)
    with pytest.raises(AllFailedError):
        fetch(f"{server}/status/503")
    assert fetch.stats().attempts == 3
    with pytest.raises(Exception, match="404"):
        fetch(f"{server}/status/404")
    assert fetch.stats().attempts == 4


# --- look-alikes -----------------------------------------------------------------------------------


def lookalike(module: str, name: str, *bases: str, **attributes: Any) -> Exception:
    """Make an exception as a library has it that is not installed here."""
    base: type[Exception] = Exception
    for each in reversed(bases):
        base = type(each, (base,), {"__module__": module})
    error = type(name, (base,), {"__module__": module})("no")
    for key, value in attributes.items():
        setattr(error, key, value)
    return error


def aws(status: int, code: str = "InternalError") -> Exception:
    """Make a `ClientError` of botocore."""
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return lookalike("botocore.exceptions", "ClientError", response=response)


def from_a_certificate() -> Exception:
    """Make a lost connection whose cause is a certificate."""
    error = lookalike("aiohttp.client_exceptions", "ClientConnectorError", "ClientConnectionError")
    error.__cause__ = ssl.SSLCertVerificationError("expired")
    return error


YES: dict[str, Callable[[], BaseException]] = {
    "ConnectionError": ConnectionError,
    "ConnectionResetError": ConnectionResetError,
    "BrokenPipeError": BrokenPipeError,
    "TimeoutError": TimeoutError,
    "AttemptTimeout": lambda: AttemptTimeout("too long"),
    "name server": lambda: socket.gaierror(socket.EAI_AGAIN, "again"),
    "no route": lambda: OSError(errno.EHOSTUNREACH, "no route to host"),
    "URLError": lambda: urllib.error.URLError(ConnectionRefusedError()),
    "URLError of a name": lambda: urllib.error.URLError(socket.gaierror(-2, "unknown")),
    "end of TLS": lambda: ssl.SSLEOFError(8, "EOF"),
    "IncompleteRead": lambda: http.client.IncompleteRead(b""),
    "aiohttp status": lambda: lookalike(
        "aiohttp.client_exceptions", "ClientResponseError", status=503
    ),
    "aiohttp connection": lambda: lookalike(
        "aiohttp.client_exceptions", "ServerDisconnectedError", "ClientConnectionError"
    ),
    "aiohttp body": lambda: lookalike("aiohttp.client_exceptions", "ClientPayloadError"),
    "botocore 500": lambda: aws(500),
    "botocore throttling": lambda: aws(400, "ThrottlingException"),
    "botocore S3": lambda: aws(503, "SlowDown"),
    "botocore connection": lambda: lookalike(
        "botocore.exceptions", "EndpointConnectionError", "ConnectionError"
    ),
    "botocore timeout": lambda: lookalike(
        "botocore.exceptions", "ReadTimeoutError", "HTTPClientError"
    ),
    "httpx2 timeout": lambda: lookalike("httpx2", "ReadTimeout", "TimeoutException"),
    "httpx2 status": lambda: lookalike("httpx2", "HTTPStatusError", response=httpx.Response(429)),
    "openai connection": lambda: lookalike("openai", "APITimeoutError", "APIConnectionError"),
    "openai status": lambda: lookalike("openai", "RateLimitError", status_code=429),
    "status as an enum": lambda: lookalike("mine", "Mine", status=http.HTTPStatus.BAD_GATEWAY),
    "group": lambda: ExceptionGroup(
        "g", [ConnectionError(), ExceptionGroup("h", [TimeoutError()])]
    ),
}
NO: dict[str, Callable[[], BaseException]] = {
    "ValueError": ValueError,
    "FileNotFoundError": FileNotFoundError,
    "PermissionError": PermissionError,
    "disk full": lambda: OSError(errno.ENOSPC, "no space left"),
    "certificate": lambda: ssl.SSLCertVerificationError("expired"),
    "certificate below": from_a_certificate,
    "aiohttp 404": lambda: lookalike(
        "aiohttp.client_exceptions", "ClientResponseError", status=404
    ),
    "botocore 400": lambda: aws(400, "ValidationException"),
    "a name like a library's": lambda: lookalike("tarfile", "ReadError", "NetworkError"),
    "status as a flag": lambda: lookalike("mine", "Mine", status=True),
    "status as text": lambda: lookalike("mine", "Mine", status="503"),
    "exit code": lambda: lookalike("mine", "Mine", code=3),
    "AllFailedError": lambda: AllFailedError("f failed", [ConnectionError()]),
    "mixed group": lambda: ExceptionGroup("g", [ConnectionError(), ValueError()]),
}


@once
@pytest.mark.parametrize("make", YES.values(), ids=YES)
def test_these_are_transient(make: Callable[[], Exception]) -> None:
    assert transient_error(make())


@once
@pytest.mark.parametrize("make", NO.values(), ids=NO)
def test_these_are_not(make: Callable[[], Exception]) -> None:
    assert not transient_error(make())


class Broken(Exception):
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)

    def __str__(self) -> str:
        raise RuntimeError

    def __bool__(self) -> bool:
        raise RuntimeError


@once
def test_it_raises_nothing() -> None:
    """Errors are anybody's."""
    assert not transient_error(Broken())
    assert not transient_error(lookalike("botocore.exceptions", "ClientError", response={}))
    cycle = ValueError(1)
    cycle.__cause__ = other = ValueError(2)
    other.__cause__ = cycle
    assert not transient_error(cycle)


@once
def test_an_error_of_urllib_without_its_body_is_read(core: hotpath.Core) -> None:
    """As it comes out of another process."""
    error = urllib.error.HTTPError("http://x", 503, "no", Message(), None)
    error.close()  # Python 3.14 warns of one that was not
    del error.__dict__["file"]
    assert transient_error(error)
