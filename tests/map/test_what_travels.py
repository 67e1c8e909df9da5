"""What a script's functions may use in worker processes: programs with all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from opero.map.engines.processes.start import METHODS

pytestmark = pytest.mark.once

HERE = Path(__file__).with_name("isolated_map")
HOLDS = HERE / "what_a_script_holds.py"


def run(*args: str, typed: str | None = None, folder: Path | None = None) -> str:
    """Run a program and return its output; it must succeed, and print no errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *args],
        input=typed, capture_output=True, text=True, timeout=200, check=False, cwd=folder,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize(("method", "pure"), [(METHODS[0], "1"), *((each, "") for each in METHODS)])
def test_what_scripts_hold_works_in_workers_and_comes_back_as_itself(method, pure, monkeypatch):
    """The script has caches, slots, locks, context variables, enums, hooks and files."""
    monkeypatch.setenv("OPERO_PURE_PYTHON", pure)
    if pure:
        monkeypatch.delenv("OPERO_REQUIRE_COMPILED", raising=False)
    assert run(str(HOLDS), method) == "that is all\n"


def test_the_same_holds_for_code_that_no_file_has():
    """The program of the test above comes from the standard input."""
    assert run("-", METHODS[0], typed=HOLDS.read_text()) == "that is all\n"


def test_what_cannot_travel_is_named_and_the_remedy(tmp_path):
    """The error names the global, the function, and the path between them."""
    text = run(str(HERE / "what_cannot_travel.py"), typed="", folder=tmp_path)
    said = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    remedy = "; create it in the function, or once in each worker with worker_init="
    why = "(TypeError: cannot pickle 'sqlite3.Connection' object)"
    for name, way in {
        "itself": "DB",
        "element": "STATE['stores'][1]",
        "attribute": "POOL.idle['main'][1]",
        "helper": "helper, which uses DB",
        "method": "Shop.price, which uses DB",
        "class": "Stock.store",
        "closure": "store",
        "default": "a default value",
    }.items():
        assert f"cannot be pickled: it uses {way}, a sqlite3.Connection {why}{remedy}" in said[name]
    assert "it uses THREAD, a threading.Thread (" in said["thread"]
    assert "it uses EXECUTOR, a concurrent.futures.thread.ThreadPoolExecutor (" in said["executor"]
    assert "it uses BEGUN, a generator (" in said["generator"]
    assert "it uses its argument store.idle['main'][1], a sqlite3." in said["partial"]
    assert "argument 'store' of type sqlite3.Connection cannot be pickled" in said["connection"]
    assert "argument 'lock' of type _thread.lock cannot be pickled" in said["lock"]
    assert "it.idle['main'][1] is a sqlite3.Connection" in said["deep"]
    assert "it['locks'][0] is a _thread.lock" in said["result"]
    items = [line for line in text.splitlines() if line.startswith("item")]
    for said_of_item, part in zip(
        items,
        ("it[0].idle['main'][1] is a sqlite3.Connection", "_thread.RLock", "TextIOWrapper", "generator"),
        strict=True,
    ):  # fmt: skip
        assert part in said_of_item
    assert "after all [2]" in text


def test_tracebacks_and_warnings_show_the_file_and_the_line():
    """That holds for code that travels by value, even if no file has the lines."""
    program = HERE / "where_it_failed.py"
    done = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    lines = program.read_text().splitlines()
    number = lines.index("        return 1 // value  # a line of the file") + 1
    assert f'File "{program}", line {number}, in divide\n    return 1 // value  #' in done.stdout
    assert 'File "<cell 1>", line 3, in divide\n    return 1 // value  # a line' in done.stdout
    assert 'File "<cell 1>", line 7, in in_a_cell\n    return Cell().divide' in done.stdout
    assert 'File "<typed>", line 2, in typed\n' in done.stdout
    assert "dynamic-code" not in done.stdout
    number = (
        lines.index('    warnings.warn("odd in a file", stacklevel=1)  # this line of the file') + 1
    )
    assert f"{program}:{number}: UserWarning: odd in a file\n  warnings.warn(" in done.stderr
    assert "<cell 1>:6: UserWarning: odd in a cell\n  warnings.warn(" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="what it shares by inheritance, it refuses")
@pytest.mark.parametrize("method", METHODS)
def test_what_multiprocessing_shares_is_shared_with_workers(method):
    """Connections and sockets work anywhere; locks, values and queues where items share them."""
    text = run(str(HERE / "what_processes_share.py"), method)
    said = [line for line in text.splitlines() if not line.startswith("refused")]
    numbers = [1, 2, 3, 4]
    assert said == [
        f"globals {numbers} {numbers} 10 4.0 9 True",
        f"globals {numbers} {numbers} 20 8.0 9 True",
        f"arguments 10 {numbers}",
        "connections [('it', 0), ('it', 1), ('it', 2), ('it', 3)]",
        "sockets True",
        "sockets b'HELLO' b'THERE'",
        "a result [2]",
        "shared memory 7",
        "worker_init begun",
    ]
    refused = [line for line in text.splitlines() if line.startswith("refused")]
    for line, kind in zip(refused, ("Queue", "Lock", "Synchronized"), strict=False):
        assert f"{kind} cannot be pickled: RuntimeError: {kind} objects should only be" in line
    assert len(refused) == 7
    for line in refused[4:]:
        assert "works only in forked processes: create it with multiprocessing.get_context(" in line
    assert "the shared argument 'forked' of type multiprocessing" in refused[4]
    assert "it uses FORKED, a multiprocessing.sharedctypes.Synchronized (" in refused[5]


def test_classes_of_libraries_are_the_same_ones_in_workers():
    """A script defines models of pydantic, attrs and msgspec."""
    assert run(str(HERE / "classes_of_libraries.py")) == "that is all\n"
