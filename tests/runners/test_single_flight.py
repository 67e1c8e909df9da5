"""Single flight for threads: one run per missing key, shared by everybody who came for it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
from crowd import (
    Job,
    flights_of,
    followers,
    run,
    standing_clock,
    together,
    traceback_length,
    until,
    wait_all,
)

import opero as package
from opero import AllFailedError, DeadlineExceeded, opero
from opero.runners import sync


class Outside(BaseException):
    """An exception that a test runner or another framework throws into a thread to stop it."""


FINAL = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, Outside]
KEYS = [1, "one", (1, "one"), {"one": [1]}]


@pytest.fixture(autouse=True)
def nobody_waits():
    """Fail a test if one more thread counts as waiting afterwards."""
    before = set(sync._waiting)
    yield
    assert set(sync._waiting) <= before


def gathered(function: Any, count: int) -> Any:
    """Return a gate at which the leader waits until all others follow it."""
    return lambda: until(lambda: followers(function) == count - 1)


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_32_threads_on_one_missing_key_run_the_function_once_and_share_its_value(key):
    """They all get the same object, which the only run returned."""
    runs = []

    @opero(retries=1, cache=True)
    def fetch(key):
        runs.append(key)
        gathered(fetch, 32)()
        return object()

    jobs = together(32, lambda _: fetch(key))
    assert len(runs) == 1
    assert {id(job.result()) for job in jobs} == {id(jobs[0].value)}
    assert fetch(key) is jobs[0].value
    assert flights_of(fetch) == []
    stats = fetch.stats()
    assert (stats.calls, stats.hits, stats.misses, stats.attempts) == (33, 1, 32, 1)


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_32_threads_share_one_failure_which_is_not_cached(key):
    """They all get the same exception, which the only run raised; the next call runs again."""
    runs = []

    @opero(retries=1, cache=True)
    def fetch(key):
        runs.append(key)
        if len(runs) > 1:
            return "late"
        gathered(fetch, 32)()
        raise ValueError("not there")

    jobs = together(32, lambda _: fetch(key))
    assert len(runs) == 1
    assert {id(job.error) for job in jobs} == {id(jobs[0].error)}
    assert type(jobs[0].error) is ValueError
    assert flights_of(fetch) == []
    assert len(fetch.__opero__.store) == 0
    assert fetch(key) == "late"


def test_a_run_that_ends_while_a_follower_looks_for_its_thread_is_not_taken_for_lost(monkeypatch):
    """By then the thread has ended, and the outcome is available."""
    runs, landed = [], threading.Event()
    look = sync._is_flown

    def look_late(call, flight):
        landed.set()
        leader.thread.join()
        return look(call, flight)

    @opero(retries=1, cache=True)
    def fetch():
        runs.append(1)
        assert landed.wait(30)
        raise ValueError("not there")

    monkeypatch.setattr(sync, "_GLANCE", 0.01)
    monkeypatch.setattr(sync, "_is_flown", look_late)
    leader = Job(fetch)
    until(lambda: runs)
    with pytest.raises(ValueError, match="not there"):
        fetch()
    assert len(runs) == 1
    assert flights_of(fetch) == []


def test_the_shared_failure_tells_where_it_came_from_and_not_who_else_got_it():
    """Its traceback does not grow with the number of threads that raise it."""

    @opero(retries=1, cache=True)
    def fetch():
        gathered(fetch, 32)()
        raise ValueError("not there")

    jobs = together(32, lambda _: fetch())
    error = jobs[0].error
    assert error is not None
    assert traceback_length(error) < 12
    names = {
        frame.f_code.co_name for frame, _ in __import__("traceback").walk_tb(error.__traceback__)
    }
    assert "fetch" in names


def test_retries_are_made_once_for_all_who_wait():
    """A run with retries is one run: its attempts, its retries and its one `AllFailedError`."""
    attempts = []

    @opero(retries=3, min_delay=0, max_delay=0, cache=True)
    def fetch():
        attempts.append(1)
        gathered(fetch, 8)()
        raise ValueError(len(attempts))

    jobs = together(8, lambda _: fetch())
    error = jobs[0].error
    assert type(error) is AllFailedError
    assert [str(each) for each in error.errors] == ["1", "2", "3"]
    assert {id(job.error) for job in jobs} == {id(error)}
    assert (fetch.stats().attempts, fetch.stats().retries, fetch.stats().failures) == (3, 2, 1)


def test_none_is_shared_and_cached_like_any_value():
    """A run that returns None has ended like any other."""
    runs = []

    @opero(retries=1, cache=True)
    def fetch():
        runs.append(1)
        gathered(fetch, 8)()

    assert [job.result() for job in together(8, lambda _: fetch())] == [None] * 8
    assert fetch() is None
    assert len(runs) == 1


def test_every_spelling_of_a_call_joins_the_same_run():
    """Positional, by keyword, and with the default spelled out."""
    runs = []

    @opero(retries=1, cache=True)
    def fetch(a, b=2):
        runs.append(1)
        gathered(fetch, 4)()
        return a + b

    spellings = [
        lambda: fetch(1),
        lambda: fetch(1, 2),
        lambda: fetch(a=1),
        lambda: fetch(b=2, a=1),
    ]
    assert [job.result() for job in together(4, lambda n: spellings[n]())] == [3] * 4
    assert len(runs) == 1


def test_runs_of_different_keys_do_not_wait_for_each_other():
    """Two runs are inside the function at the same time."""
    meet = threading.Barrier(2)

    @opero(retries=1, cache=True)
    def fetch(key):
        meet.wait(10)
        return key

    assert [job.result() for job in together(2, fetch)] == [0, 1]


def test_threads_that_find_an_outdated_value_run_once():
    """Expiry starts one run, not one per thread."""
    runs = []

    @opero(retries=1, cache=True, cache_ttl=60)
    def fetch():
        runs.append(1)
        if len(runs) == 2:
            gathered(fetch, 16)()
        return len(runs)

    with standing_clock(fetch.__opero__.clock) as clock:
        assert fetch() == 1
        clock.advance(61 * 10**9)
        assert [job.result() for job in together(16, lambda _: fetch())] == [2] * 16
    assert len(runs) == 2


def test_instances_have_runs_of_their_own():
    """Threads that call a method of one new instance share a run; two instances do not."""
    runs = []
    both = threading.Barrier(2)

    class Source:
        @opero(retries=1, cache=True)
        def fetch(self):
            runs.append(self)
            until(lambda: followers(Source.fetch) == 14)
            both.wait(10)
            return self

    sources = [Source(), Source()]
    jobs = together(16, lambda number: sources[number % 2].fetch())
    assert [job.result() for job in jobs] == sources * 8
    assert len(runs) == 2
    assert flights_of(Source.fetch) == []


# --- interrupted leaders ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", [1, (1, "one")], ids=repr)
@pytest.mark.parametrize("final", FINAL, ids=lambda kind: kind.__name__)
def test_a_leader_that_is_interrupted_leaves_its_followers_to_run_once_more(key, final):
    """One of the followers leads a second run, and all the others get that one's value."""
    runs = []

    @opero(retries=3, cache=True)
    def fetch(key):
        runs.append(1)
        if len(runs) == 1:
            gathered(fetch, 16)()
            raise final
        return "value"

    jobs = together(16, lambda _: fetch(key))
    assert [type(job.error) for job in jobs if job.error] == [final]
    assert [job.value for job in jobs if not job.error] == ["value"] * 15
    assert len(runs) == 2
    assert flights_of(fetch) == []
    assert fetch(key) == "value"


def test_if_every_run_is_interrupted_each_caller_gets_an_interruption_of_its_own():
    """No caller gets another's, and none is left waiting."""

    @opero(retries=1, cache=True)
    def fetch(key):
        raise SystemExit(threading.get_ident())

    jobs = together(32, lambda _: fetch(1))
    assert sorted(job.error.code for job in jobs) == sorted(job.thread.ident for job in jobs)
    assert flights_of(fetch) == []


def test_an_interruption_is_never_shared_even_with_a_long_line_of_followers():
    """A series of interruptions does not pile up frames until the stack is full."""
    runs = []

    @opero(retries=1, cache=True)
    def fetch():
        runs.append(1)
        until(lambda: followers(fetch) == 120 - len(runs))
        raise KeyboardInterrupt

    jobs = together(120, lambda _: fetch())
    assert {type(job.error) for job in jobs} == {KeyboardInterrupt}
    assert len(runs) == 120
    assert max(traceback_length(job.error) for job in jobs) < 20


# --- the leader's deadline ---------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "disk"])
def test_the_deadline_of_the_leader_is_not_that_of_who_comes_late(stored, tmp_path):
    """The leader gives up; the follower, who has time left, runs once more."""
    options = {}
    if stored:
        options = {
            "cache_backend": "disk",
            "cache_dir": tmp_path / "cache",
            "cache_key": lambda key: key,
        }
    begun = threading.Event()
    runs = []

    @opero(cache=True, retries=9, min_delay=0.7, max_delay=0.7, timeout=1.0, **options)
    def fetch(key):
        runs.append(key)
        begun.set()
        if len(runs) < 3:
            raise OSError
        return "value"

    leader = Job(fetch, 1)  # its second wait would end after its deadline, at 0.7 s
    assert begun.wait(10)
    threading.Event().wait(0.4)
    follower = Job(fetch, 1)
    wait_all([leader, follower])
    assert isinstance(leader.error, DeadlineExceeded)
    assert follower.result() == "value"
    assert len(runs) == 3
    assert fetch(1) == "value"


def test_the_deadline_of_a_function_inside_is_an_outcome_like_any_other():
    """It is shared, because it belongs to the run and not to the leading caller."""
    runs = []

    @opero(retries=2, min_delay=9, timeout=0.1)
    def inner():
        raise OSError

    @opero(cache=True, retries=1)
    def fetch(key):
        runs.append(key)
        gathered(fetch, 4)()
        inner()

    jobs = together(4, lambda _: fetch(1))
    assert {type(job.error) for job in jobs} == {DeadlineExceeded}
    assert len({id(job.error) for job in jobs}) == len(runs) == 1


# --- greenlets ---------------------------------------------------------------------------------------

GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from opero import hotpath, opero

hotpath.core = hotpath.load(sys.argv[1])
runs = []

def main(**options):
    runs.clear()

    @opero(cache=True, retries=3, min_delay=0, **options)
    def fetch(key):
        runs.append(key)
        gevent.sleep(0.5 if len(runs) == 1 else 0.01)
        return "value"

    def lead():
        with gevent.Timeout(0.1):
            return fetch(1)

    leader = gevent.spawn(lead)
    gevent.sleep(0.01)
    others = [gevent.spawn(fetch, 1) for _ in range(3)]
    gevent.joinall([leader, *others], timeout=20)
    assert isinstance(leader.exception, gevent.Timeout), leader.exception
    assert [each.value for each in others] == ["value"] * 3, [each.exception for each in others]
    assert len(runs) == 2, runs
    killed = gevent.spawn(fetch, 2)
    gevent.sleep(0)
    runs.clear()
    late = gevent.spawn(fetch, 2)
    gevent.sleep(0)
    killed.kill()
    assert late.get(timeout=20) == "value"

main()
main(cache_backend="disk", cache_dir=sys.argv[2], cache_namespace="greenlets")
print("ok")
"""


def test_the_timeout_of_a_greenlet_is_its_own(core, tmp_path):
    """If a `gevent.Timeout`, or its end, hits the leader, the others run once more."""
    if find_spec("gevent") is None:
        pytest.skip("gevent is not installed")
    script = tmp_path / "greenlets.py"
    script.write_text(GREENLETS)
    done = subprocess.run(
        [sys.executable, script, core.name, tmp_path / "cache"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OPERO_PURE_PYTHON": "", "OPERO_CACHE_SECRET": "x" * 32},
    )
    assert done.stdout.strip() == "ok", done.stderr


# --- recursion and circles --------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_a_function_may_call_itself_with_the_key_it_is_running_for(key):
    """The inner call runs on its own instead of waiting forever for the outer one."""
    depth = []

    @opero(retries=1, cache=True)
    def fetch(key):
        depth.append(1)
        return 1 if len(depth) == 3 else 1 + fetch(key)

    assert Job(fetch, key).result() == 3
    assert len(depth) == 3
    assert flights_of(fetch) == []
    assert fetch(key) == 3


def test_recursion_through_two_functions_does_not_hang():
    """The same for a cycle of functions in one thread."""
    depth = []

    @opero(retries=1, cache=True)
    def one(x):
        depth.append(1)
        return "end" if len(depth) > 2 else two(x)

    @opero(retries=1, cache=True)
    def two(x):
        return one(x)

    assert Job(one, 1).result() == "end"
    assert flights_of(one) == flights_of(two) == []


@pytest.mark.parametrize("count", [2, 3, 8])
def test_a_circle_of_threads_does_not_hang(count):
    """Thread 0 leads key 0 and needs key 1, whose leader needs key 2, ..., who needs key 0."""
    everybody = threading.Barrier(count)
    local = threading.local()

    @opero(retries=1, cache=True)
    def fetch(key):
        if getattr(local, "inside", False):
            return f"on its own: {key}"
        local.inside = True
        everybody.wait(10)
        return f"{key} <- {fetch((key + 1) % count)}"

    jobs = together(count, fetch)
    for number, job in enumerate(jobs):
        assert job.result().startswith(f"{number} <- ")
    assert flights_of(fetch) == []


def test_circles_of_threads_over_and_over_do_not_hang():
    """Over 300 rounds, the two threads meet in many orders."""
    local = threading.local()
    rounds = 300
    meet = threading.Barrier(2)

    @opero(retries=1, cache=True)
    def fetch(key, number):
        if getattr(local, "inside", False):
            return 1
        local.inside = True
        try:
            return 1 + fetch(1 - key, number)
        finally:
            local.inside = False

    def work(key):
        for number in range(rounds):
            meet.wait(20)
            assert fetch(key, number) in {1, 2, 3}

    for job in together(2, work):
        job.result()
    assert flights_of(fetch) == []


def test_endless_recursion_stays_an_error_and_leaves_no_run_behind():
    """Wherever the stack overflows, every run that began has ended afterwards."""

    @opero(retries=1, cache=True)
    def fetch(key):
        return fetch(key + 1)

    def deeper(levels):
        return fetch(levels * 10**6) if levels == 0 else deeper(levels - 1)

    for levels in range(12):
        job = Job(deeper, levels)
        job.wait()
        assert isinstance(job.error, RecursionError)
        assert flights_of(fetch) == []
    with_same_key = opero(retries=1, cache=True)(lambda: with_same_key())
    assert isinstance(Job(with_same_key).wait().error, RecursionError)
    assert flights_of(with_same_key) == []


def test_a_follower_of_a_run_that_recurses_without_end_gets_its_error():
    """The leader's stack depth is not shared, so the follower runs again and gets its own error."""
    begun = []

    @opero(retries=1, cache=True)
    def fetch(key):
        if key == 0:
            begun.append(key)
            if len(begun) == 1:
                until(lambda: followers(fetch) == 1)
        return fetch(key + 1)

    leader = Job(fetch, 0)
    until(lambda: flights_of(fetch))
    follower = Job(fetch, 0)
    for job in wait_all([leader, follower]):
        assert isinstance(job.error, RecursionError)
    assert len(begun) == 2
    assert leader.error is not follower.error
    assert flights_of(fetch) == []


# --- invalidation while a run is under way ----------------------------------------------------------

FORGETTING = {
    "cache_invalidate": lambda function: function.cache_invalidate(1),
    "cache_clear": lambda function: function.cache_clear(),
    "clear_cache": lambda function: package.clear_cache("single flight"),
}


@pytest.mark.parametrize("forget", FORGETTING.values(), ids=FORGETTING)
def test_a_value_invalidated_while_it_is_made_is_not_stored(forget):
    """Waiting callers get it; later ones start a new run, whose value is stored."""
    runs = []
    gates = [threading.Event(), threading.Event()]

    @opero(retries=1, cache=True, cache_namespace="single flight")
    def fetch(key):
        number = len(runs)
        runs.append(number)
        gates[number].wait(10)
        return f"value {number}"

    old = [Job(fetch, 1) for _ in range(3)]
    until(lambda: followers(fetch) == 2)
    forget(fetch)
    new = [Job(fetch, 1)]
    until(lambda: len(runs) == 2)
    new += [Job(fetch, 1), Job(fetch, 1)]
    until(lambda: followers(fetch) == 2)
    gates[0].set()
    assert [job.result() for job in old] == ["value 0"] * 3
    assert len(fetch.__opero__.store) == 0
    assert not any(job.over for job in new)
    late = Job(fetch, 1)  # joins the fresh run, which the old one's end must not have hidden
    until(lambda: followers(fetch) == 3)
    gates[1].set()
    assert [job.result() for job in [*new, late]] == ["value 1"] * 4
    assert fetch(1) == "value 1"
    assert len(runs) == 2
    assert flights_of(fetch) == []


@pytest.mark.parametrize("forget", FORGETTING.values(), ids=FORGETTING)
def test_a_failure_after_an_invalidation_does_not_touch_the_fresh_run(forget):
    """Only the callers of the old run get its failure."""
    runs = []
    gates = [threading.Event(), threading.Event()]

    @opero(retries=1, cache=True, cache_namespace="single flight")
    def fetch(key):
        number = len(runs)
        runs.append(number)
        gates[number].wait(10)
        if number == 0:
            raise ValueError("old")
        return "new"

    old = Job(fetch, 1)
    until(lambda: len(runs) == 1)
    forget(fetch)
    new = Job(fetch, 1)
    until(lambda: len(runs) == 2)
    gates[0].set()
    assert isinstance(old.wait().error, ValueError)
    assert len(flights_of(fetch)) == 1
    gates[1].set()
    assert new.result() == fetch(1) == "new"
    assert flights_of(fetch) == []


@pytest.mark.parametrize("forget", FORGETTING.values(), ids=FORGETTING)
def test_a_function_may_invalidate_the_key_it_is_running_for(forget):
    """Its value is returned and not stored."""
    runs = []

    @opero(retries=1, cache=True, cache_namespace="single flight")
    def fetch(key):
        runs.append(1)
        forget(fetch)
        return len(runs)

    assert [fetch(1), fetch(1)] == [1, 2]
    assert flights_of(fetch) == []


@pytest.mark.parametrize("forget", FORGETTING.values(), ids=FORGETTING)
def test_an_invalidation_in_the_middle_of_storing_is_heeded(forget):
    """It comes after the last check of the flight, and before the value is stored."""

    class Meddler:
        """Equal to its like; the comparison that takes another one out of the store invalidates."""

        armed = False

        def __init__(self, number):
            self.number = number

        def __hash__(self):
            return 7

        def __eq__(self, other):
            if Meddler.armed and {self.number, other.number} == {0, 2}:
                Meddler.armed = False
                if forget is FORGETTING["cache_invalidate"]:
                    fetch.cache_invalidate(Meddler(1))
                else:
                    forget(fetch)
            return self.number == other.number

    @opero(retries=1, cache=True, cache_maxsize=2, cache_namespace="single flight")
    def fetch(key):
        Meddler.armed = key.number == 1 and source["version"] == 1
        return source["version"]

    source = {"version": 0}
    for number in (2, 2, 2, 0):  # the last one is evicted, and comes behind the other in the table
        fetch(Meddler(number))
    source["version"] = 1
    fetch(Meddler(1))  # made of version 1, and invalidated while it is stored
    assert not Meddler.armed
    source["version"] = 2
    assert fetch(Meddler(1)) == 2
    assert flights_of(fetch) == []


def test_a_value_that_is_found_amid_its_invalidation_is_not_found_afterwards():
    """The thread `late` misses, and then finds what was stored meanwhile, and is being dropped.

    All keys have one hash, so that comparing them tells where a thread is: `late` compares its key
    with `other_one`, whose run is under way, when it looks for a value and when it wants to begin.
    """

    class Watched:
        def __init__(self, number):
            self.number = number

        def __hash__(self):
            return 7

        def __eq__(self, other):
            if threading.current_thread().name == "late":
                late.looks += 1
                if late.looks == 2:
                    late.stands.set()
                    assert late.go.wait(10)
            elif invalidating.is_set() and not late.go.is_set():
                late.go.set()  # in the midst of the invalidation, before anything is dropped
                assert late.over.wait(10)
            return self.number == other.number

    other_one, asked = 0, 1
    late = SimpleNamespace(
        looks=0, stands=threading.Event(), go=threading.Event(), over=threading.Event()
    )
    invalidating = threading.Event()
    in_flight, landing = threading.Event(), threading.Event()
    source = {"version": 1}

    @opero(retries=1, cache=True)
    def fetch(key):
        if key.number == other_one:
            in_flight.set()
            assert landing.wait(10)
        return source["version"]

    def read_late():
        threading.current_thread().name = "late"
        try:
            return fetch(Watched(asked))
        finally:
            late.over.set()

    other = Job(fetch, Watched(other_one))
    assert in_flight.wait(10)
    reader = Job(read_late)
    assert late.stands.wait(10)
    assert fetch(Watched(asked)) == 1
    source["version"] = 2
    invalidating.set()
    fetch.cache_invalidate(Watched(asked))
    assert reader.result() in {1, 2}  # it overlaps the invalidation
    assert fetch(Watched(asked)) == 2
    landing.set()
    other.result()
    assert flights_of(fetch) == []


def test_clearing_over_and_over_leaves_no_stale_value():
    """A value computed from data before the clearing is never found after it."""
    source = {"version": 0}
    stop = threading.Event()

    @opero(retries=1, cache=True)
    def fetch(key):
        return source["version"]

    def read(_):
        while not stop.is_set():
            fetch(1)

    readers = [Job(read, number) for number in range(3)]
    for version in range(1, 400):
        source["version"] = version
        if version % 2:
            fetch.cache_invalidate(1)
        else:
            fetch.cache_clear()
        assert fetch(1) == version
    stop.set()
    wait_all(readers)
    assert flights_of(fetch) == []


# --- keys that misbehave ----------------------------------------------------------------------------


class Touchy:
    """A key equal to others of its kind, with the same hash, that raises on demand."""

    armed = False

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return 5

    def __eq__(self, other):
        if Touchy.armed:
            raise ZeroDivisionError("compared")
        return isinstance(other, Touchy) and other.number == self.number


@pytest.fixture
def disarmed():
    """Leave no armed class behind."""
    yield
    Touchy.armed = False


@pytest.mark.usefixtures("disarmed")
def test_a_key_whose_comparison_fails_while_it_runs_leaves_nobody_waiting():
    """The function's own result is returned: a store never breaks a call."""
    entered = []
    gates = {number: threading.Event() for number in (1, 2, 3)}

    @opero(retries=1, cache=True)
    def fetch(key):
        entered.append(key.number)
        gates[key.number].wait(10)
        return key.number

    leaders = []
    for number in (1, 2, 3):
        leaders.append(Job(fetch, Touchy(number)))
        until(lambda n=number: len(entered) == n)
    late = [Job(fetch, Touchy(number)) for number in (1, 2, 3)]
    until(lambda: followers(fetch) == 3)
    Touchy.armed = True
    for number in (3, 2, 1):  # the later ones come past the earlier ones in the table
        gates[number].set()
        assert leaders[number - 1].result() == late[number - 1].result() == number
    Touchy.armed = False
    assert [Job(fetch, Touchy(number)).result() for number in (1, 2, 3)] == [1, 2, 3]
    # what could not be taken out has landed, so the next missing call of its key takes it out
    assert all(flight.done for flight in flights_of(fetch))


@pytest.mark.usefixtures("disarmed")
def test_a_key_whose_comparison_fails_after_a_failure_does_not_keep_that_failure():
    """The next call tries again, as always."""
    entered = []
    gates = {number: threading.Event() for number in (1, 2)}

    @opero(retries=1, cache=True)
    def fetch(key):
        entered.append(key.number)
        if len(entered) <= 2:
            gates[key.number].wait(10)
            raise ValueError(key.number)
        return key.number

    leaders = []
    for number in (1, 2):
        leaders.append(Job(fetch, Touchy(number)))
        until(lambda n=number: len(entered) == n)
    Touchy.armed = True
    for number in (2, 1):
        gates[number].set()
        error = leaders[number - 1].wait().error
        assert isinstance(error, (ValueError, ZeroDivisionError))
    Touchy.armed = False
    assert [Job(fetch, Touchy(number)).result() for number in (1, 2)] == [1, 2]
    assert flights_of(fetch) == []


@pytest.mark.usefixtures("disarmed")
def test_a_key_whose_comparison_fails_when_it_is_looked_up_fails_its_own_call_only():
    """Nothing is left behind, and the key works again once it can be compared."""
    calls = []

    @opero(retries=1, cache=True)
    def fetch(key):
        calls.append(1)
        return key.number

    assert fetch(Touchy(1)) == 1
    Touchy.armed = True
    try:
        outcome = fetch(Touchy(1))
    except ZeroDivisionError:
        outcome = 1
    assert outcome == 1
    Touchy.armed = False
    assert flights_of(fetch) == []
    before = len(calls)
    assert Job(fetch, Touchy(1)).result() == 1
    assert len(calls) - before in {0, 1}


def test_a_run_on_a_thread_and_one_on_a_loop_do_not_mix():
    """A function for threads remains one when called from a running loop."""

    @opero(retries=1, cache=True)
    def fetch(key):
        gathered(fetch, 2)()
        return key

    async def main():
        loop = asyncio.get_running_loop()
        other = loop.run_in_executor(None, fetch, 1)
        return fetch(1), await other

    assert run(main()) == (1, 1)


class Bell:
    """Stands for a waiting thread, and counts how often it is compared with others."""

    compared = 0

    def __init__(self) -> None:
        self.rung = False

    def __eq__(self, other: object) -> bool:
        Bell.compared += 1
        return self is other

    __hash__ = object.__hash__

    def release(self) -> None:
        """Record that it rang."""
        self.rung = True


def test_many_who_leave_a_run_are_not_looked_for_among_each_other(core, monkeypatch):
    """They are interrupted, or run out of time; the others are woken."""
    monkeypatch.setattr(Bell, "compared", 0)
    store = core.MemoryStore(core.clock, 10, 0)
    flight = store.follow(store.new_run("key", 7))
    bells = [Bell() for _ in range(300)]
    for bell in bells:
        flight.join(bell)
    for bell in reversed(bells[100:]):
        flight.leave(bell)
        flight.leave(bell)
    flight.land("value", None)
    flight.leave(bells[0])
    assert [bell.rung for bell in bells] == [True] * 100 + [False] * 200
    assert Bell.compared <= 300
