"""Decorated functions whose values are kept on disk and in Redis."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import stored_functions as functions
from crowd import Job, until
from redis_server import RedisServer
from stored_functions import runs

from opero import (
    AllFailedError,
    CacheConfig,
    CacheKeyError,
    DeadlineExceeded,
    OperoError,
    clear_cache,
    get_cache_context,
    get_cache_decorator,
    opero,
    opmap,
)
from opero.stores import leases, renewer, secret
from opero.testing import manual_clock

SECRET = "a-secret-for-the-tests-of-stored-values"
FORMS = ["sync", "async"]


@pytest.fixture(scope="module")
def server():
    """Run a Redis for all tests that need none of their own."""
    with RedisServer() as server:
        yield server


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own directories and secrets out of it."""
    monkeypatch.setenv(secret.VARIABLE, SECRET)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(functions.LOG, str(tmp_path / "log"))


@pytest.fixture(params=["disk", pytest.param("redis", marks=pytest.mark.redis)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Return the options that choose a backend, empty."""
    if request.param == "disk":
        return {"cache_backend": "disk", "cache_dir": str(tmp_path / "cache")}
    server = request.getfixturevalue("server")
    server.command("FLUSHALL")
    return {"cache_backend": "redis", "cache_url": server.url}


@pytest.fixture
def disk(tmp_path: Path) -> dict[str, Any]:
    """Return the options that choose a fresh directory."""
    return {"cache_backend": "disk", "cache_dir": str(tmp_path / "cache")}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let leases end soon."""
    monkeypatch.setattr(leases, "SECONDS", 0.3)
    monkeypatch.setattr(renewer, "_RENEWAL", 0.1)
    monkeypatch.setattr(leases, "_GRACE", 0.1)
    monkeypatch.setattr(renewer, "_LINGER", 0.05)


def decorated(function: Any, store: dict[str, Any], **options: Any) -> Any:
    """Decorate a function; call a coroutine function as if it were none."""
    made = opero(cache=True, retries=1, **store, **options)(function)
    if not inspect.iscoroutinefunction(function):
        return made

    @functools.wraps(made)
    def call(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(made(*args, **kwargs))

    for name in ("stats", "cache_info", "cache_clear", "cache_invalidate", "__opero__"):
        setattr(call, name, getattr(made, name))
    return call


def of(form: str, name: str) -> Any:
    """Return a function of `stored_functions`, or the coroutine function of its name."""
    return getattr(functions, ("a" if form == "async" else "") + name)


class Program:
    """A program of its own that calls a decorated function."""

    def __init__(self, name: str, store: dict[str, Any], *arguments: Any, **options: Any) -> None:
        """Start it; it waits for `go`."""
        options = {"cache": True, "retries": 1, **store, **options}
        self.process = subprocess.Popen(
            [sys.executable, functions.__file__, name, json.dumps(options), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def go(self) -> Program:
        """Let it call."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self

    def values(self) -> list[Any]:
        """Return what its calls returned."""
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return [json.loads(line) for line in out.splitlines()]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged at WARNING."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- hits and misses --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_value_is_there_for_whoever_decorates_the_same_function_again(store, form):
    """As a process that was started again does; with the same figures as in memory."""
    function = of(form, "double")
    first = decorated(function, store)
    assert first(1) == [1, 1, 0]
    assert first(1, plus=0) == [1, 1, 0]
    again = decorated(function, store)
    assert again(x=1) == [1, 1, 0]
    assert len(runs()) == 1
    assert first.cache_info() == (1, 1, None, 1)
    assert again.cache_info() == (1, 0, None, 1)
    assert again.stats()[:4] == (1, 1, 0, 0)
    assert again.stats()[-3:] == (0, 0, 0)
    assert decorated(of(form, "slow"), store).cache_info() == (0, 0, None, 0)


@pytest.mark.parametrize("form", FORMS)
def test_values_come_back_as_what_they_were(store, form):
    """Also None, and what needs a pickle; and arguments are told apart by their types."""
    function = decorated(of(form, "double"), store)
    values = [None, 1, 1.0, True, "1", b"1", (1,), [1], {"a": 1}, {1, 2}, -0.0, 10**30, "\ud800"]
    for _ in range(2):
        for value in values:
            found = function(value)
            assert repr(found) == repr([value, value, 0])
            assert type(found[0]) is type(value)
    assert len(runs()) == len(values)
    function([1])[0].append(2)  # a hit's value is the caller's own
    assert function([1]) == [[1], [1], 0]


@pytest.mark.once
def test_another_process_finds_the_values(store):
    """Those of a module, by its name."""
    assert decorated(functions.double, store)("x") == ["x", "x", 0]
    program = Program("double", store, "x", "y")
    assert program.go().values() == [["x", "x", 0], ["y", "y", 0]]
    assert decorated(functions.double, store)("y") == ["y", "y", 0]
    assert sorted(runs()) == ["double 'x' 0", "double 'y' 0"]


@pytest.mark.parametrize("form", FORMS)
def test_a_failure_is_not_stored(store, form, tmp_path):
    """Nor anything else left behind: the next call runs at once."""
    function = decorated(of(form, "fails"), store)
    marker = tmp_path / "log.fail"
    marker.touch()
    for _ in range(2):
        with pytest.raises(ConnectionError, match="down"):
            function(1)
    marker.unlink()
    begun = time.monotonic()
    assert function(1) == function(1)
    assert time.monotonic() - begun < leases.SECONDS
    assert len(runs()) == 3
    assert function.stats().failures == 2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", [{}, {"cache_stale": 5}])
def test_a_clock_that_was_set_back_makes_no_value_count_for_longer(
    store, form, options, monkeypatch
):
    """As by NTP, or in a restored snapshot; a little is let pass, as clocks of hosts differ."""
    function = decorated(of(form, "double"), store, cache_ttl=60, **options)
    now = time.time()
    function(1)
    for back, count in [(3600, 2), (3590, 2), (3545, 2), (30, 3), (25, 3)]:
        monkeypatch.setattr(time, "time", lambda back=back: now - back)
        function(1)
        assert len(runs()) == count, back


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options", [{}, {"cache_ttl": 86_400}, {"cache_stale": 5, "cache_ttl": 86_400}]
)
@pytest.mark.parametrize("earlier", [{}, {"cache_ttl": 30}])
def test_no_value_from_the_future_counts(store, form, options, earlier, monkeypatch):
    """Whatever the time to live is, and was when it was made."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    decorated(of(form, "double"), store, **earlier)(1)
    monkeypatch.setattr(time, "time", lambda: now)
    function = decorated(of(form, "double"), store, **options)
    function(1)
    function(1)
    assert len(runs()) == 2


def test_a_shorter_time_to_live_holds_for_what_is_there_already(store, monkeypatch):
    """By the age of a value, also in the last minute of its former time to live."""
    now = time.time()
    long, short = (decorated(functions.double, store, cache_ttl=ttl) for ttl in (86_400, 60))
    made = 0
    for age, runs_of_short in [(1, 0), (59, 0), (61, 1), (86_340, 1), (86_399, 1)]:
        monkeypatch.setattr(time, "time", lambda: now)
        long.cache_clear()
        long(1)
        made += 1
        monkeypatch.setattr(time, "time", lambda age=age: now + age)
        long(1)
        assert len(runs()) == made
        short(1)
        made += runs_of_short
        assert len(runs()) == made, age


@pytest.mark.parametrize("form", FORMS)
def test_a_value_counts_for_its_time_to_live(store, form):
    """By the clock that tests move; the store ends it by its own."""
    function = decorated(of(form, "double"), store, cache_ttl=60)
    with manual_clock() as clock:
        function(1)
        clock.advance(59)
        function(1)
        assert len(runs()) == 1
        clock.advance(2)
        function(1)
        assert len(runs()) == 2
    brief = decorated(of(form, "double"), store, cache_ttl=0.8, cache_namespace="brief")
    brief(1)
    assert brief.cache_info().currsize == 1
    time.sleep(0.85)
    assert brief.cache_info().currsize == 0
    brief(1)
    assert len(runs()) == 4


@pytest.mark.parametrize("form", FORMS)
def test_values_are_forgotten_one_by_one_by_function_and_by_namespace(store, form):
    """And no others."""
    one = decorated(of(form, "double"), store, cache_namespace="one")
    two = decorated(of(form, "double"), store, cache_namespace="two")
    other = decorated(of(form, "slow"), store, cache_namespace="one")
    for function in (one, two, other):
        function(1)
    one(2)
    assert one.cache_invalidate(2) is True
    assert one.cache_invalidate(2) is False
    one.cache_clear()
    assert one.cache_info() == (0, 0, None, 0)
    assert other.cache_info().currsize == two.cache_info().currsize == 1
    clear_cache("one")
    assert other.cache_info().currsize == 0
    assert two.cache_info().currsize == 1
    one(1)
    clear_cache()
    assert [function.cache_info().currsize for function in (one, two, other)] == [0, 0, 0]


@pytest.mark.redis
@pytest.mark.once
def test_clearing_goes_on_past_a_store_that_is_out_of_reach(disk):
    """And tells of it in the end; a context that nobody holds any more is none of its business."""
    with RedisServer() as gone:
        far = {"cache_backend": "redis", "cache_url": gone.url}
    get_cache_context("redis", "dropped", cache_url=gone.url)
    clear_cache("dropped")
    far_away = decorated(functions.double, far, cache_namespace="both")
    near = decorated(functions.double, disk, cache_namespace="both")
    near(1)
    with pytest.raises(OperoError, match="cannot be reached"):
        clear_cache("both")
    assert near.cache_info().currsize == far_away.cache_info().currsize == 0


@pytest.mark.slow
@pytest.mark.once
def test_clearing_a_namespace_forgets_what_other_programs_have_stored_there(store):
    """Of functions that this process does not know."""
    Program("slow", store, 1, cache_namespace="ours").go().values()
    known = decorated(functions.double, store, cache_namespace="ours")
    clear_cache("ours")
    assert known.cache_info().currsize == 0
    Program("slow", store, 1, cache_namespace="ours").go().values()
    assert len(runs()) == 2


def test_a_version_retires_what_was_stored_before(store):
    """And going back brings it back."""
    for version in ("1", "2", "1"):
        decorated(functions.double, store, cache_version=version)(1)
    assert len(runs()) == 2


def test_a_key_of_the_users_own_is_all_that_counts(store):
    """It is encoded like an argument."""
    function = decorated(functions.double, store, cache_key=lambda x, plus=0: str(x).lower())
    assert function("A") == ["A", "A", 0]
    assert function("a", plus=object()) == ["A", "A", 0]
    broken = decorated(functions.double, store, cache_key=lambda x: object(), cache_namespace="b")
    with pytest.raises(CacheKeyError, match=r"double\(\): the result of cache_key"):
        broken(1)


def test_what_cannot_be_encoded_is_named_and_nothing_is_run(store):
    """There is no guessing about a stored key."""
    function = decorated(functions.double, store)
    with pytest.raises(CacheKeyError, match=r"^double\(\): plus: "):
        function(1, plus=object())
    assert not runs()


def test_a_method_goes_by_the_value_of_its_instance(store):
    """If that has one; by identity nothing can be stored."""
    method = opero(cache=True, **store)(functions.Account.balance)
    assert method(functions.Account("A"), "EUR") == "A EUR"
    assert method(functions.Account("A"), "EUR") == "A EUR"
    assert method(functions.Account("B"), "EUR") == "B EUR"
    assert len(runs()) == 2

    class Plain:
        @opero(cache=True, cache_namespace="plain", **store)
        def get(self) -> None: ...

    with pytest.raises(CacheKeyError, match=r"get\(\): self: "):
        Plain().get()


def test_a_function_below_another_decorator_is_known_by_its_own_name(disk):
    """Of opero's, or `lru_cache`: a stored cache on top of one shares its values with the bare one."""
    bare = opero(cache=True, **disk)(functions.double)
    assert bare(1) == [1, 1, 0]
    for below in (opero(retries=2), functools.lru_cache, lambda function: opero(opero(function))):
        on_top = opero(cache=True, **disk)(below(functions.double))
        assert on_top(1) == [1, 1, 0]
        assert on_top.stats().hits == 1
    assert len(runs()) == 1


# --- one run for many -------------------------------------------------------------------------------


def test_threads_that_miss_one_value_share_a_run(store):
    """And what comes of it."""
    function = decorated(functions.slow, store)
    jobs = [Job(function, 1) for _ in range(8)]
    assert all(job.wait().value == {"x": 1} for job in jobs)
    assert len(runs()) == 1
    assert function.__opero__.stored_cache.flights == {}


def test_tasks_that_miss_one_value_share_a_run(store):
    """One that is cancelled leaves it to the others; the last one who goes ends it."""
    function = opero(cache=True, **store)(functions.aslow)

    async def main() -> None:
        tasks = [asyncio.ensure_future(function(1)) for _ in range(5)]
        await asyncio.sleep(0.1)
        tasks[0].cancel()
        assert await asyncio.gather(*tasks[1:]) == [{"x": 1}] * 4
        last = asyncio.ensure_future(function(2))
        await asyncio.sleep(0.1)
        last.cancel()
        with pytest.raises(asyncio.CancelledError):
            await last
        begun = time.monotonic()
        assert await function(2) == {"x": 2}
        assert time.monotonic() - begun < 4, "the lease of the cancelled run was given back"

    asyncio.run(main())
    assert len(runs()) == 3
    assert function.__opero__.stored_cache.flights == {}


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", ["slow", "aslow"])
def test_processes_that_miss_one_value_share_a_run(store, name):
    """Four at once."""
    programs = [Program(name, store, 1) for _ in range(4)]
    for program in programs:
        program.go()
    assert [program.values() for program in programs] == [[{"x": 1}]] * 4
    assert len(runs()) == 1


@pytest.mark.once
def test_a_holder_that_is_killed_costs_the_others_its_lease_and_no_more(store, monkeypatch):
    """It is of one second here."""
    monkeypatch.setenv(functions.LEASE, "1")
    program = Program("hangs", store, 1).go()
    while not runs():
        time.sleep(0.01)
    program.process.send_signal(signal.SIGKILL)
    program.process.communicate()
    begun = time.monotonic()
    assert decorated(functions.hangs, store)(1) == 1
    assert time.monotonic() - begun < 4
    assert len(runs()) == 2


@pytest.mark.parametrize("form", FORMS)
def test_a_lease_that_a_jump_of_the_clock_keeps_alive_is_seized(store, form, quick):
    """Whoever waits goes by a clock that does not jump."""
    function = decorated(of(form, "double"), store)
    stored_cache = function.__opero__.stored_cache
    stored_cache.store.operations.take(_key(stored_cache, 1).name, "dead", 3600)
    assert function(1) == [1, 1, 0]
    assert function(1) == [1, 1, 0]
    assert len(runs()) == 1


@pytest.mark.once
def test_a_lease_is_renewed_for_as_long_as_the_run_goes_on(store, quick, monkeypatch):
    """So a run may take longer than its lease, and still is the only one."""
    monkeypatch.setattr(leases, "SECONDS", 0.9)
    monkey = decorated(_very_slow, store)
    other = decorated(_very_slow, store)
    jobs = [Job(monkey, 1), Job(other, 1)]
    assert [job.wait().value for job in jobs] == [1, 1]
    assert len(runs()) == 1


def _very_slow(x: Any) -> Any:
    functions.log("very slow")
    time.sleep(2)
    return x


def _key(stored_cache: Any, *arguments: Any) -> Any:
    return stored_cache.key_of((*arguments, 0), ("x", "plus"))


@pytest.mark.parametrize("form", FORMS)
def test_what_was_computed_before_an_invalidation_is_not_stored_after_it(store, form):
    """Whoever invalidates: this process, or another."""
    for invalidate_elsewhere in (False, True):
        function = decorated(of(form, "slow"), store)
        elsewhere = decorated(of(form, "slow"), store) if invalidate_elsewhere else function
        for forget in (lambda: elsewhere.cache_invalidate(1), elsewhere.cache_clear):
            before = len(runs())
            job = Job(function, 1)
            while len(runs()) == before:
                time.sleep(0.005)
            forget()
            assert job.wait().value == {"x": 1}
            assert function.cache_info().currsize == 0


FORGETTING = {
    "cache_invalidate": lambda function: function.cache_invalidate(1),
    "cache_clear": lambda function: function.cache_clear(),
    "clear_cache": lambda _: clear_cache("amid"),
}


@pytest.mark.parametrize("forget", FORGETTING.values(), ids=FORGETTING)
def test_a_run_that_found_the_value_amid_its_invalidation_is_not_joined_afterwards(
    disk, forget, monkeypatch
):
    """It began after the runs were looked at, and its second look came before the value was dropped."""
    source = {"version": 1}

    @opero(cache=True, retries=1, cache_namespace="amid", cache_key=lambda x: x, **disk)
    def function(x: Any) -> Any:
        return source["version"]

    backend = function.__opero__.stored_cache.store.operations
    look, look_again = backend.get, backend.get_and_take
    operations = {"delete": backend.delete, "clear": backend.clear}
    found, end = threading.Event(), threading.Event()
    late: list[Job] = []

    def get(name: str) -> Any:
        is_late = late and threading.current_thread() is late[0].thread
        return None if is_late else look(name)

    def get_and_take(*arguments: Any) -> Any:
        answer = look_again(*arguments)
        if late and threading.current_thread() is late[0].thread:
            found.set()
            assert end.wait(10)
        return answer

    def amid(operation: str) -> Any:
        def drop(*arguments: Any) -> Any:
            starting.set()
            assert found.wait(10)
            return operations[operation](*arguments)

        return drop

    starting = threading.Event()
    assert function(1) == 1
    source["version"] = 2
    for name, replacement in {
        "get": get,
        "get_and_take": get_and_take,
        "delete": amid("delete"),
        "clear": amid("clear"),
    }.items():
        monkeypatch.setattr(backend, name, replacement)

    def read() -> Any:
        assert starting.wait(10)
        return function(1)

    late.append(Job(read))
    forget(function)
    asking = Job(function, 1)
    until(
        lambda: (
            asking.over
            or any(each.waiters for each in [*function.__opero__.stored_cache.flights.values()])
        )
    )
    end.set()
    assert late[0].result() == 1  # it overlaps the invalidation
    assert asking.result() == 2


def test_a_caller_whose_time_is_over_does_not_wait_for_another_process(store):
    """It says so."""
    function = decorated(functions.double, store, timeout=0.2)
    stored_cache = function.__opero__.stored_cache
    stored_cache.store.operations.take(_key(stored_cache, 1).name, "alive", 60)
    with pytest.raises(DeadlineExceeded, match="another process's run"):
        function(1)
    coroutine_function = decorated(functions.adouble, store, timeout=0.2)
    stored_cache = coroutine_function.__opero__.stored_cache
    stored_cache.store.operations.take(_key(stored_cache, 1).name, "alive", 60)
    with pytest.raises(DeadlineExceeded):
        coroutine_function(1)
    assert not runs()


# --- outdated values --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_an_outdated_value_is_served_while_the_function_fails_within_its_bound(
    store, form, tmp_path, caplog
):
    """With a warning and a figure; and no longer."""
    function = decorated(of(form, "fails"), store, cache_ttl=10, cache_stale=20)
    with manual_clock() as clock:
        value = function(1)
        (tmp_path / "log.fail").touch()
        clock.advance(25)
        assert function(1) == value
        assert function.stats().stale == 1
        assert "outdated for 15.0 s" in warnings_of(caplog)[-1]
        clock.advance(6)
        with pytest.raises(ConnectionError):
            function(1)
        (tmp_path / "log.fail").unlink()
        assert function(1) != value
    assert len(runs()) == 4


def test_an_outdated_value_is_served_for_a_run_that_its_deadline_cuts(store):
    """As for one that fails."""
    quick = [True]

    async def answers(x: int) -> int:
        if not quick:
            await asyncio.sleep(60)
        return x

    options = {"cache_ttl": 10, "cache_stale": 20, "cache_key": lambda x: x, "timeout": 0.3}
    function = decorated(answers, store, **options)
    assert function(1) == 1
    quick.clear()
    with manual_clock() as clock:
        clock.advance(15)
        assert function(1) == 1
    assert function.stats().stale == 1


@pytest.mark.parametrize("form", FORMS)
def test_an_outdated_value_is_served_while_another_process_makes_a_new_one(store, form):
    """Nobody waits for what it has something for."""
    function = decorated(of(form, "double"), store, cache_ttl=10, cache_stale=20)
    with manual_clock() as clock:
        function(1)
        clock.advance(15)
        function.__opero__.stored_cache.store.operations.take(
            _key(function.__opero__.stored_cache, 1).name, "other", 60
        )
        assert function(1) == [1, 1, 0]
        assert function.stats().stale == 1
    assert len(runs()) == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_dear_value_is_renewed_before_it_is_outdated(store, form, monkeypatch):
    """By one caller, drawn at random; only if outdated values may be served."""
    monkeypatch.setattr("opero.stores.stored_cache.random.random", lambda: 1 - 1e-12)
    strict = decorated(of(form, "slow"), store, cache_ttl=10)
    function = decorated(of(form, "slow"), store, cache_ttl=10, cache_stale=5, cache_namespace="n")
    with manual_clock() as clock:
        strict(1)
        function(1)
        clock.advance(9)  # and the runs took 0.2 s, which 27.6 times is more than 1 s
        strict(1)
        assert len(runs()) == 2
        function(1)
        assert len(runs()) == 3
        clock.advance(9)
        assert function.stats().stale == 0


# --- entries that are not to be trusted -------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_an_entry_of_another_call_is_a_miss_with_one_warning(store, form, caplog):
    """Swapped, cut, or put there by somebody without the secret; never a wrong value."""
    function = decorated(of(form, "double"), store)
    stored_cache = function.__opero__.stored_cache
    backend = stored_cache.store.operations
    function(1)
    function(2)
    one, two = _key(stored_cache, 1).name, _key(stored_cache, 2).name
    data = backend.get(one)
    flipped = data[:50] + bytes([data[50] ^ 1]) + data[51:]
    for forged in (backend.get(two), data[:-1], flipped, b"", b"junk" * 50):
        backend.put(one, forged, None)
        before = len(runs())
        assert function(1) == [1, 1, 0]
        assert len(runs()) == before + 1
        assert function(1) == [1, 1, 0]
        assert len(runs()) == before + 1, "what the run has stored took its place"
    assert function.stats().rejected == 5
    assert len(warnings_of(caplog)) == 1
    assert "is ignored" in warnings_of(caplog)[0]


@pytest.mark.once
def test_a_row_of_the_database_that_would_be_unpickled_is_a_miss_with_one_warning(
    disk, tmp_path, caplog
):
    """It is not read as what it says it is, and the next run replaces it."""
    import pickle
    import sqlite3

    canary = tmp_path / "canary"
    function = decorated(functions.double, disk)
    function(1)
    (path,) = (tmp_path / "cache").rglob("*.db")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps(_Touch(canary)),))
    connection.close()
    assert function(1) == function(1) == [1, 1, 0]
    assert len(runs()) == 2
    assert not canary.exists()
    assert function.stats().rejected == 1
    assert len(warnings_of(caplog)) == 1


class _Touch:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_entries_of_another_secret_are_misses_and_a_rotated_one_opens_both(store, caplog):
    """The first secret signs, all open."""
    old, new = "the old secret of ours", "the new secret of ours"
    decorated(functions.double, store, cache_secret=old)(1)
    rotating = decorated(functions.double, store, cache_secret=[new, old])
    rotating(1)
    rotating(2)
    assert len(runs()) == 2
    assert not warnings_of(caplog)
    rotated = decorated(functions.double, store, cache_secret=new)
    rotated(2)
    assert len(runs()) == 2
    rotated(1)
    assert len(runs()) == 3
    assert rotated.stats().rejected == 1
    assert not any(old in line or new in line for line in warnings_of(caplog))


@pytest.mark.parametrize("form", FORMS)
def test_an_entry_that_stays_counts_once_as_rejected(store, form):
    """However many calls find it; a second one in its place counts too, and so does its return."""
    function = decorated(of(form, "double"), store)
    stored_cache = function.__opero__.stored_cache
    name = _key(stored_cache, 1).name
    backend = stored_cache.store.operations
    stored_cache.signed = lambda *_: None  # nothing takes its place
    for count, junk in enumerate([b"junk" * 50, b"rubbish" * 50, b"junk" * 50], 1):
        backend.put(name, junk, None)
        for _ in range(3):
            assert function(1) == [1, 1, 0]
        assert stored_cache.find_many([_key(stored_cache, 1)]) == [None]
        assert function.stats().rejected == count
    del stored_cache.signed
    function(2)
    good = backend.get(_key(stored_cache, 2).name)
    backend.put(name, good, None)  # of another call
    function(1)
    assert function.stats().rejected == 4
    function(1)
    backend.put(name, good, None)
    function(1)
    assert function.stats().rejected == 5


def test_what_needs_a_pickle_is_not_stored_where_there_must_be_none(store, caplog):
    """Neither written nor read, and the call goes on."""
    decorated(functions.pair, store)(1)
    function = decorated(functions.pair, store, cache_pickle=False)
    assert function(1) == (1, 1)
    assert function(2) == (2, 2)
    assert len(runs()) == 3
    assert function.stats().rejected
    assert any("tuple" in line for line in warnings_of(caplog))
    plain = decorated(functions.double, store, cache_pickle=False)
    assert plain("x") == plain("x")
    assert len(runs()) == 4


@pytest.mark.once
def test_an_unsafe_place_or_secret_is_refused_at_decoration(tmp_path, monkeypatch):
    """It says which, and what is wrong."""
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(OperoError, match=f"{place}.*writable by everyone"):
        opero(cache=True, cache_backend="disk", cache_dir=place)(functions.double)
    with pytest.raises(ValueError, match="cache_secret= is too short") as error:
        opero(cache=True, cache_backend="disk", cache_secret="hush")(functions.double)
    assert "hush" not in str(error.value)
    with pytest.raises(ValueError, match=r"cache_url|URL|url"):
        opero(cache=True, cache_backend="redis", cache_url="http://x:hush@y")(functions.double)


@pytest.mark.once
def test_without_options_a_private_directory_and_a_key_file_are_made(tmp_path, monkeypatch):
    """In the user's own directories."""
    monkeypatch.delenv(secret.VARIABLE)
    function = opero(cache=True, cache_backend="disk")(functions.double)
    assert function(1) == function(1)
    assert len(runs()) == 1
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert any(path.name == "cache.key" for path in files)
    for path in files:
        assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0, path


# --- when the store fails ---------------------------------------------------------------------------


@pytest.mark.redis
@pytest.mark.parametrize("form", FORMS)
def test_calls_go_on_while_redis_is_gone_and_it_heals(form, caplog):
    """With one warning for the outage."""
    with RedisServer() as server:
        store = {"cache_backend": "redis", "cache_url": server.url}
        function = decorated(of(form, "double"), store)
        function(1)
        server.stop()
        for _ in range(5):
            assert function(1) == [1, 1, 0]
        assert len(runs()) == 6
        assert function.stats().store_failures == 5
        assert function.cache_info().currsize == 0
        with pytest.raises(OperoError, match="cannot be reached"):
            function.cache_invalidate(1)
        with pytest.raises(OperoError, match="nothing was cleared"):
            function.cache_clear()
        assert len(warnings_of(caplog)) == 1
        server.start()
        _until_it_heals(function)


def _until_it_heals(function: Any, argument: Any = 1) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        before = len(runs())
        function(argument)
        if len(runs()) == before:
            return
        time.sleep(0.1)
    raise AssertionError("it does not heal")


@pytest.mark.redis
@pytest.mark.parametrize("form", FORMS)
def test_a_full_redis_still_answers_what_it_has(form, caplog):
    """Nothing more is stored until there is room again; with one warning."""
    with RedisServer() as server:
        store = {"cache_backend": "redis", "cache_url": server.url}
        function = decorated(of(form, "double"), store)
        function(1)
        server.fill()
        for number in range(5):
            assert function(1) == [1, 1, 0]
            assert function(2 + number % 2) == [2 + number % 2, 2 + number % 2, 0]
        assert len(runs()) == 6
        assert function.stats().hits == 5
        assert len(warnings_of(caplog)) == 1
        server.drain()
        _until_it_heals(function, 2)


@pytest.mark.once
def test_a_locked_database_still_answers_what_it_has(disk, tmp_path, caplog):
    """Another program does not give its lock back."""
    import sqlite3

    function = decorated(functions.double, disk)
    function(1)
    (path,) = (tmp_path / "cache").rglob("*.db")
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    for _ in range(3):
        assert function(1) == [1, 1, 0]
        assert function(2) == [2, 2, 0]
    assert len(runs()) == 4
    assert function.stats().hits == 3
    assert len(warnings_of(caplog)) == 1
    lock.execute("ROLLBACK")
    lock.close()
    _until_it_heals(function, 2)


@pytest.mark.redis
@pytest.mark.parametrize("form", FORMS)
def test_a_frozen_redis_costs_a_call_a_second_at_most(form, caplog):
    """And the calls after it nothing, until somebody looks again."""
    with RedisServer() as server:
        store = {"cache_backend": "redis", "cache_url": server.url}
        function = decorated(of(form, "double"), store)
        function(1)
        server.freeze()
        try:
            begun = time.monotonic()
            assert function(1) == [1, 1, 0]
            assert time.monotonic() - begun < 8, "1 s, and more for a busy machine"
            took = []
            for _ in range(3):  # a busy machine may take so long for one that it is time to look
                begun = time.monotonic()
                assert function(1) == [1, 1, 0]
                took.append(time.monotonic() - begun)
            assert min(took) < 0.9, "it would take a second to ask"
        finally:
            server.thaw()
        assert len(warnings_of(caplog)) == 1
        _until_it_heals(function)


@pytest.mark.once
def test_calls_go_on_while_the_directory_is_gone_and_it_heals(disk, tmp_path, caplog):
    """Whatever has become of it."""
    import shutil

    function = decorated(functions.double, disk)
    function(1)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("in the way")
    for _ in range(3):
        assert function(1) == [1, 1, 0]
    assert len(warnings_of(caplog)) == 1
    (tmp_path / "cache").unlink()
    _until_it_heals(function)


@pytest.mark.once
def test_an_entry_that_is_too_large_is_no_outage(disk, caplog):
    """The call goes on, and the others are stored."""
    function = decorated(_large, disk, cache_size_limit=2**20)
    assert len(function(2**21)) == 2**21
    assert len(function(10)) == 10
    assert len(function(10)) == 10
    assert function.stats().hits == 1
    assert len(warnings_of(caplog)) == 1


def _large(size: int) -> bytes:
    return b"x" * size


# --- other ways in ----------------------------------------------------------------------------------


def test_a_config_and_the_cache_decorator_take_the_same_options(store):
    """Without the prefix in a config."""
    options = {name.removeprefix("cache_"): value for name, value in store.items()}
    backend = options.pop("backend")
    config = CacheConfig(True, ttl=60, backend=backend, backend_options=options)
    one = opero(cache=config)(functions.double)
    two = get_cache_decorator(**store)(functions.double)
    assert one(1) == two(1) == [1, 1, 0]
    assert len(runs()) == 1


def test_a_stored_cache_is_used_by_hand(store):
    """The same values again after it is opened again; cleared with its namespace."""
    options = {name: value for name, value in store.items() if name != "cache_backend"}
    context = get_cache_context(store["cache_backend"], "by hand", cache_ttl=60, **options)
    assert context.get(("a", 1), "default") == "default"
    context.set(("a", 1), {"b": (2,)})
    with get_cache_context(store["cache_backend"], "by hand", **options) as again:
        assert again.get(("a", 1)) == {"b": (2,)}
        assert ("a", 1) in again
        assert ("a", 1.0) not in again
        assert len(again) == 1
    context.set("x", 1)
    assert context.delete("x") is True
    assert context.delete("x") is False
    context.clear()
    assert len(context) == 0


def test_retries_and_limits_are_for_misses_only(store):
    """A hit touches nothing else."""
    tries = []

    def flaky(x: Any) -> Any:
        tries.append(x)
        if len(tries) < 3:
            raise ConnectionError
        return x

    options = {"cache": True, "cache_key": lambda x: x, "min_delay": 0, "max_delay": 0, **store}
    function = opero(retries=3, rate_limit=1000, **options)(flaky)
    assert [function(1), function(1)] == [1, 1]
    assert len(tries) == 3
    assert function.stats().retries == 2
    del tries[:]
    with pytest.raises(AllFailedError):
        opero(retries=2, **options)(flaky)(2)


@pytest.mark.once
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_uses_the_store_beside_its_parent(store):
    """With connections of its own."""
    function = decorated(functions.double, store)
    function(1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            good = all(function(1) == [1, 1, 0] for _ in range(50))
            status = 0 if good and function(2) == [2, 2, 0] else 1
        finally:
            os._exit(status)
    assert all(function(1) == [1, 1, 0] for _ in range(50))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert function(2) == [2, 2, 0]
    assert len(runs()) == 2


# --- maps -------------------------------------------------------------------------------------------


MODES = ["thread", "process", "async", "async_process"]


def mapped(mode: str, store: dict[str, Any], name: str = "double", **options: Any) -> Any:
    """Map a function of `stored_functions`."""
    function = of("async" if mode.startswith("async") else "sync", name)
    options = {"workers": 2, "retries": 1, "progress": False, **options}
    return opmap(mode=mode, cache=True, **store, **options)(function)


@pytest.mark.parametrize("mode", MODES)
def test_a_map_runs_what_is_not_known_and_nothing_else(store, mode):
    """Equal items once; and a second map finds all values."""
    first = mapped(mode, store)
    wanted = [[x, x, 0] for x in [*range(40), 0, 1]]
    assert first([*range(40), 0, 1]) == wanted
    assert len(runs()) == 40
    again = mapped(mode, store)
    assert again([*range(40), 0, 1]) == wanted
    assert list(again.stream(range(40))) == wanted[:40]
    assert len(runs()) == 40
    assert again.stats().hits == 82

    async def awaited() -> Any:
        return await again.amap(range(40)), [result async for result in again.astream(range(5))]

    assert asyncio.run(awaited()) == (wanted[:40], wanted[:5])
    assert again.cache_invalidate(3)
    assert again(range(5)) == wanted[:5]
    assert len(runs()) == 41


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("length", [1, 31, 32, 33, 64])
def test_what_has_just_finished_is_known_to_the_next_look(store, mode, length):
    """Also when the input is read on before its result has been handed out."""
    function = mapped(mode, store, workers=1)
    wanted = [[x, x, 0] for x in [*range(length), length - 1]]
    assert function([*range(length), length - 1]) == wanted
    assert len(runs()) == length


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_an_item_without_a_key_fails_alone_and_a_failure_is_not_stored(store, mode, tmp_path):
    """With an outdated value in its place if there may be one."""
    function = mapped(mode, store)
    bad = object()
    results = function([1, bad, 2])
    assert results[0] == [1, 1, 0]
    assert isinstance(results[1], CacheKeyError)
    assert results[2] == [2, 2, 0]
    failing = mapped(mode, store, "fails", cache_ttl=10, cache_stale=20)
    with manual_clock() as clock:
        good = failing([1, 2])
        (tmp_path / "log.fail").touch()
        clock.advance(15)
        results = failing([1, 2, 3, 1])
        assert results[:2] == good
        assert isinstance(results[2], ConnectionError)
        assert results[3] == good[0]


@pytest.mark.redis
@pytest.mark.parametrize("mode", ["thread", "async"])
def test_a_map_goes_on_while_the_store_is_gone(mode):
    """It only runs everything."""
    with RedisServer() as server:
        store = {"cache_backend": "redis", "cache_url": server.url}
        function = mapped(mode, store)
        assert len(function(range(10))) == 10
        server.stop()
        assert function(range(10)) == [[x, x, 0] for x in range(10)]
        assert len(runs()) == 20


def test_what_is_invalidated_during_a_map_is_not_stored_by_it(disk):
    """As in memory."""
    function = mapped("thread", disk, "slow")
    stream = function.stream([1, 2])
    job = Job(list, stream)
    while len(runs()) < 2:
        time.sleep(0.005)
    function.cache_invalidate(1)
    assert job.wait().value == [{"x": 1}, {"x": 2}]
    assert function.cache_info().currsize == 1


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_a_call_beside_a_map_gets_its_own_value(disk, mode, core):
    """The function of one item under the map, called for an item that is under way there."""
    function = mapped(mode, disk, "slow")
    job = Job(function, [1, 2])
    while len(runs()) < 2:
        time.sleep(0.005)
    under = function.__opero__.call
    value = (core.AsyncFunction if under.awaited else core.Function)(under)(1)
    assert (asyncio.run(value) if mode == "async" else value) == {"x": 1}
    assert job.wait().value == [{"x": 1}, {"x": 2}]


SURVIVOR = """
import os, signal, sys, time
from opero import opmap

@opmap(mode={mode!r}, workers=2, chunk_size=1, cache=True, progress=False, retries=1, **{store!r})
{kind}def work(number):
    with open({log!r}, "a") as log:
        log.write(f"{{number}}\\n")
    time.sleep(0.01)
    return number * number

if __name__ == "__main__":
    for done, result in enumerate(work.stream(range(60))):
        if {mortal} and done == 30:
            os.kill(os.getpid(), signal.SIGKILL)
    print("sum", sum(work(range(60))))
"""


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("mode", ["process", "thread", "async"])
def test_a_batch_that_was_killed_goes_on_where_it_was(store, mode, tmp_path):
    """What had been handed on had been stored, and is not computed again."""
    log = tmp_path / "work"
    script = tmp_path / "survivor.py"
    kind = "async " if mode == "async" else ""
    for mortal in (True, False):
        script.write_text(
            SURVIVOR.format(mode=mode, store=store, kind=kind, log=str(log), mortal=mortal)
        )
        ended = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
        )
        if mortal:
            assert ended.returncode == -signal.SIGKILL
            time.sleep(0.2)  # its workers end by themselves
            before = log.read_text().split()
            assert len(before) >= 30
        else:
            assert ended.stdout == f"sum {sum(x * x for x in range(60))}\n", ended.stderr
    after = log.read_text().split()[len(before) :]
    assert not {str(number) for number in range(30)} & set(after)
    assert set(before) | set(after) == {str(number) for number in range(60)}
