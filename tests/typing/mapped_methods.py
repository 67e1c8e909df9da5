"""Mapped methods, class methods and static methods bind, and map over items of their own type."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from typing import Any, assert_type

from opero import MapResult, opmap
from opero.functions import BoundMap, UnboundMap
from opero.stats import CacheInfo, Stats


class Shop:
    """Has a mapped method of every kind."""

    @opmap(mode="thread", cache=True, progress=False)
    def price(self, item: str, *, count: int = 1) -> float:
        """Is a method with a shared argument."""
        return 1.5 * len(item) * count

    @opmap(mode="thread", progress=False)
    def stock(self, item: str) -> int:
        """Is a method without one."""
        return len(item)

    @opmap
    def bare(self, item: str) -> int:
        """Is mapped without parentheses, and not called here."""
        return len(item)

    @opmap(mode="async", on_error="raise", progress=False)
    async def later(self, item: int, plus: int = 0) -> bytes:
        """Is awaited."""
        return bytes(item + plus)

    @opmap(mode="thread", progress=False)
    @classmethod
    def of_class(cls, item: int, *, name: str = "") -> str:
        """Is a class method."""
        return cls.__name__ + name * item

    @opmap(mode="thread", progress=False)
    @staticmethod
    def outside(item: str, times: int = 1) -> int:
        """Is a static method, mapped above."""
        return len(item) * times

    @staticmethod
    @opmap(mode="thread", progress=False)
    def inside(item: str, times: int = 1) -> int:
        """Is a static method, mapped below."""
        return len(item) * times


class Corner(Shop):
    """Inherits them."""

    def both(self) -> None:
        """Map by its own method and by that of its base."""
        assert_type(self.price(["a"]), MapResult[float | BaseException])
        assert_type(super().price(["a"], count=2), MapResult[float | BaseException])


def takes(bound: BoundMap[str, ..., Any], unbound: UnboundMap[Shop, str, ..., Any]) -> None:
    """Take a mapped method, with and without its instance."""
    assert_type(bound(["a"]), MapResult[Any])
    assert_type(unbound(Shop(), ["a"]), MapResult[Any])


async def aitems() -> AsyncIterator[int]:
    """Yield an item to a coroutine."""
    yield 1


shop = Shop()
Corner().both()
takes(shop.price, Shop.price)

assert_type(shop.price(["a"], count=2), MapResult[float | BaseException])
assert_type(shop.stock(["a"]), MapResult[int | BaseException])
assert_type(shop.later([1], plus=3), MapResult[bytes])
assert_type(Shop.price(shop, ["a"], count=2), MapResult[float | BaseException])
assert_type(Corner.price(Corner(), ["a"]), MapResult[float | BaseException])
assert_type(Corner().stock(["a"]), MapResult[int | BaseException])
assert_type(Shop.of_class([1], name="a"), MapResult[str | BaseException])
assert_type(shop.of_class([1]), MapResult[str | BaseException])
assert_type(Corner.of_class([1]), MapResult[str | BaseException])
assert_type(Shop.outside(["a"], times=2), MapResult[int | BaseException])
assert_type(shop.outside(["a"]), MapResult[int | BaseException])
assert_type(Shop.inside(["a"], times=2), MapResult[int | BaseException])
assert_type(shop.inside(["a"]), MapResult[int | BaseException])

assert_type(shop.price.stream(["a"], count=2), Generator[float | BaseException, None, None])
assert_type(Shop.price.stream(shop, ["a"]), Generator[float | BaseException, None, None])
assert_type(Shop.of_class.stream([1]), Generator[str | BaseException, None, None])
assert_type(shop.price.cache_info(), CacheInfo)
assert_type(shop.price.stats(), Stats)
assert_type(shop.price.cache_invalidate("a", count=2), bool)
assert_type(Shop.price.cache_invalidate(shop, "a"), bool)
assert_type(shop.price.__self__, Any)
assert_type(shop.price.__name__, str)
assert_type(shop.price.__func__(shop, ["a"]), MapResult[float | BaseException])
assert_type(shop.price.__wrapped__(shop, "a"), Any)
assert_type(Shop.price.__wrapped__(shop, "a", count=1), Any)
shop.price.cache_clear()


async def main() -> None:
    """Await them."""
    assert_type(await shop.price.amap(["a"]), MapResult[float | BaseException])
    assert_type(await shop.later.amap(aitems(), plus=1), MapResult[bytes])
    assert_type(await Shop.later.amap(shop, aitems()), MapResult[bytes])
    assert_type(Shop.later.astream(shop, [1]), AsyncGenerator[bytes, None])
    async for found in shop.later.astream([1], plus=1):
        assert_type(found, bytes)


asyncio.run(main())
