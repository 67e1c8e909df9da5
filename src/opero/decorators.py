"""The decorators: `@opero`, `@opmap`, and those of one mechanism each, as readers see them.

opero(...) -> options.plan -> assembly.decorate
opmap(...) -> the same, and map_plan -> assembly.decorate_map
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
    """A default that can be told apart from the same text given by a caller."""

    __slots__ = ()
    unsaid = True


_WORKER: Any = _Default("worker")

if not TYPE_CHECKING:

    def overload(function: Any) -> Any:
        """Stand in for `typing.overload`: `import opero` does without `typing`."""
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
    and static methods; on generator functions until their first item is out. The order of
    operations is

        deadline( cache + single flight( retries( fallback values(
            breaker( permit( attempt timeout( attempt )))))))

    Args:
        retries: The greatest number of attempts in all; 0 and 1 both mean one.
        backoff_factor: What the delay's ceiling grows by from attempt to attempt, at least 1.
        min_delay: The shortest delay between attempts, in seconds.
        max_delay: The longest delay between attempts, in seconds.
        retry_on: Which exceptions are worth another attempt: a type, a tuple of types, or a
            predicate of the exception. Any other goes up at once, unchanged.
        arg_fallback: The name of a parameter that holds a list or tuple of values to try in order,
            each as its element 0; or `{"parameter": [values]}`, whose values are tried one at a
            time after the caller's own; or a `FallbackConfig`.
        cache: Whether returned values are cached; or a `CacheConfig`.
        cache_ttl: Seconds for which a value counts; None for ever.
        cache_key: A function that makes the key from the call's own arguments; None: all of them
            are it.
        cache_namespace: The name under which `clear_cache` finds the values.
        cache_backend: Where values are kept: "memory"; "disk", which survives the process and is
            shared by those of this machine; or "redis", which hosts share too.
        rate_limit: The greatest number of attempts started per second; or a `RateLimitConfig`; or a
            `RateLimiter`, which several functions may share.
        jitter: Whether a delay is drawn between `min_delay` and its ceiling, or is the ceiling.
        burst: How many attempts may start at once after a pause.
        adaptive: Whether the rate falls when the server rejects attempts, and rises again up to
            `rate_limit` while they succeed.
        rate_floor: The lowest rate of an adaptive limit, in attempts per second; None for a
            hundredth of `rate_limit`.
        timeout: Seconds for a whole call, waits included. A wait that would not end in time is not
            begun; an awaited attempt is cut, a running ordinary one cannot be.
        attempt_timeout: Seconds for one awaited attempt, waits before it not included: then it is
            cancelled and has failed with `AttemptTimeout`. Not for ordinary functions: nothing
            stops a thread.
        retry: A `RetryConfig`, in place of the keywords for retries.
        retry_after: A function that returns, for an exception, how many seconds the server asks to
            wait, or None; `opero.retry_after` knows the usual clients' errors. The next delay is
            that long at least, up to `max_delay`, or up to the deadline with a `timeout`; for
            longer waits the call gives up at once.
        retry_on_result: A predicate of the returned value; true means that this attempt has failed.
        fallback_on: After which exceptions the next value of `arg_fallback` is tried: a type, a
            tuple of types, or a predicate of the exception.
        breaker: A circuit breaker: True for one of the function's own, or a `BreakerConfig`; or a
            `Breaker`, which several functions may share. While it is open, no attempt begins.
        reraise: Whether the last attempt's own exception is raised, in place of `AllFailedError`.
        cache_maxsize: The greatest number of cached values (of each instance, for a method); None
            for no bound.
        cache_refresh: Seconds before the end of `cache_ttl` from which a hit renews the value in
            the background and is served at once.
        cache_stale: Seconds after `cache_ttl` for which an outdated value is served if the run
            fails.
        **kwargs: Options of the stored backends, an error beside one that does not read them.
            `cache_secret` (disk, redis): What entries are signed with: a `str` or `bytes` of 16
            bytes or more, or several in a list, of which the first signs and all verify; None for
            what the environment variable `OPERO_CACHE_SECRET` holds, else the user's key file.
            `cache_version` (disk, redis): A name; entries of all other names are not found.
            `cache_pickle` (disk, redis): Whether values may be pickled. `cache_dir` (disk): The
            directory; None for the user's own cache directory. `cache_size_limit` (disk): Bytes,
            beyond which the oldest entries go; None for no bound. `cache_url` (redis): Where the
            server is: `redis://`, `rediss://` or `unix://`.

    Returns:
        The decorated function, or a decorator. The decorated function keeps its signature and has
        `cache_info`, `cache_clear`, `cache_invalidate`, `stats` and `__wrapped__`.

    Raises:
        TypeError: If an option has the wrong type or no such option exists, or what is decorated
            is no function, or a generator function that is cached.
        ValueError: If an option's value is not allowed, or `arg_fallback` names no parameter.

    A call raises:
        AllFailedError: If every attempt has failed; a function with one attempt and no fallback
            raises its own exception.
        DeadlineExceeded: If `timeout` passed, or would pass in a wait.
        CacheKeyError: If the arguments make no cache key; it names the argument.

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
    """Let a function of one item map itself over many, in parallel, with resilience for each item.

    Args:
        mode: Where attempts are made: "thread" and "process" for ordinary functions, "async" (one
            event loop) and "async_process" (one in each process) for coroutine functions.
        workers: How many threads or processes, or coroutines at once; None for as many as there are
            CPUs for this process. With `executor`, how many jobs it is given at once; None for as
            many as it has workers.
        ordered: Whether results come in the order of the items, or as they are ready.
        progress: Whether a bar is shown, in a terminal or a notebook; "log" for a line in the log
            every 30 seconds; or a function that gets a `Progress`, ten times a second at most and
            once at the end.
        retries: The greatest number of attempts in all; 0 and 1 both mean one.
        backoff_factor: What the delay's ceiling grows by from attempt to attempt, at least 1.
        min_delay: The shortest delay between attempts, in seconds.
        max_delay: The longest delay between attempts, in seconds.
        retry_on: Which exceptions are worth another attempt: a type, a tuple of types, or a
            predicate of the exception. Any other goes up at once, unchanged.
        arg_fallback: The name of a parameter that holds a list or tuple of values to try in order,
            each as its element 0; or `{"parameter": [values]}`, whose values are tried one at a
            time after the caller's own; or a `FallbackConfig`.
        cache: Whether returned values are cached; or a `CacheConfig`.
        cache_ttl: Seconds for which a value counts; None for ever.
        cache_namespace: The name under which `clear_cache` finds the values.
        rate_limit: The greatest number of attempts started per second, by each worker; or a
            `RateLimitConfig`; or a `RateLimiter`, which is one for all that share it.
        jitter: Whether a delay is drawn between `min_delay` and its ceiling, or is the ceiling.
        burst: How many attempts may start at once after a pause.
        adaptive: Whether the rate falls when the server rejects attempts, and rises again up to
            `rate_limit` while they succeed.
        rate_floor: The lowest rate of an adaptive limit, in attempts per second; None for a
            hundredth of `rate_limit`.
        timeout: Seconds for an item, from its first attempt on, waits included; it cuts an awaited
            attempt too.
        attempt_timeout: Seconds for one attempt: then its process is killed, or its coroutine
            cancelled (`AttemptTimeout`). Not for threads, which cannot be stopped.
        retry: A `RetryConfig`, in place of the keywords for retries.
        retry_after: A function that returns, for an exception, how many seconds the server asks to
            wait, or None; `opero.retry_after` knows the usual clients' errors. The next delay is
            that long at least, up to `max_delay`, or up to the deadline with a `timeout`; for
            longer waits the call gives up at once.
        retry_on_result: A predicate of the returned value; true means that this attempt has failed.
        fallback_on: After which exceptions the next value of `arg_fallback` is tried: a type, a
            tuple of types, or a predicate of the exception.
        breaker: A circuit breaker, one for all workers: True, or a `BreakerConfig`; or a `Breaker`,
            which several functions may share. While it is open, items wait.
        reraise: Whether the last attempt's own exception is raised, in place of `AllFailedError`.
        cache_key: A function that makes the key from the call's own arguments; None: all of them
            are it.
        cache_backend: Where values are kept: "memory"; "disk", which survives the process and is
            shared by those of this machine; or "redis", which hosts share too.
        cache_maxsize: The greatest number of cached values (of each instance, for a method); None
            for no bound.
        cache_refresh: Seconds before the end of `cache_ttl` from which a hit renews the value in
            the background and is served at once.
        cache_stale: Seconds after `cache_ttl` for which an outdated value is served if the run
            fails.
        chunk_size: How many items are handed to a worker at once; None to go by measured time. Not
            with a `rate_limit` or a `timeout`, which hand them out one by one.
        rate_limit_scope: Whether `rate_limit` counts for each worker or, "total", for the whole
            map. A `RateLimiter` counts for all who share it.
        start_method: How processes are started: "forkserver", "spawn" or "fork"; None for the first
            of these that there is.
        worker_init: A function without arguments that each worker calls before its first item: it
            loads a model, or opens a connection. Not for `async`.
        max_items_per_worker: After how many items a worker process is renewed; its successor starts
            before it ends.
        max_memory_per_worker: At how many bytes of resident memory a worker process is renewed,
            between two chunks.
        executor: A `concurrent.futures.Executor` that makes the attempts instead of opero's own
            workers.
        on_error: "return" puts an item's failure in its place; "raise" ends the map with the first
            item that fails for good.
        unpack: Whether an item holds the arguments of its call: a tuple or a list those by
            position, a dict those by keyword.
        with_items: Whether each result is paired with its item: `(item, result)`.
        max_errors: The number of items whose failure ends the map; or, as a float, the share of the
            items that are done, once there are 20. No more items are handed out then; those that
            workers already have are finished, so somewhat more than `max_errors` items may fail;
            the rest stand as `NotRun`.
        total: How many items there are, for the progress of an input without a length.
        loop: The event loop: "uvloop", "asyncio", or "auto" for uvloop where it is installed.
        read_ahead: How many items at most are read and not done with: in a stream, until their
            result is taken. None goes by the workers and by the size of chunks, up to 64 MiB of
            items.
        read_in: Where iterators are read: "thread" for one of the map, or "caller" for yours, if
            the input is bound to it, as a SQLite cursor is.
        **kwargs: Options of the stored backends, an error beside one that does not read them.
            `cache_secret` (disk, redis): What entries are signed with: a `str` or `bytes` of 16
            bytes or more, or several in a list, of which the first signs and all verify; None for
            what the environment variable `OPERO_CACHE_SECRET` holds, else the user's key file.
            `cache_version` (disk, redis): A name; entries of all other names are not found.
            `cache_pickle` (disk, redis): Whether values may be pickled. `cache_dir` (disk): The
            directory; None for the user's own cache directory. `cache_size_limit` (disk): Bytes,
            beyond which the oldest entries go; None for no bound. `cache_url` (redis): Where the
            server is: `redis://`, `rediss://` or `unix://`.

    Returns:
        The mapped function, or a decorator. It takes an iterable and keyword arguments for all
        items, and returns a `MapResult`, which is a list; `stream`, `amap` and `astream` are its
        lazy and its async forms. A method is mapped as one: `shop.price(items)`.

    Raises:
        TypeError: If an option has the wrong type or no such option exists, or what is decorated
            is not a function that takes an item.
        ValueError: If an option's value is not allowed, or does not go with another one or with
            the function.

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
            f"opmap is a decorator, and takes no items: write opmap({name})(items), or put @opmap "
            f"above the function and call that with the items"
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
    """Make a decorator that caches, with single flight, and does nothing else.

    Args:
        cache: Whether returned values are cached; or a `CacheConfig`.
        cache_ttl: Seconds for which a value counts; None for ever.
        cache_key: A function that makes the key from the call's own arguments; None: all of them
            are it.
        cache_namespace: The name under which `clear_cache` finds the values.
        cache_backend: Where values are kept: "memory"; "disk", which survives the process and is
            shared by those of this machine; or "redis", which hosts share too.
        **kwargs: `cache_maxsize` (memory): The greatest number of cached values (of each instance,
            for a method); None for no bound. `cache_refresh` (memory, disk, redis): Seconds before
            the end of `cache_ttl` from which a hit renews the value in the background and is served
            at once. `cache_stale` (memory, disk, redis): Seconds after `cache_ttl` for which an
            outdated value is served if the run fails. `cache_secret` (disk, redis): What entries
            are signed with: a `str` or `bytes` of 16 bytes or more, or several in a list, of which
            the first signs and all verify; None for what the environment variable
            `OPERO_CACHE_SECRET` holds, else the user's key file. `cache_version` (disk, redis): A
            name; entries of all other names are not found. `cache_pickle` (disk, redis): Whether
            values may be pickled. `cache_dir` (disk): The directory; None for the user's own cache
            directory. `cache_size_limit` (disk): Bytes, beyond which the oldest entries go; None
            for no bound. `cache_url` (redis): Where the server is: `redis://`, `rediss://` or
            `unix://`.

    Raises:
        TypeError: If an option has the wrong type or there is no such option.
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
    """Make a decorator that retries, and does nothing else.

    Args:
        retries: The greatest number of attempts in all; 0 and 1 both mean one.
        backoff_factor: What the delay's ceiling grows by from attempt to attempt, at least 1.
        min_delay: The shortest delay between attempts, in seconds.
        max_delay: The longest delay between attempts, in seconds.
        retry_on: Which exceptions are worth another attempt: a type, a tuple of types, or a
            predicate of the exception. Any other goes up at once, unchanged.
        **kwargs: `jitter`: Whether a delay is drawn between `min_delay` and its ceiling, or is the
            ceiling. `retry_after`: A function that returns, for an exception, how many seconds the
            server asks to wait, or None; `opero.retry_after` knows the usual clients' errors. The
            next delay is that long at least, up to `max_delay`, or up to the deadline with a
            `timeout`; for longer waits the call gives up at once. `retry_on_result`: A predicate of
            the returned value; true means that this attempt has failed. `reraise`: Whether the last
            attempt's own exception is raised, in place of `AllFailedError`.

    Raises:
        TypeError: If an option has the wrong type or there is no such option.
        ValueError: If an option's value is not allowed.
    """
    given = _given(locals())
    return _decorator(_checked("get_retry_decorator", given))


def get_rate_limit_decorator(
    rate_limit: float | RateLimitConfig | RateLimiter | None,
    **kwargs: Unpack[_MoreForRateLimit],
) -> Decorator:
    """Make a decorator that limits how often a function starts, and does nothing else.

    Args:
        rate_limit: The greatest number of attempts started per second; or a `RateLimitConfig`; or a
            `RateLimiter`, which several functions may share.
        **kwargs: `burst`: How many attempts may start at once after a pause. `adaptive`: Whether
            the rate falls when the server rejects attempts, and rises again up to `rate_limit`
            while they succeed. `rate_floor`: The lowest rate of an adaptive limit, in attempts per
            second; None for a hundredth of `rate_limit`.

    Raises:
        TypeError: If an option has the wrong type or there is no such option.
        ValueError: If an option's value is not allowed.
    """
    given = _given(locals())
    return _decorator(_checked("get_rate_limit_decorator", given))


def get_fallback_decorator(
    arg_fallback: ArgFallback | FallbackConfig | None,
    **kwargs: Unpack[_MoreForFallback],
) -> Decorator:
    """Make a decorator that tries the values of one argument in order, and does nothing else.

    Args:
        arg_fallback: The name of a parameter that holds a list or tuple of values to try in order,
            each as its element 0; or `{"parameter": [values]}`, whose values are tried one at a
            time after the caller's own; or a `FallbackConfig`.
        **kwargs: `fallback_on`: After which exceptions the next value of `arg_fallback` is tried: a
            type, a tuple of types, or a predicate of the exception.

    Raises:
        TypeError: If an option has the wrong type or there is no such option.
        ValueError: At decoration, if the function has no such parameter; at the call, if it holds
            no list or tuple, or an empty one.
    """
    given = _given(locals())
    return _decorator(_checked("get_fallback_decorator", given))


def _given(variables: dict[str, Any]) -> dict[str, Any]:
    """Return what a decorator was given, by name.

    Args:
        variables: Its local variables. Until Python 3.12 a debugger writes to the very dictionary.
    """
    given = {**variables}
    given.update(given.pop("kwargs"))
    return given


def _is_decorated(value: Any) -> bool:
    """Return whether the first argument is what a decorator without parentheses decorates."""
    return callable(value) or hasattr(type(value), "__get__")


def _checked(function: str, given: dict[str, Any]) -> CallOptions:
    from .options import call_options

    return call_options(function, given)


def _decorator(checked: CallOptions) -> Decorator:
    def decorator(function: Any) -> Any:
        return assembly.decorate(function, checked)

    typed: Any = decorator
    return typed  # type: ignore[no-any-return]
