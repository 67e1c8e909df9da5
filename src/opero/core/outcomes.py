"""From a failed attempt to what happens next, the same for threads and for tasks."""

from __future__ import annotations

from opero.exceptions import (
    AllFailedError,
    BreakerOpenError,
    DeadlineExceeded,
    describe,
    note_attempts,
)

from .attempts import AGAIN, GIVE_UP, LATE, NO_FAILURE, REFUSED
from .clock import NEVER
from .gate import FAILED, NEUTRAL, REJECTED

_LONGEST = 1e9
"""The longest pause in seconds: about 31 years."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def judge(call: Any, attempts: Any, error: BaseException, deadline: int) -> int:
    """Note a failed attempt.

    Args:
        call: The decorated function.
        attempts: The state of this call's attempts.
        error: What the attempt raised.
        deadline: When the call must be over, in nanoseconds.

    Returns:
        What follows: a result of `Attempts.failed`.
    """
    now = 0 if deadline == NEVER else call.clock.now()
    verdict: int = attempts.failed(error, now, deadline)
    if attempts.trouble is not None:
        call.events.warn(call.name, f"retry_after is ignored: {attempts.trouble}")
    return verdict


def pause_queues(call: Any, length: int) -> None:
    """Pause the rate limit of a function because a server has asked for it.

    By then the gates know how the attempt has ended.

    Args:
        call: The decorated function.
        length: Nanoseconds; 0 for not at all.
    """
    if length:
        for queue in call.queues:
            queue.pause_soon(length)


def outcome_of(attempts: Any, error: BaseException) -> int:
    """Return the outcome of a failed attempt for the gates (see `gate`), after it was judged."""
    if not attempts.counts:
        return NEUTRAL
    if attempts.told:
        return REJECTED
    from opero.http_errors import asks_for_less

    return REJECTED if asks_for_less(error) else FAILED


def conclude(call: Any, attempts: Any, error: BaseException, verdict: int) -> BaseException | None:
    """Count and report what follows a failed attempt.

    Args:
        call: The decorated function; its counters change.
        attempts: The state of this call's attempts.
        error: What the last attempt raised.
        verdict: What follows: a result of `Attempts.failed`, except `OPEN`.

    Returns:
        What the call raises, or None if another attempt follows, after `attempts.delay`.
    """
    if verdict == AGAIN:
        if attempts.value or not attempts.begins:
            call.events.fallback(call, attempts, error)
        else:
            call.events.retry(call, attempts, error)
        return None
    if verdict == NO_FAILURE:
        return error
    call.add("failures", 1)
    count = len(attempts.errors)
    if verdict == LATE:
        delay = attempts.asked if attempts.heeds else attempts.delay / 1e9
        reason = (
            f"the wait of {delay:g} s before attempt {count + 1}"
            f"{' that the server asked for' if attempts.heeds else ''} would end too late"
            if delay
            else f"no time is left for attempt {count + 1}"
        )
        return _late(call, attempts, reason)
    if verdict not in {GIVE_UP, REFUSED}:
        return error
    if count == 1 and call.fallback is None and call.policy.rounds == 1:
        return error
    reason = ""
    if attempts.refusals:
        reason = "the breakers of the other fallback values are open"
    elif verdict == REFUSED:
        reason = (
            f"the server asked for a wait of {attempts.asked:g} s, but max_delay is "
            f"{call.policy.max_delay:g} s"
        )
    elif attempts.round < call.policy.rounds:
        reason = "retry_on matches no error of the last round"
    call.events.give_up(call, attempts, error, reason or None)
    if call.policy.reraise:
        note_attempts(error, count)
        return error
    return _failed(
        AllFailedError,
        call,
        f"{call.name} failed in {'its only' if count == 1 else f'all {count}'} "
        f"attempt{'' if count == 1 else 's'}; the last error: {describe(error)}"
        f"{reason and f'; {reason}'}",
        attempts.errors,
    )


def pause_after(call: Any, attempts: Any) -> int:
    """Return for how many nanoseconds the rate limit is paused after the last failure.

    A server that asks for a pause wants it from all who share this limit. A wait longer than
    `max_delay`, which no attempt would keep, is not imposed on others, unless the call has a
    deadline: then they can give up immediately.
    """
    told: float = attempts.told
    if not told or not call.policy.pauses:
        return 0
    if not call.timeout:
        told = min(told, call.policy.max_delay)
    return int(min(told, _LONGEST) * 1e9)


def note_wait(call: Any, waited: int) -> None:
    """Note for how many nanoseconds an attempt has waited at a gate."""
    if waited:
        call.add("permit_wait", waited)
    if call.events.heeded:
        call.events.permit(call, waited / 1e9)


def no_entry(call: Any, attempts: Any, awaited: str, wait: int) -> BaseException:
    """Make the exception for a call that a breaker refuses.

    Args:
        call: The decorated function; its counters change.
        attempts: The state of this call's attempts.
        awaited: The breaker, as messages name it.
        wait: Nanoseconds until it might admit an attempt.
    """
    if attempts.errors and not attempts.begins:  # all admitted attempts of this round have failed
        failure = conclude(call, attempts, attempts.errors[-1], GIVE_UP)
        assert failure is not None
        return failure
    call.add("failures", 1)
    errors = attempts.errors
    seconds = max(0, wait) / 1e9
    message = f"{call.name}: {awaited} is open and lets no attempt in for {seconds:.3g} s"
    if errors:
        message += _so_far(errors)
        call.events.give_up(call, attempts, errors[-1], f"{awaited} is open")
    failure = _failed(BreakerOpenError, call, message, errors)
    assert isinstance(failure, BreakerOpenError)
    failure.retry_after = seconds
    failure._own = bool(call.timeout)
    return failure


def _failed(
    kind: type[AllFailedError | BreakerOpenError | DeadlineExceeded],
    call: Any,
    message: str,
    errors: list[Any],
) -> BaseException:
    """Make what a call raises when it gives up."""
    failure = kind(message, errors)
    failure._origin = call.policy
    if errors:
        failure.__cause__ = errors[-1]
    return failure


def too_late(call: Any, attempts: Any, what: str) -> BaseException:
    """Make the exception for a call that runs out of time; `what` is the reason."""
    call.add("failures", 1)
    return _late(call, attempts, what)


def _late(call: Any, attempts: Any, what: str) -> BaseException:
    """Report that a call runs out of time, and make its exception.

    A call without a `timeout` has a deadline if it refreshes a cached value in the background.
    """
    errors = [] if attempts is None else attempts.errors
    if call.timeout:
        call.events.deadline(call, attempts, what)
        message = (
            f"{call.name} cannot finish within its timeout of {call.timeout / 1e9:g} s: {what}"
        )
    else:
        message = f"{call.name} cannot finish before its cached value is outdated: {what}"
    return _failed(DeadlineExceeded, call, message + _so_far(errors), errors)


def _so_far(errors: list[Any]) -> str:
    """Return how many attempts have failed, and with what, for the end of a message."""
    if not errors:
        return ""
    count = len(errors)
    return (
        f"; {count} attempt{' has' if count == 1 else 's have'} failed, the last with "
        f"{describe(errors[-1])}"
    )


def misfits(call: Any, error: BaseException, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether the call failed because its arguments do not fit the function's signature."""
    return isinstance(error, TypeError) and call.binding is not None and not call.fits(args, kwargs)
