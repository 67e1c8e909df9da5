"""The command line: `python -m opero doctor`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from . import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after `python -m opero`; None to read them from the command line.

    Returns:
        The exit code: 0 when all is well, 1 when the installation is not healthy. Wrong arguments
        raise `SystemExit(2)`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m opero",
        description="opero makes functions resilient: cache, retry, fallback, rate limit.",
    )
    parser.add_argument("--version", action="version", version=f"opero {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    commands.add_parser(
        "doctor",
        help="show which implementation runs and why and what else is installed, and try it out",
        description="Examines the installation and tries every mechanism once on each installed "
        "half, compiled and plain. Takes a second or two. The exit code is 0 when all is well.",
    )
    commands.add_parser("demo", help="say where the demo is", add_help=False)
    chosen, unknown = parser.parse_known_args(arguments)
    if chosen.command == "demo":
        parser.error(
            "the demo is not part of the package: run `python examples/demo` in a checkout of "
            "opero, or `python -m opero doctor` to try this installation"
        )
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if chosen.command == "doctor":
        from .doctor import present

        return present()
    parser.print_help()
    return 0


def _to_the_end() -> int:
    """Run the command; end quietly if a reader such as `head` has seen enough."""
    if sys.stdout is None:  # closed by a shell (`>&-`)
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    elif isinstance(sys.stdout, io.TextIOWrapper):  # paths may have letters that it cannot write
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return main()
        finally:  # `--help` ends by `SystemExit`
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(_to_the_end())
