"""Memory that a process and its worker share, without a directory such as /dev/shm or TMPDIR."""

from __future__ import annotations

import mmap
import os
import sys
from multiprocessing import reduction
from typing import Any

PLACE, BEGUN, JOB, LAST, MEMORY = range(5)
"""The numbers: the place of the attempt under way, or a state of the worker; when that attempt and
its job began, in nanoseconds; the process that the system had started last when the job began; how
many bytes of memory the worker had after its last job, if the map wants to know."""

SIZE = 8 * 5


class Cells:
    """Memory that outlives the worker, and can be sent to it while it starts.

    Attributes:
        numbers: Its contents, as signed numbers.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = _nameless() if descriptor is None else descriptor
        memory = mmap.mmap(self._descriptor, SIZE)
        if descriptor is not None:
            self.close()
        self.numbers: memoryview[int] = memoryview(memory).cast("q")

    def __reduce__(self) -> Any:
        return _arrived, (reduction.DupFd(self._descriptor),)

    def close(self) -> None:
        """Close its file; the memory stays, but can no longer be sent."""
        os.close(self._descriptor)


def _arrived(duplicate: Any) -> Cells:
    return Cells(duplicate.detach())


def _nameless() -> int:
    """Open a nameless file of `SIZE` bytes."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("opero", os.MFD_CLOEXEC)
    else:
        from _posixshmem import shm_open, shm_unlink  # type: ignore[import-not-found, unused-ignore]

        name = f"/opero-{os.getpid()}-{os.urandom(4).hex()}"
        descriptor = shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
        shm_unlink(name)
    os.ftruncate(descriptor, SIZE)
    return descriptor


class WindowsCells:
    """The same on Windows, where a name that is not a file's identifies shared memory."""

    def __init__(self) -> None:
        from multiprocessing import heap

        self._block = heap.BufferWrapper(SIZE)
        self.numbers: memoryview[int] = self._block.create_memoryview().cast("q")

    def __getstate__(self) -> Any:
        return self._block

    def __setstate__(self, block: Any) -> None:
        self._block = block
        self.numbers = block.create_memoryview().cast("q")

    def close(self) -> None:
        """Do nothing."""


if sys.platform == "win32":
    Cells = WindowsCells  # type: ignore[misc, assignment]
