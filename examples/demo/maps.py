"""The scenes about `@opmap`: each maps over real input and compares with a serial run.

    items --> mapped function --> outcomes --+
      |                                      +--> Scene
      '-----> plain loop ------> outcomes ---+

Nothing here waits for ever: an attempt is given `ATTEMPT` seconds, and all URLs `PAGES`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from opero import AllFailedError, WorkerCrashedError, opmap
from opero.map.engines.processes import pool

from . import library
from .clients import fetch, fetch_async, transient
from .library import Measured, measure
from .report import Scene, counted
from .server import MOST_MISHAPS, Arrival
from .stage import Stage, first_of, outcome_of, timed

AT_ONCE: Final = 50
"""URLs that are fetched at once."""

CHUNK: Final = 8
"""Files that a worker gets at once, so that the poison has neighbours on both sides."""

ATTEMPT: Final = 30.0
"""Seconds for one attempt, so that nothing hangs for ever."""

PAGES: Final = 60.0
"""Seconds for all URLs."""

MIN_DELAY: Final = 0.02
"""Seconds of backoff before a URL is asked for again, at least."""


# ------------------------------------------------------------------------------------- processes


def standard_library(stage: Stage) -> Scene:
    """All files of the standard library are measured, though one more kills its worker."""
    scene = Scene("library")
    every = library.files()
    wanted = len(every) if stage.files is None else min(stage.files, len(every))
    paths = [every[place * len(every) // wanted] for place in range(wanted)]
    workers = min(max(2, os.cpu_count() or 2), 8)

    mapped: Any = opmap(
        mode="process",
        workers=workers,
        chunk_size=CHUNK,
        retries=2,
        min_delay=0.01,
        max_delay=0.05,
        retry_on=WorkerCrashedError,
        attempt_timeout=ATTEMPT,
    )(measure)

    middle = len(paths) // 2 // CHUNK * CHUNK + CHUNK // 2
    with tempfile.TemporaryDirectory() as folder:
        poison = Path(folder, "poison.py")
        poison.write_bytes(library.POISON)
        items = [*paths[:middle], str(poison), *paths[middle:]]
        try:
            got, took = _surely(lambda: mapped(items))
            ids = {each.by for each in got if isinstance(each, Measured)}
            others = ids - {os.getpid()}
            stage.server.eventually(lambda: sum(map(_runs, others)) <= workers)
            warm = sum(map(_runs, others))
        finally:
            pool.shut()
    serial, took_serial = _surely(lambda: [outcome_of(partial(measure, path)) for path in paths])

    scene.row(f"{workers} processes", (), mapped.stats())
    scene.aside = took_serial
    what = f"{wanted:,}" if wanted == len(every) else f"{wanted:,} of {len(every):,}, as asked"
    _check_files(scene, what, list(map(_told, serial)), got, middle)
    _check_poison(scene, got[middle : middle + 1], mapped.stats(), items)
    scene.promise(
        "every file is measured in a worker process",
        bool(ids) and ids == others,
        f"{len(others)} workers, {took:.1f} s; serial {took_serial:.1f} s",
    )
    if sys.platform != "win32":
        stage.server.eventually(lambda: not any(map(_runs, others)), within=5.0)
        left = sum(map(_runs, others))
        scene.promise(
            "the killed worker is gone, warm ones end when told to",
            warm <= workers and not left,
            f"{warm} of {len(others)} warm, {left} left",
        )
    return scene


def _check_files(
    scene: Scene, what: str, serial: Sequence[object], got: Sequence[object], middle: int
) -> None:
    mapped = [_told(each) for place, each in enumerate(got) if place != middle]
    pairs = zip(serial, mapped, strict=False)
    wrong = [one for good, one in pairs if one != good]
    measures = [each for each in serial if isinstance(each, library.Measure)]
    refused = Counter(each[0].__name__ for each in serial if type(each) is tuple)
    lines, functions, _ = map(sum, zip(*measures, strict=True)) if measures else (0, 0, 0)
    scene.promise(
        f"stdlib files ({what}): the outcomes of a serial run",
        bool(measures) and not wrong and len(mapped) == len(serial),
        f"{len(mapped):,} outcomes, {len(wrong)} differ{first_of(wrong)}",
    )
    scene.promise(
        "all but a few are valid Python",
        sum(refused.values()) * 50 <= len(serial) and set(refused) <= {"SyntaxError", "ValueError"},
        f"{lines:,} lines, {functions:,} functions, "
        + (", ".join(f"{count} {name}" for name, count in refused.items()) or "none refused"),
    )


def _check_poison(scene: Scene, place: Sequence[object], stats: Any, items: Sequence[str]) -> None:
    found = place[0] if place else None
    errors = found.errors if isinstance(found, AllFailedError) else []
    killed = [error for error in errors if _was_killed(error)]
    scene.promise(
        "the file that kills its worker fails alone",
        len(killed) == len(errors) == 2,
        _deaths(found, errors, killed),
    )
    again = stats.attempts - len(items) - stats.retries
    scene.promise(
        "only that file is tried again; its neighbours rerun once at most",
        stats.calls == len(items) and stats.retries == 1 and 0 <= again < CHUNK,
        f"{counted(stats.retries, 'retry')}, {again} reran",
    )


def _deaths(found: object, errors: Sequence[Exception], killed: Sequence[Exception]) -> str:
    """What the file's result says about its workers."""
    last = killed[-1] if killed else None
    if len(killed) != len(errors) or not isinstance(last, WorkerCrashedError):
        return f"{type(found).__name__}: {'; '.join(map(str, errors))}"
    how = last.signal or f"exit code {last.exitcode}"
    return f"{type(found).__name__}, {how} in {len(killed)} attempts"


def _was_killed(error: Exception) -> bool:
    if not isinstance(error, WorkerCrashedError):
        return False
    if sys.platform == "win32":
        return error.exitcode == library.EXIT_CODE
    return error.signal == "SIGKILL"


def _told(each: object) -> object:
    """An outcome in a form that can be compared, wherever it was come by."""
    if isinstance(each, BaseException):
        return type(each), each.args
    return each.measure if isinstance(each, Measured) else each


def _runs(pid: int) -> bool:
    """Whether there is such a process; where one cannot ask without harm, it is taken for gone."""
    if sys.platform == "win32":
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


# ------------------------------------------------------------------------------------ coroutines


def pages(stage: Stage) -> Scene:
    """Thousands of URLs are fetched within a rate from a server that fails and hangs up."""
    scene, address, pace = Scene("urls"), stage.address, stage.pace
    keys = [f"{number}" for number in range(stage.urls)]
    progress: list[Any] = []

    async def page(key: str) -> str:
        return await fetch_async(address, "/shaky", key, by="map", timeout=ATTEMPT)

    read: Any = opmap(
        mode="async",
        workers=AT_ONCE,
        retries=MOST_MISHAPS + 1,
        min_delay=MIN_DELAY,
        max_delay=0.1,
        retry_on=transient,
        rate_limit=pace.rate,
        burst=pace.burst,
        rate_limit_scope="total",
        attempt_timeout=ATTEMPT,
        progress=progress.append,
    )(page)

    async def all_pages() -> tuple[list[str | BaseException], list[str]]:
        found = await asyncio.wait_for(read.amap(keys), PAGES)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        return found, [task.get_name() for task in tasks if task is not None]

    (got, tasks), took = _surely(lambda: asyncio.run(all_pages()))
    stage.server.eventually(lambda: not stage.server.talking)
    talking = stage.server.talking
    serial, took_serial = _surely(lambda: [_patiently(address, key) for key in keys])
    seen = stage.server.seen("/shaky", by="map")
    stats = read.stats()
    scene.aside = took_serial
    scene.row(f"{AT_ONCE} at once", seen, stats, limit=pace)

    wrong = [one for one, good in zip(got, serial, strict=False) if one != good]
    scene.promise(
        f"{len(keys):,} URLs: the answers of a serial run, in order",
        len(got) == len(keys) and not wrong,
        f"{len(wrong)} differ{first_of(wrong)}; {took:.1f} s, serial {took_serial:.1f} s",
    )
    _check_mishaps(scene, stats, seen, len(keys))
    excess = pace.excess(arrival.at for arrival in seen)
    scene.promise(
        f"any w seconds have {pace.burst} + {pace.rate:g} w requests at most",
        excess <= AT_ONCE,  # so many may be on their way when it begins
        f"{max(excess, 0.0):.1f} above at worst, {AT_ONCE} forgiven",
    )
    last = progress[-1] if progress else None
    scene.promise(
        "the last report of progress is exact",
        last is not None
        and (last.done, last.failed, last.retried) == (len(keys), 0, stats.retries)
        and last.total == len(keys),
        f"{last.done} done, {last.failed} failed, {last.retried} retried" if last else "no report",
    )
    scene.promise(
        "no connection and no task is left",
        not talking and not tasks,
        f"{counted(talking, 'connection')}, {', '.join(sorted(tasks)) or 'no tasks'}",
    )
    return scene


def _check_mishaps(scene: Scene, stats: Any, seen: Sequence[Arrival], urls: int) -> None:
    failed = sum(arrival.status == 500 for arrival in seen)
    dropped = sum(arrival.dropped for arrival in seen)
    scene.promise(
        "on the way it meets 500s and lost connections",
        bool(failed and dropped),
        f"500: {failed}, lost: {dropped}",
    )
    scene.promise(
        "one retry for each of them, and no other request",
        stats.retries == failed + dropped and stats.attempts == len(seen) == urls + stats.retries,
        f"{stats.retries} retries, {len(seen):,} requests",
    )
    by_key: dict[str, list[float]] = {}
    for arrival in seen:
        by_key.setdefault(arrival.key, []).append(arrival.at)
    gaps = [later - earlier for times in by_key.values() for earlier, later in pairwise(times)]
    scene.promise(
        f"at least {MIN_DELAY * 1000:g} ms pass before each retry",
        bool(gaps) and min(gaps) >= MIN_DELAY - 0.001,
        f"shortest {min(gaps) * 1000:.0f} ms" if gaps else "no retries",
    )


def _surely(run: Callable[[], Any]) -> tuple[Any, float]:
    """The value of a call, and the seconds it took; what it raises is raised."""
    value, took = timed(run)
    if isinstance(value, BaseException):
        raise value
    return value, took


def _patiently(address: str, key: str) -> str:
    """Ask one time after the other, as a program without opero would."""
    for _ in range(MOST_MISHAPS):
        try:
            return fetch(address, "/shaky", key, by="serial")
        except Exception as error:
            if not transient(error):
                raise
    return fetch(address, "/shaky", key, by="serial")


SCENES: Final[dict[str, Callable[[Stage], Scene]]] = {
    "library": standard_library,
    "urls": pages,
}
"""The scenes of this module, by the name that the command line gives them."""
