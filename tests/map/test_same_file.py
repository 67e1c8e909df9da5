"""A name leads to the same file in a worker as in the program; else what it names goes by value."""

from __future__ import annotations

import importlib.util
import os
import runpy
import subprocess
import sys
import textwrap
import types
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from opero import opmap
from opero.map.engines.processes import pool, start

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="they take long without a fork server"),
]

METHODS = start.METHODS

TOOL = """\
import enum

FACTOR = {factor}
KIND = {kind!r}


class Odd(Exception):
    pass


class Color(enum.Enum):
    RED = {kind!r}


class Point:
    def __init__(self, value):
        self.value = value

    def scaled(self):
        return self.value * FACTOR, KIND


def helper(item):
    return item * FACTOR


def direct(item):
    return helper(item), KIND


def moves(point):
    return Point(point.scaled()[0]), isinstance(point, Point)


def raises(item):
    raise Odd(KIND, item)


def colored(color):
    return color is Color.RED, color.value, Color.RED
"""


@pytest.fixture(scope="module", autouse=True)
def no_process_left():
    """End the warm workers after the last test."""
    yield
    pool.shut()
    assert not pool._all


@pytest.fixture(autouse=True)
def modules_are_forgotten(monkeypatch):
    """Forget the modules that a test has imported, and its path."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("tool_"):
            del sys.modules[name]


def written(folder: Path, name: str, kind: str = "here", factor: int = 3) -> Path:
    """Write a module; return its file."""
    path = folder / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TOOL.format(kind=kind, factor=factor))
    importlib.invalidate_caches()
    return path


def from_file(name: str, path: Path, registered: bool = True) -> Any:
    """Load a module from a file, as plugins are loaded."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if registered:
        sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def mapped(function: Any, items: Any = (5,), method: str | None = None, **shared: Any) -> Any:
    """Map in one worker process."""
    options = {"workers": 1, "retries": 1, "progress": False, "start_method": method}
    return list(opmap(mode="process", **options)(function)(items, **shared))


def check(tool: Any, method: str | None = None) -> None:
    """Check that a worker uses the program's module."""
    assert mapped(tool.direct, [2], method) == [tool.direct(2)]
    assert mapped(lambda item: tool.helper(item) + tool.FACTOR, [2], method) == [
        tool.helper(2) + tool.FACTOR
    ]
    ((point, same),) = mapped(tool.moves, [tool.Point(2)], method)
    assert (type(point), point.value, same) == (tool.Point, tool.helper(2), True)
    (error,) = mapped(tool.raises, [2], method)
    assert type(error) is tool.Odd
    assert error.args == (tool.KIND, 2)
    assert mapped(tool.colored, [tool.Color.RED], method) == [(True, tool.KIND, tool.Color.RED)]

    def with_point(item, point):
        return point.scaled(), isinstance(point, tool.Point)

    assert mapped(with_point, [0], method, point=tool.Point(4)) == [(tool.Point(4).scaled(), True)]


@pytest.mark.parametrize("method", METHODS)
def test_another_file_of_the_same_name_that_comes_first_now_is_not_taken(method, tmp_path):
    """Nor is one that came first when another module was imported."""
    for folder, kind in (("a", "mine"), ("b", "another")):
        written(tmp_path / folder, "tool_first", kind)
        written(tmp_path / folder / "tool_pack", "inner", kind)
        (tmp_path / folder / "tool_pack" / "__init__.py").write_text("")
    sys.path.insert(0, str(tmp_path / "a"))
    import tool_first
    import tool_pack.inner

    sys.path.insert(0, str(tmp_path / "b"))
    check(tool_first, method)
    check(tool_pack.inner, method)


@pytest.mark.parametrize("method", METHODS)
def test_a_path_that_is_gone_after_the_import_is_not_needed(method, tmp_path):
    """The path may have existed only for a moment."""
    written(tmp_path / "lib", "tool_gone")
    written(tmp_path / "lib" / "tool_spaced" / "inner", "leaf")
    sys.path.insert(0, str(tmp_path / "lib"))
    import tool_gone
    import tool_spaced.inner.leaf

    sys.path.remove(str(tmp_path / "lib"))
    check(tool_gone, method)
    check(tool_spaced.inner.leaf, method)


def test_a_relative_path_means_the_folder_in_which_the_module_was_imported(tmp_path, monkeypatch):
    """The present folder may contain another file at that path."""
    written(tmp_path / "one" / "lib", "tool_relative", "one")
    written(tmp_path / "two" / "lib", "tool_relative", "two")
    monkeypatch.chdir(tmp_path / "one")
    sys.path.insert(0, "lib")
    import tool_relative

    monkeypatch.chdir(tmp_path / "two")
    check(tool_relative)


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_a_module_that_was_loaded_from_a_file_is_that_file(method, registered, tmp_path):
    """Its name and suffix do not matter, nor whether it can be imported."""
    check(from_file("tool_plugin", written(tmp_path, "a-plugin"), registered), method)
    loader = importlib.machinery.SourceFileLoader("tool_odd", str(tmp_path / "odd.plugin"))
    (tmp_path / "odd.plugin").write_text(TOOL.format(kind="odd", factor=7))
    spec = importlib.util.spec_from_file_location("tool_odd", loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    if registered:
        sys.modules["tool_odd"] = module
    loader.exec_module(module)
    check(module, method)


def test_a_module_has_the_name_of_one_that_workers_have_from_elsewhere(tmp_path, monkeypatch):
    """A user's own module may have the name of one in the standard library."""
    monkeypatch.delitem(sys.modules, "token")
    tool = from_file("token", written(tmp_path, "token", "mine"))
    text = "import token\n\n\ndef use(item):\n    return token.direct(item)\n"
    (tmp_path / "tool_uses.py").write_text(text)
    sys.path.append(str(tmp_path))
    import tool_uses

    pool.shut()
    assert mapped(lambda _: "token" in sys.modules and sys.modules["token"].__file__) != [
        tool.__file__
    ]
    check(tool)
    assert mapped(tool_uses.use) == [tool_uses.use(5)]


@pytest.mark.parametrize("method", METHODS)
def test_a_module_without_a_file_goes_by_value(method, tmp_path):
    """It is made by hand, or its file is gone; what uses it goes by value too."""
    made = types.ModuleType("tool_made")
    sys.modules["tool_made"] = made
    exec(TOOL.format(kind="made", factor=4), vars(made))
    check(made, method)
    path = written(tmp_path, "tool_deleted", "deleted")
    sys.path.insert(0, str(tmp_path))
    import tool_deleted

    (tmp_path / "tool_upon.py").write_text(
        "import tool_made\nfrom tool_deleted import direct\n\n\n"
        "def use(item):\n    return tool_made.direct(item), direct(item)\n"
    )
    import tool_upon

    path.unlink()
    check(tool_deleted, method)
    assert mapped(tool_upon.use, [5], method) == [tool_upon.use(5)]


def test_functions_of_a_file_that_runpy_has_run_travel(tmp_path):
    """Their namespace remains, but no module keeps its name."""
    found = runpy.run_path(str(written(tmp_path, "program", "run")), run_name="tool_run")
    tool = types.SimpleNamespace(**found)
    check(tool)


def test_a_module_in_an_archive_is_found_there(tmp_path):
    """That holds even if the archive has left the path."""
    with zipfile.ZipFile(tmp_path / "tools.zip", "w") as archive:
        archive.writestr("tool_zipped.py", TOOL.format(kind="zipped", factor=3))
        archive.writestr("tool_box/__init__.py", "")
        archive.writestr("tool_box/inner.py", TOOL.format(kind="boxed", factor=3))
    sys.path.insert(0, str(tmp_path / "tools.zip"))
    import tool_box.inner
    import tool_zipped

    check(tool_zipped)
    sys.path.remove(str(tmp_path / "tools.zip"))
    pool.shut()
    check(tool_zipped)
    check(tool_box.inner)


@pytest.mark.parametrize("method", METHODS)
def test_an_executor_does_not_take_another_file_either(method, tmp_path):
    """The worker reports that its module differs, and gets the program's by value."""
    import multiprocessing

    for folder, kind in (("a", "mine"), ("b", "another")):
        written(tmp_path / folder, "tool_twice", kind)
    sys.path.insert(0, str(tmp_path / "b"))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as executor:
        assert executor.submit(abs, 1).result() == 1
        sys.path.insert(0, str(tmp_path / "a"))
        importlib.invalidate_caches()
        import tool_twice

        on = opmap(executor=executor, retries=1, progress=False)
        assert on(tool_twice.direct)([1, 2]) == [(3, "mine"), (6, "mine")]


PYTEST = {
    "test_maps.py": """\
        import helping
        import pytest
        from opero import opmap
        K = 3
        class Box:
            def __init__(self, value):
                self.value = value
        def helper(item):
            assert item.value, "it has none"
            return Box(item.value * K)
        @opmap(mode="process", workers=1, progress=False)
        def decorated(item):
            return helper(item)
        @pytest.mark.parametrize("method", {methods!r})
        def test_it(method):
            (box,) = decorated([Box(2)])
            assert type(box) is Box and box.value == 6
            options = dict(mode="process", workers=1, progress=False, start_method=method)
            (box,) = opmap(**options)(helper)([Box(2)])
            assert type(box) is Box and box.value == 6
            assert opmap(**options)(helping.double)([2]) == [4]
        """,
    "helping.py": """\
        def double(item):
            return item * 2
        """,
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["importlib", "prepend"])
def test_functions_of_tests_travel_however_pytest_imports_them(mode, tmp_path):
    """Two folders have tests of the same name, where the import mode allows it."""
    for folder in ("one", "two")[: 2 if mode == "importlib" else 1]:
        for name, text in PYTEST.items():
            path = tmp_path / "tests" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            given = textwrap.dedent(text).replace("{methods!r}", repr([start.DEFAULT]))
            given = given if folder == "one" else given.replace("item * 2", "item + item")
            path.write_text(given)
    path = [str(tmp_path / "tests" / "one"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, f"--import-mode={mode}", "-c", os.devnull, "--rootdir", ".", "tests"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{2 if mode == 'importlib' else 1} passed" in done.stdout
