"""Machine-wide limits: one rate for processes that know nothing of each other but a name."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from crowd import Job, run, until
from sharers import soon

from opero import DeadlineExceeded, RateLimiter, hotpath, opero, opmap, subscribe
from opero.exceptions import UnsafePlaceError
from opero.limits import shared_file, shared_place
from opero.testing import manual_clock, skip_waits

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the helper forks")

MS = 10**6


@pytest.fixture
def name() -> str:
    """A unique name."""
    return f"test-{uuid4().hex}"


@pytest.fixture
def own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A directory of this test for what processes share."""
    monkeypatch.setattr(shared_place, "_SHM", tmp_path)
    monkeypatch.setattr(shared_place, "_home", lambda _: None)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    yield shared_place.directory()
    gc.collect()


def shared_path() -> Path:
    """Return the path of the shared file."""
    (found,) = shared_place.directory().glob(f"{shared_place.boot()}-words")
    return found


def limit(name: str, rate: float, burst: int = 1, **more: Any) -> dict[str, Any]:
    return {"rate_limit": rate, "burst": burst, "scope": "machine", "name": name, **more}


def assert_held(taken: list[tuple[int, int, int]], rate: float, burst: int) -> None:
    """Check that no window has more permits, surely taken within it, than allowed."""
    taken = sorted(taken)
    for first, (start, _, _) in enumerate(taken):
        total = 0
        for _, end, weight in sorted(taken[first:], key=lambda each: each[1]):
            total += weight
            assert total <= burst + rate * (end - start) / 1e9 + 1e-6
            if total > 3 * burst + 40:
                break


def in_child(work: Callable[[], int]) -> int:
    """Return what a forked child makes of some work."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        found = int(answer.read())
    os.waitpid(child, 0)
    return found


def both(core: hotpath.Core, count: int) -> list[str]:
    """Return the half under test a given number of times."""
    return [core.name] * count


def mixed(count: int) -> list[str]:
    """Return the installed halves in turn."""
    try:
        hotpath.load("compiled")
    except hotpath.MissingLibraryError:
        return ["plain"] * count
    return ["compiled", "plain"] * (count // 2)


# --- the rate -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_eight_processes_hold_one_rate_and_share_it_fairly(core, sharers, name):
    """While all of them wait, each gets between half and twice its share, and all no more than the rate."""
    rate = 200
    for _ in range(8):  # a machine that is busy with other things may not be fair itself
        times = sharers.run(
            "acquire", both(core, 8), limit=limit(name, rate), start=soon(8), seconds=1.2
        )
        if not all(times):  # one of them was not there in time
            continue
        everything = sorted(time for each in times for time in each)
        span = (everything[-1] - everything[0]) / 1e9
        assert len(everything) <= 1 + rate * (span + 0.02)  # the first may have been noted late
        begun, ended = max(each[0] for each in times), min(each[-1] for each in times)
        together = [sum(begun <= time <= ended for time in each) for each in times]
        share = sum(together) / 8
        if share > 20 and all(share / 2 <= count <= 2 * share for count in together):
            return
    raise AssertionError(list(map(len, times)))


@pytest.mark.parametrize("windows", [(), ((60, 0.5),)])
def test_no_window_has_more_permits_than_it_may_from_all_processes_together(
    core, sharers, name, windows
):
    """Each process notes the time before and after each permit, of weights one to three."""
    shared = limit(name, 400, 5, windows=windows)
    found = sharers.run(
        "poll", both(core, 6), limit=shared, start=soon(6), seconds=1.5, weights=(1, 1, 2, 3)
    )
    taken = [tuple(each) for part in found for each in part]
    assert_held(taken, 400, 5)
    for permits, seconds in windows:
        ends = sorted((end, weight) for _, end, weight in taken)
        for start, _, _ in taken:
            inside = [w for s, e, w in taken if start <= s and e <= start + seconds * 1e9]
            assert sum(inside) <= permits
        assert len(ends) > permits // 2
    if not windows:
        assert sum(weight for *_, weight in taken) > 400 * 0.5 / 3


@pytest.mark.parametrize("windows", [(), ((100, 5.0),)])
def test_a_burst_is_handed_out_once_to_all_who_ask_at_the_same_moment(core, sharers, name, windows):
    """Exactly the burst is handed out, however much they compete."""
    shared = limit(name, 0.01, 50, windows=windows)
    got = sharers.run("grab", both(core, 6), limit=shared, start=soon(6), tries=400)
    assert sum(got) == 50


def test_compiled_and_plain_processes_share_a_limit(sharers, name):
    """Plain ones change words under a file lock; compiled ones notice and take it too."""
    shared = limit(name, 0.01, 300)
    got = sharers.run("grab", mixed(6), limit=shared, start=soon(6), tries=400)
    assert sum(got) == 300


def test_a_plain_process_that_joins_compiled_ones_costs_a_permit_at_most(core, sharers, name):
    """Processes already at work take the file lock from then on."""
    shared = limit(name, 0.01, 10**6)
    begun = time.monotonic_ns()
    limiter = RateLimiter(**shared)
    sharers.start("grab", mixed(2), limit=shared, start=0, tries=20_000)
    own = sum(limiter.try_acquire() for _ in range(20_000))
    total = own + sum(sharers.join())
    # the first permit came within the first of these intervals, and every other added one
    counted = (limiter._bucket.words.load(0) - begun) // limiter._bucket.interval
    assert total > 59_000  # some were told to come again, on a machine that is busy
    assert 0 <= total - counted <= 2


def test_one_who_wants_many_at_once_gets_them_in_spite_of_others_who_want_few(core, sharers, name):
    """It claims permits as they come, and a process that only polls does not take them all."""
    shared = limit(name, 300, 5)
    start = soon(4)
    sharers.start("greed", both(core, 3), limit=shared, start=start, seconds=1)
    limiter = RateLimiter(**shared)
    while time.monotonic() < start:
        time.sleep(0.001)
    heavy = 0
    end = core.clock.now() + 950 * MS
    while limiter._wait_sync(end, 5) >= 0:
        heavy += 1
    others = sharers.join()
    assert heavy >= 2
    assert sum(others) > 10
    assert 5 * heavy + sum(others) <= 5 + 300 * 1.3


@pytest.mark.once
def test_processes_that_only_know_the_name_share_a_limit(name):
    """They start one after the other; a permit that one takes is gone for the next."""
    code = (
        "import sys; from opero import RateLimiter\n"
        "limiter = RateLimiter(0.01, 3, scope='machine', name=sys.argv[1])\n"
        "print(limiter.try_acquire(2), flush=True)"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code, name], capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert told == ["True", "False"]


@pytest.mark.parametrize("how", ["threads", "tasks"])
def test_decorated_functions_of_several_processes_share_a_limit(core, sharers, name, how):
    """The rate counts all of their attempts."""
    found = sharers.run(
        "call", both(core, 3), limit=limit(name, 150), start=soon(3), count=10, how=how
    )
    times = sorted(time for part in found for time in part)
    assert len(times) == 60
    assert times[-1] - times[0] >= 59 / 150 * 1e9 - 20 * MS


def test_a_claim_holds_others_up_until_it_is_waived_or_over(core, name):
    """Leaving the line waives a claim; the claim of a dead process expires."""
    limiter, other = (RateLimiter(**limit(name, 10, 3)) for _ in range(2))
    assert limiter.try_acquire(2)
    limiter._bucket.stake(limiter._queue.clock.now(), 2)
    assert not other.try_acquire()
    other._bucket.stake(limiter._queue.clock.now(), 1)  # there is one already
    limiter._bucket.waive()
    assert other.try_acquire()
    limiter._bucket.stake(limiter._queue.clock.now(), 1)
    begun = time.monotonic()
    other.acquire_sync()
    assert 0.05 < time.monotonic() - begun < 15
    limiter._bucket.stake(limiter._queue.clock.now(), 1)
    limiter.acquire_sync()  # its own claim does not hold it up, and is over now
    assert limiter._bucket.claim == 0


# --- those who die, stop, fork -------------------------------------------------------------------------


@pytest.mark.parametrize("halves", ["own", "mixed"])
def test_processes_that_are_killed_in_the_middle_of_a_step_hold_nobody_up(
    core, sharers, name, halves
):
    """The limit continues at its rate, wherever they died."""
    shared = limit(name, 2000, 10)
    pids = sharers.start("struggle", mixed(6) if halves == "mixed" else both(core, 6), limit=shared)
    limiter = RateLimiter(**shared)
    begun = time.monotonic_ns()
    dice = random.Random(5)
    for pid in pids:
        time.sleep(dice.random() * 0.05)
        os.kill(pid, signal.SIGKILL)
    assert sharers.join() == [None] * 6
    taken = 0
    start = time.monotonic_ns()
    while time.monotonic_ns() < start + 100 * MS:
        limiter.acquire_sync()
        taken += 1
    span = (time.monotonic_ns() - begun) / 1e9
    assert 2 <= taken <= 10 + 2000 * span


def test_a_stopped_process_holds_nobody_up_for_good(core, sharers, name):
    """That includes one that stops while it holds the file lock."""
    shared = limit(name, 1000, 5)
    pids = sharers.start("struggle", ["plain"] * 2, limit=shared)
    limiter = RateLimiter(**shared)
    time.sleep(0.1)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    limiter._bucket.words.begin()
    limiter._bucket.words.end()
    begun = time.monotonic()
    for _ in range(3):
        limiter._wait_sync(core.clock.now() + 300 * MS)
    assert time.monotonic() - begun < 20
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGKILL)
    assert sharers.join() == [None, None]
    limiter.acquire_sync()


def test_a_forked_child_shares_the_limit_and_has_a_lock_of_its_own(core, sharers, name):
    """It inherits the memory, but must not use its parent's lock."""
    for half in {core.name, "plain"}:
        shared = limit(f"{name}-{half}", 0.01, 40)
        (got,) = sharers.run("forked", [half], limit=shared, start=soon(2), tries=2000)
        assert sum(got) == 40


# --- pauses -------------------------------------------------------------------------------------------


def test_a_pause_is_heeded_by_all_processes_and_those_who_wait(core, sharers, name):
    """Nobody gets a permit during the pause; then permits come one by one."""
    shared = limit(name, 200, 5)
    start = soon(5)
    sharers.start("poll", both(core, 4), limit=shared, start=start, seconds=2.0)
    limiter = RateLimiter(**shared)
    while time.monotonic() < start + 0.1:
        time.sleep(0.001)
    before = time.monotonic_ns()
    limiter.pause(0.4)
    after = time.monotonic_ns()
    taken = [tuple(each) for part in sharers.join() for each in part]
    assert not [each for each in taken if after <= each[0] and each[1] <= before + 400 * MS]
    late = sorted(end for start, end, _ in taken if start > before + 400 * MS)
    assert late
    for count, end in enumerate(late):  # the burst is spent
        assert count <= 200 * (end - before - 400 * MS) / 1e9


def test_a_pause_holds_up_a_waiter_that_stands_in_line_already(core, name):
    """That includes a waiter of the other limiter."""
    limiter, other = RateLimiter(**limit(name, 50)), RateLimiter(**limit(name, 50))
    limiter.acquire_sync()
    limiter.pause(2)  # until both stand there, however busy the machine is
    waiters = [Job(each.acquire_sync) for each in (limiter, other)]
    until(lambda: limiter._bucket.queued == other._bucket.queued == 1)
    begun = time.monotonic()
    other.pause(2.3)
    other.pause(0.05)  # the longer one goes on
    other.pause(0)
    for waiter in waiters:
        waiter.result()
    assert 2.31 <= time.monotonic() - begun < 15


# --- names and settings ---------------------------------------------------------------------------------


def test_two_limiters_of_one_name_are_one_limit_and_other_names_are_others(core, name):
    """Any string can be a name."""
    one, two = (RateLimiter(**limit(name, 0.01, 2)) for _ in range(2))
    assert [one.try_acquire(), two.try_acquire(), one.try_acquire()] == [True, True, False]
    for odd in ("", "/", "..", "a/b", "\0", "ü\n", "\udc80", name * 100):
        assert RateLimiter(**limit(name + odd + "x", 0.01)).try_acquire()


def test_another_rate_under_a_name_in_use_is_refused_and_both_are_named(core, name):
    """Once nobody uses the name, it is free for another rate."""
    limiter = RateLimiter(**limit(name, 5, 2))
    with pytest.raises(ValueError, match=r"5\.0 per second with burst 2 .* 7\.0 per second with b"):
        RateLimiter(**limit(name, 7, 2))
    with pytest.raises(ValueError, match=r"cannot be 5\.0 per second .*, 9 in any 60\.0 s here"):
        RateLimiter(**limit(name, 5, 2, windows=[(9, 60)]))
    assert RateLimiter(**limit(name, 5, 2)).try_acquire(2)
    assert not limiter.try_acquire()
    del limiter
    gc.collect()
    assert RateLimiter(**limit(name, 7, 2)).try_acquire(2)


def test_a_limit_outlives_those_who_use_it(core, name):
    """A program that starts again does not get a new burst."""
    assert RateLimiter(**limit(name, 0.01, 3)).try_acquire(3)
    gc.collect()
    assert not RateLimiter(**limit(name, 0.01, 3)).try_acquire()


def test_a_pickle_is_the_same_limit_under_the_same_name(core, name):
    """So the workers of a process pool share it."""
    limiter = RateLimiter(**limit(name, 0.01, 3, windows=[(10, 5)]))
    twin = pickle.loads(pickle.dumps(limiter))
    assert repr(twin) == repr(limiter)
    assert twin.try_acquire()
    assert not limiter.try_acquire(3)
    assert limiter.try_acquire(2)


# --- the place --------------------------------------------------------------------------------------------


def test_the_file_and_its_directory_are_for_one_user_alone(core, name, own_place):
    """Only this user can open them, whatever the umask is."""
    for umask in (0o000, 0o777, 0o277):
        own_place.rmdir()
        before = os.umask(umask)
        try:
            limiter = RateLimiter(**limit(name, 5))
        finally:
            os.umask(before)
        assert stat.S_IMODE(own_place.stat().st_mode) == 0o700
        assert stat.S_IMODE(shared_path().stat().st_mode) == 0o600
        assert limiter.try_acquire()
        shared_path().unlink()


@pytest.mark.once
def test_a_file_that_others_can_open_is_refused(name, own_place):
    """Others may have changed its contents."""
    path = own_place / f"{shared_place.boot()}-words"
    path.touch()
    path.chmod(0o644)
    with pytest.raises(UnsafePlaceError, match=r"open to others \(mode 0644\)"):
        RateLimiter(**limit(name, 5))


@pytest.mark.once
def test_a_directory_of_ours_that_others_can_open_is_refused(monkeypatch, tmp_path, own_place):
    """It is ours to mend. Where there is no /dev/shm, it is below the user's runtime directory."""
    own_place.chmod(0o750)
    with pytest.raises(UnsafePlaceError, match="open to others"):
        shared_place.directory()
    monkeypatch.setattr(shared_place, "_SHM", tmp_path / "none")
    (tmp_path / "runtime").mkdir(mode=0o700)
    assert shared_place.directory().parent == tmp_path.resolve() / "runtime"


@pytest.mark.once
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can")
@pytest.mark.parametrize("what", ["directory", "file", "link"])
def test_where_another_user_has_taken_the_place_another_one_is_used(
    what, name, own_place, monkeypatch, tmp_path, caplog
):
    """The other place is below the home directory, if there is one; the log says so once."""
    other = RateLimiter(**limit(name, 5))
    shutil.rmtree(own_place)
    {
        "directory": own_place.mkdir,
        "file": own_place.touch,
        "link": lambda: own_place.symlink_to(tmp_path),
    }[what]()
    os.chown(own_place, 12345, 12345, follow_symlinks=False)
    (tmp_path / "runtime").mkdir(mode=0o700)
    assert shared_place.directory().parent == tmp_path.resolve() / "runtime"
    monkeypatch.setattr(shared_place, "_home", lambda _: tmp_path / "home")
    limiter = RateLimiter(**limit(name, 5))
    assert RateLimiter(**limit(name, 5))._bucket.words is limiter._bucket.words
    assert shared_place.directory().parent == tmp_path.resolve() / "home" / ".cache" / "opero"
    (told,) = [each.getMessage() for each in caplog.records if "home" in each.getMessage()]
    assert "belongs to user 12345" in told
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_place, "_bases", lambda _: [tmp_path])
        with pytest.raises(UnsafePlaceError, match="belongs to user 12345"):
            RateLimiter(**limit(name, 5))
    del other


def test_without_a_place_each_process_keeps_the_limit_by_itself(core, name, monkeypatch, tmp_path):
    """The log says that all of them together may take more."""
    events: list[Any] = []
    monkeypatch.setattr(shared_place, "_bases", lambda _: [tmp_path / "file"])
    (tmp_path / "file").touch()
    end = subscribe(events.append, "store_down")
    try:
        limiter = RateLimiter(**limit(name, 0.01, 2))
    finally:
        end()
    assert [limiter.try_acquire() for _ in range(3)] == [True, True, False]
    assert [event.store for event in events] == [f"the machine-wide rate limit {name!r}"]
    assert pickle.loads(pickle.dumps(limiter)).try_acquire()


@pytest.mark.once
@pytest.mark.parametrize("content", [b"x" * 100, b"opero\0\0\1" + b"\0" * 600, "header", "record"])
def test_a_file_that_is_none_of_ours_is_replaced(name, own_place, content):
    """It was broken by somebody. Those who use it find the new one."""
    limiter = RateLimiter(**limit(name, 0.01, 3))
    assert limiter.try_acquire()
    path = shared_path()
    if isinstance(content, bytes):
        data = content
    else:
        data = path.read_bytes()
        at = 8 if content == "header" else 512 + 16
        data = data[:at] + b"\xff" * 8 + data[at + 8 :]
    with path.open("r+b") as file:  # an own one: closing it ends no lock of ours
        file.write(data)
    twin = RateLimiter(**limit(name, 0.01, 3))
    assert path.read_bytes()[:8] == b"opero\0\0\2"
    assert twin.try_acquire()


@pytest.mark.once
def test_files_of_an_earlier_boot_are_not_read_and_are_swept_away(name, own_place, monkeypatch):
    """Their times count from another moment."""
    with monkeypatch.context() as patch:
        patch.setattr(shared_place, "boot", lambda: "0123")
        old = RateLimiter(**limit(name, 0.01))
        assert old.try_acquire()
        path = shared_path()
        assert path.exists()
    assert RateLimiter(**limit(name, 0.01)).try_acquire()
    assert not path.exists()


# --- a file that is removed, or full ------------------------------------------------------------------


@pytest.mark.parametrize("which", ["the file", "the directory"])
@pytest.mark.parametrize(
    "more", [{}, {"windows": ((40, 3600.0),)}, {"adaptive": True, "floor": 0.001}]
)
def test_a_file_that_is_removed_doubles_no_rate(core, name, own_place, which, more):
    """A logout may remove it: its users join the new file and bring what they know."""
    limiter = RateLimiter(**limit(name, 0.01, 3, **more))
    assert limiter.try_acquire(3)
    if which == "the file":
        shared_path().unlink()
    else:
        shutil.rmtree(own_place)
    if more.get("adaptive"):
        limiter._bucket.leave(core.clock.now(), 2, core.clock.now() - 1, 0)
    limiter._bucket.words.look_at = 0
    assert not limiter.try_acquire()
    assert stat.S_IMODE(own_place.stat().st_mode) == 0o700
    newcomer = RateLimiter(**limit(name, 0.01, 3, **more))
    assert not newcomer.try_acquire()
    assert newcomer._bucket.words is limiter._bucket.words
    assert newcomer.rate == limiter.rate


def test_a_process_that_finds_the_file_made_anew_by_another_joins_it(core, name, own_place):
    """Permits taken from either file count; from then on both processes use one."""
    limiter = RateLimiter(**limit(name, 0.01, 30))
    assert limiter.try_acquire(30)

    def another() -> int:
        """Return how many permits a newcomer gets."""
        newcomer = RateLimiter(**limit(name, 0.01, 30))
        return sum(newcomer.try_acquire() for _ in range(40))

    shared_path().unlink()
    assert in_child(another) == 30  # once more: it cannot know
    limiter._bucket.words.look_at = 0
    assert not limiter.try_acquire()
    assert in_child(another) == 0
    assert in_child(lambda: int(limiter.try_acquire())) == 0


def test_locks_that_somebody_else_in_this_process_has_ended_are_taken_again(core, name, own_place):
    """Reading and closing the file ends all locks."""
    limiter = RateLimiter(**limit(name, 0.01, 3))
    use = limiter._bucket.words.use

    def is_used() -> int:
        return int(shared_file._is_shared(use.file._descriptor, use.at // 512))

    assert in_child(is_used)
    shared_path().read_bytes()
    assert not in_child(is_used)
    limiter._bucket.words.look_at = 0
    assert limiter.try_acquire()
    assert in_child(is_used)
    shared_path().read_bytes()
    with shared_path().open("r+b") as file:  # others have taken the place meanwhile
        file.seek(use.at)
        file.write(b"x" * 16)
    limiter._bucket.words.look_at = 0
    assert limiter.try_acquire()  # it begins anew: what stands in its place is not its own
    twin = RateLimiter(**limit(name, 0.01, 3))
    assert twin._bucket.words is limiter._bucket.words
    assert twin.try_acquire(2)
    assert not limiter.try_acquire()


def test_descriptors_that_somebody_has_closed_are_opened_again(core, name, own_place):
    """As programs do that become daemons. What has their numbers then is left alone."""
    limiter = RateLimiter(**limit(name, 0.01, 3))
    words = limiter._bucket.words
    number = words.use.file._descriptor
    assert limiter.try_acquire()
    os.close(number)
    other = os.open(os.devnull, os.O_RDONLY)
    if other != number:
        os.dup2(other, number)
        os.close(other)
    limiter.try_acquire()  # it may be told to come again
    words.look_at = 0
    assert sum(limiter.try_acquire() for _ in range(3)) in (1, 2)
    assert not RateLimiter(**limit(name, 0.01, 3)).try_acquire()
    assert words.use.file._descriptor != number
    words.use.file.before = None
    gc.collect()
    assert os.path.samestat(os.fstat(number), Path(os.devnull).stat())
    os.close(number)


def test_a_removed_file_of_another_rate_changes_nothing_here(core, name, own_place):
    """The first user keeps its own rate."""
    limiter = RateLimiter(**limit(name, 0.01, 3))
    shared_path().unlink()
    other = RateLimiter(**limit(name, 7))
    limiter._bucket.words.look_at = 0
    assert [limiter.try_acquire() for _ in range(4)] == [True] * 3 + [False]
    assert other.try_acquire()


@pytest.mark.once
def test_many_limits_share_a_descriptor_and_take_room_only_while_they_say_something(
    name, own_place, monkeypatch
):
    """Names that are used only once, such as tenants' names, do not fill the memory."""
    monkeypatch.setattr(shared_file, "_SIZE", 1 << 13)
    kept = [RateLimiter(**limit(f"{name}-kept-{at}", 0.01)) for at in range(3)]
    before = open_files()
    paused = RateLimiter(**limit(f"{name}-paused", 1000))
    paused.pause(3600)
    del paused
    for at in range(200):
        assert RateLimiter(**limit(f"{name}-{at}", 1e6)).try_acquire()
        assert RateLimiter(**limit(f"{name}-wide-{at}", 1e6, windows=[(10**6, 1)])).try_acquire()
    assert shared_path().stat().st_size == 1 << 13
    assert open_files() == before
    assert [each.try_acquire() for each in kept] == [True] * 3
    assert not RateLimiter(**limit(f"{name}-paused", 1000)).try_acquire()
    many = [RateLimiter(**limit(f"{name}-many-{at}", 0.01)) for at in range(100)]
    assert [each.try_acquire() for each in many] == [True] * 100
    assert [each.try_acquire() for each in many + kept] == [False] * 103
    assert open_files() <= before + 4  # one for each time that it has doubled


@pytest.mark.once
def test_a_full_file_system_turns_into_no_crash(name, own_place, monkeypatch):
    """Touching unbacked memory would kill the process, so the file is written first."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    limiter = RateLimiter(**limit(name, 0.01, 2))
    assert [limiter.try_acquire() for _ in range(3)] == [True, True, False]
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: real(file, data[:5], at))
    assert RateLimiter(**limit(name, 0.01, 2)).try_acquire()
    monkeypatch.setattr(os, "pwrite", real)
    assert RateLimiter(**limit(name, 0.01, 2)).try_acquire(2)


# --- clocks and deadlines -----------------------------------------------------------------------------------


def test_a_machine_wide_limit_goes_by_real_time_under_the_clocks_of_tests(core, name):
    """Processes outside the test share it, and their time does not move."""
    limiter = RateLimiter(**limit(name, 20))
    fetch = opero(retries=1, rate_limit=limiter)(lambda: "value")
    begun = time.monotonic()
    with skip_waits() as clock:
        assert [fetch() for _ in range(3)] == ["value"] * 3
        assert clock.waited >= 0.1
    with manual_clock() as clock:
        clock.advance(1000)
        assert [fetch() for _ in range(3)] == ["value"] * 3
    assert time.monotonic() - begun >= 5 / 20
    assert fetch.stats().permit_wait >= 0.2


def test_a_deadline_counts_for_a_shared_permit(core, name):
    """A wait that cannot end in time does not begin."""
    limiter = RateLimiter(**limit(name, 0.1))

    @opero(retries=1, rate_limit=limiter, timeout=0.2)
    async def fetch():
        return "value"

    with manual_clock():
        assert run(fetch()) == "value"
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            run(fetch())
    with pytest.raises(DeadlineExceeded):
        run(fetch())
    assert time.monotonic() - begun < 5
    assert limiter._bucket.queued == 0


def test_a_permit_is_given_back_if_nobody_has_taken_one_since(core, name):
    """A task that is cancelled while its permit is handed out does not use it."""
    limiter = RateLimiter(**limit(name, 0.01, 3, windows=[(30, 60)]))
    bucket = limiter._bucket
    assert bucket.enter(core.clock.now()) == 0
    receipt = bucket.receipt()
    bucket.undo(receipt)
    assert limiter.try_acquire(3)
    bucket.undo(receipt)
    assert not limiter.try_acquire()


def test_a_cancelled_task_leaves_its_place_to_the_next(core, name):
    """This works as in the other scopes."""
    limiter = RateLimiter(**limit(name, 20))

    async def main():
        await limiter.acquire()
        tasks = [asyncio.ensure_future(limiter.acquire()) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks[:4]:
            task.cancel()
        begun = time.monotonic()
        await tasks[4]
        return time.monotonic() - begun

    assert run(main()) < 3 / 20
    assert limiter._bucket.queued == 0


@pytest.mark.parametrize("mode", ["thread", "process", "async"])
def test_maps_take_their_permits_from_a_machine_wide_limit(core, name, mode):
    """In every mode the parent takes the permits."""
    limiter = RateLimiter(**limit(name, 100))
    function = halve_async if mode == "async" else halve
    begun = time.monotonic()
    assert opmap(mode=mode, workers=2, rate_limit=limiter)(function)(range(20)) == [
        number / 2 for number in range(20)
    ]
    assert time.monotonic() - begun >= 19 / 100
    assert limiter._bucket.queued == 0


def halve(number):
    return number / 2


async def halve_async(number):
    return number / 2


def test_shared_memory_is_let_go_with_its_limiter(core, name):
    """Neither a descriptor nor a mapping remains."""
    RateLimiter(**limit(name, 5)).try_acquire()
    gc.collect()
    before = open_files()
    for _ in range(5):
        RateLimiter(**limit(name, 5)).try_acquire()
    gc.collect()
    assert open_files() == before


def open_files():
    """Count the open files, where the system lists them."""
    place = Path("/proc/self/fd")
    return len(list(place.iterdir())) if place.exists() else 0


# --- a rate that adapts ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_find_out_together_what_a_server_allows(core, sharers, name):
    """Compiled and plain processes have one rate, and together use what the server allows."""
    for attempt in range(5):
        adaptive = limit(f"{name}-{attempt}", 500, adaptive=True, floor=10)
        server = limit(f"{name}-server-{attempt}", 100, 5)
        found = sharers.run(
            "learn", mixed(4), limit=adaptive, server=server, start=soon(4), seconds=4.0
        )
        served, rejected, rates = zip(*found, strict=True)
        if sum(served) > 200 and min(served) > 10:
            break  # else the machine was too busy to ask for more than the server allows
    assert sum(served) > 200
    assert sum(rejected) < sum(served) / 4
    assert min(served) > 10
    assert max(rates) < 250  # the last one asked at another moment than the first
    assert RateLimiter(**adaptive).rate < 500  # a newcomer resets nothing


def test_a_machine_wide_limit_adapts_with_the_same_settings_only(name):
    """Another floor makes another limit."""
    shared = limit(name, 50, adaptive=True)
    limiter = RateLimiter(**shared)
    assert (limiter.rate, limiter.floor) == (50, 0.5)
    with pytest.raises(ValueError, match=r"adaptive down to 0\.5 for the processes that use it"):
        RateLimiter(**limit(name, 50))
    with pytest.raises(ValueError, match=r"it cannot be 50\.0 per second .* adaptive down to 5\.0"):
        RateLimiter(**limit(name, 50, adaptive=True, floor=5))


def test_a_function_tells_a_machine_wide_limit_of_rejections(core, name):
    """That works even if the clock of decorated functions is moved."""
    limiter = RateLimiter(**limit(name, 50, adaptive=True))

    class Busy(Exception):
        status = 429

    @opero(retries=1, rate_limit=limiter)
    def fetch() -> None:
        raise Busy

    with pytest.raises(Busy):
        fetch()
    rate = limiter.rate
    assert rate < 50
    with skip_waits(), manual_clock() as clock:
        clock.advance(60)
        with pytest.raises(Busy):
            fetch()
    assert pickle.loads(pickle.dumps(limiter)).rate == limiter.rate <= rate
