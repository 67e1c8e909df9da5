"""A stored cache that `get_cache_context` opens for use by hand."""

from __future__ import annotations

from typing import Any

from .archive import Archive
from .calls import SyncArchive

_OWNER = ("opero", "get_cache_context")


class Stored:
    """Values under keys of the user's choice.

    Attributes:
        archive: Where they are.
    """

    def __init__(self, archive: Archive, clock: Any) -> None:
        """Keep values in an archive.

        Args:
            archive: Where.
            clock: Tells the time.
        """
        self.archive = archive
        self._clock = clock

    def find(self, key: Any) -> Any:
        """Return the entry of a key, if there is one that counts; None if not."""
        (found,) = self.archive.find_many([self.archive.key_of((key,), ("the key",))])
        return found if found is not None and self.archive.is_fresh(found, self._clock) else None

    def put(self, key: Any, value: Any) -> None:
        """Keep a value, if the store is in order."""
        key = self.archive.key_of((key,), ("the key",))
        self.archive.put_many([(key, value)], self._clock)

    def drop(self, key: Any) -> bool:
        """Forget a key; tell whether it was there."""
        return self.archive.forget(self.archive.key_of((key,), ("the key",)))

    def __len__(self) -> int:
        return self.archive.count()


def open_by_hand(plan: Any, core: Any) -> Stored:
    """Open the store that a plan names.

    Args:
        plan: The checked options.
        core: The active implementation.
    """
    from opero import logs

    from .opening import archive

    name = f"the cache {plan.namespace!r}"
    made = archive(plan, name, False, core, logs.journal(core))
    made.belong(plan.namespace, _OWNER, plan.version)
    assert isinstance(made, SyncArchive)
    return Stored(made, core.clock)
