"""What every backend does alike: bytes under names that expire, and leases that one at a time holds."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from opero.stores import backends
from opero.stores.disk import DiskBackend
from opero.stores.redis import AsyncRedisBackend, RedisBackend

pytestmark = pytest.mark.once

NAME = "app:module:function:" + "0" * 32
OTHER = "app:module:function:" + "1" * 32


class Driven:
    """Calls the coroutines of an asynchronous backend in a loop of its own, one after the other."""

    def __init__(self, loop, backend):
        self._loop = loop
        self._backend = backend

    def __getattr__(self, name):
        method = getattr(self._backend, name)
        return lambda *arguments: self._loop.run_until_complete(method(*arguments))


@pytest.fixture(
    params=[
        "disk",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("async redis", marks=pytest.mark.redis),
        "disk in threads",
    ]
)
def backend(request, tmp_path):
    """Each kind of backend, empty."""
    kind = request.param
    if "redis" in kind:
        server = request.getfixturevalue("redis_server")
        server.command("FLUSHALL")
        made = AsyncRedisBackend(server.url) if kind == "async redis" else RedisBackend(server.url)
    else:
        made = DiskBackend(tmp_path / "cache", None, 5.0)
    if kind in {"disk", "redis"}:
        yield made
        made.close()
        return
    if kind == "disk in threads":
        made = backends.InThreads(made)
    loop = asyncio.new_event_loop()
    try:
        driven = Driven(loop, made)
        yield driven
        driven.close()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


# --- entries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\x00\r\n$-1\r\n", bytes(range(256)) * 2000])
def test_what_was_put_comes_back_byte_for_byte(backend, data):
    assert backend.get(NAME) is None
    backend.put(NAME, data, None)
    assert backend.get(NAME) == data
    assert backend.get(OTHER) is None


def test_a_later_put_replaces_an_earlier_one_and_its_time(backend):
    backend.put(NAME, b"short", 0.05)
    backend.put(NAME, b"long", None)
    time.sleep(0.08)
    assert backend.get(NAME) == b"long"
    backend.put(NAME, b"short", 0.05)
    time.sleep(0.08)
    assert backend.get(NAME) is None


def test_an_entry_expires_everywhere_at_once(backend):
    backend.put(NAME, b"1", 0.3)
    backend.put_many([(OTHER, b"2")], 0.3)
    assert backend.get_many([NAME, OTHER]) == [b"1", b"2"]
    time.sleep(0.35)
    assert backend.get(NAME) is None
    assert backend.get_many([NAME, OTHER]) == [None, None]
    assert backend.count("app:") == 0
    assert backend.delete(NAME) is False
    assert backend.get_and_take(NAME, "me", 10) == (None, None)


@pytest.mark.parametrize("ttl", [0.0001, 1e9, 1e30, float("inf")])
def test_any_time_to_live_is_taken(backend, ttl):
    backend.put(NAME, b"1", ttl)
    backend.put_many([(OTHER, b"1")], ttl)
    if ttl > 1:
        assert backend.get_many([NAME, OTHER]) == [b"1", b"1"]
        backend.take(NAME, "me", 10)
        assert backend.settle(NAME, "me", b"2", ttl)
        assert backend.get(NAME) == b"2"


def test_many_entries_come_back_in_the_order_asked_for(backend):
    entries = [(f"many:{number:032x}", b"%d" % number) for number in range(2300)]
    backend.put_many(entries, 60)
    names = [name for name, _ in reversed(entries)]
    names[7:7] = ["many:none", names[7]]
    wanted = [data for _, data in reversed(entries)]
    wanted[7:7] = [None, wanted[7]]
    assert backend.get_many(names) == wanted
    assert backend.count("many:") == 2300
    assert backend.clear("many:") == 2300
    assert backend.count("") == 0
    backend.put_many([], None)
    assert backend.get_many([]) == []


def test_entries_of_any_size_are_put_in_batches(backend):
    entries = [(f"large:{number:032x}", bytes([number]) * 700_000) for number in range(9)]
    backend.put_many(entries, None)
    assert backend.get_many([name for name, _ in entries]) == [data for _, data in entries]


def test_delete_tells_whether_there_was_an_entry(backend):
    backend.put(NAME, b"1", None)
    assert backend.delete(NAME) is True
    assert backend.delete(NAME) is False
    assert backend.get(NAME) is None


def test_clear_removes_what_begins_with_the_prefix_and_nothing_else(backend):
    strange = ["a*", "a?", "a[b]", "a\\", "a^", "a%", "a_", "a'\"", "a[^b]", "a-z", "~"]
    plain = ["a", "a.", "ab", "aXb", "aa", "a[", "b", "A.", "z", "A"]
    for space in [*strange, *plain]:
        names = [f"{each}:{number:032x}" for each in [*strange, *plain] for number in range(2)]
        backend.put_many([(name, b"1") for name in names], None)
        assert backend.count(f"{space}:") == 2
        assert backend.clear(f"{space}:") == 2
        assert backend.get_many(names).count(None) == 2
        assert backend.count(f"{space}:") == 0


def test_only_entries_are_counted(backend):
    backend.put(NAME, b"1", None)
    backend.take(NAME, "me", 10)
    backend.take(OTHER, "me", 10)
    assert backend.count("app:") == 1
    assert backend.clear("app:") == 1
    assert backend.take(OTHER, "you", 10) is None


# --- leases -------------------------------------------------------------------------------------


def test_a_lease_is_held_by_one_until_it_is_given_back(backend):
    assert backend.take(NAME, "me", 10) is None
    mark = backend.take(NAME, "you", 10)
    assert isinstance(mark, str)
    assert backend.take(NAME, "she", 10) == mark
    assert backend.take(OTHER, "you", 10) is None
    backend.release(NAME, "you")
    assert backend.take(NAME, "you", 10) == mark
    backend.release(NAME, "me")
    assert backend.take(NAME, "you", 10) is None


def test_a_lease_expires_with_its_holder(backend):
    backend.take(NAME, "me", 0.05)
    time.sleep(0.08)
    assert not backend.renew(NAME, "me", 10)
    assert not backend.settle(NAME, "me", b"late", None)
    assert backend.take(NAME, "you", 10) is None
    assert not backend.renew(NAME, "me", 10)
    backend.release(NAME, "me")
    assert backend.renew(NAME, "you", 10)
    assert backend.get(NAME) is None


def test_who_renews_holds_on_and_changes_the_mark(backend):
    backend.take(NAME, "me", 0.2)
    first = backend.take(NAME, "you", 10)
    assert backend.renew(NAME, "me", 10)
    second = backend.take(NAME, "you", 10)
    assert first != second
    time.sleep(0.25)
    assert backend.take(NAME, "you", 10) == second
    assert not backend.renew(NAME, "you", 10)


def test_a_lease_is_seized_only_by_its_present_mark(backend):
    backend.take(NAME, "me", 10)
    old = backend.take(NAME, "you", 10)
    backend.renew(NAME, "me", 10)
    mark = backend.take(NAME, "you", 10)
    assert not backend.seize(NAME, "you", 10, old)
    assert backend.renew(NAME, "me", 10)
    mark = backend.take(NAME, "you", 10)
    assert backend.seize(NAME, "you", 10, mark)
    assert not backend.seize(NAME, "she", 10, mark)
    assert not backend.renew(NAME, "me", 10)
    assert not backend.settle(NAME, "me", b"from the past", None)
    assert backend.settle(NAME, "you", b"1", None)
    assert not backend.seize(NAME, "she", 10, mark)


def test_settle_stores_and_gives_the_lease_back(backend):
    backend.take(NAME, "me", 10)
    assert not backend.settle(NAME, "you", b"not mine", None)
    assert backend.get(NAME) is None
    assert backend.settle(NAME, "me", b"1", 0.1)
    assert backend.get(NAME) == b"1"
    assert not backend.settle(NAME, "me", b"twice", None)
    assert backend.take(NAME, "you", 10) is None
    time.sleep(0.13)
    assert backend.get(NAME) is None


@pytest.mark.parametrize("way", ["clear", "delete"])
def test_a_run_that_was_under_way_when_its_entry_was_cleared_stores_nothing(backend, way):
    backend.take(NAME, "me", 10)
    if way == "clear":
        backend.clear("app:")
    else:
        backend.delete(NAME)
    assert not backend.settle(NAME, "me", b"outdated", None)
    assert backend.get(NAME) is None
    assert backend.take(NAME, "you", 10) is None
    assert backend.settle(NAME, "you", b"new", None)


def test_get_and_take_finds_the_entry_or_takes_the_lease(backend):
    assert backend.get_and_take(NAME, "me", 10) == (None, None)
    entry, mark = backend.get_and_take(NAME, "you", 10)
    assert entry is None
    assert mark == backend.take(NAME, "you", 10) is not None
    assert backend.settle(NAME, "me", b"1", None)
    assert backend.get_and_take(NAME, "you", 10) == (b"1", None)
    assert backend.take(NAME, "she", 10) is None


def test_a_token_that_begins_like_another_holds_nothing_of_it(backend):
    backend.take(NAME, "me/too", 10)
    for token in ("me", "me/", "", "me/too/", "too"):
        assert not backend.renew(NAME, token, 10)
        assert not backend.settle(NAME, token, b"1", None)
    assert backend.renew(NAME, "me/too", 10)


def test_a_shelf_that_was_closed_opens_again(backend):
    backend.put(NAME, b"1", None)
    backend.close()
    backend.close()
    assert backend.get(NAME) == b"1"


# --- many at once -------------------------------------------------------------------------------

RACER = """
import sys, time
from pathlib import Path
kind, where, me, start = sys.argv[1:]
if kind == "disk":
    from opero.stores.disk import DiskBackend
    backend = DiskBackend(Path(where), None, 10.0)
else:
    from opero.stores.redis import RedisBackend
    backend = RedisBackend(where)
while time.time() < float(start):
    pass
won = [number for number in range(100) if backend.get_and_take(f"{number:032x}", me, 60) == (None, None)]
backend.put_many([(f"{me}:{number:032x}", b"1") for number in range(50)], None)
settled = [number for number in won if backend.settle(f"{number:032x}", me, me.encode(), None)]
print(*settled)
"""


@pytest.mark.parametrize("kind", ["disk", pytest.param("redis", marks=pytest.mark.redis)])
def test_of_many_processes_exactly_one_takes_each_lease(kind, tmp_path, request):
    where = str(tmp_path / "cache")
    if kind == "redis":
        server = request.getfixturevalue("redis_server")
        server.command("FLUSHALL")
        where = server.url
    start = time.time() + 1.0
    racers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", RACER, kind, where, f"racer{me}", str(start)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for me in range(4)
    ]
    outputs = [racer.communicate(timeout=60) for racer in racers]
    assert [errors for _, errors in outputs] == [""] * 4
    won = [set(map(int, numbers.split())) for numbers, _ in outputs]
    assert sorted(number for mine in won for number in mine) == list(range(100))
    backend = DiskBackend(tmp_path / "cache", None, 10.0) if kind == "disk" else RedisBackend(where)
    stored = backend.get_many([f"{number:032x}" for number in range(100)])
    for me, mine in enumerate(won):
        assert {number for number in range(100) if stored[number] == b"racer%d" % me} == mine
    assert backend.count("racer") == 200
    backend.close()
