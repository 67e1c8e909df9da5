"""The process group of a worker, which what its attempts start is in: they end together."""

from __future__ import annotations

import os
import signal
import sys

from opero.real_time import monotonic_ns

from . import cells


class Group:
    """The group, as the worker sees it; `descendants` sees to it from outside.

    Terminals know the group of the program that maps, and not this one: Ctrl-C is for the program.
    What reads from the terminal here gets an error instead of being stopped for good.
    """

    def __init__(self, sentinel: int | None, numbers: memoryview) -> None:
        """Lead it.

        Args:
            numbers: Those in the `Cells` of the worker.
            sentinel: What is at its end when the process that the worker works for is gone.
        """
        self._sentinel = sentinel
        self._cells = numbers
        self._leads = False
        self._newest: int | None = None
        if sys.platform == "win32":
            return
        try:
            os.setpgid(0, 0)
        except OSError:
            return
        self._leads = True
        if sentinel is not None:
            os.set_inheritable(sentinel, False)
        if os.path.exists("/proc/loadavg"):  # noqa: PTH110 - as fast as can be
            self._newest = os.open("/proc/loadavg", os.O_RDONLY)
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        self.end_with_parent(False)

    def begin(self) -> None:
        """Note that a job begins: what is started from now on is started by its attempts."""
        self._cells[cells.JOB] = monotonic_ns()
        if self._newest is not None:
            told = os.pread(self._newest, 99, 0)
            self._cells[cells.LAST] = int(told.rpartition(b" ")[2] or 0)

    def end_with_parent(self, all_of_it: bool) -> None:
        """Have the system end this process when its parent is gone, on Linux.

        A thread that watches cannot do that while the function is in C code that keeps the
        interpreter to itself.

        Args:
            all_of_it: Whether the whole group ends.
        """
        if self._sentinel is None:
            return
        try:
            import fcntl

            whom = -os.getpid() if all_of_it and self._leads else os.getpid()
            fcntl.fcntl(self._sentinel, fcntl.F_SETOWN, whom)
            fcntl.fcntl(self._sentinel, fcntl.F_SETSIG, signal.SIGKILL)
            flags = fcntl.fcntl(self._sentinel, fcntl.F_GETFL)
            fcntl.fcntl(self._sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
        except (ImportError, AttributeError, OSError):
            pass  # another system

    def end(self) -> None:
        """End all of it, this process too."""
        if self._leads:
            os.killpg(0, signal.SIGKILL)
        os._exit(1)
