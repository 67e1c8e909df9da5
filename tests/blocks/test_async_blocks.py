"""`attempts(...)` in coroutines: the loop awaits, and what a block awaits can be cut."""

# ruff: noqa: PT012, RET503, SIM117 - a loop over attempts is more than one statement

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import anyio
import pytest
from crowd import run, standing_clock, until_async
from cut_awaits import LONG, SHORT, blocked, forever, in_virtual_time, left_as_found, timers
from hypothesis import given
from timeout_plans import PLAN, balance, by_asyncio, limit_by_asyncio, play

from opero import (
    AllFailedError,
    AttemptTimeout,
    DeadlineExceeded,
    OperoError,
    RateLimiter,
    attempts,
    subscribe,
)
from opero.testing import skip_waits

QUICK: dict[str, Any] = {"min_delay": 0, "max_delay": 0}


class Flop(Exception):
    """What a block raises that is worth another attempt."""


LIMITS = pytest.mark.parametrize(
    "options",
    [{}, {"timeout": LONG}, {"attempt_timeout": LONG}, {"timeout": LONG, "attempt_timeout": 50}],
    ids=lambda options: ",".join(options) or "plain",
)


# --- what a loop does -----------------------------------------------------------------------------


@LIMITS
@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_block_is_run_until_it_succeeds(options, failures):
    """In the task of the loop, whose context it may set; then the task is as before."""

    async def main():
        numbers = []
        with left_as_found():
            expected = pytest.raises(AllFailedError) if failures == 3 else nullcontext()
            with expected as caught:
                async for attempt in attempts(retries=3, **QUICK, **options):
                    with attempt:
                        numbers.append(attempt.number)
                        await asyncio.sleep(0)
                        if attempt.number <= failures:
                            raise Flop(attempt.number)
                        value = asyncio.current_task()
                assert value is asyncio.current_task()
            if caught is not None:
                assert [each.args for each in caught.value.errors] == [(1,), (2,), (3,)]
        assert numbers == [*range(1, min(failures, 2) + 2)]

    run(main())


@LIMITS
@pytest.mark.parametrize("how", ["return", "break", "continue", "end", "fall"])
def test_a_block_may_be_left_in_every_way(options, how):
    """All but an exception mean that it has succeeded, and no timer is left."""

    async def work():
        async for attempt in attempts(retries=3, **QUICK, **options):
            with attempt:
                await asyncio.sleep(0)
                if attempt.number == 1:
                    raise Flop
                if how == "return":
                    return "returned"
                if how == "break":
                    break
                if how == "continue":
                    continue
                if how == "fall":
                    raise KeyboardInterrupt
        return "behind"

    async def main():
        with left_as_found():
            if how == "fall":
                with pytest.raises(KeyboardInterrupt):
                    await work()
            else:
                assert await work() == ("returned" if how == "return" else "behind")

    loop = asyncio.new_event_loop()
    try:
        with left_over(loop):
            loop.run_until_complete(main())
    except KeyboardInterrupt:
        assert how == "fall"
    finally:
        loop.close()


@contextmanager
def left_over(loop: Any) -> Iterator[None]:
    """Check that no task is left in a loop."""
    yield
    assert not asyncio.all_tasks(loop)


def test_waits_are_awaited(core):
    """Between the attempts and for permits, so others run meanwhile."""
    limiter = RateLimiter(0.1)

    async def main():
        loop = asyncio.get_running_loop()
        begun = []

        async def work():
            async for attempt in attempts(min_delay=3, max_delay=3, rate_limit=limiter):
                with attempt:
                    begun.append(loop.time())
                    if attempt.number == 1:
                        raise Flop

        await asyncio.gather(work(), asyncio.sleep(1))
        assert begun == pytest.approx([0, 10])

    in_virtual_time(core, main)


def test_a_wait_that_cannot_end_in_time_is_not_begun(core):
    """The deadline counts from the beginning of the loop."""

    async def main():
        with pytest.raises(DeadlineExceeded, match="before attempt 3 would end too late") as caught:
            async for attempt in attempts(retries=9, min_delay=3, max_delay=3, timeout=5):
                with attempt:
                    raise Flop(attempt.number)
        assert [error.args for error in caught.value.errors] == [(1,), (2,)]
        assert asyncio.get_running_loop().time() == 3

    in_virtual_time(core, main)


def test_events_say_that_it_is_asynchronous():
    """In the function that has the loop."""
    heard = []

    async def load(policy):
        async for attempt in policy:
            with attempt:
                raise Flop

    end = subscribe(heard.append)
    policy = attempts(retries=2, **QUICK)
    with skip_waits(), pytest.raises(AllFailedError, match=r"the block in .*\.load failed"):
        run(load(policy))
    end()
    assert [(event.kind, event.mode) for event in heard] == [
        ("retry", "async"),
        ("give_up", "async"),
    ]
    assert heard[0].function == "test_events_say_that_it_is_asynchronous.<locals>.load"
    assert policy.stats()[:1] + policy.stats()[3:4] == (1, 2)


# --- time limits ----------------------------------------------------------------------------------


def test_what_a_block_awaits_too_long_is_cancelled_and_the_attempt_has_failed():
    """Its `finally` has run by then; the next one has all of its time."""
    tidied = []

    async def main():
        with left_as_found():
            async for attempt in attempts(retries=3, attempt_timeout=SHORT, **QUICK):
                with attempt:
                    try:
                        await (forever() if attempt.number < 3 else asyncio.sleep(0))
                    finally:
                        tidied.append(attempt.number)
        with left_as_found():
            with pytest.raises(AttemptTimeout, match="the attempt took longer") as caught:
                async for attempt in attempts(retries=1, attempt_timeout=SHORT):
                    with attempt:
                        await forever()
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)

    heard = []
    end = subscribe(lambda event: heard.append(event.error), "retry")
    run(main())
    end()
    assert tidied == [1, 2, 3]
    assert [type(error) for error in heard] == [AttemptTimeout] * 2


def test_if_all_are_cut_the_errors_say_so():
    """Each of them."""

    async def main():
        async for attempt in attempts(retries=3, attempt_timeout=SHORT, **QUICK):
            with attempt:
                await forever()

    with pytest.raises(AllFailedError, match=r"took longer than 0\.02 s") as caught:
        run(main())
    assert [type(error) for error in caught.value.errors] == [AttemptTimeout] * 3


@pytest.mark.parametrize("answer", ["value", "error"])
def test_what_comes_of_a_cut_attempt_does_not_count(answer):
    """As for a function."""
    seen = []

    async def main():
        async for attempt in attempts(retries=2, attempt_timeout=SHORT, **QUICK):
            with attempt:
                seen.append(attempt.number)
                if attempt.number == 2:
                    return "second"
                try:
                    await forever()
                except asyncio.CancelledError:
                    if answer == "error":
                        raise KeyError from None
                    seen.append("answered")
        raise AssertionError

    assert run(main()) == "second"
    assert seen == ([1, "answered", 2] if answer == "value" else [1, 2])


def test_the_deadline_cuts_a_block(core):
    """The errors so far come with it; attempts that are cut leave the rest of the time."""

    async def main():
        begun = []
        loop = asyncio.get_running_loop()
        with left_as_found(), pytest.raises(DeadlineExceeded, match="was still running") as caught:
            async for attempt in attempts(retries=9, attempt_timeout=2, timeout=5, **QUICK):
                with attempt:
                    begun.append(loop.time())
                    await forever()
        assert begun == pytest.approx([0, 2, 4])
        assert loop.time() == pytest.approx(5)
        assert [type(error) for error in caught.value.errors] == [AttemptTimeout] * 2
        assert type(caught.value.__cause__) is AttemptTimeout

    in_virtual_time(core, main)


def test_the_deadline_may_be_answered():
    """As by a function: what it has found by then counts."""

    async def main():
        async for attempt in attempts(retries=1, timeout=SHORT):
            with attempt:
                try:
                    await forever()
                except asyncio.CancelledError:
                    return "what there is"
        raise AssertionError

    assert run(main()) == "what there is"


def test_a_block_that_never_awaits_is_not_cut(core):
    """There is no moment for it."""

    async def main():
        async for attempt in attempts(retries=1, attempt_timeout=SHORT, timeout=1):
            with attempt:
                core.clock.advance(5 * 10**9)
                value = "value"
        return value

    assert run(main()) == "value"


def test_many_loops_share_one_timer(core):
    """If they are loops over one policy."""
    policy = attempts(retries=1, attempt_timeout=5)

    async def work(number):
        await asyncio.sleep(number)
        async for attempt in policy:
            with attempt:
                await forever()

    async def main():
        tasks = [asyncio.ensure_future(work(number)) for number in range(4)]
        await asyncio.sleep(3.5)
        assert len(timers()) == 1
        await asyncio.wait(tasks)
        assert [type(task.exception()) for task in tasks] == [AttemptTimeout] * 4
        assert asyncio.get_running_loop().time() == 8

    in_virtual_time(core, main)


# --- cancelled by others --------------------------------------------------------------------------


@LIMITS
@pytest.mark.parametrize("makes", [asyncio.CancelledError, KeyError])
def test_a_cancelled_block_is_not_run_again(options, makes):
    """Also if it makes an error of its cancellation."""
    ran = []

    async def work():
        async for attempt in attempts(retries=3, **QUICK, **options):
            with attempt:
                ran.append(attempt.number)
                try:
                    await forever()
                except asyncio.CancelledError:
                    raise makes from None

    async def main():
        task = asyncio.create_task(work())
        await until_async(lambda: ran)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or type(task.exception()) is KeyError
        assert task.cancelling() == 1
        assert timers() == []

    run(main())
    assert ran == [1]


@LIMITS
def test_a_loop_in_the_tidying_up_of_a_cancelled_task_makes_all_its_attempts(options):
    """A cancellation that is being handled is not the block's."""
    numbers = []

    async def owner():
        try:
            await forever()
        finally:
            async for attempt in attempts(retries=3, **QUICK, **options):
                with attempt:
                    numbers.append(attempt.number)
                    if attempt.number < 3:
                        raise Flop

    async def main():
        task = asyncio.create_task(owner())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())
    assert numbers == [1, 2, 3]


@LIMITS
def test_a_task_cancelled_between_the_attempts_ends_at_once(options):
    """In the wait of the loop."""

    async def work():
        async for attempt in attempts(retries=3, min_delay=30, max_delay=30, **options):
            with attempt:
                ran.append(attempt.number)
                raise Flop

    ran: list[int] = []

    async def main():
        task = asyncio.create_task(work())
        await until_async(lambda: ran)
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())
    assert ran == [1]


@pytest.mark.parametrize("order", ["cancel first", "timeout first"])
@pytest.mark.parametrize("options", [{"attempt_timeout": SHORT}, {"timeout": SHORT}], ids=str)
def test_whoever_cancels_at_the_moment_it_passes_goes_before_it(options, order):
    """The task is cancelled, as its owner wants."""
    ran = []

    async def work():
        async for attempt in attempts(retries=3, **QUICK, **options):
            with attempt:
                ran.append(attempt.number)
                await forever()

    async def main():
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(work())
        await until_async(lambda: ran)
        (timer,) = timers()
        when = timer.when() + (0.0001 if order == "timeout first" else -0.0001)
        loop.call_at(when, task.cancel)
        blocked(SHORT + 0.01)
        await asyncio.wait([task])
        assert task.cancelled()
        assert task.cancelling() == 1

    run(main())
    assert ran == [1]


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "around"])
@pytest.mark.parametrize("same", [True, False], ids=["at once", "earlier"])
def test_timeouts_of_asyncio_and_ours_do_not_disturb_each_other(inside, same):
    """Neither takes the other's for its own."""

    async def main():
        with left_as_found():
            if inside:
                with pytest.raises(AttemptTimeout if same else TimeoutError) as caught:
                    async for attempt in attempts(
                        retries=1, attempt_timeout=SHORT if same else LONG
                    ):
                        with attempt:
                            async with asyncio.timeout(SHORT):
                                asyncio.get_running_loop().call_soon(blocked)
                                await forever()
                assert (type(caught.value) is TimeoutError) == (not same)
            else:
                with pytest.raises(TimeoutError) as caught:
                    async with asyncio.timeout(SHORT):
                        async for attempt in attempts(
                            retries=3, attempt_timeout=SHORT if same else LONG, **QUICK
                        ):
                            with attempt:
                                asyncio.get_running_loop().call_soon(blocked)
                                await forever()
                assert type(caught.value) is TimeoutError

    run(main())


@pytest.mark.parametrize("ours", [SHORT, LONG])
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "around"])
def test_scopes_of_anyio_and_ours_do_not_disturb_each_other(ours, inside):
    """Each knows its own cancellation."""
    theirs = LONG if ours == SHORT else SHORT

    async def block():
        if inside:
            with anyio.move_on_after(theirs) as scope:
                await anyio.sleep(LONG)
            return scope.cancelled_caught
        await anyio.sleep(LONG)

    async def work():
        async for attempt in attempts(retries=1, attempt_timeout=ours):
            with attempt:
                return await block()

    async def main():
        with left_as_found():
            if ours == SHORT:
                with pytest.raises(AttemptTimeout), anyio.move_on_after(theirs):
                    await work()
            elif inside:
                assert await work() is True
            else:
                with anyio.move_on_after(theirs) as scope:
                    await work()
                assert scope.cancelled_caught

    run(main())


def test_a_task_group_in_a_block_is_ended_with_it():
    """Its children are cancelled, and the next attempt begins with new ones."""
    ended = []

    async def child():
        try:
            await forever()
        finally:
            ended.append(1)

    async def main():
        with left_as_found():
            async for attempt in attempts(retries=2, attempt_timeout=SHORT, **QUICK):
                with attempt:
                    async with asyncio.TaskGroup() as group:
                        if attempt.number == 1:
                            group.create_task(child())
                            group.create_task(child())
        assert len(asyncio.all_tasks()) == 2

    run(main())
    assert ended == [1, 1]


# --- loops, tasks, the end ------------------------------------------------------------------------


def test_it_is_the_same_in_uvloop():
    """Whose timers count whole milliseconds."""
    uvloop = pytest.importorskip("uvloop")

    async def main():
        numbers = []
        async for attempt in attempts(retries=3, attempt_timeout=SHORT, min_delay=0.001):
            with attempt:
                numbers.append(attempt.number)
                if attempt.number < 3:
                    await forever()
        assert numbers == [1, 2, 3]
        assert balance() == 0

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_it_is_the_same_in_eager_tasks():
    """Their first step runs inside that of whoever makes them."""

    async def work():
        async for attempt in attempts(retries=2, attempt_timeout=SHORT, **QUICK):
            with attempt:
                if attempt.number == 1:
                    await forever()
                return attempt.number

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        assert await asyncio.gather(*[work() for _ in range(3)]) == [2, 2, 2]

    run(main())


@pytest.mark.parametrize("option", ["timeout", "attempt_timeout"])
def test_without_a_task_of_asyncio_it_says_what_it_needs(option):
    """The block is not run."""
    trio = pytest.importorskip("trio")
    ran = []

    async def work(**options):
        async for attempt in attempts(**options):
            with attempt:
                ran.append(attempt.number)
                if attempt.number == 1 and not options:
                    raise Flop

    with pytest.raises(OperoError, match="opero waits with asyncio, but trio runs this coroutine"):
        trio.run(lambda: work(**{option: 5}))
    assert ran == []
    with pytest.raises(OperoError, match="opero waits with asyncio, but trio runs") as caught:
        trio.run(work)
    assert ran == [1]
    assert type(caught.value.__cause__) is Flop


def test_a_coroutine_closed_in_a_block_leaves_no_timer():
    """It is neither success nor failure, and nothing is run again."""
    log = []

    async def work():
        async for attempt in attempts(retries=3, attempt_timeout=LONG, timeout=LONG + 1):
            with attempt:
                log.append("begin")
                try:
                    await forever()
                finally:
                    log.append("end")

    async def main():
        coroutine = work()
        coroutine.send(None)
        assert len(timers()) == 2
        coroutine.close()
        assert timers() == []

    run(main())
    assert log == ["begin", "end"]


def test_a_loop_that_is_over_keeps_nothing_alive(caplog):
    """Neither its errors nor what the coroutine held, without the garbage collector."""
    caplog.set_level("CRITICAL", "opero")  # a record of the log holds the error

    class Held:
        pass

    async def work(how):
        held = Held()
        gone.append(weakref.ref(held))
        async for attempt in attempts(retries=2, attempt_timeout=SHORT, **QUICK):
            with attempt:
                if how == "fails" or (how == "once" and attempt.number == 1):
                    raise Flop(held)
                await (forever() if how == "cut" else asyncio.sleep(0))

    async def main(how):
        try:
            await work(how)
        except OperoError:
            pass

    for how in ("returns", "once", "fails", "cut"):
        gone: list[Any] = []
        gc.collect()
        gc.disable()
        try:
            run(main(how))
            assert gone[0]() is None
        finally:
            gc.enable()


# --- against asyncio ------------------------------------------------------------------------------


async def deadline_by_opero(seconds: int, body: Callable[..., Any], *args: Any) -> Any:
    """Run a block under a deadline of opero."""
    async for attempt in attempts(retries=1, timeout=seconds):
        with attempt:
            return await body(*args)
    raise AssertionError


async def limit_by_opero(seconds: int, body: Callable[..., Any], *args: Any) -> Any:
    """Run a block whose attempt has a limit of opero."""
    async for attempt in attempts(retries=1, attempt_timeout=seconds):
        with attempt:
            return await body(*args)
    raise AssertionError


@given(plan=PLAN)
def test_whatever_happens_a_deadline_ends_as_by_what_asyncio_has(core, plan):
    """The same outcome, at the same time, by the same way, and the task is as before."""
    with standing_clock(core.clock):
        expected = play(plan, core.clock, by_asyncio)
        assert play(plan, core.clock, deadline_by_opero) == expected


@given(plan=PLAN)
def test_whatever_happens_an_attempt_ends_as_by_what_asyncio_has(core, plan):
    """The same."""
    with standing_clock(core.clock):
        expected = play(plan, core.clock, limit_by_asyncio)
        assert play(plan, core.clock, limit_by_opero) == expected
