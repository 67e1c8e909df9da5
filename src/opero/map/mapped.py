"""The mapped function that `@opmap` returns, and how one call of it sets up a map."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import aclosing, closing
from copy import copy
from types import MethodType
from typing import Any

from opero import hotpath, off_switch
from opero.core.function import FunctionLike, MethodLike
from opero.exceptions import with_article

from . import driver, progress
from .chunk_limits import ChunkBound, ChunkFill
from .gates import MapGates
from .options import MapOptions
from .reader import (
    CallerReader,
    InPlace,
    Input,
    Reader,
    SequenceReader,
    Stop,
    is_bound_to_its_thread,
    is_still,
    stops,
)
from .receivers import (
    bound_to,
    by_position,
    check_method,
    misplaced_option,
    missing_receiver,
    missing_shared,
    no_items,
)
from .result import FailedItem, MapResult
from .scheduler import AHEAD, Scheduler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.binding import Binding
    from opero.core.state import State

_AIM = 8_000_000
"""How long a chunk should take, in nanoseconds."""
_AIM_OF_TASKS = 200_000
"""The same if all workers take turns in one thread."""
_AIM_OF_EXECUTORS = 50_000_000
"""The same if sending a chunk takes milliseconds, as on a cluster."""
_AT_ONCE = 16
"""How many coroutines each process of mode `async_process` runs at once."""

OWN = ("amap", "astream", "stream")
"""The attributes that a map adds to those of every decorated function."""


class _Forms:
    """The forms of a map, called with the items, or with an instance and the items."""

    __slots__ = ()

    def __call__(self, /, *items: Any, **shared: Any) -> MapResult[Any]:
        """Map over the items; see `Map.function`."""
        mapping, given = _resolved(self, "", items)
        try:
            return mapping.function(given, **shared)
        finally:  # the frames of a failure keep this one
            items = given = ()

    def stream(self, /, *items: Any, **shared: Any) -> Generator[Any, None, None]:
        """Map over the items lazily; see `Map.stream`."""
        mapping, given = _resolved(self, ".stream", items)
        return mapping.stream(given, **shared)

    def amap(self, /, *items: Any, **shared: Any) -> Coroutine[Any, Any, MapResult[Any]]:
        """Map over the items from a coroutine; see `Map.amap`."""
        mapping, given = _resolved(self, ".amap", items)
        return mapping.amap(given, **shared)

    def astream(self, /, *items: Any, **shared: Any) -> AsyncGenerator[Any, None]:
        """Map over the items lazily from a coroutine; see `Map.astream`."""
        mapping, given = _resolved(self, ".astream", items)
        return mapping.astream(given, **shared)


class MappedFunction(_Forms, FunctionLike):
    """The public object: a function of one item that maps itself over many."""

    __slots__ = ()

    def __init__(self, mapping: Map) -> None:
        """Copy the name, docstring and attributes of the function.

        Args:
            mapping: How it maps.
        """
        super().__init__(mapping)
        for name in OWN:
            vars(self).pop(name, None)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MappedMethod(self, instance)

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)
        self.__opero__.become_attribute()

    def cache_invalidate(self, /, *args: Any, **shared: Any) -> bool:
        """Forget the value of one item; return whether there was one."""
        return bool(self.__opero__.cache_invalidate(*args, **shared))

    def __repr__(self) -> str:
        mapping = self.__opero__
        return f"<opero map of {mapping.name}, mode {mapping.plan.mode!r}>"


class MappedMethod(_Forms, MethodLike):
    """A mapped method together with its instance, or a class method with its class."""

    __slots__ = ()

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        doc: str | None = self.__func__.__doc__
        return doc

    def __repr__(self) -> str:
        return f"<bound opero map of {self.__func__.__opero__.name} of {self.__self__!r}>"


MappedMethod.__module__ = property(  # type: ignore[assignment]  # that of the method, not this one
    lambda self: self.__func__.__module__
)


class Map:
    """How a function of one item is mapped over many: the state of a `MappedFunction`.

    Attributes:
        call: The state of the function under `@opero`, with the options of an item's attempts.
        plan: How it is mapped.
        func: The function that was decorated.
        face: The plain function that it wraps.
        name: Its qualified name, for messages.
        options: The checked options of an item.
        decorate: The function that decorated it; call it with the function and all options to
            decorate again.
        core: The implementation that was active at decoration.
        leading: What the function gets before the item: its instance or class.
        bound_to: Which of these it gets, if it was defined in a class body: "instance" or "class".
        placed: Whether it is an attribute of a class.
        inline: Whether the map calls the function in its own thread.
    """

    awaited = False
    maps = True

    def __init__(self, call: State, plan: MapOptions, decorate: Callable[..., Any]) -> None:
        """Store how to attempt the items.

        Args:
            call: The state of the function under `@opero`.
            plan: How it is mapped.
            decorate: The function that decorated it.
        """
        self.call = call
        self.plan = plan
        self.func: Any = call.func
        self.face: Any = call.face
        self.name: str = call.name
        self.options: Any = call.options
        self.decorate: Callable[..., Any] = decorate
        self.core: hotpath.Core = hotpath.core
        self.leading: tuple[Any, ...] = ()
        self.bound_to: str = bound_to(call)
        self.placed: bool = False
        self.inline: bool = False

    def of(self, receiver: Any) -> Map:
        """Return the map of one instance of a method, or of one class of a class method."""
        bound = copy(self)
        bound.leading = (receiver,)
        return bound

    def undecorated(self) -> Map:
        """Return a map that calls the plain function, item by item, in the caller's thread."""
        bare = copy(self)
        bare.inline = True
        bare.call = self.decorate(self.func, self.options.undecorated(), self.plan).__opero__.call
        bare.plan = self.plan.undecorated("async" if bare.call.awaited else "thread")
        return bare

    def become_attribute(self) -> None:
        """Record that the function is an attribute of a class, and so gets its instance."""
        if not self.plan.unpack:
            check_method(self.call)
        self.placed = True

    def become_method(self) -> None:
        """Identify the instance by identity, and give it its own cache."""
        self.call.become_method()

    def function(self, items: Iterable[Any], /, **shared: Any) -> MapResult[Any]:
        """Map over `items`.

        Args:
            items: The items to call the function with.
            **shared: Keyword arguments of every call.

        Returns:
            The results. An item that failed for good has its exception as its result.

        Raises:
            TypeError: Before anything runs, if `items` is not iterable or `shared` does not fit the
                function.
            BaseException: What iterating over `items` raises; and an item's failure, if
                `on_error="raise"`.
        """
        scheduler = self._scheduler(items, shared, False)
        source = self._input(items)
        del items  # the frames of a failure keep this one
        scheduler.output.failures = []
        results: MapResult[Any]
        if self.plan.mode == "async":
            from . import event_loops

            if not (isinstance(source, CallerReader) and event_loops.is_running()):
                results = event_loops.run(
                    lambda: _gather(scheduler, self._drive_async(scheduler, source, shared)),
                    self.plan.loop,
                )
                return results
        results = MapResult()
        with closing(self._parts(scheduler, source, shared)) as parts:
            for part in parts:
                results += part
        return _concluded(results, scheduler)

    def stream(self, items: Iterable[Any], /, **shared: Any) -> Generator[Any, None, None]:
        """Map over `items` lazily: yield results when they are ready, and read input as needed.

        Args:
            items: The items to call the function with; may be endless.
            **shared: Keyword arguments of every call.

        Returns:
            An iterator over the results. Closing it ends the map.
        """
        scheduler, stop = self._scheduler(items, shared, True), Stop()
        results = _each(scheduler, self._parts(scheduler, self._input(items), shared, stop))
        stops[results] = stop
        return results

    def amap(self, items: Any, /, **shared: Any) -> Coroutine[Any, Any, MapResult[Any]]:
        """Map over `items` from a coroutine.

        Args:
            items: An iterable or asynchronous iterable.
            **shared: Keyword arguments of every call.
        """
        scheduler = self._scheduler(items, shared, False)
        scheduler.output.failures = []
        return _gather(scheduler, self._aparts(scheduler, items, shared))

    def astream(self, items: Any, /, **shared: Any) -> AsyncGenerator[Any, None]:
        """Map over `items` lazily from a coroutine, with `async for`.

        Args:
            items: An iterable or asynchronous iterable.
            **shared: Keyword arguments of every call.
        """
        scheduler = self._scheduler(items, shared, True)
        return _flatten(scheduler, self._aparts(scheduler, items, shared))

    # --- the cache and the figures are those of the function of one item ------------------------

    def cache_info(self) -> Any:
        """Return hits and misses since the last `cache_clear`, and the size of the cache."""
        return self.call.cache_info()

    def cache_clear(self) -> None:
        """Forget every value."""
        self.call.cache_clear()

    def cache_invalidate(self, /, *args: Any, **shared: Any) -> bool:
        """Forget the value of one item; return whether there was one."""
        return bool(self.call.cache_invalidate(*args, **shared))

    def stats(self) -> Any:
        """Return the counters for all items since the function was decorated."""
        return self.call.stats()

    # --- one map --------------------------------------------------------------------------------

    def _parts(
        self,
        scheduler: Scheduler,
        source: Input,
        shared: dict[str, Any],
        stop: Stop | None = None,
    ) -> Generator[list[Any], None, None]:
        """Begin a map; yield its results in batches."""
        if self.plan.mode == "async":
            from . import event_loops

            return event_loops.iterate(
                lambda: self._drive_async(scheduler, source, shared), self.plan.loop, source, stop
            )
        return driver.drive(
            scheduler,
            lambda: self._engine(shared, scheduler.sizer.workers),
            source,
            self.call.clock,
            lambda: self._bar(scheduler),
            self.plan.raises,
            stop,
        )

    def _aparts(
        self, scheduler: Scheduler, items: Any, shared: dict[str, Any]
    ) -> AsyncGenerator[list[Any], None]:
        """Begin a map in a coroutine."""
        if not hasattr(items, "__aiter__"):
            return self._drive_async(scheduler, self._input(items), shared)
        from .task_reader import TaskReader

        return self._drive_async(scheduler, TaskReader(items), shared)

    def _drive_async(
        self, scheduler: Scheduler, source: Input, shared: dict[str, Any]
    ) -> AsyncGenerator[list[Any], None]:
        from .task_driver import drive_async  # imports `asyncio`, which takes time

        return drive_async(
            scheduler,
            lambda: self._engine(shared, scheduler.sizer.workers, True),
            source,
            self.call.clock,
            lambda: self._bar(scheduler),
            self.plan.raises,
        )

    def _input(self, items: Any) -> Input:
        """Return the reader of the items, without reading any."""
        kind = with_article(type(items).__name__)
        if hasattr(items, "__aiter__"):
            raise TypeError(
                f"{self.name}(): the items are {kind}, which is asynchronous: use amap or astream"
            )
        if isinstance(items, (str, bytes, bytearray)):
            what = "characters" if isinstance(items, str) else "numbers"
            raise TypeError(
                f"{self.name}(): the items are {kind}, a single value: pass [value] to map "
                f"over that, or list(value) to map over its {what}"
            )
        if not (hasattr(type(items), "__iter__") or hasattr(type(items), "__getitem__")):
            raise TypeError(no_items(self.name, items))
        if is_still(items):
            return InPlace(items)
        if self.plan.in_caller or is_bound_to_its_thread(items):
            return CallerReader(items)
        return SequenceReader(items) if isinstance(items, Sequence) else Reader(items)

    def _scheduler(self, items: Any, shared: dict[str, Any], streamed: bool) -> Scheduler:
        """Create the scheduler of one map; reject arguments that do not fit the function.

        Args:
            items: The input.
            shared: Keyword arguments of every call.
            streamed: Whether the map yields results as they come.
        """
        call, plan, core = self.call, self.plan, self.core
        if call.binding is not None:
            self._check_shared(call.binding, shared)
        workers, aim = plan.workers, _AIM_OF_TASKS if plan.mode == "async" else _AIM
        if plan.executor is not None:
            from opero.map.engines.executors.engine import workers_of

            workers, aim = workers or workers_of(plan.executor), _AIM_OF_EXECUTORS
        assert workers is not None
        sizer: Any = core.ChunkSizer(workers, aim, plan.chunk_size, _length(items))
        width = 1
        if plan.mode == "async_process":
            width = _AT_ONCE
            sizer = ChunkFill(sizer, width)
        if plan.setup.items:
            sizer = ChunkBound(sizer, plan.setup.items)
        gates: MapGates | None = None
        if call.queues:
            gates = MapGates(call.queues, 0 if plan.one_limit else workers, call.clock)
        return Scheduler(
            call,
            shared,
            sizer,
            plan.read_ahead or (AHEAD * workers if streamed else 0),
            plan.ordered,
            gates,
            width,
            self.leading,
            unpack=plan.unpack,
            pairs=plan.with_items,
            max_errors=plan.max_errors,
            exact=plan.read_ahead is not None,
            streamed=streamed,
        )

    def _check_shared(self, binding: Binding, shared: dict[str, Any]) -> None:
        """Reject shared arguments that the function does not take."""
        if not self.plan.unpack:
            try:
                binding.arguments((*self.leading, None), shared)
            except TypeError as error:
                remedy = misplaced_option(binding, shared) or missing_shared(
                    self.name, binding, len(self.leading), shared
                )
                raise TypeError(f"{error}{remedy}") from None
        elif binding.starstar is None:
            for name in shared:
                if name not in binding.slots:
                    raise TypeError(
                        f"{self.name}() got an unexpected keyword argument {name!r}"
                        f"{misplaced_option(binding, shared)}"
                    )

    def _bar(self, scheduler: Scheduler) -> Any:
        left = scheduler.sizer.left
        total = self.plan.total if left < 0 else left
        return progress.open(self.plan.progress, total, self.name)

    def _engine(self, shared: dict[str, Any], workers: int, in_task: bool = False) -> Any:
        """Create the engine that runs the attempts of one map.

        Args:
            shared: Keyword arguments of every call.
            workers: How many run at once.
            in_task: Whether a task drives the map.
        """
        from opero.map.loading import check_not_loading

        plan = self.plan
        function = MethodType(self.func, *self.leading) if self.leading else self.func
        if self.inline:
            from opero.map.engines.inline import InlineAsyncEngine, InlineEngine

            if in_task:
                return InlineAsyncEngine(function, shared, self.call.awaited)
            return InlineEngine(function, shared)
        if plan.executor is not None:
            from opero.map.engines.executors.engine import ExecutorEngine, runs_threads

            if not runs_threads(plan.executor):
                check_not_loading(self.name)
            return ExecutorEngine(function, shared, plan.executor, workers)
        if plan.mode == "thread":
            from opero.map.engines.threads import ThreadEngine

            return ThreadEngine(function, shared, workers, plan.setup.init)
        if plan.mode == "async":
            from opero.map.engines.tasks import TaskEngine

            return TaskEngine(function, shared, workers, self._limit(), self.call.clock)
        from opero.map.engines.processes.engine import ProcessEngine

        check_not_loading(self.name)
        loop = plan.mode == "async_process"
        return ProcessEngine(
            function,
            shared,
            workers,
            start_method=plan.start_method,
            attempt_timeout=self._limit() if loop else plan.attempt_timeout,
            runner="loop" if loop else "plain",
            concurrency=_AT_ONCE,
            loop=plan.loop,
            init=plan.setup.init,
            most_items=plan.setup.items,
            most_memory=plan.setup.memory,
        )

    def _limit(self) -> float | None:
        """Return how many seconds an awaited attempt may take; `timeout` cuts it too."""
        whole = self.call.timeout / 1e9
        limit = self.plan.attempt_timeout
        return whole if whole and (limit is None or whole < limit) else limit


def _resolved(held: Any, form: str, args: tuple[Any, ...]) -> tuple[Map, Any]:
    """Return the map of a call, and its items.

    Args:
        held: The called object: a `MappedFunction` or a `MappedMethod`.
        form: The suffix of its name in error messages.
        args: The positional arguments: the items, and before them the instance of a method that
            is called on its class.
    """
    mapping: Map
    if type(held) is MappedMethod:
        mapping = held.__func__.__opero__.of(held.__self__)
    else:
        mapping = held.__opero__
        first = mapping.placed or mapping.bound_to
        if first and len(args) > 1:
            mapping, args = mapping.of(args[0]), args[1:]
        elif mapping.placed or first == "class":
            raise TypeError(missing_receiver(mapping.name, form, mapping.bound_to))
    name = mapping.name + form
    if not args:
        raise TypeError(f"{name}() is missing the items: pass an iterable of them")
    if len(args) > 1:
        raise TypeError(by_position(name, mapping.call, len(mapping.leading), args[1:]))
    return mapping.undecorated() if off_switch.is_off else mapping, args[0]


def _length(items: Any) -> int:
    """Return how many items there are, -1 if that is unknown."""
    try:
        return len(items)
    except Exception:  # noqa: BLE001 - the length of `range(1 << 99)` overflows
        return -1


def _concluded(results: MapResult[Any], scheduler: Scheduler) -> MapResult[Any]:
    """Return the results of a finished map, with a report on the batch."""
    output = scheduler.output
    failures = output.failures or []
    failures.sort(key=_index)
    results.failures = failures
    results.complete = not (output.not_run or scheduler.unread)
    results.attempts = scheduler.attempts
    results.retried = scheduler.retried
    results.seconds = scheduler.elapsed / 1e9
    results.function = output.name
    return results


def _index(failure: FailedItem) -> int:
    return failure.index


def _each(
    scheduler: Scheduler, parts: Generator[list[Any], None, None]
) -> Generator[Any, None, None]:
    """Yield results one by one, without keeping them."""
    with closing(parts):
        for part in parts:
            part.reverse()
            while part:
                yield part.pop()
    if scheduler.unread:
        raise scheduler.rest()


async def _gather(scheduler: Scheduler, parts: AsyncGenerator[list[Any], None]) -> MapResult[Any]:
    results: MapResult[Any] = MapResult()
    async with aclosing(parts):
        async for part in parts:
            results += part
    return _concluded(results, scheduler)


async def _flatten(
    scheduler: Scheduler, parts: AsyncGenerator[list[Any], None]
) -> AsyncGenerator[Any, None]:
    async with aclosing(parts):
        async for part in parts:
            part.reverse()
            while part:
                yield part.pop()
    if scheduler.unread:
        raise scheduler.rest()
