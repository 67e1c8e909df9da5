"""Limits in Redis: one rate for all clients of a real server, and the same rate without it."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import threading
import time
from typing import Any
from uuid import uuid4

import pytest
from crowd import Job, run, until, wait_all
from redis_server import RedisServer
from sharers import soon

from opero import DeadlineExceeded, RateLimiter, opero, opmap, subscribe
from opero.core.clock import NEVER
from opero.limits.redis import _asking
from opero.limits.redis_contact import RedisContact
from opero.limits.redis_scripts import GIVE_BACK, GRANT
from opero.runners.effects import ASK
from opero.runners.sync import ThreadBell
from opero.testing import skip_waits

pytestmark = [pytest.mark.redis, pytest.mark.once]

MS = 10**6
SLACK = 0.03
"""Seconds by which a permit may be noted late, on a busy machine."""


def limit(server: RedisServer, rate: float, burst: int = 1, **more: Any) -> dict[str, Any]:
    name = more.pop("name", uuid4().hex)
    return {
        "rate_limit": rate, "burst": burst, "scope": "redis", "name": name, "url": server.url, **more
    }  # fmt: skip


def assert_about(times: list[int], rate: float, burst: int) -> None:
    """Check that permits follow a rate, apart from how late each may have been noted."""
    times = sorted(times)
    for first, start in enumerate(times):
        for count, end in enumerate(times[first:], 1):
            assert count <= burst + rate * ((end - start) / 1e9 + SLACK) + 1e-6


def took(work: Any) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


# --- the rate ---------------------------------------------------------------------------------------


def test_four_processes_hold_one_rate_and_share_it_fairly(core, sharers, redis_server):
    """Each gets between half and twice its share, and all of them no more than the rate."""
    for _ in range(4):  # a machine that is busy with other things may not be fair itself
        shared = limit(redis_server, 150, 3)
        times = sharers.run("acquire", [core.name] * 4, limit=shared, start=soon(4), seconds=1.0)
        assert_about([time for each in times for time in each], 150, 3)
        share = sum(map(len, times)) / 4
        if share > 20 and all(share / 2 <= len(each) <= 2 * share for each in times):
            return
    raise AssertionError(list(map(len, times)))


@pytest.mark.parametrize("how", ["threads", "tasks"])
def test_threads_and_event_loops_of_several_processes_share_a_limit(
    core, sharers, redis_server, how
):
    """Each of two processes runs decorated functions in two threads or two loops."""
    shared = limit(redis_server, 150, 2, windows=[(30, 0.25)])
    found = sharers.run("call", [core.name] * 2, limit=shared, start=soon(2), count=15, how=how)
    times = sorted(time for part in found for time in part)
    assert len(times) == 60
    assert_about(times, 150, 2)
    assert times[-1] - times[0] >= (60 - 2) / 150 * 1e9 - SLACK * 1e9


def test_a_burst_is_handed_out_once_to_all_who_ask_at_the_same_moment(core, sharers, redis_server):
    """The server serves one after the other."""
    shared = limit(redis_server, 0.01, 30)
    got = sharers.run("grab", [core.name] * 4, limit=shared, start=soon(4), tries=40)
    assert sum(got) == 30


def test_waiters_of_one_process_are_served_in_their_order(core, redis_server):
    """One loop has more tasks than the server grants permits for at a time."""
    limiter = RateLimiter(**limit(redis_server, 200))
    order = []

    async def wait(number):
        await limiter.acquire()
        order.append(number)

    async def main():
        tasks = []
        for number in range(40):
            tasks.append(asyncio.ensure_future(wait(number)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    assert took(lambda: run(main())) >= 39 / 200
    assert order == list(range(40))
    assert not len(limiter._queue)


def test_a_slot_beyond_the_horizon_is_not_reserved(core, redis_server):
    """A long wait asks again; a deadline before the slot fails immediately."""
    limiter = RateLimiter(**limit(redis_server, 0.5))
    assert limiter.try_acquire()
    state = redis_server.command("HGETALL", limiter._queue._keys[0])
    fetch = opero(retries=1, rate_limit=limiter, timeout=1.02)(lambda: "value")
    with pytest.raises(DeadlineExceeded):
        fetch()
    assert not limiter.try_acquire()
    assert redis_server.command("HGETALL", limiter._queue._keys[0]) == state
    assert 1.2 <= took(limiter.acquire_sync) < 20


def test_weights_and_windows_count_on_the_server(core, redis_server):
    """The test takes three at a time from a burst of five, within a further limit."""
    shared = limit(redis_server, 100, 5, windows=[(10, 60)])
    limiter, other = RateLimiter(**shared), RateLimiter(**shared)
    assert limiter.try_acquire(3)
    assert other.try_acquire(2)
    time.sleep(0.1)
    assert not other.try_acquire()  # the window's burst is spent
    with pytest.raises(ValueError, match="weight=6"):
        limiter.try_acquire(6)
    begun = time.monotonic()
    quick = RateLimiter(**limit(redis_server, 100, 20))
    quick.acquire_sync(20)
    quick.acquire_sync(20)
    assert 0.19 <= time.monotonic() - begun < 15


def test_keys_expire_by_themselves(core, redis_server):
    """They expire once the state no longer matters."""
    limiter = RateLimiter(**limit(redis_server, 100, 5, name="{a} b/ü"))
    limiter.acquire_sync(5)
    limiter.pause(1.5)
    keys = [key for key in redis_server.command("KEYS", "opero:limit:*") if b"%7Ba%7D" in key]
    assert len(keys) == 1
    assert all(0 < redis_server.command("PTTL", key) < 5000 for key in keys)


def test_a_clock_of_the_server_that_has_gone_back_holds_nobody_up_for_long(core, redis_server):
    """The script ignores an arrival time that no slot can have caused."""
    limiter = RateLimiter(**limit(redis_server, 100))
    limiter.acquire_sync()
    key = limiter._queue._keys[0]
    later = float(redis_server.command("HGET", key, "rate")) + 3600e6
    redis_server.command("HSET", key, "rate", f"{later:.3f}")
    assert took(limiter.acquire_sync) < 15


# --- those who leave ------------------------------------------------------------------------------------


def test_a_cancelled_task_gives_its_slot_back_and_leaves_no_pending_answer(core, redis_server):
    """The last slot is free again, and the connection's next reply belongs to the next request."""
    limiter = RateLimiter(**limit(redis_server, 3))

    async def main():
        await limiter.acquire()
        for pause in (0, 0.0001, 0.0003, 0.001, 0.05):
            task = asyncio.ensure_future(limiter.acquire())
            await asyncio.sleep(pause)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while _asking:
                await asyncio.sleep(0.001)
        begun = time.monotonic()
        await limiter.acquire()
        return time.monotonic() - begun

    assert run(main()) < 4 / 3 + 1
    assert not len(limiter._queue)


def arrival_of(server: RedisServer, limiter: RateLimiter) -> Any:
    return server.command("HGET", limiter._queue._keys[0], "rate")


def line_of(server: RedisServer, limiter: RateLimiter) -> list[Any]:
    return [
        each for each in server.command("HKEYS", limiter._queue._keys[0]) if each.startswith(b"@")
    ]


@pytest.mark.parametrize("how", ["threads", "tasks"])
@pytest.mark.parametrize("when", ["in line", "granted"])
def test_who_is_interrupted_leaves_the_line_and_gives_back_what_was_granted(
    core, redis_server, how, when
):
    """The server's state is as before: nobody has received a permit since."""
    shared = limit(redis_server, 1.1 if when == "in line" else 5)
    limiter, other = RateLimiter(**shared), RateLimiter(**shared)
    other.acquire_sync()
    before = arrival_of(redis_server, limiter)

    def waits() -> bool:
        if when == "in line":
            return len(line_of(redis_server, limiter)) == 1
        return limiter._queue.bucket.credit() == 1

    async def main():
        task = asyncio.ensure_future(limiter.acquire())
        while not waits():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while _asking:  # the reply that it does not wait for
            await asyncio.sleep(0.001)

    if how == "tasks":
        run(main())
    else:
        job = Job(limiter.acquire_sync)
        until(waits)
        job.interrupt()
        assert isinstance(job.wait().error, KeyboardInterrupt)
    assert not len(limiter._queue)
    assert limiter._queue.bucket.credit() == 0
    until(lambda: arrival_of(redis_server, limiter) == before)  # at once, unless it was asking
    until(lambda: line_of(redis_server, limiter) == [])


@pytest.mark.parametrize("rate", [20, 50, 400])
def test_those_who_give_up_waiting_burn_nothing(core, redis_server, rate):
    """Twice as many clients ask as there are permits, and wait briefly."""
    limiter = RateLimiter(**limit(redis_server, rate))
    taken = []

    async def request():
        try:
            await asyncio.wait_for(limiter.acquire(), max(0.1, 5 / rate))
        except TimeoutError:
            return
        taken.append(time.monotonic())

    async def main():
        begun = time.monotonic()
        tasks = []
        while (spent := time.monotonic() - begun) < 1.5:
            while len(tasks) < 2 * rate * spent:
                tasks.append(asyncio.ensure_future(request()))
            await asyncio.sleep(0.5 / rate)
        await asyncio.gather(*tasks)
        return time.monotonic() - begun

    span = run(main())
    assert 0.3 * rate * span < len(taken) <= 1 + rate * (span + 0.1)


def test_a_question_that_nobody_waits_for_any_more_is_taken_back(core, redis_server):
    """The caller leaves after the server granted the permit but before its reply."""
    limiter = RateLimiter(**limit(redis_server, 0.01, 2))
    limiter.acquire_sync()
    before = arrival_of(redis_server, limiter)
    steps = limiter._queue.steps(NEVER, 1)
    next(steps)
    kind, _, operation, request = steps.send(ThreadBell(bool))
    assert kind == ASK
    limiter._queue.server.ask(operation, *request)
    assert arrival_of(redis_server, limiter) != before
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    until(lambda: arrival_of(redis_server, limiter) == before)
    assert limiter.try_acquire()


def test_a_thread_that_is_interrupted_while_it_asks_does_not_ask_again_itself(
    core, redis_server, monkeypatch
):
    """If the server were frozen, the thread would wait for it a second time."""
    limiter = RateLimiter(**limit(redis_server, 5))
    asked = []

    def ask(contact, operation, script, *rest):
        asked.append((script, threading.get_ident()))
        if script is GRANT:
            raise KeyboardInterrupt

    monkeypatch.setattr(RedisContact, "ask", ask)
    with pytest.raises(KeyboardInterrupt):
        limiter.acquire_sync()
    until(lambda: len(asked) == 2)
    (first, here), (then, there) = asked
    assert (first, then) == (GRANT, GIVE_BACK)
    assert here == threading.get_ident() != there


def test_a_pause_overtakes_a_reply_that_is_on_its_way(core, redis_server):
    """Earlier grants are void, and a server that forgets hears of the pause again."""
    limiter = RateLimiter(**limit(redis_server, 1000, 1))
    limiter.acquire_sync()
    queue = limiter._queue
    steps = queue.steps(NEVER, 1)
    next(steps)
    _, question, operation, request = steps.send(ThreadBell(bool))
    reply = queue.server.ask(operation, *request)
    limiter.pause(60)
    known = queue._halt
    queue._heard(question, reply)
    assert queue.bucket.credit() == 0
    assert not limiter.try_acquire()
    assert queue._halt == known != "0"
    steps.close()


# --- turns ----------------------------------------------------------------------------------------


def turns_of(limiters: list[RateLimiter], places: list[int], count: int) -> list[int]:
    """Have threads take permits again and again; return how many each of `limiters` had of `count`.

    Args:
        limiters: What they take permits from.
        places: The number of the limiter of each thread.
        count: How many permits to look at.
    """
    turns: list[int] = []

    def loop(number: int) -> None:
        while len(turns) < count:
            limiters[number].acquire_sync()
            turns.append(number)

    wait_all([Job(loop, number) for number in places])
    return [turns[:count].count(number) for number in range(len(limiters))]


def test_threads_of_one_process_take_turns_at_a_low_rate(core, redis_server):
    """A thread that has had a permit queues behind those who wait."""
    limiter = RateLimiter(**limit(redis_server, 8))
    counts = turns_of([limiter] * 4, [0, 1, 2, 3], 12)
    assert max(counts) - min(counts) <= 2


@pytest.mark.parametrize("rate", [8, 30])
def test_limiters_of_one_name_take_turns_at_a_low_rate(core, redis_server, rate):
    """Two limiters act as two processes would."""
    shared = limit(redis_server, rate)
    limiters = [RateLimiter(**shared) for _ in range(3)]
    counts = turns_of(limiters, [0, 0, 1, 1, 2, 2], 15)
    assert max(counts) - min(counts) <= 4


def test_one_who_waits_alone_is_not_starved_by_many_of_another_process(core, redis_server):
    """It queues behind the first of them, not behind all."""
    shared = limit(redis_server, 15)
    counts = turns_of([RateLimiter(**shared), RateLimiter(**shared)], [0] * 12 + [1], 15)
    assert counts[1] >= 3


def test_who_has_died_in_line_holds_nobody_up(core, redis_server):
    """A place expires if nobody asks again; a waiter for many permits has one place."""
    shared = limit(redis_server, 10, 3)
    limiter, dead = RateLimiter(**shared), RateLimiter(**shared)
    limiter.acquire_sync(3)
    steps = dead._queue.steps(NEVER, 3)
    next(steps)
    _, question, _, request = steps.send(ThreadBell(bool))
    dead._queue.server.ask("script", *request)
    assert question.request == request
    assert len(line_of(redis_server, limiter)) == 1
    assert took(limiter.acquire_sync) < 15
    steps.close()


def test_a_loop_that_is_stuck_while_it_asks_holds_nobody_up(core, redis_server, monkeypatch):
    """Another waiter asks after a while."""
    monkeypatch.setattr("opero.limits.redis._SILENCE", 200 * MS)
    limiter = RateLimiter(**limit(redis_server, 100))
    steps = limiter._queue.steps(NEVER, 1)
    next(steps)
    assert steps.send(ThreadBell(bool))[0] == ASK  # and nothing more comes of it
    assert 0.1 < took(limiter.acquire_sync) < 15
    steps.close()
    assert not len(limiter._queue)


def test_permits_are_handed_out_once_to_threads_that_come_at_the_same_moment(core, redis_server):
    """All of them take from one thread's grant."""
    limiter = RateLimiter(**limit(redis_server, 5000, 100))
    taken = [0] * 8
    begun = time.monotonic()

    def loop(number):
        while time.monotonic() < begun + 0.5:
            limiter.acquire_sync()
            taken[number] += 1

    wait_all([Job(loop, number) for number in range(8)])
    assert sum(taken) <= 100 + 5000 * (time.monotonic() - begun)
    granted = float(arrival_of(redis_server, limiter)) - float(limiter._queue._born)
    assert sum(taken) <= granted / 200


def test_one_who_wants_many_is_not_passed_by_those_who_want_one(core, redis_server):
    """The others wait until it has its permits."""
    shared = limit(redis_server, 20, 5)
    limiter, other = RateLimiter(**shared), RateLimiter(**shared)
    limiter.acquire_sync(5)
    order = []
    many = Job(lambda: (limiter.acquire_sync(5), order.append("many")))
    until(lambda: line_of(redis_server, limiter))
    ones = [Job(lambda: (other.acquire_sync(), order.append("one"))) for _ in range(3)]
    wait_all([many, *ones])
    assert order == ["many", "one", "one", "one"]


@pytest.mark.parametrize("how", ["threads", "tasks"])
def test_one_question_is_for_all_who_wait_and_for_those_who_come_soon(core, redis_server, how):
    """Thousands of permits per second take only a few requests."""
    limiter = RateLimiter(**limit(redis_server, 20_000))
    questions = []
    ask = limiter._queue._asked
    limiter._queue._asked = lambda *given: questions.append(given) or ask(*given)

    async def main():
        for _ in range(200):
            await asyncio.gather(*[limiter.acquire() for _ in range(5)])

    if how == "tasks":
        run(main())
    else:
        for _ in range(1000):
            limiter.acquire_sync()
    assert len(questions) < 250
    assert all(weight + more + extra <= 5 + 400 for weight, more, extra, *_ in questions)


# --- a server that forgets ------------------------------------------------------------------------


def forget(server: RedisServer, how: str, key: str) -> None:
    """Make a server forget a key."""
    if how == "flush":
        server.command("FLUSHALL")
        return
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    used = int(server.command("INFO", "memory").split(b"used_memory:")[1].split(b"\r")[0])
    server.command("CONFIG", "SET", "maxmemory", str(used + 300_000))
    for number in range(100_000):
        if not server.command("EXISTS", key):
            break
        server.command("SET", f"other {number}", "x" * 5000)
    server.command("CONFIG", "SET", "maxmemory", "0")
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")


@pytest.mark.parametrize("how", ["flush", "evict"])
def test_a_server_that_forgets_gives_one_process_no_more(core, own_server, caplog, how):
    """The process counts what it has had, restores it for the others, and logs that once."""
    shared = limit(own_server, 3, 5, windows=[(100, 60)])
    limiter = RateLimiter(**shared)
    events = []
    end = subscribe(events.append, "limit_lost")
    limiter.acquire_sync(5)
    begun = time.monotonic()
    taken = 0
    for _ in range(2):
        forget(own_server, how, limiter._queue._keys[0])
        for _ in range(200):
            taken += limiter.try_acquire()
        limiter.acquire_sync()
        taken += 1
        newcomers = [RateLimiter(**shared).try_acquire() for _ in range(5)]
        taken += sum(newcomers)
    end()
    assert taken <= 1 + 3 * (time.monotonic() - begun + SLACK)
    assert [event.store for event in events] == [limiter._queue.called]
    assert len([line for line in warnings_of(caplog) if "noeviction" in line]) == 1


@pytest.mark.parametrize("how", ["flush", "evict"])
def test_a_pause_survives_a_server_that_forgets(core, own_server, how):
    """Every process that had heard of it restores it."""
    shared = limit(own_server, 50, 4)
    limiter, other = RateLimiter(**shared), RateLimiter(**shared)
    limiter.pause(1.2)
    begun = time.monotonic()
    assert not other.try_acquire()  # now it knows, too
    forget(own_server, how, limiter._queue._keys[0])
    assert not limiter.try_acquire()
    assert not other.try_acquire()
    assert not RateLimiter(**shared).try_acquire()
    other.acquire_sync()
    assert time.monotonic() - begun > 1.1


def test_an_adaptive_rate_survives_a_server_that_forgets(core, own_server):
    """Each process that asks restores what it last heard."""
    shared = limit(own_server, 200, adaptive=True)
    limiter = RateLimiter(**shared)
    reject(limiter)
    rate = limiter.rate
    own_server.command("FLUSHALL")
    limiter.acquire_sync()
    assert limiter.rate == rate
    newcomer = RateLimiter(**shared)
    newcomer.acquire_sync()
    assert newcomer.rate == rate


# --- pauses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["threads", "tasks"])
def test_what_a_server_asks_for_pauses_a_limit_that_hosts_share(core, redis_server, how):
    """The process that hears it does not wait until the others know."""
    shared = limit(redis_server, 100, 9)
    other = RateLimiter(**shared)

    def refused():
        raise OSError

    async def arefused():
        refused()

    function = opero(retries=1, rate_limit=RateLimiter(**shared), retry_after=lambda error: 1.5)(
        refused if how == "threads" else arefused
    )
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"^$"):
        function() if how == "threads" else run(function())
    key = other._queue._keys[0]
    until(lambda: float(redis_server.command("HGET", key, "paused") or 0) > 0)
    other.acquire_sync()
    assert time.monotonic() - begun > 1.4


def test_a_pause_that_no_thread_can_tell_others_costs_no_call_its_error(
    core, redis_server, monkeypatch
):
    """There may be too many threads, or the interpreter may be ending."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    def refused():
        raise OSError

    limiter = RateLimiter(**limit(redis_server, 100, 9))
    function = opero(retries=1, rate_limit=limiter, retry_after=lambda error: 1.5)(refused)
    monkeypatch.setattr("threading.Thread.start", refuse)
    with pytest.raises(OSError, match=r"^$"):
        function()


def test_a_pause_is_heeded_by_other_clients_and_by_those_who_sleep(core, redis_server):
    """Two limiters with one name act as two processes would."""
    shared = limit(redis_server, 10, 3)
    limiter, other = RateLimiter(**shared), RateLimiter(**shared)
    limiter.acquire_sync(3)
    jobs = [Job(other.acquire_sync) for _ in range(2)]
    jobs.append(Job(run, other.acquire()))
    until(lambda: len(other._queue) == 3)
    time.sleep(0.02)
    begun = time.monotonic()
    limiter.pause(0.5)
    limiter.pause(0.1)
    limiter.pause(0)
    assert not other.try_acquire()
    wait_all(jobs)
    assert [job.error for job in jobs] == [None] * 3
    # one by one, as the burst is spent; but one may have been granted its permit before
    assert 0.6 <= time.monotonic() - begun < 15


# --- outages ----------------------------------------------------------------------------------------------


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("fault", ["stop", "freeze", "fill"])
def test_without_the_server_the_same_limit_goes_on_and_it_heals_by_itself(
    core, own_server, caplog, fault
):
    """The limit holds, with one warning and bounded cost; it returns to the server."""
    limiter = RateLimiter(**limit(own_server, 100, 2))
    fetch = opero(retries=1, rate_limit=limiter)(lambda: "value")
    fetch()
    getattr(own_server, fault)()
    begun = time.monotonic()
    times = []
    for _ in range(15):
        fetch()
        times.append(time.monotonic_ns())
    assert time.monotonic() - begun < 10
    assert_about(times, 100, 2)
    assert len(warnings_of(caplog)) == 1
    assert "127.0.0.1" in warnings_of(caplog)[0]
    {"stop": own_server.start, "freeze": own_server.thaw, "fill": own_server.drain}[fault]()
    end = time.monotonic() + 20
    while limiter._queue.server._outage._out:
        assert time.monotonic() < end
        fetch()
        time.sleep(0.02)
    assert own_server.command("HGETALL", limiter._queue._keys[0])
    assert len(warnings_of(caplog)) <= 2


def test_tasks_that_wait_when_the_server_freezes_get_their_permits(core, own_server):
    """Tasks that ask, sleep or have just come all follow this process's limit."""
    limiter = RateLimiter(**limit(own_server, 50))
    times = []

    async def wait():
        await limiter.acquire()
        times.append(time.monotonic_ns())

    async def main():
        tasks = [asyncio.ensure_future(wait()) for _ in range(30)]
        while len(times) < 3:
            await asyncio.sleep(0.002)
        own_server.freeze()
        await asyncio.gather(*tasks)

    assert took(lambda: run(main())) >= 29 / 50 / 2
    assert len(times) == 30
    own_server.thaw()
    # eight had a slot from the server when it froze; and from then on the limit is that of this process
    times.sort()
    for first, start in enumerate(times):
        span = (times[-1] - start) / 1e9
        assert len(times) - first <= 1 + 8 + 50 * (span + SLACK)


def test_clients_on_several_loops_and_threads_ride_out_a_restart(core, own_server):
    """All get their permits, and none gets another one's reply."""
    limiter = RateLimiter(**limit(own_server, 300, 5))
    stop = threading.Event()
    counts = [0] * 4

    def threads(number):
        while not stop.is_set():
            limiter.acquire_sync()
            counts[number] += 1

    async def tasks(number):
        async def one():
            while not stop.is_set():
                await limiter.acquire()
                counts[number] += 1

        await asyncio.gather(*[one() for _ in range(3)])

    jobs = [Job(threads, 0), Job(threads, 1), Job(run, tasks(2)), Job(run, tasks(3))]
    begun = time.monotonic()
    for _ in range(2):
        time.sleep(0.15)
        own_server.restart()
    until(lambda: not limiter._queue.server._outage._out)
    before = list(counts)
    until(lambda: all(now > then for now, then in zip(counts, before, strict=True)))
    stop.set()
    for job in jobs:
        job.result()
    span = time.monotonic() - begun
    assert sum(counts) <= 300 * (span + SLACK) + 4 * 5 + 2 * 8 + 8  # a new server knows of nothing
    assert not len(limiter._queue)


# --- the rest -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_maps_take_their_permits_from_a_limit_in_redis(core, redis_server, mode):
    """In every mode the parent takes the permits."""
    limiter = RateLimiter(**limit(redis_server, 100))
    function = halve_async if mode == "async" else halve
    begun = time.monotonic()
    assert opmap(mode=mode, workers=2, rate_limit=limiter)(function)(range(20)) == [
        number / 2 for number in range(20)
    ]
    assert time.monotonic() - begun >= 19 / 100


def halve(number):
    return number / 2


async def halve_async(number):
    return number / 2


def test_a_map_goes_on_without_the_server(core, own_server):
    """It uses the limit of this process."""
    limiter = RateLimiter(**limit(own_server, 100))

    @opmap(mode="thread", workers=2, rate_limit=limiter)
    def double(number):
        if number == 3:
            own_server.stop()
        return 2 * number

    assert took(lambda: double(range(20))) >= 18 / 100


def test_a_pickle_is_the_same_limit_and_a_repr_shows_no_password(core):
    """The pickle contains the URL, so workers find the server."""
    with RedisServer(password="secret") as server:
        limiter = RateLimiter(**limit(server, 0.01, 2))
        twin = pickle.loads(pickle.dumps(limiter))
        assert [limiter.try_acquire(), twin.try_acquire(), limiter.try_acquire()] == [
            True, True, False
        ]  # fmt: skip
        assert repr(twin) == repr(limiter)
        assert "secret" not in repr(limiter)
    gc.collect()


def test_a_limit_in_redis_goes_by_real_time_under_the_clocks_of_tests(core, redis_server):
    """Processes outside the test share it, and their time does not move."""
    limiter = RateLimiter(**limit(redis_server, 20))
    fetch = opero(retries=1, rate_limit=limiter)(lambda: "value")
    with skip_waits():
        assert took(lambda: [fetch() for _ in range(4)]) >= 3 / 20
    assert fetch.stats().permit_wait >= 0.1


def test_a_wrong_url_is_refused_without_its_password():
    """The error comes when the limiter is made, not when it is used."""
    with pytest.raises(ValueError, match="Redis URL") as caught:
        RateLimiter(5, scope="redis", name="x", url="http://:secret@nowhere")
    assert "secret" not in str(caught.value)


# --- a rate that adapts -----------------------------------------------------------------------------


class Busy(Exception):
    """An error that a client raises for an answer with the status 429."""

    status = 429


def reject(limiter: RateLimiter) -> None:
    """Fail in a block as if the server rejected it, and wait until Redis knows."""
    with pytest.raises(Busy), limiter:
        raise Busy
    until_told()


def until_told() -> None:
    """Wait until background requests to Redis have finished."""
    until(lambda: not any(each.name == "opero-limit" for each in threading.enumerate()))


def test_a_cut_is_one_for_all_who_share_the_limit(redis_server):
    """Another process hears of it with its next permit, and a newcomer resets nothing."""
    shared = limit(redis_server, 200, adaptive=True)
    one, other = RateLimiter(**shared), RateLimiter(**shared)
    assert (one.rate, other.rate, one.floor) == (200, 200, 2)
    reject(one)
    assert 100 < one.rate < 130
    other.acquire_sync()
    assert other.rate == one.rate
    newcomer = RateLimiter(**shared)
    newcomer.acquire_sync()
    assert newcomer.rate == one.rate


def test_permits_come_at_the_rate_of_that_moment(redis_server):
    """After four rejections the rate is less than a sixth."""
    shared = limit(redis_server, 200, adaptive=True)
    one, other = RateLimiter(**shared), RateLimiter(**shared)
    for _ in range(4):
        reject(one)
        time.sleep(0.05)
    other.acquire_sync()
    assert other.rate < 30
    assert took(lambda: [other.acquire_sync() for _ in range(6)]) > 5 / 30 - SLACK


def test_rejections_of_attempts_from_before_a_cut_do_not_count(redis_server):
    """That holds for this process, and for one that has since heard of the cut."""
    shared = limit(redis_server, 200, burst=5, adaptive=True)
    one, other = RateLimiter(**shared), RateLimiter(**shared)
    began = one._queue.clock.now()
    reject(one)
    rate = one.rate
    one._queue.report(2, began)
    other.acquire_sync()
    other._queue.report(2, began)
    assert not any(each.name == "opero-limit" for each in threading.enumerate())
    one.acquire_sync()
    assert one.rate == rate


def test_successes_of_all_raise_the_rate_of_all(redis_server):
    """The rate returns within seconds to the given one."""
    shared = limit(redis_server, 400, burst=4, adaptive=True)
    limiters = [RateLimiter(**shared) for _ in range(2)]
    reject(limiters[0])
    limiters[1].acquire_sync()
    assert limiters[1].rate < 400
    end = time.monotonic() + 20
    while limiters[1].rate < 400 and time.monotonic() < end:
        for limiter in limiters:
            with limiter:
                pass
    limiters[0].acquire_sync()
    assert [limiter.rate for limiter in limiters] == pytest.approx([400, 400], rel=0.05)


@pytest.mark.parametrize("how", ["threads", "tasks"])
def test_processes_find_out_together_what_a_server_in_front_of_redis_allows(
    core, sharers, redis_server, how
):
    """Together they use what the server allows, and are rarely rejected."""
    if how == "tasks":  # functions of both kinds learn by the same way
        shared = limit(redis_server, 50, adaptive=True)
        limiter = RateLimiter(**shared)

        @opero(retries=1, rate_limit=limiter)
        async def fetch() -> None:
            raise Busy

        with pytest.raises(Busy):
            run(fetch())
        until(lambda: limiter.rate < 50)
        return
    adaptive = limit(redis_server, 500, adaptive=True, floor=10)
    server = limit(redis_server, 100, 5)
    found = sharers.run(
        "learn", [core.name] * 2, limit=adaptive, server=server, start=soon(2), seconds=3.0
    )
    served, rejected, rates = zip(*found, strict=True)
    assert sum(served) > 60
    assert sum(rejected) < sum(served) / 2
    assert max(rates) < 300


def test_a_short_pause_that_a_server_asks_for_is_heeded_where_a_lower_rate_does_not_do(
    redis_server,
):
    """A user's own pause is always obeyed."""
    limiter = RateLimiter(**limit(redis_server, 200, burst=5, adaptive=True))
    reject(limiter)
    limiter._queue.pause_soon(1900 * MS)
    assert took(limiter.acquire_sync) < 1
    time.sleep(0.05)
    reject(limiter)
    limiter._queue.pause_soon(500 * MS)
    until_told()
    assert took(limiter.acquire_sync) > 0.3
    limiter.pause(0.3)
    assert took(limiter.acquire_sync) > 0.25


def test_without_the_server_the_limit_adapts_in_each_process_for_itself(own_server, caplog):
    """It starts from what this process has learned all along."""
    limiter = RateLimiter(**limit(own_server, 200, adaptive=True))
    limiter.acquire_sync()
    own_server.stop()
    with caplog.at_level(logging.WARNING, "opero"):
        limiter.acquire_sync()
    reject(limiter)
    assert limiter.rate < 130


def test_it_is_pickled_with_its_settings_and_has_the_rate_of_all(redis_server):
    """The copy learns the rate with its first request."""
    limiter = RateLimiter(**limit(redis_server, 200, adaptive=True, floor=7))
    reject(limiter)
    again = pickle.loads(pickle.dumps(limiter))
    assert (again.floor, again.adaptive) == (7, True)
    again.acquire_sync()
    assert again.rate == limiter.rate
