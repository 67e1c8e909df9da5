"""Who runs, and so who waits: a thread, or a greenlet under gevent and eventlet.

These put functions of their own in the place of those of `threading`: a lock then blocks a greenlet
and not its thread, and `get_ident` tells greenlets apart. So both are looked up in `threading` when
they are needed, and never by `from threading import`: whoever a lock blocks is who waits.
"""

from __future__ import annotations

import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_BUILTIN = type(len)


def identifier() -> Callable[[], int]:
    """Return the function that identifies whoever calls it, as long as it runs."""
    return threading.get_ident


def is_of_threads(identify: Callable[[], int]) -> bool:
    """Return whether an identifier is that of the system's threads."""
    return isinstance(identify, _BUILTIN)


def frame_of(identify: Callable[[], int], who: int) -> FrameType | None:
    """Return the frame that a thread is in; None if it has ended.

    Raises:
        LookupError: If nobody can know, as for a greenlet.
    """
    if not is_of_threads(identify):
        raise LookupError("greenlets do not tell where they are")
    return sys._current_frames().get(who)
