"""The file descriptors of the standard streams, which a program may have closed.

If 0, 1 or 2 is free, the next file gets that number. The function might then print to one of our
sockets, and libuv, which uvloop uses, ends a program that closes such a descriptor.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LAST = 2


def closed() -> bool:
    """Return whether one of these descriptors is free."""
    for number in range(_LAST + 1):
        try:
            os.fstat(number)
        except OSError:
            return True
    return False


def fill() -> list[int]:
    """Open the null device at every free descriptor of a standard stream; return these."""
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
    """Keep files opened in the block off the descriptors of the standard streams."""
    taken = fill()
    try:
        yield
    finally:
        for number in taken:
            os.close(number)


def flush() -> None:
    """Flush the standard streams of this process, if possible."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
