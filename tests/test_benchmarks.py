"""The benchmarks run, the table says what was measured, and the gates turn red on a slowdown."""

from __future__ import annotations

import json
import math
import os
import socket
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import __main__ as command
from benchmarks import calls, gates, hit_ratio, imports, instructions, table
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
    promises = {(row.name, target.against) for row in gates.TIMED for target in row.targets}
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


# --- the map ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", maps.ROWS, ids=lambda row: row.name)
def test_every_row_of_the_map_measures_or_reports_as_missing_each_of_its_sides(row: Any) -> None:
    """One small batch through every side, the results compared with what they have to be."""
    if "MiB" in row.name:
        row = replace(row, count=4)
    elif row.unit == "MiB" or "cold" in row.name:  # every side has an interpreter of its own
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


def test_a_stream_whose_results_are_kept_is_seen_in_its_memory() -> None:
    """The seeded regression of the memory rows, in an interpreter of its own."""
    half = next(half for half in NAMES if half not in unavailable())
    count = 2_000_000  # of some 36 bytes each
    kept, dropped = (alone.run(f"opero thread {half}", 2, count, seed) for seed in (count, 0))
    assert kept["mebibytes"] > dropped["mebibytes"] + 24


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
    assert not gates.judge_time(memory.THREAD, target, [70.0]).red
    assert gates.judge_time(memory.THREAD, target, [71.0]).red


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
    pytest.importorskip("matplotlib")
    lines = {"opero, process": [(10, 5.0), (100, 4.0)], "peer": [(10, 50.0), (100, 40.0)]}
    drawn = []
    for name in ("one.svg", "two.svg"):
        plot.draw(lines, "some machine", tmp_path / name)
        drawn.append((tmp_path / name).read_text(encoding="utf-8"))
    assert drawn[0] == drawn[1]
    for text in (*lines, "some machine"):
        assert text in drawn[0]


def test_the_drawn_plot_and_the_figures_beside_it_are_of_the_same_sides() -> None:
    """Who measures again draws again."""
    folder = ROOT / "benchmarks" / "figures"
    content = json.loads((folder / "map.json").read_text(encoding="utf-8"))
    drawn = (folder / "map.svg").read_text(encoding="utf-8")
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


def test_both_implementations_keep_the_same_entries() -> None:
    """Compiled and plain evict alike, hit for hit."""
    trace = hit_ratio.scanned(0.9, REQUESTS)
    ratios = set()
    for name in NAMES:
        if name not in unavailable():
            with using(name):
                ratios.add(hit_ratio.by_opero(trace, 300))
    assert len(ratios) == 1
