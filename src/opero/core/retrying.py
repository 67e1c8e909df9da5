"""The attempts of one call, one after the other: what to do next, without doing it.

    next() -> ATTEMPT   call the function with `args` and `kwargs`; then `returned` or `failed`
              SLEEP     sleep for `delay` nanoseconds; then `slept`
              WAIT      wait in `queue()` until `deadline`; then `waited`
              RAISE     raise `error`: the call has failed

A runner does so, by sleeping or by awaiting. If it is interrupted meanwhile, it says `abandoned`.
"""

from __future__ import annotations

from opero.never_failures import is_never_failure

from .gate import WITHDRAWN
from .outcomes import judge, misfits, note_wait, too_late

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .gate import GateQueue

ATTEMPT, SLEEP, WAIT, RAISE = range(4)


class Retrying:
    """One call between its attempts.

    Attributes:
        call: The decorated function.
        args: The positional arguments of the next attempt.
        kwargs: Its keyword arguments.
        deadline: When the call must be over, in nanoseconds.
        flight: Tells the deadline instead, and gets to know the attempts, if callers wait for the
            run elsewhere; None without.
        attempts: The account of the failures; None before the first.
        error: What the latest attempt raised, until that is judged; then what the call raises.
        delay: Nanoseconds to sleep.
        passed: How many gates have let the next attempt in.
        gates: How many there are.
        entered: When the attempt that is under way entered the gates, in nanoseconds.
        under_way: Whether an attempt is.
        over: Whether the call has failed.
        given: The argument that holds fallback values, or the first of them.
        width: How many values each round tries.
        own_args: The caller's positional arguments.
        own_kwargs: The caller's keyword arguments.
    """

    __slots__ = (
        "args",
        "attempts",
        "call",
        "deadline",
        "delay",
        "entered",
        "error",
        "flight",
        "gates",
        "given",
        "kwargs",
        "over",
        "own_args",
        "own_kwargs",
        "passed",
        "under_way",
        "width",
    )

    def __init__(
        self,
        call: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline: int,
        flight: Any,
        error: BaseException | None,
        passed: int,
    ) -> None:
        """Begin with the first attempt, or behind it.

        Args:
            call: The decorated function.
            args: The positional arguments.
            kwargs: The keyword arguments.
            deadline: When the call must be over, in nanoseconds.
            flight: Who tells the deadline instead, or None.
            error: What the first attempt raised, if it has been made.
            passed: How many gates the first attempt has passed, if it has not.
        """
        self.call: Any = call
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs
        self.own_args: tuple[Any, ...] = args
        self.own_kwargs: dict[str, Any] = kwargs
        self.deadline: int = deadline
        self.flight: Any = flight
        self.attempts: Any = None
        self.error: BaseException | None = error
        self.delay: int = 0
        self.passed: int = passed
        self.gates: int = len(call.gates)
        self.entered: int = 0
        self.under_way: bool = False
        self.over: bool = False
        self.given: Any = None
        self.width: int = 1
        fallback = call.fallback
        if fallback is not None:
            given = fallback.given(args, kwargs)
            self.width = fallback.check(given)
            self.given = fallback.snapshot(given)
            if error is None:
                first = fallback.choice(self.given, 0)
                if first is not self.given:
                    self.args, self.kwargs = fallback.place(args, kwargs, first)

    def next(self) -> int:
        """Return what to do next."""
        if self.error is not None:
            if not self.over:
                self.judge()
            if self.over:
                return 3
        if self.delay:
            return 1
        if self.passed < self.gates:
            self.entered = self.call.clock.now()
            self.passed = self.call.enter(self.entered, self.passed)
            if self.passed < self.gates:
                self.look_at_deadline()
                return 2
            if self.call.events.heeded:
                self.call.events.permit(self.call, 0.0)
        self.call.add("attempts", 1)
        self.under_way = True
        return 0

    def judge(self) -> None:
        """Decide what follows on a failure."""
        call = self.call
        error = self.error
        assert error is not None
        if self.attempts is None:
            if call.single:  # then there is nothing to decide
                if not is_never_failure(error):
                    call.add("failures", 1)
                self.over = True
                return
            if misfits(call, error, self.own_args, self.own_kwargs):
                self.over = True
                return
            self.attempts = call.policy.attempts(self.width)
            if self.flight is not None:
                self.flight.attempts = self.attempts
        self.look_at_deadline()
        self.error = judge(call, self.attempts, error, self.deadline)
        if self.error is not None:
            self.over = True
            return
        self.delay = self.attempts.delay
        self.passed = 0
        if call.fallback is not None:
            value = call.fallback.choice(self.given, self.attempts.value)
            self.args, self.kwargs = call.fallback.place(self.own_args, self.own_kwargs, value)

    def look_at_deadline(self) -> None:
        """Take over the latest deadline of those who wait elsewhere."""
        if self.flight is not None:
            self.deadline = self.flight.deadline

    def returned(self, value: Any) -> bool:
        """Take note of what the attempt has returned; return whether that is the call's result."""
        call = self.call
        self.under_way = False
        if call.policy.rejects is not None:
            try:
                self.error = call.policy.rejection(value)
            except BaseException:
                if call.observed:
                    call.leave(None, self.entered)  # the predicate has failed, not the attempt
                raise
        if call.observed:
            call.leave(self.error, self.entered)
        return self.error is None

    def failed(self, error: BaseException) -> None:
        """Take note of what the attempt has raised."""
        self.under_way = False
        self.error = error
        if self.call.observed:
            self.call.leave(error, self.entered)

    def slept(self, nanoseconds: int) -> None:
        """Take note of how long the runner has slept."""
        self.delay = 0
        self.call.add("backoff_wait", nanoseconds)  # read only now: others wait at the same time

    def queue(self) -> GateQueue:
        """Return where to wait for the next gate."""
        queue: GateQueue = self.call.queues[self.passed]
        return queue

    def waited(self, nanoseconds: int) -> None:
        """Take note of how long the runner has waited at a gate; below 0 if in vain."""
        if nanoseconds < 0:
            self.abandoned(None)
            what = f"{self.queue().awaited} would not come in time"
            self.error = too_late(self.call, self.attempts, what)
            self.over = True
        else:
            note_wait(self.call, nanoseconds)
            self.passed += 1
            self.entered = self.call.clock.now()

    def abandoned(self, error: BaseException | None) -> None:
        """Let the gates know that the call ends here, because of `error` if that is not None."""
        if self.call.observed:
            if self.under_way:
                self.call.leave(error, self.entered)
            elif self.passed:
                self.call.leave(WITHDRAWN, self.call.clock.now(), self.passed)
