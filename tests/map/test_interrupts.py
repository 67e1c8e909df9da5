"""Ctrl-C, and the end of the program that maps: what is left then is nothing, whatever the mode."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from crowd import until
from repeats import REPEATS, scaled

FOLDER = Path(__file__).with_name("isolated_map")

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="these tests look into /proc"),
]

METHODS = ["forkserver", "fork", "spawn"]
FORMS = ["call", "stream", "amap", "astream"]
WAYS = [
    *[(mode, "", form) for mode in ("thread", "async", "executor") for form in FORMS],
    *[("process", "forkserver", form) for form in FORMS],
    *[
        pytest.param(*way, marks=pytest.mark.slow)
        for way in (
            *[("async_process", "forkserver", form) for form in FORMS],
            ("process", "fork", "call"),
            ("process", "fork", "amap"),
            ("process", "spawn", "stream"),
            ("async_process", "fork", "stream"),
            ("async_process", "spawn", "call"),
        )
    ],
]
PROMPT = 20
"""Seconds that a program may take to end; it takes far less, unless the machine is very busy."""


def session(leader: int) -> list[str]:
    """Return the commands of all living processes of a session."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            state, _, _, number = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(number) == leader and state != "Z":
                found.append((folder / "cmdline").read_bytes().decode())
        except (OSError, ValueError):
            continue
    return found


def start(*args: str, **options: Any) -> Any:
    """Start the script that maps, in its own session."""
    return subprocess.Popen(
        [sys.executable, str(FOLDER / "interrupted.py"), *args],
        env={**os.environ, "PYTHON_COLORS": "0"},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
        start_new_session=True,
    )


def workers(process: Any, count: int = 2) -> list[int]:
    """Return the ids of workers that have begun an endless attempt."""
    lines = [process.stdout.readline() for _ in range(count)]
    assert all(line.startswith("at work ") for line in lines), process.communicate(timeout=PROMPT)
    return [int(line.split()[2]) for line in lines]


@pytest.fixture
def ending():
    """End what a failed test has left."""
    left: list[Any] = []
    yield left.append
    for process in left:
        for pid in [process.pid, *_pids(process.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _pids(leader: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.parametrize(("mode", "method", "form"), WAYS)
def test_ctrl_c_ends_a_program_and_all_that_it_has_started(mode, method, form, ending):
    """SIGINT goes to the whole group, as from a terminal; one `KeyboardInterrupt` comes out."""
    process = start(mode, method, form)
    ending(process)
    workers(process)
    time.sleep(0.1)  # a signal right before a wait begins does not end it: that is Python's
    begun = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, complaints = process.communicate(timeout=PROMPT)  # all have closed their end of the pipes
    assert time.monotonic() - begun < 10
    until(lambda: not session(process.pid))
    assert process.returncode == -signal.SIGINT
    assert complaints.rstrip().endswith("KeyboardInterrupt"), complaints
    assert "Exception ignored" not in complaints
    assert "never retrieved" not in complaints
    # asyncio shows the cancellation first
    shown = complaints.count("Traceback") - complaints.count("CancelledError\n\nDuring handling")
    assert shown == 1, complaints


@pytest.mark.parametrize("mode", ["process", "async"])
def test_ctrl_c_in_a_terminal_leaves_the_bar_on_a_line_of_its_own(mode, ending):
    """The bar shows how far it came, the traceback begins on a line of its own."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    process = start(mode, "forkserver", "call", "bar", stderr=slave)
    ending(process)
    os.close(slave)
    workers(process, 1)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    shown = b""
    end = time.monotonic() + PROMPT
    try:
        while time.monotonic() < end:
            if select.select([master], [], [], 1)[0]:
                shown += os.read(master, 65536)
    except OSError:
        pass  # nobody has the other side any more
    os.close(master)
    process.wait(PROMPT)
    until(lambda: not session(process.pid))
    lines = shown.decode().replace("\r\n", "\n").split("\n")
    (first,) = [place for place, line in enumerate(lines) if line.startswith("Traceback")][:1]
    drawn = "".join(lines[:first]).split("\r")[-1]
    assert "/40" in drawn, lines
    assert "failed=0, retried=0" in drawn
    assert lines[-2].endswith("KeyboardInterrupt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "method", "form"),
    [
        ("process", "forkserver", "call"),
        ("process", "fork", "stream"),
        ("process", "forkserver", "amap"),
        ("async_process", "forkserver", "stream"),
        ("thread", "", "call"),
        ("thread", "", "stream"),
        ("async", "", "call"),
        ("async", "", "stream"),
        ("executor", "", "call"),
    ],
)
def test_interrupts_at_any_moment_leave_nothing_behind(mode, method, form):
    """No process, thread or file remains, although the program continues."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / "interrupted_often.py"), mode, method, form, str(REPEATS)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1, done.stdout
    before, after, lost = json.loads(done.stdout)
    assert after == before, done.stderr
    assert lost <= 1 + scaled(5), done.stderr  # Python swallows one that comes within a finalizer


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_interrupt_at_any_line_leaves_no_loop_and_no_coroutine(loop):
    """That includes the lines between making a loop and the handler that guards it."""
    names = ["opero.map.event_loops", "opero.map.mapped"]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "interrupted_at_every_line.py"), loop, *names],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    *left, places = done.stdout.splitlines()
    assert not left, left
    assert int(places.split()[0]) > 60


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("mode", "form", "how"),
    [
        ("process", "call", ""),
        ("process", "stream", "deaf"),
        ("async_process", "amap", ""),
        ("async_process", "call", "deaf"),
    ],
)
def test_workers_end_by_themselves_when_their_parent_is_killed(mode, form, how, method, ending):
    """So do workers that compute in C and let none of their threads run."""
    process = start(mode, method, form, how)
    ending(process)
    pids = workers(process)
    assert set(pids) & set(_pids(process.pid))
    os.kill(process.pid, signal.SIGKILL)
    process.wait(PROMPT)
    until(lambda: not session(process.pid))
