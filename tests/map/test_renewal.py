"""Workers that are renewed: after some items, or at some memory."""

from __future__ import annotations

import atexit
import os
import time
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from opero import WorkerCrashedError, opmap
from opero.map.engines.processes import cells, pool, start
from opero.map.engines.processes.memory import resident
from opero.map.engines.processes.renewal import Renewal

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="these tests fork"),
]

QUIET: dict[str, Any] = {"retries": 1, "progress": False}
MIB = 2**20


@pytest.fixture(autouse=True)
def no_process_left():
    """Begin each test without warm workers, and check that it leaves nothing behind."""
    pool.shut()
    yield
    pool.shut()
    assert not pool._all
    assert not pool._leaving


def who(_: Any) -> int:
    return os.getpid()


async def who_later(_: Any) -> int:
    return os.getpid()


def note_end(path: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()} ")


def registers(path: str, _: Any) -> int:
    atexit.unregister(note_end)
    atexit.register(note_end, path)
    return os.getpid()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["process", "async_process"])
@pytest.mark.parametrize("method", start.METHODS)
def test_no_worker_has_more_items_than_it_may(mode, method):
    """The chunks may have any size, and all items are done."""
    function = who if mode == "process" else who_later
    options = {"mode": mode, "workers": 2, "start_method": method, **QUIET}
    pids = opmap(max_items_per_worker=6, **options)(function)(range(23))
    counts = Counter(pids)
    assert sum(counts.values()) == 23
    assert max(counts.values()) <= 6
    assert len(counts) >= 4


@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_what_a_worker_has_done_in_earlier_maps_counts(chunk):
    """The limit counts items, not chunks or maps."""
    mapped = opmap(workers=1, max_items_per_worker=4, chunk_size=chunk, **QUIET)(who)
    pids = [pid for _ in range(4) for pid in mapped(range(3))]
    assert max(Counter(pids).values()) <= 4


def test_one_item_for_each_worker_is_a_process_for_each_item():
    """Results are in order, and failures are in their places."""

    def fails_at_two(value: int) -> int:
        if value == 2:
            raise ValueError(value)
        return os.getpid()

    results = opmap(workers=2, max_items_per_worker=1, **QUIET)(fails_at_two)(range(6))
    error = results.pop(2)
    assert isinstance(error, ValueError)
    assert len(set(results)) == 5


def test_a_worker_that_is_renewed_ends_as_others_do(tmp_path):
    """Its `atexit` functions run while the map continues; the last workers' run at the end."""
    path = tmp_path / "ended"
    mapped = opmap(workers=2, max_items_per_worker=3, **QUIET)(partial(registers, str(path)))
    pids = set(mapped(range(12)))
    pool.shut()
    assert {*map(int, path.read_text().split())} == pids


def test_a_crash_beside_a_renewal_costs_only_its_item():
    """Nothing is lost, and nothing runs twice."""

    def dies_at_seven(value: int) -> int:
        if value == 7:
            os._exit(1)
        return value

    results = opmap(workers=2, max_items_per_worker=2, **QUIET)(dies_at_seven)(range(20))
    crash = results.pop(7)
    assert isinstance(crash, WorkerCrashedError)
    assert results == [value for value in range(20) if value != 7]


def test_successors_are_set_up_before_they_take_over(tmp_path):
    """`worker_init` runs once in each while the old worker continues."""
    path = tmp_path / "noted"

    def prepare() -> None:
        with path.open("a") as file:
            file.write(f"{os.getpid()} ")

    def work(value: int) -> tuple[int, list[str]]:
        until = time.monotonic() + 30
        while value == 19 and len(path.read_text().split()) < 2 and time.monotonic() < until:
            time.sleep(0.01)  # the last one of the first worker waits for its successor
        return os.getpid(), path.read_text().split()

    mapped = opmap(
        workers=1,
        max_items_per_worker=20,
        chunk_size=2,
        worker_init=prepare,
        on_error="raise",
        **QUIET,
    )(work)
    results = mapped(range(60))
    order = list(dict.fromkeys(str(pid) for pid, _ in results))
    assert len(order) == 3
    assert all(str(pid) in set_up for pid, set_up in results)
    prepared = path.read_text().split()
    assert prepared[:3] == order
    assert len(prepared) == len(set(prepared))
    first = [set_up for pid, set_up in results if str(pid) == order[0]]
    assert order[1] in first[-1]  # it was ready when the first one was still at work


def leaks(size: int, value: int, held: list[bytes] = []) -> tuple[int, int]:  # noqa: B006
    held.append(b"x" * size)
    return os.getpid(), resident()


@pytest.mark.slow
def test_a_worker_that_takes_too_much_memory_is_renewed():
    """That happens between two chunks; a small worker stays."""
    base = opmap(workers=1, **QUIET)(partial(leaks, 0))([1])[0][1]
    pool.shut()
    most = base + 60 * MIB
    mapped = opmap(workers=1, chunk_size=1, max_memory_per_worker=most, **QUIET)
    found = mapped(partial(leaks, 20 * MIB))(range(20))
    assert len({pid for pid, _ in found}) >= 3
    assert max(size for _, size in found) < most * 1.25 + 60 * MIB
    pool.shut()
    assert len({pid for pid, _ in mapped(partial(leaks, 10))(range(20))}) == 1


@pytest.mark.slow
def test_streams_and_coroutines_get_renewed_workers_too():
    """A stream that is left early leaves no successor behind."""
    mapped = opmap(workers=2, max_items_per_worker=2, **QUIET)(who)
    assert max(Counter(mapped.stream(range(7))).values()) <= 2
    results = mapped.stream(range(100))
    assert {next(results) for _ in range(5)}
    results.close()


def test_a_bound_below_what_a_worker_needs_is_told_once(caplog):
    """All items are done all the same."""
    mapped = opmap(workers=1, chunk_size=2, max_memory_per_worker=10 * MIB, **QUIET)(who)
    assert len(set(mapped(range(6)))) == 3
    texts = [each.getMessage() for each in caplog.records if "max_memory" in each.getMessage()]
    assert len(texts) == 1
    assert texts[0].startswith("max_memory_per_worker=10485760 is less than what a worker has")


# --- when a worker has done enough, without processes ---------------------------------------------


def worker_of(items: int = 0, busy: int = 0, memory: int = 0) -> Any:
    return SimpleNamespace(
        items=items, busy=busy, cells={cells.MEMORY: memory}, ready=True, begun=0
    )


def test_a_successor_is_started_when_its_start_takes_as_long_as_what_is_left():
    """The worker's pace and the last successor's start are measured."""
    renewal = Renewal(100, 0)
    assert not renewal.is_due(worker_of(1))
    assert not renewal.is_due(worker_of(50, busy=50 * 10**9))  # 50 s are left
    assert renewal.is_due(worker_of(50, busy=10**9))  # one second
    assert renewal.is_due(worker_of(99, busy=10**9))
    assert renewal.is_due(worker_of(100))
    successor = worker_of()
    renewal.begun(successor)
    assert not successor.ready
    renewal.is_ready(successor)
    assert successor.ready
    assert not renewal.is_due(worker_of(50, busy=10**9))  # it is started in no time


def test_a_worker_over_its_memory_waits_for_its_successor_up_to_a_bound():
    """The bound is a quarter more; a fresh worker gets one chunk in any case."""
    renewal = Renewal(0, 100)
    assert not renewal.is_over(worker_of(1, memory=99), 1, True)
    assert renewal.is_over(worker_of(1, memory=100), 1, True)
    assert not renewal.is_over(worker_of(1, memory=124), 1, False)
    assert renewal.is_over(worker_of(1, memory=125), 1, False)
    assert not renewal.is_over(worker_of(0, memory=125), 1, True)
    assert renewal.is_due(worker_of(1, memory=100))
    assert not renewal.is_due(worker_of(1, memory=99))
    assert not Renewal(0, 0).is_due(worker_of(10**6, busy=1, memory=10**12))
