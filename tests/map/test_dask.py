"""`executor=client.get_executor()`: a map on a dask cluster of two worker processes."""

from __future__ import annotations

import copyreg
import multiprocessing
import os
import re
import signal
import threading
import time
from pathlib import Path

import crowd
import pytest
from documents import marked
from test_executors import (
    Flop,
    Stubborn,
    Unreadable,
    decorated,
    measure,
    moody,
    plain,
    run_map,
    suicidal,
)

from opero import opmap
from opero.exceptions import OperoError, WorkerCrashedError
from opero.map.engines.executors.engine import workers_of

pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("default"),  # dask's own are not ours to mend
]

LONG = 60.0
"""Seconds after which something hangs; a worker takes long to start on a busy machine."""


@pytest.fixture(scope="module")
def cluster():
    reducers = dict(copyreg.dispatch_table)
    distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "host": "127.0.0.1"}
    with distributed.LocalCluster(
        **options, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        cluster.scheduler.allowed_failures = 0  # each costs a new process
        yield cluster
    assert not multiprocessing.active_children()
    copyreg.dispatch_table.clear()  # dask has all exceptions of a process pickled its own way
    copyreg.dispatch_table.update(reducers)


@pytest.fixture
def client(cluster):
    from distributed import Client

    with Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture
def executor(client):
    with client.get_executor() as executor:
        yield executor


@pytest.fixture(autouse=True)
def nothing_left_over(core):
    """Allow what the cluster keeps; the fixture `cluster` cleans it up."""


def test_a_dask_cluster_is_an_executor_like_any_other(executor, tmp_path):
    """Results, order, failures, retries and pickling errors are right."""
    assert run_map(plain, range(3000), executor) == list(range(1, 3001))
    got = run_map(decorated.__wrapped__, range(20), executor, chunk=1)
    assert len({pid for _, pid, _ in got}) == 2
    assert os.getpid() not in {pid for _, pid, _ in got}

    def second_time(value: int) -> int:
        mark = Path(tmp_path, str(value))
        if not mark.exists():
            mark.touch()
            raise Flop
        return value

    options = {"retries": 2, "min_delay": 0.01}
    assert run_map(second_time, range(10), executor, chunk=1, **options) == list(range(10))
    items = [0, threading.Lock(), Unreadable(), 4, 9]
    got = run_map(moody, items, executor, chunk=5)
    assert [type(each).__name__ for each in got] == ["list", *["TypeError"] * 3, "list"]


def test_a_map_moves_to_a_cluster_by_one_argument(executor):
    """`workers=None` uses all of it; each worker gets large shared arguments once."""
    assert workers_of(executor) == 2
    mapped = opmap(executor=executor, workers=None, progress=False)(measure)
    assert mapped(range(500), text=bytes(10**6)) == list(range(10**6, 10**6 + 500))
    assert list(mapped.stream(range(20), text=b"")) == list(range(20))
    mapped = opmap(executor=executor, retries=2, min_delay=0.01, progress=False)(moody)
    ok, failed = mapped([0, 1])
    assert ok == [0]
    assert [type(each) for each in failed.errors] == [Stubborn] * 2
    assert "in moody" in str(failed.__cause__.__cause__)


@pytest.mark.slow
@pytest.mark.parametrize("again", [0, 1], ids=["opero", "dask"])
def test_a_dask_worker_killed_in_the_middle_costs_nothing(cluster, executor, tmp_path, again):
    """After a SIGKILL, dask or opero runs the worker's items again."""
    cluster.scheduler.allowed_failures = again
    told = tmp_path / "pid"

    def work(value: int) -> int:
        if value == 100:
            with told.open("a") as file:
                file.write(f"{os.getpid()}\n")
        time.sleep(0.005)
        return 2 * value

    def kill() -> None:
        end = time.monotonic() + LONG
        while not (told.exists() and told.read_text().endswith("\n")):
            assert time.monotonic() < end
            time.sleep(0.005)
        os.kill(int(told.read_text().split()[0]), signal.SIGKILL)

    killer = crowd.Job(kill)
    try:
        got = run_map(work, range(400), executor, chunk=5)
    finally:
        cluster.scheduler.allowed_failures = 0
    killer.result()
    assert got == [2 * value for value in range(400)]


@pytest.mark.slow
def test_an_item_that_kills_every_dask_worker_is_blamed_alone(executor):
    """All other items succeed, although they shared chunks and workers with it."""
    items = [*range(60), "die", *range(60, 120)]
    got = run_map(suicidal, items, executor, chunk=5)
    assert type(got[60]) is WorkerCrashedError
    assert "KilledWorker" in str(got[60])
    assert got[:60] + got[61:] == list(range(120))


def test_a_client_that_is_closed_in_the_middle_fails_the_rest(client, tmp_path):
    """The error says why, and nothing waits for results that never come."""

    def work(value: int) -> int:
        Path(tmp_path, str(value)).touch()
        time.sleep(0.05)
        return value

    def close() -> None:
        end = time.monotonic() + LONG
        while not Path(tmp_path, "20").exists():
            assert time.monotonic() < end
            time.sleep(0.005)
        client.close()

    closer = crowd.Job(close)
    got = run_map(work, range(200), client.get_executor(), 1)
    closer.result()
    assert got[:10] == list(range(10))
    assert {type(each) for each in got[-20:]} == {OperoError}
    assert "is closed" in str(got[-1])


def test_the_example_of_the_documentation_runs_as_it_is_printed(client, monkeypatch, capsys):
    """Only the address is that of this cluster."""
    block = marked("on a cluster").text
    printed = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
    monkeypatch.setattr("distributed.Client", lambda address: client)
    exec(compile(block, "docs/opmap.md", "exec"), {"__name__": "example"})
    assert printed == ["[3, 6]"]
    assert capsys.readouterr().out.splitlines() == printed
