"""A mark in memory that outlives a worker process: the place of the item that it is at."""

from __future__ import annotations


def put(memory: memoryview, place: int) -> None:
    """Write the first number of a memory of signed numbers of eight bytes.

    Compiled modules have this in C (`_compiled/marks.pxd`), where it is one instruction. Nothing is
    looked at there, so what they pass is a view of their own, of memory that they have checked.
    """
    memory[0] = place
