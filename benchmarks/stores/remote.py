"""Rows of the cache in Redis: whole calls, ordinary and awaited, and a map over known items.

All sides talk to one server on the loopback device. "By hand" is what one would write with redis-py
alone: `GET`, `pickle`, `SET` with a time to live. cashews and aiocache have no ordinary functions;
aiocache is told to pickle, since its README's serialiser would change types.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from benchmarks.implementations import Implementation, using
from benchmarks.measure import Effort
from benchmarks.rows import COMPILED, OPERO, Function, Measured, Row, Target
from opero import opmap

from . import turns, values
from .disk import LASTS
from .place import SECRET, MissingError, Place
from .sides import MICROSECOND, Side, StoreRow


@contextmanager
def _by_hand(place: Place, function: Function) -> Iterator[Function]:
    with import_module("redis").Redis.from_url(place.url()) as client:

        def cached(key: Any) -> Any:
            name = f"hand:{function.__name__}:{key!r}"
            found = client.get(name)
            if found is not None:
                return pickle.loads(found)
            value = function(key)
            client.set(name, pickle.dumps(value), ex=values.TTL)
            return value

        yield cached


@contextmanager
def _cachier(place: Place, function: Function) -> Iterator[Function]:
    cachier = import_module("cachier").cachier
    with import_module("redis").Redis.from_url(place.url()) as client:
        yield cachier(backend="redis", redis_client=client, stale_after=LASTS)(function)


@contextmanager
def _by_hand_later(place: Place, function: Function) -> Iterator[Function]:
    client = import_module("redis.asyncio").Redis.from_url(place.url())

    async def cached(key: Any) -> Any:
        name = f"hand:{function.__name__}:{key!r}"
        found = await client.get(name)
        if found is not None:
            return pickle.loads(found)
        value = await function(key)
        await client.set(name, pickle.dumps(value), ex=values.TTL)
        return value

    yield cached
    place.run(client.aclose())


@contextmanager
def _cashews(place: Place, function: Function) -> Iterator[Function]:
    cache = import_module("cashews").Cache()
    cache.setup(place.url())
    yield cache(ttl=values.TTL)(function)
    place.run(cache.close())


def _aiocache_options(place: Place) -> dict[str, Any]:
    aiocache = import_module("aiocache")
    server = urlsplit(place.url())
    return {
        "serializer": import_module("aiocache.serializers").PickleSerializer(),
        "endpoint": server.hostname,
        "port": server.port,
        "cache": aiocache.RedisCache,
    }


@contextmanager
def _aiocache(place: Place, function: Function) -> Iterator[Function]:
    cached = import_module("aiocache").cached(ttl=values.TTL, **_aiocache_options(place))(function)
    yield cached
    place.run(cached.cache.close())


PEERS = (Side("redis-py by hand", _by_hand), Side("cachier", _cachier))
LATER = (
    Side("redis-py by hand", _by_hand_later),
    Side("cashews", _cashews),
    Side("aiocache", _aiocache),
)


def _rows(what: str, new: bool) -> Iterator[StoreRow]:
    """The rows of hits, or of misses."""
    for kind in values.LATER:
        rounds = 40 if "MiB" in kind and new else 150
        name = f"Redis {what}, {kind}"
        yield StoreRow(name, values.KINDS[kind], "redis", PEERS, new, rounds)
        yield StoreRow(f"awaited {name}", values.LATER[kind], "redis", LATER, new, rounds)


@dataclass(frozen=True)
class KnownRow:
    """A row in which many items are known to Redis, and are looked up in one map.

    Args:
        name: How the table calls it.
        count: How many items.
        unit: What the figures count.
        targets: The promises.
        halves: The sides of opero that take part.
        peers: The sides to compare with.
    """

    name: str
    count: int = 10_000
    unit: str = "µs/item"
    targets: tuple[Target, ...] = ()
    halves: tuple[str, ...] = tuple(OPERO)
    peers: tuple[Side, ...] = ()

    def against(self, *names: str) -> KnownRow:
        """The same row with the compiled half and only the named peers."""
        peers = tuple(peer for peer in self.peers if peer.name in names)
        return replace(self, peers=peers, halves=(COMPILED,))

    def slowed(self, calls: int) -> KnownRow:
        """The same row: it has no seeded regression."""
        return self

    def measure(self, effort: Effort) -> Measured:
        """Takes the figures of every side in turns."""
        items = list(range(min(self.count, effort.items or self.count)))
        expected = [values.SMALL] * len(items)
        maps: dict[str, Callable[[Sequence[int]], list[Any]]] = {}
        missing: dict[str, str] = {}
        with Place() as place, ExitStack() as stack:
            own = [Side(name, _opened(half)) for name, half in OPERO.items() if name in self.halves]
            for side in (*own, *self.peers):
                try:
                    maps[side.name] = stack.enter_context(side.open(place, values.small))
                except (ImportError, MissingError) as error:
                    missing[side.name] = str(error)
            for name, mapped in maps.items():
                mapped(items)  # they become known
                before = values.runs[0]
                assert mapped(items) == expected, f"the results of {name} are wrong"
                assert values.runs[0] == before, f"{name} does not know its items"
            loops = {name: _once(mapped, items) for name, mapped in maps.items()}
            effort = replace(effort, rounds=min(effort.rounds, 20), least=1, most=1)
            figures = turns.in_turns(loops, effort, patience=15 * turns.PATIENCE)
        return Measured(
            {name: ns / len(items) / MICROSECOND for name, ns in figures.items()}, missing
        )


def _once(mapped: Function, items: Sequence[int]) -> Callable[[int], int]:
    return turns.bare(lambda: mapped(items))


def _opened(half: Implementation) -> Any:
    @contextmanager
    def opened(place: Place, function: Function) -> Iterator[Function]:
        with using(half):
            mapped: Any = opmap(
                mode="thread",
                progress=False,
                cache=True,
                cache_ttl=values.TTL,
                cache_backend="redis",
                cache_url=place.url(),
                cache_namespace=f"bench-{half}",
                cache_secret=SECRET,
            )(function)
        yield mapped
        assert mapped.stats().store_failures == 0, "the store failed"

    return opened


_BATCH = 1_000
"""How many names one `MGET` has, for opero and by hand."""


def _batches(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _BATCH):
        yield names[start : start + _BATCH]


@contextmanager
def _many_by_hand(place: Place, function: Function) -> Iterator[Function]:
    with import_module("redis").Redis.from_url(place.url()) as client:

        def mapped(items: Sequence[int]) -> list[Any]:
            found: list[bytes | None] = []
            for names in _batches([f"many:{item!r}" for item in items]):
                found += client.mget(names)
            return [
                _missed(client, function, item) if data is None else pickle.loads(data)
                for item, data in zip(items, found, strict=True)
            ]

        yield mapped


def _missed(client: Any, function: Function, item: int) -> Any:
    value = function(item)
    client.set(f"many:{item!r}", pickle.dumps(value), ex=values.TTL)
    return value


@contextmanager
def _one_by_one(place: Place, function: Function) -> Iterator[Function]:
    with _by_hand(place, function) as cached:
        yield lambda items: [cached(item) for item in items]


@contextmanager
def _cashews_many(place: Place, function: Function) -> Iterator[Function]:
    cache = import_module("cashews").Cache()
    cache.setup(place.url())

    async def mapped(items: Sequence[int]) -> list[Any]:
        results: list[Any] = []
        names = [f"cashews:{item!r}" for item in items]
        for some in _batches(names):
            results += await cache.get_many(*some)
        for at, result in enumerate(results):
            if result is None:
                results[at] = function(items[at])
                await cache.set(names[at], results[at], expire=values.TTL)
        return results

    yield lambda items: place.run(mapped(items))
    place.run(cache.close())


@contextmanager
def _aiocache_many(place: Place, function: Function) -> Iterator[Function]:
    options = _aiocache_options(place)
    cache = options.pop("cache")(**options)

    async def mapped(items: Sequence[int]) -> list[Any]:
        results: list[Any] = []
        names = [f"aiocache:{item!r}" for item in items]
        for some in _batches(names):
            results += await cache.multi_get(some)
        for at, result in enumerate(results):
            if result is None:
                results[at] = function(items[at])
                await cache.set(names[at], results[at], ttl=values.TTL)
        return results

    yield lambda items: place.run(mapped(items))
    place.run(cache.close())


KNOWN = KnownRow(
    "Redis, a map of 10,000 known items",
    peers=(
        Side("redis-py by hand, MGET", _many_by_hand),
        Side("redis-py by hand, one GET each", _one_by_one),
        Side("cashews", _cashews_many),
        Side("aiocache", _aiocache_many),
    ),
)

ROWS: tuple[Row, ...] = (*_rows("hit", new=False), *_rows("miss and store", new=True), KNOWN)
