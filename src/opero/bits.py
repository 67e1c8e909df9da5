"""How many bits a size has: what a bound on the size of a tree is added up of, on the way down."""

from __future__ import annotations


def width(size: int) -> int:
    """Return the number of bits of a size, at least 1.

    Compiled modules have this in C (`_compiled/bits.pxd`).

    Args:
        size: A number that is not negative.
    """
    return (size | 1).bit_length()
