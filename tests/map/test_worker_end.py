"""What a worker does when it ends: in programs of their own, by each way to start processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from opero.map.engines.processes.start import METHODS

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="these tests fork"),
]


def run(tmp_path: Path, code: str, *args: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(code))
    return subprocess.run(
        [sys.executable, str(script), *args],
        capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["process", "async_process"])
@pytest.mark.parametrize("method", METHODS)
def test_what_a_worker_registers_for_its_end_runs(method, mode, tmp_path):
    """It runs at the end of the program; the program's own handlers do not run there."""
    code = """
        import atexit, logging.handlers, os, sys, tempfile, weakref
        from multiprocessing.util import Finalize
        from opero import opmap

        mode, method = sys.argv[1:]
        here = os.getpid()

        def note(what):
            with open("notes", "a") as file:
                file.write(what + "\\n")

        class Held:
            pass

        def prepare(value):
            global held, memory
            atexit.register(note, "atexit")
            Finalize(None, note, args=("finalizer",), exitpriority=1)
            held = Held()
            weakref.finalize(held, note, "weak")
            memory = logging.handlers.MemoryHandler(10, target=logging.FileHandler("log"))
            memory.handle(logging.makeLogRecord({"msg": "buffered", "levelno": 20}))
            print("printed")
            return os.getpid() != here

        async def prepare_later(value):
            return prepare(value)

        atexit.register(note, "end of the program")
        folder = tempfile.TemporaryDirectory()
        parents = logging.handlers.MemoryHandler(10, target=logging.FileHandler("parent log"))
        parents.handle(logging.makeLogRecord({"msg": "of the program", "levelno": 20}))
        function = prepare if mode == "process" else prepare_later
        mapped = opmap(retries=1, progress=False, workers=1, mode=mode, start_method=method)
        print(mapped(function)([1]), os.path.isdir(folder.name))
        """
    done = run(tmp_path, code, mode, method)
    assert sorted(done.stdout.splitlines()) == ["[True] True", "printed"]
    assert done.stderr == ""
    notes = (tmp_path / "notes").read_text().split("\n")
    assert sorted(notes) == ["", "atexit", "end of the program", "finalizer", "weak"]
    assert (tmp_path / "log").read_text() == "buffered\n"
    assert (tmp_path / "parent log").read_text() == "of the program\n"


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_an_end_that_fails_or_ends_early_is_told_and_holds_up_nobody(method, tmp_path):
    """The other registered handlers still run."""
    code = """
        import atexit, os, sys
        from opero import opmap

        def prepare(value):
            atexit.register(os.write, 1, b"ran\\n")
            atexit.register(lambda: 1 / 0)
            atexit.register(sys.exit, 3)
            return value

        print(opmap(retries=1, progress=False, workers=1, start_method=sys.argv[1])(prepare)([1]))
        """
    done = run(tmp_path, code, method)
    assert done.stdout.split() == ["[1]", "ran"]
    assert "ZeroDivisionError" in done.stderr


def test_an_end_that_hangs_is_cut(tmp_path):
    """The program ends all the same, and leaves no process."""
    code = """
        import atexit, os, sys, time
        from opero import opmap
        from opero.map.engines.processes import worker_end

        worker_end.LIMIT = 0.5  # a forked worker has it too

        def prepare(value):
            atexit.register(time.sleep, 1000)
            return os.getpid()

        print(opmap(retries=1, progress=False, workers=1, start_method="fork")(prepare)([1])[0])
        """
    begun = time.monotonic()
    done = run(tmp_path, code)
    assert time.monotonic() - begun < 50
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_worker_that_has_been_idle_for_long_ends_in_the_same_way(tmp_path):
    """The program continues meanwhile."""
    code = """
        import atexit, os, sys, time
        from pathlib import Path
        from opero import opmap
        from opero.map.engines.processes import pool

        pool.IDLE = 0.2

        def prepare(value):
            atexit.register(Path("ended").touch)
            return value

        print(opmap(retries=1, progress=False, workers=1)(prepare)([1]))
        until = time.monotonic() + 40
        while not Path("ended").exists() and time.monotonic() < until:
            time.sleep(0.02)
        print(Path("ended").exists())
        """
    assert run(tmp_path, code).stdout.split() == ["[1]", "True"]
