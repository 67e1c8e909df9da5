"""A process that ends gives its leases back, so that the next one does not wait for the dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from crowd import Job, hanging_start, until

from opero import opero
from opero.stores import leases, renewer, secret

pytestmark = pytest.mark.once

SECRET = "a-secret-for-the-tests-of-stored-values"


HEAD = """
import asyncio, atexit, json, os, sys, threading, time
from opero import opero

def run(key):
    print("run", key, flush=True)
    if key == "fails":
        raise ConnectionError("down")
    if key == "exits":
        sys.exit(3)
    if key == "hangs":
        time.sleep(60)
    return key

async def arun(key):
    print("run", key, flush=True)
    if key == "hangs":
        await asyncio.sleep(60)
    return run(key)

store = json.loads(sys.argv[1])
run = opero(cache=True, retries=1, cache_namespace="exit", **store)(run)
arun = opero(cache=True, retries=1, cache_namespace="exit", **store)(arun)
"""

ENDS = {
    "failure": "run('fails')",
    "failure that is handled": """
        try: run('fails')
        except ConnectionError: pass
    """,
    "exit": "run('exits')",
    "daemon": """
        threading.Thread(target=run, args=('hangs',), daemon=True).start()
        time.sleep(0.5)
    """,
    "at exit": "atexit.register(lambda: run('fails'))",
    "task": "asyncio.run(arun('fails'))",
    "cancelled": """
        try: asyncio.run(asyncio.wait_for(arun('hangs'), 0.3))
        except TimeoutError: pass
    """,
    "loop that is left": """
        loop = asyncio.new_event_loop()
        task = loop.create_task(arun('hangs'))
        loop.run_until_complete(asyncio.sleep(0.3))
        loop.close()
    """,
    "fork": """
        import multiprocessing
        process = multiprocessing.get_context("fork").Process(target=run, args=("fails",))
        process.start(); process.join()
    """,
    "exit of a fork": """
        import multiprocessing
        process = multiprocessing.get_context("fork").Process(target=run, args=("exits",))
        process.start(); process.join()
    """,
    "daemon of a fork": """
        import multiprocessing
        def start():
            threading.Thread(target=run, args=('hangs',), daemon=True).start()
            time.sleep(0.5)
        process = multiprocessing.get_context("fork").Process(target=start)
        process.start(); process.join()
    """,
    "fork of a program that has a lease": """
        import multiprocessing
        threading.Thread(target=run, args=('hangs',), daemon=True).start()
        time.sleep(0.3)
        process = multiprocessing.get_context("fork").Process(target=run, args=("fails",))
        process.start(); process.join()
    """,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_process_that_ends_leaves_no_lease(tmp_path, monkeypatch, end):
    """However it ends, but for being killed."""
    check({"cache_backend": "disk", "cache_dir": str(tmp_path / "cache")}, end, monkeypatch)


@pytest.mark.redis
@pytest.mark.parametrize("end", ["failure", "daemon", "task"])
def test_nor_does_it_in_redis(redis_server, monkeypatch, end):
    redis_server.command("FLUSHALL")
    check({"cache_backend": "redis", "cache_url": redis_server.url}, end, monkeypatch)


def check(store, end, monkeypatch):
    monkeypatch.setenv(secret.VARIABLE, SECRET)
    program = HEAD + textwrap.dedent(ENDS[end])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, json.dumps(store)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,  # most end with a failure
    )
    assert "run " in done.stdout, done.stderr
    probe = opero(cache=True, retries=1, cache_namespace="exit", **store)(os.getcwd)
    stored = probe.__opero__.stored_cache
    operations = stored.store.operations
    prefix = stored.canonical.prefix("exit")
    left, _ = operations.ask("scan", prefix, leases.LEASE, "")
    assert left == [], done.stderr
    operations.close()


class Slow:
    """Operations on a store that answer late, or not at all."""

    def __init__(self, seconds=0.0):
        self.released = []
        self.seconds = seconds
        self.go = None

    def release(self, name, *_):
        if self.go is not None:
            self.go.wait(self.seconds)
        self.released.append(name)

    def renew(self, name, token, seconds, mark=None):
        return mark or leases.first_mark(token)


@pytest.fixture
def keeper(monkeypatch):
    """Return a renewer of its own, which nobody closes at the end of the interpreter."""
    monkeypatch.setattr(renewer, "_LINGER", 0.01)
    return renewer.Renewer()


def test_at_the_end_all_is_given_back_that_is_held_or_abandoned(keeper):
    store = Slow()
    for number in range(5):
        keeper.hold(store, f"held {number}", f"t{number}")
    keeper.abandon("t0")
    keeper.close()
    assert sorted(store.released) == [f"held {number}" for number in range(5)]
    until(lambda: keeper._thread is None)


def test_what_is_abandoned_after_the_end_is_given_back_at_once(keeper):
    store = Slow()
    keeper.close()
    keeper.hold(store, "late", "token")
    assert keeper._thread is None
    keeper.abandon("token")
    assert store.released == ["late"]
    keeper.give_back(store, "later", "other")
    assert store.released == ["late", "later"]


def test_a_store_that_hangs_does_not_keep_the_program_from_ending(keeper, monkeypatch):
    monkeypatch.setattr(renewer, "_PATIENCE", 0.05)
    store = Slow(20)
    store.go = threading.Event()
    keeper.hold(store, "name", "token")
    begun = time.monotonic()
    keeper.close()
    assert time.monotonic() - begun < 5
    store.go.set()
    until(lambda: store.released == ["name"])


def test_a_child_process_gives_back_nothing_of_its_parent(keeper):
    store = Slow()
    keeper.hold(store, "name", "token")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        keeper.after_fork()
        keeper.close()
        os.write(write, b"none" if store.released == [] else b"some")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 9) == b"none"
    os.close(read)
    os.close(write)
    keeper.close()
    assert store.released == ["name"]


def test_where_no_thread_can_be_started_leases_are_held_all_the_same(keeper, monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    store = Slow()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        keeper.hold(store, "name", "token")
        keeper.abandon("token")
    keeper.close()
    assert store.released == ["name"]


def test_a_start_that_hangs_keeps_nobody_waiting(keeper):
    """As after an exception that was thrown into it: leases expire, or the end gives them back."""
    store = Slow()
    with hanging_start("opero-leases") as hung:
        first = Job(keeper.hold, store, "first", "t1")
        until(lambda: hung)
        Job(keeper.hold, store, "second", "t2").wait()
        Job(keeper.abandon, "t2").wait()
        Job(keeper.close).result()
        assert sorted(store.released) == ["first", "second"]
        assert not first.over
    first.wait()
    until(lambda: keeper._thread is None and not hung[0].is_alive())


def test_a_thread_whose_start_was_interrupted_works_all_the_same(keeper, monkeypatch):
    """Whether it begins before that is noticed, or later, and only one does."""
    real = threading.Thread.start
    late = []

    def interrupt(thread):
        late.append(thread)
        raise KeyboardInterrupt

    store = Slow()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            keeper.hold(store, "name", "token")
    assert keeper._thread is None
    real(late[0])
    keeper.abandon("token")
    until(lambda: store.released == ["name"])
    until(lambda: keeper._thread is None and not late[0].is_alive())
