"""What opero does around a fork: modules register handlers here, and `ORDER` sorts them.

opero registers three functions with Python, once. They call the modules' handlers by the ranks of
`ORDER`: before a fork from the last rank to the first, after it from the first to the last. So the
lock taken last is released first, as with nested `with` statements. Every handler is called, even
if another one raises; Python reports the errors on stderr and continues with the fork.

A child process has one thread, the one that forked. Locks that other threads held stay locked
forever, and the work of those threads never ends: handlers create new locks and forget runs.
"""

from __future__ import annotations

import os
import threading  # noqa: F401 - so that its own handler runs before ours, which may start a thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

ORDER: Final = (
    "pipes",  # ends that a worker's child must not hold open, even if all else fails
    "workers",  # their lock is held over the fork: taken last, given back first
    "screens",  # the bars that the parent draws
    "listeners",  # the lock of the subscribers to events
    "flights",  # the lock of single flight, which all handlers below may take
    "followers",  # who waits for which flight
    "outages",  # what opero knows about stores and servers
    "limiters",  # their queues and lock files
    "breakers",  # their queues, and the probes of the parent
    "leases",  # the renewer, before the stores that it renews in
    "refreshes",  # the threads that renew cached values
    "stores",  # connections and locks of what is open
    "caches",  # the runs of decorated functions, which use all of the above
    "readers",  # what reads the figures of all those
)
"""The ranks: each may rely on those before it."""

_before: dict[str, list[Callable[[], object]]] = {rank: [] for rank in ORDER}
_in_parent: dict[str, list[Callable[[], object]]] = {rank: [] for rank in ORDER}
_in_child: dict[str, list[Callable[[], object]]] = {rank: [] for rank in ORDER}


def register(
    rank: str,
    *,
    before: Callable[[], object] | None = None,
    after_in_parent: Callable[[], object] | None = None,
    after_in_child: Callable[[], object] | None = None,
) -> None:
    """Register what one module does around a fork; no effect on systems without fork.

    Args:
        rank: One of `ORDER`. Handlers of one rank run in the order of registration; those before a
            fork in reverse order.
        before: Called in the parent before the fork.
        after_in_parent: Called in the parent after the fork, and after a fork that failed.
        after_in_child: Called in the child.
    """
    for table, handler in (
        (_before, before),
        (_in_parent, after_in_parent),
        (_in_child, after_in_child),
    ):
        if handler is not None:
            table[rank].append(handler)


def _call(handlers: Iterable[Callable[[], object]]) -> None:
    """Call all handlers; then raise what they raised."""
    errors = []
    for handler in handlers:
        try:
            handler()
        except BaseException as error:  # noqa: BLE001 - the fork continues anyway
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup("handlers around a fork failed", errors)


def _before_fork() -> None:
    _call([handler for rank in reversed(ORDER) for handler in reversed(_before[rank])])


def _after_in_parent() -> None:
    _call([handler for rank in ORDER for handler in _in_parent[rank]])


def _after_in_child() -> None:
    _call([handler for rank in ORDER for handler in _in_child[rank]])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_in_parent,
        after_in_child=_after_in_child,
    )
