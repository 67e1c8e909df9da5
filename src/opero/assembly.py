"""Checked options in, decorated function out.

CallOptions -> decorate -> Parts -> the state -> a function around it, of `hotpath.core`
CallOptions, MapOptions -> decorate_map -> Parts -> the state -> the Map -> a function around it
"""

from __future__ import annotations

from . import contexts, hotpath, roster
from .callables import bare_of, face_of, is_method, signature_or_none, yields
from .captures import Captures
from .limits.gates import gates_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import inspect
    from typing import Any

    from opero.map.options import MapOptions
    from opero.stores.stored_cache import StoredCache

    from .core.attempts import Policy
    from .core.call import AsyncCall, Call
    from .core.events import Events
    from .options import ArgFallback, CacheOptions, CallOptions


def decorate(function: Any, plan: CallOptions) -> Any:
    """Wrap `function` in the active implementation.

    Args:
        function: A function, coroutine function or generator function, a class method or a static
            method.
        plan: The checked options.

    Returns:
        The decorated function.

    Raises:
        TypeError: If it is something else.
        ValueError: If `arg_fallback` names no parameter of it.
    """
    if isinstance(function, staticmethod):
        return staticmethod(decorate(function.__func__, plan))
    if isinstance(function, classmethod):
        return _ClassMethod(decorate(function.__func__, plan))
    state = state_of(function, plan)
    core = hotpath.core
    kind: Any = core.AsyncFunction if state.awaited else core.Function
    if state.generate is not None:
        kind = core.StreamFunction
    return kind(state)


def state_of(function: Any, plan: CallOptions) -> Call | AsyncCall:
    """Create the state of a decorated function for the active implementation.

    Args:
        function: A function, coroutine function or generator function.
        plan: The checked options.

    Returns:
        A `Call` or an `AsyncCall`.

    Raises:
        TypeError: If it is something else.
        ValueError: If `arg_fallback` names no parameter of it.
    """
    import inspect

    from .event import Origin
    from .events import of_half

    face = face_of(function)
    core = hotpath.core
    signature = signature_or_none(function)
    name = getattr(function, "__qualname__", None) or getattr(face, "__qualname__", repr(function))
    name = str(name)
    binding = None if signature is None else core.Binding(name, signature, core.Freezer())
    yielding = yields(function, face)
    if plan.cache is not None and yielding:
        raise TypeError(
            f"cache=True: {name} is a generator function, and its first caller would use up the "
            f"cached generator: leave the cache out, or decorate a function that returns a list"
        )
    if plan.cache is not None and binding is None:
        raise ValueError(
            f"cache=True: {name} has no signature, so opero cannot make cache keys: decorate a "
            f"function of your own that calls it"
        )
    store = instances = stored_cache = None
    if plan.cache is not None and plan.cache.backend == "memory":
        bounds = (plan.cache.maxsize, plan.cache.ttl, plan.cache.refresh, plan.cache.stale)
        store = core.MemoryStore(core.clock, *bounds)
        instances = core.InstanceStores(core.clock, *bounds)
    awaited = (
        yielding == "async"
        or inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(face)
    )
    if plan.attempt_timeout and not awaited:
        seconds = f"{plan.attempt_timeout / 1e9:g}"
        instead = (
            "write it as an asynchronous one (async def), or give its client a timeout"
            if yielding
            else "write it as a coroutine function, or map it in processes, which can be killed: "
            f'opmap(mode="process", attempt_timeout={seconds})'
        )
        kind = "generator function" if yielding else "function"
        raise ValueError(
            f"attempt_timeout={seconds}: {name} is an ordinary {kind}, and nothing can stop a "
            f"thread that runs one; {instead}"
        )
    runner: Any
    if awaited:
        from .runners import aio as runner
    else:
        from .runners import sync as runner
    events = of_half(core)
    if plan.cache is not None and plan.cache.backend != "memory":
        stored_cache = _stored_cache(function, name, plan.cache, awaited, events)
    origin = Origin(
        name,
        getattr(face, "__module__", None),
        None if plan.cache is None else plan.cache.namespace,
        None if plan.cache is None else plan.cache.backend,
        "async" if awaited else "sync",
    )
    parts = core.Parts(
        func=function,
        face=face,
        name=name,
        options=plan,
        decorate=decorate,
        awaited=awaited,
        runner=runner,
        clock=core.clock,
        events=events,
        origin=origin,
        policy=policy_of(core, plan),
        fallback=_fallback(core, name, signature, plan.arg_fallback),
        queues=gates_of(plan, origin),
        timeout=plan.timeout,
        attempt_timeout=plan.attempt_timeout,
        binding=binding,
        generate=_generate(name, yielding),
        cache_key=None if plan.cache is None else plan.cache.key_function,
        store=store,
        instances=instances,
        stored_cache=stored_cache,
    )
    state = core.AsyncCall(parts) if awaited else core.Call(parts)
    if is_method(signature):
        state.become_method()
    if plan.cache is not None:
        contexts.register(plan.cache.namespace, state)
    roster.enlist(state)
    return state


def decorate_map(function: Any, checked: CallOptions, plan: MapOptions) -> Any:
    """Make `function` map itself over many items.

    Args:
        function: A function or coroutine function of one item, a class method or a static method.
        checked: The checked options of an item.
        plan: The checked options of the map.

    Returns:
        The mapped function, as a class method or a static method if `function` is one.

    Raises:
        TypeError: If it is something else.
        ValueError: If the options do not fit the function.
    """
    from opero.map.mapped import Map, MappedFunction
    from opero.map.options import check_function

    if isinstance(function, staticmethod):
        return staticmethod(decorate_map(function.__func__, checked, plan))
    if isinstance(function, classmethod):
        return _ClassMethod(decorate_map(function.__func__, checked, plan))
    if isinstance(getattr(function, "__opero__", None), Map):
        raise TypeError(
            f"opmap maps functions of one item, but {function!r} is already a map: use @opmap once"
        )
    if yields(function, face_of(function)):
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(
            f"opmap maps functions that return a result, but {name} is a generator function: map a "
            f"function that returns a list of its items: return list({name}(...))"
        )
    call = state_of(function, checked)
    check_function(plan, call, signature_or_none(function))
    call.origin = call.origin._replace(mode=plan.mode if plan.executor is None else "executor")
    return MappedFunction(Map(call, plan, decorate_map))


def policy_of(core: hotpath.Core, plan: CallOptions) -> Policy:
    """Create the policy for checked options."""
    retry = plan.retry
    types, predicate = _condition(retry.retry_on)
    fallback_types, fallback_predicate = (
        (None, None) if plan.arg_fallback is None else _condition(plan.fallback_on)
    )
    return core.Policy(
        max(1, retry.attempts),
        retry.backoff_factor,
        retry.min_delay,
        retry.max_delay,
        retry.jitter,
        types,
        predicate,
        retry.retry_after,
        fallback_types,
        fallback_predicate,
        retry.retry_on_result,
        retry.reraise,
        retry.retry_after is not None and plan.limit is not None and plan.arg_fallback is None,
    )


def _condition(errors: Any) -> tuple[Any, Any]:
    """Return the exception types or the predicate of an option."""
    return (errors, None) if isinstance(errors, tuple) else (None, errors)


def _stored_cache(
    function: Any, name: str, plan: CacheOptions, asynchronous: bool, events: Events
) -> StoredCache:
    """Open the stored cache of a function.

    What the function has captured counts like an argument, unless `cache_key` says what a value
    depends on.
    """
    from opero.stores.opening import open_stored_cache

    bare = bare_of(function)
    made = open_stored_cache(plan, name, asynchronous, hotpath.core, events)
    captures = Captures(bare) if plan.key_function is None else None
    made.belong(plan.namespace, made.canonical.owner_of(face_of(bare)), plan.version, captures)
    return made


class _ClassMethod(classmethod):  # type: ignore[type-arg]
    """A class method whose bound form has the decorated function's attributes."""

    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        return self.__func__.__get__(type(instance) if owner is None else owner)

    def __reduce__(self) -> Any:
        return _ClassMethod, (self.__func__,)


def _generate(name: str, yielding: str) -> Any:
    """Return the function that creates callers' generators; None if there are none.

    Args:
        name: The function's name.
        yielding: What `callables.yields` says of it.
    """
    if not yielding:
        return None
    from .runners.naming import named

    stream: Any
    if yielding == "async":
        from .runners.async_streams import stream
    else:
        from .runners.streams import stream
    return named(stream, name)


def _fallback(
    core: hotpath.Core, name: str, signature: inspect.Signature | None, option: ArgFallback | None
) -> Any:
    if option is None:
        return None
    parameter, listed = (option, None) if isinstance(option, str) else next(iter(option.items()))
    names = [] if signature is None else list(signature.parameters)
    found = None if signature is None else signature.parameters.get(parameter)
    if (
        signature is None
        or found is None
        or found.kind in {found.VAR_POSITIONAL, found.VAR_KEYWORD}
    ):
        raise ValueError(
            f"arg_fallback={parameter!r}: {name} has no parameter of that name; it has "
            f"{', '.join(names) or 'none'}"
        )
    return core.Fallback(name, signature, parameter, None if listed is None else tuple(listed))
