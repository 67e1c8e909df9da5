"""Runs every test on both implementations, and lets none leave a thread or a process behind.

A test that asks for nothing runs twice: once with `opero.hotpath.core` set to the compiled half,
once to the plain one; the fixture `core` is that half. A test marked `once` runs once, with what is
active. `--implementation plain` (or `compiled`) deselects the other half.

A test marked `redis` needs a redis-server, and starts its own. Where there is none, such tests are
deselected and the header says so; with `OPERO_REQUIRE_REDIS=1` that is an error. A test marked
`refcounts` needs a Python that counts references, as CPython does and PyPy does not.

A test marked `slow` runs with `--everything` only, see `slow_tests.py`. How workers of pytest-xdist
share the tests, `workers.py` decides.

With `OPERO_HURRY=1` threads switch as often as the interpreter can in every test, not only in those
that are about threads; CI runs the files that use threads a second time that way.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest
from failing import decorating
from hypothesis import HealthCheck, settings
from redis_server import EXECUTABLE, RedisServer
from repeats import REPEATS

from opero import contexts, hotpath, switches

if sys.implementation.name == "pypy":  # there, cloudpickle cannot be imported without this
    import opero.map.serialization.cloud  # noqa: F401

pytest_plugins = ["slow_tests", "workers"]

settings.register_profile(
    "opero",
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("opero")


def _implementations() -> tuple[str, ...]:
    """Name the halves that this run can test: plain always, compiled unless it is not there."""
    if switches.is_on(switches.PURE_PYTHON, os.environ):
        return ("plain",)
    try:
        hotpath.load("compiled")
    except hotpath.MissingLibraryError:
        if switches.is_on(switches.REQUIRE_COMPILED, os.environ):
            raise
        return ("plain",)
    return ("compiled", "plain")


IMPLEMENTATIONS = _implementations()
COUNTS = hasattr(sys, "getrefcount")
"""Whether this Python counts references, so that a value goes with the last one."""

MOSTLY_PYTHON = {
    "clients", "docs", "examples", "integrations", "limits", "map", "runners", "stores",
}  # fmt: skip
"""The folders of tests of what is never compiled. Where the compiled half is active there, the
repetition of a test on the plain half is `slow`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that leaves out one half."""
    parser.addoption(
        "--implementation",
        choices=["both", *IMPLEMENTATIONS],
        default="both",
        help="test only this half of opero (default: every half that is installed)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker of tests that do not depend on the implementation, and let Ctrl-C in."""
    config.addinivalue_line(
        "markers", "refcounts: needs values to go with their last reference; deselected on PyPy"
    )
    config.addinivalue_line("markers", "once: not repeated for each implementation")
    config.addinivalue_line(
        "markers", "redis: needs a redis-server; deselected where there is none"
    )
    if EXECUTABLE is None and switches.is_on("OPERO_REQUIRE_REDIS", os.environ):
        raise pytest.UsageError("OPERO_REQUIRE_REDIS is on, and there is no redis-server")
    if switches.is_on("OPERO_HURRY", os.environ):
        sys.setswitchinterval(1e-6)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell does that in its background
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what is tested, and which files are the compiled half."""
    lines = [f"opero: {', '.join(IMPLEMENTATIONS)}; active: {hotpath.core.name} ({hotpath.REASON})"]
    if "compiled" in IMPLEMENTATIONS:
        package = import_module("opero._compiled")
        for folder in map(Path, package.__path__):
            files = sorted(path.name for path in folder.glob("*") if path.suffix in {".so", ".pyd"})
            lines.append(f"opero extensions: {folder}: {', '.join(files)}")
            if _edited(folder):
                lines.append("opero extensions: OLDER than their sources; run: pip install -e .")
    else:
        lines.append("opero extensions: none, the compiled half is NOT tested in this run")
    lines.append(
        f"opero redis: {EXECUTABLE}"
        if EXECUTABLE
        else "opero redis: no redis-server, tests that need one are DESELECTED in this run"
    )
    if not COUNTS:
        lines.append("opero references: not counted, tests that need that are DESELECTED")
    lines.append(f"opero threads: {_threads()}")
    lines.append(f"opero faults: {REPEATS} times each; OPERO_REPEATS=100 for more")
    return lines


def _edited(folder: Path) -> bool:
    """Return whether a source is newer than a module that was compiled from it for this Python."""
    modules = [each for ending in EXTENSION_SUFFIXES[:1] for each in folder.glob(f"*{ending}")]
    sources = [*folder.glob("*.p[xy][dxi]"), *folder.glob("../core/*.py")]
    compiled = min((path.stat().st_mtime for path in modules), default=0.0)
    checkout = folder.joinpath("../../../setup.py").exists()
    return checkout and any(path.stat().st_mtime > compiled for path in sources)


def _threads() -> str:
    """Say how threads take turns in this run."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "at the same time, without the interpreter's lock"
    return f"they switch every {sys.getswitchinterval():g} s; OPERO_HURRY=1 for as often as can be"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need a redis-server or counted references where there are none."""
    missing = [name for name, here in (("redis", EXECUTABLE), ("refcounts", COUNTS)) if not here]
    left_out = [item for item in items if any(map(item.get_closest_marker, missing))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what is there before the first test; tests collect often."""
    _freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Let it also pass over what a file of tests leaves, such as the modules that it imported."""
    done = yield
    if nextitem is not None and nextitem.path != item.path:
        _freeze()
    return done


def _freeze() -> None:
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy has none
        gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat a test for each half."""
    if "core" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("implementation")
        halves = IMPLEMENTATIONS if chosen == "both" else (chosen,)
        if metafunc.definition.get_closest_marker("once"):
            halves = (hotpath.core.name,)
        folder = metafunc.definition.path.relative_to(Path(__file__).parent).parts[0]
        if len(halves) > 1 and folder in MOSTLY_PYTHON:
            others = (half for half in halves if half != hotpath.core.name)
            slow = [pytest.param(half, marks=pytest.mark.slow) for half in others]
            halves = (hotpath.core.name, *slow)
        metafunc.parametrize("core", halves, indirect=True)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """Run a redis-server for the tests of one module."""
    with RedisServer() as server:
        yield server


@pytest.fixture(autouse=True)
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> hotpath.Core:
    """Make one half the active one."""
    half = hotpath.load(request.param)
    monkeypatch.setattr(hotpath, "core", half)
    return half


@pytest.fixture(params=["sync", "async"])
def decorated(request: pytest.FixtureRequest) -> Callable[..., Callable[..., Any]]:
    """Decorate a function, as it is or as a coroutine function; what comes back is called alike."""
    return decorating(request.param)


@pytest.fixture(autouse=True)
def register_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `clear_cache` find no function of another test, whose server or directory may be gone."""
    functions = {name: weakref.WeakSet(members) for name, members in contexts._functions.items()}
    monkeypatch.setattr(contexts, "_functions", functions)
    monkeypatch.setattr(contexts, "_stored", weakref.WeakSet(contexts._stored))


@pytest.fixture(autouse=True)
def nothing_left_over(core: hotpath.Core) -> Iterator[None]:
    """Fail a test that leaves a thread, a child process or a changed clock behind."""
    before = set(threading.enumerate())
    yield
    sharer = sys.modules.get("multiprocessing.resource_sharer")
    if sharer is not None:
        sharer.stop()  # the thread is multiprocessing's, which hands descriptors on
    left = _settled(lambda: set(threading.enumerate()) - before)
    assert not left, f"threads left over: {left}"
    children = _settled(multiprocessing.active_children)
    assert not children, f"processes left over: {children}"
    assert not core.clock.frozen
    assert not core.clock.skipping


def _settled(look):  # type: ignore[no-untyped-def]
    """Look until nothing is found, for ten seconds at most: a busy machine takes its time.

    Most threads end by themselves a moment later. Garbage that keeps one alive is collected only
    where that is not enough, because each collection takes longer than most tests.
    """
    begun = time.monotonic()
    collect = begun + 0.2
    found = look()
    while found and time.monotonic() < begun + 10:
        time.sleep(0.002)
        found = look()
        if found and time.monotonic() > collect:
            gc.collect()
            collect += 1
    return found
