"""`RateLimiter`: one line of waiters, threads and tasks alike, in front of one token bucket.

A caller that finds a free permit and nobody waiting takes it and goes. Everybody else joins the
line. Permits are handed out in the order of the line by whoever is awake to do it (`_serve`):
usually the head, whose timer is set for the next permit. Each other waiter also has a timer, for
the time at which its turn would come, so a head whose event loop is stuck holds nobody up for good.
Nobody in the line owns a permit before it is handed out, so one who leaves has nothing to return;
one who leaves at the very moment of the handing out gives the permit back.

The lock is reentrant, since a finalizer may leave the line, or join it, in the middle of any step;
and every step looks at what it finds rather than trusting what the step before has left.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType

from . import hotpath
from .core.clock import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

    from .core.bucket import TokenBucket

__all__ = ["RateLimiter"]


class _Waiter:
    """Somebody in the line.

    Attributes:
        wake: Tells the waiter to look again; false if it is gone for good.
        granted: Whether the waiter has its permit.
        gone: Whether it does not wait any more.
        token: What gives its permit back.
    """

    __slots__ = ("gone", "granted", "token", "wake")

    def __init__(self) -> None:
        self.wake: Callable[[], bool] = bool
        self.granted = False
        self.gone = False
        self.token = 0

    def is_settled(self) -> bool:
        """Tell whether the waiter has no business in the line any more."""
        return self.granted or self.gone


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

        self.rate_limit: float = check_rate("rate_limit", rate_limit)
        self.burst: int = check_burst(burst)
        core = hotpath.core
        self._clock = core.clock
        lock = core.new_lock()
        self._lock = threading.RLock() if lock is None else lock
        self._line: deque[_Waiter] = deque()
        self.bucket: TokenBucket = core.TokenBucket(self.rate_limit, self.burst, lock)
        _limiters.add(self)

    def __repr__(self) -> str:
        return f"RateLimiter({self.rate_limit!r}, burst={self.burst!r})"

    def __reduce__(self) -> tuple[type[RateLimiter], tuple[float, int]]:
        return type(self), (self.rate_limit, self.burst)

    def try_acquire(self) -> bool:
        """Take a permit if one is free now and nobody waits for it; tell whether one was."""
        now = self._clock.now()
        if self.bucket.take(now) == 0:
            return True
        if not self.bucket.queued:
            return False
        with self._lock:
            self._serve(now)  # those who wait may not be awake to do it
            return not self._line and self.bucket.admit(now) == 0

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
        through = False

        def ring() -> None:
            nonlocal through
            through = waiter.granted  # seen here only, so that tasks go on in the order of grants
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
            while not through:
                if waiter.granted:
                    await bell
                elif clock.skipping:
                    clock.move_to(due)
                    await asyncio.sleep(0)
                else:
                    timer = loop.call_later(max(0, due - clock.now()) / 1e9, ring)
                    try:
                        await bell
                    finally:
                        timer.cancel()
                if bell.done():
                    bell = loop.create_future()
                if not through:
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
        with self._lock:
            self._serve(now)
            due = self._next(now) + len(self._line) * self.bucket.interval
            if due > deadline:
                return -1
            self._line.append(waiter)
            self._serve(now)
        return due

    def _look(self, waiter: _Waiter, deadline: int) -> int:
        """Hand out what is due.

        Returns:
            When `waiter` should look again, in nanoseconds; -1 if its permit would come after
            `deadline`, and then it has left the line.
        """
        now = self._clock.now()
        with self._lock:
            self._serve(now)
            if waiter.granted:
                return now
            due = self._next(now)
            if self._line and self._line[0] is not waiter:
                due += self.bucket.interval
        if due > deadline:
            self._leave(waiter)
            return -1
        return due

    def _next(self, now: int) -> int:
        """Return when the next permit is free, in nanoseconds."""
        free: int = self.bucket.arrival - self.bucket.tolerance
        return max(now, free)

    def _leave(self, waiter: _Waiter) -> None:
        """Leave the line, or give the permit back."""
        with self._lock:
            if waiter.gone:
                return
            waiter.gone = True
            if waiter.granted:
                self.bucket.undo(waiter.token)
            self._drop(waiter)
            self._serve(self._clock.now())
            self._wake_head()

    def _serve(self, now: int) -> None:
        """Hand out the permits that are due, and tell a new head to set its timer."""
        line, bucket = self._line, self.bucket
        moved = False
        while line:
            head = line[0]
            if not head.is_settled():
                if bucket.admit(now) > 0:
                    break
                if head.is_settled():  # a finalizer has been here meanwhile
                    bucket.undo(bucket.arrival + bucket.refunded)
                else:
                    head.token = bucket.arrival + bucket.refunded
                    head.granted = True
                    if not head.wake():
                        head.gone = True
                        bucket.undo(head.token)
            self._drop(head)
            moved = True
        bucket.queued = len(line)
        if moved:
            self._wake_head()

    def _drop(self, waiter: _Waiter) -> None:
        """Take `waiter` out of the line, if it stands there."""
        try:
            self._line.remove(waiter)
        except ValueError:
            pass

    def _wake_head(self) -> None:
        """Let the head of the line look at the time, unless it has gone."""
        try:
            head = self._line[0]
        except IndexError:
            return
        if not head.wake():
            head.gone = True

    def _after_fork(self) -> None:
        """Send the line away in a child process: those who wait in it did not come along."""
        self._lock = threading.RLock()
        if self.bucket.lock is not None:
            self.bucket.lock = self._lock
        self._line.clear()
        self.bucket.queued = 0


class Turn:
    """A place in the line of a limiter, for somebody who does not wait but comes back to look.

    It stands in the line from a `take` that found no permit until the one that gets it, or `leave`.
    A permit that it was handed before it looks again is its own.
    """

    def __init__(self, limiter: RateLimiter) -> None:
        """Do not stand in line yet.

        Args:
            limiter: Whose line it is.
        """
        self._limiter = limiter
        self._waiter: _Waiter | None = None

    def take(self, now: int) -> int:
        """Take a permit, if it is there.

        Args:
            now: The time in nanoseconds.

        Returns:
            0 if it was, else nanoseconds until it might be.
        """
        limiter = self._limiter
        waiter = self._waiter
        if waiter is None:
            if limiter.bucket.take(now) == 0:
                return 0
            waiter = self._waiter = _Waiter()
            waiter.wake = _always
            due = limiter._join(waiter, now, NEVER)
        else:
            due = limiter._look(waiter, NEVER)
        if waiter.granted:
            self._waiter = None
            return 0
        return max(1, due - now)

    def leave(self) -> None:
        """Leave the line, or give the permit back."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._limiter._leave(waiter)


def _always() -> bool:
    return True


_limiters: weakref.WeakSet[RateLimiter] = weakref.WeakSet()


def _after_fork() -> None:
    for limiter in _limiters:
        limiter._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
