"""The command line of the demo: `python examples/demo`, in a checkout where opero is installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run by the path of its folder: the folder above is where the package is
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from demo import SCENES, present


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the demo.

    Args:
        arguments: The words after `python examples/demo`; those of the process when None.

    Returns:
        The exit code: 0 when every promise was kept, else 1. Wrong arguments end in
        `SystemExit(2)`.
    """
    parser = argparse.ArgumentParser(
        prog="python examples/demo",
        description="Starts a real HTTP server on a free loopback port that fails, stalls and "
        "says 429, drives it through @opero, maps over the standard library and over thousands "
        "of URLs through @opmap, and prints each promise with what happened. "
        "The exit code is 0 only if all of them held.",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="decides what goes wrong on the server (default: 0)"
    )
    parser.add_argument(
        "--calls",
        type=int,
        default=100_000,
        help="calls of the hot loop, 25 or more (default: 100000)",
    )
    parser.add_argument(
        "--files",
        type=int,
        default=None,
        help="files of the standard library to measure, 25 or more (default: all)",
    )
    parser.add_argument(
        "--urls",
        type=int,
        default=3_000,
        help="URLs to fetch in one map, 25 or more (default: 3000)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="SCENE",
        help="play this scene only; may be given more than once",
    )
    parser.add_argument(
        "--figures", action="store_true", help="print what stats() and the server counted, too"
    )
    chosen = parser.parse_args(arguments)
    if unknown := [name for name in chosen.only if name not in SCENES]:
        parser.error(f"no scene is called {unknown[0]!r}: use one of {', '.join(SCENES)}")
    for name in ("calls", "files", "urls"):
        count = getattr(chosen, name)
        if count is not None and count < 25:
            parser.error(f"--{name} {count}: use 25 or more")
    return present(
        *(chosen.seed, chosen.only, chosen.calls, chosen.figures),
        files=chosen.files,
        urls=chosen.urls,
    )


if __name__ == "__main__":
    sys.exit(main())
