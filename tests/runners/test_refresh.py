"""`cache_refresh` and `cache_stale`: values that are renewed before their end, or serve after it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import random
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from crowd import Job, together, until, until_async
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_server import RedisServer

from opero import (
    AllFailedError,
    Breaker,
    BreakerOpenError,
    DeadlineExceeded,
    Event,
    RateLimiter,
    clear_cache,
    get_cache_context,
    get_cache_decorator,
    opero,
    subscribe,
)
from opero.gil import FREE_THREADED
from opero.runners import background, daemon_threads, task_lingering
from opero.runners.refreshes import Refresh
from opero.stores import renewer, secret
from opero.stores.leases import lease_of
from opero.testing import manual_clock

FORMS = ["sync", "async"]
LIFE = {"cache_ttl": 100, "cache_refresh": 20}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own directories and secrets out of the test, and let threads end soon."""
    monkeypatch.setenv(secret.VARIABLE, "a-secret-for-the-tests-of-refreshes")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(daemon_threads, "_LINGER", 0.01)
    monkeypatch.setattr(renewer, "_LINGER", 0.01)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Return "sync" or "async"."""
    return str(request.param)


@pytest.fixture(params=["memory", "disk", pytest.param("redis", marks=pytest.mark.redis)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Return the options that choose an empty backend."""
    if request.param == "memory":
        return {}
    if request.param == "disk":
        return {"cache_backend": "disk", "cache_dir": str(tmp_path / "cache")}
    server: RedisServer = request.getfixturevalue("redis_server")
    server.command("FLUSHALL")
    return {"cache_backend": "redis", "cache_url": server.url}


@pytest.fixture
def heard() -> Iterator[list[Event]]:
    """Return a list of events, which grows as they happen."""
    events: list[Event] = []
    end = subscribe(events.append, "refresh", "stale", "hit", "miss", "deadline")
    yield events
    end()


class Subject:
    """A decorated function that says how often it has run: `run` of the second run is 2.

    Attributes:
        runs: What it was called with.
        fails: What it raises; None if it returns.
        goes_on: Cleared, it holds a run in its middle.
        held: How many runs are held.
        most: The greatest number of runs that were under way at the same time.
    """

    def __init__(self, form: str, **options: Any) -> None:
        """Decorate a function of one form."""
        self.runs: list[Any] = []
        self.fails: BaseException | None = None
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.held = self.most = 0
        self._lock = threading.Lock()
        self.loop = asyncio.new_event_loop() if form == "async" else None
        self.options = {"retries": 1, "cache": True, **LIFE, **options}
        self.decorated = self.decorate()

    def decorate(self) -> Any:
        """Decorate the function again, as another process would."""

        def run(key: Any) -> Any:
            self._begin(key)
            self.goes_on.wait(20)
            return self._end(key)

        async def arun(key: Any) -> Any:
            self._begin(key)
            while not self.goes_on.is_set():
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            return self._end(key)

        function: Any = run if self.loop is None else arun
        function.__qualname__ = "run"
        return opero(
            **{"cache_namespace": "subjects", "cache_key": lambda key: key, **self.options}
        )(function)

    def _begin(self, key: Any) -> None:
        with self._lock:
            self.runs.append(key)
            self.held += 1
            self.most = max(self.most, self.held)

    def _end(self, key: Any) -> Any:
        with self._lock:
            self.held -= 1
        if self.fails is not None:
            raise self.fails
        return [key, self.runs.count(key)]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(self.decorated, *args, **kwargs)

    def call(self, decorated: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a decorated function, in the loop if it is a coroutine function."""
        if self.loop is None:
            return decorated(*args, **kwargs)
        return self.loop.run_until_complete(decorated(*args, **kwargs))

    def hold(self) -> None:
        """Make runs stop in the middle from now on."""
        self.goes_on.clear()

    def await_held(self, count: int = 1) -> None:
        """Wait until a number of runs are held."""
        if self.loop is None:
            until(lambda: self.held >= count)
        else:
            self._turn(lambda: self.held >= count)

    def settle(self) -> None:
        """Release held runs, and wait until no refresh is under way."""
        self.goes_on.set()
        if self.loop is None:
            until(is_idle)
        else:
            self._turn(lambda: not task_lingering._tasks)
        until(self._is_unclaimed)

    def _is_unclaimed(self) -> bool:
        """Return whether no lease of a stored value is being given back."""
        stored = self.decorated.__opero__.stored_cache
        if stored is None:
            return True
        keys = [stored.key(self.decorated.__opero__, (key,), {}) for key in set(self.runs)]
        return not any(stored.store.operations.get(lease_of(key.name)) for key in keys)

    def _turn(self, condition: Callable[[], object]) -> None:
        async def turn() -> None:
            for _ in range(20_000):
                if condition():
                    return
                await asyncio.sleep(0.001)
            raise AssertionError

        assert self.loop is not None
        self.loop.run_until_complete(turn())

    def close(self) -> None:
        """Close the loop."""
        self.settle()
        if self.loop is not None:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


def is_idle() -> bool:
    """Return whether no thread has a refresh to run."""
    at_work = background.background
    return not at_work._waiting and not at_work._running


@pytest.fixture
def subject(form: str) -> Iterator[Callable[..., Subject]]:
    """Return a factory of subjects; close their loops at the end."""
    made: list[Subject] = []

    def make(**options: Any) -> Subject:
        made.append(Subject(form, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


# --- refreshes ------------------------------------------------------------------------------------


def test_a_hit_near_the_end_is_served_at_once_and_begins_a_refresh(subject, store, heard):
    """The next hit finds the new value, which counts for a whole TTL from then on."""
    function = subject(**store)
    with manual_clock() as clock:
        assert function(1) == [1, 1]
        clock.advance(79)
        assert function(1) == [1, 1]
        function.settle()
        assert function.runs == [1]
        clock.advance(2)
        assert function(1) == [1, 1]
        function.settle()
        assert function.runs == [1, 1]
        clock.advance(70)  # the old value's end is long over
        assert function(1) == [1, 2]
        function.settle()
        assert len(function.runs) == 2
        stats = function.decorated.stats()
    assert (stats.calls, stats.hits, stats.misses, stats.refreshes) == (4, 3, 1, 1)
    assert [event.kind for event in heard] == ["miss", "hit", "hit", "refresh", "hit"]
    assert heard[3].error is None
    assert heard[3].seconds is not None
    assert heard[3].function == "run"


def test_one_refresh_is_made_for_each_key(subject, store):
    """However many hits come while it runs."""
    function = subject(**store)
    with manual_clock() as clock:
        function(1), function(2)
        clock.advance(85)
        function.hold()
        for _ in range(4):
            assert (function(1), function(2)) == ([1, 1], [2, 1])
        function.await_held(2)
        assert (function(1), function(2)) == ([1, 1], [2, 1])
        function.settle()
        assert (function(1), function(2)) == ([1, 2], [2, 2])
    assert sorted(function.runs) == [1, 1, 2, 2]


def test_a_value_that_nobody_asks_for_is_not_renewed(subject, store):
    """It expires, and the next call is a miss."""
    function = subject(**store)
    with manual_clock() as clock:
        function(1)
        clock.advance(101)
        assert function(1) == [1, 2]
        assert function.decorated.stats()[1:3] == (0, 2)
        function.settle()
        assert function.decorated.stats().refreshes == 0


def test_a_refresh_that_fails_leaves_the_value_until_its_end(subject, store, heard, caplog):
    """The refresh raises nothing, and is tried again after a pause."""
    function = subject(**store)
    with manual_clock() as clock, caplog.at_level(logging.WARNING, "opero"):
        function(1)
        function.fails = ConnectionError("down")
        clock.advance(81)
        for wait, runs in ((0, 2), (1.9, 2), (0.2, 3), (1.9, 3), (0.2, 4)):
            clock.advance(wait)
            assert function(1) == [1, 1]
            function.settle()
            assert len(function.runs) == runs
        failed = [event for event in heard if event.kind == "refresh"]
        assert [type(event.error) for event in failed] == [ConnectionError] * 3
        assert "renewing a cached value failed with ConnectionError: down" in caplog.text
        assert function.decorated.stats().failures == 3
        function.fails = None
        clock.advance(3)
        assert function(1) == [1, 1]
        function.settle()
        assert function(1) == [1, 5]
        clock.advance(101)
        function.fails = ConnectionError("down")
        with pytest.raises(ConnectionError):
            function(1)


def test_a_refresh_retries_as_a_call_does(subject, store, heard):
    """With the delays of the policy, and with `AllFailedError` in the event."""
    function = subject(**store, retries=3, min_delay=0.1)
    with manual_clock() as clock:
        function(1)
        function.fails = ConnectionError("down")
        clock.advance(85)
        assert function(1) == [1, 1]
        function.settle()
    assert len(function.runs) == 4
    error = heard[-1].error
    assert isinstance(error, AllFailedError)
    assert len(error.errors) == 3


@pytest.mark.parametrize("way", ["invalidate", "clear", "namespace"])
def test_what_is_forgotten_while_a_refresh_runs_is_not_stored(subject, store, way):
    """The next call runs, and gets its own value."""
    function = subject(**store)
    with manual_clock() as clock:
        function(1)
        clock.advance(85)
        function.hold()
        function(1)
        function.await_held()
        if way == "invalidate":
            assert function.decorated.cache_invalidate(1)
        elif way == "clear":
            function.decorated.cache_clear()
        else:
            clear_cache("subjects")
        function.settle()
        assert function.decorated.cache_info().currsize == 0
        assert function(1) == [1, 3]
        assert function(1) == [1, 3]


def test_what_another_process_forgets_while_a_refresh_runs_is_not_stored(subject, store):
    """Invalidating takes the lease away."""
    if not store:
        return
    function = subject(**store)
    other = function.decorate()
    with manual_clock() as clock:
        function(1)
        clock.advance(85)
        function.hold()
        function(1)
        function.await_held()
        assert other.cache_invalidate(1)
        function.settle()
        assert other.cache_info().currsize == 0
        assert function(1) == [1, 3]


def test_of_several_processes_one_refreshes_a_value(subject, store):
    """The others serve the old value, then find the new one."""
    if not store:
        return
    function = subject(**store)
    others = [function.decorate() for _ in range(3)]
    with manual_clock() as clock:
        function(1)
        clock.advance(85)
        function.hold()
        function(1)
        function.await_held()
        for other in others:
            assert function.call(other, 1) == [1, 1]
        time.sleep(0.05)  # for a refresh that should not begin
        function.settle()
        for other in others:
            assert function.call(other, 1) == [1, 2]
        function.settle()
    assert len(function.runs) == 2


def test_a_caller_after_the_end_waits_for_the_refresh_that_runs(subject, store):
    """It starts no run of its own."""
    function = subject(**store)
    with manual_clock() as clock:
        function(1)
        clock.advance(99)
        function.hold()
        function(1)
        function.await_held()
        clock.advance(2)
        if function.loop is None:
            jobs = [Job(function, 1) for _ in range(3)]
            until(lambda: function.decorated.stats().misses == 4)
            time.sleep(0.02)
            function.goes_on.set()
            got = [job.result() for job in jobs]
        else:

            async def callers() -> list[Any]:
                calls = [asyncio.ensure_future(function.decorated(1)) for _ in range(3)]
                await asyncio.sleep(0.05)
                function.goes_on.set()
                return await asyncio.gather(*calls)

            got = function.loop.run_until_complete(callers())
        function.settle()
    assert got == [[1, 2]] * 3
    assert len(function.runs) == 2


def test_a_caller_after_the_end_of_a_refresh_that_waits_makes_a_run(monkeypatch):
    """A refresh that has not begun by then is dropped."""
    monkeypatch.setattr(background, "MOST_OF_ONE", 1)
    function = Subject("sync")
    with manual_clock() as clock:
        function(1), function(2)
        clock.advance(90)
        function.hold()
        function(1), function(2)
        function.await_held()
        clock.advance(11)
        job = Job(function, 2)
        function.await_held(2)
        function.settle()
        assert job.result() == [2, 2]
    assert sorted(function.runs) == [1, 1, 2, 2]


def test_a_refresh_has_the_context_variables_of_its_hit(form, store):
    """It sees their values at the hit; its own changes stay its own."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []
    options: dict[str, Any] = {"retries": 1, "cache": True, **LIFE, **store}
    options["cache_key"] = lambda key: key

    def note() -> None:
        seen.append(variable.get())
        variable.set("set by the run")

    @opero(**options)
    def function(key: int) -> int:
        note()
        return key

    @opero(**options)
    async def coroutine_function(key: int) -> int:
        note()
        return key

    async def main() -> None:
        with manual_clock() as clock:
            await coroutine_function(1)
            clock.advance(85)
            variable.set("of the hit")
            await coroutine_function(1)
            variable.set("later")
            while task_lingering._tasks:
                await asyncio.sleep(0.001)
            assert variable.get() == "later"

    def run() -> None:
        with manual_clock() as clock:
            function(1)
            clock.advance(85)
            variable.set("of the hit")
            function(1)
            variable.set("later")
            until(is_idle)
            assert variable.get() == "later"

    if form == "sync":
        contextvars.copy_context().run(run)
    else:
        asyncio.run(main())
    assert seen == ["none", "of the hit"]


# --- gates and deadlines --------------------------------------------------------------------------


def test_a_refresh_pays_for_its_permit_and_the_caller_does_not_wait(subject, store):
    """Even if the limiter has no free permit, a hit is served immediately."""
    limiter = RateLimiter(rate_limit=0.5)
    function = subject(**store, rate_limit=limiter)
    with manual_clock() as clock:
        function(1)
        clock.advance(85)
        assert limiter.try_acquire()
        begun = clock.now()
        assert function(1) == [1, 1]
        function.settle()
        assert clock.now() - begun == pytest.approx(2, abs=0.01)
        assert function(1) == [1, 2]
        assert not limiter.try_acquire()
    assert function.decorated.stats().permit_wait == pytest.approx(2, abs=0.01)


def test_a_permit_that_would_come_after_the_end_is_not_waited_for(subject, store, heard):
    """The refresh fails without an attempt."""
    limiter = RateLimiter(rate_limit=0.009)
    function = subject(**store, rate_limit=limiter)
    with manual_clock() as clock:
        function(1)
        clock.advance(81)
        assert function(1) == [1, 1]
        function.settle()
        assert function.runs == [1]
    error = heard[-1].error
    assert isinstance(error, DeadlineExceeded)
    assert "cannot finish before its cached value is outdated: its rate-limit permit" in str(error)
    assert "deadline" not in {event.kind for event in heard}


def test_a_refresh_has_the_timeout_of_a_call(subject, store, heard):
    """It does not wait for a delay that would end after its deadline."""
    function = subject(**store, timeout=2, retries=2, min_delay=3, jitter=False)
    with manual_clock() as clock:
        function(1)
        function.fails = ConnectionError("down")
        clock.advance(81)
        assert function(1) == [1, 1]
        function.settle()
        assert len(function.runs) == 2
    error = heard[-1].error
    assert isinstance(error, DeadlineExceeded)
    assert "timeout of 2 s" in str(error)


def test_a_refresh_of_a_coroutine_function_is_cut_at_its_timeout(store, heard):
    """Like a call; the value stays valid."""
    function = Subject("async", **store, timeout=0.1)
    with manual_clock() as clock:
        clock._clock.skipping = False
        function(1)
        function.hold()
        clock.advance(85)
        assert function(1) == [1, 1]
        function.await_held()
        clock.advance(0.2)
        function._turn(lambda: not task_lingering._tasks)
        assert function(1) == [1, 1]
        function.close()
    error = next(event.error for event in heard if event.kind == "refresh")
    assert isinstance(error, DeadlineExceeded)


def test_a_refresh_that_an_open_breaker_refuses_makes_no_attempt(subject, store, heard):
    """It waits for no probe, and the value stays valid."""
    breaker = Breaker("of refreshes")
    function = subject(**store, breaker=breaker, timeout=90)
    with manual_clock() as clock:
        function(1)
        breaker.trip()
        clock.advance(81)
        breaker.trip()
        assert function(1) == [1, 1]
        function.settle()
        assert function.runs == [1]
        breaker.reset()
        clock.advance(3)
        assert function(1) == [1, 1]
        function.settle()
        assert function(1) == [1, 2]
    errors = [event.error for event in heard if event.kind == "refresh"]
    assert [type(error) for error in errors] == [BreakerOpenError, type(None)]


def test_refreshes_that_fail_open_the_breaker(subject):
    """Their attempts count like any other."""
    breaker = Breaker("of failing refreshes", minimum=3)
    function = subject(breaker=breaker)
    with manual_clock() as clock:
        for key in range(3):
            function(key)
        function.fails = ConnectionError("down")
        clock.advance(85)
        for key in range(3):
            function(key)
            function.settle()
        assert breaker.state == "open"


def test_an_open_breaker_is_not_waited_for_where_an_outdated_value_is_there(subject, store, heard):
    """The value is served immediately, even if `timeout` allows waiting for a probe."""
    breaker = Breaker("of outdated values", open_for=5)
    function = subject(**store, cache_refresh=None, cache_stale=50, breaker=breaker, timeout=60)
    with manual_clock() as clock:
        function(1)
        clock.advance(110)
        breaker.trip()
        begun = clock.now()
        assert function(1) == [1, 1]
        assert clock.now() == begun
        assert function.runs == [1]
        stale = next(event for event in heard if event.kind == "stale")
        assert isinstance(stale.error, BreakerOpenError)
        function.settle()
        assert function(2) == [2, 1]  # there is none of this key: the probe is waited for
        assert clock.now() >= begun + 5


# --- room -----------------------------------------------------------------------------------------


def test_so_many_refreshes_of_one_function_run_at_the_same_time(monkeypatch):
    """The others wait, even if threads are free."""
    function = Subject("sync")
    other = Subject("sync")
    with manual_clock() as clock:
        for key in range(20):
            function(key)
        other(1)
        clock.advance(85)
        function.hold()
        for key in range(20):
            function(key)
        function.await_held(background.MOST_OF_ONE)
        other(1)
        until(lambda: len(other.runs) == 2)
        assert function.held == background.MOST_OF_ONE
        function.settle()
        assert [function(key) for key in range(20)] == [[key, 2] for key in range(20)]
    assert function.most <= background.MOST_OF_ONE


def test_what_there_is_no_room_for_is_dropped_and_asked_for_again(monkeypatch):
    """The next hit requests it again."""
    monkeypatch.setattr(background, "MOST_OF_ONE", 1)
    monkeypatch.setattr(background, "MOST_WAITING", 2)
    function = Subject("sync")
    with manual_clock() as clock:
        for key in range(5):
            function(key)
        clock.advance(85)
        function.hold()
        function(0)
        function.await_held()
        for key in range(5):
            assert function(key) == [key, 1]
        function.settle()
        assert [function(key)[1] for key in range(5)] == [2, 2, 2, 1, 1]
        function.settle()
        assert [function(key)[1] for key in range(5)] == [2] * 5


def test_so_many_tasks_refresh_at_the_same_time(monkeypatch):
    """The next hit requests a refresh again that had no room."""
    monkeypatch.setattr(task_lingering, "MOST_TASKS", 2)
    function = Subject("async")
    with manual_clock() as clock:
        for key in range(4):
            function(key)
        clock.advance(85)
        function.hold()
        for key in range(4):
            function(key)
        function.await_held(2)
        assert function.most == 2
        function.settle()
        assert [function(key)[1] for key in range(4)] == [2, 2, 1, 1]
        function.close()


def test_a_thread_that_cannot_be_started_is_not_the_callers_concern(monkeypatch):
    """The next hit tries again."""
    function = Subject("sync")

    def refuse(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with manual_clock() as clock:
        function(1)
        clock.advance(85)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert function(1) == [1, 1]
        assert is_idle()
        assert function(1) == [1, 1]
        function.settle()
        assert function(1) == [1, 2]


def test_values_that_are_evicted_while_they_are_refreshed_break_no_bound(subject):
    """There are never more than `cache_maxsize` entries."""
    function = subject(cache_maxsize=2)
    with manual_clock() as clock:
        function(1), function(2)
        clock.advance(85)
        function.hold()
        function(1), function(2)
        function.await_held(2)
        function.goes_on.set()
        for key in range(3, 9):
            function(key)
            assert function.decorated.cache_info().currsize <= 2
        function.settle()
        assert function.decorated.cache_info().currsize <= 2


# --- what is held ---------------------------------------------------------------------------------


class Argument:
    """An object that supports weak references."""


def test_a_refresh_holds_its_arguments_until_it_is_over():
    """It releases them when it ends."""
    goes_on = threading.Event()
    goes_on.set()

    @opero(retries=1, cache=True, cache_key=lambda argument: "key", **LIFE)
    def function(argument: Argument) -> None:
        goes_on.wait(20)

    argument = Argument()
    with manual_clock() as clock:
        function(Argument())
        clock.advance(85)
        goes_on.clear()
        function(argument)
        reference = weakref.ref(argument)
        del argument
        gc.collect()
        assert reference() is not None
        goes_on.set()
        until(is_idle)
        until(lambda: gc.collect() is not None and reference() is None)


def test_a_task_holds_its_arguments_until_its_refresh_is_over():
    """It releases them when it ends."""

    @opero(retries=1, cache=True, cache_key=lambda argument: "key", **LIFE)
    async def function(argument: Argument) -> None:
        await asyncio.sleep(0.01)

    async def main() -> None:
        argument = Argument()
        with manual_clock() as clock:
            await function(Argument())
            clock.advance(85)
            await function(argument)
            reference = weakref.ref(argument)
            del argument
            assert reference() is not None
            while task_lingering._tasks:
                await asyncio.sleep(0.001)
            gc.collect()
            assert reference() is None

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["method", "class_method"])
def test_methods_are_refreshed(kind, form):
    """For each instance separately."""
    runs: list[int] = []

    class Plain:
        @opero(retries=1, cache=True, **LIFE)
        def method(self, key: int) -> int:
            runs.append(key)
            return len(runs)

        @classmethod
        @opero(retries=1, cache=True, **LIFE)
        def class_method(cls, key: int) -> int:
            runs.append(key)
            return len(runs)

    class Awaited:
        @opero(retries=1, cache=True, **LIFE)
        async def method(self, key: int) -> int:
            runs.append(key)
            return len(runs)

        @classmethod
        @opero(retries=1, cache=True, **LIFE)
        async def class_method(cls, key: int) -> int:
            runs.append(key)
            return len(runs)

    def plain(clock: Any) -> None:
        call = getattr(Plain(), kind)
        assert call(7) == 1
        clock.advance(85)
        assert call(7) == 1
        until(is_idle)
        assert call(7) == 2

    async def awaited(clock: Any) -> None:
        call = getattr(Awaited(), kind)
        assert await call(7) == 1
        clock.advance(85)
        assert await call(7) == 1
        while task_lingering._tasks:
            await asyncio.sleep(0.001)
        assert await call(7) == 2

    with manual_clock() as clock:
        if form == "sync":
            plain(clock)
        else:
            asyncio.run(awaited(clock))


def test_an_instance_dies_while_its_refresh_waits_for_a_thread(monkeypatch):
    """The refresh does not run."""
    monkeypatch.setattr(background, "MOST_OF_ONE", 1)
    runs: list[int] = []
    goes_on = threading.Event()
    goes_on.set()

    class Shop:
        @opero(retries=1, cache=True, **LIFE)
        def price(self, key: int) -> int:
            runs.append(key)
            goes_on.wait(20)
            return key

    one, two = Shop(), Shop()
    with manual_clock() as clock:
        one.price(1), two.price(2)
        clock.advance(85)
        goes_on.clear()
        one.price(1)
        until(lambda: len(runs) == 3)
        two.price(2)
        reference = weakref.ref(two)
        del two
        gc.collect()
        assert reference() is None
        goes_on.set()
        until(is_idle)
    assert runs == [1, 2, 1]
    reference = weakref.ref(one)
    del one
    until(lambda: gc.collect() is not None and reference() is None)


# --- values and errors of other kinds -------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_an_interrupt_that_a_refresh_raises_ends_nothing_else(error):
    """The refresh runs in a thread that belongs to no caller."""
    function = Subject("sync")
    with manual_clock() as clock:
        function(1)
        clock.advance(81)
        function.fails = error
        assert function(1) == [1, 1]
        function.settle()
        function.fails = None
        clock.advance(3)
        assert function(1) == [1, 1]
        function.settle()
        assert function(1) == [1, 3]


def test_a_coroutine_function_that_exits_in_a_refresh_does_not_end_the_loop():
    """The refresh counts as failed."""
    function = Subject("async")
    with manual_clock() as clock:
        function(1)
        clock.advance(81)
        function.fails = SystemExit(3)
        assert function(1) == [1, 1]
        function.settle()
        function.fails = None
        clock.advance(1)
        assert function(1) == [1, 1]
        function.settle()
        assert function(1) == [1, 1]  # it has cooled down for 1 of 2 seconds
        clock.advance(1.1)
        function(1)
        function.settle()
        assert function(1) == [1, 3]
        function.close()


def test_a_value_that_can_be_used_once_is_not_stored_by_a_refresh(heard):
    """A call does not store it either."""
    answers: Iterator[Any] = iter([[1], iter([2])])

    @opero(retries=1, cache=True, **LIFE)
    def function() -> Any:
        return next(answers)

    with manual_clock() as clock:
        function()
        clock.advance(85)
        assert function() == [1]
        until(is_idle)
        assert function() == [1]
    assert isinstance(heard[-2].error, TypeError)


def test_a_value_of_a_key_of_the_users_own_is_refreshed(subject, store):
    """The refresh uses the arguments of the hit."""
    function = subject(**store, cache_key=lambda key: key % 10)
    with manual_clock() as clock:
        assert function(1) == [1, 1]
        clock.advance(85)
        assert function(11) == [1, 1]
        function.settle()
        assert function(1) == [11, 1]


def test_a_decorator_of_the_cache_alone_takes_both_options():
    """Like `opero`."""
    answers: Iterator[Any] = iter([1, 2, ValueError("no")])

    @get_cache_decorator(cache_ttl=100, cache_refresh=20, cache_stale=50)
    def function() -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with manual_clock() as clock:
        assert function() == 1
        clock.advance(85)
        assert function() == 1
        until(is_idle)
        assert function() == 2
        clock.advance(110)
        assert function() == 2
        assert function.stats().stale == 1


def test_a_coroutine_made_outside_a_loop_is_refreshed_where_it_is_awaited():
    """As in `asyncio.run(function(1))`."""
    function = Subject("async")

    async def main(coroutine: Any) -> Any:
        value = await coroutine
        while task_lingering._tasks:
            await asyncio.sleep(0.001)
        return value

    with manual_clock() as clock:
        function(1)
        clock.advance(85)
        assert asyncio.run(main(function.decorated(1))) == [1, 1]
        assert function(1) == [1, 2]
        function.close()


def test_under_another_framework_a_hit_is_served_and_not_refreshed():
    """There is no asyncio loop to run the refresh in."""
    trio = pytest.importorskip("trio")
    function = Subject("async")
    with manual_clock() as clock:
        function(1)
        clock.advance(85)
        assert trio.run(function.decorated, 1) == [1, 1]
        assert function.runs == [1]
        assert function(1) == [1, 1]
        function.settle()
        assert function(1) == [1, 2]
        function.close()


def test_a_refresh_that_its_loop_cancels_is_asked_for_again():
    """At the end of `asyncio.run`, for example."""
    function = Subject("async")
    with manual_clock() as clock:
        function(1)
        clock.advance(85)
        function.hold()
        assert asyncio.run(function.decorated(1)) == [1, 1]
        function.goes_on.set()
        assert function(1) == [1, 1]
        function.settle()
        assert function(1)[1] > 1
        function.close()


def test_a_caller_that_is_cancelled_does_not_end_the_refresh_it_waits_for():
    """The refresh does not belong to one caller."""
    function = Subject("async")
    with manual_clock() as clock:
        function(1)
        clock.advance(99)
        function.hold()
        function(1)
        function.await_held()
        clock.advance(2)

        async def cancelled() -> None:
            waiting = asyncio.ensure_future(function.decorated(1))
            await asyncio.sleep(0.02)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        assert function.loop is not None
        function.loop.run_until_complete(cancelled())
        function.settle()
        assert function(1) == [1, 2]
        function.close()
    assert len(function.runs) == 2


# --- outdated values ------------------------------------------------------------------------------


def test_an_outdated_value_is_served_while_the_function_fails_within_its_bound(
    subject, store, heard
):
    """With an event and a counter, and no longer than that."""
    function = subject(**store, cache_refresh=None, cache_stale=50)
    with manual_clock() as clock:
        function(1)
        function.fails = ConnectionError("down")
        clock.advance(120)
        assert function(1) == [1, 1]
        assert function(1) == [1, 1]
        # a lease may still be on its way back to a store: then no run follows on it
        assert len(function.runs) in ((2, 3) if store else (3,))
        clock.advance(31)
        with pytest.raises(ConnectionError):
            function(1)
        function.fails = None
        assert function(1) == function(1) == [1, len(function.runs)]
        stats = function.decorated.stats()
    assert (stats.stale, stats.misses, stats.hits) == (2, 5, 1)
    stale = [event for event in heard if event.kind == "stale"]
    assert [event.seconds for event in stale] == pytest.approx([20, 20], abs=0.1)
    assert isinstance(stale[0].error, ConnectionError)
    assert stale[1].error is None or isinstance(stale[1].error, ConnectionError)


FORGETTING: dict[str, Callable[[Any], object]] = {
    "invalidate": lambda decorated: decorated.cache_invalidate(1),
    "clear": lambda decorated: decorated.cache_clear(),
    "namespace": lambda _: clear_cache("subjects"),
}


def amid(function: Subject, what: Callable[[], object]) -> Any:
    """Return the outcome of a call, value or error, during whose run something happens."""
    function.hold()
    if function.loop is None:
        job = Job(function, 1)
        function.await_held()
        what()
        function.goes_on.set()
        job.wait()
        return job.value if job.error is None else job.error

    async def call() -> list[Any]:
        waiting = asyncio.ensure_future(function.decorated(1))
        while not function.held:
            await asyncio.sleep(0.001)
        what()
        function.goes_on.set()
        return await asyncio.gather(waiting, return_exceptions=True)

    return function.loop.run_until_complete(call())[0]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
@pytest.mark.parametrize("forget", FORGETTING.values(), ids=FORGETTING)
def test_a_value_is_not_served_after_it_was_forgotten(subject, store, forget, elsewhere):
    """Not even by a call whose run had begun before, whichever process invalidates it."""
    function = subject(**store, cache_refresh=None, cache_stale=50)
    other = function.decorate() if elsewhere and store else function.decorated
    with manual_clock() as clock:
        function(1)
        clock.advance(110)
        function.fails = ConnectionError("down")
        assert function(1) == [1, 1]
        function.settle()
        answer = amid(function, lambda: forget(other))
        assert isinstance(answer, ConnectionError)
        with pytest.raises(ConnectionError):
            function(1)
    assert function.decorated.stats().stale == 1


@pytest.mark.parametrize("forget", FORGETTING.values(), ids=FORGETTING)
def test_a_value_that_was_forgotten_is_not_served_where_the_deadline_ends(store, forget):
    """The last waiting caller cuts the run, and until then has a value to return."""
    function = Subject("async", **store, cache_refresh=None, cache_stale=50, timeout=0.2)
    other = function.decorate()
    assert function.loop is not None
    function(1)

    async def call() -> list[Any]:
        waiting = asyncio.ensure_future(function.decorated(1))
        while not function.held:
            await asyncio.sleep(0.001)
        forget(other if store else function.decorated)
        return await asyncio.gather(waiting, return_exceptions=True)

    with manual_clock() as clock:
        clock.advance(110)
        function.hold()
        assert isinstance(function.loop.run_until_complete(call())[0], DeadlineExceeded)
        function.close()
    assert function.decorated.stats().stale == 0


@pytest.mark.parametrize(
    "store", ["disk", pytest.param("redis", marks=pytest.mark.redis)], indirect=True
)
def test_what_was_stored_after_a_value_was_forgotten_is_served_in_its_place(subject, store):
    """The invalidated value never returns."""
    function = subject(**store, cache_refresh=None, cache_stale=50)
    other = Subject("sync", **store, cache_refresh=None, cache_stale=50)
    other.runs += [1] * 6

    def renew() -> None:
        other.decorated.cache_invalidate(1)
        assert other(1) == [1, 7]

    with manual_clock() as clock:
        function(1)
        clock.advance(110)
        function.fails = ConnectionError("down")
        assert amid(function, renew) == [1, 7]


def test_threads_that_follow_a_run_get_no_value_that_was_forgotten(store):
    """Each of them had found it before."""
    function = Subject("sync", **store, cache_refresh=None, cache_stale=50)
    with manual_clock() as clock:
        function(1)
        clock.advance(110)
        function.fails = ConnectionError("down")
        function.hold()
        jobs = [Job(function, 1) for _ in range(4)]
        until(lambda: function.decorated.stats().misses == 5)
        function.await_held()
        time.sleep(0.02)
        function.decorate().cache_clear() if store else function.decorated.cache_clear()
        function.goes_on.set()
        assert [type(job.wait().error) for job in jobs] == [ConnectionError] * 4
    assert function.decorated.stats().stale == 0


@pytest.mark.parametrize("backend", ["disk", pytest.param("redis", marks=pytest.mark.redis)])
def test_an_outdated_value_is_served_if_the_store_fails_during_the_run(
    subject, backend, tmp_path, caplog
):
    """It is unknown whether the value was invalidated."""
    place = tmp_path / "cache"
    with ExitStack() as exits:
        if backend == "disk":
            store = {"cache_backend": "disk", "cache_dir": str(place)}
        else:
            server = exits.enter_context(RedisServer())
            store = {"cache_backend": "redis", "cache_url": server.url}
        function = subject(**store, cache_refresh=None, cache_stale=50)

        def fail() -> None:
            if backend == "redis":
                server.stop()
            else:
                shutil.rmtree(place)
                place.write_bytes(b"in its way")

        with manual_clock() as clock:
            function(1)
            clock.advance(110)
            function.fails = ConnectionError("down")
            assert amid(function, fail) == [1, 1]
        assert function.decorated.stats().stale == 1
        function.runs.clear()  # nobody can say whether their leases are on their way back


@pytest.mark.redis
def test_a_redis_that_freezes_during_a_run_costs_its_call_a_second_and_others_nothing(subject):
    """The store is asked as always: within bounds, and not while it is known to be down."""
    with RedisServer() as server:
        store = {"cache_backend": "redis", "cache_url": server.url}
        function = subject(**store, cache_refresh=None, cache_stale=50)
        with manual_clock() as clock:
            function(1)
            clock.advance(110)
            function.fails = ConnectionError("down")
            try:
                begun = time.monotonic()
                assert amid(function, server.freeze) == [1, 1]
                assert time.monotonic() - begun < 8, "1 s, and more for a busy machine"
                took = []
                for _ in range(3):
                    begun = time.monotonic()
                    with pytest.raises(ConnectionError):
                        function(1)  # it cannot know that there is anything
                    took.append(time.monotonic() - begun)
                assert min(took) < 0.9, "it would take a second to ask"
            finally:
                server.thaw()
        function.runs.clear()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), RecursionError()])
def test_what_is_no_failure_is_raised_though_an_outdated_value_is_there(error):
    """As `never_failures` says."""
    function = Subject("sync", cache_refresh=None, cache_stale=50)
    with manual_clock() as clock:
        function(1)
        clock.advance(110)
        function.fails = error
        with pytest.raises(type(error)):
            function(1)
        function.fails = ConnectionError()
        assert function(1) == [1, 1]


def test_threads_that_share_a_run_that_fails_all_get_the_outdated_value():
    """One of them leads the run."""
    function = Subject("sync", cache_refresh=None, cache_stale=50)
    with manual_clock() as clock:
        function(1)
        clock.advance(110)
        function.fails = ConnectionError("down")
        function.hold()
        jobs = [Job(function, 1) for _ in range(4)]
        until(lambda: function.decorated.stats().misses == 5)
        time.sleep(0.02)
        function.goes_on.set()
        assert [job.result() for job in jobs] == [[1, 1]] * 4
    assert len(function.runs) == 2
    assert function.decorated.stats().stale == 4


def test_an_outdated_value_is_served_where_the_deadline_ends(subject, store):
    """A permit would come too late."""
    limiter = RateLimiter(rate_limit=0.01)
    function = subject(
        **store, cache_refresh=None, cache_stale=50, cache_ttl=10, rate_limit=limiter, timeout=1
    )
    with manual_clock() as clock:
        function(1)
        clock.advance(15)
        assert function(1) == [1, 1]
        assert function.runs == [1]
        assert function.decorated.stats().stale == 1


def test_an_awaited_attempt_that_the_deadline_cuts_is_answered_by_the_outdated_value():
    """Like an attempt that fails."""
    function = Subject("async", cache_refresh=None, cache_stale=50, timeout=0.05)
    function(1)
    with manual_clock() as clock:
        clock.advance(110)
        function.hold()
        assert function(1) == [1, 1]
        function.close()


def test_a_refresh_that_fails_after_the_end_leaves_its_followers_the_outdated_value(subject, store):
    """They waited for the refresh."""
    function = subject(**store, cache_stale=50)
    with manual_clock() as clock:
        function(1)
        clock.advance(99)
        function.hold()
        function(1)
        function.await_held()
        clock.advance(2)
        function.fails = ConnectionError("down")
        if function.loop is None:
            job = Job(function, 1)
            until(lambda: function.decorated.stats().misses == 2)
            time.sleep(0.02)
            function.goes_on.set()
            got = job.result()
        else:

            async def caller() -> Any:
                waiting = asyncio.ensure_future(function.decorated(1))
                await until_async(lambda: function.decorated.stats().misses == 2)
                await asyncio.sleep(0.02)
                function.goes_on.set()
                return await waiting

            got = function.loop.run_until_complete(caller())
        function.settle()
    assert got == [1, 1]
    assert len(function.runs) == 2


@pytest.mark.parametrize("backend", ["memory", "disk"])
def test_a_cache_by_hand_returns_outdated_values_to_those_who_ask_for_them(backend, tmp_path):
    """Within the time that `cache_stale` sets."""
    options: Any = {} if backend == "memory" else {"cache_dir": str(tmp_path)}
    name = f"stale by hand, {backend}"
    with manual_clock() as clock:
        cache = get_cache_context(backend, name, cache_ttl=10, cache_stale=20, **options)
        cache.set("key", "value")
        clock.advance(15)
        assert cache.get("key") is None
        assert cache.get("key", "default", stale=True) == "value"
        assert "key" not in cache
        clock.advance(20)
        assert cache.get("key", "default", stale=True) == "default"
        cache.clear()


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"cache_refresh": 5}, ValueError, "^cache_refresh=5 needs cache_ttl="),
        ({"cache_stale": 5}, ValueError, "^cache_stale=5 needs cache_ttl="),
        ({"cache_refresh": 5, "cache_ttl": 5}, ValueError, "less than cache_ttl, which is 5"),
        (
            {"cache": False, "cache_refresh": 5},
            ValueError,
            "^cache_refresh=5 needs cache=True and cache_ttl=: ",
        ),
        (
            {"cache": False, "cache_stale": 5},
            ValueError,
            "^cache_stale=5 needs cache=True and cache_ttl=: ",
        ),
        ({"cache_refresh": -1, "cache_ttl": 5}, ValueError, "^cache_refresh=-1"),
        ({"cache_refresh": True, "cache_ttl": 5}, TypeError, "^cache_refresh=True"),
        ({"refresh_ahead": 5}, TypeError, "cache_refresh"),
        (
            {"cache": False, "cache_refresh": 5, "cache_ttl": 9},
            ValueError,
            "has no effect without cache=True",
        ),
    ],
)
def test_wrong_options_say_what_is_allowed(options, error, words):
    """The decorator raises the error."""
    with pytest.raises(error, match=words):
        opero(**{"cache": True, **options})


@pytest.mark.skipif(FREE_THREADED, reason="there no thread can look at another one's frames")
def test_a_run_that_its_thread_has_left_at_a_bad_moment_is_made_by_others():
    """An interrupt may come before the thread can clean up."""
    function = Subject("sync")
    store = function.decorated.__opero__.store
    store.begin(store.new_run(1, threading.get_ident()))
    assert Job(function, 1).result() == [1, 1]


# --- any schedule ---------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("wait"), st.sampled_from([1, 5, 19, 21, 60, 101, 130])),
            st.tuples(st.just("call"), st.sampled_from([0, 0, 1])),
            st.tuples(st.just("fail"), st.booleans()),
            st.tuples(st.just("forget"), st.sampled_from([0, 1])),
        ),
        max_size=30,
    )
)
def test_any_schedule_serves_what_the_rules_say(steps):
    """A model of one value's life predicts the result of each call and the number of runs."""
    function = Subject("sync", cache_stale=50)
    born: dict[int, float] = {}
    cooled: dict[int, float] = {}
    runs = {0: 0, 1: 0}
    values: dict[int, int] = {}
    now = 0.0
    failing = False
    with manual_clock() as clock:
        for step, what in steps:
            if step == "wait":
                clock.advance(what)
                now += what
            elif step == "fail":
                failing = bool(what)
                function.fails = ConnectionError() if failing else None
            elif step == "forget":
                assert function.decorated.cache_invalidate(what) == (what in born)
                born.pop(what, None)
            else:
                expected = None
                age = now - born[what] if what in born else None
                if age is not None and age < 100:
                    expected = values[what]
                    if age >= 80 and now >= cooled.get(what, 0):
                        runs[what] += 1
                        if failing:
                            cooled[what] = now + 2
                        else:
                            born[what], values[what] = now, runs[what]
                else:
                    runs[what] += 1
                    if not failing:
                        born[what], values[what] = now, runs[what]
                        cooled.pop(what, None)
                        expected = values[what]
                    elif age is not None and age < 150:
                        expected = values[what]
                    else:
                        born.pop(what, None)  # of no use any more, and no value
                if expected is None:
                    with pytest.raises(ConnectionError):
                        function(what)
                else:
                    assert function(what) == [what, expected]
                function.settle()
                assert function.runs.count(what) == runs[what]


class _Nothing(Refresh):
    """A refresh that does next to nothing."""

    __slots__ = ()

    def claim(self) -> bool:
        return True

    def lead(self) -> None:
        time.sleep(random.choice([0.0, 0.0002, 0.001]))


def test_no_thread_stays_that_was_about_to_end_when_work_came(core, monkeypatch):
    """A woken thread continues or ends, even if the wake-up comes at the last moment."""
    monkeypatch.setattr(daemon_threads, "_LINGER", 0.0005)
    threads = background.Background()
    call = opero(lambda: None).__opero__

    def offer(_: int) -> None:
        for _ in range(200):
            threads.offer(_Nothing(call, (), {}))
            time.sleep(random.choice([0.0, 0.0003, 0.0005, 0.0006, 0.001]))

    for _ in range(4):
        together(4, offer)
        until(lambda: not threads._threads)
