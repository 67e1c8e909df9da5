"""How a map gets its items: in place, from a reader thread, or from its caller's thread.

    sequence ---------------------------- InPlace ----> take
    iterator -- a thread ---------------> Reader -----> take
    iterator -- the caller's thread ----> CallerReader -> take
    asynchronous iterator -- a task ----> TaskReader --> take   (task_reader.py)
                       any of these ----> Lookups ----> take    (lookups.py, with a stored cache)

The driver says how far the input may be read (`allow`) and takes the available items. It never
waits for more: a reader wakes it when there are some. It takes all available items together, one or
a thousand, so items of an iterator that is faster than the workers come in batches.

A reader and the driver run at the same time: the reader appends items to the last block, and the
driver takes items from the blocks. A lock guards only the limits of the window, and who waits for
whom.
"""

from __future__ import annotations

import contextvars
import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import Future
from itertools import chain, islice, repeat
from operator import itemgetter
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from opero.exceptions import describe
from opero.locks import Lock
from opero.logs import warn
from opero.real_time import monotonic, perf_counter
from opero.tracebacks import without_top

from .interrupts import ctrl_c_later
from .scheduler import LIMIT
from .weights import SMALLEST, Scales

_NAME = "opero-map-input"
_ARRAYS = {("numpy", "ndarray"), ("array", "array")}
_BOUND = {("sqlite3", "Cursor")}

_MOST = 64 if sys.implementation.name == "cpython" else 1
_MOST_SMALL = 256 if _MOST > 1 else 1
"""How many items, or numbers, to read before checking the limits."""

_QUICK = 20e-6
"""Seconds per item; slower items are read one by one."""

_HEAVY = 1 << 18
_MANY = 16
"""Between two checks, a reader reads at most this fraction of the limit in bytes."""

_HINT = "(a thread of the map reads the input; read_in='caller' reads it in yours)"

_TURN = 0.002
"""Seconds after which reading in the caller's thread passes on the items so far."""

_HOLDING: tuple[Any, ...] = (
    *([], (), range(1), range(1 << 70), b"", bytearray(), ""),
    *(deque(), {}, {}.items(), {}.values(), frozenset(), set()),
)
_STILL: frozenset[type] = frozenset(
    [
        *map(type, _HOLDING),
        *(type(iter(each)) for each in _HOLDING),
        *(type({}.keys()), type(reversed([])), type(reversed(range(1))), memoryview),
        *(itertools.count, repeat),
    ]
)
"""Types that already hold their items, and return them without running other code."""


class Stop:
    """Ends a stream from another thread, while its consumer waits for results.

    Attributes:
        asked: Whether to end.
        wake: Ends the wait.
    """

    def __init__(self) -> None:
        self.asked: bool = False
        self.wake: Callable[[], object] = _nothing

    def __call__(self) -> None:
        """End the stream."""
        self.asked = True
        self.wake()


stops: WeakKeyDictionary[Any, Stop] = WeakKeyDictionary()
"""How to end opero's streams: one that is the input of another map ends with that map."""


class Taken(NamedTuple):
    """Items that the driver has taken.

    Attributes:
        values: The items.
        weight: Their size in bytes.
        known: What the store knows about each, with a stored cache.
        landed: How many values the map had stored before it asked the store.
    """

    values: list[Any]
    weight: int = 0
    known: list[tuple[Any, Any]] | None = None
    landed: int = 0


class Input(Protocol):
    """What a driver gets items from."""

    @property
    def over(self) -> bool:
        """Whether no item is there, and none will come."""

    @property
    def fault(self) -> BaseException | None:
        """What reading has raised, once it is over."""

    @property
    def held_up(self) -> bool:
        """Whether reading waits, since the items take up so much memory."""

    def begin(self, wake: Callable[[], object]) -> None:
        """Begin to read; call `wake` when there are items again after `take` returned too few."""

    def allow(self, items: int, weight: int) -> None:
        """Say how many items, and bytes of items, may have been read in all."""

    def take(self, count: int) -> Taken:
        """Return the next items that are there, `count` at most, without waiting for more."""

    def close(self) -> Collection[Any]:
        """End the reading, and close the input if it is a generator.

        Returns:
            Futures, of `concurrent.futures` or of asyncio, that are done when all this is.
        """


def is_still(items: Any) -> bool:
    """Return whether items can be read in place, at no cost and without side effects."""
    kind = type(items)
    return kind in _STILL or (kind.__module__, kind.__name__) in _ARRAYS


def is_bound_to_its_thread(items: Any) -> bool:
    """Return whether items cannot be read in another thread, judging by their type."""
    return any((kind.__module__, kind.__name__) in _BOUND for kind in type(items).__mro__)


def close_source(source: Any) -> None:
    """Close a generator; log what it raises, because nobody waits for it."""
    if isinstance(source, Generator):
        try:
            source.close()
        except BaseException as error:  # noqa: BLE001 - user code may raise anything
            warn("the input of a map raised when it was closed: %s", describe(error))


class InPlace:
    """Items that already exist.

    Attributes:
        over: Whether nothing will come.
        fault: What reading has raised, once it is over.
        held_up: Never.
    """

    held_up: bool = False

    def __init__(self, items: Any) -> None:
        """Begin to iterate.

        Args:
            items: A sequence or the like, which never blocks.
        """
        self.over: bool = False
        self.fault: BaseException | None = None
        self._source: Iterator[Any] = iter(items)
        self._read = 0
        self._most = 0

    def begin(self, wake: Callable[[], object]) -> None:
        """Do nothing: there is always something."""

    def allow(self, items: int, weight: int) -> None:  # noqa: ARG002 - they are in memory already
        """Say how many items may have been read in all."""
        self._most = items

    def take(self, count: int) -> Taken:
        """Return the next items, `count` at most."""
        count = min(count, self._most - self._read)
        values: list[Any] = []
        if count <= 0 or self.fault is not None:
            self.over = self.over or self.fault is not None
            return Taken(values)
        try:
            values.extend(islice(self._source, count))  # what came before an error is kept
        except Exception as error:  # noqa: BLE001 - raised again, in its place
            self.fault = without_top(error)
        self._read += len(values)
        self.over = not values
        return Taken(values)

    def close(self) -> Collection[Any]:
        """Let go of the items."""
        self.over = True
        self.fault = None
        self._source = iter(())
        return ()


class Block:
    """Neighbouring items, as they are read.

    Attributes:
        values: The items; more are appended until the block is whole.
        weight: Their size in bytes; 0 until the block is whole.
        whole: Whether the block is complete.
        taken: How many of them the driver has taken.
        told: The weight reported to the driver for these.
    """

    __slots__ = ("taken", "told", "values", "weight", "whole")

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.weight: int = 0
        self.whole: bool = False
        self.taken: int = 0
        self.told: int = 0


class Intake:
    """Items that have been read but not taken yet; a reader fills it.

    Attributes:
        fault: What reading has raised, once it is over.
        held_up: Whether reading waits, since the items take up so much memory.
        stopped: Whether reading is to end.
        hungry: Whether the driver waits for an item.
    """

    def __init__(self, items: Any) -> None:
        """Take the input, and begin nothing yet.

        Args:
            items: The input; only the reader's side touches it.
        """
        self.fault: BaseException | None = None
        self.held_up: bool = False
        self.stopped: bool = False
        self.hungry: bool = False
        self._source: Any = items
        self._ended = False
        self._wake: Callable[[], object] = _nothing
        self._blocks: deque[Block] = deque()
        self._scales = Scales()
        self._most = 0
        self._most_weight = 0
        self._read = 0  # how many items the reader has read in all
        self._weight = 0  # and how many bytes they take up
        self._each = 0  # what an item takes up, by the last ones
        self._taken = 0
        self._taken_weight = 0

    # --- the driver's side ------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether no item is there, and none will come."""
        return self._ended and self._taken == self._read

    def take(self, count: int) -> Taken:
        """Return the next items that are there, `count` at most, without waiting for more."""
        taken = self._there(count)
        if not taken.values:
            self._hunger()
            taken = self._there(count)  # some may have come before the reader saw that
        return taken

    def _hunger(self) -> None:
        """Let the reader say when the next item has come."""
        self.hungry = True

    def _there(self, count: int) -> Taken:
        blocks = self._blocks
        values: list[Any] = []
        weight = 0
        while blocks and count:
            block = blocks[0]
            whole = block.whole  # before the look at its items: none comes after that
            first = block.taken
            some = block.values[first : first + count]
            block.taken += len(some)
            count -= len(some)
            values += some
            if whole and block.taken == len(block.values):
                weight += block.weight - block.told
                blocks.popleft()
                continue
            if whole and some:
                part = block.weight * block.taken // len(block.values) - block.told
                block.told += part
                weight += part
            if not whole:
                break
        self._taken += len(values)
        self._taken_weight += weight
        return Taken(values, weight)

    # --- the reader's side ------------------------------------------------------------------------

    def put(self, item: Any) -> bool:
        """Add an item; return whether there is room for another one."""
        block = Block()
        block.values.append(item)
        self._blocks.append(block)
        self._close(block)
        return self.has_room() and not self.stopped

    def _close(self, block: Block) -> None:
        """Weigh what has been read, and wake the driver if it waits for that."""
        count = len(block.values)
        weight = self._scales.weigh_all(block.values)
        self._read += count
        self._weight += weight
        self._each = weight // count if count else self._each
        block.weight = weight
        block.whole = True
        if self.hungry and count:
            self.hungry = False
            self._wake()

    def has_room(self) -> bool:
        """Return whether another item, like the last ones, may be read."""
        return self._read < self._most and (
            self._weight + min(self._each, LIMIT) <= self._most_weight
        )

    def has_much_room(self) -> bool:
        """Return whether there is so much room that it is worth going on."""
        left, weight = self._read - self._taken, self._weight - self._taken_weight
        return self.has_room() and (
            left <= 0
            or (self._most - self._read >= left and self._most_weight - self._weight >= weight)
        )

    def _end(self, fault: BaseException | None) -> None:
        """Say that nothing more will come."""
        self.fault = None if fault is None else without_top(fault)
        self._ended = True
        self._wake()

    def _stop(self) -> None:
        """Let reading end, and forget what nobody will take."""
        self.stopped = True
        self.fault = None
        self._wake = _nothing
        self._blocks.clear()


class Reader(Intake):
    """Reads an iterator in its own thread, which sees the caller's context variables.

    For a fast iterator, no line of Python runs per item: `list.extend` adds the items to the open
    block, where the driver finds them immediately. If the driver finds none, it clears the list of
    ticks, each of which lets in one more item; then this thread wakes it when an item comes.
    """

    held_up: bool

    def __init__(self, items: Any) -> None:
        """Take the input, and start nothing yet.

        Args:
            items: The input; all that is done with it, the thread does.
        """
        super().__init__(items)
        self._lock = Lock()
        self._ticks: list[None] = []
        self._drained = False
        self._waits = False
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._done: Future[None] = Future()
        self._thread: threading.Thread | None = None
        self._stop_source: Callable[[], object] = _nothing

    def begin(self, wake: Callable[[], object]) -> None:
        """Begin to read."""
        self._wake = wake
        if isinstance(self._source, Generator):
            self._stop_source = stops.get(self._source, _nothing)
        run = contextvars.copy_context().run
        thread = threading.Thread(target=run, args=(self._work,), name=_NAME, daemon=True)
        with ctrl_c_later():
            self._thread = thread
            thread.start()

    def allow(self, items: int, weight: int) -> None:
        """Say how many items, and bytes of items, may have been read in all."""
        if self._waits or items != self._most or weight != self._most_weight:
            with self._lock:
                self._most, self._most_weight = items, weight
                ring = self._waits and self.has_much_room()
                if ring:
                    self._waits = self.held_up = False
            if ring:
                self._bell.put(None)

    def close(self) -> Collection[Any]:
        """End the reading, and close the input if it is a generator; the thread does that."""
        with ctrl_c_later():
            with self._lock:
                self._stop()
                self._ticks.clear()
                ring, self._waits = self._waits, False
            if ring:
                self._bell.put(None)
            self._stop_source()
        if self._thread in {None, threading.current_thread()}:
            return ()
        return (self._done,)

    def _hunger(self) -> None:
        with self._lock:
            self.hungry = True
            self._ticks.clear()

    def _work(self) -> None:
        """Read all there is; this is what the thread does."""
        fault = None
        source, self._source = self._source, None
        try:
            if not self.stopped:
                source = iter(source)
                self._read_all(source)
        except BaseException as error:  # noqa: BLE001 - it is raised where the results are
            fault = error
            if not self.stopped and "thread" in str(error):
                error.add_note(_HINT)
        try:
            close_source(source)
            source = None  # what else refers to the input must not outlive the map
            self._end(None if self.stopped else fault)
        finally:
            fault = None
            self._done.set_result(None)

    def _read_all(self, source: Iterator[Any]) -> None:
        items = chain(source, self._after())
        ticks = self._tickets(1)
        while ticks is not None and not self._drained:
            size = len(ticks)
            block = Block()
            self._blocks.append(block)
            begun = perf_counter()
            try:
                block.values.extend(map(_item, zip(ticks, items, strict=False)))
            finally:
                quick = perf_counter() - begun < _QUICK * size
                self._close(block)
            most = _MOST if self._each > SMALLEST else _MOST_SMALL
            ticks = self._tickets(min(2 * size, most) if quick else max(1, size // 4))

    def _tickets(self, count: int) -> list[None] | None:
        """Wait until there is room; return a tick for each item to come before the next look.

        Args:
            count: How many ticks there may be; None is returned if there is to be no next look.
        """
        while not self.stopped:
            with self._lock:
                if self.has_room():
                    count = min(count, self._most - self._read)
                    if self._each * count > _HEAVY:
                        room = min(self._most_weight - self._weight, LIMIT // _MANY)
                        count = max(1, min(count, room // self._each))
                    ticks = [None] * (1 if self.hungry else count)
                    self._ticks = [] if self.hungry else ticks
                    return ticks
                self._waits = True
                self.held_up = self._read < self._most
            if self.held_up and self.hungry:
                self._wake()
            self._bell.get()
        return None

    def _after(self) -> Iterator[Any]:
        """Note that the input has ended; this comes after it, and has no items."""
        self._drained = True
        yield from ()


class SequenceReader(Intake):
    """Reads a sequence in place when the driver takes items, which may create them then."""

    held_up: bool

    def __init__(self, items: Any) -> None:
        """Take the input, and read nothing yet.

        Args:
            items: The input.
        """
        super().__init__(items)
        self._iterator: Iterator[Any] | None = None

    def begin(self, wake: Callable[[], object]) -> None:
        """Take note of what to wake."""
        self._wake = wake

    def allow(self, items: int, weight: int) -> None:
        """Say how many items, and bytes of items, may have been read in all."""
        self._most, self._most_weight = items, weight
        self.held_up = self._read < items and not self.has_room()

    def take(self, count: int) -> Taken:
        """Read the next items, `count` at most, and return them."""
        self.fill(count)
        return super().take(count)

    def fill(self, count: int) -> None:
        """Read items until so many are there, or it has taken a while."""
        count -= self._read - self._taken
        if count <= 0 or self._ended or self.stopped or not self.has_room():
            return
        try:
            if self._iterator is None:
                self._iterator, self._source = iter(self._source), None
            until = monotonic() + _TURN
            for item in islice(self._iterator, count):
                count -= 1
                if not self.put(item) or monotonic() > until:
                    return
        except Exception as error:  # noqa: BLE001 - raised again, in its place
            self._end(error)
        else:
            if count:
                self._end(None)

    def close(self) -> Collection[Any]:
        """End the reading, and close the input if it is a generator."""
        self._stop()
        self.finish()
        return ()

    def finish(self) -> None:
        """Close the input if it is a generator, and let go of it."""
        source = self._source if self._iterator is None else self._iterator
        self._source = self._iterator = None
        close_source(source)


class CallerReader(SequenceReader):
    """Reads an iterator in the thread that called the map, when the driver takes from it.

    Attributes:
        ask: Calls a function in that thread, if the driver runs in another one; else None.
        filled: Whether other code than `take` reads the items.
    """

    def __init__(self, items: Any) -> None:
        """Take the input, and read nothing yet.

        Args:
            items: The input.
        """
        super().__init__(items)
        self.ask: Callable[[Callable[[], object]], object] | None = None
        self.filled = False
        self._wanted = 0

    def take(self, count: int) -> Taken:
        """Return the next items, `count` at most; read them, or have them read."""
        if self.ask is not None:
            if not self._wanted and self._read == self._taken and not self._ended:
                self._wanted = count
                self.ask(self._answer)
        elif not self.filled:
            self.fill(count)
        return Intake.take(self, count)

    def close(self) -> Collection[Any]:
        """End the reading; the caller's thread does the rest, if that is another one."""
        self._stop()
        if self.ask is None:
            self.finish()
        return ()

    def _answer(self) -> None:
        self.fill(self._wanted)
        self._wanted = 0
        self._wake()


_item = itemgetter(1)


def _nothing() -> None:
    """Wake nobody."""
