"""`python examples/demo`: `@opero` against a misbehaving HTTP server, `@opmap` over real input.

    server.py   the server, in a thread of its own, with a log
    clients.py  plain HTTP clients, sync and async: what gets decorated
    library.py  the standard library's files, and what worker processes do with them
    stage.py    what every scene plays on
    scenes.py   decorates, drives, checks: single calls
    outages.py  the same while a service is down, its limit changes, or an attempt stalls
    maps.py     the same for maps, against a serial run
    report.py   the promises, the figures, the exit code

It needs an installed opero and nothing else.
"""

from __future__ import annotations

import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from . import maps, outages, scenes
from .report import WIDTH, Report, Scene
from .server import DemoServer, Limit
from .stage import Stage

__all__ = ["SCENES", "play", "present"]

LIMIT: Final = Limit(rate=40.0, burst=5)
"""What `/limited` allows."""

LONGEST: Final = 20.0
"""Seconds that the whole demo may take, apart from what is also done in a serial run."""

SHARE: Final = 2.0
"""How much longer a map may take than the serial run that it is compared with, on one busy core."""

SCENES: Final[dict[str, Callable[[Stage], Scene]]] = {
    **scenes.SCENES,
    **outages.SCENES,
    **maps.SCENES,
}
"""Every scene, by the name that the command line gives it, in the order they are played."""


def play(
    seed: int = 0,
    only: Iterable[str] = (),
    hot_calls: int = 100_000,
    limit: Limit = LIMIT,
    after: Callable[[Scene], object] = id,
    **sizes: Any,
) -> Report:
    """Play the scenes against a server of their own.

    Args:
        seed: Decides what goes wrong on the server.
        only: Names of the scenes to play; all when there are none.
        hot_calls: Calls of the hot loop.
        limit: What the server lets through on its limited path.
        after: Is called with each scene when it is over.
        **sizes: How much the other scenes do: attributes of a `Stage`.

    Returns:
        What was measured and which promises held.
    """
    report, started = Report(), time.monotonic()
    threads = set(threading.enumerate())
    chosen = tuple(only) or tuple(SCENES)
    with DemoServer(seed, limit) as server:
        for name in chosen:
            report.scenes.append(_played(name, Stage(server, hot_calls, **sizes)))
            after(report.scenes[-1])
    report.seconds = time.monotonic() - started
    aside = sum(scene.aside for scene in report.scenes)
    report.scenes.append(_afterwards(server, threads, report.seconds - aside, aside))
    after(report.scenes[-1])
    return report


def present(
    seed: int = 0,
    only: Iterable[str] = (),
    hot_calls: int = 100_000,
    figures: bool = False,
    **sizes: Any,
) -> int:
    """Play the scenes and print what comes of each.

    Args:
        seed: Decides what goes wrong on the server.
        only: Names of the scenes to play; all when there are none.
        hot_calls: Calls of the hot loop.
        figures: Whether to print the table of figures, too.
        **sizes: How much the other scenes do: attributes of a `Stage`.

    Returns:
        The exit code: 0 only if every promise held.
    """
    from opero import COMPILED, __version__

    core = "compiled" if COMPILED else "plain"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)

    def tell(scene: Scene) -> None:
        print(scene.text(width), flush=True)

    print(f"opero {__version__}, {core} core, {python}, seed {seed}")
    print("what opero promises -> what happened\n", flush=True)
    report = play(seed, only, hot_calls, after=tell, **sizes)
    print()
    if figures:
        print(report.figures(width))
    print(report.verdict(width))
    return report.exit_code


def _played(name: str, stage: Stage) -> Scene:
    try:
        return SCENES[name](stage)
    except Exception as error:  # noqa: BLE001 - a scene that breaks off is a broken promise
        scene = Scene(name)
        scene.promise("the scene plays to its end", False, f"{type(error).__name__}: {error}")
        return scene


def _afterwards(
    server: DemoServer, before: set[threading.Thread], seconds: float, aside: float
) -> Scene:
    scene = Scene("afterwards")
    end = time.monotonic() + 2.0
    while (left := set(threading.enumerate()) - before) and time.monotonic() < end:
        time.sleep(0.01)
    scene.promise(
        "no thread is left behind",
        not left,
        ", ".join(sorted(thread.name for thread in left)) or "none",
    )
    scene.promise(
        "no connection is left open, and the server is gone",
        server.closed,
        "closed" if server.closed else "not closed",
    )
    scene.promise(
        f"it takes less than {LONGEST:g} s plus {SHARE:g} times the serial runs",
        seconds < LONGEST + SHARE * aside,
        f"{seconds:.1f} s, serial runs {aside:.1f} s",
    )
    return scene
