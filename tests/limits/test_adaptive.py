"""Adaptive limits: what calls, blocks and maps tell them, and what those who wait get to know."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import weakref
from typing import Any

import pytest
from crowd import Job, run, standing_clock, until
from throttling import TokenServer, steps

from opero import Event, RateLimitConfig, RateLimiter, opero, opmap, retry_after, subscribe
from opero.testing import manual_clock, skip_waits

MS = 10**6


class Busy(Exception):
    """An error that a client raises for an answer with the status 429."""

    status_code = 429

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(seconds)
        self.retry_after = seconds


class Server:
    """A server that follows a clock that tests move, and rejects excess requests."""

    def __init__(self, clock: Any, limit: Any, asks: bool = False) -> None:
        self.clock = clock
        self.start = clock.now()
        self.bucket = TokenServer(limit, 5)
        self.asks = asks
        self.served = self.rejected = 0

    def __call__(self, item: Any = None) -> Any:
        """Serve or reject one attempt."""
        wait = self.bucket.wait((self.clock.now() - self.start) / 1e9)
        if wait:
            self.rejected += 1
            raise Busy(1.0 if self.asks else None)
        self.served += 1
        return item


kinds = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


def decorated(function: Any, asynchronous: bool, **options: Any) -> Any:
    """Decorate a function, or a coroutine function that does the same."""

    async def awaited(item: Any = None) -> Any:
        return function(item)

    def called(item: Any = None) -> Any:
        return function(item)

    wrapped = opero(**options)(awaited if asynchronous else called)
    return (lambda *args: run(wrapped(*args))) if asynchronous else wrapped


# --- calls ------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("asks", [False, True])
def test_a_function_finds_out_what_a_server_allows(core, asynchronous, asks):
    """Calls one after the other, at five times the server's rate, converge to it."""
    limiter = RateLimiter(100, adaptive=True)
    with manual_clock():
        server = Server(core.clock, steps((20, 1e9))[0], asks)
        options: dict[str, Any] = {"retry_after": retry_after} if asks else {}
        fetch = decorated(server, asynchronous, retries=9, rate_limit=limiter, **options)
        for item in range(200):
            assert fetch(item) == item
        server.served = server.rejected = 0
        start = core.clock.now()
        for item in range(400):
            assert fetch(item) == item
        seconds = (core.clock.now() - start) / 1e9
    assert 15 < limiter.rate < 25
    assert server.rejected < 12
    assert 400 / seconds > (0.7 if asks else 0.85) * 20  # a caller that is told to wait does so


@kinds
def test_the_only_attempt_of_a_call_is_learned_from_too(core, asynchronous):
    """A call without retries reports its only failure."""
    limiter = RateLimiter(10, adaptive=True)

    def fail(_: Any) -> None:
        raise Busy

    fetch = decorated(fail, asynchronous, retries=1, rate_limit=limiter)
    with manual_clock(), pytest.raises(Busy):
        fetch()
    assert limiter.rate < 10


@kinds
@pytest.mark.parametrize("error", [ValueError, TimeoutError, KeyError])
def test_other_failures_do_not_lower_the_rate(asynchronous, error):
    """Failures that are not rejections leave the rate alone."""
    limiter = RateLimiter(10, adaptive=True)

    def fail(_: Any) -> None:
        raise error

    fetch = decorated(fail, asynchronous, retries=3, reraise=True, rate_limit=limiter)
    with skip_waits(), pytest.raises(error):
        fetch()
    assert limiter.rate == 10


@kinds
def test_what_retry_after_answers_for_is_a_rejection(asynchronous):
    """A `retry_after` that returns a wait makes any error a rejection."""
    limiter = RateLimiter(10, adaptive=True)

    def fail(_: Any) -> None:
        raise ZeroDivisionError

    options: dict[str, Any] = {"retry_after": lambda _: 0.5}
    fetch = decorated(fail, asynchronous, retries=1, rate_limit=limiter, **options)
    with skip_waits(), pytest.raises(ZeroDivisionError):
        fetch()
    assert limiter.rate < 10


@kinds
def test_an_option_makes_a_limit_of_ones_own_adapt(core, asynchronous):
    """Both the keyword and a config object make a function's own limit adapt."""
    for options in (
        {"rate_limit": 50, "adaptive": True, "rate_floor": 20},
        {"rate_limit": RateLimitConfig(50, adaptive=True, floor=20)},
    ):
        with manual_clock():
            server = Server(core.clock, steps((10, 1e9))[0])
            fetch = decorated(server, asynchronous, retries=99, **options)
            start = core.clock.now()
            for _ in range(100):
                fetch()
            assert server.served == 100
            assert server.rejected > 20  # it may not go as low as it would
            assert (core.clock.now() - start) / 1e9 > 9


# --- blocks -----------------------------------------------------------------------------------------


def test_a_block_is_an_attempt(core):
    """The error raised in a block shows whether the server rejected the attempt."""
    limiter = RateLimiter(100, adaptive=True)
    with manual_clock():
        server = Server(core.clock, steps((20, 1e9))[0])
        for _ in range(500):
            try:
                with limiter:
                    server()
            except Busy:
                pass
        assert 15 < limiter.rate < 25


def test_a_block_of_a_task_is_one_too(core):
    """Several tasks may run blocks concurrently."""
    limiter = RateLimiter(100, adaptive=True)

    async def work(server: Server) -> None:
        for _ in range(100):
            try:
                async with limiter:
                    server()
            except Busy:
                await asyncio.sleep(0)

    async def main(server: Server) -> None:
        await asyncio.gather(*[work(server) for _ in range(5)])

    with manual_clock():
        server = Server(core.clock, steps((20, 1e9))[0])
        run(main(server))
        assert 5 < limiter.rate < 25
        assert server.rejected < 50


def test_blocks_within_each_other_belong_to_their_limiters(core):
    """The inner error reaches both; the outer block began before the inner limit was cut."""
    outer, inner = RateLimiter(100, adaptive=True), RateLimiter(200, adaptive=True)
    with manual_clock():
        with pytest.raises(Busy), outer, inner, inner:
            raise Busy
        assert outer.rate < 100
        assert inner.rate > 200 * 0.6  # once, not twice
        assert inner.rate < 200


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_other_errors_in_a_block_change_nothing(error):
    """Other errors pass through."""
    limiter = RateLimiter(100, adaptive=True)
    with skip_waits(), pytest.raises(error), limiter:
        raise error
    assert limiter.rate == 100


# --- those who wait ---------------------------------------------------------------------------------


def test_who_waits_is_served_sooner_when_the_rate_rises(core):
    """The waiter's timer was set for the rate at which it joined the queue."""
    limiter = RateLimiter(10, adaptive=True, floor=0.01)
    with standing_clock(core.clock) as clock:
        clock.advance(1000 * MS)
        for _ in range(8):
            limiter._queue.report(2, core.clock.now())
            clock.advance(100 * MS)
        assert limiter.rate < 1
        limiter.acquire_sync()
        waiting = [Job(limiter.acquire_sync) for _ in range(3)]
        until(lambda: limiter._bucket.queued == 3)
        for _ in range(400):
            limiter._queue.report(0, core.clock.now())
            clock.advance(10 * MS)
        assert limiter.rate > 5
        for each in waiting:
            each.result()


def test_who_cannot_be_served_in_time_any_more_gives_up_when_it_would_have_been(core):
    """After a cut, a waiter gives up when its permit was due, before its later deadline."""
    limiter = RateLimiter(10, adaptive=True, floor=0.01)
    with standing_clock(core.clock) as clock:
        limiter.acquire_sync()
        late = Job(limiter._wait_sync, core.clock.now() + 150 * MS)
        until(lambda: limiter._bucket.queued == 1)
        limiter._bucket.pause(core.clock.now(), 500 * MS)
        clock.advance(100 * MS)
        assert late.result() == -1


def test_a_users_own_pause_is_obeyed_whatever_the_rate(core):
    """Only a pause that a server asks for is weighed against the rate."""
    limiter = RateLimiter(100, adaptive=True)
    with manual_clock() as clock:
        limiter.pause(1.0)
        limiter.acquire_sync()
        assert clock.waited == pytest.approx(1.0, abs=1e-3)


# --- what users see ---------------------------------------------------------------------------------


def test_the_rate_is_visible(core):
    """Every limiter shows its rate."""
    assert RateLimiter(10).rate == 10
    limiter = RateLimiter(10, adaptive=True)
    assert (limiter.rate, limiter.floor, limiter.rate_limit) == (10, 0.1, 10)
    limiter._queue.report(2, core.clock.now())
    assert 1 < limiter.rate < 10
    assert limiter.rate_limit == 10
    with pytest.raises(AttributeError):
        limiter.rate = 5  # type: ignore[misc]


def test_a_cut_is_an_event_and_a_line_of_the_log_but_not_more_than_one_a_second(core, caplog):
    """The log line is at INFO; a slow server causes many cuts in a short time."""
    events: list[Event] = []
    unsubscribe = subscribe(events.append, "rate_cut")
    limiter = RateLimiter(100, adaptive=True)
    try:
        with standing_clock(core.clock) as clock, caplog.at_level(logging.INFO, "opero"):
            for _ in range(40):
                limiter._queue.report(2, core.clock.now())
                clock.advance(100 * MS)
    finally:
        unsubscribe()
    assert len(events) == 4
    assert len(caplog.records) == 4
    assert events[0].rate == pytest.approx(61.6)
    assert [event.rate for event in events] == sorted(
        (event.rate or 0 for event in events), reverse=True
    )
    assert events[0].store == "the rate limit of 100 per second"
    assert caplog.messages[0] == (
        "the rate limit of 100 per second: the server rejects attempts; the rate is now 61.6 per second"
    )


def test_it_is_pickled_with_its_settings():
    """The pickle does not contain the current rate."""
    limiter = RateLimiter(10, 2, adaptive=True, floor=3)
    limiter._queue.report(2, limiter._queue.clock.now())
    again = pickle.loads(pickle.dumps(limiter))
    assert (again.rate, again.floor, again.adaptive, again.burst) == (10, 3, True, 2)
    assert repr(again) == "RateLimiter(10.0, burst=2, adaptive=True, floor=3.0)"


def test_it_is_gone_when_nobody_uses_it():
    """The bucket refers to its queue without keeping it alive."""
    limiter = RateLimiter(10, adaptive=True)
    queue = weakref.ref(limiter._queue)
    gc.disable()
    try:
        del limiter
        assert queue() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"floor": 1}, "floor=1 has no effect without adaptive=True"),
        ({"adaptive": True, "floor": 11}, "floor=11 is not allowed: use at most the rate"),
        ({"adaptive": True, "floor": 0}, "floor=0 is not allowed"),
        ({"adaptive": True, "floor": "1"}, "floor='1' is not allowed"),
        ({"adaptive": 1}, "adaptive=1 is not allowed: use True or False"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    """The error says what is allowed."""
    with pytest.raises((ValueError, TypeError), match=message):
        RateLimiter(10, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adaptive": True}, "adaptive=True has no effect without rate_limit=: add it"),
        ({"rate_limit": 5, "rate_floor": 1}, "rate_floor=1 has no effect without adaptive=True"),
        ({"rate_floor": 1}, "rate_floor=1 has no effect without adaptive=True"),
        (
            {"rate_limit": RateLimitConfig(5, floor=1)},
            "floor=1 has no effect without adaptive=True",
        ),
        ({"rate_limit": 5, "adaptive": True, "rate_floor": 6}, "rate_floor=6 is not allowed"),
        ({"rate_limit": RateLimiter(5), "adaptive": True}, "give it to RateLimiter"),
        ({"rate_limit": RateLimitConfig(5), "adaptive": True}, "give it to RateLimitConfig"),
    ],
)
def test_wrong_options_are_refused(options, message):
    """Decoration fails."""
    with pytest.raises(ValueError, match=message):
        opero(**options)(int)


# --- maps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["thread", "async"])
@pytest.mark.parametrize("scope", ["total", "worker"])
def test_a_map_finds_out_what_a_server_allows(core, mode, scope):
    """A map's items are attempts, and each gets its result in the end."""
    with skip_waits():
        server = Server(core.clock, steps((50, 1e9))[0])

        async def awaited(item: int) -> int:
            return int(server(item))

        def called(item: int) -> int:
            return int(server(item))

        limit = RateLimitConfig(500 if scope == "total" else 250, adaptive=True)
        mapped = opmap(
            mode=mode,
            workers=2,
            retries=30,
            rate_limit=limit,
            rate_limit_scope=scope,
            progress=False,
        )(awaited if mode == "async" else called)
        assert mapped(range(600)) == list(range(600))
        assert server.rejected < 90
