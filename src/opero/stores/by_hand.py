"""A stored cache for direct use, as `get_cache_context` opens it."""

from __future__ import annotations

from typing import Any

from .stored_cache import StoredCache
from .sync import SyncStoredCache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.clock import Clock
    from opero.hotpath import Core
    from opero.options import CacheOptions

_OWNER = ("opero", "get_cache_context")


class Stored:
    """Values under keys of the user's choice.

    Attributes:
        stored_cache: The stored cache that holds them.
    """

    def __init__(self, stored_cache: StoredCache, clock: Clock) -> None:
        """Keep values in a stored cache.

        Args:
            stored_cache: The stored cache.
            clock: Gives the time.
        """
        self.stored_cache = stored_cache
        self._clock = clock

    def find(self, key: Any) -> Any:
        """Return the entry of a key if it is still valid, else None."""
        found = self._look(key)
        fresh = found is not None and self.stored_cache.is_fresh(found, self._clock)
        return found if fresh else None

    def find_stale(self, key: Any) -> Any:
        """Return the entry of a key, even if it is outdated within `cache_stale`; else None."""
        found = self._look(key)
        usable = found is not None and self.stored_cache.is_usable(found, self._clock)
        return found if usable else None

    def _look(self, key: Any) -> Any:
        (found,) = self.stored_cache.find_many([self.stored_cache.key_of((key,), ("the key",))])
        return found

    def put(self, key: Any, value: Any) -> None:
        """Store a value, if the store works."""
        key = self.stored_cache.key_of((key,), ("the key",))
        self.stored_cache.put_many([(key, value)], self._clock)

    def drop(self, key: Any) -> bool:
        """Remove a key; return whether it existed."""
        return self.stored_cache.forget(self.stored_cache.key_of((key,), ("the key",)))

    def __len__(self) -> int:
        return self.stored_cache.count()


def open_by_hand(plan: CacheOptions, core: Core) -> Stored:
    """Open the store that the options name.

    Args:
        plan: The checked options.
        core: The active implementation.
    """
    from opero import events

    from .opening import open_stored_cache

    name = f"the cache {plan.namespace!r}"
    made = open_stored_cache(plan, name, False, core, events.of_half(core))
    made.belong(plan.namespace, _OWNER, plan.version)
    assert isinstance(made, SyncStoredCache)
    return Stored(made, core.clock)
