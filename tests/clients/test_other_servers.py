"""Servers that are no ordinary Redis: Valkey, and those of a cluster, Sentinels and strangers."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from redis.exceptions import RedisError
from redis_server import RedisServer, free_port

from opero import RateLimiter, opero
from opero.clients.redis import async_client, client

pytestmark = [pytest.mark.once, pytest.mark.redis]


@pytest.fixture(params=["threads", "tasks"])
def batch(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs commands of a thread, or of a task."""
    if request.param == "threads":
        return lambda url, *commands: client(url).batch(commands)

    async def in_task(url: str, commands: Any) -> Any:
        return await async_client(url).batch(commands)

    return lambda url, *commands: asyncio.run(in_task(url, commands))


@pytest.mark.parametrize("scheme", ["valkey", "VALKEY", "redis"])
def test_a_url_may_say_valkey(batch, redis_server: RedisServer, scheme: str) -> None:  # type: ignore[no-untyped-def]
    url = redis_server.url.replace("redis", scheme)
    assert batch(url, ("SET", "a", "1"), ("GET", "a")) == [b"OK", b"1"]
    client(url).close()


@contextmanager
def answering(reply: str) -> Iterator[str]:
    """A server that knows one answer; gives its URL."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                sock = listener.accept()[0]
                with sock:
                    sock.settimeout(10)
                    while sock.recv(65536):
                        sock.sendall(reply.encode() + b"\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield url
        finally:
            client(url).close()
            listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize(
    "reply",
    [
        "MOVED 3999 127.0.0.1:6381",
        "ASK 3999 127.0.0.1:6381",
        "CROSSSLOT Keys in request don't hash to the same slot",
        "CLUSTERDOWN Hash slot not served",
        "ERR SELECT is not allowed in cluster mode",
    ],
)
def test_a_server_of_a_cluster_gets_a_clear_answer(batch, reply: str) -> None:  # type: ignore[no-untyped-def]
    with answering(f"-{reply}") as url:
        for where in (url, f"{url}/3"):
            with pytest.raises(RedisError, match=r"does not use Redis Cluster.*Error: "):
                batch(where, ("GET", "key"))
            client(where).close()


def test_a_sentinel_gets_a_clear_answer_without_what_was_asked(batch) -> None:  # type: ignore[no-untyped-def]
    """Such a server, and one where a command was renamed, repeats keys and values."""
    with answering("-ERR unknown command 'SET', with args beginning with: 'k' 's3cr3t' ") as url:
        with pytest.raises(
            RedisError, match=r"unknown command 'SET'.*does not ask a Sent"
        ) as caught:
            batch(url, ("SET", "k", "s3cr3t"))
        assert "s3cr3t" not in str(caught.value)


def test_a_command_whose_reply_is_lost_is_not_sent_again(batch) -> None:  # type: ignore[no-untyped-def]
    """The server may have done it."""
    seen: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                sock = listener.accept()[0]
                with sock:
                    seen.append(sock.recv(65536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}?retry_on_timeout=yes"
        for command in (("INCR", "a"), ("EVALSHA", "0" * 40, 0)):
            with pytest.raises(RedisError):
                batch(url, command)
        client(url).close()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert [command.split(b"\r\n")[2] for command in seen] == [b"INCR", b"EVALSHA"]


def same(value: int) -> int:
    """Stand for what is cached."""
    return value


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisServer]:
    """A server in cluster mode, which knows of no other and has no slots."""
    with RedisServer("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        yield server


def test_caches_and_limits_go_on_without_a_cluster_and_say_why(
    cluster: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"redis://127.0.0.1:{cluster.port}"
    cached = opero(cache=True, cache_backend="redis", cache_url=url)(same)
    assert [cached(1), cached(1)] == [1, 1]
    with RateLimiter(1000, scope="redis", name="x", url=url):
        pass
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all("opero does not use Redis Cluster" in line for line in said)
    client(url).close()
