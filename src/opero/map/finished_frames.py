"""Clears the frames in the traceback of a failure, except for file, line and source.

A traceback keeps each frame that an exception went through, and a frame keeps its local variables.
A list of a thousand failures would keep everything that a thousand attempts had loaded.
"""

from __future__ import annotations

import gc
import sys
from types import FrameType

_GENERATORS = 0x20 | 0x80 | 0x100 | 0x200
"""The flags of code whose frames can pause: generators, and coroutines of each kind."""
_TELLS = sys.implementation.name == "cpython"
"""Whether the garbage collector tells a frame that has ended from one that pauses."""


def without_locals(error: BaseException) -> BaseException:
    """Release the local variables that the tracebacks of an exception and its causes keep.

    The traceback itself stays, so that file, line and source are shown as ever. Frames that have
    not ended, such as that of a generator which has caught the exception and goes on, stay whole.
    """
    seen: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        each = errors.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        traceback = each.__traceback__
        while traceback is not None:
            _clear(traceback.tb_frame)
            traceback = traceback.tb_next
        errors += each.__cause__, each.__context__
        if isinstance(each, BaseExceptionGroup):
            errors += each.exceptions
    return error


def _clear(frame: FrameType) -> None:
    code = frame.f_code
    if _TELLS:
        # a frame has its variables for itself once it has ended; to clear one that pauses would
        # close its generator, in Python 3.11 and 3.12
        if not any(each is code for each in gc.get_referents(frame)):
            return
    elif code.co_flags & _GENERATORS:
        return
    try:
        frame.clear()
    except RuntimeError:  # it runs, in another thread
        pass
