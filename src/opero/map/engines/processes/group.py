"""The process group of a worker, which contains what its attempts start: they end together."""

from __future__ import annotations

import os
import signal
import sys

from opero.real_time import monotonic_ns

from . import cells


class Group:
    """The group, as the worker sees it; `descendants` ends it from outside.

    The terminal's foreground group is that of the program, not this one: Ctrl-C goes to the
    program. A process that reads from the terminal here gets an error instead of being stopped for
    good.
    """

    def __init__(self, sentinel: int | None, numbers: memoryview) -> None:
        """Become the leader of a new group.

        Args:
            numbers: The numbers in the `Cells` of the worker.
            sentinel: A descriptor that closes when the process that the worker works for is gone.
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
        """Note that a job begins: processes started from now on belong to its attempts."""
        self._cells[cells.JOB] = monotonic_ns()
        if self._newest is not None:
            told = os.pread(self._newest, 99, 0)
            self._cells[cells.LAST] = int(told.rpartition(b" ")[2] or 0)

    def end_with_parent(self, all_of_it: bool) -> None:
        """On Linux, have the system end this process when its parent is gone.

        A watching thread cannot do that while the function is in C code that holds the GIL.

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
