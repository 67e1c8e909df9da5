"""A real redis-server on a free loopback port: started, stopped, frozen and filled up by tests.

Its data is in memory, its directory is temporary, and it ends with its process: a server that was
started by a test never outlives it, since a helper process kills it when the test's process is
gone, however that ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

EXECUTABLE = shutil.which(os.environ.get("REDIS_SERVER") or "redis-server")
"""None where there is no redis-server; REDIS_SERVER=valkey-server chooses another one."""

_GUARD = """
import os, shutil, signal, sys
sys.stdin.read()  # ends when the process that started the server has ended
try:
    os.kill(int(sys.argv[1]), signal.SIGKILL)
except ProcessLookupError:
    pass
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""


class RedisServer:
    """A server that was started.

    Attributes:
        port: Its port on 127.0.0.1, the same after a restart.
        url: Its URL, with the password if it has one.
        socket: The path of its Unix socket.
    """

    def __init__(self, *options: str, password: str | None = None) -> None:
        """Start it, and wait until it answers.

        Args:
            options: Further options, as on its command line.
            password: What clients have to say.
        """
        if EXECUTABLE is None:
            raise RuntimeError("there is no redis-server on the PATH")
        self.directory = Path(tempfile.mkdtemp(prefix="opero-redis-"))
        self.socket = self.directory / "s"
        self.password = password
        self._options = list(options)
        if password:
            self._options += ["--requirepass", password]
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self.port = 0
        for _ in range(20):  # somebody else may take the free port first
            self.port = free_port()
            try:
                self.start()
            except RuntimeError:
                continue
            return
        log = self._log()
        self.close()
        raise RuntimeError("redis-server does not start: " + log)

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the port it had before; empty."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(EXECUTABLE), "--port", str(self.port), "--bind", "127.0.0.1",
                    "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no",
                    "--dir", str(self.directory), "--daemonize", "no", *self._options,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD, str(self._process.pid), str(self.directory)],
            stdin=subprocess.PIPE,
        )
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                self.command("PING")
                return
            except OSError:
                time.sleep(0.005)
        self.stop()
        raise RuntimeError("redis-server does not answer: " + self._log())

    def stop(self) -> None:
        """Kill it, frozen or not; clients see their connections closed."""
        if self._guard is not None:
            self._guard.kill()
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop it and start it on the same port, empty."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Let it not answer any more; connections are still accepted, by the kernel."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def fill(self) -> None:
        """Let it refuse to store anything, as a server does whose memory is full."""
        self.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.command("CONFIG", "SET", "maxmemory", "1")

    def drain(self) -> None:
        """Let it store again."""
        self.command("CONFIG", "SET", "maxmemory", "0")

    def command(self, *words: str | bytes) -> Any:
        """Run a command over a connection of its own, without redis-py.

        Raises:
            OSError: If it cannot be reached, or answers with an error.
        """
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        with sock, sock.makefile("rwb") as stream:
            if self.password:
                _send(stream, ["AUTH", self.password])
                _receive(stream)
            _send(stream, words)
            return _receive(stream)

    def close(self) -> None:
        """Stop it and remove its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-2000:]


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _send(stream: Any, words: Any) -> None:
    parts = [word.encode() if isinstance(word, str) else word for word in words]
    stream.write(b"*%d\r\n" % len(parts))
    for part in parts:
        stream.write(b"$%d\r\n%b\r\n" % (len(part), part))
    stream.flush()


def _receive(stream: Any) -> Any:
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise OSError("the connection was closed")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise OSError(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else stream.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return [_receive(stream) for _ in range(int(rest))]
    return rest
