"""`RateLimiter`: the public rate limiter, in every scope."""

from __future__ import annotations

import math
import weakref
from contextvars import ContextVar
from types import TracebackType

from opero import forks, hotpath
from opero.callables import NoDecorator
from opero.core.clock import NEVER
from opero.core.gate import REJECTED, SUCCEEDED, SharedGate

from .parameters import KnownParameters
from .wait_queue import WaitQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from datetime import timedelta
    from typing import Any, Literal, Self

    from opero.core.bucket import TokenBucket

__all__ = ["RateLimiter"]


class RateLimiter(SharedGate, KnownParameters, NoDecorator):
    """Hands out permits at no more than a given rate, to threads and to tasks of any event loop.

    It hands out at most `burst + rate_limit * w` permits in any `w` seconds. Waiters of one process
    are served in order. The permit of a cancelled waiter goes to the next.

    Scopes:
        process: The limit applies to all users of this object.
        machine: It applies to all processes of this user on this machine that use the same name,
            through shared memory. Waiting processes get about equal shares.
        redis: It applies to all processes that use the same name in this Redis, by the server's
            clock. Waiting processes take turns. While the server is unavailable, each process
            applies the limit separately.

    The last two use real time, even where `opero.testing` moves the clock.

    An adaptive limiter finds out what a server allows: `rate` falls when the server rejects
    attempts, and rises again while they succeed, up to `rate_limit`. It learns from how attempts
    of decorated functions and blocks of `with limiter:` end. A rejection is a failed attempt for
    which `retry_after=` returns a wait, or whose error has the HTTP status 429 or 503.
    `opero.core.rate_control` describes the algorithm.

    Example:
        ```python
        limiter = RateLimiter(5.0)

        with limiter:  # a thread waits
            ...
        async with limiter:  # a task waits
            ...
        ```
    """

    _instead = (
        "a RateLimiter is not a decorator: pass it to a function with `@opero(rate_limit=...)`, or "
        "use it around a block of code with `with limiter:`"
    )

    def __init__(
        self,
        rate_limit: float,
        burst: int = 1,
        *,
        scope: Literal["process", "machine", "redis"] = "process",
        name: str | None = None,
        url: str | None = None,
        windows: Sequence[tuple[int, float | timedelta]] = (),
        adaptive: bool = False,
        floor: float | None = None,
    ) -> None:
        """Create a limiter. Its whole burst is available unless others share it.

        Args:
            rate_limit: Permits per second.
            burst: Permits available at once after a pause.
            scope: Who shares the limit: "process", "machine" or "redis".
            name: The name by which processes share it; for "machine" and "redis".
            url: The server's address, such as "redis://host:port/0"; for "redis".
            windows: Further limits, each a pair `(permits, seconds)`: at most that many permits in
                any that many seconds. A permit must be free in all of them. The burst, or a tenth
                of `permits` if that is more, may come at once, but at most half of `permits`.
            adaptive: Whether the rate follows what the server allows.
            floor: The lowest rate of an adaptive limiter, in permits per second; by default a
                hundredth of `rate_limit`.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If the rate is not positive and finite; the burst is less than 1; the floor
                is above the rate, or the limiter is not adaptive; an argument is missing for the
                scope or does not apply to it; or other processes share this machine-wide limit
                with other settings.
            UnsafePlaceError: If others can write to the directory of the shared memory.
            ImportError: If the scope is "redis" and redis-py is not installed.
        """
        from opero.options import checks

        from .windows import burst_of, cells, check_windows

        self._rate_limit: float = checks.rate("rate_limit", rate_limit)
        self._burst: int = checks.burst("burst", burst)
        self._scope: str = checks.choice("scope", scope, ("process", "machine", "redis"))
        self._name: str | None = _checked_name(name, scope)
        self._windows: tuple[tuple[int, float], ...] = (
            check_windows(windows) if windows != () else ()
        )
        self._adaptive: bool = checks.flag("adaptive", adaptive)
        self._floor: float | None = checks.lowest_rate(
            "floor", floor, self.rate_limit, self.burst, self.adaptive
        )
        self._url = _checked_url(url, scope)
        self._most = min([self.burst, *[burst_of(each, self.burst) for each, _ in self.windows]])
        limits = cells(self.windows, self.burst) if self.windows else ()
        core = hotpath.core
        self._clock = core.clock
        self._queue: Any
        if scope == "process":
            bucket = _bucket(core, self.rate_limit, self.burst, limits, self.floor)
            self._queue = WaitQueue(bucket, core.clock)
            self._queue.called = f"the rate limit of {self.rate_limit:g} per second"
        elif scope == "machine":
            from .machine import shared_queue

            settings = _settings(self.rate_limit, self.burst, self.windows, self.floor)
            self._queue = shared_queue(
                core, self.name or "", self.rate_limit, self.burst, limits, settings, self.floor
            )
            self._queue.called = f"the machine-wide rate limit {self.name!r}"
        else:
            from .redis import RedisWaitQueue

            local = _bucket(core, self.rate_limit, self.burst, limits, self.floor)
            self._queue = RedisWaitQueue(core, self._url, self.name, local, self.windows)
            self._queue.called = f"the rate limit {self.name!r} in Redis"
        self._bucket: TokenBucket = self._queue.gate
        _queues.add(self._queue)
        from opero.runners import sync  # noqa: F401 - a child forked during this import would hang

    def __repr__(self) -> str:
        parts = [repr(self.rate_limit), f"burst={self.burst!r}"]
        if self.scope != "process":
            parts += [f"scope={self.scope!r}", f"name={self.name!r}"]
        if self.windows:
            parts.append(f"windows={self.windows!r}")
        if self.adaptive:
            parts.append(f"adaptive=True, floor={self.floor!r}")
        return f"RateLimiter({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (
            type(self),
            self.rate_limit,
            self.burst,
            self.scope,
            self.name,
            self._url,
            self.windows,
            self.adaptive,
            self.floor,
        )

    @property
    def rate_limit(self) -> float:
        """Permits per second; for an adaptive limiter, the maximum."""
        return self._rate_limit

    @property
    def burst(self) -> int:
        """Permits available at once after a pause."""
        return self._burst

    @property
    def scope(self) -> str:
        """Who shares the limit: "process", "machine" or "redis"."""
        return self._scope

    @property
    def name(self) -> str | None:
        """The name of the limit; None in scope "process"."""
        return self._name

    @property
    def windows(self) -> tuple[tuple[int, float], ...]:
        """Further limits that apply at the same time, each in permits and seconds."""
        return self._windows

    @property
    def adaptive(self) -> bool:
        """Whether the rate follows what the server allows."""
        return self._adaptive

    @property
    def floor(self) -> float | None:
        """The lowest rate of an adaptive limiter, in permits per second; None for others."""
        return self._floor

    @property
    def rate(self) -> float:
        """The rate now, in permits per second: `rate_limit`, or less if the limiter is adaptive."""
        return float(self._queue.rate()) if self.adaptive else self.rate_limit

    def try_acquire(self, weight: int = 1) -> bool:
        """Take a permit if one is free and nobody is waiting; return whether that succeeded.

        Args:
            weight: How many permits to take at once, `burst` at most.
        """
        return bool(self._queue.try_take(self._checked_weight(weight)))

    def acquire_sync(self, weight: int = 1) -> None:
        """Block this thread until it gets a permit.

        Args:
            weight: How many permits to take at once, `burst` at most.
        """
        self._wait_sync(NEVER, self._checked_weight(weight))

    async def acquire(self, weight: int = 1) -> None:
        """Wait until this task gets a permit.

        Args:
            weight: How many permits to take at once, `burst` at most.
        """
        await self._wait(NEVER, self._checked_weight(weight))

    def pause(self, seconds: float | timedelta) -> None:
        """Hand out no permits for a while, neither to waiters nor to others who share the limit.

        A longer pause that is already in progress continues. Afterwards, waiters get permits one
        by one and in order, as if the burst had been spent. In scope "redis" this asks the server,
        which takes a second at most; other processes may still use permits granted for the next
        tenth of a second.

        Args:
            seconds: How long, in seconds or as a `timedelta`; 0 does nothing.

        Raises:
            TypeError: If it is not a time.
            ValueError: If it is negative, or more than 31 years.
        """
        from opero.options import checks

        seconds = checks.seconds("seconds", seconds)
        if seconds:
            self._queue.pause(math.ceil(seconds * 1e9))

    def _wait_sync(self, deadline: int, weight: int = 1) -> int:
        """Get a permit for this thread, unless it would come too late.

        Args:
            deadline: The latest time for the permit, in nanoseconds of opero's clock.
            weight: How many permits to get at once, `burst` at most.

        Returns:
            Nanoseconds waited, or -1 if the permit would come after `deadline`.
        """
        if self._bucket.take_many(self._clock.now(), weight) == 0:
            return 0
        from opero.runners import sync

        waited: int = sync.drive(self._queue.steps(deadline, weight))
        return waited

    def _wait(self, deadline: int, weight: int = 1) -> Coroutine[Any, Any, int]:
        """Get a permit for this task, unless it would come too late: `await` what this returns.

        Args:
            deadline: The latest time for the permit, in nanoseconds of opero's clock.
            weight: How many permits to get at once, `burst` at most.

        Returns:
            Nanoseconds waited, or -1 if the permit would come after `deadline`.
        """
        from opero.runners import aio

        return aio.drive(self._queue.steps(deadline, weight))

    def __enter__(self) -> Self:
        self._wait_sync(NEVER)
        if self.adaptive:
            self._begin_block()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.adaptive:
            self._end_block(error)

    async def __aenter__(self) -> Self:
        await self._wait(NEVER)
        if self.adaptive:
            self._begin_block()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.adaptive:
            self._end_block(error)

    def _begin_block(self) -> None:
        """Record when a block begins that has its permit."""
        _blocks.set((*_blocks.get(), (id(self), self._queue.clock.now())))

    def _end_block(self, error: BaseException | None) -> None:
        """Report to the limit how the innermost block of this task or thread ended."""
        blocks = list(_blocks.get())
        entered = 0  # unknown; rejections of such a block do not count
        for at in range(len(blocks) - 1, -1, -1):
            if blocks[at][0] == id(self):
                entered = blocks.pop(at)[1]
                break
        _blocks.set(tuple(blocks))
        if error is None:
            self._queue.report(SUCCEEDED, entered)
        elif isinstance(error, Exception):
            from opero.http_errors import asks_for_less, retry_after

            if retry_after(error) or asks_for_less(error):
                self._queue.report(REJECTED, entered)

    def _checked_weight(self, weight: Any) -> int:
        """Return a weight as an int; reject one that can never be available at once."""
        if type(weight) is int and weight == 1:  # by far the most common
            return 1
        from opero.options import checks

        count = checks.count("weight", weight)
        if count > self.burst:
            raise ValueError(
                f"weight={weight!r} is not allowed: use at most burst={self.burst!r}, which limits "
                f"how many permits are available at once"
            )
        if count > self._most:
            raise ValueError(
                f"weight={weight!r} is not allowed: use at most {self._most}, because "
                f"windows={self.windows!r} limit how many permits are available at once"
            )
        return count


def _bucket(
    core: Any, rate: float, burst: int, limits: tuple[tuple[int, int], ...], floor: float | None
) -> Any:
    """Create a bucket for the callers of this process.

    Args:
        core: The active half of opero.
        rate: Permits per second.
        burst: Permits available at once.
        limits: Interval and burst of further limits.
        floor: The lowest rate of an adaptive limit; None for other limits.
    """
    lock = core.new_lock()
    if floor is not None:
        return core.AdaptiveBucket(rate, burst, lock, limits, floor)
    if limits:
        return core.WindowedBucket(rate, burst, lock, limits)
    return core.TokenBucket(rate, burst, lock)


def _settings(
    rate: float, burst: int, windows: tuple[tuple[int, float], ...], floor: float | None
) -> str:
    """Describe a limit, for people and for comparison."""
    further = "".join(f", {permits} in any {seconds!r} s" for permits, seconds in windows)
    adaptive = "" if floor is None else f", adaptive down to {floor!r}"
    return f"{rate!r} per second with burst {burst}{further}{adaptive}"


def _checked_name(name: Any, scope: str) -> str | None:
    if scope == "process":
        if name is not None:
            raise ValueError(
                f"name={name!r} is not read by scope='process': use scope='machine' or "
                f"scope='redis' to share a limit by its name, or leave name out"
            )
        return None
    if name is None:
        raise ValueError(f"scope={scope!r} needs name=, by which processes share the limit")
    if not isinstance(name, str):
        raise TypeError(f"name={name!r} is not allowed: use a string")
    return name


def _checked_url(url: Any, scope: str) -> str | None:
    if scope != "redis":
        if url is not None:
            raise ValueError(f"url= is not read by scope={scope!r}: leave it out")
        return None
    if url is None:
        raise ValueError("scope='redis' needs url=, such as 'redis://localhost:6379/0'")
    if not isinstance(url, str):
        raise TypeError(f"url= must be a string, not {type(url).__name__}")
    return url


def _again(
    kind: type[RateLimiter],
    rate: float,
    burst: int,
    scope: Any,
    name: str | None,
    url: str | None,
    windows: tuple[tuple[int, float], ...],
    adaptive: bool = False,
    floor: float | None = None,
) -> RateLimiter:
    """Create a limiter from a pickle."""
    more: dict[str, Any] = {}
    if adaptive:  # a subclass may not accept these
        more = {"adaptive": True, "floor": floor}
    return kind(rate, burst, scope=scope, name=name, url=url, windows=windows, **more)


_blocks: ContextVar[tuple[tuple[int, int], ...]] = ContextVar("opero_blocks", default=())
"""The blocks of adaptive limiters in progress here: the limiter, and the start."""

_queues: weakref.WeakSet[Any] = weakref.WeakSet()
"""The queues of all limiters; decorated functions refer only to the queues."""


def _after_fork() -> None:
    for queue in _queues:
        queue.after_fork()


forks.register("limiters", after_in_child=_after_fork)
