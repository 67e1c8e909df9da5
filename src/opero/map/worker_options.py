"""The options that say how to set up and when to renew a worker, and their checks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from opero.options import Reading
from opero.options.checks import shown

_PROCESSES = ("process", "async_process")


@dataclass(frozen=True)
class WorkerOptions:
    """What each worker does before its first item, and when it is renewed.

    Attributes:
        init: The function to call before the first item, or None.
        items: How many items it gets before it is renewed; 0 for no limit.
        memory: How many bytes of resident memory it may hold before that; 0 for no limit.
    """

    init: Callable[[], object] | None = None
    items: int = 0
    memory: int = 0


def worker_options(reading: Reading, mode: str, executor: Executor | None) -> WorkerOptions:
    """Check the options of workers, each alone and in combination.

    Raises:
        TypeError: If an option has the wrong type.
        ValueError: If an option's value is not allowed, or does not work with another option.
    """
    return WorkerOptions(
        init=_checked_init(reading, mode, executor),
        items=_checked_items(reading, mode, executor),
        memory=_checked_memory(reading, mode, executor),
    )


def _checked_init(reading: Reading, mode: str, executor: Executor | None) -> Any:
    init = reading.check("worker_init")
    said = f"worker_init={shown(init)}"
    if init is not None and executor is not None:
        raise ValueError(
            f"{said}: the executor starts its workers itself; give the function to the executor, "
            f"for example ProcessPoolExecutor(initializer=...)"
        )
    if init is not None and mode == "async":
        raise ValueError(
            f"{said}: in mode='async' all items run in one thread; do it before the map, or use "
            f"mode='async_process'"
        )
    return init


def _checked_items(reading: Reading, mode: str, executor: Executor | None) -> int:
    most: int = reading.check("max_items_per_worker") or 0
    if most:
        _check_processes(f"max_items_per_worker={most}", mode, executor)
        chunk = reading.check("chunk_size") or 0
        if chunk > most:
            raise ValueError(
                f"chunk_size={chunk} is more than max_items_per_worker={most}: a worker is renewed "
                f"between two chunks; use a smaller chunk_size"
            )
    return most


def _checked_memory(reading: Reading, mode: str, executor: Executor | None) -> int:
    most: int = reading.check("max_memory_per_worker") or 0
    if most:
        said = f"max_memory_per_worker={most}"
        _check_processes(said, mode, executor)
        from .engines.processes.memory import MEASURED

        if not MEASURED:
            raise ValueError(
                f"{said}: this platform does not say how much memory a process has; use "
                f"max_items_per_worker="
            )
    return most


def _check_processes(said: str, mode: str, executor: Executor | None) -> None:
    if executor is not None:
        raise ValueError(
            f"{said}: the executor renews its workers itself, or not at all: leave it out"
        )
    if mode not in _PROCESSES:
        raise ValueError(
            f"{said}: only mode='process' and mode='async_process' have workers to renew"
        )
