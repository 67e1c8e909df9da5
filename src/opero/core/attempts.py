"""Retry and fallback as a state machine: what next, after this failure?

It decides and never waits: a shell that can sleep or await carries out what it says.

    failed(error) -> PROPAGATE   the error goes up as it is
                     AGAIN       attempt value number `value`, after `delay` nanoseconds
                     GIVE_UP     every attempt has failed
                     LATE        the wait before the next attempt would end after the deadline
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROPAGATE, AGAIN, GIVE_UP, LATE = range(4)


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
    """

    __slots__ = ("factor", "jitter", "max_delay", "min_delay", "predicate", "rounds", "types")

    def __init__(
        self,
        rounds: int,
        factor: float,
        min_delay: float,
        max_delay: float,
        jitter: bool,
        types: tuple[type[BaseException], ...] | None,
        predicate: Any,
    ) -> None:
        self.rounds = rounds
        self.factor = factor
        self.min_delay = min_delay
        self.max_delay = max_delay
        self.jitter = jitter
        self.types = types
        self.predicate = predicate

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
    """

    __slots__ = ("ceiling", "delay", "errors", "policy", "round", "value", "width")

    def __init__(self, policy: Policy, width: int) -> None:
        self.policy = policy
        self.width = width
        self.round = 1
        self.value = 0
        self.delay = 0
        self.ceiling = policy.min_delay
        self.errors: list[BaseException] = []

    def failed(self, error: BaseException, now: int, deadline: int) -> int:
        """Take note of a failed attempt and say what to do next.

        Args:
            error: What the attempt raised.
            now: The time in nanoseconds.
            deadline: When the call has to be over, in nanoseconds.

        Returns:
            One of `PROPAGATE`, `AGAIN`, `GIVE_UP`, `LATE`.
        """
        policy = self.policy
        if not policy.matches(error):
            return 0
        self.errors.append(error)
        self.delay = 0
        self.value += 1
        if self.value >= self.width:
            if self.round >= policy.rounds:
                return 2
            self.value = 0
            self.round += 1
            self.delay = self.backoff()
        if now + self.delay >= deadline:
            return 3
        return 1

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


def is_final(error: BaseException) -> bool:
    """Tell whether `error` ends a call at once, whatever the options say."""
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        return True
    asyncio = sys.modules.get("asyncio.exceptions")
    return asyncio is not None and isinstance(error, asyncio.CancelledError)
