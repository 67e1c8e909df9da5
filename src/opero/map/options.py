"""The options of a map that a single call does not have, and every check that they have to pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from opero.options import check_choice, check_count, check_flag, check_positive

MODES = ("thread", "process", "async", "async_process")
LOOPS = ("auto", "uvloop", "asyncio")
_MOST_WORKERS = 1_000_000
"""The greatest number of workers; each costs a little memory before it does anything."""


@dataclass(frozen=True)
class MapOptions:
    """How a function is mapped over items, checked.

    Attributes:
        mode: Where the attempts are made: one of `MODES`.
        workers: How many threads, processes or coroutines at once; None to ask the executor.
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
    workers: int | None
    ordered: bool
    progress: bool | Callable[[Any], object]
    chunk_size: int
    total: bool
    attempt_timeout: float | None
    start_method: str | None
    executor: Executor | None
    raises: bool
    loop: str


def map_plan(options: dict[str, Any], shared_limit: bool) -> MapOptions:
    """Check the options of one map, each by itself and against the others.

    Args:
        options: The options, by name.
        shared_limit: Whether the rate limit is a `RateLimiter`, which others may share.

    Raises:
        TypeError: If an option has the wrong type.
        ValueError: If an option's value is not allowed, or does not go with another.
    """
    mode = check_choice("mode", options["mode"], MODES)
    chunk_size = options["chunk_size"]
    scope = check_choice("rate_limit_scope", options["rate_limit_scope"], ("worker", "total"))
    executor = _check_executor(options["executor"], mode)
    return MapOptions(
        mode=mode,
        workers=_check_workers(options["workers"], executor),
        ordered=check_flag("ordered", options["ordered"]),
        progress=_check_progress(options["progress"]),
        chunk_size=0 if chunk_size is None else check_count("chunk_size", chunk_size),
        total=shared_limit or scope == "total",
        attempt_timeout=_check_attempt_timeout(options["attempt_timeout"], mode, executor),
        start_method=_check_start_method(options["start_method"], mode, executor),
        executor=executor,
        raises=check_choice("on_error", options["on_error"], ("return", "raise")) == "raise",
        loop=_check_loop(options["loop"], mode),
    )


def check_function(plan: MapOptions, call: Any, signature: inspect.Signature | None) -> None:
    """Check that a function can be mapped so.

    Args:
        plan: How it is to be mapped.
        call: The state of the function under `@opero`.
        signature: Its parameters; None if nobody knows them.

    Raises:
        TypeError: If it does not take an item, or is a class method.
        ValueError: If it does not go with the mode.
    """
    mode, name = plan.mode, call.name
    asynchronous = call.awaited
    if asynchronous and mode in {"thread", "process"}:
        other = "async" if mode == "thread" else "async_process"
        raise ValueError(f"mode={mode!r}: {name} is a coroutine function; use mode={other!r}")
    if not asynchronous and mode in {"async", "async_process"}:
        other = "thread" if mode == "async" else "process"
        raise ValueError(f"mode={mode!r}: {name} is no coroutine function; use mode={other!r}")
    if signature is None:
        return
    parameters = list(signature.parameters.values())
    inside = name.rpartition(".")[0]
    if inside and not inside.endswith("<locals>") and parameters and parameters[0].name == "cls":
        raise TypeError(
            f"opmap maps functions, and {name} is a class method: make it a function of its own, "
            f"or a static method"
        )
    try:
        signature.bind_partial(None)
    except TypeError:
        raise TypeError(
            f"opmap calls a function with an item, and {name}{signature} takes no argument by "
            f"position"
        ) from None
    for parameter in parameters[1:]:
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise TypeError(
                f"opmap gives all arguments but the item by keyword, and {name}{signature} does "
                f"not take {parameter.name!r} so"
            )


def _check_workers(workers: Any, executor: Executor | None) -> int | None:
    if workers is None and executor is not None:
        return None
    if workers is None:
        raise ValueError(_not_allowed("workers", None, "a whole number, but beside executor="))
    count = check_count("workers", workers)
    if count > _MOST_WORKERS:
        raise ValueError(_not_allowed("workers", workers, f"{_MOST_WORKERS} at most"))
    return count


def _check_progress(progress: Any) -> bool | Callable[[Any], object]:
    allowed = "True, False or an ordinary function of a Progress"
    if isinstance(progress, bool):
        return progress
    if not callable(progress) or inspect.iscoroutinefunction(progress):
        raise TypeError(_not_allowed("progress", progress, allowed))
    told: Callable[[Any], object] = progress
    return told


def _check_executor(executor: Any, mode: str) -> Executor | None:
    if executor is None:
        return None
    if not isinstance(executor, Executor):
        allowed = "a concurrent.futures.Executor"
        if hasattr(executor, "get_executor"):
            allowed += ", such as its get_executor() returns"
        raise TypeError(_not_allowed("executor", executor, allowed))
    if mode not in {"thread", "process"}:
        raise ValueError(
            f"executor={executor!r} beside mode={mode!r}: an executor runs ordinary functions; "
            f"leave one of them out"
        )
    return executor


def _check_attempt_timeout(timeout: Any, mode: str, executor: Executor | None) -> float | None:
    if timeout is None:
        return None
    seconds = check_positive("attempt_timeout", timeout)
    if mode == "thread" or executor is not None:
        raise ValueError(
            f"attempt_timeout={timeout!r}: a running thread cannot be stopped, nor can what "
            f"an executor runs; use mode='process', or mode='async' for coroutine functions"
        )
    return seconds


def _check_start_method(method: Any, mode: str, executor: Executor | None) -> str | None:
    if method is None:
        return None
    import multiprocessing

    check_choice("start_method", method, tuple(multiprocessing.get_all_start_methods()))
    if executor is not None:
        raise ValueError(f"start_method={method!r}: the executor starts its workers itself")
    if mode not in {"process", "async_process"}:
        raise ValueError(
            f"start_method={method!r}: only mode='process' and mode='async_process' start processes"
        )
    return str(method)


def _check_loop(loop: Any, mode: str) -> str:
    choice = check_choice("loop", loop, LOOPS)
    if choice != "auto" and mode not in {"async", "async_process"}:
        raise ValueError(
            f"loop={loop!r}: only mode='async' and mode='async_process' have an event loop"
        )
    if choice == "uvloop" and find_spec("uvloop") is None:
        raise ValueError("loop='uvloop': uvloop is not installed; use 'auto' or 'asyncio'")
    return choice


def _not_allowed(option: str, value: Any, allowed: str) -> str:
    return f"{option}={value!r} is not allowed: it has to be {allowed}"
