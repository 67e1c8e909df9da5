"""The function of a map and its shared arguments: how they are sent, and where they are kept.

A large function is sent once to each worker process instead of with every job. A job may come
without it, and a worker that does not have it says so.
"""

from __future__ import annotations

import contextvars
import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Container, Iterable
from pathlib import Path
from types import MethodType
from typing import Any

from opero.locks import Lock
from opero.map.invocation import of_invocations, of_items

from . import arrivals, handles
from .culprits import unpicklable_function
from .fingerprints import fingerprint
from .map_parts import check_receiver, check_shared
from .names import Whereabouts, found_at, whereabouts
from .pickles import dumps

LIGHT = 32_768
"""Bytes up to which the function and its arguments go along with every job."""

KEPT = 4
"""For how many maps a worker process keeps the function; after that it is loaded again."""


class FunctionPayload:
    """What all envelopes of one map have in common.

    Attributes:
        function: What to call with an item.
        invoke: What to call with an invocation.
        plain: The function itself.
        context: The context variables as they were where the map was called.
        abandoned: Whether what has not begun need not run any more.
        apart: The names of modules that travel by value.
    """

    def __init__(
        self,
        function: Any,
        shared: dict[str, Any],
        path: list[str] | None = None,
        apart: frozenset[str] = frozenset(),
    ) -> None:
        """Take the function; it is pickled only when it must travel.

        Args:
            function: What to call with each item.
            shared: Keyword arguments of every call.
            path: Where workers look for modules besides their own path; None for nowhere else.
            apart: The names of modules that travel by value.
        """
        self.function: Any = of_items(function, shared)
        self.invoke: Any = of_invocations(function, shared)
        self.plain = function
        self.context: contextvars.Context = contextvars.copy_context()
        self.abandoned = False
        self.apart: frozenset[str] = apart
        self._shared = shared
        self._path = path
        self._lock = Lock()
        self._packed: tuple[bytes, bytes] | None = None
        self._error: Exception | None = None
        self._once = False  # whether each worker needs its own pickle

    def pack(self, whole: bool) -> tuple[bytes, bytes | None]:
        """Return a name for this payload that no other map's has, and the pickle; made once.

        Args:
            whole: Whether the pickle is needed, large as it may be; if not, it may be None.

        Raises:
            Exception: Whatever the pickle of the function, or of a shared argument, raises.
        """
        with self._lock:
            if self._packed is None or (whole and self._once):
                before = handles.count()
                try:
                    data = self._pickled()
                except Exception as error:
                    self._error = error
                    raise
                self._once = handles.count() != before
                self._packed = os.urandom(16) if self._packed is None else self._packed[0], data
            name, data = self._packed
            whole = whole or self._once
            return name, data if whole or len(data) <= LIGHT else None

    def _pickled(self) -> bytes:
        """Return the pickle of the function and the shared arguments."""
        try:
            carried = arrivals.code_of(carrier(self.plain, self.apart))
            with handles.inherited():
                body = dumps((carried, self._shared), apart=self.apart)
            return pickle.dumps((self._path or [], body), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            if isinstance(self.plain, MethodType):
                check_receiver(self.plain.__self__, self.apart)
            check_shared(self._shared, self.apart)
            raise unpicklable_function(self.plain, error) from error

    def keep_apart(self, names: Iterable[str]) -> None:
        """Send what is in some modules by value from now on, under another name."""
        with self._lock:
            if not self.apart.issuperset(names):
                self.apart |= frozenset(names)
                self._packed = None

    def check(self) -> None:
        """Raise what kept the function from travelling, if anything did."""
        if self._error is not None:
            raise self._error


_loaded: OrderedDict[bytes, tuple[arrivals.World, tuple[Any, Any]]] = OrderedDict()
_loading = Lock()


def load(name: bytes, data: bytes | None) -> tuple[Any, Any] | None:
    """Return what to call with an item, and with an invocation; loaded once in a process.

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
            world = arrivals.enter()
            path, body = pickle.loads(data)
            sys.path += [place for place in path if place not in sys.path]
            (_, carried, _), shared = pickle.loads(body)
            function = carried.unpack()
            callers = of_items(function, shared), of_invocations(function, shared)
            _loaded[name] = world, callers
            while len(_loaded) > KEPT:
                _loaded.popitem(last=False)
        _loaded.move_to_end(name)
        world, functions = _loaded[name]
        arrivals.enter(world)
        return functions


class Elsewhere(Exception):
    """In this process the name of a module leads to something else.

    Attributes:
        module: The name.
    """

    def __init__(self, module: str) -> None:
        super().__init__(module)
        self.module = module


class Named:
    """A function that the worker can import, under whatever decorators its name stands for."""

    def __init__(self, where: Whereabouts, function: Any) -> None:
        self._where = where
        self._file = getattr(sys.modules.get(where[0]), "__file__", None)
        self._code = fingerprint(function)
        self._python = sys.version_info[:2]

    def unpack(self) -> Any:
        """Import the function.

        Raises:
            Elsewhere: If what is found here is another one.
        """
        found = found_at(self._where)
        file = getattr(sys.modules.get(self._where[0]), "__file__", None)
        another = file != self._file and self._file is not None and Path(self._file).exists()
        same = fingerprint(found) == self._code or self._python != sys.version_info[:2]
        if another or not same:
            raise Elsewhere(self._where[0])
        return found


class Bound:
    """A method: a plain pickle would look its name up, and find the decorated one."""

    def __init__(self, function: Any, owner: Any, apart: Container[str]) -> None:
        self._function = carrier(function, apart)
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


def carrier(function: Any, apart: Container[str] = ()) -> Named | Bound | Whole:
    """Say how a function travels: by its name if that leads to it, otherwise by a pickle.

    Args:
        function: The function.
        apart: The names of modules that travel by value.
    """
    if isinstance(function, MethodType):
        return Bound(function.__func__, function.__self__, apart)
    where = whereabouts(function, apart)
    return Whole(function) if where is None else Named(where, function)
