"""`RateLimiter`: what users hold in their hands, whatever is behind it."""

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

    Over any `w` seconds no more than `burst + rate_limit * w` permits are handed out; waiters of
    one process get theirs first come, first served. A cancelled waiter leaves its permit to the
    next.

    Scopes:
        process: The limit holds for everybody who uses this object.
        machine: It holds for all processes of this user on this machine that name it alike, by
            shared memory. Each of those that wait gets about the same share.
        redis: It holds for all processes that name it alike at this Redis, by the server's clock.
            Those that wait take turns. While the server is gone the same limit holds in each
            process for itself.

    The last two go by real time, also where `opero.testing` moves the clock.

    An adaptive limiter finds out what a server allows: `rate` falls when the server rejects
    attempts, and rises again while they succeed, up to `rate_limit`. It learns how the attempts of
    decorated functions end, and blocks of code in `with limiter:`. A rejection is an attempt that
    failed and for which `retry_after=` answers, or whose error is an answer with the HTTP status
    429 or 503. The algorithm is told in `opero.core.rate_control`.

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
        "a RateLimiter is not a decorator: give it to a function by `@opero(rate_limit=...)`, or "
        "to a block of code by `with limiter:`"
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
        """Make a limiter, with all of its burst free unless others share it.

        Args:
            rate_limit: Permits per second.
            burst: Permits that may be taken at once after a quiet time.
            scope: Who shares the limit: "process", "machine" or "redis".
            name: What it is called by those who share it; for "machine" and "redis".
            url: Where the server is, as "redis://host:port/0"; for "redis".
            windows: Further limits: never more than so many permits in any so many seconds, each
                as `(permits, seconds)`. A permit must be free in all of them. The burst, or a
                tenth of `permits` if that is more, may come at once; but not more than half.
            adaptive: Whether the rate follows what the server allows.
            floor: The lowest rate of an adaptive limiter, in permits per second; a hundredth of
                `rate_limit` unless you say otherwise.

        Raises:
            TypeError: If an argument is of a wrong type.
            ValueError: If the rate is not positive and finite, the burst is less than 1, the floor
                is above the rate or given to a limiter that is not adaptive, a scope lacks what it
                needs or is given what it does not read; or if the processes that share a
                machine-wide limit have another rate for it.
            UnsafePlaceError: If the directory of the shared memory could be written to by others.
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
        from opero.runners import sync  # noqa: F401 - a child forked in the middle of it would hang

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
        """Permits per second; of an adaptive limiter the most that it allows."""
        return self._rate_limit

    @property
    def burst(self) -> int:
        """Permits that may be taken at once after a quiet time."""
        return self._burst

    @property
    def scope(self) -> str:
        """Who shares the limit: "process", "machine" or "redis"."""
        return self._scope

    @property
    def name(self) -> str | None:
        """What the limit is called; None in scope "process"."""
        return self._name

    @property
    def windows(self) -> tuple[tuple[int, float], ...]:
        """Further limits that hold at the same time, each in permits and seconds."""
        return self._windows

    @property
    def adaptive(self) -> bool:
        """Whether the rate follows what the server allows."""
        return self._adaptive

    @property
    def floor(self) -> float | None:
        """The lowest rate of an adaptive limiter, in permits per second; else None."""
        return self._floor

    @property
    def rate(self) -> float:
        """The rate now, in permits per second: `rate_limit`, or less if the limiter is adaptive."""
        return float(self._queue.rate()) if self.adaptive else self.rate_limit

    def try_acquire(self, weight: int = 1) -> bool:
        """Take a permit if one is free now and nobody waits for it; return whether one was.

        Args:
            weight: How many permits to take at once, `burst` at most.
        """
        return bool(self._queue.try_take(self._checked_weight(weight)))

    def acquire_sync(self, weight: int = 1) -> None:
        """Block this thread until it has a permit.

        Args:
            weight: How many permits to take at once, `burst` at most.
        """
        self._wait_sync(NEVER, self._checked_weight(weight))

    async def acquire(self, weight: int = 1) -> None:
        """Wait until this task has a permit.

        Args:
            weight: How many permits to take at once, `burst` at most.
        """
        await self._wait(NEVER, self._checked_weight(weight))

    def pause(self, seconds: float | timedelta) -> None:
        """Let nobody have a permit for a while, neither those who wait nor others who share it.

        A pause that lasts longer already goes on. Afterwards permits come one by one, as if the
        burst had been spent, to those who wait in their order. In scope "redis" this asks the
        server, which takes a second at most; other processes may still use permits that they have
        been granted for the next tenth of a second.

        Args:
            seconds: How long, in seconds or as a `timedelta`; 0 does nothing.

        Raises:
            TypeError: If it is no number.
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
        """Note when a block begins that has its permit."""
        _blocks.set((*_blocks.get(), (id(self), self._queue.clock.now())))

    def _end_block(self, error: BaseException | None) -> None:
        """Let the limit know how the innermost block of this task or thread has ended."""
        blocks = list(_blocks.get())
        entered = 0  # where it is not known: no rejection of such a block counts
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
        """Return a weight as an int; refuse one that can never be had at once."""
        if type(weight) is int and weight == 1:  # by far the commonest
            return 1
        from opero.options import checks

        count = checks.count("weight", weight)
        if count > self.burst:
            raise ValueError(
                f"weight={weight!r} is not allowed: no more than burst={self.burst!r} permits can "
                f"be had at once"
            )
        if count > self._most:
            raise ValueError(
                f"weight={weight!r} is not allowed: of windows={self.windows!r}, no more than "
                f"{self._most} permits can be had at once"
            )
        return count


def _bucket(
    core: Any, rate: float, burst: int, limits: tuple[tuple[int, int], ...], floor: float | None
) -> Any:
    """Make a bucket for the callers of this process.

    Args:
        core: The active half of opero.
        rate: Permits per second.
        burst: Permits that may be taken at once.
        limits: Interval and burst of further limits.
        floor: The lowest rate of an adaptive limit; None if it is not.
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
    """Say what a limit is, for people and to compare."""
    further = "".join(f", {permits} in any {seconds!r} s" for permits, seconds in windows)
    adaptive = "" if floor is None else f", adaptive down to {floor!r}"
    return f"{rate!r} per second with burst {burst}{further}{adaptive}"


def _checked_name(name: Any, scope: str) -> str | None:
    if scope == "process":
        if name is not None:
            raise ValueError(
                f"name={name!r} is not read by scope='process': a limit that others know by its "
                f"name has scope='machine' or scope='redis'"
            )
        return None
    if name is None:
        raise ValueError(f"scope={scope!r} needs name=, by which others know the limit")
    if not isinstance(name, str):
        raise TypeError(f"name={name!r} is not allowed: use a string")
    return name


def _checked_url(url: Any, scope: str) -> str | None:
    if scope != "redis":
        if url is not None:
            raise ValueError(f"url= is not read by scope={scope!r}")
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
    """Make a limiter from a pickle."""
    more: dict[str, Any] = {}
    if adaptive:  # a subclass may not take them
        more = {"adaptive": True, "floor": floor}
    return kind(rate, burst, scope=scope, name=name, url=url, windows=windows, **more)


_blocks: ContextVar[tuple[tuple[int, int], ...]] = ContextVar("opero_blocks", default=())
"""The blocks of adaptive limiters that are under way here: whose, and since when."""

_queues: weakref.WeakSet[Any] = weakref.WeakSet()
"""Those of all limiters: decorated functions hold only them."""


def _after_fork() -> None:
    for queue in _queues:
        queue.after_fork()


forks.register("limiters", after_in_child=_after_fork)
