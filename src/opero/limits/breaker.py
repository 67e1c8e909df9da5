"""`Breaker`: a circuit breaker as users hold it, in every scope."""

from __future__ import annotations

import math
from itertools import count

from opero import hotpath
from opero.callables import NoDecorator
from opero.core.breaker import CLOSED, HALF_OPEN, OPEN
from opero.core.gate import SharedGate

from .breaker_queue import STATES, BreakerQueue
from .parameters import KnownParameters
from .waiting import Crowd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from typing import Any, Literal

    from opero.core.clock import Clock
    from opero.event import Origin
    from opero.options import BreakerConfig

    from .shared_breakers import Settings

__all__ = ["Breaker"]

_numbers = count(1)
"""Of breakers that have no name, and are no function's own."""

MOST_VALUES = 256
"""How many fallback values have a breaker of their own; the oldest closed one makes room."""


_USED = (
    "give it to a function by `@opero(breaker=...)`, or to a block of code by "
    "`for attempt in opero.attempts(retries=1, breaker=...):`"
)

_NAMED_ELSEWHERE = {
    **dict.fromkeys(("call", "call_async", "calling", "decorate", "execute"), _USED),
    **dict.fromkeys(
        ("current_state", "opened", "closed", "is_open", "is_closed"), "read state instead"
    ),
    **dict.fromkeys(("open", "force_open"), "call trip() instead"),
    **dict.fromkeys(("close", "force_close"), "call reset() instead"),
    **dict.fromkeys(
        ("add_listener", "add_listeners", "listeners"),
        'call opero.subscribe(listener, "breaker") instead',
    ),
}
"""What to do instead of what breakers of other libraries have by these names."""


class Breaker(SharedGate, KnownParameters, NoDecorator):
    """Keeps calls from a dependency that fails: it opens when too many of their attempts do.

    While it is open, no attempt begins: a call takes its next fallback value, or a stale cached
    value, or waits if its `timeout` leaves the time, or raises `BreakerOpenError` at once. After
    `open_for` seconds one attempt is let in as a probe. If it succeeds, the breaker closes, if it
    fails, it opens again.

    A failure is what `retry_on` of the function matches, what its `retry_on_result` rejects, an
    attempt that took longer than `attempt_timeout`, and a crashed worker. Other exceptions and
    cancellations count as nothing. Functions that are given the same object share it, ordinary
    ones, coroutine functions and maps alike. If a function has `arg_fallback`, each of its values
    has a breaker of its own within this one.

    Scopes:
        process: Everybody who is given this object.
        machine: All processes of this user on this machine that name it alike, by shared memory.
        redis: All processes that name it alike at this Redis. They decide by what they know, and
            exchange that with the server beside their attempts. While the server is gone, each
            decides by itself.

    The last two go by real time, also where `opero.testing` moves the clock. There the settings are
    a part of the name: breakers of other settings are other breakers.

    Example:
        ```python
        payments = Breaker("payments", open_for=10.0)

        @opero(retries=3, breaker=payments)
        def charge(order: str) -> str: ...

        @opero(retries=3, breaker=payments)
        async def refund(order: str) -> str: ...
        ```
    """

    _option = "breaker"
    _instead = f"a Breaker is not a decorator: {_USED}"

    def __init__(
        self,
        name: str | None = None,
        *,
        window: float | timedelta = 30.0,
        failure_ratio: float = 0.5,
        minimum: int = 10,
        open_for: float | timedelta = 30.0,
        probes: int = 1,
        scope: Literal["process", "machine", "redis"] = "process",
        url: str | None = None,
    ) -> None:
        """Make a closed breaker.

        Args:
            name: What events, log and messages call it; None for "breaker-1", or the next number.
                For "machine" and "redis" it is what those who share it know it by.
            window: Seconds that it looks back, or a `timedelta`.
            failure_ratio: The share of failed attempts that opens it, above 0 and at most 1.
            minimum: How many attempts there must have been in that time, 1 or more.
            open_for: Seconds for which it stays open, or a `timedelta`.
            probes: How many probes may be under way at once, and must succeed to close it.
            scope: Who shares it: "process" for everybody who is given this object, "machine" or
                "redis".
            url: Where the server is, as "redis://host:port/0"; for "redis".

        Raises:
            TypeError: If an argument is of a wrong type, or there is no such parameter.
            ValueError: If one has a value that is not allowed, or a scope lacks what it needs or is
                given what it does not read.
            UnsafePlaceError: If the directory of the shared memory could be written to by others.
            ImportError: If the scope is "redis" and redis-py is not installed.
        """
        from opero.options import BreakerConfig
        from opero.options.breaker_rows import checked

        config = BreakerConfig(name, window, failure_ratio, minimum, open_for, probes, scope, url)
        self._set_up(checked(config))

    def _set_up(self, config: BreakerConfig, origin: Origin | None = None) -> None:
        """Make the breaker that a checked configuration describes.

        Args:
            config: What it describes, with all times in seconds.
            origin: The function that it belongs to alone; None if several may share it.
        """
        own = None if origin is None else origin.function
        self._name: str = config.name or own or f"breaker-{next(_numbers)}"
        self._window: float = float(config.window)  # type: ignore[arg-type]  # it is checked
        self._failure_ratio: float = config.failure_ratio
        self._minimum: int = config.minimum
        self._open_for: float = float(config.open_for)  # type: ignore[arg-type]
        self._probes: int = config.probes
        self._scope: str = config.scope
        self._url: str | None = config.url
        self._named: bool = config.name is not None
        self._settings: Settings = (
            math.ceil(self.window * 1e9),
            self.failure_ratio,
            self.minimum,
            math.ceil(self.open_for * 1e9),
            self.probes,
        )
        self._origin = origin
        self._core = hotpath.core
        self._clock = hotpath.core.clock
        self._queue: BreakerQueue = self._new_queue(self.name, None, 0)
        self._values: BreakersByValue = BreakersByValue(self._queue, self._new_queue, self._clock)

    @classmethod
    def _of(cls, config: BreakerConfig, origin: Origin) -> Breaker:
        """Make the breaker that belongs to one function alone."""
        breaker = cls.__new__(cls)
        breaker._set_up(config, origin)
        return breaker

    def __repr__(self) -> str:
        from opero.options import BreakerConfig

        parts = [repr(self.name)] if self._named else []
        fields = ("window", "failure_ratio", "minimum", "open_for", "probes", "scope")
        values = ((field, getattr(self, field)) for field in fields)
        parts += [
            f"{name}={value!r}" for name, value in values if value != getattr(BreakerConfig, name)
        ]
        return f"Breaker({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        settings = {
            "window": self.window,
            "failure_ratio": self.failure_ratio,
            "minimum": self.minimum,
            "open_for": self.open_for,
            "probes": self.probes,
            "scope": self.scope,
            "url": self._url,
        }
        return _again, (type(self), self.name if self._named else None, settings)

    if not TYPE_CHECKING:

        def __enter__(self) -> Any:
            raise TypeError(f"a Breaker is not a context manager: {_USED}")

        def __exit__(self, *_: object) -> None: ...

        __aenter__ = __enter__
        __aexit__ = __exit__

        def __getattr__(self, name: str) -> Any:
            hint = _NAMED_ELSEWHERE.get(name)
            said = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(f"{said}: {hint}" if hint else said, name=name, obj=self)

    @property
    def name(self) -> str:
        """What events, log and messages call it."""
        return self._name

    @property
    def window(self) -> float:
        """Seconds that it looks back."""
        return self._window

    @property
    def failure_ratio(self) -> float:
        """The share of failed attempts that opens it."""
        return self._failure_ratio

    @property
    def minimum(self) -> int:
        """How many attempts there must have been in that time."""
        return self._minimum

    @property
    def open_for(self) -> float:
        """Seconds for which it stays open."""
        return self._open_for

    @property
    def probes(self) -> int:
        """How many probes may be under way at once, and must succeed to close it."""
        return self._probes

    @property
    def scope(self) -> str:
        """Who shares it: "process", "machine" or "redis"."""
        return self._scope

    @property
    def state(self) -> str:
        """Its state now: "closed", "open", or "half_open" from when it lets a probe in.

        If it is used by functions with `arg_fallback` alone, that is the state of the value that is
        best off. In scope "redis" it is what this process has heard within the last second; if
        that is nothing, the server is asked, which takes a second at most.
        """
        used = self._used()
        for queue in used:
            queue.look()
        now = self._clock.now()
        states = [queue.gate.state_at(now) for queue in used]
        best = CLOSED if CLOSED in states else HALF_OPEN if HALF_OPEN in states else OPEN
        return STATES[best]

    def trip(self, seconds: float | timedelta | None = None) -> None:
        """Open it now, for all fallback values too; what is under way does not count any more.

        Others who share it heed that, but for fallback values that this process has not used. In
        scope "redis" this asks the server, which takes a second at most.

        Args:
            seconds: For how long, in seconds or as a `timedelta`; None for `open_for`.

        Raises:
            TypeError: If it is no time.
            ValueError: If it is not above 0, or more than 31 years.
        """
        from opero.options import checks

        length = 0
        if seconds is not None:
            length = math.ceil(checks.positive("seconds", seconds) * 1e9)
        now = self._clock.now()
        self._values.shut_until = now + (length or self._queue.gate.open_for)
        for queue in self._all():
            queue.gate.trip(now, length, "trip() was called")

    def reset(self) -> None:
        """Close it now, for all fallback values too; it begins to count anew.

        Others who share it heed that, as with `trip`.
        """
        self._values.shut_until = 0
        for queue in self._all():
            queue.gate.reset("reset() was called")

    def _all(self) -> list[BreakerQueue]:
        return [self._queue, *self._values.known()]

    def _used(self) -> list[BreakerQueue]:
        own, now = self._queue.gate, self._clock.now()
        values = self._values.known()
        if own.is_used() or own.state_at(now) != CLOSED or not values:
            return self._all()
        return values

    def _new_queue(self, name: str, value: Any, number: int) -> BreakerQueue:
        """Make a breaker, and where one waits for it.

        Args:
            name: What it is called in events and messages.
            value: The fallback value that it is for.
            number: The place of that among the values, counted from 0.
        """
        core, origin, settings = self._core, self._origin, self._settings
        if self.scope == "process":
            gate = core.CircuitBreaker(*settings, core.new_lock())
            return BreakerQueue(gate, name, self._clock, core.new_lock, origin)
        from .shared_breakers import identity

        known_as = identity(self.name, settings, value, number, name != self.name)
        if self.scope == "machine":
            from .machine_breaker import machine_queue

            return machine_queue(core, name, known_as, settings, origin)
        from .redis_breaker import redis_queue

        return redis_queue(core, name, known_as, settings, origin, self._url or "")


class BreakersByValue(Crowd):
    """The breakers of the fallback values of functions that share one `Breaker`.

    No lock: a user's values are compared here, and listeners told.

    Attributes:
        gate: Stands for all of them, where one asks what kind of gate they are.
        awaited: The same, in a message.
        shut_until: Until when, in nanoseconds, a value that comes up is shut off, as all are.
    """

    by_value = True

    def __init__(
        self, shared: BreakerQueue, new_queue: Callable[[str, Any, int], BreakerQueue], clock: Clock
    ) -> None:
        """Begin without any.

        Args:
            shared: What stands for all.
            new_queue: Makes the breaker of a value, given a name, the value and its place.
            clock: Tells the time.
        """
        self.gate: Any = shared.gate
        self.awaited: str = shared.awaited
        self._shared = shared
        self._new_queue = new_queue
        self._queues: dict[Any, BreakerQueue] = {}
        self._clock = clock
        self._numbers = count(1)
        self.shut_until: int = 0

    def of(self, value: Any, number: int) -> BreakerQueue:
        """Return the breaker of a fallback value, and where one waits for it.

        No name and no message shows the value: it may be a secret.

        Args:
            value: The value, which counts by its type and by equality; if it cannot be hashed, its
                place among the values counts.
            number: That place, counted from 0.
        """
        try:
            key: Any = (type(value), value)
            queue = self._queues.get(key)
        except Exception:  # noqa: BLE001 - a user's __hash__ or __eq__ may raise anything
            key = number
            queue = self._queues.get(key)
        if queue is not None:
            return queue
        while len(self._queues) >= MOST_VALUES:
            self._make_room()
        name = f"{self._shared.name}[{next(self._numbers)}]"
        made = self._new_queue(name, value, number)
        queue = self._queues.setdefault(key, made)  # a thread may have been quicker
        now = self._clock.now()
        if queue is made and now < self.shut_until:
            queue.gate.trip(now, self.shut_until - now, "trip() was called")
        return queue

    def known(self) -> list[BreakerQueue]:
        """Return the breakers that there are."""
        return list(self._queues.copy().values())

    def _make_room(self) -> None:
        """Forget the oldest breaker that is closed, or the oldest of all."""
        now = self._clock.now()
        queues = self._queues.copy()
        closed = (key for key, queue in queues.items() if queue.gate.state_at(now) == CLOSED)
        self._queues.pop(next(closed, next(iter(queues), None)), None)


def _again(kind: type[Breaker], name: str | None, settings: dict[str, Any]) -> Breaker:
    """Make a breaker from a pickle: one that knows nothing of the other, unless they are shared."""
    return kind(name, **settings)
