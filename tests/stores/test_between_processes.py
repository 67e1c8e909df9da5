"""What processes know of each other's runs: failures, invalidations, and values near their end.

A process is a decorated function of its own here: it has its own flights and leases, and shares
nothing with the others but the store.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from types import SimpleNamespace

import pytest
from crowd import Job, until

from opero import opero
from opero.runners import daemon_threads
from opero.stores import leases, renewer, secret, stored_cache
from opero.testing import manual_clock


@pytest.fixture(params=["disk", pytest.param("redis", marks=pytest.mark.redis)])
def store(request, tmp_path, monkeypatch):
    """Return the options that choose a backend, empty."""
    monkeypatch.setenv(secret.VARIABLE, "a-secret-for-the-tests-of-stored-values")
    monkeypatch.setattr(renewer, "_LINGER", 0.01)
    monkeypatch.setattr(daemon_threads, "_LINGER", 0.01)
    if request.param == "disk":
        return {"cache_backend": "disk", "cache_dir": str(tmp_path / "cache")}
    server = request.getfixturevalue("redis_server")
    server.command("FLUSHALL")
    return {"cache_backend": "redis", "cache_url": server.url}


class Origin:
    """What is fetched: each run takes the value at its beginning, and ends when it is let go.

    Attributes:
        value: What runs that begin now return; an exception is raised.
        calls: How many have begun.
        held: How many of them wait until they are let go.
        go: Lets those end that have begun.
    """

    def __init__(self, held=0):
        self.value = "old"
        self.calls = 0
        self.held = held
        self.go = threading.Event()

    def _take(self):
        self.calls += 1
        return self.calls <= self.held, self.value, self.go

    def _give(self, value):
        if isinstance(value, Exception):
            raise value
        return value

    def fetch(self, key):
        waits, value, go = self._take()
        assert not waits or go.wait(20)
        return self._give(value)

    async def fetch_async(self, key):
        waits, value, go = self._take()
        while waits and not go.is_set():
            await asyncio.sleep(0.001)
        return self._give(value)


def process(origin, store, form="sync", **options):
    """Decorate the fetching anew, as another process would; call a coroutine function in a loop.

    The function is known by its key alone.
    """
    options = {"cache": True, "retries": 1, "cache_namespace": "n", "cache_key": str, **options}

    if form == "sync":

        def fetch(key):
            return origin.fetch(key)

        return opero(**options, **store)(fetch)

    async def fetch(key):
        return await origin.fetch_async(key)

    return opero(**options, **store)(fetch)


class Calls:
    """Calls of a function of either form, each in the background until its result is asked for.

    Those of a coroutine function are tasks of one loop, as otherwise none would share a flight.
    """

    def __init__(self, form):
        self.form = form
        self.loop = asyncio.new_event_loop()
        if form == "async":
            self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
            self.thread.start()

    def begin(self, function, key):
        if self.form == "sync":
            return Job(function, key)

        async def call():
            return await function(key)

        future = asyncio.run_coroutine_threadsafe(call(), self.loop)
        return SimpleNamespace(result=lambda: future.result(20))

    def close(self):
        if self.form == "async":
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(20)
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


@pytest.fixture(params=["sync", "async"])
def calls(request):
    made = Calls(request.param)
    yield made
    made.close()


# --- failures -----------------------------------------------------------------------------------


@pytest.fixture
def watches(monkeypatch):
    """Return a list that gets what each waiting process knows of the lease."""
    made = []
    kind = leases.LeaseWatch

    def watch(mark):
        made.append(kind(mark))
        return made[-1]

    monkeypatch.setattr(leases, "LeaseWatch", watch)
    return made


@pytest.mark.parametrize("outcome", [ConnectionError("down"), threading.Lock()])
def test_those_who_have_waited_for_a_run_that_brings_nothing_run_at_once(
    store, calls, watches, outcome
):
    """It fails, or its value cannot be stored: they do not go one by one."""
    origin = Origin(held=1)
    origin.value = outcome
    processes = [process(origin, store, calls.form) for _ in range(6)]
    begun = [calls.begin(function, 1) for function in processes[:1]]
    until(lambda: origin.calls == 1)
    begun += [calls.begin(function, 1) for function in processes[1:]]
    until(lambda: len(watches) == 5)
    origin.held = 6  # those that begin now wait for each other
    origin.calls = 0
    first, origin.go = origin.go, threading.Event()
    first.set()
    until(lambda: origin.calls == 5)
    origin.go.set()
    for each in begun:
        if isinstance(outcome, Exception):
            with pytest.raises(ConnectionError):
                each.result()
        else:
            assert each.result() is outcome


def test_of_those_who_run_at_once_one_stores_the_value(store, calls, watches):
    origin = Origin(held=1)
    origin.value = ConnectionError("down")
    processes = [process(origin, store, calls.form) for _ in range(3)]
    begun = [calls.begin(processes[0], 1)]
    until(lambda: origin.calls == 1)
    begun += [calls.begin(function, 1) for function in processes[1:]]
    until(lambda: len(watches) == 2)
    origin.value = "new"
    origin.go.set()
    with pytest.raises(ConnectionError):
        begun[0].result()
    assert [each.result() for each in begun[1:]] == ["new", "new"]
    count = origin.calls
    assert calls.begin(processes[0], 1).result() == "new"
    assert origin.calls == count


@pytest.mark.once
def test_a_holder_that_was_silent_has_died_and_one_that_was_not_has_failed(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(leases, "monotonic", lambda: now[0])
    first, other, third = (leases.first_mark(token * 16) for token in "abc")
    watch = leases.LeaseWatch(first)
    for _ in range(5):
        now[0] += 1
        watch.look(first)
        assert (watch.has_failed, watch.is_dead) == (False, False)
    now[0] += 0.6
    watch.look(first)
    assert watch.is_dead
    watch.look(other)  # somebody else has seized it
    assert (watch.has_failed, watch.is_dead) == (False, False)
    now[0] += 1.7
    watch.look(leases._next_mark(other))  # it was renewed
    assert not watch.has_failed
    now[0] += 1.7
    watch.look(third)
    assert watch.has_failed


# --- invalidations ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["invalidate", "clear", "namespace"])
def test_who_comes_after_an_invalidation_elsewhere_joins_no_run_from_before_it(store, calls, how):
    origin = Origin(held=1)
    here = process(origin, store, calls.form)
    there = process(origin, store, calls.form)
    early = calls.begin(here, 1)
    until(lambda: origin.calls == 1)
    origin.value = "new"
    if how == "invalidate":
        there.cache_invalidate(1)
    elif how == "clear":
        there.cache_clear()
    else:
        there.__opero__.stored_cache.clear_namespace()
    late = calls.begin(here, 1)
    assert late.result() == "new"
    assert origin.calls == 2
    origin.go.set()
    assert early.result() == "old"
    assert calls.begin(there, 1).result() == "new"
    assert calls.begin(here, 1).result() == "new"
    assert origin.calls == 2


@pytest.mark.parametrize("outdated", [False, True])
def test_who_joins_a_run_that_has_found_the_value_before_an_invalidation(
    store, calls, outdated, monkeypatch
):
    """The run has its answer, but has not handed it on yet."""
    origin = Origin()
    options = {"cache_ttl": 10, "cache_stale": 1000}
    with manual_clock() as clock:
        here = process(origin, store, calls.form, **options)
        there = process(origin, store, calls.form, **options)
        cache = here.__opero__.stored_cache
        if outdated:
            assert calls.begin(there, 1).result() == "old"
            clock.advance(20)
            origin.held = 2
            making = calls.begin(there, 1)  # there it is made anew, so here it is served
            until(lambda: origin.calls == 2)
        found, go = threading.Event(), threading.Event()
        operation = "take" if outdated else "get_and_take"
        name = "operations" if calls.form == "sync" else "async_operations"
        separate = copy.copy(getattr(cache.store, name))
        store_here = copy.copy(cache.store)
        monkeypatch.setattr(store_here, name, separate)
        monkeypatch.setattr(cache, "store", store_here)
        real = getattr(separate, operation)
        first = []

        def pause(*arguments):
            if not outdated and not first:
                first.append(calls.begin(there, 1).result() if calls.form == "sync" else "old")
                answer = real(*arguments)
            else:
                answer = real(*arguments)
            if not found.is_set():
                found.set()
                assert go.wait(20)
            return answer

        async def pause_async(*arguments):
            if not outdated and not first:
                first.append(await there(1))
            answer = await real(*arguments)
            if not found.is_set():
                found.set()
                while not go.is_set():
                    await asyncio.sleep(0.001)
            return answer

        monkeypatch.setattr(separate, operation, pause if calls.form == "sync" else pause_async)
        early = calls.begin(here, 1)
        until(found.is_set)
        origin.value = "new"
        origin.held = 0
        there.cache_invalidate(1)
        late = calls.begin(here, 1)
        joins(cache, calls.form, 1)
        go.set()
        assert early.result() == "old"
        assert late.result() == "new"
        if outdated:
            origin.go.set()
            assert making.result() == "old"


def joins(cache, form, count):
    """Wait until so many callers have joined the run that is under way."""
    if form == "sync":
        until(lambda: sum(len(each.waiters or ()) for each in cache.flights.values()) == count)
    else:
        until(
            lambda: (
                sum(each.callers for table in cache.flights.values() for each in table.values())
                == count + 1
            )
        )


def test_who_comes_without_one_joins_the_run(store, calls):
    origin = Origin(held=1)
    here = process(origin, store, calls.form)
    there = process(origin, store, calls.form)
    begun = [calls.begin(here, 1)]
    until(lambda: origin.calls == 1)
    there.cache_invalidate(2)  # another value
    begun += [calls.begin(here, 1) for _ in range(5)]
    joins(here.__opero__.stored_cache, calls.form, 5)
    origin.go.set()
    assert [each.result() for each in begun] == ["old"] * 6
    assert origin.calls == 1
    assert here.__opero__.stored_cache.relied_on == {}


def test_who_comes_after_an_invalidation_of_an_outdated_value(store, calls):
    """The run that makes it anew began before, and does not count; nor does the outdated value."""
    origin = Origin()
    with manual_clock() as clock:
        options = {"cache_ttl": 10, "cache_stale": 1000}
        here = process(origin, store, calls.form, **options)
        there = process(origin, store, calls.form, **options)
        assert calls.begin(here, 1).result() == "old"
        clock.advance(20)
        origin.held = 2
        early = calls.begin(here, 1)
        until(lambda: origin.calls == 2)
        assert calls.begin(there, 1).result() == "old"
        origin.value = "new"
        there.cache_invalidate(1)
        assert calls.begin(here, 1).result() == "new"
        origin.go.set()
        assert early.result() == "old"
        assert calls.begin(there, 1).result() == "new"


def test_who_comes_after_an_invalidation_during_a_refresh(store, calls):
    origin = Origin()
    with manual_clock() as clock:
        options = {"cache_ttl": 100, "cache_refresh": 50}
        here = process(origin, store, calls.form, **options)
        there = process(origin, store, calls.form, **options)
        assert calls.begin(here, 1).result() == "old"
        clock.advance(60)
        origin.held = 2
        assert calls.begin(here, 1).result() == "old"
        until(lambda: origin.calls == 2)
        origin.value = "new"
        there.cache_invalidate(1)
        assert calls.begin(here, 1).result() == "new"
        origin.go.set()
        until(lambda: here.stats().refreshes == 1)
        assert calls.begin(there, 1).result() == "new"


@pytest.mark.redis
def test_a_server_that_is_gone_lets_callers_share_a_run_all_the_same(calls, monkeypatch):
    monkeypatch.setenv(secret.VARIABLE, "a-secret-for-the-tests-of-stored-values")
    origin = Origin(held=1)
    gone = {"cache_backend": "redis", "cache_url": "redis://127.0.0.1:1"}
    here = process(origin, gone, calls.form)
    begun = [calls.begin(here, 1)]
    until(lambda: origin.calls == 1)
    begun.append(calls.begin(here, 1))
    origin.go.set()
    assert [each.result() for each in begun] == ["old", "old"]


# --- near the end -------------------------------------------------------------------------------


@pytest.mark.once
def test_many_callers_renew_a_dear_value_near_its_end_only(store, monkeypatch):
    """Each throws the dice: of a hundred thousand some throw what comes once in that many."""
    monkeypatch.setattr(stored_cache.random, "random", lambda: 1 - 1e-15)
    origin = Origin()
    with manual_clock() as clock:
        fetch = process(origin, store, cache_ttl=100, cache_stale=100)
        cache = fetch.__opero__.stored_cache
        key = cache.key(fetch.__opero__, (1,), {})
        now = cache.wall(fetch.__opero__.clock)
        value = cache.signer.close(key.full, "old", now, now + 100, 50.0)
        cache.store.operations.put(key.name, value, 200)
        for seconds, runs in [(0, 0), (50, 0), (39, 0), (2, 1)]:
            clock.advance(seconds)
            fetch(1)
            assert origin.calls == runs, seconds


@pytest.mark.once
def test_a_cheap_value_is_renewed_when_it_is_outdated(store, monkeypatch):
    monkeypatch.setattr(stored_cache.random, "random", lambda: 0.5)
    origin = Origin()
    with manual_clock() as clock:
        fetch = process(origin, store, cache_ttl=100, cache_stale=100)
        fetch(1)
        clock.advance(99)
        fetch(1)
        assert origin.calls == 1
        clock.advance(2)
        fetch(1)
        assert origin.calls == 2
