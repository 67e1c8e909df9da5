"""The decorated function: answers a hit, makes the first attempt, leaves the rest to a runner.

    __call__ -> key -> store.find -> hit
                          | miss
                          v
                        lead -> permit -> first attempt -> store.put
                          |       |          | failed
                          v       v          v
                        runner: follow, wait, judge, back off, fall back

`_compiled/call.pyx` is the compiled twin; the two behave the same.
"""

from __future__ import annotations

from threading import get_ident

from opero.exceptions import CacheKeyError
from opero.gil import FREE_THREADED
from opero.locks import Lock
from opero.never_failures import is_never_failure

from .attempts import Policy
from .binding import Binding
from .clock import NEVER, Clock
from .events import Events
from .fallback import Fallback
from .flight import Flight
from .store import Entry, InstanceStores, MemoryStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    import inspect
    from typing import Any

    from opero.limits.waiting import GateQueue
    from opero.stats import CacheInfo, Stats

    from .gate import Gate

FUNCTION_ATTRIBUTES = frozenset(
    {"__code__", "__defaults__", "__kwdefaults__", "__globals__", "__closure__", "__builtins__"}
)
"""What `inspect` wants of a function, answered by the function that was decorated."""


def _counting_lock() -> Any:
    """Return what is held while a figure is added to, or None where nothing has to be."""
    return Lock() if FREE_THREADED else None


class _Wrapper:
    """What `Call` and `AsyncCall` have in common.

    Attributes:
        func: The function that was decorated.
        face: The plain function behind it, whose code object `inspect` may look at.
        name: Its qualified name, for messages.
        runner: The module that waits for it.
        clock: Tells the time.
        events: Logs what happens, and tells those who listen.
        origin: What its events say about it (see `opero.events.Origin`).
        policy: How often it is attempted.
        fallback: Which values an argument takes; None without.
        queues: Where to wait for its gates, in the order in which an attempt enters them.
        gates: Those gates.
        observed: Whether one of them wants to know how attempts end.
        timeout: Nanoseconds for a whole call; 0 for no bound.
        binding: Its signature; None if it has none.
        keying: The arguments that make the cache key; None without a cache.
        cache_key: The user's own way to make one; None without.
        store: The cache.
        instances: The caches of the instances, if it is a method.
        stored_cache: The stored values, if they are kept outside the process; None without.
        single: Whether there is one attempt, and no fallback.
        indirect: Whether the runner makes the first attempt, too: what it returns may be rejected,
            or it gets a copy of its fallback values.
        method: Whether it is a method, that is, whether its first argument counts by identity.
        counts: What it has counted, by the names in `opero.stats.Stats`.
    """

    __slots__ = (  # so that no attribute of the user's function can get in their way
        "__dict__",
        "__weakref__",
        "_cleared",
        "_counting",
        "binding",
        "cache_key",
        "clock",
        "counts",
        "events",
        "face",
        "fallback",
        "func",
        "gates",
        "indirect",
        "instances",
        "keying",
        "method",
        "name",
        "observed",
        "origin",
        "policy",
        "queues",
        "runner",
        "single",
        "store",
        "stored_cache",
        "timeout",
    )

    def __init__(
        self,
        func: Any,
        face: Any,
        name: str,
        runner: Any,
        clock: Clock,
        events: Events,
        policy: Policy,
        fallback: Fallback | None,
        queues: tuple[GateQueue, ...],
        timeout: int,
        binding: Binding | None,
        cache_key: Any,
        store: MemoryStore | None,
        instances: InstanceStores | None,
        stored_cache: Any = None,
    ) -> None:
        from opero.stats import COUNTERS

        self.func: Any = func
        self.face: Any = face
        self.name: str = name
        self.runner: Any = runner
        self.clock: Clock = clock
        self.events: Events = events
        self.origin: Any = None
        self.policy: Policy = policy
        self.fallback: Fallback | None = fallback
        self.queues: tuple[GateQueue, ...] = queues
        self.gates: tuple[Gate, ...] = tuple(queue.gate for queue in queues)
        self.observed: bool = any(gate.observes for gate in self.gates)
        self.timeout: int = timeout
        self.binding: Binding | None = binding
        self.cache_key: Any = cache_key
        self.store: MemoryStore | None = store
        self.instances: InstanceStores | None = instances
        self.stored_cache: Any = stored_cache
        self.keying = None if store is None else binding
        self.method: bool = False
        self.single: bool = policy.rounds == 1 and fallback is None
        self.indirect: bool = policy.rejects is not None or (
            fallback is not None and fallback.listed is None
        )
        self.counts: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self._cleared: tuple[int, int] = (0, 0)
        self._counting: Any = _counting_lock()

    # --- a function like any other --------------------------------------------------------------

    def __set_name__(self, owner: type, name: str) -> None:
        inner = getattr(type(self.func), "__set_name__", None)
        if inner is not None:
            inner(self.func, owner, name)
        if self.face.__qualname__.rpartition(".")[0] == owner.__qualname__:
            self.become_method()

    def become_method(self) -> None:
        """Let the first argument count by identity, and a cache of its own go with it."""
        if not self.method:
            self.method = True
            if self.keying is not None:
                self.keying = self.keying.without_first()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else BoundCall(self, instance)

    def __getattr__(self, name: str) -> Any:
        if name in FUNCTION_ATTRIBUTES:
            return getattr(self.face, name)
        if name == "__annotations__":  # since Python 3.14 `update_wrapper` leaves them to be read
            return self.func.__annotations__
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> str:
        return str(self.__qualname__)

    def __repr__(self) -> str:
        return f"<opero function {self.name}>"

    def fits(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Tell whether a call's arguments fit the signature."""
        return self.binding is None or self.binding.fits(args, kwargs)

    # --- figures and the cache ------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return what has happened since the function was decorated."""
        from opero.stats import stats_of

        stored = {} if self.stored_cache is None else self.stored_cache.counts
        return stats_of({**self.counts, **stored})

    def add(self, counter: str, amount: int) -> None:
        """Add to a counter.

        With the interpreter's lock threads change places only at a call or a jump, and there is
        none between reading a counter and writing it. Without it, `_counting` is held meanwhile.

        Args:
            counter: Its name in `opero.stats.Stats`.
            amount: How much, a wait in nanoseconds; it may be less than 0.
        """
        if self._counting is None:
            self.counts[counter] += amount
        else:
            with self._counting:
                self.counts[counter] += amount

    def cache_info(self) -> CacheInfo:
        """Return hits and misses since the last `cache_clear`, and the size of the cache.

        A function without a cache answers for the one it decorates, if that has one.
        """
        from opero.stats import CacheInfo

        if self.store is None and self.stored_cache is None:
            inner = getattr(self.func, "cache_info", None)
            return CacheInfo(0, 0, 0, 0) if inner is None else inner()
        stored = self.stored_cache is not None
        return CacheInfo(
            self.counts["hits"] - self._cleared[0],
            self.counts["misses"] - self._cleared[1],
            None if self.store is None else self.store.maxsize or None,
            self.stored_cache.count() if stored else sum(len(store) for store in self._stores()),
        )

    def restart_cache_info(self) -> None:
        """Let `cache_info` count hits and misses from now on."""
        self._cleared = self.counts["hits"], self.counts["misses"]

    def cache_clear(self) -> None:
        """Forget every value; what is running now will not be stored either.

        Flights are taken out before and after: the first time so that what they compute is not
        stored, the second because one that began in between may have found the old value, and who
        calls from now on must not join it.
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

    def cache_invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Forget the value of one call, given by its arguments.

        Returns:
            Whether there was one.
        """
        if self.stored_cache is not None:
            return bool(self.stored_cache.invalidate(self, args, kwargs))
        if self.store is None:
            inner = getattr(self.func, "cache_invalidate", None)
            return False if inner is None else inner(*args, **kwargs)
        store, key = self._locate(args, kwargs)
        self._ground(store, key)
        dropped = store.drop(key)
        self._ground(store, key)
        return bool(dropped)

    def ground(self, store: MemoryStore, key: Any, flight: Flight) -> None:
        """Take a flight that nobody flies any more out of the table."""
        if store.flights.get(key) is flight:
            store.flights.pop(key, None)

    def after_fork(self) -> None:
        """Forget the runs that are under way: in a child process nobody will end them."""
        for store in self._stores():
            store.flights.clear()
        self._counting = _counting_lock()
        if self.stored_cache is not None:
            self.stored_cache.after_fork()

    def _stores(self) -> list[MemoryStore]:
        if self.store is None or self.instances is None:
            return []
        return [self.store, *self.instances.all()]

    def _ground(self, store: MemoryStore, key: Any) -> None:
        """Keep the run of `key` that is under way from being stored or joined."""
        _take_all(store.flights, key)

    def _ground_all(self, store: MemoryStore) -> None:
        """Keep every run that is under way from being stored or joined."""
        _empty(store.flights)

    def _locate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[MemoryStore, Any]:
        """Return the store and the key of a call."""
        assert self.store is not None
        assert self.instances is not None
        if self.cache_key is not None:
            return self.store, self._own_key(args, kwargs)
        assert self.keying is not None
        if not self.method:
            return self.store, self.keying.key(args, kwargs)
        if not args:
            raise TypeError(f"{self.name}() is missing its instance")
        return self.instances.of(args[0]), self.keying.key(args[1:], kwargs)

    def _lasting(self, key: Any) -> Any:
        """Return the key in a form that outlives changes of the arguments."""
        assert self.binding is not None
        return self.binding.freezer.keep(key)

    def enter(self, now: int, first: int = 0) -> int:
        """Enter the gates from number `first` on; return how many have let the attempt in."""
        for at in range(first, len(self.gates)):
            if self.gates[at].enter(now):
                return at
        return len(self.gates)

    def leave(self, outcome: Any, entered: int, passed: int = NEVER) -> None:
        """Tell the gates that observe how an attempt has ended.

        Args:
            outcome: What it raised; None if it returned, `WITHDRAWN` if it was not made.
            entered: When it came in.
            passed: How many gates it has passed; all of them unless it was withdrawn.
        """
        now = self.clock.now()
        for gate in self.gates[:passed]:
            if gate.observes:
                gate.leave(now, outcome, entered)

    def reserve(self, store: MemoryStore, key: Any) -> Entry | None:
        """Make room for a value; if that fails, the call goes on all the same."""
        try:
            return store.reserve(key)
        except Exception as error:  # noqa: BLE001 - a key's own __eq__ may raise anything
            self.events.not_cached(self.name, error)
            return None

    def _own_key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the key that the user's `cache_key` makes."""
        assert self.binding is not None
        key = self.cache_key(*args, **kwargs)
        try:
            return self.binding.freezer.probe(key)
        except CacheKeyError as error:
            raise CacheKeyError(f"{self.name}(): the result of cache_key: {error}") from error


class Call(_Wrapper):
    """A decorated ordinary function."""

    __slots__ = ()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - the function's own
        self.add("calls", 1)
        if self.store is None:
            if self.stored_cache is not None:
                return self.stored_cache.recall(self, args, kwargs)
            deadline = self.clock.now() + self.timeout if self.timeout else NEVER
            return self._attempt(args, kwargs, deadline)
        store, key = self._locate(args, kwargs)
        entry = store.find(key)
        if entry is not None:
            value = entry.value
            self.add("hits", 1)
            if self.events.heeded:
                self.events.hit(self)
            return value
        self.add("misses", 1)
        if self.events.heeded:
            self.events.miss(self)
        key = self._lasting(key)
        deadline = self.clock.now() + self.timeout if self.timeout else NEVER
        return self.lead(store, key, args, kwargs, deadline)

    def lead(
        self,
        store: MemoryStore,
        key: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline: int,
    ) -> Any:
        """Run a call whose value is missing and store it, or follow the run that is under way."""
        flight: Flight | None = Flight(get_ident())
        assert flight is not None
        try:
            while True:
                other = store.flights.setdefault(key, flight)
                if other is flight:
                    break
                if other.done and store.flights.get(key) is other:
                    store.flights.pop(key, None)  # it could not be taken out when it landed
                    continue
                value = self.runner.follow(self, store, key, other, args, kwargs, deadline)
                if value is not self.runner.AGAIN:
                    return value
            entry = store.find(key)  # another thread may have stored it since we looked
            value = self._attempt(args, kwargs, deadline) if entry is None else entry.value
            if entry is None:
                entry = self.reserve(store, key)
                if entry is not None:
                    if self._is_listed(store, key, flight):
                        store.fill(entry, value)
                    else:  # it was invalidated meanwhile
                        store.drop(key)
            self._land(store, key, flight, value, None)
            return value
        except BaseException as error:
            self._land(store, key, flight, None, error)
            raise
        finally:
            flight = other = None  # they hold the error, whose traceback holds this frame

    def _land(
        self,
        store: MemoryStore,
        key: Any,
        flight: Flight,
        value: Any,
        error: BaseException | None,
    ) -> None:
        """End a flight: leave nothing under its key, and wake those who follow."""
        try:
            if self._is_listed(store, key, flight):
                store.flights.pop(key, None)
        finally:
            flight.land(value, error)

    def _is_listed(self, store: MemoryStore, key: Any, flight: Flight) -> bool:
        """Tell whether a flight is in the table still: whoever invalidates its key takes it out.

        There, and not by a mark on the flight, because a flight may also be taken out by mistake,
        by another one that lands at the moment of an invalidation. Then its value is not stored.
        """
        try:
            return store.flights.get(key) is flight
        except Exception as broken:  # noqa: BLE001 - comparing keys may raise; the next call tidies up
            self.events.not_cached(self.name, broken)
            return False

    def _attempt(self, args: tuple[Any, ...], kwargs: dict[str, Any], deadline: int) -> Any:
        """Make the first attempt, if all gates let it in at once; the runner goes on."""
        if self.indirect:
            return self.runner.run(self, args, kwargs, deadline)
        entered = 0
        if self.gates:
            entered = self.clock.now()
            passed = self.enter(entered)
            if passed < len(self.gates):
                return self.runner.run(self, args, kwargs, deadline, None, passed)
            if self.events.heeded:
                self.events.permit(self, 0.0)
        self.add("attempts", 1)
        failed: BaseException | None
        try:
            value = self.func(*args, **kwargs)
        except BaseException as error:
            if self.observed:
                self.leave(error, entered)
            if self.single:
                if not is_never_failure(error):
                    self.add("failures", 1)
                raise
            failed = error
        else:
            if self.observed:
                self.leave(None, entered)
            return value
        try:
            return self.runner.run(self, args, kwargs, deadline, failed)
        finally:
            failed = None


class AsyncCall(_Wrapper):
    """A decorated coroutine function."""

    __slots__ = ()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - the function's own
        self.add("calls", 1)
        if self.store is not None:
            store, key = self._locate(args, kwargs)
            entry = store.find(key)
            if entry is None:
                self.add("misses", 1)
                if self.events.heeded:
                    self.events.miss(self)
                return self.runner.share(self, store, self._lasting(key), args, kwargs)
            self.add("hits", 1)
            if self.events.heeded:
                self.events.hit(self)
            return self.runner.ready(entry.value)
        if self.stored_cache is not None:
            return self.stored_cache.recall(self, args, kwargs)
        if self.timeout:
            return self.runner.run_until(self, args, kwargs)
        if self.gates or self.fallback is not None or self.indirect:
            return self.runner.run(self, args, kwargs)
        self.add("attempts", 1)
        return self.runner.guard(self, self.func, args, kwargs)

    def _ground(self, store: MemoryStore, key: Any) -> None:
        for flights in list(store.flights.values()):  # one table for each event loop
            _take_all(flights, key)

    def _ground_all(self, store: MemoryStore) -> None:
        for flights in list(store.flights.values()):
            _empty(flights)


def _take_all(flights: dict[Any, Any], key: Any) -> None:
    """Take every flight of `key` out: it may be there twice, and be missed once (see `store`)."""
    missed = 0
    while missed < 2:
        missed = missed + 1 if flights.pop(key, None) is None else 0


def _empty(flights: dict[Any, Any]) -> None:
    """Take every flight out of a table, which its `clear` must not do (see `store`)."""
    try:
        while flights:
            flights.popitem()
    except KeyError:  # another thread took the last one
        pass


class BoundCall:
    """A decorated method together with its instance."""

    __slots__ = ("__func__", "__self__", "__weakref__")

    def __init__(self, func: Any, instance: Any) -> None:
        self.__func__: Any = func
        self.__self__: Any = instance

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - the function's own
        return self.__func__(self.__self__, *args, **kwargs)

    def cache_invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Forget the value of one call on this instance; tell whether there was one."""
        return bool(self.__func__.cache_invalidate(self.__self__, *args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__func__, name)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        doc: str | None = self.__func__.__doc__
        return doc

    @property
    def __signature__(self) -> inspect.Signature:
        from opero.signatures import signature_of

        signature = signature_of(self.__func__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundCall):
            return NotImplemented
        return self.__self__ is other.__self__ and self.__func__ is other.__func__

    def __hash__(self) -> int:
        return hash((id(self.__self__), id(self.__func__)))

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.__self__, self.__func__.__name__)

    def __repr__(self) -> str:
        return f"<bound opero function {self.__func__.name} of {self.__self__!r}>"


BoundCall.__module__ = property(  # type: ignore[assignment]  # that of the method, not this one
    lambda self: self.__func__.__module__
)
