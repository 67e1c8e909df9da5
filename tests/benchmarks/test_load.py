"""The load on caches and limits: a short run prints its figures, and every verdict can turn red."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.load import __main__ as command
from benchmarks.load import caches, limits
from benchmarks.load.table import Verdict

pytestmark = [pytest.mark.once, pytest.mark.checkout]

SHORT = {"processes": 2, "threads": 2}


def red(verdicts: list[Verdict]) -> set[str]:
    return {verdict.what for verdict in verdicts if not verdict.holds}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["disk", pytest.param("redis", marks=pytest.mark.redis)])
def test_a_cache_under_load_holds(backend: str) -> None:
    """Though processes are killed and entries forged meanwhile."""
    figures = caches.run(backend, 1.5, **SHORT)
    assert red(caches.judge(figures, 20.0)) <= {"forged entries rejected"}  # of so short a time
    assert figures.heard.hits
    assert figures.heard.misses
    assert figures.heard.killed
    assert 0 < figures.last <= figures.largest


@pytest.mark.slow
def test_what_is_wrong_with_a_cache_is_seen() -> None:
    """Each of the faults turns its own verdict red."""
    figures = caches.run("disk", 1.5, patience=0.5, faults=caches.FAULTS, **SHORT)
    found = caches.judge(figures, 0.5)
    assert red(found) | {"calls that went on without the store"} == {
        verdict.what for verdict in found
    }
    figures.heard.outages = 10**6
    assert "calls that went on without the store" in red(caches.judge(figures, 0.5))


def even(scope: str, rate: float, processes: int) -> limits.Figures:
    """Return figures of a limit that waiters use in turn, without delay, for ten seconds."""
    each = limits.WAITERS // processes
    patient: list[list[list[tuple[int, int]]]] = [
        [[] for _ in range(each)] for _ in range(processes)
    ]
    for number in range(int(rate * 10)):
        process, place = divmod(number % limits.WAITERS, each)
        patient[process][place].append((int(number * 1e9 / rate), int(limits.WAITERS * 1e9 / rate)))
    return limits.Figures(scope, rate, 1, 10.0, patient)


@pytest.mark.parametrize("rate", [1.0, 100.0, 10_000.0])
def test_what_is_wrong_with_the_figures_of_a_limit_is_seen(rate: float) -> None:
    """Too little use, too much in one second, one waiter or one process that takes too much."""
    assert red(limits.judge(even("process", rate, 1))) == set()
    assert red(limits.judge(even("redis", rate, 4))) == set()

    greedy = even("redis", rate, 4)
    greedy.patient[0][0] += [each for other in greedy.patient[0][1:] for each in other]
    del greedy.patient[0][0][4 * (int(rate * 10) // 16 + 1) :]
    greedy.patient[0][1:] = [[] for _ in greedy.patient[0][1:]]
    assert "permits of a waiter" in red(limits.judge(greedy))

    alone = even("redis", rate, 4)
    for process in range(1, 4):
        for permits in alone.patient[process]:
            alone.patient[0][0] += permits
            permits.clear()
    assert red(limits.judge(alone)) == {"permits of a waiter", "permits of a process"}

    hasty = even("process", rate, 1)
    hasty.others = [int(5e9)] * (int(rate) + 30)
    assert red(limits.judge(hasty)) == {"most in a second"}

    lazy = even("redis", rate, 4)
    for process in lazy.patient:
        for permits in process:
            del permits[len(permits) // 2 :]
    assert "used" in red(limits.judge(lazy))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scope", "fault", "expected"),
    [
        ("process", "slow", "used"),
        ("process", "unfair", "permits of a waiter"),
        ("machine", "apart", "most in a second"),
    ],
)
def test_what_is_wrong_with_a_limit_is_seen(scope: str, fault: str, expected: str) -> None:
    """It is used too little, by some only, or too much."""
    figures = limits.run(scope, 100.0, 1.0, faults=[fault])
    assert expected in red(limits.judge(figures))


def test_a_run_prints_its_figures_and_what_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code says whether all of it does."""
    options = ["limits", "--scope", "process", "--limit", "50", "--seconds", "0.6"]
    code = command.main(options)
    printed = capsys.readouterr().out
    assert code == ("RED" in printed)
    assert re.search(r"process +50/s +16 +\d+\.\d% ", printed)
    assert re.search(r"process +50/s +16 and 16 who give up +\d+\.\d% ", printed)
    assert "  permits of a waiter: " in printed
    assert command.main([*options, "--fault", "slow", "--readme"]) == 1
    printed = capsys.readouterr().out
    assert "| process | 50/s | 16 | " in printed
    assert "RED  used" in printed
