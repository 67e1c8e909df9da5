"""`python -m opero demo`: a misbehaving HTTP server, driven through `@opero`, and promises checked.

    server.py   the server, in a thread of its own, with a log
    clients.py  plain HTTP clients, sync and async: what gets decorated
    scenes.py   decorates, drives, checks
    report.py   the table, the promises, the exit code

Nothing in opero imports this package; only the command does.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterable
from typing import Final

from .report import Report, Scene
from .scenes import SCENES, Stage
from .server import DemoServer, Limit

__all__ = ["SCENES", "play", "present"]

LIMIT: Final = Limit(rate=40.0, burst=5)
"""What `/limited` allows."""

LONGEST: Final = 20.0
"""Seconds that the whole demo may take."""


def play(
    seed: int = 0, only: Iterable[str] = (), hot_calls: int = 100_000, limit: Limit = LIMIT
) -> Report:
    """Play the scenes against a server of their own.

    Args:
        seed: Decides what goes wrong on the server.
        only: Names of the scenes to play; all when there are none.
        hot_calls: Calls of the hot loop.
        limit: What the server lets through on its limited path.

    Returns:
        What was measured and which promises held.
    """
    report, started = Report(), time.monotonic()
    threads = set(threading.enumerate())
    chosen = tuple(only) or tuple(SCENES)
    with DemoServer(seed, limit) as server:
        for name in chosen:
            report.scenes.append(_played(name, Stage(server, hot_calls)))
    report.seconds = time.monotonic() - started
    report.scenes.append(_afterwards(server, threads, report.seconds))
    return report


def present(seed: int = 0, only: Iterable[str] = (), hot_calls: int = 100_000) -> int:
    """Play the scenes and print what came of it.

    Args:
        seed: Decides what goes wrong on the server.
        only: Names of the scenes to play; all when there are none.
        hot_calls: Calls of the hot loop.

    Returns:
        The exit code: 0 only if every promise held.
    """
    from opero import COMPILED, __version__

    core = "compiled" if COMPILED else "plain"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"opero {__version__}, {core} core, {python}, seed {seed}\n", flush=True)
    report = play(seed, only, hot_calls)
    print(report.text())
    for promise in report.broken:
        print(f"broken: {promise.scene}: {promise.claim}")
    return report.exit_code


def _played(name: str, stage: Stage) -> Scene:
    try:
        return SCENES[name](stage)
    except Exception as error:  # noqa: BLE001 - a scene that breaks off is a broken promise
        scene = Scene(name)
        scene.promise("the scene is played to its end", False, f"{type(error).__name__}: {error}")
        return scene


def _afterwards(server: DemoServer, before: set[threading.Thread], seconds: float) -> Scene:
    scene = Scene("afterwards")
    end = time.monotonic() + 2.0
    while (left := set(threading.enumerate()) - before) and time.monotonic() < end:
        time.sleep(0.01)
    scene.promise(
        "no thread is left behind",
        not left,
        ", ".join(sorted(thread.name for thread in left)) or "none",
    )
    scene.promise("no connection is left open, and the server is gone", server.closed)
    scene.promise(f"all of it in less than {LONGEST:g} s", seconds < LONGEST, f"{seconds:.1f} s")
    return scene
