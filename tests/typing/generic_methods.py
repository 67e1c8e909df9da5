"""Methods that return `Self`, or have type variables of their own, keep their types."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, assert_type

from opero import get_retry_decorator, opero
from opero.functions import Bound

T = TypeVar("T")
U = TypeVar("U")


class Query:
    """Has methods that return what they are called on."""

    @opero(retries=2)
    def where(self, text: str, *, count: int = 1) -> Self:
        """Return itself."""
        return self

    @opero
    def copies(self, count: int) -> list[Self]:
        """Return itself in a list."""
        return [self] * count

    @get_retry_decorator(retries=2)
    async def later(self) -> Self:
        """Return itself later."""
        return self

    @classmethod
    @opero(retries=2)
    def inside(cls, name: str) -> Self:
        """Is another constructor; opero stands below."""
        return cls()

    @opero(retries=2)
    @classmethod
    def outside(cls, name: str) -> Self:
        """Is another constructor; opero stands above."""
        return cls()

    @opero(retries=2)
    @classmethod
    async def connect(cls, name: str) -> Self:
        """Is another constructor, awaited."""
        return cls()

    @opero(cache=True)
    def same(self, value: U) -> U:
        """Return its argument."""
        return value

    @opero
    def each(self, values: list[T], change: Callable[[T], U]) -> dict[T, U]:
        """Return a value for each."""
        return {value: change(value) for value in values}

    @opero
    def other(self) -> Query:
        """Return this class, whatever it is called on."""
        return self

    @staticmethod
    @opero(cache=True)
    def parse(kind: type[int], text: str) -> int:
        """Is a static method that takes a class."""
        return kind(text)


class Subquery(Query):
    """Inherits all of them."""


class Box(Generic[T]):
    """Is generic, and so are its methods."""

    def __init__(self, content: T) -> None:
        self.content = content

    @opero
    def pair(self, other: U) -> tuple[T, U]:
        """Return the content beside something else."""
        return self.content, other

    @opero
    def itself(self) -> Self:
        """Return itself."""
        return self


assert_type(Query().where("a"), Query)
assert_type(Subquery().where("a", count=2), Subquery)
assert_type(Subquery().where("a").where("b"), Subquery)
assert_type(Subquery.where(Subquery(), "a"), Subquery)
assert_type(Subquery().copies(2), list[Subquery])
assert_type(Subquery.inside("a"), Subquery)
assert_type(Subquery().inside(name="a"), Subquery)
assert_type(Subquery.outside("a"), Subquery)
assert_type(Subquery().outside("a"), Subquery)
assert_type(Subquery().other(), Query)

assert_type(Subquery().same(1), int)
assert_type(Query().same("a"), str)
assert_type(Query().each([1], str), dict[int, str])
assert_type(Query.parse(int, "1"), int)
assert_type(Query().parse(int, "1"), int)
assert_type(Box(1).pair("a"), tuple[int, str])
assert_type(Box("a").itself(), Box[str])
assert_type(Box("a").itself().content, str)

assert_type(Query().where.cache_invalidate("a", count=2), bool)
assert_type(Query().same.cache_invalidate(1), bool)
assert_type(Query().where.__self__, Any)
copies: Bound[[int], list[Subquery]] = Subquery().copies
called: Callable[[int], list[Subquery]] = copies


async def main() -> None:
    """Await those that are awaited."""
    assert_type(await Subquery().later(), Subquery)
    assert_type(await Subquery.connect("a"), Subquery)


asyncio.run(main())
