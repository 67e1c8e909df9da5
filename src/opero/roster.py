"""All decorated functions of the process, and the counts of deleted ones.

Code that reads figures at intervals, such as `opero.integrations`, reads them here, at no cost to
calls. A function created and deleted between two readings would be missing, and readers take a
falling sum for a restart. So while there are readers, figures outlive their functions (`keep`).
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
            origin: What its events say about their origin.
        """

        origin: Origin

        def trace(self, on: bool) -> None:
            """Report the history of its calls, or stop."""

        def totals(self) -> dict[str, int]:
            """Return its counts by the names in `Stats`, with waits in nanoseconds."""


_MOST_LOOSE = 1000
"""How many deleted functions to collect before their figures are added up."""

keeping: int = 0
"""How many readers there are."""

tracing: bool = False
"""Whether anyone wants the history of calls (see `core.traced`)."""

_living: dict[weakref.ref[Decorated], None] = {}
_loose: deque[tuple[Origin, dict[str, int]]] = deque()
_gone: dict[tuple[str, str], dict[str, int]] = {}
_adding = False
_maps: dict[int, weakref.ref[Any]] = {}


def enlist(state: Decorated) -> None:
    """Record a decorated function, as long as its state exists."""
    _living[weakref.ref(state, _forget)] = None
    if tracing:
        state.trace(True)


def _forget(reference: weakref.ref[Decorated]) -> None:
    _living.pop(reference, None)


def living() -> list[Decorated]:
    """Return the states of all decorated functions."""
    return [state for each in list(_living) if (state := each()) is not None]


def trace(on: bool) -> None:
    """Make all functions, present and future, report the history of their calls, or stop."""
    global tracing  # noqa: PLW0603 - it is for the whole process
    if on != tracing:
        tracing = on
        for state in living():
            state.trace(on)


# --- figures --------------------------------------------------------------------------------------


def read_figures() -> Callable[[], None]:
    """Let figures outlive their functions until you call the returned function."""
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
    """Keep the figures of a function being deleted; a finalizer may call this at any point."""
    if is_finalizing():  # imports no longer work, and nobody will read
        return
    counts = state.totals()
    if any(counts.values()):
        _loose.append((state.origin, counts))
        if len(_loose) > _MOST_LOOSE:
            _add_up()


def _add_up() -> None:
    """Add the figures of deleted functions to those of functions with the same name."""
    global _adding  # noqa: PLW0603
    if _adding:  # a finalizer during this, or another thread
        return
    _adding = True
    try:
        while _loose:
            try:
                origin, counts = _loose.popleft()
            except IndexError:  # a reader ended meanwhile
                break
            _add(_gone, origin, counts)
    finally:
        _adding = False


def figures() -> dict[tuple[str, str], Stats]:
    """Return all counts by module and qualified name, which several functions may share."""
    states = living()  # first, so that functions deleted from now on are included
    _add_up()
    sums = {name: counts.copy() for name, counts in _gone.copy().items()}
    for state in states:
        _add(sums, state.origin, state.totals())
    from .stats import stats_of

    return {name: stats_of(counts) for name, counts in sums.items()}


def name_of(origin: Origin | Event) -> tuple[str, str]:
    """Return the module and the qualified name in the origin of an event or a function."""
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


# --- running maps ---------------------------------------------------------------------------------


def begin_map(loop: Any) -> None:
    """Record that a map began; `loop` is its `MapLoop`."""
    _maps[id(loop)] = weakref.ref(loop)


def end_map(loop: Any) -> None:
    """Record that a map ended."""
    _maps.pop(id(loop), None)


def maps() -> list[Any]:
    """Return the loops of the running maps."""
    return [loop for each in list(_maps.values()) if (loop := each()) is not None]


forks.register("listeners", after_in_child=_maps.clear)
