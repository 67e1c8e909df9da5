"""A further gate: one module and one row make calls, retries and maps obey it, on both halves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from opero import AllFailedError, BreakerOpenError, DeadlineExceeded, RateLimiter, opero, opmap
from opero.core import clock as clocks
from opero.core.gate import FAILED, NEUTRAL, REJECTED, SUCCEEDED, WITHDRAWN
from opero.limits import gates
from opero.limits.waiting import PollingQueue
from opero.testing import manual_clock, skip_waits

WAIT = 5 * 10**6
"""How long the gate of these tests lets each attempt wait, in nanoseconds."""


class Flop(Exception):
    """An error that is worth a retry."""


def slow_gate(core: Any, observes: bool) -> Any:
    """Make a gate that lets every attempt wait, and notes its calls."""

    class SlowGate(core.Gate):
        def __init__(self) -> None:
            super().__init__(observes)
            self.opens: int | None = None
            self.asked = False
            self.entered: list[int] = []
            self.left: list[tuple[int, int]] = []

        def enter(self, now: int) -> int:
            if self.opens is None and not self.asked:
                self.asked = True  # a call looks before it waits, and its wait begins after that
                return WAIT
            if self.opens is None:
                self.opens = now + WAIT
            if now < self.opens:
                return self.opens - now
            self.opens = None
            self.asked = False
            self.entered.append(now)
            return 0

        def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:
            assert now >= entered
            assert ticket == 0
            self.left.append((outcome, entered))

    return SlowGate()


@pytest.fixture(params=[False, True], ids=["silent", "observing"])
def gate(core, monkeypatch, request):
    """Give every decorated function of a test such a gate, after its rate limit."""
    made = slow_gate(core, request.param)
    queue = PollingQueue(made, "its turn", core.clock)
    monkeypatch.setattr(gates, "ROWS", [*gates.ROWS, lambda *_: queue])
    return made


def failing(times: int, asynchronous: bool) -> Any:
    """Make a function that fails a given number of times."""
    left = [times]

    def body(value: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise Flop
        return value

    async def abody(value: Any) -> Any:
        return body(value)

    return abody if asynchronous else body


def outcome(function: Any, *args: Any) -> Any:
    """Call a function of either kind."""
    result = function(*args)
    return asyncio.run(result) if asyncio.iscoroutine(result) else result


kinds = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@kinds
@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("failures", [0, 1, 2])
def test_every_attempt_passes_the_gate(gate, asynchronous, cache, failures):
    """Each attempt waits and enters; the gate hears the outcome if it asks for that."""
    function = opero(retries=3, min_delay=0, max_delay=0, cache=cache)(
        failing(failures, asynchronous)
    )
    assert outcome(function, "value") == "value"
    assert len(gate.entered) == failures + 1 == function.stats().attempts
    assert function.stats().permit_wait > 0  # less than the gate says, where the machine was slow
    if gate.observes:
        assert [kind for kind, _ in gate.left] == [FAILED] * failures + [SUCCEEDED]
        assert all(told >= at for (_, told), at in zip(gate.left, gate.entered, strict=True))
    else:
        assert gate.left == []


@kinds
def test_fallback_values_pass_it_too(gate, asynchronous):
    """Each value is an attempt."""
    function = opero(retries=1, arg_fallback={"value": ["b", "c"]})(failing(2, asynchronous))
    assert outcome(function, "a") == "c"
    assert len(gate.entered) == 3


@kinds
def test_it_stands_behind_a_rate_limit(gate, asynchronous):
    """A call that waits at the gate has paid its permit, and does not pay another."""
    limiter = RateLimiter(0.01, burst=2)
    function = opero(retries=1, rate_limit=limiter)(failing(0, asynchronous))
    assert [outcome(function, value) for value in "ab"] == ["a", "b"]
    assert not limiter.try_acquire()
    assert len(gate.entered) == 2


@kinds
def test_a_wait_that_cannot_end_in_time_is_not_begun(gate, asynchronous):
    """An attempt that has entered other gates is withdrawn there."""
    gate.opens = clocks.NEVER - 1
    function = opero(retries=1, timeout=60)(failing(0, asynchronous))
    with pytest.raises(DeadlineExceeded, match="its turn would come too late"):
        outcome(function, "value")
    assert gate.entered == []
    assert gate.left == []


@kinds
def test_an_attempt_that_ends_at_a_later_gate_is_withdrawn(core, monkeypatch, asynchronous):
    """The gates before it hear, once, that the attempt was not made."""
    before, behind = slow_gate(core, True), slow_gate(core, True)
    queues = [PollingQueue(gate, "it", core.clock) for gate in (before, behind)]
    monkeypatch.setattr(gates, "ROWS", [lambda *_, queue=queue: queue for queue in queues])
    before.opens = 0  # it lets the first one in
    behind.opens = clocks.NEVER - 1
    function = opero(retries=1, timeout=60)(failing(0, asynchronous))
    with pytest.raises(DeadlineExceeded):
        outcome(function, "value")
    assert [kind for kind, _ in before.left] == [WITHDRAWN]
    assert behind.left == []


@kinds
@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("observes", [False, True])
def test_a_gate_that_has_let_an_attempt_in_is_not_asked_again_after_a_later_one(
    core, monkeypatch, asynchronous, timeout, observes
):
    """The attempt waits at the later gate, and enters each once."""
    before, behind = slow_gate(core, observes), slow_gate(core, observes)
    queues = [PollingQueue(gate, "it", core.clock) for gate in (before, behind)]
    monkeypatch.setattr(gates, "ROWS", [lambda *_, queue=queue: queue for queue in queues])
    before.opens = 0  # it lets the first one in
    function = opero(retries=1, timeout=timeout)(failing(0, asynchronous))
    assert outcome(function, "value") == "value"
    assert (len(before.entered), len(behind.entered)) == (1, 1)
    assert function.stats().attempts == 1
    assert [kind for kind, _ in before.left] == ([SUCCEEDED] if observes else [])


@kinds
@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("observes", [False, True])
def test_what_a_gate_raises_goes_up_and_is_no_failed_attempt(
    core, monkeypatch, asynchronous, timeout, observes
):
    """The function is not called."""

    class Broken(core.Gate):
        def enter(self, now: int) -> int:
            raise ZeroDivisionError

    queue = PollingQueue(Broken(observes), "it", core.clock)
    monkeypatch.setattr(gates, "ROWS", [lambda *_: queue])
    function = opero(retries=3, timeout=timeout)(failing(0, asynchronous))
    with pytest.raises(ZeroDivisionError):
        outcome(function, "value")
    assert (function.stats().attempts, function.stats().retries) == (0, 0)


@kinds
@pytest.mark.parametrize("retries", [1, 2])
def test_a_failed_call_is_reported_attempt_by_attempt(gate, asynchronous, retries):
    """With one attempt the function's own error is raised, as without a gate."""
    function = opero(retries=retries, min_delay=0, max_delay=0)(failing(9, asynchronous))
    gate.opens = 0  # it lets the first one in
    with pytest.raises(Flop if retries == 1 else AllFailedError):
        outcome(function, "value")
    assert len(gate.left) == (retries if gate.observes else 0)
    assert function.stats().failures == 1


def body_of_map(value: int) -> int:
    """Return the argument."""
    return value


async def abody_of_map(value: int) -> int:
    """Return the argument."""
    return value


@pytest.mark.parametrize("mode", ["thread", "process", "async", "async_process"])
@pytest.mark.parametrize("scope", ["worker", "total"])
def test_items_of_a_map_pass_it(gate, mode, scope):
    """In every mode the parent asks the gate for each item, and reports to it."""
    function = abody_of_map if "async" in mode else body_of_map
    limits = {"rate_limit": 1e6, "rate_limit_scope": scope}
    mapped = opmap(mode=mode, workers=2, **limits, progress=False)(function)
    assert mapped(range(6)) == list(range(6))
    assert len(gate.entered) == 6
    assert [kind for kind, _ in gate.left] == ([SUCCEEDED] * 6 if gate.observes else [])


def test_failed_items_of_a_map_are_reported(gate):
    """The gate hears what each attempt raised."""
    mapped = opmap(mode="thread", workers=1, retries=2, min_delay=0, max_delay=0, progress=False)(
        failing(1, False)
    )
    assert mapped(["a", "b"]) == ["a", "b"]
    if gate.observes:
        assert sorted(kind for kind, _ in gate.left) == [SUCCEEDED, SUCCEEDED, FAILED]


def test_waits_go_by_a_clock_that_tests_move(gate):
    """`opero.testing` skips a gate's wait like others."""
    function = opero(retries=1)(failing(0, False))
    with skip_waits() as clock:
        assert function("value") == "value"
    assert clock.waited >= 0.005


class Doorman:
    """A record of what the gates of the next tests are asked and told."""

    def __init__(self) -> None:
        self.opens = 0
        self.tickets = 0
        self.shuts_after = -1
        self.left: list[tuple[int, int]] = []


def doorman(core: Any, monkeypatch: Any) -> Doorman:
    """Give every decorated function a gate that refuses, and hands out tickets."""
    book = Doorman()

    class Refusing(core.Gate):
        def __init__(self) -> None:
            super().__init__(True, True)

        def enter(self, now: int) -> int:
            if now < book.opens:
                return book.opens - now
            book.tickets += 1
            return -book.tickets

        def opens_in(self, now: int) -> int:
            return max(0, book.opens - now)

        def leave(self, now: int, outcome: int, entered: int, ticket: int) -> None:
            book.left.append((outcome, ticket))
            if len(book.left) == book.shuts_after:
                book.opens = now + 10**9

    queue = PollingQueue(Refusing(), "the door", core.clock)
    monkeypatch.setattr(gates, "ROWS", [lambda *_: queue, *gates.ROWS])
    return book


class Busy(Exception):
    """An error of a server that gets too many requests."""

    status = 429


class Later(Exception):
    """An error that says when to try again."""

    retry_after = 0.001


@kinds
@pytest.mark.parametrize("retries", [1, 2])
@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Flop(), FAILED),
        (Busy(), REJECTED),
        (Later(), FAILED),
        (KeyError(), NEUTRAL),
        (KeyboardInterrupt(), NEUTRAL),
        (asyncio.CancelledError(), NEUTRAL),
        (GeneratorExit(), NEUTRAL),
        (RecursionError(), NEUTRAL),
        (ExceptionGroup("", [Flop(), Busy()]), REJECTED),
        (ExceptionGroup("", [Flop(), KeyError()]), NEUTRAL),
    ],
)
def test_a_gate_learns_once_how_an_attempt_has_ended(
    core, monkeypatch, asynchronous, retries, limited, error, expected
):
    """The policy asks its predicate once for each failure."""
    book = doorman(core, monkeypatch)
    asked = []

    def predicate(raised: BaseException) -> bool:
        asked.append(raised)
        parts = raised.exceptions if isinstance(raised, ExceptionGroup) else [raised]
        return all(isinstance(each, (Flop, Busy, Later)) for each in parts)

    def body() -> None:
        raise error

    async def abody() -> None:
        raise error

    limits = {"rate_limit": 1e6, "burst": 9} if limited else {}
    function = opero(retries=retries, min_delay=0, max_delay=0, retry_on=predicate, **limits)(
        abody if asynchronous else body
    )
    with pytest.raises(BaseException):  # noqa: B017, PT011 - any of these
        function().send(None) if asynchronous else function()
    attempts = function.stats().attempts
    assert book.left == [(expected, at + 1) for at in range(attempts)]
    never = isinstance(error, RecursionError) or not isinstance(error, Exception)
    assert len(asked) == (0 if never else attempts)


@kinds
def test_a_wait_that_the_server_asks_for_is_a_rejection(core, monkeypatch, asynchronous):
    """The kind of error does not matter."""
    book = doorman(core, monkeypatch)
    left = [1]

    def body() -> str:
        if left[0]:
            left[0] -= 1
            raise Later
        return "done"

    async def abody() -> str:
        return body()

    function = opero(retries=2, min_delay=0, retry_after=lambda error: error.retry_after)(
        abody if asynchronous else body
    )
    with skip_waits():
        assert outcome(function) == "done"
    assert book.left == [(REJECTED, 1), (SUCCEEDED, 2)]


@kinds
@pytest.mark.parametrize("option", ["retry_on", "retry_on_result"])
def test_an_attempt_whose_predicate_raises_counts_as_nothing(
    core, monkeypatch, asynchronous, option
):
    """It is unknown whether the attempt failed."""
    book = doorman(core, monkeypatch)

    def broken(_: Any) -> bool:
        raise ZeroDivisionError

    function = opero(retries=3, **{option: broken})(
        failing(1 if option == "retry_on" else 0, asynchronous)
    )
    with pytest.raises(ZeroDivisionError):
        outcome(function, "value")
    assert book.left == [(NEUTRAL, 1)]


@kinds
def test_arguments_that_do_not_fit_count_as_nothing(core, monkeypatch, asynchronous):
    """They say nothing about what the function calls."""
    book = doorman(core, monkeypatch)
    with pytest.raises(TypeError):
        outcome(opero(retries=3)(failing(0, asynchronous)), 1, 2, 3)
    assert [kind for kind, _ in book.left] in ([NEUTRAL], [])


@kinds
@pytest.mark.parametrize("cache", [False, True])
def test_who_is_refused_gets_an_error_at_once(core, monkeypatch, asynchronous, cache):
    """No attempt is made, no permit is taken, and no round is waited for."""
    book = doorman(core, monkeypatch)
    limiter = RateLimiter(0.01)
    function = opero(retries=3, rate_limit=limiter, cache=cache)(failing(0, asynchronous))
    with manual_clock():
        book.opens = core.clock.now() + 10**9
        with pytest.raises(BreakerOpenError) as caught:
            outcome(function, "value")
        assert "the door is open and lets no attempt in for 1 s" in str(caught.value)
        assert caught.value.retry_after == 1.0
        assert caught.value.errors == []
        assert (function.stats().attempts, function.stats().refused) == (0, 1)
        assert function.stats().failures == 1
        assert limiter.try_acquire()
        assert book.left == []


@kinds
def test_who_is_refused_later_gets_an_error_that_knows_why(core, monkeypatch, asynchronous):
    """Its `errors` are the earlier failures, and its cause is the last one."""
    book = doorman(core, monkeypatch)
    function = opero(retries=3, min_delay=0, max_delay=0)(failing(9, asynchronous))
    book.shuts_after = 1
    with pytest.raises(BreakerOpenError, match=r"1 attempt has failed") as caught:
        outcome(function, "value")
    assert [type(each) for each in caught.value.errors] == [Flop]
    assert isinstance(caught.value.__cause__, Flop)


@kinds
def test_who_has_the_time_waits(core, monkeypatch, asynchronous):
    """A call waits if the wait ends before its deadline."""
    book = doorman(core, monkeypatch)
    function = opero(retries=3, timeout=5)(failing(0, asynchronous))
    hurried = opero(retries=3, timeout=0.5)(failing(0, asynchronous))
    with skip_waits():
        book.opens = core.clock.now() + 10**9
        assert outcome(function, "value") == "value"
        book.opens = core.clock.now() + 10**9
        with pytest.raises(BreakerOpenError):
            outcome(hurried, "value")
    assert function.stats().breaker_wait > 0.9
    assert (function.stats().refused, function.stats().attempts) == (1, 1)
