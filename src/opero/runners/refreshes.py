"""Refreshes: background runs that renew a cached value before its end.

A hit on a value near its end begins one and returns immediately. Ordinary functions run in threads
(`background`), coroutine functions in tasks (`task_lingering`). Both work with a `Refresh`: for a
value in memory here, for a stored one in `stores/stored_refresh.py`.
"""

from __future__ import annotations

import contextvars
import weakref
from typing import Any, NamedTuple

from opero.core.clock import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.entry import Entry
    from opero.core.store import MemoryStore

COOL_DOWN = 10
"""The pause before the next refresh is `cache_refresh` divided by this."""


class Begun(NamedTuple):
    """A run that begins.

    Attributes:
        args: The positional arguments.
        kwargs: The keyword arguments.
        deadline: When it must be over, in nanoseconds.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    deadline: int


class Refresh:
    """The refresh of one value.

    Attributes:
        call: The decorated function.
        context: A copy of the context variables of the hit.
        until: When the value is outdated, in nanoseconds of opero's clock: a refresh that would
            wait longer is useless.
        over: Whether the outcome is known.
    """

    __slots__ = ("_args", "_began", "_instance", "_kwargs", "call", "context", "over", "until")

    def __init__(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep what a run needs; do not keep an instance alive until the run begins.

        Args:
            call: The decorated function.
            args: The positional arguments.
            kwargs: The keyword arguments.
        """
        self.call: Any = call
        self.context: contextvars.Context = contextvars.copy_context()
        self.until: int = NEVER
        self.over: bool = False
        self._instance: Any = None
        self._kwargs = kwargs
        self._began = 0
        if call.method and args:
            try:
                self._instance = weakref.ref(args[0])
                args = args[1:]
            except TypeError:
                pass
        self._args = args

    def claim(self) -> bool:
        """Claim the refresh of the value; return whether nobody else had."""
        raise NotImplementedError

    def give_back(self) -> None:
        """Let the next hit begin a refresh."""
        raise NotImplementedError

    def cool_down(self) -> None:
        """Let no hit begin a refresh for a while."""
        raise NotImplementedError

    def lead(self) -> None:
        """Run the call in this thread, and store what it returns; raise no `Exception`."""
        raise NotImplementedError

    def begin(self) -> Begun | None:
        """Begin a run.

        Returns:
            What it needs; None if there is nothing to do, because the value is already outdated or
            the instance has died.
        """
        call = self.call
        now = self._began = call.clock.now()
        args = self._args
        if now >= self.until:
            return None
        if self._instance is not None:
            instance = self._instance()
            if instance is None:
                return None
            args = (instance, *args)
        deadline = min(self.until, now + call.timeout) if call.timeout else self.until
        return Begun(args, self._kwargs, deadline)

    def end(self, error: BaseException | None) -> None:
        """Report how a run has ended: with an error, or None.

        Even after a new value the next refresh waits a while, in case the value was not stored.
        """
        self.over = True
        self.cool_down()
        self.call.events.refresh(self.call, (self.call.clock.now() - self._began) / 1e9, error)


class MemoryRefresh(Refresh):
    """The refresh of one value in memory.

    Attributes:
        store: The store that holds the value.
        entry: Its entry.
    """

    __slots__ = ("_expires", "entry", "store")

    def __init__(
        self,
        call: Any,
        store: MemoryStore,
        entry: Entry,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__(call, args, kwargs)
        self.store: MemoryStore = store
        self.entry: Entry = entry
        self.until: int = entry.fresh
        self._expires = entry.expires

    def claim(self) -> bool:
        """Let hits look closer at the value's end only."""
        return bool(self.store.postpone(self.entry, self._expires, self.until))

    def give_back(self) -> None:
        """Let the next hit look closer again."""
        self.store.postpone(self.entry, self.until, self._expires)

    def cool_down(self) -> None:
        """Let hits look closer after a while."""
        again = self.call.clock.now() + self.store.early // COOL_DOWN
        if again < self.until:
            self.store.postpone(self.entry, self.until, again)

    def lead(self) -> None:
        """Run the call in this thread, and store what it returns; raise no `Exception`.

        `sync.follow` looks for a frame of this name, and for its flight.
        """
        from opero import once_only

        call, store, entry = self.call, self.store, self.entry
        flight: Any = None
        begun: Any = None
        try:
            flight = store.begin_refresh(entry, call.identify())
            if flight is None:
                return  # the value has changed or was cleared
            begun = self.begin()
            if begun is None:
                return
            call.add("refreshes", 1)
            args, kwargs, deadline = begun
            value = call.runner.run(call, args, kwargs, deadline, spare=True)
            once_only.check(call.name, value)
            store.fill(entry, value)
            store.end_refresh(entry, flight, value, None)
            flight = None
            self.end(None)
        except BaseException as error:
            if flight is not None:
                store.end_refresh(entry, flight, None, error)
                flight = None
            self.end(error)
            if not isinstance(error, Exception):
                raise
        finally:
            if flight is not None:
                store.end_refresh(entry, flight, None, GeneratorExit())
            flight = begun = args = kwargs = None
