"""Maps while opero is switched off: the function once for each item, where the map is called."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from opero import FailedItem, opmap
from opero.testing import disabled

OPTIONS: dict[str, Any] = {
    "retries": 3,
    "retry_on_result": lambda result: result == "no such",
    "rate_limit": 0.001,
    "rate_limit_scope": "total",
    "cache": True,
    "timeout": 0.5,
    "progress": False,
}

SEEN: list[tuple[Any, int]] = []


@pytest.fixture(autouse=True)
def forget():
    """Begin each test with an empty record."""
    SEEN.clear()


def note(item: Any, suffix: str = "") -> str:
    """Note where an item runs; some items fail."""
    SEEN.append((item, threading.get_ident()))
    if item == "bad":
        raise ValueError(item)
    return f"{item}{suffix}"


async def anote(item: Any, suffix: str = "") -> str:
    """Do the same after a switch of tasks."""
    await asyncio.sleep(0)
    return note(item, suffix)


def lazily(items: list[Any]) -> Iterator[Any]:
    """Yield the items one by one, in the thread that reads them."""
    for item in items:
        SEEN.append(("read", threading.get_ident()))
        yield item


ITEMS = ["a", "a", "bad", "b"]
modes = pytest.mark.parametrize("mode", ["thread", "process", "async", "async_process"])


@modes
@pytest.mark.parametrize("lazy", [False, True])
def test_a_map_is_a_loop(core, mode, lazy):
    """Each item gets one attempt, in order, in this thread; failures are among the results."""
    mapped = opmap(mode=mode, workers=3, **OPTIONS)(anote if "async" in mode else note)
    with disabled():
        results = mapped(lazily(ITEMS) if lazy else ITEMS, suffix="!")
    assert results[:2] + results[3:] == ["a!", "a!", "b!"]
    assert type(results[2]) is ValueError
    assert results.failures == [FailedItem(2, "bad", results[2])]
    assert {thread for _, thread in SEEN} == {threading.get_ident()}
    assert [item for item, _ in SEEN if item != "read"] == ITEMS
    assert not any(mapped.stats())
    assert mapped.cache_info().currsize == 0


@modes
def test_streams_and_coroutines_are_loops_too(core, mode):
    """Results come as they are ready, in the caller's task."""
    mapped = opmap(mode=mode, workers=3, **OPTIONS)(anote if "async" in mode else note)

    async def items() -> AsyncIterator[Any]:
        for item in ITEMS:
            await asyncio.sleep(0)
            yield item

    async def main() -> list[Any]:
        streamed = [result async for result in mapped.astream(items())]
        return [*(await mapped.amap(ITEMS)), *streamed]

    with disabled():
        stream = mapped.stream(lazily(ITEMS))
        assert next(stream) == "a"
        assert [type(each) for each in stream] == [str, ValueError, str]
        results = asyncio.run(main())
    assert [type(each) for each in results] == [str, str, ValueError, str] * 2
    assert [item for item, _ in SEEN if item != "read"] == ITEMS * 3


class Shop:
    """A class with a mapped method."""

    @opmap(mode="thread", **OPTIONS)
    def price(self, item: str) -> tuple[Any, str]:
        """Return both."""
        return self, item


def test_methods_and_options_of_the_map_stay(core):
    """Instances, `unpack`, `with_items`, `on_error` and executors work as usual."""
    shop = Shop()
    rows = opmap(unpack=True, with_items=True, **OPTIONS)(note)
    strict = opmap(on_error="raise", executor=ThreadPoolExecutor(1), **OPTIONS)(note)
    with disabled():
        assert shop.price(["a"]) == Shop.price(shop, ["a"]) == [(shop, "a")]
        assert rows([("a", "?"), {"item": "b"}]) == [(("a", "?"), "a?"), ({"item": "b"}, "b")]
        with pytest.raises(ValueError, match="bad"):
            strict(["a", "bad", "never"])
    assert [item for item, _ in SEEN] == ["a", "b", "a", "bad"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_is_no_exception_ends_the_map(core, asynchronous):
    """It would end a loop, too."""

    def stop(item: int) -> int:
        if item:
            raise KeyboardInterrupt
        return item

    mapped = opmap(mode="thread", **OPTIONS)(stop)
    run = (lambda: asyncio.run(mapped.amap([0, 1]))) if asynchronous else (lambda: mapped([0, 1]))
    with disabled(), pytest.raises(KeyboardInterrupt):
        run()
