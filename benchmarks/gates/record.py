"""What the gates said in one run, as a small JSON file: for CI to keep, and to compare with."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import table

from .verdict import Verdict, columns, number

CHANGED = 0.02
"""A value that differs by less than this share of it has not changed, as far as one can tell."""


class RecordError(ValueError):
    """A file is no record of gates."""


@dataclass(frozen=True)
class Figure:
    """What one gate said.

    Args:
        value: The ratio (or figure) of opero; None if it could not be had.
        target: What was promised or accepted; None if nothing was.
        limit: The largest value that passes; None if there is none.
        verdict: `ok`, `known miss` or `RED`.
    """

    value: float | None
    target: float | None
    limit: float | None
    verdict: str


@dataclass(frozen=True)
class Record:
    """One run of the gates.

    Args:
        date: When it ended, ISO 8601 in UTC.
        commit: What was measured; "" if that is not known.
        python: The version of Python.
        machine: Python, processor and system in one line.
        gates: What each gate said, by its name.
    """

    date: str
    commit: str
    python: str
    machine: str
    gates: Mapping[str, Figure]


def commit() -> str:
    """The commit that is measured, from `GITHUB_SHA` or git; "" if neither knows."""
    told = os.environ.get("GITHUB_SHA", "")
    if told:
        return told
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


def of(verdicts: Sequence[Verdict]) -> Record:
    """The record of a run that ends now.

    Args:
        verdicts: What the gates said.
    """
    return Record(
        datetime.now(UTC).isoformat(timespec="seconds"),
        commit(),
        platform.python_version(),
        table.machine(),
        {
            verdict.gate: Figure(verdict.value, verdict.target, verdict.limit, verdict.word)
            for verdict in verdicts
        },
    )


def write(record: Record, path: Path) -> None:
    """Write a record as JSON."""
    content = {**vars(record), "gates": {name: vars(gate) for name, gate in record.gates.items()}}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Record:
    """Read what `write` wrote.

    Args:
        path: The file.

    Returns:
        The record.

    Raises:
        RecordError: It cannot be read, or is something else; the message names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        gates = {str(name): _figure(gate) for name, gate in content["gates"].items()}
        date, commit, python, machine = (
            str(content[key]) for key in ("date", "commit", "python", "machine")
        )
        when = datetime.fromisoformat(date)
        if when.tzinfo is None:
            raise ValueError(f"{date} has no time zone")
        if not all(part.isdecimal() for part in python.split(".")[:2]):
            raise ValueError(f"{python} is no version of Python")
    except KeyError as error:
        raise RecordError(f"{path}: no record of gates: {error} is missing") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RecordError(f"{path}: no record of gates: {error}") from error
    return Record(when.astimezone(UTC).isoformat(), commit, python, machine, gates)


def _figure(gate: Mapping[str, float | str | None]) -> Figure:
    value, target, limit = (
        None if gate[key] is None else float(gate[key] or 0) for key in ("value", "target", "limit")
    )
    return Figure(value, target, limit, str(gate["verdict"]))


def changes(before: Record, now: Record) -> str:
    """The gates whose value is another than in an earlier run.

    Args:
        before: The earlier run.
        now: The later one.

    Returns:
        A table, without a line break at the end.
    """
    what = f"{before.date}, {before.commit[:10] or 'commit unknown'}, {before.machine}"
    lines = [("gate", "before", "now", "change")]
    for name in dict.fromkeys((*before.gates, *now.gates)):
        old, new = (
            record.gates[name].value if name in record.gates else None for record in (before, now)
        )
        if old == new:
            continue
        change = ""
        if old and new is not None:
            share = new / old - 1
            if abs(share) < CHANGED:
                continue
            change = f"{share:+.1%}"
        lines.append((name, number(old), number(new), change))
    if len(lines) == 1:
        return f"no value changed by {CHANGED:.0%} or more against {what}"
    return f"changes of {CHANGED:.0%} or more against {what}:\n" + columns(lines, right={1, 2, 3})
