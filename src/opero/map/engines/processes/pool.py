"""The worker processes of this process: started on demand, kept warm between maps.

A leased worker belongs to one map. A worker ends when it has been idle for `IDLE` seconds, or when
the process that started it is gone. A forked or spawned worker that ended because it was idle stays
a zombie until the next map or the end of the program: only this process can reap it, and it has no
thread for that. Workers of the fork server do not become zombies.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import weakref
from collections.abc import Callable
from multiprocessing import resource_tracker, util
from typing import Any

from opero import forks
from opero.exceptions import WorkerCrashedError
from opero.locks import Lock
from opero.map import std_streams
from opero.real_time import monotonic

from . import descendants, frozen, start, worker, worker_end
from .cells import Cells
from .descendants import Since
from .shortage import Shortage, shortage
from .wire import Channel

IDLE = 10.0
"""Seconds after which an idle worker ends."""

_GRACE = worker_end.LIMIT + 1  # seconds that workers get to end, before they are killed
_MANY = 16  # idle workers that may stay while another one is started
_PROMPT = 10.0  # seconds that the system gets to end a worker that was killed

Kind = tuple[Any, ...]
"""The common properties of interchangeable workers: their start method, their user, and what set
them up."""

_lock = Lock()
_idle: dict[Kind, list[Worker]] = {}
_leaving: list[tuple[Worker, float]] = []
_all: weakref.WeakSet[Worker] = weakref.WeakSet()
_numbers = itertools.count(1)
_owners: set[int] = set()
_server_of: tuple[Any, ...] | None = None  # as whom the fork server runs


class Worker:
    """A worker process, as seen from here.

    Attributes:
        channel: The way to it and back; it does not block.
        cells: Memory that both share, with the numbers that `cells` names; the first may be one of
            the states in `worker`.
        process: The process.
        kind: What it can stand in for.
        fresh: Whether it has never done a job.
        ready: Whether it has prepared itself for the map, if it was asked to do so.
        items: How many items it was given in its life.
        busy: How long it took for them, in nanoseconds.
        begun: When it was asked to prepare itself, in nanoseconds.
        since: Since when it has been idle, in seconds.
        rows: The number of the modules' rows that it has got last; None before the first.
    """

    def __init__(self, kind: Kind) -> None:
        """Start it.

        Raises:
            OperoError: If it cannot be started; a `Shortage` if it may be in a while.
        """
        frozen.refuse_to_multiply()
        self.kind = kind
        self.fresh = True
        self.ready = True
        self.items = 0
        self.busy = 0
        self.begun = 0
        self.since: float = 0.0
        self.rows: int | None = None
        try:
            with std_streams.filled():
                _check_room()
                self._start(kind[0])
        except OSError as error:
            raise shortage(error, "a worker process cannot be started") from error

    def _start(self, method: str) -> None:
        ours, theirs = socket.socketpair()
        self.channel: Channel = Channel(ours)
        memory = None
        try:
            ours.setblocking(False)
            memory = Cells()
            self.cells: memoryview[int] = memory.numbers
            _all.add(self)  # from here on, a forked child closes our end
            args = theirs, memory, IDLE
            name = f"opero-worker-{next(_numbers)}"
            self.process: start.Child = start.launch(method, worker.main, args, name)
        except BaseException:
            _all.discard(self)
            ours.close()
            raise
        finally:
            theirs.close()
            if memory is not None:
                memory.close()

    @property
    def responds(self) -> bool:
        """Whether an idle worker is still there."""
        try:
            return bool(self.channel.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def kill(self, since: Since | None = None) -> None:
        """Let it end at once.

        Args:
            since: What it has started since then ends as well.
        """
        if since is not None and not self.process.wait(0):
            descendants.end(self.process.pid, since)
        self.process.kill()

    def bury(self, grace: float = 0.1, since: Since | None = None) -> WorkerCrashedError:
        """See a worker off that has closed its end or was killed; return what became of it.

        Args:
            grace: Seconds that it gets to end, before it is killed.
            since: What it has started since then ends as well.
        """
        if not self.process.wait(grace):
            self.process.kill()
            self.process.wait(_PROMPT)
        if since is not None:
            descendants.end_group(self.process.pid, since)
        self.channel.close()
        self.process.close()
        with _lock:
            _all.discard(self)
        return _crashed(self.process.exitcode, self.process.served)


def _crashed(code: int | None, served: bool) -> WorkerCrashedError:
    """Return the error of an attempt whose worker has ended with an exit code."""
    name = None
    why = ""
    if code is None:
        how = "ended"
        why = "; its exit code is unknown, because " + (
            "the fork server has ended"
            if served
            else "this program ignores SIGCHLD or waits for all its children itself"
        )
    elif code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        how = f"was ended by {name}"
    else:
        how = f"ended with exit code {code}"
    text = f"the worker process {how} in the middle of an attempt{why}"
    return WorkerCrashedError(text, code, name)


def _check_room() -> None:
    """Look whether there is room for the files that it takes to start a worker.

    What is started by halves might stay, and its files with it.
    """
    taken: list[int] = []
    try:
        taken.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(_FILES))
    finally:
        for number in taken:
            os.close(number)


_FILES = 12


def _identity() -> tuple[Any, ...]:
    """Return as whom this process acts, and in which file system: its workers do the same."""
    if not hasattr(os, "getresuid"):
        return ()
    root = os.stat("/")  # noqa: PTH116 - it is called for each worker that is leased
    return os.getresuid(), os.getresgid(), tuple(os.getgroups()), root.st_dev, root.st_ino


def _any(_: Worker) -> bool:
    return True


def lease(method: str, key: bytes | None = None, fits: Callable[[Worker], bool] = _any) -> Worker:
    """Return a worker for exclusive use until `give_back`.

    Args:
        method: How it was started, or is to be.
        key: What it has run to set itself up, or is to run; None for nothing.
        fits: Whether a worker that has worked before will do.

    Raises:
        OperoError: If it cannot be started; a `Shortage` if it may be in a while.
    """
    global _server_of  # noqa: PLW0603 - there is one server
    with _lock:
        if os.getpid() not in _owners:
            _owners.add(os.getpid())
            util.Finalize(None, _at_exit, exitpriority=1000)
        identity = _identity()
        _see_off(identity)
        kind = method, identity, key
        for idle in (_idle.get(kind, []), _idle.get((method, identity, None), [])):
            for place in reversed(range(len(idle))):
                if fits(idle[place]):
                    found = idle.pop(place)
                    found.kind = kind
                    return found
        if _server_of not in {None, identity}:
            start.close_server()
        _server_of = identity
        _make_place()
        try:
            return Worker(kind)
        except Shortage:
            others = [each for some in _idle.values() for each in some]
            if not others:
                raise
            _idle.clear()
            _end(others)
            return Worker(kind)


def give_back(leased: Worker) -> None:
    """Return an idle worker to the pool."""
    with _lock:
        identity = _identity()
        leased.since = monotonic()
        _idle.setdefault(leased.kind, []).append(leased)
        _see_off(identity)


def _make_place() -> None:
    """End the oldest of the idle workers that nobody can use now, if there are many; see `lease`.

    A program that sets its workers up otherwise in each map would collect them.
    """
    idle = [(some, each) for some in _idle.values() for each in some]
    if len(idle) >= _MANY:
        some, oldest = min(idle, key=lambda pair: pair[1].since)
        some.remove(oldest)
        retire(oldest)


def retire(leased: Worker) -> None:
    """Let a worker end without waiting for it."""
    leased.channel.close()
    with _lock:
        _leaving.append((leased, monotonic() + _GRACE))
        _see_off(_identity())


def _see_off(identity: tuple[Any, ...]) -> None:
    """Forget the workers that have ended, end those of another user; the lock is held."""
    for each, until in _leaving.copy():
        if each.process.wait(0) or monotonic() > until:
            _leaving.remove((each, until))
            each.bury(0)
    for kind, idle in list(_idle.items()):
        if kind[1] != identity:
            del _idle[kind]
            _end(idle)
            continue
        for each in [each for each in idle if not each.responds]:
            idle.remove(each)
            each.bury()


def _end(idle: list[Worker]) -> None:
    """End idle workers, and those that are at their end."""
    for each in idle:
        each.channel.close()  # it takes that for the end
    with _lock:  # another thread may see them off, too
        idle = [*idle, *(each for each, _ in _leaving)]
        _leaving.clear()
    until = monotonic() + _GRACE
    for each in idle:
        each.bury(max(0.0, until - monotonic()))


def shut() -> None:
    """End the idle workers of this process; one at work ends once nobody is there any more."""
    with _lock:
        idle = [each for some in _idle.values() for each in some]
        _idle.clear()
    _end(idle)


def _at_exit() -> None:
    """End the idle workers; if others are at work, keep the program from waiting for them.

    In some releases of Python 3.12 to 3.14, such as 3.13.5, the resource tracker of multiprocessing
    waits for its process when the interpreter ends. That process waits until nobody holds its pipe,
    and workers hold it until this program has ended (CPython issue 146313). A tracker that does not
    know its process does not wait.
    """
    shut()
    if _all:
        resource_tracker._resource_tracker._pid = None  # type: ignore[attr-defined]


def _forget() -> None:
    """In a forked child: the workers are the parent's."""
    global _lock, _server_of  # noqa: PLW0603 - nobody releases the old one in this process
    _lock = Lock()
    _server_of = None
    for each in _all:
        each.channel.close()
        if hasattr(each, "process"):  # else it is this one
            each.process.close()
    _all.clear()
    _idle.clear()
    _leaving.clear()
    start.forget_server()


forks.register(
    "workers",
    before=lambda: _lock.acquire(),  # noqa: PLW0108 - it is another one after a fork
    after_in_parent=lambda: _lock.release(),  # noqa: PLW0108
    after_in_child=_forget,
)
