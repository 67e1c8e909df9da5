"""Threads that start at one moment and change one thing: nothing lost, nothing wrong, nothing left.

The tests run on every build. Where the interpreter has its lock (the GIL), threads switch as often
as it can; where it has none, they run at the same time. The build declares all that it compiles to
do without the lock, and a free-threaded interpreter has to stay free after it has imported that.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from crowd import Job, flights_of, hurried_switching, run, together

import opero as package
from opero import DeadlineExceeded, RateLimiter, get_cache_context, opero, opmap, subscribe
from opero.core.breaker import HALF_OPEN, OPEN
from opero.core.gate import FAILED, SUCCEEDED
from opero.gil import FREE_THREADED
from opero.runners import background
from opero.stats import COUNTERS
from opero.stores import secret
from opero.testing import disabled

THREADS = 6


@pytest.fixture(autouse=True)
def hurried():
    """Switch threads as often as the interpreter can."""
    with hurried_switching():
        yield


def crowd(work: Any, count: int = THREADS) -> list[Any]:
    """Do `work(0)`, ..., in threads that start at a barrier; return what they returned."""
    return [job.result() for job in together(count, work)]


# --- the declaration ------------------------------------------------------------------------------


@pytest.mark.once
def test_importing_opero_leaves_the_lock_as_it_was():
    """In an interpreter of its own, whatever the environment of this one says about the lock."""
    code = (
        "import sys; look = getattr(sys, '_is_gil_enabled', lambda: True); before = look();"
        "import opero; from opero import hotpath; hotpath.load(hotpath.core.name);"
        "print(before, look())"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    locked = str(not FREE_THREADED)
    assert done.stdout.split() == [locked, locked]


# --- store ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [0, 50_000], ids=["for ever", "50 us"])
@pytest.mark.parametrize("maxsize", [0, 1, 8])
def test_an_entry_whose_value_is_replaced_is_read_whole(core, maxsize, ttl):
    """A value that is read at the moment of its end is the old or the new one."""
    store = core.MemoryStore(core.Clock(), maxsize, ttl)

    def work(number):
        for step in range(3000):
            key = step % 3
            if number % 2:
                store.put(key, [key, number, step])
            else:
                entry = store.find(key)
                value = None if entry is None else entry.value
                assert value is None or value[0] == key

    crowd(work)
    store.put("new", 1)  # which evicts whatever a race has left over the bound
    assert len(store) <= (maxsize or 4)


def test_a_store_keeps_count_while_all_put_evict_drop_and_clear(core):
    """Afterwards each entry is in a queue, is filled, and has its key's value."""
    store = core.MemoryStore(core.Clock(), 16, 0)

    def work(number):
        for step in range(2500):
            key = (step * 7 + number) % 60
            store.put(key, key)
            if step % 11 == 0:
                store.drop(key)
            if step % 499 == 0:
                store.clear()
            assert len(store) <= 16 + THREADS

    crowd(work)
    store.put("last", "last")
    assert len(store) <= 16
    queued = {id(entry) for entry in [*store.small, *store.main]}
    for key, entry in store.entries.items():
        assert id(entry) in queued
        assert (entry.key, entry.value) == (key, key)
        assert 0 <= entry.uses <= 3


def test_instances_that_are_born_and_die_in_all_threads_have_caches_of_their_own(core):
    """An identity that is used again in another thread brings no value of before."""

    class Thing:
        pass

    stores = core.InstanceStores(core.Clock(), 4, 0)

    def work(number):
        for step in range(800):
            thing = Thing()
            store = stores.of(thing)
            assert store.find("key") is None
            store.put("key", (number, step))
            assert stores.of(thing).find("key").value == (number, step)

    crowd(work)
    assert stores.all() == []


def test_no_thread_gets_a_value_from_before_its_invalidation_though_values_are_refreshed():
    """Values end, are renewed, fail, are evicted and forgotten all the time."""
    begun = iter(range(1, 10**9))
    latest = [0]
    taking = threading.Lock()

    @opero(
        retries=1,
        cache=True,
        cache_ttl=0.01,
        cache_refresh=0.0099,
        cache_stale=0.002,
        cache_maxsize=6,
    )
    def function(key):
        with taking:
            latest[0] = number = next(begun)
        if number % 7 == 0:
            raise ConnectionError
        return number

    def work(number):
        for step in range(800):
            key = (number // 2 + step // 40) % 8
            before = 0
            if step % 4 == 3:
                time.sleep(0.0002)
            if step % 20 == 0:
                before = latest[0]
                function.cache_invalidate(key)
            with suppress(ConnectionError):
                assert function(key) > before
            assert function.cache_info().currsize <= 6 + THREADS

    crowd(work)
    at_work = background.background
    end = time.monotonic() + 10
    while at_work._waiting or at_work._running:
        assert time.monotonic() < end
        time.sleep(0.001)
    store = function.__opero__.store
    assert function.cache_info().currsize <= 6
    assert store.under_way == 0
    assert [entry for entry in store.entries.values() if entry.flight is not None] == []
    assert function.stats().refreshes > 0


# --- keys -----------------------------------------------------------------------------------------


@dataclass
class Point:
    """An instance of a class that is studied by all threads at once."""

    x: Any


def test_keys_that_all_threads_make_and_compare_are_equal_when_their_values_are(core):
    """Dicts in any order, sets and instances; classes are studied for the first time in the crowd."""
    freezer = core.Freezer()
    kept = freezer.freeze({"a": 1, "b": [1.5, {"c": None, "d": 2}], "e": {3, 4}})

    def work(number):
        for step in range(150):
            local = dataclass(type("Local", (Point,), {}))
            assert freezer.freeze(local(step)) == freezer.freeze(local(step))
            assert freezer.freeze(local(step)) != freezer.freeze(Point(step))
            same = {"e": {4, 3}, "b": [1.5, {"d": 2, "c": None}], "a": 1}
            assert freezer.probe(same) == kept
            assert freezer.probe({**same, "a": number + 2}) != kept

    crowd(work)


def test_stored_keys_are_the_same_in_all_threads(core):
    """The canonical encoding of plain values, instances and sets."""
    canonical = core.Canonical()
    values = [{"a": [1, "b", None]}, Point(1.5), {3, 4, 5}, ("x", b"y"), Path("/tmp")]
    expected = [canonical.encode(value) for value in values]

    def work(_):
        for _ in range(300):
            assert [canonical.encode(value) for value in values] == expected

    crowd(work)


def test_an_argument_that_another_thread_changes_makes_some_key_and_no_crash(core):
    """What is the caller's fault must not be the interpreter's end."""
    freezer = core.Freezer()
    shared: dict[str, Any] = {"list": [], "dict": {}}
    stop = threading.Event()

    def change():
        step = 0
        while not stop.is_set():
            step += 1
            shared["list"].append(str(step))
            shared["dict"][str(step % 50)] = [step]
            if step % 40 == 0:
                shared["list"].clear()
                shared["dict"].clear()

    def work(_):
        for _ in range(400):
            with suppress(RuntimeError, IndexError):  # it has changed, or shrunk, on the way
                hash(freezer.freeze(shared))

    changing = Job(change)
    try:
        crowd(work)
    finally:
        stop.set()
    changing.result()
    assert freezer.freeze(shared) == freezer.freeze(shared)


def test_bindings_are_shared_by_all_threads():
    """Every spelling of one call meets in one entry."""
    runs: list[Any] = []

    @opero(retries=1, cache=True)
    def fetch(a, /, b=2, *rest, c=3, **more):
        runs.append((a, b, rest, c))
        return a, b, rest, c, tuple(sorted(more.items()))

    def work(number):
        for a in range(200):
            assert fetch(a) == fetch(a, 2) == fetch(a, b=2, c=3) == (a, 2, (), 3, ())
            assert fetch(a, 1, number, c=4, z=5) == (a, 1, (number,), 4, (("z", 5),))

    crowd(work)
    assert len(fetch.__opero__.store) <= 1024


# --- calls, flights and figures -------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"cache_maxsize": None}, {"cache_maxsize": 8}, {"cache_ttl": 0.0005}],
    ids=["unbounded", "bounded", "short-lived"],
)
def test_a_value_is_whole_while_others_replace_evict_and_forget_it(options):
    """More keys than there are places to find them quickly, and functions that end meanwhile."""
    keys = [*range(200), *(f"key {number}" for number in range(200)), 0.5, 1.5, None, True, 10**30]

    def decorated():
        return opero(retries=1, cache=True, **options)(lambda key, other=None: [key, other])

    fetch = decorated()

    def work(number):
        for step in range(600):
            key = keys[(step * 7 + number * 13) % len(keys)]
            for _ in range(2):
                assert fetch(key) == [key, None]
                assert fetch(key, other=number) == [key, number]
            if step % 5 == 0:
                fetch.cache_invalidate(key)
            if step % 199 == 0:
                fetch.cache_clear()
            if step % 20 == 0:
                short = decorated()
                assert short(key) == short(key) == [key, None]

    crowd(work)
    stats = fetch.stats()
    assert stats.calls == stats.hits + stats.misses == THREADS * 600 * 4


def test_threads_that_are_more_than_there_are_places_find_values():
    """They come at one moment, so that none can have the place of one that has ended."""
    fetch = opero(retries=1, cache=True)(lambda key: [key])
    for _ in range(2):
        found = crowd(lambda number: [fetch(key) for key in range(20)], 160)
        assert all(values == [[key] for key in range(20)] for values in found)
    assert fetch.stats().calls == 2 * 160 * 20


def test_each_missing_key_is_run_once_by_threads_that_race_through_all_of_them():
    """No barrier between the keys: leaders land while others arrive."""
    runs: Counter[int] = Counter()

    @opero(retries=1, cache=True, cache_maxsize=None)
    def fetch(key):
        runs[key] += 1
        return [key]

    values = crowd(lambda number: [fetch(key) for key in range(1500)])
    assert all(mine[key] is values[0][key] for mine in values for key in range(1500))
    assert set(runs.values()) == {1}
    assert flights_of(fetch) == []


def test_followers_never_miss_the_end_of_a_flight():
    """Keys that are invalidated all the time make short flights, joined at every moment."""

    @opero(retries=1, cache=True)
    def fetch(key):
        return key

    def work(number):
        for step in range(1500):
            assert fetch(step // 50) == step // 50
            if step % 5 == number % 5:
                fetch.cache_invalidate(step // 50)

    crowd(work)
    assert flights_of(fetch) == []


KEYS = {
    "int": lambda number: number,
    "str": lambda number: f"key {number}",
    "tuple": lambda number: (number, str(number)),
    "object": Point,
}
"""Arguments: two kinds that are their own keys, and two that keys are made of."""

STORES = {
    "unbounded": {"cache_maxsize": None},
    "bounded": {"cache_maxsize": 3},
    "short-lived": {"cache_maxsize": None, "cache_ttl": 0.0005},
}


def outdated(fetch: Any, key: Any, source: dict[int, int], clear: Any) -> None:
    """Change what a function returns while others read, and look whether it does.

    Args:
        fetch: Returns `(number, source[number])`, cached.
        key: Makes the argument for a number.
        source: What it reads.
        clear: Forgets all values.
    """
    over = threading.Event()

    def work(number):
        step = number
        while not over.is_set():
            step += 1
            assert fetch(key(step % 4))[0] == step % 4

    readers = [Job(work, number) for number in range(3)]
    try:
        for version in range(1, 120):
            number = version % 4
            source[number] = version
            if version % 7:
                fetch.cache_invalidate(key(number))
            else:
                clear()
            assert fetch(key(number)) == (number, version)
    finally:
        over.set()
        for reader in readers:
            reader.result()
    assert flights_of(fetch.__func__ if hasattr(fetch, "__func__") else fetch) == []


@pytest.mark.parametrize(
    ("kind", "store"),
    [*((kind, "unbounded") for kind in KEYS), ("str", "bounded"), ("tuple", "short-lived")],
)
def test_no_value_of_before_an_invalidation_is_found_after_it(kind, store):
    """Readers find entries, follow flights, and lead those that find an entry at a second look."""
    source = dict.fromkeys(range(4), 0)
    key = KEYS[kind]

    @opero(retries=1, cache=True, **STORES[store])
    def fetch(asked):
        number = numbers[repr(asked)]
        return number, source[number]

    numbers = {repr(key(number)): number for number in range(4)}
    outdated(fetch, key, source, fetch.cache_clear)


@pytest.mark.parametrize("forget", ["clear", "invalidate"])
def test_a_value_is_forgotten_for_each_of_those_who_forget_it_at_the_same_time(forget):
    """One who finds the cache empty, as another is emptying it, finds no old value afterwards."""
    versions = [0] * 16

    @opero(retries=1, cache=True, cache_maxsize=100)
    def fetch(number):
        return versions[number]

    def work(mine):
        for step in range(1500):
            if step % 10 == mine % 10:
                versions[mine] += 1
                if forget == "clear":
                    fetch.cache_clear()
                else:
                    fetch.cache_invalidate(mine)
                    fetch.cache_invalidate((mine + 1) % 16)
            assert fetch(mine) == versions[mine]
            fetch((mine + step) % 16)

    crowd(work, 16)
    assert flights_of(fetch) == []


def test_no_instance_finds_a_value_of_before_an_invalidation():
    """Its store is its own, and is found by its identity at each call."""
    source = dict.fromkeys(range(4), 0)

    class Client:
        @opero(retries=1, cache=True)
        def fetch(self, number):
            return number, source[number]

    client = Client()
    outdated(client.fetch, int, source, Client.fetch.cache_clear)


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
def test_every_figure_is_exact(cached):
    """Calls, hits, misses, attempts, retries, fallbacks and failures, counted by all at once."""
    options: dict[str, Any] = {"retries": 2, "min_delay": 0.0, "jitter": False}
    if cached:
        options["cache"] = True

    @opero(arg_fallback={"way": ["second"]}, **options)
    def fetch(key, way="first"):
        if key < 0 or (key == 1 and way == "first"):
            raise ValueError(key)
        return key

    rounds = 150

    def work(number):
        for step in range(rounds):
            fetch(0)
            fetch.__opero__.add("permit_wait", 3)
            with pytest.raises(package.AllFailedError):
                fetch(-1 - number * rounds - step)

    package.get_logger().setLevel("CRITICAL")
    try:
        crowd(work)
    finally:
        package.get_logger().setLevel("NOTSET")
    stats = fetch.stats()
    failed = THREADS * rounds
    assert stats.calls == 2 * failed
    assert stats.failures == failed
    assert stats.retries == failed
    assert stats.fallbacks == 2 * failed
    assert stats.permit_wait == pytest.approx(3e-9 * failed)
    fine = stats.attempts - 4 * failed
    if cached:
        assert stats.hits + stats.misses == stats.calls
        assert fine == 1
        assert (
            failed + 1 <= stats.misses <= failed + THREADS
        )  # who followed the first has missed too
    else:
        assert fine == failed


def test_counts_stay_when_the_threads_that_made_them_have_ended():
    """Many threads, one after another and at once: more than there are places for."""

    @opero(retries=1, cache=True)
    def fetch(key):
        return key

    for _ in range(40):
        Job(lambda: [fetch(1) for _ in range(5)]).result()
    crowd(lambda _: [fetch(1) for _ in range(50)], 60)
    assert fetch(1) == 1
    stats = fetch.stats()
    calls = 40 * 5 + 60 * 50 + 1
    assert (stats.calls, stats.hits + stats.misses, stats.misses) == (calls, calls, 1)


def test_every_counter_can_be_added_to_and_taken_from_in_any_thread(core):
    """By its name, whether or not Python has one string for it."""

    @opero(retries=1)
    def fetch():
        return None

    def work(number):
        for name in COUNTERS:
            for step in range(100):
                fetch.__opero__.add("".join(name), 3)
                fetch.__opero__.add(name, -2 if step % 2 else -3)

    crowd(work)
    assert fetch.__opero__.counted() == dict.fromkeys(COUNTERS, THREADS * 50)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_child_goes_on_counting_from_what_its_parent_has_counted():
    """In an interpreter of its own."""
    code = (
        "import os, threading\n"
        "from opero import opero\n"
        "@opero(retries=1, cache=True)\n"
        "def fetch(key): return key\n"
        "def work(): [fetch(1) for _ in range(100)]\n"
        "def crowd():\n"
        "    threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "    [thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "work(); crowd()\n"
        "child = os.fork()\n"
        "work(); crowd()\n"
        "stats = fetch.stats()\n"
        "assert stats[:3] == (1000, 999, 1), stats\n"
        "child and os._exit(os.waitpid(child, 0)[1] != 0)\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_figures_of_a_store_that_fails_are_exact(tmp_path, monkeypatch):
    """Each operation that fails or is left out counts, whichever thread asks."""
    monkeypatch.setenv(secret.VARIABLE, "a-secret-of-a-test-of-free-threading")

    @opero(retries=1, cache=True, cache_backend="disk", cache_dir=str(tmp_path / "cache"))
    def fetch(key):
        return key

    def refuse(*_):
        raise OSError("no such disk")

    for operation in ("get", "get_and_take"):
        monkeypatch.setattr(fetch.__opero__.stored_cache.store.operations, operation, refuse)
    monkeypatch.setattr(fetch.__opero__.stored_cache.store.outage, "leave", lambda *_: None)
    package.get_logger().setLevel("CRITICAL")
    try:
        crowd(lambda number: [fetch((number, step)) for step in range(300)])
    finally:
        package.get_logger().setLevel("NOTSET")
    stats = fetch.stats()
    assert stats.misses == stats.calls == THREADS * 300
    assert stats.store_failures == THREADS * 300


def test_figures_of_coroutines_in_several_loops_are_exact():
    """Each thread has a loop of its own."""

    @opero(retries=1, cache=True)
    async def fetch(key):
        await asyncio.sleep(0)
        return key

    async def several():
        for step in range(300):
            assert await fetch(step % 7) == step % 7

    crowd(lambda _: run(several()))
    stats = fetch.stats()
    assert stats.calls == THREADS * 300
    assert stats.hits + stats.misses == stats.calls
    assert fetch.__opero__.store.flights == {}


def test_deadlines_of_one_function_pass_in_several_loops(core):
    """Meanwhile coroutines whose deadlines are far away are closed in other threads."""

    async def body(kind):
        if kind == "hangs":
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)
        return kind

    fetch = opero(retries=1, timeout=0.05)(body)
    endless = opero(retries=1, timeout=3600)(body)
    abandoned: deque[Any] = deque()

    async def main():
        for _ in range(3):
            for _ in range(20):
                coroutine = endless("hangs")
                coroutine.send(None)
                abandoned.append(coroutine)
            kinds = ["hangs", "yields", "yields"] * 10
            outcomes = await asyncio.gather(*map(fetch, kinds), return_exceptions=True)
            assert {type(outcome) for outcome in outcomes[::3]} == {DeadlineExceeded}
            assert {type(outcome) for outcome in outcomes} <= {DeadlineExceeded, str}
            assert await endless("yields") == "yields"

    def work(number):
        if number % 2:
            return asyncio.run(main())
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            while abandoned:
                with suppress(IndexError):  # another thread took it
                    abandoned.popleft().close()
            time.sleep(0.001)
        return None

    for job in together(6, work):
        job.result()
    while abandoned:
        abandoned.pop().close()


def test_an_unknown_figure_is_refused():
    """Nothing is counted under a misspelt name."""
    with pytest.raises((ValueError, KeyError)):
        opero(retries=1)(len).__opero__.add("cals", 1)


def test_methods_are_bound_and_called_by_all_threads():
    """The place before the arguments, where the instance goes, is each caller's own."""

    class Thing:
        def __init__(self, name):
            self.name = name

        @opero(retries=1, cache=True)
        def label(self, *words):
            return self.name, words

    things = [Thing(number) for number in range(4)]

    def work(number):
        for step in range(600):
            thing = things[step % 4]
            words = tuple(range(step % 5))
            assert thing.label(*words) == (thing.name, words)
            assert Thing.label(thing, *words) == (thing.name, words)

    crowd(work)


def test_functions_are_decorated_called_and_collected_while_all_is_cleared():
    """The list of all functions is walked while it changes."""

    def work(number):
        for step in range(40):
            fetch = opero(retries=1, cache=True, cache_namespace="crowded")(lambda key: key)
            assert [fetch(key) for key in (1, 2, 1)] == [1, 2, 1]
            if step % 4 == number % 4:
                package.clear_cache("crowded")

    crowd(work)


def test_the_journal_is_told_of_a_new_level_by_any_thread(caplog):
    """Levels change while hits ask for them; no hit fails."""
    fetch = opero(retries=1, cache=True)(lambda key: key)
    logger = package.get_logger()

    def work(number):
        for step in range(300):
            if number == 0:
                logger.setLevel("DEBUG" if step % 2 else "WARNING")
            assert fetch(1) == 1

    try:
        crowd(work)
    finally:
        logger.setLevel("NOTSET")
    assert fetch.stats().calls == THREADS * 300


# --- breakers -------------------------------------------------------------------------------------


def test_a_crowd_before_a_breaker_counts_every_end(core):
    """None is lost, so it opens with the attempt that makes the number full."""
    for _ in range(5):
        breaker = core.CircuitBreaker(10**12, 0.5, 100 * THREADS, 10**9, 1, core.new_lock())

        def work(number, breaker=breaker):
            for step in range(100):
                answer = breaker.enter(0)
                assert answer < 0
                breaker.leave(0, FAILED if (number + step) % 2 else SUCCEEDED, 0, -answer)

        crowd(work)
        counted = [breaker.good, breaker.bad]
        assert counted == [50 * THREADS] * 2 or breaker.state == OPEN


def test_a_crowd_at_the_moment_of_half_open_gets_the_probes_that_there_are(core):
    """No more, and no fewer; and who reports twice at once is heard once."""
    breaker = core.CircuitBreaker(10**12, 0.5, 1, 10**9, 3, core.new_lock())
    for turn in range(20):
        now = turn * 10**12
        breaker.trip(now, 10**9, "again")
        now += 10**9
        answers = crowd(lambda _, now=now: [breaker.enter(now) for _ in range(50)])
        tickets = [-answer for each in answers for answer in each if answer <= 0]
        assert len(tickets) == len({*tickets}) == 3
        crowd(lambda _, now=now: [breaker.leave(now, SUCCEEDED, now, tickets[0]) for _ in "ab"])
        assert (breaker.state, breaker.succeeded) == (HALF_OPEN, 1)


# --- buckets and limiters -------------------------------------------------------------------------


def test_a_standing_bucket_grants_its_burst_and_no_more(core):
    """All permits are taken at one and the same nanosecond."""
    for _ in range(30):
        bucket = core.TokenBucket(1.0, 500, core.new_lock())
        granted = crowd(lambda _, b=bucket: sum(b.enter(10**12) == 0 for _ in range(200)))
        assert sum(granted) == 500


def test_windows_grant_permits_from_all_or_from_none(core):
    """The narrowest one decides, exactly."""
    for _ in range(20):
        windows = ((10**9, 100), (10**9, 300))
        bucket = core.WindowedBucket(1.0, 500, core.new_lock(), windows)
        granted = crowd(lambda _, b=bucket: sum(b.take_many(10**12, 2) == 0 for _ in range(60)))
        assert 2 * sum(granted) == 100


def test_permits_of_one_machine_are_granted_once_to_all_threads():
    """Threads of one process share a step in the shared memory as processes do."""
    limiter = RateLimiter(0.001, burst=300, scope="machine", name=f"crowd-{uuid4()}")
    granted = crowd(lambda _: sum(limiter.try_acquire() for _ in range(120)))
    assert sum(granted) == 300


@pytest.mark.parametrize("scope", ["process", "machine"])
def test_a_rate_adapts_to_what_all_threads_report(scope):
    """It stays in its bounds, is the same for all, and those who wait are served."""
    shared = {"scope": scope, "name": f"crowd-{uuid4()}"} if scope == "machine" else {}
    limiter = RateLimiter(1e5, adaptive=True, floor=1e4, **shared)

    def work(number: int) -> None:
        for step in range(100):
            limiter.acquire_sync()
            limiter._queue.report(2 if step % 29 == number else 0, limiter._queue.clock.now())
            assert 1e4 <= limiter.rate <= 1e5

    crowd(work)
    assert limiter._bucket.queued == 0


def test_a_limiter_has_nobody_in_line_after_all_have_been_served():
    """Waiters of all threads, first come, first served."""
    limiter = RateLimiter(50_000, burst=2)
    served = crowd(lambda _: [limiter.acquire_sync() for _ in range(60)])
    assert sum(map(len, served)) == THREADS * 60
    assert limiter._bucket.queued == 0


# --- the rest of the package ----------------------------------------------------------------------


def test_a_context_is_used_by_hand_in_all_threads():
    """A value is one that was set for its key."""
    cache = get_cache_context("memory", "free crowd", cache_maxsize=6)

    def work(number):
        for step in range(500):
            key = step % 10
            cache.set(key, (key, number))
            found = cache.get(key)
            assert found is None or found[0] == key

    crowd(work)
    package.clear_cache("free crowd")
    assert len(cache) == 0


def test_maps_in_all_threads_share_a_cache_and_keep_their_order():
    """The scheduler of each map is its own, the figures are those of one function."""
    squares = opmap(mode="thread", workers=3, cache=True, retries=1)(lambda item: item * item)

    def work(_):
        assert squares(list(range(200))) == [item * item for item in range(200)]

    crowd(work, 4)
    stats = squares.stats()
    assert stats.calls == 800
    assert stats.hits + stats.misses == 800


def test_chunks_are_sized_and_run_by_all_threads_at_once(core):
    """Each thread has a runner and a sizer of its own, of classes that are shared."""

    def work(number):
        sizer = core.ChunkSizer(2, 10**6, 0, 1000)
        for _ in range(200):
            size = sizer.size()
            assert 1 <= size <= 1000
            sizer.observe(size, 1000 * size)
            results: list[Any] = []
            failures: list[Any] = []
            runner = core.ChunkRunner(memoryview(bytearray(8)).cast("q"))
            runner.run(lambda value: 1 // value, [number, 0, 1], results, failures)
            assert results[2] == 1
            assert failures[-1][0] == 1

    crowd(work)


# --- telemetry and the off switch -----------------------------------------------------------------


def test_calls_go_on_while_opero_is_switched_off_and_histories_are_asked_for(core):
    """Each call is one or the other; every run counts, and every history is whole."""
    runs, histories = deque(), deque()

    def work(number):
        if number == 0:
            for _ in range(100):
                with disabled():
                    pass
            return
        if number == 1:
            for _ in range(100):
                subscribe(histories.append, "call_end")()
            return
        failed = set()

        @opero(retries=2, min_delay=0, cache=number % 2 == 0)
        def function(step):
            runs.append(step)
            if step not in failed:
                failed.add(step)
                raise ValueError(step)
            return step

        for step in range(150):
            try:
                assert function(step) == step
            except ValueError:  # it was off
                assert function(step) == step

    crowd(work)
    assert len(runs) == 2 * 150 * (THREADS - 2)
    for event in histories:
        assert [attempt.number for attempt in event.history] == [1, 2]
