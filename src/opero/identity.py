"""Who runs and waits: a thread, or a greenlet under gevent and eventlet.

Those libraries replace functions of `threading`: a lock then blocks a greenlet instead of its
thread, and `get_ident` identifies greenlets. So opero looks both up in `threading` when it needs
them, and never uses `from threading import`: the identified one is the one that a lock blocks.
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
    """Return the function that identifies its caller while the caller runs."""
    return threading.get_ident


def is_of_threads(identify: Callable[[], int]) -> bool:
    """Return whether a function identifies the system's threads."""
    return isinstance(identify, _BUILTIN)


def frame_of(identify: Callable[[], int], who: int) -> FrameType | None:
    """Return the current frame of a thread; None if it has ended.

    Raises:
        LookupError: If that is unknown, as for a greenlet.
    """
    if not is_of_threads(identify):
        raise LookupError("the frame of a greenlet is unknown")
    return sys._current_frames().get(who)
