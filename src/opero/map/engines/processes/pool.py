"""The worker processes of this process: started on demand and kept warm between maps.

A leased worker belongs to one map. A worker ends when it has been idle for `IDLE` seconds, or when
the process that started it is gone. A forked or spawned worker that ended because it was idle stays
a zombie until the next map or the end of the program: only this process can reap it, and no thread
waits to do so. Workers of the fork server do not become zombies.
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

_GRACE = worker_end.LIMIT + 1  # seconds that workers get to end before they are killed
_MANY = 16  # idle workers that may stay when another one starts
_PROMPT = 10.0  # seconds that the system gets to end a killed worker

Kind = tuple[Any, ...]
"""What interchangeable workers share: their start method, their user, and their `worker_init`."""

_lock = Lock()
_idle: dict[Kind, list[Worker]] = {}
_leaving: list[tuple[Worker, float]] = []
_all: weakref.WeakSet[Worker] = weakref.WeakSet()
_numbers = itertools.count(1)
_owners: set[int] = set()
_server_of: tuple[Any, ...] | None = None  # the identity that the fork server runs as


class Worker:
    """A worker process, as seen from here.

    Attributes:
        channel: The channel to it and back; it does not block.
        cells: Memory that both share, with the numbers that `cells` names; the first may be one of
            the states in `worker`.
        process: The process.
        kind: What makes it interchangeable with others.
        fresh: Whether it has never done a job.
        ready: Whether it has prepared itself for the map, if asked to.
        items: How many items it has had in its life.
        busy: How long it took for them, in nanoseconds.
        begun: When it was asked to prepare itself, in nanoseconds.
        since: Since when it has been idle, in seconds.
        rows: The number of the module rows that it last received; None before the first.
    """

    def __init__(self, kind: Kind) -> None:
        """Start it.

        Raises:
            OperoError: If it cannot start; a `Shortage` if it may be able to later.
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
            _all.add(self)  # from now on, a forked child closes our end
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
        """Whether an idle worker is still alive."""
        try:
            return bool(self.channel.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def kill(self, since: Since | None = None) -> None:
        """Kill it.

        Args:
            since: What it has started since then ends as well.
        """
        if since is not None and not self.process.wait(0):
            descendants.end(self.process.pid, since)
        self.process.kill()

    def bury(self, grace: float = 0.1, since: Since | None = None) -> WorkerCrashedError:
        """Clean up after a worker that closed its end or was killed; return how it ended.

        Args:
            grace: Seconds that it gets to end before it is killed.
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
    """Return the error of an attempt whose worker ended with this exit code."""
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
    """Check that this process may open the files that starting a worker takes.

    A start that fails halfway might leave its process and files behind.
    """
    taken: list[int] = []
    try:
        taken.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(_FILES))
    finally:
        for number in taken:
            os.close(number)


_FILES = 12


def _identity() -> tuple[Any, ...]:
    """Return this process's user and file system root, which its workers must share."""
    if not hasattr(os, "getresuid"):
        return ()
    root = os.stat("/")  # noqa: PTH116 - runs for each lease
    return os.getresuid(), os.getresgid(), tuple(os.getgroups()), root.st_dev, root.st_ino


def _any(_: Worker) -> bool:
    return True


def lease(method: str, key: bytes | None = None, fits: Callable[[Worker], bool] = _any) -> Worker:
    """Return a worker for exclusive use until `give_back`.

    Args:
        method: Its start method.
        key: The key of the `worker_init` that sets it up; None if there is none.
        fits: Whether a worker that has worked before will do.

    Raises:
        OperoError: If it cannot start; a `Shortage` if it may be able to later.
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
    """End the oldest of the idle workers that do not fit the map, if there are many.

    Otherwise a program whose maps all set up their workers differently would collect them.
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
    """Forget ended workers, and end those of another user; the caller holds the lock."""
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
    """End idle workers, and workers whose time is over."""
    for each in idle:
        each.channel.close()  # this tells it to end
    with _lock:  # another thread may remove them too
        idle = [*idle, *(each for each, _ in _leaving)]
        _leaving.clear()
    until = monotonic() + _GRACE
    for each in idle:
        each.bury(max(0.0, until - monotonic()))


def shut() -> None:
    """End the idle workers of this process; a busy one ends when this process is gone."""
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
    """Forget the workers in a forked child: they belong to the parent."""
    global _lock, _server_of  # noqa: PLW0603 - nothing in this process releases the old one
    _lock = Lock()
    _server_of = None
    for each in _all:
        each.channel.close()
        if hasattr(each, "process"):  # else this is that worker
            each.process.close()
    _all.clear()
    _idle.clear()
    _leaving.clear()
    start.forget_server()


forks.register(
    "workers",
    before=lambda: _lock.acquire(),  # noqa: PLW0108 - a fork replaces the lock
    after_in_parent=lambda: _lock.release(),  # noqa: PLW0108
    after_in_child=_forget,
)
