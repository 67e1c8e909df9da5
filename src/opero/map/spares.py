"""Outdated values that are served if the run of an item fails, or a breaker refuses it."""

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
    """

    __slots__ = ("_call", "_entry", "_store", "value")

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
    """

    __slots__ = ("_call", "_entry", "_values", "value")

    def __init__(self, call: State, values: StoredCache, entry: Signed) -> None:
        self.value: Any = entry.value
        self._call = call
        self._values = values
        self._entry = entry

    def is_usable(self) -> bool:
        """Return whether it may be served now."""
        return self._values.is_usable(self._entry, self._call.clock)

    def serves(self, error: BaseException) -> bool:
        """Return whether it is served for a failed run; count and tell that."""
        if not self._values.stands_in(self._call, self._entry, error):
            return False
        self._values.served_stale(self._call, self._entry, error)
        return True
