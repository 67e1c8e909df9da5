"""Coroutines as the workers of a map, under the real scheduler; and the loops that opero makes."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types
import warnings
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from crowd import Job as Thread
from crowd import run, until_async

from opero import AllFailedError, hotpath, opero, opmap
from opero.core.chunk import ChunkSizer
from opero.core.clock import NEVER
from opero.exceptions import AttemptTimeout
from opero.map import event_loops
from opero.map.engines import tasks
from opero.map.engines.base import Crash, Report
from opero.map.engines.processes import worker_loop
from opero.map.engines.tasks import TaskEngine
from opero.map.invocation import Invocation
from opero.map.jobs import Job
from opero.map.output import NOTHING, Span
from opero.map.scheduler import Scheduler
from opero.testing import manual_clock

pytestmark = pytest.mark.once

Variable: contextvars.ContextVar[str] = contextvars.ContextVar("Variable", default="unset")


class Flop(Exception):
    """An error of an attempt."""


async def amap(
    function: Any,
    items: Any,
    workers: int = 4,
    attempt_timeout: float | None = None,
    chunk: int = 0,
    **shared: Any,
) -> list[Any]:
    """Map a decorated function with a small driver."""
    clock = hotpath.core.clock
    scheduler = Scheduler(
        function.__opero__, shared, ChunkSizer(workers, 10**6, chunk, -1), 10_000, True
    )
    engine = TaskEngine(function.__wrapped__, shared, workers, attempt_timeout, clock)
    source = iter(items)
    idle = list(range(workers))
    results: list[Any] = []

    def hand_out() -> None:
        for slot in idle.copy():
            job = scheduler.assign(slot, clock.now())
            if job is not None:
                idle.remove(slot)
                engine.start(slot, job)

    done = False
    try:
        while True:
            hand_out()
            while idle and (count := scheduler.demand()):
                values = list(itertools.islice(source, count))
                scheduler.feed(values)
                if len(values) < count:
                    scheduler.close()
                hand_out()
            results += scheduler.collect()
            if scheduler.over:
                break
            timeout = None
            wake = scheduler.wake(clock.now())
            if idle and wake != NEVER:
                if clock.skipping and len(idle) == workers:
                    clock.move_to(wake)
                timeout = max(0, wake - clock.now()) / 1e9
            for event in await engine.wait(timeout):
                idle.append(event.slot)
                if isinstance(event, Report):
                    scheduler.report(event.job, event.results, event.failures, event.elapsed)
                else:
                    scheduler.crash(event.job, event.results, event.failures, event.at, event.error)
        done = True
    finally:
        await engine.close(abandon=not done)
    return results


def once(function: Any) -> Any:
    """Decorate a function without options."""
    return opero(retries=1)(function)


def kinds(outcomes: list[Any]) -> list[Any]:
    """Return the type of every exception, and every other value as it is."""
    return [type(each) if isinstance(each, BaseException) else each for each in outcomes]


def new_engine(function: Any, workers: int = 1, limit: float | None = None) -> TaskEngine:
    """Make an engine without a scheduler."""
    return TaskEngine(function, {}, workers, limit, hotpath.core.clock)


def new_job(*values: Any) -> Job:
    """Make a job without a scheduler."""
    return Job(Span(list(values)), range(len(values)), list(values), None)


# --- outcomes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [0, 1, 7])
def test_results_come_in_order_whatever_each_item_does(chunk):
    """Items return, fail sooner or later, and suspend or not."""

    @once
    async def mixed(x, plus):
        dice = random.Random(x)
        for _ in range(dice.randrange(3)):
            await asyncio.sleep(dice.choice([0, 0, 0.0005]))
        if x % 7 == 3:
            raise Flop(x)
        return x + plus

    results = run(amap(mixed, range(500), chunk=chunk, plus=1))
    assert kinds(results) == [Flop if x % 7 == 3 else x + 1 for x in range(500)]
    assert [error.args for error in results[3::7]] == [(x,) for x in range(3, 500, 7)]


def test_what_fails_is_tried_again_after_its_delay():
    """No slot waits meanwhile."""
    tried: dict[int, int] = {}

    @opero(retries=3, min_delay=50, max_delay=50)
    async def flaky(x):
        tried[x] = tried.get(x, 0) + 1
        await asyncio.sleep(0)
        if x % 5 == 0 and tried[x] < 3:
            raise Flop
        if x == 13:
            raise Flop
        return x

    with manual_clock() as clock:
        results = run(amap(flaky, range(60)))
        assert clock.waited == pytest.approx(100)
    assert kinds(results) == [AllFailedError if x == 13 else x for x in range(60)]
    assert tried[13] == tried[5] == 3


def test_fallback_values_take_the_place_of_an_argument():
    """Each attempt gets its own arguments."""

    @opero(retries=1, arg_fallback={"model": ["b", "c"]})
    async def ask(question, model="a", *, mark):
        await asyncio.sleep(0)
        if model != "c":
            raise Flop(model)
        return question + model + mark

    assert run(amap(ask, ["x", "y"], mark="!")) == ["xc!", "yc!"]


@pytest.mark.parametrize(
    "kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, BaseException]
)
@pytest.mark.parametrize("suspends", [True, False])
def test_whatever_a_function_raises_is_the_failure_of_its_item(kind, suspends):
    """The loop does not see the error."""

    @once
    async def fatal(x):
        if suspends:
            await asyncio.sleep(0)
        if x == 2:
            raise kind("mine")
        return x

    results = event_loops.run(lambda: amap(fatal, range(5), chunk=5), "asyncio")
    assert kinds(results) == [0, 1, kind, 3, 4]
    assert results[2].args == ("mine",)


def test_a_ctrl_c_amid_a_function_is_not_taken_for_its_failure():
    """Where a signal raises `KeyboardInterrupt`, it ends the loop."""

    async def stopped(x):
        await asyncio.sleep(0)
        if x == 1:
            signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(30)

    loop = asyncio.new_event_loop()  # unlike `asyncio.run`, it leaves Ctrl-C alone
    try:
        main = loop.create_task(amap(once(stopped), [1, 2]))
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(main)
        main.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(main)
        assert not asyncio.all_tasks(loop)
    finally:
        loop.close()


def test_a_stop_iteration_becomes_a_runtime_error():
    """Every coroutine does that."""

    async def stops(x):
        raise StopIteration(x)

    assert kinds(run(amap(once(stops), [1]))) == [RuntimeError]


def test_any_awaitable_will_do():
    """A future, an old-style generator, and an object with `__await__` work."""

    class Later:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return "later"

    @types.coroutine
    def old():
        yield
        return "old"

    def various(x):
        if x == 0:
            future = asyncio.get_running_loop().create_future()
            future.set_result("future")
            return future
        return Later() if x == 1 else old() if x == 2 else x

    async def main():
        engine = new_engine(various)
        engine.start(0, new_job(0, 1, 2, 3))
        (report,) = await engine.wait(None)
        await engine.close(False)
        return report

    report = run(main())
    assert report.results == ["future", "later", "old", NOTHING]
    ((place, error),) = report.failures
    assert (place, type(error)) == (3, TypeError)


@pytest.mark.parametrize("closes", [False, True])
def test_a_failure_shows_the_function_and_holds_nothing(closes):
    """Its traceback begins outside the engine, and its last reference frees it."""

    async def deep():
        await asyncio.sleep(0)
        raise Flop

    async def fails(x):
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        except TimeoutError:
            await deep()

    async def main():
        engine = new_engine(fails)
        engine.start(0, new_job(1))
        (report,) = await engine.wait(None)
        ((_, error),) = report.failures
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert names == ["fails", "deep"]
        error.__context__ = None  # what asyncio makes is not ours to untie
        gone = weakref.ref(error)
        del error, report
        if closes:
            await engine.close(False)
        assert gone() is None
        await engine.close(False)

    gc.collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


# --- tasks and turns ------------------------------------------------------------------------------


def test_there_is_no_task_per_item():
    """A slot keeps one task from the beginning to the end."""
    seen = set()
    most = 0

    @once
    async def look(x):
        nonlocal most
        await asyncio.sleep(0)
        seen.add(asyncio.current_task().get_name())
        most = max(most, len(asyncio.all_tasks()))
        return x

    assert run(amap(look, range(1000), 5)) == list(range(1000))
    assert len(seen) == 5
    assert most == 5 + 2


def test_a_long_job_lets_others_have_their_turn():
    """It does so even if it never suspends."""
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    @once
    async def busy(x):
        time.sleep(0.001)
        return x

    async def main():
        ticker = asyncio.ensure_future(tick())
        try:
            await amap(busy, range(100), 1, chunk=100)
        finally:
            ticker.cancel()

    run(main())
    assert ticks > 10


def test_the_wait_ends_in_time_and_lets_others_run():
    """That holds with and without a report."""

    async def main():
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()
        engine = new_engine(lambda _: gate.wait())
        engine.start(0, new_job(1))
        turned = loop.create_future()
        loop.call_soon(turned.set_result, None)
        assert await engine.wait(0) == []
        assert turned.done()
        begun = time.monotonic()
        assert await engine.wait(0.02) == []
        assert time.monotonic() - begun > 0.019
        loop.call_later(0.02, gate.set)
        (report,) = await engine.wait(10**12)
        assert report.results == [True]
        assert 0.039e9 < report.elapsed < 20e9
        await engine.close(False)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks")
def test_eager_tasks_change_nothing():
    """Nothing runs inside `start`."""

    @once
    async def count(x):
        await asyncio.sleep(0)
        return await asyncio.create_task(asyncio.sleep(0, x))

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        return await amap(count, range(100))

    assert run(main()) == list(range(100))


# --- context variables ----------------------------------------------------------------------------


@pytest.mark.parametrize("suspends", [True, False])
def test_each_attempt_sees_the_context_of_the_map(suspends):
    """What it sets reaches what it awaits and starts, but no other item."""

    async def child():
        return Variable.get()

    @once
    async def setting(x):
        before = Variable.get()
        token = Variable.set(f"item {x}")
        if suspends:
            await asyncio.sleep(0)
            assert await asyncio.create_task(child()) == f"item {x}"
        assert await child() == f"item {x}"
        if x % 2:
            Variable.reset(token)
        return before

    async def main():
        Variable.set("mine")
        results = await amap(setting, range(50), 2, chunk=5)
        assert Variable.get() == "mine"
        return results

    assert run(main()) == ["mine"] * 50


def test_the_function_is_called_inside_the_context_too():
    """A function without `async def` can set a variable before its coroutine begins."""

    async def get():
        return Variable.get()

    def early(x):
        assert Variable.get() == "unset"
        Variable.set(x)
        return get()

    async def main():
        engine = new_engine(early)
        engine.start(0, new_job("a", "b"))
        (report,) = await engine.wait(None)
        await engine.close(False)
        return report.results

    assert run(main()) == ["a", "b"]


# --- attempt_timeout ------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_attempt_that_takes_too_long_is_cancelled(loop):
    """Only it fails, and its function can clean up."""
    tidied = []

    @once
    async def nap(x):
        try:
            await asyncio.sleep(30 if x % 10 == 4 else 0.0001)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            tidied.append(x)
            raise
        return x

    begun = time.monotonic()
    results = event_loops.run(lambda: amap(nap, range(50), 5, attempt_timeout=0.25), loop)
    assert time.monotonic() - begun < 20
    assert kinds(results) == [AttemptTimeout if x % 10 == 4 else x for x in range(50)]
    assert sorted(tidied) == [4, 14, 24, 34, 44]
    assert str(results[4]) == "the attempt took longer than 0.25 s"
    assert isinstance(results[4].__cause__, asyncio.CancelledError)


def test_what_took_too_long_is_tried_again():
    """The limit applies to one attempt."""
    tried = itertools.count()

    @opero(retries=2, min_delay=0, max_delay=0)
    async def slow_at_first(x):
        await asyncio.sleep(30 if next(tried) == 0 else 0)
        return x

    assert run(amap(slow_at_first, [1], attempt_timeout=0.1)) == [1]


def test_what_comes_of_a_cancelled_attempt_does_not_count():
    """It may be another error, or a value."""

    @once
    async def stubborn(x):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            if x == 1:
                raise Flop from None
            if x == 2:
                raise SystemExit from None
            return x

    results = run(amap(stubborn, range(3), 1, attempt_timeout=0.02, chunk=3))
    assert kinds(results) == [AttemptTimeout] * 3
    assert kinds([error.__cause__ for error in results]) == [None, Flop, SystemExit]


def test_a_coroutine_that_blocks_is_not_cut():
    """Its value counts, though it came late."""

    @once
    async def blocks(x):
        time.sleep(0.03)
        return x

    assert run(amap(blocks, range(3), attempt_timeout=0.01)) == [0, 1, 2]


def test_time_limits_of_the_function_itself_are_its_own():
    """Neither limit is mistaken for the other."""

    @once
    async def waits(x):
        inner = 0.01 if x % 2 else 30
        await asyncio.wait_for(asyncio.Event().wait(), inner)

    results = run(amap(waits, range(6), 3, attempt_timeout=0.25, chunk=2))
    assert kinds(results) == [AttemptTimeout, asyncio.TimeoutError] * 3


def test_asyncio_timeout_inside_an_attempt_works():
    """It counts how often its task was cancelled."""

    @once
    async def waits(x):
        try:
            async with asyncio.timeout(0.01 if x % 2 else 30):
                await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)

    results = run(amap(waits, range(6), 3, attempt_timeout=0.25, chunk=2))
    assert kinds(results) == [AttemptTimeout, TimeoutError] * 3


def test_an_attempt_that_ends_when_its_time_does_is_reported_once():
    """The item after it is not cancelled, whichever comes first."""

    @once
    async def close_call(x):
        await asyncio.sleep(0.002)
        return x

    results = run(amap(close_call, range(400), 20, attempt_timeout=0.002, chunk=4))
    assert len(results) == 400
    for x, result in enumerate(results):
        assert result == x or isinstance(result, AttemptTimeout)


def test_an_attempt_that_does_not_heed_its_cancellation_is_given_up(monkeypatch):
    """Another task does the rest of its job; it is cancelled again at the end of the map."""
    monkeypatch.setattr(tasks, "_GRACE", 0.02)
    cancelled = 0

    @once
    async def deaf(x):
        nonlocal cancelled
        while x == 1 and cancelled < 2:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled += 1
        return x

    results = run(amap(deaf, range(4), 1, attempt_timeout=0.01, chunk=4))
    assert kinds(results) == [0, AttemptTimeout, 2, 3]
    assert cancelled == 2


def test_one_that_takes_long_to_tidy_up_delays_no_other_time_limit(monkeypatch):
    """One timer serves all attempts."""
    monkeypatch.setattr(tasks, "_GRACE", 60)
    ended = set()

    @once
    async def slow(x):
        try:
            await asyncio.sleep(30)
        finally:
            ended.add(x)
            if x == 0:
                await until_async(lambda: len(ended) == 5)

    assert kinds(run(amap(slow, range(5), 2, attempt_timeout=0.02))) == [AttemptTimeout] * 5


def test_an_attempt_that_never_ends_is_left_to_the_loop(monkeypatch, caplog):
    """A warning says so."""
    monkeypatch.setattr(tasks, "_GRACE", 0.02)
    gate = False

    @once
    async def deaf(x):
        while x == 1 and not gate:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                pass
        return x

    async def main():
        nonlocal gate
        results = await amap(deaf, range(4), 2, attempt_timeout=0.01)
        gate = True
        (left,) = asyncio.all_tasks() - before
        left.cancel()
        await asyncio.wait({left})
        return results

    async def around():
        before.update(asyncio.all_tasks())
        return await main()

    before: set[Any] = set()
    with caplog.at_level(logging.WARNING, "opero"):
        assert kinds(run(around())) == [0, AttemptTimeout, 2, 3]
    assert [record.getMessage()[:10] for record in caplog.records] == ["1 attempts"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_attempt_that_never_ends_does_not_keep_a_map_from_returning(loop, monkeypatch, caplog):
    """That includes maps whose loop opero makes and closes."""
    monkeypatch.setattr(tasks, "_GRACE", 0.02)

    @opmap(mode="async", workers=2, retries=1, attempt_timeout=0.01, loop=loop, progress=False)
    async def deaf(x):
        while x == 1:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                pass
        return x

    for _ in range(2):
        with caplog.at_level(logging.WARNING, "opero"):
            assert kinds(deaf(range(4))) == [0, AttemptTimeout, 2, 3]
            assert kinds(deaf.stream(range(4))) == [0, AttemptTimeout, 2, 3]
    gc.collect()
    left = [message for message in caplog.messages if "leaves them to the event loop" in message]
    assert len(left) == 4
    assert not [message for message in caplog.messages if "destroyed" in message]


# --- cancellation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("limit", [None, 0.003])
def test_a_map_that_is_cancelled_leaves_nothing(loop, limit):
    """No task, warning or error remains, over 100 repetitions on each loop."""
    dice = random.Random(repr((loop, limit)))
    inside = 0

    @opero(retries=2, min_delay=0, max_delay=0.0002)
    async def work(x):
        nonlocal inside
        inside += 1
        try:
            for _ in range(dice.randrange(3)):
                await asyncio.sleep(dice.choice([0, 0, 0.0003, 0.005]))
            if dice.random() < 0.2:
                raise Flop
        finally:
            try:
                if dice.random() < 0.3:
                    await asyncio.sleep(0)
            finally:
                inside -= 1
        return x

    async def main():
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        ended = 0
        for _ in range(100):
            task = asyncio.ensure_future(amap(work, range(40), dice.randint(1, 6), limit))
            for _ in range(dice.randrange(12)):
                await asyncio.sleep(dice.choice([0, 0, 0.0005]))
            for _ in range(dice.choice([1, 1, 2])):
                task.cancel()
                await asyncio.sleep(0)
            await asyncio.wait({task})
            ended += task.cancelled()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert inside == 0
        gc.collect()
        assert not complaints
        return ended

    assert event_loops.run(main, loop) > 50


def test_a_close_that_is_cancelled_passes_it_on():
    """It still waits for the end."""
    log = []

    async def slow_to_go(x):
        for _ in range(2):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                log.append("heard")
        await asyncio.sleep(0)
        log.append("gone")

    async def main():
        engine = new_engine(slow_to_go)
        engine.start(0, new_job(1))
        await asyncio.sleep(0.001)
        closing = asyncio.ensure_future(engine.close(True))
        await until_async(lambda: log == ["heard"])
        closing.cancel()
        await asyncio.wait({closing})
        assert closing.cancelled()
        assert log == ["heard", "heard", "gone"]

    run(main())


def test_a_slot_that_somebody_else_cancels_costs_its_item_only():
    """The rest of its job goes to a new task."""

    @once
    async def work(x):
        if x == 2:
            (slot,) = (task for task in asyncio.all_tasks() if "slot" in task.get_name())
            asyncio.get_running_loop().call_soon(slot.cancel)
        await asyncio.sleep(0.001)
        return x

    results = run(amap(work, range(6), 1, chunk=6))
    assert kinds(results) == [0, 1, asyncio.CancelledError, 3, 4, 5]


def test_a_function_that_cancels_its_own_task_hits_no_other_item():
    """The cancellation does not wait for the next `await`."""

    @once
    async def work(x):
        if x == 2:
            asyncio.current_task().cancel()
        if x == 3:
            await asyncio.sleep(0)
        return x

    assert run(amap(work, range(6), 1, chunk=6)) == list(range(6))


def later(task: Any) -> None:
    """Cancel a task by a timer that nothing stops."""
    asyncio.get_running_loop().call_later(0.02, task.cancel)


def from_a_thread(task: Any) -> None:
    """Cancel a task from another thread."""
    loop = asyncio.get_running_loop()
    threading.Timer(0.02, loop.call_soon_threadsafe, [task.cancel]).start()


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="this Python counts no references")
@pytest.mark.parametrize("cancels", [later, from_a_thread])
@pytest.mark.parametrize("chunk", [1, 9])
def test_what_was_meant_for_an_item_that_has_ended_hits_no_other(cancels, chunk):
    """Its task ends, because something still refers to it."""
    known = []

    @once
    async def work(x):
        if x == 2:
            known.append(asyncio.current_task())
        if x == 4:
            cancels(known[0])
        await asyncio.sleep(0.001 if x < 3 else 0.03)
        return x

    assert run(amap(work, range(9), 1, chunk=chunk)) == list(range(9))


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="this Python counts no references")
def test_items_share_a_task_unless_it_is_kept():
    """A new task costs as much as ten items."""
    kept: list[Any] = []

    async def waits(x):
        async with asyncio.timeout(60):
            await asyncio.wait_for(asyncio.sleep(0), 60)
        return id(asyncio.current_task())

    async def keeps(x):
        kept.append(asyncio.current_task())
        return id(asyncio.current_task())

    assert len(set(run(amap(once(waits), range(20), 1)))) == 1
    assert len(set(run(amap(once(keeps), range(20), 1)))) == 20
    assert all(task.done() for task in kept)


@pytest.mark.parametrize("swallows", [False, True])
def test_an_engine_that_nobody_closes_does_not_keep_asyncio_run_from_ending(swallows):
    """Its idle and busy tasks end when they are cancelled."""
    events = []

    async def work(x):
        try:
            await asyncio.sleep(30 if x else 0)
        except asyncio.CancelledError:
            if not swallows:
                raise
        return x

    async def main():
        engine = new_engine(work, 3)
        events.append(engine)
        engine.start(0, new_job(0))
        engine.start(1, new_job(1, 1, 1))
        await engine.wait(None)
        engine.start(2, new_job(1))

    Thread(asyncio.run, main()).result()
    (engine,) = events
    crashes = {event.slot: event for event in engine._events}
    assert isinstance(crashes[1], Crash)
    assert crashes[1].results == [1 if swallows else NOTHING]


def test_an_engine_that_was_never_started_can_be_closed():
    """Closing it twice is fine too."""

    async def main():
        engine = new_engine(asyncio.sleep, 3)
        await engine.close(True)
        engine = new_engine(asyncio.sleep, 3)
        engine.start(1, new_job(0))
        await engine.wait(None)
        await engine.close(False)
        await engine.close(True)

    run(main())


# --- event_loops.run ------------------------------------------------------------------------------------


def module_of_the_loop() -> Callable[[], Any]:
    """Return a coroutine function that names the module of its loop."""

    async def name() -> str:
        return type(asyncio.get_running_loop()).__module__.split(".")[0]

    return name


def test_uvloop_is_used_where_it_is_wanted_and_there(monkeypatch):
    """Asking for it where it is missing is an error."""
    name = module_of_the_loop()
    assert event_loops.run(name) == "uvloop"
    assert event_loops.run(name, "uvloop") == "uvloop"
    assert event_loops.run(name, "asyncio") == "asyncio"
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert event_loops.run(name) == "asyncio"
    with pytest.raises(ImportError):
        event_loops.run(name, "uvloop")


def test_uvloop_is_imported_only_where_it_is_wanted():
    """Neither opero itself nor the other loop imports it."""
    script = """
import sys
import opero.map.event_loops, opero.map.engines.tasks, opero.map.engines.processes.worker_loop
async def nothing(): pass
opero.map.event_loops.run(nothing, "asyncio")
assert "uvloop" not in sys.modules
opero.map.event_loops.run(nothing)
assert "uvloop" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=60)


class Leftovers:
    """A coroutine that leaves all kinds of things behind.

    Attributes:
        loop: The loop it ran in.
        log: What was tidied up.
    """

    def __init__(self) -> None:
        self.loop: Any = None
        self.log: list[str] = []

    async def main(self, error: BaseException | None = None) -> tuple[str, bool]:
        """Leave things behind."""
        self.loop = asyncio.get_running_loop()
        self.left = asyncio.ensure_future(self.task())
        await asyncio.sleep(0)  # it begins: one that has not has nothing to tidy up
        self.steps = self.generator()
        await self.steps.__anext__()
        await self.loop.run_in_executor(None, self.log.append, "executor")
        seen = Variable.get()
        Variable.set("changed inside")
        if error is not None:
            raise error
        return seen, threading.current_thread() is threading.main_thread()

    async def task(self) -> None:
        """Wait for ever."""
        try:
            await asyncio.sleep(30)
        finally:
            self.log.append("task")

    async def generator(self) -> AsyncIterator[int]:
        """Stop halfway."""
        try:
            yield 1
        finally:
            self.log.append("generator")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_run_leaves_nothing_over(loop, inside):
    """It may run in a helper thread beside a running loop; it sees the caller's context."""

    def call(*args: Any) -> tuple[Any, Leftovers]:
        leftovers = Leftovers()
        try:
            return event_loops.run(lambda: leftovers.main(*args), loop), leftovers
        except BaseException as error:  # noqa: BLE001 - it is looked at
            return error, leftovers

    async def within(*args: Any) -> tuple[Any, Leftovers]:
        return call(*args)

    def do(*args: Any) -> tuple[Any, Leftovers]:
        return asyncio.run(within(*args)) if inside else call(*args)

    def both() -> None:
        Variable.set("mine")
        value, leftovers = do()
        assert value == ("mine", not inside)
        assert Variable.get() == "mine"
        assert leftovers.loop.is_closed()
        assert sorted(leftovers.log) == ["executor", "generator", "task"]
        for error in [Flop(), SystemExit(3), asyncio.CancelledError()]:
            value, leftovers = do(error)
            assert type(value) is type(error)
            assert leftovers.loop.is_closed()
            assert len(leftovers.log) == 3

    contextvars.copy_context().run(both)


def interrupt_soon(condition: Callable[[], Any]) -> Thread:
    """Send this process a SIGINT once the condition holds."""

    def wait() -> None:
        end = time.monotonic() + 20
        while not condition() and time.monotonic() < end:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    return Thread(wait)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("inside", ["nothing", "asyncio.run", "a bare loop"])
def test_ctrl_c_cancels_the_work_and_waits_for_its_end(loop, inside):
    """That includes a helper thread, and nothing remains."""
    log = []

    async def slow(x):
        log.append("begun")
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.01)
            log.append("ended")

    def call() -> None:
        event_loops.run(lambda: amap(once(slow), range(3), 2), loop)

    async def within() -> None:
        call()

    def enter() -> None:
        if inside == "nothing":
            call()
        elif inside == "asyncio.run":
            asyncio.run(within())  # it has a handler of its own
        else:
            outer = asyncio.new_event_loop()
            try:
                outer.run_until_complete(within())
            finally:
                outer.close()

    handler = signal.getsignal(signal.SIGINT)
    hand = interrupt_soon(lambda: len(log) == 2)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        enter()
    hand.wait()
    assert time.monotonic() - begun < 10
    assert log == ["begun", "begun", "ended", "ended"]
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_ctrl_c_just_before_a_wait_ends_it(loop):
    """As it comes to a thread that does not wait, it does not interrupt the wait itself."""
    log = []

    async def slow(x):
        log.append("begun")
        await asyncio.sleep(60)

    begun = time.monotonic()
    interrupt_soon(lambda: len(log) == 2)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # so the other thread gets it
    try:
        with pytest.raises(KeyboardInterrupt):
            event_loops.run(lambda: amap(once(slow), range(2), 2), loop)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    assert time.monotonic() - begun < 30
    assert signal.set_wakeup_fd(-1) == -1


def test_a_program_that_listens_for_signals_itself_goes_on_hearing_them():
    """A toolkit for windows may have set the descriptor to which Python writes signals."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno())

    async def interrupt(x):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    with ours, theirs:
        with pytest.raises(KeyboardInterrupt):
            event_loops.run(lambda: amap(once(interrupt), range(1), 1), "asyncio")
        assert signal.set_wakeup_fd(-1) == theirs.fileno()
        assert ours.recv(10) == bytes([signal.SIGINT])


def test_a_program_that_handles_ctrl_c_itself_is_left_alone():
    """Its handler is called, and the map continues."""
    log = []

    async def main() -> str:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(0.01)
        return "done"

    before = signal.signal(signal.SIGINT, lambda *_: log.append("mine"))
    try:
        assert event_loops.run(main) == "done"
    finally:
        signal.signal(signal.SIGINT, before)
    assert log == ["mine"]


# --- worker processes -----------------------------------------------------------------------------


@pytest.fixture
def coroutines():
    """Run jobs as a worker process does, and close its loop at the end."""

    def do(function: Any, values: list[Any], concurrency: int = 4, **options: Any) -> Any:
        given = {"shared": {}, "invoked": False, "note": None, "attempt_timeout": None, **options}
        return worker_loop.run_coroutines(function, values=values, concurrency=concurrency, **given)

    yield do
    worker_loop.close_worker_loop()
    assert worker_loop._own is None


def test_a_worker_runs_as_many_coroutines_at_once_as_it_may(coroutines):
    """Their results come in order, each is announced, and the loop stays."""
    running = most = 0
    log = []
    seen = set()

    async def work(x, plus):
        nonlocal running, most
        running += 1
        most = max(most, running)
        seen.add(asyncio.get_running_loop())
        assert log[-1] == ("note", x)
        await asyncio.sleep(0.001 * (x % 3))
        running -= 1
        log.append(("done", x))
        if x % 9 == 4:
            raise Flop(x)
        return x + plus

    for _ in range(2):
        log.clear()
        results, failures = coroutines(
            work,
            list(range(40)),
            shared={"plus": 100},
            note=lambda place: log.append(("note", place)),
        )
        bad = [4, 13, 22, 31]
        assert [result for result in results if result is not NOTHING] == [
            x + 100 for x in range(40) if x not in bad
        ]
        assert [place for place, _ in failures] == bad
        assert [error.args for _, error in failures] == [(place,) for place in bad]
        assert [place for kind, place in log if kind == "note"] == list(range(40))
        assert sorted(place for kind, place in log if kind == "done") == list(range(40))
        under_way = set()
        for _, place in log:
            under_way ^= {place}
            assert len(under_way) <= 4
    assert most == 4
    assert len(seen) == 1


def test_a_worker_changes_its_loop_if_a_map_wants_another(coroutines):
    """A warm worker may have the loop of an earlier map."""

    async def name(x):
        return type(asyncio.get_running_loop()).__module__.split(".")[0]

    for wanted in ["asyncio", "uvloop", "asyncio"]:
        assert coroutines(name, [0], loop=wanted) == ([wanted], [])


def test_a_worker_has_time_limits_and_fallback_arguments(coroutines):
    """The engine has them too."""

    async def work(x, plus=0):
        await asyncio.sleep(x)
        return x + plus

    results, failures = coroutines(work, [0, 30, 0], attempt_timeout=0.2, shared={"plus": 1})
    assert results == [1, NOTHING, 1]
    assert [(place, type(error)) for place, error in failures] == [(1, AttemptTimeout)]
    assert coroutines(work, [Invocation((0,), {"plus": 5})], invoked=True) == ([5], [])


def test_a_worker_gives_up_what_does_not_heed_its_cancellation(coroutines, monkeypatch):
    """The other items run, and are announced in the same way."""
    monkeypatch.setattr(tasks, "_GRACE", 0.02)
    stop = False
    begun = []

    async def deaf(x):
        while x == 2 and not stop:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass
        return x

    results, failures = coroutines(deaf, list(range(8)), 1, attempt_timeout=0.01, note=begun.append)
    assert [*results[:2], *results[3:]] == [0, 1, 3, 4, 5, 6, 7]
    assert [(place, type(error)) for place, error in failures] == [(2, AttemptTimeout)]
    assert begun == list(range(8))
    stop = True


def test_a_worker_survives_what_its_items_raise(coroutines):
    """It also survives a function that cancels its own task."""

    async def fatal(x):
        if x == 0:
            raise SystemExit
        if x == 1:
            raise asyncio.CancelledError
        if x == 2:
            asyncio.current_task().cancel()
        await asyncio.sleep(0)
        return x

    results, failures = coroutines(fatal, list(range(6)), 2)
    assert results[3:] == [3, 4, 5]
    assert [(place, type(error)) for place, error in failures] == [
        (0, SystemExit),
        (1, asyncio.CancelledError),
        (2, asyncio.CancelledError),
    ]


def test_an_error_of_the_worker_itself_comes_out(coroutines):
    """If it cannot announce an attempt, it reports nothing, and restarts with the next job."""

    async def work(x):
        await asyncio.sleep(0)
        return x

    def note(place: int) -> None:
        if place == 3:
            raise OSError("the pipe is broken")

    with pytest.raises(OSError, match="broken"):
        coroutines(work, list(range(8)), 2, note=note)
    assert coroutines(work, [1, 2], 2) == ([1, 2], [])


def test_a_forked_worker_makes_a_loop_of_its_own(coroutines):
    """Two processes in one loop would take each other's events."""

    async def where(x):
        await asyncio.sleep(0.001)
        return id(asyncio.get_running_loop())

    ((mine,), _) = coroutines(where, [0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            ((theirs,), _) = coroutines(where, [0])
            code = 0 if theirs != mine else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert coroutines(where, [0]) == ([mine], [])


def test_python_310_counts_cancellations_as_later_versions_do():
    """A slot's task can see whether it was asked to end."""

    async def main():
        async def wait() -> None:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                counted.append(task.cancelling())
                counted.append(task.uncancel())

        counted: list[int] = []
        task = asyncio.Task(wait(), loop=asyncio.get_running_loop())
        await asyncio.sleep(0)
        assert task.cancelling() == 0
        task.cancel()
        task.cancel()
        await asyncio.wait({task})
        assert counted == [2, 1]

    run(main())
