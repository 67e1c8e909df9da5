"""Leases: if several processes miss one value, one runs and the others wait for it.

A lease is an entry next to the missing one that says who computes it. Its content is a mark: the
holder's token, and a number that changes with each renewal. It expires after `SECONDS`, so a holder
that dies delays the others at most that long; a live one renews it (`renewer`). Storing a value and
giving its lease back is one step, possible only while the lease is held. Clearing and invalidating
remove the lease too, so a value computed before is not stored after.

The store's own clock may jump. Set forward, it ends leases early: a call may then run twice. Set
back, it keeps a dead holder's lease alive: so the others use their own monotonic clock, and seize a
lease whose mark has not changed for slightly more than `SECONDS`.

Each operation is a generator whose effects say what to ask a backend (`runners/effects.py`), for
threads and tasks alike: mostly one `swap`. `store` answers for the backend. A holder that does not
know its current mark guesses the first one; if that is wrong, the answer contains the mark, and the
second `swap` is right.
"""

from __future__ import annotations

from opero.real_time import monotonic
from opero.runners.effects import ASK

from .backends import Swap
from .steps import Steps

SECONDS = 5.0
"""How long a lease lasts without renewal."""

FOREVER = 1e10
"""A time to live of this many seconds (three hundred years) means forever."""

LEASE = ":lease"
"""The end of a lease's name; the names of entries end with 32 hex digits."""

_DIGITS = 8
"""Hex digits of the number in a mark."""
_GRACE = 0.5
_FIRST_PAUSE = 0.002
_LAST_PAUSE = 0.05


def holder(store: object, name: str) -> Steps[str | None]:
    """Return the mark of the holder of an entry's lease; None if there is none."""
    (mark,) = yield ASK, store, "get_many", ((lease_of(name),),)
    return _decode(mark)


def take(store: object, name: str, token: str, seconds: float) -> Steps[str | None]:
    """Take the lease of an entry for `seconds`.

    Returns:
        None if `token` now holds it; else the mark of the holder.
    """
    mark = _encode(first_mark(token))
    found, _ = yield ASK, store, "swap", (Swap(lease_of(name), None, mark, seconds),)
    return _decode(found)


def get_and_take(
    store: object, name: str, token: str, seconds: float
) -> Steps[tuple[bytes | None, str | None]]:
    """Return the entry; if there is none, take its lease, in one step.

    Returns:
        The entry or None, and what `take` returned or None.
    """
    mark = _encode(first_mark(token))
    found, entry = yield ASK, store, "swap", (Swap(lease_of(name), None, mark, seconds, name),)
    return entry, None if entry is not None else _decode(found)


def renew(
    store: object, name: str, token: str, seconds: float, mark: str | None = None
) -> Steps[str | None]:
    """Hold the lease for `seconds` from now.

    Args:
        store: The store to ask.
        name: The entry's name.
        token: The holder's token.
        seconds: How long.
        mark: The lease's mark, if known: that saves a round trip.

    Returns:
        The new mark; None if `token` no longer holds the lease.
    """
    known = yield from _swap_own(store, name, token, mark, seconds)
    return None if known is None else _next_mark(known)


def release(store: object, name: str, token: str, mark: str | None = None) -> Steps[None]:
    """Give the lease back, if `token` holds it; the arguments are those of `renew`."""
    yield from _swap_own(store, name, token, mark, None)


def seize(store: object, name: str, token: str, seconds: float, mark: str) -> Steps[bool]:
    """Take the lease from a holder whose mark is still `mark`; return whether it was."""
    new = _encode(first_mark(token))
    found, _ = yield ASK, store, "swap", (Swap(lease_of(name), _encode(mark), new, seconds),)
    return bool(_decode(found) == mark)


def settle(
    store: object,
    name: str,
    token: str,
    data: bytes,
    ttl: float | None,
    mark: str | None = None,
) -> Steps[bool]:
    """Store the entry and give the lease back in one step, if `token` still holds it.

    Args:
        store: The store to ask.
        name: The entry's name.
        token: The holder's token.
        data: The entry.
        ttl: Seconds for which to store it; None means forever.
        mark: The lease's mark, if known.

    Returns:
        Whether it was stored.
    """
    entry = name, data, lifetime(ttl)
    return (yield from _swap_own(store, name, token, mark, None, entry)) is not None


def _swap_own(
    store: object,
    name: str,
    token: str,
    mark: str | None,
    seconds: float | None,
    along: tuple[str, bytes, float | None] | None = None,
) -> Steps[str | None]:
    """Renew a lease for `seconds`, or give it back (None), if `token` still holds it.

    Returns:
        The mark that it had; None if `token` does not hold it.
    """
    while True:
        known = mark or first_mark(token)
        new = None if seconds is None else _encode(_next_mark(known))
        change = Swap(lease_of(name), _encode(known), new, seconds, None, along)
        found, _ = yield ASK, store, "swap", (change,)
        mark = _decode(found)
        if mark == known:
            return known
        if mark is None or not is_held(token, mark):
            return None


def lifetime(ttl: float | None) -> float | None:
    """Return the time to live for a backend."""
    return None if ttl is None or ttl >= FOREVER else ttl


def lease_of(name: str) -> str:
    """Return the name of an entry's lease."""
    return name + LEASE


def first_mark(token: str) -> str:
    """Return the mark of a holder that has not renewed its lease yet."""
    return f"{token}/{0:0{_DIGITS}x}"


def _next_mark(mark: str) -> str:
    number = (int(mark[-_DIGITS:], 16) + 1) % 16**_DIGITS
    return f"{mark[:-_DIGITS]}{number:0{_DIGITS}x}"


def is_held(token: str, mark: str) -> bool:
    """Return whether a mark belongs to this holder."""
    return _token_of(mark) == token and mark[-_DIGITS - 1 : -_DIGITS] == "/"


def _token_of(mark: str) -> str:
    return mark[: -_DIGITS - 1]


def _encode(mark: str) -> bytes:
    return mark.encode("utf-8", "surrogateescape")


def _decode(mark: bytes | None) -> str | None:
    return None if mark is None else mark.decode("utf-8", "surrogateescape")


class LeaseWatch:
    """What a waiting process knows of the holder of a lease.

    Attributes:
        pause: How long to wait until the next look, in seconds; it grows with each look.
        has_failed: Whether the holder has given the lease back, and another process has it now.
        is_dead: Whether the holder has not renewed its lease for longer than it lasts.
    """

    def __init__(self, mark: str) -> None:
        """Begin to wait.

        Args:
            mark: The mark of the holder's last renewal.
        """
        self.pause: float = _FIRST_PAUSE
        self.has_failed: bool = False
        self.is_dead: bool = False
        self._mark = mark
        self._since = monotonic()

    def look(self, mark: str) -> None:
        """Note the current mark of the lease.

        A holder silent for so long that its lease may have expired has died, not failed: one
        process takes over, and the others wait for that one.
        """
        now = monotonic()
        self.pause = min(_LAST_PAUSE, 1.5 * self.pause)
        silence = now - self._since
        if mark != self._mark:
            self.has_failed = silence < SECONDS / 2 and not is_held(_token_of(self._mark), mark)
            self._mark, self._since = mark, now
        self.is_dead = now - self._since > SECONDS + _GRACE
