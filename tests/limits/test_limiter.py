"""`RateLimiter` and threads: an exact rate, in order, and nothing lost by those who leave."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict

import pytest
from crowd import Job, run, standing_clock, together, until, wait_all

from opero import DeadlineExceeded, RateLimiter, opero
from opero.testing import manual_clock, skip_waits

MS = 10**6


def spent(limiter: RateLimiter) -> RateLimiter:
    """Take all free permits of a limiter and return it."""
    while limiter.try_acquire():
        pass
    return limiter


def test_the_burst_is_free_and_then_permits_come_one_by_one(core):
    """Each permit comes to the nanosecond, neither early nor late."""
    with standing_clock(core.clock) as clock:
        limiter = RateLimiter(100, burst=3)
        assert [limiter.try_acquire() for _ in range(4)] == [True] * 3 + [False]
        clock.advance(10 * MS - 1)
        assert not limiter.try_acquire()
        clock.advance(1)
        assert limiter.try_acquire()
        assert not limiter.try_acquire()
        clock.advance(1000 * MS)
        assert [limiter.try_acquire() for _ in range(4)] == [True] * 3 + [False]


def test_waits_add_up_to_the_rate_under_the_clock_that_skips_them():
    """100 permits at 10 per second, two of them at once, take 9.8 seconds."""
    with skip_waits() as clock:
        limiter = RateLimiter(10, burst=2)
        for _ in range(100):
            limiter.acquire_sync()
        assert 9.8 <= clock.waited < 9.9


def test_waits_add_up_exactly_under_the_clock_that_stands_still():
    """On this clock only waits take time."""
    with manual_clock() as clock:
        limiter = RateLimiter(8)
        for _ in range(9):
            with limiter:
                pass
        assert clock.waited == pytest.approx(1.0, abs=1e-6)


def test_a_thread_waits_no_longer_than_its_permit_takes():
    """Twenty permits at 200 per second take hardly more than 95 ms."""
    limiter = RateLimiter(200)
    start = time.monotonic()
    for _ in range(20):
        limiter.acquire_sync()
    took = time.monotonic() - start
    assert 0.095 <= took < 0.095 + 1.5


def test_threads_are_served_in_the_order_in_which_they_queued(core):
    """The order is first come, first served, in blocks and decorated functions alike."""
    order = []
    limiter = RateLimiter(500)

    @opero(retries=1, rate_limit=limiter)
    def note(number):
        order.append(number)

    def by_hand(number):
        with limiter:
            order.append(number)

    jobs = []
    with standing_clock(core.clock) as clock:
        spent(limiter)
        for number in range(12):
            jobs.append(Job(note if number % 2 else by_hand, number))
            until(lambda: limiter._bucket.queued == len(jobs))
        for number in range(12):
            clock.advance(2 * MS)
            until(lambda: len(order) > number)
            assert order == list(range(number + 1))
    wait_all(jobs)
    assert limiter._bucket.queued == 0


def test_32_threads_stay_within_the_rate():
    """The real clock measures from the first permit to the last."""
    limiter = RateLimiter(800, burst=4)
    times = []

    def work(_):
        for _ in range(6):
            limiter.acquire_sync()
            times.append(time.monotonic())

    for job in together(32, work):
        job.result()
    assert len(times) == 192
    took = max(times) - min(times)
    # The first reading may be late by what a thread takes from its permit to the clock.
    assert took >= (192 - 4) / 800 - 0.02
    assert took < (192 - 4) / 800 + 1.0
    assert limiter._bucket.queued == 0


def test_nobody_passes_the_line(core):
    """A permit that becomes free goes to a waiter, not to a newcomer."""
    with standing_clock(core.clock) as clock:
        limiter = spent(RateLimiter(100))
        waiter = Job(limiter.acquire_sync)
        until(lambda: limiter._bucket.queued == 1)
        assert not limiter.try_acquire()
        clock.advance(10 * MS)
        assert not limiter.try_acquire()  # the only permit goes to the one who waits
        clock.advance(10 * MS - 1)
        assert not limiter.try_acquire()
        clock.advance(1)
        waiter.result()
        assert limiter.try_acquire()


def test_a_newcomer_is_served_when_the_line_has_been_served_and_permits_are_left(core):
    """A newcomer does not wait behind an empty line while permits are free."""
    with standing_clock(core.clock) as clock:
        limiter = spent(RateLimiter(100, burst=5))
        waiters = [Job(limiter.acquire_sync) for _ in range(2)]
        until(lambda: limiter._bucket.queued == 2)
        clock.advance(50 * MS)
        assert limiter.try_acquire()  # five permits for two waiters and this one
        wait_all(waiters)
        assert [limiter.try_acquire() for _ in range(3)] == [True, True, False]


def test_one_limiter_is_shared_by_all_functions_that_are_given_it():
    """Three functions, one of them for tasks, and two threads share one rate."""
    limiter = RateLimiter(400)
    starts = []

    @opero(retries=1, rate_limit=limiter)
    def one():
        starts.append(time.monotonic())

    @opero(retries=1, rate_limit=limiter)
    def two():
        starts.append(time.monotonic())

    @opero(retries=1, rate_limit=limiter)
    async def three():
        starts.append(time.monotonic())

    async def tasks():
        await asyncio.gather(*[three() for _ in range(10)])

    work = [one, two, lambda: run(tasks()), limiter.acquire_sync, limiter.acquire_sync]
    started = time.monotonic()
    for job in together(len(work), lambda number: [work[number]() for _ in range(3)]):
        job.result()
    total = 3 + 3 + 30 + 3 + 3
    assert len(starts) == 36
    assert time.monotonic() - started >= (total - 1) / 400


def test_every_attempt_pays_a_permit():
    """First attempts, retries and fallback values all pay."""
    attempts = []

    @opero(
        retries=2,
        min_delay=0,
        max_delay=0,
        rate_limit=10,
        arg_fallback={"x": [2, 3]},
    )
    def fetch(x):
        attempts.append(x)
        if len(attempts) < 6:
            raise ValueError
        return x

    with manual_clock() as clock:
        assert fetch(1) == 3
        assert clock.waited == pytest.approx(0.5, abs=1e-6)
    assert attempts == [1, 2, 3] * 2
    assert fetch.stats().permit_wait == pytest.approx(0.5, abs=1e-6)


def test_an_error_in_the_block_comes_out_and_the_permit_stays_spent(core):
    """`with limiter` hands out a permit; it does not guard the block."""
    with standing_clock(core.clock):
        limiter = RateLimiter(1)
        with pytest.raises(ZeroDivisionError), limiter:
            1 / 0  # noqa: B018 - it raises
        assert not limiter.try_acquire()


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_is_a_limiter_of_the_same_rate_with_its_burst_free(duplicate):
    """The copy has neither the line nor the spent permits."""
    limiter = spent(RateLimiter(0.5, burst=2))
    twin = duplicate(limiter)
    assert (twin.rate_limit, twin.burst) == (0.5, 2)
    assert [twin.try_acquire() for _ in range(3)] == [True, True, False]


# --- those who leave --------------------------------------------------------------------------------


def test_a_thread_whose_permit_would_come_too_late_does_not_stand_in_line(core):
    """It hears so immediately, and costs the others nothing."""
    with standing_clock(core.clock):
        limiter = spent(RateLimiter(100))
        begun = time.monotonic()
        assert limiter._wait_sync(core.clock.now() + 10 * MS - 1) == -1
        assert time.monotonic() - begun < 5
        assert limiter._bucket.queued == 0
        waiter = Job(limiter._wait_sync, core.clock.now() + 10 * MS)
        until(lambda: limiter._bucket.queued == 1)
        assert limiter._wait_sync(core.clock.now() + 20 * MS - 1) == -1
        assert limiter._bucket.queued == 1
        core.clock.advance(10 * MS)
        assert waiter.result() == 10 * MS


def test_an_interrupted_thread_leaves_its_place_and_its_permit_to_the_next(core):
    """The next waiter gets the permit that the interrupted thread would have had."""
    with standing_clock(core.clock) as clock:
        limiter = spent(RateLimiter(50))
        first, second, third = jobs = [None] * 3
        for number in range(3):
            jobs[number] = Job(limiter._wait_sync, 1 << 62)
            until(lambda n=number: limiter._bucket.queued == n + 1)
        first, second, third = jobs
        first.interrupt()
        until(lambda: limiter._bucket.queued == 2)
        assert isinstance(first.wait().error, KeyboardInterrupt)
        clock.advance(20 * MS)
        assert second.result() == 20 * MS
        assert not third.over
        clock.advance(20 * MS)
        assert third.result() == 40 * MS
        assert not limiter.try_acquire()


def test_a_waiter_that_is_gone_with_its_loop_holds_nobody_up(core):
    """Its place is skipped; its permit is neither lost nor given back twice."""
    with standing_clock(core.clock) as clock:
        limiter = spent(RateLimiter(100))
        task = abandoned(limiter)
        assert limiter._bucket.queued == 1
        clock.advance(10 * MS)
        assert limiter.try_acquire()  # the dead one's turn passes to whoever is there
        assert not limiter.try_acquire()
        assert limiter._bucket.queued == 0
        task.get_coro().close()
        assert not limiter.try_acquire()
        clock.advance(10 * MS)
        assert limiter.try_acquire()
        assert not limiter.try_acquire()


def test_a_thread_behind_a_dead_waiter_gets_its_permit_and_only_that(core):
    """Collecting the dead waiter's coroutine later frees no second permit."""
    with standing_clock(core.clock) as clock:
        limiter = spent(RateLimiter(100))
        task = abandoned(limiter)
        waiter = Job(limiter.acquire_sync)
        until(lambda: limiter._bucket.queued == 2)
        clock.advance(10 * MS)
        waiter.result()
        assert not limiter.try_acquire()
        del task
        gc.collect()
        assert not limiter.try_acquire()
        clock.advance(10 * MS - 1)
        assert not limiter.try_acquire()
        clock.advance(1)
        assert limiter.try_acquire()


def test_a_call_in_a_hurry_is_not_refused_because_of_waiters_that_are_gone(core):
    """The limiter compares its deadline with when its permit really comes."""
    with standing_clock(core.clock) as clock:
        limiter = spent(RateLimiter(100, burst=2))
        tasks = [abandoned(limiter) for _ in range(3)]
        fetch = opero(retries=1, rate_limit=limiter, timeout=0.001)(lambda: "value")
        with pytest.raises(DeadlineExceeded):
            fetch()
        clock.advance(10 * MS)
        assert fetch() == "value"
        with pytest.raises(DeadlineExceeded):
            fetch()
        clock.advance(10 * MS)
        assert fetch() == "value"
        for task in tasks:
            task.get_coro().close()
        with pytest.raises(DeadlineExceeded):
            fetch()


def abandoned(limiter: RateLimiter) -> asyncio.Task[None]:
    """Return a task in a limiter's line whose loop is closed."""
    loop = asyncio.new_event_loop()

    async def begin():
        task = asyncio.ensure_future(limiter.acquire())
        await asyncio.sleep(0)
        return task

    task = loop.run_until_complete(begin())
    loop.close()
    task._log_destroy_pending = False
    return task


def test_a_waiter_on_a_stuck_loop_delays_the_others_by_its_own_permit_at_most():
    """The thread behind it uses its own timer while the loop is in a blocking call."""
    limiter = spent(RateLimiter(100))
    free = threading.Event()
    waits = threading.Event()

    async def main():
        task = asyncio.ensure_future(limiter.acquire())
        await asyncio.sleep(0)
        waits.set()
        free.wait(15)
        await task

    stuck = Job(run, main())
    assert waits.wait(10)
    begun = time.monotonic()
    limiter.acquire_sync()
    assert time.monotonic() - begun < 5
    assert not stuck.over
    free.set()
    stuck.result()


# --- entered again ----------------------------------------------------------------------------------


def test_a_signal_handler_may_use_the_limiter_that_the_thread_is_waiting_for():
    """The handler interrupts the wait in the same thread, and does not hang."""
    limiter = spent(RateLimiter(100))
    seen = []

    def handler(number, frame):
        seen.append(limiter.try_acquire())

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for _ in range(15):
            limiter.acquire_sync()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen


@pytest.mark.parametrize("walk", [iter, reversed])
def test_a_signal_handler_may_change_a_queue_that_is_being_looked_at(walk):
    """It runs between the beginning of the look and its first step."""

    class Changing(OrderedDict):
        changes = 3

        def __iter__(self):
            return self.changed(super().__iter__())

        def __reversed__(self):
            return self.changed(super().__reversed__())

        def changed(self, found):
            if self.changes:
                self.changes -= 1
                self[object()] = False  # joins,
                self.popitem()  # and leaves
            return found

    queue = RateLimiter(100)._queue
    assert queue._some(walk, 1) == []
    queue._waiters = Changing({"first": True})
    assert queue._some(walk, 64) == ["first"]
    assert queue._waiters.changes == 0


@pytest.mark.once
@pytest.mark.parametrize("options", ["", "scope='machine', name='test-imports'"])
def test_a_first_wait_imports_nothing_that_a_fork_could_cut(options, tmp_path):
    """A forked child waits for ever for a module that a parent's thread was importing."""
    program = f"""
import sys
from opero import RateLimiter

early = "opero.runners.sync" in sys.modules
limiter = RateLimiter(1000, {options})
before = set(sys.modules)
for _ in range(3):
    limiter.acquire_sync()
print(early, sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert (done.stdout, done.stderr) == ("False []\n", "")


def test_finalizers_may_use_a_limiter_that_is_in_use():
    """A garbage collection during the limiter's own work runs code that asks for a permit."""
    limiter = RateLimiter(1e6)
    asked = []

    class Last:
        def __init__(self):
            self.me = self

        def __del__(self):
            asked.append(limiter.try_acquire())

    async def tasks():
        for _ in range(30):
            Last()
            await asyncio.gather(*[limiter.acquire() for _ in range(10)])

    def work():
        thresholds = gc.get_threshold()
        gc.set_threshold(3, 2, 2)
        try:
            run(tasks())
        finally:
            gc.set_threshold(*thresholds)

    Job(work).result()
    gc.collect()
    assert len(asked) == 30


def test_collecting_abandoned_waiters_in_the_middle_of_serving_does_not_hang(core):
    """The garbage collector may close waiting coroutines in any thread at any time."""
    limiter = RateLimiter(1e5)

    def leave_garbage():
        loop = asyncio.new_event_loop()

        async def begin():
            tasks = [asyncio.ensure_future(limiter.acquire()) for _ in range(3)]
            await asyncio.sleep(0)
            for task in tasks:
                task._log_destroy_pending = False

        loop.run_until_complete(begin())
        loop.close()

    async def tasks():
        await asyncio.gather(*[limiter.acquire() for _ in range(5)])

    def work():
        thresholds = gc.get_threshold()
        gc.set_threshold(3, 2, 2)
        try:
            for _ in range(25):
                with standing_clock(core.clock):
                    leave_garbage()
                run(tasks())
        finally:
            gc.set_threshold(*thresholds)

    Job(work).result()
    assert limiter._bucket.queued == 0


def test_settings_can_be_read_and_not_be_changed():
    """The limiter uses the settings that it was made with."""
    limiter = RateLimiter(5, 2, windows=[(100, 60)], adaptive=True, floor=1)
    names = ["rate_limit", "burst", "scope", "name", "windows", "adaptive", "floor"]
    before = [getattr(limiter, name) for name in names]
    assert before == [5.0, 2, "process", None, ((100, 60.0),), True, 1.0]
    for name in names:
        with pytest.raises(AttributeError):
            setattr(limiter, name, 7)
    assert [getattr(limiter, name) for name in names] == before
