"""The tables of the comparison are true for what is installed: a small program answers each cell.

A cell that begins with "no" or "not" says that the tool does not do it; any other, that it does. Cells
without a program here were checked by hand.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from documents import table, text_of

from opero import opmap

pytestmark = [pytest.mark.once, pytest.mark.checkout]

PAGE = "docs/comparison.md"
Decorator = Callable[[Any], Any]
Make = Callable[[Any], Decorator]
"""Makes a decorator of the module of a tool."""

INTERRUPTS: dict[str, Make] = {
    "tenacity": lambda it: it.retry(
        retry=it.retry_if_exception(lambda _: True), stop=it.stop_after_attempt(2)
    ),
    "stamina": lambda it: it.retry(on=lambda _: True, attempts=2, wait_initial=0, wait_jitter=0),
    "nopanic": lambda it: it.retry(2, lambda _: True, it.backoff.fixed(0)),
    "pyresilience": lambda it: it.resilient(
        retry=it.RetryConfig(max_attempts=2, delay=0, retry_on=[BaseException])
    ),
    "opero": lambda it: it.opero(retries=2, min_delay=0, retry_on=lambda _: True),
}
RETRIES: dict[str, Make] = {
    **INTERRUPTS,
    "tenacity": lambda it: it.retry(stop=it.stop_after_attempt(2)),
    "pyresilience": lambda it: it.resilient(retry=it.RetryConfig(max_attempts=2, delay=0)),
}
TRIO: dict[str, Make] = {
    "tenacity": lambda it: it.retry(stop=it.stop_after_attempt(2), wait=it.wait_fixed(0.001)),
    "stamina": lambda it: it.retry(on=OSError, wait_initial=0.001, wait_jitter=0),
    "nopanic": lambda it: it.retry(2, backoff=it.backoff.fixed(0.001)),
    "pyresilience": lambda it: it.resilient(retry=it.RetryConfig(max_attempts=2, delay=0.001)),
    "opero": lambda it: it.opero(retries=2, min_delay=0.001),
}
RESULTS: dict[str, Make] = {
    "tenacity": lambda it: it.retry(
        retry=it.retry_if_result(lambda value: value is None), stop=it.stop_after_attempt(2)
    ),
    "nopanic": lambda it: it.retry(
        2, backoff=it.backoff.fixed(0), on_result=lambda value: value is None
    ),
    "pyresilience": lambda it: it.resilient(
        retry=it.RetryConfig(max_attempts=2, delay=0, retry_on_result=lambda value: value is None)
    ),
    "opero": lambda it: it.opero(
        retries=2, min_delay=0, retry_on_result=lambda value: value is None
    ),
}
LIMITS: dict[str, Make] = {
    "nopanic": lambda it: (
        lambda function: it.retry(3, backoff=it.backoff.fixed(0))(
            it.rate_limit(1, per=0.05)(function)
        )
    ),
    "pyresilience": lambda it: it.resilient(
        retry=it.RetryConfig(max_attempts=3, delay=0),
        rate_limiter=it.RateLimiterConfig(max_calls=1, period=0.05, max_wait=5),
    ),
    "opero": lambda it: it.opero(retries=3, min_delay=0, rate_limit=20),
}
CACHES: dict[str, Make] = {
    "lru_cache": lambda _: lru_cache,
    "cachetools": lambda it: it.cached(it.TTLCache(100, 60)),
    "joblib.Memory": lambda it: it.Memory(Path.home() / "joblib", verbose=0).cache,
    "nopanic": lambda it: it.cache(ttl=60),
    "pyresilience": lambda it: it.resilient(cache=it.CacheConfig(ttl=60)),
    "opero": lambda it: it.opero(cache=True),
}
SHARED: dict[str, Make] = {
    **CACHES,
    "cachetools": lambda it: it.cached(it.TTLCache(100, 60), condition=threading.Condition()),
}
METHODS: dict[str, Make] = {
    **{tool: make for tool, make in CACHES.items() if tool != "joblib.Memory"},
    "cachetools": lambda it: it.cachedmethod(lambda self: self.__dict__.setdefault("made", {})),
}
OWN_KEYS: dict[str, Make] = {
    "cachetools": lambda it: it.cached({}, key=lambda *_: 1),
    "nopanic": lambda it: it.cache(ttl=60, key=lambda *_: 1),
    "opero": lambda it: it.opero(cache=True, cache_key=lambda *_: "1"),
}
MAPS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "futures": lambda _, function, items: list(ThreadPoolExecutor(2).map(function, items)),
    "joblib": lambda it, function, items: it.Parallel(2, "threading")(
        it.delayed(function)(item) for item in items
    ),
    "pyarallel": lambda it, function, items: it.parallel_map(
        function, items, workers=2
    ).successes(),
    "opero": lambda _, function, items: opmap(mode="thread", workers=2, retries=1, progress=False)(
        function
    )(items),
}


def as_json(value: Any) -> str:
    """What the caches remember."""
    return json.dumps(value)


def slow(value: Any) -> Any:
    """What the threads ask for at the same time."""
    time.sleep(0.1)
    return value


class Counting:
    """A function that says how often it was called, for decorators that look at functions."""

    def __init__(self, act: Callable[..., Any]) -> None:
        self.calls = 0

        def function(*args: Any) -> Any:
            self.calls += 1
            return act(*args)

        self.function = function


def fails(error: BaseException) -> Counting:
    """A function that fails each time."""

    def act() -> None:
        raise error

    return Counting(act)


def called(decorate: Decorator, counting: Counting, *args: Any) -> None:
    """Call a decorated function, whatever comes of it."""
    try:
        decorate(counting.function)(*args)
    except BaseException:  # noqa: BLE001 - Ctrl-C and what the tools make of it
        return


def interrupt_goes_through(decorate: Decorator) -> bool:
    counting = fails(KeyboardInterrupt())
    called(decorate, counting)
    return counting.calls == 1


def result_is_a_failure(decorate: Decorator) -> bool:
    counting = Counting(lambda: None)
    called(decorate, counting)
    return counting.calls == 2


def trio_waits(decorate: Decorator) -> bool:
    trio = pytest.importorskip("trio")
    begun = []

    async def function() -> int:
        begun.append(1)
        if len(begun) == 1:
            raise ConnectionError
        return 1

    async def main() -> Any:
        return await decorate(function)()

    try:
        return bool(trio.run(main) == 1)
    except Exception:  # noqa: BLE001 - whatever the lack of an asyncio loop leads to
        return False


def generator_is_retried(decorate: Decorator) -> bool:
    begun = []

    def function() -> Iterator[int]:
        begun.append(1)
        if len(begun) == 1:
            raise ConnectionError
        yield 1

    try:
        return list(decorate(function)()) == [1]
    except ConnectionError:
        return False


def every_attempt_pays(decorate: Decorator) -> bool:
    counting = fails(ConnectionError())
    start = time.monotonic()
    called(decorate, counting)
    assert counting.calls == 3
    return time.monotonic() - start > 0.09


def one_and_true_differ(decorate: Decorator) -> bool:
    cached = decorate(lambda _, value: as_json(value))
    return (cached("a", 1), cached("a", True)) == ("1", "true")


def has_own_key(decorate: Decorator) -> bool:
    cached = decorate(as_json)
    return (cached("a"), cached("b")) == ('"a"', '"a"')


def takes_lists(decorate: Decorator) -> bool:
    try:
        return bool(decorate(as_json)([1]) == "[1]")
    except TypeError:
        return False


def threads_share(decorate: Decorator) -> bool:
    counting = Counting(slow)
    cached = decorate(counting.function)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(cached, [1] * 20))
    return counting.calls == 1


def tasks_share(decorate: Decorator) -> bool:
    calls = []

    async def function(value: int) -> int:
        calls.append(value)
        await asyncio.sleep(0)
        return value

    async def main() -> None:
        cached = decorate(function)
        await asyncio.gather(*(cached(1) for _ in range(20)), return_exceptions=True)
        await cached(1)

    try:
        asyncio.run(main())
    except RuntimeError:  # a coroutine that was awaited before
        return False
    return len(calls) == 1


def object_goes(decorate: Decorator) -> bool:
    class Report:
        @decorate
        def total(self) -> int:
            return 1

    report = Report()
    assert report.total() == 1
    seen = weakref.ref(report)
    del report
    gc.collect()
    return seen() is None


CHECKS: dict[tuple[str, str], tuple[dict[str, Make], Callable[[Decorator], bool]]] = {
    ("Calls", "a result can be a failure"): (RESULTS, result_is_a_failure),
    ("Calls", "never retries Ctrl-C"): (
        INTERRUPTS,
        interrupt_goes_through,
    ),
    ("Calls", "generator functions"): (RETRIES, generator_is_retried),
    ("Calls", "trio"): (TRIO, trio_waits),
    ("Calls", "each attempt takes a permit"): (LIMITS, every_attempt_pays),
    ("Caches", "tells `1` from `True`"): (CACHES, one_and_true_differ),
    ("Caches", "keys of your own"): (OWN_KEYS, has_own_key),
    ("Caches", "lists and dicts as arguments"): (CACHES, takes_lists),
    ("Caches", "threads share one run"): (SHARED, threads_share),
    ("Caches", "tasks share one run"): (CACHES, tasks_share),
    ("Caches", "methods let their objects go"): (METHODS, object_goes),
}


def head(heading: str) -> list[str]:
    """The tools in the head of a table, without their versions."""
    line = re.search(r"^\| (.*) \|$", text_of(PAGE).partition(f"\n## {heading}\n")[2], re.MULTILINE)
    assert line
    return [cell.strip().split(" ")[0] for cell in line[1].split("|")[1:]]


def cell(heading: str, row: str, tool: str) -> str:
    """What the page says of a tool."""
    [cells] = [cells for cells in table(PAGE, f"\n## {heading}\n") if cells[0] == row]
    return cells[1 + head(heading).index(tool)]


def module(tool: str) -> Any:
    """The module of a tool; those that the `test` extra does not bring may be missing."""
    name = {"lru_cache": "functools", "futures": "concurrent.futures"}.get(tool, tool)
    return importlib.import_module(name.partition(".Memory")[0])


def there(tool: str) -> bool:
    """Whether a tool is installed."""
    return tool in {"lru_cache", "futures"} or find_spec(tool.partition(".")[0]) is not None


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the caches on disk a home of their own."""
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("heading", "row", "tool"),
    [
        (heading, row, tool)
        for (heading, row), (makes, _) in CHECKS.items()
        for tool in makes
        if there(tool)
    ],
)
def test_a_cell_says_what_the_tool_does(heading: str, row: str, tool: str) -> None:
    """Found out by a call of a function that is decorated as the tool's documentation shows."""
    makes, check = CHECKS[heading, row]
    found = check(makes[tool](module(tool)))
    said = cell(heading, row, tool)
    assert found == (not re.match(r"not?\b", said)), f"{PAGE}: {row}: {tool}: {said!r}"


@pytest.mark.parametrize("tool", [tool for tool in MAPS if there(tool)])
def test_what_an_item_that_raises_costs(tool: str) -> None:
    """Itself, or the whole map."""

    def invert(item: int) -> float:
        return 1 / item

    try:
        MAPS[tool](module(tool), invert, [2, 0, 1])
        cost = "itself"
    except ZeroDivisionError:
        cost = "the map"
    assert cell("Maps", "an item that raises costs", tool) == cost


def test_every_tool_has_its_row() -> None:
    """What stands in the head of a table is also in the first one, with a reason to take it."""
    rows = {row[0] for row in table(PAGE, "\n## When to use which\n")}
    named = {re.sub(r"[`\[\]]|\(.*\)", "", row).split(" ")[-1] for row in rows}
    tools = {tool.partition(".")[0] for each in ("Calls", "Caches", "Maps") for tool in head(each)}
    assert tools - {"opero", "futures"} <= named
