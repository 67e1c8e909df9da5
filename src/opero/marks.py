"""A mark in memory that outlives a worker process: the position of its current item."""

from __future__ import annotations


def put(memory: memoryview, place: int) -> None:
    """Write the first number in a memory of signed eight-byte numbers.

    Compiled modules have this in C (`_compiled/marks.pxd`), where it is one instruction. The C code
    checks nothing, so callers pass their own view of memory that they have checked.
    """
    memory[0] = place
