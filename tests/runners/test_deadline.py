"""`timeout=`: seconds for a whole call. No wait is begun that cannot end in time, none overshoots."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import OrderedDict
from typing import Any

import pytest
from crowd import Job, flights_of, followers, run, standing_clock, until, until_async, wait_all

from opero import AllFailedError, DeadlineExceeded, OperoError, RateLimiter, opero
from opero.testing import manual_clock, skip_waits

SLACK = 2.0
"""Seconds that a busy machine may take to do what takes no time."""


def spent(limiter: RateLimiter) -> RateLimiter:
    """Take all free permits of a limiter and return it."""
    while limiter.try_acquire():
        pass
    return limiter


def call(function: Any, kind: str, *args: Any) -> Any:
    """Call a decorated function of either kind."""
    return run(function(*args)) if kind == "async" else function(*args)


def decorated(kind: str, body: Any, **options: Any) -> Any:
    """Decorate a function that does what `body` does, for threads or for tasks."""

    @opero(**options)
    async def task(*args: Any) -> Any:
        await asyncio.sleep(0)
        return body(*args)

    @opero(**options)
    def thread(*args: Any) -> Any:
        return body(*args)

    return task if kind == "async" else thread


def test_the_exception_is_what_users_look_for():
    """Both opero's own class and the built-in TimeoutError catch it."""
    assert issubclass(DeadlineExceeded, OperoError)
    assert issubclass(DeadlineExceeded, TimeoutError)


KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
CACHED = pytest.mark.parametrize("cache", [False, True], ids=["uncached", "cached"])


# --- waits that are not begun -----------------------------------------------------------------------


@KINDS
@CACHED
def test_a_backoff_that_cannot_end_in_time_is_not_begun(kind, cache):
    """The call fails immediately, with the errors so far; the last one is its cause."""
    attempts = []

    def body():
        attempts.append(ValueError(len(attempts)))
        raise attempts[-1]

    options = {"retries": 5, "min_delay": 30, "max_delay": 30, "timeout": 20, "cache": cache}
    fetch = decorated(kind, body, **options)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        call(fetch, kind)
    assert time.monotonic() - begun < SLACK
    assert caught.value.errors == attempts
    assert len(attempts) == 1
    assert caught.value.__cause__ is attempts[0]
    assert fetch.stats().backoff_wait == 0
    assert fetch.stats().failures == 1
    if cache:
        assert flights_of(fetch) == []


@KINDS
@CACHED
def test_a_permit_that_would_come_too_late_is_not_waited_for(kind, cache):
    """The call fails immediately, the function does not start, and nothing waits in line."""
    limiter = spent(RateLimiter(0.01))
    starts = []
    fetch = decorated(
        kind, lambda: starts.append(1), retries=3, rate_limit=limiter, timeout=20, cache=cache
    )
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        call(fetch, kind)
    assert time.monotonic() - begun < SLACK
    assert starts == []
    assert caught.value.errors == []
    assert limiter._bucket.queued == 0
    assert (fetch.stats().attempts, fetch.stats().permit_wait) == (0, 0)


@KINDS
def test_the_permit_of_a_retry_is_not_waited_for_either(kind):
    """The first attempt's error is among the errors."""
    error = ValueError("first")

    def body():
        raise error

    fetch = decorated(kind, body, retries=3, min_delay=0, max_delay=0, rate_limit=0.01, timeout=20)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        call(fetch, kind)
    assert time.monotonic() - begun < SLACK
    assert caught.value.errors == [error]
    assert caught.value.__cause__ is error


@KINDS
def test_those_ahead_in_the_line_count(kind, core):
    """A permit is in time only if the waiters ahead get theirs first."""
    with standing_clock(core.clock):
        limiter = spent(RateLimiter(100))
        ahead = [Job(limiter.acquire_sync) for _ in range(3)]
        until(lambda: limiter._bucket.queued == 3)
        fetch = decorated(kind, lambda: "value", retries=1, rate_limit=limiter, timeout=0.039)
        with pytest.raises(DeadlineExceeded):
            call(fetch, kind)
    wait_all(ahead)


@KINDS
@CACHED
def test_waits_that_fit_are_made_and_the_one_that_does_not_is_not(kind, cache):
    """Delays of 1, 2, 4 s in 10 s: the fourth, of 8 s, is not begun; 7 s have passed."""
    attempts = []

    def body():
        attempts.append(ValueError(len(attempts)))
        raise attempts[-1]

    fetch = decorated(
        kind,
        body,
        retries=9,
        min_delay=1,
        backoff_factor=2,
        max_delay=60,
        jitter=False,
        timeout=10,
        cache=cache,
    )
    with manual_clock() as clock:
        with pytest.raises(DeadlineExceeded) as caught:
            call(fetch, kind)
        assert clock.waited == pytest.approx(7)
    assert caught.value.errors == attempts
    assert len(attempts) == 4
    assert fetch.stats().backoff_wait == pytest.approx(7)


@KINDS
def test_a_wait_that_would_end_just_at_the_deadline_is_not_begun(kind):
    """There would be no time left for the attempt."""

    def body():
        raise ValueError

    options = {"retries": 2, "min_delay": 5, "max_delay": 5, "timeout": 5}
    with manual_clock() as clock:
        with pytest.raises(
            DeadlineExceeded, match="the wait of 5 s before attempt 2 would end too late"
        ):
            call(decorated(kind, body, **options), kind)
        assert clock.waited == 0


@KINDS
def test_an_attempt_that_ends_after_the_deadline_is_the_last(kind):
    """The message says so; without a delay it mentions no wait."""

    def body():
        clock.advance(6)
        raise ValueError

    options = {"retries": 2, "min_delay": 0, "jitter": False, "timeout": 5}
    with (
        manual_clock() as clock,
        pytest.raises(
            DeadlineExceeded,
            match="no time is left for attempt 2; 1 attempt has failed, the last with ValueError",
        ),
    ):
        call(decorated(kind, body, **options), kind)


@KINDS
@pytest.mark.parametrize("timeout", [0.5, 3, 7.25, 100])
def test_no_wait_ever_ends_after_the_deadline(kind, timeout):
    """Whatever the mix of backoff, jitter, limits and fallback."""

    def body(x):
        raise ValueError

    fetch = decorated(
        kind,
        body,
        retries=50,
        min_delay=0.25,
        backoff_factor=1.7,
        max_delay=9,
        rate_limit=0.8,
        burst=2,
        timeout=timeout,
    )
    for _ in range(5):
        with manual_clock() as clock:
            with pytest.raises((DeadlineExceeded, AllFailedError)):
                call(fetch, kind, 1)
            assert clock.waited <= timeout


# --- sync -------------------------------------------------------------------------------------------


def test_a_running_attempt_of_a_function_is_not_cut():
    """It returns late, and its value counts."""
    fetch = opero(retries=3, timeout=0.01)(lambda: time.sleep(0.03) or "late")
    assert fetch() == "late"


def test_a_late_failure_is_followed_by_no_further_attempt():
    """The deadline passed while the attempt was running."""
    attempts = []

    @opero(retries=3, min_delay=0, max_delay=0, timeout=0.01)
    def fetch():
        attempts.append(1)
        time.sleep(0.03)
        raise ValueError

    with pytest.raises(DeadlineExceeded) as caught:
        fetch()
    assert len(attempts) == len(caught.value.errors) == 1


def test_a_follower_waits_for_the_run_of_another_thread_until_its_own_deadline():
    """It leaves neither early nor much later; the run continues for the others."""
    gate = threading.Event()

    @opero(retries=1, cache=True, timeout=0.1)
    def fetch():
        gate.wait(15)
        return "value"

    leader = Job(fetch)
    until(lambda: flights_of(fetch))
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        fetch()
    took = time.monotonic() - begun
    assert 0.1 <= took < 0.1 + SLACK
    assert followers(fetch) == 0
    gate.set()
    assert leader.result() == fetch() == "value"
    assert flights_of(fetch) == []


def test_followers_with_deadlines_do_not_disturb_those_with_more_time():
    """Some give up, others come later and wait longer, and there is one run."""
    gate = threading.Event()
    runs = []

    @opero(retries=1, cache=True, timeout=0.2)
    def fetch():
        runs.append(1)
        gate.wait(15)
        return "value"

    leader = Job(fetch)
    until(lambda: flights_of(fetch))
    early = [Job(fetch) for _ in range(5)]
    wait_all(early)
    late = [Job(fetch) for _ in range(5)]
    until(lambda: followers(fetch) == 5)
    gate.set()
    assert {type(job.error) for job in early} == {DeadlineExceeded}
    assert [job.result() for job in [leader, *late]] == ["value"] * 6
    assert runs == [1]


def test_a_hit_is_not_late_whatever_the_deadline():
    """A cached value is available immediately."""
    fetch = opero(retries=1, cache=True, timeout=1e-9)(lambda: "value")
    assert fetch() == "value"
    assert fetch() == "value"
    assert fetch.stats().hits == 1


@KINDS
def test_a_deadline_of_decades_is_as_good_as_none(kind):
    """No timer overflows."""
    limiter = spent(RateLimiter(500))
    attempts = []

    def body():
        attempts.append(1)
        if len(attempts) < 2:
            raise ValueError
        return "value"

    options = {"retries": 3, "min_delay": 0, "max_delay": 0, "timeout": 1e9}
    fetch = decorated(kind, body, rate_limit=limiter, cache=True, **options)
    assert call(fetch, kind) == "value"


def test_a_deadline_of_decades_lets_a_follower_wait():
    """The longest possible wait for a lock is shorter than that."""
    gate = threading.Event()
    fetch = opero(retries=1, cache=True, timeout=1e9)(lambda: gate.wait(15))
    jobs = [Job(fetch), Job(fetch)]
    until(lambda: followers(fetch) == 1)
    gate.set()
    assert [job.result() for job in jobs] == [True, True]


# --- async ------------------------------------------------------------------------------------------


class Slow:
    """A coroutine function that never ends by itself.

    Attributes:
        log: What has happened.
        fetch: The decorated function.
    """

    def __init__(self, **options: Any) -> None:
        """Make one.

        Args:
            **options: For `opero`.
        """
        self.log: list[str] = []

        @opero(**{"retries": 3, "min_delay": 0, "max_delay": 0, **options})
        async def fetch() -> Any:
            self.log.append("start")
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                await asyncio.sleep(0.01)
                self.log.append("tidy")

        self.fetch = fetch


@CACHED
def test_an_async_attempt_is_cut_when_the_deadline_passes(cache):
    """The caller gets DeadlineExceeded after the function's finally-block; nothing is retried."""

    async def main():
        slow = Slow(timeout=0.05, cache=cache)
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            await slow.fetch()
        assert 0.05 <= time.monotonic() - begun < 0.05 + SLACK
        assert slow.log == ["start", "tidy"]
        assert caught.value.errors == []
        assert not cache or slow.fetch.__opero__.store.flights == {}
        assert len(asyncio.all_tasks()) == 2

    run(main())


@CACHED
def test_the_errors_so_far_come_with_the_cut(cache):
    """Two attempts have failed when the third is cut."""
    errors = [ValueError("one"), ValueError("two")]
    attempts = []

    @opero(retries=9, min_delay=0, max_delay=0, timeout=0.25, cache=cache)
    async def fetch():
        attempts.append(1)
        if len(attempts) <= 2:
            raise errors[len(attempts) - 1]
        await asyncio.sleep(60)

    with pytest.raises(DeadlineExceeded) as caught:
        run(fetch())
    assert caught.value.errors == errors
    assert caught.value.__cause__ is errors[1]
    assert len(attempts) == 3


@CACHED
@pytest.mark.parametrize("where", ["backoff", "permit"])
def test_a_wait_that_was_begun_in_time_ends_in_time(cache, where):
    """Waits that fit run to their end, and the call succeeds."""
    limiter = spent(RateLimiter(50)) if where == "permit" else None
    attempts = []

    @opero(retries=2, min_delay=0.02, max_delay=0.02, timeout=5, cache=cache, rate_limit=limiter)
    async def fetch():
        attempts.append(1)
        if where == "backoff" and len(attempts) == 1:
            raise ValueError
        return "value"

    begun = time.monotonic()
    assert run(fetch()) == "value"
    assert time.monotonic() - begun < SLACK


@CACHED
def test_a_function_that_answers_the_cut_with_a_value_is_heard(cache):
    """Its value counts: it came from the call, only late."""

    @opero(retries=1, timeout=0.02, cache=cache)
    async def fetch():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "what there is"

    assert run(fetch()) == "what there is"


@CACHED
def test_a_loop_that_was_blocked_past_the_deadline_still_takes_a_finished_value(cache):
    """The run has ended when the caller looks, so its value is not thrown away."""

    @opero(retries=1, timeout=0.2, cache=cache)
    async def fetch():
        time.sleep(0.3)
        return "value"

    assert run(fetch()) == "value"


def test_a_callers_deadline_is_its_own_and_the_run_goes_on_for_the_others():
    """The leader must leave; a task that came later has time left and gets the value."""
    log = []

    @opero(retries=1, cache=True, timeout=0.8)
    async def fetch():
        log.append("start")
        await gate.wait()
        log.append("end")
        return "value"

    async def main():
        nonlocal gate
        gate = asyncio.Event()
        leader = asyncio.create_task(fetch())
        await asyncio.sleep(0.4)
        follower = asyncio.create_task(fetch())
        with pytest.raises(DeadlineExceeded):
            await leader
        assert not follower.done()
        gate.set()
        assert await follower == await fetch() == "value"

    gate: Any = None
    run(main())
    assert log == ["start", "end"]
    assert fetch.__opero__.store.flights == {}


def test_the_last_caller_whose_deadline_passes_cuts_the_run():
    """Ten callers share one run: ten DeadlineExceeded, one cleanup."""

    async def main():
        slow = Slow(timeout=0.05, cache=True)
        outcomes = await asyncio.gather(*[slow.fetch() for _ in range(10)], return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {DeadlineExceeded}
        assert slow.log == ["start", "tidy"]
        assert slow.fetch.__opero__.store.flights == {}

    run(main())


def test_a_newcomer_does_not_join_a_run_that_is_being_cut():
    """It starts a new run with its own full time."""
    runs = []
    log = []

    @opero(retries=1, cache=True, timeout=0.2)
    async def fetch():
        runs.append(1)
        first = len(runs) == 1
        try:
            await asyncio.sleep(60 if first else 0)
            return "value"
        finally:
            log.append("tidying")
            await asyncio.sleep(0.1 if first else 0)

    async def main():
        first = asyncio.create_task(fetch())
        await asyncio.sleep(0)
        await until_async(lambda: log)
        assert await fetch() == "value"
        with pytest.raises(DeadlineExceeded):
            await first

    run(main())
    assert len(runs) == 2
    assert fetch.__opero__.store.flights == {}


def test_a_caller_cancelled_while_its_deadline_cuts_the_run_is_cancelled():
    """Cancellation wins over DeadlineExceeded, and the run still cleans up."""

    async def main():
        slow = Slow(timeout=0.02, cache=True)
        task = asyncio.create_task(slow.fetch())
        await until_async(lambda: slow.log)
        await asyncio.sleep(0.025)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or type(task.exception()) is DeadlineExceeded
        assert slow.fetch.__opero__.store.flights == {}
        assert len(asyncio.all_tasks()) == 2

    run(main())


def test_the_shorter_of_two_nested_deadlines_decides():
    """First the inner call's is shorter, then the outer call's."""

    @opero(retries=1, timeout=0.03)
    async def inner_short():
        await asyncio.sleep(60)

    @opero(retries=1, timeout=60)
    async def outer_long():
        return await inner_short()

    @opero(retries=1, timeout=60)
    async def inner_long():
        await asyncio.sleep(60)

    @opero(retries=1, timeout=0.03)
    async def outer_short():
        return await inner_long()

    async def main():
        for function in (outer_long, outer_short):
            begun = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await function()
            assert time.monotonic() - begun < SLACK
        assert len(asyncio.all_tasks()) == 2

    run(main())


def test_a_deadline_that_is_over_before_the_first_attempt_starts_nothing_twice():
    """However short, it ends with DeadlineExceeded or the value, and leaves nothing."""

    async def main():
        for timeout in (1e-9, 1e-6, 1e-4):
            fetch = decorated("async", lambda: "value", retries=1, timeout=timeout, cache=True)
            try:
                assert await fetch() == "value"
            except DeadlineExceeded:
                pass
            await asyncio.sleep(0)
            assert fetch.__opero__.store.flights == {}
            assert fetch.stats().attempts <= 1
        assert len(asyncio.all_tasks()) == 2

    run(main())


def test_a_queue_of_deadlines_looks_once_at_the_end_of_the_stack(core, monkeypatch):
    """It looks again if another thread changed it, which also raises a RuntimeError."""

    class Deep(OrderedDict):
        looks = 0

        def __iter__(self):
            Deep.looks += 1
            if Deep.looks == 1:
                raise RecursionError
            return super().__iter__()

    kind = core.DeadlineQueue
    monkeypatch.setattr(sys.modules[kind.__module__], "OrderedDict", Deep)
    queue = kind(core.TimeLimit(1, core.clock, None), None)
    with pytest.raises(RecursionError):
        queue.first()
    assert queue.first() is None
    assert Deep.looks == 2


def test_under_skipped_waits_a_deadline_counts_the_time_that_would_have_passed():
    """Tests see the same outcome as in real time."""

    @opero(retries=9, min_delay=1, max_delay=1, timeout=3.5)
    async def fetch():
        raise ValueError

    with skip_waits() as clock:
        with pytest.raises(DeadlineExceeded) as caught:
            run(fetch())
        assert 3 <= clock.waited < 3.5
    assert len(caught.value.errors) == 4


def test_a_task_in_line_behind_a_stuck_loop_leaves_in_time():
    """Its place in line looked good and the waiter ahead is stuck, but the deadline is kept."""
    limiter = spent(RateLimiter(20))
    stuck, free = threading.Event(), threading.Event()

    async def blocked():
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(2)]
        await asyncio.sleep(0)
        stuck.set()
        free.wait(15)
        await asyncio.wait(tasks)

    @opero(retries=1, rate_limit=limiter, timeout=0.3)
    async def fetch():
        return "value"

    holder = Job(run, blocked())
    assert stuck.wait(10)
    begun = time.monotonic()
    try:
        assert run(fetch()) == "value"
    except DeadlineExceeded:
        pass
    assert time.monotonic() - begun < 0.3 + SLACK
    free.set()
    holder.result()
    assert limiter._bucket.queued == 0
