"""All decorated functions of the process, and what those that are gone have counted.

Code that reads figures at intervals, as `opero.integrations` does, finds them here: no call pays.
A function that is made and gone between two readings would be missing, and a sum that falls is
taken for a restart. So while anybody reads, the figures of a function outlive it (`keep`).
"""

from __future__ import annotations

import weakref
from collections import deque
from sys import is_finalizing

from . import forks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from .event import Event, Origin
    from .stats import Stats

    class Decorated(Protocol):
        """The state of a decorated function (see `core.state`).

        Attributes:
            origin: What its events say about it.
        """

        origin: Origin

        def trace(self, on: bool) -> None:
            """Let the history of its calls be told, or not."""

        def totals(self) -> dict[str, int]:
            """Return what it has counted, by the names in `Stats`, waits in nanoseconds."""


_MOST_LOOSE = 1000
"""The figures of functions that are gone are added up when there are so many of them."""

keeping: int = 0
"""How many readers there are."""

tracing: bool = False
"""Whether somebody wants the history of calls (see `core.traced`)."""

_living: dict[weakref.ref[Decorated], None] = {}
_loose: deque[tuple[Origin, dict[str, int]]] = deque()
_gone: dict[tuple[str, str], dict[str, int]] = {}
_adding = False
_maps: dict[int, weakref.ref[Any]] = {}


def enlist(state: Decorated) -> None:
    """Note that a function has been decorated, for as long as its state exists."""
    _living[weakref.ref(state, _forget)] = None
    if tracing:
        state.trace(True)


def _forget(reference: weakref.ref[Decorated]) -> None:
    _living.pop(reference, None)


def living() -> list[Decorated]:
    """Return the states of all decorated functions."""
    return [state for each in list(_living) if (state := each()) is not None]


def trace(on: bool) -> None:
    """Let all functions, also those yet to come, tell the history of their calls, or not."""
    global tracing  # noqa: PLW0603 - there is one process
    if on != tracing:
        tracing = on
        for state in living():
            state.trace(on)


# --- figures --------------------------------------------------------------------------------------


def read_figures() -> Callable[[], None]:
    """Let figures outlive their functions until the function that this returns is called."""
    global keeping  # noqa: PLW0603
    keeping += 1
    ended = False

    def end() -> None:
        global keeping  # noqa: PLW0603
        nonlocal ended
        if not ended:
            ended = True
            keeping -= 1
            if not keeping:
                _loose.clear()
                _gone.clear()

    return end


def keep(state: Decorated) -> None:
    """Keep the figures of a function that is about to go; a finalizer calls this, anywhere."""
    if is_finalizing():  # nothing can be imported any more, and nobody will read
        return
    counts = state.totals()
    if any(counts.values()):
        _loose.append((state.origin, counts))
        if len(_loose) > _MOST_LOOSE:
            _add_up()


def _add_up() -> None:
    """Add the figures of functions that are gone to those of functions of the same name."""
    global _adding  # noqa: PLW0603
    if _adding:  # it is a finalizer in the middle of this, or another thread
        return
    _adding = True
    try:
        while _loose:
            try:
                origin, counts = _loose.popleft()
            except IndexError:  # a reader has ended meanwhile
                break
            _add(_gone, origin, counts)
    finally:
        _adding = False


def figures() -> dict[tuple[str, str], Stats]:
    """Return what has been counted, by module and qualified name; functions may share these."""
    states = living()  # first: what goes from now on has been seen here
    _add_up()
    sums = {name: counts.copy() for name, counts in _gone.copy().items()}
    for state in states:
        _add(sums, state.origin, state.totals())
    from .stats import stats_of

    return {name: stats_of(counts) for name, counts in sums.items()}


def name_of(origin: Origin | Event) -> tuple[str, str]:
    """Return the module and the qualified name that an event's, or a function's, origin tells."""
    return origin.module or "", origin.function or ""


def _add(
    sums: dict[tuple[str, str], dict[str, int]], origin: Origin, counts: dict[str, int]
) -> None:
    """Add the counts of a function to those of its name."""
    name = name_of(origin)
    known = sums.get(name)
    if known is None:
        sums[name] = counts.copy()
    else:
        for counter, count in counts.items():
            if count:
                known[counter] += count


# --- maps that are under way ----------------------------------------------------------------------


def begin_map(loop: Any) -> None:
    """Note that a map has begun; `loop` is its `MapLoop`."""
    _maps[id(loop)] = weakref.ref(loop)


def end_map(loop: Any) -> None:
    """Note that a map is over."""
    _maps.pop(id(loop), None)


def maps() -> list[Any]:
    """Return the loops of the maps that are under way."""
    return [loop for each in list(_maps.values()) if (loop := each()) is not None]


forks.register("listeners", after_in_child=_maps.clear)
