"""`Breaker`: the public circuit breaker, in every scope."""

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
"""Numbers for breakers without a name that no function owns."""

MOST_VALUES = 256
"""How many fallback values have their own breaker; beyond that, the oldest closed one goes."""


_USED = (
    "pass it to a function with `@opero(breaker=...)`, or to a block of code with "
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
"""What to do instead, by the names that breakers of other libraries use."""


class Breaker(SharedGate, KnownParameters, NoDecorator):
    """Protects a failing dependency from calls: it opens when too many attempts fail.

    While it is open, no attempt begins: a call takes its next fallback value, or a stale cached
    value, or waits if its `timeout` allows, or raises `BreakerOpenError` immediately. After
    `open_for` seconds, the breaker lets one attempt through as a probe. If the probe succeeds, the
    breaker closes; if it fails, the breaker opens again.

    These are failures: an exception that the function's `retry_on` matches, a result that its
    `retry_on_result` rejects, an attempt that took longer than `attempt_timeout`, and a crashed
    worker. Other exceptions and cancellations do not count. Ordinary functions, coroutine functions
    and maps can all share one `Breaker`. If a function has `arg_fallback`, each of its values has
    its own breaker within this one.

    Scopes:
        process: All users of this object share it.
        machine: All processes of this user on this machine share it by name, in shared memory.
        redis: All processes that use this Redis share it by name. Each decides by what it knows
            and synchronizes with the server in the background. While the server is unavailable,
            each process decides alone.

    The last two use real time, even where `opero.testing` moves the clock. Their settings are part
    of the name: breakers with other settings are other breakers.

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
        """Create a closed breaker.

        Args:
            name: Its name in events, the log and messages; None for "breaker-1" or the next
                number. For "machine" and "redis", processes share a breaker by its name.
            window: Seconds that it looks back, or a `timedelta`.
            failure_ratio: The share of failed attempts that opens it, above 0 and at most 1.
            minimum: The least number of attempts in the window before it can open, 1 or more.
            open_for: Seconds for which it stays open, or a `timedelta`.
            probes: How many probes may run at once, and must succeed to close it.
            scope: Who shares it: "process" for all users of this object, "machine" or "redis".
            url: The server's address, such as "redis://host:port/0"; for "redis".

        Raises:
            TypeError: If an argument has the wrong type, or a parameter does not exist.
            ValueError: If a value is not allowed, or an argument is missing for the scope or does
                not apply to it.
            UnsafePlaceError: If others can write to the directory of the shared memory.
            ImportError: If the scope is "redis" and redis-py is not installed.
        """
        from opero.options import BreakerConfig
        from opero.options.breaker_rows import checked

        config = BreakerConfig(name, window, failure_ratio, minimum, open_for, probes, scope, url)
        self._set_up(checked(config))

    def _set_up(self, config: BreakerConfig, origin: Origin | None = None) -> None:
        """Set up the breaker that a checked configuration describes.

        Args:
            config: The configuration, with all times in seconds.
            origin: The function that owns it; None if several may share it.
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
        """Create a breaker that one function owns."""
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
        """Its name in events, the log and messages."""
        return self._name

    @property
    def window(self) -> float:
        """How many seconds it looks back."""
        return self._window

    @property
    def failure_ratio(self) -> float:
        """The share of failed attempts that opens it."""
        return self._failure_ratio

    @property
    def minimum(self) -> int:
        """The least number of attempts in the window before it can open."""
        return self._minimum

    @property
    def open_for(self) -> float:
        """Seconds for which it stays open."""
        return self._open_for

    @property
    def probes(self) -> int:
        """How many probes may run at once, and must succeed to close it."""
        return self._probes

    @property
    def scope(self) -> str:
        """Who shares it: "process", "machine" or "redis"."""
        return self._scope

    @property
    def state(self) -> str:
        """Its state now: "closed", "open", or "half_open" once it lets a probe through.

        If only functions with `arg_fallback` use it, this is the best state among the values. In
        scope "redis" it is at most a second old; if this process knows nothing newer, it asks the
        server, which takes a second at most.
        """
        used = self._used()
        for queue in used:
            queue.look()
        now = self._clock.now()
        states = [queue.gate.state_at(now) for queue in used]
        best = CLOSED if CLOSED in states else HALF_OPEN if HALF_OPEN in states else OPEN
        return STATES[best]

    def trip(self, seconds: float | timedelta | None = None) -> None:
        """Open it now, for all fallback values too; attempts in progress no longer count.

        This also opens it for other processes that share it, except for fallback values that this
        process has not used. In scope "redis" this asks the server, which takes a second at most.

        Args:
            seconds: For how long, in seconds or as a `timedelta`; None for `open_for`.

        Raises:
            TypeError: If it is not a time.
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
        """Close it now, for all fallback values too, and start counting again.

        Like `trip`, this affects other processes that share it.
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
        """Create a breaker and its queue.

        Args:
            name: Its name in events and messages.
            value: Its fallback value.
            number: The position of that value, counted from 0.
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

    There is no lock, because this code compares users' values and calls listeners.

    Attributes:
        gate: Represents all of them where code asks for the kind of the gate.
        awaited: The same, in a message.
        shut_until: Until when, in nanoseconds, new values start open, after a `trip` of all.
    """

    by_value = True

    def __init__(
        self, shared: BreakerQueue, new_queue: Callable[[str, Any, int], BreakerQueue], clock: Clock
    ) -> None:
        """Start without any.

        Args:
            shared: The gate that represents all.
            new_queue: Creates the breaker of a value, given a name, the value and its position.
            clock: The clock.
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
        """Return the queue of a fallback value's breaker.

        Names and messages never show the value: it may be secret.

        Args:
            value: The value, compared by type and equality. If it has no hash, its position counts
                instead.
            number: That position, counted from 0.
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
        queue = self._queues.setdefault(key, made)  # another thread may have been faster
        now = self._clock.now()
        if queue is made and now < self.shut_until:
            queue.gate.trip(now, self.shut_until - now, "trip() was called")
        return queue

    def known(self) -> list[BreakerQueue]:
        """Return the existing breakers."""
        return list(self._queues.copy().values())

    def _make_room(self) -> None:
        """Forget the oldest breaker that is closed, or the oldest of all."""
        now = self._clock.now()
        queues = self._queues.copy()
        closed = (key for key, queue in queues.items() if queue.gate.state_at(now) == CLOSED)
        self._queues.pop(next(closed, next(iter(queues), None)), None)


def _again(kind: type[Breaker], name: str | None, settings: dict[str, Any]) -> Breaker:
    """Create a breaker from a pickle: a new, separate one unless its scope is shared."""
    return kind(name, **settings)
