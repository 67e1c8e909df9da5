"""How a worker process is started: the standard library's way, except for two things.

The script that runs as `__main__` is not imported by a worker: functions of `__main__` are sent, so
a script needs no `if __name__ == "__main__"`, and what it does at its top is not done again. And
the fork server is one of our own: it has this package imported, and nothing else.
"""

from __future__ import annotations

import multiprocessing.context
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import spawn
from types import FunctionType, SimpleNamespace
from typing import Any

METHODS = multiprocessing.get_all_start_methods()
DEFAULT = "forkserver" if "forkserver" in METHODS else "spawn"
_PRELOAD = ["opero.map.engines.processes.worker", "cloudpickle"]


def _preparation(name: str) -> dict[str, Any]:
    vars(sys.modules["__main__"]).setdefault("__spec__", None)  # a notebook's %reset takes it away
    data: dict[str, Any] = spawn.get_preparation_data(name)
    data.pop("init_main_from_name", None)
    data.pop("init_main_from_path", None)
    return data


def _with(function: Any, **names: Any) -> Any:
    """Return a function that finds other things behind some of its global names."""
    return FunctionType(
        function.__code__, {**function.__globals__, **names}, function.__name__,
        function.__defaults__, function.__closure__,
    )  # fmt: skip


_SPAWN = SimpleNamespace(**{**vars(spawn), "get_preparation_data": _preparation})


if sys.platform != "win32" and "forkserver" in METHODS:
    from multiprocessing import forkserver, popen_forkserver

    _server = SimpleNamespace(**vars(forkserver))

    def renew_server() -> None:
        """Have a fork server of this process's own, started when it is needed."""
        server = forkserver.ForkServer()
        server.set_forkserver_preload(_PRELOAD)
        _server.connect_to_new_process = server.connect_to_new_process
        _server.own = server

    renew_server()

    def forget_server() -> None:
        """Leave the server to the process that this one was forked from."""
        import os

        descriptor = _server.own._forkserver_alive_fd
        if descriptor is not None:
            os.close(descriptor)
        renew_server()

    class _ServerPopen(popen_forkserver.Popen):
        _launch = _with(popen_forkserver.Popen._launch, spawn=_SPAWN, forkserver=_server)  # type: ignore[attr-defined]

    class ServerProcess(multiprocessing.context.ForkServerProcess):
        """A process that our fork server starts."""

        @staticmethod
        def _Popen(process_obj: Any) -> Any:  # noqa: N802 - this is its name
            return _ServerPopen(process_obj)

else:

    def forget_server() -> None:
        """Do nothing, there is none."""


if sys.platform != "win32":
    from multiprocessing import popen_spawn_posix

    class _SpawnPopen(popen_spawn_posix.Popen):
        _launch = _with(popen_spawn_posix.Popen._launch, spawn=_SPAWN)  # type: ignore[attr-defined]

    class SpawnProcess(multiprocessing.context.SpawnProcess):
        """A process in a fresh interpreter."""

        @staticmethod
        def _Popen(process_obj: Any) -> Any:  # noqa: N802 - this is its name
            return _SpawnPopen(process_obj)

else:
    SpawnProcess = multiprocessing.context.SpawnProcess


def kind_of(method: str) -> Any:
    """Return the class of the processes that are started by a method."""
    if method == "forkserver":
        return ServerProcess
    if method == "spawn":
        return SpawnProcess
    return multiprocessing.context.ForkProcess


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep Ctrl-C away from what is started meanwhile, until it has a handler of its own."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
