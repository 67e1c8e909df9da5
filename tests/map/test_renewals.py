"""`cache_refresh` and `cache_stale` in maps: served at once, renewed by the map's own workers."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from typing import Any

import pytest

from opero import Breaker, MapResult, get_logger, opmap, subscribe
from opero.testing import manual_clock

VERSION = [1]
DOWN: list[int] = []
RUNS: list[Any] = []
DURING: list[Callable[[], object]] = []
"""What happens in the next run, before it ends."""


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    """Begin each test with the first version of all values."""
    VERSION[0] = 1
    DOWN.clear()
    RUNS.clear()
    DURING.clear()
    monkeypatch.setattr(get_logger(), "disabled", True)


def look(item: int) -> tuple[int, int]:
    """Return an item and the version of its value."""
    RUNS.append(item)
    while DURING:
        DURING.pop()()
    if item in DOWN:
        raise OSError(item)
    return item, VERSION[0]


async def alook(item: int) -> tuple[int, int]:
    """Do the same in a coroutine."""
    await asyncio.sleep(0)
    return look(item)


@pytest.fixture(params=["memory", "disk"])
def cached(request, tmp_path):
    """Make maps that keep their values in memory, or on disk."""

    def make(mode: str = "thread", **options: Any) -> Any:
        if request.param == "disk":
            options = {"cache_backend": "disk", "cache_dir": tmp_path, **options}
        given: dict[str, Any] = {"workers": 2, "retries": 1, "progress": False, "cache": True}
        return opmap(mode=mode, **{**given, **options})(alook if mode == "async" else look)

    make.stored = request.param != "memory"
    return make


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_a_value_near_its_end_is_served_and_renewed_by_the_map(core, cached, mode):
    """The items get the present values, and the next map gets the new ones."""
    mapped = cached(mode, cache_ttl=300, cache_refresh=60)
    told: list[Any] = []
    end = subscribe(told.append, "refresh")
    try:
        with manual_clock() as clock:
            assert mapped([1, 2, 3]) == [(1, 1), (2, 1), (3, 1)]
            VERSION[0] = 2
            clock.advance(200)
            assert mapped([1, 2, 3]) == [(1, 1), (2, 1), (3, 1)]
            assert len(RUNS) == 3
            clock.advance(50)
            assert mapped([1, 2, 2, 3]) == [(1, 1), (2, 1), (2, 1), (3, 1)]
            assert sorted(RUNS) == [1, 1, 2, 2, 3, 3]
            assert mapped([1, 2, 3]) == [(1, 2), (2, 2), (3, 2)]
            clock.advance(200)
            assert mapped([1, 2, 3]) == [(1, 2), (2, 2), (3, 2)]
    finally:
        end()
    assert len(RUNS) == 6
    assert mapped.stats().refreshes == 3
    assert [event.error for event in told] == [None] * 3
    assert mapped.stats().hits == 3 + 4 + 3 + 3


def test_streams_hand_values_on_before_they_are_renewed(core, cached):
    """A renewal runs when the map has nothing else to do."""
    going = threading.Event()
    mapped = cached("thread", cache_ttl=300, cache_refresh=60)
    with manual_clock() as clock:
        mapped([1])
        clock.advance(250)

        def slow(item: int) -> tuple[int, int]:
            assert going.wait(20)
            return look(item)

        mapped.__opero__.func = slow
        stream = mapped.stream([1])
        assert next(stream) == (1, 1)
        going.set()
        assert list(stream) == []
    assert mapped.stats().refreshes == 1


def test_a_renewal_that_fails_changes_nothing_but_is_told(core, cached):
    """Its item has its value; hits ask again only after a while."""
    mapped = cached(cache_ttl=300, cache_refresh=60)
    told: list[Any] = []
    end = subscribe(told.append, "refresh")
    try:
        with manual_clock() as clock:
            mapped([1])
            DOWN.append(1)
            clock.advance(245)
            results = mapped([1])
            assert results == [(1, 1)]
            assert isinstance(results, MapResult)
            assert results.failures == []
            assert mapped([1]) == [(1, 1)]
            assert len(RUNS) == 2
            clock.advance(10)
            assert mapped([1]) == [(1, 1)]
            assert len(RUNS) == 3
    finally:
        end()
    assert [type(event.error) for event in told] == [OSError] * 2


def test_what_is_forgotten_meanwhile_is_not_stored_again(core, cached):
    """That holds for one key and for all of them."""
    mapped = cached(cache_ttl=300, cache_refresh=60)
    with manual_clock() as clock:
        mapped([1, 2])
        clock.advance(250)
        forgotten: list[Any] = []

        def forget(item: int) -> tuple[int, int]:
            forgotten.append(mapped.cache_invalidate(item))
            return look(item)

        mapped.__opero__.func = forget
        assert mapped([1, 2]) == [(1, 1), (2, 1)]
        assert forgotten == [True, True]
        VERSION[0] = 5
        assert mapped([1, 2]) == [(1, 5), (2, 5)]


def test_the_end_of_a_stream_drops_what_was_to_be_renewed(core, cached):
    """The next hit asks again."""
    mapped = cached(cache_ttl=300, cache_refresh=60)
    with manual_clock() as clock:
        mapped([1, 2, 3])
        clock.advance(250)
        DOWN[:] = [1, 2, 3]
        stream = mapped.stream([1, 2, 3])
        next(stream)
        stream.close()
        DOWN.clear()
        VERSION[0] = 2
        clock.advance(7)
        mapped([1, 2, 3])
        assert mapped([1, 2, 3]) == [(1, 2), (2, 2), (3, 2)]


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_outdated_values_are_served_for_items_that_fail(core, cached, mode):
    """They are served for as long as `cache_stale` allows, and count as misses."""
    mapped = cached(mode, cache_ttl=60, cache_stale=600)
    with manual_clock() as clock:
        mapped([1, 2])
        clock.advance(120)
        DOWN.append(1)
        VERSION[0] = 2
        results = mapped([1, 1, 2])
        assert results == [(1, 1), (1, 1), (2, 2)]
        assert results.failures == []
        assert mapped.stats().stale in {1, 2}  # equal items may come one after the other
        clock.advance(1000)
        assert isinstance(mapped([1])[0], OSError)


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_an_outdated_value_that_was_forgotten_is_not_served_for_an_item_that_fails(
    core, cached, mode
):
    """The item was looked up before; the other items get their values."""
    mapped = cached(mode, cache_ttl=60, cache_stale=600, workers=1)
    other = cached(mode, cache_ttl=60, cache_stale=600)
    with manual_clock() as clock:
        for forget in (mapped, other if cached.stored else mapped):
            mapped([1, 2, 3])
            clock.advance(120)
            DOWN[:] = [1, 2, 3]
            DURING.append(lambda forget=forget: forget.cache_invalidate(2))
            results = mapped([1, 1, 2, 2, 3])
            assert [*results[:2], results[4]] == [(1, 1), (1, 1), (3, 1)]
            assert [failure.index for failure in results.failures] == [2, 3]
            DOWN.clear()


@pytest.mark.parametrize("cached", ["disk"], indirect=True)
@pytest.mark.parametrize("mode", ["thread", "async"])
def test_outdated_values_are_served_for_items_that_fail_while_the_store_is_gone(
    core, cached, mode, tmp_path
):
    """It is unknown whether they were forgotten."""
    mapped = cached(mode, cache_ttl=60, cache_stale=600, cache_dir=tmp_path / "gone")

    def fail() -> None:
        shutil.rmtree(tmp_path / "gone")
        (tmp_path / "gone").write_bytes(b"in its way")

    with manual_clock() as clock:
        mapped([1, 2])
        clock.advance(120)
        DOWN[:] = [1, 2]
        DURING.append(fail)
        assert mapped([1, 2])[0] == (1, 1)


@pytest.mark.parametrize("mode", ["thread", "async"])
@pytest.mark.parametrize("options", [{}, {"arg_fallback": {"item": [7]}}], ids=["one", "values"])
def test_an_open_breaker_is_not_waited_for_where_an_outdated_value_stands_ready(
    core, cached, mode, options
):
    """Items without one wait for the probe."""
    breaker = Breaker(open_for=1000.0)
    mapped = cached(mode, cache_ttl=60, cache_stale=6000, breaker=breaker, ordered=False, **options)
    with manual_clock() as clock:
        mapped([1, 2])
        clock.advance(120)
    breaker.trip()
    stream = mapped.stream([3, 1, 2])
    assert sorted([next(stream), next(stream)]) == [(1, 1), (2, 1)]
    assert sorted(RUNS) == [1, 2]
    breaker.reset()
    assert list(stream) == [(3, 1)]


def test_a_renewal_does_not_wait_for_a_breaker(core, cached):
    """It fails, because its item already has a value."""
    breaker = Breaker(open_for=1000.0)
    mapped = cached(cache_ttl=300, cache_refresh=60, breaker=breaker)
    with manual_clock() as clock:
        mapped([1])
        clock.advance(250)
        breaker.trip()
        assert mapped([1]) == [(1, 1)]
        assert len(RUNS) == 1
