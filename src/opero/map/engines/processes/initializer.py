"""`worker_init`: how it travels, and what it has made of the worker in which it has run.

It travels as the function of the map does, and shares its globals with that if both come by value.
A worker in which it has run serves only maps with the same one, see `key_of`.
"""

from __future__ import annotations

import contextvars
import hashlib
import marshal
from typing import Any

from opero.map.serialization.arrivals import Origin, World

from .surroundings import Own, changed, surroundings


def key_of(told: dict[str, Any] | None, parts: list[Any]) -> bytes | None:
    """Return what is the same for the same `worker_init` only; None without one.

    Args:
        told: What a worker is told about it: plain values.
        parts: The parts of its pickle.
    """
    if told is None:
        return None
    key = hashlib.blake2b(marshal.dumps(told), digest_size=16)
    for part in parts:
        key.update(part)
    return key.digest()


class SetUp:
    """What `worker_init` has made of this worker, and what further maps begin with.

    Attributes:
        own: The settings that it has made.
        context: The context variables as it has left them.
    """

    def __init__(self, init: Any, world: World) -> None:
        """Call it.

        Args:
            init: The function.
            world: What has come with it, by value.

        Raises:
            BaseException: Whatever it raises.
        """
        before = surroundings()
        init()
        self.own: Own = changed(before, surroundings())
        self._origin = Origin(world)
        self.context: contextvars.Context = contextvars.copy_context()

    def world(self) -> World:
        """Return where what the next map sends arrives."""
        return self._origin.world()
