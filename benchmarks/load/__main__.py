"""`python -m benchmarks.load`: stored caches and limits under load, and whether they hold."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.stores.place import MissingError
from benchmarks.stores.server import serving
from benchmarks.table import machine
from opero import hotpath

from . import caches, limits
from .table import Verdict, text


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, judges and prints.

    Args:
        arguments: The command line; None for that of the process.

    Returns:
        The exit code: 0, 1 if something does not hold, 2 if there is no redis-server.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("what", nargs="*", metavar="caches|limits", help="by default both")
    parser.add_argument("--backend", nargs="+", choices=caches.BACKENDS, default=caches.BACKENDS)
    parser.add_argument("--scope", nargs="+", choices=limits.SCOPES, default=limits.SCOPES)
    parser.add_argument(
        "--limit", nargs="+", type=_limit, default=limits.LIMITS, metavar="RATE[/BURST]",
        help="permits per second, and how many at once",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, help="by default 60 for caches, 10 for limits")
    parser.add_argument("--processes", type=int, default=8, help="of caches")
    parser.add_argument("--threads", type=int, default=2, help="of each process of caches")
    parser.add_argument("--tasks", type=int, default=2, help="of each process of caches")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds: longer calls hang")
    parser.add_argument(
        "--fault", nargs="+", choices=(*caches.FAULTS, *limits.FAULTS), default=(),
        help="do something wrong on purpose, to see its verdict turn red",
    )  # fmt: skip
    parser.add_argument("--readme", action="store_true", help="print the tables of the pages")
    options = parser.parse_args(arguments)
    what = options.what or ["caches", "limits"]
    if not {*what} <= {"caches", "limits"}:
        parser.error("there is load on caches and on limits")
    try:
        judged = []
        if "caches" in what:
            judged += _caches(options)
        if "limits" in what:
            judged += _limits(options)
    except MissingError as error:
        print(error)
        return 2
    print(f"\n{machine()}, the {hotpath.core.name} half.")
    for name, verdicts in judged:
        if not options.readme or not all(verdict.holds for verdict in verdicts):
            print(f"\n{name}", *verdicts, sep="\n")
    return int(not all(verdict.holds for _, verdicts in judged for verdict in verdicts))


def _limit(text: str) -> tuple[float, int]:
    rate, _, burst = text.partition("/")
    return float(rate), int(burst or 1)


def _caches(options: argparse.Namespace) -> list[tuple[str, list[Verdict]]]:
    judged, rows = [], []
    for backend in options.backend:
        figures = caches.run(
            backend,
            options.seconds or 60.0,
            processes=options.processes,
            threads=options.threads,
            tasks=options.tasks,
            patience=options.patience,
            faults=options.fault,
        )
        rows.append(figures.row())
        judged.append((backend, caches.judge(figures, options.patience)))
    lines = [[*caches.HEAD], *rows]
    if options.readme:
        lines = [list(line) for line in zip(*lines, strict=True)]  # a column for each backend
    print(text(lines[0], lines[1:], markdown=options.readme))
    return judged


def _limits(options: argparse.Namespace) -> list[tuple[str, list[Verdict]]]:
    judged, rows = [], []
    with ExitStack() as stack:
        url = ""
        if "redis" in options.scope:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="opero-load-"))
            url = stack.enter_context(serving(Path(place)))
        for scope in options.scope:
            for rate, burst in options.limit:
                for impatient in (False, True):
                    figures = limits.run(
                        scope,
                        rate,
                        options.seconds or 10.0,
                        burst=burst,
                        impatient=impatient,
                        url=url,
                        faults=options.fault,
                    )
                    rows.append(figures.row())
                    name = " ".join(figures.row()[:3])
                    judged.append((name, limits.judge(figures)))
    print(text(limits.HEAD, rows, markdown=options.readme))
    return judged


if __name__ == "__main__":
    raise SystemExit(main())
