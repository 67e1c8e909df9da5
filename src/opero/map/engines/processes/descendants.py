"""The programs and processes that attempts have started, and that end with them.

Each worker leads its own process group, which contains what it starts, unless that leaves the
group. So the system knows the members even after the worker has crashed. Before a worker is killed,
its children and their children are known too, whatever group they are in.

Processes that an earlier, normally ended attempt left running stay: on Linux the system reports
when a process began. Elsewhere the whole group ends. On Windows only the worker ends.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import NamedTuple

from opero.real_time import monotonic_ns


class Since(NamedTuple):
    """A moment.

    Attributes:
        moment: The moment, in nanoseconds of `monotonic_ns`.
        newest: The process that the system had started last; 0 if unknown.
    """

    moment: int
    newest: int


class _Process(NamedTuple):
    pid: int
    parent: int
    group: int
    began: int

    def is_since(self, tick: int, newest: int) -> bool:
        """Return whether it began after a clock tick, or in that tick but after a process."""
        later = self.pid > newest or newest - self.pid > _WRAPPED
        return self.began > tick or (self.began == tick and later)


_WRAPPED = 1 << 14
"""The least by which process ids drop when they wrap around."""


def end(leader: int, since: Since) -> None:
    """End what a worker has started since a moment; the caller ends the worker next.

    Args:
        leader: The worker's process id; the worker must be running.
        since: The moment.
    """
    if not sys.platform.startswith("linux"):
        end_group(leader, since)
    elif _has_children(leader):
        _send(leader, signal.SIGSTOP)  # so that it starts no more
        _end_all(leader, since)


def end_group(leader: int, since: Since) -> None:
    """End what a dead worker has started since a moment."""
    if sys.platform == "win32":
        return
    try:
        os.killpg(leader, 0)
    except (PermissionError, ProcessLookupError):
        return  # the group is empty
    if sys.platform.startswith("linux") and _processes():
        _end_all(leader, since)
    else:
        with suppress(PermissionError, ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)


def _end_all(leader: int, since: Since) -> None:
    """Stop all that a worker has started since a moment, then end it."""
    tick = _tick(since.moment)
    stopped: set[int] = set()
    while new := _started_by(leader, tick, since.newest) - stopped:
        for pid in new:
            _send(pid, signal.SIGSTOP)
        stopped |= new
    for pid in stopped:
        _send(pid, signal.SIGKILL)


def _started_by(leader: int, tick: int, newest: int) -> set[int]:
    """Return what a worker has started since a moment, directly or through what it started.

    What an older process has started belongs to that process, not to the worker.
    """
    known = {each.pid: each for each in _processes()}
    below: dict[int, list[_Process]] = {}
    for each in known.values():
        parent = known.get(each.parent)
        orphan = each.group == leader and (parent is None or parent.group != leader)
        if each.pid != leader:
            below.setdefault(leader if orphan else each.parent, []).append(each)
    found: set[int] = set()
    left = [leader]
    while left:
        for each in below.get(left.pop(), ()):
            if each.is_since(tick, newest) and each.pid not in found:
                found.add(each.pid)
                left.append(each.pid)
    return found


def _processes() -> list[_Process]:
    """Return all living processes of the machine, where the system lists them."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():  # noqa: PTH112, PTH208
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - there are thousands
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if fields[0] not in {b"Z", b"X"}:
            found.append(_Process(int(name), int(fields[1]), int(fields[2]), int(fields[19])))
    return found


def _has_children(pid: int) -> bool:
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
        for thread in threads:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123
                if file.read(1):
                    return True
    except OSError:
        return True  # it is gone, or this system does not report it
    return False


def _tick(moment: int) -> int:
    """Return a moment in the unit in which the system reports when a process began."""
    ago = monotonic_ns() - moment
    return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ago) * os.sysconf("SC_CLK_TCK") // 10**9


def _send(pid: int, number: int) -> None:
    with suppress(PermissionError, ProcessLookupError):
        os.kill(pid, number)
