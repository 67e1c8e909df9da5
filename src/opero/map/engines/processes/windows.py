"""Worker processes on Windows, started and ended by the standard library."""

from __future__ import annotations

import multiprocessing.context
from collections.abc import Callable
from multiprocessing import process
from types import SimpleNamespace
from typing import Any

from .preparation import function_with

__all__ = ["Child", "close_server", "forget_server", "launch"]

_OPEN = SimpleNamespace(_config={"daemon": False})


class _SpawnProcess(multiprocessing.context.SpawnProcess):  # type: ignore[name-defined, misc, unused-ignore]
    """A process in a fresh interpreter, which even a daemonic process may start."""

    start = function_with(process.BaseProcess.start, _current_process=_OPEN)


class Child:
    """A process that this one started; its attributes are those of `child.Child`."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self.pid: int = process.pid
        self.sentinel: int = process.sentinel
        self.exitcode: int | None = None
        self.over: bool = False
        self.served: bool = False

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for it to end; return whether it has."""
        if not self.over:
            self._process.join(timeout)
            self.exitcode = self._process.exitcode
            self.over = self.exitcode is not None
        return self.over

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()

    def close(self) -> None:
        """Close its handles."""
        if self.over:
            self._process.close()


def launch(method: str, target: Callable[..., None], args: tuple[Any, ...], name: str) -> Child:  # noqa: ARG001 - there is one
    """Start a process; see `start.launch`."""
    kind = _SpawnProcess(target=target, args=args, name=name, daemon=False)
    kind.start()
    # hide it from the program's own children: nothing else may find it, wait for it or end it
    getattr(process, "_children", set()).discard(kind)
    return Child(kind)


def close_server() -> None:
    """Do nothing: Windows has no fork server."""


forget_server = close_server
