"""The demo keeps its promises, and each of them is broken by an opero that does not."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import pickle
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from opero import RateLimiter, hotpath, opero
from opero.__main__ import main
from opero.demo import clients, play, scenes
from opero.demo import server as demo_server
from opero.demo.report import Promise, Report, Scene
from opero.demo.server import KINDS, MOST_TROUBLES, DemoServer, Gate, Limit, answer, troubles

pytestmark = pytest.mark.once

LIMIT = Limit(rate=40.0, burst=5)

Decorate = Callable[..., Any]


HALVES = tuple(dict.fromkeys((hotpath.core.name, "plain")))
"""The demo is run on the active implementation, and on plain Python."""


@pytest.fixture
def server() -> Iterator[DemoServer]:
    """A server that listens."""
    with DemoServer(7, LIMIT) as listening:
        yield listening


def changed(**changes: Any) -> Decorate:
    """An opero that takes other options than it is given; None leaves an option out."""

    def sabotaged(**options: Any) -> Any:
        options.update(changes)
        return opero(**{name: value for name, value in options.items() if value is not None})

    return sabotaged


def racing(**options: Any) -> Any:
    """An opero whose cache has no single flight."""

    def decorate(function: Callable[..., Any]) -> Any:
        inner: Any = opero(**{**options, "cache": False})(function)
        kept: dict[str, str] = {}

        @functools.wraps(function)
        def called(key: str) -> str:
            if key not in kept:
                kept[key] = inner(key)
            return kept[key]

        @functools.wraps(function)
        async def awaited(key: str) -> str:
            if key not in kept:
                kept[key] = await inner(key)
            return kept[key]

        wrapper: Any = awaited if inspect.iscoroutinefunction(function) else called
        wrapper.stats = inner.stats
        return wrapper

    return decorate


def broken_claims(report: Report) -> str:
    """The claims that were broken, one a line."""
    return "\n".join(f"{promise.scene}: {promise.claim}" for promise in report.broken)


# ------------------------------------------------------------------------------------ the command


@pytest.mark.parametrize("half", HALVES)
def test_the_demo_keeps_every_promise_in_a_process_of_its_own(half: str) -> None:
    """`python -m opero demo` ends with 0, in time, and leaves no warning of an open socket."""
    plain = "1" if half == "plain" else "0"
    compiled = "0" if half == "plain" else "1"
    started = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "opero", "demo", "--seed", "11"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OPERO_PURE_PYTHON": plain, "OPERO_REQUIRE_COMPILED": compiled},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    assert f"{half} core" in ran.stdout
    assert "BROKEN" not in ran.stdout
    assert "promises kept" in ran.stdout
    assert time.monotonic() - started < 20


def test_an_import_of_opero_does_not_import_the_demo() -> None:
    """Who uses the library does not pay for its demo, its doctor or an event loop."""
    code = "import json, sys, opero; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = json.loads(ran.stdout)
    assert not [name for name in modules if name.startswith(("opero.demo", "opero.doctor"))]
    assert "opero" in modules


def test_one_scene_can_be_played_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """`--only` plays the scenes it names, and what must hold after every run."""
    assert main(["demo", "--only", "failure", "--seed", "5"]) == 0
    told = capsys.readouterr().out
    assert "failure, called" in told
    assert "hot loop" not in told
    assert "afterwards: no thread is left behind" in told


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--only", "nonsense"], "no scene is called 'nonsense'"),
        (["--calls", "3"], "use 25 or more"),
        (["--seed", "x"], "invalid int value"),
    ],
)
def test_wrong_words_are_told_and_nothing_is_played(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown scene, a senseless count and a seed that is no number end with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", *words])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_broken_promise_is_named_and_the_exit_code_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client that does not keep to the limit is told by name, and the command fails."""
    monkeypatch.setattr(scenes, "opero", changed(rate_limit=None))
    assert main(["demo", "--only", "limit"]) == 1
    told = capsys.readouterr().out
    assert "BROKEN  rate limit: the server answered every request and never had to say 429" in told
    assert "broken: rate limit: " in told


# ------------------------------------------------------------------- each promise can be broken


@pytest.mark.parametrize(
    ("scene", "sabotage", "claims"),
    [
        ("hot", changed(cache=None, cache_ttl=None), ["asked once for each key", "was a hit"]),
        ("hot", changed(cache_ttl=1e-6), ["asked once for each key", "was a hit"]),
        ("retry", changed(retries=1), ["got its answer in the end"]),
        ("retry", changed(min_delay=0.0, max_delay=0.0), ["50 ms of peace", "on record"]),
        ("fallback", changed(arg_fallback=None, min_delay=0.01), ["the backup answered"]),
        ("limit", changed(rate_limit=None), ["never had to say 429", "late ones forgiven"]),
        ("flight", changed(cache=None), ["server saw one request"]),
        ("flight", racing, ["server saw one request"]),
        ("failure", changed(retries=1), ["an error per attempt"]),
        ("failure", changed(retry_on=None), ["a 404, which retry_on does not name"]),
    ],
    ids=[
        "no-cache",
        "cache-forgets",
        "no-retries",
        "no-backoff",
        "no-fallback",
        "no-limit",
        "no-cache-for-a-crowd",
        "no-single-flight",
        "one-attempt",
        "everything-retried",
    ],
)
def test_an_opero_that_does_less_breaks_its_promise(
    scene: str, sabotage: Decorate, claims: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever mechanism is taken away, the scene that is about it says so."""
    monkeypatch.setattr(scenes, "opero", sabotage)
    report = play(3, [scene], hot_calls=200)
    assert report.exit_code == 1
    for claim in claims:
        assert claim in broken_claims(report)


def test_a_call_without_its_deadline_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that wait as long as it takes are seen to be late."""
    monkeypatch.setattr(demo_server, "STALL", 0.6)
    sabotaged = changed(timeout=None, min_delay=0.01, max_delay=0.02, rate_limit=None)
    monkeypatch.setattr(scenes, "opero", sabotaged)
    report = play(3, ["deadline"])
    assert report.exit_code == 1
    for claim in ("DeadlineExceeded after 0.4 s", "hang up", "backoff", "permit"):
        assert claim in broken_claims(report)


def test_a_limiter_that_is_twice_too_fast_breaks_its_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the server forgives is lateness, not another rate."""
    monkeypatch.setattr(
        scenes, "RateLimiter", lambda rate, burst: RateLimiter(2 * rate, burst=burst)
    )
    report = play(3, ["limit"], limit=LIMIT)
    assert "never had to say 429" in broken_claims(report)
    assert "late ones forgiven" in broken_claims(report)


def test_a_limiter_that_wastes_permits_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limiter that is far slower than its rate is noticed as well."""
    monkeypatch.setattr(
        scenes, "RateLimiter", lambda rate, burst: RateLimiter(rate / 4, burst=burst)
    )
    report = play(3, ["limit"], limit=Limit(rate=320.0, burst=5))
    assert "use what the limit allows" in broken_claims(report)


def test_a_thread_that_is_left_behind_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo looks for what outlives it."""
    end = threading.Event()
    stray = threading.Thread(target=end.wait, name="stray", daemon=True)

    def littering(stage: scenes.Stage) -> Scene:
        stray.start()
        return Scene("littering")

    monkeypatch.setitem(scenes.SCENES, "littering", littering)
    try:
        report = play(3, ["littering"])
    finally:
        end.set()
        stray.join()
    assert "no thread is left behind" in broken_claims(report)
    assert "stray" in report.text()


def test_a_scene_that_breaks_off_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a scene is no reason to count it as kept, nor to skip the others."""

    def falling(stage: scenes.Stage) -> Scene:
        raise LookupError("fell over")

    monkeypatch.setitem(scenes.SCENES, "falling", falling)
    report = play(3, ["falling", "failure"])
    assert "falling: the scene is played to its end" in broken_claims(report)
    assert "LookupError: fell over" in report.text()
    assert len(report.broken) == 1


def test_threads_that_never_end_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that hangs costs its time limit and comes back as a TimeoutError."""
    monkeypatch.setattr(scenes, "LONGEST", 0.05)
    end = threading.Event()
    hung, fine = scenes._in_threads([lambda: end.wait(30), lambda: True])
    end.set()
    assert isinstance(hung, TimeoutError)
    assert fine is True


# ------------------------------------------------------------------------------------ the report


def test_a_report_without_promises_is_no_success() -> None:
    """Nothing checked is nothing kept."""
    assert Report().exit_code == 1


def test_the_exit_code_is_0_only_if_every_promise_held() -> None:
    """One broken promise among many is enough."""
    kept, broken = Promise("s", "kept", True, ""), Promise("s", "broken", False, "seen")
    assert Report([Scene("s", [], [kept, kept])]).exit_code == 0
    assert Report([Scene("s", [], [kept, broken])]).exit_code == 1
    assert [broken] == Report([Scene("s", [], [kept, broken])]).broken


# ------------------------------------------------------------------------- the server's own watch


def test_evenly_spaced_arrivals_are_within_the_limit_to_the_letter() -> None:
    """A burst and then one request per 1/rate seconds has no excess."""
    times = [0.0] * LIMIT.burst + [n / LIMIT.rate for n in range(1, 100)]
    assert LIMIT.excess(times) == pytest.approx(0.0, abs=1e-9)
    assert LIMIT.pace(times) == pytest.approx(LIMIT.rate)


def test_the_excess_counts_the_requests_too_many() -> None:
    """Three above the burst at one moment are three too many, wherever they stand."""
    crowd = [5.0] * (LIMIT.burst + 3)
    assert LIMIT.excess(crowd) == pytest.approx(3.0)
    assert LIMIT.excess([0.0, *crowd, 9.0]) == pytest.approx(3.0)
    assert LIMIT.excess([]) == float("-inf")
    assert LIMIT.pace([1.0]) is None


@pytest.mark.parametrize("seed", range(20))
def test_the_gate_refuses_exactly_when_the_excess_is_not_forgiven(seed: int) -> None:
    """The gate, request by request, and the worst window, afterwards, are of one opinion."""
    chance = random.Random(seed)
    at, times, gate, refused = 0.0, [], Gate(LIMIT), False
    for _ in range(200):
        at += chance.expovariate(LIMIT.rate * chance.choice((0.5, 1.0, 1.2)))
        times.append(at)
        refused = not gate.admits(at) or refused
        assert refused == (LIMIT.excess(times) > LIMIT.tolerated)


def test_a_rush_is_answered_with_429(server: DemoServer) -> None:
    """The server itself refuses who is faster than limit and tolerance allow."""
    statuses = []
    for _ in range(int(LIMIT.burst + LIMIT.tolerated) + 60):
        try:
            clients.fetch(server.address, "/limited", "rush")
            statuses.append(200)
        except clients.BadStatus as error:
            statuses.append(error.status)
    assert statuses[0] == 200
    assert 429 in statuses
    assert statuses == [arrival.status for arrival in server.seen("/limited")]


def test_troubles_are_the_same_for_one_seed_and_differ_between_seeds() -> None:
    """What goes wrong is decided by seed and key alone."""
    keys = [f"key-{n}" for n in range(30)]
    first, again, other = ([troubles(seed, key) for key in keys] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert max(map(len, first)) <= MOST_TROUBLES


@pytest.mark.parametrize("seed", range(20))
def test_three_keys_meet_every_kind_of_trouble(seed: int) -> None:
    """Whatever the seed is, a run has a 500, a 429 and a stall to get past."""
    assert tuple(troubles(seed, f"thread-{n}")[0] for n in range(3)) == KINDS


def test_the_server_answers_each_path_as_it_says(server: DemoServer) -> None:
    """Good paths answer with a text of their own, the others with their status."""
    for path in ("/item", "/backup", "/slow"):
        assert answer(7, path, "a b&c") == clients.fetch(server.address, path, "a b&c")
    for path, status in (("/broken", 500), ("/nowhere", 404)):
        with pytest.raises(clients.BadStatus) as refused:
            clients.fetch(server.address, path)
        assert status == refused.value.status


def test_a_flaky_key_is_answered_once_its_troubles_are_over(server: DemoServer) -> None:
    """Each request meets the next trouble; a stalled one is seen to be given up."""
    planned = troubles(7, "thread-2")
    assert planned[0] == "stall"
    for trouble in planned:
        with pytest.raises(TimeoutError if trouble == "stall" else clients.BadStatus):
            clients.fetch(server.address, "/flaky", "thread-2", timeout=0.1)
    assert clients.fetch(server.address, "/flaky", "thread-2") == answer(7, "/flaky", "thread-2")
    seen = server.seen("/flaky", "thread-2")
    assert list(range(len(planned) + 1)) == [arrival.nth for arrival in seen]
    assert server.eventually(lambda: seen[0].hung_up)
    assert seen[0].status == 0


def test_both_clients_tell_the_same(server: DemoServer) -> None:
    """The one for tasks answers, refuses and gives up like the one for threads."""

    async def ask(path: str, timeout: float) -> str:
        return await clients.fetch_async(server.address, path, "x", by="task", timeout=timeout)

    assert asyncio.run(ask("/item", 5.0)) == clients.fetch(server.address, "/item", "x")
    with pytest.raises(clients.BadStatus, match="/broken answered 500"):
        asyncio.run(ask("/broken", 5.0))
    with pytest.raises(TimeoutError, match=r"/stall said nothing for 0\.1 s"):
        asyncio.run(ask("/stall", 0.1))
    assert [arrival.by for arrival in server.seen("/broken")] == ["task"]


def test_a_bad_status_survives_a_pickle() -> None:
    """It crosses process borders with its status and path."""
    copy = pickle.loads(pickle.dumps(clients.BadStatus(503, "/item")))
    assert (copy.status, copy.path) == (503, "/item")


def test_who_does_not_speak_http_does_not_stop_the_server(server: DemoServer) -> None:
    """Nonsense costs the one who sent it his connection, and nobody else anything."""
    host, _, port = server.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert client.recv(100) == b""
    assert clients.fetch(server.address, "/item", "x") == answer(7, "/item", "x")


def test_the_server_ends_at_once_with_a_stall_under_way() -> None:
    """Leaving the server does not wait for the requests that it holds back."""
    with DemoServer(7, LIMIT) as server:
        outcomes: list[str] = []
        client = threading.Thread(
            target=lambda: outcomes.append(clients.fetch(server.address, "/stall", "x"))
        )
        client.start()
        assert server.eventually(lambda: len(server.seen("/stall")) == 1)
        assert not server.closed
        started = time.monotonic()
    client.join(5)
    assert time.monotonic() - started < 2
    assert server.closed
    assert [answer(7, "/stall", "x")] == outcomes


def test_one_seed_plans_the_same_troubles_in_every_process() -> None:
    """The seed alone decides, not the hash seed of a process."""
    code = "from opero.demo.server import troubles; print(troubles(9, 'thread-7'))"
    for hash_seed in ("0", "1"):
        ran = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        assert f"{troubles(9, 'thread-7')}" == ran.stdout.strip()
