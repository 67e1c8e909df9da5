"""The options of a map that a single call does not have, and every check that they have to pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from opero.options import check_choice, check_count, check_flag, check_positive

MODES = ("thread", "process", "async", "async_process")
LOOPS = ("auto", "uvloop", "asyncio")


@dataclass(frozen=True)
class MapPlan:
    """How a function is mapped over items, checked.

    Attributes:
        mode: Where the attempts are made: one of `MODES`.
        workers: How many threads, processes or coroutines at once.
        ordered: Whether results come in the order of the items.
        progress: Whether a bar is shown; or what is told of the progress.
        chunk_size: Items handed out at once; 0 to go by measured time.
        total: Whether the rate limit is one for the whole map, not for each worker.
        attempt_timeout: Seconds for one attempt; None for no bound.
        start_method: How processes are started; None for the best there is.
        executor: What runs the attempts instead of opero's own workers; None without.
        raises: Whether the first item that fails for good ends the map.
        loop: Which event loop: one of `LOOPS`.
    """

    mode: str
    workers: int
    ordered: bool
    progress: bool | Callable[[Any], object]
    chunk_size: int
    total: bool
    attempt_timeout: float | None
    start_method: str | None
    executor: Executor | None
    raises: bool
    loop: str


def map_plan(function: Any, options: dict[str, Any], shared_limit: bool) -> MapPlan:
    """Check the options of one map against each other and against the function.

    Args:
        function: What is decorated.
        options: The options, by name.
        shared_limit: Whether the rate limit is a `RateLimiter`, which others may share.

    Raises:
        TypeError: If an option has the wrong type.
        ValueError: If an option's value is not allowed, or does not go with another or with the
            function.
    """
    mode = check_choice("mode", options["mode"], MODES)
    progress = options["progress"]
    if not callable(progress):
        check_flag("progress", progress)
    chunk_size = options["chunk_size"]
    timeout = options["attempt_timeout"]
    start_method = options["start_method"]
    executor = options["executor"]
    if start_method is not None:
        import multiprocessing

        check_choice("start_method", start_method, tuple(multiprocessing.get_all_start_methods()))
        if mode not in {"process", "async_process"} or executor is not None:
            raise ValueError(
                f"start_method={start_method!r}: only mode='process' and mode='async_process' "
                f"start processes"
            )
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor={executor!r}: use a concurrent.futures.Executor")
    if executor is not None and mode not in {"thread", "process"}:
        raise ValueError(f"executor=... beside mode={mode!r}: an executor runs ordinary functions")
    if timeout is not None:
        timeout = check_positive("attempt_timeout", timeout)
        if mode == "thread" or executor is not None:
            raise ValueError(
                f"attempt_timeout={timeout!r}: a running thread cannot be stopped, nor can what "
                f"an executor runs; use mode='process', or mode='async' for coroutine functions"
            )
    asynchronous = inspect.iscoroutinefunction(function)
    name = getattr(function, "__qualname__", repr(function))
    if asynchronous and mode in {"thread", "process"}:
        raise ValueError(
            f"mode={mode!r}: {name} is a coroutine function; use mode="
            f"{'async' if mode == 'thread' else 'async_process'!r}"
        )
    if not asynchronous and mode in {"async", "async_process"}:
        raise ValueError(
            f"mode={mode!r}: {name} is no coroutine function; use mode="
            f"{'thread' if mode == 'async' else 'process'!r}"
        )
    scope = check_choice("rate_limit_scope", options["rate_limit_scope"], ("worker", "total"))
    return MapPlan(
        mode=mode,
        workers=check_count("workers", options["workers"]),
        ordered=check_flag("ordered", options["ordered"]),
        progress=progress,
        chunk_size=0 if chunk_size is None else check_count("chunk_size", chunk_size),
        total=shared_limit or scope == "total",
        attempt_timeout=timeout,
        start_method=start_method,
        executor=executor,
        raises=check_choice("on_error", options["on_error"], ("return", "raise")) == "raise",
        loop=check_choice("loop", options["loop"], LOOPS),
    )
