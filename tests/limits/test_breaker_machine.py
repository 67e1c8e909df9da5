"""Breakers of a machine: one state for processes that know nothing of each other but a name."""

from __future__ import annotations

import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from crowd import together, until
from sharers import soon

from opero import (
    Breaker,
    BreakerConfig,
    BreakerOpenError,
    RateLimiter,
    hotpath,
    opero,
    opmap,
    subscribe,
)
from opero.exceptions import UnsafePlaceError
from opero.limits import shared_file, shared_place
from opero.limits.shared_breakers import identity
from opero.testing import manual_clock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the helper forks")


@pytest.fixture
def options() -> dict[str, Any]:
    return {
        "name": f"test-{uuid4().hex}", "scope": "machine", "minimum": 4, "open_for": 0.3,
    }  # fmt: skip


def both(core: Any, count: int) -> list[str]:
    """Return halves for processes, at least one of them the other half if it is installed."""
    try:
        hotpath.load("compiled")
    except hotpath.MissingLibraryError:
        return ["plain"] * count
    other = "plain" if core.name == "compiled" else "compiled"
    return [core.name] * (count - 1) + [other]


def failing(breaker: Breaker) -> Any:
    @opero(breaker=breaker, retries=1)
    def fail() -> None:
        raise ConnectionError

    return fail


def fail(breaker: Breaker, times: int = 1) -> None:
    attempt = failing(breaker)
    for _ in range(times):
        with pytest.raises(ConnectionError):
            attempt()


def succeed(breaker: Breaker) -> str:
    @opero(breaker=breaker, retries=1)
    def work() -> str:
        return "done"

    return work()


# --- one breaker --------------------------------------------------------------------------------------


def test_objects_of_one_name_are_one_breaker(core, options):
    """A newcomer finds the present state and counts."""
    one = Breaker(**options)
    fail(one, 3)
    two = Breaker(**options)
    assert two.state == "closed"
    fail(two)
    assert one.state == two.state == Breaker(**options).state == "open"
    with pytest.raises(BreakerOpenError) as caught:
        succeed(one)
    assert 0 < caught.value.retry_after <= 0.302
    until(lambda: two.state == "half_open")
    assert succeed(two) == "done"
    assert one.state == "closed"
    two.trip()
    assert one.state == "open"
    one.reset()
    assert two.state == "closed"


def test_other_names_and_other_settings_are_other_breakers(core, options):
    """Old and new processes of a deployment do not affect each other."""
    one = Breaker(**options)
    others = [Breaker(**{**options, **each}) for each in (
        {"name": options["name"] + "x"}, {"minimum": 5}, {"open_for": 0.4}, {"window": 9},
        {"failure_ratio": 0.6}, {"probes": 2},
    )]  # fmt: skip
    one.trip()
    assert [each.state for each in others] == ["closed"] * 6


def test_any_name_will_do(core, options):
    """A name may contain characters that file systems reject."""
    for odd in ("/", "..", "a/b", "\0", "ü\n", "\udc80", "x" * 1000):
        breaker = Breaker(**{**options, "name": options["name"] + odd})
        assert succeed(breaker) == "done"


def test_processes_count_together(core, sharers, options):
    """Their failures open it together; then it refuses all of them."""
    options = {**options, "minimum": 40, "open_for": 30}
    found = sharers.run("fail", both(core, 4), breaker=options, start=soon(4), times=30)
    assert sum(made for made, _ in found) in range(40, 44)  # one of each may be under way
    assert all(made + refused == 30 for made, refused in found)
    assert Breaker(**options).state == "open"


@pytest.mark.once
def test_processes_that_only_know_the_name_share_a_breaker(options):
    """The processes start one after the other, each after the last has ended."""
    code = (
        "import sys; from opero import Breaker, opero\n"
        "breaker = Breaker(sys.argv[1], scope='machine', minimum=4, open_for=30)\n"
        "print(breaker.state)\n"
        "@opero(breaker=breaker, retries=1)\n"
        "def fail(): raise ConnectionError\n"
        "for _ in range(2):\n"
        "    try: fail()\n"
        "    except Exception: pass\n"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code, options["name"]],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for _ in range(3)
    ]  # fmt: skip
    assert told == ["closed", "closed", "open"]
    minimal = {"scope": "machine", "minimum": 4, "open_for": 30}
    assert Breaker(options["name"], **minimal).state == "open"


def test_one_process_of_many_probes(core, sharers, options):
    """Exactly one gets in, even if all ask at the moment of half-open."""
    options = {**options, "open_for": 20}
    breaker = Breaker(**options)
    breaker.trip(60)
    start = soon(6)
    sharers.start("knock", both(core, 6), breaker=options, start=start, seconds=0.5)
    until(lambda: time.monotonic() > start)

    def tripped() -> bool:
        try:
            breaker.trip(0.1)
        except TimeoutError:  # the one that holds the lock waits for its turn on a busy machine
            return False
        return True

    until(tripped)
    assert sum(sharers.join()) == 1
    assert breaker.state == "half_open"


def test_threads_count_exactly_and_one_of_them_probes(core, options):
    """That includes the threads of several processes."""
    options = {**options, "minimum": 10**6, "open_for": 20}
    breakers = [Breaker(**options) for _ in range(2)]
    gates = [each._queue.gate for each in breakers]

    def work(number: int) -> None:
        gate = gates[number % 2]
        for attempt in range(400):
            now = time.monotonic_ns()
            gate.leave(now, int(attempt % 4 == 0), now, -gate.enter(now))

    for job in together(6, work):
        job.result()
    words = [gates[0].words.load(at) for at in range(1, 11)]
    assert sum(word >> 16 & 0xFFFF for word in words) == 2400
    assert sum(word & 0xFFFF for word in words) == 600
    breakers[0].trip(0.05)
    until(lambda: breakers[0].state == "half_open")

    def knock(number: int) -> int:
        return sum(gates[number % 2].enter(time.monotonic_ns()) <= 0 for _ in range(200))

    assert sum(job.result() for job in together(6, knock)) == 1


# --- those who die, stop, fork ----------------------------------------------------------------------


def test_a_process_that_is_killed_in_its_probe_frees_the_place_by_expiry(core, sharers, options):
    """Others are refused until the lease expires; then one of them probes."""
    breaker = Breaker(**options)
    breaker.trip()
    (pid,) = sharers.start("probe", [core.name], breaker=options)
    gate = breaker._queue.gate
    until(lambda: gate.words.load(11) >> 40 == gate.words.load(0) >> 41)
    begun = time.monotonic()
    with pytest.raises(BreakerOpenError):
        succeed(breaker)
    os.kill(pid, signal.SIGKILL)
    assert sharers.join() == [None]

    def probed() -> bool:
        try:
            return succeed(breaker) == "done"
        except BreakerOpenError:
            return False

    until(probed)
    assert time.monotonic() - begun < 10
    assert breaker.state == "closed"


def test_processes_that_are_killed_in_the_middle_of_a_step_leave_it_whole(core, sharers, options):
    """The breaker still opens, half-opens and closes, wherever they died."""
    options = {**options, "open_for": 0.02}
    pids = sharers.start("juggle", both(core, 5), breaker=options)
    breaker = Breaker(**options)
    dice = random.Random(3)
    for pid in pids:
        time.sleep(dice.random() * 0.06)
        os.kill(pid, signal.SIGKILL)
    assert sharers.join() == [None] * 5
    breaker.reset()
    fail(breaker, 4)
    assert breaker.state == "open"
    until(lambda: breaker.state == "half_open")
    assert succeed(breaker) == "done"
    assert breaker.state == "closed"


def test_a_stopped_process_holds_nobody_up_for_good(core, sharers, options):
    """Even if it stops while it holds the file lock, attempts continue, uncounted."""
    options = {**options, "open_for": 0.02}
    pids = sharers.start("juggle", ["plain"] * 2, breaker=options)
    breaker = Breaker(**options)
    time.sleep(0.1)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    for _ in range(20):
        try:
            succeed(breaker)
        except BreakerOpenError:
            time.sleep(0.01)
    assert time.monotonic() - begun < 15
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGKILL)
    assert sharers.join() == [None, None]
    breaker.reset()
    assert succeed(breaker) == "done"


def test_a_child_that_was_forked_in_a_probe_does_not_report_it(core, sharers, options):
    """The child fails, but its parent's probe succeeds."""
    Breaker(**options).trip()
    assert sharers.run("fork_in_probe", [core.name], breaker=options) == ["closed"]


def test_what_a_probe_calls_behind_the_same_breaker_is_a_part_of_it(core, options):
    """Otherwise the breaker would refuse its own probe and stay open."""
    breaker = Breaker(**options)

    @opero(breaker=breaker, retries=1)
    def outer() -> str:
        assert breaker.state == "half_open"
        return succeed(breaker)

    breaker.trip()
    until(lambda: breaker.state == "half_open")
    assert outer() == "done"
    assert breaker.state == "closed"


# --- fallback values ----------------------------------------------------------------------------------


def asking(breaker: Breaker, dead: set[str]) -> Any:
    @opero(arg_fallback="key", breaker=breaker)
    def ask(key: list[str]) -> str:
        if key[0] in dead:
            raise ConnectionError
        return key[0]

    return ask


def test_each_fallback_value_has_a_breaker_that_processes_share_and_nobody_can_read(core, options):
    """Processes find it by a digest, in whatever order they meet the values."""
    one, two = (Breaker(**options) for _ in range(2))
    ask = asking(one, {"secret-one"})
    for _ in range(4):
        assert ask(["secret-one", "secret-two"]) == "secret-two"
    tried: list[str] = []

    @opero(arg_fallback="key", breaker=two)
    def other(key: list[str]) -> str:
        tried.append(key[0])
        return key[0]

    assert other(["secret-two"]) == "secret-two"
    assert other(["secret-one", "secret-two"]) == "secret-two"
    assert tried == ["secret-two"] * 2
    files = list(shared_place.directory().iterdir())
    assert not [path for path in files if "secret" in path.name or options["name"] in path.name]
    for path in files:
        content = path.read_bytes()
        assert b"secret-one" not in content
        assert options["name"].encode() not in content


def test_a_value_without_a_faithful_key_counts_by_its_place(core):
    """Values that differ only in type count as different."""
    settings = (1, 0.5, 1, 1, 1)
    opaque = [identity("x", settings, object(), place, True) for place in (0, 0, 1)]
    assert opaque[0] == opaque[1] != opaque[2]
    assert len({identity("x", settings, each, 0, True) for each in (1, 1.0, True, "1", b"1")}) == 5
    assert identity("x", settings, None, 0, False) != identity("x", settings, None, 0, True)


# --- places -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")]
)
def test_without_a_file_each_process_decides_by_itself_and_says_so_once(
    core, options, monkeypatch, broken
):
    """The directory may be full, read-only or missing."""
    events: list[Any] = []
    end = subscribe(events.append, "store_down")

    def refuse(*_: Any) -> int:
        raise broken

    try:
        with monkeypatch.context() as patch:
            patch.setattr(shared_place, "closed_directory", refuse)
            breaker = Breaker(**options)
        fail(breaker, 4)
    finally:
        end()
    assert breaker.state == "open"
    assert [(event.store, event.error) for event in events] == [
        (f"the machine-wide breaker {options['name']!r}", broken)
    ]
    assert Breaker(**options).state == "closed"
    until(lambda: breaker.state == "half_open")
    assert succeed(breaker) == "done"


def test_a_directory_that_others_could_write_to_is_refused(core, options, monkeypatch, tmp_path):
    """The error comes when the breaker is made, not when it is used."""
    monkeypatch.setattr(shared_place, "_SHM", tmp_path)
    shared_place.directory().chmod(0o777)
    with pytest.raises(UnsafePlaceError):
        Breaker(**options)


@pytest.mark.slow
def test_breakers_that_nobody_uses_make_room_when_they_say_nothing(
    core, options, monkeypatch, tmp_path
):
    """Breakers in use stay, and unused ones stay for an hour."""
    monkeypatch.setattr(shared_place, "_SHM", tmp_path)
    monkeypatch.setattr(shared_file, "_SIZE", 1 << 13)
    hour = 3600 * 10**9
    now = time.monotonic_ns()
    used = Breaker(**{**options, "name": "used"})
    used.trip(3000)
    Breaker(**{**options, "name": "open"}).trip(3000)
    (path,) = shared_place.directory().iterdir()
    for later, size in [(0, 1 << 13), (1, 1 << 14), (hour + 2, 1 << 14)]:
        monkeypatch.setattr(shared_file, "monotonic_ns", lambda later=later: now + later)
        for at in range(4 if later < hour else 8):
            Breaker(**{**options, "name": f"{later}-{at}"})
            gc.collect()
        assert path.stat().st_size == size
        if later < hour:
            assert Breaker(**{**options, "name": "open"}).state == "open"
    assert used.state == Breaker(**{**options, "name": "used"}).state == "open"


# --- in functions and maps ------------------------------------------------------------------------------


def test_a_config_makes_a_shared_one_too(core, options):
    """Functions with the same name in their config share it."""

    @opero(breaker=BreakerConfig(**options), retries=1)
    def one() -> None:
        raise ConnectionError

    @opero(breaker=BreakerConfig(**options), retries=1)
    def two() -> str:
        return "done"

    for _ in range(4):
        with pytest.raises(ConnectionError):
            one()
    with pytest.raises(BreakerOpenError):
        two()


def test_a_call_waits_for_the_probe_if_its_timeout_leaves_the_time(core, options):
    """The call notices within a moment that another process has closed the breaker."""
    one, two = Breaker(**options), Breaker(**options)

    @opero(breaker=one, timeout=20, retries=2)
    def work() -> str:
        return "done"

    two.trip()
    assert work() == "done"
    assert two.state == "closed"
    assert work.stats().breaker_wait > 0


def test_a_map_over_an_open_breaker_waits_and_loses_nothing(core, options):
    """Items wait in the parent; one of them probes."""
    breaker = Breaker(**options)
    breaker.trip()

    @opmap(mode="thread", workers=3, breaker=breaker, timeout=20, progress=False)
    def work(item: int) -> int:
        return item * 2

    assert work(range(30)) == [item * 2 for item in range(30)]
    assert breaker.state == "closed"


def test_a_pickled_breaker_is_the_same_one_elsewhere(core, options):
    """The other process finds it by its name."""
    breaker = Breaker(**options)
    other = pickle.loads(pickle.dumps(breaker))
    breaker.trip()
    assert other.state == "open"


def test_it_goes_by_real_time_under_the_clocks_of_tests(core, options):
    """Other processes use real time too."""
    breaker = Breaker(**{**options, "open_for": 3600})
    with manual_clock() as clock:
        breaker.trip()
        clock.advance(7200)
        assert breaker.state == "open"
        with pytest.raises(BreakerOpenError) as caught:
            succeed(breaker)
    assert caught.value.retry_after > 3500


def test_changes_are_told_in_every_process(core, options):
    """The process that made the change also reports the reason."""
    events: list[Any] = []
    end = subscribe(events.append, "breaker")
    try:
        one, two = Breaker(**options), Breaker(**options)
        fail(one, 4)
        with pytest.raises(BreakerOpenError):
            succeed(two)
        until(lambda: two.state == "half_open")
        succeed(two)
        succeed(one)
    finally:
        end()
    assert [(event.state, event.reason) for event in events] == [
        ("open", "4 of 4 attempts failed within 30 s"),
        ("open", "another process has said so"),
        ("half_open", "it has been open for long enough"),
        ("closed", "the probe succeeded"),
        ("closed", "another process has said so"),
    ]
    assert {event.breaker for event in events} == {options["name"]}


@pytest.mark.once
def test_wrong_options_are_refused():
    """The message says what to write."""
    with pytest.raises(ValueError, match="needs name="):
        Breaker(scope="machine")
    with pytest.raises(ValueError, match="url= is not read by scope='machine'"):
        Breaker("x", scope="machine", url="redis://localhost")
    with pytest.raises(ValueError, match="scope='cluster'"):
        Breaker("x", scope="cluster")  # type: ignore[arg-type]


def test_those_who_wait_for_a_permit_are_refused_if_it_opens_meanwhile(core, options):
    options["open_for"] = 30.0
    breaker = Breaker(**options)
    asked = []

    @opero(breaker=breaker, rate_limit=50.0, retries=1)
    def work() -> None:
        asked.append(1)
        Breaker(**options).trip()

    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(work) for _ in range(4)]
    found = [type(run.exception()) for run in runs]
    assert sorted(map(str, found)) == sorted(map(str, [type(None)] + [BreakerOpenError] * 3))
    assert len(asked) == 1


def test_a_probe_that_waits_for_its_permit_keeps_its_place(core, options):
    options["open_for"] = 30.0
    breaker = Breaker(**options)
    limiter = RateLimiter(20.0)

    @opero(breaker=breaker, rate_limit=limiter, retries=1)
    def work() -> str:
        return "done"

    breaker.trip(0.05)
    until(lambda: breaker.state == "half_open")
    assert limiter.try_acquire()
    assert work() == "done"
    assert breaker.state == "closed"
    assert work.stats().refused == 0
