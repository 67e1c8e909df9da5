"""Breakers of one machine: words in shared memory that all processes change themselves.

If the words are unavailable, because the directory is read-only or full, the breaker works in this
process alone, and the log says so once.
"""

from __future__ import annotations

from opero.core.shared_breaker import word_count

from .breaker_queue import BreakerQueue
from .shared_breakers import shared_breaker
from .shared_file import Record, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from opero.event import Origin

    from .shared_breakers import Identity, Settings

_KEPT = 3_600_000_000_000
"""Nanoseconds for which an unused breaker is kept."""
_GLANCE = 200_000_000


class MachineBreakerQueue(BreakerQueue):
    """The waiters of this process for a breaker that processes share."""

    glance = _GLANCE


def machine_queue(
    core: Any, name: str, known_as: Identity, settings: Settings, origin: Origin | None
) -> MachineBreakerQueue:
    """Join the users of a breaker.

    Args:
        core: The active half of opero.
        name: What users call it.
        known_as: The name by which its users share it.
        settings: Its settings.
        origin: The function that it belongs to alone; None if several may share it.

    Raises:
        UnsafePlaceError: If others could open its file.
    """
    window, *_, open_for, probes = settings
    count = word_count(probes)
    kept = max(_KEPT, window, open_for)
    record = Record(
        f"breaker {known_as.digest}", f"breaker {name!r}", count, 0, repr(settings), kept=kept
    )
    gate = shared_breaker(core, join(core, record), settings)
    return MachineBreakerQueue(gate, name, core.clock, core.new_lock, origin)
