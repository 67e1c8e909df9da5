"""The background refresh of a stored value, for threads and tasks."""

from __future__ import annotations

from typing import Any

from opero.runners.refreshes import COOL_DOWN, Refresh

from . import leases
from .stored_cache import Miss, StoredCache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.canonical import StoredKey

    from .signing import Signed


class StoredRefresh(Refresh):
    """One stored value to renew.

    Attributes:
        cache: The cache that holds it.
        key: Its key.
        found: Its entry.
    """

    __slots__ = ("cache", "found", "key")

    def __init__(
        self,
        cache: Any,
        call: Any,
        key: StoredKey,
        found: Signed,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__(call, args, kwargs)
        self.cache: Any = cache
        self.key: StoredKey = key
        self.found: Signed = found
        now = call.clock.now()
        self.until: int = now + int(1e9 * (cache.end(found) - cache.wall(call.clock)))

    def miss(self, args: tuple[Any, ...], kwargs: dict[str, Any], _deadline: int) -> Miss:
        """Return a miss for `StoredCache.renew`, with strong references to the arguments."""
        return Miss(self.key, args, kwargs, self.found, True)

    def claim(self) -> bool:
        """Keep other callers in this process from refreshing the value."""
        return bool(self.cache.claim(self.key.full, self.call.clock))

    def give_back(self) -> None:
        """Let the next hit begin a refresh."""
        self.cache.give_back(self.key.full)

    def cool_down(self) -> None:
        """Keep hits in this process from beginning a refresh for a while."""
        self._rest(self.cache.early / COOL_DOWN)

    def leave_alone(self) -> None:
        """Keep hits from beginning a refresh while another process may be doing it."""
        self.over = True
        self._rest(min(leases.SECONDS, self.cache.early / COOL_DOWN))

    def _rest(self, seconds: float) -> None:
        cache: StoredCache = self.cache
        cache.cool_down(self.key.full, self.call.clock.now() + int(1e9 * seconds))
