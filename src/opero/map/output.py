"""The results of a map before they are handed on: ordered or not, with items or not, counted."""

from __future__ import annotations

from collections import deque
from typing import Any

from opero.exceptions import NotRun

from .item_notes import note_item
from .result import FailedItem

NOTHING: Any = object()
"""Fills the place of a result that is not there yet."""


class Span:
    """Neighbouring items, from their arrival until their results are handed on.

    Attributes:
        values: The items.
        first: The position of the first one in the input.
        results: The result of each, `NOTHING` if unknown; None before any is known.
        missing: How many results are unknown.
        weight: The size of the items in bytes.
        renewal: What the run of the item renews; None if the consumer wants its result.
    """

    renewal: Any = None

    __slots__ = ("first", "missing", "results", "values", "weight")

    def __init__(self, values: list[Any], first: int = 0, weight: int = 0) -> None:
        self.values: list[Any] = values
        self.first: int = first
        self.weight: int = weight
        self.results: list[Any] | None = None
        self.missing: int = len(values)


class Output:
    """The results of one map's items.

    Attributes:
        name: The mapped function, for the notes of failures.
        ordered: Whether results are handed on in the order of the input.
        pairs: Whether each result is handed on as a pair, `(item, result)`.
        streamed: Whether items count until their results are handed on; otherwise they count until
            their results are final, when the items are no longer needed.
        gone: How many bytes of items no longer count.
        settled: How many items have their final result.
        handed: How many results have been collected.
        failed: How many final results are failures.
        not_run: How many items have none because the map ended early.
        raises: Whether the first failure ends the map.
        failures: The final failures; None if nobody needs them.
    """

    def __init__(self, name: str, ordered: bool, pairs: bool, streamed: bool = True) -> None:
        self.name: str = name
        self.ordered: bool = ordered
        self.pairs: bool = pairs
        self.streamed: bool = streamed
        self.gone: int = 0
        self.settled: int = 0
        self.handed: int = 0
        self.failed: int = 0
        self.not_run: int = 0
        self.raises: bool = False
        self.failures: list[FailedItem] | None = None
        self._order: deque[Span] = deque()
        self._ready: list[Any] = []

    def expect(self, span: Span) -> None:
        """Record items whose results will come."""
        if self.ordered:
            self._order.append(span)

    def take(self, span: Span, results: list[Any]) -> None:
        """Take the results of all items of a span; nearly all items take this path."""
        span.results = results
        span.missing = 0
        self.settled += len(results)
        if not self.ordered:
            self._ready += zip(span.values, results, strict=True) if self.pairs else results
        self._complete(span)

    def place(self, span: Span, offset: int, outcome: Any) -> None:
        """Take the result of an item."""
        assert span.results is not None
        assert span.results[offset] is NOTHING
        span.results[offset] = outcome
        span.missing -= 1
        self.settled += 1
        if not self.ordered:
            self._ready.append((span.values[offset], outcome) if self.pairs else outcome)
        if not span.missing:
            self._complete(span)

    def _complete(self, span: Span) -> None:
        """Release items whose results are final."""
        if self.ordered and self.streamed:
            return
        self.gone += span.weight
        if not (self.ordered and self.pairs):
            span.values = []

    def fail(self, span: Span, offset: int, error: BaseException, equal: int | None = 0) -> None:
        """Take the final failure of an item.

        Args:
            span: Where the item stands.
            offset: Its place there.
            error: What it has failed with.
            equal: How many equal items fail with it; None if it is one of those.
        """
        self.failed += 1
        index, item = span.first + offset, span.values[offset]
        if equal is not None:
            note_item(error, self.name, index, item, equal)
        if self.failures is not None or self.raises:
            self.failures = self.failures or []
            self.failures.append(FailedItem(index, item, error))
        self.place(span, offset, error)

    def leave_out(self, span: Span, offset: int, error: NotRun) -> None:
        """Take the result of an item that does not run, or is not tried again."""
        error.item = span.values[offset]
        self.not_run += 1
        self.place(span, offset, error)

    def collect(self) -> list[Any]:
        """Return the results that can be handed on now; each is returned once.

        If a failure ends the map, those are the results before it.
        """
        if not self.ordered:
            ready, self._ready = self._ready, []
            if self.fatal is not None:
                error = self.fatal.error
                ready = [each for each in ready if (each[1] if self.pairs else each) is not error]
            self.handed += len(ready)
            return ready
        ready = []
        while self._order and self._order[0].missing == 0:
            done = self._order.popleft()
            assert done.results is not None
            ready += zip(done.values, done.results, strict=True) if self.pairs else done.results
            if self.streamed:
                self.gone += done.weight
        if self.fatal is not None:
            del ready[max(0, self.fatal.index - self.handed) :]
        self.handed += len(ready)
        return ready

    @property
    def passed(self) -> int:
        """How many items do not count any more for the window of the input."""
        return self.handed if self.streamed else self.settled

    @property
    def fatal(self) -> FailedItem | None:
        """The failure that ends the map: the first one by its place; None without any."""
        if not (self.raises and self.failures):
            return None
        return min(self.failures, key=_index)

    def clear(self) -> None:
        """Release the results that nobody has collected."""
        self._order.clear()
        self._ready.clear()
        if self.raises:
            self.failures = None  # what the map raises would hold itself


def _index(failure: FailedItem) -> int:
    return failure.index
