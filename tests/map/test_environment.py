"""Nothing is lost in odd surroundings: of signals, files, streams, users, and programs around it."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from multiprocessing import process
from pathlib import Path
from typing import Any

import pytest
from crowd import until

FOLDER = Path(__file__).with_name("isolated_map")
sys.path.insert(0, str(FOLDER))

import work  # noqa: E402
from drive import run_map  # noqa: E402

import opero  # noqa: E402
from opero import OperoError, opmap  # noqa: E402
from opero.exceptions import Contained  # noqa: E402
from opero.map import std_streams  # noqa: E402
from opero.map.engines.processes import pool, posix, shortage, start, unserved  # noqa: E402
from opero.map.interrupts import contained  # noqa: E402

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="these tests look into /proc"),
]

METHODS = start.METHODS


@pytest.fixture(autouse=True)
def no_worker_left():
    """End the warm workers after each test, and check that nothing of them is left."""
    pool.shut()
    yield
    pool.shut()
    assert not pool._all


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def script(code: str, *args: str, prefix: str = "", **options: Any) -> Any:
    """Run a program in a shell."""
    command = f'exec "$0" -W error -c "$1" "${{@:2}}" {prefix}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, code, *args],
        capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
        **options,
    )  # fmt: skip


# --- children's ends ------------------------------------------------------------------------------

SIGCHLD = """
import json, os, signal, sys, threading, time, warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # it forks, and has a thread
sys.path.insert(0, sys.argv[2])
from opero import opmap
import work

def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

def reap_on():
    while True:
        reap()
        time.sleep(0.001)

if sys.argv[1] == "ignored":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
elif sys.argv[1] == "handled":
    signal.signal(signal.SIGCHLD, reap)
else:
    threading.Thread(target=reap_on, daemon=True).start()
found = {}
for method in ("forkserver", "fork", "spawn"):
    mapped = opmap(mode="process", workers=2, retries=1, chunk_size=2, start_method=method,
                   progress=False)(work.ends)
    results = mapped([0, 1, "exit", 3, "kill", 5])
    found[method] = [x if isinstance(x, int) else [x.exitcode, str(x)] for x in results]
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ignored", "handled", "in a thread"])
def test_a_crash_costs_one_item_where_nobody_knows_how_children_end(how):
    """The fork server still reports the exit codes of its workers."""
    done = script(SIGCHLD, how, str(FOLDER))
    assert done.stderr == ""
    for method, results in json.loads(done.stdout).items():
        exited, killed = results.pop(2), results.pop(3)
        assert results == [0, 1, 3, 5], method
        if method == "forkserver":
            assert [exited[0], killed[0]] == [7, -signal.SIGKILL]
        for code, text in (exited, killed):
            assert code is not None or "its exit code is unknown" in text


def test_a_map_goes_on_when_its_fork_server_is_killed():
    """It uses its present workers, and those of a new server."""

    def kills_the_server(value: Any) -> Any:
        if value == "server":
            os.kill(os.getppid(), signal.SIGKILL)
            return value
        return work.ends(value)

    mapped = opmap(mode="process", workers=2, retries=1, chunk_size=1, progress=False)
    items = [0, "server", 1, "exit", 2, "server", "kill", 3]
    results = mapped(kills_the_server)(items)
    assert [type(result) for result in results[3::3]] == [type(results[3])] * 2, results
    assert [results[place] for place in (0, 1, 2, 4, 5, 7)] == [0, "server", 1, 2, "server", 3]


# --- what runs short ------------------------------------------------------------------------------


@pytest.fixture
def few_files():
    """Return a function that takes all descriptors except a few; free them at the end."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def take(left: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, limits[1]), limits[1]))
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        give(left)

    def give(count: int = 1 << 30) -> None:
        for _ in range(min(count, len(taken))):
            os.close(taken.pop())

    take.give = give
    yield take
    give()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_map_waits_while_descriptors_run_short_and_says_so_if_they_stay_so(
    method, few_files, monkeypatch
):
    """The error names the limit; nothing stays open; the next map works."""
    assert run_map(work.increment, [1], start_method=method) == [2]
    pool.shut()
    before = open_files()
    few_files(10)
    timer = threading.Timer(0.3, few_files.give)
    timer.start()
    assert run_map(work.increment, range(9), start_method=method) == list(range(1, 10))
    timer.join()
    pool.shut()
    monkeypatch.setattr(unserved, "PATIENCE", 0.2)
    few_files(10)
    with pytest.raises(OperoError, match=r"RLIMIT_NOFILE is 200.*ulimit -n") as caught:
        run_map(work.increment, range(9), start_method=method)
    assert isinstance(caught.value.__cause__, OSError)
    few_files.give()
    del caught
    assert run_map(work.increment, range(9), start_method=method) == list(range(1, 10))
    pool.shut()
    until(lambda: open_files() <= before)


def test_a_map_for_whose_own_files_there_is_no_room_says_so(few_files):
    """The error comes immediately, and nothing stays open."""
    few_files(1)
    with pytest.raises(OperoError, match=r"a map cannot be started.*RLIMIT_NOFILE"):
        run_map(work.increment, [1])


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.ENFILE])
def test_a_map_goes_on_with_the_workers_that_there_is_room_for(number, monkeypatch, caplog):
    """It logs that once, and starts the others when it can."""
    real, made, refused = os.fork, [], []

    def told() -> int:
        return sum("continues with only 1 workers" in line for line in caplog.messages)

    def fork() -> int:
        if len(made) == 1 and not (len(refused) > 2 and told()):
            refused.append(1)
            raise OSError(number, os.strerror(number))
        made.append(1)
        return real()

    monkeypatch.setattr(posix.os, "fork", fork)
    with caplog.at_level(logging.WARNING, "opero"):
        results = run_map(work.naps, [0.05] * 12, workers=3, chunk=1, start_method="fork")
    assert results == [0.05] * 12
    assert len(refused) > 2
    assert told() == 1


def test_a_job_without_a_worker_gets_one_that_is_idle(monkeypatch):
    """The map ends although the system never has room for a second worker."""
    real, made = os.fork, []

    def fork() -> int:
        if made:
            raise BlockingIOError(errno.EAGAIN, "no more")
        made.append(1)
        return real()

    monkeypatch.setattr(posix.os, "fork", fork)
    assert run_map(work.naps, [0.01] * 5, workers=4, chunk=1, start_method="fork") == [0.01] * 5


def test_every_shortage_names_a_remedy_and_other_errors_are_told_as_they_are():
    """An error that may pass is a shortage."""
    for number in (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM):
        told = shortage.shortage(OSError(number, "x"), "it cannot be done")
        assert type(told) is shortage.Shortage
        assert str(told).startswith("it cannot be done: ")
    other = shortage.shortage(PermissionError(errno.EACCES, "not for you"), "it cannot be done")
    assert type(other) is OperoError
    assert "not for you" in str(other)


def test_a_worker_without_room_for_itself_says_so():
    """The limit may count threads too; stderr shows no traceback."""
    code = (
        "import resource, sys, threading; sys.path.insert(0, sys.argv[1])\n"
        "from opero import opmap\n"
        "import work\n"
        "from opero.map.engines.processes import unserved\n"
        "unserved.PATIENCE = 0.3\n"
        'def refuse(*_): raise RuntimeError("can\'t start new thread")\n'
        "real, threading.Thread.start = threading.Thread.start, refuse\n"
        "mapped = opmap(mode='process', workers=2, retries=1, start_method='fork',\n"
        "               progress=False)(work.increment)\n"
        "try: mapped([1])\n"
        "except Exception as error: print(error)\n"
        "threading.Thread.start = real\n"
        "print(mapped([1, 2]))\n"
    )
    done = script(code, str(FOLDER))
    assert done.stderr == ""
    error, results = done.stdout.splitlines()
    assert "a worker process cannot work: the system starts no more processes or threads" in error
    assert results == "[2, 3]"


# --- files and streams ----------------------------------------------------------------------------

EVERY_WAY = """
import json, os, sys
from opero import opmap
found = []
def plain(x): print("printed", x); return x
async def awaited(x): print("printed", x); return x
def crashes(x): return os._exit(3) if x == 1 else x
quiet = {"workers": 2, "retries": 1, "progress": False}
for mode, function, more in (
    ("thread", plain, {}), ("async", awaited, {}), ("async", awaited, {"loop": "asyncio"}),
    ("process", plain, {}), ("async_process", awaited, {}),
    ("process", plain, {"start_method": "fork"}), ("process", crashes, {}),
):
    found.append(opmap(mode=mode, **quiet, **more)(function)(range(3)))
with open(sys.argv[1], "w") as file:
    json.dump(found, file, default=lambda error: error.exitcode)
"""
EXPECTED = [[0, 1, 2]] * 6 + [[0, 3, 2]]


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_maps_work_where_standard_streams_are_closed(closed, tmp_path):
    """No socket takes their numbers; uvloop would crash if such a socket were closed."""
    script(EVERY_WAY, str(tmp_path / "told"), prefix=closed)
    assert json.loads((tmp_path / "told").read_text()) == EXPECTED


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["long", "missing"])
def test_maps_work_whatever_the_directory_for_temporary_files_is(kind, tmp_path):
    """Neither sockets nor shared memory have names in it."""
    folder = tmp_path / ("x" * 90) / ("y" * 90)
    if kind == "long":
        folder.mkdir(parents=True)
    done = script(EVERY_WAY, str(tmp_path / "told"), env={**os.environ, "TMPDIR": str(folder)})
    assert done.stderr == ""
    assert json.loads((tmp_path / "told").read_text()) == EXPECTED


AWAY = "import os, sys; os.mkdir(sys.argv[1]); os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])\n"


def test_maps_work_where_the_working_directory_has_been_removed(tmp_path):
    """The worker hears that there is none."""
    if script(AWAY + "import socket", str(tmp_path / "away")).returncode:
        pytest.skip("this Python cannot import the standard library there, as CPython 3.13.0")
    code = (
        f"{AWAY}"
        "from opero import opmap\n"
        "for method in ('forkserver', 'fork', 'spawn'):\n"
        "    mapped = opmap(mode='process', retries=1, start_method=method, progress=False)\n"
        "    print(mapped(abs)([-1, -2]))\n"
    )
    done = script(code, str(tmp_path / "away"))
    assert done.stdout.split("\n")[:3] == ["[1, 2]"] * 3, done.stderr


class Widget:
    """A stream of a GUI program, which has no file."""

    def __init__(self, number: int | None) -> None:
        self.number = number
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        if self.number is None:
            raise OSError("no file")
        return self.number


@pytest.mark.parametrize("number", [-1, None])
def test_workers_start_whatever_number_stderr_has(number, monkeypatch):
    """So does the standard library's resource tracker, which gets the number."""
    from multiprocessing import resource_tracker

    monkeypatch.setattr(resource_tracker, "_resource_tracker", resource_tracker.ResourceTracker())
    tracker = resource_tracker._resource_tracker
    monkeypatch.setattr(resource_tracker, "ensure_running", tracker.ensure_running)
    monkeypatch.setattr(resource_tracker, "getfd", tracker.getfd)
    stream = Widget(number)
    monkeypatch.setattr(sys, "stderr", stream)
    for method in ("forkserver", "fork"):
        assert run_map(work.increment, [1, 2], start_method=method) == [2, 3]
    assert sys.stderr is stream
    pool.shut()
    start.close_server()
    tracker._stop()


def test_the_numbers_of_closed_streams_are_taken_and_given_back():
    """Files opened meanwhile get other numbers."""
    saved = os.dup(0)
    os.close(0)
    try:
        assert std_streams.closed()
        with std_streams.filled():
            assert not std_streams.closed()
            other = os.dup(saved)
        assert std_streams.closed()
    finally:
        os.dup2(saved, 0)
    os.close(saved)
    assert other > 2
    os.close(other)


# --- programs around it ---------------------------------------------------------------------------


def test_a_map_does_not_choose_the_start_method_of_the_program():
    """`multiprocessing.set_start_method` can be called afterwards."""
    code = (
        "import multiprocessing\n"
        "from opero import opmap\n"
        "for method in ('forkserver', 'spawn', 'fork'):\n"
        "    mapped = opmap(mode='process', retries=1, start_method=method, progress=False)\n"
        "    print(mapped(abs)([-1, -2]))\n"
        "multiprocessing.set_start_method('spawn')\n"
    )
    done = script(code)
    assert (done.stderr, done.stdout) == ("", "[1, 2]\n" * 3)


POOL = """
import multiprocessing, sys
sys.path.insert(0, sys.argv[1])
import work
for method in ("fork", "spawn"):
    with multiprocessing.get_context(method).Pool(1) as pool:
        print(pool.apply(work.nested, (3,)))
"""


def test_a_map_works_in_a_daemonic_process():
    """`multiprocessing.Pool` and dask's nannies have such processes; the workers end with it."""
    done = script(POOL, str(FOLDER))
    assert (done.stderr, done.stdout) == ("", "[1, 2, 3]\n" * 2)


CELERY = """
import os, subprocess, sys
from celery import Celery
from opero import opmap
folder = os.environ["FOLDER"]
app = Celery("tasks", broker="filesystem://", backend="file://" + folder, broker_transport_options={
    "data_folder_in": folder, "data_folder_out": folder, "control_folder": folder + "/control",
    "polling_interval": 0.05})

def ends(x):
    return os._exit(4) if x == 2 else x

@app.task
def outer():
    found = []
    for method in ("forkserver", "fork"):
        mapped = opmap(mode="process", retries=1, start_method=method, progress=False)(ends)
        found.append([x if isinstance(x, int) else type(x).__name__ for x in mapped(range(4))])
    return found
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_map_works_in_a_worker_of_celery(tmp_path):
    """Celery's pool is daemonic, and no other library can pickle its keys."""
    (tmp_path / "tasks.py").write_text(CELERY)
    code = "import tasks; print(tasks.outer.delay().get(timeout=60, interval=0.05))"
    surroundings = {**os.environ, "FOLDER": str(tmp_path)}
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR"]
    celery = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "1", "-P", "prefork", *quiet],
        cwd=tmp_path, env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=surroundings,
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
    finally:
        celery.terminate()
        celery.wait(30)
    assert done.stdout.strip() == str([[0, 1, "WorkerCrashedError", 3]] * 2), done.stderr


def test_a_key_of_another_library_does_not_keep_workers_from_starting(monkeypatch):
    """That holds for any process with such a key."""

    class Key(bytes):
        def __reduce__(self) -> Any:
            raise TypeError("disallowed")

    monkeypatch.setitem(process.current_process()._config, "authkey", Key(b"secret"))
    assert run_map(work.increment, [1], start_method="spawn") == [2]


def test_workers_of_another_user_or_root_directory_are_not_used(monkeypatch):
    """They end when the next map begins or when they are given back."""
    (pid,) = run_map(work.who, [1], workers=1, start_method="fork")
    assert run_map(work.who, [1], workers=1, start_method="fork") == [pid]
    real = pool._identity()
    monkeypatch.setattr(pool, "_identity", lambda: ("somebody else", *real[1:]))
    (other,) = run_map(work.who, [1], workers=1, start_method="fork")
    assert other != pid
    assert not Path(f"/proc/{pid}").exists()


def _is_open(path: Path) -> bool:
    """Return whether other users can read what is in a folder."""
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents))


everybody_can_import = pytest.mark.skipif(
    not all(_is_open(Path(module.__file__).parent) for module in (os, opero)),
    reason="other users cannot import opero, or the standard library, from here",
)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    "change", ["setegid", "setgroups", pytest.param("seteuid", marks=[everybody_can_import])]
)
def test_a_program_that_gives_up_rights_has_workers_without_them(change):
    """A warm worker would keep the rights."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from opero import opmap\n"
        "import work\n"
        "def rights(_): return os.geteuid(), os.getegid(), os.getgroups()\n"
        "mapped = opmap(mode='process', workers=1, retries=1, progress=False)(rights)\n"
        "before = mapped([0])\n"
        "getattr(os, sys.argv[1])([7] if sys.argv[1] == 'setgroups' else 65534)\n"
        "print(before == mapped([0]), mapped([0]) == [rights(0)])\n"
        "os._exit(0)\n"
    )
    done = script(code, change, str(FOLDER))
    assert (done.stdout, done.stderr) == ("False True\n", "")


# --- what pickling may raise ----------------------------------------------------------------------


class Stop(BaseException):
    """A base exception that nothing handles."""


def _raise(kind: Any) -> None:
    raise kind("stop")


class Raises:
    """A value whose pickling or unpickling raises something."""

    def __init__(self, kind: Any, when: str) -> None:
        self.kind = kind
        self.when = when

    def __reduce__(self) -> Any:
        if self.when == "pickled":
            _raise(self.kind)
        return _raise, (self.kind,)


class RaisesError(Raises, Exception):
    """The same as an exception."""


def gives(item: Any) -> Any:
    """Return a number, or a value that does not travel."""
    if isinstance(item, tuple):
        how, kind, when = item
        if how == "raised":
            raise RaisesError(kind, when)
        return Raises(kind, when)
    return item


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, Stop])
def test_whatever_a_pickle_raises_fails_its_own_item(kind):
    """The worker and the program continue, whichever side raises."""
    bad: list[Any] = [Raises(kind, when) for when in ("pickled", "unpickled")]
    bad += [(how, kind, when) for how in ("given", "raised") for when in ("pickled", "unpickled")]
    items: list[Any] = [0]
    for place, each in enumerate(bad, 1):
        items += [each, place]
    results = run_map(gives, items, chunk=20, start_method="fork")
    assert results[::2] == list(range(7))
    failed = results[1::2]
    assert [isinstance(each, Exception) for each in failed] == [True] * 6, failed
    assert f"cannot be pickled: {kind.__name__}: stop" in str(failed[0])
    assert f"cannot be unpickled in a worker: {kind.__name__}: stop" in str(failed[1])


def test_an_interrupt_while_something_is_pickled_is_an_interrupt():
    """It does not come again when the value is pickled again."""

    def work_of(*steps: Any) -> Any:
        left = list(steps)

        def step() -> Any:
            outcome = left.pop(0)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        return step

    assert contained(work_of(1)) == 1
    with pytest.raises(KeyboardInterrupt):
        contained(work_of(KeyboardInterrupt(), 1))
    with pytest.raises(KeyboardInterrupt):
        contained(work_of(KeyboardInterrupt(), ValueError()))
    with pytest.raises(ValueError, match="once"):
        contained(work_of(ValueError("once"), 1))
    with pytest.raises(Contained) as caught:
        contained(work_of(SystemExit(3), SystemExit(3)))
    assert type(caught.value.args[0]) is SystemExit
