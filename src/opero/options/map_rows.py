"""The rows of the options that only a map has."""

from __future__ import annotations

import inspect
import operator
from concurrent.futures import Executor
from functools import partial
from typing import Any

from . import checks
from .checks import optional
from .option import Option

MODES: tuple[str, ...] = ("thread", "process", "async", "async_process")
LOOPS: tuple[str, ...] = ("auto", "uvloop", "asyncio")
SCOPES: tuple[str, ...] = ("worker", "total")

_MAP = ("opmap",)
_LEAST_MEMORY = 10 * 2**20
_MOST_WORKERS = 1_000_000
"""The most workers allowed; each takes a little memory before it does anything."""


def _choice(*words: str) -> Any:
    def check(name: str, value: Any) -> str:
        return checks.choice(name, value, words)

    return check


def _workers(name: str, value: Any) -> int:
    workers = checks.whole(name, value)
    if workers < 1:
        hint = "None means as many as this process has CPUs"
        checks.wrong(name, value, "1 or more", hint=hint)
    if workers > _MOST_WORKERS:
        checks.wrong(name, value, f"at most {_MOST_WORKERS}")
    return workers


def _progress(name: str, value: Any) -> Any:
    allowed = "True, False, 'log' or an ordinary function that takes a Progress"
    if isinstance(value, bool) or (isinstance(value, str) and value == "log"):
        return value
    return checks.function(name, value, allowed)


def _max_errors(name: str, value: Any) -> float:
    allowed = "a whole number of 1 or more, or a share between 0.0 and 1.0"
    if isinstance(value, float):
        if not 0.0 < value <= 1.0:
            checks.wrong(name, value, allowed)
        return float(value)
    most = checks.whole(name, value, hint="or a share, such as 0.1")
    if most < 1:
        checks.wrong(name, value, allowed, hint="1 ends the map with the first item that fails")
    return most


def _total(name: str, value: Any) -> int:
    items = checks.whole(name, value)
    if items < 0:
        checks.wrong(name, value, "0 or more")
    return items


def _start_method(name: str, value: Any) -> str:
    import multiprocessing

    return checks.choice(name, value, tuple(multiprocessing.get_all_start_methods()))


def _worker_init(name: str, value: Any) -> Any:
    allowed = "an ordinary function without arguments, or a functools.partial of one"
    found = checks.function(name, value, allowed)
    try:
        inspect.signature(found).bind()
    except ValueError:
        pass  # its signature is unknown
    except TypeError as error:
        called = getattr(found, "__qualname__", None) or checks.shown(found)
        raise TypeError(
            f"{name}={called} is not allowed: workers call it without arguments ({error}); use "
            f"functools.partial({called}, ...) to give it its arguments"
        ) from None
    return found


def _bytes(name: str, value: Any) -> int:
    allowed = "a number of bytes"
    if isinstance(value, str):
        checks.wrong(name, value, allowed, TypeError, "512 MiB is 512 * 2**20")
    try:
        size = operator.index(value)
    except TypeError:
        size = None
    if size is None or isinstance(value, bool):
        checks.wrong(name, value, allowed, TypeError)
    if size < _LEAST_MEMORY:
        hint = "no worker takes less; 512 MiB is 512 * 2**20"
        checks.wrong(name, value, f"{_LEAST_MEMORY} bytes or more", hint=hint)
    return size


def _executor(name: str, value: Any) -> Executor:
    if not isinstance(value, Executor):
        allowed = "a concurrent.futures.Executor"
        if hasattr(value, "get_executor"):
            allowed += ", such as the one that its get_executor() returns"
        checks.wrong(name, value, allowed, TypeError)
    return value


MAP_ROWS: tuple[Option, ...] = (
    Option(
        "mode",
        "process",
        "ParallelMode",
        _choice(*MODES),
        'Where attempts run: "thread" and "process" for ordinary functions, "async" (one event '
        'loop) and "async_process" (one in each process) for coroutine functions.',
        _MAP,
        also=("backend", "kind", "parallel", "prefer", "parallel_mode", "executor_type"),
        more="See [choosing a mode](modes.md).",
    ),
    Option(
        "workers",
        4,
        "int | None",
        partial(optional, _workers),
        "How many threads, processes or concurrent coroutines; None for as many as this process "
        "has CPUs. With `executor`: how many jobs it gets at a time; None for as many as it has "
        "workers.",
        _MAP,
        also=(
            *("n_jobs", "max_workers", "num_workers", "n_workers", "processes", "threads", "jobs"),
            *("concurrency", "max_concurrency", "pool_size", "nproc", "parallelism"),
        ),
    ),
    Option(
        "ordered",
        True,
        "bool",
        checks.flag,
        "Whether results come in the order of the items; if False, as soon as they are ready.",
        _MAP,
        also=("order", "keep_order", "preserve_order", "as_completed", "unordered"),
    ),
    Option(
        "progress",
        True,
        'bool | Literal["log"] | Callable[[Progress], object]',
        _progress,
        'Whether to show a bar in a terminal or a notebook; "log" for a line in the log every '
        "30 seconds; or a function that takes a `Progress`, called at most ten times a second and "
        "once at the end.",
        _MAP,
        also=("show_progress", "progress_bar", "tqdm", "verbose", "desc"),
    ),
    Option(
        "chunk_size",
        None,
        "int | None",
        partial(optional, checks.count),
        "How many items a worker gets at a time; None sizes chunks by measured time. Not with a "
        "`rate_limit` or a `timeout`: with them, workers get one item at a time.",
        _MAP,
        also=("chunksize", "batch_size", "batch", "chunk", "chunks"),
    ),
    Option(
        "rate_limit_scope",
        "worker",
        'Literal["worker", "total"]',
        _choice(*SCOPES),
        'Whether `rate_limit` applies to each worker or, with "total", to the whole map. A '
        "`RateLimiter` applies to all who share it.",
        _MAP,
        needs=("rate_limit",),
        also=("scope", "limit_scope", "rate_scope"),
    ),
    Option(
        "start_method",
        None,
        'Literal["forkserver", "spawn", "fork"] | None',
        partial(optional, _start_method),
        'How processes start: "forkserver", "spawn" or "fork"; None for the first of these that '
        "this platform has.",
        _MAP,
        also=("mp_context", "context", "method", "mp_start_method"),
    ),
    Option(
        "worker_init",
        None,
        "Callable[[], object] | None",
        partial(optional, _worker_init),
        "A function without arguments that each worker calls before its first item, such as to "
        "load a model or open a connection. Not for `async`.",
        _MAP,
        also=(
            *("initializer", "init", "initialiser", "worker_initializer", "worker_setup", "setup"),
            *("on_worker_start", "worker_start", "init_worker"),
        ),
        more="See [worker processes](workers.md#something-that-each-worker-has-once).",
    ),
    Option(
        "max_items_per_worker",
        None,
        "int | None",
        partial(optional, checks.count),
        "How many items a worker process gets before it is replaced; its successor starts first.",
        _MAP,
        also=(
            *(
                "max_tasks_per_child",
                "maxtasksperchild",
                "worker_lifespan",
                "max_items",
                "lifespan",
            ),
            *("max_tasks_per_worker", "max_tasks"),
        ),
        more="See [worker processes](workers.md#workers-that-are-renewed).",
    ),
    Option(
        "max_memory_per_worker",
        None,
        "int | None",
        partial(optional, _bytes),
        "How many bytes of resident memory a worker process may hold before it is replaced, "
        "between two chunks.",
        _MAP,
        also=("max_memory_per_child", "worker_max_memory_per_child", "memory_limit", "max_memory"),
        more="See [worker processes](workers.md#workers-that-are-renewed).",
    ),
    Option(
        "executor",
        None,
        "Executor | None",
        partial(optional, _executor),
        "A `concurrent.futures.Executor` that runs the attempts instead of opero's own workers.",
        _MAP,
        also=("pool", "client"),
    ),
    Option(
        "on_error",
        "return",
        'Literal["return", "raise"]',
        _choice("return", "raise"),
        '"return" puts a failure where the item\'s result would be; "raise" ends the map with the '
        "first item that fails for good.",
        _MAP,
        also=("return_exceptions", "raise_on_error", "fail_fast", "raises"),
    ),
    Option(
        "unpack",
        False,
        "bool",
        checks.flag,
        "Whether an item holds the arguments of its call: a tuple or list the positional ones, a "
        "dict the keyword ones.",
        _MAP,
        also=("star", "starmap", "unpack_args", "spread"),
    ),
    Option(
        "with_items",
        False,
        "bool",
        checks.flag,
        "Whether to pair each result with its item: `(item, result)`.",
        _MAP,
        also=("return_items", "with_input", "pairs"),
    ),
    Option(
        "max_errors",
        None,
        "float | None",
        partial(optional, _max_errors),
        "How many failed items end the map; or, as a float, the share of failures among the items "
        "done, once 20 are done. Then no more items are handed out. Workers finish the items that "
        "they have, so a few more than `max_errors` may fail. The rest become `NotRun`.",
        _MAP,
        also=("maxfail", "max_failures", "error_limit", "max_errors_ratio"),
    ),
    Option(
        "total",
        None,
        "int | None",
        partial(optional, _total),
        "The number of items, for the progress of an input without a length.",
        _MAP,
        also=("length", "n_items", "num_items", "expected", "count"),
    ),
    Option(
        "loop",
        "auto",
        'Literal["auto", "uvloop", "asyncio"]',
        _choice(*LOOPS),
        'The event loop: "uvloop", "asyncio", or "auto" for uvloop if it is installed.',
        _MAP,
        also=("event_loop", "use_uvloop", "loop_factory"),
    ),
    Option(
        "read_ahead",
        None,
        "int | None",
        partial(optional, checks.count),
        "The most items that are read but not done; in a stream, an item is done once you take "
        "its result. None: as many as the workers and the size of chunks need, up to 64 MiB.",
        _MAP,
        also=("buffersize", "pre_dispatch", "prefetch", "window", "buffer_size", "lookahead"),
        more="See [how the input is read](opmap.md#how-the-input-is-read).",
    ),
    Option(
        "read_in",
        "thread",
        'Literal["thread", "caller"]',
        _choice("thread", "caller"),
        'Which thread reads iterators: "thread" for one that the map starts, or "caller" for '
        "yours, if the input is bound to it, as a SQLite cursor is.",
        _MAP,
        also=("read_from", "input_thread"),
    ),
)
