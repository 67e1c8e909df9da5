"""The command line: `python -m opero demo` and `python -m opero doctor`.

The commands live in `opero.demo` and `opero.doctor`, which nothing else imports.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after `python -m opero`; those of the process when None.

    Returns:
        The exit code: 0 when all is well, 1 when a promise was broken or the installation is not
        healthy. Wrong arguments end in `SystemExit(2)`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m opero",
        description="opero makes functions resilient: cache, retry, fallback, rate limit.",
    )
    parser.add_argument("--version", action="version", version=f"opero {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="drive a misbehaving HTTP server through opero and check what opero promises",
        description="Starts a real HTTP server on a free loopback port that fails, stalls and "
        "says 429, drives it through @opero, maps over the standard library and over thousands "
        "of URLs through @opmap, prints what happened and checks every promise. "
        "The exit code is 0 only if all of them held.",
    )
    demo.add_argument(
        "--seed", type=int, default=0, help="decides what goes wrong on the server (default: 0)"
    )
    demo.add_argument(
        "--calls",
        type=int,
        default=100_000,
        help="calls of the hot loop, 25 or more (default: 100000)",
    )
    demo.add_argument(
        "--files",
        type=int,
        default=None,
        help="files of the standard library to measure, 25 or more (default: all)",
    )
    demo.add_argument(
        "--urls",
        type=int,
        default=3_000,
        help="URLs to fetch in one map, 25 or more (default: 3000)",
    )
    demo.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="SCENE",
        help="play this scene only; may be given more than once",
    )
    commands.add_parser(
        "doctor",
        help="say which implementation runs, why, and what else is installed",
        description="Examines the installation. The exit code is 0 when it is healthy.",
    )
    chosen = parser.parse_args(arguments)
    if chosen.command == "demo":
        from .demo import SCENES, present

        if unknown := [name for name in chosen.only if name not in SCENES]:
            demo.error(f"no scene is called {unknown[0]!r}: use one of {', '.join(SCENES)}")
        for name in ("calls", "files", "urls"):
            count = getattr(chosen, name)
            if count is not None and count < 25:
                demo.error(f"--{name} {count}: use 25 or more")
        sizes = {"files": chosen.files, "urls": chosen.urls}
        return present(chosen.seed, chosen.only, chosen.calls, **sizes)
    if chosen.command == "doctor":
        from .doctor import present as present_doctor

        return present_doctor()
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
