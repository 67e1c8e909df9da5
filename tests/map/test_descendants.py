"""What an attempt has started ends with the attempt; what one has left that ended normally stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from crowd import until

FOLDER = Path(__file__).with_name("isolated_map")
sys.path.insert(0, str(FOLDER))

import programs  # noqa: E402

from opero import AttemptTimeout, WorkerCrashedError, opmap  # noqa: E402
from opero.map.engines.processes import pool  # noqa: E402

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="these tests look into /proc"),
]

LEFT = ["daemon", "daemon in the background"]
"""What attempts leave that end normally."""
STARTED = ["program", "background", "shell", "fork", "process"]
"""What ends with its attempt however that ends; it stays in the worker's process group."""


@pytest.fixture
def folder(tmp_path):
    """Make a folder for the ids of started processes, and end those that remain."""
    yield tmp_path
    pool.shut()
    for pids in programs.noted(tmp_path).values():
        for pid in pids:
            if programs.runs(pid):
                os.kill(pid, signal.SIGKILL)


def mapping(**options: Any) -> Any:
    """Return a map of the function that starts programs."""
    every = {"workers": 1, "retries": 1, "chunk_size": 1, "start_method": "fork"}
    return opmap(mode="process", progress=False, **{**every, **options})(programs.starts)


def only_daemons_run(folder: Path) -> None:
    """Check that daemons still run, and that everything else has ended."""
    noted = programs.noted(folder)
    daemons = [pid for how in LEFT for pid in noted.pop(how, [])]
    until(lambda: not any(programs.runs(pid) for pids in noted.values() for pid in pids))
    assert all(map(programs.runs, daemons)), daemons


@pytest.mark.parametrize("then", ["hang", "crash"])
def test_what_an_attempt_has_started_ends_with_it(then, folder):
    """A time limit or a crash ends it; a daemon of an earlier attempt continues."""
    hows = STARTED if then == "crash" else [*STARTED, "session"]
    mapped = mapping(attempt_timeout=2.5, workers=1 if then == "crash" else len(hows))
    assert mapped([(how, "return", str(folder)) for how in LEFT]) == LEFT
    outcomes = mapped([(how, then, str(folder)) for how in hows])
    expected = WorkerCrashedError if then == "crash" else AttemptTimeout
    assert [type(outcome) for outcome in outcomes] == [expected] * len(hows), outcomes
    assert set(programs.noted(folder)) == {*LEFT, *hows}
    only_daemons_run(folder)


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_what_an_attempt_has_started_ends_with_it_by_any_start_method(method, folder):
    """A daemon does not keep the worker's own files open."""
    mapped = mapping(attempt_timeout=2.0, start_method=method)
    items = [(LEFT[1], "return"), ("background", "crash"), ("session", "hang")]
    outcomes = mapped([(*item, str(folder)) for item in items])
    assert list(map(type, outcomes)) == [str, WorkerCrashedError, AttemptTimeout], outcomes
    only_daemons_run(folder)


def test_what_runs_ends_with_a_map_that_is_given_up(folder):
    """Programs end in any session; those that earlier attempts left stay."""
    mapped = mapping(workers=3)
    hows = [LEFT[0], "program", "session", "shell"]
    stream = mapped.stream((how, "return" if how in LEFT else "hang", str(folder)) for how in hows)
    assert next(stream) == LEFT[0]
    until(lambda: set(programs.noted(folder)) == set(hows))
    stream.close()
    only_daemons_run(folder)


@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_programs_of_attempts_end_when_the_program_that_maps_is_killed(method, folder):
    """The system sees to that; what has ended normally before is known by no one then."""
    script = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n"
        "import programs\n"
        "from opero import opmap\n"
        "mapped = opmap(mode='process', workers=2, retries=1, chunk_size=1, progress=False,\n"
        f"               start_method={method!r})(programs.starts)\n"
        f"mapped([('program', 'hang', {str(folder)!r}), ('fork', 'hang', {str(folder)!r})])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    until(lambda: set(programs.noted(folder)) == {"program", "fork"})
    process.kill()
    process.wait()
    only_daemons_run(folder)


def test_an_idle_worker_that_ends_leaves_what_was_left_to_it(folder):
    """A worker of a `ProcessPoolExecutor` does the same."""
    mapped = mapping()
    assert mapped([(how, "return", str(folder)) for how in LEFT]) == LEFT
    pool.shut()
    time.sleep(0.1)
    only_daemons_run(folder)


def test_a_worker_is_in_no_process_group_of_the_terminal(folder):
    """Ctrl-C goes only to the program, and reading from the terminal stops nothing."""

    def group(_: Any) -> Any:
        ignored = [signal.getsignal(number) for number in (signal.SIGTTIN, signal.SIGTTOU)]
        return os.getpid(), os.getpgrp(), os.getsid(0), ignored

    one = opmap(mode="process", workers=1, retries=1, progress=False, start_method="fork")
    ((pid, leads, session, ignored),) = one(group)([1])
    assert (leads, session) == (pid, os.getsid(0))
    assert ignored == [signal.SIG_IGN] * 2
