"""Callers that go away: cancelled tasks, closed coroutines, interrupted threads.

Whoever goes leaves the others what they wait for, and nothing of itself.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from crowd import (
    Job,
    flights_of,
    followers,
    hurried_switching,
    run,
    standing_clock,
    together,
    until,
    until_async,
)

from opero import DeadlineExceeded, RateLimiter, opero
from opero.runners import sync


async def settle(turns: int = 5) -> None:
    """Let every task that can continue do so."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def over(*tasks: asyncio.Future[Any]) -> list[Any]:
    """Wait for tasks and return the outcome of each, value or exception."""
    await asyncio.wait(tasks)
    return [
        asyncio.CancelledError() if task.cancelled() else task.exception() or task.result()
        for task in tasks
    ]


def kinds(outcomes: list[Any]) -> list[Any]:
    """Return the type of every exception, and every value unchanged."""
    return [type(each) if isinstance(each, BaseException) else each for each in outcomes]


class Source:
    """A cached coroutine function that waits for a gate, and takes its time to tidy up.

    Attributes:
        log: What has happened.
        cut: How often a run was cancelled while it tidied up.
        gate: Opened to let the runs end.
        fetch: The decorated function.
    """

    def __init__(self, tidying: int = 3, **options: Any) -> None:
        """Make one.

        Args:
            tidying: How many turns of the loop tidying up takes.
            **options: For `opero`.
        """
        self.log: list[str] = []
        self.cut = 0
        self.gate = asyncio.Event()

        @opero(**{"retries": 1, "cache": True, **options})
        async def fetch(key: Any = 1) -> Any:
            self.log.append("start")
            try:
                await self.gate.wait()
                self.log.append("end")
                return key
            except asyncio.CancelledError:
                self.log.append("cancelled")
                raise
            finally:
                try:
                    await settle(tidying)
                except asyncio.CancelledError:
                    self.cut += 1
                    raise
                finally:
                    self.log.append("tidy")

        self.fetch = fetch

    async def callers(self, count: int) -> list[asyncio.Task[Any]]:
        """Start tasks that call the function, and wait until all of them wait."""
        tasks = [asyncio.create_task(self.fetch()) for _ in range(count)]
        await settle()
        return tasks

    def nothing_left(self) -> None:
        """Check that no run, task or entry is left."""
        assert self.fetch.__opero__.store is None or self.fetch.__opero__.store.flights == {}
        assert len(asyncio.all_tasks()) == 2, asyncio.all_tasks()  # `run` and its own task


# --- tasks that share a run -------------------------------------------------------------------------


@pytest.mark.parametrize("who", [0, 3, 9], ids=["leader", "follower", "last"])
def test_a_cancelled_caller_does_not_disturb_the_others(who):
    """The run continues; only the cancelled caller gets nothing."""

    async def main():
        source = Source()
        tasks = await source.callers(10)
        tasks[who].cancel()
        await settle()
        assert tasks[who].cancelled()
        assert not any(task.done() for task in tasks if task is not tasks[who])
        source.gate.set()
        outcomes = kinds(await over(*tasks))
        assert outcomes == [1] * who + [asyncio.CancelledError] + [1] * (9 - who)
        assert source.log == ["start", "end", "tidy"]
        assert await source.fetch() == 1
        source.nothing_left()

    run(main())


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
def test_all_but_one_may_go_and_the_one_gets_its_value(at_once):
    """999 of 1,000 callers are cancelled, including the leader; the run is not."""

    async def main():
        source = Source()
        tasks = await source.callers(1000)
        for task in tasks[:-1]:
            task.cancel()
            if not at_once:
                await asyncio.sleep(0)
        await settle()
        source.gate.set()
        assert await tasks[-1] == 1
        assert all(task.cancelled() for task in tasks[:-1])
        assert source.log == ["start", "end", "tidy"]
        source.nothing_left()

    run(main())


@pytest.mark.parametrize("count", [1, 2, 100])
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
def test_the_run_is_cancelled_with_its_last_caller_and_tidied_up_before_that_one_returns(
    count, at_once
):
    """The function's own finally-block has run to its end when the last caller's task is done."""

    async def main():
        source = Source()
        tasks = await source.callers(count)
        for task in tasks[:-1]:
            task.cancel()
            if not at_once:
                await settle()
        assert source.log == ["start"]
        tasks[-1].cancel()
        outcomes = await over(*tasks)
        assert kinds(outcomes) == [asyncio.CancelledError] * count
        assert source.log == ["start", "cancelled", "tidy"]
        source.nothing_left()
        assert len(source.fetch.__opero__.store) == 0
        source.gate.set()
        assert await source.fetch() == 1

    run(main())


def test_a_newcomer_does_not_join_a_run_that_is_being_cancelled():
    """It starts a new run, and gets a value although the old run ends cancelled."""

    async def main():
        source = Source(tidying=20)
        (last,) = await source.callers(1)
        last.cancel()
        await settle()
        assert source.log == ["start", "cancelled"]
        source.gate.set()
        newcomers = [asyncio.create_task(source.fetch()) for _ in range(5)]
        assert kinds(await over(*newcomers)) == [1] * 5
        assert kinds(await over(last)) == [asyncio.CancelledError]
        assert sorted(source.log) == ["cancelled", "end", "start", "start", "tidy", "tidy"]
        assert await source.fetch() == 1
        source.nothing_left()

    run(main())


def test_a_run_that_answers_its_cancellation_with_a_value_does_not_have_it_stored_late():
    """Its caller stays cancelled, and its value does not overwrite that of a new run."""
    runs = []

    @opero(retries=1, cache=True)
    async def fetch():
        number = len(runs)
        runs.append(number)
        try:
            await asyncio.sleep(60 if number == 0 else 0)
        except asyncio.CancelledError:
            await settle(30)
        return f"value {number}"

    async def main():
        first = asyncio.create_task(fetch())
        await settle()
        first.cancel()
        await settle()
        assert await fetch() == "value 1"
        assert kinds(await over(first)) == [asyncio.CancelledError]
        assert await fetch() == "value 1"
        assert fetch.__opero__.store.flights == {}

    run(main())


@pytest.mark.parametrize(
    "options",
    [{"retries": 2}, {"timeout": 30}, {"cache": True}, {"timeout": 30, "cache": True}],
    ids=repr,
)
def test_what_is_shielded_from_a_scope_that_cancels_again_and_again_ends_in_peace(options):
    """An anyio scope cancels in each cycle of the loop until the block is left."""
    ended = []

    @opero(**options)
    async def work(key):
        try:
            await anyio.sleep(10)
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(5):
                    await anyio.sleep(0.01)
                ended.append(key)

    async def main():
        with anyio.move_on_after(0.02) as scope:
            await work(1)
        assert scope.cancelled_caught
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                for key in (2, 3):
                    group.start_soon(work, key)
                await anyio.sleep(0.01)
                scope.cancel()

    run(main())
    assert sorted(ended) == [1, 2, 3]


@pytest.mark.parametrize("options", [{}, {"cache": True}], ids=repr)
def test_a_scope_knows_its_own_cancellation_of_a_caller_whose_deadline_has_passed(options):
    """The caller waits for the cleanup of a run, and the scope around the caller ends meanwhile."""

    @opero(retries=1, timeout=0.02, **options)
    async def work(scope):
        try:
            await anyio.sleep(10)
        finally:
            with anyio.CancelScope(shield=True):
                scope.cancel()
                await anyio.sleep(0.02)

    async def main():
        with anyio.CancelScope() as scope:
            await work(scope)
        assert scope.cancelled_caught
        assert asyncio.current_task().cancelling() == 0

    run(main())


@pytest.mark.parametrize("message", [(), ("the second",)], ids=repr)
def test_a_second_cancellation_reaches_a_run_that_has_withstood_the_first(message):
    """As without opero: a function whose cleanup takes long can be cut during it."""
    log = []

    @opero(retries=1, cache=True)
    async def fetch():
        try:
            await asyncio.sleep(60)
        finally:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                log.append("cut twice")
                raise

    async def main():
        task = asyncio.create_task(fetch())
        await settle()
        task.cancel()
        await settle()
        assert not task.done()
        task.cancel(*message)
        assert kinds(await over(task)) == [asyncio.CancelledError]
        assert log == ["cut twice"]
        assert fetch.__opero__.store.flights == {}

    run(main())


@pytest.mark.parametrize("turns", range(10))
@pytest.mark.parametrize("who", [0, 1, 2], ids=["leader", "follower", "all"])
def test_cancelling_at_any_turn_of_the_loop_leaves_nothing(turns, who):
    """Before the run starts, while it starts, ends or is stored, and after that."""

    async def main():
        source = Source(tidying=1)
        source.gate.set()
        tasks = [asyncio.create_task(source.fetch()) for _ in range(3)]
        await settle(turns)
        hit = tasks if who == 2 else [tasks[who]]
        for task in hit:
            task.cancel()
        outcomes = await over(*tasks)
        for task, outcome in zip(tasks, outcomes, strict=True):
            assert outcome == 1 or (task in hit and task.cancelled())
        assert source.log.count("tidy") == source.log.count("start") <= 1
        source.nothing_left()
        assert await source.fetch() == 1
        assert source.log.count("start") <= 2

    run(main())


@pytest.mark.parametrize("options", [{"cache": True}, {"cache": False, "timeout": 60}], ids=str)
def test_a_caller_cancelled_with_a_reason_keeps_it(options):
    """The caller gets the same exception object, message included."""

    async def main():
        source = Source(**options)

        async def caller():
            try:
                await source.fetch()
            except asyncio.CancelledError as error:
                return error.args

        task = asyncio.create_task(caller())
        await settle()
        task.cancel("enough")
        assert await task == ("enough",)
        assert source.log == ["start", "cancelled", "tidy"]

    run(main())


@pytest.mark.parametrize(
    "options",
    [
        {"cache": True},
        {"cache": False},
        {"cache": False, "retries": 3},
        {"cache": False, "timeout": 60},
        {"cache": True, "timeout": 60, "retries": 3, "rate_limit": 1e6},
    ],
    ids=str,
)
def test_wait_for_cuts_a_decorated_function_like_any_other(options):
    """`asyncio.wait_for` raises its TimeoutError after the function has cleaned up."""

    async def main():
        source = Source(**options)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(source.fetch(), 0.01)
        assert source.log == ["start", "cancelled", "tidy"]
        source.nothing_left()

    run(main())


@pytest.mark.parametrize("options", [{"cache": True}, {"cache": False, "retries": 3}], ids=str)
def test_a_timeout_block_around_a_call_works_and_a_later_call_is_retried_again(options):
    """The block withdraws its cancellation, and opero respects that."""

    async def main():
        source = Source(**options)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await source.fetch()
        assert source.log == ["start", "cancelled", "tidy"]
        attempts = []

        @opero(retries=3, min_delay=0, max_delay=0)
        async def flaky():
            attempts.append(1)
            if len(attempts) < 3:
                raise ValueError
            return "value"

        assert await flaky() == "value"

    run(main())


async def _tidies_up(taken: list[str], go_on: asyncio.Event) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        taken.append("tidies up")
        await go_on.wait()


async def _under_asyncio(taken: list[str], go_on: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(0):
            await _tidies_up(taken, go_on)
    except TimeoutError:
        taken.append("taken back")


async def _under_anyio(taken: list[str], go_on: asyncio.Event) -> None:
    with anyio.move_on_after(0):
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                taken.append("tidies up")
                await go_on.wait()
    taken.append("taken back")


async def _under_opero(taken: list[str], go_on: asyncio.Event) -> None:
    try:
        await opero(retries=1, timeout=0.001)(_tidies_up)(taken, go_on)
    except DeadlineExceeded:
        taken.append("taken back")


async def _on_its_own(taken: list[str], go_on: asyncio.Event) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await _tidies_up(taken, go_on)
    except asyncio.CancelledError:
        task.uncancel()
        taken.append("taken back")


@pytest.mark.parametrize("inside", [_under_asyncio, _under_anyio, _under_opero, _on_its_own])
@pytest.mark.parametrize("options", [{}, {"timeout": 60}], ids=str)
@pytest.mark.parametrize("scoped", [True, False])
def test_a_run_that_takes_a_cancellation_of_its_own_back_is_cancelled_nevertheless(
    inside, options, scoped
):
    """Its last caller left meanwhile, and waits for its end."""
    taken: list[str] = []
    go_on: Any = None
    scope: Any = None

    @opero(retries=1, cache=True, **options)
    async def fetch():
        await inside(taken, go_on)
        await asyncio.sleep(60)

    async def call():
        with scope:
            await fetch()
        return "left the scope"

    async def main():
        nonlocal go_on, scope
        go_on, scope = asyncio.Event(), anyio.CancelScope()
        task = asyncio.create_task(call())
        await until_async(lambda: taken)
        if scoped:
            scope.cancel()
        else:
            task.cancel()
        await settle()
        assert not task.done()
        go_on.set()
        end = "left the scope" if scoped else asyncio.CancelledError
        assert kinds(await over(task)) == [end]
        assert taken[0] == "tidies up"
        assert flights_of(fetch) == []

    run(main())


@pytest.mark.parametrize(
    "options",
    [{"cache": True}, {"cache": False, "timeout": 60}, {"cache": False, "retries": 3}],
    ids=str,
)
def test_the_end_of_asyncio_run_lets_a_function_tidy_up(options):
    """All tasks, callers and runs, are cancelled once, and no finally-block is cut."""

    async def main():
        nonlocal source
        source = Source(tidying=8, **options)
        tasks.extend([asyncio.ensure_future(source.fetch()) for _ in range(3)])
        await settle()

    tasks: list[Any] = []
    source: Any = None
    asyncio.run(main())
    assert source.log.count("start") == source.log.count("cancelled") == source.log.count("tidy")
    assert source.cut == 0
    assert all(task.cancelled() for task in tasks)
    if options["cache"]:
        assert flights_of(source.fetch) == []


# --- no attempt after a cancellation ----------------------------------------------------------------

FUSSY = [{}, {"cache": True}, {"timeout": 60}, {"rate_limit": 1e6}]


@pytest.mark.parametrize("options", FUSSY, ids=str)
def test_a_cancelled_attempt_is_never_retried(options):
    """Not even if `retry_on` covers everything."""
    attempts = []

    @opero(retries=5, min_delay=0, max_delay=0, retry_on=lambda error: True, **options)
    async def fetch():
        attempts.append(1)
        await asyncio.sleep(60)

    async def main():
        task = asyncio.create_task(fetch())
        await until_async(lambda: attempts)
        task.cancel()
        assert kinds(await over(task)) == [asyncio.CancelledError]

    run(main())
    assert len(attempts) == 1


@pytest.mark.parametrize("options", FUSSY, ids=str)
def test_an_error_that_a_function_makes_of_its_cancellation_is_not_retried(options):
    """Libraries do that; the call is to end all the same.

    A call that runs in its caller's own task can only know from the task.
    """
    attempts = []

    @opero(retries=5, min_delay=0, max_delay=0, **options)
    async def fetch():
        attempts.append(1)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ConnectionError("closed") from None

    async def main():
        task = asyncio.create_task(fetch())
        await until_async(lambda: attempts)
        task.cancel()
        (outcome,) = await over(task)
        assert isinstance(outcome, (asyncio.CancelledError, ConnectionError))

    run(main())
    assert len(attempts) == 1


def test_calls_in_the_tidying_up_of_a_cancelled_task_are_retried():
    """While a cancelled task cleans up, its calls are retried as usual."""
    attempts = []

    @opero(retries=3, min_delay=0, max_delay=0)
    async def flush():
        attempts.append(1)
        await asyncio.sleep(0)
        if len(attempts) < 3:
            raise OSError
        return "flushed"

    async def work():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return await flush()

    async def main():
        task = asyncio.create_task(work())
        await settle()
        task.cancel()
        assert await task == "flushed"

    run(main())


@pytest.mark.parametrize("options", [{}, {"cache": True}, {"timeout": 60}], ids=str)
def test_a_task_cancelled_in_a_backoff_ends_at_once(options):
    """It makes no further attempt, and does not wait for the end of the delay."""
    attempts = []

    @opero(retries=3, min_delay=50, max_delay=50, **options)
    async def fetch():
        attempts.append(1)
        raise ValueError

    async def main():
        start = time.monotonic()
        task = asyncio.create_task(fetch())
        await until_async(lambda: attempts)
        await settle()
        task.cancel()
        assert kinds(await over(task)) == [asyncio.CancelledError]
        assert time.monotonic() - start < 10

    run(main())
    assert len(attempts) == 1


def test_a_failing_sibling_in_a_gather_cancels_nothing_that_others_need():
    """The run continues for a caller outside when a caller inside is cancelled by its group."""

    async def main():
        source = Source()
        (outside,) = await source.callers(1)

        async def group():
            inside = asyncio.create_task(source.fetch())
            await settle()
            inside.cancel()
            await asyncio.wait([inside])
            raise ValueError

        with pytest.raises(ValueError):  # noqa: PT011 - its own
            await group()
        source.gate.set()
        assert await outside == 1

    run(main())


# --- coroutines that are closed, or never awaited ---------------------------------------------------

SHAPES = {
    "retries": {"cache": False, "retries": 3},
    "cache": {"cache": True},
    "timeout": {"cache": False, "timeout": 60},
    "limit": {"cache": False, "rate_limit": 1e6},
    "everything": {"cache": True, "retries": 3, "timeout": 60, "rate_limit": 1e6},
}


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_a_coroutine_closed_before_it_was_awaited_says_nothing(options):
    """As with a plain coroutine, closing it shows that it is not needed."""

    async def main():
        source = Source(**options)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            source.fetch().close()
            gc.collect()
        assert [str(warning.message) for warning in told] == []
        assert source.log == []
        source.nothing_left()

    run(main())


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_a_task_cancelled_before_it_starts_says_nothing(options):
    """Task groups do that; no coroutine inside may be left never awaited."""

    async def main():
        source = Source(**options)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            task = asyncio.create_task(source.fetch())
            task.cancel()
            assert kinds(await over(task)) == [asyncio.CancelledError]
            del task
            gc.collect()
        assert [str(warning.message) for warning in told] == []
        assert source.log == []
        source.nothing_left()

    run(main())


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_a_coroutine_that_is_never_awaited_leaves_a_warning_and_nothing_else(options):
    """Exactly one warning, as with a plain coroutine."""

    async def main():
        source = Source(**options)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            source.fetch()
            gc.collect()
        assert [warning.category for warning in told] == [RuntimeWarning]
        assert "never awaited" in str(told[0].message)
        source.nothing_left()
        source.gate.set()
        assert await source.fetch() == 1

    run(main())


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("leading", [True, False], ids=["leader", "follower"])
def test_a_coroutine_closed_while_it_waits_goes_like_a_cancelled_one(leading, options):
    """`close()` is quiet, other callers keep their run, and the last caller's run is cancelled."""

    async def main():
        source = Source(tidying=0, **options)
        other = [] if leading else await source.callers(1)
        coroutine = source.fetch()
        assert coroutine.send(None) is not None
        await settle()
        coroutine.close()
        await settle()
        if other:
            source.gate.set()
            assert kinds(await over(*other)) == [1]
        await settle()
        source.nothing_left()

    run(main())


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_a_coroutine_closed_after_its_loop_says_nothing(options):
    """The remains of a closed loop cause neither an error nor a warning."""
    loop = asyncio.new_event_loop()

    @opero(**{"retries": 1, **options})
    async def fetch():
        await asyncio.get_running_loop().create_future()

    async def begin():
        task = asyncio.ensure_future(fetch())
        await settle()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        return task, tasks

    task, tasks = loop.run_until_complete(begin())
    loop.close()
    for each in tasks:
        each._log_destroy_pending = False
    complaints = []
    before = sys.unraisablehook
    sys.unraisablehook = complaints.append
    try:
        task.get_coro().close()
        for each in tasks:
            each.get_coro().close()
        del task, each
        tasks.clear()
        gc.collect()
    finally:
        sys.unraisablehook = before
    assert complaints == []


# --- threads ----------------------------------------------------------------------------------------


def interrupt_main_thread_when(condition: Any) -> Job:
    """Interrupt this thread, as Ctrl-C does, as soon as a condition is met."""
    me = threading.main_thread().ident
    assert me is not None
    assert me == threading.get_ident(), "signals reach the main thread only"

    def work():
        until(condition)
        time.sleep(0.02)  # from "it is about to wait" to "it waits"
        signal.pthread_kill(me, signal.SIGINT)

    return Job(work)


def test_ctrl_c_in_a_follower_leaves_the_run_to_the_others():
    """The interrupted thread gets its KeyboardInterrupt immediately and stops following."""
    gate = threading.Event()

    @opero(retries=1, cache=True)
    def fetch():
        gate.wait(10)
        return "value"

    others = [Job(fetch), Job(fetch)]
    until(lambda: followers(fetch) == 1)
    interrupter = interrupt_main_thread_when(lambda: followers(fetch) == 2)
    with pytest.raises(KeyboardInterrupt):
        fetch()
    interrupter.result()
    assert followers(fetch) == 1
    assert threading.get_ident() not in sync._waiting
    gate.set()
    assert [job.result() for job in others] == ["value"] * 2
    assert flights_of(fetch) == []


def test_ctrl_c_in_the_leader_leaves_its_followers_to_run_once_more():
    """They do not get the KeyboardInterrupt of another thread."""
    runs = []

    @opero(retries=3, cache=True)
    def fetch():
        runs.append(1)
        if len(runs) == 1:
            threading.Event().wait(10)
        return "value"

    jobs = []

    def come_and_interrupt():
        until(lambda: runs)
        jobs.extend([Job(fetch), Job(fetch)])
        until(lambda: followers(fetch) == 2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    helper = Job(come_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch()
    helper.result()
    assert [job.result() for job in jobs] == ["value"] * 2
    assert len(runs) == 2
    assert flights_of(fetch) == []


@pytest.mark.parametrize("cached", [False, True])
def test_ctrl_c_in_a_backoff_ends_it_at_once(cached):
    """The KeyboardInterrupt is neither retried nor wrapped."""
    attempts = []

    @opero(retries=3, min_delay=30, max_delay=30, cache=cached)
    def fetch():
        attempts.append(1)
        raise ValueError

    interrupter = interrupt_main_thread_when(lambda: attempts)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch()
    assert time.monotonic() - start < 10
    interrupter.result()
    assert len(attempts) == 1
    if cached:
        assert flights_of(fetch) == []


def test_ctrl_c_in_a_wait_for_a_permit_leaves_the_line():
    """The next waiter moves up, and the function is not called."""
    limiter = RateLimiter(0.01)
    limiter.acquire_sync()
    calls = []
    fetch = opero(retries=3, rate_limit=limiter)(lambda: calls.append(1))
    interrupter = interrupt_main_thread_when(lambda: len(limiter._queue) == 1)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch()
    assert time.monotonic() - start < 10
    interrupter.result()
    assert not limiter._queue
    assert limiter._bucket.queued == 0
    assert calls == []


def interrupt_over_and_over(work: Callable[[], Any], seconds: float) -> None:
    """Repeat `work` in four threads, and interrupt each repeatedly, wherever it is."""
    stop = threading.Event()
    interrupted = [0] * 4
    ready = [False] * 4

    def steadily(number):
        ready[number] = True
        while not stop.is_set():
            work()

    def stubbornly(number):
        while not stop.is_set():
            try:
                steadily(number)  # a call: some jumps between a loop's statements are in no `try`
            except KeyboardInterrupt:
                interrupted[number] += 1

    workers = [Job(stubbornly, number) for number in range(4)]
    end = time.monotonic() + seconds
    with hurried_switching(1e-5):
        while time.monotonic() < end or sum(interrupted) <= 40:  # a busy machine takes longer
            for number, worker in enumerate(workers):
                assert not worker.over
                if ready[number]:  # one at a time: not in the wake of another
                    ready[number] = False
                    worker.interrupt()
            time.sleep(0.0003)
    stop.set()
    for worker in workers:
        worker.wait()
        assert worker.error is None or isinstance(worker.error, KeyboardInterrupt)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a weak set
@pytest.mark.parametrize("key", [1, (1, "one")], ids=repr)
def test_threads_interrupted_at_any_moment_never_leave_a_key_blocked(key):
    """Leaders and followers are interrupted repeatedly, wherever they are."""
    runs = []

    @opero(retries=1, cache=True)
    def fetch(key):
        runs.append(1)
        if len(runs) % 3:
            raise ValueError
        return key

    def work():
        try:
            assert fetch(key) == key
            fetch.cache_invalidate(key)
        except ValueError:
            pass

    interrupt_over_and_over(work, 0.4)
    after = together(4, lambda _: fetch(key))
    assert all(job.value == key or isinstance(job.error, ValueError) for job in after)
    assert flights_of(fetch) == []  # what an interruption left there, these calls have tidied up
    sync._waiting.clear()  # an interruption just before it is tidied up may leave an entry


def test_threads_interrupted_in_line_leave_no_permit_and_no_place_behind(core):
    """Interrupted waiters leave the line; all the others are served."""
    limiter = RateLimiter(1000)
    with standing_clock(core.clock):
        limiter.acquire_sync()
        patient = [Job(limiter.acquire_sync) for _ in range(15)]
        hasty = [Job(limiter.acquire_sync) for _ in range(15)]
        until(lambda: limiter._bucket.queued == 30)
        for job in hasty:
            job.interrupt()
    for job in patient:
        job.result()
    for job in hasty:
        job.wait()
        assert job.error is None or isinstance(job.error, KeyboardInterrupt)
    assert limiter._bucket.queued == 0
    time.sleep(0.002)
    assert limiter.try_acquire()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_threads_interrupted_at_any_moment_never_leave_a_limiter_blocked():
    """Wherever in the limiter's own code they are interrupted, the others continue."""
    limiter = RateLimiter(20_000)
    got = []

    def work():
        limiter.acquire_sync()
        got.append(1)

    interrupt_over_and_over(work, 0.3)
    assert len(got) > 4
    jobs = together(4, lambda _: [limiter.acquire_sync() for _ in range(5)])
    for job in jobs:
        job.result()
    time.sleep(0.001)
    assert limiter.try_acquire()
    assert limiter._bucket.queued == 0
