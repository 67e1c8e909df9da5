"""Look-ups in a store, which run at the same time as reading and handing on results."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from opero.locks import Lock

from .interrupts import ctrl_c_later
from .reader import CallerReader, Input, Taken
from .stored_items import StoredItems

_MOST = 256
"""The most items to look up at once; the first ones are looked up one by one."""


class Lookups:
    """Takes items from another input, in a thread, and looks up their stored values.

    It looks up all available items together, then those that came meanwhile. So no item waits for a
    full batch, and a slow store gets long batches.
    """

    def __init__(self, items: Input, stored: StoredItems) -> None:
        """Take the input, and start nothing yet.

        Args:
            items: Where the items come from.
            stored: Asks the store.
        """
        self._items = items
        self._stored = stored
        self._fill: Callable[[int], object] | None = None
        if isinstance(items, CallerReader) and items.ask is None:
            items.filled = True
            self._fill = items.fill
        self._fault: BaseException | None = None
        self._ended = False
        self._hungry = False
        self._stopped = False
        self._waits = False
        self._lock = Lock()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._looked: deque[Taken] = deque()
        self._wake: Callable[[], object] = _nothing
        self._done: Future[None] = Future()
        self._thread: threading.Thread | None = None

    @property
    def over(self) -> bool:
        """Whether nothing is there, and nothing will come."""
        return self._ended and not self._looked

    @property
    def fault(self) -> BaseException | None:
        """What reading or looking up raised, once it is over."""
        return self._items.fault if self._fault is None else self._fault

    @property
    def held_up(self) -> bool:
        """Whether reading waits, since the items take up so much memory."""
        return self._items.held_up and not self._looked

    def begin(self, wake: Callable[[], object]) -> None:
        """Begin to read and to look."""
        self._wake = wake
        self._items.begin(self._ring)
        run = contextvars.copy_context().run
        thread = threading.Thread(
            target=run, args=(self._work,), name="opero-map-lookups", daemon=True
        )
        with ctrl_c_later():
            self._thread = thread
            thread.start()

    def allow(self, items: int, weight: int) -> None:
        """Say how many items, and bytes of items, may have been read in all."""
        self._items.allow(items, weight)
        if self._waits:
            self._ring()

    def take(self, count: int) -> Taken:
        """Return the next items with their stored values, `count` at most."""
        try:
            taken = self._looked.popleft()
        except IndexError:
            self._hungry = True
            if self._fill is not None:
                self._fill(count)
            try:
                taken = self._looked.popleft()  # it may have come before the thread saw that
            except IndexError:
                return Taken([])
        values, weight, known, landed = taken
        if len(values) <= count or known is None:
            return taken
        part = weight * count // len(values)
        rest = Taken(values[count:], weight - part, known[count:], landed)
        self._looked.appendleft(rest)
        return Taken(values[:count], part, known[:count], landed)

    def close(self) -> Collection[Any]:
        """End the looking and the reading."""
        with ctrl_c_later():
            self._stopped = True
            self._fault = None
            self._wake = _nothing
            closing = [*self._items.close()]
            self._looked.clear()
            self._ring()
        if self._thread not in {None, threading.current_thread()}:
            closing.append(self._done)
        return closing

    def _ring(self) -> None:
        with self._lock:
            ring, self._waits = self._waits, False
        if ring:
            self._bell.put(None)

    def _work(self) -> None:
        """Look up all items; the thread runs this."""
        try:
            self._look()
        except BaseException as error:  # noqa: BLE001 - it is raised where the results are
            self._fault = error
        finally:
            self._ended = True
            try:
                self._wake()
            finally:
                self._done.set_result(None)

    def _look(self) -> None:
        count = 1
        while not self._stopped:
            with self._lock:
                self._waits = True  # what comes from now on rings
            values, weight, _, _ = self._items.take(count)
            if not values:
                if self._items.over:
                    return
                self._bell.get()
                continue
            with self._lock:
                rung, self._waits = not self._waits, False
            if rung:
                self._bell.get()
            keys = self._stored.keys(values)
            landed = self._stored.landed
            self._looked.append(Taken(values, weight, self._stored.look(keys), landed))
            count = min(2 * count, _MOST)
            if self._hungry:
                self._hungry = False
                self._wake()


def _nothing() -> None:
    """Wake nobody."""
