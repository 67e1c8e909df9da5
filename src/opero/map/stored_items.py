"""The stored values of a map's items, looked up and stored in batches."""

from __future__ import annotations

from typing import Any, cast

from opero.tracebacks import without_top

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from opero.core.state import State
    from opero.stores.stored_cache import StoredCache


class StoredItems:
    """A map's access to the store; every method except `keys` waits for it, for a limited time.

    Attributes:
        landed: How many values the map has stored.
        asks: Whether to ask the store at all; False once the map hands out nothing more.
    """

    def __init__(
        self, call: State, arguments: Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]
    ) -> None:
        """Set the function whose values these are.

        Args:
            call: The decorated function of one item; its values are stored outside the process.
            arguments: Returns the arguments of an item's call.
        """
        self._call = call
        self._values = cast("StoredCache", call.stored_cache)
        self._arguments = arguments
        self.landed: int = 0
        self.asks: bool = True

    def keys(self, values: list[Any]) -> list[Any]:
        """Return each item's key in the store, or the error that building it raised."""
        return [self._key(value) if self.asks else None for value in values]

    def look(self, keys: list[Any]) -> list[tuple[Any, Any]]:
        """Look up the values of some items.

        Args:
            keys: What `keys` returned.

        Returns:
            Each key with its entry; None if it has none.
        """
        if not self.asks:
            return [(key, None) for key in keys]
        good = [key for key in keys if not isinstance(key, Exception)]
        found = iter(self._values.find_many(good) if good else ())
        return [(key, None if isinstance(key, Exception) else next(found)) for key in keys]

    def look_again(self, held: list[tuple[Any, Any]]) -> list[Any]:
        """Return, for each key, the entry that may be served for a failed run, or None.

        Args:
            held: Keys, each with what the store first returned for it.
        """
        return self._values.find_many([key for key, _ in held], [found for _, found in held])

    def keep(self, pairs: list[tuple[Any, Any]]) -> None:
        """Store values under their keys."""
        self._values.put_many(pairs, self._call.clock)
        self.landed += len(pairs)

    def _key(self, value: Any) -> Any:
        try:
            return self._values.key(self._call, *self._arguments(value))
        except Exception as error:  # noqa: BLE001 - `cache_key` may raise anything
            return without_top(error)
