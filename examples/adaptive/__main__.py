"""Maps with an adaptive rate limit against a real HTTP server whose limit falls and rises.

    python examples/adaptive [--seconds 90] [--settled 10] [--seed 1] [--mode thread] [...]

The server listens on a free loopback port and answers 429 to what is too much, by a token bucket
whose rate follows a profile. It counts what it served and rejected, and knows what it would have
served; the map knows nothing but a rate that is more than the server ever allows. Without `--mode`,
`--profile` or `--asks` all are run, at the same time, each in a process of its own.

It exits with 0 only if each map used more than 85 % of what the server allowed, with less than 2 %
of its requests rejected, after `--settled` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import math
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

from opero import RateLimiter, opmap, retry_after

MOST: Final = 120.0
"""The rate that the map is given, in requests per second."""

BURST: Final = 10
"""Requests that the server serves at once after a rest."""

LATENCY: Final = 0.02
"""Seconds that the server takes for an answer, about."""

SHARE: Final = 0.85
REJECTED: Final = 0.02

PROFILES: Final[dict[str, Callable[[float], float]]] = {
    "is constant": lambda _: 50.0,
    "falls to a tenth and rises": lambda part: 10.0 if 1 / 3 <= part < 2 / 3 else 100.0,
    "goes up and down": lambda part: 60.0 + 40.0 * math.sin(12 * part),
    "changes in steps": lambda part: (100.0, 60.0, 30.0, 60.0, 100.0)[min(4, int(5 * part))],
}
"""What the server allows per second, by the part of the run that is over."""

ASKS: Final = ("never", "in whole seconds")
"""Whether a 429 says how long to wait."""


class Rejected(Exception):
    """The server has answered 429.

    Attributes:
        status: The status.
        retry_after: Seconds to wait, if the server says so.
    """

    def __init__(self, seconds: float | None) -> None:
        super().__init__("429 Too Many Requests")
        self.status = 429
        self.retry_after = seconds


class Server:
    """The server, in a thread of its own.

    Attributes:
        port: Where it listens.
        served: How many requests it has served since it settled.
        rejected: How many it has rejected since.
        allowed: How many it would have served since.
    """

    def __init__(
        self, limit: Callable[[float], float], seconds: float, settled: float, asks: bool, seed: int
    ) -> None:
        self.port = 0
        self.served = self.rejected = 0
        self.allowed = 0.0
        self._limit = limit
        self._seconds = seconds
        self._settled = settled
        self._asks = asks
        self._chance = random.Random(seed)
        self._level = float(BURST)
        self._start = self._last = 0.0
        self._listening = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait(10)
        self._start = self._last = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def over(self) -> bool:
        """Whether the run is over."""
        return time.monotonic() >= self._start + self._seconds

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                wait = self._take(time.monotonic())
                await asyncio.sleep(LATENCY * self._chance.uniform(0.5, 1.5))
                head = "200 OK" if not wait else "429 Too Many Requests"
                if wait and self._asks:
                    head += f"\r\nRetry-After: {math.ceil(wait)}"
                writer.write(f"HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n".encode())
        except (OSError, EOFError):
            pass  # the client has gone
        finally:
            writer.close()

    def _take(self, now: float) -> float:
        """Serve a request, and return 0; or return how long that would have to wait."""
        rate = self._limit((self._last - self._start) / self._seconds)
        passed = now - self._last
        self._last = now
        self._level = min(BURST, self._level + rate * passed)
        settled = self._settled <= now - self._start < self._seconds
        if settled:
            self.allowed += rate * min(passed, now - self._start - self._settled)
        if self._level < 1:
            self.rejected += settled
            return (1 - self._level) / rate
        self._level -= 1
        self.served += settled
        return 0.0


def fetch_by_thread(port: int) -> Callable[[int], int]:
    """Return a function that makes a request; each thread keeps its connection."""
    here = threading.local()

    def fetch(item: int) -> int:
        try:
            connection = here.connection
        except AttributeError:
            connection = here.connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", f"/{item}")
        answer = connection.getresponse()
        answer.read()
        if answer.status == 429:
            seconds = answer.headers["Retry-After"]
            raise Rejected(None if seconds is None else float(seconds))
        return item

    return fetch


def fetch_by_task(port: int) -> Callable[[int], Any]:
    """Return a coroutine function that makes a request; connections are used again."""
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def fetch(item: int) -> int:
        connection = free.pop() if free else await asyncio.open_connection("127.0.0.1", port)
        reader, writer = connection
        writer.write(f"GET /{item} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        free.append(connection)
        if " 429 " in head.partition("\r\n")[0]:
            seconds = head.partition("Retry-After: ")[2].partition("\r\n")[0]
            raise Rejected(float(seconds) if seconds else None)
        return item

    return fetch


def measure(
    mode: str, profile: str, asks: bool, seconds: float, settled: float, seed: int
) -> tuple[float, float]:
    """Run one map; return its share of what the server allowed, and that of what was rejected."""
    with Server(PROFILES[profile], seconds, settled, asks, seed) as server:

        def items() -> Iterator[int]:
            item = 0
            while not server.over:
                yield item
                item += 1

        limiter = RateLimiter(MOST, burst=4, adaptive=True)  # a late thread catches up
        fetch = (fetch_by_thread if mode == "thread" else fetch_by_task)(server.port)
        mapped = opmap(
            mode=mode,  # type: ignore[call-overload]
            workers=16,
            retries=100,
            rate_limit=limiter,
            retry_after=retry_after,
            progress=False,
            read_ahead=64,
        )(fetch)
        for _ in mapped.stream(items()):
            if server.over:
                break
        return server.served / server.allowed, server.rejected / (server.served + server.rejected)


def main() -> int:
    """Run what was asked for, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--settled", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", choices=("thread", "async"))
    parser.add_argument("--profile", choices=tuple(PROFILES))
    parser.add_argument("--asks", choices=ASKS)
    given = parser.parse_args()
    modes = (given.mode,) if given.mode else ("thread", "async")
    profiles = (given.profile,) if given.profile else tuple(PROFILES)
    kept = True
    if given.mode and given.profile and given.asks:
        asks = given.asks != "never"
        share, rejected = measure(
            given.mode, given.profile, asks, given.seconds, given.settled, given.seed
        )
        kept = share > SHARE and rejected < REJECTED
        print(
            f"| {given.mode} | {given.profile} | {given.asks} | {given.seed} | {share:.1%} "
            f"| {rejected:.2%} |{'' if kept else ' not kept'}"
        )
        return not kept
    print("| mode | the limit | Retry-After | seed | used | rejected |")
    print("|---|---|---|---|---|---|")
    runs = [
        subprocess.Popen(
            [
                *(sys.executable, str(Path(__file__).parent), "--seconds", str(given.seconds)),
                *("--settled", str(given.settled)),
                *("--seed", str(given.seed), "--mode", mode, "--profile", profile, "--asks", asks),
            ]
        )
        for mode in modes
        for profile in profiles
        for asks in ((given.asks,) if given.asks else ASKS)
    ]
    return max(run.wait() for run in runs)


if __name__ == "__main__":
    sys.exit(main())
