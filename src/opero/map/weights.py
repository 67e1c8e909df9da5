"""Quick estimates of how many bytes items take up.

An item is estimated before it waits for a worker, so this must be cheap: it goes a few levels deep,
samples the elements of containers, and uses the sizes that arrays and frames report.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

SMALL: Final = frozenset({bool, float, int, type(None)})
"""Types whose values take up about `SMALLEST`."""

SMALLEST: Final = 32
"""Bytes."""

_FLAT: Final = frozenset({bytearray, bytes, complex, str})
"""Types whose values refer to nothing."""

_SAMPLE = 8
"""How many elements of a container to sample; all if it is short."""

_DEPTH = 3
"""How many levels of containers to look into."""

_HEAVY = 1 << 16
"""Bytes from which on a part of an item is known again in the next item."""

_CALM = 64
_EVERY = 16
"""After how many light items in a row only one in how many is looked into."""

_CELL = 50
"""Bytes that a frame's cell takes in addition to its pointer, if it holds an object."""


def estimated_size(thing: Any) -> int:
    """Return about how many bytes a value takes up, without what it refers to.

    It replaces `sys.getsizeof` on PyPy, which has none.
    """
    if isinstance(thing, str):
        return 64 + (len(thing) if thing.isascii() else 3 * len(thing))
    if isinstance(thing, (bytes, bytearray)):
        return 48 + len(thing)
    if isinstance(thing, (list, tuple, deque)):
        return 64 + 8 * len(thing)
    if isinstance(thing, (dict, frozenset, set)):
        return 128 + 48 * len(thing)
    return 64


size_of: Callable[[Any], int] = sys.getsizeof if hasattr(object, "__sizeof__") else estimated_size
"""How many bytes a value takes up, without what it refers to."""


class Scales:
    """Weighs the items of one input, one after the other.

    A large part that several items share, a table behind each row number, say, weighs once.
    """

    __slots__ = ("_calm", "_parts", "_seen")

    def __init__(self) -> None:
        self._parts: set[int] = set()  # the large parts of the item before, by identity
        self._seen: set[int] = set()
        self._calm = 0

    def weigh_all(self, items: list[Any]) -> int:
        """Return how many bytes some items take up."""
        kinds = set(map(type, items))
        if kinds <= SMALL:
            return SMALLEST * len(items)
        if kinds <= _FLAT:
            return sum(map(size_of, items))
        if self._calm < _CALM:
            return sum(map(self.weigh, items))
        some = items[::_EVERY]
        return sum(map(self.weigh, some)) * len(items) // len(some)

    def weigh(self, item: Any) -> int:
        """Return how many bytes an item takes up."""
        kind = type(item)
        if kind in SMALL:
            return SMALLEST
        try:
            if kind in _FLAT:
                return size_of(item)
            self._seen = set()
            weight = self._inside(item, kind, _DEPTH, True)
            self._parts = self._seen
        except Exception:  # noqa: BLE001 - a class may answer as it likes
            return SMALLEST
        self._calm = self._calm + 1 if weight < _HEAVY else 0
        return weight

    def _inside(self, item: Any, kind: type, depth: int, whole: bool) -> int:
        if kind in SMALL:
            return SMALLEST
        size = size_of(item) if kind in _FLAT else self._of_compound(item, kind, depth)
        if size < _HEAVY or whole:
            return size
        self._seen.add(id(item))
        return 0 if id(item) in self._parts else size

    def _of_compound(self, item: Any, kind: type, depth: int) -> int:
        if issubclass(kind, (list, tuple)):
            base = list if issubclass(kind, list) else tuple
            count = base.__len__(item)
            step = 1 if count <= 2 * _SAMPLE else count // _SAMPLE
            some = [base.__getitem__(item, at) for at in range(0, count, step)]
            return _own_size(item, base) + self._of_sample(some, count, depth)
        if kind is dict:
            some = [each for pair in islice(item.items(), _SAMPLE) for each in pair]
            return size_of(item) + self._of_sample(some, 2 * len(item), depth)
        if kind in {deque, frozenset, set}:
            some = list(islice(item, _SAMPLE))
            return size_of(item) + self._of_sample(some, len(item), depth)
        told = _told(item, kind)
        if told is not None:
            return told
        size = size_of(item)
        held = getattr(item, "__dict__", None)
        if type(held) is dict:
            size += self._inside(held, dict, depth, False)
        slots = getattr(kind, "__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            size += self._part(getattr(item, name, None), depth)
        return size

    def _of_sample(self, some: list[Any], count: int, depth: int) -> int:
        """Return what a container's elements weigh, by a sample of them."""
        if not some:
            return 0
        weight = sum([self._part(each, depth) for each in some])
        return weight if len(some) == count else weight * count // len(some)

    def _part(self, item: Any, depth: int) -> int:
        return self._inside(item, type(item), depth - 1, False) if depth else SMALLEST


def _own_size(item: Any, base: Any) -> int:
    """Return the size of a list or tuple, whatever a subclass says of itself."""
    measure = estimated_size if size_of is estimated_size else base.__sizeof__
    return int(measure(item))


def _told(item: Any, kind: type) -> int | None:
    """Return what arrays, tables and frames say of their size; None if it says nothing."""
    if hasattr(kind, "nbytes"):  # NumPy, PyTorch, Arrow, xarray, `memoryview`
        told = item.nbytes
    elif hasattr(kind, "estimated_size"):  # polars
        told = item.estimated_size()
    elif hasattr(kind, "memory_usage"):  # pandas; its `__sizeof__` looks at each cell
        told = item.memory_usage(deep=False)
        told = told.sum() if hasattr(told, "sum") else told
        kinds = getattr(item, "dtypes", None)
        objects = 0 if kinds is None else sum(str(each) == "object" for each in _all(kinds))
        told += _CELL * objects * len(item)
    else:
        return None
    return None if callable(told) else int(told) + SMALLEST


def _all(kinds: Any) -> Any:
    return kinds if hasattr(type(kinds), "__iter__") else (kinds,)
