"""The function of a map and its shared arguments: how they travel, and where they are kept.

What is large travels once to each worker process rather than with every job: a job may come without
it, and a worker that does not have it says so.
"""

from __future__ import annotations

import contextvars
import os
import pickle
import sys
import threading
from collections import OrderedDict
from functools import partial
from importlib import import_module
from types import MethodType
from typing import Any

from .pickles import dumps

LIGHT = 32_768
"""Bytes up to which the function and its arguments go along with every job."""

KEPT = 4
"""For how many maps a worker process keeps the function; one that comes again is loaded again."""


class Cargo:
    """What all parcels of one map have in common.

    Attributes:
        function: What to call, the shared arguments in it.
        plain: What to call with the arguments of a fallback value.
        context: The context variables as they were where the map was called.
        abandoned: Whether what has not begun need not run any more.
    """

    def __init__(self, function: Any, shared: dict[str, Any]) -> None:
        """Take the function; it is pickled only once it has to travel.

        Args:
            function: What to call with each item.
            shared: Keyword arguments of every call.
        """
        self.function = partial(function, **shared) if shared else function
        self.plain = function
        self.context = contextvars.copy_context()
        self.abandoned = False
        self._shared = shared
        self._lock = threading.Lock()
        self._packed: tuple[bytes, bytes] | None = None
        self._error: Exception | None = None

    def pack(self, whole: bool) -> tuple[bytes, bytes | None]:
        """Return a name for this cargo that no other map's has, and the pickle; made once.

        Args:
            whole: Whether the pickle is needed, large as it may be; if not, it may be None.

        Raises:
            Exception: Whatever the pickle of the function, or of a shared argument, raises.
        """
        with self._lock:
            if self._packed is None:
                try:
                    data = dumps((carrier(self.plain), self._shared))
                except Exception as error:
                    self._error = error
                    raise
                self._packed = os.urandom(16), data
            name, data = self._packed
            return name, data if whole or len(data) <= LIGHT else None

    def check(self) -> None:
        """Raise what kept the function from travelling, if anything did."""
        if self._error is not None:
            raise self._error


_loaded: OrderedDict[bytes, tuple[Any, Any]] = OrderedDict()
_loading = threading.RLock()


def load(name: bytes, data: bytes | None) -> tuple[Any, Any] | None:
    """Return a map's function, without and with its shared arguments; loaded once in a process.

    Args:
        name: Its name.
        data: Its pickle, if that has come along.

    Returns:
        The two functions; None if they are not here and there is no pickle.
    """
    with _loading:
        if name not in _loaded:
            if data is None:
                return None
            carried, shared = pickle.loads(data)
            function = carried.unpack()
            _loaded[name] = function, partial(function, **shared) if shared else function
            while len(_loaded) > KEPT:
                _loaded.popitem(last=False)
        _loaded.move_to_end(name)
        return _loaded[name]


class Named:
    """A function that the worker can import, under whatever decorators its name stands for."""

    def __init__(self, module: str, path: str, depth: int) -> None:
        self._module = module
        self._path = path
        self._depth = depth

    def unpack(self) -> Any:
        """Import the function."""
        found: Any = import_module(self._module)
        for part in self._path.split("."):
            found = getattr(found, part)
        for _ in range(self._depth):
            found = found.__wrapped__
        return found


class Bound:
    """A method: a plain pickle would look its name up, and find the decorated one."""

    def __init__(self, function: Any, owner: Any) -> None:
        self._function = carrier(function)
        self._owner = owner

    def unpack(self) -> Any:
        """Bind the function again."""
        return MethodType(self._function.unpack(), self._owner)


class Whole:
    """A function that travels by whatever its own pickle is."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def unpack(self) -> Any:
        """Return it."""
        return self._function


def carrier(function: Any) -> Named | Bound | Whole:
    """Say how a function travels: by its name if that leads to it, otherwise by a pickle."""
    if isinstance(function, MethodType):
        return Bound(function.__func__, function.__self__)
    module = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str) or module == "__main__":
        return Whole(function)
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    depth = 0
    while found is not None:
        if found is function:
            return Named(module, path, depth)
        found = getattr(found, "__wrapped__", None)
        depth += 1
    return Whole(function)
