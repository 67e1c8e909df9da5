"""opero's own fork server: a process that has opero imported, and forks to make workers.

It survives more than the standard library's. Requests come over an unnamed pair of sockets, so it
needs no directory, and no path can be too long. If it cannot fork, or cannot open more files, it
reports that and continues. Its forks never run the script that runs as `__main__`.
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
# Programs frozen by PyInstaller recognize a fork server by these first words.
_COMMAND = (
    "from multiprocessing.forkserver import main; import sys; sys.path[:] = {path!r}; "
    "from opero.map.engines.processes.forkserver import main; main({number})"
)


class ServerGone(Exception):
    """The fork server has ended; the next request starts a new one."""


class ForkServer:
    """The fork server of this process; it starts when it is needed."""

    def __init__(self) -> None:
        self._end: int | None = None  # the number of a socket, which may stay open at exit
        self._pid: int = 0
        self._limits: dict[str, int] = {}

    def fork(self, descriptors: list[int]) -> int:
        """Fork a worker.

        Args:
            descriptors: The descriptors to give it; see `_Served`.

        Returns:
            Its process id.

        Raises:
            OSError: If the server or the worker cannot start.
            ServerGone: If the server has ended.
        """
        if self._end is None:
            self._start()
        end = socket.socket(fileno=self._end)
        end.settimeout(None)  # the program may have set a default timeout
        try:
            socket.send_fds(end, [b"!"], descriptors)
            answer = end.recv(_NUMBER.size, socket.MSG_WAITALL)
        except ConnectionError:
            answer = b""
        except BaseException:
            self.close()  # the next request would read its answer
            raise
        finally:
            end.detach()
        if len(answer) < _NUMBER.size:
            self.close()
            raise ServerGone
        (number,) = _NUMBER.unpack(answer)
        if number < 0:
            if limits() != self._limits:
                self.close()  # it started under a lower limit than this process has now
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
        """End the server, if it runs; its workers stay."""
        end, self._end = self._end, None
        if end is None:
            return
        os.close(end)  # this tells it to end, if we may not kill it
        try:
            os.kill(self._pid, signal.SIGKILL)
        except (PermissionError, ProcessLookupError):
            pass
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass  # something else has reaped it

    def forget(self) -> None:
        """Leave the server to the parent, in a forked child."""
        if self._end is not None:
            os.close(self._end)
            self._end = None


# --- in the server --------------------------------------------------------------------------------

inherited: list[int] = []
"""The descriptors that came with the request for this worker."""


def main(number: int) -> None:
    """Serve until the process that started the server closes its end.

    Args:
        number: The descriptor of the socket that brings the requests.
    """
    std_streams.fill()
    import opero.map.engines.processes.worker
    import opero.map.serialization.cloud  # noqa: F401 - once here, for all workers

    util._close_stdin()  # type: ignore[attr-defined]
    with socket.socket(fileno=number) as end:
        end.settimeout(None)
        end.set_inheritable(False)
        _Serving(end).serve()


class _Serving:
    """The running server: it forks on request, and reports how each worker ended."""

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
        self._tell: dict[int, int] = {}  # where to write how each worker ended
        self._selector = selectors.DefaultSelector()
        self._selector.register(end, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)

    def serve(self) -> None:
        """Serve requests until the process that sends them is gone."""
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
        """Fork, and send the child's process id, or the negative error number."""
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
        """Report how the workers that have ended did so."""
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
                pass  # nobody reads it any more
            os.close(tell)

    def _become_worker(self, received: list[int]) -> NoReturn:
        """Run as a worker in the child, then end."""
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
            alive = os.dup(orders)  # it closes when the requesting process is gone
            code = spawn._main(orders, alive)
        except EOFError:
            pass  # the requesting process is gone
        except Exception:  # noqa: BLE001 - printed as any process prints it
            sys.excepthook(*sys.exc_info())
        finally:
            std_streams.flush()
            os._exit(code)
