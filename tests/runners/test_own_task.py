"""Uncached coroutine functions run in their caller's own task, under a deadline too.

All that a caller can see of that is as with `asyncio.timeout` around the function.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import sys
import traceback
import types
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from crowd import Job, run, standing_clock, until_async
from cut_awaits import LONG, SHORT, blocked, forever, left_as_found, timers
from hypothesis import given
from timeout_plans import PLAN, balance, by_asyncio, play

from opero import (
    AllFailedError,
    AttemptTimeout,
    DeadlineExceeded,
    OperoError,
    RateLimiter,
    opero,
)
from opero.testing import manual_clock

PASSED = "timeout of 0.02 s: an attempt was still running then"
"""What `DeadlineExceeded` says after the shortest deadline of these tests."""

CUTS = pytest.mark.parametrize(
    ("option", "late"),
    [("timeout", DeadlineExceeded), ("attempt_timeout", AttemptTimeout)],
    ids=["deadline", "attempt"],
)
"""The two limits at which what is awaited is cut, and what a call raises then."""


# --- the caller's own task ------------------------------------------------------------------------

OPTIONS = [
    {"retries": 1},
    {"retries": 3},
    {"rate_limit": 1e6},
    {"timeout": LONG},
    {"timeout": LONG, "rate_limit": 1e6, "retries": 3},
    {"arg_fallback": {"x": [2]}},
    {"retry_on_result": lambda value: value == "again", "retries": 2, "timeout": LONG},
]
OPTION = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options))


@OPTION
@pytest.mark.parametrize("failures", [0, 1])
@pytest.mark.parametrize("suspends", [0, 1, 3])
def test_the_function_runs_in_the_task_of_its_caller_and_sets_its_context(
    options, failures, suspends
):
    """In the first attempt and in later ones, whether or not it suspends."""
    where = contextvars.ContextVar("where", default="nowhere")
    attempts = []

    @opero(min_delay=0, max_delay=0, **{"retries": 2, **options})
    async def work(x, *, suspends):
        attempts.append(asyncio.current_task())
        for _ in range(suspends):
            await asyncio.sleep(0)
        where.set(f"attempt {len(attempts)}")
        if len(attempts) <= failures:
            raise ValueError
        return x

    async def main():
        able = failures == 0 or options.get("retries") != 1
        if able:
            with left_as_found():
                assert await work("x", suspends=suspends) == (
                    2 if "arg_fallback" in options and failures else "x"
                )
        else:
            with pytest.raises(ValueError):  # noqa: PT011 - the function's
                await work("x", suspends=suspends)
        assert set(attempts) == {asyncio.current_task()}
        assert where.get() == f"attempt {len(attempts)}"
        assert len(attempts) == (failures + 1 if able else 1)
        assert work.stats().attempts == len(attempts)

    run(main())


@pytest.mark.parametrize("values", [(), ("one",), ("one", "two")], ids=len)
@pytest.mark.parametrize("named", [{}, {"key": "word"}], ids=["positional", "named"])
@OPTION
def test_arguments_arrive_in_every_shape(options, values, named):
    """Each number of arguments may take a different path."""
    options = {name: option for name, option in options.items() if name != "arg_fallback"}

    @opero(**options)
    async def work(*args, **kwargs):
        await asyncio.sleep(0)
        return args, kwargs

    assert run(work(*values, **named)) == (values, named)


@OPTION
def test_arguments_that_do_not_fit_fail_as_without_opero(options):
    """They fail once, and do not count as a failed attempt to retry."""

    @opero(**options)
    async def work(x):
        return x

    async def main():
        with pytest.raises(TypeError, match=r"work\(\)"):
            await work(1, 2)
        with pytest.raises(TypeError, match=r"work\(\)"):
            await work(1, y=2)
        assert work.stats().retries == 0
        assert timers() == []

    run(main())


# --- the first step -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"timeout": LONG}, {"retries": 3}], ids=str)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("end", ["close", "forget"])
def test_a_coroutine_that_is_never_awaited_costs_no_permit_and_is_no_attempt(options, end):
    """The first await takes the permit."""
    limiter = RateLimiter(0.001)

    @opero(rate_limit=limiter, **options)
    async def work(x):
        return x

    async def main():
        for _ in range(3):
            coroutine = work(1)
            if end == "close":
                coroutine.close()
            del coroutine
        kept = work("x")
        assert work.stats().attempts == 0
        assert await kept == "x"
        assert not limiter.try_acquire()
        assert (work.stats().calls, work.stats().attempts, work.stats().permit_wait) == (
            4 + 0,
            1,
            0,
        )

    run(main())


def test_permits_go_by_the_order_of_awaiting():
    """The order of the calls does not matter."""
    limiter = RateLimiter(50)
    log = []

    @opero(rate_limit=limiter, retries=1)
    async def work(x):
        log.append(x)

    async def main():
        coroutines = [work(number) for number in range(3)]
        await asyncio.gather(*reversed(coroutines))

    run(main())
    assert log == [2, 1, 0]


# --- cut by the deadline --------------------------------------------------------------------------


def test_what_is_raised_says_so_and_shows_where_the_attempt_was():
    """The cancellation is the cause, and its traceback leads into the function."""

    @opero(retries=3, timeout=SHORT)
    async def work():
        await forever()

    async def main():
        with left_as_found(), pytest.raises(DeadlineExceeded, match=PASSED) as caught:
            await work()
        return caught.value

    error = run(main())
    assert error.errors == []
    assert type(error.__cause__) is asyncio.CancelledError
    names = [frame.name for frame in traceback.extract_tb(error.__cause__.__traceback__)]
    assert names[-2:] == ["work", "forever"]
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/opero/runners/" in frame.filename
    ]
    assert ours == []
    assert work.stats().failures == 1


@pytest.mark.parametrize("first", [0, 1])
def test_the_errors_so_far_come_with_it(first):
    """These are attempts that failed before a delay, and one that was cut."""
    attempts = []

    @opero(retries=9, min_delay=0.001, max_delay=0.001, timeout=0.5)
    async def work():
        attempts.append(1)
        await asyncio.sleep(0)
        if len(attempts) <= first:
            raise ValueError(len(attempts))
        await forever()

    async def main():
        with left_as_found(), pytest.raises(DeadlineExceeded) as caught:
            await work()
        assert [str(error) for error in caught.value.errors] == ["1"][:first]
        assert len(attempts) == first + 1

    run(main())


@pytest.mark.parametrize("answer", ["value", "late value", "error", "cancelled"])
def test_a_function_may_answer_the_cut(answer):
    """It is cut once; its response is the outcome, and the task is as before."""

    @opero(retries=3, min_delay=0, max_delay=0, timeout=SHORT)
    async def work():
        attempts.append(1)
        try:
            await forever()
        except asyncio.CancelledError:
            if answer == "late value":
                await asyncio.sleep(0.05)
            if answer == "error":
                raise ValueError from None
            if answer == "cancelled":
                raise
        return answer

    async def main():
        with left_as_found():
            if "value" in answer:
                assert await work() == answer
            else:
                with pytest.raises(ValueError if answer == "error" else DeadlineExceeded):
                    await work()

    attempts = []
    run(main())
    assert attempts == [1]


def test_calls_after_a_cut_are_retried_and_cut_again(core):
    """The first cut leaves nothing behind."""
    attempts = []

    @opero(retries=2, min_delay=0, max_delay=0, timeout=SHORT)
    async def work(hangs):
        attempts.append(1)
        if hangs:
            await forever()
        await asyncio.sleep(0)
        if len(attempts) % 2:
            raise ValueError
        return "value"

    async def main():
        for _ in range(3):
            with left_as_found():
                asyncio.get_running_loop().call_soon(core.clock.advance, 10**9)
                with pytest.raises(DeadlineExceeded):
                    await work(True)
                attempts.clear()
                assert await work(False) == "value"
                attempts.clear()

    with standing_clock(core.clock):
        run(main())


def test_many_calls_share_one_timer_and_each_is_cut_in_time(core):
    """No timer is set before a call suspends, and none is left."""

    @opero(retries=1, timeout=SHORT)
    async def work(kind):
        if kind == "quick":
            return kind
        if kind == "yields":
            await asyncio.sleep(0)
            return kind
        await forever()
        return None

    async def main():
        assert await work("quick") == "quick"
        assert timers() == []
        kinds = ["quick", "yields", "hangs"] * 50
        tasks = [asyncio.create_task(work(kind)) for kind in kinds]
        await asyncio.sleep(0)
        assert len(timers()) == 1
        await asyncio.sleep(0)
        core.clock.advance(10**9)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for kind, outcome in zip(kinds, outcomes, strict=True):
            assert type(outcome) is DeadlineExceeded if kind == "hangs" else outcome == kind
        assert timers() == []

    with standing_clock(core.clock):
        run(main())


def test_a_timer_stays_for_those_who_still_wait(core):
    """Calls come and go, one remains, and it is cut."""

    @opero(retries=1, timeout=0.1)
    async def work(event):
        await event.wait()

    async def main():
        never, soon = asyncio.Event(), asyncio.Event()
        early = asyncio.create_task(work(soon))
        await asyncio.sleep(0)
        late = asyncio.create_task(work(never))
        await asyncio.sleep(0)
        soon.set()
        await early
        assert len(timers()) == 1
        core.clock.advance(10**9)
        with pytest.raises(DeadlineExceeded):
            await late
        assert timers() == []

    with standing_clock(core.clock):
        run(main())


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("pause", [False, True])
def test_a_function_that_awaits_itself_has_a_deadline_at_each_depth(core, depth, pause):
    """The innermost call suspends first, and the outermost must end first."""
    cut = []

    @opero(retries=1, timeout=10)
    async def work(left):
        core.clock.advance(1_000_000_000)
        try:
            if pause:
                await asyncio.sleep(0)
            if left:
                return await work(left - 1)
            await forever()
        except BaseException as error:
            cut.append((left, type(error)))
            raise

    async def main():
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(work(depth))
        for _ in range(2 * depth + 3):
            await asyncio.sleep(0)
        waits = timers()
        passed = 1 if pause else depth + 1  # seconds, when the outermost suspends
        assert min(timer.when() for timer in waits) - loop.time() <= 10 - passed + 0.1
        task.cancel()
        await asyncio.wait([task])
        assert timers() == []

    with standing_clock(core.clock):
        run(main())
    assert cut == [(left, asyncio.CancelledError) for left in range(depth + 1)]


def test_a_recursion_without_end_is_an_error():
    """It is Python's own error, and the task is as before."""

    @opero(retries=1, timeout=LONG)
    async def work():
        return await work()

    async def main():
        with left_as_found(), pytest.raises(RecursionError):
            await work()

    run(main())


# --- cancelled by others --------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("options", [{"timeout": LONG}, {"retries": 3, "timeout": LONG}], ids=str)
def test_each_cancellation_reaches_the_function(options, times):
    """The function may withstand some, as without opero."""
    log = []

    @opero(**options)
    async def work():
        for number in range(times):
            try:
                await forever()
            except asyncio.CancelledError as error:
                log.append(error.args)
                if number == times - 1:
                    raise

    async def main():
        task = asyncio.create_task(work())
        for number in range(times):
            await asyncio.sleep(0)
            task.cancel(number)
        await asyncio.wait([task])
        assert task.cancelled()
        assert task.cancelling() == times
        assert timers() == []

    run(main())
    assert log == [(number,) for number in range(times)]


@pytest.mark.parametrize("order", ["cancel first", "deadline first"])
def test_whoever_cancels_at_the_moment_of_the_deadline_goes_before_it(core, order):
    """The task is cancelled, as its owner wants."""

    @opero(retries=1, timeout=SHORT)
    async def work():
        await forever()

    async def main():
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        (timer,) = timers()
        core.clock.advance(10**9)
        when = timer.when() + (0.0001 if order == "deadline first" else -0.0001)
        loop.call_at(when, task.cancel)
        while loop.time() < when + 0.001:
            pass  # both are due when the loop looks again
        await asyncio.wait([task])
        assert task.cancelled()
        assert task.cancelling() == 1

    with standing_clock(core.clock):
        run(main())


def test_a_task_group_that_fails_at_the_moment_of_the_deadline_says_why():
    """The group's error counts, and its parent task is as before."""

    @opero(retries=1, timeout=SHORT)
    async def work():
        await forever()

    async def fail(when):
        loop = asyncio.get_running_loop()
        await asyncio.sleep(when - loop.time())
        raise ValueError

    async def main():
        loop = asyncio.get_running_loop()
        with left_as_found(), pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - what is around the call matters
            async with asyncio.TaskGroup() as group:
                when = loop.time() + SHORT
                group.create_task(fail(when - 0.0005))
                loop.call_at(when - 0.001, blocked, 0.002)
                await work()
        assert {type(error) for error in caught.value.exceptions} <= {ValueError, DeadlineExceeded}
        assert ValueError in {type(error) for error in caught.value.exceptions}

    run(main())


@CUTS
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "around"])
@pytest.mark.parametrize("child", ["hangs", "fails", "returns"])
def test_a_task_group_and_a_time_limit_do_not_disturb_each_other(option, late, inside, child):
    """Either the group is in the function, or the function is in the group."""
    ended = []

    async def other():
        try:
            await asyncio.sleep(0)
            if child == "fails":
                raise KeyError
            if child == "hangs":
                await forever()
        finally:
            ended.append(1)

    @opero(retries=1, **{option: SHORT})
    async def work():
        if inside:
            async with asyncio.TaskGroup() as group:
                group.create_task(other())
                await forever()
        await forever()

    async def main():
        with left_as_found():
            if inside:
                with pytest.raises(BaseExceptionGroup if child == "fails" else late):
                    await work()
            else:
                with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012 - what is around the call matters
                    async with asyncio.TaskGroup() as group:
                        group.create_task(other())
                        await work()
                expected = KeyError if child == "fails" else late
                assert [type(error) for error in caught.value.exceptions] == [expected]
        assert ended == [1]
        assert len(asyncio.all_tasks()) == 2

    run(main())


@pytest.mark.parametrize("ours", [SHORT, LONG])
@pytest.mark.parametrize("inside", [True, False])
def test_the_shorter_of_two_timeouts_decides(ours, inside):
    """One is asyncio's, inside the function or around it; the other is opero's."""
    theirs = LONG if ours == SHORT else SHORT

    @opero(retries=1, timeout=ours)
    async def work():
        if inside:
            async with asyncio.timeout(theirs):
                await forever()
        await forever()

    async def main():
        with left_as_found(), pytest.raises(TimeoutError) as caught:  # noqa: PT012 - what is around the call matters
            if inside:
                await work()
            else:
                async with asyncio.timeout(theirs):
                    await work()
        assert (type(caught.value) is DeadlineExceeded) == (ours == SHORT)

    run(main())


def test_timeouts_that_pass_at_one_moment_leave_the_task_as_it_was():
    """Of nested timeouts by opero, asyncio and opero, the outermost wins."""

    @opero(retries=3, timeout=SHORT)
    async def inner():
        await forever()

    @opero(retries=3, timeout=SHORT)
    async def outer():
        async with asyncio.timeout(SHORT):
            await inner()

    async def main():
        loop = asyncio.get_running_loop()
        for function in (inner, outer):
            with left_as_found(), pytest.raises(TimeoutError) as caught:  # noqa: PT012 - what is around the call matters
                async with asyncio.timeout(SHORT):
                    loop.call_soon(blocked)
                    await function()
            assert type(caught.value) is TimeoutError
        with left_as_found(), pytest.raises(DeadlineExceeded, match="outer"):  # noqa: PT012 - what is around the call matters
            loop.call_soon(blocked)
            await outer()

    run(main())


@CUTS
@pytest.mark.parametrize("ours", [SHORT, LONG])
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "around"])
@pytest.mark.parametrize("kind", ["move_on_after", "fail_after"])
def test_scopes_of_anyio_and_time_limits_do_not_disturb_each_other(
    option, late, ours, inside, kind
):
    """Each recognizes its own cancellation."""
    theirs = LONG if ours == SHORT else SHORT
    scope = getattr(anyio, kind)

    @opero(retries=1, **{option: ours})
    async def work():
        if inside:
            with scope(theirs) as block:
                await anyio.sleep(LONG)
            return block.cancelled_caught
        await anyio.sleep(LONG)
        return None

    async def main():
        with left_as_found():
            if ours == SHORT:
                with pytest.raises(late):  # noqa: PT012 - what is around the call matters
                    if inside:
                        await work()
                    else:
                        with scope(theirs):
                            await work()
            elif kind == "fail_after":
                with pytest.raises(TimeoutError) as caught:  # noqa: PT012 - what is around the call matters
                    if inside:
                        await work()
                    else:
                        with scope(theirs):
                            await work()
                assert type(caught.value) is TimeoutError
            elif inside:
                assert await work() is True
            else:
                with scope(theirs) as block:
                    await work()
                assert block.cancelled_caught

    run(main())


@pytest.mark.parametrize("busy", [True, False])
def test_a_scope_that_ends_at_the_moment_of_the_deadline_knows_its_cancellation(busy):
    """Only the scope's block is cancelled."""

    @opero(retries=1, timeout=SHORT)
    async def work():
        await anyio.sleep(LONG)

    async def main():
        for _ in range(3):
            with left_as_found():
                try:
                    with anyio.move_on_after(SHORT) as scope:
                        if busy:
                            asyncio.get_running_loop().call_soon(blocked)
                        await work()
                    assert scope.cancelled_caught
                except DeadlineExceeded:
                    assert not busy
            await asyncio.sleep(0)

    run(main())


# --- loops, tasks, drivers ------------------------------------------------------------------------


async def every_kind() -> None:
    """Call functions under a deadline in every way that makes a difference."""

    async def body(kind, attempts):
        attempts.append(1)
        if kind == "fails first" and len(attempts) == 1:
            raise ValueError
        if kind == "hangs":
            await forever()
        if kind == "fails":
            raise ValueError
        if kind != "quick":
            await asyncio.sleep(0)
        return kind

    options = {"retries": 2, "min_delay": 0.001, "max_delay": 0.001}
    work = opero(timeout=LONG, **options)(body)
    cut = opero(timeout=SHORT, **options)(body)
    for kind in ("quick", "yields", "fails first"):
        assert await work(kind, []) == kind
    with pytest.raises(DeadlineExceeded):
        await cut("hangs", [])
    with pytest.raises(AllFailedError):
        await work("fails", [])
    outcomes = await asyncio.gather(
        cut("hangs", []),
        work("yields", []),
        work("fails", []),
        cut("hangs", []),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [
        DeadlineExceeded,
        str,
        AllFailedError,
        DeadlineExceeded,
    ]
    assert balance() == 0


def test_it_is_the_same_in_uvloop():
    """Its timers count whole milliseconds."""
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for _ in range(3):
            runner.run(every_kind())


def test_it_is_the_same_in_one_loop_after_the_other_and_in_several_at_once(core):
    """Each loop has its own deadlines for the same function."""

    @opero(retries=1, timeout=0.05)
    async def work(hangs):
        if hangs:
            await forever()
        await asyncio.sleep(0)
        return hangs

    async def main():
        outcomes = await asyncio.gather(
            *[work(number % 2 == 0) for number in range(20)], return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes[::2]} == {DeadlineExceeded}
        assert {type(outcome) for outcome in outcomes[1::2]} <= {DeadlineExceeded, bool}
        assert timers() == []

    for _ in range(2):
        run(main())
    for job in [Job(asyncio.run, main()) for _ in range(4)]:
        job.result()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_it_is_the_same_in_eager_tasks():
    """Their first step runs inside the step of their creator."""

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        await every_kind()
        await asyncio.gather(*[every_kind() for _ in range(3)])

    run(main())


def test_an_asynchronous_generator_may_call_it_for_several_tasks():
    """Each step of the generator runs in the task that asks for it."""
    tasks = []

    async def body(hangs):
        tasks.append(asyncio.current_task())
        if hangs:
            await forever()
        await asyncio.sleep(0)
        return len(tasks)

    async def numbers():
        work = opero(retries=1, timeout=LONG)(body)
        yield await work(False)
        try:
            yield await opero(retries=1, timeout=SHORT)(body)(True)
        except DeadlineExceeded:
            yield "late"
        yield await work(False)

    async def main():
        source = numbers()
        found = [await asyncio.create_task(anext_of(source)) for _ in range(3)]
        assert found == [1, "late", 3]
        assert len(set(tasks)) == 3
        await source.aclose()

    async def anext_of(source):
        return await anext(source)

    run(main())


@pytest.mark.parametrize("options", [{"timeout": LONG}, {"timeout": LONG, "retries": 3}], ids=str)
def test_without_a_task_it_says_what_it_needs(options):
    """There is nothing to cancel, so the function does not begin."""
    begun = []

    @opero(**options)
    async def work():
        begun.append(1)

    async def main():
        loop = asyncio.get_running_loop()
        outcome = loop.create_future()

        def drive():
            try:
                work().send(None)
            except OperoError as error:
                outcome.set_result(str(error))

        loop.call_soon(drive)
        assert "no task" in await outcome

    run(main())
    with pytest.raises(OperoError, match="opero waits with asyncio"):
        work().send(None)
    assert begun == []


class Awaited:
    """An awaitable that is not a coroutine."""

    def __init__(self, value: Any) -> None:
        """Keep the value that it returns."""
        self.value = value

    def __await__(self) -> Any:
        yield from asyncio.sleep(0.001).__await__()
        return self.value


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="what returns them is a coroutine function since Python 3.12"
)
@pytest.mark.parametrize("options", [{}, {"timeout": LONG}, {"rate_limit": 1e6}], ids=str)
@pytest.mark.parametrize("make", ["awaitable", "future", "generator", "coroutine"])
def test_what_a_function_returns_may_be_any_awaitable(make, options):
    """It is awaited as by `await`."""

    @types.coroutine
    def generator(value):
        yield
        return value

    async def coroutine(value):
        await asyncio.sleep(0)
        return value

    def future(value):
        made = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(made.set_result, value)
        return made

    def work(value):
        return {
            "awaitable": Awaited,
            "future": future,
            "generator": generator,
            "coroutine": coroutine,
        }[make](value)

    inspect.markcoroutinefunction(work)  # type: ignore[attr-defined, unused-ignore]

    async def main():
        with left_as_found():
            assert await opero(retries=2, **options)(work)("value") == "value"

    run(main())


@OPTION
def test_what_drives_a_coroutine_itself_can_send_and_throw_into_it(options):
    """Some libraries answer what a coroutine yields, inside a task of asyncio."""

    class Refusal(Exception):
        """Thrown into the coroutine."""

    @types.coroutine
    def ask(question):
        return (yield question)

    async def work(x):
        first = await ask("first")
        try:
            await ask(f"{first}, then")
        except Refusal:
            second = await ask("instead")
        return x, first, second, await ask("last")

    def drive(coroutine):
        asked = [coroutine.send(None), coroutine.send(1), coroutine.throw(Refusal)]
        asked.append(coroutine.send(2))
        with pytest.raises(StopIteration) as end:
            coroutine.send(None)
        return asked, end.value.value

    async def main():
        with left_as_found():
            assert drive(opero(**options)(work)(0)) == drive(work(0))

    run(main())


class Held:
    """An argument whose end a test can observe."""


async def _returns(_: Held) -> None:
    await asyncio.sleep(0)


async def _fails(_: Held) -> None:
    await asyncio.sleep(0)
    raise ValueError("failed")


async def _hangs(_: Held) -> None:
    await forever()


async def _swallows(_: Held) -> None:
    try:
        await forever()
    except asyncio.CancelledError:
        await asyncio.sleep(0)


async def _turns(_: Held) -> None:
    try:
        await forever()
    except asyncio.CancelledError:
        raise ValueError("turned") from None


@pytest.mark.parametrize("work", [_returns, _fails, _hangs, _swallows, _turns])
@pytest.mark.parametrize("cut", ["by its deadline", "by its caller"])
@pytest.mark.parametrize("retries", [1, 2])
def test_a_call_that_is_over_keeps_its_arguments_alive_in_no_cycle(work, cut, retries):
    """They are freed with the error that it raised, without the garbage collector."""
    seconds = SHORT if cut == "by its deadline" else LONG
    function = opero(retries=retries, min_delay=0, max_delay=0, timeout=seconds)(work)

    async def main():
        held = Held()
        weak = weakref.ref(held)
        task = asyncio.ensure_future(function(held))
        del held
        await asyncio.sleep(0)
        if cut == "by its caller" and work in {_hangs, _swallows, _turns}:
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        del task
        await asyncio.sleep(0)
        assert weak() is None

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


@pytest.mark.parametrize("suspended", [1, 2, 3])
def test_a_coroutine_closed_early_closes_the_function_and_leaves_no_timer(suspended):
    """It does not matter how far it has come."""
    log = []

    @opero(retries=2, timeout=LONG)
    async def work():
        try:
            for _ in range(5):
                await asyncio.sleep(0)
        except GeneratorExit:
            log.append("closed")
            raise

    async def main():
        with left_as_found():
            coroutine = work()
            for _ in range(suspended):
                coroutine.send(None)
            assert len(timers()) >= 1
            coroutine.close()
            assert log == ["closed"]

    run(main())


def test_a_coroutine_closed_after_its_loop_or_in_another_thread_says_nothing():
    """Its timer either ended with the loop or stays with it."""

    @opero(retries=2, timeout=LONG)
    async def work():
        await forever()

    async def begin():
        coroutine = work()
        coroutine.send(None)
        return coroutine

    asyncio.run(begin()).close()

    async def main():
        coroutine = await begin()
        Job(coroutine.close).result()
        assert await asyncio.gather(second(), return_exceptions=True) == ["value"]

    @opero(retries=2, timeout=LONG)
    async def second():
        await asyncio.sleep(0)
        return "value"

    run(main())


@pytest.mark.parametrize("closed", [True, False])
def test_nothing_keeps_the_loop_or_the_function_alive(closed):
    """Neither after a call, nor after a call whose loop was closed during it."""

    def make():
        @opero(retries=1, timeout=LONG)
        async def work(hangs):
            await asyncio.sleep(0)
            if hangs:
                await forever()

        return work

    def use(function):
        loop = asyncio.SelectorEventLoop()
        loop.set_exception_handler(lambda *_: None)

        async def main():
            await function(False)
            if closed:
                tasks.append(asyncio.ensure_future(function(True)))
                await asyncio.sleep(0)

        tasks: list[Any] = []
        loop.run_until_complete(main())
        loop.close()
        return weakref.ref(loop)

    function = make()
    loop = use(function)
    gc.collect()
    assert loop() is None
    weak = weakref.ref(function)
    use(function)
    del function
    gc.collect()
    assert weak() is None


def test_the_context_of_a_caller_is_not_kept_by_the_timer():
    """Another call may have a much later deadline."""

    class Value:
        """Held by the context."""

    variable = contextvars.ContextVar("variable")

    @opero(retries=1, timeout=LONG)
    async def work(event):
        await event.wait()

    async def caller(event):
        value = Value()
        refs.append(weakref.ref(value))
        variable.set(value)
        del value
        await work(event)

    async def main():
        soon, later = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(caller(soon))
        await until_async(timers)
        other = asyncio.create_task(work(later))
        await asyncio.sleep(0)
        soon.set()
        await first
        del first
        await asyncio.sleep(0)
        gc.collect()
        assert refs[0]() is None
        later.set()
        await other

    refs: list[Any] = []
    run(main())


def test_waits_between_attempts_fit_into_the_deadline():
    """Waits that fit are made, the next is not begun, and no opero timer is left."""

    @opero(retries=9, min_delay=1, max_delay=1, timeout=3.5)
    async def work():
        await asyncio.sleep(0)
        raise ValueError

    async def main():
        with left_as_found(), pytest.raises(DeadlineExceeded) as caught:
            await work()
        assert len(caught.value.errors) == 4

    with manual_clock() as clock:
        run(main())
        assert clock.waited == 3


# --- against asyncio.timeout ----------------------------------------------------------------------


async def by_opero(seconds: int, body: Callable[..., Any], *args: Any) -> Any:
    """Call under an opero deadline."""

    @opero(retries=1, timeout=seconds)
    async def work() -> Any:
        return await body(*args)

    return await work()


@given(plan=PLAN)
def test_whatever_happens_it_ends_as_with_the_timeout_of_asyncio(core, plan):
    """The outcome, the time and the path are the same, and the task is as before."""
    with standing_clock(core.clock):
        expected = play(plan, core.clock, by_asyncio)
        assert play(plan, core.clock, by_opero) == expected
