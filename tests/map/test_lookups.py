"""Look-ups in a stored cache beside the map: nothing waits for them, and equal items run once."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from crowd import PATIENCE, run, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opero import hotpath, opero, opmap
from opero.map.scheduler import Scheduler
from opero.map.stored_items import StoredItems

QUIET: dict[str, Any] = {"progress": False, "retries": 1}
MODES = ["thread", "async", "process", "async_process"]


@pytest.fixture(params=["disk", pytest.param("redis", marks=pytest.mark.redis)])
def store(request, tmp_path) -> dict[str, Any]:
    """Return the options of an empty store."""
    if request.param == "disk":
        return {"cache": True, "cache_backend": "disk", "cache_dir": tmp_path / "store"}
    server = request.getfixturevalue("redis_server")
    server.command("FLUSHALL")
    return {"cache": True, "cache_backend": "redis", "cache_url": server.url}


def note(x: int, folder: str) -> int:
    """Leave a file for each run."""
    time.sleep(random.random() / 500)
    Path(folder, f"{x}-{time.monotonic_ns()}-{threading.get_ident()}").touch()
    return -x


async def anote(x: int, folder: str) -> int:
    """Leave a file for each run."""
    await asyncio.sleep(random.random() / 500)
    return note(x, folder)


def runs(folder: Path) -> Counter[int]:
    """Return how often each item has run."""
    return Counter(int(path.name.partition("-")[0]) for path in folder.iterdir())


SHAPES: dict[str, list[int]] = {
    "over and over": [number % 20 for number in range(100)],
    "one": [0] * 60,
    "back and forth": [*range(25), *reversed(range(25)), *range(25)],
    "shuffled": random.Random(5).choices(range(15), k=90),
}


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        *itertools.product(["thread", "async"], SHAPES),
        *((mode, "over and over") for mode in MODES[2:]),
    ],
)
def test_equal_items_run_once(core, store, tmp_path, mode, shape):
    """Some runs end between the lookup and the handing out of an equal item."""
    items = SHAPES[shape]
    function = anote if "async" in mode else note
    given = {**store, "cache_key": lambda x, folder: x} if "process" not in mode else store
    for source in (items, iter(list(items)), (item for item in items)):
        folder = tmp_path / f"runs-{id(source)}"
        folder.mkdir()
        mapped = opmap(mode=mode, workers=4, **given, **QUIET)(function)
        mapped.cache_clear()
        assert mapped(source, folder=str(folder)) == [-item for item in items]
        assert runs(folder) == Counter(set(items))
        info = mapped.cache_info()
        assert info.misses <= info.hits + info.misses == len(items)
        list(mapped.stream(iter(items), folder=str(folder)))
        assert runs(folder) == Counter(set(items))


@pytest.mark.parametrize("form", ["amap", "astream", "asynchronous"])
def test_so_they_do_from_a_coroutine(core, store, tmp_path, form):
    """Inputs of both kinds work."""
    items = SHAPES["over and over"]
    mapped = opmap(mode="async", workers=4, **store, **QUIET)(anote)

    async def source() -> Any:
        for item in items:
            if item % 3:
                await asyncio.sleep(0)
            yield item

    async def main() -> list[Any]:
        if form == "amap":
            return list(await mapped.amap((x for x in items), folder=str(tmp_path / "runs")))
        given = source() if form == "asynchronous" else items
        return [result async for result in mapped.astream(given, folder=str(tmp_path / "runs"))]

    (tmp_path / "runs").mkdir()
    assert run(main()) == [-item for item in items]
    assert runs(tmp_path / "runs") == Counter(set(items))


@pytest.mark.parametrize("read_in", ["thread", "caller"])
@pytest.mark.parametrize("kind", ["list", "generator"])
@pytest.mark.parametrize("mode", ["thread", "async"])
def test_the_first_result_is_out_when_it_is_there(core, store, mode, kind, read_in):
    """It comes before the second item even runs."""
    taken = threading.Event()

    def work(x: int) -> int:
        if x:
            assert taken.wait(PATIENCE), "the first result was not handed on"
        return x

    async def awork(x: int) -> int:
        while x and not taken.is_set():
            await asyncio.sleep(0.001)
        return x

    function = awork if mode == "async" else work
    options = {**store, **QUIET, "cache_key": abs}
    mapped = opmap(mode=mode, workers=2, read_in=read_in, **options)(function)
    items: Any = range(100) if kind == "list" else (x for x in range(100))
    results = []
    for result in mapped.stream(items):
        results.append(result)
        taken.set()
    assert results == list(range(100))


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_results_feed_the_input_over_a_stored_cache(core, store, mode):
    """An item does not wait until there are more to look up."""

    async def abelow(x: int) -> int:
        return x - 1

    def below(x: int) -> int:
        return x - 1

    function = abelow if mode == "async" else below
    mapped = opmap(mode=mode, workers=2, ordered=False, **store, **QUIET)(function)
    left = [9]

    def source() -> Iterator[int]:
        while True:
            end = time.monotonic() + PATIENCE
            while not left:
                assert time.monotonic() < end, "the result was not handed on"
                time.sleep(0.001)
            number = left.pop()
            if not number:
                return
            yield number

    left.extend(mapped.stream(source()))
    assert mapped.cache_info().misses == 9


def test_a_slow_store_does_not_stop_the_handing_on_of_results(core, tmp_path, monkeypatch):
    """One lookup waits here until a result is taken."""
    taken = threading.Event()
    look = StoredItems.look
    looks = 0

    def slow_look(self: StoredItems, keys: list[Any]) -> list[Any]:
        nonlocal looks
        looks += 1
        if looks > 1:
            assert taken.wait(PATIENCE), "the result waits for the look"
        return look(self, keys)

    monkeypatch.setattr(StoredItems, "look", slow_look)
    mapped = opmap(mode="thread", cache=True, cache_backend="disk", cache_dir=tmp_path, **QUIET)(
        abs
    )
    results = []
    for result in mapped.stream(range(30)):
        results.append(result)
        taken.set()
    assert results == list(range(30))


@pytest.mark.parametrize("mode", ["thread", "async"])
def test_a_map_that_ends_leaves_no_look_behind(core, store, mode):
    """It leaves no open input either."""
    closed = []

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    async def aabs(x: int) -> int:
        return abs(x)

    mapped = opmap(mode=mode, workers=2, **store, **QUIET)(aabs if mode == "async" else abs)
    stream = mapped.stream(source())
    assert [next(stream) for _ in range(5)] == list(range(5))
    stream.close()
    assert closed == [True]

    async def main() -> None:
        async with aclosing(mapped.astream(source())) as results:
            async for _ in results:
                return

    run(main())
    assert closed == [True, True]
    until(lambda: "opero-map-lookups" not in {thread.name for thread in threading.enumerate()})


def test_many_known_items_are_looked_up_many_at_a_time(core, tmp_path, monkeypatch):
    """The first lookups take one item each, so that nothing waits."""
    mapped = opmap(mode="thread", cache=True, cache_backend="disk", cache_dir=tmp_path, **QUIET)(
        abs
    )
    mapped(range(3000))
    sizes: list[int] = []
    look = StoredItems.look

    def counted(self: StoredItems, keys: list[Any]) -> list[Any]:
        sizes.append(len(keys))
        return look(self, keys)

    monkeypatch.setattr(StoredItems, "look", counted)
    assert mapped(range(3000)) == list(range(3000))
    assert sizes[0] == 1
    assert max(sizes) >= 64
    assert len(sizes) < 200


def test_a_key_that_cannot_be_made_fails_its_item_alone(core, store):
    """That also holds in the thread that looks items up."""
    mapped = opmap(mode="thread", workers=2, **store, **QUIET)(identity)
    results = mapped(iter([1, object(), 2]))
    assert (results[0], results[2]) == (1, 2)
    assert isinstance(results[1], Exception)


# --- what lands between a look and its item -----------------------------------------------------------


def identity(x: Any) -> Any:
    """Pose as the function; no worker ever calls it."""
    return x


class Late:
    """A map whose looks were made some time before their items are fed."""

    def __init__(self, function: Any, core: Any) -> None:
        self.call = function.__opero__
        sizer = core.ChunkSizer(3, 10**6, 1, -1)
        self.scheduler = Scheduler(self.call, {}, sizer, 100, True)
        self.stored = StoredItems(self.call, self.scheduler.arguments)
        self.looked: list[tuple[Any, ...]] = []
        self.jobs: list[Any] = []
        self.started: Counter[Any] = Counter()

    def look(self, values: list[Any]) -> None:
        """Look for some items, to be fed later."""
        landed = self.stored.landed
        self.looked.append((values, 0, self.stored.look(self.stored.keys(values)), landed))

    def feed(self) -> None:
        """Feed the items that were looked up first."""
        self.scheduler.feed(*self.looked.pop(0))

    def start(self) -> None:
        """Hand out a job."""
        job = self.scheduler.assign(len(self.jobs), self.call.clock.now())
        if job is not None:
            self.started.update(job.values)
            self.jobs.append(job)

    def end(self, place: int) -> None:
        """Report a job."""
        job = self.jobs.pop(place)
        self.scheduler.report(job, [("value", value) for value in job.values], [], 1)

    def keep(self) -> None:
        """Store the new values."""
        pairs = self.scheduler.to_store()
        if pairs:
            self.stored.keep(pairs)


@given(
    items=st.lists(st.integers(0, 5), max_size=30),
    steps=st.lists(st.integers(0, 999), min_size=1, max_size=80),
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_equal_items_run_once_whenever_looks_are_made(core, tmp_path_factory, items, steps):
    """Lookups come between any two other steps of the map."""
    options: dict[str, Any] = {"cache_dir": tmp_path_factory.mktemp("late"), "cache_maxsize": None}
    options.pop("cache_maxsize")
    function = opero(cache=True, cache_backend="disk", **options)(identity)
    late = Late(function, hotpath.core)
    left, results = list(items), []
    for step in itertools.cycle(steps):
        which, more = step % 5, step // 5
        if which == 0 and left:
            count = 1 + more % 4
            late.look(left[:count])
            del left[:count]
        elif which == 1 and late.looked:
            late.feed()
        elif which == 2:
            late.start()
        elif which == 3 and late.jobs:
            late.end(more % len(late.jobs))
        else:
            late.keep()
        results += late.scheduler.collect()
        if len(results) == len(items):
            break
        if step == steps[-1]:  # whatever the steps are, it comes to an end
            for move in (late.keep, late.start):
                move()
            if left:
                late.look([left.pop(0)])
            if late.looked:
                late.feed()
            late.start()
            if late.jobs:
                late.end(0)
    assert results == [("value", item) for item in items]
    assert late.started == Counter(set(items))
    late.keep()
    late.scheduler.end()
    assert late.call.stored_cache.flights == {}
    assert late.scheduler._runs.under_way == {}


@pytest.mark.parametrize("how", ["key", "all"])
def test_what_is_invalidated_after_it_has_landed_runs_again(core, tmp_path, how):
    """The lookup came before, and the value is still at hand."""
    function = opero(cache=True, cache_backend="disk", cache_dir=tmp_path)(identity)
    late = Late(function, hotpath.core)
    late.look([1])
    late.look([1])
    late.feed()
    late.start()
    late.end(0)
    late.keep()
    if how == "key":
        function.cache_invalidate(1)
    else:
        function.cache_clear()
    late.feed()
    late.start()
    assert late.started == {1: 2}


def test_values_are_let_go_when_looks_find_them(core, tmp_path):
    """They do not accumulate in an endless map."""
    function = opero(cache=True, cache_backend="disk", cache_dir=tmp_path)(identity)
    late = Late(function, hotpath.core)
    for number in range(50):
        late.look([number])
        late.feed()
        late.start()
        late.end(0)
        late.keep()
        assert len(late.scheduler._runs.under_way) <= 2
        assert len(late.scheduler._runs.landed) <= 2
