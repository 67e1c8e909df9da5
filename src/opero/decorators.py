"""The public decorators: `@opero`, `@opmap`, and one for each mechanism.

opero(...) -> options.plan -> assembly.decorate
opmap(...) -> the same, plus map_plan -> assembly.decorate_map
"""

from __future__ import annotations

from . import assembly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from typing import Any, Concatenate, Literal, TypedDict, overload

    from typing_extensions import Unpack

    from opero.map.progress import Progress

    from .functions import (
        Decorated,
        Decorator,
        MapDecorator,
        Mapped,
        ModeT,
        OnErrorT,
        P,
        R,
        StoreOptions,
        T,
        UnpackT,
        WithItemsT,
    )
    from .limits import Breaker, RateLimiter
    from .options import (
        ArgFallback,
        BreakerConfig,
        CacheBackend,
        CacheConfig,
        CacheKey,
        CallOptions,
        FallbackConfig,
        RateLimitConfig,
        RetryAfter,
        RetryConfig,
        RetryOn,
        RetryOnResult,
        Seconds,
    )

    class _MoreForMap(StoreOptions, total=False):
        jitter: bool
        burst: int
        adaptive: bool
        rate_floor: float | None
        timeout: Seconds | None
        attempt_timeout: Seconds | None
        retry: RetryConfig | None
        retry_after: RetryAfter | None
        retry_on_result: RetryOnResult | None
        fallback_on: RetryOn
        breaker: Breaker | BreakerConfig | bool | None
        reraise: bool
        cache_key: CacheKey | None
        cache_backend: CacheBackend
        cache_maxsize: int | None
        cache_refresh: Seconds | None
        cache_stale: Seconds | None
        chunk_size: int | None
        rate_limit_scope: Literal["worker", "total"]
        start_method: Literal["forkserver", "spawn", "fork"] | None
        worker_init: Callable[[], object] | None
        max_items_per_worker: int | None
        max_memory_per_worker: int | None
        executor: Executor | None
        max_errors: float | None
        total: int | None
        loop: Literal["auto", "uvloop", "asyncio"]
        read_ahead: int | None
        read_in: Literal["thread", "caller"]

    class _MoreForCache(StoreOptions, total=False):
        cache_maxsize: int | None
        cache_refresh: Seconds | None
        cache_stale: Seconds | None

    class _MoreForRetry(TypedDict, total=False):
        jitter: bool
        retry_after: RetryAfter | None
        retry_on_result: RetryOnResult | None
        reraise: bool

    class _MoreForRateLimit(TypedDict, total=False):
        burst: int
        adaptive: bool
        rate_floor: float | None

    class _MoreForFallback(TypedDict, total=False):
        fallback_on: RetryOn


class _Default(str):
    """A default that differs from the same text passed by a caller."""

    __slots__ = ()
    unsaid = True


_WORKER: Any = _Default("worker")

if not TYPE_CHECKING:

    def overload(function: Any) -> Any:
        """Replace `typing.overload`, because `import opero` does not import `typing`."""
        return function


@overload
def opero(  # type: ignore[overload-overlap] # a static method can be called too
    retries: staticmethod[P, R], /
) -> staticmethod[P, R]: ...
@overload
def opero(retries: classmethod[T, P, R], /) -> classmethod[T, P, R]: ...
@overload
def opero(retries: Callable[P, R], /) -> Decorated[P, R]: ...
@overload
def opero(
    retries: int = 3,
    backoff_factor: float = 1.5,
    min_delay: Seconds = 0.1,
    max_delay: Seconds = 30.0,
    retry_on: RetryOn = (Exception,),
    arg_fallback: ArgFallback | FallbackConfig | None = None,
    cache: bool | CacheConfig = False,
    cache_ttl: Seconds | None = None,
    cache_key: CacheKey | None = None,
    cache_namespace: str = "opero",
    cache_backend: CacheBackend = "memory",
    rate_limit: float | RateLimitConfig | RateLimiter | None = None,
    *,
    jitter: bool = True,
    burst: int = 1,
    adaptive: bool = False,
    rate_floor: float | None = None,
    timeout: Seconds | None = None,
    attempt_timeout: Seconds | None = None,
    retry: RetryConfig | None = None,
    retry_after: RetryAfter | None = None,
    retry_on_result: RetryOnResult | None = None,
    fallback_on: RetryOn = Exception,
    breaker: Breaker | BreakerConfig | bool | None = None,
    reraise: bool = False,
    cache_maxsize: int | None = 1024,
    cache_refresh: Seconds | None = None,
    cache_stale: Seconds | None = None,
    **kwargs: Unpack[StoreOptions],
) -> Decorator: ...
def opero(
    retries: Any = 3,
    backoff_factor: float = 1.5,
    min_delay: Seconds = 0.1,
    max_delay: Seconds = 30.0,
    retry_on: RetryOn = (Exception,),
    arg_fallback: ArgFallback | FallbackConfig | None = None,
    cache: bool | CacheConfig = False,
    cache_ttl: Seconds | None = None,
    cache_key: CacheKey | None = None,
    cache_namespace: str = "opero",
    cache_backend: CacheBackend = "memory",
    rate_limit: float | RateLimitConfig | RateLimiter | None = None,
    *,
    jitter: bool = True,
    burst: int = 1,
    adaptive: bool = False,
    rate_floor: float | None = None,
    timeout: Seconds | None = None,
    attempt_timeout: Seconds | None = None,
    retry: RetryConfig | None = None,
    retry_after: RetryAfter | None = None,
    retry_on_result: RetryOnResult | None = None,
    fallback_on: RetryOn = Exception,
    breaker: Breaker | BreakerConfig | bool | None = None,
    reraise: bool = False,
    cache_maxsize: int | None = 1024,
    cache_refresh: Seconds | None = None,
    cache_stale: Seconds | None = None,
    **kwargs: Any,
) -> Any:
    """Make a function resilient: cache, retries with backoff, argument fallback, rate limit.

    Works with and without parentheses, on functions, coroutine functions, methods, class methods
    and static methods. On generator functions it works until the first item is out. The order of
    operations is

        deadline( cache + single flight( retries( fallback values(
            breaker( permit( attempt timeout( attempt )))))))

    Args:
        retries: The most attempts in total, the first included; 0 and 1 both mean one.
        backoff_factor: The factor by which the delay's ceiling grows with each attempt, at least 1.
        min_delay: The shortest delay between attempts, in seconds.
        max_delay: The longest delay between attempts, in seconds.
        retry_on: Which exceptions are worth another attempt: a type, a tuple of types, or a
            predicate of the exception. Any other exception is raised immediately, unchanged.
        arg_fallback: The name of a parameter that takes a list or tuple of values to try in order:
            the function finds the current one at index 0. Or `{"parameter": [values]}`: values to
            try one at a time after the caller's own. Or a `FallbackConfig`.
        cache: Whether to cache returned values; or a `CacheConfig`.
        cache_ttl: How many seconds a value stays valid; None means forever.
        cache_key: A function that makes the key from the call's arguments; None uses all arguments.
        cache_namespace: The name by which `clear_cache` finds the values.
        cache_backend: Where to keep values: "memory"; "disk", which outlives the process and which
            all processes on this machine share; or "redis", which machines share too.
        rate_limit: The most attempts to start per second; or a `RateLimitConfig`; or a
            `RateLimiter`, which several functions may share.
        jitter: Whether each delay is random, between `min_delay` and its ceiling; if False, it is
            the ceiling.
        burst: How many attempts may start together after a pause.
        adaptive: Whether the rate falls when the server rejects attempts, and rises again up to
            `rate_limit` while they succeed.
        rate_floor: The lowest rate of an adaptive limit, in attempts per second; None for a
            hundredth of `rate_limit`.
        timeout: The deadline of a whole call in seconds, waits included. No wait begins that would
            end too late. An awaited attempt is cancelled; a running ordinary function cannot be
            stopped.
        attempt_timeout: How many seconds one awaited attempt may take, not counting the waits
            before it. Then opero cancels it, and it has failed with `AttemptTimeout`. Not for
            ordinary functions: nothing can stop a thread.
        retry: A `RetryConfig`, instead of the keywords for retries.
        retry_after: A function that takes the exception and returns how many seconds the server
            asks you to wait, or None; `opero.retry_after` knows the errors of the usual clients.
            The next delay is at least that long, up to `max_delay`, or up to the deadline with a
            `timeout`. If the server asks for longer, the call gives up immediately.
        retry_on_result: A predicate of the returned value; true means that the attempt has failed.
        fallback_on: Which exceptions lead to the next value of `arg_fallback`: a type, a tuple of
            types, or a predicate of the exception.
        breaker: A circuit breaker: True or a `BreakerConfig` for one that belongs to this function;
            or a `Breaker`, which several functions may share. While it is open, no attempt begins.
        reraise: Whether to raise the last attempt's own exception instead of `AllFailedError`.
        cache_maxsize: The most values to keep (for a method: for each instance); None for no limit.
        cache_refresh: How many seconds before the end of `cache_ttl` a hit starts to refresh the
            value in the background; the hit itself returns immediately.
        cache_stale: How many seconds after `cache_ttl` an outdated value may still be served if the
            run fails.
        **kwargs: Options of the stored backends; an error if the chosen backend does not read them.
            `cache_secret` (disk, redis): The secret that signs entries: a `str` or `bytes` of 16
            bytes or more; or a list of them: the first signs, and all verify. None uses the
            environment variable `OPERO_CACHE_SECRET`, or else the user's key file. `cache_version`
            (disk, redis): A version of your choice; entries of other versions are not found.
            `cache_pickle` (disk, redis): Whether values may be pickled. `cache_dir` (disk): The
            directory; None for the user's cache directory. `cache_size_limit` (disk): How many
            bytes the cache may take before the oldest entries are evicted; None for no limit.
            `cache_url` (redis): The server's address: `redis://`, `rediss://` or `unix://`.

    Returns:
        The decorated function, or a decorator. The decorated function keeps its signature and has
        `cache_info`, `cache_clear`, `cache_invalidate`, `stats` and `__wrapped__`.

    Raises:
        TypeError: If an option has the wrong type or does not exist, or if you decorate something
            that is not a function, or cache a generator function.
        ValueError: If an option's value is not allowed, or `arg_fallback` names no parameter.

    A call raises:
        AllFailedError: If every attempt failed. A function with one attempt and no fallback raises
            its own exception.
        DeadlineExceeded: If `timeout` passed, or would pass during the next wait.
        CacheKeyError: If an argument cannot be part of a cache key; the message names it.

    Example:
        ```python
        @opero(retries=3, cache=True, cache_ttl=300)
        def fetch(id: str) -> dict: ...
        ```
    """
    given = _given(locals())
    function = given.pop("retries") if _is_decorated(retries) else None
    checked = _checked("opero", given)
    return _decorator(checked) if function is None else assembly.decorate(function, checked)


@overload
def opmap(mode: Callable[Concatenate[T, P], R], /) -> Mapped[T, P, R | BaseException]: ...
@overload
def opmap(mode: Callable[Concatenate[T, ...], R], /) -> Mapped[T, ..., R | BaseException]: ...
@overload
def opmap(
    mode: ModeT = ...,
    workers: int | None = 4,
    ordered: bool = True,
    progress: bool | Literal["log"] | Callable[[Progress], object] = True,
    retries: int = 3,
    backoff_factor: float = 1.5,
    min_delay: Seconds = 0.1,
    max_delay: Seconds = 30.0,
    retry_on: RetryOn = (Exception,),
    arg_fallback: ArgFallback | FallbackConfig | None = None,
    cache: bool | CacheConfig = False,
    cache_ttl: Seconds | None = None,
    cache_namespace: str = "opero_opmap_item",
    rate_limit: float | RateLimitConfig | RateLimiter | None = None,
    *,
    on_error: OnErrorT = ...,
    unpack: UnpackT = ...,
    with_items: WithItemsT = ...,
    **options: Unpack[_MoreForMap],
) -> MapDecorator[ModeT, OnErrorT, UnpackT, WithItemsT]: ...
def opmap(
    mode: Any = "process",
    workers: int | None = 4,
    ordered: bool = True,
    progress: bool | Literal["log"] | Callable[[Progress], object] = True,
    retries: int = 3,
    backoff_factor: float = 1.5,
    min_delay: Seconds = 0.1,
    max_delay: Seconds = 30.0,
    retry_on: RetryOn = (Exception,),
    arg_fallback: ArgFallback | FallbackConfig | None = None,
    cache: bool | CacheConfig = False,
    cache_ttl: Seconds | None = None,
    cache_namespace: str = "opero_opmap_item",
    rate_limit: float | RateLimitConfig | RateLimiter | None = None,
    *,
    jitter: bool = True,
    burst: int = 1,
    adaptive: bool = False,
    rate_floor: float | None = None,
    timeout: Seconds | None = None,
    attempt_timeout: Seconds | None = None,
    retry: RetryConfig | None = None,
    retry_after: RetryAfter | None = None,
    retry_on_result: RetryOnResult | None = None,
    fallback_on: RetryOn = Exception,
    breaker: Breaker | BreakerConfig | bool | None = None,
    reraise: bool = False,
    cache_key: CacheKey | None = None,
    cache_backend: CacheBackend = "memory",
    cache_maxsize: int | None = 1024,
    cache_refresh: Seconds | None = None,
    cache_stale: Seconds | None = None,
    chunk_size: int | None = None,
    rate_limit_scope: Literal["worker", "total"] = _WORKER,
    start_method: Literal["forkserver", "spawn", "fork"] | None = None,
    worker_init: Callable[[], object] | None = None,
    max_items_per_worker: int | None = None,
    max_memory_per_worker: int | None = None,
    executor: Executor | None = None,
    on_error: str = "return",
    unpack: bool = False,
    with_items: bool = False,
    max_errors: float | None = None,
    total: int | None = None,
    loop: Literal["auto", "uvloop", "asyncio"] = "auto",
    read_ahead: int | None = None,
    read_in: Literal["thread", "caller"] = "thread",
    **kwargs: Any,
) -> Any:
    """Map a function of one item over many, in parallel, with resilience for each item.

    Args:
        mode: Where attempts run: "thread" and "process" for ordinary functions, "async" (one event
            loop) and "async_process" (one in each process) for coroutine functions.
        workers: How many threads, processes or concurrent coroutines; None for as many as this
            process has CPUs. With `executor`: how many jobs it gets at a time; None for as many as
            it has workers.
        ordered: Whether results come in the order of the items; if False, as soon as they are
            ready.
        progress: Whether to show a bar in a terminal or a notebook; "log" for a line in the log
            every 30 seconds; or a function that takes a `Progress`, called at most ten times a
            second and once at the end.
        retries: The most attempts in total, the first included; 0 and 1 both mean one.
        backoff_factor: The factor by which the delay's ceiling grows with each attempt, at least 1.
        min_delay: The shortest delay between attempts, in seconds.
        max_delay: The longest delay between attempts, in seconds.
        retry_on: Which exceptions are worth another attempt: a type, a tuple of types, or a
            predicate of the exception. Any other exception is raised immediately, unchanged.
        arg_fallback: The name of a parameter that takes a list or tuple of values to try in order:
            the function finds the current one at index 0. Or `{"parameter": [values]}`: values to
            try one at a time after the caller's own. Or a `FallbackConfig`.
        cache: Whether to cache returned values; or a `CacheConfig`.
        cache_ttl: How many seconds a value stays valid; None means forever.
        cache_namespace: The name by which `clear_cache` finds the values.
        rate_limit: The most attempts that each worker starts per second; or a `RateLimitConfig`; or
            a `RateLimiter`, one limit for all who share it.
        jitter: Whether each delay is random, between `min_delay` and its ceiling; if False, it is
            the ceiling.
        burst: How many attempts may start together after a pause.
        adaptive: Whether the rate falls when the server rejects attempts, and rises again up to
            `rate_limit` while they succeed.
        rate_floor: The lowest rate of an adaptive limit, in attempts per second; None for a
            hundredth of `rate_limit`.
        timeout: The deadline of an item in seconds, counted from its first attempt, waits included;
            an awaited attempt is cancelled then.
        attempt_timeout: How many seconds one attempt may take. Then its process is killed, or its
            coroutine cancelled (`AttemptTimeout`). Not for threads, which cannot be stopped.
        retry: A `RetryConfig`, instead of the keywords for retries.
        retry_after: A function that takes the exception and returns how many seconds the server
            asks you to wait, or None; `opero.retry_after` knows the errors of the usual clients.
            The next delay is at least that long, up to `max_delay`, or up to the deadline with a
            `timeout`. If the server asks for longer, the call gives up immediately.
        retry_on_result: A predicate of the returned value; true means that the attempt has failed.
        fallback_on: Which exceptions lead to the next value of `arg_fallback`: a type, a tuple of
            types, or a predicate of the exception.
        breaker: A circuit breaker, one for all workers: True or a `BreakerConfig`; or a `Breaker`,
            which several functions may share. While it is open, items wait.
        reraise: Whether to raise the last attempt's own exception instead of `AllFailedError`.
        cache_key: A function that makes the key from the call's arguments; None uses all arguments.
        cache_backend: Where to keep values: "memory"; "disk", which outlives the process and which
            all processes on this machine share; or "redis", which machines share too.
        cache_maxsize: The most values to keep (for a method: for each instance); None for no limit.
        cache_refresh: How many seconds before the end of `cache_ttl` a hit starts to refresh the
            value in the background; the hit itself returns immediately.
        cache_stale: How many seconds after `cache_ttl` an outdated value may still be served if the
            run fails.
        chunk_size: How many items a worker gets at a time; None sizes chunks by measured time. Not
            with a `rate_limit` or a `timeout`: with them, workers get one item at a time.
        rate_limit_scope: Whether `rate_limit` applies to each worker or, with "total", to the whole
            map. A `RateLimiter` applies to all who share it.
        start_method: How processes start: "forkserver", "spawn" or "fork"; None for the first of
            these that this platform has.
        worker_init: A function without arguments that each worker calls before its first item, such
            as to load a model or open a connection. Not for `async`.
        max_items_per_worker: How many items a worker process gets before it is replaced; its
            successor starts first.
        max_memory_per_worker: How many bytes of resident memory a worker process may hold before it
            is replaced, between two chunks.
        executor: A `concurrent.futures.Executor` that runs the attempts instead of opero's own
            workers.
        on_error: "return" puts a failure where the item's result would be; "raise" ends the map
            with the first item that fails for good.
        unpack: Whether an item holds the arguments of its call: a tuple or list the positional
            ones, a dict the keyword ones.
        with_items: Whether to pair each result with its item: `(item, result)`.
        max_errors: How many failed items end the map; or, as a float, the share of failures among
            the items done, once 20 are done. Then no more items are handed out. Workers finish the
            items that they have, so a few more than `max_errors` may fail. The rest become
            `NotRun`.
        total: The number of items, for the progress of an input without a length.
        loop: The event loop: "uvloop", "asyncio", or "auto" for uvloop if it is installed.
        read_ahead: The most items that are read but not done; in a stream, an item is done once you
            take its result. None: as many as the workers and the size of chunks need, up to 64 MiB.
        read_in: Which thread reads iterators: "thread" for one that the map starts, or "caller" for
            yours, if the input is bound to it, as a SQLite cursor is.
        **kwargs: Options of the stored backends; an error if the chosen backend does not read them.
            `cache_secret` (disk, redis): The secret that signs entries: a `str` or `bytes` of 16
            bytes or more; or a list of them: the first signs, and all verify. None uses the
            environment variable `OPERO_CACHE_SECRET`, or else the user's key file. `cache_version`
            (disk, redis): A version of your choice; entries of other versions are not found.
            `cache_pickle` (disk, redis): Whether values may be pickled. `cache_dir` (disk): The
            directory; None for the user's cache directory. `cache_size_limit` (disk): How many
            bytes the cache may take before the oldest entries are evicted; None for no limit.
            `cache_url` (redis): The server's address: `redis://`, `rediss://` or `unix://`.

    Returns:
        The mapped function, or a decorator. The mapped function takes an iterable, and keyword
        arguments that all items share, and returns a `MapResult`, which is a list. `stream`,
        `amap` and `astream` are its lazy and async forms. A mapped method stays a method:
        `shop.price(items)`.

    Raises:
        TypeError: If an option has the wrong type or does not exist, or if you decorate something
            that is not a function of an item.
        ValueError: If an option's value is not allowed, or does not work with another option or
            with the function.

    Example:
        ```python
        @opmap(mode="thread", workers=10, retries=3)
        def fetch(url: str) -> bytes: ...

        pages = fetch(urls)
        ```
    """
    given = _given(locals())
    function = given.pop("mode") if _is_decorated(mode) else None
    if function is not None and hasattr(type(workers), "__iter__"):
        name = getattr(function, "__name__", "function").replace("<lambda>", "function")
        raise TypeError(
            f"opmap is a decorator and takes no items: write opmap({name})(items), or put @opmap "
            f"above the function and call the function with the items"
        )
    checked = _checked("opmap", given)
    from opero.map.options import map_options

    plan = map_options(given)

    def decorator(function: Any) -> Any:
        return assembly.decorate_map(function, checked, plan)

    return decorator if function is None else decorator(function)


operomap = opmap


def get_cache_decorator(
    cache: bool | CacheConfig = True,
    cache_ttl: Seconds | None = None,
    cache_key: CacheKey | None = None,
    cache_namespace: str = "opero",
    cache_backend: CacheBackend = "memory",
    **kwargs: Unpack[_MoreForCache],
) -> Decorator:
    """Create a decorator that only caches, with single flight.

    Args:
        cache: Whether to cache returned values; or a `CacheConfig`.
        cache_ttl: How many seconds a value stays valid; None means forever.
        cache_key: A function that makes the key from the call's arguments; None uses all arguments.
        cache_namespace: The name by which `clear_cache` finds the values.
        cache_backend: Where to keep values: "memory"; "disk", which outlives the process and which
            all processes on this machine share; or "redis", which machines share too.
        **kwargs: `cache_maxsize` (memory): The most values to keep (for a method: for each
            instance); None for no limit. `cache_refresh` (memory, disk, redis): How many seconds
            before the end of `cache_ttl` a hit starts to refresh the value in the background; the
            hit itself returns immediately. `cache_stale` (memory, disk, redis): How many seconds
            after `cache_ttl` an outdated value may still be served if the run fails. `cache_secret`
            (disk, redis): The secret that signs entries: a `str` or `bytes` of 16 bytes or more; or
            a list of them: the first signs, and all verify. None uses the environment variable
            `OPERO_CACHE_SECRET`, or else the user's key file. `cache_version` (disk, redis): A
            version of your choice; entries of other versions are not found. `cache_pickle` (disk,
            redis): Whether values may be pickled. `cache_dir` (disk): The directory; None for the
            user's cache directory. `cache_size_limit` (disk): How many bytes the cache may take
            before the oldest entries are evicted; None for no limit. `cache_url` (redis): The
            server's address: `redis://`, `rediss://` or `unix://`.

    Raises:
        TypeError: If an option has the wrong type or does not exist.
        ValueError: If an option's value is not allowed.
    """
    given = _given(locals())
    return _decorator(_checked("get_cache_decorator", given))


def get_retry_decorator(
    retries: int | RetryConfig = 3,
    backoff_factor: float = 1.5,
    min_delay: Seconds = 0.1,
    max_delay: Seconds = 30.0,
    retry_on: RetryOn = (Exception,),
    **kwargs: Unpack[_MoreForRetry],
) -> Decorator:
    """Create a decorator that only retries.

    Args:
        retries: The most attempts in total, the first included; 0 and 1 both mean one.
        backoff_factor: The factor by which the delay's ceiling grows with each attempt, at least 1.
        min_delay: The shortest delay between attempts, in seconds.
        max_delay: The longest delay between attempts, in seconds.
        retry_on: Which exceptions are worth another attempt: a type, a tuple of types, or a
            predicate of the exception. Any other exception is raised immediately, unchanged.
        **kwargs: `jitter`: Whether each delay is random, between `min_delay` and its ceiling; if
            False, it is the ceiling. `retry_after`: A function that takes the exception and returns
            how many seconds the server asks you to wait, or None; `opero.retry_after` knows the
            errors of the usual clients. The next delay is at least that long, up to `max_delay`, or
            up to the deadline with a `timeout`. If the server asks for longer, the call gives up
            immediately. `retry_on_result`: A predicate of the returned value; true means that the
            attempt has failed. `reraise`: Whether to raise the last attempt's own exception instead
            of `AllFailedError`.

    Raises:
        TypeError: If an option has the wrong type or does not exist.
        ValueError: If an option's value is not allowed.
    """
    given = _given(locals())
    return _decorator(_checked("get_retry_decorator", given))


def get_rate_limit_decorator(
    rate_limit: float | RateLimitConfig | RateLimiter | None,
    **kwargs: Unpack[_MoreForRateLimit],
) -> Decorator:
    """Create a decorator that only limits how often a function starts.

    Args:
        rate_limit: The most attempts to start per second; or a `RateLimitConfig`; or a
            `RateLimiter`, which several functions may share.
        **kwargs: `burst`: How many attempts may start together after a pause. `adaptive`: Whether
            the rate falls when the server rejects attempts, and rises again up to `rate_limit`
            while they succeed. `rate_floor`: The lowest rate of an adaptive limit, in attempts per
            second; None for a hundredth of `rate_limit`.

    Raises:
        TypeError: If an option has the wrong type or does not exist.
        ValueError: If an option's value is not allowed.
    """
    given = _given(locals())
    return _decorator(_checked("get_rate_limit_decorator", given))


def get_fallback_decorator(
    arg_fallback: ArgFallback | FallbackConfig | None,
    **kwargs: Unpack[_MoreForFallback],
) -> Decorator:
    """Create a decorator that only tries the values of one argument in order.

    Args:
        arg_fallback: The name of a parameter that takes a list or tuple of values to try in order:
            the function finds the current one at index 0. Or `{"parameter": [values]}`: values to
            try one at a time after the caller's own. Or a `FallbackConfig`.
        **kwargs: `fallback_on`: Which exceptions lead to the next value of `arg_fallback`: a type,
            a tuple of types, or a predicate of the exception.

    Raises:
        TypeError: If an option has the wrong type or does not exist.
        ValueError: At decoration, if the function has no such parameter; at the call, if the
            argument is not a list or tuple, or is empty.
    """
    given = _given(locals())
    return _decorator(_checked("get_fallback_decorator", given))


def _given(variables: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a caller passed to a decorator, by name.

    Args:
        variables: The decorator's local variables. Until Python 3.12, debuggers write to this
            dictionary.
    """
    given = {**variables}
    given.update(given.pop("kwargs"))
    return given


def _is_decorated(value: Any) -> bool:
    """Return whether the first argument is a function: the decorator has no parentheses."""
    return callable(value) or hasattr(type(value), "__get__")


def _checked(function: str, given: dict[str, Any]) -> CallOptions:
    from .options import call_options

    return call_options(function, given)


def _decorator(checked: CallOptions) -> Decorator:
    def decorator(function: Any) -> Any:
        return assembly.decorate(function, checked)

    typed: Any = decorator
    return typed  # type: ignore[no-any-return]
