"""How much of the input stands between it and the consumer: in items and in bytes."""

from __future__ import annotations

import array
import asyncio
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from crowd import PATIENCE, Job, run, until
from hypothesis import given
from hypothesis import strategies as st

from opero import get_logger, hotpath, opero, opmap
from opero.map.reader import Intake, SequenceReader
from opero.map.scheduler import LIMIT, Scheduler
from opero.map.weights import Scales, estimated_size, size_of

pytestmark = pytest.mark.once  # none of it depends on the half

QUIET: dict[str, Any] = {"progress": False, "retries": 1}
MIB = 1 << 20


def nothing(x: Any) -> None:
    """Return nothing of the item."""


async def anothing(x: Any) -> None:
    """Return nothing of the item."""


WAYS = {"thread": nothing, "process": nothing, "async": anothing, "async_process": anothing}
ways = pytest.mark.parametrize("mode", WAYS)


class Count:
    """Counts items that have been read and whose results have not been taken.

    Attributes:
        most: How many there were at most.
    """

    def __init__(self) -> None:
        self.read = self.taken = self.most = 0

    def source(self, count: int, make: Callable[[int], Any] = int) -> Iterator[Any]:
        """Yield items."""
        for number in range(count):
            self.read += 1
            self.most = max(self.most, self.read - self.taken)
            yield make(number)

    async def asource(self, count: int, make: Callable[[int], Any] = int) -> Any:
        """Yield the same asynchronously."""
        for item in self.source(count, make):
            yield item

    def drain(self, stream: Any, pause: Callable[[], object] | None = None) -> None:
        """Take all results of a stream."""
        for _ in stream:
            self.taken += 1
            if pause is not None and not self.taken % 10:
                pause()

    async def adrain(self, stream: Any) -> None:
        """Take all results of an asynchronous stream."""
        async for _ in stream:
            self.taken += 1
            await asyncio.sleep(0)


@ways
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_no_more_items_are_read_ahead_than_the_user_says(mode, ordered, ahead):
    """That holds for both kinds of iterators, and any size of chunks."""
    function = opmap(mode=mode, workers=2, ordered=ordered, read_ahead=ahead, **QUIET)(WAYS[mode])
    for make in (
        lambda count: count.drain(function.stream(count.source(60))),
        lambda count: run(count.adrain(function.astream(count.source(60)))),
        lambda count: run(count.adrain(function.astream(count.asource(60)))),
    ):
        count = Count()
        make(count)
        assert count.taken == 60
        assert count.most <= ahead


@ways
def test_a_list_of_results_waits_for_no_consumer(mode):
    """An item with a result is done, and the whole input is read."""
    function = opmap(mode=mode, workers=2, read_ahead=2, **QUIET)(WAYS[mode])
    count = Count()
    assert function(count.source(200)) == [None] * 200


HEAVY: dict[str, Callable[[int], Any]] = {
    "bytes": lambda number: bytes(MIB),
    "text": lambda number: "x" * MIB,
    "arrays": lambda number: array.array("d", bytes(MIB)),
    "bytes in a tuple": lambda number: (number, bytes(MIB)),
    "bytes in a dict of lists": lambda number: {"a": [number, bytearray(MIB)]},
    "many small ones": lambda number: [str(each) for each in range(17_000)],
    "lists of lists": lambda number: [[each] * 64 for each in range(1500)],
    "objects": lambda number: SimpleNamespace(number=number, image=bytes(MIB)),
}


@pytest.mark.parametrize("make", HEAVY.values(), ids=HEAVY)
@pytest.mark.parametrize("mode", ["thread", "async"])
def test_no_more_than_64_mib_of_items_are_read_ahead(mode, make):
    """The limit holds although 100 workers want more items."""
    function = opmap(mode=mode, workers=100, chunk_size=2, **QUIET)(WAYS[mode])
    count = Count()
    count.drain(function.stream(count.source(150, make)))
    assert count.taken == 150
    assert count.most <= 80  # some kinds are only weighed by sample


@pytest.mark.parametrize("make", HEAVY.values(), ids=HEAVY)
def test_the_window_is_filled_behind_a_slow_item(core, make):
    """No more than that is read, though workers are idle."""
    count = Count()
    held = threading.Event()

    def hold(item: Any) -> None:
        if item is None:
            assert held.wait(PATIENCE)

    def fill() -> None:
        until(lambda: count.read > 10)
        read = 0
        while read != count.read:
            read = count.read
            time.sleep(0.1)
        held.set()

    source = itertools.chain([None], count.source(150, make))
    filling = Job(fill)
    stream = opmap(mode="thread", workers=50, **QUIET)(hold).stream(source)
    next(stream)
    filling.wait()
    assert filling.error is None
    assert 10 < count.most <= 80
    stream.close()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["process", "async_process"])
@pytest.mark.parametrize("form", ["stream", "astream", "asynchronous"])
def test_so_it_is_where_items_travel(mode, form):
    """The window counts what waits in the parent."""
    function = opmap(mode=mode, workers=2, chunk_size=64, **QUIET)(WAYS[mode])
    count = Count()
    if form == "stream":
        count.drain(function.stream(count.source(90, HEAVY["bytes"])))
    elif form == "astream":
        run(count.adrain(function.astream(count.source(90, HEAVY["bytes"]))))
    else:
        run(count.adrain(function.astream(count.asource(90, HEAVY["bytes"]))))
    assert count.taken == 90
    assert count.most <= 64


@pytest.mark.parametrize("form", ["call", "amap"])
def test_a_list_is_bounded_in_bytes_too(core, form):
    """The bound covers items without a result."""
    held = threading.Event()
    most = read = done = 0

    def hold(item: tuple[int, bytes]) -> int:
        nonlocal done
        if not item[0]:
            assert held.wait(PATIENCE)
        done += 1
        return item[0]

    def source() -> Iterator[tuple[int, bytes]]:
        nonlocal most, read
        for number in range(300):
            read += 1
            most = max(most, read - done)
            yield number, bytes(MIB)
        held.set()

    function = opmap(mode="thread", workers=3, **QUIET)(hold)
    results = function(source()) if form == "call" else run(function.amap(source()))
    assert results == list(range(300))
    assert most <= 66


def test_the_items_of_a_list_are_let_go_when_they_have_their_results(core):
    """Though the first one is still under way, and results come in order."""

    class Item:
        alive = 0

        def __init__(self) -> None:
            Item.alive += 1

        def __del__(self) -> None:
            Item.alive -= 1

    held = threading.Event()
    most = 0

    def hold(item: Item | None) -> None:
        if item is None:
            assert held.wait(PATIENCE)

    def source() -> Iterator[Item | None]:
        nonlocal most
        yield None
        for _ in range(2000):
            yield Item()
            most = max(most, Item.alive)
        held.set()

    opmap(mode="thread", workers=2, chunk_size=1, **QUIET)(hold)(source())
    assert most < 500


@pytest.mark.slow
@ways
def test_one_item_that_is_larger_than_the_window_is_read_alone(mode):
    """The map does not stall."""
    function = opmap(mode=mode, workers=2, **QUIET)(WAYS[mode])
    count = Count()
    count.drain(function.stream(count.source(3, lambda number: bytes(70 * MIB))))
    assert (count.taken, count.most) == (3, 1)


def test_idle_workers_for_want_of_room_are_told_of_once(core, caplog):
    """The warning names the option that changes it."""
    function = opmap(mode="thread", workers=8, **QUIET)(nothing)
    with caplog.at_level("WARNING", get_logger().name):
        assert len(function(bytes(30 * MIB) for _ in range(12))) == 12
    warnings = [record for record in caplog.records if "read_ahead=" in record.getMessage()]
    assert len(warnings) == 1
    caplog.clear()
    function = opmap(mode="thread", workers=8, read_ahead=4, **QUIET)(nothing)
    with caplog.at_level("WARNING", get_logger().name):
        assert len(function(bytes(30 * MIB) for _ in range(8))) == 8
    assert not caplog.records


def test_a_number_of_items_is_read_whatever_their_size(core):
    """`read_ahead=` allows that, for those who have the memory."""
    together = threading.Barrier(5)

    def meet(item: bytes) -> int:
        together.wait(PATIENCE)
        return len(item)

    function = opmap(mode="thread", workers=5, read_ahead=5, **QUIET)(meet)
    assert function(bytes(20 * MIB) for _ in range(5)) == [20 * MIB] * 5


@pytest.mark.slow
@pytest.mark.parametrize("first", ["thread", "process"])
@pytest.mark.parametrize("second", ["thread", "async"])
def test_streams_in_a_row_stay_within_their_windows(first, second):
    """Each stream has its own window, however slow the consumer is."""
    count = Count()
    inner = opmap(mode=first, workers=2, **QUIET)(len)
    outer = opmap(mode=second, workers=2, **QUIET)(WAYS[second])
    stream = outer.stream(inner.stream(count.source(150, HEAVY["bytes"])))
    count.drain(stream)
    assert count.taken == 150
    counted = Count()
    thrice = opmap(mode="thread", workers=2, read_ahead=5, **QUIET)(abs)
    stream = thrice.stream(thrice.stream(thrice.stream(counted.source(300))))
    counted.drain(stream)
    assert counted.taken == 300
    assert counted.most <= 3 * 5


def test_a_consumer_that_pauses_stops_the_reader(core):
    """The reader does not run ahead in the background."""
    count = Count()
    stream = opmap(mode="thread", workers=2, **QUIET)(nothing).stream(count.source(10**6))
    next(stream)
    read = -1
    while read != count.read:
        read = count.read
        threading.Event().wait(0.2)
    assert count.read < 10_000
    stream.close()


class Lazy(Sequence):  # type: ignore[type-arg]
    """A sequence that makes its items on access."""

    def __init__(self) -> None:
        self.made = 0

    def __len__(self) -> int:
        return 150

    def __getitem__(self, at: Any) -> Any:
        if at >= 150:
            raise IndexError
        self.made += 1
        return bytes(MIB)


def test_what_a_sequence_makes_when_it_is_asked_counts_too(core):
    """It is read in place, but its items did not exist before."""
    lazy = Lazy()
    most = taken = 0
    function = opmap(mode="thread", workers=4, chunk_size=40, **QUIET)(nothing)
    for _ in function.stream(lazy):
        most = max(most, lazy.made - taken)
        taken += 1
    assert taken == 150
    assert most <= 64


# --- what an item weighs ------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A named tuple."""

    name: str
    body: bytes


@dataclass
class Plain:
    """A dataclass."""

    body: bytes


@dataclass(slots=True)
class Slotted:
    """A dataclass with slots."""

    body: bytes


WEIGHTS: dict[str, tuple[Any, int]] = {
    "an int": (5, 32),
    "nothing": (None, 32),
    "text": ("x" * 1000, 1049),
    "a named tuple": (Pair("a", bytes(10_000)), 10_000),
    "a dataclass": (Plain(bytes(10_000)), 10_000),
    "a slotted dataclass": (Slotted(bytes(10_000)), 10_000),
    "a list": ([bytes(1000)] * 500, 500_000),
    "a dict": ({number: bytes(1000) for number in range(500)}, 500_000),
    "a set": ({bytes([number]) * 1000 for number in range(200)}, 200_000),
    "a deque": (deque([bytes(1000)] * 500), 500_000),
    "a view": (memoryview(bytes(10_000)), 10_000),
    "an array": (array.array("d", bytes(80_000)), 80_000),
    "three levels": ([[[bytes(1000)] * 10] * 10] * 10, 1_000_000),
}


@pytest.mark.parametrize(("item", "about"), WEIGHTS.values(), ids=WEIGHTS)
def test_an_item_is_weighed_with_what_it_holds(item, about):
    """The weight is right to within a quarter."""
    assert about * 0.75 <= Scales().weigh(item) <= max(about * 1.25, about + 500)


def test_arrays_and_frames_are_asked():
    """Views count only what they show, and no cell is read."""
    numpy = pytest.importorskip("numpy")
    pandas = pytest.importorskip("pandas")
    big = numpy.zeros(10**6)
    weigh = Scales().weigh
    assert weigh(big) == pytest.approx(8e6, rel=0.1)
    assert weigh(big[: 10**5]) == pytest.approx(8e5, rel=0.1)
    assert weigh([big] * 3) >= 8e6
    assert weigh(pandas.DataFrame({"a": big, "b": big})) == pytest.approx(1.6e7, rel=0.1)
    assert weigh(pandas.Series(big)) == pytest.approx(8e6, rel=0.1)
    assert weigh(pandas.DataFrame({"a": ["text"] * 10**5}, dtype=object)) > 4e6


def test_a_large_part_that_items_share_weighs_once():
    """A table shared by all rows keeps no worker idle."""
    table = list(range(100_000))
    scales = Scales()
    weights = [scales.weigh((number, table)) for number in range(5)]
    assert weights[0] > 800_000
    assert max(weights[1:]) < 1000


class Odd:
    """An object that answers nothing correctly."""

    def __sizeof__(self) -> int:
        raise OSError

    @property
    def nbytes(self) -> int:
        raise OSError


def test_an_item_that_cannot_be_weighed_counts_little():
    """What its class raises has no effect."""
    assert Scales().weigh(Odd()) > 0
    assert Scales().weigh([Odd()] * 3) > 0
    circle: list[Any] = []
    circle.append(circle)
    assert Scales().weigh(circle) < 1000


def test_light_items_are_only_looked_into_now_and_then():
    """A heavy item among them ends that."""
    scales = Scales()
    for _ in range(4):
        assert scales.weigh_all([(1, "x")] * 64) < 64 * 500
    heavy = [(1, bytes(MIB)) for _ in range(64)]
    assert scales.weigh_all(heavy) > 60 * MIB
    assert scales._calm == 0


# --- the account ----------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(0, 5000), max_size=200),
    takes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
)
def test_what_is_taken_weighs_in_all_what_was_read(core, sizes, takes):
    """Any division of the items gives the total, with nothing left over."""
    source = SequenceReader(tuple(bytes(size) for size in sizes))
    source.allow(1 << 20, 1 << 60)
    values: list[Any] = []
    weight = 0
    for count in itertools.cycle(takes):
        taken = source.take(count)
        assert len(taken.values) <= count
        values += taken.values
        weight += taken.weight
        if source.over:
            break
    assert list(map(len, values)) == sizes
    assert weight == sum(map(size_of, values))


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 70_000,
        bytearray(70_000),
        "x" * 70_000,
        "\u4e00" * 30_000,
        [0] * 9000,
        (0,) * 9000,
        deque(range(9000)),
        set(range(5000)),
        frozenset(range(5000)),
        dict.fromkeys(range(5000)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_sizes_are_estimated_where_python_does_not_tell_them(value):
    """PyPy tells none; on CPython the estimate is no more than three times too much or too little."""
    assert size_of(value) / 3 < estimated_size(value) < size_of(value) * 3


@given(sizes=st.lists(st.integers(0, 30), max_size=60), limit=st.integers(40, 120))
def test_no_more_is_read_than_fits(core, sizes, limit):
    """The last item is the estimate; one item is always read if there are no others."""
    source = Intake(None)
    before = 0
    for size in sizes:
        source._most, source._most_weight = 1 << 20, source._taken_weight + limit
        if not source.has_room():
            held = source._weight - source._taken_weight
            assert held + before > limit
            source.take(1 << 20)
            continue
        source.put(bytes(size))
        before = size_of(bytes(size))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
def test_the_scheduler_counts_bytes_until_they_are_gone(core, ordered, streamed):
    """Streams count until items are handed on, lists until results are final."""
    sizer = hotpath.core.ChunkSizer(2, 10**6, 1, -1)
    scheduler = Scheduler(opero(nothing).__opero__, {}, sizer, 100, ordered, streamed=streamed)
    now = core.clock.now()
    for weight in (1000, 500):
        scheduler.feed(["item"], weight)
    assert scheduler.reach()[1] == LIMIT
    first, second = scheduler.assign(0, now), scheduler.assign(1, now)
    scheduler.report(second, ["done"], [], 1)
    assert scheduler.reach()[1] == LIMIT + (0 if ordered and streamed else 500)
    scheduler.collect()
    assert scheduler.reach()[1] == LIMIT + (0 if ordered and streamed else 500)
    scheduler.report(first, ["done"], [], 1)
    scheduler.collect()
    assert scheduler.reach()[1] == LIMIT + 1500
