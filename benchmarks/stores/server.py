"""A redis-server on a free loopback port: it keeps nothing, and ends with the benchmark."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .place import MissingError

_PATIENCE = 10.0
"""Seconds until a server that does not answer is given up."""


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Run a server.

    Args:
        directory: Where it may write.

    Yields:
        Its URL.

    Raises:
        MissingError: If there is no redis-server on the PATH, or it does not start.
    """
    executable = shutil.which("redis-server")
    if executable is None:
        raise MissingError("there is no redis-server on the PATH")
    port = _free_port()
    command = [
        executable, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory),
        "--save", "", "--appendonly", "no", "--daemonize", "no",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        _wait(process, port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the server answers."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
                sock.sendall(b"PING\r\n")
                if sock.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            time.sleep(0.01)
    raise MissingError("redis-server does not start")
