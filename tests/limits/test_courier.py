"""The thread that tells a Redis of breakers: how it starts, where it cannot, and where that hangs."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from crowd import Job, hanging_start, until

from opero.limits import redis_breaker

pytestmark = pytest.mark.once


@pytest.fixture
def courier(monkeypatch):
    """Return a courier for one test."""
    monkeypatch.setattr(redis_breaker, "_LINGER", 0.01)
    return redis_breaker._Courier()


class Record:
    """A record that counts its exchanges."""

    def __init__(self):
        self.gate = SimpleNamespace(due=True)
        self.exchanges = 0

    def exchange(self):
        self.exchanges += 1


def test_a_start_that_hangs_keeps_nobody_waiting(courier):
    """An exception thrown into a start may make it hang."""
    records = [Record(), Record()]
    with hanging_start("opero-breakers") as hung:
        first = Job(courier.post, records[0])
        until(lambda: hung)
        Job(courier.post, records[1]).result()
        Job(courier.end).result()
        assert not first.over
    first.result()
    until(lambda: courier._thread is None and not hung[0].is_alive())
    assert [record.exchanges for record in records] == [1, 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_no_thread_was_started_for_is_due_again(courier, monkeypatch, error):
    """The next call of such a breaker starts a thread."""

    def refuse(_):
        raise error

    record = Record()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        if error is RuntimeError:
            courier.post(record)
        else:
            with pytest.raises(error):
                courier.post(record)
    assert (record.gate.due, record.exchanges) == (False, 0)
    courier.post(record)
    until(lambda: record.exchanges == 1 and courier._thread is None)
    courier.end()
