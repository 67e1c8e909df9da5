"""The mapped function: what `@opmap` returns, and what one call of it puts together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import aclosing, closing
from typing import Any

from opero import hotpath
from opero.core.function import FunctionLike

from . import driver, event_loops, progress
from .chunk_fill import ChunkFill
from .gates import MapGates
from .options import MapOptions
from .scheduler import Scheduler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.state import State

_AIM = 8_000_000
"""How long a chunk should take, in nanoseconds."""
_AIM_OF_TASKS = 200_000
"""The same where all workers take turns in one thread."""
_AIM_OF_EXECUTORS = 50_000_000
"""The same where every chunk takes a way of milliseconds, as on a cluster."""
_AT_ONCE = 16
"""How many coroutines each process of mode `async_process` runs at once."""
_AHEAD = 16
"""How many items for each worker a stream reads ahead, if chunks are small."""


_NONE_GIVEN: Any = object()
"""The items of a call that gives none."""

OWN = ("amap", "astream", "stream")
"""The names that a map adds to those of every decorated function."""


class MappedFunction(FunctionLike):
    """What the user holds: a function of one item that maps itself over many."""

    __slots__ = ()

    def __init__(self, mapping: Map) -> None:
        """Take over name, docstring and attributes of the function.

        Args:
            mapping: How it maps.
        """
        super().__init__(mapping)
        for name in OWN:
            vars(self).pop(name, None)

    def __call__(
        self, items: Iterable[Any] = _NONE_GIVEN, /, *more: Any, **shared: Any
    ) -> list[Any]:
        """Map over `items`; see `Map.function`."""
        mapping = self.__opero__
        results: list[Any] = mapping.function(_items_of(mapping, items, more), **shared)
        return results

    def stream(
        self, items: Iterable[Any] = _NONE_GIVEN, /, *more: Any, **shared: Any
    ) -> Generator[Any, None, None]:
        """Map over `items` lazily; see `Map.stream`."""
        mapping = self.__opero__
        results: Generator[Any, None, None] = mapping.stream(
            _items_of(mapping, items, more), **shared
        )
        return results

    def amap(
        self, items: Any = _NONE_GIVEN, /, *more: Any, **shared: Any
    ) -> Coroutine[Any, Any, list[Any]]:
        """Map over `items` from a coroutine; see `Map.amap`."""
        mapping = self.__opero__
        results: Coroutine[Any, Any, list[Any]]
        results = mapping.amap(_items_of(mapping, items, more), **shared)
        return results

    def astream(
        self, items: Any = _NONE_GIVEN, /, *more: Any, **shared: Any
    ) -> AsyncGenerator[Any, None]:
        """Map over `items` lazily from a coroutine; see `Map.astream`."""
        mapping = self.__opero__
        results: AsyncGenerator[Any, None] = mapping.astream(
            _items_of(mapping, items, more), **shared
        )
        return results

    def cache_invalidate(self, item: Any, /, **shared: Any) -> bool:
        """Forget the value of one item; return whether there was one."""
        return bool(self.__opero__.cache_invalidate(item, **shared))

    def __set_name__(self, owner: type, name: str) -> None:
        raise TypeError(
            f"opmap maps functions, not methods: write {owner.__qualname__}.{name} as a function "
            f"outside the class, or put @staticmethod above @opmap"
        )

    def __repr__(self) -> str:
        mapping = self.__opero__
        return f"<opero map of {mapping.name}, mode {mapping.plan.mode!r}>"


class Map:
    """How a function of one item is mapped over many: the state of a `MappedFunction`.

    Attributes:
        call: The state of the function under `@opero`, with the options of an item's attempts.
        plan: How it is mapped.
        func: The function that was decorated.
        face: The plain function behind it.
        name: Its qualified name, for messages.
        options: The checked options of an item.
        decorate: What has decorated it: called with the function and all options it does so again.
        core: The implementation that was active at decoration.
    """

    awaited = False
    maps = True

    def __init__(self, call: State, plan: MapOptions, decorate: Callable[..., Any]) -> None:
        """Know how the items of a map are attempted.

        Args:
            call: The state of the function under `@opero`.
            plan: How it is mapped.
            decorate: What has decorated it.
        """
        self.call = call
        self.plan = plan
        self.func: Any = call.func
        self.face: Any = call.face
        self.name: str = call.name
        self.options: Any = call.options
        self.decorate: Callable[..., Any] = decorate
        self.core: hotpath.Core = hotpath.core

    def function(self, items: Iterable[Any], /, **shared: Any) -> list[Any]:
        """Map over `items`.

        Args:
            items: What the function is called with, one after the other.
            **shared: Keyword arguments of every call.

        Returns:
            The results; in the place of an item that failed for good stands its exception.

        Raises:
            TypeError: If `items` is no iterable or `shared` does not fit the function; before
                anything is run.
            BaseException: What iterating over `items` raises; and what an item fails with, if
                `on_error="raise"`.
        """
        if self.plan.mode == "async":
            scheduler = self._scheduler(items, shared, 0)
            iterator = self._iterator(items)
            results: list[Any] = event_loops.run(
                lambda: _gather(self._drive_async(scheduler, iterator, shared)), self.plan.loop
            )
            return results
        results = []
        with closing(self._parts(items, shared, 0)) as parts:
            for part in parts:
                results += part
        return results

    def stream(self, items: Iterable[Any], /, **shared: Any) -> Generator[Any, None, None]:
        """Map over `items` lazily: results come as they are ready, and input is read as they go.

        Args:
            items: What the function is called with; it may be endless.
            **shared: Keyword arguments of every call.

        Returns:
            An iterator over the results. Closing it ends the map.
        """
        return _each(self._parts(items, shared, _AHEAD))

    def amap(self, items: Any, /, **shared: Any) -> Coroutine[Any, Any, list[Any]]:
        """Map over `items` from a coroutine.

        Args:
            items: An iterable, or an asynchronous one.
            **shared: Keyword arguments of every call.
        """
        return _gather(self._aparts(items, shared, 0))

    def astream(self, items: Any, /, **shared: Any) -> AsyncGenerator[Any, None]:
        """Map over `items` lazily from a coroutine, by `async for`.

        Args:
            items: An iterable, or an asynchronous one.
            **shared: Keyword arguments of every call.
        """
        return _flatten(self._aparts(items, shared, _AHEAD))

    # --- the cache and the figures are those of the function of one item ------------------------

    def cache_info(self) -> Any:
        """Return hits and misses since the last `cache_clear`, and the size of the cache."""
        return self.call.cache_info()

    def cache_clear(self) -> None:
        """Forget every value."""
        self.call.cache_clear()

    def cache_invalidate(self, item: Any, /, **shared: Any) -> bool:
        """Forget the value of one item; tell whether there was one."""
        return bool(self.call.cache_invalidate(item, **shared))

    def stats(self) -> Any:
        """Return what has happened to all items since the function was decorated."""
        return self.call.stats()

    # --- one map --------------------------------------------------------------------------------

    def _parts(
        self, items: Any, shared: dict[str, Any], ahead: int
    ) -> Generator[list[Any], None, None]:
        """Begin a map; its results come some at a time."""
        scheduler = self._scheduler(items, shared, ahead)
        source = self._iterator(items)
        if self.plan.mode == "async":
            return event_loops.iterate(
                lambda: self._drive_async(scheduler, source, shared), self.plan.loop
            )
        return driver.drive(
            scheduler,
            lambda: self._engine(shared, scheduler.sizer.workers),
            source,
            self.call.clock,
            lambda: self._bar(scheduler),
            self.plan.raises,
        )

    def _aparts(
        self, items: Any, shared: dict[str, Any], ahead: int
    ) -> AsyncGenerator[list[Any], None]:
        """Begin a map in a coroutine."""
        scheduler = self._scheduler(items, shared, ahead)
        source = items if hasattr(items, "__aiter__") else self._iterator(items)
        return self._drive_async(scheduler, source, shared)

    def _drive_async(
        self, scheduler: Scheduler, source: Any, shared: dict[str, Any]
    ) -> AsyncGenerator[list[Any], None]:
        return driver.drive_async(
            scheduler,
            lambda: self._engine(shared, scheduler.sizer.workers),
            source,
            self.call.clock,
            lambda: self._bar(scheduler),
            self.plan.raises,
        )

    def _iterator(self, items: Any) -> Iterator[Any]:
        """Begin to iterate over the items."""
        if hasattr(items, "__aiter__"):
            raise TypeError(
                f"{self.name}(): the items, {_described(items)}, come asynchronously: "
                f"use amap or astream"
            )
        if not (hasattr(type(items), "__iter__") or hasattr(type(items), "__getitem__")):
            raise TypeError(f"{self.name}(): the items, {_described(items)}, are not iterable")
        return iter(items)

    def _scheduler(self, items: Any, shared: dict[str, Any], ahead: int) -> Scheduler:
        """Make the scheduler of one map, and refuse what does not fit the function.

        Args:
            items: The input.
            shared: Keyword arguments of every call.
            ahead: How many items for each worker may be read ahead; 0 for no bound.
        """
        call, plan, core = self.call, self.plan, self.core
        if call.binding is not None:
            call.binding.arguments((None,), shared)
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
        gates: MapGates | None = None
        if call.queues:
            gates = MapGates(call.queues, 0 if plan.total else workers, call.clock)
        return Scheduler(call, shared, sizer, ahead * workers, plan.ordered, gates, width)

    def _bar(self, scheduler: Scheduler) -> Any:
        left = scheduler.sizer.left
        return progress.open(self.plan.progress, None if left < 0 else left, self.name)

    def _engine(self, shared: dict[str, Any], workers: int) -> Any:
        """Make what runs the attempts of one map."""
        plan = self.plan
        if plan.executor is not None:
            from opero.map.engines.executors.engine import ExecutorEngine

            return ExecutorEngine(self.func, shared, plan.executor, workers)
        if plan.mode == "thread":
            from opero.map.engines.threads import ThreadEngine

            return ThreadEngine(self.func, shared, workers)
        if plan.mode == "async":
            from opero.map.engines.tasks import TaskEngine

            return TaskEngine(self.func, shared, workers, self._limit(), self.call.clock)
        from opero.map.engines.processes.engine import ProcessEngine

        loop = plan.mode == "async_process"
        return ProcessEngine(
            self.func,
            shared,
            workers,
            start_method=plan.start_method,
            attempt_timeout=self._limit() if loop else plan.attempt_timeout,
            runner="loop" if loop else "plain",
            concurrency=_AT_ONCE,
            loop=plan.loop,
        )

    def _limit(self) -> float | None:
        """Return how many seconds an awaited attempt may take; `timeout` cuts it too."""
        whole = self.call.timeout / 1e9
        limit = self.plan.attempt_timeout
        return whole if whole and (limit is None or whole < limit) else limit


def _items_of(mapping: Map, items: Any, more: tuple[Any, ...]) -> Any:
    """Return the items, which must be all that a call gives by position."""
    if items is _NONE_GIVEN:
        raise TypeError(f"{mapping.call.name}() is missing the items: give an iterable of them")
    if more:
        raise TypeError(
            f"{mapping.call.name}() takes the items by position and nothing else, and "
            f"{1 + len(more)} arguments were given: give what all items share by keyword"
        )
    return items


def _described(items: Any) -> str:
    kind = type(items)
    return f"{'an' if kind.__name__[:1] in 'aeiou' else 'a'} {kind.__name__}"


def _length(items: Any) -> int:
    """Return how many items there are, -1 if nobody knows."""
    try:
        return len(items)
    except Exception:  # noqa: BLE001 - `range(1 << 99)` has one that does not fit
        return -1


def _each(parts: Generator[list[Any], None, None]) -> Generator[Any, None, None]:
    """Yield results one by one, and let go of each."""
    with closing(parts):
        for part in parts:
            part.reverse()
            while part:
                yield part.pop()


async def _gather(parts: AsyncGenerator[list[Any], None]) -> list[Any]:
    results: list[Any] = []
    async with aclosing(parts):
        async for part in parts:
            results += part
    return results


async def _flatten(parts: AsyncGenerator[list[Any], None]) -> AsyncGenerator[Any, None]:
    async with aclosing(parts):
        async for part in parts:
            part.reverse()
            while part:
                yield part.pop()
