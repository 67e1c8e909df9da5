"""A program that may be started in any way: its functions and classes are those of `__main__`."""

import sys

from opero import opmap


class Pair:
    """Goes there and comes back."""

    def __init__(self, one):
        self.one = one

    def __eq__(self, other):
        return type(other) is Pair and other.one == self.one

    __hash__ = None


method = sys.argv[-1]


@opmap(workers=2, start_method=method, retries=1, progress=False)
def swap(pair, plus=0):
    """Use what this program has defined."""
    if pair.one < 0:
        raise ArithmeticError(pair.one)
    return Pair(pair.one + plus)


@opmap(mode="async_process", workers=2, start_method=method, retries=1, progress=False)
async def aswap(pair):
    """Do the same."""
    return Pair(pair.one + 1)


def maker(more):
    """Return a map of a closure."""
    return opmap(workers=1, start_method=method, progress=False)(lambda value: value + more)


one, two, three = swap([Pair(1), Pair(-1), Pair(2)], plus=5)
assert (one, three) == (Pair(6), Pair(7))
assert type(two) is ArithmeticError
assert aswap([Pair(1)]) == [Pair(2)]
assert maker(10)([1, 2]) == [11, 12]
print("all is well")
