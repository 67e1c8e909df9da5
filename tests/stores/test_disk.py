"""The backend on disk: what it does not trust, what it survives, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from crowd import until
from fresh_interpreter import printed_by

from opero.stores import database as module
from opero.stores.disk import DiskBackend, TamperedError
from opero.stores.operations import Operations

pytestmark = pytest.mark.once

NAME = "app:" + "0" * 32
OTHER = "app:" + "1" * 32


@pytest.fixture
def place(tmp_path):
    """A directory that is not there yet."""
    return tmp_path / "a" / "cache"


@pytest.fixture
def backend(place):
    """A backend with one entry."""
    made = Operations(DiskBackend(place, None, 0.2))
    made.put(NAME, b"good", None)
    yield made
    made.close()


@contextlib.contextmanager
def database(place):
    """The database, opened by somebody else."""
    connection = sqlite3.connect(place / "cache.db", isolation_level=None)
    try:
        yield connection.execute
    finally:
        connection.close()


# --- what it does not trust ---------------------------------------------------------------------


def canary(tmp_path):
    """Return a pickle that makes a directory, and that directory."""
    nest = tmp_path / "canary"
    return f"cos\nmkdir\n(V{nest}\ntR.".encode(), nest


def everything(backend):
    """Call every method, whatever it raises, and return what `get` returned or raised."""
    seen = []
    for call in (
        lambda: seen.append(backend.get(NAME)),
        lambda: backend.get_many([NAME, OTHER]),
        lambda: backend.count(""),
        lambda: backend.get_and_take(NAME, "me", 10),
        lambda: backend.take(NAME, "me", 10),
        lambda: backend.renew(NAME, "me", 10),
        lambda: backend.seize(NAME, "me", 10, "mark"),
        lambda: backend.settle(NAME, "me", b"2", 0.001),
        lambda: backend.release(NAME, "me"),
        lambda: backend.put(OTHER, b"2", 0.001),
        lambda: backend.put_many([(OTHER, b"2")], 10),
        lambda: backend.put(NAME, b"2", None),
        lambda: backend.delete(NAME),
        lambda: backend.clear("app:"),
        lambda: backend.clear(""),
        backend.close,
    ):
        try:
            call()
        except Exception as error:  # noqa: BLE001 - only that it is no more than an error
            seen.append(error)
    return seen[0]


def test_plain_diskcache_would_run_the_pickles_of_these_tests(tmp_path):
    """They are armed: else the tests below would prove nothing."""
    pickled, nest = canary(tmp_path)
    with module.diskcache.Cache(tmp_path / "plain") as cache:
        cache.set(NAME, b"good")
        with database(tmp_path / "plain") as sql:
            sql("UPDATE Cache SET mode = 4, value = ?", (pickled,))
        cache.get(NAME)
    assert nest.is_dir()


@pytest.mark.parametrize("target", [NAME, NAME + ":lease"])
@pytest.mark.parametrize(
    "change",
    [
        "mode = 4, value = :pickle",
        "mode = 4, value = NULL, filename = 'pickle'",
        "mode = 4, value = NULL, filename = :pickle_path",
        "mode = 2, value = NULL, filename = '../../victim'",
        "mode = 2, value = NULL, filename = :victim_path",
        "mode = 3, value = NULL, filename = '../../victim'",
        "filename = '../../victim'",
        "filename = ''",
        "mode = 0",
        "mode = 99",
        "mode = '1x'",
        "mode = NULL",
        "mode = X'01'",
        "value = 'text'",
        "value = 5",
        "value = NULL",
    ],
)
def test_a_tampered_value_is_neither_looked_at_nor_removed(
    backend, place, tmp_path, change, target
):
    pickled, nest = canary(tmp_path)
    (place / "pickle").write_bytes(pickled)
    (tmp_path / "victim").write_bytes(b"precious")
    backend.take(NAME, "me", 10)
    with database(place) as sql:
        values = {
            "pickle": pickled,
            "pickle_path": str(place / "pickle"),
            "victim_path": str(tmp_path / "victim"),
            "target": target,
        }
        assert sql(f"UPDATE Cache SET {change} WHERE key = :target", values).rowcount == 1
    for each in (backend, Operations(DiskBackend(place, 10_000, 0.2))):
        seen = everything(each)
    assert not nest.exists()
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert (place / "pickle").read_bytes() == pickled
    assert seen is None
    backend.put(NAME, b"new", None)
    assert backend.get(NAME) == b"new"


def test_a_tampered_value_has_no_valid_signature_and_is_replaced(backend, place):
    with database(place) as sql:
        sql("UPDATE Cache SET mode = 4")
    assert backend.get(NAME) == b""
    assert backend.get_many([OTHER, NAME])[1] == b""
    assert backend.get_and_take(NAME, "me", 10) == (b"", None)
    backend.put(NAME, b"new", None)
    assert backend.get(NAME) == b"new"


@pytest.mark.parametrize(
    "change",
    ["raw = 0, key = :pickle", "raw = 0", "key = :pickle", "key = 5", "key = X'00'", "key = 1e300"],
)
def test_a_tampered_key_is_never_unpickled(backend, place, tmp_path, change):
    pickled, nest = canary(tmp_path)
    with database(place) as sql:
        sql(f"UPDATE Cache SET {change}", {"pickle": pickled})
    assert everything(backend) is None
    assert everything(Operations(DiskBackend(place, 10_000, 0.2))) is None
    assert not nest.exists()


@pytest.mark.parametrize("half", ["key", "value"])
def test_tampered_settings_are_not_obeyed(backend, place, tmp_path, half):
    pickled, nest = canary(tmp_path)
    victim = tmp_path / "victim.db"
    with database(place) as sql:
        if half == "key":
            for key in ("get", "set", "_sql", "_disk", "close", "disk_fetch", "disk_x", "x"):
                sql("INSERT INTO Settings VALUES (?, ?)", (key, pickled))
            sql("INSERT INTO Settings VALUES ('sqlite_journal_mode; ATTACH', ?)", (str(victim),))
            sql("INSERT INTO Settings VALUES ('sqlite_temp_store_directory', '/')")
            sql("INSERT INTO Settings VALUES ('sqlite_writable_schema', 1)")
        else:
            for value in (pickled, "none", -1, None):
                sql("UPDATE Settings SET value = ?", (value,))
                assert Operations(DiskBackend(place, None, 0.2)).get(NAME) == b"good"
    other = Operations(DiskBackend(place, None, 0.2))
    for each in (backend, other):
        assert each.get(NAME) == b"good"
        each.put(OTHER, b"2", None)
        assert each.count("") == 2
    other.close()
    assert not nest.exists()
    assert not victim.exists()


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
TRIGGER = f"""
CREATE TRIGGER t AFTER INSERT ON Cache BEGIN
    INSERT INTO Settings SELECT * FROM ({ENDLESS} SELECT 'k', max(x) FROM c);
END
"""
VIEW = f"""
ALTER TABLE Cache RENAME TO Old;
CREATE VIEW Cache AS {ENDLESS}
    SELECT x AS rowid, x AS key, 1 AS raw, NULL AS expire_time, NULL AS tag, 0 AS size, 1 AS mode,
    NULL AS filename, NULL AS value, 0 AS store_time FROM c
"""


@pytest.mark.parametrize("schema", [TRIGGER, VIEW], ids=["trigger", "view"])
def test_a_tampered_schema_does_not_hang_a_call(backend, place, schema, monkeypatch):
    monkeypatch.setattr(module, "LONGEST", 0.03)
    with contextlib.closing(sqlite3.connect(place / "cache.db")) as connection:
        connection.executescript(schema)
    start = time.monotonic()
    call = backend.get_many if schema is VIEW else lambda names: backend.put(names[0], b"2", None)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        call([OTHER])
    everything(backend)
    everything(Operations(DiskBackend(place, None, 0.2)))
    assert time.monotonic() - start < 60


@pytest.mark.skipif(os.name != "posix", reason="links, owners and modes of POSIX")
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "directory", "shared"])
def test_a_place_that_is_not_ours_alone_is_refused(place, tmp_path, kind):
    place.mkdir(mode=0o700, parents=True)
    path, victim = place / "cache.db", tmp_path / "victim"
    if kind == "link":
        victim.write_bytes(b"")
        path.symlink_to(victim)
    elif kind == "dangling link":
        path.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        place.chmod(0o770)
    backend = Operations(DiskBackend(place, None, 0.2))
    for call in (lambda: backend.get(NAME), lambda: backend.put(NAME, b"1", None)):
        with pytest.raises(TamperedError):
            call()
    assert not victim.exists() or victim.read_bytes() == b""


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_directory_and_files_are_for_their_owner_only(place):
    before = os.umask(0)
    try:
        backend = Operations(DiskBackend(place, None, 0.2))
        backend.put(NAME, b"1", None)
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o600}
        backend.close()
        (place / "cache.db").chmod(0o644)
        backend.get(NAME)
        assert stat.S_IMODE((place / "cache.db").stat().st_mode) == 0o600
        backend.close()
    finally:
        os.umask(before)


def test_a_directory_is_taken_by_its_name(tmp_path, monkeypatch):
    """A variable or a tilde, which diskcache would expand, is a name like any other."""
    monkeypatch.setenv("SOMEWHERE", str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    for name in ("$SOMEWHERE", "~", "a?mode=memory", "file:x"):
        backend = Operations(DiskBackend(tmp_path / name, None, 0.2))
        backend.put(NAME, b"1", None)
        assert (tmp_path / name / "cache.db").is_file()
        backend.close()
    assert not (tmp_path / "elsewhere").exists()


# --- when the clock jumps -----------------------------------------------------------------------


def test_a_clock_that_jumps_back_lets_a_dead_holder_be_relieved(backend, monkeypatch):
    backend.take(OTHER, "dead", 1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    mark = backend.take(OTHER, "me", 1)
    assert backend.take(OTHER, "me", 1) == mark is not None
    assert backend.seize(OTHER, "me", 1, mark)
    assert backend.settle(OTHER, "me", b"1", None)
    monkeypatch.setattr(time, "time", lambda: now)
    assert backend.get(OTHER) == b"1"


def test_a_clock_that_jumps_forward_ends_leases_and_stores_nothing_twice(backend, monkeypatch):
    backend.take(OTHER, "me", 60)
    backend.put(NAME, b"1", 60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert backend.get(NAME) is None
    assert backend.take(OTHER, "you", 60) is None
    assert not backend.settle(OTHER, "me", b"mine", None)
    assert backend.settle(OTHER, "you", b"yours", None)
    assert backend.get(OTHER) == b"yours"


# --- how large it gets --------------------------------------------------------------------------


def test_the_oldest_entries_go_when_it_is_too_large(place):
    limit = 600_000
    backend = Operations(DiskBackend(place, limit, 0.2))
    for number in range(150):
        backend.put(f"{number:032x}", os.urandom(20_000), None)
    assert (place / "cache.db").stat().st_size < 1.5 * limit
    kept = [number for number in range(150) if backend.get(f"{number:032x}") is not None]
    assert 10 < len(kept) < 30
    assert kept == list(range(150 - len(kept), 150))
    with pytest.raises(ValueError, match="larger than a quarter of cache_size_limit"):
        backend.put(NAME, bytes(limit + 1), None)
    assert backend.count("") == len(kept)
    backend.close()


def test_what_has_expired_or_was_cleared_needs_no_room(place):
    backend = Operations(DiskBackend(place, None, 0.2))
    for number in range(40):
        backend.put(f"{number:032x}", bytes(50_000), 0.001)
    time.sleep(0.01)
    for number in range(4):
        backend.put(NAME, b"%d" % number, None)
    assert (place / "cache.db").stat().st_size < 1_000_000 or backend.count("") == 1
    with database(place) as sql:
        assert sql("SELECT COUNT(*) FROM Cache").fetchone() == (1,)
    backend.put_many([(f"{number:032x}", bytes(50_000)) for number in range(40)], None)
    backend.clear("")
    with database(place) as sql:
        sql("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (place / "cache.db").stat().st_size < 200_000
    backend.close()


# --- what it leaves behind ----------------------------------------------------------------------


def open_files():
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing itself is one


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts files by /proc")
def test_threads_that_have_ended_leave_no_file_open(backend):
    def work(number):
        backend.put(f"{number:032x}", b"1", None)
        return backend.get(f"{number:032x}")

    for _ in range(2):
        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(work, range(64))) == {b"1"}
    gc.collect()
    before = open_files()
    for _ in range(5):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        async def in_executor():
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(None, work, n) for n in range(16)))

        asyncio.run(in_executor())
    # the last threads may still be about to close theirs, or be garbage; 160 have ended
    until(lambda: gc.collect() < 0 or open_files() <= before + 24)
    backend.close()
    gc.collect()
    until(lambda: open_files() <= before - 2)


def test_a_backend_that_is_dropped_closes_what_it_opened(place):
    """Python 3.13 warns of a connection that was not closed."""
    for _ in range(3):
        backend = Operations(DiskBackend(place, None, 0.2))
        backend.put(NAME, b"1", None)
        del backend
        gc.collect()


FORK = """
import os, sys, threading
from pathlib import Path
from opero.stores.disk import DiskBackend
from opero.stores.operations import Operations
backend = Operations(DiskBackend(Path(sys.argv[1]), None, 5.0))
backend.put("a", b"1", None)
for number in range(5):
    child = os.fork()
    if not child:
        ok = backend.get("a") == b"1"
        for n in range(50):
            backend.put(f"child{number}:{n}", b"1", None)
        backend.close()
        sys.exit(0 if ok else 1)
    for n in range(50):
        backend.put(f"parent{number}:{n}", b"1", None)
    assert os.waitpid(child, 0)[1] == 0
print(backend.count("child"), backend.count("parent"), backend.get("a"))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_and_its_parent_use_it_side_by_side(place):
    assert printed_by(FORK, place).split() == ["250", "250", "b'1'"]


# --- what it survives ---------------------------------------------------------------------------


def test_a_directory_that_was_deleted_is_made_again(backend, place):
    other = Operations(DiskBackend(place, None, 0.2))
    assert other.get(NAME) == b"good"
    shutil.rmtree(place)
    assert backend.get(NAME) is None
    backend.put(NAME, b"new", None)
    assert other.get(NAME) == b"new"
    shutil.rmtree(place.parent)
    other.put(NAME, b"newer", None)
    assert backend.get(NAME) == b"newer"
    other.close()


def test_who_leaves_a_deleted_database_does_not_disturb_the_next_one(backend, place):
    """SQLite removes the log by its name, and the name is that of the new log by then."""
    assert backend.get(NAME) == b"good"
    shutil.rmtree(place)
    other = Operations(DiskBackend(place, None, 0.2))
    other.put(NAME, b"new", None)
    backend.close()
    assert printed_by(READ, place) == "b'new'\n"
    other.put(OTHER, b"newer", None)
    assert backend.get(OTHER) == b"newer"
    other.close()


READ = """
import sys
from pathlib import Path
from opero.stores.disk import DiskBackend
from opero.stores.operations import Operations
backend = Operations(DiskBackend(Path(sys.argv[1]), None, 5.0))
print(backend.get("app:" + "0" * 32))
"""


@pytest.mark.parametrize("damage", ["garbage", "halved", "other tables", "columns", "empty"])
@pytest.mark.parametrize("moment", ["open", "closed"])
def test_a_damaged_database_is_set_aside_with_one_warning(place, damage, moment, caplog):
    caplog.set_level(logging.WARNING, "opero")
    backend = Operations(DiskBackend(place, None, 0.2))
    backend.put_many([(f"{number:032x}", bytes(1000)) for number in range(200)], None)
    if moment == "closed":
        backend.close()
    with database(place) as sql:
        sql("PRAGMA wal_checkpoint(TRUNCATE)")
        if damage == "other tables":
            sql("DROP TABLE Cache")
        elif damage == "columns":
            sql("ALTER TABLE Cache RENAME COLUMN mode TO mood")
    path = place / "cache.db"
    if damage == "garbage":
        path.write_bytes(b"garbage " * 20_000)
    elif damage == "halved":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "empty":
        os.truncate(path, 0)
    content = path.read_bytes()
    failures = 0
    for number in range(200):
        try:
            backend.put(f"{number:032x}", b"1", None)
        except sqlite3.Error:
            failures += 1
    assert failures <= 3
    assert backend.get(f"{199:032x}") == b"1"
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    aside = list(place.glob("cache.db.damaged-*[0-9]"))
    assert len(warnings) == len(aside) <= 1
    if aside and damage == "garbage":
        assert aside[0].read_bytes() == content
    backend.close()


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_database_that_another_process_locks_costs_a_bounded_time(backend, place, lock):
    with database(place) as sql:
        sql(lock)
        start = time.monotonic()
        assert backend.get(NAME) == b"good"
        for call in (
            lambda: backend.put(NAME, b"2", None),
            lambda: backend.get_and_take(OTHER, "me", 10),
            lambda: backend.clear(""),
            lambda: Operations(DiskBackend(place, None, 0.2)).put(NAME, b"2", None),
        ):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                call()
        assert time.monotonic() - start < 30
        sql("COMMIT")
    backend.put(NAME, b"2", None)
    assert backend.get(NAME) == b"2"


def test_a_database_that_is_locked_altogether_costs_a_bounded_time(place):
    Operations(DiskBackend(place, None, 0.2)).put(NAME, b"1", None)
    with database(place) as sql:
        sql("PRAGMA locking_mode = EXCLUSIVE")
        sql("UPDATE Cache SET tag = 1")
        backend = Operations(DiskBackend(place, None, 0.2))
        start = time.monotonic()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            backend.get(NAME)
        assert time.monotonic() - start < 30
    assert backend.get(NAME) == b"1"
    backend.close()


FULL = """
import os, resource, sqlite3, subprocess, sys
from pathlib import Path
from opero.stores.disk import DiskBackend
from opero.stores.operations import Operations

where, mounted = Path(sys.argv[1]), sys.argv[2] == "mounted"
backend = Operations(DiskBackend(where / "cache", None, 0.2))
backend.put("first", b"1", None)

# Full, then with room again.
if mounted:
    (where / "ballast").write_bytes(bytes(500_000))
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
failures = 0
for number in range(200):
    try:
        backend.put(f"{number:032x}", os.urandom(20_000), None)
    except sqlite3.Error:
        failures += 1
assert failures > 100, failures
assert backend.get("first") == b"1"
try:
    Operations(DiskBackend(where / "another", None, 0.2)).put("first", b"1", None)
except (sqlite3.Error, OSError):
    pass
if mounted:
    (where / "ballast").unlink()
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert backend.clear("0") > 1
backend.put("second", b"2", None)
assert backend.get_many(["first", "second"]) == [b"1", b"2"]

# Read-only, then writable again. A mount is read-only for root too.
if mounted:
    fresh = Operations(DiskBackend(where / "cache", None, 0.2))
    backend.close()
    subprocess.run(["mount", "-o", "remount,ro", str(where)], check=True)
    for each in (backend, fresh):
        try:
            each.put("third", b"3", None)
        except (sqlite3.Error, OSError):
            pass
        else:
            raise SystemExit("it could write")
    subprocess.run(["mount", "-o", "remount,rw", str(where)], check=True)
    for each in (backend, fresh):
        each.put("third", b"3", None)
        assert each.get_many(["first", "third"]) == [b"1", b"3"]
print("fine", len(list((where / "cache").glob("*damaged*"))))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts and limits of Linux")
def test_a_full_or_read_only_file_system_is_an_error_until_there_is_room(tmp_path):
    """A real small file system where the test may mount one, else a limit on the size of files."""
    mounting = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=2m,mode=700 t "$0" && "$@"']
    command = [sys.executable, "-W", "error", "-c", FULL, str(tmp_path)]
    may = (
        shutil.which("unshare")
        and not subprocess.run(
            [*mounting, str(tmp_path), "true"], capture_output=True, check=False
        ).returncode
    )
    prefix = [*mounting, str(tmp_path)] if may else []
    done = subprocess.run(
        [*prefix, *command, "mounted" if may else "limited"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stderr, done.stdout) == ("", "fine 0\n")


def test_a_missing_package_is_told_with_what_to_install(tmp_path):
    script = """
import sys
for each in ("diskcache", "diskcache_community", "redis"):
    sys.modules[each] = None
for name in ("stores.disk", "clients.redis"):
    try:
        __import__("opero." + name)
    except ImportError as error:
        print(error)
"""
    printed = printed_by(script)
    assert "pip install 'diskcache>=5.6.3,<6' platformdirs" in printed
    assert "pip install 'redis>=5.0' platformdirs" in printed
