"""How a decorated function is called: it answers a hit, or makes the first attempt.

    __call__ -> key -> store.find -> hit
                          | miss
                          v
                runner.lead -> permit -> first attempt -> store.settle
                          |       |          | failed
                          v       v          v
                        runner: follow, wait, judge, back off, fall back

The user gets a `Function`, `AsyncFunction`, `StreamFunction` or `Method`. `Call` and `AsyncCall`
are their state, which runners, stores and the map work with. `_compiled/call.pyx` is the compiled
twin: there the arguments stay in their C array. Both behave the same.
"""

from __future__ import annotations

from opero.gil import FREE_THREADED
from opero.identity import identifier
from opero.locks import Lock
from opero.never_failures import is_never_failure
from opero.tracebacks import shorten

from .clock import NEVER
from .deadline import Deadline, TimeLimit
from .function import FunctionLike, MethodLike
from .gate import SUCCEEDED, enter_all, leave_all
from .retrying import Retrying
from .state import Parts, State, empty, take_all
from .store import MemoryStore
from .traced import TracedRetrying

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _counting_lock() -> Any:
    """Return the lock to hold while adding to a counter; None if the interpreter has its own."""
    return Lock() if FREE_THREADED else None


class _Counting(State):
    """A state with counters for several threads.

    Attributes:
        counts: The counts, by the names in `opero.stats.Stats`.
        identify: Returns the identifier of the running thread or greenlet.
        retrying: Decides what follows if the first attempt fails or must wait.
    """

    __slots__ = ("_counting", "counts", "identify", "retrying")

    def __init__(self, parts: Parts) -> None:
        from opero.stats import COUNTERS

        super().__init__(parts)
        self.identify: Callable[[], int] = identifier()
        self.retrying: type[Retrying] = Retrying
        self.counts: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self._counting: Any = _counting_lock()

    def add(self, counter: str, amount: int) -> None:
        """Add to a counter.

        With the interpreter's lock, threads switch only at a call or a jump, and there is none
        between reading a counter and writing it. Without it, `_counting` is held meanwhile.

        Args:
            counter: Its name in `opero.stats.Stats`.
            amount: How much; nanoseconds for a wait. It may be negative.
        """
        if self._counting is None:
            self.counts[counter] += amount
        else:
            with self._counting:
                self.counts[counter] += amount

    def counted(self) -> dict[str, int]:
        """Return the counts."""
        return self.counts

    def trace(self, on: bool) -> None:
        """Switch on or off that calls report their history at their end."""
        traced = on and not (self.single and self.gate is None)
        self.retrying = TracedRetrying if traced else Retrying
        self.leave_to_runner(traced)

    def after_fork(self) -> None:
        """Forget the runs under way: nothing will end them in a child process."""
        super().after_fork()
        self._counting = _counting_lock()


class Call(_Counting):
    """The state of an ordinary function."""

    __slots__ = ()

    def attempt(self, args: tuple[Any, ...], kwargs: dict[str, Any], deadline: int) -> Any:
        """Make the first attempt if all gates admit it immediately; else the runner does."""
        if self.indirect:
            if self.breaker is not None:
                return self.watched_attempt(args, kwargs, deadline)
            return self.runner.run(self, args, kwargs, deadline)
        entered = 0
        tickets: list[int] | None = None
        if self.gates:
            entered = self.clock.now()
            tickets = [] if self.observed else None
            passed = enter_all(self.gates, entered, 0, tickets)
            if passed < len(self.gates):
                return self.runner.run(self, args, kwargs, deadline, None, passed, entered, tickets)
            if self.permits and self.events.heeded:
                self.events.permit(self, 0.0)
        self.add("attempts", 1)
        failed: BaseException | None
        try:
            value = self.func(*args, **kwargs)
        except BaseException as error:
            if self.single:
                if not is_never_failure(error):
                    self.add("failures", 1)
                raise
            failed = error
        else:
            if tickets is not None:
                leave_all(self.gates, self.clock.now(), SUCCEEDED, entered, tickets)
            return value
        try:
            return self.runner.run(self, args, kwargs, deadline, failed, 0, entered, tickets)
        finally:
            failed = None

    def watched_attempt(self, args: tuple[Any, ...], kwargs: dict[str, Any], deadline: int) -> Any:
        """Make the first attempt if the breaker is closed; else the runner does."""
        breaker, behind = self.breaker, self.behind
        assert breaker is not None
        tickets = [breaker.ticket]
        if not tickets[0]:
            return self.runner.run(self, args, kwargs, deadline)
        entered = self.clock.now()
        if behind is not None:
            if behind.enter(entered) > 0:
                return self.runner.run(self, args, kwargs, deadline, None, 1, entered, tickets)
            tickets.append(0)
            if self.events.heeded:
                self.events.permit(self, 0.0)
        self.add("attempts", 1)
        failed: BaseException | None
        try:
            value = self.func(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - judged in the runner
            failed = error
        else:
            breaker.leave(self.clock.now(), SUCCEEDED, entered, tickets[0])
            return value
        try:
            return self.runner.run(self, args, kwargs, deadline, failed, 0, entered, tickets)
        finally:
            failed = None


class AsyncCall(_Counting):
    """The state of a coroutine function.

    Attributes:
        attempted: What an attempt awaits: the function, or `runners.aio.first_item` for a generator
            function; with a time limit, `runners.deadlines.limited` of that.
        limit: How long a whole call may take; None for no limit.
        gated: `runners.aio.gated`, named after the user's function, as are the following ones.
        guard: `runners.aio.guard`.
        linger: `runners.task_lingering.linger`; None if no value lingers.
        lead: `runners.task_flight.lead`, or `lead` of a stored cache.
        ready: `runners.aio.ready`.
        recall: `recall` of a stored cache; None if there is none.
        run_until: `runners.aio.run_until`.
        share: `runners.task_flight.share`.
    """

    __slots__ = (
        "attempted",
        "gated",
        "guard",
        "lead",
        "limit",
        "linger",
        "ready",
        "recall",
        "run_until",
        "share",
    )

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        named = self.runner.named
        times = self.runner.loop_time
        self.limit: TimeLimit | None = None
        if self.timeout:
            self.limit = TimeLimit(self.timeout, self.clock, times)
        self.attempted: Any = self.func if self.generate is None else self.runner.first_item
        if self.attempt_timeout:
            limit = TimeLimit(self.attempt_timeout, self.clock, times)
            self.attempted = self.runner.limited(self.attempted, self.name, limit, Deadline)
        self.gated: Any = named(self.runner.gated, self.name)
        self.guard: Any = named(self.runner.guard, self.name)
        lingers = self.store is not None and self.store.lingers
        self.linger: Any = named(self.runner.linger, self.name) if lingers else None
        self.ready: Any = named(self.runner.ready, self.name)
        self.run_until: Any = named(self.runner.run_until, self.name)
        self.share: Any = named(self.runner.share, self.name)
        stored: Any = self.stored_cache
        self.recall: Any = None if stored is None else named(type(stored).recall, self.name)
        lead = self.runner.lead if stored is None else type(stored).lead
        self.lead: Any = named(lead, self.name)

    def begin(self, task: Any) -> Deadline:
        """Return the deadline of a call that begins now in `task`."""
        deadline = Deadline()
        assert self.limit is not None
        deadline.begin(self.limit, task)
        return deadline

    def admit(self) -> int | None:
        """Let a first attempt begin if all gates admit it immediately.

        Returns:
            None if it may begin; else how many gates have admitted it, and the runner goes on.
        """
        if self.indirect or self.observed:
            return 0
        if self.gates:
            passed = enter_all(self.gates, self.clock.now(), 0, None)
            if passed < len(self.gates):
                return passed
            if self.permits and self.events.heeded:
                self.events.permit(self, 0.0)
        self.add("attempts", 1)
        return None

    def _ground(self, store: MemoryStore, key: Any) -> None:
        if store.has_flights:
            for flights in list(store.flights.values()):  # one table for each event loop
                take_all(flights, key)

    def _ground_all(self, store: MemoryStore) -> None:
        if store.has_flights:
            for flights in list(store.flights.values()):
                empty(flights)


class Function(FunctionLike):
    """A decorated ordinary function."""

    __slots__ = ()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else Method(self, instance)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - the function's own
        call: Call = self.__opero__
        try:
            call.add("calls", 1)
            if call.store is None:
                if call.stored_cache is not None:
                    return call.stored_cache.recall(call, args, kwargs)
                deadline = call.clock.now() + call.timeout if call.timeout else NEVER
                return call.attempt(args, kwargs, deadline)
            store, key = call.locate(args, kwargs)
            entry = store.find(key)
            if entry is not None:
                value = entry.value
                call.add("hits", 1)
                if call.events.heeded:
                    call.events.hit(call)
                return value
            if store.lingers:
                return call.runner.linger(call, store, key, args, kwargs)
            call.add("misses", 1)
            if call.events.heeded:
                call.events.miss(call)
            key = call.lasting(key)
            deadline = call.clock.now() + call.timeout if call.timeout else NEVER
            return call.runner.lead(call, store, key, args, kwargs, deadline)
        except BaseException as failure:
            shorten(failure)
            raise


class AsyncFunction(FunctionLike):
    """A decorated coroutine function."""

    __slots__ = ()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else Method(self, instance)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - the function's own
        call: AsyncCall = self.__opero__
        try:
            call.add("calls", 1)
            if call.store is not None:
                store, key = call.locate(args, kwargs)
                entry = store.find(key)
                if entry is None and store.lingers:
                    return call.linger(call, store, call.lasting(key), args, kwargs)
                if entry is None:
                    call.add("misses", 1)
                    if call.events.heeded:
                        call.events.miss(call)
                    return call.share(call, store, call.lasting(key), args, kwargs)
                call.add("hits", 1)
                if call.events.heeded:
                    call.events.hit(call)
                return call.ready(entry.value)
            if call.stored_cache is not None:
                return call.recall(call.stored_cache, call, args, kwargs)
            if call.timeout:
                return call.run_until(call, call.attempted, args, kwargs)
            if call.gates or call.indirect:
                return call.gated(call, call.attempted, args, kwargs)
            call.add("attempts", 1)
            return call.guard(call, call.attempted, args, kwargs)
        except BaseException as failure:
            shorten(failure)
            raise


class StreamFunction(FunctionLike):
    """A decorated generator function, ordinary or asynchronous."""

    __slots__ = ()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else Method(self, instance)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - the function's own
        call: Any = self.__opero__
        try:
            call.add("calls", 1)
            first = call.func(*args, **kwargs)  # raises immediately if the arguments do not fit
            return call.generate(call, args, kwargs, first)
        except BaseException as failure:
            shorten(failure)
            raise


class Method(MethodLike):
    """A decorated method together with its instance."""

    __slots__ = ()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self  # already bound

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - the function's own
        return self.__func__(self.__self__, *args, **kwargs)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        doc: str | None = self.__func__.__doc__
        return doc


Method.__module__ = property(  # type: ignore[assignment]  # the method's module, not this one
    lambda self: self.__func__.__module__
)


def _undecorated(self: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Call the function that was decorated."""
    return self.__opero__.func(*args, **kwargs)


_CALLS: dict[Any, Any] = {kind: kind.__call__ for kind in (Function, AsyncFunction, StreamFunction)}


def bypass(on: bool) -> None:
    """Make all decorated functions behave as if undecorated, or as usual again."""
    for kind, usual in _CALLS.items():
        kind.__call__ = _undecorated if on else usual
