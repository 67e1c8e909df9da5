"""Outdated values that are served if an item fails, or a breaker refuses it."""

from __future__ import annotations

from opero.runners.lingering import serves_stale

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from opero.core.entry import Entry
    from opero.core.state import State
    from opero.core.store import MemoryStore
    from opero.stores.signing import Signed
    from opero.stores.stored_cache import StoredCache


class MemorySpare:
    """An outdated value in memory.

    Attributes:
        value: The value.
        in_doubt: Whether to ask the store again before serving it: never for memory.
    """

    __slots__ = ("_call", "_entry", "_store", "value")
    in_doubt = False

    def __init__(self, call: State, store: MemoryStore, entry: Entry) -> None:
        self.value: Any = store.value_of(entry)
        self._call = call
        self._store = store
        self._entry = entry

    def is_usable(self) -> bool:
        """Return whether it may be served now."""
        return bool(self._store.serves(self._entry))

    def serves(self, error: BaseException) -> bool:
        """Return whether it is served for a failed run; count and tell that."""
        return serves_stale(self._call, self._store, self._entry, error)


class StoredSpare:
    """An outdated value outside the process.

    Attributes:
        value: The value.
        entry: Its entry.
        in_doubt: Whether to ask the store again before serving it.
    """

    __slots__ = ("_call", "_values", "entry", "in_doubt", "value")

    def __init__(
        self, call: State, values: StoredCache, entry: Signed, in_doubt: bool = True
    ) -> None:
        self.value: Any = entry.value
        self.entry: Signed = entry
        self.in_doubt: bool = in_doubt
        self._call = call
        self._values = values

    def is_usable(self) -> bool:
        """Return whether it may be served now."""
        return self._values.is_usable(self.entry, self._call.clock)

    def stands_in(self, error: BaseException) -> bool:
        """Return whether it may be served for a failed run, as far as this process knows."""
        return self._values.stands_in(self._call, self.entry, error)

    def serves(self, error: BaseException) -> bool:
        """Return whether it is served for a failed run; count and tell that."""
        if not self.stands_in(error):
            return False
        self._values.served_stale(self._call, self.entry, error)
        return True
