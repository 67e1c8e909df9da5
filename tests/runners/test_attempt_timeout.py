"""`attempt_timeout=`: seconds for one awaited attempt, which is cancelled then and has failed.

It runs in the task of the call, so all that others can see is as with `asyncio.timeout` around the
function.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import traceback
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from crowd import Job, run, standing_clock, until_async
from cut_awaits import LONG, SHORT, blocked, forever, in_virtual_time, left_as_found, timers
from hypothesis import given
from timeout_plans import PLAN, balance, limit_by_asyncio, play

import opero as package
from opero import (
    AllFailedError,
    AttemptTimeout,
    BreakerConfig,
    DeadlineExceeded,
    OperoError,
    RateLimiter,
    opero,
    opmap,
    subscribe,
    transient_error,
)
from opero.testing import disabled

CACHED = pytest.mark.parametrize("cache", [False, True], ids=["uncached", "cached"])
WAYS = pytest.mark.parametrize(
    "options",
    [{}, {"cache": True}, {"timeout": LONG}, {"rate_limit": 1e6}, {"retry_on_result": lambda _: 0}],
    ids=lambda options: ",".join(options) or "plain",
)
"""The ways in which an attempt is made."""


# --- one attempt ----------------------------------------------------------------------------------


@WAYS
def test_an_attempt_that_takes_too_long_is_cancelled_and_has_failed(options):
    """Its `finally` has run by then, the error says how long it had, and nothing is left behind."""
    log = []

    @opero(retries=1, attempt_timeout=SHORT, **options)
    async def work():
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            log.append(asyncio.current_task())

    async def main():
        with left_as_found(), pytest.raises(AttemptTimeout) as caught:
            await work()
        assert isinstance(caught.value, TimeoutError)
        assert str(caught.value).endswith("work: the attempt took longer than 0.02 s")
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert len(log) == 1
        if "cache" not in options:
            assert log == [asyncio.current_task()]
        frames = traceback.extract_tb(caught.value.__traceback__)
        home = str(Path(package.__file__).parent)
        assert len([each for each in frames if each.filename.startswith(home)]) <= 2
        assert work.stats().attempts == work.stats().failures == 1
        assert transient_error(caught.value)

    run(main())


@WAYS
def test_one_that_ends_in_time_is_left_alone(options):
    """Whether it returns or raises."""

    @opero(retries=1, attempt_timeout=LONG / 2, **options)
    async def work(fails, /, *, suspends):
        for _ in range(suspends):
            await asyncio.sleep(0)
        if fails:
            raise ValueError(fails)
        return suspends

    async def main():
        with left_as_found():
            for suspends in (0, 1, 3):
                assert await work(False, suspends=suspends) == suspends
                with pytest.raises(ValueError, match="True"):
                    await work(True, suspends=suspends)

    run(main())


@WAYS
def test_a_cut_attempt_is_tried_again_with_all_of_its_time(options):
    """The limit is for one attempt."""
    attempts = []

    @opero(retries=3, min_delay=0, max_delay=0, attempt_timeout=SHORT, **options)
    async def work():
        attempts.append(1)
        await (forever() if len(attempts) < 3 else asyncio.sleep(0))
        return "value"

    async def main():
        with left_as_found():
            assert await work() == "value"

    events = []
    end = subscribe(events.append, "retry")
    run(main())
    end()
    assert len(attempts) == 3
    assert work.stats().retries == 2
    assert [type(event.error) for event in events] == [AttemptTimeout] * 2


@CACHED
def test_if_all_are_cut_the_errors_say_so(cache):
    """Each attempt's error is a timeout."""

    @opero(retries=3, min_delay=0, max_delay=0, attempt_timeout=SHORT, cache=cache)
    async def work():
        await forever()

    with pytest.raises(AllFailedError, match=r"took longer than 0\.02 s") as caught:
        run(work())
    assert [type(error) for error in caught.value.errors] == [AttemptTimeout] * 3


def test_what_it_is_tried_again_for_is_said_by_retry_on():
    """A cut attempt raises `TimeoutError`, which `retry_on` judges like any other error."""
    attempts = []

    async def work():
        attempts.append(1)
        await forever()

    options = {"retries": 2, "min_delay": 0, "max_delay": 0, "attempt_timeout": SHORT}
    with pytest.raises(AttemptTimeout):
        run(opero(retry_on=ConnectionError, **options)(work)())
    assert len(attempts) == 1
    for kind in (TimeoutError, AttemptTimeout, OSError, transient_error):
        attempts.clear()
        with pytest.raises(AllFailedError):
            run(opero(retry_on=kind, **options)(work)())
        assert len(attempts) == 2


@CACHED
@pytest.mark.parametrize("answer", ["value", "error", "group"])
def test_what_comes_of_a_cut_attempt_does_not_count(cache, answer):
    """Neither a value nor another error counts, as in a map."""
    attempts = []

    @opero(retries=2, min_delay=0, max_delay=0, attempt_timeout=SHORT, cache=cache)
    async def work():
        attempts.append(1)
        try:
            await (forever() if len(attempts) == 1 else asyncio.sleep(0))
        except asyncio.CancelledError:
            if answer == "value":
                return "what there is"
            raise (KeyError if answer == "error" else ExceptionGroup("", [KeyError()])) from None
        return "value"

    errors = []
    end = subscribe(lambda event: errors.append(event.error), "retry")
    assert run(work()) == "value"
    end()
    assert [type(error) for error in errors] == [AttemptTimeout]
    expected = {"value": type(None), "error": KeyError, "group": ExceptionGroup}[answer]
    assert type(errors[0].__cause__) is expected


class Stop(BaseException):
    """Ends more than an attempt."""


@CACHED
def test_what_ends_a_program_goes_before_it(cache):
    """If the cleanup raises a `BaseException`, that goes up, and nothing is retried."""
    attempts = []

    @opero(retries=3, attempt_timeout=SHORT, cache=cache)
    async def work():
        attempts.append(1)
        try:
            await forever()
        finally:
            raise Stop

    with pytest.raises(Stop):
        run(work())
    assert len(attempts) == 1


@CACHED
def test_one_that_never_suspends_cannot_be_cut(core, cache):
    """Its value counts."""

    @opero(retries=1, attempt_timeout=SHORT, cache=cache)
    async def work():
        core.clock.advance(10**9)
        return "value"

    assert run(work()) == "value"


def test_a_cleanup_takes_the_time_that_it_takes(core):
    """The next attempt begins after the cleanup."""
    log = []

    @opero(retries=2, min_delay=0, max_delay=0, attempt_timeout=1)
    async def work():
        log.append(("begin", asyncio.get_running_loop().time()))
        try:
            await forever()
        finally:
            await asyncio.sleep(5)
            log.append(("end", asyncio.get_running_loop().time()))

    with pytest.raises(AllFailedError):
        in_virtual_time(core, work)
    assert log == [("begin", 0), ("end", 6), ("begin", 6), ("end", 12)]


# --- with what else there is ----------------------------------------------------------------------


@CACHED
def test_waits_for_permits_and_between_attempts_do_not_count(core, cache):
    """An attempt's time begins with the attempt itself."""
    begun = []

    @opero(
        retries=3,
        min_delay=7,
        max_delay=7,
        rate_limit=RateLimiter(0.1),
        attempt_timeout=2,
        cache=cache,
    )
    async def work():
        begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1 if len(begun) == 3 else 3)
        return "value"

    assert in_virtual_time(core, work) == "value"
    assert begun == pytest.approx([0, 10, 20])


@CACHED
def test_the_deadline_of_the_call_goes_before_it(core, cache):
    """The deadline cuts the third attempt; the errors are those of the first two."""
    begun = []

    @opero(retries=9, min_delay=0, max_delay=0, attempt_timeout=2, timeout=5, cache=cache)
    async def work():
        begun.append(asyncio.get_running_loop().time())
        await forever()

    async def main():
        with pytest.raises(DeadlineExceeded, match="an attempt was still running then") as caught:
            await work()
        assert [type(error) for error in caught.value.errors] == [AttemptTimeout] * 2
        assert asyncio.get_running_loop().time() == pytest.approx(5)
        assert balance() == 0
        assert timers() == []

    in_virtual_time(core, main)
    assert begun == pytest.approx([0, 2, 4])


@CACHED
def test_both_may_pass_at_one_moment(cache):
    """If both pass at the same moment, the call ends."""

    @opero(
        retries=9,
        min_delay=0,
        max_delay=0,
        attempt_timeout=SHORT,
        timeout=SHORT * 1.01,
        cache=cache,
    )
    async def work():
        asyncio.get_running_loop().call_soon(blocked)
        await forever()

    async def main():
        with left_as_found(), pytest.raises(DeadlineExceeded):
            await work()

    run(main())


@pytest.mark.parametrize("timeout", [2.25, 4.75])
def test_a_run_whose_last_caller_goes_while_a_cut_attempt_tidies_up_is_too_late(core, timeout):
    """The caller gets `DeadlineExceeded`, not the error of the attempt."""

    @opero(retries=9, min_delay=0, max_delay=0, attempt_timeout=2, timeout=timeout, cache=True)
    async def work():
        try:
            await forever()
        finally:
            await asyncio.sleep(0.5)

    async def main():
        with pytest.raises(DeadlineExceeded):
            await work()
        assert asyncio.get_running_loop().time() == pytest.approx(timeout + 0.25, abs=0.1)
        assert len(asyncio.all_tasks()) == 1
        assert work.__opero__.store.flights == {}

    in_virtual_time(core, main)


def test_a_cleanup_that_runs_into_the_deadline_is_cut_by_it(core):
    """This matches two nested asyncio timeouts."""
    log = []

    @opero(retries=9, min_delay=0, max_delay=0, attempt_timeout=2, timeout=5)
    async def work():
        try:
            await forever()
        finally:
            try:
                await asyncio.sleep(60)
            finally:
                log.append(asyncio.get_running_loop().time())

    with pytest.raises(DeadlineExceeded):
        in_virtual_time(core, work)
    assert log == pytest.approx([5])


@CACHED
def test_the_next_fallback_value_is_tried(cache):
    """A host that does not answer counts as one that fails."""
    tried = []

    @opero(retries=1, arg_fallback={"host": ["b", "c"]}, attempt_timeout=SHORT, cache=cache)
    async def work(host):
        tried.append(host)
        await (asyncio.sleep(0) if host == "c" else forever())
        return host

    assert run(work("a")) == "c"
    assert tried == ["a", "b", "c"]
    assert work.stats().fallbacks == 2


def test_many_calls_share_one_timer_and_each_is_cut_in_time(core):
    """They are cut in the order in which they began."""
    ended = []

    @opero(retries=1, attempt_timeout=5)
    async def work(number):
        await asyncio.sleep(number)
        try:
            await forever()
        finally:
            ended.append((number, asyncio.get_running_loop().time()))

    async def main():
        tasks = [asyncio.ensure_future(work(number)) for number in range(4)]
        await asyncio.sleep(0)
        assert len(timers()) == 1
        await asyncio.wait(tasks)
        assert [type(task.exception()) for task in tasks] == [AttemptTimeout] * 4
        assert timers() == []

    in_virtual_time(core, main)
    assert ended == [(0, 5), (1, 5), (2, 5), (3, 5)]


@pytest.mark.parametrize("ours", ["inner", "outer"])
def test_one_limited_function_may_call_another(ours):
    """The error names the function whose attempt took too long."""

    @opero(retries=1, attempt_timeout=SHORT if ours == "inner" else LONG)
    async def inner():
        await forever()

    @opero(retries=1, attempt_timeout=SHORT if ours == "outer" else LONG)
    async def outer():
        await inner()

    async def main():
        with left_as_found(), pytest.raises(AttemptTimeout, match=f"{ours}: the attempt"):
            await outer()

    run(main())


def test_a_recursion_has_a_limit_at_each_depth(core):
    """The order in which the calls suspend does not matter."""

    @opero(retries=1, attempt_timeout=4)
    async def work(depth):
        if depth:
            await asyncio.sleep(1)
            try:
                await work(depth - 1)
            except AttemptTimeout:
                return f"inner at {depth}"
        return await forever()

    async def main():
        with pytest.raises(AttemptTimeout):
            await work(3)
        assert asyncio.get_running_loop().time() == 4

    in_virtual_time(core, main)


# --- single flight --------------------------------------------------------------------------------


def test_all_who_wait_for_a_run_get_what_comes_of_its_attempts():
    """The first attempt is cut, and the second succeeds."""
    attempts = []

    @opero(retries=2, min_delay=0, max_delay=0, attempt_timeout=SHORT, cache=True)
    async def work():
        attempts.append(1)
        await (forever() if len(attempts) == 1 else asyncio.sleep(0))
        return "value"

    async def main():
        return await asyncio.gather(*[work() for _ in range(5)])

    assert run(main()) == ["value"] * 5
    assert len(attempts) == 2
    assert work.__opero__.store.flights == {}


@pytest.mark.parametrize("when", [0.5, 1.125, 1.5])
def test_the_last_caller_who_goes_ends_the_run_whatever_the_attempt_does(core, when):
    """Before the cut, during the cleanup after it, and in the next attempt."""
    begun = []
    ended = []

    @opero(retries=3, min_delay=0, max_delay=0, attempt_timeout=1, cache=True)
    async def work():
        begun.append(1)
        try:
            await forever()
        finally:
            await asyncio.sleep(0.25)
            ended.append(1)

    async def main():
        task = asyncio.ensure_future(work())
        await asyncio.sleep(when)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert len(begun) == (2 if when > 1.25 else 1)
        assert len(ended) == len(begun)
        assert len(asyncio.all_tasks()) == 1
        assert work.__opero__.store.flights == {}

    in_virtual_time(core, main)


def test_attempts_behind_a_stored_cache_are_cut_too(tmp_path):
    """The result of the next attempt is stored."""
    attempts = []

    @opero(
        retries=2,
        min_delay=0,
        max_delay=0,
        attempt_timeout=SHORT,
        cache=True,
        cache_backend="disk",
        cache_dir=tmp_path,
        cache_secret="a secret of sixteen bytes",
        cache_key=lambda x: x,
    )
    async def work(x):
        attempts.append(x)
        await (forever() if len(attempts) == 1 else asyncio.sleep(0))
        return f"value {x}"

    async def main():
        with left_as_found():
            assert await asyncio.gather(work("x"), work("x")) == ["value x"] * 2
            assert await work("x") == "value x"

    run(main())
    assert attempts == ["x", "x"]
    assert work.stats().hits == 1


def test_a_method_has_a_limit_for_each_attempt():
    """Each instance's attempts have their own limit."""

    class Shop:
        @opero(retries=2, min_delay=0, max_delay=0, attempt_timeout=SHORT)
        async def price(self, item):
            self.asked = [*getattr(self, "asked", ()), item]
            await (forever() if len(self.asked) == 1 else asyncio.sleep(0))
            return item

    async def main():
        shops = [Shop(), Shop()]
        assert await asyncio.gather(*[shop.price("tea") for shop in shops]) == ["tea", "tea"]
        assert [shop.asked for shop in shops] == [["tea", "tea"]] * 2

    run(main())


def test_a_function_with_a_limit_goes_when_nobody_holds_it():
    """It is freed without the garbage collector, even after a call."""
    gc.collect()
    gc.disable()
    try:
        work = opero(retries=1, attempt_timeout=LONG)(_suspends)
        run(work())
        gone = weakref.ref(work.__opero__)
        del work
        assert gone() is None
    finally:
        gc.enable()


async def _suspends() -> None:
    await asyncio.sleep(0)


@WAYS
def test_switched_off_it_cuts_nothing(options):
    """The function behaves as if undecorated."""

    @opero(retries=3, attempt_timeout=1e-9, **options)
    async def work():
        await asyncio.sleep(0.001)
        return "value"

    with disabled():
        assert run(work()) == "value"


# --- cancelled by others --------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize("order", ["cancel first", "timeout first"])
def test_whoever_cancels_at_the_moment_it_passes_goes_before_it(options, order):
    """The task is cancelled, as its owner wants, and nothing is retried."""
    attempts = []

    @opero(retries=3, min_delay=0, max_delay=0, attempt_timeout=0.25, **options)
    async def work():
        attempts.append(1)
        await forever()

    async def main():
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(work())
        await until_async(lambda: attempts)
        await asyncio.sleep(0)
        (timer,) = [each for each in timers() if each.when() < loop.time() + 1]
        when = timer.when() + (0.0001 if order == "timeout first" else -0.0001)
        loop.call_at(when, task.cancel)
        blocked(0.26)  # both are due when the loop looks again
        await asyncio.wait([task])
        assert task.cancelled()
        assert task.cancelling() == 1
        assert len(attempts) == 1

    run(main())


@WAYS
def test_a_cancellation_during_the_cleanup_of_a_cut_attempt_goes_before_it(options):
    """Even if the cleanup turns it into another error."""
    for makes in (asyncio.CancelledError, KeyError):
        cleaning = []
        attempts = []

        @opero(retries=3, min_delay=0, max_delay=0, attempt_timeout=SHORT, **options)
        async def work(cleaning=cleaning, attempts=attempts, makes=makes):
            attempts.append(1)
            try:
                await forever()
            finally:
                cleaning.append(1)
                try:
                    await asyncio.sleep(0.05)
                except asyncio.CancelledError:
                    raise makes from None

        async def main(work=work, cleaning=cleaning):
            task = asyncio.create_task(work())
            await until_async(lambda: cleaning)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or isinstance(task.exception(), KeyError)
            assert task.cancelling() == 1

        run(main())
        assert len(attempts) == 1


@WAYS
def test_attempts_in_the_tidying_up_of_a_cancelled_task_are_cut_and_tried_again(options):
    """An earlier cancellation of the task does not concern these attempts."""
    attempts = []

    @opero(retries=3, min_delay=0, max_delay=0, attempt_timeout=SHORT, **options)
    async def work():
        attempts.append(1)
        await (forever() if len(attempts) < 3 else asyncio.sleep(0))
        return "tidy"

    async def main():
        found = []

        async def owner():
            try:
                await forever()
            finally:
                found.append(await work())

        task = asyncio.create_task(owner())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert found == ["tidy"]

    run(main())
    assert len(attempts) == 3


@WAYS
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "around"])
@pytest.mark.parametrize("ours", [SHORT, LONG])
def test_the_shorter_of_two_timeouts_decides(options, ours, inside):
    """One is asyncio's, inside the function or around it; the other is opero's."""
    theirs = LONG if ours == SHORT else SHORT

    @opero(
        retries=1,
        attempt_timeout=ours,
        **{**options, **({"timeout": 99} if "timeout" in options else {})},
    )
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
        assert (type(caught.value) is AttemptTimeout) == (ours == SHORT)

    run(main())


@CACHED
def test_a_timeout_of_asyncio_that_passes_at_the_same_moment_goes_before_it(cache):
    """The asyncio timeout is around the call."""

    @opero(retries=3, min_delay=0, max_delay=0, attempt_timeout=SHORT, cache=cache)
    async def work():
        await forever()

    async def main():
        with left_as_found(), pytest.raises(TimeoutError) as caught:  # noqa: PT012 - what is around the call matters
            async with asyncio.timeout(SHORT):
                asyncio.get_running_loop().call_soon(blocked)
                await work()
        assert type(caught.value) is TimeoutError

    run(main())


@CACHED
def test_one_in_the_function_that_passes_at_the_same_moment_does_not(cache):
    """The attempt ends, and the next one has a new timeout."""
    attempts = []

    @opero(retries=2, min_delay=0, max_delay=0, attempt_timeout=SHORT, cache=cache)
    async def work():
        attempts.append(1)
        async with asyncio.timeout(SHORT):
            if len(attempts) == 1:
                asyncio.get_running_loop().call_soon(blocked)
                await forever()
        return "value"

    async def main():
        with left_as_found():
            assert await work() == "value"

    run(main())


@pytest.mark.parametrize("retries", [1, 3])
def test_a_scope_that_ends_at_the_same_moment_knows_its_cancellation(retries):
    """The scope is around the call, and takes precedence."""
    attempts = []

    @opero(retries=retries, min_delay=0, max_delay=0, attempt_timeout=SHORT)
    async def work():
        attempts.append(1)
        await anyio.sleep(LONG)

    async def main():
        for _ in range(3):
            attempts.clear()
            with left_as_found():
                with anyio.move_on_after(SHORT) as scope:
                    asyncio.get_running_loop().call_soon(blocked)
                    await work()
                assert scope.cancelled_caught
            assert len(attempts) == 1
            await asyncio.sleep(0)

    run(main())


def test_what_is_shielded_by_anyio_ends_in_peace():
    """The attempt is cut when the shield opens, and only once."""
    log = []

    @opero(retries=2, min_delay=0, max_delay=0, attempt_timeout=SHORT)
    async def work():
        log.append("begin")
        if log.count("begin") == 2:
            return "value"
        try:
            await anyio.sleep(LONG)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(SHORT)
                log.append("tidy")

    assert run(work()) == "value"
    assert log == ["begin", "tidy", "begin"]


# --- loops, tasks ---------------------------------------------------------------------------------


async def every_kind() -> None:
    """Call limited functions in every way that makes a difference."""
    tried = []

    @opero(retries=2, min_delay=0, max_delay=0, attempt_timeout=SHORT)
    async def work(number):
        tried.append(number)
        if number % 2 and tried.count(number) == 1:
            await forever()
        await asyncio.sleep(0)
        return number

    assert await asyncio.gather(*[work(number) for number in range(10)]) == [*range(10)]
    assert len(tried) == 15
    assert balance() == 0


def test_it_is_the_same_in_uvloop():
    """Its timers count whole milliseconds."""
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(every_kind())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_it_is_the_same_in_eager_tasks():
    """Their first step runs inside the step of their creator."""

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        await every_kind()

    run(main())


def test_it_is_the_same_in_several_loops_at_once():
    """Each loop has its own deadlines for the same function."""

    @opero(retries=1, attempt_timeout=0.05)
    async def work(hangs):
        await (forever() if hangs else asyncio.sleep(0))
        return hangs

    async def main():
        outcomes = await asyncio.gather(
            *[work(number % 2 == 0) for number in range(10)], return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes[::2]} == {AttemptTimeout}
        assert {type(outcome) for outcome in outcomes[1::2]} <= {AttemptTimeout, bool}

    for job in [Job(asyncio.run, main()) for _ in range(4)]:
        job.result()


@pytest.mark.parametrize(
    "options",
    [
        {"retries": 1},
        {"retries": 1, "rate_limit": 1e6},
        {"retries": 3, "retry_on": Exception},
        {"arg_fallback": {"key": ["a", "b"]}},
        {"breaker": BreakerConfig(minimum=1)},
    ],
    ids=["once", "rate_limit", "retries", "fallback", "breaker"],
)
def test_without_a_task_it_says_what_it_needs(options):
    """There is nothing to cancel, so the function does not begin, and no attempt fails."""
    begun = []

    @opero(attempt_timeout=SHORT, **options)
    async def work(key="a"):
        begun.append(key)

    async def main():
        loop = asyncio.get_running_loop()
        outcome = loop.create_future()

        def drive():
            try:
                work().send(None)
            except OperoError as error:
                outcome.set_result(str(error))

        loop.call_soon(drive)
        assert "work has an attempt_timeout=, which cancels the task" in await outcome

    run(main())
    trio = pytest.importorskip("trio")
    with pytest.raises(OperoError, match="opero waits with asyncio, but trio runs this coroutine"):
        trio.run(work)
    assert begun == []
    assert (work.stats().retries, work.stats().fallbacks, work.stats().refused) == (0, 0, 0)
    run(work())
    assert begun == ["a"]


@pytest.mark.parametrize("kind", ["cut", "in time", "fails"])
def test_a_call_that_is_over_keeps_its_arguments_alive_in_no_cycle(kind):
    """Its arguments are freed immediately, without the garbage collector."""

    class Held:
        pass

    @opero(retries=2, min_delay=0, max_delay=0, attempt_timeout=SHORT)
    async def work(held):
        if kind == "fails":
            raise ValueError
        await (forever() if kind == "cut" else asyncio.sleep(0))

    async def main():
        held = Held()
        gone = weakref.ref(held)
        try:
            await work(held)
        except OperoError:
            pass
        del held
        return gone

    gc.collect()
    gc.disable()
    try:
        assert run(main())() is None
    finally:
        gc.enable()


def test_a_coroutine_closed_early_closes_the_function_and_leaves_no_timer():
    """Closing is not a failure, and nothing is retried."""
    log = []

    @opero(retries=3, attempt_timeout=LONG)
    async def work():
        log.append("begin")
        try:
            await forever()
        finally:
            log.append("end")

    async def main():
        coroutine = work()
        coroutine.send(None)
        assert len(timers()) == 1
        coroutine.close()
        assert timers() == []

    run(main())
    assert log == ["begin", "end"]


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function", [len, lambda: None, staticmethod(lambda: None), classmethod(lambda cls: None)]
)
def test_an_ordinary_function_is_refused_with_what_to_do_instead(function):
    """The decorator raises the error."""
    wanted = (
        r"^attempt_timeout=2\.5: .* is an ordinary function, and nothing can stop a thread that "
        r'runs one; .* opmap\(mode="process", attempt_timeout=2\.5\)$'
    )
    with pytest.raises(ValueError, match=wanted):
        opero(attempt_timeout=2.5)(function)


@pytest.mark.parametrize("timeout", [2, 1.5])
def test_one_that_is_not_shorter_than_the_timeout_has_no_effect_and_is_refused(timeout):
    """The whole call would end first."""
    with pytest.raises(ValueError, match=f"attempt_timeout=2 has no effect: timeout={timeout}"):
        opero(attempt_timeout=2, timeout=timeout)
    assert opmap(mode="process", attempt_timeout=2, timeout=timeout, workers=1)(abs)


@pytest.mark.parametrize("value", [0, -1, "2", True, float("nan"), 1e10])
def test_what_is_no_time_is_refused(value):
    """The same values are refused as for `timeout`."""
    with pytest.raises((ValueError, TypeError), match=r"attempt_timeout=.* is not allowed"):
        opero(attempt_timeout=value)


def test_names_that_others_have_for_it_are_known():
    """The message names the option of opero that does this."""
    with pytest.raises(TypeError, match="did you mean 'attempt_timeout'"):
        opero(per_try_timeout=2)  # type: ignore[call-overload]


# --- against asyncio ------------------------------------------------------------------------------


async def by_opero(seconds: int, body: Callable[..., Any], *args: Any) -> Any:
    """Make an attempt with an opero limit."""

    @opero(retries=1, attempt_timeout=seconds)
    async def work() -> Any:
        return await body(*args)

    return await work()


@given(plan=PLAN)
def test_whatever_happens_it_ends_as_by_what_asyncio_has(core, plan):
    """The outcome, the time and the path are the same, and the task is as before."""
    with standing_clock(core.clock):
        expected = play(plan, core.clock, partial(limit_by_asyncio, looks_again=True))
        assert play(plan, core.clock, by_opero) == expected
