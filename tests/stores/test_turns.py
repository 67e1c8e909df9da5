"""The turns of threads that write: each that waits gets one, and no interrupt keeps one."""

from __future__ import annotations

import pytest
from crowd import Job, until

from opero.stores import turns
from opero.stores.turns import Turns

pytestmark = pytest.mark.once


class Writer:
    """Stands for the connection of a thread."""

    closed = False


def waiting(line):
    """Return how many wait."""
    return len(line._waiting)


def test_a_free_turn_is_taken_at_once_and_again():
    line, one, two = Turns(), Writer(), Writer()
    for writer in (one, two, one, one):
        assert line.take(writer, 0)
        line.give(writer)


def test_those_who_wait_come_in_the_order_they_came(monkeypatch):
    """Once they have waited for a moment, which is over at once here."""
    monkeypatch.setattr(turns, "FAIR", -1.0)
    line, first, order = Turns(), Writer(), []
    assert line.take(first, 0)

    def write(which):
        writer = Writer()
        assert line.take(writer, 20)
        order.append(which)
        line.give(writer)

    jobs = []
    for which in range(5):
        jobs.append(Job(write, which))
        until(lambda which=which: waiting(line) == which + 1)
    line.give(first)
    for job in jobs:
        job.result()
    assert order == list(range(5))


def test_a_thread_that_writes_on_goes_before_one_that_has_just_come(monkeypatch):
    """To wake another one for each value would cost more than the value."""
    monkeypatch.setattr(turns, "FAIR", 1000.0)
    monkeypatch.setattr(turns, "LOOK", 1000.0)
    line, one = Turns(), Writer()
    assert line.take(one, 0)
    job = Job(line.take, Writer(), 20)
    until(lambda: waiting(line) == 1)
    line._turn = None
    assert line.take(one, 0)
    line.give(one)
    assert job.result() is True


def test_one_that_waits_in_vain_leaves_no_place_behind():
    line, one = Turns(), Writer()
    assert line.take(one, 0)
    assert not line.take(Writer(), 0.01)
    assert waiting(line) == 0
    line.give(one)
    assert line.take(Writer(), 0)


def test_a_connection_that_was_closed_has_no_turn_and_no_place():
    """As after an exception between two steps, which a signal handler or another thread raised."""
    line, one, two = Turns(), Writer(), Writer()
    assert line.take(one, 0)
    one.closed = True
    assert line.take(two, 0)
    lost = turns._Place(Writer())
    lost.connection.closed = True
    line._waiting.append(lost)
    job = Job(line.take, Writer(), 20)
    until(lambda: lost not in line._waiting and waiting(line) == 1)
    line.give(two)
    assert job.result() is True
    assert waiting(line) == 0


def test_only_the_one_whose_turn_it_is_ends_it():
    line, one = Turns(), Writer()
    assert line.take(one, 0)
    line.give(Writer())
    assert not line.take(Writer(), 0)
