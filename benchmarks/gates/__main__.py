"""`python -m benchmarks.gates`: measures, judges, prints the table; exit code 1 if one is red."""

from __future__ import annotations

import argparse
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import instructions, interpreter, table
from benchmarks.measure import QUICK

from . import counted, promised, record, seeds
from .verdict import RED, Verdict, render, summary

INSTRUCTIONS = "instructions"

FLATTERED = (
    "NOTE: people run CPythons built with PGO; this one is slower, and so opero looks better"
)

GROUPS = (INSTRUCTIONS, *promised.GROUPS)


def _groups(text: str) -> list[str]:
    groups = text.split(",")
    for group in groups:
        if group not in GROUPS:
            raise argparse.ArgumentTypeError(f"{group!r} is none of {', '.join(GROUPS)}")
    return groups


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gates", description="Gates on the rows of calls and maps."
    )
    parser.add_argument(
        "--only",
        type=_groups,
        metavar="GROUPS",
        help=f"of {', '.join(GROUPS)}; separated by commas",
    )
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument(
        "--accept", action="store_true", help="write the counts as the new expectation"
    )
    doing.add_argument(
        "--prove", action="store_true", help="seed regressions and show the gates turn red"
    )
    doing.add_argument("--json", type=Path, metavar="FILE", help="write what the gates said")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="print what changed since --json wrote FILE"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the gates.

    Args:
        arguments: The command line; None for that of the process.

    Returns:
        The exit code: 0 if all gates are green (with `--prove`: if all are proved), else 1.
    """
    options = _parser().parse_args(arguments)
    groups = [INSTRUCTIONS] if options.accept else options.only or list(GROUPS)
    print(table.machine())
    if not interpreter.with_pgo(sysconfig.get_config_vars()):
        print(FLATTERED)
    for group, missing in {INSTRUCTIONS: instructions.missing, **promised.MISSING}.items():
        reason = missing() if group in groups else None
        if reason is not None:
            print(f"no gates on {group}: {reason}")
            if options.accept or options.only:  # they were asked for
                return 1
            groups.remove(group)
    if options.accept:
        print(f"wrote {counted.accept(counted.count(0)[0])}")
        return 0
    before = None
    if options.against is not None:
        try:
            before = record.read(options.against)
        except record.RecordError as error:
            print(error, file=sys.stderr)
            return 1

    verdicts: list[Verdict] = []
    start = time.monotonic()
    if INSTRUCTIONS in groups:
        verdicts += seeds.in_counts() if options.prove else counted.judged()
        print(f"{INSTRUCTIONS}: {time.monotonic() - start:.0f} s", flush=True)
        groups.remove(INSTRUCTIONS)
    rows = [row for group in groups for row in promised.GROUPS[group]]
    if rows:
        start = time.monotonic()
        if options.prove:
            verdicts += seeds.in_promises(rows, QUICK)
        else:
            verdicts += promised.gates(rows, QUICK, promised.TRIES, promised.PAUSE)
        print(f"{', '.join(groups)}: {time.monotonic() - start:.0f} s")
    print(f"\n{table.machine()}\n\n{render(verdicts)}\n\n{summary(verdicts)}")
    if options.prove:
        return 0 if all(verdict.proved for verdict in verdicts) else 1
    run = record.of(verdicts)
    if options.json is not None:
        record.write(run, options.json)
    if before is not None:
        print(f"\n{record.changes(before, run)}")
    return 1 if RED in (verdict.word for verdict in verdicts) else 0


if __name__ == "__main__":
    raise SystemExit(main())
