"""The lock that no interrupt leaves taken."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from crowd import Job, hurried_switching

import opero
from opero.locks import Lock

pytestmark = pytest.mark.once


def test_one_thread_at_a_time_has_it_as_often_as_it_likes() -> None:
    """It is a mutex, and reentrant."""
    lock = Lock()
    with lock, lock:
        other = Job(lock.acquire, False)
        assert other.result() is False
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    with pytest.raises(RuntimeError):
        lock.release()


def test_a_thread_that_is_interrupted_at_any_moment_gives_it_back() -> None:
    """A lock of the standard library would stay taken within a hundred rounds, on Python 3.14."""
    lock = Lock()
    ready = False

    def take_over_and_over() -> None:
        nonlocal ready
        ready = True
        while True:
            with lock:
                pass

    with hurried_switching(1e-5):
        for _ in range(500):
            ready = False
            job = Job(take_over_and_over)
            while not ready:
                time.sleep(0.0001)
            job.interrupt()
            job.wait()
            assert isinstance(job.error, KeyboardInterrupt)
            assert lock.acquire(timeout=5)  # this is another thread
            lock.release()


def test_no_lock_of_the_standard_library_is_taken_by_with() -> None:
    """Where there is one, it is a bell that a thread waits for."""
    made = re.compile(r"(\w+)(?:: \w+)? = .*\bthreading\.R?Lock\(\)")
    here = Path(opero.__file__).parent
    names = {
        name
        for path in here.rglob("*.py")
        if path.name != "locks.py"
        for name in made.findall(path.read_text(encoding="utf-8"))
    }
    assert names == {"bell", "_bell", "lock"}  # the last is for tqdm, which takes it
