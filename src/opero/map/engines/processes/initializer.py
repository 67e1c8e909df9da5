"""`worker_init`: how it travels, and how it sets up a worker.

It travels as the function of the map does, and shares that function's globals if both come by
value. A worker that has run it serves only maps with the same `worker_init`; see `key_of`.
"""

from __future__ import annotations

import contextvars
import hashlib
import marshal
from typing import Any

from opero.map.serialization.arrivals import Origin, World

from .surroundings import Own, changed, surroundings


def key_of(told: dict[str, Any] | None, parts: list[Any]) -> bytes | None:
    """Return a key that only the same `worker_init` has; None if there is none.

    Args:
        told: What the message to a worker says about it, in plain values.
        parts: The parts of its pickle.
    """
    if told is None:
        return None
    key = hashlib.blake2b(marshal.dumps(told), digest_size=16)
    for part in parts:
        key.update(part)
    return key.digest()


class SetUp:
    """The state in which `worker_init` left this worker, from which further maps begin.

    Attributes:
        own: The settings that it changed.
        context: The context variables as it left them.
    """

    def __init__(self, init: Any, world: World) -> None:
        """Call it.

        Args:
            init: The function.
            world: The world that it arrived in.

        Raises:
            BaseException: Whatever it raises.
        """
        before = surroundings()
        init()
        self.own: Own = changed(before, surroundings())
        self._origin = Origin(world)
        self.context: contextvars.Context = contextvars.copy_context()

    def world(self) -> World:
        """Return a world for what the next map sends."""
        return self._origin.world()
