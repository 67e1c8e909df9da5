"""A child made by fork while refreshes run and wait makes its own, and the parent's go on."""

from __future__ import annotations

import os
import signal
import threading
import warnings

import common

from opero import opero
from opero.testing import manual_clock

warnings.simplefilter("ignore", DeprecationWarning)  # of fork in a process with threads

parent = os.getpid()
goes_on = threading.Event()
runs = []


@opero(retries=1, cache=True, cache_ttl=100, cache_refresh=20)
def function(key):
    """Hang in the parent's refreshes."""
    runs.append(key)
    if os.getpid() == parent and runs.count(key) > 1:
        goes_on.wait(20)
    return runs.count(key)


def in_child(work):
    """Do it in a child; fail if it fails or takes more than ten seconds."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status


def refreshes_all():
    """Begin a refresh of each value, and find the new ones."""
    for key in range(8):
        assert function(key) == 1
    common.until(lambda: all(function(key) == 2 for key in range(8)))


with manual_clock() as clock:
    for key in range(8):
        function(key)
    clock.advance(85)
    for key in range(8):
        function(key)
    common.until(lambda: len(runs) == 12)
    del runs[8:]  # in the child, too
    in_child(refreshes_all)
    in_child(lambda: (clock.advance(20), function(7)))  # nobody refreshes it: not to be waited for
    goes_on.set()
    common.until(lambda: all(function(key) > 0 for key in range(8)) and len(runs) == 12)
    in_child(lambda: [function(key) for key in range(8)])
