"""The thread that renews the leases of this process, and gives abandoned ones back.

It exists only while there is work to do, and ends shortly after. A process that ends gives its
leases back, so other processes need not wait for them. Only a process that is killed, or ends with
`os._exit`, leaves its leases to expire.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from opero import forks
from opero.locks import Lock
from opero.real_time import monotonic

from . import leases
from .operations import Operations

_RENEWAL = leases.SECONDS / 3
"""Seconds between two renewals."""
_LINGER = 0.5
"""How many seconds the thread stays after the last lease is gone."""
_PATIENCE = 2.0
"""How many seconds the end of a process may spend on giving leases back."""

_T = TypeVar("_T")


class _Held:
    """A lease of this process.

    Attributes:
        store: The store that has the lease.
        name: The entry that is being made.
        token: Identifies the holder.
        mark: The lease's mark, as far as this process knows.
        due: When to renew it, in seconds.
    """

    __slots__ = ("due", "mark", "name", "store", "token")

    def __init__(self, store: Operations, name: str, token: str, due: float) -> None:
        self.store = store
        self.name = name
        self.token = token
        self.mark: str | None = None
        self.due = due


class Renewer:
    """Renews the leases of this process, and gives back those that were abandoned."""

    def __init__(self) -> None:
        self._ending = False
        self.after_fork()

    def hold(self, store: Operations, name: str, token: str) -> None:
        """Renew a lease from now on.

        Args:
            store: The store that has the lease; the renewer's thread uses it.
            name: The entry that is being made.
            token: Identifies the holder.
        """
        self._close_with_process()
        with self._lock:
            self._held[token] = _Held(store, name, token, monotonic() + _RENEWAL)
        self._run()

    def let_go(self, token: str) -> str | None:
        """Stop renewing a lease before it is given back; return its mark, if known."""
        held = self._held.pop(token, None)
        return None if held is None else held.mark

    def abandon(self, token: str) -> None:
        """Give a lease back without waiting."""
        held = self._held.pop(token, None)
        if held is not None:
            self._give_back(held)

    def give_back(self, store: Operations, name: str, token: str) -> None:
        """Give back a lease that may be ours, without waiting."""
        self._give_back(_Held(store, name, token, 0.0))

    def after_fork(self) -> None:
        """Forget all leases in a child process: they belong to the parent."""
        self._lock = Lock()
        self._changed = threading.Condition(self._lock)
        self._held: dict[str, _Held] = {}
        self._abandoned: list[_Held] = []
        self._thread: threading.Thread | None = None
        self._closes = False

    def close(self) -> None:
        """Give back all leases at the end of the process.

        A lease abandoned after this is given back immediately; a lease taken after this is not
        renewed.
        """
        with self._lock:
            self._ending = True
            held = [self._held.pop(token, None) for token in list(self._held)]
            self._abandoned += filter(None, held)
            self._changed.notify()
            thread = self._thread
        end = monotonic() + _PATIENCE
        if thread is not None:
            with suppress(RuntimeError):  # the thread has not started, and may never do so
                thread.join(_PATIENCE)
        while self._abandoned and monotonic() < end:
            with suppress(IndexError):  # the thread has taken them
                _release(self._abandoned.pop())

    def _close_with_process(self) -> None:
        """Call `close` when a child process of multiprocessing ends, which skips `atexit`."""
        if self._closes:
            return
        self._closes = True
        processes = sys.modules.get("multiprocessing.process")
        if processes is not None and processes.parent_process() is not None:
            from multiprocessing.util import Finalize

            Finalize(None, self.close, exitpriority=-100)

    def _give_back(self, held: _Held) -> None:
        if self._ending:
            _release(held)
            return
        self._close_with_process()
        with self._lock:
            self._abandoned.append(held)
            self._changed.notify()
        self._run()

    def _is_seen_to(self) -> bool:
        """Return whether the thread runs, or none is needed because the process is ending."""
        return self._thread is not None or self._ending

    def _run(self) -> None:
        """Start the thread, unless it runs or the process is ending.

        Call this without the lock: an exception thrown into `start` may leave it waiting forever.
        """
        if self._is_seen_to():
            return
        thread = threading.Thread(target=self._work, name="opero-leases", daemon=True)
        try:
            with self._lock:
                if self._is_seen_to():
                    return
                self._thread = thread
            thread.start()
        except BaseException as error:
            with self._lock:
                if self._thread is thread and not thread.is_alive():
                    self._thread = None
            if not isinstance(error, RuntimeError):  # no thread can be started: leases expire
                raise

    def _work(self) -> None:
        thread = threading.current_thread()
        with self._lock:
            if self._thread is None:  # `start` was interrupted
                self._thread = thread
            if self._thread is not thread:
                return
        idle_since = monotonic()
        while True:
            with self._lock:
                if not self._abandoned and not self._ending:
                    self._changed.wait(_LINGER)
                abandoned, self._abandoned = self._abandoned, []
                now = monotonic()
                held = list(self._held.values())
                if abandoned or (held and not self._ending):
                    idle_since = now
                elif self._ending or now - idle_since >= _LINGER:
                    self._thread = None
                    return
            for each in abandoned:
                _release(each)
            for each in held:
                if each.due <= now:
                    each.due = now + _RENEWAL
                    each.mark = _quietly(
                        each.store.renew, each.name, each.token, leases.SECONDS, each.mark
                    )
                    if each.mark is None:
                        self._held.pop(each.token, None)


def _release(held: _Held) -> None:
    _quietly(held.store.release, held.name, held.token, held.mark)


def _quietly(operation: Callable[..., _T], *arguments: Any) -> _T | None:
    """Do an operation that may fail: storing the value will reveal the failure."""
    try:
        return operation(*arguments)
    except Exception:  # noqa: BLE001 - any library's
        return None


renewer: Renewer = Renewer()
"""The renewer of this process."""

atexit.register(renewer.close)
forks.register("leases", after_in_child=renewer.after_fork)
