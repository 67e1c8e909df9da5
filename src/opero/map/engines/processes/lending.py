"""Memory that a map lends to its workers: large data that is the same for all of them.

The map copies it once, into a nameless file, and each worker maps that file privately: it shares
the memory as long as it only reads, and gets a copy of each page that it writes to. On Linux a
worker opens the file through the descriptors of the lending process. Elsewhere, or if that fails,
the parts go over its socket.
"""

from __future__ import annotations

import mmap
import os
import weakref
from typing import Any

from opero import forks

LARGE = 1 << 20
"""The smallest part that is lent, in bytes."""

Ticket = tuple[int, int, int, tuple[int, int], list[tuple[int, int, int]]]
"""The owner's process, its descriptor, the file's size and identity, and the parts: index, offset,
size."""


_all: weakref.WeakSet[Lent] = weakref.WeakSet()


class Lent:
    """The parts that a map sends, the large ones in memory that workers can share.

    Attributes:
        ticket: What a worker needs to find the lent parts.
        parts: The parts, without the contents of lent ones.
    """

    def __init__(self, file: int, ticket: Ticket, parts: list[Any]) -> None:
        self.ticket: Ticket = ticket
        self.parts: list[Any] = parts
        self.close: Any = weakref.finalize(self, os.close, file)
        self.close.atexit = False
        _all.add(self)


def lend(parts: list[Any]) -> Lent | None:
    """Lend the large parts; return None if there are none, or they cannot be lent."""
    sizes = [memoryview(part).nbytes for part in parts]
    if max(sizes, default=0) < LARGE or not hasattr(os, "memfd_create"):
        return None
    try:
        file = os.memfd_create("opero-map")
    except OSError:
        return None
    places = []
    end = 0
    try:
        for index, size in enumerate(sizes):
            if size >= LARGE:
                places.append((index, end, size))
                _write(file, memoryview(parts[index]).cast("B"), end)
                end += -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        os.ftruncate(file, end)
        state = os.fstat(file)
    except (OSError, MemoryError):
        os.close(file)
        return None
    ticket = os.getpid(), file, end, (state.st_dev, state.st_ino), places
    lent = {index for index, _, _ in places}
    left = [b"lent" if index in lent else part for index, part in enumerate(parts)]
    return Lent(file, ticket, left)


def borrow(parts: list[Any], ticket: Ticket) -> list[Any]:
    """Return the parts, including the lent ones.

    Raises:
        OSError: If this process cannot open their file.
    """
    owner, number, size, which, places = ticket
    file = os.open(f"/proc/{owner}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
    try:
        state = os.fstat(file)
        if (state.st_dev, state.st_ino) != which:
            raise OSError("it is another file")
        memory = memoryview(mmap.mmap(file, size, access=mmap.ACCESS_COPY))
    finally:
        os.close(file)
    parts = list(parts)
    for index, offset, length in places:
        parts[index] = memory[offset : offset + length]
    return parts


def _write(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data = data[written:]
        offset += written


def _forget() -> None:
    """Close what the parent lends, in a forked child: it would keep the memory alive."""
    for each in list(_all):
        each.close()
    _all.clear()


forks.register("pipes", after_in_child=_forget)
