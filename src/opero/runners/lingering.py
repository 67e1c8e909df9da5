"""Calls of ordinary functions whose cached values are refreshed, or serve after they expire.

    find -> a plain hit
      | nothing, or a value to look closer at
      v
    linger -> fresh: a hit, which may begin a refresh (`refreshes`)
      | outdated, or nothing
      v
    lead -> the run's value
      | failed
      v
    the outdated value, if it may still serve

Functions without `cache_refresh` and `cache_stale` never come here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from opero.core.clock import NEVER
from opero.never_failures import is_never_failure

from .background import background
from .refreshes import MemoryRefresh

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.call import Call
    from opero.core.entry import Entry
    from opero.core.store import MemoryStore


def linger(
    call: Call, store: MemoryStore, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Answer a call that is not a plain hit.

    Args:
        call: The decorated function.
        store: The store of its value.
        key: The call's key, which may contain the arguments themselves.
        args: The positional arguments.
        kwargs: The keyword arguments.

    Returns:
        The function's result, from now or earlier.
    """
    entry = store.look_closer(key)
    value: Any = None
    try:
        if entry is not None:
            value = store.value_of(entry)
            if store.is_fresh(entry):
                note_hit(call)
                if is_due(store, entry):
                    with suppress(Exception):  # no thread can be started: the next hit asks again
                        background.offer(MemoryRefresh(call, store, entry, args, kwargs))
                return value
        note_miss(call)
        deadline = call.clock.now() + call.timeout if call.timeout else NEVER
        try:
            key = call.lasting(key)
            return call.runner.lead(call, store, key, args, kwargs, deadline, entry is not None)
        except Exception as error:
            if entry is None or not serves_stale(call, store, entry, error):
                raise
            return value
    finally:
        entry = value = None  # the caller may keep a traceback


def note_hit(call: Any) -> None:
    """Count and report a hit."""
    call.add("hits", 1)
    if call.events.heeded:
        call.events.hit(call)


def note_miss(call: Any) -> None:
    """Count and report a miss."""
    call.add("misses", 1)
    if call.events.heeded:
        call.events.miss(call)


def is_due(store: MemoryStore, entry: Entry) -> bool:
    """Return whether a hit on a fresh value begins a refresh."""
    expires = entry.expires
    return expires < entry.fresh and expires <= store.clock.now()


def serves_stale(call: Any, store: MemoryStore, entry: Entry, error: BaseException) -> bool:
    """Return whether to serve an outdated value for a failed run; count and report that.

    Args:
        call: The decorated function.
        store: The store that holds the value.
        entry: Its entry; one cleared meanwhile is not served.
        error: What the run raised.
    """
    if not isinstance(error, Exception) or is_never_failure(error) or not store.serves(entry):
        return False
    age = (call.clock.now() - entry.fresh) / 1e9
    call.add("stale", 1)
    call.events.stale(call, max(0.0, age), error)
    return True
