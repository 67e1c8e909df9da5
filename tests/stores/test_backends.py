"""What every backend does alike: bytes under names that expire, and leases that one at a time holds."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from crowd import Driven

from opero.stores import disk, in_threads
from opero.stores.backends import Swap
from opero.stores.disk import DiskBackend
from opero.stores.operations import AsyncOperations, Operations
from opero.stores.redis import AsyncRedisBackend, RedisBackend

pytestmark = pytest.mark.once

NAME = "app:module:function:" + "0" * 32
OTHER = "app:module:function:" + "1" * 32


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
        yield Operations(made)
        made.close()
        return
    if kind == "disk in threads":
        made = in_threads.InThreads(made)
    loop = asyncio.new_event_loop()
    try:
        driven = Driven(loop, AsyncOperations(made))
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


def test_a_backend_that_was_closed_opens_again(backend):
    backend.put(NAME, b"1", None)
    backend.close()
    backend.close()
    assert backend.get(NAME) == b"1"


# --- the five primitives ------------------------------------------------------------------------


class Counting:
    """A backend that notes what it is asked for."""

    def __init__(self, backend):
        self._backend = backend
        self.asked = []

    def __getattr__(self, name):
        method = getattr(self._backend, name)

        def call(*arguments):
            self.asked.append(name)
            return method(*arguments)

        return call


@pytest.fixture(params=["disk", pytest.param("redis", marks=pytest.mark.redis)])
def counting(request, tmp_path):
    """A backend for threads, whose primitives are counted."""
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        server.command("FLUSHALL")
        made = RedisBackend(server.url)
    else:
        made = DiskBackend(tmp_path / "cache", None, 5.0)
    yield Counting(made)
    made.close()


def test_each_operation_on_an_entry_or_a_lease_is_one_primitive(counting):
    """So it is one round trip, and one step."""
    store = Operations(counting)
    mark = None
    for primitive, call in [
        ("get_many", lambda: store.get(NAME) is None),
        ("swap", lambda: store.get_and_take(NAME, "me", 10) == (None, None)),
        ("swap", lambda: store.take(NAME, "you", 10)),
        ("swap", lambda: store.settle(NAME, "me", b"1", 60)),
        ("swap", lambda: store.get_and_take(NAME, "me", 10) == (b"1", None)),
        ("put_many", lambda: store.put(NAME, b"2", None) is None),
        ("delete", lambda: store.delete(NAME)),
        ("swap", lambda: store.take(NAME, "me", 10) is None),
        ("swap", lambda: store.release(NAME, "me") is None),
    ]:
        counting.asked.clear()
        assert call()
        assert counting.asked == [primitive]
    store.take(NAME, "me", 10)
    counting.asked.clear()
    for _ in range(20):
        mark = store.renew(NAME, "me", 10, mark)
        assert mark
    assert store.seize(NAME, "you", 10, mark)
    assert counting.asked == ["swap"] * 21


def test_a_holder_that_does_not_know_its_mark_is_told_it(counting):
    """After renewals, or when the answer to one was lost: one round trip more."""
    store = Operations(counting)
    for give_up in (
        lambda mark: store.settle(NAME, "me", b"1", None, mark),
        lambda mark: store.release(NAME, "me", mark) is None,
    ):
        for known in (None, "me/00000001"):
            store.delete(NAME)
            assert store.take(NAME, "me", 10) is None
            first = store.renew(NAME, "me", 10)
            assert store.renew(NAME, "me", 10, first) == "me/00000002"
            counting.asked.clear()
            assert give_up(known)
            assert counting.asked == ["swap", "swap"]
            assert store.take(NAME, "you", 10) is None


def test_a_swap_changes_nothing_unless_it_finds_what_was_expected(counting):
    """Whatever else it was to do; it says what it found."""
    get = Operations(counting).get

    def swap(*change):
        return counting.swap(Swap(NAME, *change))

    assert swap(b"1", b"2", None) == (None, None)
    assert get(NAME) is None
    assert swap(b"1", None, None, None, (OTHER, b"along", None)) == (None, None)
    assert get(OTHER) is None
    assert swap(None, b"1", None, None, (OTHER, b"along", 60)) == (None, None)
    assert counting.get_many([NAME, OTHER]) == [b"1", b"along"]
    assert swap(None, b"2", None) == (b"1", None)
    assert swap(b"11", b"2", None) == (b"1", None)
    assert get(NAME) == b"1"
    assert swap(b"1", b"2", None, OTHER) == (None, b"along")
    assert get(NAME) == b"1"
    assert swap(b"1", b"2", 0.05, "nothing there") == (b"1", None)
    assert get(NAME) == b"2"
    time.sleep(0.08)
    assert swap(b"2", b"3", None) == (None, None)
    assert get(NAME) is None
    assert swap(None, None, None) == (None, None)


def test_a_scan_names_what_begins_and_ends_as_it_is_asked(counting):
    """All of it, in pages, whatever the characters mean to the store; nothing that has expired."""
    names = [
        f"{space}:{n}{end}" for space in ("a", "a*", "b%") for n in range(9) for end in ("", ":x")
    ]
    counting.put_many([(name, b"1") for name in names], None)
    counting.put_many([("a:gone", b"1")], 0.001)
    time.sleep(0.01)
    for prefix in ("", "a", "a:", "a*", "b%", "a:1", "nothing"):
        for suffix in ("", ":x", "x", "*"):
            found, after = set(), ""
            while after is not None:
                some, after = counting.scan(prefix, suffix, after)
                found.update(some)
            wanted = {name for name in names if name.startswith(prefix) and name.endswith(suffix)}
            assert found == wanted


@pytest.mark.parametrize("page", [1, 2, 7])
def test_clearing_and_counting_go_page_by_page(tmp_path, page, monkeypatch):
    """Nothing is left out between two pages, though names go away meanwhile."""
    monkeypatch.setattr(disk, "SCAN", page)
    monkeypatch.setattr(disk, "NAMES", 3)
    store = Operations(DiskBackend(tmp_path / "cache", None, 5.0))
    store.put_many([(f"a:{number:032x}", b"1") for number in range(20)], None)
    for number in range(5, 25):
        store.take(f"a:{number:032x}", "me", 60)
    assert store.count("a:") == 20
    assert store.clear("a:") == 20
    assert store.count("") == 0
    assert not store.renew(f"a:{24:032x}", "me", 60)
    store.close()


@pytest.mark.once
def test_what_has_expired_is_deleted_and_cleared_too(tmp_path):
    """Nothing of what is to be forgotten stays in the file, though it counts as gone already."""
    backend = DiskBackend(tmp_path / "cache", None, 5.0)
    store = Operations(backend)
    names = [f"a:{number:032x}" for number in range(4)]
    store.put(f"a:{9:032x}", b"1", None)
    store.put_many([(name, b"1") for name in names], 0.2)
    time.sleep(0.25)
    with closing(sqlite3.connect(tmp_path / "cache" / "cache.db")) as connection:
        assert store.delete(names[0]) is False
        assert (names[0],) not in connection.execute("SELECT key FROM Cache").fetchall()
        assert store.count("a:") == 1
        assert store.clear("a:") == 1
        assert connection.execute("SELECT key FROM Cache").fetchall() == []
    store.close()


def test_deleting_many_tells_of_each_whether_it_was_there(counting):
    """In the order asked for."""
    counting.put_many([(NAME, b"1"), (OTHER, b"2")], None)
    assert counting.delete([OTHER, "nothing", NAME, OTHER]) == [True, False, True, False]
    assert counting.delete([]) == []


# --- many at once -------------------------------------------------------------------------------

RACER = """
import sys, time
from pathlib import Path
from opero.stores.operations import AsyncOperations, Operations
kind, where, me, start = sys.argv[1:]
if kind == "disk":
    from opero.stores.disk import DiskBackend
    backend = Operations(DiskBackend(Path(where), None, 10.0))
else:
    from opero.stores.redis import RedisBackend
    backend = Operations(RedisBackend(where))
while time.time() < float(start):
    pass
won = [number for number in range(100) if backend.get_and_take(f"{number:032x}", me, 60) == (None, None)]
backend.put_many([(f"{me}:{number:032x}", b"1") for number in range(50)], None)
settled = [number for number in won if backend.settle(f"{number:032x}", me, me.encode(), None)]
print(*settled)
"""


@pytest.mark.slow
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
    backend = (
        Operations(DiskBackend(tmp_path / "cache", None, 10.0))
        if kind == "disk"
        else Operations(RedisBackend(where))
    )
    stored = backend.get_many([f"{number:032x}" for number in range(100)])
    for me, mine in enumerate(won):
        assert {number for number in range(100) if stored[number] == b"racer%d" % me} == mine
    assert backend.count("racer") == 200
    backend.close()
