"""`attempts(...)` in ordinary functions: blocks of code that are run again when they fail."""

# ruff: noqa: B007, PERF401, PT012 - a loop over attempts is more than one statement

from __future__ import annotations

import asyncio
import gc
import inspect
import signal
import threading
import time
import traceback
import unittest
import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from crowd import Job, together, until

import opero as package
from opero import (
    AllFailedError,
    Attempt,
    AttemptLoops,
    Breaker,
    BreakerConfig,
    BreakerOpenError,
    DeadlineExceeded,
    OperoError,
    RateLimiter,
    RetryConfig,
    attempts,
    opero,
    subscribe,
)
from opero.core.gate import FAILED, NEUTRAL, SUCCEEDED, WITHDRAWN
from opero.limits import gates
from opero.limits.waiting import PollingQueue
from opero.testing import disabled, enabled, manual_clock, skip_waits

QUICK: dict[str, Any] = {"min_delay": 0, "max_delay": 0}


class Flop(Exception):
    """What a block raises that is worth another attempt."""


# --- what a loop does -----------------------------------------------------------------------------


def test_a_block_that_succeeds_is_run_once():
    """What it computes is an ordinary variable."""
    numbers = []
    for attempt in attempts():
        with attempt:
            value = "value"
            numbers.append(attempt.number)
    assert value == "value"
    assert numbers == [1]
    assert type(attempt) is Attempt


@pytest.mark.parametrize("failures", [1, 2])
def test_a_block_that_fails_is_run_again(failures):
    """Until it succeeds; the attempts are numbered from 1."""
    numbers = []
    with skip_waits() as clock:
        for attempt in attempts(retries=3, min_delay=5, max_delay=5):
            with attempt:
                numbers.append(attempt.number)
                if attempt.number <= failures:
                    raise Flop
        assert clock.waited >= 5 * failures
    assert numbers == [*range(1, failures + 2)]


@pytest.mark.parametrize("how", ["return", "break", "continue", "end"])
def test_a_block_may_be_left_in_every_way(how):
    """All but an exception mean that it has succeeded."""
    tried = []

    def work():
        for attempt in attempts(retries=3, **QUICK):
            with attempt:
                tried.append(attempt.number)
                if attempt.number == 1:
                    raise Flop
                if how == "return":
                    return "returned"
                if how == "break":
                    break
                if how == "continue":
                    continue
        return "behind"

    assert work() == ("returned" if how == "return" else "behind")
    assert tried == [1, 2]


def test_what_stands_behind_the_block_is_run_after_each_attempt_but_one_that_is_the_last_and_fails():
    """As it is in the loop; what is to be run once goes behind the loop."""
    behind = []
    for attempt in attempts(retries=3, **QUICK):
        with attempt:
            if attempt.number == 1:
                raise Flop
        behind.append(attempt.number)
    assert behind == [1, 2]
    behind.clear()
    with pytest.raises(AllFailedError):
        for attempt in attempts(retries=2, **QUICK):
            with attempt:
                raise Flop
            behind.append(attempt.number)
    assert behind == [1]


def test_if_all_fail_the_error_holds_all_of_them():
    """It is raised where the last block ends, and says which function the block is in."""
    errors = [Flop(number) for number in range(3)]
    with pytest.raises(AllFailedError, match="the last error: Flop: 2") as caught:
        for attempt in attempts(retries=3, **QUICK):
            with attempt:
                raise errors[attempt.number - 1]
    assert caught.value.errors == errors
    assert caught.value.__cause__ is errors[2]
    name = "test_if_all_fail_the_error_holds_all_of_them"
    assert str(caught.value).startswith(f"the block in {name} failed in all 3 attempts")
    frames = traceback.extract_tb(caught.value.__traceback__)
    home = str(Path(package.__file__).parent)
    assert len([each for each in frames if each.filename.startswith(home)]) <= 1


@pytest.mark.parametrize("retries", [0, 1])
def test_with_one_attempt_the_error_is_the_blocks_own(retries):
    """Untouched."""
    error = Flop()
    with pytest.raises(Flop) as caught:
        for attempt in attempts(retries=retries):
            with attempt:
                raise error
    assert caught.value is error
    assert error.__cause__ is error.__context__ is None
    assert not hasattr(error, "__notes__")
    assert len(traceback.extract_tb(error.__traceback__)) == 1


def test_reraise_raises_the_last_error_with_a_note():
    """Itself."""
    errors = [Flop(1), Flop(2)]
    with pytest.raises(Flop) as caught:
        for attempt in attempts(retries=2, reraise=True, **QUICK):
            with attempt:
                raise errors[attempt.number - 1]
    assert caught.value is errors[1]
    assert caught.value.__notes__ == ["opero: 2 attempts were made"]


@pytest.mark.parametrize(
    "error",
    [
        KeyError("not matched"),
        KeyboardInterrupt(),
        SystemExit(),
        asyncio.CancelledError(),
        StopIteration(),
        RecursionError(),
        unittest.SkipTest(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_not_worth_another_attempt_propagates_unchanged(error):
    """At once."""
    tried = []
    with pytest.raises(type(error)) as caught:
        for attempt in attempts(retries=3, retry_on=Flop):
            with attempt:
                tried.append(1)
                raise error
    assert caught.value is error
    assert error.__cause__ is error.__context__ is None
    assert tried == [1]


def test_a_predicate_decides_and_is_asked_once_for_each_failure():
    """As for a function."""
    asked = []

    def worth(error):
        asked.append(error)
        return len(asked) < 2

    with pytest.raises(Flop) as caught:
        for attempt in attempts(retries=5, retry_on=worth, **QUICK):
            with attempt:
                raise Flop(attempt.number)
    assert [error.args for error in asked] == [(1,), (2,)]
    assert caught.value is asked[1]


def test_what_a_predicate_raises_is_raised():
    """With the error of the block as its context."""

    def broken(error):
        raise LookupError("broken")

    error = Flop()
    with pytest.raises(LookupError, match="broken") as caught:
        for attempt in attempts(retry_on=broken):
            with attempt:
                raise error
    assert caught.value.__context__ is error


def test_a_wait_that_cannot_end_in_time_is_not_begun():
    """The deadline counts from the beginning of the loop."""
    with manual_clock() as clock:
        with pytest.raises(DeadlineExceeded, match="before attempt 3 would end too late") as caught:
            for attempt in attempts(retries=9, min_delay=3, max_delay=3, timeout=5):
                with attempt:
                    raise Flop(attempt.number)
        assert clock.waited == 3
    assert [error.args for error in caught.value.errors] == [(1,), (2,)]


def test_the_wait_that_a_server_asks_for_is_kept():
    """`retry_after` is heeded as for a function."""

    def asks(error):
        return 7

    with manual_clock() as clock:
        for attempt in attempts(min_delay=1, max_delay=10, retry_after=asks):
            with attempt:
                if attempt.number == 1:
                    raise Flop
        assert clock.waited == 7


def test_each_attempt_pays_a_permit():
    """Of a limiter that loops share, wherever they are."""
    limiter = RateLimiter(0.5)
    policy = attempts(retries=2, rate_limit=limiter, **QUICK)
    with manual_clock() as clock:
        for _ in range(3):
            for attempt in policy:
                with attempt:
                    if attempt.number == 1:
                        raise Flop
        assert clock.waited == pytest.approx(2 * 5)
    assert policy.stats().permit_wait == pytest.approx(10)


def test_a_permit_that_would_come_too_late_is_not_waited_for():
    """The block is not run."""
    limiter = RateLimiter(0.01)
    assert limiter.try_acquire()
    with pytest.raises(DeadlineExceeded, match="permit would come too late"):
        for attempt in attempts(rate_limit=limiter, timeout=20):
            with attempt:
                raise AssertionError
    assert limiter._bucket.queued == 0


def test_retry_takes_a_config_object():
    """In place of the keywords."""
    policy = attempts(retry=RetryConfig(attempts=2, min_delay=0, max_delay=0))
    with pytest.raises(AllFailedError, match="all 2 attempts"):
        for attempt in policy:
            with attempt:
                raise Flop


def test_a_breaker_counts_the_blocks_and_keeps_them_from_running():
    """One for all loops that are given it."""
    breaker = Breaker(minimum=4, failure_ratio=0.5, open_for=60)
    ran = []

    def work():
        for attempt in attempts(retries=2, breaker=breaker, **QUICK):
            with attempt:
                ran.append(attempt.number)
                raise Flop

    with manual_clock() as clock:
        for _ in range(2):
            with pytest.raises(AllFailedError):
                work()
        assert breaker.state == "open"
        with pytest.raises(BreakerOpenError, match=r"the block in .*\.work"):
            work()
        assert ran == [1, 2, 1, 2]
        clock.advance(61)
        for attempt in attempts(breaker=breaker):  # the probe
            if attempt.number == 1:
                break  # and nobody makes it
        del attempt
        for attempt in attempts(breaker=breaker):
            with attempt:
                pass
        assert breaker.state == "closed"


def test_an_open_breaker_is_waited_for_if_there_is_time():
    """The block is run when it lets a probe in."""
    breaker = Breaker(open_for=5)
    with manual_clock() as clock:
        breaker.trip()
        for attempt in attempts(breaker=breaker, timeout=60):
            with attempt:
                assert 5 <= clock.waited < 60
        assert breaker.state == "closed"


# --- policies -------------------------------------------------------------------------------------


def test_a_policy_may_be_kept_and_used_again_and_again():
    """Each loop makes its own attempts; `stats()` counts all."""
    policy = attempts(retries=2, **QUICK)

    def fails():
        for attempt in policy:
            with attempt:
                raise Flop

    def recovers():
        for attempt in policy:
            with attempt:
                if attempt.number == 1:
                    raise Flop

    for _ in range(3):
        with pytest.raises(AllFailedError, match=r"the block in .*\.fails failed"):
            fails()
        recovers()
    stats = policy.stats()
    assert (stats.calls, stats.attempts, stats.retries, stats.failures) == (6, 12, 6, 3)
    assert type(policy) is AttemptLoops


def test_threads_may_use_one_policy_at_once():
    """Each in loops of its own."""
    policy = attempts(retries=3, **QUICK)

    def work(number):
        tried = []
        for _ in range(50):
            for attempt in policy:
                with attempt:
                    tried.append(attempt.number)
                    if attempt.number == 1 + number % 3:
                        break
                    raise Flop
        return tried

    for number, job in enumerate(together(6, work)):
        assert job.result() == [*range(1, 2 + number % 3)] * 50
    assert policy.stats().calls == 300


def test_loops_may_be_nested_and_each_has_its_own_attempts():
    """An inner one that gives up has failed once for the outer one."""
    tried = []
    with pytest.raises(AllFailedError) as caught:
        for outer in attempts(retries=2, **QUICK):
            with outer:
                for inner in attempts(retries=3, **QUICK):
                    with inner:
                        tried.append((outer.number, inner.number))
                        raise Flop
    assert tried == [(one, two) for one in (1, 2) for two in (1, 2, 3)]
    assert [type(error) for error in caught.value.errors] == [AllFailedError] * 2


def test_a_leaf_of_a_recursion_is_not_tried_again_at_each_depth():
    """As for a decorated function; with a policy that is kept."""
    policy = attempts(retries=3, **QUICK)
    tried = []

    def walk(depth):
        for attempt in policy:
            with attempt:
                if depth:
                    return walk(depth - 1)
                tried.append(1)
                raise Flop
        raise AssertionError

    with pytest.raises(AllFailedError):
        walk(4)
    assert len(tried) == 3


def test_events_say_where_the_block_is():
    """Its function, module and kind; failures of one loop belong together."""
    heard = []

    def load():
        for attempt in attempts(retries=2, min_delay=0.5, max_delay=0.5):
            with attempt:
                raise Flop

    end = subscribe(heard.append)
    with skip_waits(), pytest.raises(AllFailedError):
        load()
    end()
    assert [event.kind for event in heard] == ["retry", "give_up"]
    for event in heard:
        assert event.function == "test_events_say_where_the_block_is.<locals>.load"
        assert (event.module, event.mode) == (__name__, "sync")
        assert event.of == 2
        assert event.call == heard[0].call
    assert heard[0].delay == 0.5


def test_a_block_outside_of_functions_goes_by_its_module():
    """As there is no other name."""
    code = (
        "for attempt in attempts(retries=2, min_delay=0):\n"
        "    with attempt:\n"
        "        raise LookupError\n"
    )
    with pytest.raises(AllFailedError, match=r"^the block in some\.module failed"):
        exec(code, {"attempts": attempts, "__name__": "some.module"})


@pytest.mark.refcounts
def test_the_options_are_checked_once_for_each_combination(monkeypatch):
    """Values that may belong to a call, such as closures, are not kept."""
    from opero.blocks import policy

    monkeypatch.setattr(policy, "_plans", {})
    for _ in range(3):
        attempts(retries=7, retry_on=(ValueError, OSError), timeout=9)
        attempts(retries=7.0 and 7)
    assert len(policy._plans) == 2

    def one(number):
        return attempts(retry_on=lambda error: number > 1, retries=number)

    made = [one(number) for number in range(3)]
    assert len(policy._plans) == 2
    assert [each._plan.retry.attempts for each in made] == [0, 1, 2]
    gone = weakref.ref(made[2]._plan.retry.retry_on)
    del made
    assert gone() is None
    assert all(attempts(retries=number) for number in range(1000))
    assert len(policy._plans) <= policy._MOST_PLANS


@pytest.mark.parametrize(("one", "other"), [(1, True), (0, 0.0), (1, 1.0)])
def test_values_of_other_types_are_checked_although_they_are_equal(one, other):
    """A flag is no number of attempts."""
    attempts(retries=one)
    with pytest.raises(TypeError, match="retries="):
        attempts(retries=other)


# --- what is written wrongly ----------------------------------------------------------------------


def test_a_loop_without_a_with_says_so():
    """Instead of running for ever, or once."""
    ran = []
    with pytest.raises(OperoError, match="attempt 1 was not made: write `with attempt:`"):
        for attempt in attempts():
            ran.append(attempt.number)
    assert ran == [1]


def test_an_attempt_is_for_one_with():
    """Not for a second one, inside or behind the first, nor later."""
    with pytest.raises(OperoError, match="attempt 1 has already begun"):
        for attempt in attempts(retries=3):
            with attempt, attempt:
                pass
    for attempt in attempts():
        with attempt:
            pass
        with pytest.raises(OperoError, match="attempt 1 is over"), attempt:
            pass
    with pytest.raises(OperoError, match="attempt 1 is over"), attempt:
        pass
    kept = []
    for attempt in attempts(retries=2, **QUICK):
        with attempt:
            kept.append(attempt)
            if attempt.number == 2:
                with pytest.raises(OperoError, match="attempt 1 is over"), kept[0]:
                    pass
                continue
            raise Flop


def test_what_is_written_wrongly_is_not_tried_again():
    """By no loop around it, and by no decorated function."""
    ran = []

    @opero(retries=3, **QUICK)
    def work():
        for outer in attempts(retries=3, **QUICK):
            with outer:
                for inner in attempts(retries=3, **QUICK):
                    ran.append(inner.number)

    with pytest.raises(OperoError, match="write `with attempt:`"):
        work()
    assert ran == [1]


def test_a_loop_that_goes_on_inside_its_block_says_so():
    """The attempt is under way."""
    loop = iter(attempts())
    with next(loop), pytest.raises(OperoError, match="goes on inside attempt 1"):
        next(loop)
    assert next(loop, "over") == "over"


def test_a_for_loop_in_a_coroutine_is_refused():
    """It would block the event loop."""

    async def coroutine():
        for attempt in attempts():
            with attempt:
                raise AssertionError

    async def generator():
        for attempt in attempts():
            with attempt:
                yield 1

    async def main():
        with pytest.raises(OperoError, match=r"\.coroutine is a coroutine, .* write `async for`"):
            await coroutine()
        with pytest.raises(OperoError, match=r"\.generator is a coroutine, .* write `async for`"):
            async for _ in generator():
                pass

    asyncio.run(main())


def test_attempt_timeout_in_a_for_loop_is_refused():
    """Before the block is run."""
    with pytest.raises(ValueError, match=r"attempt_timeout=2\.5: nothing can stop a thread"):
        for _ in attempts(attempt_timeout=2.5):
            raise AssertionError


def test_a_policy_is_no_context_manager_and_no_decorator():
    """The message says what to write."""
    with pytest.raises(TypeError, match="for attempt in attempts"), attempts():
        pass
    with pytest.raises(TypeError, match=r"decorate a function with @opero"):
        attempts()(lambda: None)
    with pytest.raises(TypeError, match="with parentheses"):
        attempts(lambda: None)
    with pytest.raises(TypeError, match="iterator"):
        next(attempts())  # type: ignore[call-overload]

    async def main():
        with pytest.raises(TypeError, match="for attempt in attempts"):
            async with attempts():
                pass
        async for attempt in attempts():
            with pytest.raises(TypeError, match="without `async`"):
                async with attempt:
                    pass
            with attempt:
                pass

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"attempts": 3}, TypeError, "did you mean 'retries'"),
        ({"stop": 3}, TypeError, "did you mean 'retries'"),
        ({"on": ValueError}, TypeError, "did you mean 'retry_on'"),
        ({"cache": True}, TypeError, "it is an option of opero"),
        ({"retry_on_result": bool}, TypeError, "it is an option of opero"),
        ({"burst": 2}, TypeError, "it is an option of opero"),
        ({"retry": RetryConfig(retry_on_result=bool)}, ValueError, "no effect on a block"),
        ({"rate_limit": 5}, ValueError, r"SHARED = RateLimiter\(5\)"),
        ({"breaker": True}, ValueError, r"SHARED = Breaker\(\)"),
        ({"breaker": BreakerConfig(minimum=5)}, ValueError, r"SHARED = Breaker\(\.\.\.\)"),
        ({"breaker": RateLimiter(5)}, TypeError, "rate_limit="),
        ({"retries": -1}, ValueError, "retries=-1 is not allowed"),
        ({"attempt_timeout": 5, "timeout": 5}, ValueError, "no effect: timeout=5"),
        ({"min_delay": 5, "max_delay": 1}, ValueError, "max_delay"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_at_once(options, kind, message):
    """Before anything is run."""
    for _ in range(2):
        with pytest.raises(kind, match=message):
            attempts(**options)


# --- gates, and loops that are left ---------------------------------------------------------------


@pytest.fixture
def told(core, monkeypatch):
    """Let every attempt pass a gate that gives tickets and wants to know how it ends."""
    log: list[Any] = []

    class Gate(core.Gate):
        def __init__(self) -> None:
            super().__init__(True)
            self.tickets = 0

        def enter(self, now: int) -> int:
            self.tickets += 1
            log.append(self.tickets)
            return -self.tickets

        def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:
            log.append((ticket, outcome))

    queue = PollingQueue(Gate(), "its turn", core.clock)
    monkeypatch.setattr(gates, "ROWS", [lambda *_: queue])
    return log


def test_gates_learn_how_each_attempt_has_ended(told):
    """Once."""
    for attempt in attempts(retries=3, **QUICK):
        with attempt:
            if attempt.number == 1:
                raise Flop
    assert told == [1, (1, FAILED), 2, (2, SUCCEEDED)]
    told.clear()
    with pytest.raises(KeyError):
        for attempt in attempts(retry_on=Flop):
            with attempt:
                raise KeyError
    assert told == [1 + 2, (3, NEUTRAL)]


@pytest.mark.parametrize("how", ["break", "return", "raise", "no with", "drop"])
def test_an_attempt_that_is_not_made_is_withdrawn(told, how):
    """Once, as soon as nobody can make it."""

    def work():
        for attempt in attempts(**QUICK):
            if how == "break":
                break
            if how == "return":
                return
            if how == "raise":
                raise Flop
        assert attempt.number

    if how == "drop":
        loop = iter(attempts())
        kept = next(loop)
        del loop
        assert told == [1]
        del kept
    elif how in {"raise", "no with"}:
        with pytest.raises((Flop, OperoError)):
            work()
    else:
        work()
    gc.collect()
    assert told == [1, (1, WITHDRAWN)]


def test_a_generator_that_is_closed_in_a_block_leaves_it(told):
    """It is neither success nor failure."""

    def numbers():
        for attempt in attempts(**QUICK):
            with attempt:
                yield attempt.number
                yield "more"

    source = numbers()
    assert next(source) == 1
    source.close()
    assert told == [1, (1, NEUTRAL)]
    assert list(numbers()) == [1, "more"]


def interrupt_main_thread_when(condition: Any) -> Job:
    """Interrupt this thread, like Ctrl-C does, as soon as a condition holds."""
    me = threading.main_thread().ident
    assert me is not None

    def work():
        until(condition)
        time.sleep(0.02)  # from "it is about to wait" to "it waits"
        signal.pthread_kill(me, signal.SIGINT)

    return Job(work)


def test_ctrl_c_in_a_wait_ends_the_loop(told):
    """At once; nothing is left behind."""

    def work():
        for attempt in attempts(retries=3, min_delay=30, max_delay=30):
            with attempt:
                ran.append(1)
                raise Flop

    ran: list[int] = []
    interrupter = interrupt_main_thread_when(lambda: ran)
    with pytest.raises(KeyboardInterrupt):
        work()
    interrupter.result()
    assert len(ran) == 1
    assert told == [1, (1, FAILED)]


def test_an_interrupt_in_a_wait_for_a_permit_leaves_the_line():
    """The permit is for others."""
    limiter = RateLimiter(0.01)
    assert limiter.try_acquire()
    ran = []

    def work():
        for attempt in attempts(rate_limit=limiter):
            with attempt:
                ran.append(1)

    interrupter = interrupt_main_thread_when(lambda: len(limiter._queue) == 1)
    with pytest.raises(KeyboardInterrupt):
        work()
    interrupter.result()
    assert ran == []
    assert limiter._bucket.queued == 0


@pytest.mark.refcounts
def test_a_loop_that_is_over_keeps_nothing_alive(caplog):
    """Neither the error nor what the block's function held, without the garbage collector."""
    caplog.set_level("CRITICAL", "opero")  # a record of the log holds the error

    class Held:
        pass

    def work(fails):
        held = Held()
        gone.append(weakref.ref(held))
        for attempt in attempts(retries=2, **QUICK):
            with attempt:
                if attempt.number <= fails:
                    raise Flop(held)

    for fails in (0, 1, 2):
        gone: list[Any] = []
        gc.collect()
        gc.disable()
        try:
            try:
                work(fails)
            except AllFailedError:
                pass
            assert gone[0]() is None
        finally:
            gc.enable()


# --- how it looks ---------------------------------------------------------------------------------


def test_what_it_is_called_helps():
    """In a debugger and in a log."""
    policy = attempts(retries=4)
    assert repr(policy) == "attempts(retries=4)"
    for attempt in policy:
        with attempt:
            assert repr(attempt) == "<attempt 1 of the block in test_what_it_is_called_helps>"
    assert package.attempts is attempts
    assert inspect.signature(attempts).parameters["retries"].default == 3


# --- switched off, and told of ------------------------------------------------------------------


@pytest.mark.parametrize("error", [Flop, KeyboardInterrupt, None])
def test_while_opero_is_switched_off_a_block_is_run_once(error):
    """As if there were no loop: its own error, no wait, nothing counted, nothing told."""
    policy = attempts(retries=3, min_delay=30, rate_limit=RateLimiter(1e-9), timeout=1)
    heard = []
    end = subscribe(heard.append)
    ran = []
    for _ in range(2):
        with disabled(), nullcontext() if error is None else pytest.raises(error) as caught:
            for attempt in policy:
                with attempt:
                    ran.append(attempt.number)
                    if error is not None:
                        raise error
        assert error is None or caught.value.__context__ is None
    end()
    assert ran == [1, 1]
    assert heard == []
    assert policy.stats() == type(policy.stats())()
    with disabled():
        with pytest.raises(OperoError, match="write `with attempt:`"):
            for attempt in policy:
                pass
        with enabled():
            for attempt in attempts(retries=2, **QUICK):
                with attempt:
                    if attempt.number == 1:
                        raise Flop


def test_while_opero_is_switched_off_a_block_in_a_coroutine_is_run_once():
    """Without a task of asyncio, too; nothing is cut."""

    async def work():
        async for attempt in attempts(retries=3, attempt_timeout=1e-9):
            with attempt:
                await asyncio.sleep(0)
                raise Flop

    with disabled(), pytest.raises(Flop):
        asyncio.run(work())


@pytest.mark.parametrize("last", ["succeeds", "fails", "propagates"])
def test_the_history_of_a_loop_is_told_at_its_end(last):
    """To those who want it, as that of a call; a loop of one attempt has none."""
    heard = []
    end = subscribe(heard.append, "call_end")

    def work():
        for attempt in attempts(retries=2, min_delay=5, max_delay=5, retry_on=Flop):
            with attempt:
                if attempt.number == 1 or last == "fails":
                    raise Flop
                if last == "propagates":
                    raise KeyError

    with (
        manual_clock(),
        nullcontext()
        if last == "succeeds"
        else pytest.raises((KeyError, AllFailedError)) as caught,
    ):
        work()
    for attempt in attempts():
        with attempt:
            pass
    end()
    (event,) = heard
    assert event.function.endswith(".work")
    assert event.seconds == 5
    assert [type(each.error) for each in event.history] == [
        Flop,
        {"succeeds": type(None), "fails": Flop, "propagates": KeyError}[last],
    ]
    assert event.error is (None if last == "succeeds" else caught.value)
