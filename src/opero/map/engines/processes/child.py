"""A process that this one or its fork server started: whether it runs, how it ended, how to end it.

The program may ignore SIGCHLD, or have a handler that waits for every child. Then nothing here can
find out how a child ended.
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
_LOOK = 0.05  # seconds between two checks of a process that sends no sign


class Child:
    """A process.

    Attributes:
        pid: Its id.
        sentinel: A descriptor that is readable once it has ended, and rarely before.
        exitcode: Its exit code, or the negative number of the signal; None if unknown.
        over: Whether it had ended at the last check.
        served: Whether the fork server started it.
    """

    def __init__(self, pid: int, sentinel: int, alive: int, served: bool) -> None:
        """Look after a process that has been started.

        Args:
            pid: Its id.
            sentinel: The reading end of a pipe that only it can write to.
            alive: The writing end of a pipe; its closing tells the process that we are gone.
            served: Whether the fork server started it, and writes its exit code to the pipe.
        """
        self.pid: int = pid
        self.sentinel: int = sentinel
        self.exitcode: int | None = None
        self.over: bool = False
        self._left = [sentinel, alive]
        self.served: bool = served

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for it to end; return whether it has."""
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
                return True  # and something else has its exit code
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
        """Kill it, if this process may."""
        if not self.wait(0):
            try:
                os.kill(self.pid, signal.SIGKILL)
            except (PermissionError, ProcessLookupError):
                pass

    def close(self) -> None:
        """Close its descriptors."""
        left, self._left = self._left, []
        for descriptor in left:
            os.close(descriptor)

    def __del__(self) -> None:
        # an interrupt may have prevented the call of `close`
        if not sys.is_finalizing():
            self.close()


def _is_ready(descriptor: int, timeout: float) -> bool:
    """Return whether a descriptor becomes readable within `timeout` seconds."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(timeout * 1000))


def _is_there(pid: int) -> bool:
    """Return whether a process is running that is not this one's child."""
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
