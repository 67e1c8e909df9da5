"""Decorated generator functions: they return what the bare ones return."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import assert_type

from opero import opero
from opero.functions import Decorated


@opero
def lines(path: str) -> Iterator[str]:
    yield path


@opero(retries=2, timeout=1.0)
def numbers(count: int, *, step: int = 1) -> Generator[int, str, bool]:
    said = yield count * step
    return said == "stop"


@opero(retries=2)
async def tokens(prompt: str) -> AsyncIterator[str]:
    yield prompt


@opero
async def answers(prompt: str) -> AsyncGenerator[str, int]:
    count = yield prompt
    yield prompt * count


@contextmanager
@opero(retries=2)
def connection(host: str) -> Generator[int, None, None]:
    yield len(host)


@asynccontextmanager
@opero(retries=2)
async def connection_later(host: str) -> AsyncGenerator[int, None]:
    yield len(host)


class Service:
    @opero(retries=2)
    def pages(self, first: int) -> Iterator[str]:
        yield str(first)

    @opero(retries=2)
    async def pages_later(self, first: int) -> AsyncIterator[str]:
        yield str(first)


def stream(function: Decorated[[str], AsyncIterator[str]]) -> AsyncIterator[str]:
    return function("hello")


def use(service: Service) -> None:
    assert_type(next(lines("a")), str)
    assert_type(numbers(1, step=2), Generator[int, str, bool])
    assert_type(numbers(1).send("stop"), int)
    assert_type(list(service.pages(1)), list[str])
    with connection("host") as made:
        assert_type(made, int)
    lines.cache_clear()


async def use_later(service: Service) -> None:
    async for token in tokens("hello"):
        assert_type(token, str)
    answering = answers("hello")
    assert_type(answering, AsyncGenerator[str, int])
    assert_type(await answering.asend(2), str)
    async for page in service.pages_later(1):
        assert_type(page, str)
    async with connection_later("host") as made:
        assert_type(made, int)
    async for token in stream(tokens):
        assert_type(token, str)
