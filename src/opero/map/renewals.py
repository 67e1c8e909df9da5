"""Values that a map renews before they expire: hits are served immediately, then run once more.

The map's workers make these runs when they have nothing else to do. The runs are ordinary attempts:
they use permits, count for breakers and are retried. Their results go only to the cache. A map ends
when its renewals have ended.
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
"""How many renewals may run or wait; beyond that, the next hit asks again."""


class RenewedItem(Span):
    """An item that runs to renew its value; nobody waits for its result.

    Attributes:
        renewal: The refresh of its value.
    """

    __slots__ = ("renewal",)

    def __init__(self, item: Any, index: int, renewal: Refresh) -> None:
        """Wrap an item.

        Args:
            item: The item.
            index: Its place in the input.
            renewal: The refresh of its value.
        """
        super().__init__([item], index)
        self.results: list[Any] | None = [NOTHING]
        self.renewal: Refresh = renewal


class Renewals:
    """The unfinished renewals of one map.

    Attributes:
        waiting: The jobs that no worker has yet.
    """

    def __init__(self) -> None:
        self.waiting: deque[Job] = deque()
        self._open: dict[int, Refresh] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def claim(self, renewal: Refresh) -> bool:
        """Begin a renewal, unless the limit is reached or something else has claimed it."""
        if len(self._open) >= MOST or not renewal.claim():
            return False
        self._open[id(renewal)] = renewal
        return True

    def end(self, renewal: Refresh, error: BaseException | None) -> None:
        """End a renewal with an error, or with None if it succeeded."""
        self._open.pop(id(renewal), None)
        renewal.end(error)

    def drop(self, renewal: Refresh) -> None:
        """Give a renewal up, so that the next hit asks for it again."""
        if self._open.pop(id(renewal), None) is not None:
            renewal.give_back()

    def clear(self) -> None:
        """Drop all."""
        self.waiting.clear()
        for renewal in list(self._open.values()):
            self.drop(renewal)
