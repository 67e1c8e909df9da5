"""Values that a map renews before their end: their items are answered at once, and run once more.

The additional runs come when nothing else is to be done. They are attempts like any other, made by
the map's workers: they pay permits and breakers, and are tried again. Nobody gets what comes of
them but the cache, and a map is over when they are.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from .output import NOTHING, Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.runners.refreshes import Refresh

    from .jobs import Job

MOST: Final = 128
"""How many renewals may be under way or wait; for others the next hit asks again."""


class RenewedItem(Span):
    """An item that is run to renew its value, and whose result nobody waits for.

    Attributes:
        renewal: What is to be renewed.
    """

    __slots__ = ("renewal",)

    def __init__(self, item: Any, index: int, renewal: Refresh) -> None:
        """Stand for an item.

        Args:
            item: The item.
            index: Its place in the input.
            renewal: What is to be renewed.
        """
        super().__init__([item], index)
        self.results: list[Any] | None = [NOTHING]
        self.renewal: Refresh = renewal


class Renewals:
    """The renewals of one map that are not over.

    Attributes:
        waiting: The jobs that no worker has yet.
    """

    def __init__(self) -> None:
        self.waiting: deque[Job] = deque()
        self._open: dict[int, Refresh] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def claim(self, renewal: Refresh) -> bool:
        """Begin a renewal, unless there is no room, or somebody was quicker."""
        if len(self._open) >= MOST or not renewal.claim():
            return False
        self._open[id(renewal)] = renewal
        return True

    def end(self, renewal: Refresh, error: BaseException | None) -> None:
        """Tell what has come of a renewal: an error, or None."""
        self._open.pop(id(renewal), None)
        renewal.end(error)

    def drop(self, renewal: Refresh) -> None:
        """Let the next hit ask again."""
        if self._open.pop(id(renewal), None) is not None:
            renewal.give_back()

    def clear(self) -> None:
        """Drop all."""
        self.waiting.clear()
        for renewal in list(self._open.values()):
            self.drop(renewal)
