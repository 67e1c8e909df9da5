"""Methods, class methods and static methods bind, in both orders of the decorators."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, assert_type

from opero import get_cache_decorator, get_retry_decorator, opero
from opero.stats import CacheInfo, Stats

T = TypeVar("T")


class Shop:
    """Has a decorated method of every kind."""

    @opero
    def bare(self, item: str, *, count: int = 1) -> int:
        """Is a method, decorated without parentheses."""
        return len(item) * count

    @opero(cache=True, cache_ttl=60)
    def price(self, item: str, *, count: int = 1) -> float:
        """Is a method, decorated with options."""
        return 1.5 * len(item) * count

    @get_retry_decorator(retries=2)
    def stock(self) -> int:
        """Is a method without parameters."""
        return 3

    @opero
    @classmethod
    def bare_outside_class(cls, name: str) -> Shop:
        """Is a class method; opero stands above."""
        return cls()

    @classmethod
    @opero
    def bare_inside_class(cls, name: str) -> Shop:
        """Is a class method; opero stands below."""
        return cls()

    @get_cache_decorator()
    @classmethod
    def outside_class(cls, name: str) -> str:
        """Is a class method; opero stands above, with options."""
        return name

    @classmethod
    @get_cache_decorator()
    def inside_class(cls, name: str) -> str:
        """Is a class method; opero stands below, with options."""
        return name

    @opero
    @staticmethod
    def bare_outside_static(cents: int) -> str:
        """Is a static method; opero stands above."""
        return f"{cents / 100}"

    @staticmethod
    @opero
    def bare_inside_static(cents: int) -> str:
        """Is a static method; opero stands below."""
        return f"{cents / 100}"

    @opero(cache=True)
    @staticmethod
    def outside_static(cents: int) -> bytes:
        """Is a static method; opero stands above, with options."""
        return bytes(cents)

    @staticmethod
    @opero(cache=True)
    def inside_static(cents: int) -> bytes:
        """Is a static method; opero stands below, with options."""
        return bytes(cents)

    @staticmethod
    @opero
    def static_without_parameters() -> int:
        """Is a static method without parameters."""
        return 1

    def sum(self) -> float:
        """Call a decorated method."""
        return self.price("a") + self.price("b", count=2)


class Corner(Shop):
    """Inherits all of them."""


class Box(Generic[T]):
    """Is generic."""

    def __init__(self, content: T) -> None:
        self.content = content

    @opero(cache=True)
    def take(self, count: int) -> list[T]:
        """Return what is in the box."""
        return [self.content] * count

    @opero
    def put(self, content: T) -> T:
        """Put something else in."""
        self.content = content
        return content


shop = Shop()

assert_type(shop.bare("a", count=2), int)
assert_type(shop.price("a"), float)
assert_type(shop.stock(), int)
assert_type(shop.sum(), float)
assert_type(Shop.bare(shop, "a", count=2), int)
assert_type(Shop.price(shop, item="a"), float)
assert_type(Corner().price("a"), float)
assert_type(Corner.price(Corner(), "a"), float)

assert_type(shop.price.cache_info(), CacheInfo)
assert_type(shop.price.cache_invalidate("a", count=2), bool)
assert_type(shop.price.stats(), Stats)
assert_type(shop.price.__name__, str)
assert_type(shop.price.__wrapped__(shop, "a"), float)
assert_type(shop.price.__func__(shop, "a"), float)
assert_type(shop.price.__self__, Any)
assert_type(Shop.price.cache_invalidate(shop, "a"), bool)
assert_type(Shop.price.__wrapped__(shop, "a"), float)
shop.price.cache_clear()
Shop.price.cache_clear()

assert_type(Shop.bare_outside_class("x"), Shop)
assert_type(Shop.bare_inside_class("x"), Shop)
assert_type(shop.bare_outside_class(name="x"), Shop)
assert_type(shop.bare_inside_class(name="x"), Shop)
assert_type(Shop.outside_class("x"), str)
assert_type(Shop.inside_class("x"), str)
assert_type(shop.outside_class("x"), str)
assert_type(shop.inside_class("x"), str)
assert_type(Corner.outside_class("x"), str)
assert_type(Corner.inside_class("x"), str)
assert_type(Corner().inside_class("x"), str)
assert_type(Shop.outside_class.cache_invalidate("x"), bool)
assert_type(shop.outside_class.cache_info(), CacheInfo)
assert_type(shop.inside_class.stats(), Stats)
assert_type(Corner.outside_class.__self__, Any)

assert_type(Shop.bare_outside_static(5), str)
assert_type(Shop.bare_inside_static(5), str)
assert_type(shop.bare_outside_static(cents=5), str)
assert_type(shop.bare_inside_static(cents=5), str)
assert_type(Shop.outside_static(5), bytes)
assert_type(Shop.inside_static(5), bytes)
assert_type(shop.outside_static(5), bytes)
assert_type(shop.inside_static(5), bytes)
assert_type(Shop.outside_static.cache_invalidate(5), bool)
assert_type(shop.inside_static.cache_invalidate(5), bool)
assert_type(shop.static_without_parameters(), int)
assert_type(Shop.static_without_parameters(), int)

assert_type(Box(1).take(2), list[int])
assert_type(Box("a").put("b"), str)
assert_type(Box(1).take.cache_invalidate(2), bool)


def below_classmethod() -> None:
    """Is not called: from Python 3.13 on `classmethod` does not hand its class on to this."""
    assert_type(Shop.inside_class.cache_invalidate("x"), bool)
    assert_type(shop.inside_class.cache_invalidate("x"), bool)
