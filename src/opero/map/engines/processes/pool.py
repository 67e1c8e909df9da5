"""The worker processes of this process: started when they are wanted, kept warm between maps.

Whoever leases a worker has it alone. A worker ends by itself: when it has been idle for `IDLE`
seconds, and when the process that started it is gone. One that was forked or spawned, and has been
idle for too long, stays a zombie until the next map or the end of the program, as only this process
can take note of its end, and keeps no thread for that; what the fork server starts does not.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import weakref
from multiprocessing import connection, heap, process, util
from typing import Any

from opero import forks
from opero.exceptions import WorkerCrashedError
from opero.locks import Lock

from . import start, worker
from .wire import Channel

IDLE = 10.0
"""Seconds after which an idle worker ends."""

_GRACE = 1.0  # seconds that a worker gets to end, before it is killed

_lock = Lock()
_idle: dict[str, list[Worker]] = {}
_all: weakref.WeakSet[Worker] = weakref.WeakSet()
_numbers = itertools.count(1)
_owners: set[int] = set()


class Worker:
    """A worker process, as seen from here.

    Attributes:
        channel: The way to it and back; it does not block.
        cells: Memory that both share: the place of the attempt under way (or one of the states
            in `worker`), and when it began, in nanoseconds.
        process: The process.
        fresh: Whether it has never done a job.
    """

    def __init__(self, method: str) -> None:
        self.method = method
        self.fresh = True
        ours, theirs = socket.socketpair()
        self.channel: Channel = Channel(ours)
        try:
            ours.setblocking(False)
            self._block = heap.BufferWrapper(16)
            self.cells: memoryview[int] = self._block.create_memoryview().cast("q")
            _all.add(self)  # from here on, a forked child closes our end
            self.process: Any = start.kind_of(method)(
                target=worker.main,
                args=(theirs, self._block, IDLE),
                name=f"opero-worker-{next(_numbers)}",
                daemon=False,
            )
            with start.undisturbed():
                self.process.start()
        except BaseException:
            _all.discard(self)
            ours.close()
            raise
        finally:
            theirs.close()
        # it is nobody else's child: nobody is to find it, to wait for it or to end it
        getattr(process, "_children", set()).discard(self.process)

    @property
    def responds(self) -> bool:
        """Whether an idle worker is still there."""
        try:
            return bool(self.channel.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def kill(self) -> None:
        """Let it end at once."""
        self.process.kill()

    def bury(self, grace: float = 0.1) -> WorkerCrashedError:
        """See a worker off that has closed its end or was killed; return what became of it.

        Args:
            grace: Seconds that it gets to end, before it is killed.
        """
        connection.wait([self.process.sentinel], grace)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        code = self.process.exitcode
        self.channel.close()
        self.process.close()
        with _lock:
            _all.discard(self)
        name = None
        if code is not None and code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
        how = f"was ended by {name}" if name else f"ended with exit code {code}"
        return WorkerCrashedError(
            f"the worker process {how} in the middle of an attempt", code, name
        )


def lease(method: str) -> Worker:
    """Return a worker that is nobody else's until `give_back`."""
    with _lock:
        if os.getpid() not in _owners:
            _owners.add(os.getpid())
            util.Finalize(None, shut, exitpriority=1000)
        _see_off()
        idle = _idle.setdefault(method, [])
        return idle.pop() if idle else Worker(method)


def give_back(leased: Worker) -> None:
    """Put a worker back that has nothing to do."""
    with _lock:
        _see_off()
        _idle.setdefault(leased.method, []).append(leased)


def _see_off() -> None:
    """Forget the idle workers that have ended; the lock is held."""
    for idle in _idle.values():
        for each in [each for each in idle if not each.responds]:
            idle.remove(each)
            each.bury()


def shut() -> None:
    """End the idle workers of this process; one at work ends once nobody is there any more."""
    with _lock:
        idle = [each for some in _idle.values() for each in some]
        _idle.clear()
    for each in idle:
        each.channel.close()  # it takes that for the end
    for each in idle:
        each.bury(_GRACE)


def _forget() -> None:
    """In a forked child: the workers are the parent's."""
    global _lock  # noqa: PLW0603 - nobody releases the old one in this process
    _lock = Lock()
    for each in _all:
        each.channel.close()
    _all.clear()
    _idle.clear()
    start.forget_server()


forks.register(
    "workers",
    before=lambda: _lock.acquire(),  # noqa: PLW0108 - it is another one after a fork
    after_in_parent=lambda: _lock.release(),  # noqa: PLW0108
    after_in_child=_forget,
)
