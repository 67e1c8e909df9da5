"""The scenes about `@opero`: each decorates a client, drives it as a user would, checks promises.

    decorated client --requests--> server
           |                          |
        stats()                    its log
           +-----> Scene <------------+

A scene decorates its functions anew each time it is played, so nothing is cached from an earlier
run. Nothing here waits for ever: threads and loops are given `LONGEST` seconds.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple

from opero import AllFailedError, DeadlineExceeded, RateLimiter, opero
from opero.stats import Stats

from .clients import BadStatus, fetch, fetch_async, transient
from .report import Scene, counted
from .server import KINDS, MOST_TROUBLES, Arrival
from .stage import LONGEST, Stage, first_of, in_a_loop, in_threads, outcome_of, timed

PATIENCE: Final = 0.3
"""Seconds that a client waits for a flaky server before it calls it stalled."""

SLACK: Final = 1.0
"""Seconds by which a busy machine may tell us late that something is over."""


# ---------------------------------------------------------------------------------------- scenes


def hot_loop(stage: Stage) -> Scene:
    """A function in a hot loop asks the server once for each key, and never again."""
    scene, address = Scene("hot loop"), stage.address
    keys = [f"hot-{number}" for number in range(5)]

    @opero(cache=True, cache_ttl=300)
    def read(key: str) -> str:
        return fetch(address, "/item", key, by="thread")

    @opero(cache=True, cache_ttl=300)
    async def read_async(key: str) -> str:
        return await fetch_async(address, "/item", key, by="task")

    expected = {key: stage.answer("/item", key) for key in keys}

    def loop(calls: int) -> _Loop:
        made = right = 0
        started = time.perf_counter()
        while made < calls and time.perf_counter() - started < LONGEST / 2:
            lap = (keys * 200)[: calls - made]
            for key in lap:
                right += read(key) == expected[key]
            made += len(lap)
        return _Loop(calls, made, right, time.perf_counter() - started)

    async def loop_async(calls: int) -> _Loop:
        made = right = 0
        started = time.perf_counter()
        while made < calls and time.perf_counter() - started < LONGEST / 2:
            lap = (keys * 200)[: calls - made]
            for key in lap:
                right += await read_async(key) == expected[key]
            made += len(lap)
        return _Loop(calls, made, right, time.perf_counter() - started)

    done = loop(stage.hot_calls)
    _check_loop(scene, "called", done, read.stats(), stage.server.seen("/item", by="thread"), keys)
    done = in_a_loop(loop_async(stage.hot_calls // 5))
    seen = stage.server.seen("/item", by="task")
    _check_loop(scene, "awaited", done, read_async.stats(), seen, keys)
    return scene


class _Loop(NamedTuple):
    """A hot loop: the calls it was to make, those it made, those answered rightly, its seconds."""

    wanted: int
    made: int
    right: int
    seconds: float


def _check_loop(
    scene: Scene, how: str, loop: _Loop, stats: Stats, seen: Sequence[Arrival], keys: Sequence[str]
) -> None:
    scene.row(how, seen, stats)
    pace = f"{loop.seconds / max(loop.made, 1) * 1e9:,.0f} ns per turn"
    scene.promise(
        f"{how} {loop.wanted:,} times: each answer is the server's",
        loop.right == loop.made == loop.wanted,
        f"{loop.right:,} right, {pace}",
    )
    scene.promise(
        f"{how}: the server is asked once for each key",
        sorted(arrival.key for arrival in seen) == sorted(keys),
        f"{counted(len(seen), 'request')} for {len(keys)} keys",
    )
    scene.promise(
        f"{how}: every other call is a hit",
        stats.calls == loop.made and stats.hits == loop.made - len(keys),
        f"{stats.hits:,} hits in {stats.calls:,} calls",
    )


def retry(stage: Stage) -> Scene:
    """Retries with backoff overcome a server that fails, stalls and says 429."""
    scene, address = Scene("retry"), stage.address
    min_delay, max_delay = 0.05, 0.3
    by_thread = [f"thread-{number}" for number in range(12)]
    by_task = [f"task-{number}" for number in range(24)]

    @opero(
        retries=MOST_TROUBLES + 2,
        min_delay=min_delay,
        max_delay=max_delay,
        backoff_factor=2.0,
        retry_on=transient,
    )
    def read(key: str) -> str:
        return fetch(address, "/flaky", key, by="thread", timeout=PATIENCE)

    @opero(
        retries=MOST_TROUBLES + 2,
        min_delay=min_delay,
        max_delay=max_delay,
        backoff_factor=2.0,
        retry_on=transient,
    )
    async def read_async(key: str) -> str:
        return await fetch_async(address, "/flaky", key, by="task", timeout=PATIENCE)

    async def all_tasks() -> list[str | BaseException]:
        return await asyncio.gather(*map(read_async, by_task), return_exceptions=True)

    outcomes = in_threads([partial(read, key) for key in by_thread])
    _check_retries(stage, scene, "threads", by_thread, outcomes, read.stats(), min_delay)
    outcomes = in_a_loop(all_tasks())
    _check_retries(stage, scene, "tasks", by_task, outcomes, read_async.stats(), min_delay)
    return scene


def _check_retries(
    stage: Stage,
    scene: Scene,
    who: str,
    keys: Sequence[str],
    outcomes: Sequence[str | BaseException],
    stats: Stats,
    min_delay: float,
) -> None:
    seen = stage.server.seen("/flaky", by=who.removesuffix("s"))
    scene.row(f"{len(keys)} {who}", seen, stats)
    right = [stage.answer("/flaky", key) for key in keys]
    wrong = [outcome for outcome, good in zip(outcomes, right, strict=True) if outcome != good]
    scene.promise(
        f"{who}: every call gets its answer in the end",
        not wrong,
        f"{len(keys) - len(wrong)} of {len(keys)}{first_of(wrong)}",
    )
    statuses = [arrival.status for arrival in seen]
    counts: dict[str, int] = {kind: statuses.count(int(kind)) for kind in KINDS if kind != "stall"}
    counts["stall"] = sum(arrival.stalled for arrival in seen)
    scene.promise(
        f"{who}: on the way they meet a 500, a 429 and a stall",
        all(counts.values()),
        ", ".join(f"{kind}: {count}" for kind, count in counts.items()),
    )
    scene.promise(
        f"{who}: stats() counts what the server saw",
        stats.attempts == len(seen) and stats.retries == len(seen) - len(keys),
        f"{stats.attempts} attempts, {stats.retries} retries, {len(seen)} requests",
    )
    gaps = [
        later.at - earlier.at
        for key in keys
        for earlier, later in pairwise(arrival for arrival in seen if arrival.key == key)
    ]
    scene.promise(
        f"{who}: at least {min_delay * 1000:g} ms pass before each retry",
        bool(gaps) and min(gaps) >= min_delay - 0.001,
        f"shortest {min(gaps) * 1000:.0f} ms" if gaps else "no retries",
    )
    scene.promise(
        f"{who}: stats() counts the waits",
        stats.backoff_wait >= min_delay * stats.retries > 0,
        f"{stats.backoff_wait:.2f} s for {stats.retries} retries",
    )


def fallback(stage: Stage) -> Scene:
    """When the primary endpoint is down or broken, the backup answers at once."""
    scene, up = Scene("fallback"), stage.address
    keys = [f"{number}" for number in range(6)]

    with socket.socket() as held:  # bound and never listening: a port that is surely down
        held.bind(("127.0.0.1", 0))
        down = f"127.0.0.1:{held.getsockname()[1]}"

        @opero(arg_fallback="endpoint", retries=2, min_delay=1.0)
        def read(key: str, endpoint: Sequence[str] = (down, up)) -> str:
            return fetch(endpoint[0], "/backup", key, by="thread", timeout=PATIENCE)

        @opero(arg_fallback={"path": ["/backup"]}, retries=2, min_delay=1.0)
        async def read_async(key: str, path: str = "/broken") -> str:
            return await fetch_async(up, path, key, by="task")

        async def all_tasks() -> list[str | BaseException]:
            return await asyncio.gather(*map(read_async, keys), return_exceptions=True)

        by_thread = in_threads([partial(read, key) for key in keys])
        by_task = in_a_loop(all_tasks())

    backups = stage.server.seen("/backup", by="thread")
    scene.row("port down", backups, read.stats())
    _check_fallbacks(stage, scene, "port down", keys, by_thread, read.stats())

    broken = stage.server.seen("/broken", by="task")
    backups = stage.server.seen("/backup", by="task")
    scene.row("always 500", [*broken, *backups], read_async.stats())
    _check_fallbacks(stage, scene, "always 500", keys, by_task, read_async.stats())
    first = {arrival.key: arrival.at for arrival in broken}
    in_order = [arrival for arrival in backups if first.get(arrival.key, arrival.at) < arrival.at]
    scene.promise(
        "always 500: each key goes to the primary, then to the backup",
        len(broken) == len(backups) == len(in_order) == len(keys),
        f"{len(in_order)} of {len(keys)} in order",
    )
    return scene


def _check_fallbacks(
    stage: Stage,
    scene: Scene,
    what: str,
    keys: Sequence[str],
    outcomes: Sequence[str | BaseException],
    stats: Stats,
) -> None:
    wrong = [
        outcome
        for key, outcome in zip(keys, outcomes, strict=True)
        if outcome != stage.answer("/backup", key)
    ]
    scene.promise(
        f"{what}: the backup answers every call",
        not wrong,
        f"{len(keys) - len(wrong)} of {len(keys)}{first_of(wrong)}",
    )
    scene.promise(
        f"{what}: one fallback for each call, without backoff",
        stats.fallbacks == len(keys) and stats.retries == 0 and stats.backoff_wait == 0.0,
        f"{stats.fallbacks} fallbacks, {stats.retries} retries, {stats.backoff_wait:.2f} s",
    )


def limit(stage: Stage) -> Scene:
    """Threads and tasks that share one limiter stay within it, by the server's own watch."""
    scene, address, allowed = Scene("rate limit"), stage.address, stage.server.limit
    threads, calls_each, tasks = 4, 10, 40
    limiter = RateLimiter(allowed.rate, burst=allowed.burst)

    @opero(retries=1, rate_limit=limiter)
    def read(key: str) -> str:
        return fetch(address, "/limited", key, by="thread")

    @opero(retries=1, rate_limit=limiter)
    async def read_async(key: str) -> str:
        return await fetch_async(address, "/limited", key, by="task")

    def one_thread(number: int) -> list[str | BaseException]:
        return [outcome_of(lambda: read(f"thread-{number}")) for _ in range(calls_each)]

    async def all_tasks() -> list[str | BaseException]:
        asked = (read_async(f"task-{number}") for number in range(tasks))
        return await asyncio.gather(*asked, return_exceptions=True)

    jobs: list[Callable[[], list[str | BaseException]]] = [lambda: in_a_loop(all_tasks())]
    jobs += (partial(one_thread, number) for number in range(threads))
    outcomes: list[str | BaseException] = []
    for outcome in in_threads(jobs):
        outcomes += [outcome] if isinstance(outcome, BaseException) else outcome

    seen = stage.server.seen("/limited")
    own, own_async = read.stats(), read_async.stats()
    scene.row(f"{threads} threads", stage.server.seen("/limited", by="thread"), own)
    scene.row(f"{tasks} tasks", stage.server.seen("/limited", by="task"), own_async)
    scene.row("together", seen, own, own_async, limit=allowed)
    wanted = threads * calls_each + tasks
    refused = sum(arrival.status == 429 for arrival in seen)
    failed = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    scene.promise(
        "the server answers every request and never says 429",
        len(seen) == wanted and not refused and not failed,
        f"{len(seen)} requests, {refused} refused{first_of(failed)}",
    )
    times = [arrival.at for arrival in seen]
    excess, pace = allowed.excess(times), allowed.pace(times)
    scene.promise(
        f"any w seconds have {allowed.burst} + {allowed.rate:g} w requests at most",
        excess <= allowed.tolerated,
        f"{max(excess, 0.0):.1f} above at worst, {allowed.tolerated:g} forgiven",
    )
    scene.promise(
        "threads and tasks use what the limit allows",
        pace is not None and pace >= allowed.rate / 2,
        f"{pace or 0:.1f} requests/s of {allowed.rate:g}",
    )
    scene.promise(
        "stats() counts the waits for permits",
        min(own.permit_wait, own_async.permit_wait) > 0,
        f"{own.permit_wait:.1f} s in threads, {own_async.permit_wait:.1f} s in tasks",
    )
    return scene


def flight(stage: Stage) -> Scene:
    """A crowd that asks for one missing key costs the server one request."""
    scene, address = Scene("single flight"), stage.address
    threads, tasks = 32, 200

    @opero(cache=True)
    def read(key: str) -> str:
        return fetch(address, "/slow", key, by="thread")

    @opero(cache=True)
    async def read_async(key: str) -> str:
        return await fetch_async(address, "/slow", key, by="task")

    together = threading.Barrier(threads, timeout=LONGEST)

    def one_thread() -> str:
        together.wait()
        return read("crowd")

    async def all_tasks() -> list[str | BaseException]:
        asked = (read_async("crowd") for _ in range(tasks))
        return await asyncio.gather(*asked, return_exceptions=True)

    by_thread = in_threads([one_thread] * threads)
    by_task = in_a_loop(all_tasks())
    good = stage.answer("/slow", "crowd")
    for what, outcomes, stats in (
        ("thread", by_thread, read.stats()),
        ("task", by_task, read_async.stats()),
    ):
        seen = stage.server.seen("/slow", by=what)
        scene.row(f"{len(outcomes)} {what}s", seen, stats)
        wrong = [outcome for outcome in outcomes if outcome != good]
        scene.promise(
            f"{len(outcomes)} {what}s miss one key: the server sees one request",
            len(seen) == 1 and stats.attempts == 1,
            counted(len(seen), "request"),
        )
        scene.promise(
            f"all {len(outcomes)} {what}s get its answer",
            not wrong,
            f"{len(outcomes) - len(wrong)} of {len(outcomes)}{first_of(wrong)}",
        )
    return scene


def failure(stage: Stage) -> Scene:
    """What cannot be overcome is told whole; what must not be retried is passed on at once."""
    scene, address = Scene("failure"), stage.address
    attempts = 4

    @opero(retries=attempts, min_delay=0.01, max_delay=0.05)
    def read(key: str) -> str:
        return fetch(address, "/broken", key, by="thread")

    @opero(retries=attempts, min_delay=0.01, max_delay=0.05)
    async def read_async(key: str) -> str:
        return await fetch_async(address, "/broken", key, by="task")

    @opero(retries=attempts, retry_on=transient)
    def read_missing(key: str) -> str:
        return fetch(address, "/nowhere", key)

    outcomes: list[tuple[str, str, str | BaseException, Stats]] = [
        ("called", "thread", outcome_of(lambda: read("hopeless")), read.stats()),
        (
            "awaited",
            "task",
            outcome_of(lambda: in_a_loop(read_async("hopeless"))),
            read_async.stats(),
        ),
    ]
    for how, by, outcome, stats in outcomes:
        seen = stage.server.seen("/broken", "hopeless", by)
        scene.row(how, seen, stats)
        errors = outcome.errors if isinstance(outcome, AllFailedError) else []
        scene.promise(
            f"{how}: AllFailedError has the error of each attempt",
            len(errors) == len(seen) == stats.attempts == attempts
            and all(isinstance(error, BadStatus) for error in errors),
            f"{counted(len(errors), 'error')}, {counted(len(seen), 'request')}"
            + ("" if errors else f", {type(outcome).__name__}"),
        )
        copies = pickle.loads(pickle.dumps(outcome)).errors if errors else []
        scene.promise(
            f"{how}: its cause is the last of them, and a pickle keeps all",
            isinstance(outcome, AllFailedError)
            and outcome.__cause__ is errors[-1]
            and [str(error) for error in copies] == [str(error) for error in errors],
            f"{counted(len(copies), 'error')} kept",
        )
    missing = outcome_of(lambda: read_missing("x"))
    seen = stage.server.seen("/nowhere")
    scene.row("not transient", seen, read_missing.stats())
    scene.promise(
        "a 404, which retry_on does not name, is raised at once",
        isinstance(missing, BadStatus) and missing.status == 404 and len(seen) == 1,
        f"{type(missing).__name__} after {counted(len(seen), 'request')}",
    )
    return scene


def deadline(stage: Stage) -> Scene:
    """`timeout=` is kept: a stalled attempt is cut, and no wait begins that cannot end in time."""
    scene, address, seconds = Scene("deadline"), stage.address, 0.4

    @opero(retries=3, timeout=seconds)
    async def read_stalled(key: str) -> str:
        return await fetch_async(address, "/stall", key)

    @opero(retries=3, min_delay=5.0, timeout=seconds)
    def read_broken(key: str) -> str:
        return fetch(address, "/broken", key)

    @opero(retries=1, rate_limit=0.1, timeout=seconds)
    async def read_limited(key: str) -> str:
        return await fetch_async(address, "/item", key)

    async def second_call() -> str:
        await read_limited("deadline")
        return await read_limited("deadline")

    stalled, took = timed(lambda: in_a_loop(read_stalled("deadline")))
    seen = stage.server.seen("/stall")
    cut = stage.server.eventually(lambda: all(arrival.hung_up for arrival in seen))
    scene.row("stalled server", seen, read_stalled.stats())
    scene.promise(
        f"a stalled attempt is cut after {seconds:g} s",
        isinstance(stalled, DeadlineExceeded) and seconds - 0.05 <= took <= seconds + SLACK,
        f"{type(stalled).__name__} after {took:.2f} s",
    )
    scene.promise(
        "the server sees its client hang up",
        len(seen) == 1 and cut,
        f"{sum(arrival.hung_up for arrival in seen)} of {counted(len(seen), 'request')}",
    )

    broken, took = timed(lambda: read_broken("deadline"))
    seen = stage.server.seen("/broken", "deadline")
    scene.row("long backoff", seen, read_broken.stats())
    errors = broken.errors if isinstance(broken, DeadlineExceeded) else []
    scene.promise(
        "a backoff that cannot end in time does not begin",
        len(errors) == len(seen) == 1 and took < seconds + SLACK,
        f"{type(broken).__name__} after {took:.2f} s",
    )

    limited, took = timed(lambda: in_a_loop(second_call()))
    seen = stage.server.seen("/item", "deadline")
    scene.row("no permit", seen, read_limited.stats())
    scene.promise(
        "nothing waits for a permit that cannot come in time",
        isinstance(limited, DeadlineExceeded) and len(seen) == 1 and took < seconds + SLACK,
        f"{type(limited).__name__} after {took:.2f} s",
    )
    return scene


SCENES: Final[dict[str, Callable[[Stage], Scene]]] = {
    "hot": hot_loop,
    "retry": retry,
    "fallback": fallback,
    "limit": limit,
    "flight": flight,
    "failure": failure,
    "deadline": deadline,
}
"""The scenes of this module, by the name that the command line gives them."""
