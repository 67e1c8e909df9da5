"""Worker processes on systems that fork: from our fork server, a fork, or a fresh interpreter.

A failed start leaves nothing open. Even a daemonic process may start workers, since these end with
it. The standard library's own list of children contains none of them.
"""

from __future__ import annotations

import io
import multiprocessing.context
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import reduction, resource_tracker, spawn, util
from types import SimpleNamespace
from typing import Any

from opero.map import std_streams

from . import forkserver, frozen
from .child import Child
from .preparation import preparation, with_key

__all__ = ["Child", "close_server", "forget_server", "launch"]

_server = forkserver.ForkServer()


class _Passing:
    """The target of a process's pickle: it collects the descriptors to pass on.

    Attributes:
        descriptors: The descriptors.
    """

    def __init__(self, arrives: type) -> None:
        self.descriptors: list[int] = []
        self.DupFd = arrives  # its name in the standard library

    def duplicate_for_child(self, descriptor: int) -> int:
        """Keep a descriptor; return the number that represents it in the pickle."""
        self.descriptors.append(descriptor)
        return descriptor if self.DupFd is _Kept else len(self.descriptors) - 1


class _Kept:
    """A descriptor that has the same number in the child."""

    def __init__(self, number: int) -> None:
        self._number = number

    def detach(self) -> int:
        return self._number


class _Served(_Kept):
    """A descriptor that the child received with the fork server's request, by its place."""

    def detach(self) -> int:
        return forkserver.inherited[self._number]


def _packed(kind: Any, passing: _Passing) -> bytes:
    """Pickle a process for a child that has nothing yet."""
    body = io.BytesIO()
    multiprocessing.context.set_spawning_popen(passing)  # type: ignore[arg-type]
    try:
        reduction.dump(preparation(kind.name), body)
        reduction.dump(with_key(kind), body)
    finally:
        multiprocessing.context.set_spawning_popen(None)
    return body.getvalue()


class _Pipes:
    """The two pipes between a process and its child.

    Attributes:
        sentinel: Readable once the child has ended.
        status: The other end of `sentinel`, which the child or the fork server has.
        orders: The end from which the child reads what to do; it closes when we end.
        alive: The other end of `orders`.
    """

    def __init__(self) -> None:
        self.sentinel, self.status = os.pipe()
        try:
            self.orders, self.alive = os.pipe()
        except BaseException:
            _close(self.sentinel, self.status)
            raise


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _launched(make: Callable[[_Pipes], int], body: bytes, served: bool) -> Child:
    """Make the pipes and the child, and send the child its process."""
    pipes = _Pipes()
    try:
        pid = make(pipes)
    except BaseException:
        _close(pipes.sentinel, pipes.alive)
        raise
    finally:
        _close(pipes.status, pipes.orders)
    with suppress(BrokenPipeError):  # it has ended already
        left = memoryview(body)
        while left:
            left = left[os.write(pipes.alive, left) :]
    sentinel = pipes.sentinel if served else _sentinel(pid, pipes.sentinel)
    return Child(pid, sentinel, pipes.alive, served)


def _sentinel(pid: int, pipe: int) -> int:
    """Return what is readable once a child has ended: its pidfd, where the system has them.

    A process that the child started may keep the pipe open, and only the fork server knows the
    status of its children.
    """
    if not hasattr(os, "pidfd_open"):
        return pipe
    try:
        sentinel: int = os.pidfd_open(pid)
    except OSError:
        return pipe
    os.close(pipe)
    return sentinel


def _by_server(kind: Any) -> Child:
    passing = _Passing(_Served)
    body = _packed(kind, passing)

    def make(pipes: _Pipes) -> int:
        tracker: Any = resource_tracker.getfd()
        return _server.fork([pipes.orders, pipes.status, tracker, *passing.descriptors])

    try:
        return _launched(make, body, True)
    except forkserver.ServerGone:
        pass
    try:  # something ended the server: try once more with a new one
        return _launched(make, body, True)
    except forkserver.ServerGone:
        text = f"the fork server ends before it can do anything{frozen.remedy()}"
        raise ChildProcessError(text) from None


def _by_spawn(kind: Any) -> Child:
    passing = _Passing(_Kept)
    body = _packed(kind, passing)
    tracker: Any = resource_tracker.getfd()
    program: Any = spawn.get_executable()

    def make(pipes: _Pipes) -> int:
        command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=pipes.orders)
        passed = [tracker, pipes.orders, pipes.status, *passing.descriptors]
        return util.spawnv_passfds(program, command, passed)

    return _launched(make, body, False)


def _by_fork(kind: Any) -> Child:
    intent: Any = getattr(resource_tracker, "_fork_intent", SimpleNamespace())
    std_streams.flush()

    def make(pipes: _Pipes) -> int:
        intent.preserve_fd = True  # the child has the same tracker
        try:
            pid = os.fork()
        finally:
            intent.preserve_fd = False
        if pid:
            return pid
        code = 1
        try:
            _close(pipes.sentinel, pipes.alive)
            code = kind._bootstrap(parent_sentinel=pipes.orders)
        finally:
            os._exit(code)

    return _launched(make, b"", False)


_WAYS: dict[str, tuple[Any, Callable[[Any], Child]]] = {
    "fork": (multiprocessing.context.ForkProcess, _by_fork),
    "spawn": (multiprocessing.context.SpawnProcess, _by_spawn),
    "forkserver": (multiprocessing.context.ForkServerProcess, _by_server),
}


def close_server() -> None:
    """End our fork server; the next worker starts a new one."""
    _server.close()


def forget_server() -> None:
    """Leave the server to the parent of this fork."""
    _server.forget()


def launch(method: str, target: Callable[..., None], args: tuple[Any, ...], name: str) -> Child:
    """Start a process; see `start.launch`."""
    with _undisturbed():
        kind, way = _WAYS[method]
        return way(kind(target=target, args=args, name=name, daemon=False))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Block Ctrl-C for processes started meanwhile, until they have their own handlers."""
    _run_tracker()  # it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Numberless:
    """A stream that reports no descriptor, for code that passes the descriptor on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def fileno(self) -> int:
        raise OSError("not a file descriptor")


def _run_tracker() -> None:
    """Start the standard library's resource tracker, which the workers share with us."""
    try:
        resource_tracker.ensure_running()
    except ValueError:  # in a GUI program, stderr may be an object with an invalid descriptor
        stream = sys.stderr
        sys.stderr = _Numberless(stream)
        try:
            resource_tracker.ensure_running()
        finally:
            sys.stderr = stream
