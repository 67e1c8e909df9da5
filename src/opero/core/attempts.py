"""Retry and fallback as a state machine: what next, after this failure?

It decides and never waits: a runner that can sleep or await carries out what it says.

    failed(error) -> PROPAGATE   the error goes up as it is
                     AGAIN       attempt value number `value`, after `delay` nanoseconds
                     GIVE_UP     every attempt has failed
                     LATE        the wait before the next attempt would end after the deadline
                     REFUSED     the server asks for a longer wait than the longest delay
"""

from __future__ import annotations

import sys

from opero.exceptions import describe

from .clock import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROPAGATE, AGAIN, GIVE_UP, LATE, REFUSED = range(5)

_LONGEST = 4e9
"""Seconds that are longer than any deadline, and that a machine word holds as nanoseconds."""


class Policy:
    """How often and how far apart a function is attempted.

    Attributes:
        rounds: The greatest number of rounds, at least 1.
        factor: What the ceiling of the delay grows by from round to round.
        min_delay: The shortest delay in seconds.
        max_delay: The longest delay in seconds.
        jitter: Whether a delay is drawn between `min_delay` and the ceiling, or is the ceiling.
        types: The exceptions worth another attempt; None if `predicate` decides.
        predicate: Called with the exception; says whether it is worth another attempt.
        retry_after: Called with the exception; says how many seconds to wait at least, or None.
    """

    __slots__ = (
        "factor",
        "jitter",
        "max_delay",
        "min_delay",
        "predicate",
        "retry_after",
        "rounds",
        "types",
    )

    def __init__(
        self,
        rounds: int,
        factor: float,
        min_delay: float,
        max_delay: float,
        jitter: bool,
        types: tuple[type[BaseException], ...] | None,
        predicate: Any,
        retry_after: Any = None,
    ) -> None:
        self.rounds: int = rounds
        self.factor: float = factor
        self.min_delay: float = min_delay
        self.max_delay: float = max_delay
        self.jitter: bool = jitter
        self.types: tuple[type[BaseException], ...] | None = types
        self.predicate: Any = predicate
        self.retry_after: Any = retry_after

    def attempts(self, width: int) -> Attempts:
        """Begin the account of a call that has failed once; each round tries `width` values."""
        return Attempts(self, width)

    def matches(self, error: BaseException) -> bool:
        """Tell whether `error` is worth another attempt."""
        if not isinstance(error, Exception) and is_final(error):
            return False
        if self.types is not None:
            return isinstance(error, self.types)
        return bool(self.predicate(error))


class Attempts:
    """The attempts of one call that has failed at least once.

    Attributes:
        policy: The rules.
        width: How many values each round tries.
        round: The current round, counted from 1.
        value: Which value the next attempt takes, counted from 0.
        delay: Nanoseconds to wait before the next attempt.
        ceiling: The greatest delay after the current round, in seconds, before `max_delay`.
        errors: The exceptions so far, in order.
        asked: The longest wait, in seconds, that a failure of the current round asks for.
        heeds: Whether `delay` is what a server has asked for.
        trouble: What was wrong with the answer of the policy's `retry_after` to the last failure;
            None if nothing was, or something was before.
        troubled: Whether something ever was.
    """

    __slots__ = (
        "asked",
        "ceiling",
        "delay",
        "errors",
        "heeds",
        "policy",
        "round",
        "trouble",
        "troubled",
        "value",
        "width",
    )

    def __init__(self, policy: Policy, width: int) -> None:
        self.policy: Policy = policy
        self.width: int = width
        self.round: int = 1
        self.value: int = 0
        self.delay: int = 0
        self.ceiling: float = policy.min_delay
        self.errors: list[BaseException] = []
        self.asked: float = 0.0
        self.heeds: bool = False
        self.trouble: str | None = None
        self.troubled: bool = False

    def failed(self, error: BaseException, now: int, deadline: int) -> int:
        """Take note of a failed attempt and say what to do next.

        Args:
            error: What the attempt raised.
            now: The time in nanoseconds.
            deadline: When the call has to be over, in nanoseconds.

        Returns:
            One of `PROPAGATE`, `AGAIN`, `GIVE_UP`, `LATE`, `REFUSED`.
        """
        policy = self.policy
        self.trouble = None
        if not policy.matches(error):
            return 0
        self.errors.append(error)
        self.delay = 0
        if self.value == 0:
            self.asked = 0.0
            self.heeds = False
        if policy.retry_after is not None and self.round < policy.rounds:
            self.ask(error)
        self.value += 1
        if self.value >= self.width:
            if self.round >= policy.rounds:
                return 2
            self.value = 0
            self.round += 1
            self.delay = self.backoff()
            if self.asked > 0.0:
                if deadline >= NEVER and self.asked > policy.max_delay:
                    return 4
                asked = self.asked_delay()
                if asked >= self.delay:
                    self.delay = asked
                    self.heeds = True
        if now + self.delay >= deadline:
            return 3
        return 1

    def ask(self, error: BaseException) -> None:
        """Ask how long to wait after `error`; the longest wait of a round's failures counts.

        Args:
            error: What the attempt raised.
        """
        try:
            seconds = _seconds(self.policy.retry_after(error))
        except Exception as wrong:  # noqa: BLE001 - a wrong answer must not cost the right error
            if not self.troubled:
                self.troubled = True
                self.trouble = describe(wrong)
            return
        if seconds > self.asked:
            self.asked = seconds

    def asked_delay(self) -> int:
        """Return the wait that was asked for, in whole nanoseconds."""
        asked = self.asked
        if asked > _LONGEST:
            asked = _LONGEST
        delay = int(asked * 1e9)
        return delay if delay >= asked * 1e9 else delay + 1

    def backoff(self) -> int:
        """Return the delay after this round in nanoseconds, and raise the ceiling for the next.

        Exponential backoff; with jitter, uniform between the shortest delay and the ceiling.
        Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
        """
        policy = self.policy
        ceiling = self.ceiling
        if ceiling > policy.max_delay:
            ceiling = policy.max_delay
        else:
            self.ceiling = ceiling * policy.factor
        if policy.jitter and ceiling > policy.min_delay:
            from random import random

            ceiling = policy.min_delay + (ceiling - policy.min_delay) * random()
        return int(ceiling * 1e9)


def _seconds(answer: Any) -> float:
    """Return the seconds that an answer means: 0 for none and for a time that has passed.

    Args:
        answer: What `retry_after` returned.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not a number, as a float.
    """
    if answer is None:
        return 0.0
    if type(answer) is bool or not hasattr(type(answer), "__float__"):
        raise TypeError(f"it returned a {type(answer).__name__}, not seconds or None")
    try:
        seconds = float(answer)
    except OverflowError:  # an int
        seconds = _LONGEST if answer > 0 else 0.0
    if seconds != seconds:
        raise ValueError("it returned nan, not seconds or None")
    return max(0.0, seconds)


def is_final(error: BaseException) -> bool:
    """Tell whether `error` ends a call at once, whatever the options say."""
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        return True
    asyncio = sys.modules.get("asyncio.exceptions")
    return asyncio is not None and isinstance(error, asyncio.CancelledError)
