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
"""The greatest number of workers; each costs a little memory before it does anything."""


def _choice(*words: str) -> Any:
    def check(name: str, value: Any) -> str:
        return checks.choice(name, value, words)

    return check


def _workers(name: str, value: Any) -> int:
    workers = checks.whole(name, value)
    if workers < 1:
        checks.wrong(name, value, "1 or more", hint="None means the CPUs of this process")
    if workers > _MOST_WORKERS:
        checks.wrong(name, value, f"{_MOST_WORKERS} at most")
    return workers


def _progress(name: str, value: Any) -> Any:
    allowed = "True, False, 'log' or an ordinary function of a Progress"
    if isinstance(value, bool) or (isinstance(value, str) and value == "log"):
        return value
    return checks.function(name, value, allowed)


def _max_errors(name: str, value: Any) -> float:
    allowed = "a whole number from 1 on, or a share between 0.0 and 1.0"
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
        pass  # nobody knows what it takes
    except TypeError as error:
        called = getattr(found, "__qualname__", None) or checks.shown(found)
        raise TypeError(
            f"{name}={called} is not allowed: it is called without arguments, and is {error}; use "
            f"functools.partial({called}, ...), which gives it its arguments"
        ) from None
    return found


def _bytes(name: str, value: Any) -> int:
    allowed = "a number of bytes"
    if isinstance(value, str):
        checks.wrong(name, value, allowed, TypeError, "512 MiB are 512 * 2**20")
    try:
        size = operator.index(value)
    except TypeError:
        size = None
    if size is None or isinstance(value, bool):
        checks.wrong(name, value, allowed, TypeError)
    if size < _LEAST_MEMORY:
        hint = "no worker takes less; 512 MiB are 512 * 2**20"
        checks.wrong(name, value, f"{_LEAST_MEMORY} bytes or more", hint=hint)
    return size


def _executor(name: str, value: Any) -> Executor:
    if not isinstance(value, Executor):
        allowed = "a concurrent.futures.Executor"
        if hasattr(value, "get_executor"):
            allowed += ", such as its get_executor() returns"
        checks.wrong(name, value, allowed, TypeError)
    return value


MAP_ROWS: tuple[Option, ...] = (
    Option(
        "mode",
        "process",
        "ParallelMode",
        _choice(*MODES),
        'Where attempts are made: "thread" and "process" for ordinary functions, "async" (one '
        'event loop) and "async_process" (one in each process) for coroutine functions.',
        _MAP,
        also=("backend", "kind", "parallel", "prefer", "parallel_mode", "executor_type"),
        more="See [choosing a mode](modes.md).",
    ),
    Option(
        "workers",
        4,
        "int | None",
        partial(optional, _workers),
        "How many threads or processes, or coroutines at once; None for as many as there are CPUs "
        "for this process. With `executor`, how many jobs it is given at once; None for as many as "
        "it has workers.",
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
        "Whether results come in the order of the items, or as they are ready.",
        _MAP,
        also=("order", "keep_order", "preserve_order", "as_completed", "unordered"),
    ),
    Option(
        "progress",
        True,
        'bool | Literal["log"] | Callable[[Progress], object]',
        _progress,
        'Whether a bar is shown, in a terminal or a notebook; "log" for a line in the log every '
        "30 seconds; or a function that gets a `Progress`, ten times a second at most and once at "
        "the end.",
        _MAP,
        also=("show_progress", "progress_bar", "tqdm", "verbose", "desc"),
    ),
    Option(
        "chunk_size",
        None,
        "int | None",
        partial(optional, checks.count),
        "How many items are handed to a worker at once; None to go by measured time. Not with a "
        "`rate_limit` or a `timeout`, which hand them out one by one.",
        _MAP,
        also=("chunksize", "batch_size", "batch", "chunk", "chunks"),
    ),
    Option(
        "rate_limit_scope",
        "worker",
        'Literal["worker", "total"]',
        _choice(*SCOPES),
        'Whether `rate_limit` counts for each worker or, "total", for the whole map. A '
        "`RateLimiter` counts for all who share it.",
        _MAP,
        needs=("rate_limit",),
        also=("scope", "limit_scope", "rate_scope"),
    ),
    Option(
        "start_method",
        None,
        'Literal["forkserver", "spawn", "fork"] | None',
        partial(optional, _start_method),
        'How processes are started: "forkserver", "spawn" or "fork"; None for the first of these '
        "that there is.",
        _MAP,
        also=("mp_context", "context", "method", "mp_start_method"),
    ),
    Option(
        "worker_init",
        None,
        "Callable[[], object] | None",
        partial(optional, _worker_init),
        "A function without arguments that each worker calls before its first item: it loads a "
        "model, or opens a connection. Not for `async`.",
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
        "After how many items a worker process is renewed; its successor starts before it ends.",
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
        "At how many bytes of resident memory a worker process is renewed, between two chunks.",
        _MAP,
        also=("max_memory_per_child", "worker_max_memory_per_child", "memory_limit", "max_memory"),
        more="See [worker processes](workers.md#workers-that-are-renewed).",
    ),
    Option(
        "executor",
        None,
        "Executor | None",
        partial(optional, _executor),
        "A `concurrent.futures.Executor` that makes the attempts instead of opero's own workers.",
        _MAP,
        also=("pool", "client"),
    ),
    Option(
        "on_error",
        "return",
        'Literal["return", "raise"]',
        _choice("return", "raise"),
        '"return" puts an item\'s failure in its place; "raise" ends the map with the first item '
        "that fails for good.",
        _MAP,
        also=("return_exceptions", "raise_on_error", "fail_fast", "raises"),
    ),
    Option(
        "unpack",
        False,
        "bool",
        checks.flag,
        "Whether an item holds the arguments of its call: a tuple or a list those by position, a "
        "dict those by keyword.",
        _MAP,
        also=("star", "starmap", "unpack_args", "spread"),
    ),
    Option(
        "with_items",
        False,
        "bool",
        checks.flag,
        "Whether each result is paired with its item: `(item, result)`.",
        _MAP,
        also=("return_items", "with_input", "pairs"),
    ),
    Option(
        "max_errors",
        None,
        "float | None",
        partial(optional, _max_errors),
        "The number of items whose failure ends the map; or, as a float, the share of the items "
        "that are done, once there are 20. No more items are handed out then; those that workers "
        "already have are finished, so somewhat more than `max_errors` items may fail; the rest "
        "stand as `NotRun`.",
        _MAP,
        also=("maxfail", "max_failures", "error_limit", "max_errors_ratio"),
    ),
    Option(
        "total",
        None,
        "int | None",
        partial(optional, _total),
        "How many items there are, for the progress of an input without a length.",
        _MAP,
        also=("length", "n_items", "num_items", "expected", "count"),
    ),
    Option(
        "loop",
        "auto",
        'Literal["auto", "uvloop", "asyncio"]',
        _choice(*LOOPS),
        'The event loop: "uvloop", "asyncio", or "auto" for uvloop where it is installed.',
        _MAP,
        also=("event_loop", "use_uvloop", "loop_factory"),
    ),
    Option(
        "read_ahead",
        None,
        "int | None",
        partial(optional, checks.count),
        "How many items at most are read and not done with: in a stream, until their result is "
        "taken. None goes by the workers and by the size of chunks, up to 64 MiB of items.",
        _MAP,
        also=("buffersize", "pre_dispatch", "prefetch", "window", "buffer_size", "lookahead"),
        more="See [how the input is read](opmap.md#how-the-input-is-read).",
    ),
    Option(
        "read_in",
        "thread",
        'Literal["thread", "caller"]',
        _choice("thread", "caller"),
        'Where iterators are read: "thread" for one of the map, or "caller" for yours, if the '
        "input is bound to it, as a SQLite cursor is.",
        _MAP,
        also=("read_from", "input_thread"),
    ),
)
