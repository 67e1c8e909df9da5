"""A server that streams tokens as language models do, as server-sent events, and fails on demand.

What it does with each request is said in advance, by a script:

    "N tokens"     N events, and the one that says that this was all
    "N and dies"   N events, and the connection breaks
    "stalls"       the head of an answer, and then nothing
    "N and stalls" N events, and then nothing
    "hangs up"     no answer at all
    "429", "503"   that status; "429 after 2" asks to wait for two seconds
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Does what the server's script says next."""

    protocol_version = "HTTP/1.1"
    server: LanguageModel

    def do_GET(self) -> None:
        """Answer."""
        what = self.server.next()
        if what == "hangs up":
            self.close_connection = True
        elif what[:3] in {"429", "503"}:
            self.refuse(int(what[:3]), what.partition(" after ")[2])
        else:
            self.stream(what)

    do_POST = do_GET  # noqa: N815 - as the base class spells it

    def refuse(self, status: int, after: str) -> None:
        """Send a status."""
        self.send_response(status)
        if after:
            self.send_header("Retry-After", after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def stream(self, what: str) -> None:
        """Send events."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        count, _, end = what.rpartition(" ")
        try:
            self.chunk(": hello\n\n")
            for number in range(int(count.split()[0]) if count[:1].isdigit() else 0):
                self.chunk(f"data: token {number}\n\n")
            if end == "stalls":
                self.wait_for_end()
        except ConnectionError:  # the client has left before a token, or with tokens unread
            if end != "stalls":
                raise
        if end == "stalls":
            self.server.closed.release()
        if end == "tokens":
            self.chunk("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def chunk(self, text: str) -> None:
        """Send a part of the answer."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text.encode()))

    def wait_for_end(self) -> None:
        """Wait until the client has closed the connection."""
        self.connection.settimeout(20)
        while self.connection.recv(1000):
            pass

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the base class
        """Say nothing."""


class LanguageModel(ThreadingHTTPServer):
    """Listens on a free loopback port.

    Attributes:
        script: What is done with the requests to come; the last one is done again and again.
        seen: What was done with those that have come.
        closed: Is released whenever a client closes a connection that has stalled.
    """

    daemon_threads = False
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[str] = []
        self.seen: list[str] = []
        self.closed = threading.Semaphore(0)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    def next(self) -> str:
        """Return what to do next."""
        with self._lock:
            what = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            self.seen.append(what)
        return what


@contextmanager
def serving() -> Iterator[LanguageModel]:
    """Run a server for a while; clients must have closed their connections by the end."""
    with LanguageModel() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
