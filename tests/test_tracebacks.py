"""What a user sees of opero: two frames of a traceback at most, and no names but their own."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import subprocess
import sys
import traceback
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import opero as package
from opero import AllFailedError, CacheKeyError, OperoError, RateLimiter, hotpath, opero

PACKAGE = str(Path(package.__file__).parent)

OPTIONS: dict[str, dict[str, Any]] = {
    "one attempt": {"retries": 1},
    "retried": {"retries": 2, "min_delay": 0},
    "not matched": {"retries": 3, "retry_on": KeyError},
    "raised again": {"retries": 2, "min_delay": 0, "reraise": True},
    "cached": {"retries": 1, "cache": True},
    "cached and retried": {"retries": 2, "min_delay": 0, "cache": True},
    "fallback": {"retries": 1, "arg_fallback": {"x": ["b"]}},
    "limited": {"retries": 1, "rate_limit": 1e6, "burst": 10},
    "limited and retried": {"retries": 2, "min_delay": 0, "rate_limit": 1e6, "burst": 10},
    "deadline": {"retries": 3, "timeout": 1, "min_delay": 5, "jitter": False},
    "time left": {"retries": 1, "timeout": 5},
    "cached, time left": {"retries": 1, "timeout": 5, "cache": True},
    "result": {"retries": 2, "min_delay": 0, "retry_on_result": bool},
    "stored": {"retries": 1, "cache": True, "cache_backend": "disk"},
    "stored and retried": {"retries": 2, "min_delay": 0, "cache": True, "cache_backend": "disk"},
}


def fails(x: str) -> str:
    """Raise, for most inputs."""
    if x == "result":
        return x
    raise ValueError(x)


async def fails_awaited(x: str) -> str:
    """Do the same in a coroutine, and not at once."""
    await asyncio.sleep(0)
    return fails(x)


def ours(error: BaseException) -> list[str]:
    """Return the frames of opero in a traceback."""
    return [
        frame.name
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(PACKAGE) or frame.filename.startswith("src/opero")
    ]


def chain(error: BaseException | None) -> list[BaseException]:
    """Return an exception and what it comes from."""
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


@pytest.fixture
def caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call a decorated function that fails, and return what it raises."""
    monkeypatch.setenv("OPERO_CACHE_SECRET", "a-secret-of-a-test-of-tracebacks")

    def caught(name: str, function: Any, x: Any) -> BaseException:
        options = dict(OPTIONS[name])
        if "cache_backend" in options:
            options["cache_dir"] = str(tmp_path / "cache")
        decorated: Any = opero(**options)(function)
        try:
            made = decorated(x)
            if asyncio.iscoroutine(made):
                asyncio.run(made)
        except Exception as error:  # noqa: BLE001 - whatever it is
            return error
        raise AssertionError("it did not fail")

    return caught


@pytest.mark.parametrize("function", [fails, fails_awaited])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_failed_call_shows_two_frames_of_opero_at_most(
    core: hotpath.Core, caught: Any, name: str, function: Any
) -> None:
    """Whichever error it is; and each of those that it comes from, as they are printed too."""
    error = caught(name, function, "result" if name == "result" else "x")
    for each in chain(error):
        assert len(ours(each)) <= 2, (each, ours(each))
    shown = traceback.extract_tb(chain(error)[-1].__traceback__)
    if name != "result":
        assert shown[-1].name == "fails"


def test_methods_show_no_more(core: hotpath.Core) -> None:
    class Shop:
        @opero(retries=1, cache=True)
        def price(self, item: str) -> str:
            return fails(item)

        @opero(retries=2, min_delay=0)
        def order(self, item: str) -> str:
            return fails(item)

    for method in (Shop().price, Shop().order):
        with pytest.raises((ValueError, AllFailedError)) as failed:
            method("x")
        assert all(len(ours(each)) <= 2 for each in chain(failed.value))


@pytest.mark.parametrize("options", [{}, {"cache_key": lambda x: x}])
def test_keys_that_cannot_be_made_show_no_more(core: hotpath.Core, options: Any) -> None:
    function = opero(cache=True, **options)(fails)
    with pytest.raises(CacheKeyError) as failed:
        function(object.__new__(type("Odd", (), {"__hash__": None, "__slots__": ("a",)})))
    assert len(ours(failed.value)) <= 2


@pytest.mark.parametrize("name", ["one attempt", "retried", "cached", "time left"])
def test_what_arose_in_c_shows_where_it_was_called(
    core: hotpath.Core, caught: Any, name: str
) -> None:
    """There is no frame of the function then: of the way to it one is left."""
    error = chain(caught(name, math.sqrt, -1))[-1]
    assert isinstance(error, ValueError)
    assert 0 <= len(ours(error)) <= 2


# --- names ----------------------------------------------------------------------------------------


async def lookup(x: int) -> int:
    """Take some time."""
    await asyncio.sleep(0.05)
    return x


NAMED = {
    "retries": {"retries": 2},
    "cache": {"cache": True},
    "stored": {"cache": True, "cache_backend": "disk"},
    "timeout": {"timeout": 5},
    "limit": {"rate_limit": 100},
    "fallback": {"arg_fallback": {"x": [2]}},
}


def named(name: str, tmp_path: Path) -> Any:
    """Decorate `lookup`."""
    options: Any = dict(NAMED[name])
    if "cache_backend" in options:
        options["cache_dir"] = str(tmp_path / "cache")
    return opero(**options)(lookup)


@pytest.mark.parametrize("name", NAMED)
def test_a_coroutine_that_was_never_awaited_bears_the_name_of_the_function(
    core: hotpath.Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("OPERO_CACHE_SECRET", "a-secret-of-a-test-of-names-of-tasks")
    function = named(name, tmp_path)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        coroutine = function(1)
        assert (coroutine.__name__, coroutine.__qualname__) == ("lookup", "lookup")
        del coroutine
        gc.collect()
    assert "coroutine 'lookup' was never awaited" in [str(each.message) for each in seen]


def test_so_does_that_of_a_hit(core: hotpath.Core) -> None:
    class Shop:
        @opero(cache=True, retries=1)
        async def price(self) -> int:
            return 1

    async def main() -> None:
        shop = Shop()
        await shop.price()
        coroutine: Any = shop.price()
        assert coroutine.__name__ == "price"
        assert (
            coroutine.__qualname__ == f"{test_so_does_that_of_a_hit.__name__}.<locals>.Shop.price"
        )
        assert await coroutine == 1

    asyncio.run(main())


@pytest.mark.parametrize("name", NAMED)
def test_all_tasks_of_a_call_bear_the_name_of_the_function(
    core: hotpath.Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("OPERO_CACHE_SECRET", "a-secret-of-a-test-of-names-of-tasks")
    function = named(name, tmp_path)

    async def main() -> None:
        task = asyncio.ensure_future(function(1))
        await asyncio.sleep(0.02)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        coroutines: list[Any] = [each.get_coro() for each in others]
        assert {each.__qualname__ for each in coroutines} == {"lookup"}
        assert await task == 1

    asyncio.run(main())


# --- trio and greenlets -----------------------------------------------------------------------------


async def refused(_: int = 0) -> None:
    """Fail."""
    raise ConnectionError("the real reason")


def test_trio_gets_an_error_that_says_so_and_why_a_loop_was_needed(core: hotpath.Core) -> None:
    trio = pytest.importorskip("trio")
    function = opero(retries=2, min_delay=0.01)(refused)
    with pytest.raises(OperoError, match="opero waits with asyncio, but trio runs") as failed:
        trio.run(function)
    assert isinstance(failed.value.__cause__, ConnectionError)
    with pytest.raises(ConnectionError):
        trio.run(opero(retries=1)(refused))


@pytest.mark.parametrize("name", ["cache", "stored", "timeout"])
def test_trio_gets_it_before_anything_is_run(
    core: hotpath.Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trio = pytest.importorskip("trio")
    monkeypatch.setenv("OPERO_CACHE_SECRET", "a-secret-of-a-test-of-trio-and-caches")
    function = named(name, tmp_path)
    with pytest.raises(OperoError, match="trio"):
        trio.run(function, 1)
    assert function.stats().attempts == 0


def test_trio_may_take_a_permit_that_is_free(core: hotpath.Core) -> None:
    trio = pytest.importorskip("trio")
    limiter = RateLimiter(0.01)

    async def main() -> None:
        await limiter.acquire()
        with pytest.raises(OperoError, match="trio"):
            await limiter.acquire()

    trio.run(main)


KILLED = """
from gevent import monkey; monkey.patch_all()
import gc, sys
import gevent
from opero import hotpath, opero

hotpath.core = hotpath.load(sys.argv[1])

for options in ({}, {"cache": True}, {"rate_limit": 1e6, "burst": 99}, {"arg_fallback": {"x": [1]}}):
    for _ in range(20):
        @opero(retries=3, min_delay=0, **options)
        def slow(x, *, y=2):
            gevent.sleep(20)
        for thrown in (gevent.GreenletExit(), gevent.Timeout()):
            job = gevent.spawn(slow, 12345678 + _, y=object())
            gevent.sleep(0)
            job.kill(thrown)
        del job, slow
        gc.collect()
        kept = [tuple(range(n)) for n in range(20) for _ in range(50)]
print("ok")
"""


@pytest.mark.slow
def test_a_greenlet_that_is_killed_leaves_the_memory_as_it_should_be(
    core: hotpath.Core, tmp_path: Path
) -> None:
    """Gevent lets go of the arguments of a greenlet while the function still has them."""
    if find_spec("gevent") is None:  # it is not imported here: it changes what a call holds
        pytest.skip("gevent is not installed")
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    done = subprocess.run(
        [sys.executable, script, core.name],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "OPERO_PURE_PYTHON": ""},
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr[-2000:]
