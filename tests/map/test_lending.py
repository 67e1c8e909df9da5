"""What is large and the same for all workers of a map is in memory once."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from opero import opmap
from opero.map.engines.processes import engine, lending

pytestmark = pytest.mark.once

linux = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux has such files")
LARGE = lending.LARGE
TABLE = np.arange(LARGE // 4, dtype=np.int64)


@linux
@pytest.mark.parametrize(
    "sizes", [(LARGE,), (10, LARGE + 1), (3 * LARGE + 17, 0, 5, 2 * LARGE)], ids=str
)
def test_parts_that_are_lent_are_those_that_are_borrowed(sizes):
    """Large parts of any size and place are lent; small ones are not."""
    parts = [os.urandom(size) for size in sizes]
    lent = lending.lend(parts)
    assert lent is not None
    assert sum(map(len, lent.parts)) < 100
    assert [bytes(part) for part in lending.borrow(lent.parts, lent.ticket)] == parts


@linux
def test_who_borrows_may_write_and_nobody_sees_it():
    """The lender and other borrowers keep their data, and borrowed memory outlives the loan."""
    lent = lending.lend([b"a" * LARGE])
    assert lent is not None
    (one,), (other,) = (lending.borrow(lent.parts, lent.ticket) for _ in range(2))
    one[:3] = b"bbb"
    lent.close()
    assert bytes(one[:5]) == b"bbbaa"
    assert bytes(other[:5]) == b"aaaaa"
    with pytest.raises(OSError, match="file"):
        lending.borrow(lent.parts, lent.ticket)


@linux
def test_a_descriptor_that_is_another_file_by_now_is_not_taken_for_it():
    """The lender closes the file, and another file reuses the number."""
    lent = lending.lend([b"a" * LARGE])
    assert lent is not None
    owner, number, size, (device, _), places = lent.ticket
    with pytest.raises(OSError, match="another file"):
        lending.borrow(lent.parts, (owner, number, size, (device, -1), places))


def test_nothing_is_lent_that_is_small_or_where_it_is_not_possible(monkeypatch):
    """Then the parts travel as they are."""
    assert lending.lend([]) is None
    assert lending.lend([b"a" * (LARGE - 1)]) is None

    def full(*_):
        raise OSError("no memory")

    monkeypatch.setattr(os, "memfd_create", full, raising=False)
    assert lending.lend([b"a" * LARGE]) is None


def in_a_worker(place, more=None):
    """Read and change what all workers have."""
    TABLE[0] += 1
    if more is not None:
        more[0] += 1
    return os.getpid(), int(TABLE[0]), int(TABLE[-1]), None if more is None else int(more[0])


@pytest.mark.parametrize("way", ["lent", "refused", "not lent"])
def test_workers_have_arrays_of_their_own(way, monkeypatch):
    """Globals and shared arguments are current in each map."""
    if way == "not lent":
        monkeypatch.setattr(engine, "lend", lambda _: None)
    if way == "refused":
        monkeypatch.setattr(engine, "lend", refusing)
    function = pickle.loads(pickle.dumps(in_a_worker))
    function = type(function)(function.__code__, {**globals(), "__name__": "nowhere"}, "elsewhere")
    function.__module__ = "nowhere"
    more = np.zeros(LARGE // 4, dtype=np.int64)
    mapped = opmap(workers=2, chunk_size=1, progress=False)(function)
    for start in (0, 100):
        TABLE[0] = more[0] = start
        seen = {}
        for worker, first, last, extra in mapped(range(6), more=more):
            seen[worker] = seen.get(worker, start) + 1
            assert (first, last, extra) == (seen[worker], LARGE // 4 - 1, seen[worker])
    assert (int(TABLE[0]), int(more[0])) == (100, 100)


def send_on(number, end, more):
    """Use what is handed on once beside what could be lent."""
    end.send(number + int(more[number]))


def test_what_is_handed_on_once_is_not_lent():
    """Each worker gets its own pickle, and no other worker's memory."""
    ours, theirs = multiprocessing.Pipe()
    more = np.ones(LARGE // 4, dtype=np.int64)
    with ours, theirs:
        results = opmap(workers=3, chunk_size=1, progress=False)(send_on)(
            range(9), end=theirs, more=more
        )
        assert results == [None] * 9
        assert sorted(ours.recv() for _ in range(9)) == list(range(1, 10))


def refusing(parts):
    """Lend memory that no worker can open."""
    lent = lending.lend(parts)
    if lent is not None:
        owner, _, *more = lent.ticket
        lent.ticket = (owner, 1_000_000, *more)
    return lent


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="nothing forks")
def test_a_forked_worker_keeps_no_memory_that_the_program_lends():
    """An inherited open file would keep the memory as long as the worker lives."""
    large = os.urandom(2 << 20)

    def files(_):
        found = []
        for each in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(str(each.readlink()))
        return len(large), found

    mapped = opmap(mode="process", workers=1, start_method="fork", retries=1, progress=False)(files)
    (result,) = mapped([0])
    size, open_files = result
    assert size == len(large)
    assert not [each for each in open_files if "opero-map" in each]
