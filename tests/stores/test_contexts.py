"""Caches by namespace: clearing them together, and using one by hand."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import weakref
from typing import Any

import pytest

from opero import CacheKeyError, clear_cache, get_cache_context, get_cache_decorator, hotpath, opero
from opero.testing import manual_clock


@pytest.fixture(autouse=True)
def fresh_namespaces(core: hotpath.Core) -> Any:
    """Leave no value behind for the next test."""
    clear_cache()
    yield
    clear_cache()


def counted(namespace: str) -> Any:
    """Make a cached function that returns how often it has run."""
    runs: list[int] = []

    @get_cache_decorator(cache_namespace=namespace)
    def function(x: int) -> int:
        runs.append(x)
        return len(runs)

    return function


# --- clearing a namespace -------------------------------------------------------------------------


def test_clear_cache_forgets_the_values_of_every_function_of_a_namespace(
    core: hotpath.Core,
) -> None:
    """And of no other."""
    one, other, elsewhere = counted("mine"), counted("mine"), counted("yours")
    for function in (one, other, elsewhere):
        assert [function(1), function(1)] == [1, 1]
    clear_cache("mine")
    assert [one(1), other(1), elsewhere(1)] == [2, 2, 1]


def test_clear_cache_without_a_name_forgets_everything(core: hotpath.Core) -> None:
    """In every namespace."""
    one, other = counted("mine"), counted("yours")
    assert [one(1), other(1)] == [1, 1]
    clear_cache()
    assert [one(1), other(1)] == [2, 2]


def test_opero_is_the_namespace_of_whoever_names_none(core: hotpath.Core) -> None:
    """Functions and caches by hand alike."""
    runs: list[int] = []
    function = opero(cache=True)(runs.append)
    function(1)
    get_cache_context().set("key", 1)
    clear_cache("opero")
    function(1)
    assert runs == [1, 1]
    assert "key" not in get_cache_context()


def test_a_namespace_that_nobody_uses_can_be_cleared(core: hotpath.Core) -> None:
    """There is nothing in it."""
    clear_cache("nobody uses this one")


def test_clear_cache_reaches_methods_and_coroutine_functions(core: hotpath.Core) -> None:
    """The values of every living instance, and those of awaited functions."""

    class Thing:
        runs = 0

        @opero(cache=True, cache_namespace="methods")
        def method(self) -> int:
            self.runs += 1
            return self.runs

        @opero(cache=True, cache_namespace="methods")
        async def awaited(self) -> int:
            self.runs += 1
            return self.runs

    one, other = Thing(), Thing()
    assert [one.method(), other.method(), asyncio.run(one.awaited())] == [1, 1, 2]
    clear_cache("methods")
    assert [one.method(), other.method(), asyncio.run(one.awaited())] == [3, 2, 4]


def test_clear_cache_while_a_function_runs_keeps_its_value_out(core: hotpath.Core) -> None:
    """What was computed from the old state is not stored after the clearing."""
    runs: list[int] = []

    @opero(cache=True, cache_namespace="running")
    def function(x: int) -> int:
        runs.append(x)
        if len(runs) == 1:
            clear_cache("running")
        return len(runs)

    assert [function(1), function(1), function(1)] == [1, 2, 2]


def test_a_namespace_keeps_no_function_alive(core: hotpath.Core) -> None:
    """A function that is gone is gone, its values with it."""
    function = counted("mine")
    function(1)
    ref = weakref.ref(function)
    del function
    gc.collect()
    assert ref() is None
    clear_cache("mine")


def test_threads_may_clear_and_call_at_the_same_time(core: hotpath.Core) -> None:
    """Nobody gets a wrong value, and nobody an error."""
    function = get_cache_decorator(cache_namespace="threads")(lambda x: x * 7)
    troubles: list[Any] = []

    def work(number: int) -> None:
        try:
            for step in range(300):
                if number == 0:
                    clear_cache("threads")
                    counted("threads")
                elif function(step % 5) != step % 5 * 7:
                    troubles.append(step)
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            troubles.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []


# --- a cache by hand ------------------------------------------------------------------------------


def test_a_cache_can_be_used_by_hand(core: hotpath.Core) -> None:
    """Set, get, ask, count and delete."""
    cache = get_cache_context("memory", "by hand")
    assert (cache.get("key"), "key" in cache, len(cache)) == (None, False, 0)
    cache.set("key", "value")
    assert (cache.get("key"), "key" in cache, len(cache)) == ("value", True, 1)
    assert [cache.delete("key"), cache.delete("key")] == [True, False]
    assert cache.get("key", "default") == "default"


def test_none_can_be_told_from_nothing(core: hotpath.Core) -> None:
    """It is a value like any other."""
    cache = get_cache_context(cache_namespace="none")
    cache.set("key", None)
    assert cache.get("key", "default") is None
    assert "key" in cache


def test_a_cache_by_hand_is_a_context_manager(core: hotpath.Core) -> None:
    """Leaving it lets errors through, and closes nothing in memory."""
    with get_cache_context(cache_namespace="with") as cache:
        cache.set("key", 1)
    with pytest.raises(ZeroDivisionError), get_cache_context(cache_namespace="with") as cache:
        cache.set("other", 1 / 0)
    assert cache.get("key") == 1


def test_opening_a_namespace_again_gives_the_same_values(core: hotpath.Core) -> None:
    """It is the same store."""
    get_cache_context(cache_namespace="again").set("key", 1)
    assert get_cache_context(cache_namespace="again").get("key") == 1
    assert get_cache_context(cache_namespace="another").get("key") is None


def test_keys_by_hand_are_told_apart_as_arguments_are(core: hotpath.Core) -> None:
    """By type and value at every depth, and they need no hash."""
    cache = get_cache_context(cache_namespace="keys")
    keys: list[Any] = [1, 1.0, True, "1", b"1", [1], (1,), {1}, {1: 0}, {"1": 0}, None, 0.0, -0.0]
    for number, key in enumerate(keys):
        cache.set(key, number)
    assert [cache.get(key) for key in keys] == list(range(len(keys)))
    assert cache.get({"1": 0.0}) is None


def test_a_key_that_cannot_be_told_apart_is_an_error(core: hotpath.Core) -> None:
    """By hand as in a call."""
    loop: list[Any] = []
    loop.append(loop)
    cache = get_cache_context(cache_namespace="keys")
    for use in (cache.get, cache.delete, lambda key: cache.set(key, 1), cache.__contains__):
        with pytest.raises(CacheKeyError):
            use(loop)


def test_values_by_hand_expire(core: hotpath.Core) -> None:
    """`cache_ttl` says when."""
    cache = get_cache_context(cache_namespace="expiring", cache_ttl=10)
    with manual_clock() as clock:
        cache.set("key", 1)
        clock.advance(9)
        assert "key" in cache
        clock.advance(1)
        assert "key" not in cache


def test_a_cache_by_hand_is_bounded(core: hotpath.Core) -> None:
    """`cache_maxsize` says how."""
    cache = get_cache_context(cache_namespace="bounded", cache_maxsize=3)
    for key in range(10):
        cache.set(key, key)
    assert len(cache) == 3


def test_clearing_a_cache_by_hand_clears_its_namespace(core: hotpath.Core) -> None:
    """Functions included, as `clear_cache` does."""
    function = counted("whole")
    function(1)
    cache = get_cache_context(cache_namespace="whole")
    cache.set("key", 1)
    cache.clear()
    assert (len(cache), function(1)) == (0, 2)


def test_values_by_hand_and_those_of_functions_do_not_mix(core: hotpath.Core) -> None:
    """Each function has a store of its own, so that no key of one is a key of another."""
    function = counted("mixed")
    cache = get_cache_context(cache_namespace="mixed")
    cache.set(1, "by hand")
    assert function(1) == 1
    assert cache.get(1) == "by hand"
    assert cache.namespace == "mixed"


def test_a_namespace_that_is_open_keeps_its_options(core: hotpath.Core) -> None:
    """Asking for others is a contradiction that is told; asking for none is not."""
    get_cache_context(cache_namespace="options", cache_ttl=5, cache_maxsize=7)
    get_cache_context(cache_namespace="options")
    get_cache_context(cache_namespace="options", cache_ttl=5, cache_maxsize=7)
    with pytest.raises(
        ValueError,
        match=re.escape(
            "'options' is already open with other options; use the same: cache_maxsize=7"
        ),
    ):
        get_cache_context(cache_namespace="options", cache_ttl=6, cache_maxsize=7)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"cache_ttl": -1}, ValueError, "cache_ttl=-1 is not allowed"),
        ({"cache_ttl": "1"}, TypeError, "cache_ttl='1' is not allowed"),
        ({"cache_maxsize": 0}, ValueError, "cache_maxsize=0 is not allowed"),
        ({"cache_namespace": ""}, ValueError, "cache_namespace='' is not allowed"),
        ({"cache_namespace": 5}, TypeError, "cache_namespace=5 is not allowed"),
        ({"cache_backend": "file"}, ValueError, "cache_backend='file' is not allowed"),
    ],
)
@pytest.mark.once
def test_a_wrong_option_is_refused(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    """By the same checks as at decoration."""
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        get_cache_context(**options)
