"""A worker's way through a chunk: every value is tried, and the mark says which one it is at."""

from __future__ import annotations

import traceback
from typing import Any

import pytest


def marked() -> memoryview:
    """Return memory for a mark, as a worker shares it with the process that it works for."""
    return memoryview(bytearray(16)).cast("q")


def run(core, function, values) -> tuple[list[Any], list[tuple[int, BaseException]], memoryview]:
    mark = marked()
    mark[0], mark[1] = -2, 7
    results: list[Any] = []
    failures: list[tuple[int, BaseException]] = []
    core.ChunkRunner(mark).run(function, values, results, failures)
    return results, failures, mark


@pytest.mark.parametrize(
    "memory",
    [
        memoryview(bytearray(16)),
        memoryview(bytearray(16)).cast("d"),
        memoryview(bytes(16)).cast("q"),
        memoryview(bytearray(16)).cast("q")[::-1],
        memoryview(bytearray()).cast("q"),
    ],
    ids=["bytes", "other numbers", "not to be written", "backwards", "none"],
)
def test_other_memory_is_refused(core, memory):
    with pytest.raises(ValueError, match="a mark needs writable memory"):
        core.ChunkRunner(memory)


def test_a_mark_stays_where_it_is_when_its_memory_is_let_go(core):
    mark = marked()
    whole = mark.obj
    runner = core.ChunkRunner(mark)
    mark.release()
    runner.run(str, [1, 2, 3], [], [])
    assert memoryview(whole).cast("q")[0] == 2


def test_every_value_has_its_result_in_its_place(core):
    results, failures, mark = run(core, str, [3, 1, 2])
    assert results == ["3", "1", "2"]
    assert failures == []
    assert mark.tolist() == [2, 7]


def test_nothing_happens_to_an_empty_chunk(core):
    results, failures, mark = run(core, str, [])
    assert (results, failures, mark.tolist()) == ([], [], [-2, 7])


def test_the_mark_is_at_the_value_that_is_under_way(core):
    mark = marked()
    seen = []
    runner = core.ChunkRunner(mark)
    runner.run(lambda value: seen.append((value, mark[0])), ["a", "b", "c"], [], [])
    assert seen == [("a", 0), ("b", 1), ("c", 2)]


def test_results_are_known_while_the_chunk_is_still_under_way(core):
    results: list[Any] = []
    seen = []
    core.ChunkRunner(marked()).run(lambda _: seen.append(results.copy()), [0, 1, 2], results, [])
    assert seen == [[], [None], [None, None]]


@pytest.mark.parametrize(
    "kind", [ValueError, StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit]
)
def test_what_is_raised_is_kept_with_its_place_and_the_others_go_on(core, kind):
    def function(value):
        if value % 2:
            raise kind(value)
        return value

    results, failures, _ = run(core, function, [0, 1, 2, 3])
    assert results == [0, None, 2, None]
    assert [(place, type(error), error.args) for place, error in failures] == [
        (1, kind, (1,)),
        (3, kind, (3,)),
    ]


def test_a_traceback_begins_with_the_runner_and_goes_on_in_the_function(core):
    def function(value):
        raise ValueError(value)

    _, [(_, error)], _ = run(core, function, [0])
    frames = traceback.extract_tb(error.__traceback__)
    assert [frame.name.rpartition(".")[2] for frame in frames] == ["run", "function"]


@pytest.mark.parametrize(("patience", "known"), [(0, 4), (1, 2), (10**12, 4)])
def test_a_failure_ends_a_chunk_whose_patience_is_over(core, patience, known):
    """The rest is not begun; without patience, or before it ends, everything is."""
    results: list[Any] = []
    failures: list[tuple[int, BaseException]] = []
    runner = core.ChunkRunner(marked())
    runner.run(lambda value: 1 // value, [1, 0, 1, 0], results, failures, patience)
    assert len(results) == known
    assert [place for place, _ in failures] == [1, 3][: known // 2]
