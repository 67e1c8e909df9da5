"""A fork while threads are inside SQLite: no child hangs, and none uses what it has inherited."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from opero.stores import connections
from opero.stores.disk import DiskBackend

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:This process .*fork:DeprecationWarning"),
]

HEAD = """
import os, sys, threading, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from opero.stores import connections
from opero.stores.disk import DiskBackend

backend = DiskBackend(Path(sys.argv[1]), None)
backend.put_many([("app:1", b"1")], None)
failures = []

def busy(which):
    number = 0
    while True:
        number += 1
        try:
            backend.put_many([(f"app:{which}:{number % 50}", b"1" * 500)], 0.05)
            backend.get_many([f"app:{which}:{number % 50}", "app:1"])
        except Exception as error:
            failures.append(error)

def ends(child, seconds=30):
    "Wait for a child, and return its exit status; None if it hangs."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return None

def use():
    "Use the cache as a child does; return its exit status."
    other = DiskBackend(Path(sys.argv[1] + "-other"), None)
    for each in (backend, other):
        each.put_many([("app:child", b"2")], None)
        if each.get_many(["app:child"]) != [b"2"]:
            return 3
    return 0
"""


def run(place, body):
    """Run a script after `HEAD` in an interpreter of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + body, str(place)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.strip()


FORKS = {
    "os.fork": """
    child = os.fork()
    if child == 0:
        os._exit(use())
    outcomes.append(ends(child))
""",
    "multiprocessing": """
    process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(use()))
    process.start()
    process.join(30)
    outcomes.append(process.exitcode)
""",
    "subprocess": """
    outcomes.append(subprocess.run(["true"], preexec_fn=use, timeout=30).returncode)
""",
    "two at once": """
    def fork():
        child = os.fork()
        if child == 0:
            os._exit(use())
        outcomes.append(ends(child))
    forking = [threading.Thread(target=fork) for _ in range(2)]
    for thread in forking:
        thread.start()
    for thread in forking:
        thread.join()
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", FORKS)
def test_no_child_hangs_that_is_forked_while_threads_use_the_cache(tmp_path, how):
    body = """
import multiprocessing, subprocess
for which in range(4):
    threading.Thread(target=busy, args=(which,), daemon=True).start()
time.sleep(0.2)
outcomes = []
for _ in range(12):
    time.sleep(0.01)
"""
    body += FORKS[how] + "print(set(outcomes), failures, flush=True)\nos._exit(0)\n"
    assert run(tmp_path / "cache", body) == "{0} []"


def test_children_of_children_use_it_too(tmp_path):
    body = """
threading.Thread(target=busy, args=(0,), daemon=True).start()
time.sleep(0.1)
child = os.fork()
if child == 0:
    threading.Thread(target=busy, args=(1,), daemon=True).start()
    time.sleep(0.1)
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(use())
    os._exit(ends(grandchild))
print(ends(child), use(), failures, flush=True)
os._exit(0)
"""
    assert run(tmp_path / "cache", body) == "0 0 []"


def test_a_thread_that_does_not_come_out_holds_a_fork_up_no_longer_than_stated(tmp_path):
    """The child leaves SQLite alone then, and says why; the parent goes on."""
    body = """
connections.FORK_WAIT = 0.1
inside = threading.Event()
out = threading.Event()
def stay():
    with connections.visiting():
        inside.set()
        out.wait()
thread = threading.Thread(target=stay)
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    said = set()
    for call in (use, backend.close, lambda: DiskBackend(Path(sys.argv[1]), 1000).scan("", "", "")):
        try:
            said.add(call())
        except OSError as error:
            said.add("forked while SQLite was in use" in str(error))
    os._exit(0 if said == {None, True} else 4)
print(ends(child), use())
out.set()
thread.join()
child = os.fork()
if child == 0:
    os._exit(use())
print(ends(child), use())
"""
    assert run(tmp_path / "cache", body).split() == ["0"] * 4


def test_a_fork_in_the_middle_of_a_transaction_leaves_it_to_the_parent(tmp_path):
    """By a signal handler or a finalizer of the thread that writes: it cannot wait for itself."""
    body = """
from opero.stores import disk
put, children = disk._put, []
def forking(*arguments):
    put(*arguments)
    if not children:
        children.append(os.fork())
disk._put = forking
try:
    backend.put_many([("app:2", b"2"), ("app:3", b"3")], None)
except OSError:
    os._exit(5 if children == [0] else 6)
print(ends(children[0]), backend.get_many(["app:2", "app:3"]))
"""
    assert run(tmp_path / "cache", body) == "5 [b'2', b'3']"


def test_a_child_whose_parent_did_not_prepare_the_fork_leaves_sqlite_alone(tmp_path):
    """As where a server forks in C and calls only what comes after it."""
    body = """
from opero import forks
forks._before["stores"].clear()
child = os.fork()
if child == 0:
    try:
        use()
    except OSError as error:
        os._exit(7 if "forked while SQLite was in use" in str(error) else 8)
    os._exit(9)
print(ends(child), use())
"""
    assert run(tmp_path / "cache", body) == "7 0"


def test_a_child_in_which_sqlite_hangs_leaves_it_alone(tmp_path):
    """As where the program's own threads were inside SQLite, of which opero knows nothing."""
    body = """
import sqlite3
child = os.fork()
if child == 0:
    connections.FORK_WAIT = 0.05
    sqlite3.connect = lambda *_, **__: time.sleep(1000)
    said = []
    for call in (use, use, backend.close):
        try:
            said.append(call())
        except OSError as error:
            said.append("forked while SQLite was in use" in str(error))
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0)
    os._exit(0 if said == [True, True, None] and ends(grandchild) == 0 else 4)
print(ends(child), use())
"""
    assert run(tmp_path / "cache", body) == "0 0"


@pytest.mark.slow
def test_no_child_hangs_where_other_threads_use_sqlite_in_their_own_way(tmp_path):
    """Some of the children find a mutex taken, and go on without the cache."""
    body = """
import sqlite3
connections.FORK_WAIT = 0.3
def foreign():
    while True:
        with sqlite3.connect(":memory:") as connection:
            connection.execute("CREATE TABLE t(x)")
            connection.execute("INSERT INTO t VALUES (zeroblob(1000))")
        connection.close()
for _ in range(4):
    threading.Thread(target=foreign, daemon=True).start()
outcomes = []
for _ in range(20):
    time.sleep(0.01)
    child = os.fork()
    if child == 0:
        try:
            os._exit(use())
        except OSError:
            os._exit(0)
    outcomes.append(ends(child))
print(set(outcomes), use(), flush=True)
os._exit(0)
"""
    assert run(tmp_path / "cache", body) == "{0} 0"


def test_a_decorated_function_runs_without_its_cache_in_such_a_child(tmp_path):
    body = """
import logging
from opero import forks, opero
@opero(cache=True, cache_backend="disk", cache_dir=sys.argv[1] + "-of-a-function", retries=1)
def double(number):
    return 2 * number
assert double(1) == double(1) == 2
forks._before["stores"].clear()
child = os.fork()
if child == 0:
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("opero").addHandler(handler)
    right = double(1) == double(2) / 2 == 2 and double.stats().store_failures > 0
    os._exit(0 if right and len(lines) == 1 and "was forked while SQLite was in use" in lines[0]
             else 4)
print(ends(child), double.stats().store_failures)
"""
    assert run(tmp_path / "cache", body) == "0 0"


def test_a_thread_that_comes_while_a_process_forks_waits_for_the_end_of_the_fork(tmp_path):
    backend = DiskBackend(tmp_path / "cache", None)
    backend.put_many([("app:1", b"1")], None)
    found = []
    connections._forking.append(-1)
    reader = threading.Thread(target=lambda: found.append(backend.get_many(["app:1"])))
    reader.start()
    time.sleep(0.02)
    assert found == []
    connections._forking.remove(-1)
    reader.join(20)
    assert found == [[b"1"]]
    backend.close()


def test_a_fork_that_does_not_end_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "ENTRANCE_WAIT", 0.02)
    backend = DiskBackend(tmp_path / "cache", None)
    connections._forking.append(-1)
    try:
        with pytest.raises(OSError, match="the process is being forked"):
            backend.get_many(["app:1"])
    finally:
        connections._forking.remove(-1)
    assert backend.get_many(["app:1"]) == [None]
    backend.close()


def test_the_thread_that_forks_does_not_wait_for_itself(tmp_path):
    """What it does between the handlers, as by a finalizer, fails at once."""
    backend = DiskBackend(tmp_path / "cache", None)
    connections._before_fork()
    try:
        with pytest.raises(OSError, match="the process is being forked"):
            backend.get_many(["app:1"])
    finally:
        connections._after_in_parent()
    assert backend.get_many(["app:1"]) == [None]
    backend.close()


@pytest.mark.parametrize("pure", ["0", "1"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_the_first_call_imports_nothing_that_a_fork_could_cut(tmp_path, pure, kind):
    """A child waits for ever for a module that a thread of its parent was importing."""
    program = f"""
import asyncio, sys
from opero import opero

@opero(cache=True, cache_backend="disk", cache_dir=sys.argv[1], cache_secret="s" * 40)
{kind} work(number):
    return {{"number": number}}

before = set(sys.modules)
for number in (1, 1, (2.0, "b")):
    value = work(number)
    if asyncio.iscoroutine(value):
        asyncio.run(value)
print(sorted(set(sys.modules) - before))
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "cache"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "OPERO_PURE_PYTHON": pure, "OPERO_REQUIRE_COMPILED": "0"},
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
