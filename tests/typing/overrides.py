"""A decorated method may override a decorated method, and mypy accepts it.

pyright compares the whole types of the two functions, the instance included, and always refuses.
"""

from __future__ import annotations

import asyncio
from typing import Any, Generic, TypeVar, assert_type

from opero import opero

T = TypeVar("T")


class Store:
    """Has methods to override."""

    @opero(retries=2)
    def read(self, key: str) -> object:
        """Return what is stored."""
        return key

    @opero(retries=2)
    async def fetch(self, key: str) -> str:
        """Return what is stored, later."""
        return key

    @classmethod
    @opero(retries=2)
    def size(cls, factor: int) -> int:
        """Is a class method."""
        return factor

    @staticmethod
    @opero(retries=2)
    def valid(key: str) -> bool:
        """Is a static method."""
        return bool(key)

    @opero(retries=2)
    def log(self, value: T, *more: T) -> None:
        """Take anything; the type of the result does not depend on it."""


class Shelf(Store):
    """Overrides them, with wider parameters and a narrower result."""

    @opero(retries=3)
    def read(self, key: str | int, default: str = "") -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Call the method of the base."""
        return str(super().read(str(key)) or default)

    @opero(retries=3)
    async def fetch(self, key: str) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Call the method of the base, later."""
        return await super().fetch(key)

    @classmethod
    @opero(retries=3)
    def size(cls, factor: int) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Call the class method of the base."""
        return 2 * super().size(factor)

    @staticmethod
    @opero(retries=3)
    def valid(key: str) -> bool:
        """Call the static method of the base."""
        return Store.valid(key)


class Row(Shelf):
    """Overrides once more."""

    @opero
    def read(self, key: str | int, default: str = "") -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Call the method of the base."""
        return super().read(key, default)


class Box(Generic[T]):
    """Is generic."""

    def __init__(self, content: T) -> None:
        self.content = content

    @opero
    def take(self) -> T:
        """Return the content."""
        return self.content


class Number(Box[int]):
    """Overrides a method of a generic class."""

    @opero
    def take(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Call the method of the base."""
        return super().take() + 1


assert_type(Store().read("a"), object)
assert_type(Row().read(1), str)
assert_type(Shelf.size(2), int)
assert_type(Shelf().size(factor=2), int)
assert_type(Shelf().valid("a"), bool)
assert_type(Number(1).take(), int)
assert_type(Row().read.__self__, Any)
Store().log(1)
Store().log("a", "b")
asyncio.run(Shelf().fetch("a"))
