"""Runs ordinary functions: it sleeps in the caller's thread.

`run` waits for a permit, starts the function, judges a failure, sleeps, and begins again; `follow`
waits for another thread's flight.
"""

from __future__ import annotations

import sys
import threading
import time
from threading import get_ident
from typing import Any

from opero import forks
from opero.core.clock import NEVER
from opero.exceptions import belongs_to_one
from opero.gil import FREE_THREADED
from opero.real_time import monotonic_ns

from .outcomes import judge, misfits, note_wait, rejection, too_late, withdraw

_GLANCE = 0.5
"""How often, in seconds, a thread that follows a flight looks whether it is still flown."""
_PLAIN = "opero.core.flight"

AGAIN = object()
"""Says that whoever wanted to follow a flight has to look again, since it was broken off."""

_waiting: dict[int, Any] = {}
"""Which flight each waiting thread follows."""

forks.register("followers", after_in_child=_waiting.clear)


def run(
    call: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    deadline: int = NEVER,
    error: BaseException | None = None,
    passed: int = 0,
) -> Any:
    """Attempt a call until it succeeds or the core gives up.

    Args:
        call: The decorated function.
        args: The positional arguments.
        kwargs: The keyword arguments.
        deadline: When the call has to be over, in nanoseconds.
        error: What the first attempt raised, if it has been made.
        passed: How many gates the first attempt has passed, if it has not.

    Returns:
        What the function returned.
    """
    attempts: Any = None
    failure: BaseException | None = None
    fallback = call.fallback
    given: Any = None
    width = 1
    if fallback is not None:
        given = fallback.given(args, kwargs)
        width = fallback.check(given)
        given = fallback.snapshot(given)
    now_args, now_kwargs = args, kwargs
    if fallback is not None and error is None:
        first = fallback.choice(given, 0)
        if first is not given:
            now_args, now_kwargs = fallback.place(args, kwargs, first)
    gates = call.gates
    rejects = call.policy.rejects is not None
    entered = 0
    try:
        while True:
            if error is not None:
                if attempts is None:
                    if misfits(call, error, args, kwargs):
                        raise error
                    attempts = call.policy.attempts(width)
                failure = judge(call, attempts, error, deadline)
                if failure is not None:
                    raise failure
                error = None
                if attempts.delay:
                    waited = sleep(call.clock, attempts.delay)
                    call.add("backoff_wait", waited)  # read only now: others wait at the same time
                if fallback is not None:
                    value = fallback.choice(given, attempts.value)
                    now_args, now_kwargs = fallback.place(args, kwargs, value)
            if gates:
                entered = enter(call, attempts, deadline, passed)
                passed = 0
            call.add("attempts", 1)
            try:
                value = call.func(*now_args, **now_kwargs)
            except BaseException as caught:  # noqa: BLE001 - judged above
                error = caught
            if rejects and error is None:
                error = rejection(call, value, entered)
            if gates and call.observed:
                call.leave(error, entered)
            if error is None:
                return value
    finally:
        attempts = error = failure = None  # a traceback that holds this frame must not make a cycle


def enter(call: Any, attempts: Any, deadline: int, passed: int) -> int:
    """Pass the gates before an attempt, from number `passed` on; return when that was."""
    now = int(call.clock.now())
    passed = call.enter(now, passed)
    if passed == len(call.gates):
        if call.events.heeded:
            call.events.permit(call, 0.0)
        return now
    try:
        for queue in call.queues[passed:]:
            note_wait(call, attempts, queue, queue.wait_sync(deadline, 1))
            passed += 1
    except BaseException:
        withdraw(call, passed)
        raise
    return int(call.clock.now())


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
    call: Any,
    store: Any,
    key: Any,
    flight: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    deadline: int,
) -> Any:
    """Wait for another thread's run of the same call and share its outcome.

    A thread that would wait for itself, directly or around a circle of threads, runs the function
    on its own: what would be endless recursion without opero stays that, and does not hang.

    Returns:
        What the function returned, or `AGAIN`.
    """
    me = get_ident()
    lost = False
    gate = threading.Lock()
    gate.acquire()
    before = _waiting.get(me)
    try:
        _waiting[me] = flight  # first, so that of two threads that meet in a circle one sees it
        if _is_circle(flight, me):
            _restore(me, before)
            return run(call, args, kwargs, deadline)
        try:
            flight.join(gate)
            end = NEVER if deadline == NEVER else monotonic_ns() + deadline - call.clock.now()
            while not (flight.done or lost):
                left = min(_GLANCE, (end - monotonic_ns()) / 1e9)
                if gate.acquire(timeout=max(0.0, left)):
                    break
                if monotonic_ns() < end:
                    lost = not _is_flown(flight)
                elif not flight.done:
                    if call.clock.skipping:
                        call.clock.move_to(deadline)
                    raise too_late(call, None, "another caller's run of it takes longer")
        finally:
            flight.leave(gate)  # which also sees to it that the outcome is seen whole
        if lost:
            call.ground(store, key, flight)
        elif flight.error is None:
            return flight.value
        elif not belongs_to_one(flight.error, call.policy):
            raise flight.error.with_traceback(flight.traceback)
    finally:
        _restore(me, before)
        flight = None  # it holds the error, whose traceback holds this frame
    return AGAIN  # the other thread was interrupted, not this one


def _is_flown(flight: Any) -> bool:
    """Tell whether the thread that leads `flight` is still at it.

    It is not if it has ended, or was interrupted at so bad a moment that it could not tidy up.
    """
    frame = sys._current_frames().get(flight.owner)
    if type(flight).__module__ != _PLAIN:
        return frame is not None  # compiled code has no frame, and cannot be interrupted there
    if FREE_THREADED:
        return frame is not None  # nobody may look into the frame of a thread that runs on
    while frame is not None:
        if frame.f_code.co_name == "lead" and frame.f_locals.get("flight") is flight:
            return True
        frame = frame.f_back
    return False


def _restore(me: int, before: Any) -> None:
    """Note again what thread `me` waited for before: a signal handler may call in the middle."""
    if before is None:
        _waiting.pop(me, None)
    else:
        _waiting[me] = before


def _is_circle(flight: Any, me: int) -> bool:
    """Tell whether thread `me` would wait for itself by waiting for `flight`."""
    for _ in range(len(_waiting) + 1):
        if flight.owner == me:
            return True
        flight = _waiting.get(flight.owner)
        if flight is None or flight.done:
            return False
    return False
