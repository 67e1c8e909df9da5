"""The state of a decorated function: its options, its cache, its counters.

The object that the user gets (`function`) shows only documented names, and keeps the state in one
attribute, `__opero__`. Runners, stores and the map work with the state and name it `call`. `Call`
and `AsyncCall` in `call` add how an attempt is made.
"""

from __future__ import annotations

from opero import roster
from opero.exceptions import CacheKeyError

from .attempts import Policy
from .binding import Binding
from .breaker import CircuitBreaker
from .clock import Clock
from .entry import Entry
from .events import Events
from .fallback import Fallback
from .gate import Gate
from .store import InstanceStores, MemoryStore

_MOST_STRAIGHT = 16
"""`lookup.pxi` has room for this many parameters; more are rare."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from opero.event import Origin
    from opero.stats import CacheInfo, Stats

    from .gate import GateQueue

    class StoredValues(Protocol):
        """The values of one function that are kept outside the process (see `opero.stores`).

        Attributes:
            counts: The counts, by the names in `opero.stats.Stats`.
            namespace: The cache's namespace.
        """

        counts: dict[str, int]
        namespace: str

        @property
        def store(self) -> object:
            """The store that holds them; functions may share it."""

        def recall(self, call: State, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            """Answer a call from the store, or run it; return a coroutine if the call is async."""

        def count(self) -> int:
            """Return the number of values."""

        def clear(self) -> None:
            """Clear every value; runs now under way are not stored either."""

        def invalidate(self, call: State, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
            """Clear the value of one call; return whether there was one."""

        def clear_namespace(self) -> None:
            """Clear what all functions have stored in the namespace."""

        def ground(self, full: bytes | None) -> None:
            """Keep the run of one key, or of all keys (None), from being joined or stored."""

        def after_fork(self) -> None:
            """Forget, in a child process, the runs under way in the parent."""


class Parts:
    """The parts of a decorated function; `assembly` makes them, `State` takes them.

    Attributes:
        func: The function that was decorated.
        face: The plain function inside it, whose code object `inspect` may read.
        name: Its qualified name, for messages.
        options: The checked options that it was decorated with.
        decorate: Takes the function and the options, and decorates it again.
        awaited: Whether it is a coroutine function, or an asynchronous generator function.
        runner: The module that waits for it.
        clock: Gives the time.
        events: Logs events and calls listeners.
        origin: Its description in events (see `opero.event.Origin`).
        policy: How often it is attempted.
        fallback: Which values an argument takes; None for no fallback.
        queues: The queues of its gates, in the order in which an attempt enters them.
        timeout: Nanoseconds for a whole call; 0 for no limit.
        attempt_timeout: Nanoseconds for each awaited attempt; 0 for no limit.
        binding: Its signature; None if it has none.
        generate: Makes the generators that callers get; None if it is not a generator function.
        cache_key: The user's key function; None if there is none.
        store: The cache in memory; None if there is none.
        instances: The caches of the instances, if it is a method; None without a cache in memory.
        stored_cache: The values stored outside the process; None if there are none.
    """

    __slots__ = (
        "attempt_timeout",
        "awaited",
        "binding",
        "cache_key",
        "clock",
        "decorate",
        "events",
        "face",
        "fallback",
        "func",
        "generate",
        "instances",
        "name",
        "options",
        "origin",
        "policy",
        "queues",
        "runner",
        "store",
        "stored_cache",
        "timeout",
    )

    def __init__(
        self,
        *,
        func: Any,
        face: Any,
        name: str,
        options: Any,
        decorate: Callable[..., Any],
        awaited: bool,
        runner: Any,
        clock: Clock,
        events: Events,
        origin: Origin,
        policy: Policy,
        fallback: Fallback | None = None,
        queues: tuple[GateQueue, ...] = (),
        timeout: int = 0,
        attempt_timeout: int = 0,
        binding: Binding | None = None,
        generate: Any = None,
        cache_key: Any = None,
        store: MemoryStore | None = None,
        instances: InstanceStores | None = None,
        stored_cache: StoredValues | None = None,
    ) -> None:
        self.func: Any = func
        self.face: Any = face
        self.name: str = name
        self.options: Any = options
        self.decorate: Callable[..., Any] = decorate
        self.awaited: bool = awaited
        self.runner: Any = runner
        self.clock: Clock = clock
        self.events: Events = events
        self.origin: Origin = origin
        self.policy: Policy = policy
        self.fallback: Fallback | None = fallback
        self.queues: tuple[GateQueue, ...] = queues
        self.timeout: int = timeout
        self.attempt_timeout: int = attempt_timeout
        self.binding: Binding | None = binding
        self.generate: Any = generate
        self.cache_key: Any = cache_key
        self.store: MemoryStore | None = store
        self.instances: InstanceStores | None = instances
        self.stored_cache: StoredValues | None = stored_cache


class State:
    """The state of one decorated function.

    Attributes:
        gates: The gates of its queues.
        gate: The first of them; None if there is none.
        observed: Whether one of them wants to know how attempts end.
        guarded: Whether entering the first gate is not enough.
        permits: Whether one of the gates is a limit, whose permits are events.
        by_value: Whether each fallback value has its own gate.
        keying: Makes the cache key from the arguments; None without a cache in memory.
        method: Whether it is a method: its first argument counts by identity.
        single: Whether there is one attempt, no fallback, and no gate learns from a failure.
        indirect: Whether the runner makes the first attempt too: its result may be rejected, it
            gets a copy of its fallback values, these have their own gates, it may be a probe, or
            all calls are traced.
        refusing: Whether one of the gates refuses.
        breaker: A breaker that is the only reason for `indirect`: while it is closed, first
            attempts need no runner. Else None.
        behind: The only other gate after the breaker; None if there is none.
        shared: A breaker shared by processes that is the only gate and the only reason for
            `indirect`; each attempt asks it. Else None.
        straight: How many arguments the cache key consists of, one by one; -1 if it is made in
            another way.
        cleared_hits: The hits before the last `cache_clear`; a number, as other threads may read it
            while it is set.
        cleared_misses: The misses before it.

    The others are those of `Parts`.
    """

    __slots__ = (
        "__weakref__",
        "attempt_timeout",
        "awaited",
        "behind",
        "binding",
        "breaker",
        "by_value",
        "cache_key",
        "cleared_hits",
        "cleared_misses",
        "clock",
        "decorate",
        "events",
        "face",
        "fallback",
        "func",
        "gate",
        "gates",
        "generate",
        "guarded",
        "indirect",
        "instances",
        "keying",
        "method",
        "name",
        "observed",
        "options",
        "origin",
        "permits",
        "policy",
        "queues",
        "refusing",
        "runner",
        "shared",
        "single",
        "store",
        "stored_cache",
        "straight",
        "timeout",
    )

    def __init__(self, parts: Parts) -> None:
        self.func: Any = parts.func
        self.face: Any = parts.face
        self.name: str = parts.name
        self.options: Any = parts.options
        self.decorate: Callable[..., Any] = parts.decorate
        self.awaited: bool = parts.awaited
        self.runner: Any = parts.runner
        self.clock: Clock = parts.clock
        self.events: Events = parts.events
        self.origin: Origin = parts.origin
        self.policy: Policy = parts.policy
        self.fallback: Fallback | None = parts.fallback
        self.queues: tuple[GateQueue, ...] = parts.queues
        self.gates: tuple[Gate, ...] = tuple([queue.gate for queue in self.queues])
        self.gate: Gate | None = self.gates[0] if self.gates else None
        self.observed: bool = any(gate.observes for gate in self.gates)
        self.guarded: bool = self.observed or len(self.gates) > 1
        self.permits: bool = not all(gate.refuses for gate in self.gates)
        self.refusing: bool = any(gate.refuses for gate in self.gates)
        self.by_value: bool = parts.fallback is not None and any(
            queue.by_value for queue in self.queues
        )
        self.timeout: int = parts.timeout
        self.attempt_timeout: int = parts.attempt_timeout
        self.binding: Binding | None = parts.binding
        self.generate: Any = parts.generate
        self.cache_key: Any = parts.cache_key
        self.store: MemoryStore | None = parts.store
        self.instances: InstanceStores | None = parts.instances
        self.stored_cache: StoredValues | None = parts.stored_cache
        self.keying = None if self.store is None else self.binding
        self.method: bool = False
        self.single: bool = (
            self.policy.rounds == 1
            and self.fallback is None
            and not self.policy.pauses
            and not self.observed
        )
        self.indirect: bool = False
        self.breaker: CircuitBreaker | None = None
        self.behind: Gate | None = None
        self.shared: Gate | None = None
        self.leave_to_runner(False)
        self.cleared_hits: int = 0
        self.cleared_misses: int = 0
        self.straight: int = -1
        self._settle()

    def _settle(self) -> None:
        """Note how many arguments the cache key consists of."""
        keying = self.keying
        if keying is not None and self.cache_key is None and keying.plain:
            size = len(keying.names)
            self.straight = size if size <= _MOST_STRAIGHT else -1

    def leave_to_runner(self, always: bool) -> None:
        """Let the runner make first attempts too: all of them, or only where needed."""
        self.indirect = (
            always
            or self.policy.rejects is not None
            or self.by_value
            or (self.fallback is not None and self.fallback.listed is None)
        )
        self.breaker = self.behind = self.shared = None
        if not self.indirect and self.refusing:
            self.indirect = True
            self.breaker, self.behind = _watching(self.gates)
            if self.breaker is None and len(self.gates) == 1:
                self.shared = self.gates[0]

    def trace(self, on: bool) -> None:
        """Switch on or off that calls report their history at their end."""
        raise NotImplementedError

    def __del__(self) -> None:
        if roster is not None and roster.keeping:  # at exit, modules may be gone
            roster.keep(self)

    @property
    def maps(self) -> bool:
        """Whether the function takes many items instead of one."""
        return False

    def become_method(self) -> None:
        """Let the first argument count by identity, with its own cache."""
        if not self.method:
            self.method = True
            if self.keying is not None:
                self.keying = self.keying.without_first()
            self._settle()

    def fits(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether a call's arguments fit the signature."""
        return self.binding is None or self.binding.fits(args, kwargs)

    def __repr__(self) -> str:
        return f"<state of the opero function {self.name}>"

    # --- counts and the cache -------------------------------------------------------------------

    def add(self, counter: str, amount: int) -> None:
        """Add to a counter, given by its name in `opero.stats.Stats`."""
        raise NotImplementedError

    def counted(self) -> dict[str, int]:
        """Return the counts by their names, waits in nanoseconds."""
        raise NotImplementedError

    def stats(self) -> Stats:
        """Return the counts since the function was decorated."""
        from opero.stats import stats_of

        return stats_of(self.totals())

    def totals(self) -> dict[str, int]:
        """Return all counts by their names, including those of its stored values."""
        if self.stored_cache is None:
            return self.counted()
        return {**self.counted(), **self.stored_cache.counts}

    def cache_info(self) -> CacheInfo:
        """Return the hits and misses since the last `cache_clear`, and the size of the cache.

        A function without a cache answers for the function it decorates, if that has one.
        """
        from opero.stats import CacheInfo

        if self.store is None and self.stored_cache is None:
            inner = getattr(self.func, "cache_info", None)
            return CacheInfo(0, 0, 0, 0) if inner is None else inner()
        counts = self.counted()
        return CacheInfo(
            counts["hits"] - self.cleared_hits,
            counts["misses"] - self.cleared_misses,
            None if self.store is None else self.store.maxsize or None,
            sum([len(store) for store in self._stores()])
            if self.stored_cache is None
            else self.stored_cache.count(),
        )

    def cache_clear(self) -> None:
        """Clear every value; runs now under way will not be stored either.

        Flights are removed before and after: before, so that their results are not stored; after,
        because a flight that began in between may have found the old value, and later callers must
        not join it. The runs of an ordinary function are removed with the values.
        """
        if self.stored_cache is not None:
            self.stored_cache.clear()
        elif self.store is None and hasattr(self.func, "cache_clear"):
            self.func.cache_clear()
        self.restart_cache_info()
        for store in self._stores():
            self._ground_all(store)
            store.clear()
            self._ground_all(store)

    def restart_cache_info(self) -> None:
        """Let `cache_info` count hits and misses from now on."""
        counts = self.counted()
        self.cleared_hits = counts["hits"]
        self.cleared_misses = counts["misses"]

    def cache_invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Clear the value of one call, given by its arguments.

        Returns:
            Whether there was one.
        """
        if self.stored_cache is not None:
            return bool(self.stored_cache.invalidate(self, args, kwargs))
        if self.store is None:
            inner = getattr(self.func, "cache_invalidate", None)
            return False if inner is None else inner(*args, **kwargs)
        store, key = self.locate(args, kwargs)
        self._ground(store, key)
        dropped = store.drop(key)
        self._ground(store, key)
        return bool(dropped)

    def after_fork(self) -> None:
        """Forget the runs under way: nothing will end them in a child process."""
        for store in self._stores():
            self._ground_all(store)
            if store.has_flights:
                store.flights.clear()
            store.strand()
        if self.stored_cache is not None:
            self.stored_cache.after_fork()

    def _stores(self) -> list[MemoryStore]:
        if self.store is None or self.instances is None:
            return []
        return [self.store, *self.instances.all()]

    def _ground(self, store: MemoryStore, key: Any) -> None:
        """Keep the run of `key` under way from being stored or joined."""
        if store.has_flights:
            take_all(store.flights, key)

    def _ground_all(self, store: MemoryStore) -> None:
        """Keep every run under way from being stored or joined."""
        if store.has_flights:
            empty(store.flights)

    def locate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[MemoryStore, Any]:
        """Return the store and the key of a call."""
        assert self.store is not None
        if self.cache_key is not None:
            return self.store, self.own_key(args, kwargs)
        assert self.keying is not None
        if not self.method:
            return self.store, self.keying.key(args, kwargs)
        assert self.instances is not None
        if not args:
            raise TypeError(f"{self.name}() is missing its instance")
        store = self.instances.of(args[0])
        key = self.keying.key(args[1:], kwargs)
        if store is None:
            instance = self._by_value(args[0])
            return self.store, (instance, *key) if type(key) is tuple else (instance, key)
        return store, key

    def _by_value(self, instance: Any) -> Any:
        """Return the key of an instance without weak references: it counts as a value.

        Raises:
            CacheKeyError: If neither its content nor its own equality distinguishes it.
        """
        assert self.binding is not None
        kind: Any = type(instance)
        freezer = self.binding.freezer
        reason: CacheKeyError | None = None
        hashed_by: Any = kind.__hash__
        if not freezer.shapes.recipe(kind).opaque or hashed_by is not object.__hash__:
            try:
                return freezer.probe(instance)
            except CacheKeyError as error:
                reason = error
        raise CacheKeyError(
            f"{self.name}(): an instance of {kind.__qualname__} cannot be part of a key: it cannot "
            f"be weakly referenced, and its content is unknown. Add '__weakref__' to its "
            f"__slots__ (weakref_slot=True, if it is a dataclass), or give cache_key="
        ) from reason

    def lasting(self, key: Any) -> Any:
        """Return the key in a form that outlives changes of the arguments."""
        assert self.binding is not None
        return self.binding.freezer.keep(key)

    def reserve(self, store: MemoryStore, key: Any) -> Entry | None:
        """Make room for a value; if that fails, the call goes on."""
        try:
            return store.reserve(key)
        except Exception as error:  # noqa: BLE001 - a key's own __eq__ may raise anything
            self.events.not_cached(self.name, error)
            return None

    def asked_key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of the user's `cache_key`.

        Raises:
            CacheKeyError: If it does not take the arguments of the call.
            Exception: Whatever else it raises, with a note.
        """
        try:
            return self.cache_key(*args, **kwargs)
        except Exception as error:
            from opero.signatures import takes

            if isinstance(error, TypeError) and not takes(self.cache_key, args, kwargs):
                first = ", the instance first" if self.method else ""
                raise CacheKeyError(
                    f"{self.name}(): cache_key= must take the arguments of the call{first}: {error}"
                ) from error
            error.add_note(f"raised by the cache_key= function of {self.name}")
            raise

    def own_key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the key that the user's `cache_key` makes."""
        assert self.binding is not None
        key = self.asked_key(args, kwargs)
        try:
            return self.binding.freezer.probe(key)
        except CacheKeyError as error:
            raise CacheKeyError(f"{self.name}(): the result of cache_key: {error}") from error


def _watching(gates: tuple[Gate, ...]) -> tuple[CircuitBreaker | None, Gate | None]:
    """Return the breaker that is the first gate, and the other gate, if there is at most one.

    The other gate is None if there is none. Both are None if the first gate is not a plain breaker,
    or if the other one refuses or wants to know how attempts end.
    """
    first = gates[0]
    if len(gates) > 2 or type(first) is not CircuitBreaker:
        return None, None
    if len(gates) == 1:
        return first, None
    behind = gates[1]
    return (None, None) if behind.observes or behind.refuses else (first, behind)


def take_all(flights: dict[Any, Any], key: Any) -> None:
    """Remove every flight of `key`: it may exist twice, and be missed once (see `store`)."""
    missed = 0
    while missed < 2:
        missed = missed + 1 if flights.pop(key, None) is None else 0


def empty(flights: dict[Any, Any]) -> None:
    """Remove every flight from a table, without its `clear` (see `store`)."""
    try:
        while flights:
            flights.popitem()
    except KeyError:  # another thread took the last one
        pass
