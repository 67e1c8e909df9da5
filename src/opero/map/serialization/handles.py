"""Connections, sockets and what multiprocessing shares between processes.

opero sends them as multiprocessing does: a descriptor is handed over when the other side asks for
it, once. So data for all workers is pickled separately for each worker if it contains one. Locks,
queues and shared values can be sent with the function and the shared arguments; as items,
multiprocessing itself rejects them, as with `ProcessPoolExecutor`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import context, reduction
from typing import Any

_REDUCERS = {
    "_reduce_socket",
    "reduce_arena",
    "reduce_connection",
    "reduce_ctype",
    "reduce_pipe_connection",
}
"""The reducers of multiprocessing that handle what pickle does not."""

_numbers = itertools.count(1)
_handed_on = [0]


def count() -> int:
    """Return how many descriptors have been put into pickles so far."""
    return _handed_on[0]


def may_hold(body: bytes) -> bool:
    """Return whether a plain pickle may contain something that must not travel in it."""
    if b"multiprocessing." in body:
        return True
    return "multiprocessing.sharedctypes" in sys.modules and b"_ctypes" in body


def reducer_of(kind: type) -> Callable[[Any, Any], Any] | None:
    """Return multiprocessing's reducer for a class, if it has one."""
    if kind.__module__ == "multiprocessing.synchronize" and hasattr(kind, "_make_name"):
        return _semaphore
    reduce: Any = reduction.ForkingPickler._extra_reducers.get(kind)  # type: ignore[attr-defined]
    if reduce is None or reduce.__name__ not in _REDUCERS:
        return None
    if reduce.__name__ == "reduce_ctype":
        return lambda _, thing: reduce(thing) if hasattr(thing, "_wrapper") else NotImplemented

    def reducer(_: Any, thing: Any) -> Any:
        _count()
        return reduce(thing)

    return reducer


def _semaphore(_: Any, lock: Any) -> Any:
    if lock._semlock.name is None:  # no other process could open it by name
        raise RuntimeError(
            f"this {type(lock).__qualname__} of the start method 'fork' works only in forked "
            f"processes: create it with multiprocessing.get_context('spawn')"
        )
    return NotImplemented


def _count() -> None:
    _handed_on[0] = next(_numbers)


class _Spawning:
    """Pose as a process that is starting, which inherits what multiprocessing shares."""

    @staticmethod
    def duplicate_for_child(descriptor: int) -> int:
        return descriptor

    @staticmethod
    def DupFd(descriptor: int) -> Any:  # noqa: N802 - this is its name
        from multiprocessing import resource_sharer

        _count()
        return resource_sharer.DupFd(descriptor)


@contextmanager
def inherited() -> Iterator[None]:
    """Allow pickling what multiprocessing shares only by inheritance."""
    if sys.platform == "win32" or context.get_spawning_popen() is not None:
        yield
        return
    context.set_spawning_popen(_Spawning)  # type: ignore[arg-type]
    try:
        yield
    finally:
        context.set_spawning_popen(None)
