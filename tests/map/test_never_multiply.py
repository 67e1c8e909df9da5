"""A module that maps at its top does not start processes without end: real programs, counted."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from opero.map.engines.processes.start import METHODS

pytestmark = pytest.mark.once

COUNTED = """\
import os
with open(os.environ["CENSUS"], "a") as census:
    census.write(f"{os.getpid()}\\n")
"""
"""Notes each process that executes a module; every one that the map starts executes one."""


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> tuple[str, str, int]:
    """Run the file `main`; return its output, its errors, and the number of processes."""
    for name, text in files.items():
        given = textwrap.dedent(text).replace("COUNTED\n", COUNTED)
        (folder / f"{name}.py").write_text(given)
    census = folder / "census"
    monkeypatch.setenv("CENSUS", str(census))
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=folder, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    there = set(census.read_text().split()) if census.exists() else set()
    return done.stdout, done.stderr, len(there)


OPTIONS = 'mode="process", workers=2, retries=1, progress=False'

MAPS_AT_ITS_TOP = f"""\
    COUNTED
    from opero import opmap

    @opmap({OPTIONS}, start_method=METHOD)
    def square(item):
        return item * item

    RESULT = square(range(4))

    def other(item):
        return item + 1
    """


def at_top(method: str) -> str:
    return MAPS_AT_ITS_TOP.replace("METHOD", repr(method))


@pytest.mark.parametrize("method", METHODS)
def test_a_module_may_map_at_its_top_in_the_program(method, tmp_path, monkeypatch):
    """While it is being imported its functions travel by value, and no worker imports it."""
    out, err, count = run(
        tmp_path, monkeypatch,
        main="import deep\nprint(deep.RESULT)",
        deep="import inner\nRESULT = inner.RESULT",
        inner=at_top(method),
    )  # fmt: skip
    assert (out, err, count) == ("[0, 1, 4, 9]\n", "", 1)


@pytest.mark.parametrize("method", [each for each in METHODS if each != "fork"])
def test_a_worker_that_imports_such_a_module_refuses_and_the_program_knows_why(
    method, tmp_path, monkeypatch
):
    """The error names the module, the line and the remedy, at any depth."""
    main = f"""\
        import low, opero
        from opero import opmap

        try:
            print(opmap({OPTIONS}, start_method={method!r})(low.ask)(range(4)))
        except opero.OperoError as error:
            print(error)
        """
    low = "import middle\n\ndef ask(item):\n    return middle.inner.other(item)\n"
    out, _, count = run(
        tmp_path, monkeypatch, main=main, low=low, middle="import inner", inner=at_top(method)
    )
    line = 1 + [*at_top(method).splitlines()].index("    RESULT = square(range(4))") + 2
    assert "square() maps in processes at the top of inner" in out
    assert f"{tmp_path / 'inner.py'}, line {line}" in out
    assert 'if __name__ == "__main__":' in out
    assert 2 <= count <= 3  # the program, and its workers


@pytest.mark.parametrize("method", [each for each in METHODS if each != "fork"])
@pytest.mark.parametrize("part", ["item", "shared argument", "attempt"])
def test_such_a_module_is_refused_whatever_leads_to_it(part, method, tmp_path, monkeypatch):
    """The class of an item, of a shared argument, or an import in the function."""
    inner = at_top(method) + "\n    class Thing:\n        pass\n"
    main = f"""\
        from opero import opmap

        def ask(item, more=None):
            return "ran"

        def imports(item):
            import inner

            return "ran"

        on = opmap({OPTIONS}, start_method={method!r})
        try:
            if {part!r} == "attempt":
                print(on(imports)(range(4)))
            else:
                import inner

                thing = inner.Thing()
                if {part!r} == "item":
                    print(on(ask)([thing, thing]))
                else:
                    print(on(ask)(range(4), more=thing))
        except Exception as error:
            print(error)
        """
    out, _, count = run(tmp_path, monkeypatch, main=main, inner=inner)
    assert "square() maps in processes at the top of inner" in out
    assert "ran" not in out
    assert count <= 3


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stream", "amap", "astream", "thread of its own"])
def test_no_way_to_map_gets_around_it(how, tmp_path, monkeypatch):
    """A thread does not either, if the import waits for it."""
    calls = {
        "stream": "list(square.stream(range(4)))",
        "amap": "asyncio.run(square.amap(range(4)))",
        "astream": "asyncio.run(all_of(square.astream(range(4))))",
        "thread of its own": "in_thread(lambda: square(range(4)))",
    }
    inner = f"""\
        COUNTED
        import asyncio
        import threading
        from opero import opmap

        @opmap({OPTIONS})
        def square(item):
            return item * item

        async def all_of(stream):
            return [each async for each in stream]

        def in_thread(call):
            found = []

            def target():
                try:
                    found.append(call())
                except Exception as error:
                    found.append(error)

            thread = threading.Thread(target=target)
            thread.start()
            thread.join(60)
            if isinstance(found[0], Exception):
                raise found[0]

        if "FIRST" in os.environ:
            del os.environ["FIRST"]
        else:
            {calls[how]}

        def other(item):
            return item + 1
        """
    main = f"""\
        import inner
        from opero import opmap

        try:
            print(opmap({OPTIONS})(inner.other)(range(4)))
        except Exception as error:
            print(error)
        """
    monkeypatch.setenv("FIRST", "1")
    out, _, count = run(tmp_path, monkeypatch, main=main, inner=inner)
    assert "square() maps in processes at the top of" in out
    assert count <= 3


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_a_module_may_map_in_threads_at_its_top_everywhere(mode, tmp_path, monkeypatch):
    """Such a map starts no processes."""
    kind = "async def" if mode == "async" else "def"
    inner = f"""\
        COUNTED
        from opero import opmap

        @opmap(mode={mode!r}, workers=2, progress=False)
        {kind} square(item):
            return item * item

        RESULT = square(range(4))

        def other(item):
            return RESULT[item]
        """
    main = f"import inner\nfrom opero import opmap\nprint(opmap({OPTIONS})(inner.other)(range(4)))"
    out, err, count = run(tmp_path, monkeypatch, main=main, inner=inner)
    assert (out, err) == ("[0, 1, 4, 9]\n", "")
    assert 2 <= count <= 3


def test_an_attempt_may_map_in_processes(tmp_path, monkeypatch):
    """Its function is loaded, and the attempt ends; it may import modules meanwhile."""
    inner = """\
        COUNTED
        from opero import opmap

        @opmap(mode="process", workers=1, retries=1, progress=False)
        def square(item):
            return item * item

        def nested(item):
            import colorsys

            return square([item])
        """
    main = f"import inner\nfrom opero import opmap\nprint(opmap({OPTIONS})(inner.nested)([1, 2]))"
    out, err, _ = run(tmp_path, monkeypatch, main=main, inner=inner)
    assert (out, err) == ("[[1], [4]]\n", "")


@pytest.mark.skipif("fork" not in METHODS, reason="there are no forks")
def test_a_worker_that_was_forked_from_a_half_imported_module_does_not_stay(tmp_path, monkeypatch):
    """Such a worker would never have the rest of the module."""
    later = "\n    def later(item):\n        return square([item])\n"
    main = f"""\
        import inner
        from opero import opmap

        print(inner.RESULT, opmap({OPTIONS}, start_method="fork")(inner.later)([1, 2]))
        """
    out, err, _ = run(tmp_path, monkeypatch, main=main, inner=at_top("fork") + later)
    assert (out, err) == ("[0, 1, 4, 9] [[1], [4]]\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("method", [each for each in METHODS if each != "fork"])
def test_workers_of_an_executor_refuse_as_well(method, tmp_path, monkeypatch):
    """They may import the module for a map, or a main module without a guard."""
    inner = f"""\
        COUNTED
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from opero import opmap

        def square(item):
            return item * item

        def start():
            context = multiprocessing.get_context({method!r})
            with ProcessPoolExecutor(2, mp_context=context) as executor:
                return opmap(executor=executor, retries=1, progress=False)(square)(range(4))

        if __name__ != "__main__" and "FIRST" not in os.environ:
            start()
        os.environ.pop("FIRST", None)
        """
    monkeypatch.setenv("FIRST", "1")
    main = "import inner\nif __name__ == '__main__':\n    print(inner.start())"
    out, _, count = run(tmp_path, monkeypatch, main=main, inner=inner)
    assert "start" not in out
    assert count <= 4  # the standard library's fork server imports the main module, too
    monkeypatch.delenv("FIRST")
    (tmp_path / "census").unlink()
    out, err, count = run(
        tmp_path, monkeypatch, main="import inner\nprint(inner.start())", inner=inner
    )
    assert "maps in processes at the top of" in err
    assert count <= 7  # the program starts two executors
