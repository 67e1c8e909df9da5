"""A script without a guard: its functions and classes are sent to workers that never run it."""

import dataclasses
import enum
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import work
from drive import run_map

print("begun", flush=True)


class Trouble(Exception):
    """Raised in a worker, caught here."""


class Colour(enum.Enum):
    """Compared by identity."""

    RED = 1


@dataclasses.dataclass
class Point:
    """Goes there and comes back."""

    x: int
    colour: Colour = Colour.RED


def moved(point):
    """Use what this script has defined."""
    if point.x < 0:
        raise Trouble(point.x)
    return Point(point.x + 1, point.colour)


method = sys.argv[1]
points = [Point(1), Point(-1), Point(2)]
one, trouble, two = run_map(moved, points, chunk=3, start_method=method)
assert (one, two) == (Point(2), Point(3)), (one, two)
assert type(trouble) is Trouble, repr(trouble)
assert trouble.args == (-1,)
assert one.colour is Colour.RED
assert run_map(lambda value: value * method, [1, 2], start_method=method) == [method, 2 * method]
print("all is well", flush=True)
assert run_map(work.prints, [1, 2], start_method=method) == [1, 2]
