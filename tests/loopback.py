"""A real HTTP server on a loopback port, and a stand-in for `requests` that finds it.

The examples of the documentation ask hosts that do not exist, by a library that opero does not
need. Here each host name is an address on this machine: one where a server listens, or one where
nothing does. What goes over the wire is real.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

PRICES = {"dune": 9.5, "emma": 8.0}
"""What the books cost that the server knows."""


class Handler(BaseHTTPRequestHandler):
    """Answers what the examples ask."""

    server: Server

    def do_GET(self) -> None:
        """Answer `/data/...`, `/books/...`, and `/report` for those who have the second key."""
        self.server.seen.append(f"GET {self.path}")
        if self.path.startswith("/data/"):
            self.answer(200, {"id": self.path.removeprefix("/data/")})
        elif self.path.startswith("/books/"):
            self.answer_price(self.path.removeprefix("/books/"))
        elif self.headers["Authorization"] == "Bearer backup_key":
            self.answer(200, {self.path.removeprefix("/"): "ready"})
        else:
            self.answer(401, {"error": "wrong key"})

    def do_POST(self) -> None:
        """Send back what came."""
        self.server.seen.append(f"POST {self.path}")
        self.answer(200, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer_price(self, book: str) -> None:
        """Send what a book costs; the first request for each book gets a 503."""
        if book not in PRICES:
            self.answer(404, {"error": "no such book"})
        elif self.server.seen.count(f"GET {self.path}") == 1:
            self.answer(503, {"error": "try again"})
        else:
            self.answer(200, {"price": PRICES[book]})

    def answer(self, status: int, content: Any) -> None:
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the base class
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Listens on a free loopback port.

    Attributes:
        seen: Method and path of each request.
    """

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[str] = []


class RequestException(OSError):
    """Stands for the base of the exceptions of `requests`.

    Attributes:
        response: The answer, if there was one.
    """

    def __init__(self, message: str, response: Response | None = None) -> None:
        super().__init__(message)
        self.response = response


class HTTPError(RequestException):
    """Stands for `requests.HTTPError`."""


class ConnectionError(RequestException):  # noqa: A001 - as in `requests`
    """Stands for `requests.ConnectionError`."""


class Response:
    """Stands for `requests.Response`."""

    def __init__(self, status: int, content: bytes) -> None:
        self.status_code = status
        self.content = content

    def json(self) -> Any:
        """Parse the body."""
        return json.loads(self.content)

    def raise_for_status(self) -> None:
        """Raise for 400 and above."""
        if self.status_code >= 400:
            raise HTTPError(f"{self.status_code} {HTTPStatus(self.status_code).phrase}", self)


class Requests(types.ModuleType):
    """Stands for the module `requests`.

    Attributes:
        hosts: The port on this machine of each host name.
    """

    RequestException = RequestException
    ConnectionError = ConnectionError
    HTTPError = HTTPError

    def __init__(self, hosts: dict[str, int]) -> None:
        super().__init__("requests")
        self.hosts = hosts

    def request(
        self, method: str, url: str, body: bytes | None, headers: dict[str, str]
    ) -> Response:
        """Send a request; a bare host name, as the API reference prints it, is a URL too."""
        parts = urlsplit(url if "://" in url else f"http://{url}/")
        connection = http.client.HTTPConnection("127.0.0.1", self.hosts[parts.netloc], timeout=10)
        try:
            connection.request(method, parts.path or "/", body, headers)
            answer = connection.getresponse()
            return Response(answer.status, answer.read())
        except OSError as error:
            raise ConnectionError(f"{parts.netloc}: {error}") from error
        finally:
            connection.close()

    def get(
        self, url: str, headers: dict[str, str] | None = None, timeout: float | None = None
    ) -> Response:
        """Send GET; every request has the same time limit."""
        return self.request("GET", url, None, headers or {})

    def post(self, url: str, json: Any = None) -> Response:
        """Send POST."""
        return self.request("POST", url, _encode(json), {"Content-Type": "application/json"})


def _encode(content: Any) -> bytes:
    return json.dumps(content).encode()


@contextmanager
def serving() -> Iterator[tuple[Server, Requests]]:
    """Run a server for a while; of the hosts of the examples, the primary one is down."""
    with socket.socket() as closed, Server() as server:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: who connects is refused
        up, down = server.server_port, closed.getsockname()[1]
        hosts = {
            "api.example.com": up,
            "backup.com": up,
            "backup.example.com": up,
            "primary.com": down,
            "primary.example.com": down,
        }
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server, Requests(hosts)
        finally:
            server.shutdown()
            thread.join()
