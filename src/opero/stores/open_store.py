"""A store that is open in this process, and whether it works."""

from __future__ import annotations

from opero.clients.outages import Outage

from .backends import AsyncBackend, Backend
from .operations import AsyncOperations, Operations


class OpenStore:
    """A store, shared by all functions of this process that use it.

    Attributes:
        what: What it is, for messages; contains no secret.
        operations: Its operations for threads.
        async_operations: Its operations for tasks.
        outage: Decides whether to use it.
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
            backend: The backend for threads.
            async_backend: The backend for tasks.
            outage: Decides whether to use it; None for a new one.
        """
        self.what = what
        self.operations: Operations = Operations(backend)
        self.async_operations: AsyncOperations = AsyncOperations(async_backend)
        self.outage: Outage = outage or Outage(what)
