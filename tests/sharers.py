"""Processes that share a rate limit: forked by a helper that has opero loaded, so that many start at once.

A test runs under pytest, with its threads, and must not fork. So `Sharers` starts one helper, which
forks a process for each half of opero that it is told, and collects what their work returns.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

PATIENCE = 60.0
"""Seconds after which a test takes it that something hangs."""


def soon(count: int) -> float:
    """Return a moment at which so many processes have started."""
    return time.monotonic() + 0.1 + 0.03 * count


class Sharers:
    """The helper."""

    def __init__(self) -> None:
        """Start it, and wait until it has loaded what its processes need."""
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._started: list[int] = []
        self.join()

    def start(self, work: str, halves: list[str], **arguments: Any) -> list[int]:
        """Fork a process for each of `halves` and let it do `work`; return their process ids."""
        request = {"work": work, "halves": halves, "arguments": arguments}
        self._started = list(self._ask(request))
        return self._started

    def join(self) -> list[Any]:
        """Wait for the processes and return what their work returned, None for one that died."""
        results: list[Any] = self._ask({})
        self._started = []
        return results

    def clear(self) -> None:
        """Kill what a failed test has not waited for, so that the next one does not get it."""
        for pid in self._started:
            os.kill(pid, signal.SIGKILL)
        if self._started:
            self.join()

    def run(self, work: str, halves: list[str], **arguments: Any) -> list[Any]:
        """Start, and join."""
        self.start(work, halves, **arguments)
        return self.join()

    def close(self) -> None:
        """End the helper."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


# --- what the processes do --------------------------------------------------------------------------


def wait_until(moment: float) -> None:
    while time.monotonic() < moment:
        time.sleep(min(0.001, max(0.0, moment - time.monotonic())))


def limiter_of(limit: dict[str, Any]) -> Any:
    from opero import RateLimiter

    return RateLimiter(**limit)


def acquire(limit: dict[str, Any], start: float, seconds: float, weight: int = 1) -> Any:
    """Wait for permits for some time; return when each came, in nanoseconds."""
    limiter = limiter_of(limit)
    wait_until(start)
    times = []
    while True:
        limiter.acquire_sync(weight)
        times.append(time.monotonic_ns())
        if times[-1] > (start + seconds) * 1e9:
            return times[:-1]


def poll(
    limit: dict[str, Any], start: float, seconds: float, weights: tuple[int, ...] = (1,)
) -> Any:
    """Try again and again; return before and after which moment each permit was taken, and how many."""
    limiter = limiter_of(limit)
    wait_until(start)
    taken = []
    end = (start + seconds) * 1e9
    while (before := time.monotonic_ns()) < end:
        weight = random.choice(weights)
        if limiter.try_acquire(weight):
            taken.append((before, time.monotonic_ns(), weight))
        else:
            time.sleep(random.random() * 0.002)
    return taken


def grab(limit: dict[str, Any], start: float, tries: int) -> Any:
    """Try some times as fast as can be; return how often it worked."""
    limiter = limiter_of(limit)
    wait_until(start)
    return sum(limiter.try_acquire() for _ in range(tries))


def greed(limit: dict[str, Any], start: float, seconds: float) -> Any:
    """Try without a pause; return how many permits that gave."""
    limiter = limiter_of(limit)
    wait_until(start)
    taken = 0
    while time.monotonic() < start + seconds:
        taken += limiter.try_acquire()
        time.sleep(0)
    return taken


class Busy(Exception):
    """What a client raises for an answer with the status 429."""

    status = 429


def learn(limit: dict[str, Any], server: dict[str, Any], start: float, seconds: float) -> Any:
    """Ask a server, which another limit stands for; return what it served and rejected, and the rate."""
    limiter, serves = limiter_of(limit), limiter_of(server)
    wait_until(start)
    served = rejected = 0
    while time.monotonic() < start + seconds:
        try:
            with limiter:
                if not serves.try_acquire():
                    raise Busy
            served += 1
        except Busy:
            rejected += 1
    return served, rejected, limiter.rate


def struggle(limit: dict[str, Any]) -> Any:
    """Take permits, now by one way, now by another, until killed."""
    limiter = limiter_of(limit)
    while True:
        limiter.try_acquire(random.choice((1, 2)))
        if random.random() < 0.05:
            limiter._wait_sync(limiter._clock.now() + 10**6)


def call(limit: dict[str, Any], start: float, count: int, how: str) -> Any:
    """Call a decorated function, from threads or tasks; return when its attempts began."""
    from opero import opero

    limiter = limiter_of(limit)
    times: list[int] = []

    if how == "tasks":

        @opero(retries=1, rate_limit=limiter)
        async def note() -> None:
            times.append(time.monotonic_ns())

        async def main() -> None:
            await asyncio.gather(*[note() for _ in range(count)])

        def work() -> None:
            asyncio.run(main())
    else:

        @opero(retries=1, rate_limit=limiter)
        def note_too() -> None:
            times.append(time.monotonic_ns())

        def work() -> None:
            for _ in range(count):
                note_too()

    wait_until(start)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def pause(limit: dict[str, Any], start: float, seconds: float) -> Any:
    """Pause the limit at some moment; return after which moment it was paused."""
    limiter = limiter_of(limit)
    wait_until(start)
    limiter.pause(seconds)
    return time.monotonic_ns()


def forked(limit: dict[str, Any], start: float, tries: int) -> Any:
    """Make the limiter, fork, and let parent and child take permits from what they both have."""
    limiter = limiter_of(limit)
    reading, writing = os.pipe()
    child = os.fork()
    wait_until(start)
    got = sum(limiter.try_acquire() for _ in range(tries))
    if child == 0:
        os.write(writing, str(got).encode())
        os._exit(0)
    os.waitpid(child, 0)
    other = int(os.read(reading, 100))
    return [got, other]


def breaker_of(options: dict[str, Any]) -> Any:
    from opero import Breaker

    return Breaker(**options)


def knock(breaker: dict[str, Any], start: float, seconds: float) -> Any:
    """Ask again and again to be let in; return how often that was so, and report nothing."""
    gate = breaker_of(breaker)._queue.gate
    wait_until(start)
    end = time.monotonic() + seconds
    let_in = 0
    while time.monotonic() < end:
        let_in += gate.enter(time.monotonic_ns()) <= 0
    return let_in


def fail(breaker: dict[str, Any], start: float, times: int) -> Any:
    """Make attempts that fail; return how many there were, and how many were refused."""
    from opero import BreakerOpenError, opero
    from opero.limits import redis_breaker

    made = refused = 0
    shared = breaker_of(breaker)

    @opero(breaker=shared, retries=1)
    def attempt() -> None:
        nonlocal made
        made += 1
        raise ConnectionError

    wait_until(start)
    for _ in range(times):
        try:
            attempt()
        except BreakerOpenError:
            refused += 1
        except ConnectionError:
            pass
    if shared.scope == "redis":
        redis_breaker._courier.end()  # what its thread has taken along; no other handler follows
    return [made, refused]


def juggle(breaker: dict[str, Any]) -> Any:
    """Enter, leave, trip and reset, until killed."""
    shared = breaker_of(breaker)
    gate = shared._queue.gate
    while True:
        now = time.monotonic_ns()
        answer = gate.enter(now)
        if answer <= 0 and random.random() < 0.9:
            gate.leave(now, random.choice((0, 0, 1, 2, 3, 4)), now, -answer)
        if random.random() < 0.01:
            shared.reset()


def probe(breaker: dict[str, Any]) -> Any:
    """Wait until it is let in as a probe, and hang in it until killed."""
    from opero import BreakerOpenError, opero

    shared = breaker_of(breaker)

    @opero(breaker=shared, retries=1)
    def hang() -> None:
        time.sleep(PATIENCE)

    while shared.state == "closed":  # a newcomer that has not heard yet lets attempts in
        time.sleep(0.001)
    while True:
        try:
            hang()
        except BreakerOpenError:
            time.sleep(0.001)


def fork_in_probe(breaker: dict[str, Any]) -> Any:
    """Fork in the middle of a probe; the child reports a failure first, the parent a success."""
    from opero import opero

    shared = breaker_of(breaker)
    child = -1

    @opero(breaker=shared, retries=1)
    def attempt() -> None:
        nonlocal child
        child = os.fork()
        if child == 0:
            raise ConnectionError
        os.waitpid(child, 0)

    while shared.state != "half_open":
        time.sleep(0.001)
    try:
        attempt()
    finally:
        if child == 0:
            os._exit(0)
    return shared.state


WORKS = (
    *(acquire, poll, grab, greed, learn, struggle, call, pause, forked),
    *(knock, fail, juggle, probe, fork_in_probe),
)
WORK = {work.__name__: work for work in WORKS}


def child(request: dict[str, Any], half: str) -> Any:
    from opero import hotpath

    hotpath.core = hotpath.load(half)  # type: ignore[arg-type]
    random.seed()
    return WORK[request["work"]](**request["arguments"])


def main() -> None:
    """Serve requests until there are no more."""
    import opero.limits.machine
    import opero.limits.machine_breaker  # so that the processes need not, one by one
    from opero import hotpath

    try:
        import opero.limits.redis
        import opero.limits.redis_breaker  # noqa: F401
    except ImportError:  # without redis-py
        pass

    running: list[tuple[int, int]] = []
    for line in sys.stdin:
        request = json.loads(line)
        if request:
            for half in request["halves"]:
                hotpath.load(half)
            for half in request["halves"]:
                reading, writing = os.pipe()
                pid = os.fork()
                if pid == 0:
                    status = 1
                    try:
                        result = json.dumps(child(request, half)).encode()
                        with os.fdopen(writing, "wb") as stream:
                            stream.write(result)
                        status = 0
                    finally:
                        if status:
                            import traceback

                            traceback.print_exc()
                        os._exit(status)
                os.close(writing)
                running.append((pid, reading))
            print(json.dumps([pid for pid, _ in running]), flush=True)
        else:
            results = []
            for pid, reading in running:
                with os.fdopen(reading, "rb") as stream:
                    found = stream.read()
                os.waitpid(pid, 0)
                results.append(json.loads(found) if found else None)
            running = []
            print(json.dumps(results), flush=True)
    for pid, _ in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
