"""Leases: of several processes that miss one value, one runs and the others wait for it.

A lease is an entry beside the missing one that says who is at it. It expires after `SECONDS`, so a
holder that dies costs the others that long at most; one that lives renews it by the `Renewer`, a
thread that is there only while something is held. What is stored is stored in one step with giving
the lease back, and only while it is held: whoever clears or invalidates takes the lease away too,
and so a value that was computed before is not stored after.

The store's own clock may jump. Set forward, it ends leases early: a call may then run twice. Set
back, it lets a dead holder's lease live on: so those who wait go by their own monotonic clock, and
seize a lease whose mark has not changed for `SECONDS` and a little more.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any

from opero import forks

SECONDS = 5.0
"""How long a lease lasts if nobody renews it."""
_RENEWAL = SECONDS / 3
_GRACE = 0.5
_FIRST_PAUSE = 0.002
_LAST_PAUSE = 0.05
_LINGER = 0.5
"""How long the renewer's thread stays, in seconds, after the last lease has gone."""


class LeaseWatch:
    """What a process that waits knows of the holder of a lease.

    Attributes:
        pause: How long to wait until the next look, in seconds; longer from look to look.
    """

    def __init__(self, mark: str) -> None:
        """Begin to wait.

        Args:
            mark: What the holder's last renewal is known by.
        """
        self.pause: float = _FIRST_PAUSE
        self._mark = mark
        self._since = monotonic()

    def is_dead(self, mark: str) -> bool:
        """Tell whether the holder has not renewed its lease for longer than it lasts."""
        now = monotonic()
        self.pause = min(_LAST_PAUSE, 1.5 * self.pause)
        if mark != self._mark:
            self._mark, self._since = mark, now
        return now - self._since > SECONDS + _GRACE


class _Held:
    """A lease of this process."""

    __slots__ = ("backend", "due", "name", "token")

    def __init__(self, backend: Any, name: str, token: str, due: float) -> None:
        self.backend = backend
        self.name = name
        self.token = token
        self.due = due


class Renewer:
    """Renews the leases of this process, and gives back those that were abandoned."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[str, _Held] = {}
        self._abandoned: list[_Held] = []
        self._running = False

    def hold(self, backend: Any, name: str, token: str) -> None:
        """Renew a lease from now on.

        Args:
            backend: Where it is; it is asked from the renewer's thread.
            name: The entry that is being made.
            token: What the holder is known by.
        """
        with self._changed:
            self._held[token] = _Held(backend, name, token, monotonic() + _RENEWAL)
            self._run()

    def let_go(self, token: str) -> None:
        """Renew it no more: it has been given back, or it is going to be."""
        self._held.pop(token, None)

    def abandon(self, token: str) -> None:
        """Give a lease back, without waiting for that."""
        held = self._held.pop(token, None)
        if held is not None:
            self.give_back(held.backend, held.name, held.token)

    def give_back(self, backend: Any, name: str, token: str) -> None:
        """Give a lease back that may be ours, without waiting for that."""
        with self._changed:
            self._abandoned.append(_Held(backend, name, token, 0.0))
            self._run()
            self._changed.notify()

    def _run(self) -> None:
        if not self._running:
            self._running = True
            try:
                threading.Thread(target=self._keep, name="opero-leases", daemon=True).start()
            except BaseException:
                self._running = False  # at the end of the interpreter; leases expire by themselves
                raise

    def _keep(self) -> None:
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
                _quietly(each.backend.release, each.name, each.token)
            for each in held:
                if each.due <= now:
                    each.due = now + _RENEWAL
                    if not _quietly(each.backend.renew, each.name, each.token, SECONDS):
                        self._held.pop(each.token, None)


def _quietly(operation: Any, *args: Any) -> Any:
    """Do what may fail: whoever stores the value finds out, and says so."""
    try:
        return operation(*args)
    except Exception:  # noqa: BLE001 - any library's
        return False


renewer: Renewer = Renewer()


def _after_fork() -> None:
    global renewer  # noqa: PLW0603 - the parent's leases are the parent's
    renewer = Renewer()


forks.register("leases", after_in_child=_after_fork)
