"""Stress under the shortest switch interval: threads meet in every order that a second comes up with."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from crowd import Job, flights_of, hurried_switching, run, standing_clock, together, until

import opero as package
from opero import RateLimiter, get_cache_context, opero
from opero.testing import manual_clock

THREADS = 8


@pytest.fixture(autouse=True)
def hurried():
    """Switch threads as often as the interpreter can."""
    with hurried_switching():
        yield


def all_fine(jobs: list[Job]) -> None:
    """Raise what any of the jobs raised."""
    for job in jobs:
        job.result()


class Slippery:
    """A key whose comparison runs Python code, so that threads switch in the middle of look-ups."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return self.number % 3

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slippery) and other.number == self.number


KINDS_OF_KEYS = {
    "int": lambda number: number,
    "tuple": lambda number: (number, "x"),
    "object": Slippery,
}


# --- the store --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [0, 10**6], ids=["for ever", "1 ms"])
@pytest.mark.parametrize("maxsize", [1, 7, 0], ids=["1 entry", "7 entries", "no bound"])
def test_a_store_gives_right_values_and_keeps_its_bound(core, maxsize, ttl):
    """Finding, putting, dropping and clearing at once: never another key's value, never too many."""
    store = core.MemoryStore(core.clock, maxsize, ttl)
    make = core.Freezer().freeze
    keys = [make(Slippery(number)) for number in range(20)]

    def work(number):
        dice = random.Random(number)
        for step in range(400):
            at = dice.randrange(20)
            entry = store.find(keys[at])
            if entry is not None:
                assert entry.value[0] == at
            chance = dice.random()
            if chance < 0.6:
                store.put(keys[at], (at, number, step))
            elif chance < 0.7:
                store.drop(keys[at])
            elif chance < 0.71:
                store.clear()

    all_fine(together(THREADS, work))
    if maxsize:
        store.put(make("one more"), 1)
        assert len(store) <= maxsize
        queued = {id(entry) for entry in [*store.small, *store.main]}
        assert all(id(entry) in queued for entry in store.entries.values())  # none is immortal
        with standing_clock(core.clock):
            for number in range(60 * maxsize):
                store.put(number, number)
                assert all(store.find(number) for _ in range(4))
        assert not any(store.find(key) for key in keys)
        assert len(store) == maxsize
    store.clear()
    assert len(store) == 0
    store.put(1, "value")
    assert store.find(1).value == "value"


@pytest.mark.parametrize("make", KINDS_OF_KEYS.values(), ids=KINDS_OF_KEYS)
def test_a_hit_is_never_empty_handed_while_others_invalidate(make):
    """A value that has been found is returned, whatever happens to its entry meanwhile."""
    stop = threading.Event()

    @opero(retries=1, cache=True)
    def fetch(key):
        return "value"

    def forget():
        while not stop.is_set():
            fetch.cache_invalidate(make(1))

    def read(_):
        for _ in range(1500):
            assert fetch(make(1)) == "value"

    forgetting = Job(forget)
    jobs = together(3, read)
    stop.set()
    all_fine([*jobs, forgetting])
    assert flights_of(fetch) == []


def test_a_log_handler_may_invalidate_what_is_being_hit():
    """The value found is the value returned."""

    class Forgetful(logging.Handler):
        def emit(self, record):
            fetch.cache_invalidate(1)

    fetch = opero(retries=1, cache=True)(lambda key: "value")
    logger = package.get_logger()
    handler = Forgetful()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        assert [fetch(1) for _ in range(4)] == ["value"] * 4
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def test_a_context_by_hand_is_as_safe_as_a_function():
    """Threads set, get and delete in one namespace."""

    def work(number):
        with get_cache_context("memory", "thread safety", cache_maxsize=5) as cache:
            for step in range(300):
                key = step % 9
                cache.set(key, (key, number))
                found = cache.get(key)
                assert found is None or found[0] == key
                if step % 10 == 0:
                    cache.delete(key)
            assert len(cache) <= 5 + THREADS

    all_fine(together(THREADS, work))
    cache = get_cache_context("memory", "thread safety")
    cache.set("last", 1)
    assert len(cache) <= 5
    package.clear_cache("thread safety")
    assert len(cache) == 0


def test_instances_that_come_and_go_in_all_threads_never_meet_in_a_cache():
    """An identity that is used again belongs to a new instance with a cache of its own."""

    class Thing:
        def __init__(self, name):
            self.name = name

        @opero(retries=1, cache=True)
        def label(self, suffix):
            return (self.name, suffix)

    def work(number):
        for step in range(300):
            thing = Thing((number, step))
            assert thing.label(1) == ((number, step), 1)
            assert thing.label(1) == ((number, step), 1)
            if step % 5 == 0:
                thing.circle = thing  # left to the garbage collector

    all_fine(together(THREADS, work))
    gc.collect()
    assert Thing.label.__opero__.instances.stores == {}


def test_threads_that_meet_on_a_new_instance_share_one_cache():
    """Its store is made once, however many threads make the first call."""
    rounds = 60
    runs = []

    class Thing:
        @opero(retries=1, cache=True)
        def label(self):
            runs.append(1)
            return object()

    things = [Thing() for _ in range(rounds)]
    barrier = threading.Barrier(4)

    def work(_):
        seen = []
        for thing in things:
            barrier.wait(20)
            seen.append(thing.label())
        return seen

    results = [job.result() for job in together(4, work)]
    assert results == [results[0]] * 4
    assert len(runs) == rounds


# --- flights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", KINDS_OF_KEYS.values(), ids=KINDS_OF_KEYS)
def test_each_missing_key_is_run_once_however_threads_meet(make):
    """300 keys, four threads that come for each at the same moment, 300 runs."""
    rounds = 300
    runs = []
    barrier = threading.Barrier(4)

    @opero(retries=1, cache=True, cache_maxsize=None)
    def fetch(key):
        runs.append(1)
        return object()

    def work(_):
        seen = []
        for number in range(rounds):
            barrier.wait(20)
            seen.append(fetch(make(number)))
        return seen

    results = [job.result() for job in together(4, work)]
    assert results == [results[0]] * 4
    assert len(runs) == rounds
    assert flights_of(fetch) == []


def test_failures_shared_by_threads_are_never_stored():
    """Every call gets a failure; a run is shared only while it lasts."""
    fetch_runs = []

    @opero(retries=1, cache=True)
    def fetch(key):
        fetch_runs.append(1)
        raise ValueError(key)

    def work(_):
        for number in range(200):
            with pytest.raises(ValueError, match=str(number % 3)):
                fetch(number % 3)

    all_fine(together(THREADS, work))
    assert len(fetch.__opero__.store) == 0
    assert flights_of(fetch) == []
    assert fetch.stats().attempts == fetch.stats().failures == len(fetch_runs)


@pytest.mark.parametrize("make", KINDS_OF_KEYS.values(), ids=KINDS_OF_KEYS)
@pytest.mark.parametrize("how", ["cache_invalidate", "cache_clear"])
def test_no_call_gets_a_value_older_than_an_invalidation_that_it_follows(make, how):
    """Several threads change the source, invalidate, and read back what is at least as new."""
    source = {"version": 0}
    change = threading.Lock()

    @opero(retries=1, cache=True)
    def fetch(key):
        return source["version"]

    def forget():
        if how == "cache_clear":
            fetch.cache_clear()
        else:
            fetch.cache_invalidate(make(1))

    def work(_):
        for _ in range(150):
            with change:
                source["version"] += 1
                version = source["version"]
            forget()
            assert fetch(make(1)) >= version

    all_fine(together(6, work))
    assert flights_of(fetch) == []


def test_no_task_gets_a_value_older_than_an_invalidation_from_another_thread():
    """The same between a thread that invalidates and a loop that reads."""
    source = {"version": 0}
    invalidated = {"version": 0}
    stop = threading.Event()

    @opero(retries=1, cache=True)
    async def fetch(key):
        version = source["version"]
        await asyncio.sleep(0)
        return version

    async def read():
        while not stop.is_set():
            least = invalidated["version"]
            values = await asyncio.gather(*[fetch(1) for _ in range(3)])
            assert min(values) >= least, (values, least)

    def write():
        for version in range(1, 800):
            source["version"] = version
            if version % 3:
                fetch.cache_invalidate(1)
            else:
                fetch.cache_clear()
            invalidated["version"] = version
        stop.set()

    jobs = [Job(run, read()), Job(run, read()), Job(write)]
    try:
        all_fine(jobs)
    finally:
        stop.set()
    until(lambda: fetch.__opero__.store.flights == {})


def test_a_run_that_begins_while_all_is_cleared_can_still_be_invalidated():
    """No loop is left with a table of runs that nobody else knows of."""
    stop = threading.Event()

    @opero(retries=1, cache=True)
    async def fetch(key):
        await asyncio.sleep(0)
        return key

    def clear():
        while not stop.is_set():
            fetch.cache_clear()

    async def read():
        gate = asyncio.Event()

        @opero(retries=1, cache=True)
        async def slow(key):
            await gate.wait()
            return key

        for number in range(300):
            await fetch(number)
        clearing.append(Job(lambda: slow.cache_clear()))
        calls = [asyncio.create_task(slow(number)) for number in range(20)]
        await asyncio.sleep(0.002)
        clearing[-1].result()
        for number in range(20):
            slow.cache_invalidate(number)
        gate.set()
        assert await asyncio.gather(*calls) == list(range(20))
        assert len(slow.__opero__.store) == 0
        assert slow.__opero__.store.flights == {}

    clearing = [Job(clear)]
    try:
        run(read())
    finally:
        stop.set()
    all_fine(clearing)


# --- figures ----------------------------------------------------------------------------------------


def test_no_figure_is_lost_among_threads():
    """Calls, hits, misses, attempts and failures add up to what happened."""

    @opero(retries=1, cache=True)
    def fetch(key):
        if key < 0:
            raise ValueError
        return key

    def work(number):
        for step in range(500):
            if step % 10 == 0:
                with pytest.raises(ValueError):  # noqa: PT011 - it has no text
                    fetch(-1 - number)
            else:
                fetch(step % 3)

    all_fine(together(THREADS, work))
    stats = fetch.stats()
    assert stats.calls == THREADS * 500
    assert stats.hits + stats.misses == stats.calls
    assert stats.failures == THREADS * 50
    assert stats.misses <= THREADS * (50 + 3)


def test_no_waiting_time_is_lost_among_those_who_wait_at_once():
    """Seconds in backoff and in line are added up over all threads and tasks."""
    attempts: dict[Any, int] = {}

    def body(name):
        attempts[name] = attempts.get(name, 0) + 1
        if attempts[name] == 1:
            raise ValueError
        return name

    options: dict[str, Any] = {"retries": 2, "min_delay": 0.02, "max_delay": 0.02}
    thread = opero(**options)(body)

    @opero(**options)
    async def task(name):
        return body(name)

    async def tasks():
        await asyncio.gather(*[task(number) for number in range(100, 110)])

    all_fine(together(10, thread))
    run(tasks())
    assert thread.stats().backoff_wait >= 0.2
    assert task.stats().backoff_wait >= 0.2
    assert thread.stats().retries == task.stats().retries == 10


# --- the bucket and the limiter ---------------------------------------------------------------------


@pytest.mark.parametrize("burst", [1, 4])
def test_a_bucket_never_grants_more_than_its_rate_allows(core, burst):
    """By the very times it was asked at: `n` permits span at least `(n - burst)` intervals."""
    rate = 20_000
    bucket = core.TokenBucket(rate, burst, core.new_lock())
    granted: list[int] = []
    refused = []

    def work(_):
        end = time.monotonic() + 0.15
        while time.monotonic() < end:
            now = core.clock.now()
            wait = bucket.enter(now)
            if wait == 0:
                granted.append(now)
            else:
                refused.append(wait)

    all_fine(together(4, work))
    granted.sort()
    interval = bucket.interval
    assert len(granted) > burst
    assert min(refused) > 0
    for first in range(len(granted)):
        for last in range(first + burst, min(len(granted), first + burst + 20)):
            permits = last - first + 1
            assert granted[last] - granted[first] >= (permits - burst) * interval


def test_a_limiter_is_in_order_after_threads_have_come_left_and_given_up():
    """Waits, refusals, deadlines and interruptions at random; then it is as good as new."""
    limiter = RateLimiter(20_000, burst=3)
    got = []

    def work(number):
        dice = random.Random(number)
        for _ in range(60):
            chance = dice.random()
            if chance < 0.4:
                limiter.acquire_sync()
                got.append(1)
            elif chance < 0.7:
                deadline = limiter._clock.now() + dice.randrange(200_000)
                if limiter._wait_sync(deadline) >= 0:
                    got.append(1)
            elif limiter.try_acquire():
                got.append(1)

    begun = time.monotonic()
    jobs = [Job(work, number) for number in range(THREADS)]
    hit = [Job(work, number) for number in range(50, 53)]
    for job in hit:
        time.sleep(0.002)
        job.interrupt()
    all_fine(jobs)
    for job in hit:
        job.wait()
        assert job.error is None or isinstance(job.error, KeyboardInterrupt)
    took = time.monotonic() - begun
    assert len(got) <= 3 + 20_000 * took
    assert limiter._bucket.queued == 0
    time.sleep(0.001)
    assert [limiter.try_acquire() for _ in range(3)] == [True] * 3


def test_functions_may_be_decorated_while_all_caches_are_cleared():
    """The register of functions by namespace stands both, and functions that vanish."""
    stop = threading.Event()

    def clear():
        while not stop.is_set():
            package.clear_cache()
            package.clear_cache("thread safety")

    def decorate(number):
        for step in range(60):
            fetch = opero(retries=1, cache=True, cache_namespace="thread safety")(lambda x: x)
            assert fetch(step) == step

    clearing = Job(clear)
    jobs = together(3, decorate)
    stop.set()
    all_fine([*jobs, clearing])


# --- entered again by the user's own code -----------------------------------------------------------


@pytest.mark.parametrize("key", [1, (1, "one")], ids=repr)
@pytest.mark.parametrize("end", ["evict", "invalidate", "clear", "expire"])
def test_a_value_whose_end_calls_the_cached_function_is_survived(end, key):
    """`__del__` runs in the middle of the store's own work and comes back to it."""
    made = []

    class Value:
        def __init__(self, key):
            self.key = key

        def __del__(self):
            if len(made) < 20:
                made.append(fetch(self.key))
                made.append(fetch("another"))

    @opero(retries=1, cache=True, cache_maxsize=2, cache_ttl=60)
    def fetch(key):
        return Value(key)

    def work():
        fetch(key)
        if end == "evict":
            for number in range(50):
                fetch(number + 100)
        elif end == "invalidate":
            assert fetch.cache_invalidate(key)
        elif end == "clear":
            fetch.cache_clear()
        else:
            with manual_clock() as clock:
                clock.advance(61)
                fetch(key)

    Job(work).result()
    gc.collect()
    assert made
    assert len(fetch.__opero__.store) <= 2
    assert flights_of(fetch) == []
    made.extend([None] * 20)
    fetch.cache_clear()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_key_whose_comparison_calls_the_cached_function_is_survived(is_async):
    """`__eq__` and `__hash__` run in the middle of a look-up and make another one."""
    inside = threading.local()
    inner = []

    class Talkative:
        def __init__(self, number):
            self.number = number

        def talk(self):
            if not getattr(inside, "talking", False):
                inside.talking = True
                try:
                    inner.append(other(self.number % 5))
                    fetch.cache_invalidate("nothing")
                    if not is_async:
                        inner.append(fetch(self.number % 5))
                finally:
                    inside.talking = False

        def __hash__(self):
            self.talk()
            return self.number % 2

        def __eq__(self, wanted):
            self.talk()
            return isinstance(wanted, Talkative) and wanted.number == self.number

    other = opero(retries=1, cache=True, cache_maxsize=2)(lambda x: x)

    def read(key):
        return key.number if isinstance(key, Talkative) else key

    if is_async:

        @opero(retries=1, cache=True, cache_maxsize=3)
        async def fetch(key):
            await asyncio.sleep(0)
            return read(key)

        async def several():
            for step in range(40):
                assert await fetch(Talkative(step % 7)) == step % 7

        work = lambda _: run(several())  # noqa: E731 - one of two
    else:
        fetch = opero(retries=1, cache=True, cache_maxsize=3)(read)

        def work(_):
            for step in range(60):
                assert fetch(Talkative(step % 7)) == step % 7

    all_fine(together(3, work))
    assert inner
    assert flights_of(fetch) == []
    assert len(fetch.__opero__.store) <= 3 + 3


def test_a_run_that_waits_for_a_thread_that_calls_the_function_with_another_key_ends():
    """Work handed to other threads does not count as a circle as long as it is none."""

    @opero(retries=1, cache=True)
    def fetch(number):
        return number if number == 0 else Job(fetch, number - 1).result() + 1

    assert Job(fetch, 20).result() == 20
    assert flights_of(fetch) == []


def test_counts_can_be_asked_for_while_another_thread_starts_them_anew():
    """Neither number is taken from what the other thread lets go of."""

    @opero(cache=True)
    def same(x: int) -> int:
        return x

    def clear() -> None:
        for number in range(2000):
            same(number % 3)
            same.cache_clear()

    def ask() -> None:
        for _ in range(2000):
            info = same.cache_info()
            assert isinstance(info.hits, int)
            assert isinstance(info.misses, int)

    with ThreadPoolExecutor(4) as pool:
        for run in [pool.submit(work) for work in (clear, ask, ask, clear)]:
            run.result()
