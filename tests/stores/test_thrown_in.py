"""Exceptions that a program throws into its own calls while opero asks a store: they arrive."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import threading
import time

import pytest
import stored_functions as functions
from crowd import Job, until

from opero import RateLimiter, opero
from opero.runners import daemon_threads
from opero.stores import renewer, secret
from opero.stores.leases import lease_of

SECRET = "a-secret-for-the-tests-of-stored-values"


class SoftTimeLimitExceeded(Exception):
    """As that of celery."""


@pytest.fixture(params=["disk", pytest.param("redis", marks=pytest.mark.redis)])
def store(request, tmp_path, monkeypatch):
    """Return the options that choose a backend, empty."""
    monkeypatch.setenv(secret.VARIABLE, SECRET)
    monkeypatch.setenv(functions.LOG, str(tmp_path / "log"))
    monkeypatch.setattr(renewer, "_LINGER", 0.01)
    monkeypatch.setattr(daemon_threads, "_LINGER", 0.01)
    if request.param == "disk":
        return {"cache_backend": "disk", "cache_dir": str(tmp_path / "cache")}
    server = request.getfixturevalue("redis_server")
    server.command("FLUSHALL")
    return {"cache_backend": "redis", "cache_url": server.url}


@pytest.fixture
def rings():
    """Install a handler of SIGALRM that raises an exception; ring no more at the end."""
    before = signal.getsignal(signal.SIGALRM)

    def install(error):
        def ring(*_):
            raise error

        signal.signal(signal.SIGALRM, ring)

    yield install
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def by_signal(error, rings):
    rings(error)
    return lambda: signal.raise_signal(signal.SIGALRM)


def by_thread(error, _):
    """Send the exception to the thread itself, as others that watch it would."""

    def send():
        ident = threading.get_ident()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(ident), ctypes.py_object(type(error))
        )
        for _ in range(1000):
            pass

    return send


THROWN = [
    (by_signal, SoftTimeLimitExceeded()),
    (by_signal, TimeoutError("the alarm")),
    (by_signal, ValueError("stop")),
    (by_thread, SoftTimeLimitExceeded()),
]
NAMES = [f"{how.__name__}-{type(error).__name__}" for how, error in THROWN]


def interrupt_at(cache, operation, interrupt, monkeypatch, after=False):
    """Have one operation of a store interrupted, in the middle of the first time."""
    left = [interrupt]
    for operations in (cache.store.operations, cache.store.async_operations):
        real = getattr(operations, operation)

        def call(*arguments, real=real):
            if left and not after:
                left.pop()()
            answer = real(*arguments)
            if left:
                left.pop()()
            return answer

        async def call_async(*arguments, real=real):
            if left and not after:
                left.pop()()
            answer = await real(*arguments)
            if left:
                left.pop()()
            return answer

        awaited = operations is cache.store.async_operations
        monkeypatch.setattr(operations, operation, call_async if awaited else call)


@pytest.mark.parametrize(("how", "error"), THROWN, ids=NAMES)
@pytest.mark.parametrize(
    ("operation", "after"),
    [("get", False), ("get_and_take", True), ("settle", False), ("settle", True)],
)
@pytest.mark.parametrize("form", ["sync", "async"])
def test_what_is_thrown_into_an_operation_arrives_and_is_no_outage(
    store, form, operation, after, how, error, rings, monkeypatch, caplog
):
    """The lease is given back, the connections stay in step, and the next call is as ever."""
    caplog.set_level(logging.DEBUG, "opero")
    options = {"cache": True, "retries": 1, "cache_ttl": 60, "cache_stale": 60, **store}
    function = opero(**options)(functions.adouble if form == "async" else functions.double)
    cache = function.__opero__.stored_cache
    other = opero(**options)(functions.adouble if form == "async" else functions.double)

    def call(made, argument):
        return asyncio.run(_awaited(made, argument)) if form == "async" else made(argument)

    call(function, 0)
    interrupt_at(cache, operation, how(error, rings), monkeypatch, after)
    with pytest.raises(type(error)) as told:
        call(function, 1)
    if how is by_signal:
        assert told.value is error
    assert told.value.__cause__ is None
    assert function.stats().store_failures == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    name = cache.key(function.__opero__, (1,), {}).name
    until(lambda: cache.store.operations.get(lease_of(name)) is None)
    assert call(other, 1) == [1, 1, 0]
    assert call(function, 1) == [1, 1, 0]
    assert call(function, 0) == [0, 0, 0]
    assert cache.flights == {}
    assert cache.relied_on == {}


async def _awaited(function, argument):
    return await function(argument)


@pytest.mark.parametrize("operation", ["get_many", "put_many", "delete", "count"])
def test_so_does_what_is_thrown_into_a_cache_that_is_used_by_hand(
    store, operation, rings, monkeypatch
):
    from opero import get_cache_context

    context = get_cache_context(cache_namespace="by hand", **store)
    context.set("a", 1)
    error = TimeoutError("the alarm")
    cache = context._store.stored_cache
    interrupt_at(cache, operation, by_signal(error, rings), monkeypatch)
    calls = {
        "get_many": lambda: context.get("a"),
        "put_many": lambda: context.set("a", 2),
        "delete": lambda: context.delete("a"),
        "count": lambda: len(context),
    }
    with pytest.raises(TimeoutError) as told:
        calls[operation]()
    assert told.value is error
    assert not cache.store.outage.refuses(True)
    assert context.get("a") == 1


class Slow:
    """Takes its time when it is pickled."""

    def __init__(self, interrupt):
        self.interrupt = interrupt

    def __reduce__(self):
        self.interrupt()
        return Slow, (None,)


def test_so_does_what_is_thrown_into_the_writing_of_a_value(store, rings, caplog):
    error = ValueError("stop")
    values = [Slow(by_signal(error, rings)), 1]

    @opero(cache=True, retries=1, cache_namespace="pickled", cache_key=str, **store)
    def fetch(key):
        return values.pop(0)

    with pytest.raises(ValueError, match="stop") as told:
        fetch(1)
    assert told.value is error
    assert fetch(1) == 1
    assert caplog.records == []


def test_those_who_share_the_run_do_not_get_what_was_thrown_into_it(store, rings, monkeypatch):
    """They run the function themselves."""
    begun, go = threading.Event(), threading.Event()

    @opero(cache=True, retries=1, cache_namespace="shared", cache_key=str, **store)
    def fetch(key):
        begun.set()
        assert go.wait(20)
        return key

    error = SoftTimeLimitExceeded()
    interrupt_at(fetch.__opero__.stored_cache, "settle", by_signal(error, rings), monkeypatch)

    def follow():
        assert begun.wait(20)
        return fetch(1)

    follower = Job(follow)

    def release():
        until(lambda: followers_of(fetch))
        go.set()

    releaser = Job(release)
    with pytest.raises(SoftTimeLimitExceeded):
        fetch(1)
    releaser.result()
    assert follower.result() == 1


def followers_of(function):
    return sum(
        len(flight.waiters or ())
        for flight in list(function.__opero__.stored_cache.flights.values())
    )


@pytest.mark.redis
@pytest.mark.parametrize("error", [SoftTimeLimitExceeded(), TimeoutError("the alarm")])
@pytest.mark.parametrize("asks", ["cache", "limit", "breaker"])
def test_a_time_limit_rings_while_a_server_does_not_answer(
    redis_server, rings, error, asks, monkeypatch
):
    """A real alarm, and a real server: what the client makes of the exception does not matter."""
    monkeypatch.setenv(secret.VARIABLE, SECRET)
    redis_server.command("FLUSHALL")
    url = redis_server.url
    if asks != "limit":  # one that leaves the queue tells the server, and waits for that once
        url += "?socket_timeout=30"
    if asks == "cache":
        call = opero(cache=True, retries=1, cache_backend="redis", cache_url=url)(repr)
    elif asks == "limit":
        limiter = RateLimiter(5, scope="redis", url=url, name="alarm")
        call = lambda _: limiter.acquire_sync()  # noqa: E731
    else:
        from opero import Breaker

        breaker = Breaker(name="alarm", scope="redis", url=url, minimum=1)
        call = lambda _: breaker.trip()  # noqa: E731
    rings(error)
    redis_server.freeze()
    try:
        begun = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(type(error)) as told:
            call(1)
        assert told.value is error
        assert time.monotonic() - begun < 20, "it waited for the server"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        redis_server.thaw()
    call(1)


def test_a_handler_that_raises_during_a_long_query_is_heard(tmp_path, rings, monkeypatch):
    """SQLite asks now and then whether to stop, and drops what is raised there."""
    from opero.stores.disk import DiskBackend

    backend = DiskBackend(tmp_path / "cache", None)
    backend.put_many([("a", b"1")], None)
    rings(SoftTimeLimitExceeded())
    query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)"

    def count():
        with backend._open() as connection:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            connection.execute(f"{query} SELECT count(*) FROM n").fetchall()
            for _ in range(1000):
                pass

    with pytest.raises(SoftTimeLimitExceeded):
        count()
    assert backend.get_many(["a"]) == [b"1"]
    backend.close()
