"""A fork server of this package's own: a process that has it imported, and forks into workers.

It differs from the standard library's in what it survives. It is asked over a nameless pair of
sockets, so it needs no directory, and no path is too long. If it cannot fork, or has no room for
more files, it says so and goes on. What it is forked into has no part in the script that runs as
`__main__`.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import struct
import sys
from multiprocessing import resource_tracker, spawn, util
from typing import Any, NoReturn

from opero.map import std_streams

from .shortage import limits

_NUMBER = struct.Struct("q")
_MOST = 32  # descriptors that come with one request
# Programs that PyInstaller has frozen know a fork server by these first words.
_COMMAND = (
    "from multiprocessing.forkserver import main; import sys; sys.path[:] = {path!r}; "
    "from opero.map.engines.processes.forkserver import main; main({number})"
)


class ServerGone(Exception):
    """The fork server has ended; the next request starts another one."""


class ForkServer:
    """The fork server of this process, started when it is needed."""

    def __init__(self) -> None:
        self._end: int | None = None  # a socket's number, which may stay open at exit
        self._pid: int = 0
        self._limits: dict[str, int] = {}

    def fork(self, descriptors: list[int]) -> int:
        """Have a worker forked.

        Args:
            descriptors: What it gets: see `_Served`.

        Returns:
            The id of its process.

        Raises:
            OSError: If the server, or it, cannot be started.
            ServerGone: If the server has ended.
        """
        if self._end is None:
            self._start()
        end = socket.socket(fileno=self._end)
        end.settimeout(None)  # the program may have set one for all sockets
        try:
            socket.send_fds(end, [b"!"], descriptors)
            answer = end.recv(_NUMBER.size, socket.MSG_WAITALL)
        except ConnectionError:
            answer = b""
        except BaseException:
            self.close()  # its answer would be taken for that to the next request
            raise
        finally:
            end.detach()
        if len(answer) < _NUMBER.size:
            self.close()
            raise ServerGone
        (number,) = _NUMBER.unpack(answer)
        if number < 0:
            if limits() != self._limits:
                self.close()  # it began when this process, too, was allowed less
            raise OSError(-number, os.strerror(-number))
        return int(number)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        command = _COMMAND.format(path=list(map(str, sys.path)), number=theirs.fileno())
        program: Any = spawn.get_executable()
        arguments = [program, *util._args_from_interpreter_flags(), "-c", command]  # type: ignore[attr-defined]
        try:
            self._pid = util.spawnv_passfds(program, arguments, [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._end = ours.detach()
        self._limits = limits()

    def close(self) -> None:
        """End the server, if there is one; its workers stay."""
        end, self._end = self._end, None
        if end is None:
            return
        os.close(end)  # it takes that for the end, if it must not be killed by us
        try:
            os.kill(self._pid, signal.SIGKILL)
        except (PermissionError, ProcessLookupError):
            pass
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # somebody else has taken note of its end

    def forget(self) -> None:
        """In a forked child: leave the server to the parent."""
        if self._end is not None:
            os.close(self._end)
            self._end = None


# --- in the server --------------------------------------------------------------------------------

inherited: list[int] = []
"""The descriptors that came with the request that this process was forked for."""


def main(number: int) -> None:
    """Be the server, until the process that has started it closes its end.

    Args:
        number: The descriptor of the socket that requests come by.
    """
    std_streams.fill()
    import opero.map.engines.processes.worker
    import opero.map.serialization.cloud  # noqa: F401 - here, so that no worker has to

    util._close_stdin()  # type: ignore[attr-defined]
    with socket.socket(fileno=number) as end:
        end.settimeout(None)
        end.set_inheritable(False)
        _Serving(end).serve()


class _Serving:
    """The server at work: it forks when it is asked to, and tells how each worker has ended."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._bell, self._ring = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._ring, False)
        self._before = {
            signal.SIGCHLD: signal.signal(signal.SIGCHLD, lambda *_: None),
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        }
        signal.set_wakeup_fd(self._ring)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        self._tell: dict[int, int] = {}  # where to write what became of a worker
        self._selector = selectors.DefaultSelector()
        self._selector.register(end, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)

    def serve(self) -> None:
        """Do what is asked for, until nobody is there to ask."""
        while True:
            ready = {key.fd for key, _ in self._selector.select()}
            if self._bell in ready:
                os.read(self._bell, 65536)
                self._take_note()
            if self._end.fileno() in ready:
                try:
                    asked, received, flags, _ = socket.recv_fds(self._end, 1, _MOST)
                except ConnectionError:
                    return
                if not asked:
                    return
                self._answer(received, bool(flags & socket.MSG_CTRUNC))

    def _answer(self, received: list[int], cut: bool) -> None:
        """Fork, and send the child's id, or the error's number, negative."""
        try:
            if cut:
                raise OSError(errno.EMFILE, "not all descriptors arrived")
            pid = os.fork()
            if not pid:
                self._become_worker(received)
            self._tell[pid] = received.pop(1)
            answer = pid
        except OSError as error:
            answer = -(error.errno or errno.EIO)
        for descriptor in received:
            os.close(descriptor)
        try:
            self._end.sendall(_NUMBER.pack(answer))
        except ConnectionError:
            pass  # it is gone

    def _take_note(self) -> None:
        """Tell how those have ended that have."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            tell = self._tell.pop(pid, None)
            if tell is None:
                continue
            try:
                os.write(tell, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
            except BrokenPipeError:
                pass  # nobody wants to know
            os.close(tell)

    def _become_worker(self, received: list[int]) -> NoReturn:
        """In the child: be a worker, and end."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._selector.close()
            self._end.close()
            orders, status, tracker, *inherited[:] = received
            for descriptor in (self._bell, self._ring, status, *self._tell.values()):
                os.close(descriptor)
            for descriptor in received[3:]:
                os.set_inheritable(descriptor, False)
            resource_tracker._resource_tracker._fd = tracker  # type: ignore[attr-defined]
            alive = os.dup(orders)  # it is at its end when the process that asked is gone
            code = spawn._main(orders, alive)
        except EOFError:
            pass  # who asked is gone
        except Exception:  # noqa: BLE001 - shown as any process shows it
            sys.excepthook(*sys.exc_info())
        finally:
            std_streams.flush()
            os._exit(code)
