"""`RateLimiter`: one line of waiters, threads and tasks alike, in front of one token bucket.

A caller that finds a free permit and nobody waiting takes it and goes. Everybody else joins the
line. Permits are handed out in the order of the line by whoever is awake to do it (`_serve`):
usually the head, whose timer is set for the next permit. Each other waiter also has a timer, for
the time at which its turn would come, so a head whose event loop is stuck holds nobody up for good.
Nobody in the line owns a permit before it is handed out, so one who leaves has nothing to return;
one who leaves at the very moment of the handing out gives the permit back.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from . import hotpath
from .core.clock import NEVER

if TYPE_CHECKING:
    import asyncio

__all__ = ["RateLimiter"]


class _Waiter:
    """Somebody in the line.

    Attributes:
        wake: Tells the waiter to look again; false if it is gone for good.
        before, after: The bucket's arrival time before and after the waiter's permit was taken.
        granted: Whether the waiter has its permit.
    """

    __slots__ = ("after", "before", "granted", "wake")

    def __init__(self) -> None:
        self.wake: Callable[[], bool] = bool
        self.before = 0
        self.after = 0
        self.granted = False


class RateLimiter:
    """Hands out permits at no more than a given rate, to threads and to tasks of any event loop.

    Over any `w` seconds no more than `burst + rate_limit * w` permits are handed out; waiters get
    theirs first come, first served. A cancelled waiter leaves its permit to the next.

    Attributes:
        rate_limit: Permits per second.
        burst: Permits that may be taken at once after a pause.
        bucket: The decision without the waiting; a decorated function asks it first.

    Example:
        ```python
        limiter = RateLimiter(5.0)

        with limiter:  # a thread waits
            ...
        async with limiter:  # a task waits
            ...
        ```
    """

    def __init__(self, rate_limit: float, burst: int = 1) -> None:
        """Make a limiter with all of its burst free.

        Args:
            rate_limit: Permits per second.
            burst: Permits that may be taken at once after a pause.

        Raises:
            TypeError: If an argument is no number.
            ValueError: If the rate is not positive and finite, or the burst is less than 1.
        """
        from .options import check_burst, check_rate

        self.rate_limit = check_rate("rate_limit", rate_limit)
        self.burst = check_burst(burst)
        core = hotpath.core
        self._clock = core.clock
        lock = core.new_lock()
        self._lock = threading.Lock() if lock is None else lock
        self._line: deque[_Waiter] = deque()
        self.bucket = core.TokenBucket(self.rate_limit, self.burst, lock)

    def __repr__(self) -> str:
        return f"RateLimiter({self.rate_limit!r}, burst={self.burst!r})"

    def __reduce__(self) -> tuple[type[RateLimiter], tuple[float, int]]:
        return type(self), (self.rate_limit, self.burst)

    def try_acquire(self) -> bool:
        """Take a permit if one is free now; tell whether one was."""
        return self.bucket.take(self._clock.now()) == 0

    def acquire_sync(self) -> None:
        """Block this thread until it has a permit."""
        self.wait_sync(NEVER)

    async def acquire(self) -> None:
        """Wait until this task has a permit."""
        await self.wait(NEVER)

    def __enter__(self) -> RateLimiter:
        self.wait_sync(NEVER)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    async def __aenter__(self) -> RateLimiter:
        await self.wait(NEVER)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    # --- waiting --------------------------------------------------------------------------------

    def wait_sync(self, deadline: int) -> int:
        """Get a permit for this thread, unless it would come too late.

        Args:
            deadline: The latest time for the permit, in nanoseconds of the limiter's clock.

        Returns:
            Nanoseconds waited, or -1 if the permit would come after `deadline`.
        """
        clock = self._clock
        start = clock.now()
        if self.bucket.take(start) == 0:
            return 0
        waiter = _Waiter()
        bell = threading.Lock()
        bell.acquire()

        def wake() -> bool:
            if bell.locked():
                bell.release()
            return True

        waiter.wake = wake
        due = self._join(waiter, start, deadline)
        if due < 0:
            return -1
        try:
            while not waiter.granted:
                if clock.skipping:
                    clock.move_to(due)
                    bell.acquire(timeout=0.0)
                else:
                    left = max(0, due - clock.now()) / 1e9
                    bell.acquire(timeout=min(left, threading.TIMEOUT_MAX))
                due = self._look(waiter, deadline)
                if due < 0:
                    return -1
        except BaseException:
            self._leave(waiter)
            raise
        return max(0, clock.now() - start)

    async def wait(self, deadline: int) -> int:
        """Get a permit for this task, unless it would come too late.

        Args:
            deadline: The latest time for the permit, in nanoseconds of the limiter's clock.

        Returns:
            Nanoseconds waited, or -1 if the permit would come after `deadline`.
        """
        clock = self._clock
        start = clock.now()
        if self.bucket.take(start) == 0:
            return 0
        import asyncio

        loop = asyncio.get_running_loop()
        waiter = _Waiter()
        bell: asyncio.Future[None] = loop.create_future()

        def ring() -> None:
            if not bell.done():
                bell.set_result(None)

        def wake() -> bool:
            try:
                loop.call_soon_threadsafe(ring)
            except RuntimeError:  # the loop was closed while the task waited
                return False
            return True

        waiter.wake = wake
        due = self._join(waiter, start, deadline)
        if due < 0:
            return -1
        try:
            while not waiter.granted:
                if clock.skipping:
                    clock.move_to(due)
                    await asyncio.sleep(0)
                else:
                    timer = loop.call_later(max(0, due - clock.now()) / 1e9, ring)
                    try:
                        await bell
                    finally:
                        timer.cancel()
                    bell = loop.create_future()
                due = self._look(waiter, deadline)
                if due < 0:
                    return -1
        except BaseException:
            self._leave(waiter)
            raise
        return max(0, clock.now() - start)

    # --- the line -------------------------------------------------------------------------------

    def _join(self, waiter: _Waiter, now: int, deadline: int) -> int:
        """Stand in line.

        Returns:
            When the waiter's turn comes if nobody leaves, in nanoseconds; -1 if that is later than
            `deadline`, and then the waiter does not stand in line.
        """
        bucket = self.bucket
        with self._lock:
            ahead = len(self._line)
            wait = max(0, bucket.arrival - bucket.tolerance - now)
            due: int = now + wait + ahead * bucket.interval
            if due > deadline:
                return -1
            self._line.append(waiter)
            bucket.queued = ahead + 1
            self._serve(now)
        return due

    def _look(self, waiter: _Waiter, deadline: int) -> int:
        """Hand out what is due.

        Returns:
            When `waiter` should look again, in nanoseconds; -1 if its permit would come after
            `deadline`, and then it has left the line.
        """
        now = self._clock.now()
        bucket = self.bucket
        with self._lock:
            self._serve(now)
            if waiter.granted:
                return now
            due: int = now + max(0, bucket.arrival - bucket.tolerance - now)
            if self._line[0] is not waiter:
                due += bucket.interval
        if due > deadline:
            self._leave(waiter)
            return -1
        return due

    def _leave(self, waiter: _Waiter) -> None:
        """Leave the line, or give the permit back."""
        with self._lock:
            if waiter.granted:
                self.bucket.undo(waiter.before, waiter.after)
            else:
                self._line.remove(waiter)
                self.bucket.queued = len(self._line)
            self._serve(self._clock.now())
            if self._line:
                self._line[0].wake()

    def _serve(self, now: int) -> None:
        """Hand out the permits that are due, and tell the new head to set its timer."""
        line, bucket = self._line, self.bucket
        served = False
        while line:
            head = line[0]
            before = bucket.arrival
            if bucket.admit(now) > 0:
                break
            line.popleft()
            head.before, head.after, head.granted = before, bucket.arrival, True
            served = True
            if not head.wake():
                bucket.undo(before, head.after)
        bucket.queued = len(line)
        if served and line:
            line[0].wake()
