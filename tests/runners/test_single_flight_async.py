"""Single flight for tasks: one run per missing key and event loop, in a task of its own."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from typing import Any

import pytest
from crowd import (
    Job,
    hurried_switching,
    run,
    standing_clock,
    traceback_length,
    until,
    until_async,
    wait_all,
)

import opero as package
from opero import AllFailedError, opero
from opero.runners import task_flight

KEYS = [1, "one", (1, "one"), {"one": [1]}]


async def settle(turns: int = 5) -> None:
    """Let every task that can continue do so."""
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_1000_tasks_on_one_missing_key_run_the_function_once_and_share_its_value(key):
    """They all get the same object, which the only run returned."""
    runs = []

    @opero(retries=1, cache=True)
    async def fetch(key):
        runs.append(key)
        await asyncio.sleep(0.001)
        return object()

    async def main():
        values = await asyncio.gather(*[fetch(key) for _ in range(1000)])
        assert fetch.__opero__.store.flights == {}
        assert len(asyncio.all_tasks()) == 2
        assert len({id(value) for value in values}) == 1
        assert await fetch(key) is values[0]

    run(main())
    assert len(runs) == 1
    stats = fetch.stats()
    assert (stats.calls, stats.hits, stats.misses, stats.attempts) == (1001, 1, 1000, 1)


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_1000_tasks_share_one_failure_which_is_not_cached(key):
    """They all get the same exception, which the only run raised, with a short traceback."""
    runs = []

    @opero(retries=1, cache=True)
    async def fetch(key):
        runs.append(key)
        await asyncio.sleep(0.001)
        if len(runs) == 1:
            raise ValueError("not there")
        return "late"

    async def main():
        calls = [fetch(key) for _ in range(1000)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert fetch.__opero__.store.flights == {}
        assert len({id(error) for error in errors}) == 1
        assert type(errors[0]) is ValueError
        assert traceback_length(errors[0]) < 12
        assert len(fetch.__opero__.store) == 0
        assert await fetch(key) == "late"

    run(main())
    assert len(runs) == 2


def test_retries_are_made_once_for_all_tasks_that_wait():
    """A run with retries is one run: its attempts, its retries and its one `AllFailedError`."""

    @opero(retries=3, min_delay=0, max_delay=0, cache=True)
    async def fetch():
        await asyncio.sleep(0)
        raise ValueError

    async def main():
        errors = await asyncio.gather(*[fetch() for _ in range(20)], return_exceptions=True)
        assert len({id(error) for error in errors}) == 1
        assert type(errors[0]) is AllFailedError
        assert len(errors[0].errors) == 3

    run(main())
    assert (fetch.stats().attempts, fetch.stats().retries, fetch.stats().failures) == (3, 2, 1)


def test_many_keys_at_once_have_a_run_each():
    """1,000 tasks on 10 keys make 10 runs, at the same time."""
    running = set()
    most = []

    @opero(retries=1, cache=True)
    async def fetch(key):
        running.add(key)
        most.append(len(running))
        await asyncio.sleep(0.001)
        running.remove(key)
        return None if key == 3 else key

    async def main():
        values = await asyncio.gather(*[fetch(number % 10) for number in range(1000)])
        assert values == [None if number == 3 else number for number in range(10)] * 100

    run(main())
    assert len(most) == max(most) == 10
    assert fetch.__opero__.store.flights == {}


def test_a_value_that_comes_without_a_single_wait_is_shared_too():
    """The function never suspends, but the callers still meet."""
    runs = []

    @opero(retries=1, cache=True)
    async def fetch():
        runs.append(1)
        return len(runs)

    async def main():
        assert await asyncio.gather(*[fetch() for _ in range(50)]) == [1] * 50

    run(main())


def test_tasks_that_find_an_outdated_value_run_once():
    """Expiry starts one run, not one per task."""
    runs = []

    @opero(retries=1, cache=True, cache_ttl=60)
    async def fetch():
        runs.append(1)
        await asyncio.sleep(0)
        return len(runs)

    async def main():
        with standing_clock(fetch.__opero__.clock) as clock:
            assert await fetch() == 1
            clock.advance(61 * 10**9)
            assert await asyncio.gather(*[fetch() for _ in range(50)]) == [2] * 50

    run(main())


def test_the_run_sees_the_context_of_the_caller_who_started_it():
    """Context variables reach the function, as in a plain call."""
    user = contextvars.ContextVar("user", default="nobody")

    @opero(retries=1, cache=True, timeout=5)
    async def fetch():
        await asyncio.sleep(0)
        return user.get()

    async def main():
        user.set("ada")
        assert await fetch() == "ada"

    run(main())


class Outside(BaseException):
    """An exception that a test runner or another framework throws into a task to stop it."""


@pytest.mark.parametrize("kind", [asyncio.CancelledError, Outside, RecursionError])
def test_what_belongs_to_the_leader_is_the_leaders_alone(kind):
    """It is never retried and never wrapped, and the others share one more run."""
    runs = []

    @opero(retries=3, min_delay=0, max_delay=0, cache=True)
    async def fetch():
        runs.append(1)
        await asyncio.sleep(0)
        if len(runs) == 1:
            raise kind
        return "value"

    async def main():
        outcomes = await asyncio.gather(*[fetch() for _ in range(10)], return_exceptions=True)
        assert type(outcomes[0]) is kind
        assert outcomes[1:] == ["value"] * 9
        assert len(runs) == 2

    run(main())
    assert fetch.__opero__.store.flights == {}


def test_if_every_run_is_stopped_each_caller_gets_an_error_of_its_own():
    """They lead one after another."""
    runs = []

    @opero(retries=3, cache=True)
    async def fetch():
        runs.append(1)
        await asyncio.sleep(0)
        raise Outside

    async def main():
        outcomes = await asyncio.gather(*[fetch() for _ in range(5)], return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Outside] * 5
        assert len({id(outcome) for outcome in outcomes}) == 5

    run(main())
    assert len(runs) == 5
    assert fetch.__opero__.store.flights == {}


def test_an_interrupt_inside_the_run_ends_the_loop_and_leaves_nothing():
    """KeyboardInterrupt passes through asyncio as without opero; the next loop starts fresh."""
    runs = []

    @opero(retries=3, cache=True)
    async def fetch():
        runs.append(1)
        await asyncio.sleep(0)
        if len(runs) == 1:
            raise KeyboardInterrupt
        return "value"

    async def main():
        return await asyncio.gather(*[fetch() for _ in range(3)])

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert run(main()) == ["value"] * 3
    assert len(runs) == 2
    assert fetch.__opero__.store.flights == {}


# --- recursion and circles --------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_a_coroutine_may_await_itself_with_the_key_it_is_running_for(key):
    """The inner call runs on its own instead of waiting forever for the outer one."""
    depth = []

    @opero(retries=1, cache=True)
    async def fetch(key):
        depth.append(1)
        await asyncio.sleep(0)
        return 1 if len(depth) == 3 else 1 + await fetch(key)

    async def main():
        assert await fetch(key) == 3
        assert await fetch(key) == 3

    run(main())
    assert len(depth) == 3
    assert fetch.__opero__.store.flights == {}


@pytest.mark.parametrize("way", ["gather", "create_task", "timeout", "uncached"])
def test_recursion_that_takes_a_detour_does_not_hang(way):
    """Through child tasks, a deadline's own task, or a function that is not cached."""
    depth = []

    @opero(retries=2)
    async def uncached():
        return await fetch()

    @opero(retries=1, timeout=10)
    async def hurried():
        return await fetch()

    @opero(retries=1, cache=True)
    async def fetch():
        depth.append(1)
        if len(depth) > 1:
            return 1
        await asyncio.sleep(0)
        if way == "gather":
            return 1 + sum(await asyncio.gather(fetch(), fetch()))
        if way == "create_task":
            return 2 + await asyncio.create_task(fetch())
        return 2 + await (hurried() if way == "timeout" else uncached())

    async def main():
        assert await fetch() == 3

    run(main())
    assert fetch.__opero__.store.flights == {}


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_circle_of_tasks_does_not_hang(count):
    """Run 0 awaits key 1, whose run awaits key 2, ..., whose run awaits key 0."""
    started = []

    @opero(retries=1, cache=True)
    async def fetch(key):
        if len(started) >= count:
            return f"on its own: {key}"
        started.append(key)
        await until_async(lambda: len(started) == count)
        return f"{key} <- {await fetch((key + 1) % count)}"

    async def main():
        values = await asyncio.gather(*[fetch(key) for key in range(count)])
        assert [value.split(" <- ")[0] for value in values] == [str(key) for key in range(count)]

    run(main())
    assert fetch.__opero__.store.flights == {}


def test_endless_recursion_stays_an_error_and_leaves_no_run_behind():
    """The stack overflows as without opero, and everything is cleaned up."""

    @opero(retries=1, cache=True)
    async def fetch():
        return await fetch()

    async def main():
        with pytest.raises(RecursionError):
            await fetch()
        await settle()

    run(main())
    assert fetch.__opero__.store.flights == {}


def test_a_task_that_a_run_has_started_may_call_the_function_after_it():
    """A task that outlives the run counts as outside it, and shares runs like any other."""
    runs = []
    late: list[Any] = []

    @opero(retries=1, cache=True)
    async def fetch(key):
        runs.append(key)
        if not late:
            late.append(asyncio.create_task(afterwards()))
        await asyncio.sleep(0.001)
        return len(runs)

    async def afterwards():
        await until_async(lambda: fetch.__opero__.store.flights == {})
        fetch.cache_clear()
        return await asyncio.gather(*[fetch(1) for _ in range(10)])

    async def main():
        assert await fetch(1) == 1
        assert await late[0] == [2] * 10

    run(main())
    assert len(runs) == 2


def test_a_run_waits_only_for_runs_that_are_not_over():
    """A task left by a finished run shares another run that had once waited for that one."""
    runs = []
    left: list[Any] = []

    @opero(retries=1, cache=True)
    async def fetch(key):
        runs.append(key)
        if key == "inner":
            left.append(asyncio.create_task(afterwards()))
            await asyncio.sleep(0.001)
        else:
            await fetch("inner")
            await gate.wait()
        return key

    async def afterwards():
        await until_async(lambda: fetch.__opero__.store.find("inner"))
        await settle()
        return await fetch("outer")

    async def main():
        nonlocal gate
        gate = asyncio.Event()
        inner = asyncio.create_task(fetch("inner"))
        await settle(1)
        outer = asyncio.create_task(fetch("outer"))
        assert await inner == "inner"
        await settle(20)
        gate.set()
        assert await outer == await left[0] == "outer"

    gate: Any = None
    run(main())
    assert sorted(runs) == ["inner", "outer"]


def test_calls_that_lead_to_the_next_call_do_not_pile_up():
    """A function that schedules its own next call keeps no memory of earlier calls."""
    depths = []
    tasks: set[asyncio.Task[Any]] = set()

    @opero(retries=1, cache=True)
    async def poll(number):
        depth, outer = 0, task_flight._lineage.get()
        while outer is not None:
            depth, outer = depth + 1, outer.outer
        depths.append(depth)
        await asyncio.sleep(0)
        if number < 200:
            asyncio.get_running_loop().call_soon(proceed, number + 1)

    def proceed(number):
        task = asyncio.ensure_future(poll(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def main():
        await poll(0)
        await until_async(lambda: len(depths) == 201 and not tasks)

    run(main())
    assert max(depths) <= 3


def test_a_task_that_outlives_the_run_keeps_no_value_alive():
    """A background task started inside the function does not keep the run's result."""

    class Value:
        pass

    @opero(retries=1, cache=True)
    async def fetch():
        background.append(asyncio.create_task(asyncio.sleep(60)))
        return Value()

    background: list[Any] = []

    async def main():
        gone = weakref.ref(await fetch())
        fetch.cache_clear()
        await settle()
        gc.collect()
        assert gone() is None
        background[0].cancel()
        await asyncio.wait(background)

    run(main())


@pytest.mark.parametrize(
    "options",
    [
        {"cache": True},
        {"timeout": 5},
        {"cache": True, "timeout": 5},
        {"cache": True, "retries": 2, "min_delay": 0, "max_delay": 0},
        {"retries": 2, "min_delay": 0, "max_delay": 0},
        {"rate_limit": 1e6},
    ],
    ids=str,
)
def test_a_failure_is_freed_as_soon_as_its_last_caller_lets_go(options, caplog):
    """No reference cycle holds the exception, its frames and their arguments until a collection."""
    caplog.set_level("CRITICAL", logger="opero")  # pytest keeps the records, and they the errors

    class Failure(Exception):
        pass

    @opero(**{"retries": 1, **options})
    async def fetch():
        await asyncio.sleep(0)
        raise Failure

    async def main():
        try:
            await fetch()
        except (Failure, AllFailedError) as error:
            first = error.errors[0] if isinstance(error, AllFailedError) else error
            gone = weakref.ref(first)
            del first
        await settle()
        return gone() is None

    gc.collect()
    gc.disable()
    try:
        assert run(main())
    finally:
        gc.enable()


# --- invalidation while a run is under way ----------------------------------------------------------

FORGETTING = {
    "cache_invalidate": lambda function: function.cache_invalidate(1),
    "cache_clear": lambda function: function.cache_clear(),
    "clear_cache": lambda function: package.clear_cache("single flight"),
}


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same thread", "another thread"])
@pytest.mark.parametrize("forget", FORGETTING.values(), ids=FORGETTING)
def test_a_value_invalidated_while_it_is_made_is_not_stored(forget, elsewhere):
    """Waiting callers get it; later ones start a new run, whose value is stored."""
    runs = []

    @opero(retries=1, cache=True, cache_namespace="single flight")
    async def fetch(key):
        number = len(runs)
        runs.append(number)
        await gates[number].wait()
        return f"value {number}"

    gates: list[Any] = []

    async def main():
        gates.extend([asyncio.Event(), asyncio.Event()])
        old = asyncio.gather(*[fetch(1) for _ in range(3)])
        await until_async(lambda: len(runs) == 1)
        if elsewhere:
            Job(forget, fetch).result()
        else:
            forget(fetch)
        new = asyncio.gather(*[fetch(1) for _ in range(3)])
        await until_async(lambda: len(runs) == 2)
        gates[0].set()
        assert await old == ["value 0"] * 3
        assert len(fetch.__opero__.store) == 0
        late = asyncio.ensure_future(fetch(1))
        await settle()
        gates[1].set()
        assert await new == ["value 1"] * 3
        assert await late == await fetch(1) == "value 1"

    run(main())
    assert len(runs) == 2
    assert fetch.__opero__.store.flights == {}


@pytest.mark.parametrize("forget", FORGETTING.values(), ids=FORGETTING)
def test_a_coroutine_may_invalidate_the_key_it_is_running_for(forget):
    """Its value is returned and not stored."""
    runs = []

    @opero(retries=1, cache=True, cache_namespace="single flight")
    async def fetch(key):
        runs.append(1)
        forget(fetch)
        await asyncio.sleep(0)
        return len(runs)

    async def main():
        assert [await fetch(1), await fetch(1)] == [1, 2]

    run(main())
    assert fetch.__opero__.store.flights == {}


# --- loops ------------------------------------------------------------------------------------------


def test_two_loops_in_two_threads_run_once_each_and_store_for_both():
    """A task never waits for a run on another loop, and every caller gets a correct value."""
    runs = []
    inside = threading.Barrier(2)

    @opero(retries=1, cache=True)
    async def fetch(key):
        runs.append(threading.get_ident())
        inside.wait(10)
        await asyncio.sleep(0.001)
        return key

    async def main():
        return await asyncio.gather(*[fetch(1) for _ in range(100)])

    jobs = [Job(run, main()), Job(run, main())]
    assert [job.result() for job in jobs] == [[1] * 100, [1] * 100]
    assert len(runs) == len(set(runs)) == 2
    assert fetch.__opero__.store.flights == {}
    assert run(fetch(1)) == 1
    assert len(runs) == 2


def test_a_value_that_another_loop_stored_meanwhile_is_taken():
    """A coroutine created before the value existed does not run the function again."""
    runs = []

    @opero(retries=1, cache=True)
    async def fetch(key):
        runs.append(1)
        return key

    async def main():
        early = fetch(1)
        Job(run, fetch(1)).result()
        return await early

    assert run(main()) == 1
    assert len(runs) == 1
    assert fetch.__opero__.store.flights == {}


def test_a_loop_closed_in_the_middle_of_a_run_leaves_the_key_usable():
    """Its run is gone; the next loop starts a new one, and forgets the closed loop."""
    runs = []

    @opero(retries=1, cache=True)
    async def fetch(key):
        runs.append(1)
        if len(runs) == 1:
            await asyncio.get_running_loop().create_future()
        return key

    loop = asyncio.new_event_loop()

    async def begin():
        caller = asyncio.ensure_future(fetch(1))
        await settle()
        return caller

    caller = loop.run_until_complete(begin())
    runner = next(iter(fetch.__opero__.store.flights[loop].values())).task
    loop.close()
    assert run(fetch(1)) == 1
    assert fetch.__opero__.store.flights == {}
    for task in (caller, runner):
        task._log_destroy_pending = False


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
@pytest.mark.parametrize("suspends", [False, True], ids=["at once", "later"])
def test_a_loop_with_eager_tasks_caches_shares_and_leaves_nothing(suspends):
    """A run may start, or even end, before its task is known."""
    runs = []

    @opero(retries=1, cache=True)
    async def fetch(key):
        runs.append(key)
        if suspends:
            await asyncio.sleep(0.001)
        if key == "bad":
            raise ValueError
        return key

    depth = []

    @opero(retries=1, cache=True)
    async def recurse():
        depth.append(1)
        return 1 if len(depth) == 3 else 1 + await recurse()

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        assert await asyncio.gather(*[fetch(1) for _ in range(20)]) == [1] * 20
        assert await fetch(1) == 1
        assert runs == [1]
        await settle()
        assert fetch.__opero__.store.flights == {}
        errors = await asyncio.gather(*[fetch("bad") for _ in range(3)], return_exceptions=True)
        assert {type(error) for error in errors} == {ValueError}
        assert await recurse() == 3
        await settle()
        assert fetch.__opero__.store.flights == {}
        assert recurse.__opero__.store.flights == {}

    run(main())


def test_a_loop_that_comes_while_another_looks_around_does_not_disturb_it():
    """A task begins a run on its loop at the moment that a task of another loop does."""
    gate = threading.Event()

    class SlyLoop(asyncio.SelectorEventLoop):
        """Lets another thread's loop begin a run when it is asked whether it is closed."""

        asked = None

        def is_closed(self):
            if self.asked is not None:
                ask, self.asked = self.asked, None
                ask()
            return super().is_closed()

    @opero(retries=1, cache=True)
    async def fetch(key):
        while not gate.is_set() and key != "quick":
            await asyncio.sleep(0.001)
        return key

    def intrude():
        others.append(Job(run, fetch("other")))
        until(lambda: len(fetch.__opero__.store.flights) == 2)

    async def begin():
        task = asyncio.ensure_future(fetch("sly"))
        await settle()
        return task

    others: list[Job] = []
    sly = SlyLoop()
    task = sly.run_until_complete(begin())
    sly.asked = intrude
    assert run(fetch("quick")) == "quick"
    gate.set()
    assert sly.run_until_complete(task) == "sly"
    sly.close()
    assert others[0].result() == "other"
    until(lambda: fetch.__opero__.store.flights == {})


def test_tables_of_flights_are_sound_while_other_threads_forget():
    """Threads with running loops and threads that clear do not affect each other."""
    stop = threading.Event()

    @opero(retries=1, cache=True)
    async def fetch(key):
        await asyncio.sleep(0)
        return key

    async def read(offset):
        for number in range(200):
            keys = [(offset, number), number % 7]
            assert await asyncio.gather(*[fetch(key) for key in keys]) == keys

    def forget():
        while not stop.is_set():
            fetch.cache_clear()
            fetch.cache_invalidate(3)

    forgetting = Job(forget)
    try:
        with hurried_switching(1e-5):
            readers = wait_all([Job(lambda n=n: run(read(n))) for n in range(4)])
    finally:
        stop.set()
    for job in [*readers, forgetting]:
        job.result()
    until(lambda: fetch.__opero__.store.flights == {})
