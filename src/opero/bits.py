"""The number of bits of a size, which limits on the size of a tree add up on the way down."""

from __future__ import annotations


def width(size: int) -> int:
    """Return the number of bits of a size, at least 1.

    Compiled modules have this in C (`_compiled/bits.pxd`).

    Args:
        size: A number, 0 or more.
    """
    return (size | 1).bit_length()
