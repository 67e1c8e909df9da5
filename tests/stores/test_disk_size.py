"""What a cache on disk needs: all files in its directory stay within the limit, however busy they are."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from crowd import until

from opero.stores import database
from opero.stores.backends import Swap
from opero.stores.disk import DiskBackend

pytestmark = pytest.mark.once

MIB = 1 << 20
SLACK = 256 << 10
"""Bytes that docs/backends.md allows beyond the limit."""


def size_of(place):
    """Return how many bytes the files in a directory have together."""
    total = 0
    for entry in os.scandir(place):
        with contextlib.suppress(FileNotFoundError):
            total += entry.stat().st_size
    return total


def name_of(number):
    """Return a name as stored caches use them, in no order."""
    return f"app:{number * 0x9E3779B97F4A7C15 % 2**128:032x}"


def log_of(place):
    """Return how many bytes the log has."""
    with contextlib.suppress(FileNotFoundError):
        return (place / "cache.db-wal").stat().st_size
    return 0


class Watch:
    """Looks at a directory all the time, in a thread.

    Attributes:
        largest: The most that it had.
    """

    def __init__(self, place):
        """Begin."""
        self.largest = 0
        self._place = place
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self):
        while not self._over.wait(0.001):
            with contextlib.suppress(FileNotFoundError):
                self.largest = max(self.largest, size_of(self._place))

    def end(self):
        """Stop, and return the most that there was."""
        self._over.set()
        self._thread.join()
        return self.largest


def together(works):
    """Run functions in a thread each, and raise what one of them raises."""
    errors = []

    def run(work):
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.fixture
def place(tmp_path):
    """A directory that is not there yet."""
    return tmp_path / "cache"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "size", "count"),
    [
        (MIB // 4, 2_000, 200),
        (MIB, 200, 1_000),
        (MIB, 20_000, 200),
        (MIB, MIB // 4, 20),
        (8 * MIB, 200_000, 150),
        (8 * MIB, 2 * MIB, 12),
    ],
)
def test_one_writer_stays_within_the_limit(place, limit, size, count):
    backend = DiskBackend(place, limit)
    data = os.urandom(size)
    largest = 0
    for number in range(count):
        backend.put_many([(name_of(number), data)], None)
        largest = max(largest, size_of(place))
    assert backend.get_many([name_of(count - 1)]) == [data]
    assert largest <= max(limit, database.LEAST) + SLACK
    backend.close()


@pytest.mark.slow
@pytest.mark.parametrize("size", [1_000, 20_000, 200_000])
@pytest.mark.parametrize(("writers", "readers"), [(2, 0), (6, 0), (3, 3)])
def test_many_threads_stay_within_the_limit(place, size, writers, readers):
    """With readers that are there all the time SQLite's own checkpoints empty no log."""
    limit = 2 * MIB
    backend = DiskBackend(place, limit, 20.0)
    backend.put_many([(name_of(0), b"first")], None)
    data = os.urandom(size)
    left = list(range(min(400, 4 * limit // size)))
    watch = Watch(place)

    def write():
        with contextlib.suppress(IndexError):
            while True:
                backend.put_many([(name_of(left.pop()), data)], None)

    def read():
        while left:
            backend.get_many([name_of(number) for number in left[:20]])

    together([write] * writers + [read] * readers)
    assert watch.end() <= limit + SLACK
    assert log_of(place) <= limit // 2
    backend.close()


def test_batches_stay_within_the_limit(place):
    limit = 2 * MIB
    backend = DiskBackend(place, limit)
    watch = Watch(place)
    for size, count in ((100, 4_000), (4_000, 700), (10_000, 300), (400_000, 12)):
        entries = [(name_of(number), os.urandom(size)) for number in range(count)]
        backend.put_many(entries, None)
        assert backend.get_many([entries[-1][0]]) == [entries[-1][1]]
    backend.delete([name_of(number) for number in range(4_000)])
    assert watch.end() <= limit + SLACK
    backend.close()


def test_a_reader_that_does_not_end_lets_the_log_grow_to_a_quarter_and_no_further(place):
    """Then nothing is stored any more, what is there can be read, and it heals by itself."""
    limit = 4 * MIB
    backend = DiskBackend(place, limit, 0.05)
    backend.put_many([(name_of(0), b"first")], None)
    reader = sqlite3.connect(place / "cache.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM Cache").fetchall()
    data = os.urandom(100_000)
    stored = 0

    def store():
        nonlocal stored
        while stored < 100:
            backend.put_many([(name_of(stored), data)], None)
            stored += 1

    with pytest.raises(sqlite3.OperationalError, match="log of the database is full"):
        store()
    assert 3 <= stored <= limit // 4 // len(data)
    assert size_of(place) <= limit
    assert backend.get_many([name_of(0), name_of(stored - 1)]) == [data, data]
    reader.execute("COMMIT")
    for number in range(100):
        backend.put_many([(name_of(number), data)], None)
    assert size_of(place) <= limit
    reader.close()
    backend.close()


def test_without_a_limit_the_log_is_emptied_all_the_same(place):
    backend = DiskBackend(place, None)
    data = os.urandom(500_000)
    for number in range(60):
        backend.put_many([(name_of(number), data)], None)
        assert log_of(place) < database.CHECKPOINT + 2 * MIB
    assert backend.get_many([name_of(number) for number in range(60)]) == [data] * 60
    backend.close()


def test_a_lower_limit_is_reached_by_what_is_stored_from_then_on(place):
    before = DiskBackend(place, None)
    before.put_many([(name_of(number), os.urandom(10_000)) for number in range(500)], None)
    before.close()
    assert size_of(place) > 4 * MIB
    backend = DiskBackend(place, MIB)
    for number in range(500, 800):
        backend.put_many([(name_of(number), os.urandom(10_000))], None)
    assert size_of(place) <= MIB + SLACK
    assert backend.get_many([name_of(799)]) != [None]
    backend.close()


def test_what_is_cleared_is_given_back(place):
    """By steps that the log can take, also where the rest lies at the end of the file."""
    limit = 16 * MIB
    backend = DiskBackend(place, limit)
    names = [name_of(number) for number in range(1_000)]
    backend.put_many([(name, os.urandom(10_000)) for name in names], None)
    watch = Watch(place)
    assert all(backend.delete(names[:700]))
    backend.close()
    assert watch.end() <= limit + SLACK
    assert size_of(place) < 5 * MIB
    assert None not in backend.get_many(names[700:])
    backend.close()


def test_an_entry_of_a_quarter_is_kept_and_a_larger_one_is_refused(place):
    backend = DiskBackend(place, MIB)
    backend.put_many([("app:1", bytes(MIB // 4))], None)
    assert backend.get_many(["app:1"]) == [bytes(MIB // 4)]
    for call in (
        lambda: backend.put_many([("app:2", bytes(MIB // 4 + 1))], None),
        lambda: backend.swap(Swap("app:3", None, b"1", along=("app:2", bytes(MIB // 4 + 1), None))),
    ):
        with pytest.raises(ValueError, match="larger than a quarter of cache_size_limit"):
            call()
    assert backend.get_many(["app:1", "app:2"]) == [bytes(MIB // 4), None]
    backend.close()


def damage(place):
    """Write over the database."""
    path = place / "cache.db"
    path.write_bytes(b"garbage " * (path.stat().st_size // 8))


def test_only_the_last_damaged_database_is_kept(place):
    backend = DiskBackend(place, None)
    kept = []
    for number in range(3):
        backend.put_many([(name_of(number), b"1")], None)
        backend.close()
        damage(place)
        assert backend.get_many([name_of(number)]) == [None]
        kept.append([path.name for path in place.glob("cache.db.damaged-*")])
    assert [len(names) for names in kept] == [1, 1, 1]
    assert len({name for (name,) in kept}) == 3
    backend.close()


def test_a_damaged_database_goes_when_its_room_is_needed(place):
    limit = 2 * MIB
    backend = DiskBackend(place, limit)
    backend.put_many([(name_of(number), os.urandom(10_000)) for number in range(60)], None)
    backend.close()
    damage(place)
    for number in range(20):
        backend.put_many([(name_of(number), os.urandom(10_000))], None)
    assert len(list(place.glob("cache.db.damaged-*"))) == 1
    for number in range(300):
        backend.put_many([(name_of(number), os.urandom(10_000))], None)
        assert size_of(place) <= limit + SLACK
    assert not list(place.glob("cache.db.damaged-*"))
    backend.close()


def test_what_a_killed_process_left_of_a_new_database_is_removed(place):
    (place / "cache.new-1").mkdir(parents=True)
    place.chmod(0o700)
    (place / "cache.new-1" / "cache.db").write_bytes(b"half")
    backend = DiskBackend(place, None)
    backend.put_many([("app:1", b"1")], None)
    backend.close()
    assert {path.name for path in place.iterdir()} == {"cache.db", "cache.lock"}


WRITER = """
import os, sys
from pathlib import Path
from opero.stores.disk import DiskBackend
backend = DiskBackend(Path(sys.argv[1]), int(sys.argv[2]))
number = 0
while True:
    number += 1
    backend.put_many([(f"{os.getpid()}:{number}", os.urandom(100_000))], None)
    print(number, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills processes")
def test_processes_that_are_killed_while_they_write_leave_no_more_than_the_limit(place):
    limit = 4 * MIB
    backend = DiskBackend(place, limit, 20.0)
    backend.put_many([("app:1", b"1")], None)
    watch = Watch(place)
    for _ in range(3):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(place), str(limit)], stdout=subprocess.PIPE
            )
            for _ in range(2)
        ]
        for writer in writers:
            for _ in range(25):
                assert writer.stdout.readline()
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.stdout.close()
            writer.wait()
    backend.put_many([("app:2", b"2")], None)
    assert backend.get_many(["app:2"]) == [b"2"]
    assert watch.end() <= limit + SLACK
    backend.close()


SMALL = """
import os, sys
from pathlib import Path
from opero.stores.disk import DiskBackend
place = Path(sys.argv[1]) / "cache"
backend = DiskBackend(place, 1 << 20)
for number in range(400):
    data = os.urandom(20_000)
    backend.put_many([(f"app:{number}", data)], None)
    assert backend.get_many([f"app:{number}"]) == [data]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts of Linux")
def test_a_small_file_system_is_not_filled_by_a_cache_that_is_smaller(tmp_path):
    """A real one; where mounting is not allowed, there are the tests above."""
    mounting = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=1536k t "$0" && exec "$@"']
    command = [*mounting, str(tmp_path), sys.executable, "-c", SMALL, str(tmp_path)]
    if (
        not shutil.which("unshare")
        or subprocess.run(
            [*mounting, str(tmp_path), "true"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("this user may not mount")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_log_that_cannot_be_written_into_the_file_costs_nobody_more_than_the_wait(
    place, monkeypatch
):
    """As where the disk is full: what is stored stays, and what is refused is refused soon."""
    backend = DiskBackend(place, MIB, 0.05)
    monkeypatch.setattr(database.Database, "_empty_log", lambda *_: False)
    begun = time.monotonic()
    stored = []
    with contextlib.suppress(sqlite3.OperationalError):
        for number in range(100):
            backend.put_many([(name_of(number), bytes(20_000))], None)
            stored.append(name_of(number))
    assert 3 < len(stored) < 40
    assert time.monotonic() - begun < 20
    assert None not in backend.get_many(stored[-1:])
    assert size_of(place) <= MIB + SLACK
    monkeypatch.undo()
    backend.put_many([("app:1", bytes(20_000))], None)
    until(lambda: log_of(place) < MIB // 4)
    backend.close()


def test_the_directory_is_where_the_documentation_says(place):
    """And its files are what it adds up."""
    backend = DiskBackend(Path(place), MIB)
    backend.put_many([("app:1", b"1")], None)
    names = {path.name for path in place.iterdir()}
    assert names == {"cache.db", "cache.db-wal", "cache.db-shm", "cache.lock"}
    backend.close()
