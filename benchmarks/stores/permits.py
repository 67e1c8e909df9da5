"""Rows of permits that are free, by hand: a limit for a machine, and one in Redis.

A rate of a thousand million per second, so that no call ever waits. pyrate-limiter keeps every
permit for as long as its window lasts; they are thrown away before each loop, off the clock, so
that what it counts stays small.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from benchmarks.implementations import Implementation, using
from benchmarks.measure import Effort
from benchmarks.peers import PLENTY
from benchmarks.rows import COMPILED, OPERO, Measured, Target
from opero import RateLimiter

from . import turns
from .place import MissingError, Place
from .sides import MICROSECOND

Taking = tuple[Callable[[], Any], Callable[[], Any] | None]
"""Takes a permit; throws away what was taken, if that is needed."""


@dataclass(frozen=True)
class Limit:
    """Who limits.

    Args:
        name: How the table calls it.
        open: Opens it; a context manager for a `Taking`.
    """

    name: str
    open: Callable[[Place], Any]


@dataclass(frozen=True)
class PermitRow:
    """A row whose sides take permits that are free.

    Args:
        name: How the table calls it.
        scope: That of opero's limiter.
        peers: The sides to compare with.
        unit: What the figures count.
        targets: The promises.
        halves: The sides of opero that take part.
    """

    name: str
    scope: str
    peers: tuple[Limit, ...]
    unit: str = "µs"
    targets: tuple[Target, ...] = ()
    halves: tuple[str, ...] = tuple(OPERO)

    def against(self, *names: str) -> PermitRow:
        """The same row with the compiled half and only the named peers."""
        peers = tuple(peer for peer in self.peers if peer.name in names)
        return replace(self, peers=peers, halves=(COMPILED,))

    def slowed(self, calls: int) -> PermitRow:
        """The same row: it has no seeded regression."""
        return self

    def measure(self, effort: Effort) -> Measured:
        """Takes the figures of every side in turns."""
        own = [_opero(name, OPERO[name], self.scope) for name in self.halves]
        loops = {}
        before = {}
        missing: dict[str, str] = {}
        with Place() as place, ExitStack() as stack:
            for side in (*own, *self.peers):
                try:
                    take, forget = stack.enter_context(side.open(place))
                except (ImportError, MissingError) as error:
                    missing[side.name] = str(error)
                    continue
                loops[side.name] = turns.bare(take)
                if forget is not None:
                    before[side.name] = forget
            figures = turns.in_turns(loops, effort, before)
        scale = MICROSECOND if self.unit == "µs" else 1
        return Measured({name: ns / scale for name, ns in figures.items()}, missing)


def _opero(name: str, half: Implementation, scope: str) -> Limit:
    @contextmanager
    def opened(place: Place) -> Iterator[Taking]:
        options: dict[str, Any] = {"scope": scope}
        if scope != "process":
            options["name"] = f"bench-{half}-{os.getpid()}"
        if scope == "redis":
            options["url"] = place.url()
        with using(half):
            limiter = RateLimiter(PLENTY, burst=1_000, **options)
        yield limiter.acquire_sync, None

    return Limit(name, opened)


@contextmanager
def _process(place: Place) -> Iterator[Taking]:
    yield RateLimiter(PLENTY, burst=1_000).acquire_sync, None


@contextmanager
def _pyrate(bucket: Any) -> Iterator[Taking]:
    pyrate = import_module("pyrate_limiter")
    # Its thread that empties the bucket would disturb the other sides.
    limiter = pyrate.Limiter(pyrate.SingleBucketFactory(bucket, schedule_leak=False))

    def take() -> None:
        assert limiter.try_acquire("bench")

    yield take, bucket.flush
    limiter.close()


def _rates() -> list[Any]:
    pyrate = import_module("pyrate_limiter")
    return [pyrate.Rate(PLENTY, pyrate.Duration.SECOND)]


@contextmanager
def _pyrate_processes(place: Place) -> Iterator[Taking]:
    pyrate = import_module("pyrate_limiter")
    bucket = pyrate.MultiprocessBucket.init(_rates())
    manager = bucket.items._manager
    try:
        with _pyrate(bucket) as taking:
            yield taking
    finally:
        if manager is not None:
            manager.shutdown()


@contextmanager
def _pyrate_file(place: Place) -> Iterator[Taking]:
    import_module("filelock")
    pyrate = import_module("pyrate_limiter")
    path = str(place.folder() / "bucket.sqlite")
    with _pyrate(
        pyrate.SQLiteBucket.init_from_file(_rates(), db_path=path, use_file_lock=True)
    ) as taking:
        yield taking


@contextmanager
def _pyrate_redis(place: Place) -> Iterator[Taking]:
    pyrate = import_module("pyrate_limiter")
    client = import_module("redis").Redis.from_url(place.url())
    with client, _pyrate(pyrate.RedisBucket.init(_rates(), client, "pyrate")) as taking:
        yield taking


@contextmanager
def _limits_redis(place: Place) -> Iterator[Taking]:
    limits = import_module("limits")
    storage = import_module("limits.storage").storage_from_string(place.url())
    limiter = import_module("limits.strategies").FixedWindowRateLimiter(storage)
    rate = limits.RateLimitItemPerSecond(PLENTY)

    def take() -> None:
        assert limiter.hit(rate, "bench")

    yield take, None
    storage.storage.close()


MACHINE = PermitRow(
    "permit of a machine-wide limit",
    "machine",
    (
        Limit("pyrate-limiter, MultiprocessBucket", _pyrate_processes),
        Limit("pyrate-limiter, SQLiteBucket with file lock", _pyrate_file),
        Limit("opero, scope process", _process),
    ),
    unit="ns/permit",
)

REDIS = PermitRow(
    "permit of a limit in Redis",
    "redis",
    (
        Limit("pyrate-limiter, RedisBucket", _pyrate_redis),
        Limit("limits, fixed window in Redis", _limits_redis),
    ),
)

ROWS = (MACHINE, REDIS)
