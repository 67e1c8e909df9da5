"""The numbers of the standard streams, which a program may have closed.

Where 0, 1 or 2 is free, the next file gets that number: a socket of ours would be what the function
prints to, and libuv, below uvloop, ends a program that closes a file with such a number.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LAST = 2


def closed() -> bool:
    """Return whether one of these numbers is free."""
    for number in range(_LAST + 1):
        try:
            os.fstat(number)
        except OSError:
            return True
    return False


def fill() -> list[int]:
    """Open the null device under every number of a standard stream that is free; return these."""
    taken: list[int] = []
    while True:
        number = os.open(os.devnull, os.O_RDWR)
        if number > _LAST:
            os.close(number)
            return taken
        os.set_inheritable(number, True)
        taken.append(number)


@contextmanager
def filled() -> Iterator[None]:
    """Keep what is opened in the block off the numbers of the standard streams."""
    taken = fill()
    try:
        yield
    finally:
        for number in taken:
            os.close(number)


def flush() -> None:
    """Write out what the streams of this process hold, if they can."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
