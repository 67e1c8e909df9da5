"""Stores that are out of order: one warning, few attempts, a bounded cost, and back to work alone."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from crowd import Driven

from opero.clients.outages import FIRST, LAST, Outage
from opero.stores.disk import DiskBackend
from opero.stores.operations import AsyncOperations, Operations
from opero.stores.redis import AsyncRedisBackend, RedisBackend

NAME = "app:" + "0" * 32
OTHER = "app:" + "1" * 32


class Clock:
    """Seconds that a test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(caplog):
    """Returns level and text of each line so far."""
    caplog.set_level(logging.DEBUG, "opero")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


# --- the rules ----------------------------------------------------------------------------------


def try_it(outage, error=None, writing=False):
    """Use a store as its users do; return whether it was left alone."""
    ticket = outage.enter(writing)
    assert outage.refuses(writing) or ticket
    if ticket:
        outage.leave(ticket, writing, error)
    return not ticket


def test_nothing_is_left_out_while_all_works(clock, log):
    outage = Outage("the store", clock)
    for writing in (False, True):
        assert not outage.refuses(writing)
        assert not try_it(outage, None, writing)
    assert outage.failures == 0
    assert log() == []


def test_an_outage_is_one_warning_and_its_end_one_line(clock, log):
    outage = Outage("the redis cache at 127.0.0.1:6379", clock)
    tickets = [outage.enter() for _ in range(5)]
    for ticket in tickets:
        outage.leave(ticket, error=OSError("refused"))
    for _ in range(10):
        assert try_it(outage)
    clock.now += 60
    assert not try_it(outage)
    assert outage.failures == 15
    assert not try_it(outage)
    (warning, first), (info, second) = log()
    assert (warning, info) == ("WARNING", "INFO")
    assert first.startswith("the redis cache at 127.0.0.1:6379 is unavailable (OSError: refused)")
    assert second == (
        "the redis cache at 127.0.0.1:6379 works again after 60.0 s; "
        "operations that failed or were skipped: 15"
    )


def test_one_caller_at_a_time_tries_and_ever_less_often(clock):
    outage = Outage("the store", clock)
    try_it(outage, OSError())
    start, tried = clock.now, []
    while clock.now < start + 100:
        ticket = outage.enter()
        if ticket:
            tried.append(clock.now - start)
            assert outage.refuses()
            assert not outage.enter()
            outage.leave(ticket, error=OSError())
        clock.now += 0.25
    pauses = [later - earlier for earlier, later in zip([0.0, *tried], tried, strict=False)]
    assert pauses[:5] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST, 16 * FIRST]
    assert set(pauses[5:]) == {LAST}


def test_a_store_that_hangs_is_not_tried_more_often_for_that(clock):
    """A probe that has not reported yet keeps its place as long as the pause would be."""
    outage = Outage("the store", clock)
    try_it(outage, OSError())
    tried = 0
    for _ in range(400):
        clock.now += 0.25
        tried += outage.enter() != 0
    assert 12 <= tried <= 15


def test_a_caller_that_never_reports_does_not_keep_the_store_blocked_for_good(clock):
    outage = Outage("the store", clock)
    try_it(outage, OSError())
    clock.now += FIRST
    assert outage.enter()
    assert not outage.enter()
    clock.now += 2 * FIRST
    assert not try_it(outage)
    assert not outage.refuses()


@pytest.mark.parametrize("error", [None, OSError("late")])
@pytest.mark.parametrize("writing", [False, True])
def test_what_began_before_the_outage_tells_nothing_of_its_end(clock, log, error, writing):
    outage = Outage("the store", clock)
    early = outage.enter(writing)
    try_it(outage, OSError(), writing)
    outage.leave(early, writing, error)
    assert outage.refuses(writing)
    clock.now += FIRST
    assert not try_it(outage, None, writing)
    outage.leave(early, writing, error)
    assert not outage.refuses(writing)
    assert [level for level, _ in log()] == ["WARNING", "INFO"]


def test_a_late_answer_of_an_earlier_probe_is_not_that_of_a_later_one(clock):
    outage = Outage("the store", clock)
    try_it(outage, OSError())
    clock.now += FIRST
    first = outage.enter()
    clock.now += 2 * FIRST
    second = outage.enter()
    assert first
    assert second
    outage.leave(second, error=OSError())
    outage.leave(first)
    assert outage.refuses()


@pytest.mark.parametrize("writing", [False, True])
def test_a_store_that_answers_who_did_not_ask_is_in_order(clock, log, writing):
    outage = Outage("the store", clock)
    try_it(outage, OSError(), writing)
    outage.leave(0, writing, OSError())
    assert outage.refuses(writing)
    outage.leave(0, writing)
    assert not outage.refuses(writing)
    outage.leave(0, writing)
    assert [level for level, _ in log()] == ["WARNING", "INFO"]


def test_what_cannot_be_written_can_be_read(clock, log):
    outage = Outage("the store", clock)
    for _ in range(20):
        assert not try_it(outage)
        try_it(outage, OSError("full"), writing=True)
        clock.now += 0.1
    assert [level for level, _ in log()] == ["WARNING"]
    clock.now += LAST
    assert not try_it(outage, None, writing=True)
    assert [level for level, _ in log()] == ["WARNING", "INFO"]


def test_what_cannot_be_read_is_not_written(clock, log):
    outage = Outage("the store", clock)
    try_it(outage, OSError())
    clock.now += FIRST
    assert try_it(outage, None, writing=True)
    assert not try_it(outage)
    assert not outage.refuses(writing=True)
    assert [level for level, _ in log()] == ["WARNING", "INFO"]


def test_what_can_be_written_can_be_read(clock, log):
    outage = Outage("the store", clock)
    try_it(outage, OSError(), writing=True)
    clock.now += FIRST
    probe = outage.enter(writing=True)
    try_it(outage, OSError())
    outage.leave(probe, writing=True)
    assert not outage.refuses()
    assert [level for level, _ in log()] == ["WARNING", "INFO"]


def test_a_store_that_fails_again_and_again_is_not_a_warning_each_time(clock, log):
    outage = Outage("the store", clock)
    for _ in range(200):
        try_it(outage)
        try_it(outage, OSError())
        clock.now += 0.5
    assert [level for level, _ in log()].count("WARNING") == 1
    clock.now += LAST
    assert not try_it(outage)
    clock.now += LAST + 1
    try_it(outage, OSError("another day"))
    assert [level for level, _ in log()].count("WARNING") == 2
    clock.now += FIRST
    assert not outage.refuses()


def test_an_error_that_cannot_be_shown_is_an_error_all_the_same(clock, log):
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    try_it(Outage("the store", clock), Broken())
    assert "(Broken (its message cannot be shown))" in log()[0][1]


def test_threads_that_fail_together_make_one_warning(clock, log):
    outage = Outage("the store", clock)
    together = threading.Barrier(8)

    def fail(_):
        ticket = outage.enter()
        together.wait()
        outage.leave(ticket, error=OSError())
        return try_it(outage)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(fail, range(8)))
    assert outage.failures == 16
    assert len(log()) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_knows_of_no_outage_and_of_no_lock(clock):
    outage = Outage("the store", clock)
    try_it(outage, OSError())
    taken, over = threading.Event(), threading.Event()

    def hold():
        with outage._lock:
            taken.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        child = os.fork()
        if not child:
            os._exit(0 if not try_it(outage, OSError()) and try_it(outage) else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        over.set()
        thread.join()


# --- real stores --------------------------------------------------------------------------------


class Guarded:
    """Uses a backend as a cache does: through an outage, and letting nothing out.

    Attributes:
        longest: Seconds of the longest operation.
    """

    def __init__(self, backend, clock):
        self.outage = Outage("the store", clock)
        self.longest = 0.0
        self._backend = backend

    def get(self, name):
        return self._try(self._backend.get, (name,), writing=False)

    def put(self, name, data):
        return self._try(self._backend.put, (name, data, None), writing=True)

    def _try(self, call, arguments, writing):
        ticket = self.outage.enter(writing)
        if not ticket:
            return "left out"
        start = time.monotonic()
        try:
            found = call(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is
            self.outage.leave(ticket, writing, error)
            return "failed"
        else:
            self.outage.leave(ticket, writing)
            return found
        finally:
            self.longest = max(self.longest, time.monotonic() - start)


@pytest.fixture(params=["threads", "tasks"])
def guarded(request, redis_server, clock):
    """A backend in Redis behind an outage."""
    redis_server.command("FLUSHALL")
    url = redis_server.url + "?socket_timeout=0.2"
    if request.param == "threads":
        backend = Operations(RedisBackend(url))
        yield Guarded(backend, clock)
        backend.close()
        return
    loop = asyncio.new_event_loop()
    try:
        yield Guarded(Driven(loop, AsyncOperations(AsyncRedisBackend(url))), clock)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def out_and_back(guarded, clock, log, breaks, mends):
    """Let a store break and be mended, and look at what its user sees."""
    assert guarded.get(NAME) is None
    assert guarded.put(NAME, b"1") is None
    assert guarded.get(NAME) == b"1"
    breaks()
    try:
        start = time.monotonic()
        seen = [guarded.get(NAME) for _ in range(100)]
        assert seen == ["failed"] + ["left out"] * 99
        assert guarded.put(OTHER, b"2") == "left out"
        clock.now += FIRST
        assert [guarded.get(NAME) for _ in range(2)] == ["failed", "left out"]
        assert time.monotonic() - start < 10
    finally:
        mends()
    assert guarded.get(NAME) == "left out"
    clock.now += LAST
    assert guarded.get(NAME) in {b"1", None}
    assert guarded.put(NAME, b"2") is None
    assert guarded.get(NAME) == b"2"
    assert [level for level, _ in log()] == ["WARNING", "INFO"]
    assert guarded.outage.failures == 104
    assert guarded.longest < 5


@pytest.mark.once
@pytest.mark.redis
def test_a_server_that_is_gone(guarded, clock, log, redis_server):
    out_and_back(guarded, clock, log, redis_server.stop, redis_server.start)
    assert f"connecting to 127.0.0.1:{redis_server.port}" in log()[0][1]


@pytest.mark.once
@pytest.mark.redis
def test_a_server_that_does_not_answer(guarded, clock, log, redis_server):
    """Connections are accepted all the same, by the kernel."""
    out_and_back(guarded, clock, log, redis_server.freeze, redis_server.thaw)


@pytest.mark.once
@pytest.mark.redis
def test_a_server_that_was_restarted_is_no_outage(guarded, clock, log, redis_server):
    for _ in range(3):
        assert guarded.put(NAME, b"1") is None
        redis_server.restart()
        assert guarded.get(NAME) is None
    assert log() == []


@pytest.mark.once
@pytest.mark.redis
def test_a_server_that_wants_a_password_now(guarded, clock, log, redis_server):
    def lock():
        redis_server.command("CONFIG", "SET", "requirepass", "s3cr3t")
        redis_server.password = "s3cr3t"
        redis_server.command("CLIENT", "KILL", "TYPE", "normal")

    def unlock():
        redis_server.command("CONFIG", "SET", "requirepass", "")
        redis_server.password = None

    out_and_back(guarded, clock, log, lock, unlock)
    assert "s3cr3t" not in str(log())


@pytest.mark.once
@pytest.mark.redis
def test_a_full_server_is_still_read(guarded, clock, log, redis_server):
    assert guarded.put(NAME, b"1") is None
    redis_server.fill()
    try:
        assert guarded.put(OTHER, b"2") == "failed"
        for _ in range(50):
            assert guarded.put(OTHER, b"2") == "left out"
            assert guarded.get(NAME) == b"1"
        assert guarded._backend.get_and_take(NAME, "me", 10) == (b"1", None)
        assert guarded._backend.delete(NAME)
    finally:
        redis_server.drain()
    clock.now += LAST
    assert guarded.put(OTHER, b"2") is None
    assert [level for level, _ in log()] == ["WARNING", "INFO"]


@pytest.mark.once
def test_a_database_that_is_locked_is_still_read(tmp_path, clock, log):
    backend = Operations(DiskBackend(tmp_path / "cache", None, 0.1))
    guarded = Guarded(backend, clock)
    assert guarded.put(NAME, b"1") is None
    other = sqlite3.connect(tmp_path / "cache" / "cache.db", isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        assert guarded.put(OTHER, b"2") == "failed"
        for _ in range(50):
            assert guarded.put(OTHER, b"2") == "left out"
            assert guarded.get(NAME) == b"1"
    finally:
        other.close()
    clock.now += LAST
    assert guarded.put(OTHER, b"2") is None
    assert guarded.get(OTHER) == b"2"
    assert [level for level, _ in log()] == ["WARNING", "INFO"]
    backend.close()


@pytest.mark.once
def test_a_damaged_database_is_a_miss_and_one_warning(tmp_path, clock, log):
    backend = Operations(DiskBackend(tmp_path / "cache", None, 0.1))
    guarded = Guarded(backend, clock)
    assert guarded.put(NAME, b"1") is None
    backend.close()
    (tmp_path / "cache" / "cache.db").write_bytes(b"garbage " * 1000)
    assert guarded.get(NAME) is None
    assert guarded.put(NAME, b"1") is None
    assert guarded.get(NAME) == b"1"
    assert [level for level, _ in log()] == ["WARNING"]
    assert guarded.outage.failures == 0
    backend.close()
