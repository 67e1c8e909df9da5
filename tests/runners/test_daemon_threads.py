"""The threads that refresh values and ask stores: how they start, and what becomes of their jobs."""

from __future__ import annotations

import threading
import time

import pytest
from crowd import Job, together, until

from opero import opero
from opero.runners import background, daemon_threads
from opero.runners.refreshes import Refresh
from opero.stores.in_threads import Executor

pytestmark = pytest.mark.once

NAME = "opero-test"


@pytest.fixture(autouse=True)
def no_linger(monkeypatch):
    """Let no thread outlive its test."""
    monkeypatch.setattr(daemon_threads, "_LINGER", 0.01)


class Counted(Refresh):
    """A refresh that counts its runs and its ends."""

    __slots__ = ("given_back", "led")

    def __init__(self):
        super().__init__(opero(lambda: None).__opero__, (), {})
        self.given_back = self.led = 0

    def claim(self):
        return True

    def give_back(self):
        self.given_back += 1

    def lead(self):
        self.led += 1


def test_a_start_that_hangs_keeps_no_other_caller_waiting(monkeypatch):
    """As after an exception thrown into `start`: another thread does both jobs."""
    go = threading.Event()
    hung = []
    real = threading.Thread.start

    def start(thread):
        if thread.name == NAME and not hung:
            hung.append(thread)
            go.wait(20)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    executor = Executor(NAME, 1)
    done = []
    first = Job(executor.submit, lambda: done.append("first"))
    until(lambda: hung)
    try:
        second = Job(executor.submit, lambda: done.append("second"))
        second.result().result(20)
        assert done == ["first", "second"]
        assert not first.over
        executor.finish()
    finally:
        go.set()
    first.result().result(20)
    until(lambda: not executor._threads and not hung[0].is_alive())


def test_no_more_threads_work_than_there_may_be():
    """Even if many callers start threads at the same moment."""
    executor = Executor(NAME, 2)
    now = []
    most = []

    def work():
        now.append(None)
        most.append(len(now))
        time.sleep(0.001)
        now.pop()

    jobs = together(8, lambda _: [executor.submit(work) for _ in range(5)])
    for job in jobs:
        for future in job.result():
            future.result(20)
    assert max(most) <= 2
    until(lambda: not executor._threads)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_refresh_whose_thread_is_not_started_is_given_back(monkeypatch, error):
    def refuse(_):
        raise error

    threads = background.Background()
    refresh = Counted()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(error):
            threads.offer(refresh)
    assert (refresh.given_back, refresh.led, len(threads._waiting)) == (1, 0, 0)


def test_a_refresh_that_has_begun_is_not_given_back_if_its_start_is_interrupted(monkeypatch):
    real = threading.Thread.start
    refresh = Counted()

    def start(thread):
        real(thread)
        until(lambda: refresh.led)
        raise KeyboardInterrupt

    threads = background.Background()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(KeyboardInterrupt):
            threads.offer(refresh)
    until(lambda: not threads._threads)
    assert (refresh.given_back, refresh.led) == (0, 1)
