"""The options that only maps have, and their checks."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from typing import Any

from opero.limits import RateLimiter
from opero.options import Reading
from opero.options.checks import shown

from .receivers import bound_to
from .worker_options import WorkerOptions, worker_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from opero.core.state import State


@dataclass(frozen=True)
class MapOptions:
    """How a function is mapped over items, checked.

    Attributes:
        mode: Where attempts run: one of `MODES`.
        workers: How many threads, processes or coroutines run at once; None to ask the executor.
        ordered: Whether results come in the order of the items.
        progress: Whether to show a bar; "log"; or the function that gets the progress.
        chunk_size: Items per chunk; 0 to adapt to measured time.
        one_limit: Whether the rate limit applies to the whole map, not to each worker.
        attempt_timeout: Seconds for one attempt; None for no limit.
        start_method: How to start processes; None for the best one available.
        executor: What runs the attempts instead of opero's own workers; None if opero's do.
        raises: Whether the first item that fails for good ends the map.
        loop: Which event loop: one of `LOOPS`.
        unpack: Whether an item holds the arguments of its call.
        with_items: Whether each result comes with its item.
        max_errors: How many failures, or which share of them, end the map; None for no limit.
        setup: What workers do before their first item, and when they are renewed.
        in_caller: Whether to read an iterator in the thread that calls the map.
        read_ahead: The greatest number of items between input and consumer; None to adapt to
            chunks.
        total: How many items there are, if the input does not say.
    """

    mode: str
    workers: int | None
    ordered: bool
    progress: bool | str | Callable[[Any], object]
    chunk_size: int
    one_limit: bool
    attempt_timeout: float | None
    start_method: str | None
    executor: Executor | None
    raises: bool
    loop: str
    unpack: bool
    with_items: bool
    max_errors: float | None
    setup: WorkerOptions
    in_caller: bool
    read_ahead: int | None
    total: int | None

    def undecorated(self, mode: str) -> MapOptions:
        """Return the options of the same map without workers and attempt timeouts.

        Args:
            mode: "thread", or "async" for a coroutine function.
        """
        return replace(
            self,
            mode=mode,
            workers=1,
            chunk_size=1,
            attempt_timeout=None,
            start_method=None,
            executor=None,
            setup=WorkerOptions(),
            in_caller=True,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out what belongs to this process: the executor and the progress function."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        executor = given.pop("executor")
        if callable(self.progress):
            given["progress"] = False
        return _arrived, (given, None if executor is None else type(executor).__name__)


class AbsentExecutor(Executor):
    """Stands in for the executor of a map that was sent to another process without it.

    Args:
        name: The name of the executor.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Refuse to run anything.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(f"it is a {self.name}, and exists only in the process that created it")


def _arrived(given: dict[str, Any], executor: str | None) -> MapOptions:
    """Return options that came from another process."""
    absent = None if executor is None else AbsentExecutor(executor)
    return MapOptions(**given, executor=absent)


def map_options(given: Mapping[str, Any]) -> MapOptions:
    """Check the options that only maps have, each alone and in combination.

    Args:
        given: What the caller passed to `opmap`, by name; `call_options` checks the others.

    Raises:
        TypeError: If an option has the wrong type.
        ValueError: If an option's value is not allowed, or does not work with another option.
    """
    reading = Reading("opmap", given)
    mode = reading.check("mode")
    scope = reading.check("rate_limit_scope")
    executor = _checked_executor(reading, mode)
    workers = reading.check("workers")
    if workers is None and executor is None:
        workers = _cpus()
    rate = reading.values["rate_limit"]
    shared = isinstance(rate, RateLimiter)
    said = not hasattr(reading.values["rate_limit_scope"], "unsaid")
    if rate is not None and workers != 1 and not (shared or said):
        _warn_of_the_total(float(rate), workers)
    return MapOptions(
        mode=mode,
        workers=workers,
        ordered=reading.check("ordered"),
        progress=reading.check("progress"),
        chunk_size=_checked_chunk_size(reading, mode),
        one_limit=shared or scope == "total",
        attempt_timeout=_checked_attempt_timeout(reading, mode, executor),
        start_method=_checked_start_method(reading, mode, executor),
        executor=executor,
        raises=reading.check("on_error") == "raise",
        loop=_checked_loop(reading, mode),
        unpack=reading.check("unpack"),
        with_items=reading.check("with_items"),
        max_errors=_checked_max_errors(reading),
        setup=worker_options(reading, mode, executor),
        in_caller=reading.check("read_in") == "caller",
        read_ahead=reading.check("read_ahead"),
        total=_checked_total(reading),
    )


def _cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "process_cpu_count"):  # since Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _warn_of_the_total(rate: float, workers: int | None) -> None:
    """Warn callers who may not know that each worker has the rate to itself."""
    count = "each of the executor's workers" if workers is None else f"each of {workers} workers"
    total = "" if workers is None else f", {rate * workers:g} per second in all"
    warnings.warn(
        f"rate_limit={rate:g} applies to {count}{total}: use rate_limit_scope='worker' if you want "
        f"that, or rate_limit_scope='total' for {rate:g} per second in all",
        stacklevel=4,  # the caller of `opmap`
    )


def check_function(plan: MapOptions, call: State, signature: inspect.Signature | None) -> None:
    """Check that a function can be mapped with these options.

    Args:
        plan: How to map it.
        call: The state of the function under `@opero`.
        signature: Its parameters; None if they are unknown.

    Raises:
        TypeError: If it does not take an item.
        ValueError: If it does not work with the mode.
    """
    mode, name = plan.mode, call.name
    asynchronous = call.awaited
    if asynchronous and mode in {"thread", "process"}:
        other = "async" if mode == "thread" else "async_process"
        raise ValueError(f"mode={mode!r}: {name} is a coroutine function; use mode={other!r}")
    if not asynchronous and mode in {"async", "async_process"}:
        other = "thread" if mode == "async" else "process"
        raise ValueError(f"mode={mode!r}: {name} is not a coroutine function; use mode={other!r}")
    if signature is None or plan.unpack:
        return
    parameters = list(signature.parameters.values())
    leading = 1 if bound_to(call) else 0
    try:
        signature.bind_partial(None)
    except TypeError:
        raise TypeError(
            f"opmap passes the item by position, but {name}{signature} takes no positional "
            f"argument: add a parameter for the item"
        ) from None
    for parameter in parameters[1 + leading :]:
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise TypeError(
                f"opmap passes every argument except the item by keyword, but {name}{signature} "
                f"takes {parameter.name!r} by position only"
            )


def _checked_executor(reading: Reading, mode: str) -> Executor | None:
    executor: Executor | None = reading.check("executor")
    if executor is not None and mode not in {"thread", "process"}:
        raise ValueError(
            f"executor={shown(executor)} is not allowed with mode={mode!r}: an executor runs "
            f"ordinary functions; leave one of them out"
        )
    return executor


def _checked_chunk_size(reading: Reading, mode: str) -> int:
    size: int = reading.check("chunk_size") or 0
    for name in ("rate_limit", "timeout"):
        # coroutines of a chunk start together, so it may be as small as that group
        some = name == "timeout" and mode == "async_process"
        if size > 1 and reading.values[name] is not None and not some:
            raise ValueError(
                f"chunk_size={size} has no effect with {name}=, which hands out items one by one, "
                f"each when it may start: leave chunk_size out"
            )
    return size


def _checked_attempt_timeout(
    reading: Reading, mode: str, executor: Executor | None
) -> float | None:
    seconds: float | None = reading.check("attempt_timeout")
    if seconds is not None and (mode == "thread" or executor is not None):
        raise ValueError(
            f"attempt_timeout={shown(reading.values['attempt_timeout'])}: opero cannot stop a "
            f"running thread, nor what an executor runs; use mode='process', or mode='async' for "
            f"coroutine functions"
        )
    return seconds


def _checked_start_method(reading: Reading, mode: str, executor: Executor | None) -> str | None:
    method: str | None = reading.check("start_method")
    if method is not None and executor is not None:
        raise ValueError(
            f"start_method={method!r}: the executor starts its workers itself: leave it out"
        )
    if method is not None and mode not in {"process", "async_process"}:
        raise ValueError(
            f"start_method={method!r}: only mode='process' and mode='async_process' start processes"
        )
    return method


def _checked_max_errors(reading: Reading) -> float | None:
    most: float | None = reading.check("max_errors")
    if most is not None and reading.check("on_error") == "raise":
        raise ValueError(
            f"max_errors={most!r} has no effect with on_error='raise', which ends the map with the "
            f"first item that fails: leave one of them out"
        )
    return most


def _checked_total(reading: Reading) -> int | None:
    total: int | None = reading.check("total")
    if total is not None and reading.values["progress"] is False:
        raise ValueError(f"total={total} has no effect with progress=False: leave one of them out")
    return total


def _checked_loop(reading: Reading, mode: str) -> str:
    choice: str = reading.check("loop")
    if choice != "auto" and mode not in {"async", "async_process"}:
        raise ValueError(
            f"loop={choice!r}: only mode='async' and mode='async_process' have an event loop"
        )
    if choice == "uvloop" and find_spec("uvloop") is None:
        raise ValueError("loop='uvloop': uvloop is not installed; use 'auto' or 'asyncio'")
    return choice
