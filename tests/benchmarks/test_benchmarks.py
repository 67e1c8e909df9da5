"""The benchmarks run, the table says what was measured, and the gates turn red on a slowdown."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from repeats import REPEATS

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import __main__ as command
from benchmarks import (
    calls,
    entries,
    history,
    hit_ratio,
    imports,
    install,
    instructions,
    keys,
    peers,
    table,
    threads,
)
from benchmarks.gates import __main__ as gates_command
from benchmarks.gates import counted, promised, record, seeds, verdict
from benchmarks.implementations import NAMES, Implementation, using
from benchmarks.maps import __main__ as maps_command
from benchmarks.maps import alone, busy, memory, plot, sides, sweep, tiny, turns, work
from benchmarks.maps import rows as maps
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
from benchmarks.stores import __main__ as stores_command
from benchmarks.stores import disk, permits, place, server, values
from benchmarks.stores import rows as stores
from benchmarks.stores import sides as store_sides

ROOT = Path(__file__).resolve().parents[2]

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


def not_there(function: Function, workers: int = 0) -> Any:
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


@pytest.mark.slow
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
    if isinstance(row, threads.ThreadsRow) and threads.missing():
        assert not measured.figures
        return
    assert PLAIN in measured.figures
    assert (COMPILED in measured.figures) is ("compiled" not in unavailable())


def test_every_promise_is_made_against_a_side_of_its_row() -> None:
    """A target whose peer is not in the row could never be judged."""
    for row in table.ROWS:
        peers = () if isinstance(row, imports.ImportRow) else getattr(row, "peers", ())
        names = {peer.name for peer in peers} | {BARE}
        if isinstance(row, threads.ThreadsRow):
            names.add(threads.ALONE)
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
    row = next(row for row in table.ROWS if "TTL set" in row.name)
    measured = Measured({COMPILED: 40.0, PLAIN: 400.0, "lru_cache": 80.0, "cachetools": 800.0})
    printed = table.text([(row, measured)], SMOKE)
    line = next(line for line in printed.splitlines() if line.startswith(row.name))
    for cell in ("40.0", "400", "lru_cache", "80.0", "0.50", "0.80 or less", "met"):
        assert cell in line
    assert "20 x less" in printed
    markdown = table.readme([(row, measured)], SMOKE)
    assert "| what | opero | opero, plain Python | lru_cache | cachetools |" in markdown
    assert f"| {row.name} | 40.0 | 400 | 80.0 | 800 |" in markdown
    [entry] = table.as_json([(row, measured)], SMOKE)["rows"]
    assert entry["targets"] == [{"against": "lru_cache", "most": 0.8, "value": 0.5, "met": True}]


def test_the_command_prints_chosen_rows_and_writes_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m benchmarks --row TEXT --json FILE` measures that row alone."""
    monkeypatch.setattr(command, "FULL", SMOKE)
    figures = tmp_path / "figures.json"
    assert command.main(["--row", "hit, three arguments, one", "--json", str(figures)]) == 0
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
    [green] = promised.gates([row], SHORT, tries=5, pause=0)
    [red] = promised.gates([row.slowed(16)], SHORT, tries=2, pause=0)
    assert (green.word, red.word) == ("ok", "RED")


def measured_row(most: float, *figures: tuple[float, float], unit: str = "ns") -> Any:
    """A row against a peer, of which one figure for opero and one for the peer come at a time."""

    class Canned:
        name = "canned"
        targets = (Target("peer", most),)

        def __init__(self) -> None:
            self.unit = unit
            self.rounds: list[int] = []

        def against(self, *names: str) -> Any:
            assert names == ("peer",)
            return self

        def measure(self, effort: Effort) -> Measured:
            own, other = figures[len(self.rounds)]
            self.rounds.append(effort.rounds)
            return Measured({COMPILED: own, "peer": other})

        def slowed(self, calls: int) -> Any:
            return measured_row(most, *((own + calls, other) for own, other in figures), unit=unit)

    return Canned()


def test_what_is_red_is_measured_again_and_longer_until_it_is_green() -> None:
    """One disturbed try does not make a gate red; what is green has no other try."""
    row = measured_row(1.0, (5.0, 1.0), (7.0, 1.0), (1.05, 1.0), (1.0, 1.0))
    [judged] = promised.gates([row], replace(SHORT, rounds=40), tries=5, pause=0)
    assert judged.word == "ok"
    assert judged.value == 1.05
    assert row.rounds == [40, 60, 80]


def test_what_stays_red_is_red_in_the_end() -> None:
    """As many tries as there are do not make a regression green."""
    row = measured_row(1.0, *[(1.2, 1.0)] * 5)
    [judged] = promised.gates([row], SHORT, tries=5, pause=0)
    assert judged.word == "RED"
    assert len(row.rounds) == 5


def test_a_disturbed_yardstick_makes_no_gate_green() -> None:
    """The least figure of each side counts, and not the best ratio of one try."""
    row = measured_row(1.0, (1.3, 1.0), (1.3, 2.0))
    assert promised.least(row, [row.measure(SHORT), row.measure(SHORT)]).figures["peer"] == 1.0
    row = measured_row(1.0, (1.3, 1.0), (1.4, 1.0), (1.3, 1.2))
    [judged] = promised.gates([row], SHORT, tries=3, pause=0)
    assert judged.red


def test_of_added_costs_the_least_whole_calls_are_compared() -> None:
    """A slow bare call in one try does not make what was added look small."""
    row = next(row for row in calls.ROWS if row.added)
    slow_bare = Measured({BARE: 50.0, COMPILED: 20.0, peers.LRU: 60.0, "tenacity": 900.0})
    usual = Measured({BARE: 20.0, COMPILED: 45.0, peers.LRU: 65.0, "tenacity": 1000.0})
    least = promised.least(row, [slow_bare, usual]).figures
    assert least == {BARE: 20.0, COMPILED: 45.0, peers.LRU: 60.0, "tenacity": 930.0}
    assert row.subtract(row.whole(usual.figures)) == usual.figures


def test_noise_of_a_tenth_is_let_through() -> None:
    """And no more."""
    row = row_against_itself(most=1.0)
    [target] = row.targets
    assert not promised.judge(row, target, 1.09).red
    assert promised.judge(row, target, 1.11).red


def test_what_is_counted_has_a_smaller_margin_than_what_is_measured() -> None:
    """Bytes are the same each time, and not one module more is let through."""
    [target] = imports.HeavyRow().targets
    assert not promised.judge(imports.HeavyRow(), target, 0.0).red
    assert promised.judge(imports.HeavyRow(), target, 1.0).red
    row = entries.GATED[0]
    target = row.targets[0]
    assert not promised.judge(row, target, target.most * 1.019).red
    assert promised.judge(row, target, target.most * 1.021).red


def test_a_gate_that_cannot_be_measured_is_red() -> None:
    """A lost peer or core does not pass for a kept promise."""
    row = row_against_itself(most=1.0)
    assert promised.judge(row, row.targets[0], None).red
    lost = Measured({COMPILED: 1.0}, {"the same": "no such library"})
    assert promised.least(row, [lost, Measured({COMPILED: 1.0, "the same": 1.0})]).figures == {
        COMPILED: 1.0
    }


def test_a_known_miss_is_held_to_its_own_limit_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A promise that is not kept yet cannot get worse, and the output says that it is missed."""
    row = row_against_itself(most=1.0)
    [target] = row.targets
    misses = {("same", "the same"): (1.5, "too slow yet")}
    monkeypatch.setattr(promised, "KNOWN_MISSES", misses)
    held, worse, kept = (promised.judge(row, target, value) for value in (1.6, 1.7, 0.9))
    assert [judged.word for judged in (held, worse, kept)] == ["known miss", "RED", "ok"]
    assert held.target == 1.0
    assert "held to 1.5: too slow yet" in held.note
    assert "kept now" in kept.note


def gated_rows() -> list[Row]:
    """All rows whose promises are gates."""
    return [row for rows in promised.GROUPS.values() for row in rows]


def test_every_known_miss_is_about_a_promise() -> None:
    """A renamed row does not leave a looser limit behind."""
    promises = {(row.name, target.against) for row in gated_rows() for target in row.targets}
    assert set(promised.KNOWN_MISSES) <= promises


def test_every_promise_of_the_table_is_a_gate() -> None:
    """No row of calls, imports or entries is forgotten, and no gate has the name of another."""
    lost = set() if keys.HAS_ORJSON else {row.name for row in keys.ROWS}
    promises = {row.name for row in table.ROWS if row.targets}
    assert promises - lost <= {row.name for row in gated_rows()}
    names = [(row.name, target.against) for row in gated_rows() for target in row.targets]
    assert len(set(names)) == len(names)


def test_the_table_of_gates_has_value_target_margin_and_verdict_as_columns() -> None:
    """Each in a column of its own; the limit follows from target and margin."""
    green = verdict.Verdict("row", "time", "peer", 0.5, 0.6, 0.1)
    miss = replace(green, value=0.7, held=0.8, note="held to 0.8: why")
    head, *lines = verdict.render([green, miss, replace(green, value=None)]).splitlines()
    assert head.split() == ["gate", "of", "against", "value", "target", "margin", "verdict"]
    assert lines[0].split() == ["row", "time", "peer", "0.500", "0.600", "10%", "ok"]
    assert lines[1].endswith("known miss  held to 0.8: why")
    assert lines[2].split() == ["row", "time", "peer", "-", "0.600", "10%", "RED"]
    assert miss.limit == pytest.approx(0.88)


def test_the_smallest_seed_that_turns_a_gate_red_is_the_proof() -> None:
    """A gate that no seed turns red, or that is red without one, is not proved."""
    row = measured_row(4.0, *[(1.0, 1.0)] * 3)
    [proof] = seeds.in_promises([row], SHORT)
    assert (proof.word, proof.value, proof.note) == ("proved", 5.0, "4 added")
    [never] = seeds.in_promises([measured_row(1e9, *[(1.0, 1.0)] * 3)], SHORT)
    [always] = seeds.in_promises([measured_row(0.5, *[(1.0, 1.0)] * 3)], SHORT)
    assert (never.word, never.red) == ("NOT PROVED", False)
    assert (always.word, always.red) == ("NOT PROVED", True)
    assert "without any seed" in always.note
    assert verdict.summary([proof, never, always]) == "1 proved, 2 NOT PROVED"


def counts(ratio: float) -> dict[str, dict[str, float]]:
    """Instruction counts in which every counted row has this ratio to its yardstick."""
    by_row = {}
    for row in counted.COUNTED:
        sides = {BARE: 100.0, counted.YARDSTICKS[row.name]: 100.0, COMPILED: 100.0 * ratio}
        if row.added:
            sides[COMPILED] += 100.0
        by_row[row.name] = sides
    return by_row


def expectation(ratio: float, **build: str) -> dict[str, Any]:
    """An expectation of this ratio in every row, accepted on this build or a changed one."""
    ratios = {row.name: ratio for row in counted.COUNTED}
    return {"build": {**counted.build(), **build}, "ratios": ratios}


@pytest.mark.parametrize(("ratio", "red"), [(0.5, False), (0.62, False), (0.64, True)])
def test_an_instruction_gate_is_red_above_five_percent_more(ratio: float, red: bool) -> None:
    """Fewer instructions, and a few more, are green on the build that was accepted."""
    verdicts = counted.judge(counts(ratio), expectation(0.6))
    assert [judged.red for judged in verdicts] == [red] * len(counted.COUNTED)


@pytest.mark.parametrize(("ratio", "red"), [(0.74, False), (0.76, True)])
def test_another_build_of_python_has_a_wider_margin(ratio: float, red: bool) -> None:
    """The yardstick takes other instructions there, and the verdict says so."""
    verdicts = counted.judge(counts(ratio), expectation(0.6, python="3.99.0"))
    assert [judged.red for judged in verdicts] == [red] * len(counted.COUNTED)
    assert "another build" in verdicts[0].note


def test_the_accepted_counts_of_the_most_similar_build_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several builds of one minor version have files; PGO weighs more than the patch release."""
    monkeypatch.setattr(counted, "EXPECTED", tmp_path)
    minor = "{}.{}".format(*sys.version_info[:2])
    here = {
        "python": f"{minor}.5",
        "built": "with PGO",
        "compiler": "GCC 12.2.0",
        "machine": "x86_64",
        "options": "-O2",
    }

    def accept(ratio: float, **other: str) -> Path:
        monkeypatch.setattr(counted, "build", lambda: {**here, **other})
        return counted.accept(counts(ratio))

    def ratio() -> float:
        monkeypatch.setattr(counted, "build", lambda: here)
        accepted = counted.expected()
        assert accepted is not None
        return max(accepted["ratios"].values())

    accept(0.1, python="2.7.18")
    monkeypatch.setattr(counted, "build", lambda: here)
    assert counted.expected() is None
    for number, other in enumerate(
        (
            {"built": "without PGO"},
            {"machine": "aarch64"},
            {"python": f"{minor}.4", "compiler": "GCC 11.1.0"},
            {"compiler": "Clang 19.1.0 "},
            {},
        ),
        start=2,
    ):
        accept(number / 10, **other)
        assert ratio() == number / 10
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 6
    assert f"{minor}.5-without-pgo-gcc-12.2.0-x86_64.json" in names


def test_a_verdict_names_the_build_whose_counts_it_judges_by() -> None:
    """Its margin is the wider one."""
    build = {"python": "3.99.0", "built": "without PGO", "machine": "riscv64"}
    verdicts = counted.judge(counts(0.5), expectation(0.6, **build))
    assert "another build: 3.99.0, without PGO" in verdicts[0].note
    assert verdicts[0].margin == counted.MARGIN_OTHER_BUILD


def test_what_was_never_accepted_is_red() -> None:
    """A new row or Python needs its `--accept`, or its gate would judge nothing."""
    assert all(judged.red for judged in counted.judge(counts(0.1), None))


def test_more_calls_turn_every_instruction_gate_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are judged by what this build counts without them, the smallest seed that is seen counts."""

    def proofs(cost: float) -> list[verdict.Verdict]:
        monkeypatch.setattr(
            counted, "count", lambda *added: [counts(0.5 + cost * seed) for seed in added]
        )
        return seeds.in_counts()

    assert {proof.note for proof in proofs(0.1)} == {"1 Python call added"}
    assert {proof.note for proof in proofs(0.01)} == {"8 Python calls added"}
    assert all(proof.proved for cost in (0.1, 0.01) for proof in proofs(cost))
    assert not any(proof.proved for proof in proofs(0.0))


def test_accepting_writes_what_the_gates_then_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file holds the ratios of this run and the build that they were counted on."""
    monkeypatch.setattr(counted, "EXPECTED", tmp_path)
    assert counted.expected() is None
    counted.accept(counts(0.7))
    assert not any(judged.red for judged in counted.judge(counts(0.73), counted.expected()))
    assert all(judged.red for judged in counted.judge(counts(0.74), counted.expected()))


def test_every_accepted_file_is_about_exactly_the_counted_rows() -> None:
    """A renamed row takes its expectation along."""
    files = sorted((ROOT / "benchmarks" / "expected").glob("*.json"))
    assert files
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        yardsticks = {
            row.name: counted.YARDSTICKS[row.name] in content["instructions"][row.name]
            for row in counted.COUNTED
        }
        assert set(content["ratios"]) == {name for name, there in yardsticks.items() if there}
        assert set(yardsticks) - set(content["ratios"]) <= {"hit, one nested dict of 10 keys"}


def test_a_row_that_has_lost_its_yardstick_is_red() -> None:
    """Where it was accepted without, as orjson is not there on every Python, there is no gate."""
    row = next(row.name for row in counted.COUNTED if "nested dict" in row.name)
    found = counts(0.5)
    del found[row][counted.YARDSTICKS[row]]
    judged = counted.judge(found, expectation(0.6))
    assert [verdict.row for verdict in judged if verdict.red] == [row]
    accepted = expectation(0.6)
    del accepted["ratios"][row]
    assert not any(verdict.red for verdict in counted.judge(found, accepted))


@pytest.fixture
def small_gates(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command with one group of one row that is green, and no instructions."""
    monkeypatch.setattr(gates_command.instructions, "missing", lambda: "not now")
    monkeypatch.setattr(
        promised, "GROUPS", {"calls": (measured_row(1.0, *[(0.9, 1.0)] * 9),), "maps": ()}
    )
    monkeypatch.setattr(gates_command, "GROUPS", ("instructions", "calls", "maps"))
    monkeypatch.setattr(promised, "PAUSE", 0.0)


def test_the_command_of_the_gates_tells_what_it_left_out_and_writes_what_they_said(
    tmp_path: Path, small_gates: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """And compares it with an earlier run."""
    file = tmp_path / "gates.json"
    assert gates_command.main(["--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "no gates on instructions: not now" in printed
    assert "1 ok, 0 known miss, 0 RED" in printed
    assert record.read(file).gates["canned [time / peer]"] == record.Figure(0.9, 1.0, 1.1, "ok")
    assert gates_command.main(["--only", "calls", "--against", str(file)]) == 0
    assert "no value changed" in capsys.readouterr().out


def test_gates_that_were_asked_for_and_cannot_be_judged_are_red(small_gates: None) -> None:
    """Without valgrind, `--only instructions` and `--accept` fail."""
    assert gates_command.main(["--only", "instructions,calls"]) == 1
    assert gates_command.main(["--accept"]) == 1


def test_a_python_that_flatters_opero_is_named(
    small_gates: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures of a CPython without PGO are no promise to anybody."""
    for optimised in (True, False, None):
        monkeypatch.setattr(
            gates_command.interpreter, "with_pgo", lambda config, is_=optimised: is_
        )
        assert gates_command.main([]) == 0
        assert (gates_command.FLATTERED in capsys.readouterr().out) is (optimised is not True)


def test_groups_that_cannot_be_measured_here_are_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two threads need a free-threaded Python; who asks for them gets an error elsewhere."""
    monkeypatch.setattr(promised, "MISSING", {"threads": lambda: "they take turns"})
    rows = {"threads": threads.ROWS, "calls": (measured_row(1.0, *[(0.9, 1.0)] * 9),)}
    monkeypatch.setattr(promised, "GROUPS", rows)
    monkeypatch.setattr(gates_command, "GROUPS", ("threads", "calls"))
    assert gates_command.main([]) == 0
    printed = capsys.readouterr().out
    assert "no gates on threads: they take turns" in printed
    assert "1 ok, 0 known miss, 0 RED" in printed
    assert gates_command.main(["--only", "threads"]) == 1


def test_a_red_gate_is_the_exit_code_of_the_command(
    small_gates: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also that of `--prove`, the other way round."""
    red = measured_row(0.5, *[(0.9, 1.0)] * 9)
    monkeypatch.setattr(promised, "GROUPS", {"calls": (red,), "maps": ()})
    monkeypatch.setattr(promised, "TRIES", 1)
    assert gates_command.main([]) == 1
    assert "1 RED" in capsys.readouterr().out
    assert gates_command.main(["--prove"]) == 1
    green = measured_row(1.0, *[(0.9, 1.0)] * 9)
    monkeypatch.setattr(promised, "GROUPS", {"calls": (green,), "maps": ()})
    assert gates_command.main(["--prove", "--only", "calls"]) == 0


def test_groups_of_gates_that_do_not_exist_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt `--only` judges nothing."""
    with pytest.raises(SystemExit):
        gates_command.main(["--only", "calls,mops"])
    assert "'mops' is none of instructions, calls, entries" in capsys.readouterr().err


# --- what the gates said before ---------------------------------------------------------------


def a_record(day: int, python: str = "3.13.0", **values: float | None) -> record.Record:
    """A record of a day with these values by gate."""
    gates = {name: record.Figure(value, 1.0, 1.1, "ok") for name, value in values.items()}
    return record.Record(f"2026-01-{day:02}T00:00:00+00:00", f"c{day}", python, "machine", gates)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A value that could not be had too."""
    file = tmp_path / "gates.json"
    written = a_record(3, one=0.5, lost=None)
    record.write(written, file)
    assert record.read(file) == written


def test_a_record_knows_its_commit_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI measures outside of the checkout, where git knows nothing."""
    monkeypatch.setenv("GITHUB_SHA", "abc")
    made = record.of([verdict.Verdict("row", "time", "peer", 0.5, 0.6, 0.1)])
    assert made.commit == "abc"
    assert made.gates == {"row [time / peer]": record.Figure(0.5, 0.6, 0.6 * 1.1, "ok")}
    monkeypatch.delenv("GITHUB_SHA")
    monkeypatch.setenv("PATH", "")
    assert record.commit() == ""


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"gates": []}',
        json.dumps({**vars(a_record(1)), "date": "yesterday"}),
        json.dumps({**vars(a_record(1)), "date": "2026-01-01T00:00:00"}),
        json.dumps({**vars(a_record(1)), "python": "new"}),
        json.dumps({**vars(a_record(1)), "gates": {"one": {"value": "much"}}}),
        json.dumps({**vars(a_record(1)), "gates": {"one": 3}}),
    ],
)
def test_a_file_that_is_no_record_is_named_in_the_error(tmp_path: Path, content: str) -> None:
    """A truncated download does not end in a riddle."""
    file = tmp_path / "broken.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(record.RecordError, match=r"broken\.json: no record of gates"):
        record.read(file)


def test_changes_are_those_that_can_be_told_from_noise() -> None:
    """Gates that came, went or could not be judged are told of as well."""
    before = a_record(1, same=1.0, slower=1.0, gone=1.0, lost=2.0)
    now = a_record(2, same=1.01, slower=1.1, new=3.0, lost=None)
    _what, _head, *lines = record.changes(before, now).splitlines()
    assert [line.split() for line in lines] == [
        ["slower", "1.000", "1.100", "+10.0%"],
        ["gone", "1.000", "-"],
        ["lost", "2.000", "-"],
        ["new", "-", "3.000"],
    ]


def test_the_history_has_a_line_for_each_python_and_gaps_where_nothing_was_measured() -> None:
    """Several Pythons at one commit are one run; of two records of it the later counts."""
    records = [
        a_record(1, one=1.0),
        a_record(1, "3.9.1", one=2.0),
        a_record(2, one=None),
        a_record(3, other=5.0),
        a_record(4, one=1.1),
        a_record(4, one=1.2),
    ]
    assert history.points(records, "one") == {"3.9": [(0, 2.0)], "3.13": [(0, 1.0), (3, 1.2)]}
    assert list(history.points(records, "one")) == ["3.9", "3.13"]
    assert history.points(records, "other") == {"3.13": [(2, 5.0)]}
    assert [run for run, _day in history.runs(records)] == ["c1", "c2", "c3", "c4"]


def test_the_history_is_drawn_from_what_can_be_read_and_the_rest_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code says that something was left out; the same files give the same chart."""
    pytest.importorskip("matplotlib")
    folder = tmp_path / "runs"
    (folder / "b").mkdir(parents=True)
    record.write(
        a_record(2, **{"one [time / peer]": 1.0, "two [time / peer]": 2.0}), folder / "a.json"
    )
    record.write(a_record(1, "3.10.1", **{"one [time / peer]": 1.5}), folder / "b" / "a.json")
    charts = [tmp_path / "one.svg", tmp_path / "two.svg"]
    assert [history.main([str(folder), str(chart)]) for chart in charts] == [0, 0]
    assert charts[0].read_bytes() == charts[1].read_bytes()
    drawn = charts[0].read_text(encoding="utf-8")
    for text in ("one", "two", "CPython 3.10", "CPython 3.13", "2 runs"):
        assert text in drawn
    (folder / "broken.json").write_text("{", encoding="utf-8")
    assert history.main([str(folder), str(charts[1])]) == 1
    assert "broken.json" in capsys.readouterr().err
    assert charts[0].read_bytes() == charts[1].read_bytes()


def test_a_history_of_nothing_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no chart then."""
    assert history.main([str(tmp_path), str(tmp_path / "out.svg")]) == 1
    assert "no records" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --- two threads, and installing ----------------------------------------------------------------


def test_two_threads_are_timed_from_the_first_start_to_the_last_end() -> None:
    """Each runs its own loop; the figure is per call of either."""
    ran: list[int] = []

    def loop(count: int) -> int:
        ran.append(count)
        time.sleep(0.01)
        return 0

    assert threads.together((loop, loop), 100) >= 0.01e9 / 200
    assert ran == [100, 100]


def test_the_row_of_threads_measures_every_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the threads take turns, if it is made to."""
    monkeypatch.setattr(threads, "missing", lambda: None)
    halves = tuple(half for half in NAMES if half not in unavailable())
    measured = replace(threads.ThreadsRow(), implementations=halves).measure(SMOKE)
    assert measured.figures.keys() >= {PLAIN, threads.LRU_TOGETHER}
    assert (threads.ALONE in measured.figures) is ("compiled" in halves)
    assert all(0 < figure < math.inf for figure in measured.figures.values())
    [target] = threads.ThreadsRow().targets
    assert Measured({COMPILED: 10.0, threads.ALONE: 16.0}).met(target)
    assert not Measured({COMPILED: 10.1, threads.ALONE: 16.0}).met(target)


def test_a_lock_between_two_threads_is_the_seeded_regression_of_their_row() -> None:
    """It is taken as often as it says, and the call is made once."""
    row = threads.ThreadsRow().against(threads.ALONE).slowed(3)
    assert isinstance(row, threads.ThreadsRow)
    assert (row.seed, row.with_lru, row.implementations) == (3, False, ("compiled",))
    assert threads.locking(lambda argument: argument, 3)("abc") == "abc"


@pytest.mark.slow
def test_pip_is_timed_on_a_copy_of_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without what an earlier build has left in them; twice, if that is the seed."""
    installed: list[tuple[Path, Path]] = []

    def pip(source: Path, target: Path) -> None:
        assert (source / "src" / "opero" / "__init__.py").exists()
        assert not [*source.rglob("*.so"), *source.rglob("*.pyd")]
        installed.append((source, target))

    monkeypatch.setattr(install, "_install", pip)
    monkeypatch.setattr(install, "missing", lambda: None)
    row = install.InstallRow()
    assert set(row.measure(SMOKE).figures) == {COMPILED}
    row.slowed(1).measure(SMOKE)
    assert len(installed) == 3
    assert len(set(installed)) == 3
    assert not [source for source, _ in installed if source.exists()]


def test_without_sources_or_pip_nothing_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the benchmarks run beside an installed wheel, as CI runs them."""
    monkeypatch.setattr(install, "CHECKOUT", tmp_path)
    assert "sources" in str(install.missing())
    measured = install.InstallRow().measure(SMOKE)
    assert (measured.figures, list(measured.missing)) == ({}, [COMPILED])


def test_a_pip_that_fails_is_an_error_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no short time."""

    def fails(command: list[str], **options: Any) -> Any:
        assert command[1:4] == ["-m", "pip", "install"]
        assert options["env"]["CCACHE_DISABLE"] == "1"
        return subprocess.CompletedProcess(command, 1, "", "no compiler")

    monkeypatch.setattr(install.subprocess, "run", fails)
    with pytest.raises(RuntimeError, match="no compiler"):
        install._install(tmp_path / "nothing", tmp_path / "target")


# --- what a cached entry takes ------------------------------------------------------------------


def test_the_memory_of_an_entry_is_the_same_each_time_it_is_counted() -> None:
    """And a seeded object in each entry is seen, to the byte."""
    half = next(name for name in NAMES if name not in unavailable())
    row = replace(entries.GATED[0], implementations=(half,), peers=(peers.lru_hit(),))

    def least(row: entries.EntryRow) -> dict[str, float]:
        """Count thrice: what another thread allocates meanwhile is counted, too."""
        counts = [row.measure(SMOKE).figures for _ in range(3)]
        return {side: min(count[side] for count in counts) for side in counts[0]}

    figures = [least(row) for _ in range(2)]
    assert figures[0] == pytest.approx(figures[1], abs=0.5)
    [own] = figures[0].keys() - {peers.LRU}
    seeded = least(row.slowed(3))
    tuple_of_three = sys.getsizeof((1, 2, 3))
    assert seeded[own] - figures[0][own] == pytest.approx(tuple_of_three, abs=0.5)
    assert seeded[peers.LRU] == pytest.approx(figures[0][peers.LRU], abs=0.5)


def test_a_side_whose_resident_memory_cannot_be_had_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the reason."""
    lost = Side("lost", not_there)
    row = replace(entries.ResidentRow(), peers=(lost,), implementations=())
    assert "lost" in row.measure(SMOKE).missing["lost"]


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


@pytest.mark.slow
def test_importing_opero_brings_no_heavy_module_and_a_seeded_one_is_seen() -> None:
    """The row that counts them is 0, and 1 or more once asyncio comes along."""
    row = imports.HeavyRow()
    assert set(row.measure(SMOKE).figures.values()) == {0.0}
    assert all(figure >= 1.0 for figure in row.slowed(1).measure(SMOKE).figures.values())


# --- the map ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("row", maps.ROWS, ids=lambda row: row.name)
def test_every_row_of_the_map_measures_or_reports_as_missing_each_of_its_sides(row: Any) -> None:
    """One small batch through every side, the results compared with what they have to be.

    Most peers start processes, for some seconds each; the first stands for all, but in the long form.
    """
    if "MiB" in row.name:
        row = replace(row, count=4)
    if REPEATS < 100 and hasattr(row, "peers"):
        row = replace(row, peers=row.peers[:1])
    measured = row.measure(SMOKE)
    sides = measured.figures.keys() | measured.missing.keys()
    assert OPERO.keys() <= sides
    assert {peer.name for peer in getattr(row, "peers", ())} <= sides  # resilience has none
    assert all(0 <= figure < math.inf for figure in measured.figures.values())
    assert not measured.figures.keys() & measured.missing.keys()
    assert (COMPILED in measured.figures) is ("compiled" not in unavailable())


def test_every_promise_of_the_map_is_made_against_a_side_of_its_row() -> None:
    """The gates hold promises of the table, and no others."""
    promises = set()
    for row in maps.ROWS:
        names = {peer.name for peer in getattr(row, "peers", ())} | {"", busy.IDEAL}
        assert {target.against for target in row.targets} <= names
        promises |= {(row.name, target) for target in row.targets}
    assert {(row.name, target) for row in maps.GATED for target in row.targets} <= promises


def test_a_side_of_the_map_with_wrong_results_is_an_error() -> None:
    """A map that is quick because it loses an item is not measured."""
    wrong = {"forgetful": (lambda items: list(items)[:-1], range(10))}
    with pytest.raises(AssertionError, match="forgetful"):
        turns.in_turns(wrong, SMOKE)


def test_the_fastest_turn_of_a_side_counts_and_a_slow_side_has_fewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sides take turns; one that is out of patience leaves them to the others."""
    calls: list[str] = []

    def mapper(name: str) -> Any:
        def mapped(items: Any) -> list[Any]:
            calls.append(name)
            return list(items)

        return mapped

    times = iter([5.0, 70.0, 3.0, 4.0])
    monkeypatch.setattr(turns, "_PATIENCE", 0)
    both = {name: (mapper(name), range(3)) for name in ("one", "other")}
    best = turns.in_turns(both, Effort(turns=3), lambda *_: next(times))
    assert calls == ["one", "other"] * 2
    assert best == {"one": 5.0, "other": 70.0}
    monkeypatch.undo()
    best = turns.in_turns({"one": both["one"]}, Effort(turns=2), lambda *_: next(times))
    assert best == {"one": 3.0}


def test_of_a_hundred_skewed_items_one_is_a_hundred_times_longer() -> None:
    """As it is promised; the places are drawn once."""
    items = work.skewed(1_000)
    assert sorted(set(items)) == [100_000, 10_000_000]
    assert items.count(10_000_000) == 10
    assert items == work.skewed(1_000)


def test_no_schedule_is_shorter_than_its_longest_item_nor_than_its_share_of_the_sum() -> None:
    """The yardstick of the makespan; items that took longer lengthen it."""
    assert busy.shortest([8, 1, 1]) == 8
    assert busy.shortest([1] * 8 * sides.PROCESSES) == 8
    items = [1_000_000] * 2 * sides.PROCESSES
    assert busy.makespan(2_000_000, items, items) == 2.0
    assert busy.makespan(6_000_000, items, [2 * item for item in items]) == 3.0


def test_the_makespan_of_a_fixed_large_chunk_is_worse_than_the_ideal() -> None:
    """The seeded regression of the skewed row: one worker gets all, the others wait."""
    halves = tuple(half for half in NAMES if half not in unavailable())
    row = replace(busy.SKEWED.against(), implementations=halves[:1], count=200)
    measured = row.slowed(200).measure(SMOKE)
    [own] = measured.figures.keys() - {busy.IDEAL}
    assert measured.figures[own] > 0.9 * sides.PROCESSES * measured.figures[busy.IDEAL]


@pytest.mark.parametrize("row", tiny.ROWS, ids=lambda row: row.name)
def test_a_slowed_map_has_the_same_results(row: tiny.MapRow) -> None:
    """Python calls around the mapped function cost time and change nothing else."""
    halves = tuple(half for half in NAMES if half not in unavailable())
    slowed = replace(row.slowed(3), implementations=halves[:1], peers=())
    assert len(slowed.measure(SMOKE).figures) == 1


@pytest.mark.slow
def test_a_stream_whose_results_are_kept_is_seen_in_its_memory() -> None:
    """The seeded regression of the memory rows, in an interpreter of its own."""
    half = next(half for half in NAMES if half not in unavailable())
    count = 2_000_000  # of some 36 bytes each
    kept, dropped = (alone.run(f"opero thread {half}", 2, count, seed) for seed in (count, 0))
    assert kept["mebibytes"] > dropped["mebibytes"] + 24


@pytest.mark.slow
def test_a_stream_in_another_interpreter_tells_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that cannot be imported there is no crash."""
    (tmp_path / "mpire.py").write_text("raise ImportError('it is not for this Python')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(alone.MissingError, match="not for this Python"):
        alone.run("mpire", 2, 10)


def test_the_gate_of_memory_is_red_above_its_promise() -> None:
    """64 MiB and a tenth for noise."""
    [target] = memory.THREAD.targets
    assert not promised.judge(memory.THREAD, target, 70.0).red
    assert promised.judge(memory.THREAD, target, 71.0).red


def test_the_sweep_leaves_out_sizes_that_would_take_a_side_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The table shows a gap there, and the reason why a peer is missing."""
    lost = sides.Peer("lost", not_there)
    monkeypatch.setattr(sweep, "PEERS", ((sides.THREAD_EXECUTOR, 2), (lost, 2)))
    costs, missing = sweep.sweep(SMOKE, (10, 1_000))
    assert missing == {"lost": "no such library here"}
    assert set(costs) == {"opero, process", "opero, thread", sides.THREAD_EXECUTOR.name}
    assert all(set(by_size) == {10, 1_000} for by_size in costs.values())
    monkeypatch.setattr(sweep, "_LONGEST", 0)
    costs, _ = sweep.sweep(SMOKE, (10, 100, 1_000))
    assert all(set(by_size) == {10} for by_size in costs.values())
    assert sweep.text({"a": {10: 5.0}, "b": {10: 4.0, 1_000: 3.0}}).splitlines()[1].endswith(" -")


def test_the_command_of_the_map_prints_chosen_rows_and_writes_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m benchmarks.maps --row thread,_200 --json FILE` measures that row alone."""
    monkeypatch.setattr(maps_command, "FULL", SMOKE)
    figures = tmp_path / "figures.json"
    assert maps_command.main(["--row", tiny.THREAD.name, "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    assert tiny.THREAD.name in printed
    assert "20 x less" in printed
    content = json.loads(figures.read_text(encoding="utf-8"))
    assert [row["name"] for row in content["rows"]] == [tiny.THREAD.name]
    assert content["sweep"] == {}
    assert content["processors"] == os.cpu_count()
    assert maps_command.main(["--readme", "--row", tiny.THREAD.name]) == 0
    assert f"| {tiny.THREAD.name} (ns/item) |" in capsys.readouterr().out


def test_a_row_of_the_map_that_does_not_exist_is_an_error_that_lists_those_that_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A misspelt `--row` is not an empty table."""
    assert maps_command.main(["--row", "no such row"]) == 2
    printed = capsys.readouterr().out
    assert tiny.THREAD.name in printed
    assert maps_command.SWEEP in printed


def test_the_plot_wants_a_sweep() -> None:
    """Figures of single rows are no curve; those of a sweep are sorted by size."""
    with pytest.raises(ValueError, match="no sweep"):
        plot.series({"sweep": {}})
    points = plot.series({"sweep": {"side": {"1000": 3, "20": 4.5}}})
    assert points == {"side": [(20, 4.5), (1000, 3.0)]}


def test_the_plot_is_drawn_from_the_figures_and_the_same_each_time(tmp_path: Path) -> None:
    """Every side is named in it."""
    lines = {"opero, process": [(10, 5.0), (100, 4.0)], "peer": [(10, 50.0), (100, 40.0)]}
    drawn = []
    for name in ("one.svg", "two.svg"):
        plot.draw(lines, "some machine", tmp_path / name)
        drawn.append((tmp_path / name).read_text(encoding="utf-8"))
    assert drawn[0] == drawn[1]
    for text in (*lines, "some machine"):
        assert text in drawn[0]


def test_the_plot_of_the_documentation_and_the_figures_are_of_the_same_sides() -> None:
    """Who measures again draws again."""
    figures = ROOT / "benchmarks" / "figures" / "map.json"
    content = json.loads(figures.read_text(encoding="utf-8"))
    drawn = (ROOT / "docs" / "figures" / "map.svg").read_text(encoding="utf-8")
    for text in (*plot.series(content), content["machine"]):
        assert f">{text}<" in drawn


# --- stores -------------------------------------------------------------------------------------


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be no redis-server."""
    monkeypatch.setattr(server.shutil, "which", lambda name: None)


def measured_or_missing(row: Any) -> Measured:
    """Measure a row with the least effort, and see that no side is forgotten."""
    measured: Measured = row.measure(SMOKE)
    sides = measured.figures.keys() | measured.missing.keys()
    assert OPERO.keys() <= sides
    assert {peer.name for peer in getattr(row, "peers", ())} <= sides  # shares have none
    assert all(0 <= figure < math.inf for figure in measured.figures.values())
    assert not measured.figures.keys() & measured.missing.keys()
    return measured


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=pytest.mark.redis if "Redis" in row.name else ())
        for row in stores.ROWS
        if "KiB" not in row.name and ("MiB" not in row.name or row in disk.HITS)
    ],
    ids=lambda row: row.name,
)
def test_every_row_of_stores_measures_or_reports_as_missing_each_of_its_sides(row: Any) -> None:
    """A few calls of every side; hits do not run the function, and misses do."""
    measured = measured_or_missing(row)
    assert PLAIN in measured.figures
    assert (COMPILED in measured.figures) is ("compiled" not in unavailable())


@pytest.mark.parametrize(
    "row",
    [row for row in stores.ROWS if "Redis" in row.name and "iB" not in row.name],
    ids=lambda row: row.name,
)
def test_without_a_server_every_side_of_its_rows_is_missing(row: Any, no_server: None) -> None:
    """And the reason is told."""
    measured = measured_or_missing(row)
    assert not measured.figures
    assert "redis-server" in measured.missing[PLAIN]


def test_a_store_that_forgets_is_not_measured_as_one_that_hits() -> None:
    """A peer that runs the function each time would flatter opero."""

    @contextmanager
    def forgetful(place: Any, function: Function) -> Any:
        yield lambda key: function(key)

    row = replace(disk.HITS[0], peers=(store_sides.Side("forgetful", forgetful),), halves=())
    with pytest.raises(AssertionError, match="no hits"):
        row.measure(SMOKE)


def test_a_store_that_knows_what_it_was_never_asked_is_not_measured_as_one_that_misses() -> None:
    """Then nothing would have been stored."""

    @contextmanager
    def knowing(place: Any, function: Function) -> Any:
        yield lambda key: values.SMALL

    row = replace(disk.MISSES[0], peers=(store_sides.Side("knowing", knowing),), halves=())
    with pytest.raises(AssertionError, match="no misses"):
        row.measure(SMOKE)


def test_a_place_leaves_nothing_behind() -> None:
    """Neither its directory nor its event loop."""
    with place.Place() as here:
        folders = [here.folder(), here.folder()]
        assert here.run(values.small_later(1)) == values.SMALL
    assert len(set(folders)) == 2
    assert not any(folder.exists() for folder in folders)


@pytest.mark.redis
def test_the_server_of_the_benchmark_answers_and_ends(tmp_path: Path) -> None:
    """It is the benchmark's own, on a port that was free."""
    with server.serving(tmp_path) as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    with pytest.raises(OSError):  # noqa: PT011 - which one is the system's affair
        socket.create_connection(("127.0.0.1", port), timeout=10).close()


def test_the_command_of_stores_prints_chosen_rows_and_writes_their_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m benchmarks.stores --row TEXT --json FILE` measures those rows alone."""
    monkeypatch.setattr(stores_command, "FULL", SMOKE)
    figures = tmp_path / "figures.json"
    name = permits.MACHINE.name
    assert stores_command.main(["--row", name, "--json", str(figures)]) == 0
    assert name in capsys.readouterr().out
    content = json.loads(figures.read_text(encoding="utf-8"))
    assert [row["name"] for row in content["rows"]] == [name]
    assert stores_command.main(["--readme", "--row", name]) == 0
    assert f"| {name} (ns/permit) |" in capsys.readouterr().out
    assert stores_command.main(["--row", "no such row"]) == 2
    assert name in capsys.readouterr().out


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


@pytest.mark.parametrize("size", [20, 300])
def test_a_hot_set_that_moves_is_kept_about_as_well_as_by_lru(size: int) -> None:
    """One key after the other, all at once, with scans between: the store follows."""
    hot = [hit_ratio.moving(size * share // 10, requests=REQUESTS) for share in (5, 7, 10)]
    hot.append(hit_ratio.moving(size * 9 // 10, 10, REQUESTS))
    hot += [hit_ratio.jumping(size * 8 // 10, rounds, REQUESTS) for rounds in (3, 10)]
    hot.append(hit_ratio.moving_scanned(size * 8 // 10, REQUESTS))
    for trace in hot:
        assert hit_ratio.by_opero(trace, size) > hit_ratio.by_lru(trace, size) - 0.06
    assert hit_ratio.by_opero(hot[2], size) > 0.7


def test_a_loop_that_is_longer_than_the_store_hits_where_lru_never_does() -> None:
    """Part of it stays, whatever comes between."""
    for length in (110, 120, 200):
        trace = hit_ratio.loop(length, REQUESTS)
        assert hit_ratio.by_lru(trace, 100) == 0
        assert hit_ratio.by_opero(trace, 100) > 0.3


@pytest.mark.parametrize(
    "trace", [hit_ratio.scanned(0.9, REQUESTS), hit_ratio.moving(250, 4, REQUESTS)]
)
def test_both_implementations_keep_the_same_entries(trace: Any) -> None:
    """Compiled and plain evict alike, hit for hit."""
    ratios = set()
    for name in NAMES:
        if name not in unavailable():
            with using(name):
                ratios.add(hit_ratio.by_opero(trace, 300))
    assert len(ratios) == 1
