"""The attempts of one call, one after the other: it decides what to do next, and does not do it.

    next() -> ATTEMPT   call the function with `args` and `kwargs`; then `returned` or `failed`
              SLEEP     sleep for `delay` nanoseconds; then `slept`
              WAIT      wait in `queue()` until `deadline`; then `waited`
              RAISE     raise `error`: the call has failed

A runner does it, by sleeping or by awaiting. If it is interrupted meanwhile, it calls `abandoned`.
"""

from __future__ import annotations

from contextlib import suppress

from opero.never_failures import is_never_failure

from .attempts import AGAIN, OPEN
from .clock import NEVER
from .gate import NEUTRAL, PROBES, SUCCEEDED, WITHDRAWN, enter_all, leave_all, probed
from .outcomes import (
    conclude,
    judge,
    misfits,
    no_entry,
    note_wait,
    outcome_of,
    pause_after,
    pause_queues,
    too_late,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .gate import Gate, GateQueue

ATTEMPT, SLEEP, WAIT, RAISE = range(4)


class Retrying:
    """One call between its attempts.

    Attributes:
        call: The decorated function.
        args: The positional arguments of the next attempt.
        kwargs: Its keyword arguments.
        deadline: When the call must be over, in nanoseconds.
        flight: If callers wait for the run elsewhere: gives the deadline and receives the attempts;
            else None.
        attempts: The state of the attempts; None before the first failure.
        error: What the latest attempt raised, until that is judged; then what the call raises.
        delay: Nanoseconds to sleep.
        passed: How many gates have admitted the next attempt.
        gates: The gates of the next attempt.
        queues: Their queues.
        tickets: The tickets of the gates passed; None if no gate wants to know how it ends.
        entered: When the attempt entered the gates, in nanoseconds.
        spare: Whether an outdated value can be served if the call fails.
        probing: The token that ends the probe's context; None if the attempt is not a probe.
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
        "probing",
        "queues",
        "spare",
        "tickets",
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
        entered: int,
        tickets: list[int] | None,
        spare: bool,
    ) -> None:
        """Begin with the first attempt, or after it.

        Args:
            call: The decorated function.
            args: The positional arguments.
            kwargs: The keyword arguments.
            deadline: When the call must be over, in nanoseconds.
            flight: Gives the deadline instead, or None.
            error: What the first attempt raised, if it has been made.
            passed: How many gates the first attempt has passed, if it has not been made.
            entered: When it asked them, in nanoseconds.
            tickets: Their tickets; None if no gate wants to know how it ends.
            spare: Whether an outdated value can be served if the call fails.
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
        self.gates: tuple[Gate, ...] = self.call.gates
        self.queues: tuple[GateQueue, ...] = self.call.queues
        self.entered: int = entered
        self.tickets: list[int] | None = tickets
        self.spare: bool = spare
        self.probing: Any = None
        self.over: bool = False
        self.given: Any = None
        self.width: int = 1
        fallback = self.call.fallback
        if fallback is not None:
            given = fallback.given(args, kwargs)
            self.width = fallback.check(given)
            self.given = fallback.snapshot(given)
            if error is None:
                first = fallback.choice(self.given, 0)
                if first is not self.given:
                    self.args, self.kwargs = fallback.place(args, kwargs, first)
        if error is None:
            self.begin(0, passed)

    def begin(self, value: int, passed: int = 0) -> None:
        """Turn to the gates of the next attempt.

        Args:
            value: The number of the fallback value that it takes.
            passed: How many gates have already admitted it.
        """
        call = self.call
        self.passed = passed
        if passed == 0:
            self.tickets = [] if call.observed else None
        if call.by_value:
            found = call.fallback.plain(self.given, value)
            self.queues = tuple(
                [queue.of(found, value) if queue.by_value else queue for queue in call.queues]
            )
            self.gates = tuple([queue.gate for queue in self.queues])

    def next(self) -> int:
        """Return what to do next."""
        if self.error is not None:
            if not self.over:
                self.judge()
            if self.over:
                return 3
        if self.delay:
            return 1
        while self.passed < len(self.gates):
            self.entered = self.call.clock.now()
            self.passed = enter_all(self.gates, self.entered, self.passed, self.tickets)
            if self.passed < len(self.gates):
                self.look_at_deadline()
                gate = self.gates[self.passed]
                if not gate.refuses or gate.consults(self.entered):
                    return 2
                todo = self.refused()
                if todo >= 0:
                    return todo
            elif self.call.permits and self.call.events.heeded:
                self.call.events.permit(self.call, 0.0)
        call = self.call
        call.add("attempts", 1)
        if call.refusing and self.tickets is not None:
            gates = probed(self.gates, self.tickets)
            if gates:
                self.probing = PROBES.set((*PROBES.get(), *gates))
        return 0

    def refused(self) -> int:
        """Decide what follows if a gate refuses the attempt.

        Returns:
            What `next` returns; or -1 to enter the gates of the next attempt.
        """
        call = self.call
        if self.passed:
            self.leave(WITHDRAWN)
        call.add("refused", 1)
        if self.attempts is None:
            self.attempts = call.policy.attempts(self.width)
            if self.flight is not None:
                self.flight.attempts = self.attempts
        gate = self.gates[self.passed]
        until = self.entered + gate.opens_in(self.entered)
        before = self.attempts.round
        verdict = self.attempts.refused(until, self.entered, self.deadline)
        if verdict == OPEN:
            return self.wait_for_probe()
        if verdict != AGAIN or self.attempts.round != before:
            self.error = conclude(call, self.attempts, self.attempts.errors[-1], verdict)
            if self.error is not None:
                self.over = True
                return 3
        self.take_value()
        return 1 if self.delay else -1

    def wait_for_probe(self) -> int:
        """Wait for the first gate that might admit the call, if there is time; else give up."""
        call = self.call
        self.take_value()
        now = call.clock.now()
        if self.spare or self.deadline >= NEVER or self.attempts.opens >= self.deadline:
            return self.refuse(now)
        if self.attempts.opens <= now:
            return -1
        return 2

    def refuse(self, now: int) -> int:
        """Let the call fail because its gates refuse it."""
        queue: Any = self.queues[self.passed]
        gate = self.gates[self.passed]
        wait = gate.opens_in(now)
        self.error = no_entry(self.call, self.attempts, queue.awaited, wait)
        self.over = True
        return 3

    def take_value(self) -> None:
        """Switch to the value and the delay that the attempts' state names."""
        call = self.call
        self.delay = self.attempts.delay
        if call.fallback is not None:
            value = call.fallback.choice(self.given, self.attempts.value)
            self.args, self.kwargs = call.fallback.place(self.own_args, self.own_kwargs, value)
        self.begin(self.attempts.value)

    def judge(self) -> None:
        """Decide what follows a failure."""
        call = self.call
        error = self.error
        assert error is not None
        if self.attempts is None:
            if call.single:  # nothing to decide
                if not is_never_failure(error):
                    call.add("failures", 1)
                self.over = True
                return
            if misfits(call, error, self.own_args, self.own_kwargs):
                self.leave(NEUTRAL)
                self.over = True
                return
            self.attempts = call.policy.attempts(self.width)
            if self.flight is not None:
                self.flight.attempts = self.attempts
        self.look_at_deadline()
        try:
            verdict = judge(call, self.attempts, error, self.deadline)
            outcome = outcome_of(self.attempts, error) if self.tickets else NEUTRAL
        except BaseException:
            self.leave(NEUTRAL)  # a predicate has raised, so the attempt was not judged
            raise
        self.leave(outcome)
        pause_queues(call, pause_after(call, self.attempts))
        if verdict == OPEN:
            self.error = None
            if self.wait_for_probe() == 3:
                return
            verdict = AGAIN
        self.error = conclude(call, self.attempts, error, verdict)
        if self.error is not None:
            self.over = True
            return
        self.take_value()

    def look_at_deadline(self) -> None:
        """Adopt the latest deadline of the callers that wait elsewhere."""
        if self.flight is not None:
            self.deadline = self.flight.deadline

    def returned(self, value: Any) -> bool:
        """Note what the attempt has returned; return whether that is the call's result."""
        policy = self.call.policy
        if policy.rejects is not None:
            try:
                self.error = policy.rejection(value)
            except BaseException:
                self.leave(NEUTRAL)
                raise
        if self.error is None:
            self.leave(SUCCEEDED)
            return True
        return False

    def failed(self, error: BaseException) -> None:
        """Note what the attempt has raised; the gates learn of it when it is judged."""
        self.error = error

    def leave(self, outcome: int) -> None:
        """Report to the gates that have admitted the attempt how it has ended, once."""
        tickets = self.tickets
        if self.probing is not None:
            probing, self.probing = self.probing, None
            with suppress(ValueError):  # another context may close a coroutine
                PROBES.reset(probing)
        if tickets:
            self.tickets = None
            leave_all(self.gates, self.call.clock.now(), outcome, self.entered, tickets)

    def slept(self, nanoseconds: int) -> None:
        """Note how long the runner has slept."""
        self.delay = 0
        self.call.add("backoff_wait", nanoseconds)

    def queue(self) -> GateQueue:
        """Return the queue of the next gate."""
        queue: GateQueue = self.queues[self.passed]
        return queue

    def waited(self, nanoseconds: int) -> None:
        """Note how long the runner has waited at a gate; negative if in vain."""
        refuses = self.gates[self.passed].refuses
        if nanoseconds >= 0 and refuses:
            self.call.add("breaker_wait", nanoseconds)  # the attempt now asks it again
        elif nanoseconds < 0 and refuses and self.call.clock.now() < self.deadline:
            self.refuse(self.call.clock.now())
        elif nanoseconds < 0:
            self.leave(WITHDRAWN)
            what = f"{self.queue().awaited} would come too late"
            self.error = too_late(self.call, self.attempts, what)
            self.over = True
        else:
            note_wait(self.call, nanoseconds)
            self.passed += 1
            self.entered = self.call.clock.now()
            if self.tickets is not None:
                self.tickets.append(0)
            if nanoseconds and self.call.refusing:
                self.look_back()

    def look_back(self) -> None:
        """Ask earlier gates again: they may refuse the attempt after its wait at a later one.

        If one does, the permit that the attempt has waited for is lost.
        """
        now = self.entered
        tickets = self.tickets
        assert tickets is not None  # a gate that refuses observes too
        for at in range(self.passed):
            gate = self.gates[at]
            if not gate.refuses or gate.holds(now, tickets[at]):
                continue
            gate.leave(now, WITHDRAWN, now, tickets[at])  # give an expired lease back
            answer = gate.enter(now)
            if answer > 0:
                self.leave(WITHDRAWN)
                self.begin(0 if self.attempts is None else self.attempts.value)
                return
            tickets[at] = -answer

    def abandoned(self) -> None:
        """Report to the gates that the call ends here: interrupted, cancelled or closed."""
        self.leave(NEUTRAL if self.passed == len(self.gates) else WITHDRAWN)

    def withdrawn(self) -> None:
        """Report to the gates that the attempt they have admitted is not made."""
        self.leave(WITHDRAWN)

    def fail(self, error: BaseException) -> None:
        """Let the call fail with an error that the policy does not judge."""
        self.leave(NEUTRAL)
        self.error = error
        self.over = True
