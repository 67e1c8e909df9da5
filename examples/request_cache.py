"""A cache for one request, which looks up each value once and forgets it at the end.

    pip install .                        # in a checkout of opero
    python examples/request_cache.py

Two requests at once, and each asks for the same users again and again. Exits with 1 if one of
them asked the database twice, saw the values of the other, or left anything behind.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from opero import get_cache_decorator


class Database:
    """A toy: it counts its queries."""

    def __init__(self) -> None:
        self.names = {1: "Ada", 2: "Grace"}
        self.queries = 0

    async def name_of(self, user: int) -> str:
        """Ask for a name."""
        self.queries += 1
        await asyncio.sleep(0.01)
        return self.names[user]


class Lookups:
    """What one request has looked up. Each instance has its own cache, which ends with it."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @get_cache_decorator()
    async def name_of(self, user: int) -> str:
        """Return the name of a user."""
        return await self.database.name_of(user)


current: ContextVar[Lookups] = ContextVar("current")


@contextmanager
def request_scope(database: Database) -> Iterator[None]:
    """Give a request its own lookups; in FastAPI or Django this is a middleware."""
    token = current.set(Lookups(database))
    try:
        yield
    finally:
        current.reset(token)


async def greeting(user: int) -> str:
    """Greet a user; code this deep knows nothing about requests."""
    return f"Hello, {await current.get().name_of(user)}"


async def handle(database: Database) -> list[str]:
    """Answer a request: twenty greetings at once, for two users."""
    with request_scope(database):
        return await asyncio.gather(*(greeting(1 + number % 2) for number in range(20)))


async def serve(database: Database) -> tuple[set[str], set[str], list[int]]:
    """Answer two requests at once, then one more after a change; count the queries."""
    queries = []
    first, _ = await asyncio.gather(handle(database), handle(database))
    queries.append(database.queries)
    database.names[1] = "Ada Lovelace"
    later = await handle(database)
    queries.append(database.queries)
    return set(first), set(later), queries


def main() -> int:
    """Answer three requests; return the exit code."""
    before, after, queries = asyncio.run(serve(Database()))
    gc.collect()
    left = Lookups.name_of.cache_info().currsize
    print(f"two requests at once: {sorted(before)}, with {queries[0]} queries for 40 greetings")
    print(f"a later one: {sorted(after)}, with {queries[1] - queries[0]} queries")
    print(f"values that are still cached: {left}")
    fresh = after == {"Hello, Ada Lovelace", "Hello, Grace"}
    return 0 if fresh and queries == [4, 6] and left == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
