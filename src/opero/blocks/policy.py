"""`attempts(...)`: a policy for blocks of code, and the loops over it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from types import FrameType, FunctionType
from typing import Any, NoReturn

from opero import assembly, hotpath, off_switch, roster
from opero.callables import NoDecorator
from opero.event import Origin
from opero.events import of_half
from opero.limits.gates import gates_of
from opero.options import call_options
from opero.runners import sync
from opero.stats import Stats, stats_of

from .loop import Attempt, BareLoop, Loop, MisusedLoopError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from typing_extensions import Unpack

    from opero.limits import Breaker, RateLimiter
    from opero.options import CallOptions, RetryAfter, RetryConfig, RetryOn, Seconds

    class _NoOthers(TypedDict):
        pass


_MOST_PLANS = 128
"""How many checked combinations of options to keep; a loop written in place checks each time."""

_plans: dict[tuple[Any, ...], CallOptions] = {}

_AWAITS = 0x0080 | 0x0200
"""The code flags of coroutines and asynchronous generators."""


def attempts(
    retries: int = 3,
    backoff_factor: float = 1.5,
    min_delay: Seconds = 0.1,
    max_delay: Seconds = 30.0,
    retry_on: RetryOn = (Exception,),
    *,
    rate_limit: RateLimiter | None = None,
    jitter: bool = True,
    timeout: Seconds | None = None,
    attempt_timeout: Seconds | None = None,
    retry: RetryConfig | None = None,
    retry_after: RetryAfter | None = None,
    breaker: Breaker | None = None,
    reraise: bool = False,
    **kwargs: Unpack[_NoOthers],
) -> AttemptLoops:
    """Make a block of code resilient, where you do not want a function for it.

    Loop over what this returns, and put the block in a `with` inside the loop. If the block ends
    without an exception, so does the loop; if it fails, it runs again after a delay:

        deadline( retries( breaker( permit( attempt timeout( block )))))

    In a coroutine, write `async for`. You can keep what this returns and use it for many loops.

    Args:
        retries: The most attempts in total, the first included; 0 and 1 both mean one.
        backoff_factor: The factor by which the delay's ceiling grows with each attempt, at least 1.
        min_delay: The shortest delay between attempts, in seconds.
        max_delay: The longest delay between attempts, in seconds.
        retry_on: Which exceptions are worth another attempt: a type, a tuple of types, or a
            predicate of the exception. Any other exception is raised immediately, unchanged.
        rate_limit: A `RateLimiter`; each attempt takes a permit from it. Loops may share it.
        jitter: Whether each delay is random, between `min_delay` and its ceiling; if False, it is
            the ceiling.
        timeout: The deadline of all attempts in seconds, waits included. No wait begins that would
            end too late; whatever the block of an `async for` awaits is cancelled.
        attempt_timeout: How many seconds one attempt may take, not counting the waits before it.
            Then opero cancels whatever it awaits, and it has failed with `AttemptTimeout`. For
            `async for` only.
        retry: A `RetryConfig`, instead of the keywords for retries.
        retry_after: A function that takes the exception and returns how many seconds the server
            asks you to wait, or None; `opero.retry_after` knows the errors of the usual clients.
            The next delay is at least that long, up to `max_delay`, or up to the deadline with a
            `timeout`. If the server asks for longer, the call gives up immediately.
        breaker: A `Breaker`, which counts each attempt. Loops may share it. While it is open, no
            attempt begins.
        reraise: Whether to raise the last attempt's own exception instead of `AllFailedError`.
        **kwargs: None; an error says how to spell an option.

    Returns:
        What to loop over; each loop makes its own attempts.

    Raises:
        TypeError: If an option has the wrong type or there is no such option.
        ValueError: If an option's value is not allowed, or has no effect in a block.

    The loop raises:
        AllFailedError: If every attempt has failed. With one attempt, or with `reraise`, that is
            the block's own exception.
        DeadlineExceeded: If `timeout` passed, or would pass in a wait.
        OperoError: If the code of the loop is wrong; the message says how to write it.

    Example:
        ```python
        for attempt in opero.attempts(retries=3, retry_on=ConnectionError):
            with attempt:
                rows = connect().query("select 1")
        ```
    """
    given = {**locals()}
    given.update(given.pop("kwargs"))
    return AttemptLoops(_plan(given))


def _plan(given: Mapping[str, Any]) -> CallOptions:
    """Check the options; keep the result if the values alone determine it."""
    key = tuple([(name, type(value), value) for name, value in given.items()])
    if not all(map(_is_plain, given.values())):
        return call_options("attempts", given)
    plan = _plans.get(key)
    if plan is None:
        plan = call_options("attempts", given)
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        _plans[key] = plan
    return plan


def _is_plain(value: Any) -> bool:
    """Return whether a value may be kept; one made in a function call may not."""
    if value is None or type(value) in {bool, int, float, timedelta}:
        return True
    if isinstance(value, type) or type(value) is FunctionType:
        return "<" not in value.__qualname__
    return type(value) is tuple and all(map(_is_plain, value))


class AttemptLoops(NoDecorator):
    """A policy for blocks of code, as `attempts` returns it; loop over it as often as you like."""

    _instead = (
        "attempts() is for blocks of code: decorate a function with @opero(...), which takes the "
        "same options"
    )

    def __init__(self, plan: CallOptions) -> None:
        self._plan = plan
        self._states: dict[tuple[str, str, str], Any] = {}
        self._limits: Any = None

    def __iter__(self) -> Iterator[Attempt]:
        """Begin a loop in an ordinary function.

        Raises:
            OperoError: If the loop is in a coroutine: it would block the event loop.
            ValueError: If there is an `attempt_timeout`: nothing could enforce it.
        """
        frame = sys._getframe(1)
        if frame.f_code.co_flags & _AWAITS:
            raise MisusedLoopError(
                f"{_where(frame)[1]} is a coroutine, and a `for` loop over attempts() would block "
                f"its event loop between the attempts: write `async for`"
            )
        length = self._plan.attempt_timeout
        if length:
            raise ValueError(
                f"attempt_timeout={length / 1e9:g}: nothing can stop a thread that runs the block "
                f"of a `for` loop; write `async for` in a coroutine, or leave attempt_timeout out"
            )
        if off_switch.is_off:
            return BareLoop(_name(frame))
        return Loop(self._state(frame, "sync"))

    def __aiter__(self) -> AsyncIterator[Attempt]:
        """Begin a loop in a coroutine."""
        frame = sys._getframe(1)
        if off_switch.is_off:
            return BareLoop(_name(frame))
        from .async_loop import AsyncLoop, limits_of

        if self._limits is None:
            self._limits = limits_of(self._plan.timeout, self._plan.attempt_timeout)
        return AsyncLoop(self._state(frame, "async"), self._limits)

    def stats(self) -> Stats:
        """Return the counts of all loops over this policy; `calls` is the number of loops."""
        total: dict[str, int] = {}
        for state in list(self._states.values()):
            for name, count in state.counted().items():
                total[name] = total.get(name, 0) + count
        return stats_of(total)

    def _state(self, frame: FrameType, mode: str) -> Any:
        """Return the state of the loops in one function, which events name as their source."""
        module, function = _where(frame)
        key = (module, function, mode)
        state = self._states.get(key)
        if state is None:
            state = self._states.setdefault(key, self._new_state(*key))
        return state

    def _new_state(self, module: str, function: str, mode: str) -> Any:
        core = hotpath.core
        origin = Origin(function, module, None, None, mode)
        state = core.Call(
            core.Parts(
                func=None,
                face=None,
                name=_block_in(function),
                options=self._plan,
                decorate=assembly.decorate,
                awaited=False,
                runner=sync,
                clock=core.clock,
                events=of_half(core),
                origin=origin,
                policy=assembly.policy_of(core, self._plan),
                queues=gates_of(self._plan, origin),
                timeout=self._plan.timeout,
                attempt_timeout=self._plan.attempt_timeout,
            )
        )
        roster.enlist(state)
        return state

    def __repr__(self) -> str:
        return f"attempts(retries={self._plan.retry.attempts})"

    # --- wrong uses -----------------------------------------------------------------------------

    def __enter__(self) -> NoReturn:
        raise TypeError(
            "attempts() is for loops: write `for attempt in attempts(...):` and, inside it, `with "
            "attempt:`"
        )

    def __exit__(self, *_: object) -> None: ...

    __aenter__ = __enter__
    __aexit__ = __exit__


def _block_in(function: str) -> str:
    return f"the block in {function}"


def _name(frame: FrameType) -> str:
    """Return the name, in messages, of the block in a frame's function."""
    return _block_in(_where(frame)[1])


def _where(frame: FrameType) -> tuple[str, str]:
    """Return the module and the name of a frame's function."""
    module = str(frame.f_globals.get("__name__") or "?")
    function = frame.f_code.co_qualname
    return module, module if function == "<module>" else function
