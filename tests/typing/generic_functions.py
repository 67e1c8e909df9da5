"""Functions with type variables, and overloaded ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar, assert_type, overload

from opero import get_cache_decorator, get_retry_decorator, opero
from opero.functions import Decorated

T = TypeVar("T")
Key = TypeVar("Key", bound=str)
P = ParamSpec("P")


@opero
def same(value: T) -> T:
    """Return what it got."""
    return value


@opero(cache=True)
def first(values: Sequence[T], default: T | None = None) -> T | None:
    """Return the first value."""
    return values[0] if values else default


@get_cache_decorator()
def lookup(table: dict[Key, T], key: Key) -> T:
    """Look a key up."""
    return table[key]


@opero(retries=2)
async def later(value: T) -> list[T]:
    """Return it later."""
    return [value]


@overload
def parse(text: str) -> int: ...
@overload
def parse(text: bytes) -> float: ...
@opero(cache=True)
def parse(text: str | bytes) -> float:
    """Parse: the overloads are seen, the attributes are not."""
    return int(text) if isinstance(text, str) else float(text)


def resilient(function: Callable[P, T]) -> Decorated[P, T]:
    """Decorate with the house's own options."""
    return opero(retries=5, cache=True)(function)


@resilient
def measured(a: int, *, b: str = "") -> float:
    """Is decorated by the house's own decorator."""
    return float(a)


def every(functions: Iterable[Callable[..., Any]]) -> list[Decorated[..., Any]]:
    """Decorate many."""
    return [get_retry_decorator()(function) for function in functions]


assert_type(same(1), int)
assert_type(same("a"), str)
assert_type(first([1, 2]), int | None)
assert_type(first(["a"], default="b"), str | None)
assert_type(lookup({"a": 1}, "a"), int)
assert_type(parse("1"), int)
assert_type(parse(b"1"), float)
assert_type(measured(1, b="x"), float)
assert_type(measured.cache_invalidate(1, b="x"), bool)
assert_type(every([len, abs])[0](""), Any)


async def main() -> None:
    """Await the generic one."""
    assert_type(await later(1), list[int])
    assert_type(await later("a"), list[str])


asyncio.run(main())
