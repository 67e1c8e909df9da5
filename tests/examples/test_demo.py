"""The demo keeps its promises, and each of them is broken by an opero that does not."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import pickle
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import demo
import pytest
from crowd import until_group_ends
from demo import clients, library, maps, outages, play, scenes, stage
from demo import server as demo_server
from demo.__main__ import main
from demo.report import Promise, Report, Scene
from demo.server import (
    KINDS,
    MISHAPS,
    MOST_MISHAPS,
    MOST_TROUBLES,
    DemoServer,
    Gate,
    Limit,
    answer,
    mishaps,
    troubles,
)

from opero import RateLimiter, attempts, hotpath, opero, opmap
from opero.map.engines.processes import pool

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.checkout, pytest.mark.once]

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


def _fixed(rate: float, **_: Any) -> RateLimiter:
    """A limiter that does not adapt."""
    return RateLimiter(rate)


def _once(**options: Any) -> Any:
    """Attempts that are not made again."""
    return attempts(**{**options, "retries": 1})


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


@pytest.mark.parametrize(
    "half", [HALVES[0], *(pytest.param(half, marks=pytest.mark.slow) for half in HALVES[1:])]
)
def test_the_demo_keeps_every_promise_in_a_process_of_its_own(half: str) -> None:
    """`python examples/demo` ends with 0, in time, with no warning and no process left behind."""
    plain = "1" if half == "plain" else "0"
    compiled = "0" if half == "plain" else "1"
    words = ["--seed", "11", "--files", "50", "--urls", "250"]
    ran = subprocess.Popen(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "demo"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OPERO_PURE_PYTHON": plain, "OPERO_REQUIRE_COMPILED": compiled},
    )
    with ran:
        try:
            told, complaints = ran.communicate(timeout=100)
        except BaseException:
            ran.kill()  # its workers end by themselves then
            raise
    assert ran.returncode == 0, told + complaints
    assert complaints == ""
    assert f"{half} core" in told
    assert "BROKEN" not in told
    assert told.endswith("; exit code 0\n")
    assert max(map(len, told.splitlines())) <= 100
    assert f"50 of {len(library.files()):,}, as asked" in told
    if hasattr(os, "killpg"):
        until_group_ends(ran.pid)


def test_one_scene_can_be_played_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """`--only` plays the scenes it names, and what must hold after every run."""
    assert main(["--only", "failure", "--seed", "5"]) == 0
    told = capsys.readouterr().out
    assert "\nfailure\n  ok      called: " in told
    assert "hot loop" not in told
    assert "no thread is left behind -> none" in told


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--only", "nonsense"], "no scene is called 'nonsense'"),
        (["--calls", "3"], "--calls 3: use 25 or more"),
        (["--files", "0"], "--files 0: use 25 or more"),
        (["--urls", "-1"], "--urls -1: use 25 or more"),
        (["--seed", "x"], "invalid int value"),
    ],
)
def test_wrong_words_are_told_and_nothing_is_played(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown scene, a senseless count and a seed that is no number end with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_broken_promise_is_named_and_the_exit_code_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client that does not keep to the limit is told by name, and the command fails."""
    monkeypatch.setattr(scenes, "opero", changed(rate_limit=None))
    assert main(["--only", "limit"]) == 1
    told = capsys.readouterr().out
    words = " ".join(told.split())
    assert " BROKEN the server answers every request and never says 429 -> " in words
    assert "\nbroken: rate limit: the server answers every request and never says 429\n" in told
    assert "python -m opero doctor" in told
    assert told.endswith("; exit code 1\n")


# ------------------------------------------------------------------- each promise can be broken


@pytest.mark.parametrize(
    ("scene", "sabotage", "claims"),
    [
        ("hot", changed(cache=None, cache_ttl=None), ["asked once for each key", "is a hit"]),
        ("hot", changed(cache_ttl=1e-6), ["asked once for each key", "is a hit"]),
        ("retry", changed(retries=1), ["gets its answer in the end"]),
        ("retry", changed(min_delay=0.0, max_delay=0.0), ["50 ms pass", "counts the waits"]),
        ("fallback", changed(arg_fallback=None, min_delay=0.01), ["the backup answers"]),
        ("limit", changed(rate_limit=None), ["never says 429", "requests at most"]),
        ("flight", changed(cache=None), ["server sees one request"]),
        ("flight", racing, ["server sees one request"]),
        ("failure", changed(retries=1), ["the error of each attempt"]),
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


@pytest.mark.parametrize(
    ("scene", "name", "sabotage", "claims"),
    [
        ("outage", "opero", changed(breaker=None), ["end without a request", "backup answers"]),
        ("outage", "opero", changed(cache_stale=None), ["plays to its end"]),
        ("renewal", "opero", changed(cache_refresh=None), ["only the first reader waits"]),
        ("changing", "RateLimiter", _fixed, ["a rejection lowers the limit"]),
        ("attempts", "opero", changed(attempt_timeout=None), ["stalls is cut", "client hang up"]),
        ("attempts", "opero", changed(retries=1), ["before its first item begins again"]),
        ("attempts", "attempts", _once, ["runs again until it succeeds"]),
        ("off", "disabled", contextlib.nullcontext, ["raises its own error"]),
    ],
    ids=[
        "no-breaker",
        "nothing-stale",
        "no-refresh",
        "fixed-limit",
        "no-attempt-timeout",
        "one-attempt",
        "block-once",
        "not-off",
    ],
)
def test_an_outage_is_noticed_without_what_copes_with_it(
    scene: str, name: str, sabotage: Any, claims: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever mechanism is taken away, the scene that is about it says so."""
    monkeypatch.setattr(demo_server, "STALL", 0.6)
    monkeypatch.setattr(outages, name, sabotage)
    report = play(3, [scene])
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
    for claim in ("cut after 0.4 s", "hang up", "backoff", "permit"):
        assert claim in broken_claims(report)


def test_a_limiter_that_is_twice_too_fast_breaks_its_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the server forgives is lateness, not another rate."""
    monkeypatch.setattr(
        scenes, "RateLimiter", lambda rate, burst: RateLimiter(2 * rate, burst=burst)
    )
    report = play(3, ["limit"], limit=LIMIT)
    assert "never says 429" in broken_claims(report)
    assert "requests at most" in broken_claims(report)


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

    def littering(on: stage.Stage) -> Scene:
        stray.start()
        return Scene("littering")

    monkeypatch.setitem(demo.SCENES, "littering", littering)
    try:
        report = play(3, ["littering"])
    finally:
        end.set()
        stray.join()
    assert "no thread is left behind" in broken_claims(report)
    assert "stray" in report.text()


def test_a_demo_that_takes_too_long_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The serial runs say how fast the machine is."""
    aside = 0.0
    monkeypatch.setitem(demo.SCENES, "quick", lambda on: Scene("quick", aside=aside))
    monkeypatch.setattr(demo, "LONGEST", 0.0)
    assert "it takes less than 0 s" in broken_claims(play(3, ["quick"]))
    aside = 3600.0
    assert "it takes less" not in broken_claims(play(3, ["quick"]))


def test_a_scene_that_breaks_off_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a scene is no reason to count it as kept, nor to skip the others."""

    def falling(on: stage.Stage) -> Scene:
        raise LookupError("fell over")

    monkeypatch.setitem(demo.SCENES, "falling", falling)
    report = play(3, ["falling", "failure"])
    assert "falling: the scene plays to its end" in broken_claims(report)
    assert "LookupError: fell over" in report.text()
    assert len(report.broken) == 1


def test_threads_that_never_end_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that hangs costs its time limit and comes back as a TimeoutError."""
    monkeypatch.setattr(stage, "LONGEST", 0.05)
    end = threading.Event()
    hung, fine = stage.in_threads([lambda: end.wait(30), lambda: True])
    end.set()
    assert isinstance(hung, TimeoutError)
    assert fine is True


# ------------------------------------------------------------------------- promises of the maps


def changed_map(**changes: Any) -> Decorate:
    """An opmap that takes other options than it is given; None leaves an option out."""

    def sabotaged(**options: Any) -> Any:
        options.update(changes)
        return opmap(**{name: value for name, value in options.items() if value is not None})

    return sabotaged


def spoilt_map(spoil: Callable[[list[Any]], None]) -> Decorate:
    """An opmap whose results are spoilt before they are handed on."""

    class Spoilt:
        def __init__(self, inner: Any) -> None:
            self.inner = inner
            self.stats = inner.stats

        def __call__(self, items: Any) -> list[Any]:
            results: list[Any] = self.inner(items)
            spoil(results)
            return results

        async def amap(self, items: Any) -> list[Any]:
            results: list[Any] = await self.inner.amap(items)
            spoil(results)
            return results

    return lambda **options: lambda function: Spoilt(opmap(**options)(function))


def lose_the_last(results: list[Any]) -> None:
    results.pop()


def swap_the_ends(results: list[Any]) -> None:
    results[0], results[-1] = results[-1], results[0]


def forget_why(results: list[Any]) -> None:
    results[:] = [ValueError("failed") if isinstance(each, Exception) else each for each in results]


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A standard library of 80 files, one of which is no Python."""
    bad = tmp_path / "bad.py"
    bad.write_text("def f(:\n")
    few = [*library.files()[:79], str(bad)]
    monkeypatch.setattr(library, "files", lambda: few)
    return few


def test_every_file_of_the_standard_library_is_found_and_no_other() -> None:
    """The packages of others do not count, its own tests do."""
    found = library.files()
    folder = Path(os.__file__).parent
    assert os.__file__ in found
    assert str(folder / "json" / "decoder.py") in found
    assert found == sorted(set(found))
    assert not [path for path in found if "site-packages" in path or not path.endswith(".py")]
    modules = {path.removesuffix(".py") for path in found}
    missing = [
        name
        for name in sys.stdlib_module_names
        if (folder / f"{name}.py").exists() and str(folder / name) not in modules
    ]
    assert not missing


@pytest.mark.parametrize("tables", [True, False], ids=["tables", "trees"])
def test_a_file_is_measured(tables: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested functions and classes count; what is no Python is an error."""
    if not tables:
        monkeypatch.setattr(library, "symtable", None)
    path = tmp_path / "some.py"
    path.write_text("class A:\n    def f(self):\n        def g(): pass\n\nasync def h(): pass\n")
    assert library.measure(str(path)) == (library.Measure(5, 3, 1), os.getpid())
    path.write_bytes(b"# coding: latin-1\nname = '\xe9'\n")
    assert library.measure(str(path)).measure == (2, 0, 0)
    path.write_bytes(b"name = '\xe9'\n")
    with pytest.raises(SyntaxError):
        library.measure(str(path))


def test_the_poison_kills_nobody_but_a_worker(tmp_path: Path) -> None:
    """Who measures it elsewhere is told so."""
    path = tmp_path / "poison.py"
    path.write_bytes(library.POISON)
    with pytest.raises(RuntimeError, match="only a worker process"):
        library.measure(str(path))


def test_a_map_over_files_keeps_its_promises(few_files: list[str]) -> None:
    """One that kills its worker and one that is no Python among them."""
    report = play(3, ["library"])
    assert broken_claims(report) == ""
    assert "80 outcomes, 0 differ" in report.text()
    assert "1 SyntaxError" in report.text()
    assert "SIGKILL" in report.text()
    assert not pool._all


AS_SERIAL = "the outcomes of a serial run"
AS_IT_IS = "the file that kills its worker fails alone"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "claims"),
    [
        (spoilt_map(lose_the_last), [AS_SERIAL]),
        (spoilt_map(swap_the_ends), [AS_SERIAL]),
        (spoilt_map(forget_why), [AS_SERIAL, AS_IT_IS]),
        (changed_map(retry_on=None), [AS_SERIAL, "only that file is tried again"]),
        (changed_map(retries=1), [AS_IT_IS, "only that file is tried again"]),
        (changed_map(retries=3), [AS_IT_IS, "only that file is tried again"]),
        (
            changed_map(mode="thread", workers=1, attempt_timeout=None),
            [AS_IT_IS, "measured in a worker process"],
        ),
    ],
    ids=[
        "loses-one", "out-of-order", "no-reasons", "retries-all",
        "no-retry", "one-retry-more", "no-processes",
    ],
)  # fmt: skip
def test_a_map_over_files_that_does_less_breaks_its_promise(
    sabotage: Decorate, claims: list[str], few_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong with one file among many, the scene says so."""
    monkeypatch.setattr(maps, "opmap", sabotage)
    report = play(3, ["library"])
    assert report.exit_code == 1
    for claim in claims:
        assert claim in broken_claims(report)


def test_a_file_that_kills_nobody_breaks_a_promise(
    few_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo does not take its own poison for granted."""
    monkeypatch.setattr(library, "POISON", b"harmless = True\n")
    report = play(3, ["library"])
    assert AS_IT_IS in broken_claims(report)
    assert AS_SERIAL not in broken_claims(report)


def test_files_that_hardly_any_are_python_break_a_promise(
    few_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a map refuses what a serial run refuses is not enough."""
    few = [*few_files[:20], *[few_files[-1]] * 20]
    monkeypatch.setattr(library, "files", lambda: few)
    assert "valid Python" in broken_claims(play(3, ["library"]))


@pytest.mark.skipif(sys.platform == "win32", reason="processes are not looked for there")
def test_workers_that_do_not_end_break_a_promise(
    few_files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo looks for its worker processes itself."""
    with monkeypatch.context() as patched:
        patched.setattr(pool, "shut", lambda: None)
        report = play(3, ["library"])
    pool.shut()
    assert "end when told to" in broken_claims(report)


def test_a_map_over_urls_keeps_its_promises() -> None:
    """Also when they are few."""
    report = play(3, ["urls"], urls=100)
    assert broken_claims(report) == ""
    assert "URLs: the answers of a serial run, in order -> 0 differ" in report.text()


AS_SERIAL_ANSWER = "the answers of a serial run"
IN_EVERY_WINDOW = "requests at most"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "claims"),
    [
        (spoilt_map(lose_the_last), [AS_SERIAL_ANSWER]),
        (spoilt_map(swap_the_ends), [AS_SERIAL_ANSWER]),
        (changed_map(ordered=False), [AS_SERIAL_ANSWER]),
        (changed_map(retries=1), [AS_SERIAL_ANSWER, "one retry for each", "ms pass before each retry"]),
        (changed_map(min_delay=0.0, max_delay=0.0, workers=1), ["ms pass before each retry"]),
        (changed_map(progress=False), ["progress"]),
        (changed_map(rate_limit=None, burst=None, rate_limit_scope=None), [IN_EVERY_WINDOW]),
        (changed_map(rate_limit_scope="worker"), [IN_EVERY_WINDOW]),
        (changed_map(rate_limit=100.0), [IN_EVERY_WINDOW]),
    ],
    ids=[
        "loses-one", "out-of-order", "as-they-come", "no-retries", "no-backoff", "no-progress",
        "no-limit", "limit-of-each", "twice-too-fast",
    ],
)  # fmt: skip
def test_a_map_over_urls_that_does_less_breaks_its_promise(
    sabotage: Decorate, claims: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever mechanism is taken away, the scene says so."""
    monkeypatch.setattr(maps, "opmap", sabotage)
    pace = Limit(rate=50.0, burst=5) if IN_EVERY_WINDOW in claims else stage.PACE
    report = play(3, ["urls"], urls=300, pace=pace)
    assert report.exit_code == 1
    for claim in claims:
        assert claim in broken_claims(report)


def test_urls_that_are_asked_for_twice_break_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server knows better."""

    async def twice(*args: Any, **options: Any) -> str:
        await clients.fetch_async(*args, **options)
        return await clients.fetch_async(*args, **options)

    monkeypatch.setattr(maps, "fetch_async", twice)
    assert "no other request" in broken_claims(play(3, ["urls"], urls=100))


def test_a_task_and_a_connection_that_are_left_break_a_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The demo looks for what a map leaves in its loop, and at the server."""
    tasks: list[asyncio.Task[None]] = []
    held: list[socket.socket] = []

    async def littering(address: str, *args: Any, **options: Any) -> str:
        if not tasks:
            tasks.append(asyncio.create_task(asyncio.sleep(60), name="stray"))
        return await clients.fetch_async(address, *args, **options)

    async def clinging(address: str, *args: Any, **options: Any) -> str:
        if not held:
            host, _, port = address.partition(":")
            held.append(socket.create_connection((host, int(port)), timeout=5))
        return await clients.fetch_async(address, *args, **options)

    monkeypatch.setattr(maps, "fetch_async", littering)
    report = play(3, ["urls"], urls=100)
    assert "no connection and no task is left" in broken_claims(report)
    assert "stray" in report.text()

    def releasing(*args: Any, **options: Any) -> str:
        held[0].close()  # in the serial run, which comes later
        return clients.fetch(*args, **options)

    monkeypatch.setattr(maps, "fetch_async", clinging)
    monkeypatch.setattr(maps, "fetch", releasing)
    report = play(3, ["urls"], urls=100)
    assert "no connection and no task is left" in broken_claims(report)
    assert "1 connection," in report.text()


# ------------------------------------------------------------------------------------ the report


@pytest.mark.parametrize("width", [80, 100])
def test_every_line_fits_and_says_what_was_promised_and_what_happened(width: int) -> None:
    """Nothing leaves the terminal to break a line, also when what happened is a long story."""
    report = play(3, ["flight", "failure", "off"])
    report.scenes[0].promise("a promise of the usual length, which is broken", False, "it " * 60)
    lines = report.text(width).splitlines()
    assert max(map(len, [*lines, *report.figures(100).splitlines()])) <= 100
    assert max(map(len, lines)) <= width
    for promise in report.promises:
        told = promise.text(width).split()
        assert told == f"{'ok' if promise.held else 'BROKEN'} {promise}".split()
        assert promise.measured
    assert lines[-1].endswith("; exit code 1")
    assert lines[-1].startswith(
        f"{len(report.promises) - 1} of {len(report.promises)} promises kept"
    )


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("120", 100), ("", 100)])
def test_the_demo_is_as_wide_as_the_terminal_and_not_wider_than_100(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a pipe, and where no terminal says how wide it is, too."""
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["--only", "off", "--only", "fallback", "--figures"]) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 100
    promises = [line for line in told.splitlines() if "->" in line]
    assert len(promises) > 6
    assert max(map(len, promises)) <= width
    assert told.endswith("; exit code 0\n")


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


def test_mishaps_are_few_and_of_both_kinds() -> None:
    """They are the same for one seed, and differ between seeds."""
    keys = [f"{number}" for number in range(2000)]
    first, again, other = ([mishaps(seed, key) for key in keys] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert (first[0], first[1]) == (MISHAPS[:1], MISHAPS[1:])
    assert max(map(len, first)) == MOST_MISHAPS
    assert 100 < sum(map(bool, first)) < 300


def test_a_shaky_key_is_answered_once_its_mishaps_are_over(server: DemoServer) -> None:
    """Each client meets them anew; a lost connection is an error of the network."""
    for by in ("one", "two"):
        with pytest.raises(clients.BadStatus):
            clients.fetch(server.address, "/shaky", "0", by=by)
        assert clients.fetch(server.address, "/shaky", "0", by=by) == answer(7, "/shaky", "0")
        with pytest.raises(ConnectionError):
            clients.fetch(server.address, "/shaky", "1", by=by)
    with pytest.raises(ConnectionError):
        asyncio.run(clients.fetch_async(server.address, "/shaky", "1", by="three"))
    assert [arrival.dropped for arrival in server.seen("/shaky", "1")] == [True] * 3
    assert server.eventually(lambda: not server.talking)


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


def test_the_server_ends_at_once_with_a_stall_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving the server does not wait for the requests that it holds back."""
    monkeypatch.setattr(demo_server, "STALL", 30.0)
    with DemoServer(7, LIMIT) as server:
        outcomes: list[str] = []
        client = threading.Thread(
            target=lambda: outcomes.append(clients.fetch(server.address, "/stall", "x"))
        )
        client.start()
        assert server.eventually(lambda: len(server.seen("/stall")) == 1)
        assert not server.closed
        started = time.monotonic()
    client.join(20)
    assert time.monotonic() - started < 15
    assert server.closed
    assert [answer(7, "/stall", "x")] == outcomes


def test_one_seed_plans_the_same_troubles_in_every_process() -> None:
    """The seed alone decides, not the hash seed of a process."""
    code = "from demo.server import troubles; print(troubles(9, 'thread-7'))"
    for hash_seed in ("0", "1"):
        ran = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT / "examples",
        )
        assert f"{troubles(9, 'thread-7')}" == ran.stdout.strip()
