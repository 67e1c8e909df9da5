"""The benchmarks run, the table says what was measured, and the gates turn red on a slowdown."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import __main__ as command
from benchmarks import calls, gates, hit_ratio, imports, instructions, table
from benchmarks.implementations import NAMES, Implementation, using
from benchmarks.measure import SMOKE, Effort, fresh, interleaved, one_argument
from benchmarks.rows import (
    BARE,
    COMPILED,
    OPERO,
    PLAIN,
    CallRow,
    Function,
    Measured,
    Row,
    Side,
    Target,
    unavailable,
)

ROOT = Path(__file__).resolve().parents[1]

# What the peers deprecate, or leave open in threads of theirs, is theirs to mend.
pytestmark = [
    pytest.mark.once,
    pytest.mark.checkout,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SHORT = Effort(rounds=20, loop_ns=50_000)


class EitherRow(CallRow):
    """A row whose compiled side runs on whatever core is active, so that plain tests cover it."""

    def decorated(self, implementation: Implementation) -> Function:
        """Decorate under the active core."""
        return self.opero(self.function())


def doing_nothing(function: Function) -> Function:
    """Leave a function as it is."""
    return function


def not_there(function: Function) -> Function:
    """Need a library that nobody has."""
    raise ImportError("no such library here")


def row_against_itself(most: float) -> EitherRow:
    """A row in which both sides cost the same."""
    return EitherRow(
        "same",
        one_argument("abc"),
        calls.identity,
        doing_nothing,
        (Side("the same", doing_nothing),),
        (Target("the same", most),),
        with_bare=False,
        implementations=("compiled",),
    )


@pytest.mark.parametrize("row", table.ROWS, ids=lambda row: row.name)
def test_every_row_measures_or_reports_as_missing_each_of_its_sides(row: Row) -> None:
    """One tiny run gives a finite figure or a reason for every implementation and peer."""
    measured = row.measure(SMOKE)
    sides = measured.figures.keys() | measured.missing.keys()
    assert OPERO.keys() <= sides
    if isinstance(row, CallRow):
        assert {peer.name for peer in row.peers} <= sides
    assert all(math.isfinite(figure) for figure in measured.figures.values())
    assert not measured.figures.keys() & measured.missing.keys()
    assert PLAIN in measured.figures
    assert (COMPILED in measured.figures) is ("compiled" not in unavailable())


def test_every_promise_is_made_against_a_side_of_its_row() -> None:
    """A target whose peer is not in the row could never be judged."""
    for row in table.ROWS:
        names = {peer.name for peer in row.peers} | {BARE} if isinstance(row, CallRow) else set()
        assert {target.against for target in row.targets if target.against} <= names


def test_both_implementations_can_be_decorated_with_in_one_process() -> None:
    """The switch puts the active core back, whichever one that is."""
    from opero import hotpath

    active = hotpath.core
    for name in NAMES:
        if name not in unavailable():
            with using(name):
                assert hotpath.core.name == name
    assert hotpath.core is active


def test_a_copied_loop_has_a_call_site_of_its_own() -> None:
    """Two sides never share a code object, so neither spoils the other's specialisation."""

    def loop(count: int) -> int:
        return count + 1

    copies = [fresh(loop), fresh(loop)]
    assert [copy(1) for copy in copies] == [2, 2]
    assert len({id(copy.__code__) for copy in (loop, *copies)}) == 3


def test_the_empty_loop_is_taken_off_and_a_dearer_call_costs_more() -> None:
    """Of two functions the one that does a hundred times more is dearer."""
    shape = one_argument(None)
    loops = {
        "(empty loop)": shape.loop(None),
        "cheap": shape.loop(lambda argument: argument),
        "dear": shape.loop(lambda argument: sum(range(500))),
    }
    figures = interleaved(loops, SHORT)
    assert set(figures) == {"cheap", "dear"}
    assert figures["dear"] > 10 * figures["cheap"]


def test_added_figures_are_without_the_bare_call_except_for_hits() -> None:
    """A hit never reaches the function, so nothing is taken off it."""
    row = next(row for row in calls.ROWS if row.added)
    figures = {BARE: 20.0, COMPILED: 50.0, "lru_cache": 60.0, "tenacity": 1020.0}
    expected = {BARE: 20.0, COMPILED: 30.0, "lru_cache": 60.0, "tenacity": 1000.0}
    assert row.subtract(figures) == expected


def test_a_peer_that_is_not_there_is_printed_with_the_reason() -> None:
    """The table shows the gap, and the promise against it is not called met."""
    row = EitherRow(
        "gap",
        one_argument("abc"),
        calls.identity,
        doing_nothing,
        (Side("lost", not_there), Side("lost too", not_there)),
        (Target("lost", 1.0),),
    )
    printed = table.text([(row, row.measure(SMOKE))], SMOKE)
    assert "lost too" in printed
    assert "no such library here" in printed
    assert "0 met, 0 MISSED, 1 not judged" in printed


def test_the_table_shows_rows_figures_ratios_targets_and_verdicts() -> None:
    """Text, Markdown and JSON tell of the same figures."""
    row = table.ROWS[0]
    measured = Measured({COMPILED: 40.0, PLAIN: 400.0, "lru_cache": 80.0, "cachetools": 800.0})
    printed = table.text([(row, measured)], SMOKE)
    line = next(line for line in printed.splitlines() if line.startswith(row.name))
    for cell in ("40.0", "400", "lru_cache", "80.0", "0.50", "0.80 or less", "met"):
        assert cell in line
    assert "20 x less" in printed
    markdown = table.readme([(row, measured)], SMOKE)
    assert f"| {row.name} | 40.0 | 400 | lru_cache 80.0, cachetools 800 |" in markdown
    [entry] = table.as_json([(row, measured)], SMOKE)["rows"]
    assert entry["targets"] == [{"against": "lru_cache", "most": 0.8, "value": 0.5, "met": True}]


def test_the_command_prints_chosen_rows_and_writes_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m benchmarks --row three --json FILE` measures that row alone."""
    monkeypatch.setattr(command, "FULL", SMOKE)
    figures = tmp_path / "figures.json"
    assert command.main(["--row", "three arguments", "--json", str(figures)]) == 0
    assert "hit, three arguments" in capsys.readouterr().out
    [row] = json.loads(figures.read_text(encoding="utf-8"))["rows"]
    assert row["name"] == "hit, three arguments, one by keyword"
    assert row["figures"][PLAIN] > 0


def test_a_row_that_does_not_exist_is_an_error_that_lists_those_that_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A misspelt `--row` is not an empty table."""
    assert command.main(["--row", "no such row"]) == 2
    assert table.ROWS[0].name in capsys.readouterr().out


def test_a_time_gate_is_green_without_and_red_with_a_seeded_slowdown() -> None:
    """Python calls around the decorated function break a promise that held before."""
    row = row_against_itself(most=3.0)
    [green] = gates.time_gates([row], SHORT)
    [red] = gates.time_gates([row.slowed(16)], SHORT, tries=1)
    assert (green.red, red.red) == (False, True)
    assert "RED" in gates.render([red])
    assert "RED" not in gates.render([green])


def test_a_time_gate_is_judged_by_its_best_try() -> None:
    """One disturbed try does not make it red, and noise of a tenth is let through."""
    row = row_against_itself(most=1.0)
    [target] = row.targets
    assert not gates.judge_time(row, target, [5.0, 1.09, 7.0]).red
    assert gates.judge_time(row, target, [5.0, 1.11, 7.0]).red


def test_a_gate_that_cannot_be_measured_is_red() -> None:
    """A lost peer or core does not pass for a kept promise."""
    row = row_against_itself(most=1.0)
    assert gates.judge_time(row, row.targets[0], [None, None]).red


def test_a_known_miss_is_held_to_its_own_limit_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A promise that is not kept yet cannot get worse, and the output says that it is missed."""
    row = row_against_itself(most=1.0)
    [target] = row.targets
    monkeypatch.setattr(gates, "KNOWN_MISSES", {("same", "the same"): (1.5, "too slow yet")})
    held, worse, kept = (gates.judge_time(row, target, [value]) for value in (1.6, 1.7, 0.9))
    assert [verdict.red for verdict in (held, worse, kept)] == [False, True, False]
    assert "MISSED: too slow yet" in held.note
    assert "kept now" in kept.note


def test_every_known_miss_is_about_a_promise() -> None:
    """A renamed row does not leave a looser limit behind."""
    promises = {(row.name, target.against) for row in table.ROWS for target in row.targets}
    assert set(gates.KNOWN_MISSES) <= promises


def counts(ratio: float) -> dict[str, dict[str, float]]:
    """Instruction counts in which every counted row has this ratio to its yardstick."""
    counted = {}
    for row in gates.COUNTED:
        sides = {BARE: 100.0, gates.YARDSTICKS[row.name]: 100.0, COMPILED: 100.0 * ratio}
        if row.added:
            sides[COMPILED] += 100.0
        counted[row.name] = sides
    return counted


def expectation(ratio: float, **build: str) -> dict[str, Any]:
    """An expectation of this ratio in every row, accepted on this build or a changed one."""
    ratios = {row.name: ratio for row in gates.COUNTED}
    return {"build": {**gates.build(), **build}, "ratios": ratios}


@pytest.mark.parametrize(("ratio", "red"), [(0.5, False), (0.62, False), (0.64, True)])
def test_an_instruction_gate_is_red_above_five_percent_more(ratio: float, red: bool) -> None:
    """Fewer instructions, and a few more, are green on the build that was accepted."""
    verdicts = gates.judge_instructions(counts(ratio), expectation(0.6))
    assert [verdict.red for verdict in verdicts] == [red] * len(gates.COUNTED)


@pytest.mark.parametrize(("ratio", "red"), [(0.74, False), (0.76, True)])
def test_another_build_of_python_has_a_wider_margin(ratio: float, red: bool) -> None:
    """The yardstick takes other instructions there, and the verdict says so."""
    verdicts = gates.judge_instructions(counts(ratio), expectation(0.6, python="3.99.0"))
    assert [verdict.red for verdict in verdicts] == [red] * len(gates.COUNTED)
    assert "another build" in verdicts[0].note


def test_what_was_never_accepted_is_red() -> None:
    """A new row or Python needs its `--accept`, or its gate would judge nothing."""
    assert all(verdict.red for verdict in gates.judge_instructions(counts(0.1), None))


def test_accepting_writes_what_the_gates_then_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file holds the ratios of this run and the build that they were counted on."""
    monkeypatch.setattr(gates, "EXPECTED", tmp_path)
    expected = json.loads(gates.accept(counts(0.7)).read_text(encoding="utf-8"))
    assert not any(verdict.red for verdict in gates.judge_instructions(counts(0.73), expected))
    assert all(verdict.red for verdict in gates.judge_instructions(counts(0.74), expected))


def test_every_accepted_file_is_about_exactly_the_counted_rows() -> None:
    """A renamed row takes its expectation along."""
    files = sorted((ROOT / "benchmarks" / "expected").glob("*.json"))
    assert files
    for file in files:
        ratios = json.loads(file.read_text(encoding="utf-8"))["ratios"]
        assert set(ratios) == {row.name for row in gates.COUNTED}


_CALLGRIND = """#!{python}
import json, sys
[out] = [word.partition("=")[2] for word in sys.argv if word.startswith("--callgrind-out-file=")]
for number, total in enumerate([10**6, 5_000, 10_000, 777, 30_000, 60_500], start=1):
    with open(f"{{out}}.{{number}}", "w") as dump:
        print("summary: 1", f"totals: {{total}}", sep="\\n", file=dump)
print(json.dumps([["row", "(empty loop)"], ["row", "opero compiled"]]))
"""


@pytest.mark.skipif(os.name != "posix", reason="valgrind is no program of this system")
def test_instructions_per_call_are_the_difference_of_two_loops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each side's three dumps the first is warm-up, and the empty loop is taken off."""
    valgrind = tmp_path / "valgrind"
    valgrind.write_text(_CALLGRIND.format(python=sys.executable), encoding="utf-8")
    valgrind.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    per_call = (60_500 - 30_000) / 500 - (10_000 - 5_000) / 500
    assert instructions.count([]) == {"row": {"opero compiled": per_call}}


@pytest.mark.skipif(os.name != "posix", reason="valgrind is no program of this system")
def test_a_failing_valgrind_is_an_error_and_not_a_green_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it said is in the message."""
    valgrind = tmp_path / "valgrind"
    valgrind.write_text("#!/bin/sh\necho it broke >&2\nexit 3\n", encoding="utf-8")
    valgrind.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(instructions.CountingError, match="it broke"):
        instructions.count([])


def test_importing_opero_brings_no_heavy_module_and_a_seeded_one_is_seen() -> None:
    """The row that counts them is 0, and 1 or more once asyncio comes along."""
    row = imports.HeavyRow()
    assert set(row.measure(SMOKE).figures.values()) == {0.0}
    assert all(figure >= 1.0 for figure in row.slowed(1).measure(SMOKE).figures.values())


REQUESTS = 20_000


@pytest.mark.parametrize("alpha", [0.7, 0.9, 1.0, 1.2])
@pytest.mark.parametrize("size", [100, 1_000])
def test_on_skewed_requests_the_store_hits_no_less_than_lru(alpha: float, size: int) -> None:
    """S3-FIFO moves nothing on a hit and still keeps what is asked for often."""
    trace = hit_ratio.zipf(alpha, REQUESTS)
    assert hit_ratio.by_opero(trace, size) >= hit_ratio.by_lru(trace, size)


@pytest.mark.parametrize("make", [hit_ratio.scanned, hit_ratio.one_hit_wonders])
def test_keys_that_never_come_back_do_not_flush_the_store(make: Any) -> None:
    """Scans and one-hit wonders cost LRU hits that the store keeps."""
    trace = make(1.0, REQUESTS)
    assert hit_ratio.by_opero(trace, 500) > hit_ratio.by_lru(trace, 500) + 0.025


def test_both_implementations_keep_the_same_entries() -> None:
    """Compiled and plain evict alike, hit for hit."""
    trace = hit_ratio.scanned(0.9, REQUESTS)
    ratios = set()
    for name in NAMES:
        if name not in unavailable():
            with using(name):
                ratios.add(hit_ratio.by_opero(trace, 300))
    assert len(ratios) == 1
