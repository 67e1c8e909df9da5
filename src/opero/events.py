"""Where every event goes: to the log and to the listeners.

    core.Events.retry(...)  counts --.
    stores, limits, maps ------------+-> tell -> the log (`opero.logs`)
                                              -> each listener of that kind

Events that a listener causes are logged, but not passed to listeners.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from difflib import get_close_matches
from inspect import iscoroutinefunction
from typing import Any

from . import forks, logs, roster
from .event import KINDS, NOWHERE, ON_REQUEST, Event, Origin
from .exceptions import describe
from .locks import Lock

Listener = Callable[[Event], object]

_listeners: dict[str, tuple[_Subscription, ...]] = {}
"""The listeners of each kind; a tuple is replaced, never changed, and is never empty."""

_UNASKED = tuple(kind for kind in KINDS if kind not in ON_REQUEST)
_halves: dict[str, Any] = {}
_lock = Lock()
_here = threading.local()


class _Subscription:
    """One listener.

    Attributes:
        listener: The function.
        active: Whether it gets events; false once it has ended, even for an event in progress.
        warned: Whether the log already says that it raises.
    """

    __slots__ = ("active", "listener", "warned")

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.active = True
        self.warned = False


def subscribe(listener: Listener, *kinds: str) -> Callable[[], None]:
    """Call `listener` for each event, until you end the subscription.

    The listener runs in the thread or task where the event happens, and the call continues when
    the listener returns: keep it quick. If it raises, the log says so once, and nothing else
    happens. It does not get events that it causes itself.

    Args:
        listener: An ordinary function; it gets one `Event`.
        *kinds: The kinds of events it wants (see `Event`). Without any, it gets all but
            `call_end`, which sums up the others and slows first attempts down.

    Returns:
        A function that ends the subscription. You may call it in the listener, and more than once.

    Raises:
        TypeError: If the listener is not callable, or is a coroutine function.
        ValueError: If a kind does not exist.
    """
    given: object = listener
    if not callable(given):
        hint = ": the listener comes first, then the kinds" if isinstance(given, str) else ""
        raise TypeError(f"subscribe() needs a function, not {given!r}{hint}")
    if iscoroutinefunction(listener) or iscoroutinefunction(type(listener).__call__):
        raise TypeError(
            f"subscribe() needs an ordinary function, but {_name_of(listener)} is a coroutine "
            f"function: use an ordinary one that puts events into a queue, and read it in a task"
        )
    for kind in kinds:
        _check_kind(kind)
    subscription = _Subscription(listener)
    wanted = tuple(dict.fromkeys(kinds)) or _UNASKED
    with _lock:
        for kind in wanted:
            _listeners[kind] = (*_listeners.get(kind, ()), subscription)
    _forget()

    def unsubscribe() -> None:
        subscription.active = False
        with _lock:
            for kind in wanted:
                left = tuple(each for each in _listeners.get(kind, ()) if each is not subscription)
                if left:
                    _listeners[kind] = left
                else:
                    _listeners.pop(kind, None)
        _forget()

    return unsubscribe


def _check_kind(kind: Any) -> None:
    if not isinstance(kind, str):
        raise TypeError(f"subscribe(): the kind of an event must be a string, not {kind!r}")
    if kind not in KINDS:
        near = get_close_matches(kind.removesuffix("s"), KINDS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"subscribe(): unknown kind of event {kind!r}; {hint}Use one of {', '.join(KINDS)}"
        )


def of_half(core: Any) -> Any:
    """Return the events of one half of opero, a `hotpath.Core`; the same object each time."""
    found = _halves.get(core.name)
    if found is None:
        made = core.Events(logs.LOGGER, _listeners, logs.WATCHED)
        found = _halves.setdefault(core.name, made)
    return found


def _forget() -> None:
    """Make both halves look up the listeners again."""
    for events in list(_halves.values()):
        events.forget()
    roster.trace("call_end" in _listeners)


logs.when_levels_change(_forget)


def tell(kind: str, origin: Origin = NOWHERE, **fields: Any) -> None:
    """Log an event and pass it to its listeners.

    Args:
        kind: One of `KINDS`.
        origin: Where it comes from.
        **fields: The other fields of the `Event`.
    """
    subscriptions = _listeners.get(kind, ())
    logged = logs.is_logged(kind)
    if not (logged or subscriptions):
        return
    event = Event(kind, time.time(), *origin, **fields)
    if logged:
        logs.write(event)
    if not subscriptions or getattr(_here, "telling", False):
        return
    _here.telling = True
    try:
        for subscription in subscriptions:
            if subscription.active:
                _tell_one(subscription, event)
    finally:
        _here.telling = False


def _tell_one(subscription: _Subscription, event: Event) -> None:
    try:
        subscription.listener(event)
    except Exception as error:  # noqa: BLE001 - a listener must not break a call
        if not subscription.warned:
            subscription.warned = True
            logs.warn(
                "the listener %s raised %s; it still gets events, but this is logged only once",
                _name_of(subscription.listener),
                describe(error),
            )


def _name_of(listener: Any) -> str:
    try:
        return str(getattr(listener, "__qualname__", None) or type(listener).__qualname__)
    except Exception:  # noqa: BLE001 - attribute access may raise
        return "(one without a name)"


def _after_fork() -> None:
    """Replace the lock in a child process: another thread may have held it during the fork."""
    global _lock  # noqa: PLW0603 - the old one would stay locked forever
    _lock = Lock()


forks.register("listeners", after_in_child=_after_fork)
