"""Who maps: opero, and what people use for it today, opened as their READMEs show it.

What can be kept open between maps is kept open, so that no side pays for its start; all processes
are started the way that opero starts them, where a peer lets one choose. Where a library leaves the
size of a chunk to the user (`concurrent.futures` takes one item at a time), it gets that which
`Pool.map` would choose, so that a ratio never flatters opero. Every opener imports its library
itself: one that is not installed is reported as missing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from typing import Any

from benchmarks.implementations import NAMES, Implementation, using
from benchmarks.rows import Function
from opero import opmap
from opero.map.engines.processes.start import DEFAULT as START_METHOD

Mapper = Callable[[Sequence[Any]], "list[Any]"]
"""Maps a batch, and returns the results in its order."""

Streamer = Callable[[Iterable[Any]], "Iterator[Any]"]
"""Maps lazily, as far as the side can."""

PROCESSES = max(2, min(4, os.cpu_count() or 1))
"""How many worker processes each side has."""

THREADS = 4
"""How many threads each side has."""

SLOTS = 100
"""How many coroutines each side runs at once."""


@dataclass(frozen=True)
class Peer:
    """A side that is not opero.

    Args:
        name: How the table calls it.
        open: Takes the function and the number of workers; a context manager for the `Mapper`.
        most: How many items it gets at most; a slow one would take minutes for all of them.
    """

    name: str
    open: Callable[[Function, int], AbstractContextManager[Mapper]]
    most: int | None = None


def opero_map(
    function: Function, implementation: Implementation = "compiled", **options: Any
) -> Any:
    """A function under `@opmap`, without a bar.

    Args:
        function: What to map.
        implementation: `compiled` or `plain`.
        **options: Those of `opmap`.

    Returns:
        The map.
    """
    with using(implementation):
        return opmap(progress=False, **options)(function)


def chunk(items: Sequence[Any], workers: int) -> int:
    """The size of chunk that `multiprocessing.Pool.map` chooses: four for each worker."""
    return max(1, -(-len(items) // (4 * workers)))


# --- processes ------------------------------------------------------------------------------------


@contextmanager
def _pool(function: Function, workers: int) -> Iterator[Mapper]:
    with get_context(START_METHOD).Pool(workers) as pool:
        yield lambda items: pool.map(function, items)
        pool.close()
        pool.join()


@contextmanager
def _pool_one_by_one(function: Function, workers: int) -> Iterator[Mapper]:
    with get_context(START_METHOD).Pool(workers) as pool:
        yield lambda items: pool.map(function, items, chunksize=1)
        pool.close()
        pool.join()


@contextmanager
def _process_executor(function: Function, workers: int) -> Iterator[Mapper]:
    with ProcessPoolExecutor(workers, get_context(START_METHOD)) as executor:
        yield lambda items: list(executor.map(function, items, chunksize=chunk(items, workers)))


@contextmanager
def _mpire(function: Function, workers: int) -> Iterator[Mapper]:
    pools = import_module("mpire")
    with pools.WorkerPool(workers, start_method=START_METHOD, keep_alive=True) as pool:
        yield lambda items: pool.map(function, items)
        pool.stop_and_join()


@contextmanager
def _joblib(function: Function, workers: int) -> Iterator[Mapper]:
    joblib = import_module("joblib")
    delayed = joblib.delayed(function)
    try:
        with joblib.Parallel(workers) as parallel:
            yield lambda items: list(parallel(delayed(item) for item in items))
    finally:
        _end_workers_of_joblib()


def _end_workers_of_joblib() -> None:
    """End what joblib keeps for five minutes, to use it again."""
    import_module("joblib.externals.loky").get_reusable_executor().shutdown(wait=True)


@contextmanager
def _loky(function: Function, workers: int) -> Iterator[Mapper]:
    loky = import_module("joblib.externals.loky")
    with loky.ProcessPoolExecutor(workers) as executor:
        yield lambda items: list(executor.map(function, items, chunksize=chunk(items, workers)))


@contextmanager
def _process_map(function: Function, workers: int) -> Iterator[Mapper]:
    concurrent = import_module("tqdm.contrib.concurrent")
    # without the thread that looks after bars, of which there is none
    bar = type("Bar", (import_module("tqdm").tqdm,), {"monitor_interval": 0})
    yield lambda items: list(
        concurrent.process_map(
            function,
            items,
            max_workers=workers,
            chunksize=chunk(items, workers),
            disable=True,
            tqdm_class=bar,
        )
    )


@contextmanager
def _pyarallel(function: Function, workers: int) -> Iterator[Mapper]:
    parallel_map = import_module("pyarallel").parallel_map
    yield lambda items: list(parallel_map(function, items, workers=workers, executor="process"))


POOL = Peer("Pool.map", _pool)
POOL_ONE_BY_ONE = Peer("Pool.map, chunksize=1", _pool_one_by_one)
PROCESS_EXECUTOR = Peer("ProcessPoolExecutor", _process_executor)
MPIRE = Peer("mpire", _mpire)
JOBLIB = Peer("joblib", _joblib)
LOKY = Peer("loky", _loky)
PROCESS_MAP = Peer("process_map", _process_map)
PYARALLEL = Peer("pyarallel", _pyarallel, most=1_000)

OF_PROCESSES = (POOL, PROCESS_EXECUTOR, MPIRE, JOBLIB, LOKY, PROCESS_MAP, PYARALLEL)
"""All that map in processes."""


# --- threads --------------------------------------------------------------------------------------


@contextmanager
def _thread_executor(function: Function, workers: int) -> Iterator[Mapper]:
    with ThreadPoolExecutor(workers) as executor:
        yield lambda items: list(executor.map(function, items))


@contextmanager
def _thread_pool(function: Function, workers: int) -> Iterator[Mapper]:
    pool = import_module("multiprocessing.pool").ThreadPool(workers)
    with pool:
        yield lambda items: pool.map(function, items)
        pool.close()
        pool.join()


@contextmanager
def _joblib_threads(function: Function, workers: int) -> Iterator[Mapper]:
    joblib = import_module("joblib")
    delayed = joblib.delayed(function)
    with joblib.Parallel(workers, backend="threading") as parallel:
        yield lambda items: list(parallel(delayed(item) for item in items))


@contextmanager
def _pyarallel_threads(function: Function, workers: int) -> Iterator[Mapper]:
    parallel_map = import_module("pyarallel").parallel_map
    yield lambda items: list(parallel_map(function, items, workers=workers, executor="thread"))


THREAD_EXECUTOR = Peer("ThreadPoolExecutor.map", _thread_executor)

OF_THREADS = (
    THREAD_EXECUTOR,
    Peer("multiprocessing ThreadPool.map", _thread_pool),
    Peer("joblib, threading", _joblib_threads),
    Peer("pyarallel", _pyarallel_threads, most=5_000),
)
"""All that map in threads."""


# --- coroutines -----------------------------------------------------------------------------------


async def _gathered(function: Function, items: Sequence[Any], slots: int) -> list[Any]:
    semaphore = asyncio.Semaphore(slots)

    async def one(item: Any) -> Any:
        async with semaphore:
            return await function(item)

    return await asyncio.gather(*(one(item) for item in items))


def _new_loop(kind: str) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = import_module(kind).new_event_loop()
    return loop


def gather(kind: str) -> Peer:
    """`asyncio.gather` with a semaphore.

    Args:
        kind: Whose event loop it runs in: "uvloop" or "asyncio".
    """

    @contextmanager
    def opened(function: Function, slots: int) -> Iterator[Mapper]:
        loop = _new_loop(kind)
        yield lambda items: loop.run_until_complete(_gathered(function, items, slots))
        loop.close()

    return Peer("gather", opened)


def pyarallel_coroutines(kind: str) -> Peer:
    """The map of pyarallel over coroutines, in an event loop of this kind."""

    @contextmanager
    def opened(function: Function, slots: int) -> Iterator[Mapper]:
        parallel_map = import_module("pyarallel").async_parallel_map
        loop = _new_loop(kind)
        yield lambda items: list(
            loop.run_until_complete(parallel_map(function, items, concurrency=slots))
        )
        loop.close()

    return Peer("pyarallel", opened, most=10_000)


# --- lazily ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """A side that hands its results on one by one.

    Args:
        name: How the table calls it.
        open: Takes the function and the number of workers; a context manager for the `Streamer`.
        coroutines: Whether it maps coroutine functions.
    """

    name: str
    open: Callable[[Function, int], AbstractContextManager[Streamer]]
    coroutines: bool = False


@contextmanager
def _imap(function: Function, workers: int) -> Iterator[Streamer]:
    with get_context(START_METHOD).Pool(workers) as pool:
        yield lambda items: pool.imap(function, items, chunksize=100)
        pool.close()
        pool.join()


@contextmanager
def _process_executor_stream(function: Function, workers: int) -> Iterator[Streamer]:
    with ProcessPoolExecutor(workers, get_context(START_METHOD)) as executor:
        yield lambda items: executor.map(function, items, chunksize=100)


@contextmanager
def _mpire_stream(function: Function, workers: int) -> Iterator[Streamer]:
    pools = import_module("mpire")
    with pools.WorkerPool(workers, start_method=START_METHOD, keep_alive=True) as pool:
        yield lambda items: pool.imap(function, items, chunk_size=100)
        pool.stop_and_join()


@contextmanager
def _joblib_stream(function: Function, workers: int) -> Iterator[Streamer]:
    joblib = import_module("joblib")
    delayed = joblib.delayed(function)
    parallel = joblib.Parallel(workers, return_as="generator")
    try:
        yield lambda items: parallel(delayed(item) for item in items)
    finally:
        _end_workers_of_joblib()


@contextmanager
def _thread_executor_stream(function: Function, workers: int) -> Iterator[Streamer]:
    with ThreadPoolExecutor(workers) as executor:
        yield lambda items: executor.map(function, items)


POOL_STREAM = Stream("Pool.imap", _imap)
THREAD_EXECUTOR_STREAM = Stream("ThreadPoolExecutor.map", _thread_executor_stream)

PROCESS_EXECUTOR_STREAM = Stream("ProcessPoolExecutor", _process_executor_stream)

STREAMS_OF_PROCESSES = (
    POOL_STREAM,
    PROCESS_EXECUTOR_STREAM,
    Stream("mpire", _mpire_stream),
    Stream("joblib", _joblib_stream),
)
"""All that stream from processes; those that let one choose get chunks of 100 items."""


def opero_stream(mode: str, implementation: Implementation) -> Stream:
    """The side of opero in a stream.

    Args:
        mode: The mode.
        implementation: `compiled` or `plain`.
    """

    @contextmanager
    def opened(function: Function, workers: int) -> Iterator[Streamer]:
        mapped = opero_map(function, implementation, mode=mode, workers=workers)
        yield mapped.stream

    return Stream(f"opero {mode} {implementation}", opened, mode == "async")


@contextmanager
def _gather_stream(function: Function, workers: int) -> Iterator[Streamer]:
    loop = _new_loop("uvloop")
    yield lambda items: iter(loop.run_until_complete(_gathered(function, items, workers)))
    loop.close()


STREAMS_OF_COROUTINES = (Stream("gather", _gather_stream, coroutines=True),)
"""What takes the place of a stream of coroutines."""

STREAMS = (
    *(opero_stream(mode, half) for mode in ("process", "thread", "async") for half in NAMES),
    *STREAMS_OF_PROCESSES,
    THREAD_EXECUTOR_STREAM,
    *STREAMS_OF_COROUTINES,
)
"""All of them, for an interpreter that is told one's name."""


def workers_of(mode: str) -> int:
    """How many workers each side of a mode has."""
    return {"process": PROCESSES, "thread": THREADS, "async": SLOTS}[mode]
