"""Retry and fallback as a state machine: what next, after this failure?

It decides and never waits: a runner that can sleep or await carries out its decisions.

    failed(error) -> PROPAGATE   raise the error as it is
                     AGAIN       attempt value number `value`, after `delay` nanoseconds
                     GIVE_UP     every attempt has failed
                     LATE        the wait before the next attempt would end after the deadline
                     REFUSED     the server asks for a longer wait than the longest delay
                     NO_FAILURE  raise the error as it is; it does not count as a failure
                     OPEN        the breakers of all values left are open until `opens`
    refused(...) -> AGAIN, LATE or OPEN, after a breaker has refused the attempt

With fallback values, each attempt takes one of them. `fallback_on` decides whether the next value
of the round is tried, without a delay; `retry_on` decides whether the value is tried again in a
later round. A round is over when each remaining value has failed. If no value is left, the call
gives up too. A value whose breaker refuses it is skipped in this round; that costs no attempt and,
if all values are refused, no round.
"""

from __future__ import annotations

from opero.exceptions import (
    AttemptTimeout,
    ResultRejected,
    WorkerCrashedError,
    describe,
    gave_up_by,
)
from opero.never_failures import ORDINARY, is_named, is_never_failure

from .clock import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROPAGATE, AGAIN, GIVE_UP, LATE, REFUSED, NO_FAILURE, OPEN = range(7)

_LONGEST = 4e9
"""Seconds: longer than any deadline, and as nanoseconds they fit a machine word."""


class Policy:
    """How often and how far apart a function is attempted.

    Attributes:
        rounds: The most rounds, at least 1.
        factor: The factor by which the delay's ceiling grows with each round.
        min_delay: The shortest delay in seconds.
        max_delay: The longest delay in seconds.
        jitter: Whether a delay is random, between `min_delay` and the ceiling, or is the ceiling.
        types: The exceptions worth another attempt; None if `predicate` decides.
        predicate: Takes the exception; returns whether it is worth another attempt.
        retry_after: Takes the exception; returns the least number of seconds to wait, or None.
        fallback_types: The exceptions after which the next fallback value is tried; None if
            `fallback_predicate` decides.
        fallback_predicate: Takes the exception; returns whether to try the next value. If both this
            and `fallback_types` are None, there are no fallback values.
        rejects: Takes what an attempt has returned; returns whether it has failed. None for never.
        reraise: Whether giving up raises the last exception itself.
        pauses: Whether the answer of `retry_after` pauses the function's rate limit too.
    """

    __slots__ = (
        "factor",
        "fallback_predicate",
        "fallback_types",
        "jitter",
        "max_delay",
        "min_delay",
        "pauses",
        "predicate",
        "rejects",
        "reraise",
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
        fallback_types: tuple[type[BaseException], ...] | None = None,
        fallback_predicate: Any = None,
        rejects: Any = None,
        reraise: bool = False,
        pauses: bool = False,
    ) -> None:
        self.rounds: int = rounds
        self.factor: float = factor
        self.min_delay: float = min_delay
        self.max_delay: float = max_delay
        self.jitter: bool = jitter
        self.types: tuple[type[BaseException], ...] | None = types
        self.predicate: Any = predicate
        self.retry_after: Any = retry_after
        self.fallback_types: tuple[type[BaseException], ...] | None = fallback_types
        self.fallback_predicate: Any = fallback_predicate
        self.rejects: Any = rejects
        self.reraise: bool = reraise
        self.pauses: bool = pauses

    def attempts(self, width: int) -> Attempts:
        """Make the state of a call that has failed once; each round tries `width` values."""
        return Attempts(self, width)

    def matches(self, error: BaseException) -> bool:
        """Return whether `error` is worth another attempt."""
        if type(error) in ORDINARY:
            return _matches(error, self.types, self.predicate, False)
        if gave_up_by(error, self):
            return False
        if isinstance(error, ResultRejected) and error._origin is self:
            return True
        return _matches(error, self.types, self.predicate, is_never_failure(error))

    def falls_back(self, error: BaseException) -> bool:
        """Return whether the next fallback value is tried after `error`."""
        if self.fallback_types is None and self.fallback_predicate is None:
            return False
        if type(error) in ORDINARY:
            return _matches(error, self.fallback_types, self.fallback_predicate, False)
        if gave_up_by(error, self):
            return False
        return _matches(
            error, self.fallback_types, self.fallback_predicate, is_never_failure(error)
        )

    def rejection(self, value: Any) -> ResultRejected | None:
        """Return the exception for a returned value that counts as a failure.

        Returns:
            None if the value is the call's result. An exception of the user's predicate is raised.
        """
        if self.rejects is None or not self.rejects(value):
            return None
        return ResultRejected(value, self)


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
        dropped: The values that are not tried again; None if there are none.
        refusals: For each value skipped in this round, when its breaker might admit an attempt, in
            nanoseconds; None if there are none.
        opens: After `OPEN`: the earliest of these times, that of `value`.
        probing: Whether only refused values are left in this round.
        counts: Whether breakers and limits count the last failure.
        begins: Whether no attempt of the current round has failed yet.
        asked: The longest wait, in seconds, that a failure of the current round asks for.
        told: The wait, in seconds, that the last failure asks for; 0 for none.
        heeds: Whether the server has asked for `delay`.
        trouble: What was wrong with `retry_after`'s answer to the last failure; None for nothing,
            or if an earlier answer was wrong.
        troubled: Whether an answer was ever wrong.
        index: The item's position in the input of a map; None for a call that is not an item.
    """

    __slots__ = (
        "asked",
        "begins",
        "ceiling",
        "counts",
        "delay",
        "dropped",
        "errors",
        "heeds",
        "index",
        "opens",
        "policy",
        "probing",
        "refusals",
        "round",
        "told",
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
        self.dropped: set[int] | None = None
        self.refusals: dict[int, int] | None = None
        self.opens: int = 0
        self.probing: bool = False
        self.counts: bool = False
        self.begins: bool = True
        self.asked: float = 0.0
        self.told: float = 0.0
        self.heeds: bool = False
        self.trouble: str | None = None
        self.troubled: bool = False
        self.index: int | None = None

    def failed(self, error: BaseException, now: int, deadline: int) -> int:
        """Note a failed attempt and decide what to do next.

        Args:
            error: What the attempt raised.
            now: The time in nanoseconds.
            deadline: When the call must be over, in nanoseconds.

        Returns:
            One of `PROPAGATE`, `AGAIN`, `GIVE_UP`, `LATE`, `REFUSED`, `NO_FAILURE`, `OPEN`.
        """
        policy = self.policy
        self.trouble = None
        self.told = 0.0
        self.counts = False
        again = policy.matches(error)
        self.counts = again or isinstance(error, (AttemptTimeout, WorkerCrashedError))
        falls = policy.falls_back(error)
        if not again and not falls:
            return 5 if is_never_failure(error) else 0
        self.errors.append(error)
        self.delay = 0
        if self.begins:
            self.begins = False
            self.asked = 0.0
            self.heeds = False
        if again:
            if policy.retry_after is not None and (self.round < policy.rounds or policy.pauses):
                self.ask(error)
        else:
            self.drop()
        if self.refusals is not None:
            self.refusals.pop(self.value, None)
        self.value = self.left(self.value + 1) if falls and not self.probing else self.width
        if self.value >= self.width:
            if self.round < policy.rounds:
                return self.next_round(now, deadline)
            if falls and self.refusals:
                return self.wait_for_probe()
            return 2
        if now >= deadline:
            return 3
        return 1

    def refused(self, until: int, now: int, deadline: int) -> int:
        """Note that a breaker refuses the current value, and decide what to do next.

        Args:
            until: When it might admit an attempt, in nanoseconds.
            now: The time in nanoseconds.
            deadline: When the call must be over, in nanoseconds.

        Returns:
            `AGAIN`, `GIVE_UP`, `LATE` or `REFUSED` as for a failure; `OPEN` if only refused values
            are left. The first that might be admitted is `value`, at `opens`.
        """
        self.delay = 0
        if self.refusals is None:
            self.refusals = {}
        self.refusals[self.value] = until
        value = self.width if self.probing else self.left(self.value + 1)
        if value < self.width:
            self.value = value
            return 1
        if not self.begins and self.round < self.policy.rounds:
            return self.next_round(now, deadline)
        return self.wait_for_probe()

    def next_round(self, now: int, deadline: int) -> int:
        """Begin another round, if there is a value left, and time."""
        policy = self.policy
        if self.refusals is not None:
            self.refusals.clear()
        self.probing = False
        self.value = self.left(0)
        if self.value >= self.width:
            return 2
        self.round += 1
        self.begins = True
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

    def wait_for_probe(self) -> int:
        """Choose the refused value that might be admitted first."""
        refusals = self.refusals
        assert refusals is not None
        self.probing = True
        self.value = min(refusals, key=refusals.__getitem__)
        self.opens = refusals[self.value]
        return 6

    def reconsider(self) -> None:
        """Note that the breakers of the refused values may admit them now."""
        refusals = self.refusals
        if refusals:
            for value in list(refusals):
                refusals[value] = 0
            self.wait_for_probe()

    def drop(self) -> None:
        """Skip the current value in later rounds."""
        if self.dropped is None:
            self.dropped = set()
        self.dropped.add(self.value)

    def left(self, value: int) -> int:
        """Return the first value, from `value` on, neither dropped nor refused; else `width`."""
        if self.dropped is not None or self.refusals:
            while value < self.width and (
                (self.dropped is not None and value in self.dropped)
                or (self.refusals is not None and value in self.refusals)
            ):
                value += 1
        return value

    def ask(self, error: BaseException) -> None:
        """Ask `retry_after` how long to wait after `error`; keep the longest wait of the round.

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
        self.told = seconds
        if seconds > self.asked:
            self.asked = seconds

    def asked_delay(self) -> int:
        """Return the wait that the server asked for, in whole nanoseconds."""
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
    """Return an answer in seconds: 0 for None and for a time that has passed.

    Args:
        answer: What `retry_after` returned.

    Raises:
        TypeError: If the answer is not a number.
        ValueError: If it is nan.
    """
    if answer is None:
        return 0.0
    if hasattr(type(answer), "total_seconds"):  # a timedelta
        answer = answer.total_seconds()
    if type(answer) is bool or not hasattr(type(answer), "__float__"):
        raise TypeError(f"it returned a {type(answer).__name__}, not seconds or None")
    try:
        seconds = float(answer)
    except OverflowError:  # an int
        seconds = _LONGEST if answer > 0 else 0.0
    if seconds != seconds:
        raise ValueError("it returned nan, not seconds or None")
    return max(0.0, seconds)


def _matches(
    error: BaseException, types: tuple[type[BaseException], ...] | None, predicate: Any, never: bool
) -> bool:
    """Return whether `error` is one of `types`, or the predicate accepts it.

    A group matches by its own type, or if each exception in it matches. A predicate gets the whole
    group.

    Args:
        error: What an attempt raised.
        types: The types; None if the predicate decides.
        predicate: Called with the exception.
        never: Whether it is never a failure by default; then only its exact type counts.
    """
    if types is None:
        return not never and _says(predicate, error)
    if never:
        return is_named(error, types)
    if isinstance(error, types):
        return True
    if not isinstance(error, BaseExceptionGroup):
        return False
    for each in error.exceptions:  # noqa: SIM110 - a generator would be slower, and no C
        if not _matches(each, types, None, False):
            return False
    return True


def _says(predicate: Any, error: BaseException) -> bool:
    """Return the predicate's answer for `error`; if it raises, `error` becomes the context."""
    try:
        return bool(predicate(error))
    except BaseException as wrong:
        cause: BaseException | None = error
        while cause is not None and cause is not wrong:
            cause = cause.__context__
        if cause is None and wrong.__context__ is None:
            wrong.__context__ = error
        raise
