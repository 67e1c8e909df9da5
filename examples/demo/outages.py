"""The scenes about a service that goes down and comes back, and what one does meanwhile.

    outage     readers, callers with a backup, and a batch, while a service is down and afterwards
    renewal    cached values that are made anew before their end
    changing   a batch against a limit that falls and rises
    attempts   awaited attempts with a time limit, blocks of code, streams until their first item
    off        opero switched off

A scene decorates its functions anew each time it is played.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus
from typing import Final

from opero import (
    Breaker,
    BreakerConfig,
    BreakerOpenError,
    Event,
    RateLimiter,
    attempts,
    opero,
    opmap,
    retry_after,
    subscribe,
)
from opero.testing import disabled

from .clients import BadStatus, fetch, fetch_async, lines, lines_async, transient
from .report import Scene, counted
from .server import DEAF, TOKENS, Limit
from .stage import LONGEST, Stage, in_a_loop, outcome_of, timed

OPEN_FOR: Final = 0.4
"""Seconds for which the breakers stay open."""

MINIMUM: Final = 5
"""Attempts that a breaker must have seen before it opens."""

DOWN: Final = 1.2
"""Seconds that the service is down."""

# ---------------------------------------------------------------------------------------- scenes


def outage(stage: Stage) -> Scene:
    """A service is down for a while: nobody knocks in vain, nobody is lost."""
    scene, address, server = Scene("outage"), stage.address, stage.server
    shop = Breaker("shop", minimum=MINIMUM, open_for=OPEN_FOR)
    changes: list[str | None] = []
    end = subscribe(lambda event: changes.append(event.state), "breaker")

    @opero(retries=1, cache=True, cache_ttl=0.05, cache_stale=60, retry_on=transient, breaker=shop)
    def price(key: str) -> str:
        return fetch(address, "/service", key, by="reader")

    @opero(retries=1, retry_on=transient, breaker=shop)
    def order(key: str) -> str:
        return fetch(address, "/service", key, by="caller")

    @opero(
        retries=1,
        retry_on=transient,
        arg_fallback={"path": ["/backup"]},
        breaker=BreakerConfig(minimum=MINIMUM, open_for=OPEN_FOR),
    )
    def stock(key: str, path: str = "/service") -> str:
        return fetch(address, path, key, by="stock")

    @opmap(mode="thread", workers=8, retries=3, min_delay=0.01, retry_on=transient, breaker=shop)
    def ship(key: str) -> str:
        return fetch(address, "/service", key, by="batch")

    keys = [f"article-{number}" for number in range(20)]
    try:
        fresh = [price(key) for key in keys]
        server.down = True
        failed = [outcome_of(lambda: order("a")) for _ in range(MINIMUM + len(keys))]
        until_open, seen = Counter(map(type, failed)), len(server.seen("/service", by="caller"))
        time.sleep(0.06)  # the prices are outdated by now
        outdated = [price(key) for key in keys]
        backups = [stock(key) for key in keys]
        knocks = len(server.seen("/service", by="stock"))
        refused, seconds = timed(lambda: order("a"))

        def comes_back() -> None:
            server.down = False

        timer = threading.Timer(DOWN, comes_back)
        timer.start()
        shipped = ship([f"parcel-{number}" for number in range(60)])
        timer.join()
        in_vain = sum(
            arrival.status != HTTPStatus.OK for arrival in server.seen("/service", by="batch")
        )
        again = outcome_of(lambda: order("b"))
    finally:
        server.down = False
        end()
    scene.row("readers", server.seen("/service", by="reader"), price.stats())
    scene.row("callers", server.seen("/service", by="caller"), order.stats())
    scene.row("with a backup", [*server.seen("/service", by="stock")], stock.stats())
    scene.row("a batch", server.seen("/service", by="batch"), ship.stats())
    scene.promise(
        "the breaker opens, and calls end without a request",
        # the prices that were read before count in the window, too
        until_open[BreakerOpenError] > 0 and seen == until_open[BadStatus] <= len(keys) + MINIMUM,
        f"{len(failed)} calls: {seen} requests, {until_open[BreakerOpenError]} refused",
    )
    scene.promise(
        "a refused call ends at once and says when to retry",
        isinstance(refused, BreakerOpenError)
        and 0 <= refused.retry_after <= OPEN_FOR
        and seconds < OPEN_FOR,
        f"{seconds * 1e3:.1f} ms, {_come_back(refused)}",
    )
    scene.promise(
        "readers get outdated prices meanwhile, and no error",
        outdated == fresh and price.stats().stale == len(keys),
        f"{price.stats().stale} of {len(keys)}",
    )
    scene.promise(
        "the backup answers, and calls leave the dead path alone",
        backups == [stage.answer("/backup", key) for key in keys] and knocks <= MINIMUM + 1,
        f"{len(backups)} answers, {knocks} requests",
    )
    scene.promise(
        "a batch waits for the service, and loses nothing",
        list(shipped) == [stage.answer("/service", f"parcel-{number}") for number in range(60)],
        f"{len(shipped) - len(shipped.failures)} of 60 items, {shipped.seconds:.2f} s",
    )
    most = 2 + int(DOWN / OPEN_FOR)
    scene.promise(
        f"the batch sends {most} probes in vain at most",
        in_vain <= most,
        f"{in_vain} in vain",
    )
    scene.promise(
        "the breaker closes, and calls go through again",
        again == stage.answer("/service", "b") and shop.state == "closed",
        f"{shop.state} after {counted(changes.count('half_open'), 'probe')}",
    )
    return scene


def renewal(stage: Stage) -> Scene:
    """Values that are asked for are made anew in the background: no reader waits for one."""
    scene, address = Scene("renewal"), stage.address
    renewed: list[Event] = []
    end = subscribe(renewed.append, "refresh")

    @opero(retries=1, cache=True, cache_ttl=1.0, cache_refresh=0.7)
    def read(key: str) -> str:
        return fetch(address, "/slow", key, by="renewal")

    try:
        first, waited = timed(lambda: read("a"))
        rest: list[float] = []
        until = time.monotonic() + 1.8
        while time.monotonic() < until:
            value, seconds = timed(lambda: read("a"))
            rest.append(seconds if value == first else LONGEST)
            time.sleep(0.01)
        stage.server.eventually(lambda: len(renewed) == read.stats().refreshes)
    finally:
        end()
    scene.row("one reader", stage.server.seen("/slow", by="renewal"), read.stats())
    slow = sum(seconds > waited / 2 for seconds in rest)
    scene.promise(
        "only the first reader waits for the server",
        read.stats().misses == 1 and slow <= len(rest) // 50,
        f"{waited:.2f} s; {slow} of {len(rest):,} others waited",
    )
    scene.promise(
        "refreshes run in the background, one at a time",
        1 <= read.stats().refreshes == len(renewed) <= 5,
        f"{read.stats().refreshes} begun, {len(renewed)} reported",
    )
    return scene


def changing(stage: Stage) -> Scene:
    """A map finds out what a server allows, and follows it down and up."""
    scene, address, server = Scene("changing limit"), stage.address, stage.server
    cuts: list[Event] = []
    end = subscribe(cuts.append, "rate_cut")
    limiter = RateLimiter(200.0, adaptive=True)

    @opmap(
        mode="thread",
        workers=8,
        retries=50,
        min_delay=0.05,
        max_delay=1.0,
        retry_on=transient,
        retry_after=retry_after,
        rate_limit=limiter,
        progress=False,
    )
    def ask(key: str) -> str:
        return fetch(address, "/changing", key, by="changing")

    def follow(rates: Iterator[float]) -> None:
        for rate in rates:
            server.allow(Limit(rate, burst=10))
            over.wait(1.0)

    over = threading.Event()
    server.allow(Limit(120.0, burst=10))
    guard = threading.Thread(target=follow, args=(iter((120.0, 40.0, 120.0)),))
    guard.start()
    try:
        keys = [str(number) for number in range(200)]
        outcome, seconds = timed(lambda: ask(keys))
    finally:
        over.set()
        guard.join()
        end()
    seen = server.seen("/changing", by="changing")
    rejected = sum(arrival.status == HTTPStatus.TOO_MANY_REQUESTS for arrival in seen)
    scene.row("a batch", seen, ask.stats())
    scene.promise(
        "every item is done, though the limit falls to a third",
        outcome == [stage.answer("/changing", key) for key in keys],
        f"{len(seen)} requests in {seconds:.1f} s",
    )
    scene.promise(
        "a rejection lowers the limit, so that few follow",
        bool(cuts) and rejected <= len(keys) // 4,
        f"{rejected} of {len(seen)} rejected, rate now {limiter.rate:.0f}/s",
    )
    return scene


def attempted(stage: Stage) -> Scene:
    """Attempts that stall are cut, blocks are run again, streams are until their first item."""
    scene, address, server = Scene("attempts"), stage.address, stage.server

    @opero(retries=3, min_delay=0.01, attempt_timeout=0.2)
    async def read(key: str) -> str:
        nth = len(server.seen("/stall", key, by="cut")) + len(server.seen("/item", key, by="cut"))
        return await fetch_async(address, "/stall" if nth == 0 else "/item", key, by="cut")

    value, seconds = timed(lambda: in_a_loop(read("a")))
    scene.row("a stall", server.seen("/stall", by="cut"), read.stats())
    scene.promise(
        "an awaited attempt that stalls is cut and made again",
        value == stage.answer("/item", "a") and read.stats().attempts == 2 and seconds < 2.0,
        f"answer after {seconds:.2f} s, {read.stats().attempts} attempts",
    )
    cut = server.eventually(lambda: server.seen("/stall", by="cut")[-1].hung_up)
    scene.promise("the server sees its client hang up", cut, "it did" if cut else "it did not")

    def in_a_block() -> tuple[str, int]:
        for attempt in attempts(retries=5, min_delay=0.01, retry_on=transient):
            with attempt:
                return fetch(address, "/shaky", "1", by="block"), attempt.number
        raise AssertionError("not reached: the loop returns or raises")

    block = outcome_of(in_a_block)
    scene.promise(
        "a block of code runs again until it succeeds",
        block == (stage.answer("/shaky", "1"), 2),
        f"attempt {block[1]} succeeded" if isinstance(block, tuple) else f"{block!r}",
    )

    @opero(retries=DEAF + 1, min_delay=0.01, retry_on=(OSError, BadStatus))
    def tell(key: str) -> Iterator[str]:
        yield from lines(address, "/stream", key, by="thread")

    @opero(retries=DEAF + 1, min_delay=0.01, retry_on=(OSError, BadStatus))
    async def tell_async(key: str) -> AsyncIterator[str]:
        async for line in lines_async(address, "/stream", key, by="task"):
            yield line

    async def collect(key: str) -> list[str]:
        return [line async for line in tell_async(key)]

    streamed = outcome_of(lambda: list(tell("a")))
    awaited = outcome_of(lambda: in_a_loop(collect("a")))
    scene.row("a stream", server.seen("/stream", by="thread"), tell.stats())
    scene.promise(
        "a stream that dies before its first item begins again",
        streamed == awaited == list(TOKENS)
        and len(server.seen("/stream", "a", by="thread")) == DEAF + 1
        and len(server.seen("/stream", "a", by="task")) == DEAF + 1,
        f"{len(server.seen('/stream', 'a', by='thread'))} requests, "
        + (f"{len(streamed)} items" if isinstance(streamed, list) else f"{streamed!r}"),
    )
    got: list[str] = []

    def extend() -> BaseException | None:
        try:
            got.extend(tell("cut-b"))
        except Exception as error:  # noqa: BLE001 - that is what is looked at
            return error
        return None

    error = extend()
    requests = len(server.seen("/stream", "cut-b", by="thread"))
    scene.promise(
        "a stream that dies later raises its error",
        error is not None and got == list(TOKENS[: len(TOKENS) // 2]) and requests == DEAF + 1,
        f"{type(error).__name__} after {len(got)} items",
    )
    return scene


def off(stage: Stage) -> Scene:
    """Switched off, a decorated function is the function."""
    scene, address = Scene("switched off"), stage.address

    @opero(retries=5, cache=True, timeout=30)
    def read(key: str) -> str:
        return fetch(address, "/broken", key, by="off")

    with disabled():
        outcome = outcome_of(lambda: read("a"))
    seen = stage.server.seen("/broken", by="off")
    scene.promise(
        "a call makes one request and raises its own error",
        isinstance(outcome, BadStatus) and len(seen) == 1,
        f"{counted(len(seen), 'request')}, {type(outcome).__name__}",
    )
    return scene


def _come_back(refused: object) -> str:
    """What a refused call says."""
    if isinstance(refused, BreakerOpenError):
        return f"retry in {refused.retry_after:.2f} s"
    return f"{refused!r}"


SCENES: Final[dict[str, Callable[[Stage], Scene]]] = {
    "outage": outage,
    "renewal": renewal,
    "changing": changing,
    "attempts": attempted,
    "off": off,
}
"""The scenes of this module, by the name that the command line gives them."""
