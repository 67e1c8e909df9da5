"""What one process knows of a breaker that hosts share, without a server: it is told what that would say."""

from __future__ import annotations

from typing import Any

import pytest

from opero.core.breaker import CLOSED, HALF_OPEN, OPEN
from opero.core.gate import FAILED, NEUTRAL, REJECTED, SUCCEEDED, WITHDRAWN
from opero.core.remote_breaker import PERIOD
from opero.core.shared_breaker import GLANCE, word_count
from opero.core.shared_counters import STRIDE

MS = 10**6
OPEN_FOR = 400 * MS
START = 3_600_000 * MS


class Summons:
    """Counts the requests for an exchange."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def summons() -> Summons:
    return Summons()


@pytest.fixture
def breaker(core, summons) -> Any:
    memory = bytearray((word_count(1) + 1) * STRIDE)
    words = core.SharedCounters(memory, 0, word_count(1), -1)
    clock, lock = core.Clock(), core.new_lock()
    local = core.SharedBreaker(words, lock, clock, clock, 1000 * MS, 0.5, 4, OPEN_FOR, 300 * MS, 1)
    return core.RemoteBreaker(local, lock, summons)


def hear(breaker: Any, now: int, generation: int, left: int = 0, lease: str = "") -> None:
    """Let the breaker hear of a state: open for some time, or closed."""
    breaker.adopt(now, now, generation, left > 0, left, "", lease)


def attempt(breaker: Any, now: int, outcome: int = SUCCEEDED) -> int:
    answer: int = breaker.enter(now)
    if answer <= 0:
        breaker.leave(now, outcome, now, -answer)
    return answer


def test_it_lets_attempts_in_before_it_knows_anything_and_counts_them(breaker, summons):
    """They do not wait for the server, and their counts reach it when it answers."""
    assert attempt(breaker, START, FAILED) <= 0
    assert summons.count == 1
    running = -breaker.enter(START)
    assert breaker.parcel(START) == (0, 1, 1, [], -1)
    hear(breaker, START, 7)
    breaker.leave(START, FAILED, START, running)
    assert breaker.parcel(START) == (7, 1, 1, [], 0)


def test_failures_call_for_an_exchange_at_once_and_successes_when_what_is_known_is_old(
    breaker, summons
):
    """No exchange is requested twice."""
    hear(breaker, START, 7)
    for _ in range(5):
        attempt(breaker, START)
    assert summons.count == 0
    for outcome in (FAILED, REJECTED, SUCCEEDED, NEUTRAL, WITHDRAWN):
        attempt(breaker, START, outcome)
    assert summons.count == 1
    assert breaker.parcel(START) == (7, 8, 2, [], 0)
    attempt(breaker, START + PERIOD)
    assert summons.count == 1
    attempt(breaker, START + PERIOD + 1)
    assert summons.count == 2


def test_the_server_opens_and_closes_it(breaker):
    """By durations; attempts from before the change do not count."""
    hear(breaker, START, 7)
    running = -breaker.enter(START)
    hear(breaker, START, 8, 100 * MS)
    assert breaker.enter(START + MS) == 99 * MS
    assert breaker.opens_in(START + MS) == 99 * MS
    assert breaker.state_at(START) == OPEN
    hear(breaker, START + MS, 9)
    breaker.leave(START, FAILED, START, running)
    assert attempt(breaker, START) <= 0
    assert breaker.parcel(START)[1:3] == (1, 0)


def test_one_caller_asks_for_the_lease_and_the_others_are_refused_meanwhile(breaker):
    """Not before the breaker may close, and at most every 20 ms."""
    hear(breaker, START, 8, 100 * MS)
    then = START + 100 * MS
    assert not breaker.consults(then - 1)
    assert breaker.state_at(then) == HALF_OPEN
    assert breaker.enter(then) == GLANCE
    assert [breaker.consults(then) for _ in range(20)] == [True] + 19 * [False]
    assert breaker.consults(then + 20 * MS)
    hear(breaker, then, 8, 0)  # closed meanwhile
    assert not breaker.consults(then + 40 * MS)


def granted(breaker: Any) -> tuple[int, int]:
    """Make it half-open with a probe under way; return the time and the ticket."""
    hear(breaker, START, 8, 100 * MS)
    then = START + 100 * MS
    breaker.adopt(then, then, 8, True, 0, "", "lease")
    ticket = -breaker.enter(then)
    assert ticket > 0
    assert breaker.enter(then) == GLANCE
    return then, ticket


def test_a_probe_that_succeeds_closes_it_here_at_once_and_the_server_confirms_that(
    breaker, summons
):
    """The next attempt waits for no round trip, and counts for the new state."""
    then, ticket = granted(breaker)
    breaker.leave(then, SUCCEEDED, then, ticket)
    assert attempt(breaker, then, FAILED) <= 0
    assert summons.count == 1
    assert breaker.parcel(then) == (9, 1, 1, [("lease", SUCCEEDED)], -1)
    running = -breaker.enter(then)
    hear(breaker, then, 9)
    breaker.leave(then, FAILED, then, running)
    assert breaker.parcel(then) == (9, 1, 1, [], 0)


def test_the_server_corrects_what_a_probe_has_found(breaker):
    """Its lease was void, because another process opened the breaker by hand."""
    then, ticket = granted(breaker)
    breaker.leave(then, SUCCEEDED, then, ticket)
    breaker.parcel(then)
    hear(breaker, then, 9, 50 * MS)
    assert breaker.enter(then) == 50 * MS


def test_a_probe_that_fails_opens_it_anew(breaker):
    """For as long as it was open before."""
    then, ticket = granted(breaker)
    breaker.leave(then, FAILED, then, ticket)
    assert breaker.enter(then) == OPEN_FOR
    assert breaker.parcel(then)[3] == [("lease", FAILED)]


def test_a_reply_that_is_older_than_what_a_probe_has_found_is_not_heeded(breaker):
    """It crossed the report; any lease in it is given back."""
    then, ticket = granted(breaker)
    breaker.parcel(then)
    breaker.leave(then, SUCCEEDED, then, ticket)
    breaker.adopt(then, then, 8, True, 0, "", "another")
    assert breaker.state_at(then) == CLOSED
    assert breaker.parcel(then)[3] == [("lease", SUCCEEDED), ("another", WITHDRAWN)]


def test_a_reply_that_another_has_overtaken_is_not_heeded(breaker):
    """Unless it was requested later and the server has lost its record."""
    hear(breaker, START, 9, 100 * MS)
    breaker.adopt(START + 2, START - 1, 8, False, 0, "", "")
    assert breaker.state_at(START + 2) == OPEN
    breaker.adopt(START + 2, START + 1, 8, False, 0, "", "")
    assert breaker.state_at(START + 2) == CLOSED


def test_a_new_record_closes_nothing_that_is_still_open(breaker, summons):
    """This process tells the server its state, unless the open time is over."""
    hear(breaker, START, 9, 100 * MS)
    summons.count = 0
    breaker.adopt(START + 2, START + 1, 20, False, -1000, "", "")
    assert (breaker.state_at(START + 2), summons.count) == (OPEN, 1)
    assert breaker.parcel(START + 2)[0::4] == (9, 100 * MS - 2)
    breaker.adopt(START + 100 * MS, START + 3, 20, False, -1000, "", "")
    assert breaker.state_at(START + 100 * MS) == CLOSED


@pytest.mark.parametrize("outcome", [NEUTRAL, WITHDRAWN])
def test_a_probe_that_says_nothing_gives_its_lease_back(breaker, summons, outcome):
    """So that another process may have it."""
    then, ticket = granted(breaker)
    breaker.leave(then, outcome, then, ticket)
    assert summons.count == 1
    assert breaker.parcel(then)[3] == [("lease", outcome)]
    assert breaker.state_at(then) == HALF_OPEN


def test_a_probe_that_reports_after_a_change_is_not_heeded(breaker):
    """Its generation has ended."""
    then, ticket = granted(breaker)
    hear(breaker, then, 9)
    breaker.leave(then, FAILED, then, ticket)
    assert breaker.state_at(then) == CLOSED
    assert breaker.parcel(then)[3] == []


def test_a_lease_that_nobody_has_taken_in_time_is_not_taken(breaker):
    """By then, another process has it."""
    hear(breaker, START, 8, 100 * MS)
    then = START + 100 * MS
    breaker.adopt(then, then, 8, True, 0, "", "lease")
    assert breaker.enter(then + 300 * MS) == GLANCE


def test_it_goes_on_alone_from_what_it_knew(breaker):
    """By the counts of this process, with its own probes."""
    hear(breaker, START, 8, 100 * MS)
    breaker.go_alone(START)
    assert 99 * MS < breaker.enter(START) <= 101 * MS
    then = START + 101 * MS
    assert attempt(breaker, then, SUCCEEDED) <= 0
    assert breaker.state_at(then) == CLOSED
    for _ in range(4):
        attempt(breaker, then, FAILED)
    assert breaker.state_at(then) == OPEN
    assert breaker.enter(then) >= OPEN_FOR
    *told, left = breaker.parcel(then)[1:]
    assert told == [0, 0, []]
    assert 0 < left <= OPEN_FOR + MS  # for a server that has lost its record


def test_it_comes_back_to_what_the_server_says(breaker):
    """The state from its time alone ends, and attempts from that time do not count."""
    hear(breaker, START, 8)
    breaker.go_alone(START)
    running = -breaker.enter(START)
    for _ in range(4):
        attempt(breaker, START, FAILED)
    assert breaker.state_at(START) == OPEN
    hear(breaker, START, 8)
    assert breaker.state_at(START) == CLOSED
    breaker.leave(START, FAILED, START, running)
    assert attempt(breaker, START) <= 0
    assert breaker.parcel(START) == (8, 1, 0, [], 0)


def test_a_probe_that_is_under_way_when_the_server_goes_is_forgotten(breaker):
    """The breaker that continues alone admits its own probe."""
    then, ticket = granted(breaker)
    breaker.go_alone(then)
    breaker.leave(then, SUCCEEDED, then, ticket)
    assert breaker.state_at(then + MS) == HALF_OPEN
    assert attempt(breaker, then + MS, SUCCEEDED) <= 0
    assert breaker.state_at(then + MS) == CLOSED


def test_a_child_reports_nothing_of_its_parents(core, breaker):
    """The parent will report it."""
    then, ticket = granted(breaker)
    breaker.after_fork(core.new_lock())
    breaker.leave(then, SUCCEEDED, then, ticket)
    assert breaker.state_at(then) == HALF_OPEN
    assert breaker.parcel(then)[1:4] == (0, 0, [])


def test_each_state_is_told_once(core, summons, breaker):
    """With the reason, if this process caused the change."""
    told: list[Any] = []
    breaker.watcher = lambda *what: told.append(what)
    breaker.local.watcher = breaker.watcher
    breaker.adopt(START, START, 7, False, 0, "", "")
    breaker.adopt(START, START, 8, True, 100 * MS, "4 of 4 attempts failed within 1 s", "")
    breaker.adopt(START, START, 8, True, 100 * MS, "", "")
    then = START + 100 * MS
    breaker.adopt(then, then, 8, True, 0, "", "lease")
    breaker.leave(then, SUCCEEDED, then, -breaker.enter(then))
    breaker.parcel(then)
    breaker.adopt(then, then, 9, False, 0, "the probe succeeded", "")
    breaker.adopt(then, then, 10, True, 100 * MS, "", "")
    breaker.go_alone(then)
    breaker.adopt(then, then, 11, False, 0, "", "")
    assert told == [
        (OPEN, "4 of 4 attempts failed within 1 s"),
        (HALF_OPEN, "it has been open for long enough"),
        (CLOSED, "the probe succeeded"),
        (OPEN, "the record at the server says so"),
        (CLOSED, "the record at the server says so"),
    ]
