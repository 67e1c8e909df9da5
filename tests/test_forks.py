"""What opero does around a fork, in one order, whatever a handler raises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from opero import forks

pytestmark = pytest.mark.once

SOURCE = Path(forks.__file__).parent

TABLES = ("_before", "_in_parent", "_in_child")

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def empty(monkeypatch):
    """Take all handlers out of the register."""
    for table in TABLES:
        monkeypatch.setattr(forks, table, {rank: [] for rank in forks.ORDER})


def in_fresh_interpreter(code):
    """Run a program that forks; return its outcome."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_nobody_else_asks_the_system_to_be_called_at_a_fork():
    """The order holds only if there is one register."""
    found = [
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py*")
        if path.suffix in {".py", ".pyx"}
        and re.search(r"os\.register_at_fork\(", path.read_text(encoding="utf-8"))
    ]
    assert found == ["forks.py"]


def test_handlers_run_by_rank_whatever_the_order_of_registration(empty):
    """Before a fork from the last rank to the first, after it from the first to the last."""
    done = []
    for rank in ("leases", "caches", "pipes", "stores"):
        forks.register(
            rank,
            before=lambda rank=rank: done.append(("before", rank)),
            after_in_parent=lambda rank=rank: done.append(("parent", rank)),
            after_in_child=lambda rank=rank: done.append(("child", rank)),
        )
    ranks = ["pipes", "leases", "stores", "caches"]
    forks._before_fork()
    assert done == [("before", rank) for rank in reversed(ranks)]
    done.clear()
    forks._after_in_parent()
    assert done == [("parent", rank) for rank in ranks]
    done.clear()
    forks._after_in_child()
    assert done == [("child", rank) for rank in ranks]


def test_handlers_of_one_rank_nest(empty):
    """Before a fork the last one is called first, after it the first one."""
    done = []
    for name in ("first", "second"):
        forks.register(
            "stores",
            before=lambda name=name: done.append(name),
            after_in_child=lambda name=name: done.append(name),
        )
    forks._before_fork()
    assert done == ["second", "first"]
    forks._after_in_child()
    assert done == ["second", "first", "first", "second"]


def test_an_unknown_rank_is_an_error():
    """A rank that the order does not name would never be called."""
    with pytest.raises(KeyError, match="nowhere"):
        forks.register("nowhere", before=print)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("moment", ["_before_fork", "_after_in_parent", "_after_in_child"])
def test_every_handler_is_called_whatever_others_raise(empty, error, moment):
    """The first, one in the middle and the last one fail; a group holds what they raised."""
    done = []

    def failing():
        raise error("a handler fails")

    for rank in forks.ORDER:
        for handler in (failing, lambda rank=rank: done.append(rank)):
            forks.register(rank, before=handler, after_in_parent=handler, after_in_child=handler)
    with pytest.raises(BaseExceptionGroup) as caught:
        getattr(forks, moment)()
    assert [type(each) for each in caught.value.exceptions] == [error] * len(forks.ORDER)
    assert sorted(done) == sorted(forks.ORDER)


def test_a_single_error_is_raised_as_it_is(empty):
    """What Python prints is then the handler's own error."""
    forks.register("stores", before=lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        forks._before_fork()


@needs_fork
def test_a_real_fork_calls_what_was_registered_and_survives_what_fails():
    """Parent and child both go on; the error is reported on stderr."""
    done = in_fresh_interpreter(
        "import os, warnings\n"
        "from opero import forks\n"
        "done = []\n"
        "forks.register('caches', before=lambda: done.append('before caches'),\n"
        "    after_in_parent=lambda: done.append('parent caches'),\n"
        "    after_in_child=lambda: done.append('child caches'))\n"
        "forks.register('leases', after_in_parent=lambda: 1 / 0, after_in_child=lambda: [][0])\n"
        "forks.register('pipes', before=lambda: done.append('before pipes'),\n"
        "    after_in_parent=lambda: done.append('parent pipes'),\n"
        "    after_in_child=lambda: done.append('child pipes'))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    expected = ['before caches', 'before pipes', 'child pipes', 'child caches']\n"
        "    os._exit(0 if done == expected else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "assert done == ['before caches', 'before pipes', 'parent pipes', 'parent caches'], done\n"
    )
    assert done.returncode == 0, done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "IndexError" in done.stderr


@needs_fork
def test_the_lock_of_the_workers_is_free_on_both_sides_of_a_fork():
    """Also if something else fails before and after."""
    done = in_fresh_interpreter(
        "import os, sys\n"
        "sys.unraisablehook = lambda _: None\n"
        "from opero import forks\n"
        "from opero.map.engines.processes import pool\n"
        "for rank in forks.ORDER:\n"
        "    forks.register(rank, before=lambda: 1 / 0, after_in_parent=lambda: 1 / 0,\n"
        "        after_in_child=lambda: 1 / 0)\n"
        "import threading\n"
        "def free():\n"
        "    found = []\n"
        "    def look():\n"
        "        found.append(pool._lock.acquire(timeout=5))\n"
        "    thread = threading.Thread(target=look)\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "    return found == [True]\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if free() else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "assert free()\n"
    )
    assert done.returncode == 0, done.stderr


def test_without_fork_everything_is_imported_and_nothing_is_asked_of_the_system():
    """As on Windows."""
    done = in_fresh_interpreter(
        "import os\n"
        "if hasattr(os, 'register_at_fork'):\n"
        "    del os.register_at_fork\n"
        "from opero import forks\n"
        "import opero, opero.contexts, opero.limits.limiter, opero.stores.leases\n"
        "forks.register('caches', before=print)\n"
    )
    assert done.returncode == 0, done.stderr
