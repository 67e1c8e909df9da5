"""The thread that renews the leases of this process, and gives back those that were abandoned.

It is there only while there is something to do, and ends by itself a little later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from opero import forks
from opero.real_time import monotonic

from . import leases
from .operations import Operations

_RENEWAL = leases.SECONDS / 3
"""Seconds between two renewals."""
_LINGER = 0.5
"""How long the thread stays, in seconds, after the last lease has gone."""

_T = TypeVar("_T")


class _Held:
    """A lease of this process.

    Attributes:
        store: Where it is.
        name: The entry that is being made.
        token: What the holder is known by.
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
        self._changed = threading.Condition()
        self._held: dict[str, _Held] = {}
        self._abandoned: list[_Held] = []
        self._running = False

    def hold(self, store: Operations, name: str, token: str) -> None:
        """Renew a lease from now on.

        Args:
            store: Where it is; it is asked from the renewer's thread.
            name: The entry that is being made.
            token: What the holder is known by.
        """
        with self._changed:
            self._held[token] = _Held(store, name, token, monotonic() + _RENEWAL)
            self._run()

    def let_go(self, token: str) -> str | None:
        """Renew it no more: it is going to be given back; return its mark, if that is known."""
        held = self._held.pop(token, None)
        return None if held is None else held.mark

    def abandon(self, token: str) -> None:
        """Give a lease back, without waiting for that."""
        held = self._held.pop(token, None)
        if held is not None:
            self._give_back(held)

    def give_back(self, store: Operations, name: str, token: str) -> None:
        """Give a lease back that may be ours, without waiting for that."""
        self._give_back(_Held(store, name, token, 0.0))

    def after_fork(self) -> None:
        """Forget everything in a child process: the parent's leases are the parent's."""
        self._changed = threading.Condition()
        self._held = {}
        self._abandoned = []
        self._running = False

    def _give_back(self, held: _Held) -> None:
        with self._changed:
            self._abandoned.append(held)
            self._run()
            self._changed.notify()

    def _run(self) -> None:
        if not self._running:
            self._running = True
            try:
                threading.Thread(target=self._work, name="opero-leases", daemon=True).start()
            except BaseException:
                self._running = False  # at the end of the interpreter; leases expire by themselves
                raise

    def _work(self) -> None:
        idle_since = monotonic()
        while True:
            with self._changed:
                if not self._abandoned:
                    self._changed.wait(_LINGER)
                abandoned, self._abandoned = self._abandoned, []
                now = monotonic()
                held = list(self._held.values())
                if held or abandoned:
                    idle_since = now
                elif now - idle_since >= _LINGER:
                    self._running = False
                    return
            for each in abandoned:
                _quietly(each.store.release, each.name, each.token, each.mark)
            for each in held:
                if each.due <= now:
                    each.due = now + _RENEWAL
                    each.mark = _quietly(
                        each.store.renew, each.name, each.token, leases.SECONDS, each.mark
                    )
                    if each.mark is None:
                        self._held.pop(each.token, None)


def _quietly(operation: Callable[..., _T], *arguments: Any) -> _T | None:
    """Do what may fail: it shows when the value is stored."""
    try:
        return operation(*arguments)
    except Exception:  # noqa: BLE001 - any library's
        return None


renewer: Renewer = Renewer()
"""The one of this process."""

forks.register("leases", after_in_child=renewer.after_fork)
