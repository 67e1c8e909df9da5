"""The state machine of a circuit breaker, by hand and against a model under random schedules."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opero.core.breaker import CLOSED, GLANCE, HALF_OPEN, OPEN
from opero.core.gate import FAILED, NEUTRAL, REJECTED, SUCCEEDED, WITHDRAWN

SECOND = 10**9
WINDOW, OPEN_FOR = 10 * SECOND, 5 * SECOND


def make(core: Any, minimum: int = 4, ratio: float = 0.5, probes: int = 1, **more: Any) -> Any:
    """Make a breaker with a window of ten seconds that opens for five."""
    return core.CircuitBreaker(
        WINDOW, ratio, minimum, OPEN_FOR, probes, core.new_lock(), more.get("watcher")
    )


def attempt(breaker: Any, now: int, outcome: int) -> bool:
    """Let an attempt in and end it immediately; return whether it was let in."""
    answer = breaker.enter(now)
    if answer > 0:
        return False
    breaker.leave(now, outcome, now, -answer)
    return True


def opened(core: Any, now: int = 0, **more: Any) -> Any:
    """Make a breaker that has opened."""
    breaker = make(core, **more)
    for _ in range(breaker.minimum):
        attempt(breaker, now, FAILED)
    assert breaker.state == OPEN
    return breaker


# --- closed ---------------------------------------------------------------------------------------


def test_it_opens_at_the_ratio_and_not_before(core):
    """Four of eight are half; three of seven are less."""
    breaker = make(core)
    for outcome in (SUCCEEDED, SUCCEEDED, SUCCEEDED, SUCCEEDED, FAILED, FAILED, FAILED):
        assert attempt(breaker, 0, outcome)
    assert breaker.state == CLOSED
    assert attempt(breaker, 0, FAILED)
    assert breaker.state == OPEN


def test_it_does_not_open_before_it_has_seen_enough(core):
    """Three failures of three are too few attempts to judge by."""
    breaker = make(core)
    assert [attempt(breaker, 0, FAILED) for _ in range(4)] == [True] * 4
    assert breaker.state == OPEN
    breaker = make(core, minimum=5)
    assert [attempt(breaker, 0, FAILED) for _ in range(4)] == [True] * 4
    assert breaker.state == CLOSED


@pytest.mark.parametrize(("failed", "count"), [(1, 10), (3, 30), (7, 10), (1, 3), (29, 100)])
def test_a_ratio_is_exact(core, failed, count):
    """The breaker opens at the given share, despite rounding."""
    breaker = make(core, minimum=count, ratio=failed / count)
    for _ in range(count - failed):
        attempt(breaker, 0, SUCCEEDED)
    for _ in range(failed - 1):
        attempt(breaker, 0, FAILED)
    assert breaker.state == CLOSED
    attempt(breaker, 0, FAILED)
    assert breaker.state == OPEN


@pytest.mark.parametrize("outcome", [NEUTRAL, WITHDRAWN])
def test_what_says_nothing_counts_as_nothing(core, outcome):
    """It counts neither as a failure nor as a success."""
    breaker = make(core)
    for _ in range(50):
        attempt(breaker, 0, outcome)
    for _ in range(3):
        attempt(breaker, 0, FAILED)
    assert breaker.state == CLOSED
    attempt(breaker, 0, REJECTED)
    assert breaker.state == OPEN


def test_it_forgets_what_is_older_than_its_window(core):
    """It forgets one slice at a time."""
    breaker = make(core)
    for now in range(3):
        attempt(breaker, now * SECOND, FAILED)
    attempt(breaker, 10 * SECOND, FAILED)  # the first one is forgotten: three are left
    assert breaker.state == CLOSED
    attempt(breaker, 10 * SECOND, FAILED)
    assert breaker.state == OPEN


def test_old_successes_do_not_keep_it_closed(core):
    """After the window, an hour of successes has no weight."""
    breaker = make(core)
    for _ in range(10_000):
        attempt(breaker, 0, SUCCEEDED)
    later = 3600 * SECOND
    for _ in range(4):
        assert attempt(breaker, later, FAILED)
    assert breaker.state == OPEN


# --- open and half-open ---------------------------------------------------------------------------


def test_it_lets_nobody_in_until_its_time_is_over(core):
    """To the nanosecond, and it returns the time left."""
    breaker = opened(core, 7)
    for now in (7, SECOND, OPEN_FOR + 6):
        assert breaker.enter(now) == breaker.opens_in(now) == OPEN_FOR + 7 - now
        assert breaker.state_at(now) == OPEN
    assert breaker.state_at(OPEN_FOR + 7) == HALF_OPEN
    assert breaker.opens_in(OPEN_FOR + 7) == 0
    assert breaker.enter(OPEN_FOR + 7) < 0


@pytest.mark.parametrize("probes", [1, 2, 5])
def test_of_twenty_callers_at_the_moment_of_half_open_the_probes_get_in(core, probes):
    """Exactly as many get in as there are probes."""
    breaker = opened(core, probes=probes)
    answers = [breaker.enter(OPEN_FOR) for _ in range(20)]
    assert [answer <= 0 for answer in answers] == [True] * probes + [False] * (20 - probes)
    assert all(0 < answer <= GLANCE for answer in answers[probes:])
    assert len({*answers[:probes]}) == probes  # each has a ticket of its own
    for ticket in answers[:probes]:
        assert breaker.state == HALF_OPEN
        assert breaker.enter(OPEN_FOR) > 0  # one that has succeeded makes no room for another
        breaker.leave(OPEN_FOR, SUCCEEDED, OPEN_FOR, -ticket)
    assert breaker.state == CLOSED


@pytest.mark.parametrize("outcome", [FAILED, REJECTED])
def test_a_failed_probe_opens_it_again(core, outcome):
    """For as long as before."""
    breaker = opened(core, probes=2)
    first, second = -breaker.enter(OPEN_FOR), -breaker.enter(OPEN_FOR)
    breaker.leave(OPEN_FOR + 5, outcome, OPEN_FOR, first)
    assert breaker.state == OPEN
    assert breaker.enter(OPEN_FOR + 6) == OPEN_FOR - 1
    breaker.leave(OPEN_FOR + 7, SUCCEEDED, OPEN_FOR, second)  # of an earlier period
    assert breaker.enter(OPEN_FOR + 8) == OPEN_FOR - 3


@pytest.mark.parametrize("outcome", [NEUTRAL, WITHDRAWN])
def test_a_probe_that_says_nothing_gives_its_place_back(core, outcome):
    """For example, it was cancelled; the next caller is the probe."""
    breaker = opened(core)
    ticket = -breaker.enter(OPEN_FOR)
    assert breaker.enter(OPEN_FOR) > 0
    breaker.leave(OPEN_FOR, outcome, OPEN_FOR, ticket)
    assert breaker.state == HALF_OPEN
    assert breaker.enter(OPEN_FOR) < 0


def test_a_probe_that_never_reports_loses_its_place(core):
    """Another one is let in after a while, and closes the breaker."""
    breaker = opened(core)
    lost = -breaker.enter(OPEN_FOR)
    assert breaker.enter(2 * OPEN_FOR - 1) == 1
    second = -breaker.enter(2 * OPEN_FOR)
    assert second > 0
    assert second != lost
    assert breaker.enter(2 * OPEN_FOR) > 0
    breaker.leave(2 * OPEN_FOR, SUCCEEDED, 2 * OPEN_FOR, second)
    assert breaker.state == CLOSED
    for _ in range(9):
        breaker.leave(2 * OPEN_FOR, FAILED, OPEN_FOR, lost)
    assert breaker.state == CLOSED
    assert breaker.bad == 0


def test_a_slow_probe_is_heard_as_long_as_nothing_else_has_been(core):
    """So the breaker closes even if every attempt takes longer than a lease."""
    breaker = opened(core)
    slow = -breaker.enter(OPEN_FOR)
    assert breaker.enter(3 * OPEN_FOR) < 0
    breaker.leave(3 * OPEN_FOR, SUCCEEDED, OPEN_FOR, slow)
    assert breaker.state == CLOSED


def test_hanging_probes_are_bounded(core):
    """There is one for each lease, without end, so the oldest ones are forgotten."""
    breaker = opened(core)
    for turn in range(1, 1000):
        assert breaker.enter(turn * OPEN_FOR) < 0
    assert len(breaker.leases) <= 256
    ticket = -breaker.enter(2000 * OPEN_FOR)
    breaker.leave(2000 * OPEN_FOR, SUCCEEDED, 0, ticket)
    assert breaker.state == CLOSED


def test_an_attempt_that_began_before_it_opened_has_no_say_later(core):
    """Neither while the breaker is open or half-open, nor when it is closed again."""
    breaker = make(core)
    early = [-breaker.enter(0) for _ in range(40)]
    for _ in range(4):
        attempt(breaker, 0, FAILED)
    for outcome in (SUCCEEDED, FAILED):
        breaker.leave(1, outcome, 0, early.pop())
    assert breaker.enter(1) == OPEN_FOR - 1  # not prolonged
    probe = -breaker.enter(OPEN_FOR)
    breaker.leave(OPEN_FOR, SUCCEEDED, 0, early.pop())
    assert breaker.state == HALF_OPEN
    breaker.leave(OPEN_FOR, SUCCEEDED, OPEN_FOR, probe)
    assert breaker.state == CLOSED
    while early:
        breaker.leave(OPEN_FOR, FAILED, 0, early.pop())
    assert breaker.state == CLOSED


def test_a_report_twice_counts_once(core):
    """After its report, a probe no longer counts as one."""
    breaker = opened(core, probes=2)
    ticket = -breaker.enter(OPEN_FOR)
    breaker.leave(OPEN_FOR, SUCCEEDED, OPEN_FOR, ticket)
    breaker.leave(OPEN_FOR, SUCCEEDED, OPEN_FOR, ticket)
    assert breaker.state == HALF_OPEN


# --- by hand --------------------------------------------------------------------------------------


def test_trip_and_reset_work_in_every_state(core):
    """Attempts under way at that moment do not count in any state."""
    for breaker in (make(core), opened(core)):
        ticket = -breaker.enter(OPEN_FOR)
        breaker.trip(OPEN_FOR, 3 * SECOND, "why not")
        assert breaker.enter(OPEN_FOR) == 3 * SECOND
        breaker.leave(OPEN_FOR, SUCCEEDED, OPEN_FOR, ticket)
        assert breaker.enter(OPEN_FOR) == 3 * SECOND
        breaker.reset("why not")
        assert breaker.state == CLOSED
        breaker.leave(OPEN_FOR, FAILED, OPEN_FOR, ticket)
        assert breaker.bad == 0


def test_its_watcher_learns_of_every_change(core):
    """It is called after the change, so it may use the breaker."""
    seen = []
    breaker = make(core)

    def watch(state: int, reason: str | None) -> None:
        seen.append((state, reason, breaker.state, breaker.opens_in(OPEN_FOR)))

    breaker.watcher = watch
    for _ in range(4):
        attempt(breaker, 0, FAILED)
    probe = -breaker.enter(OPEN_FOR)
    breaker.leave(OPEN_FOR, NEUTRAL, OPEN_FOR, probe)
    attempt(breaker, OPEN_FOR, SUCCEEDED)
    breaker.trip(OPEN_FOR, 0, "by hand")
    assert [(state, reason) for state, reason, _, _ in seen] == [
        (OPEN, "4 of 4 attempts failed within 10 s"),
        (HALF_OPEN, "it lets a probe in"),
        (HALF_OPEN, None),
        (CLOSED, "the probe succeeded"),
        (OPEN, "by hand"),
    ]
    assert all(state == now for state, _, now, _ in seen)


@pytest.mark.refcounts
def test_a_finalizer_in_the_middle_of_a_step_gets_no_second_probe(core):
    """Either of the two is refused."""
    answers = []
    breaker = opened(core)
    breaker.watcher = lambda *_: None

    class Late:
        def __del__(self) -> None:
            answers.append(breaker.enter(OPEN_FOR))

    for size in range(20):
        breaker.trip(0, OPEN_FOR, "again")
        answers.clear()
        gc.collect()
        late = Late()
        late.self = late  # type: ignore[attr-defined]
        del late
        kept = [[] for _ in range(gc.get_threshold()[0] - size)]
        answers.append(breaker.enter(OPEN_FOR))
        del kept
        gc.collect()
        assert sum(answer <= 0 for answer in answers) == 1


# --- against a model ------------------------------------------------------------------------------


class Model:
    """The expected behaviour of a breaker, derived from a list of all that has happened."""

    def __init__(self, minimum: int, ratio: float, probes: int) -> None:
        self.minimum, self.ratio, self.probes = minimum, ratio, probes
        self.period = 0  # even periods are closed, odd ones are not
        self.until = 0
        self.probing = False
        self.counted: list[tuple[int, bool]] = []
        self.out: dict[Any, int] = {}
        self.good = 0

    def state(self, now: int) -> int:
        if self.period % 2 == 0:
            return CLOSED
        return HALF_OPEN if self.probing or now >= self.until else OPEN

    def enter(self, now: int) -> tuple[int, Any] | None:
        """Return a ticket of its own, or None."""
        state = self.state(now)
        if state == CLOSED:
            return self.period, None
        if state == OPEN:
            return None
        if not self.probing:
            self.probing, self.out, self.good = True, {}, 0
        held = sum(expiry > now for expiry in self.out.values())
        if held + self.good >= self.probes:
            return None
        probe = object()
        self.out[probe] = now + OPEN_FOR
        return self.period, probe

    def leave(self, now: int, outcome: int, ticket: tuple[int, Any]) -> None:
        period, probe = ticket
        if period != self.period or (probe is not None and probe not in self.out):
            return
        failed = outcome in {FAILED, REJECTED}
        if probe is not None:
            del self.out[probe]
            if failed:
                self.open(now)
            elif outcome == SUCCEEDED:
                self.good += 1
                if self.good == self.probes:
                    self.close()
        elif failed or outcome == SUCCEEDED:
            self.counted.append((now // SECOND, failed))
            recent = [bad for at, bad in self.counted if at > now // SECOND - 10]
            enough = len(recent) >= self.minimum
            if failed and enough and sum(recent) >= self.ratio * len(recent) - 1e-9:
                self.open(now)

    def open(self, now: int, length: int = OPEN_FOR) -> None:
        self.period += 1 if self.period % 2 == 0 else 2
        self.until, self.probing = now + length, False

    def close(self) -> None:
        self.period += 1 if self.period % 2 else 2
        self.counted = []


OUTCOMES = st.sampled_from([SUCCEEDED, FAILED, FAILED, REJECTED, NEUTRAL, WITHDRAWN])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(1, 4)),
        st.tuples(st.just("attempt"), OUTCOMES),
        st.tuples(st.just("attempt"), OUTCOMES),
        st.tuples(st.just("leave"), st.integers(0, 99), OUTCOMES),
        st.tuples(st.just("leave"), st.integers(0, 99), OUTCOMES),
        st.tuples(st.just("twice"), st.integers(0, 99), OUTCOMES),
        st.tuples(st.just("crash"), st.integers(0, 99)),
        st.tuples(st.just("pass"), st.integers(0, 15 * SECOND)),
        st.tuples(st.just("pass"), st.sampled_from([1, SECOND, OPEN_FOR - 1, OPEN_FOR, WINDOW])),
        st.tuples(st.just("trip"), st.sampled_from([0, 1, SECOND, 60 * SECOND])),
        st.tuples(st.just("reset")),
    ),
    max_size=120,
)


@given(
    steps=STEPS,
    minimum=st.integers(1, 6),
    ratio=st.sampled_from([0.01, 0.25, 0.5, 0.75, 1.0]),
    probes=st.integers(1, 3),
    start=st.integers(0, 10**15),
)
def test_it_does_what_its_model_does(core, steps, minimum, ratio, probes, start):
    """Random schedules of attempts, outcomes, lost probes, late and double reports, and time."""
    breaker, model = make(core, minimum, ratio, probes), Model(minimum, ratio, probes)
    out: list[tuple[int, Any]] = []
    now = start

    def enter() -> tuple[int, Any] | None:
        foreseen = breaker.opens_in(now)
        answer, expected = breaker.enter(now), model.enter(now)
        assert (answer <= 0) == (expected is not None) == (foreseen <= 0)
        if answer > 0 and model.state(now) == OPEN:
            assert answer == model.until - now
        return None if expected is None else (-answer, expected)

    for step in steps:
        if step[0] == "enter":
            out += [ticket for _ in range(step[1]) if (ticket := enter()) is not None]
        elif step[0] == "attempt":
            ticket = enter()
            if ticket is not None:
                breaker.leave(now, step[1], now, ticket[0])
                model.leave(now, step[1], ticket[1])
        elif step[0] in {"leave", "twice"} and out:
            mine, theirs = out.pop(step[1] % len(out))
            for _ in range(1 if step[0] == "leave" or theirs[1] is None else 2):
                breaker.leave(now, step[2], start, mine)
                model.leave(now, step[2], theirs)
        elif step[0] == "crash" and out:
            out.pop(step[1] % len(out))
        elif step[0] == "pass":
            now += step[1]
        elif step[0] == "trip":
            breaker.trip(now, step[1], "trip")
            model.open(now, step[1] or OPEN_FOR)
        elif step[0] == "reset":
            breaker.reset("reset")
            model.close()
        assert breaker.state_at(now) == model.state(now)
    # whatever has happened, it is never wedged: somebody gets in, and can close it
    for _ in range(2 * probes + 1):
        now += 100 * SECOND
        attempt(breaker, now, SUCCEEDED)
    assert breaker.state == CLOSED
