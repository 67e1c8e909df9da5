"""A program that may be started in any way: its functions and classes are those of `__main__`."""

import sys

from opero import opero, opmap


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


class Shop:
    """Has a decorated method."""

    def __init__(self, tax):
        self.tax = tax

    @opero(retries=2, min_delay=0, cache=True)
    def price(self, net):
        """Fail at first."""
        self.asked = getattr(self, "asked", 0) + 1
        if self.asked == 1:
            raise ConnectionError
        return net + self.tax


@opero(cache=True)
def factorial(number):
    """Call itself, by the name of the decorated function."""
    return number * factorial(number - 1) if number else 1


@opero(retries=2)
async def patient(number):
    """Be awaited."""
    return -number


@opmap(mode="thread", workers=2, progress=False)
def halves(number):
    """Be mapped inside a worker."""
    return number / 2


@opmap(workers=2, start_method=method, progress=False, on_error="raise")
def uses_the_others(number):
    """Call what this program has decorated."""
    twice = (factorial(number), factorial(number), factorial.cache_info().hits > 0)
    return (*twice, halves([number]), Shop(1).price(number), factorial.__name__)


@opmap(mode="async_process", workers=2, start_method=method, progress=False, on_error="raise")
async def awaits_another(number):
    """Await what this program has decorated."""
    return await patient(number)


def maker(more):
    """Return a map of a closure."""
    return opmap(workers=1, start_method=method, progress=False)(lambda value: value + more)


one, two, three = swap([Pair(1), Pair(-1), Pair(2)], plus=5)
assert (one, three) == (Pair(6), Pair(7))
assert type(two) is ArithmeticError
assert aswap([Pair(1)]) == [Pair(2)]
assert uses_the_others([5]) == [(120, 120, True, [2.5], 6, "factorial")]
assert awaits_another([1, 2]) == [-1, -2]
assert maker(10)([1, 2]) == [11, 12]
print("all is well")
