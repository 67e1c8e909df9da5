"""Breakers of one machine: words in shared memory that all processes change themselves.

Where the words cannot be had, since the directory is read-only or full, the breaker goes on in this
process alone, and says so once.
"""

from __future__ import annotations

from opero.core.shared_breaker import word_count
from opero.events import tell
from opero.exceptions import UnsafePlaceError
from opero.real_time import monotonic_ns

from .breaker_queue import BreakerQueue
from .shared_breakers import private_words, shared_breaker
from .shared_file import FIRST, join, remove_unused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from opero.event import Origin

    from .shared_breakers import Identity, Settings
    from .shared_file import LockFile

_MANY = 256
"""How many files there may be until those are removed that nobody uses any more."""
_KEPT = 3_600_000
"""Milliseconds for which an open breaker is kept that nobody uses."""
_GLANCE = 200_000_000


class MachineBreakerQueue(BreakerQueue):
    """Those of this process who wait for a breaker that processes share."""

    glance = _GLANCE

    def __init__(
        self, gate: Any, name: str, core: Any, origin: Origin | None, file: LockFile | None
    ) -> None:
        """Begin with nobody waiting (see `BreakerQueue`).

        Args:
            gate: The breaker.
            name: What users call it.
            core: The half of opero that it belongs to.
            origin: The function that the breaker belongs to alone; None if several may share it.
            file: The lock file; None if the words are this process's alone.
        """
        super().__init__(gate, name, core.clock, core.new_lock, origin)
        self._file = file

    def after_fork(self) -> None:
        """Forget those who wait, and have a lock of its own for the child process."""
        super().after_fork()
        if self._file is not None:
            self._file.reopen()
            self.gate.words.relock(self._file.descriptor)


def machine_queue(
    core: Any, name: str, known_as: Identity, settings: Settings, origin: Origin | None
) -> MachineBreakerQueue:
    """Join those who share a breaker.

    Args:
        core: The active half of opero.
        name: What users call it.
        known_as: What it is known as by those who share it.
        settings: Its settings.
        origin: The function that it belongs to alone; None if several may share it.

    Raises:
        UnsafePlaceError: If others could open its file.
    """
    probes = settings[-1]
    count = word_count(probes)
    file: LockFile | None = None
    try:
        remove_unused("breaker", _is_idle, _MANY)
        memory, file = join(
            known_as.digest, "breaker", f"breaker {name!r}", count, 0, repr(settings[0])
        )
        words = core.SharedCounters(memory, FIRST, count, file.descriptor)
    except UnsafePlaceError:
        raise
    except OSError as error:
        file = None
        words = private_words(core, probes)
        tell(
            "store_down",
            store=f"the machine-wide breaker {name!r}",
            error=error,
            reason="this process decides by itself",
        )
    gate = shared_breaker(core, words, settings)
    return MachineBreakerQueue(gate, name, core, origin, file)


def _is_idle(words: list[int], settings: str) -> bool:
    """Return whether a breaker that nobody uses says nothing that a new one would not.

    Args:
        words: Its words.
        settings: Its window, in nanoseconds.
    """
    now = monotonic_ns()
    moment = words[0] >> 1 & ((1 << 40) - 1)
    if words[0] & 1:
        return moment + _KEPT < now // 1_000_000
    tenth = max(1, int(settings) // 10)
    index = now // tenth
    return all((index - (word >> 32)) % (1 << 24) >= 10 for word in words[1:11] if word)
