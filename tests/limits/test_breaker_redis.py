"""Breakers in Redis: one state for all clients of a real server, and each its own without it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from crowd import until
from redis_server import RedisServer
from sharers import soon

from opero import Breaker, BreakerOpenError, RateLimiter, hotpath, opero, opmap, subscribe
from opero.core.gate import FAILED, NEUTRAL, SUCCEEDED
from opero.limits import redis_breaker

pytestmark = [pytest.mark.redis]

PERIOD = 1.0
"""Seconds after which what a process knows is old."""


@pytest.fixture(autouse=True)
def no_courier_left() -> Iterator[None]:
    """End the courier's thread with each test."""
    yield
    redis_breaker._courier.end()
    redis_breaker._courier._ending = False


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let breakers exchange only where a test says so."""
    monkeypatch.setattr(redis_breaker._Courier, "post", lambda *_: None)


def options_for(server: RedisServer, **more: Any) -> dict[str, Any]:
    return {
        "name": f"test-{uuid4().hex}", "scope": "redis", "url": server.url,
        "minimum": 4, "open_for": 0.3, **more,
    }  # fmt: skip


def calls(breaker: Breaker, **more: Any) -> tuple[Callable[[], str], Callable[[], str]]:
    """Return a function that works, and one that fails."""

    @opero(breaker=breaker, retries=1, **more)
    def work() -> str:
        return "done"

    @opero(breaker=breaker, retries=1, **more)
    def fail() -> str:
        raise ConnectionError

    return work, fail


def fail(breaker: Breaker, times: int = 1) -> None:
    attempt = calls(breaker)[1]
    for _ in range(times):
        with pytest.raises(ConnectionError):
            attempt()


def succeed(breaker: Breaker) -> str:
    return calls(breaker)[0]()


def is_refused(breaker: Breaker) -> bool:
    try:
        succeed(breaker)
    except BreakerOpenError:
        return True
    return False


def record(breaker: Breaker) -> Any:
    return breaker._queue.record


def gate(breaker: Breaker) -> Any:
    return breaker._queue.gate


def keys_of(server: RedisServer) -> list[str]:
    return [key.decode() for key in server.command("KEYS", "*")]


# --- the script, exchange by exchange ------------------------------------------------------------------


class Model:
    """A timeless model of the server: the window and the open time never end."""

    def __init__(self) -> None:
        self.opened = False
        self.attempts = self.failures = 0
        self.moves = 0

    def move(self, opened: bool) -> None:
        self.opened = opened
        self.attempts = self.failures = 0
        self.moves += 1

    def count(self, attempts: int, failures: int) -> None:
        if self.opened:
            return
        self.attempts += attempts
        self.failures += failures
        if failures and self.attempts >= 6 and self.failures / self.attempts >= 0.5:
            self.move(True)


@pytest.mark.parametrize("seed", range(6))
def test_processes_and_server_agree_with_a_model(core, redis_server, by_hand, seed):
    """Counts arrive late, in batches, and from processes that know an older state."""
    dice = random.Random(seed)
    options = options_for(redis_server, minimum=6, open_for=3600, window=36000)
    processes = [Breaker(**options) for _ in range(4)]
    pending = [[0, 0, 0] for _ in processes]  # attempts, failures, and the moves they know of
    knows = [False] * 4
    opened = [False] * 4
    model = Model()
    for _ in range(150):
        each = dice.randrange(4)
        breaker, mine = processes[each], pending[each]
        step = dice.choice(["attempt"] * 8 + ["exchange"] * 4 + ["trip", "reset", "join"])
        if step == "attempt":
            bad = dice.random() < 0.4
            answer = gate(breaker).enter(0)
            assert (answer > 0) == opened[each]
            if answer <= 0:
                gate(breaker).leave(0, FAILED if bad else SUCCEEDED, 0, -answer)
                mine[0] += 1
                mine[1] += bad
            continue
        if step == "join":
            processes[each] = breaker = Breaker(**options)
            pending[each] = mine = [0, 0, 0]
            knows[each] = opened[each] = False
            continue
        if step == "exchange":
            assert record(breaker).exchange()
        elif step == "trip":
            breaker.trip()
            model.move(True)
        else:
            breaker.reset()
            model.move(False)
        if mine[2] == model.moves or not knows[each]:
            model.count(*mine[:2])
        pending[each] = [0, 0, model.moves]
        knows[each] = True
        opened[each] = model.opened
        assert breaker.state == ("open" if model.opened else "closed")


def test_a_newcomer_resets_nothing(core, redis_server, by_hand):
    """A newcomer learns the state; its failure before that counts."""
    options = options_for(redis_server, open_for=30)
    one = Breaker(**options)
    fail(one, 3)
    assert record(one).exchange()
    two = Breaker(**options)
    fail(two)
    assert record(two).exchange()
    assert two.state == "open"
    three = Breaker(**options)
    assert three.state == "open"  # it asks, as it has heard nothing
    assert record(one).exchange()
    assert one.state == "open"
    assert is_refused(one)


def test_one_of_many_gets_the_lease_of_the_probe(core, redis_server, by_hand):
    """All of them ask at the moment of half-open."""
    options = options_for(redis_server, open_for=20)
    breakers = [Breaker(**options) for _ in range(20)]
    breakers[0].trip(0.05)
    for each in breakers:
        record(each).exchange()
    until(lambda: breakers[0].state == "half_open")
    admitted = []

    @opero(breaker=breakers[0], retries=1)
    def probe() -> None:
        admitted.append(0)
        assert all(is_refused(each) for each in breakers[1:])

    probe()
    assert admitted == [0]
    assert breakers[0].state == "closed"
    assert record(breakers[0]).exchange()
    assert record(breakers[1]).exchange()
    assert breakers[1].state == "closed"


@pytest.mark.parametrize("outcome", [NEUTRAL, FAILED])
def test_the_server_learns_what_a_probe_has_found(core, redis_server, by_hand, outcome):
    """A probe without an outcome gives its lease back; a failed one reopens the breaker."""
    options = options_for(redis_server, open_for=20)
    one, two = Breaker(**options), Breaker(**options)
    one.trip(0.01)
    record(two).exchange()
    until(lambda: one.state == two.state == "half_open")
    record(one).want_lease()
    assert record(one).exchange()
    ticket = -gate(one).enter(core.clock.now())
    assert ticket > 0
    assert is_refused(two)
    gate(one).leave(core.clock.now(), outcome, 0, ticket)
    assert record(one).exchange()
    time.sleep(0.021)  # it asks for a lease every 20 ms
    if outcome == NEUTRAL:
        assert succeed(two) == "done"
    else:
        assert one.state == "open"
        assert is_refused(two)
        assert two.state == "open"


def test_all_of_several_probes_have_to_succeed(core, redis_server, by_hand):
    """All processes together run no more than the allowed number of probes."""
    options = options_for(redis_server, open_for=20, probes=2)
    one, two = Breaker(**options), Breaker(**options)
    one.trip(0.01)
    record(two).exchange()
    until(lambda: one.state == two.state == "half_open")
    assert succeed(one) == "done"
    assert record(one).exchange()
    assert one.state == "half_open"
    assert succeed(two) == "done"
    assert record(two).exchange()
    assert two.state == "closed"
    assert record(one).exchange()
    assert one.state == "closed"


def test_a_clock_of_the_server_that_has_gone_back_keeps_it_open_no_longer(
    core, redis_server, by_hand
):
    """The script treats a time or lease beyond the server's clock as over."""
    breaker = Breaker(**options_for(redis_server, open_for=20))
    breaker.trip()
    (key,) = [each for each in keys_of(redis_server) if breaker.name in each]
    until = int(redis_server.command("HGET", key, "until"))
    redis_server.command("HSET", key, "until", str(until + 3600 * 10**6))
    redis_server.command("HSET", key, "token1", "old", "over1", str(until + 3600 * 10**6))
    record(breaker).exchange()
    assert breaker.state == "half_open"
    assert succeed(breaker) == "done"


# --- beside the attempts --------------------------------------------------------------------------------


def test_failures_reach_the_server_at_once_and_others_learn_of_it_with_their_next_one(
    core, redis_server
):
    """Attempts never wait for the server."""
    options = options_for(redis_server, open_for=30)
    one, two = Breaker(**options), Breaker(**options)
    succeed(two)
    until(lambda: gate(two).generation)
    fail(one, 4)
    until(lambda: one.state == "open", PERIOD / 2)
    fail(two)
    until(lambda: two.state == "open", PERIOD / 2)


def test_those_who_succeed_learn_of_it_after_a_second(core, redis_server):
    """Their counts go to the server every second."""
    options = options_for(redis_server, open_for=30)
    one, two = Breaker(**options), Breaker(**options)
    succeed(two)
    one.trip()

    until(lambda: is_refused(two), 5 * PERIOD)


def test_processes_count_together(core, sharers, redis_server):
    """Their failures open it together."""
    options = options_for(redis_server, minimum=30, open_for=30)
    found = sharers.run("fail", [core.name] * 3, breaker=options, start=soon(3), times=10)
    assert all(made + refused == 10 for made, refused in found)
    until(lambda: Breaker(**options).state == "open", 5)


def test_a_listener_that_would_end_its_thread_ends_no_exchanges(core, redis_server):
    """One thread serves all breakers."""

    def listen(_: object) -> None:
        heard.append(True)
        raise SystemExit

    heard: list[bool] = []
    end = subscribe(listen, "breaker")
    try:
        for _ in range(2):
            breaker = Breaker(**options_for(redis_server, open_for=30))
            _, fail = calls(breaker)
            for _ in range(4):
                with suppress(Exception):
                    fail()
            until(lambda breaker=breaker: gate(breaker).opened)
        until(lambda: len(heard) == 2)
    finally:
        end()


@pytest.mark.once
def test_what_a_process_has_counted_goes_out_when_it_ends(redis_server):
    """A script that fails and ends a moment later still reports."""
    options = options_for(redis_server)
    code = (
        "import sys; from opero import Breaker, opero\n"
        "breaker = Breaker(sys.argv[1], scope='redis', url=sys.argv[2], minimum=3, open_for=30)\n"
        "@opero(breaker=breaker, retries=1)\n"
        "def fail(): raise ConnectionError\n"
        "try: fail()\n"
        "except Exception: pass\n"
    )
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code, options["name"], redis_server.url], check=True)
    breaker = Breaker(options["name"], scope="redis", url=redis_server.url, minimum=3, open_for=30)
    assert breaker.state == "open"


def test_the_event_loop_goes_on_while_a_probe_asks_a_server_that_is_silent(core, own_server):
    """The call decides alone after the time limit of a request."""
    breaker = Breaker(**options_for(own_server, open_for=0.05))

    @opero(breaker=breaker, retries=1)
    async def work() -> str:
        return "done"

    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticker = asyncio.ensure_future(tick())
        own_server.freeze()
        try:
            assert await work() == "done"
        finally:
            ticker.cancel()
            own_server.thaw()
        return ticks

    breaker.trip()
    until(lambda: breaker.state == "half_open")
    assert asyncio.run(main()) > 10


def test_a_call_that_is_cancelled_while_it_asks_gives_the_lease_back(core, own_server):
    """The server may have granted the lease."""
    options = options_for(own_server, open_for=20)
    breaker = Breaker(**options)

    @opero(breaker=breaker, retries=1)
    async def work() -> str:
        return "done"

    async def main() -> None:
        own_server.freeze()
        task = asyncio.ensure_future(work())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        own_server.thaw()

    breaker.trip(0.01)
    until(lambda: breaker.state == "half_open")
    asyncio.run(main())
    until(lambda: not is_refused(Breaker(**options)), 10)


def test_a_call_waits_for_the_probe_if_its_timeout_leaves_the_time(core, redis_server):
    """The call asks for the lease itself."""
    breaker = Breaker(**options_for(redis_server))
    breaker.trip()
    assert calls(breaker, timeout=20)[0]() == "done"
    assert breaker.state == "closed"


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_a_map_over_an_open_breaker_waits_and_loses_nothing(core, redis_server, mode):
    """The scheduler never waits for the server: another thread gets the lease."""
    breaker = Breaker(**options_for(redis_server))
    breaker.trip()
    how = {"mode": mode, "workers": 3, "breaker": breaker, "timeout": 20, "progress": False}

    if mode == "async":

        async def work(item: int) -> int:
            return item * 2
    else:

        def work(item: int) -> int:
            return item * 2

    assert opmap(**how)(work)(range(30)) == [item * 2 for item in range(30)]
    assert breaker.state == "closed"


@pytest.mark.parametrize("alone", [False, True])
def test_what_a_probe_calls_behind_the_same_breaker_is_a_part_of_it(core, own_server, alone):
    """Otherwise the breaker would refuse its own probe and stay open."""
    breaker = Breaker(**options_for(own_server))
    if alone:
        own_server.stop()

    @opero(breaker=breaker, retries=1)
    def outer() -> str:
        assert breaker.state == "half_open"
        return succeed(breaker)

    breaker.trip()
    until(lambda: breaker.state == "half_open")
    assert outer() == "done"
    assert breaker.state == "closed"


# --- those who die and fork --------------------------------------------------------------------------


def test_a_process_that_is_killed_in_its_probe_frees_the_place_by_expiry(
    core, redis_server, sharers
):
    """Others are refused until the lease expires; then one of them probes."""
    options = options_for(redis_server, open_for=0.6)
    breaker = Breaker(**options)
    breaker.trip(0.01)

    def holder() -> Any:
        (key,) = [each for each in keys_of(redis_server) if breaker.name in each]
        return redis_server.command("HGET", key, "token1")

    (pid,) = sharers.start("probe", [core.name], breaker=options)
    until(lambda: holder() is not None)
    assert is_refused(breaker)
    os.kill(pid, signal.SIGKILL)
    assert sharers.join() == [None]
    until(lambda: not is_refused(breaker))
    assert breaker.state == "closed"


def test_a_child_that_was_forked_in_a_probe_does_not_report_it(core, redis_server, sharers):
    """The child fails, but its parent's probe succeeds."""
    options = options_for(redis_server)
    Breaker(**options).trip()
    assert sharers.run("fork_in_probe", [core.name], breaker=options) == ["closed"]


# --- the server down, slow, full, flushed --------------------------------------------------------------


@pytest.mark.parametrize("fault", ["stop", "freeze", "fill"])
def test_without_the_server_each_process_decides_by_itself_and_comes_back(core, own_server, fault):
    """The log says so once, no attempt waits, and the known state stays valid."""
    events: list[Any] = []
    end = subscribe(events.append, "store_down", "store_up")
    options = options_for(own_server)
    breaker = Breaker(**options)
    try:
        succeed(breaker)
        until(lambda: gate(breaker).generation)
        getattr(own_server, fault)()
        begun = time.monotonic()
        fail(breaker, 3)
        assert time.monotonic() - begun < 0.5
        until(lambda: gate(breaker).alone)
        while not is_refused(breaker):
            fail(breaker)
        until(lambda: not is_refused(breaker))
        assert breaker.state == "closed"
        {"stop": own_server.start, "freeze": own_server.thaw, "fill": own_server.drain}[fault]()

        def back() -> bool:
            is_refused(breaker)
            return not gate(breaker).alone

        until(back)
        assert [event.kind for event in events] == ["store_down", "store_up"]
        assert options["name"] in events[0].store
    finally:
        end()
    other = Breaker(**options)
    other.trip(30)
    until(lambda: is_refused(breaker), 10)


@pytest.mark.parametrize("how", ["flush", "restart", "restart that is noticed"])
def test_an_open_breaker_outlives_the_loss_of_its_record(core, own_server, how):
    """A process that knows the record restores it, so newcomers are refused too."""
    options = options_for(own_server, open_for=60)
    one = Breaker(**options)
    fail(one, 4)
    until(lambda: one.state == "open" and gate(one).confirmed == gate(one).generation)
    if how == "flush":
        own_server.command("FLUSHALL")
    elif how == "restart":
        own_server.restart()
    else:
        own_server.stop()
        until(lambda: not record(one).exchange() and gate(one).alone)
        own_server.start()
    until(lambda: record(one).exchange())
    assert is_refused(one)
    assert Breaker(**options).state == "open"


def test_a_closed_breaker_goes_on_after_the_loss_of_its_record(core, own_server, by_hand):
    """Attempts under way count as before."""
    options = options_for(own_server, open_for=60)
    one, two = Breaker(**options), Breaker(**options)
    for each in (one, two):
        record(each).exchange()
    own_server.command("FLUSHALL")
    for each in (one, two):
        fail(each, 2)
        assert record(each).exchange()
    assert two.state == "open"


@pytest.mark.parametrize("tell", ["first", "late"])
def test_newcomers_begin_a_record_that_does_not_close_an_open_breaker(
    core, own_server, by_hand, tell
):
    """A process that knows more restores the open state, and newcomers hear of it."""
    options = options_for(own_server, open_for=60)
    one, newcomer = Breaker(**options), Breaker(**options)
    one.trip()
    own_server.command("FLUSHALL")
    assert record(newcomer).exchange()
    assert newcomer.state == "closed"
    if tell == "late":
        fail(newcomer, 2)
        assert record(newcomer).exchange()
    assert record(one).exchange()
    assert is_refused(one)
    assert record(newcomer).exchange()
    assert is_refused(newcomer)
    one.reset()
    assert record(newcomer).exchange()
    assert newcomer.state == "closed"


def test_a_reply_from_a_new_record_does_not_close_an_open_breaker(core, own_server, by_hand):
    """The process made the request before it knew that the breaker is open."""
    options = options_for(own_server, open_for=60)
    one = Breaker(**options)
    since, request = gate(one).real.now(), record(one).request()
    Breaker(**options).trip()
    assert record(one).exchange()
    own_server.command("FLUSHALL")
    assert record(one).heard(since, record(one).server.ask("script", *request), "")
    assert is_refused(one)
    assert gate(one).due
    assert record(one).exchange()
    assert Breaker(**options).state == "open"


def test_what_others_report_to_a_new_record_counts(core, own_server, by_hand):
    """Processes that knew only the lost, closed record counted for the same state."""
    options = options_for(own_server, open_for=60)
    one, newcomer = Breaker(**options), Breaker(**options)
    assert record(one).exchange()
    own_server.command("FLUSHALL")
    for each in (newcomer, one):
        fail(each, 2)
        assert record(each).exchange()
    assert one.state == "open"


def test_a_record_outlives_what_processes_may_take_to_be_true(core, redis_server, by_hand):
    """Otherwise a process that missed the reset could reopen the breaker."""
    options = options_for(redis_server, window=1, open_for=1)
    one, idle = Breaker(**options), Breaker(**options)
    one.trip(3600)
    assert record(idle).exchange()
    one.reset()
    (key,) = [each for each in keys_of(redis_server) if one.name in each]
    assert 3600_000 < redis_server.command("PTTL", key) <= 3660_000
    assert record(idle).exchange()
    assert idle.state == "closed"


def test_an_expired_record_is_a_closed_breaker_that_nobody_knows(core, redis_server, by_hand):
    """Every record expires."""
    options = options_for(redis_server, window=1, open_for=1)
    breaker = Breaker(**options)
    record(breaker).exchange()
    fail(breaker)
    record(breaker).exchange()
    (key,) = [each for each in keys_of(redis_server) if breaker.name in each]
    assert 60_000 < redis_server.command("PTTL", key) <= 62_000
    breaker.trip()
    assert 3600_000 < redis_server.command("PTTL", key) <= 3612_000


# --- names ---------------------------------------------------------------------------------------------


def test_no_key_and_no_value_at_the_server_shows_a_fallback_value(core, redis_server):
    """Hosts find values by a digest, in whatever order they meet them."""
    options = options_for(redis_server, open_for=30)
    one, two = Breaker(**options), Breaker(**options)
    tried: list[str] = []

    @opero(arg_fallback="key", breaker=one)
    def ask(key: list[str]) -> str:
        if key[0] == "sk-secret-one":
            raise ConnectionError
        return key[0]

    @opero(arg_fallback="key", breaker=two)
    def other(key: list[str]) -> str:
        tried.append(key[0])
        return key[0]

    other(["sk-secret-two"])
    for _ in range(4):
        ask(["sk-secret-one", "sk-secret-two"])
    first = two._values.of("sk-secret-one", 0)
    first.look()
    until(lambda: one._values.of("sk-secret-one", 0).gate.opened)
    first.record.exchange()
    assert other(["sk-secret-one", "sk-secret-two"]) == "sk-secret-two"
    assert tried == ["sk-secret-two"] * 2
    for key in keys_of(redis_server):
        everything = [key.encode(), *redis_server.command("HGETALL", key)]
        assert not [each for each in everything if b"secret" in each]


@pytest.mark.once
def test_wrong_options_are_refused(redis_server):
    """The message says what to write, and shows no password."""
    with pytest.raises(ValueError, match="needs name="):
        Breaker(scope="redis", url=redis_server.url)
    with pytest.raises(ValueError, match="needs url="):
        Breaker("x", scope="redis")
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Breaker("x", scope="redis", url="http://:hunter2@localhost")
    assert "hunter2" not in str(caught.value)
    breaker = Breaker("x", scope="redis", url="redis://:hunter2@localhost")
    assert "hunter2" not in repr(breaker)


def test_nothing_is_asked_before_the_first_attempt(core):
    """Decorating a function does not need the server."""
    begun = time.monotonic()
    breaker = Breaker("x", scope="redis", url="redis://127.0.0.1:1/0")
    assert succeed(breaker) == "done"
    assert time.monotonic() - begun < 10
    assert hotpath.core is core


def test_those_who_wait_for_a_permit_are_refused_if_it_opens_meanwhile(core, redis_server):
    options = options_for(redis_server, open_for=30.0)
    breaker = Breaker(**options)
    asked = []

    @opero(breaker=breaker, rate_limit=50.0, retries=1)
    def work() -> None:
        asked.append(1)
        breaker.trip()

    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(work) for _ in range(4)]
    found = [type(run.exception()) for run in runs]
    assert sorted(map(str, found)) == sorted(map(str, [type(None)] + [BreakerOpenError] * 3))
    assert len(asked) == 1


def test_a_probe_that_waits_for_its_permit_keeps_its_place(core, redis_server):
    options = options_for(redis_server, open_for=30.0)
    breaker = Breaker(**options)
    limiter = RateLimiter(20.0)

    @opero(breaker=breaker, rate_limit=limiter, retries=1)
    def work() -> str:
        return "done"

    breaker.trip(0.05)
    until(lambda: breaker.state == "half_open")
    assert limiter.try_acquire()
    assert work() == "done"
    assert breaker.state == "closed"
