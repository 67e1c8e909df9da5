"""What can be decorated: the plain function inside a callable, and whether it yields."""

from __future__ import annotations

import functools
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import inspect
    from typing import Any


class NoDecorator:
    """Base of classes that are decorators in other libraries: a call says what to write instead."""

    __slots__ = ()
    _instead = ""  # what to write

    if not TYPE_CHECKING:

        def __call__(self, *_: Any, **__: Any) -> Any:
            """Reject a function to decorate.

            Raises:
                TypeError: Always.
            """
            raise TypeError(self._instead)


def is_callable(value: Any) -> bool:
    """Return whether a value is callable, other than to report a mistake."""
    return callable(value) and not isinstance(value, NoDecorator)


def face_of(function: Any) -> Any:
    """Return the plain function inside a callable; reject what opero cannot wrap."""
    if isinstance(function, (property, functools.cached_property)):
        raise TypeError("opero decorates functions: put it below @property, not above")
    if isinstance(function, type):
        raise TypeError(
            f"opero decorates functions, but {function.__qualname__} is a class: decorate its "
            f"methods, or a function that creates an instance: lambda x: {function.__name__}(x)"
        )
    if not is_callable(function):
        raise TypeError(f"opero decorates functions, not {function!r}")
    face = function
    while isinstance(face, functools.partial):
        face = face.func
    if not hasattr(face, "__qualname__"):
        face = type(face).__call__  # a callable instance
    returning = face
    while type(returning) is functools._lru_cache_wrapper:
        returning = returning.__wrapped__
    if returning is not face and yields(returning):
        raise TypeError(
            f"opero cannot decorate the generator function {returning.__qualname__} above "
            f"lru_cache, which would return the first call's used-up generator: leave lru_cache out"
        )
    code = getattr(returning, "__code__", None)
    if getattr(code, "co_flags", 0) & 0x0100:  # CO_ITERABLE_COROUTINE
        raise TypeError(
            f"opero cannot decorate {returning.__qualname__}, a generator that types.coroutine "
            f"turned into a coroutine: write it as a coroutine function (async def)"
        )
    if code in _codes_of_context_managers():
        raise TypeError(
            f"opero cannot decorate {returning.__qualname__}, a context manager made from a "
            f"generator, because its code runs after the call, in the with statement: put "
            f"@contextmanager above @opero, and opero retries what comes before the yield"
        )
    return face


def bare_of(function: Any) -> Any:
    """Return a function without opero's decorators and `functools.lru_cache`."""
    while not hasattr(function, "__self__"):
        if type(function) is functools._lru_cache_wrapper:
            function = function.__wrapped__
        elif hasattr(function, "__opero__"):
            function = function.__opero__.func
        else:
            break
    return function


def yields(*functions: Any) -> str:
    """Return the kind of generator function among these: "sync", "async", or "" if none is."""
    import inspect

    if any(inspect.isgeneratorfunction(function) for function in functions):
        return "sync"
    return "async" if any(inspect.isasyncgenfunction(function) for function in functions) else ""


def is_method(signature: inspect.Signature | None) -> bool:
    """Return whether a function takes `self`, wherever it is defined.

    A class notifies the functions in its body with `__set_name__`, but not those below `@property`,
    nor those assigned to it later.
    """
    first = None if signature is None else next(iter(signature.parameters.values()), None)
    return first is not None and first.name == "self" and first.kind <= first.POSITIONAL_OR_KEYWORD


def signature_or_none(function: Any) -> inspect.Signature | None:
    """Return a function's signature; None if it has none, like some functions written in C."""
    from .signatures import signature_of

    try:
        return signature_of(function)
    except (TypeError, ValueError):
        return None


def _codes_of_context_managers() -> tuple[Any, ...]:
    """Return the code of functions wrapped by `@contextmanager` or `@asynccontextmanager`."""
    contextlib = sys.modules.get("contextlib")
    if contextlib is None:
        return ()
    makers = (contextlib.contextmanager, contextlib.asynccontextmanager)
    return tuple(made(_codes_of_context_managers).__code__ for made in makers)
