"""Processes over one cache, on disk or in Redis, some of them killed: no wrong value, no hang.

Each process has threads and tasks. They ask for the values of a few thousand arguments, some much
more often than others; all values together are several times as large as the cache may be, so that
entries go all the time. Meanwhile every second a process is killed and replaced, and a forger
changes entries in the store.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.stores.place import SECRET
from benchmarks.stores.server import serving

from .crew import Crew, Heard
from .forger import Forger, InRedis, OnDisk
from .table import Verdict, quantile, seconds

BACKENDS: Final = ("disk", "redis")
LIMIT: Final = 8 << 20
"""`cache_size_limit`, or the server's `maxmemory` beyond what it needs when it is empty."""
SLACK: Final = {"disk": 256 << 10, "redis": 4 << 20}
"""Bytes beyond the limit: what docs/backends.md promises; what the server's connections take."""
FAULTS: Final = ("wrong", "hang", "error", "die", "grow", "no forger", "trap")
"""What can be done wrong on purpose, so that a verdict turns red."""

HEAD: Final = (
    "", "operations/s", "hits", "hit p50", "hit p99", "miss p50", "miss p99", "longest", "killed",
    "outages", "forged", "rejected", "largest", "last",
)  # fmt: skip


@dataclass
class Figures:
    """What one backend has shown.

    Attributes:
        backend: Which.
        seconds: For how long.
        heard: What the processes have said.
        forged: Entries that were forged.
        trapped: Whether a forged pickle was taken for a value.
        largest: Bytes that the store took at most.
        last: Bytes that it takes at the end.
        slack: Bytes that it may take beyond the limit.
    """

    backend: str
    seconds: float
    heard: Heard
    forged: int = 0
    trapped: bool = False
    largest: int = 0
    last: int = 0
    slack: int = 0

    def row(self) -> list[str]:
        """Return the line of the table."""
        heard = self.heard
        calls = len(heard.hits) + len(heard.misses)
        return [
            self.backend,
            f"{calls / self.seconds:,.0f}",
            f"{len(heard.hits) / calls if calls else 0:.0%}",
            *(
                seconds(quantile(some, share) / 1e6)
                for some in (heard.hits, heard.misses)
                for share in (0.5, 0.99)
            ),
            seconds(heard.longest),
            str(heard.killed),
            str(heard.outages),
            f"{self.forged:,}",
            f"{heard.rejected:,}",
            f"{self.largest / 2**20:.1f} MiB",
            f"{self.last / 2**20:.1f} MiB",
        ]


def judge(figures: Figures, patience: float) -> list[Verdict]:
    """Return what has to hold.

    Args:
        figures: What was found.
        patience: Seconds after which a call hangs.
    """
    heard = figures.heard
    bound = LIMIT + figures.slack
    few = 1 + (len(heard.hits) + len(heard.misses)) // 100
    return [
        Verdict("wrong values", str(heard.wrong), "none", heard.wrong == 0),
        Verdict(
            "forged values taken",
            "some" if figures.trapped else "none",
            "none",
            not figures.trapped,
        ),
        Verdict("forged entries rejected", str(heard.rejected), "some", heard.rejected > 0),
        Verdict("errors", ", ".join(sorted({*heard.errors})) or "none", "none", not heard.errors),
        Verdict(
            "processes that ended by themselves",
            "; ".join(heard.died) or "none",
            "none",
            not heard.died,
        ),
        Verdict(
            "calls that went on without the store",
            f"{heard.outages:,}",
            f"{few:,} at most",
            heard.outages <= few,
        ),
        Verdict(
            "longest call",
            seconds(heard.longest),
            f"less than {seconds(patience)}",
            heard.longest < patience and not heard.hung,
        ),
        Verdict(
            "largest size",
            f"{figures.largest / 2**20:.1f} MiB",
            f"{bound / 2**20:.1f} MiB at most",
            figures.largest <= bound,
        ),
    ]


def run(
    backend: str,
    length: float,
    *,
    processes: int = 8,
    threads: int = 2,
    tasks: int = 2,
    patience: float = 20.0,
    faults: Collection[str] = (),
) -> Figures:
    """Put one backend under load.

    Args:
        backend: One of `BACKENDS`.
        length: Seconds.
        processes: How many.
        threads: Threads of each.
        tasks: Tasks of each, in one event loop.
        patience: Seconds after which a call hangs.
        faults: Some of `FAULTS`.

    Raises:
        MissingError: If there is no redis-server.
    """
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="opero-load-")))
        mark = place / "mark"
        cache: dict[str, Any] = {
            "cache_backend": backend, "cache_namespace": "load", "cache_secret": SECRET,
            "cache_ttl": 3600,
        }  # fmt: skip
        size: Callable[[], int]
        if backend == "disk":
            directory = place / "cache"
            cache |= {"cache_dir": str(directory), "cache_size_limit": LIMIT}
            entries: Any = OnDisk(directory / "opero-entries")

            def size() -> int:
                return sum(_size_of(path) for path in directory.rglob("*"))
        else:
            server = _Server(stack.enter_context(serving(place)))
            cache["cache_url"] = server.url
            entries = InRedis(server.url)
            size = server.used
        options = {"cache": cache, "faults": [*faults], "threads": threads, "tasks": tasks}
        crew = stack.enter_context(Crew(processes, options))
        forger = Forger(entries, mark)
        figures = Figures(backend, length, crew.heard, slack=SLACK[backend])
        crew.begin()
        with forger if "no forger" not in faults else ExitStack():
            begun = time.monotonic()
            pause = min(1.0, length / 2.5)
            kill_at = begun + pause
            while (now := time.monotonic()) < begun + length:
                if now > kill_at:
                    crew.kill_one()
                    kill_at = now + pause
                crew.replace_dead()
                figures.largest = max(figures.largest, size())
                time.sleep(0.02)
                if "grow" in faults and backend == "disk" and directory.is_dir():
                    (directory / "ballast").write_bytes(bytes(LIMIT + SLACK[backend]))
        figures.seconds = time.monotonic() - begun
        crew.end(patience)
        if "trap" in faults:
            mark.mkdir()
        figures.forged, figures.trapped, figures.last = forger.count, mark.exists(), size()
    return figures


class _Server:
    """A server whose memory is bounded."""

    def __init__(self, url: str) -> None:
        import redis

        self.url = url
        self._client: Any = redis.Redis.from_url(url)
        self._empty = self._client.info("memory")["used_memory"]
        self._client.config_set("maxmemory", self._empty + LIMIT)
        self._client.config_set("maxmemory-policy", "allkeys-lru")

    def used(self) -> int:
        """Return how many bytes it needs more than when it was empty."""
        return int(self._client.info("memory")["used_memory"]) - int(self._empty)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:  # it has gone meanwhile
        return 0
