"""A store that is open in this process, and whether it is in order."""

from __future__ import annotations

from opero.clients.outages import Outage

from .backends import AsyncBackend, Backend
from .operations import AsyncOperations, Operations


class OpenStore:
    """A store that all functions of this process share which use it.

    Attributes:
        what: What it is, for messages; nothing secret.
        operations: What threads ask it for.
        async_operations: What tasks ask it for.
        outage: Tells whether it is worth asking.
    """

    def __init__(
        self,
        what: str,
        backend: Backend,
        async_backend: AsyncBackend,
        outage: Outage | None = None,
    ) -> None:
        """Hold a store by its backends.

        Args:
            what: What it is, for messages.
            backend: It, for threads.
            async_backend: It, for tasks.
            outage: Tells whether it is worth asking; one of its own by default.
        """
        self.what = what
        self.operations: Operations = Operations(backend)
        self.async_operations: AsyncOperations = AsyncOperations(async_backend)
        self.outage: Outage = outage or Outage(what)
