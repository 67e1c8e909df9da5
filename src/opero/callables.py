"""What can be decorated, and what it is: the plain function behind it, and whether that yields."""

from __future__ import annotations

import functools
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import inspect
    from typing import Any


class NoDecorator:
    """Base of what other libraries let one decorate with: calling it says what to write here."""

    __slots__ = ()
    _instead = ""  # what to write

    if not TYPE_CHECKING:

        def __call__(self, *_: Any, **__: Any) -> Any:
            """Refuse to decorate a function.

            Raises:
                TypeError: Always.
            """
            raise TypeError(self._instead)


def is_callable(value: Any) -> bool:
    """Return whether a value can be called, and not only to say that this is a mistake."""
    return callable(value) and not isinstance(value, NoDecorator)


def face_of(function: Any) -> Any:
    """Return the plain function behind a callable, and refuse what opero cannot wrap."""
    if isinstance(function, (property, functools.cached_property)):
        raise TypeError("opero decorates functions: put it below @property, not above")
    if isinstance(function, type):
        raise TypeError(
            f"opero decorates functions, and {function.__qualname__} is a class: decorate its "
            f"methods, or a function that makes an instance: lambda x: {function.__name__}(x)"
        )
    if not is_callable(function):
        raise TypeError(f"opero decorates functions, not {function!r}")
    face = function
    while isinstance(face, functools.partial):
        face = face.func
    if not hasattr(face, "__qualname__"):
        face = type(face).__call__  # an instance that is called
    returning = face
    while type(returning) is functools._lru_cache_wrapper:
        returning = returning.__wrapped__
    if returning is not face and yields(returning):
        raise TypeError(
            f"opero cannot decorate the generator function {returning.__qualname__} above "
            f"lru_cache, which returns the first call's generator again, used up: leave it out"
        )
    code = getattr(returning, "__code__", None)
    if getattr(code, "co_flags", 0) & 0x0100:  # CO_ITERABLE_COROUTINE
        raise TypeError(
            f"opero cannot decorate {returning.__qualname__}, a generator that types.coroutine has "
            f"made a coroutine of: write it as a coroutine function (async def)"
        )
    if code in _codes_of_context_managers():
        raise TypeError(
            f"opero cannot decorate {returning.__qualname__}, a context manager made of a "
            f"generator: that begins in the with statement, when the call has returned. Decorate "
            f"the generator function, and put @contextmanager above @opero: what comes before the "
            f"yield is retried then"
        )
    return face


def bare_of(function: Any) -> Any:
    """Return what a function is below decorators of opero's and `functools.lru_cache`."""
    while not hasattr(function, "__self__"):
        if type(function) is functools._lru_cache_wrapper:
            function = function.__wrapped__
        elif hasattr(function, "__opero__"):
            function = function.__opero__.func
        else:
            break
    return function


def yields(*functions: Any) -> str:
    """Return whether one of these is a generator function: "sync", "async", or "" for no."""
    import inspect

    if any(inspect.isgeneratorfunction(function) for function in functions):
        return "sync"
    return "async" if any(inspect.isasyncgenfunction(function) for function in functions) else ""


def is_method(signature: inspect.Signature | None) -> bool:
    """Return whether a function takes `self`, wherever it is written.

    A class tells the functions in its body that they are its methods, by `__set_name__`, but not
    those below `@property`, nor those that are assigned to it later.
    """
    first = None if signature is None else next(iter(signature.parameters.values()), None)
    return first is not None and first.name == "self" and first.kind <= first.POSITIONAL_OR_KEYWORD


def signature_or_none(function: Any) -> inspect.Signature | None:
    """Return a function's signature; None if it has none, as some functions written in C."""
    from .signatures import signature_of

    try:
        return signature_of(function)
    except (TypeError, ValueError):
        return None


def _codes_of_context_managers() -> tuple[Any, ...]:
    """Return the code that every function below `@contextmanager`, or the awaited one, becomes."""
    contextlib = sys.modules.get("contextlib")
    if contextlib is None:
        return ()
    makers = (contextlib.contextmanager, contextlib.asynccontextmanager)
    return tuple(made(_codes_of_context_managers).__code__ for made in makers)
