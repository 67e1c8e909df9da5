"""Runs ordinary functions in the caller's thread.

`run` makes the attempts of a call; `lead` does so for a missing value, and stores it; `follow`
waits for another thread's flight.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

from opero import forks, once_only
from opero.core.clock import NEVER
from opero.core.outcomes import too_late
from opero.exceptions import belongs_to_one
from opero.gil import FREE_THREADED
from opero.identity import frame_of
from opero.real_time import monotonic_ns

from .effects import ASK, ATTEMPT, BELL, RUN, SLEEP, WAIT, Raised
from .lingering import linger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opero.core.call import Call
    from opero.core.entry import Entry
    from opero.core.flight import Flight
    from opero.core.store import MemoryStore

    from .effects import Steps

__all__ = ["AGAIN", "LOST", "ThreadBell", "drive", "follow", "lead", "linger", "run", "sleep"]

_FRAMES = 6
"""How many calls deep the end of a run goes: into the store, or to warn that it has no value."""
_GLANCE = 0.5
"""How often, in seconds, a thread that follows a flight checks that its leader still runs."""
_PLAIN = "opero.core.flight"

AGAIN = object()
"""What `follow` returns if the flight was aborted: look for an entry or a flight again."""

LOST = object()
"""What `follow` returns if the flight's thread has ended and left the flight in its table."""

_waiting: dict[int, Any] = {}
"""The flight that each waiting thread follows."""

forks.register("followers", after_in_child=_waiting.clear)


def run(
    call: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    deadline: int = NEVER,
    error: BaseException | None = None,
    passed: int = 0,
    entered: int = 0,
    tickets: list[int] | None = None,
    spare: bool = False,
    func: Any = None,
) -> Any:
    """Attempt a call until it succeeds or the core gives up (see `core.retrying`).

    Args:
        call: The decorated function.
        args: The positional arguments.
        kwargs: The keyword arguments.
        deadline: When the call must be over, in nanoseconds.
        error: What the first attempt raised, if it has been made.
        passed: How many gates the first attempt has passed, if it has not been made.
        entered: When the first attempt asked the gates, in nanoseconds.
        tickets: The tickets of the gates it has passed; None if no gate wants to know how it ends.
        spare: Whether an outdated value can be served if the call fails: then the call fails
            immediately if a gate refuses it.
        func: What an attempt calls instead of the function (see `streams.Opening`).

    Returns:
        What the function returned.
    """
    retrying: Any = call.retrying(
        call, args, kwargs, deadline, None, error, passed, entered, tickets, spare
    )
    error = None
    opening = func
    if func is None:
        func = call.func
    try:
        while True:
            todo = retrying.next()
            if todo == ATTEMPT:
                try:
                    value = func(*retrying.args, **retrying.kwargs)
                except BaseException as caught:  # noqa: BLE001 - judged in `next`
                    retrying.failed(caught)
                else:
                    if retrying.returned(value):
                        return value
                    if opening is not None:
                        try:
                            opening.reject()
                        except BaseException:
                            retrying.abandoned()
                            raise
            elif todo == SLEEP:
                retrying.slept(sleep(call.clock, retrying.delay))
            elif todo == WAIT:
                try:
                    waited = drive(retrying.queue().steps(retrying.deadline, 1))
                except BaseException:
                    retrying.abandoned()
                    raise
                retrying.waited(waited)
            else:
                raise retrying.error
    finally:
        # a traceback that holds this frame must not make a cycle
        retrying = error = func = opening = None


def lead(
    call: Call,
    store: MemoryStore,
    key: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    deadline: int,
    spare: bool = False,
) -> Any:
    """Run a call whose value is missing and store the value, or follow the run under way.

    `fly` of `_compiled/call.pyx` does the same for a cache whose values do not linger.

    Args:
        call: The decorated function.
        store: The store that lacks the value.
        key: The call's key.
        args: The positional arguments.
        kwargs: The keyword arguments.
        deadline: When the call must be over, in nanoseconds.
        spare: Whether an outdated value can be served if the run fails.

    Returns:
        What the function returned.
    """
    _leave_room(_FRAMES)
    me = call.identify()
    led: Entry | None = None
    mine: Entry | None
    entry: Entry | None
    other: Flight | None
    try:
        mine = store.new_run(key, me)
        while True:
            entry = store.begin(mine)
            if entry is mine or store.begin_again(entry, me):
                led = entry
                break
            other = store.follow(entry)
            if other is not None:
                value = follow(call, other, args, kwargs, deadline)
                if value is LOST:
                    _let_go(call, store.abandon, entry, other)
                elif value is not AGAIN:
                    return value
            elif store.is_fresh(entry):  # another thread has stored it since we looked
                return store.value_of(entry)
        if store.lingers:
            value = run(call, args, kwargs, deadline, spare=spare)
        else:
            value = call.attempt(args, kwargs, deadline)
        once_only.check(call.name, value)
        if not _let_go(call, store.settle, led, value):
            with suppress(Exception):  # it has been reported
                store.release(led)
        store.land(led, value, None)
        return value
    except BaseException as error:
        if led is not None:
            _let_go(call, store.release, led)
            store.land(led, None, error)
        raise
    finally:
        led = mine = entry = other = None  # they hold the error, whose traceback holds this frame


def _leave_room(frames: int) -> None:
    """Raise `RecursionError` now if the stack has no room to end the run that begins."""
    if frames:
        _leave_room(frames - 1)


def _let_go(call: Call, step: Callable[..., Any], *given: Any) -> bool:
    """Do the last step of a run on its entry; return whether keys could be compared."""
    try:
        step(*given)
    except Exception as error:  # noqa: BLE001 - a key's own __eq__ may raise anything
        call.events.not_cached(call.name, error)
        return False
    return True


def drive(steps: Steps) -> Any:
    """Carry out, in this thread, the effects that a generator yields.

    Returns:
        What the generator returns.

    Raises:
        BaseException: The exception that it returns as `Raised`, or that interrupted a wait.
    """
    effect: Any = None
    answer: Any = None
    step = steps.send
    try:
        while True:
            try:
                effect = step(answer)
            except StopIteration as end:
                answer = end.value
                break
            step = steps.send
            try:
                answer = _done(effect)
            except BaseException as interrupt:  # noqa: BLE001 - raised where it waits
                answer, step = interrupt, steps.throw
        if type(answer) is Raised:
            raise answer.error
        return answer
    finally:
        steps.close()
        effect = answer = step = None  # type: ignore[assignment]  # no cycle here either


def _done(effect: Any) -> Any:
    """Carry out an effect; return what came of it."""
    kind = effect[0]
    if kind == SLEEP:
        return sleep(effect[1], effect[2])
    if kind == ASK:
        return effect[1].ask(effect[2], *effect[3])
    if kind == RUN:
        args, kwargs, deadline, _, spare = effect[2]
        try:
            return run(effect[1], args, kwargs, deadline, spare=spare)
        except BaseException as error:  # noqa: BLE001 - there it is known what to do instead
            return Raised(error)
    if kind == BELL:
        return ThreadBell(effect[1])
    return effect[2].wait(effect[1], effect[3])


class ThreadBell:
    """Wakes a waiting thread (see `effects.Bell`)."""

    def __init__(self, is_settled: Callable[[], bool]) -> None:
        self.is_through = is_settled
        self._bell = threading.Lock()
        self._bell.acquire()

    def ring(self) -> bool:
        """Wake the thread."""
        if self._bell.locked():
            self._bell.release()
        return True

    def wait(self, clock: Any, until: int) -> None:
        """Wait until it rings, or until a time."""
        if clock.skipping:
            clock.move_to(until)
            self._bell.acquire(timeout=0.0)
        else:
            left = max(0, until - clock.now()) / 1e9
            self._bell.acquire(timeout=min(left, threading.TIMEOUT_MAX))


def sleep(clock: Any, delay: int) -> int:
    """Sleep for `delay` nanoseconds, or move a clock that skips waits; return the time waited."""
    start = clock.now()
    end = start + delay
    if clock.skipping:
        clock.move_to(end)
    left = end - clock.now()
    while left > 0:
        time.sleep(left / 1e9)
        left = end - clock.now()
    return int(clock.now() - start)


def follow(
    call: Call,
    flight: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    deadline: int,
) -> Any:
    """Wait for another thread's run of the same call and share its outcome.

    A thread that would wait for itself, directly or through a circle of threads, runs the function
    itself: what would be endless recursion without opero stays so, and does not hang.

    Returns:
        What the function returned, `AGAIN`, or `LOST`.
    """
    me = call.identify()
    lost = False
    bell = threading.Lock()
    bell.acquire()
    before = _waiting.get(me)
    try:
        _waiting[me] = flight  # first, so that of two threads that meet in a circle one sees it
        if _is_circle(flight, me):
            _restore(me, before)
            return run(call, args, kwargs, deadline)
        try:
            flight.join(bell)
            end = NEVER if deadline == NEVER else monotonic_ns() + deadline - call.clock.now()
            while not (flight.done or lost):
                left = min(_GLANCE, (end - monotonic_ns()) / 1e9)
                if bell.acquire(timeout=max(0.0, left)):
                    break
                if monotonic_ns() < end:
                    # it may have landed, and its thread have ended, since the bell was listened to
                    lost = not _is_flown(call, flight) and not flight.done
                elif not flight.done:
                    if call.clock.skipping:
                        call.clock.move_to(deadline)
                    raise too_late(call, None, "another caller's run of it was still under way")
        finally:
            flight.leave(bell)  # which also makes the whole outcome visible here
        if lost:
            return LOST
        if flight.error is None:
            return flight.value
        if not belongs_to_one(flight.error, call.policy):
            raise flight.error.with_traceback(flight.traceback)
    finally:
        _restore(me, before)
        flight = None  # it holds the error, whose traceback holds this frame
    return AGAIN  # the other thread was interrupted, not this one


def _is_flown(call: Any, flight: Any) -> bool:
    """Return whether the thread that leads `flight` still runs it.

    It does not if it has ended, or if an interrupt kept it from cleaning up.
    """
    try:
        frame = frame_of(call.identify, flight.owner)
    except LookupError:  # a greenlet switches only where it waits: it still runs
        return True
    lingers = call.store is not None and call.store.lingers  # then `lead` is Python on both halves
    if type(flight).__module__ != _PLAIN and not lingers:
        return frame is not None  # compiled code has no frame, and cannot be interrupted there
    if FREE_THREADED:
        return frame is not None  # the frame of a running thread must not be read
    while frame is not None:
        if frame.f_code.co_name == "lead":
            held = frame.f_locals
            if held.get("flight") is flight or getattr(held.get("led"), "flight", None) is flight:
                return True
        frame = frame.f_back
    return False


def _restore(me: int, before: Any) -> None:
    """Restore what thread `me` waited for before: a signal handler may call in between."""
    if before is None:
        _waiting.pop(me, None)
    else:
        _waiting[me] = before


def _is_circle(flight: Any, me: int) -> bool:
    """Return whether thread `me` would wait for itself by waiting for `flight`."""
    for _ in range(len(_waiting) + 1):
        if flight.owner == me:
            return True
        flight = _waiting.get(flight.owner)
        if flight is None or flight.done:
            return False
    return False
