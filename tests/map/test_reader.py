"""How the input of a map is read: beside the output, in which thread, in which context, to which end."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import os
import queue
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from crowd import PATIENCE, run

from opero import AttemptTimeout, get_logger, opmap
from opero.map import reader
from opero.map.reader import InPlace, Reader, is_still

pytestmark = pytest.mark.once  # none of it depends on the half

QUIET: dict[str, Any] = {"progress": False, "retries": 1}
LINKS = {0: [1, 2, 7], 1: [3], 2: [4, 5], 3: [6], 4: [], 5: [0], 6: [], 7: [6]}


def same(x: Any) -> Any:
    """Return the item."""
    return x


async def asame(x: Any) -> Any:
    """Return the item."""
    return x


def links(page: int) -> tuple[int, list[int]]:
    """Return a page and its links."""
    return page, LINKS[page]


async def alinks(page: int) -> tuple[int, list[int]]:
    """Return a page and its links."""
    return page, LINKS[page]


WAYS = ["thread", "process", "async", "async_process", "executor"]
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def mapped(way) -> Iterator[Callable[..., Any]]:
    """Map one of two functions, in the test's form."""
    with ThreadPoolExecutor(2) as executor:

        def make(function: Any = same, afunction: Any = asame, **options: Any) -> Any:
            given = {"workers": 2, **QUIET, **options}
            if way == "executor":
                return opmap(executor=executor, **given)(function)
            return opmap(mode=way, **given)(afunction if "async" in way else function)

        yield make


def collect(stream: Any) -> list[Any]:
    """Take all results of an asynchronous stream."""

    async def main() -> list[Any]:
        async with aclosing(stream) as results:
            return [result async for result in results]

    return run(main())


FORMS: dict[str, Callable[[Any, Any], list[Any]]] = {
    "call": lambda function, items: function(items),
    "stream": lambda function, items: list(function.stream(items)),
    "amap": lambda function, items: run(function.amap(items)),
    "astream": lambda function, items: collect(function.astream(items)),
}
every_form = pytest.mark.parametrize("form", FORMS)


# --- input and output beside each other ---------------------------------------------------------------


class Crawl:
    """An input that its own results feed.

    Attributes:
        pages: Leads to the pages that wait; None ends it.
    """

    def __init__(self) -> None:
        self.pages: queue.Queue[int | None] = queue.Queue()
        self.pages.put(0)
        self.seen = {0}
        self.waiting = 1

    def take(self, result: tuple[int, list[int]]) -> int:
        """Feed the input with what has been found."""
        page, leads = result
        for each in set(leads) - self.seen:
            self.seen.add(each)
            self.waiting += 1
            self.pages.put(each)
        self.waiting -= 1
        if not self.waiting:
            self.pages.put(None)
        return page


@every_way
@pytest.mark.parametrize("ordered", [True, False])
def test_results_feed_the_input(mapped, ordered):
    """In a crawler, the next item comes only once the earlier results are there."""
    function, crawl = mapped(links, alinks, ordered=ordered), Crawl()
    pages = [crawl.take(result) for result in function.stream(iter(crawl.pages.get, None))]
    assert sorted(pages) == list(LINKS)

    async def main() -> list[int]:
        crawl = Crawl()
        stream = function.astream(iter(crawl.pages.get, None))
        return [crawl.take(result) async for result in stream]

    assert sorted(run(main())) == list(LINKS)


@every_way
def test_results_feed_an_asynchronous_input(mapped):
    """The input waits in the loop that the map runs in."""

    async def main() -> list[int]:
        crawl = Crawl()

        async def source() -> Any:
            while True:
                while crawl.pages.empty():
                    await asyncio.sleep(0.001)
                page = crawl.pages.get_nowait()
                if page is None:
                    return
                yield page

        stream = mapped(links, alinks, ordered=False).astream(source())
        return [crawl.take(result) async for result in stream]

    assert sorted(run(main())) == list(LINKS)


@every_way
@pytest.mark.parametrize("form", ["stream", "astream"])
def test_a_result_is_handed_on_while_the_input_waits(mapped, form):
    """Each item comes only once the result of the one before has been taken."""
    taken = threading.Semaphore(0)

    def source() -> Iterator[int]:
        for number in range(4):
            yield number
            assert taken.acquire(timeout=PATIENCE), "the result was not handed on"

    results = []
    if form == "stream":
        for result in mapped().stream(source()):
            results.append(result)
            taken.release()
    else:

        async def main() -> None:
            async for result in mapped().astream(source()):
                results.append(result)
                taken.release()

        run(main())
    assert results == [0, 1, 2, 3]


def hang(x: int) -> int:
    """Hang on the first item."""
    if not x:
        time.sleep(600)
    return x


async def ahang(x: int) -> int:
    """Hang on the first item."""
    if not x:
        await asyncio.sleep(600)
    return x


@pytest.mark.parametrize("way", ["process", "async", "async_process"])
@pytest.mark.parametrize("form", ["stream", "astream"])
def test_a_late_attempt_is_ended_while_the_input_waits(mapped, form):
    """Its failure lets the input continue."""
    late = threading.Event()

    def source() -> Iterator[int]:
        yield 0
        assert late.wait(PATIENCE), "nobody has ended the attempt"
        yield 1

    function = mapped(hang, ahang, attempt_timeout=0.2)
    results: list[Any] = []
    if form == "stream":
        for result in function.stream(source()):
            results.append(result)
            late.set()
    else:

        async def main() -> None:
            async for result in function.astream(source()):
                results.append(result)
                late.set()

        run(main())
    assert isinstance(results[0], AttemptTimeout)
    assert results[1:] == [1]


@pytest.mark.parametrize("way", ["thread", "async", "executor"])
@every_form
def test_a_retry_starts_when_it_is_due_while_the_input_waits(mapped, form):
    """Nothing else happens meanwhile."""
    attempts: list[int] = []
    again = threading.Event()

    def flaky(x: int) -> int:
        attempts.append(x)
        if len(attempts) == 1:
            raise OSError
        again.set()
        return x

    async def aflaky(x: int) -> int:
        return flaky(x)

    def source() -> Iterator[int]:
        yield 0
        assert again.wait(PATIENCE), "the item was not tried again"
        yield 1

    function = mapped(flaky, aflaky, retries=2, min_delay=0.01)
    assert FORMS[form](function, source()) == [0, 1]
    assert attempts == [0, 0, 1]


def die_once(item: tuple[int, str]) -> int:
    """Kill the worker on the first try."""
    number, path = item
    if not number and not Path(path).exists():
        Path(path).touch()
        os._exit(3)
    return number


def test_what_killed_its_worker_is_tried_again_while_the_input_waits(tmp_path):
    """The retry comes before the next item."""
    first = threading.Event()

    def source() -> Iterator[tuple[int, str]]:
        yield 0, str(tmp_path / "died")
        assert first.wait(PATIENCE), "the item was not tried again"
        yield 1, ""

    results = []
    function = opmap(mode="process", workers=2, retries=2, min_delay=0, progress=False)(die_once)
    for result in function.stream(source()):
        results.append(result)
        first.set()
    assert results == [0, 1]


@pytest.mark.parametrize("form", ["amap", "astream"])
@pytest.mark.parametrize("way", WAYS)
def test_an_ordinary_generator_does_not_block_the_loop(mapped, form):
    """It waits for something that only the loop can do."""

    async def main() -> list[Any]:
        ticked = threading.Event()

        def source() -> Iterator[int]:
            for number in range(3):
                assert ticked.wait(PATIENCE), "the loop stands still"
                ticked.clear()
                yield number

        async def tick() -> None:
            while True:
                ticked.set()
                await asyncio.sleep(0.001)

        ticking = asyncio.ensure_future(tick())
        try:
            if form == "amap":
                return list(await mapped().amap(source()))
            return [result async for result in mapped().astream(source())]
        finally:
            ticking.cancel()

    assert run(main()) == [0, 1, 2]


def test_an_asynchronous_iterator_that_never_waits_lets_others_run(core):
    """One task reads all of it, and results come in between."""

    async def source() -> Any:
        for number in range(20_000):
            yield number

    async def main() -> int:
        count = most = 0

        async def other() -> None:
            nonlocal count
            while True:
                count += 1
                await asyncio.sleep(0)

        beside = asyncio.ensure_future(other())
        function = opmap(mode="async", workers=2, **QUIET)(asame)
        async for result in function.astream(source()):
            most = result
        beside.cancel()
        assert most == 19_999
        return count

    assert run(main()) > 3


# --- who reads --------------------------------------------------------------------------------------


class Row(Sequence):  # type: ignore[type-arg]
    """A sequence that notes who reads it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.readers: set[int] = set()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: Any) -> Any:
        self.readers.add(threading.get_ident())
        if at >= self.count:
            raise IndexError
        return at


class Iterable:
    """An iterable of numbers that is not an iterator."""

    def __iter__(self) -> Iterator[int]:
        return iter([1, 2, 3])


STILL: list[Any] = [
    *([1], (1,), range(3), {1}, frozenset([1]), {1: 2}, {1: 2}.keys(), {1: 2}.values()),
    *({1: 2}.items(), deque([1]), iter([1]), iter((1,)), iter(range(3)), iter({1}), iter({1: 2})),
    *(reversed([1, 2]), itertools.repeat(1, 2), itertools.count(), memoryview(b"ab")),
]
RUNNING: list[Any] = [
    *((x for x in [1]), map(str, [1]), zip([1], [2], strict=True), filter(None, [1])),
    *(enumerate([1]), iter(int, 1), itertools.chain([1], [2]), itertools.islice([1], 1)),
    *(Iterable(), iter(queue.Queue().get, None)),
]


@pytest.mark.parametrize("items", STILL, ids=lambda items: type(items).__name__)
def test_what_is_there_already_is_read_in_place(items):
    """That costs nothing, and blocks nothing."""
    assert is_still(items)


@pytest.mark.parametrize("items", RUNNING, ids=lambda items: type(items).__name__)
def test_what_runs_code_is_not(items):
    """Code may wait, or check the thread that it runs in."""
    assert not is_still(items)


def test_subclasses_may_do_anything():
    """Only the exact types are read in place."""

    class Mine(list):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Any]:
            yield from range(3)

    assert not is_still(Mine([1]))
    assert opmap(mode="thread", **QUIET)(same)(Mine([7])) == [0, 1, 2]


def test_arrays_are_read_in_place():
    """NumPy's are recognized by the type's name, as NumPy may not be loaded."""
    numpy = pytest.importorskip("numpy")
    assert is_still(numpy.arange(3))
    assert opmap(mode="thread", **QUIET)(same)(numpy.arange(3)) == [0, 1, 2]


@pytest.mark.parametrize("way", ["thread", "process", "executor"])
def test_a_sequence_is_read_by_the_caller(mapped):
    """It is read in place, without a thread."""
    row = Row(50)
    assert mapped()(row) == list(range(50))
    assert list(mapped().stream(row)) == list(range(50))
    assert row.readers == {threading.get_ident()}


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nothing")


@every_way
@every_form
@pytest.mark.parametrize("read_in", ["thread", "caller"])
def test_an_iterator_sees_the_context_of_the_caller(mapped, form, read_in):
    """One thread, of the caller or the map, runs it from its first line to its last."""
    seen: list[tuple[str, int]] = []

    def source() -> Iterator[int]:
        for number in range(5):
            seen.append((VARIABLE.get(), threading.get_ident()))
            yield number
        seen.append((VARIABLE.get(), threading.get_ident()))

    token = VARIABLE.set("something")
    try:
        assert FORMS[form](mapped(read_in=read_in), source()) == list(range(5))
    finally:
        VARIABLE.reset(token)
    variables, threads = map(set, zip(*seen, strict=True))
    assert variables == {"something"}
    assert len(threads) == 1
    assert (threads == {threading.get_ident()}) == (read_in == "caller")


@pytest.fixture
def rows() -> Iterator[Iterator[int]]:
    """Return the rows of a table; only the thread that has made the connection may ask for them."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table numbers (number)")
        connection.executemany("insert into numbers values (?)", [(x,) for x in range(50)])
        cursor = connection.execute("select number from numbers")
        yield (number for (number,) in cursor)
        del cursor


@every_way
@every_form
def test_input_that_is_bound_to_its_thread_is_read_there(mapped, form, rows):
    """`read_in="caller"` does that, even where the map runs in another thread."""
    assert FORMS[form](mapped(read_in="caller"), rows) == list(range(50))


@every_way
def test_so_it_is_where_a_loop_runs_already(mapped, rows):
    """A notebook has such a loop."""

    async def main() -> Any:
        return mapped(read_in="caller")(rows)

    assert run(main()) == list(range(50))


@every_way
@pytest.mark.parametrize("form", ["call", "stream"])
def test_a_cursor_of_sqlite_is_bound_to_its_thread(mapped, form):
    """The map knows such cursors."""
    with closing(sqlite3.connect(":memory:")) as connection:
        cursor = connection.execute("values (1), (2), (3)")
        assert FORMS[form](mapped(), cursor) == [(1,), (2,), (3,)]


def test_who_reads_in_the_wrong_thread_is_told_the_right_one(core, rows):
    """A note of the exception says so."""
    with pytest.raises(sqlite3.ProgrammingError) as raised:
        opmap(mode="thread", **QUIET)(same)(rows)
    assert "read_in='caller'" in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "option", [{"read_in": "threads"}, {"read_in": 1}, {"read_ahead": 0}, {"read_ahead": "many"}]
)
def test_other_ways_to_read_are_refused(option):
    """The error says what is allowed."""
    with pytest.raises((TypeError, ValueError), match=next(iter(option))):
        opmap(**option)(same)


# --- how it ends ------------------------------------------------------------------------------------


class Watched:
    """A generator and what becomes of it.

    Attributes:
        ends: Who has closed it, and what that saw.
    """

    def __init__(self) -> None:
        self.reader = 0
        self.ends: list[tuple[bool, str]] = []

    def numbers(self) -> Iterator[int]:
        """Yield numbers for ever."""
        self.reader = threading.get_ident()
        try:
            yield from itertools.count()
        finally:
            self.ends.append((self.reader == threading.get_ident(), VARIABLE.get()))


def fail_late(x: int) -> int:
    """Fail at the twentieth item."""
    if x == 20:
        raise ValueError(x)
    return x


async def afail_late(x: int) -> int:
    """Fail at the twentieth item."""
    return fail_late(x)


def consume(stream: Any) -> None:
    """Fail at the first result."""
    for result in stream:
        raise KeyError(result)


@every_way
@pytest.mark.parametrize("read_in", ["thread", "caller"])
@pytest.mark.parametrize("end", ["close", "break", "consumer", "item"])
def test_a_generator_is_closed_at_once_when_the_map_ends(mapped, read_in, end):
    """That holds for any end, in the thread that ran it, even if the caller holds it."""
    watched = Watched()
    source = watched.numbers()
    raises = "raise" if end == "item" else "return"
    function = mapped(fail_late, afail_late, on_error=raises, read_in=read_in)
    token = VARIABLE.set("something")
    try:
        stream = function.stream(source)
        if end == "close":
            next(stream)
            stream.close()
        elif end == "break":
            for result in stream:
                if result == 10:
                    break
            del stream
        elif end == "consumer":
            with closing(stream), pytest.raises(KeyError):
                consume(stream)
        else:
            with pytest.raises(ValueError, match="20"):
                list(stream)
    finally:
        VARIABLE.reset(token)
    assert watched.ends == [(True, "something")]


@every_way
@pytest.mark.parametrize("end", ["close", "cancel", "item"])
def test_so_it_is_from_a_coroutine(mapped, end):
    """The stream is closed, or the map is cancelled."""
    watched = Watched()

    async def main() -> None:
        function = mapped(fail_late, afail_late, on_error="raise" if end == "item" else "return")
        if end == "close":
            async with aclosing(function.astream(watched.numbers())) as stream:
                async for _ in stream:
                    break
        elif end == "item":
            with pytest.raises(ValueError, match="20"):
                await function.amap(watched.numbers())
        else:
            task = asyncio.ensure_future(function.amap(watched.numbers()))
            while not watched.reader:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())
    assert [same_thread for same_thread, _ in watched.ends] == [True]


def test_what_nobody_else_holds_is_let_go_by_the_reader(core):
    """A generator inside `map` or `islice` also ends with the map."""
    watched = Watched()
    stream = opmap(mode="thread", workers=2, **QUIET)(same).stream(map(int, watched.numbers()))
    next(stream)
    stream.close()
    assert [same_thread for same_thread, _ in watched.ends] == [True]


def test_files_and_other_iterators_stay_open(core, tmp_path):
    """They belong to the caller; only generators are closed."""
    path = tmp_path / "lines"
    path.write_text("a\n" * 500)
    with path.open() as lines:
        stream = opmap(mode="thread", workers=2, **QUIET)(same).stream(lines)
        next(stream)
        stream.close()
        assert not lines.closed


def test_what_closing_raises_is_logged(core, caplog):
    """Nobody waits for it."""

    def sticky() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            raise OSError("cannot be closed")

    stream = opmap(mode="thread", workers=1, **QUIET)(same).stream(sticky())
    with caplog.at_level("WARNING", get_logger().name):
        next(stream)
        stream.close()
    assert "cannot be closed" in caplog.text


@every_way
@every_form
@pytest.mark.parametrize("read_in", ["thread", "caller"])
def test_what_the_input_raises_comes_after_the_results_before_it(mapped, form, read_in):
    """The traceback shows the line that raised it, without opero's frames."""

    def source() -> Iterator[int]:
        yield from range(30)
        raise LookupError("no more")

    told: list[int] = []
    function = mapped(read_in=read_in, progress=lambda progress: told.append(progress.done))
    with pytest.raises(LookupError, match="no more") as raised:
        FORMS[form](function, source())
    assert told[-1] == 30
    names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert names[-1] == "source"


@pytest.mark.parametrize("way", ["thread", "async", "process"])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_so_does_what_is_no_ordinary_exception(mapped, kind):
    """`sys.exit()` in the input ends the program, not a thread of the map."""

    def source() -> Iterator[int]:
        yield 1
        raise kind("enough")

    stream = mapped().stream(map(int, source()))
    with pytest.raises(kind, match="enough"):
        list(stream)


class Broken:
    """An object that cannot be iterated over."""

    def __iter__(self) -> Iterator[int]:
        raise OSError("no such table")


@every_form
@pytest.mark.parametrize("way", ["thread", "async"])
def test_what_begins_to_iterate_may_raise_too(mapped, form):
    """The map raises the same error."""
    with pytest.raises(OSError, match="no such table"):
        FORMS[form](mapped(), Broken())


@every_way
def test_input_that_does_not_answer_does_not_hold_up_the_end(mapped, monkeypatch):
    """The map waits briefly and ends; the generator is closed once it answers."""
    monkeypatch.setattr("opero.map.driver.PATIENCE", 0.05)
    asked, released = threading.Semaphore(0), threading.Event()
    closed: list[int] = []

    def source() -> Iterator[int]:
        try:
            yield 1
            asked.release()
            released.wait()
            yield 2
        finally:
            closed.append(threading.get_ident())

    stream = mapped().stream(source())
    assert next(stream) == 1
    assert asked.acquire(timeout=PATIENCE)
    stream.close()

    async def main() -> None:
        async with aclosing(mapped().astream(source())) as stream:
            async for _ in stream:
                while not asked.acquire(blocking=False):
                    await asyncio.sleep(0.001)
                return

    run(main())
    readers = [each for each in threading.enumerate() if each.name == reader._NAME]
    try:
        assert not closed
        assert len(readers) == 2
        assert all(each.daemon for each in readers)
    finally:
        released.set()
        for each in readers:
            each.join(PATIENCE)
    assert sorted(closed) == sorted(each.ident for each in readers)


@every_way
def test_a_map_that_is_collected_ends_its_reader(mapped):
    """Nobody needs to close a stream."""
    watched = Watched()
    stream = mapped().stream(watched.numbers())
    next(stream)
    del stream
    gc.collect()
    assert len(watched.ends) == 1


def test_nothing_is_read_before_the_first_result_is_asked_for(core):
    """No thread starts either."""
    watched = Watched()
    before = threading.active_count()
    stream = opmap(mode="thread", **QUIET)(same).stream(watched.numbers())
    assert threading.active_count() == before
    stream.close()
    assert not watched.reader


BLOCKED = """
import sys, threading, signal, os
from opero import hotpath, opmap

hotpath.core = hotpath.load(sys.argv[1])
waits = threading.Event()

def source():
    yield 1
    yield 2
    waits.set()
    threading.Event().wait()

def same(x): return x
async def asame(x): return x

mode = sys.argv[2]
function = opmap(mode=mode, workers=2, retries=1, progress=False)(asame if "async" in mode else same)
"""

EXITS = """
stream = function.stream(source())
print(next(stream), next(stream))
waits.wait()
"""

INTERRUPTED = """
threading.Thread(target=lambda: (waits.wait(), os.kill(os.getpid(), signal.SIGINT))).start()
try:
    if sys.argv[3] == "call":
        function(source())
    else:
        for result in function.stream(source()):
            pass
except KeyboardInterrupt:
    print("interrupted")
"""


def program(text: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a program that ends without help."""
    return subprocess.run(
        [sys.executable, "-c", text, *args],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "end"),
    [
        *itertools.product(
            ["thread", "async"], ["", "sys.exit(0)", "del stream", "stream.close()"]
        ),
        *itertools.product(["process", "async_process"], ["", "stream.close()"]),
    ],
)
def test_the_interpreter_ends_though_the_input_waits_for_ever(core, mode, end):
    """It prints nothing, whether the stream is open or closed."""
    done = program(BLOCKED + EXITS + end, core.name, mode)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 2\n", "")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
@pytest.mark.parametrize("mode", ["thread", "process", "async", "async_process"])
@pytest.mark.parametrize("form", ["call", "stream"])
def test_ctrl_c_ends_a_map_whose_input_waits_for_ever(core, mode, form):
    """`KeyboardInterrupt` is raised where the map was called."""
    done = program(BLOCKED + INTERRUPTED, core.name, mode, form)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


# --- streams in a row -------------------------------------------------------------------------------


@every_way
def test_a_stream_is_the_input_of_another(mapped):
    """Three streams in a row end together."""
    watched = Watched()
    stages = [mapped(), mapped(), mapped()]
    stream: Any = watched.numbers()
    for stage in stages:
        stream = stage.stream(stream)
    assert list(itertools.islice(stream, 300)) == list(range(300))
    stream.close()
    assert len(watched.ends) == 1


@pytest.mark.parametrize("way", ["process", "async"])
def test_a_stream_whose_input_is_a_stream_ends_at_once(mapped, monkeypatch):
    """The inner one waits for an endless attempt; its workers end too."""
    monkeypatch.setattr("opero.map.driver.PATIENCE", 10 * PATIENCE)
    begun = time.monotonic()
    inner = mapped(hang, ahang).stream(iter([1, 0, 2]))
    outer = opmap(mode="thread", workers=2, **QUIET)(same).stream(inner)
    assert next(outer) == 1
    outer.close()
    assert next(inner, "closed") == "closed"
    assert time.monotonic() - begun < 5 * PATIENCE


@every_way
def test_a_stream_of_one_mode_feeds_any_other(mapped):
    """The other one reads it to its end."""
    source = opmap(mode="thread", workers=2, **QUIET)(same).stream(iter(range(200)))
    assert mapped()(source) == list(range(200))
    other = opmap(mode="async", workers=2, **QUIET)(asame)
    assert list(other.stream(mapped().stream(map(int, range(200))))) == list(range(200))


# --- the reader by itself -----------------------------------------------------------------------------


class Bell:
    """A bell that lets a driver wait for a reader."""

    def __init__(self) -> None:
        self.rings = 0
        self._rung = threading.Semaphore(0)

    def __call__(self) -> None:
        self.rings += 1
        self._rung.release()

    def wait(self) -> None:
        """Wait until it rings."""
        assert self._rung.acquire(timeout=PATIENCE)


def drain(source: Any, bell: Bell, most: int = 1 << 20, count: int = 100) -> list[Any]:
    """Take everything, as a driver does."""
    values: list[Any] = []
    while True:
        source.allow(len(values) + most, 1 << 60)
        taken = source.take(count)
        values += taken.values
        if source.over:
            return values
        if not taken.values:
            bell.wait()


@pytest.mark.parametrize("most", [1, 2, 7, 100, 1 << 20])
@pytest.mark.parametrize("count", [1, 3, 1000])
def test_a_reader_hands_over_everything_in_order(most, count):
    """It may have little room, and its consumer may take little."""
    source, bell = Reader(map(int, range(3000))), Bell()
    source.begin(bell)
    assert drain(source, bell, most, count) == list(range(3000))
    assert not source.close()[0].exception(PATIENCE)  # type: ignore[index]


def test_a_reader_reads_no_further_than_it_may():
    """It continues when it may."""
    read = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    source, bell = Reader(numbers()), Bell()
    source.begin(bell)
    taken: list[int] = []
    for most in (1, 5, 6, 40):
        source.allow(most, 1 << 60)
        while len(taken) < most:
            taken += source.take(100).values or (bell.wait() or [])
            source.allow(most, 1 << 60)
        assert taken == read == list(range(most))
    (done,) = source.close()
    done.result(PATIENCE)
    assert len(read) == 40


def test_a_quick_reader_is_not_waited_for_item_by_item():
    """All items that are ready are handed over together."""
    source, bell = Reader(map(int, range(50_000))), Bell()
    source.begin(bell)
    takes = 0
    values: list[int] = []
    while not source.over:
        source.allow(1 << 20, 1 << 60)
        taken = source.take(10_000).values
        takes += 1
        values += taken
        if not taken and not source.over:
            bell.wait()
    assert values == list(range(50_000))
    assert bell.rings < 5000
    source.close()


def test_what_was_in_place_is_read_as_far_as_it_may_be():
    """Its errors come in their place."""
    source = InPlace({1: 1, 2: 2})
    source.allow(1, 0)
    assert source.take(10).values == [1]
    assert source.take(10).values == []
    assert not source.over
    source.allow(10, 0)
    assert source.take(10).values == [2]
    assert source.take(10).values == []
    assert source.over
    changing = {1: 1, 2: 2}
    source = InPlace(changing)
    source.allow(10, 0)
    assert source.take(1).values == [1]
    changing[3] = 3
    assert source.take(1).values == []
    assert isinstance(source.fault, RuntimeError)


# --- other kinds of threads ---------------------------------------------------------------------------

GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys, time, queue
from opero import hotpath, opmap
hotpath.core = hotpath.load(sys.argv[1])

def same(x):
    time.sleep(0.001)
    return x

function = opmap(mode="thread", workers=3, retries=1, progress=False)(same)

def source(count):
    for number in range(count):
        time.sleep(0.001)
        yield number

closed = []
def endless():
    try:
        while True:
            yield 1
    finally:
        closed.append(True)

assert function(source(50)) == list(range(50))
assert list(function.stream(source(50))) == list(range(50))
pages = queue.Queue()
pages.put(5)
for page in function.stream(iter(pages.get, None)):
    pages.put(page - 1 if page else None)
stream = function.stream(endless())
next(stream)
stream.close()
assert closed == [True]
print("fine")
"""

TRIO = """
import sys, threading, trio
from opero import hotpath, opmap
hotpath.core = hotpath.load(sys.argv[1])

function = opmap(mode="thread", workers=3, retries=1, progress=False)(lambda x: x)

def source():
    yield from range(50)

async def main():
    assert function(source()) == list(range(50))
    assert await trio.to_thread.run_sync(function, source()) == list(range(50))
    assert list(function.stream(source())) == list(range(50))

trio.run(main)
print("fine")
"""


@pytest.mark.parametrize(("library", "text"), [("gevent", GREENLETS), ("trio", TRIO)])
def test_programs_of_other_loops_read_as_well(core, library, text):
    """Greenlets may replace threads, and trio's loop may run around the call."""
    if find_spec(library) is None:  # it is not imported here: gevent changes what a call holds
        pytest.skip(f"{library} is not installed")
    done = program(text, core.name)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
