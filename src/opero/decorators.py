"""The decorators: `@opero`, `@opmap`, and those of one mechanism each, as readers see them.

opero(...) -> options.plan -> assembly.decorate
opmap(...) -> the same, and map_plan -> assembly.decorate_map
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import assembly
from .limits import RateLimiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Executor
    from typing import Any, Concatenate, Literal, TypedDict, Unpack, overload

    from opero.map.progress import Progress

    from .functions import (
        AwaitingMapDecorator,
        AwaitingRaisingMapDecorator,
        Decorated,
        Decorator,
        MapDecorator,
        Mapped,
        P,
        ParallelMode,
        R,
        RaisingMapDecorator,
        StoreOptions,
        T,
    )
    from .options import (
        ArgFallback,
        CacheConfig,
        CallOptions,
        RateLimitConfig,
        RetryConfig,
        RetryOn,
    )
    from .options import RetryAfter as _RetryAfter
    from .options import RetryOnResult as _RetryOnResult

    _CacheKey = Callable[..., Any] | None
    _RateLimit = float | RateLimitConfig | RateLimiter | None

    _SyncMode = Literal["thread", "process"]

    class _MoreForMap(StoreOptions, total=False):
        cache_key: _CacheKey
        cache_backend: str
        cache_maxsize: int | None
        jitter: bool
        burst: int
        timeout: float | None
        retry: RetryConfig | None
        retry_after: _RetryAfter | None
        retry_on_result: _RetryOnResult | None
        fallback_on: RetryOn
        reraise: bool
        chunk_size: int | None
        rate_limit_scope: Literal["worker", "total"]
        attempt_timeout: float | None
        start_method: Literal["forkserver", "spawn", "fork"] | None
        executor: Executor | None
        loop: Literal["auto", "uvloop", "asyncio"]

    class _MoreForCache(StoreOptions, total=False):
        cache_maxsize: int | None

    class _MoreForRetry(TypedDict, total=False):
        jitter: bool
        retry_after: _RetryAfter | None
        retry_on_result: _RetryOnResult | None
        reraise: bool

    class _MoreForRateLimit(TypedDict, total=False):
        burst: int

    class _MoreForFallback(TypedDict, total=False):
        retry_on: RetryOn
        fallback_on: RetryOn


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
    min_delay: float = 0.1,
    max_delay: float = 30.0,
    retry_on: RetryOn = (Exception,),
    arg_fallback: ArgFallback | None = None,
    cache: bool | CacheConfig = False,
    cache_ttl: float | None = None,
    cache_key: _CacheKey = None,
    cache_namespace: str = "opero",
    cache_backend: str = "memory",
    rate_limit: _RateLimit = None,
    *,
    jitter: bool = True,
    burst: int = 1,
    timeout: float | None = None,
    retry: RetryConfig | None = None,
    retry_after: _RetryAfter | None = None,
    retry_on_result: _RetryOnResult | None = None,
    fallback_on: RetryOn = Exception,
    reraise: bool = False,
    cache_maxsize: int | None = 1024,
    **kwargs: Unpack[StoreOptions],
) -> Decorator: ...
def opero(
    retries: Any = 3,
    backoff_factor: float = 1.5,
    min_delay: float = 0.1,
    max_delay: float = 30.0,
    retry_on: RetryOn = (Exception,),
    arg_fallback: ArgFallback | None = None,
    cache: bool | CacheConfig = False,
    cache_ttl: float | None = None,
    cache_key: _CacheKey = None,
    cache_namespace: str = "opero",
    cache_backend: str = "memory",
    rate_limit: _RateLimit = None,
    *,
    jitter: bool = True,
    burst: int = 1,
    timeout: float | None = None,
    retry: RetryConfig | None = None,
    retry_after: _RetryAfter | None = None,
    retry_on_result: _RetryOnResult | None = None,
    fallback_on: RetryOn = Exception,
    reraise: bool = False,
    cache_maxsize: int | None = 1024,
    **kwargs: Any,
) -> Any:
    """Make a function resilient: cache, retries with backoff, argument fallback, rate limit.

    Works with and without parentheses, on functions, coroutine functions, methods, class methods
    and static methods. The order of operations is

        deadline( cache + single flight( retry loop( fallback values( permit( attempt )))))

    Args:
        retries: The greatest number of attempts in all; 0 and 1 both mean one.
        backoff_factor: What the delay's ceiling grows by from attempt to attempt, at least 1.
        min_delay: The shortest delay between attempts, in seconds.
        max_delay: The longest delay between attempts, in seconds.
        retry_on: Which exceptions are worth another attempt: a type, a tuple of types, or a
            predicate of the exception. Any other goes up at once, unchanged.
        arg_fallback: The name of a parameter that holds a list or tuple of values to try in order,
            each as its element 0; or `{"parameter": [values]}`, tried after the caller's own.
        cache: Whether returned values are cached; or a `CacheConfig`.
        cache_ttl: Seconds for which a value counts; None for ever.
        cache_key: Makes the key, from the call's own arguments.
        cache_namespace: The name under which `clear_cache` finds the values.
        cache_backend: Where they are kept: "memory"; "disk", which survives the process and is
            shared by those of this machine; or "redis", which hosts share too.
        rate_limit: The greatest number of attempts started per second; or a `RateLimitConfig`; or
            a `RateLimiter`, which several functions may share.
        jitter: Whether a delay is drawn between `min_delay` and its ceiling, or is the ceiling.
        burst: How many attempts may start at once after a pause.
        timeout: Seconds for a whole call, waits included. A wait that would not end in time is not
            begun; an awaited attempt is cut, a running ordinary one cannot be.
        retry: A `RetryConfig`, in place of the keywords for retries.
        retry_after: Tells from the exception how many seconds the server asks to wait, or None;
            `opero.retry_after` knows the usual clients' errors. The next delay is that long at
            least, up to `max_delay`, or up to the deadline with a `timeout`; for longer waits the
            call gives up at once.
        retry_on_result: A predicate of the returned value; true means that this attempt has failed.
        fallback_on: After which exceptions the next value of `arg_fallback` is tried: a type, a
            tuple of types, or a predicate.
        reraise: Whether the last attempt's own exception is raised, in place of `AllFailedError`.
        cache_maxsize: The greatest number of cached values (of each instance, for a method); None
            for no bound.
        **kwargs: Options of the stored backends, an error beside one that does not read them.
            Both: `cache_secret` (what entries are signed with: 16 characters or more, or several
            such, of which the first signs and all verify; else what the environment variable
            `OPERO_CACHE_SECRET` holds, else the user's key file), `cache_stale` (seconds after
            `cache_ttl` for which an outdated value is served if the run fails), `cache_version`
            (a name that retires the entries of all others), `cache_pickle` (False: never pickle).
            Disk: `cache_dir`, `cache_size_limit` (bytes; None for no bound). Redis: `cache_url`.

    Returns:
        The decorated function, or a decorator. The decorated function keeps its signature and has
        `cache_info`, `cache_clear`, `cache_invalidate`, `stats` and `__wrapped__`.

    Raises:
        TypeError: If an option has the wrong type or no such option exists, or what is decorated
            is no function (a generator function is refused too).
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
    function = None
    if callable(retries) or hasattr(type(retries), "__get__"):
        function, retries = retries, 3
    checked = _checked(
        {
            "retries": retries,
            "backoff_factor": backoff_factor,
            "min_delay": min_delay,
            "max_delay": max_delay,
            "retry_on": retry_on,
            "jitter": jitter,
            "retry_after": retry_after,
            "retry_on_result": retry_on_result,
            "reraise": reraise,
        },
        {
            **_store_options("opero", kwargs),
            "cache_ttl": cache_ttl,
            "cache_key": cache_key,
            "cache_namespace": cache_namespace,
            "cache_backend": cache_backend,
            "cache_maxsize": cache_maxsize,
        },
        retry,
        cache,
        arg_fallback,
        rate_limit,
        burst,
        timeout,
        fallback_on,
    )
    return _decorator(checked) if function is None else assembly.decorate(function, checked)


@overload
def opmap(mode: Callable[Concatenate[T, P], R], /) -> Mapped[T, P, R | BaseException]: ...
@overload
def opmap(mode: Callable[Concatenate[T, ...], R], /) -> Mapped[T, ..., R | BaseException]: ...
@overload
def opmap(  # type: ignore[overload-overlap] # a mode may be known at run time only
    mode: _SyncMode = "process",
    workers: int | None = 4,
    ordered: bool = True,
    progress: bool | Callable[[Progress], object] = True,
    retries: int = 3,
    backoff_factor: float = 1.5,
    min_delay: float = 0.1,
    max_delay: float = 30.0,
    retry_on: RetryOn = (Exception,),
    arg_fallback: ArgFallback | None = None,
    cache: bool | CacheConfig = False,
    cache_ttl: float | None = None,
    cache_namespace: str = "opero_opmap_item",
    rate_limit: _RateLimit = None,
    *,
    on_error: Literal["return"] = "return",
    **options: Unpack[_MoreForMap],
) -> MapDecorator: ...
@overload
def opmap(  # type: ignore[overload-overlap] # a mode may be known at run time only
    mode: _SyncMode = "process",
    workers: int | None = 4,
    ordered: bool = True,
    progress: bool | Callable[[Progress], object] = True,
    retries: int = 3,
    backoff_factor: float = 1.5,
    min_delay: float = 0.1,
    max_delay: float = 30.0,
    retry_on: RetryOn = (Exception,),
    arg_fallback: ArgFallback | None = None,
    cache: bool | CacheConfig = False,
    cache_ttl: float | None = None,
    cache_namespace: str = "opero_opmap_item",
    rate_limit: _RateLimit = None,
    *,
    on_error: Literal["raise"],
    **options: Unpack[_MoreForMap],
) -> RaisingMapDecorator: ...
@overload
def opmap(
    mode: ParallelMode,
    workers: int | None = 4,
    ordered: bool = True,
    progress: bool | Callable[[Progress], object] = True,
    retries: int = 3,
    backoff_factor: float = 1.5,
    min_delay: float = 0.1,
    max_delay: float = 30.0,
    retry_on: RetryOn = (Exception,),
    arg_fallback: ArgFallback | None = None,
    cache: bool | CacheConfig = False,
    cache_ttl: float | None = None,
    cache_namespace: str = "opero_opmap_item",
    rate_limit: _RateLimit = None,
    *,
    on_error: Literal["return"] = "return",
    **options: Unpack[_MoreForMap],
) -> AwaitingMapDecorator: ...
@overload
def opmap(
    mode: ParallelMode,
    workers: int | None = 4,
    ordered: bool = True,
    progress: bool | Callable[[Progress], object] = True,
    retries: int = 3,
    backoff_factor: float = 1.5,
    min_delay: float = 0.1,
    max_delay: float = 30.0,
    retry_on: RetryOn = (Exception,),
    arg_fallback: ArgFallback | None = None,
    cache: bool | CacheConfig = False,
    cache_ttl: float | None = None,
    cache_namespace: str = "opero_opmap_item",
    rate_limit: _RateLimit = None,
    *,
    on_error: Literal["raise"],
    **options: Unpack[_MoreForMap],
) -> AwaitingRaisingMapDecorator: ...
def opmap(
    mode: Any = "process",
    workers: int | None = 4,
    ordered: bool = True,
    progress: bool | Callable[[Progress], object] = True,
    retries: int = 3,
    backoff_factor: float = 1.5,
    min_delay: float = 0.1,
    max_delay: float = 30.0,
    retry_on: RetryOn = (Exception,),
    arg_fallback: ArgFallback | None = None,
    cache: bool | CacheConfig = False,
    cache_ttl: float | None = None,
    cache_namespace: str = "opero_opmap_item",
    rate_limit: _RateLimit = None,
    *,
    cache_key: _CacheKey = None,
    cache_backend: str = "memory",
    cache_maxsize: int | None = 1024,
    jitter: bool = True,
    burst: int = 1,
    timeout: float | None = None,
    retry: RetryConfig | None = None,
    retry_after: _RetryAfter | None = None,
    retry_on_result: _RetryOnResult | None = None,
    fallback_on: RetryOn = Exception,
    reraise: bool = False,
    chunk_size: int | None = None,
    rate_limit_scope: str = "worker",
    attempt_timeout: float | None = None,
    start_method: str | None = None,
    executor: Any = None,
    on_error: str = "return",
    loop: str = "auto",
    **kwargs: Any,
) -> Any:
    """Let a function of one item map itself over many, in parallel, with resilience for each item.

    Args:
        mode: Where attempts are made: "thread" and "process" for ordinary functions, "async" (one
            event loop) and "async_process" (one in each process) for coroutine functions.
        workers: How many threads or processes, or coroutines at once; with `executor`, how many
            jobs it is given at once, None for as many as it has workers.
        ordered: Whether results come in the order of the items, or as they are ready.
        progress: Whether a bar is shown, where somebody sees it; or a function that is called with
            a `Progress` now and then.
        retries: The greatest number of attempts of an item; 0 and 1 both mean one.
        backoff_factor: What the delay's ceiling grows by from attempt to attempt, at least 1.
        min_delay: The shortest delay between attempts, in seconds.
        max_delay: The longest delay between attempts, in seconds.
        retry_on: Which exceptions are worth another attempt.
        arg_fallback: Which argument falls back to which values, as in `opero`.
        cache: Whether items' values are cached; or a `CacheConfig`.
        cache_ttl: Seconds for which a value counts; None for ever.
        cache_namespace: The name under which `clear_cache` finds the values.
        rate_limit: The greatest number of attempts started per second, by each worker; or a
            `RateLimiter`, which is one for all that share it.
        cache_key: Makes the key, from the call's own arguments.
        cache_backend: Where values are kept: "memory", "disk" or "redis".
        cache_maxsize: The greatest number of cached values; None for no bound.
        jitter: Whether a delay is drawn between `min_delay` and its ceiling, or is the ceiling.
        burst: How many attempts may start at once after a pause.
        timeout: Seconds for an item, from its first attempt on, waits included; it cuts an awaited
            attempt too.
        retry: A `RetryConfig`, in place of the keywords for retries.
        retry_after: Tells from the exception how many seconds the server asks to wait, or None;
            `opero.retry_after` knows the usual clients' errors. The next delay is that long at
            least, up to `max_delay`, or up to the deadline with a `timeout`; for longer waits the
            item gives up at once.
        retry_on_result: A predicate of the returned value; true means that this attempt has failed.
        fallback_on: After which exceptions the next value of `arg_fallback` is tried: a type, a
            tuple of types, or a predicate.
        reraise: Whether the last attempt's own exception is raised, in place of `AllFailedError`.
        chunk_size: How many items are handed to a worker at once; None to go by measured time. It
            is one at a time with a `rate_limit` or a `timeout`.
        rate_limit_scope: "worker", or "total" for one limit for the whole map.
        attempt_timeout: Seconds for one attempt, which is ended then; not for threads.
        start_method: How processes are started: "forkserver", "spawn" or "fork".
        executor: A `concurrent.futures.Executor` that makes the attempts instead.
        on_error: "return" puts an item's failure in its place; "raise" ends the map with it.
        loop: The event loop: "uvloop", "asyncio", or "auto" for uvloop where it is installed.
        **kwargs: Options of the stored backends, an error beside one that does not read them.
            Both: `cache_secret` (what entries are signed with: 16 characters or more, or several
            such, of which the first signs and all verify; else what the environment variable
            `OPERO_CACHE_SECRET` holds, else the user's key file), `cache_stale` (seconds after
            `cache_ttl` for which an outdated value is served if the run fails), `cache_version`
            (a name that retires the entries of all others), `cache_pickle` (False: never pickle).
            Disk: `cache_dir`, `cache_size_limit` (bytes; None for no bound). Redis: `cache_url`.

    Returns:
        The mapped function, or a decorator. It takes an iterable and keyword arguments for all
        items, and returns a list; `stream`, `amap` and `astream` are its lazy and its async forms.

    Raises:
        TypeError: If an option has the wrong type or no such option exists, or what is decorated
            is no function that takes an item (a method is refused too).
        ValueError: If an option's value is not allowed, or does not go with another one or with
            the function.

    Example:
        ```python
        @opmap(mode="thread", workers=10, retries=3)
        def fetch(url: str) -> bytes: ...

        pages = fetch(urls)
        ```
    """
    from opero.map.options import map_plan

    from .options import CACHE_DEFAULTS, OPTIONS, STORED_OPTIONS, CacheConfig

    function = None
    if callable(mode) or hasattr(type(mode), "__get__"):
        function, mode = mode, "process"
    options = {
        "mode": mode,
        "workers": workers,
        "ordered": ordered,
        "progress": progress,
        "chunk_size": chunk_size,
        "rate_limit_scope": rate_limit_scope,
        "attempt_timeout": attempt_timeout,
        "start_method": start_method,
        "executor": executor,
        "on_error": on_error,
        "loop": loop,
    }
    _only("opmap", kwargs, STORED_OPTIONS, (*OPTIONS, *options))
    if isinstance(cache, CacheConfig) and cache_namespace == "opero_opmap_item":
        cache_namespace = CACHE_DEFAULTS["cache_namespace"]  # it is not given: the config says it
    checked = _checked(
        {
            "retries": retries,
            "backoff_factor": backoff_factor,
            "min_delay": min_delay,
            "max_delay": max_delay,
            "retry_on": retry_on,
            "jitter": jitter,
            "retry_after": retry_after,
            "retry_on_result": retry_on_result,
            "reraise": reraise,
        },
        {
            **kwargs,
            "cache_ttl": cache_ttl,
            "cache_key": cache_key,
            "cache_namespace": cache_namespace,
            "cache_backend": cache_backend,
            "cache_maxsize": cache_maxsize,
        },
        retry,
        cache,
        arg_fallback,
        rate_limit,
        burst,
        timeout,
        fallback_on,
    )
    plan = map_plan(options, isinstance(rate_limit, RateLimiter))

    def decorator(function: Any) -> Any:
        return assembly.decorate_map(function, checked, plan)

    return decorator if function is None else decorator(function)


operomap = opmap


def get_cache_decorator(
    cache: bool | CacheConfig = True,
    cache_ttl: float | None = None,
    cache_key: _CacheKey = None,
    cache_namespace: str = "opero",
    cache_backend: str = "memory",
    **kwargs: Unpack[_MoreForCache],
) -> Decorator:
    """Make a decorator that caches, with single flight, and does nothing else.

    Args:
        cache: Whether it caches; or a `CacheConfig`.
        cache_ttl: Seconds for which a value counts; None for ever.
        cache_key: Makes the key, from the call's own arguments.
        cache_namespace: The name under which `clear_cache` finds the values.
        cache_backend: Where they are kept: "memory", "disk" or "redis".
        **kwargs: Options of the backend, as of `opero`; `cache_maxsize` of the memory.

    Raises:
        TypeError: If an option has the wrong type or there is no such option.
        ValueError: If an option's value is not allowed.
    """
    from .options import cache_config

    options = {
        **_store_options("get_cache_decorator", kwargs, "cache_maxsize"),
        "cache_ttl": cache_ttl,
        "cache_key": cache_key,
        "cache_namespace": cache_namespace,
        "cache_backend": cache_backend,
    }
    return _decorator(_single(cache=cache_config(cache, options)))


def get_retry_decorator(
    retries: int = 3,
    backoff_factor: float = 1.5,
    min_delay: float = 0.1,
    max_delay: float = 30.0,
    retry_on: RetryOn = (Exception,),
    **kwargs: Unpack[_MoreForRetry],
) -> Decorator:
    """Make a decorator that retries, and does nothing else.

    Args:
        retries: The greatest number of attempts in all; 0 and 1 both mean one.
        backoff_factor: What the delay's ceiling grows by from attempt to attempt, at least 1.
        min_delay: The shortest delay between attempts, in seconds.
        max_delay: The longest delay between attempts, in seconds.
        retry_on: Which exceptions are worth another attempt.
        **kwargs: `jitter`, whether a delay is drawn at random below its ceiling; `retry_after`,
            which tells from the exception how many seconds the server asks to wait, or None;
            `retry_on_result`, a predicate of the returned value; `reraise`, whether the last
            exception is raised itself.

    Raises:
        TypeError: If an option has the wrong type or there is no such option.
        ValueError: If an option's value is not allowed.
    """
    from .options import RETRY_DEFAULTS, RetryConfig

    more = ("jitter", "retry_after", "retry_on_result", "reraise")
    _only("get_retry_decorator", kwargs, more, tuple(RETRY_DEFAULTS))
    config = RetryConfig(retries, backoff_factor, min_delay, max_delay, retry_on, **kwargs)
    return _decorator(_single(retry=config))


def get_rate_limit_decorator(
    rate_limit: _RateLimit, **kwargs: Unpack[_MoreForRateLimit]
) -> Decorator:
    """Make a decorator that limits how often a function starts, and does nothing else.

    Args:
        rate_limit: The greatest number of starts per second; or a `RateLimitConfig`; or a
            `RateLimiter`, which several functions may share.
        **kwargs: `burst`, how many starts may follow each other at once after a pause.

    Raises:
        TypeError: If an option has the wrong type or there is no such option.
        ValueError: If an option's value is not allowed.
    """
    _only("get_rate_limit_decorator", kwargs, ("burst",), ("rate_limit",))
    return _decorator(_single(limit=_limit(rate_limit, kwargs.get("burst", 1))))


def get_fallback_decorator(
    arg_fallback: ArgFallback, **kwargs: Unpack[_MoreForFallback]
) -> Decorator:
    """Make a decorator that tries the values of one argument in order, and does nothing else.

    Args:
        arg_fallback: The name of a parameter that holds a list or tuple of values, each of which
            is tried as its element 0; or `{"parameter": [values]}`, tried after the caller's own.
        **kwargs: `fallback_on`, which exceptions lead to the next value.

    Raises:
        TypeError: If an option has the wrong type or there is no such option.
        ValueError: At decoration, if the function has no such parameter; at the call, if it holds
            no list or tuple, or an empty one.
    """
    from .options import RetryConfig

    _only("get_fallback_decorator", kwargs, ("retry_on", "fallback_on"), ("arg_fallback",))
    given: dict[str, Any] = dict(kwargs)
    fallback_on = given.pop("fallback_on", Exception)
    retry = RetryConfig(1, **given)
    return _decorator(_single(retry=retry, arg_fallback=arg_fallback, fallback_on=fallback_on))


def _store_options(function: str, given: Mapping[str, Any], *also: str) -> dict[str, Any]:
    """Return the options that some backend might read, or refuse the first that none does."""
    from .options import CACHE_DEFAULTS, OPTIONS, STORED_OPTIONS

    _only(
        function,
        given,
        (*also, *STORED_OPTIONS),
        OPTIONS if function == "opero" else (*CACHE_DEFAULTS, "cache"),
    )
    return dict(given)


def _only(
    function: str, given: Mapping[str, Any], allowed: tuple[str, ...], known: tuple[str, ...]
) -> None:
    """Refuse the first option that is not allowed, naming its nearest neighbour."""
    from .options import unknown

    for name in given:
        if name not in allowed:
            raise TypeError(unknown(name, (*known, *allowed), function))


def _checked(
    retried: dict[str, Any],
    cached: dict[str, Any],
    retry: RetryConfig | None,
    cache: bool | CacheConfig,
    arg_fallback: ArgFallback | None,
    rate_limit: _RateLimit,
    burst: int,
    timeout: float | None,
    fallback_on: RetryOn,
) -> CallOptions:
    """Check the options of a call, those of retries and of the cache being by name."""
    from .options import cache_config, plan, retry_config

    limit = _limit(rate_limit, burst)
    return plan(
        cache=cache_config(cache, cached),
        retry=retry_config(retry, retried),
        arg_fallback=arg_fallback,
        limit=limit,
        timeout=timeout,
        fallback_on=fallback_on,
        attempts_named="retries" if retry is None else "attempts",
    )


def _limit(rate_limit: _RateLimit, burst: int) -> RateLimitConfig | RateLimiter | None:
    """Make one config of `rate_limit=` and `burst=`, unless it is a limiter to be shared."""
    from .options import limit_config, refuse_burst

    if isinstance(rate_limit, RateLimiter):
        refuse_burst(rate_limit, burst)
        return rate_limit
    return limit_config(rate_limit, burst)


def _single(
    *,
    retry: RetryConfig | None = None,
    arg_fallback: ArgFallback | None = None,
    cache: CacheConfig | None = None,
    limit: RateLimitConfig | RateLimiter | None = None,
    fallback_on: RetryOn = Exception,
) -> CallOptions:
    """Check the options of one mechanism; the others are off."""
    from .options import CacheConfig, RetryConfig, plan

    return plan(
        retry=RetryConfig(1) if retry is None else retry,
        arg_fallback=arg_fallback,
        cache=CacheConfig() if cache is None else cache,
        limit=limit,
        timeout=None,
        fallback_on=fallback_on,
    )


def _decorator(plan: CallOptions) -> Decorator:
    def decorator(function: Any) -> Any:
        return assembly.decorate(function, plan)

    typed: Any = decorator
    return typed  # type: ignore[no-any-return]
