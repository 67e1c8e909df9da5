"""The attempts of one item of a map that was tried again, for listeners of `call_end`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from opero.core.state import State


def history_of(call: State, began: int) -> ItemHistory | None:
    """Return the history of an item whose first attempt has failed; None if nobody listens.

    Args:
        call: The function of an item.
        began: When its first attempt was handed out, in nanoseconds.
    """
    return ItemHistory(call, began) if "call_end" in call.events.listeners else None


class ItemHistory:
    """The attempts of an item so far; an attempt takes as long as its chunk."""

    __slots__ = ("_began", "_call", "_records")

    def __init__(self, call: State, began: int) -> None:
        self._call = call
        self._began = began
        self._records: list[Any] = []

    def note(self, began: int, waited: int, delay: int, error: BaseException | None) -> None:
        """Note an attempt.

        Args:
            began: When it was handed out, in nanoseconds.
            waited: How many nanoseconds it waited for permits.
            delay: How many nanoseconds the item waited for it after the previous failure.
            error: What the attempt raised.
        """
        number = len(self._records) + 1
        seconds = (self._call.clock.now() - began) / 1e9
        since = (began - self._began) / 1e9
        self._records.append((number, since, seconds, waited / 1e9, delay / 1e9, error))

    def end(self, attempts: Any, error: BaseException | None) -> None:
        """Tell that the item is over.

        Args:
            attempts: The account of its failures.
            error: Its exception, if it failed.
        """
        call = self._call
        seconds = (call.clock.now() - self._began) / 1e9
        call.events.call_end(call, attempts, self._records, seconds, error)
