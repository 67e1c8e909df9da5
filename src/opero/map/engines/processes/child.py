"""A process that was started here, or by our fork server: whether it runs, how it ended, its end.

The program may take no note of its children's ends, or let somebody else do that (SIGCHLD is
ignored, a handler waits for every child): then nobody here learns how one has ended.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import sys
import time

from opero.real_time import monotonic

_NUMBER = struct.Struct("q")
_LOOK = 0.05  # seconds between two looks at a process that gives no sign


class Child:
    """A process.

    Attributes:
        pid: Its id.
        sentinel: A descriptor that is ready to be read once it has ended, and rarely before.
        exitcode: Its exit code, or the signal's number, negative; None if it is not known.
        over: Whether it has ended, as far as it was looked at.
        served: Whether the fork server has started it.
    """

    def __init__(self, pid: int, sentinel: int, alive: int, served: bool) -> None:
        """Look after a process that has been started.

        Args:
            pid: Its id.
            sentinel: The end to read from of a pipe that nobody but it can write to.
            alive: The end to write to of a pipe, by whose closing it learns that we are gone.
            served: Whether the fork server has started it, and writes its exit code to the pipe.
        """
        self.pid: int = pid
        self.sentinel: int = sentinel
        self.exitcode: int | None = None
        self.over: bool = False
        self._left = [sentinel, alive]
        self.served: bool = served

    def wait(self, timeout: float) -> bool:
        """Wait for its end; return whether it has come within so many seconds."""
        end = monotonic() + timeout
        while not (self.over or self._look()):
            left = end - monotonic()
            if left <= 0:
                return False
            if _is_ready(self.sentinel, min(left, _LOOK)):
                time.sleep(min(left, 0.001))  # it is about to end, or the fork server is gone
        self.over = True
        return True

    def _look(self) -> bool:
        """Return whether it has ended, and keep its exit code."""
        if not self.served:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                return True  # and somebody else knows how
            if pid:
                self.exitcode = os.waitstatus_to_exitcode(status)
            return bool(pid)
        if not _is_ready(self.sentinel, 0):
            return False
        told = os.read(self.sentinel, _NUMBER.size)
        if told:
            (self.exitcode,) = _NUMBER.unpack(told)
            return True
        return not _is_there(self.pid)  # the fork server is gone

    def kill(self) -> None:
        """End it at once, if it is ours to end."""
        if not self.wait(0):
            try:
                os.kill(self.pid, signal.SIGKILL)
            except (PermissionError, ProcessLookupError):
                pass

    def close(self) -> None:
        """Close what it was looked after by."""
        left, self._left = self._left, []
        for descriptor in left:
            os.close(descriptor)

    def __del__(self) -> None:
        # an interrupt may have come before the call of `close`
        if not sys.is_finalizing():
            self.close()


def _is_ready(descriptor: int, timeout: float) -> bool:
    """Return whether a descriptor can be read within so many seconds."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(timeout * 1000))


def _is_there(pid: int) -> bool:
    """Return whether a process runs that is nobody's child here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return True  # another system
