"""The classes that the golden vectors mention; loaded as the module `golden_classes`."""

from __future__ import annotations

import enum
from collections import namedtuple
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Colour(enum.Enum):
    """An enumeration."""

    RED = 1
    GREEN = "green"


class Level(enum.IntEnum):
    """An enumeration whose members are ints."""

    LOW = 1


class Mode(enum.Flag):
    """A flag."""

    READ = 1
    WRITE = 2


@dataclass
class Point:
    """A dataclass."""

    x: Any
    y: Any = 0


@dataclass(frozen=True)
class Slotted:
    """A dataclass with slots."""

    __slots__ = ("x",)
    x: Any


@dataclass
class Job:
    """A dataclass with a field that its constructor does not set, and one that it does not show."""

    name: str
    result: Any = field(init=False, repr=False)


Pair = namedtuple("Pair", ["a", "b"])  # noqa: PYI024 - the old way has its vector too


class Named(NamedTuple):
    """A named tuple."""

    a: Any
    b: Any = None


class Words(list[Any]):
    """A subclass of list."""


class Text(str):
    """A subclass of str."""

    __slots__ = ()


class Outer:
    """Has a class inside."""

    class Inner(dict[Any, Any]):
        """A subclass of dict inside a class."""


def with_note(value: Any, note: Any) -> Any:
    """Return a value with an attribute `note`.

    Args:
        value: The value.
        note: What its attribute is to hold.
    """
    value.note = note
    return value
