"""`RateLimiter` and tasks: one rate and one order for threads and any number of event loops."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from itertools import pairwise
from typing import Any

import pytest
from crowd import Job, run, standing_clock, until, until_async, wait_all

from opero import RateLimiter, opero
from opero.core.clock import NEVER
from opero.limits.wait_queue import _Waiter
from opero.runners.effects import BELL
from opero.testing import manual_clock, skip_waits

MS = 10**6


def spent(limiter: RateLimiter) -> RateLimiter:
    """Take all free permits of a limiter and return it."""
    while limiter.try_acquire():
        pass
    return limiter


async def settle(turns: int = 5) -> None:
    """Run every task that can continue."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def queue_up(limiter: RateLimiter, count: int, served: list[int]) -> list[asyncio.Task[Any]]:
    """Put tasks in line, numbered in order; each notes its number when it is served.

    Time has to stand still meanwhile.
    """

    async def wait(number: int) -> None:
        await limiter.acquire()
        served.append(number)

    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(wait(number)))
        await asyncio.sleep(0)
    assert limiter._bucket.queued == count
    return tasks


def check_windows(times: list[float], rate: float, burst: int, tolerance: float) -> None:
    """Check that no window holds more than `burst + rate * (its length + tolerance)` times.

    Args:
        times: When the permits were noted, in seconds.
        rate: Permits per second.
        burst: Permits at once.
        tolerance: Seconds by which the note of a permit may come later than the permit itself:
            its thread or task has to be woken and to read the clock.
    """
    times = sorted(times)
    for first, start in enumerate(times):
        for last in range(first + burst, len(times)):
            allowed = burst + rate * (times[last] - start + tolerance)
            assert last - first + 1 <= allowed, (first, last, times[last] - start)


def test_tasks_are_served_in_the_order_in_which_they_queued(core):
    """The order is first come, first served, one per interval."""

    async def main():
        with standing_clock(core.clock) as clock:
            limiter = spent(RateLimiter(500))
            served = []
            tasks = await queue_up(limiter, 20, served)
            for count in range(1, 21):
                clock.advance(2 * MS)
                await until_async(lambda n=count: len(served) == n)
                assert served == list(range(count))
        await asyncio.wait(tasks)
        assert limiter._bucket.queued == 0

    run(main())


@pytest.mark.parametrize("clock", [skip_waits, manual_clock])
def test_tests_without_waits_keep_the_order_and_the_time_that_would_have_passed(clock):
    """100 tasks at 10 per second take 9.9 seconds of a clock that skips waits."""

    async def main():
        limiter = RateLimiter(10)
        served = []

        async def wait(number):
            async with limiter:
                served.append(number)

        with clock() as time_:
            begun = time.monotonic()
            await asyncio.gather(*[wait(number) for number in range(100)])
            assert 9.9 <= time_.waited + 1e-6 < 10.5
            assert time.monotonic() - begun < 9
        assert served == list(range(100))

    run(main())


@pytest.mark.parametrize("gone", [[0], [1], [4], [0, 1], [0, 2, 4], [3, 2, 1, 0]], ids=str)
def test_cancelled_tasks_leave_their_places_to_those_behind(core, gone):
    """The others are served one interval apart, as if the cancelled had never come."""

    async def main():
        with standing_clock(core.clock) as clock:
            limiter = spent(RateLimiter(500))
            served = []
            tasks = await queue_up(limiter, 5, served)
            for number in gone:
                tasks[number].cancel()
                await settle()
            staying = [number for number in range(5) if number not in gone]
            assert limiter._bucket.queued == len(staying)
            for count in range(1, len(staying) + 1):
                clock.advance(2 * MS)
                await until_async(lambda n=count: len(served) == n)
                assert served == staying[:count]
            await settle()
            assert not limiter.try_acquire()
            clock.advance(2 * MS)
            assert limiter.try_acquire()
            await asyncio.wait(tasks)
            assert [task.cancelled() for task in tasks] == [n in gone for n in range(5)]

    run(main())


def test_a_task_cancelled_between_its_permit_and_its_waking_gives_the_permit_back(core):
    """The next in line gets it immediately."""

    async def main():
        with standing_clock(core.clock) as clock:
            limiter = spent(RateLimiter(500))
            served = []
            (task,) = await queue_up(limiter, 1, served)
            clock.advance(2 * MS)
            thread = Job(limiter.acquire_sync)  # it queues, and hands the task its permit
            until(lambda: limiter._bucket.queued == 1)
            time.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await until_async(lambda: thread.over)
            thread.result()
            assert served == []
            assert not limiter.try_acquire()

    run(main())


@pytest.mark.parametrize("gone", [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]], ids=str)
def test_permits_given_back_are_all_there_whoever_was_served_meanwhile(core, gone):
    """Of three permits handed out together, exactly those of cancelled tasks are free again."""

    async def main():
        with standing_clock(core.clock) as clock:
            limiter = spent(RateLimiter(10, burst=4))
            served = []
            tasks = await queue_up(limiter, 3, served)
            clock.advance(400 * MS)
            assert limiter.try_acquire()  # serves the line first, then takes the fourth permit
            assert limiter._bucket.queued == 0
            for number in gone:
                tasks[number].cancel()
            await asyncio.wait(tasks)
            assert served == [number for number in range(3) if number not in gone]
            free = 0
            while limiter.try_acquire():
                free += 1
            assert free == len(gone)
            clock.advance(100 * MS)
            assert [limiter.try_acquire(), limiter.try_acquire()] == [True, False]

    run(main())


def test_all_may_leave_and_the_limiter_is_as_if_they_had_never_come(core):
    """1,000 queued tasks are cancelled in random order."""

    async def main():
        with standing_clock(core.clock) as clock:
            limiter = spent(RateLimiter(500))
            tasks = await queue_up(limiter, 1000, [])
            random.Random(5).shuffle(tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert limiter._bucket.queued == 0
            assert not limiter.try_acquire()
            clock.advance(2 * MS)
            assert limiter.try_acquire()
            assert not limiter.try_acquire()

    run(main())


class Bell:
    """A bell that wakes nobody, and counts its rings."""

    rung = 0

    def ring(self) -> bool:
        """Count."""
        Bell.rung += 1
        return True

    def is_through(self) -> bool:
        """Keep waiting."""
        return False


def stand(queue: Any) -> Any:
    """Start a wait in a queue, as a thread or a task, up to its first step."""
    return stand_until(queue)[0]


def stand_until(queue: Any) -> tuple[Any, int]:
    """Do the same, and also return until when it waits."""
    steps = queue.steps(NEVER, 1)
    effect = next(steps)
    while effect[0] == BELL:
        effect = steps.send(Bell())
    return steps, effect[3]


def leave(steps: Any) -> None:
    """Interrupt a waiter, and let it take its question back from the server."""
    steps.throw(KeyboardInterrupt)
    steps.send(None)


@pytest.mark.parametrize("scope", ["process", "machine", "redis"])
@pytest.mark.parametrize("order", ["first", "last", "any"])
def test_leaving_a_long_queue_takes_each_waiter_about_one_step(core, monkeypatch, scope, order):
    """Leaving neither searches the queue nor wakes waiters without news."""
    seen: list[object] = []

    def is_equal(one: object, other: object) -> bool:
        seen.append(other)
        return one is other

    monkeypatch.setattr(Bell, "rung", 0)
    monkeypatch.setattr(_Waiter, "__eq__", is_equal)
    more: dict[str, Any] = {} if scope == "process" else {"name": f"crowd {os.getpid()}"}
    if scope == "redis":
        more["url"] = "redis://127.0.0.1:1"
    limiter = RateLimiter(1.0, scope=scope, **more)
    if scope != "redis":
        spent(limiter)
    waiting = [stand(limiter._queue) for _ in range(300)]
    if order == "last":
        waiting.reverse()
    elif order == "any":
        random.Random(7).shuffle(waiting)
    for steps in waiting:
        with pytest.raises(KeyboardInterrupt):
            leave(steps)
    assert len(seen) <= 300
    assert Bell.rung <= 3 * 300
    assert (len(limiter._queue), limiter._queue.bucket.queued) == (0, 0)


def test_each_waiter_looks_when_its_own_permit_is_due(core):
    """If only the head looked, each permit of a fast rate would wait for another wake-up."""
    limiter = RateLimiter(10_000.0)
    with standing_clock(core.clock) as clock:
        spent(limiter)
        waiting = [stand_until(limiter._queue) for _ in range(40)]
        expected = [clock.now() + place * MS // 10 for place in range(1, 41)]
    assert [due for _, due in waiting] == expected
    for steps, _ in waiting:
        steps.close()


def test_random_cancellations_lose_no_permit(core):
    """Half of 200 tasks leave at random; the others are served, and the line ends empty."""

    async def main():
        limiter = RateLimiter(1000)
        dice = random.Random(7)
        served: list[int] = []
        with standing_clock(core.clock):
            spent(limiter)
            tasks = await queue_up(limiter, 200, served)
        hit = dice.sample(tasks, 100)
        for task in hit:
            task.cancel()
            if dice.random() < 0.3:
                await asyncio.sleep(0.001)
        await asyncio.wait(tasks)
        assert len(served) >= 100
        assert limiter._bucket.queued == 0

    run(main())


def test_a_crowd_of_waiters_costs_little_more_than_its_permits():
    """800 tasks at 4,000 per second do not all set timers repeatedly."""

    async def main():
        limiter = RateLimiter(4000)
        begun, used = time.monotonic(), time.process_time()
        await asyncio.gather(*[limiter.acquire() for _ in range(800)])
        return time.monotonic() - begun, time.process_time() - used

    took, used = run(main())
    assert took >= 799 / 4000
    assert used < 2


def test_waiting_tasks_do_not_keep_the_processor_busy():
    """300 tasks that wait for a quarter of a second take almost no processor time."""

    async def main():
        limiter = spent(RateLimiter(100))
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(300)]
        await settle()
        used = time.process_time()
        await asyncio.sleep(0.25)
        used = time.process_time() - used
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return used

    assert run(main()) < 0.15


# --- threads and loops together ---------------------------------------------------------------------


def test_threads_and_two_loops_stay_within_one_rate():
    """No window of the real clock exceeds what the burst and the rate allow."""
    rate, burst = 600.0, 5
    limiter = RateLimiter(rate, burst)
    times: list[float] = []

    @opero(retries=1, rate_limit=limiter)
    def in_thread():
        times.append(time.monotonic())

    @opero(retries=1, rate_limit=limiter)
    async def in_task():
        times.append(time.monotonic())

    async def main():
        await asyncio.gather(*[in_task() for _ in range(80)])

    def many():
        for _ in range(40):
            in_thread()

    jobs = [Job(run, main()), Job(run, main()), Job(many), Job(many)]
    for job in jobs:
        job.result()
    assert len(times) == 240
    check_windows(times, rate, burst, tolerance=0.03)
    took = max(times) - min(times)
    assert took < (240 - burst) / rate + 1.5
    assert limiter._bucket.queued == 0


def test_threads_and_two_loops_are_served_in_one_order(core):
    """They queue in turn, and leave in the same order."""
    limiter = RateLimiter(500)
    order: list[int] = []
    count = 24
    loops: list[asyncio.AbstractEventLoop] = []
    done = threading.Event()

    async def serve():
        loops.append(asyncio.get_running_loop())
        while not done.is_set():
            await asyncio.sleep(0.001)

    async def in_task(number):
        async with limiter:
            order.append(number)

    def in_thread(number):
        with limiter:
            order.append(number)

    servers = [Job(run, serve()), Job(run, serve())]
    until(lambda: len(loops) == 2)
    threads, futures = [], []
    with standing_clock(core.clock) as clock:
        spent(limiter)
        for number in range(count):
            if number % 3 == 2:
                threads.append(Job(in_thread, number))
            else:
                coroutine = in_task(number)
                futures.append(asyncio.run_coroutine_threadsafe(coroutine, loops[number % 3]))
            until(lambda n=number: limiter._bucket.queued == n + 1)
        for number in range(count):
            clock.advance(2 * MS)
            until(lambda n=number: len(order) > n)
            assert order == list(range(number + 1))
    for future in futures:
        future.result(20)
    wait_all(threads)
    done.set()
    for server in servers:
        server.result()


def test_a_closed_loop_in_the_middle_of_the_line_holds_nobody_up(core):
    """Waiters behind its tasks are served in their own turn or sooner."""
    limiter = spent(RateLimiter(500))
    first = Job(limiter.acquire_sync)
    loop = asyncio.new_event_loop()

    async def begin():
        tasks = [asyncio.ensure_future(limiter.acquire()) for _ in range(3)]
        await settle()
        return tasks

    with standing_clock(core.clock):
        dead = loop.run_until_complete(begin())
        loop.close()
        queued = limiter._bucket.queued
        last = Job(limiter.acquire_sync)
        until(lambda: limiter._bucket.queued == queued + 1)
    wait_all([first, last])
    assert limiter._bucket.queued == 0
    for task in dead:
        task._log_destroy_pending = False
        task.get_coro().close()


def test_a_loop_that_is_stuck_does_not_stop_the_others_from_being_served():
    """A second loop and a thread are served although its tasks are ahead of them."""
    limiter = spent(RateLimiter(200))
    stuck, free = threading.Event(), threading.Event()

    async def blocked():
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        await settle()
        stuck.set()
        free.wait(15)
        await asyncio.wait(tasks)

    async def others():
        await asyncio.gather(*[limiter.acquire() for _ in range(5)])

    holder = Job(run, blocked())
    assert stuck.wait(10)
    begun = time.monotonic()
    jobs = wait_all([Job(run, others()), Job(limiter.acquire_sync)])
    assert time.monotonic() - begun < 5
    assert not holder.over
    free.set()
    for job in [*jobs, holder]:
        job.result()
    assert limiter._bucket.queued == 0


def test_loops_that_come_and_go_leave_nothing_in_the_limiter():
    """Twenty loops use one limiter in turn, and cancel some of their tasks."""
    limiter = RateLimiter(5000)

    async def main():
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(6)]
        await asyncio.sleep(0.0005)
        tasks[-1].cancel()
        await asyncio.wait(tasks)

    for _ in range(20):
        run(main())
    assert limiter._bucket.queued == 0


def test_permits_are_spaced_by_at_least_the_interval_without_a_burst():
    """One thread notes the times in one place, so they are in order."""
    limiter = RateLimiter(300)

    async def main():
        times = []
        loop = asyncio.get_running_loop()

        async def wait():
            await limiter.acquire()
            times.append(loop.time())

        await asyncio.gather(*[wait() for _ in range(40)])
        return times

    times = run(main())
    assert times[-1] - times[0] >= 39 / 300 - 0.01
    late = sum(after - before < 0.5 / 300 for before, after in pairwise(times))
    assert late < 20  # a note may come late, after which the next seems to come early
