"""How objects travel that pickle refuses but that scripts often have.

A worker recreates what code refers to, such as a lock in a global, as if the script had run there.
An item, a result or a shared argument must be the same object on the other side, so opero refuses a
lock there, as `ProcessPoolExecutor` does.
"""

from __future__ import annotations

import contextvars
import dataclasses
import dis
import functools
import io
import os
import sys
import threading
import typing
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from types import CellType, FunctionType, GeneratorType, ModuleType
from typing import Any

from . import arrivals

Reducer = Callable[[Any, Any], Any]

_reducers: dict[type, Reducer] = {}
_families: dict[type, Reducer] = {}


def reducer_of(kind: type) -> Reducer | None:
    """Return the reducer of a class's instances; None if pickle handles them as usual."""
    reducer = _reducers.get(kind)
    if reducer is not None:
        return reducer
    for base in kind.__mro__:
        if base in _families:
            return _families[base]
    return None


def _reduces(*kinds: type, family: bool = False) -> Callable[[Reducer], Reducer]:
    """Register a reducer for instances of some classes; as a family, for subclasses too."""

    def decorate(reducer: Reducer) -> Reducer:
        (_families if family else _reducers).update(dict.fromkeys(kinds, reducer))
        return reducer

    return decorate


def _refused(thing: Any, why: str) -> TypeError:
    kind = type(thing)
    error = TypeError(f"cannot pickle a {kind.__module__}.{kind.__qualname__}: {why}")
    error.refused = thing  # type: ignore[attr-defined]  # blame the whole object, not a part
    return error


# --- what belongs to a process --------------------------------------------------------------------


def _belongs_here(make: Callable[[Any], Any]) -> Reducer:
    """Return a reducer that recreates an object for code, and refuses it elsewhere."""

    def reducer(pickler: Any, thing: Any) -> Any:
        if not pickler.fresh:
            raise _refused(thing, "it belongs to one process")
        return make(thing)

    return reducer


_reduces(type(threading.Lock()))(_belongs_here(lambda lock: (threading.Lock, ())))  # noqa: ARG005
_reduces(type(threading.RLock()), threading._RLock)(
    _belongs_here(lambda lock: (threading.RLock, ()))  # noqa: ARG005
)
_reduces(threading.Condition)(
    _belongs_here(lambda condition: (threading.Condition, (condition._lock,)))
)
_reduces(threading.Event)(_belongs_here(lambda event: (_event, (event.is_set(),))))
_reduces(threading.Semaphore)(
    _belongs_here(lambda semaphore: (threading.Semaphore, (semaphore._value,)))
)
_reduces(threading.BoundedSemaphore)(
    _belongs_here(lambda semaphore: (threading.BoundedSemaphore, (semaphore._initial_value,)))
)
_reduces(threading.Barrier)(
    _belongs_here(
        lambda barrier: (
            threading.Barrier,
            (barrier.parties, barrier._action, barrier._timeout),
        )
    )
)
_reduces(threading.local, family=True)(_belongs_here(lambda local: (type(local), ())))


def _event(happened: bool) -> threading.Event:
    event = threading.Event()
    if happened:
        event.set()
    return event


@_reduces(threading.Thread, Executor, Future, family=True)
def _at_work(pickler: Any, thing: Any) -> Any:  # noqa: ARG001
    raise _refused(thing, "it runs in this process")


# --- functions and functools ----------------------------------------------------------------------

_CACHED: Any = type(functools.lru_cache(len))


@_reduces(_CACHED)
def _cached(pickler: Any, function: Any) -> Any:
    """Reduce a function with an `lru_cache`; its cache arrives empty."""
    module = getattr(function, "__module__", None)
    if isinstance(module, str) and module not in pickler.apart:
        found: Any = sys.modules.get(module)
        for name in getattr(function, "__qualname__", "").split("."):
            found = getattr(found, name, None)
        if found is function:
            return NotImplemented
    limits = function.cache_parameters()
    attributes = {name: each for name, each in vars(function).items() if name != "__wrapped__"}
    attributes.pop("cache_parameters", None)
    args = function.__wrapped__, limits["maxsize"], limits["typed"]
    return pickler.wrap(function, _caching, args, _update, attributes)


def _caching(function: Any, maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def _update(thing: Any, attributes: dict[str, Any]) -> None:
    vars(thing).update(attributes)


def _named(make: Callable[[Any], tuple[Any, ...]]) -> Reducer:
    """Return a reducer that pickles by name, and recreates what has no importable name."""

    def reducer(pickler: Any, thing: Any) -> Any:
        module: Any = getattr(thing, "__module__", None)
        if module not in pickler.apart and hasattr(sys.modules.get(module), thing.__name__):
            return NotImplemented
        return pickler.wrap(thing, *make(thing), _update_slots, {"__module__": module})

    return reducer


def _update_slots(thing: Any, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        try:
            setattr(thing, name, value)
        except AttributeError:
            pass  # read-only: it records where it was made


_reduces(typing.NewType)(
    _named(lambda thing: (typing.NewType, (thing.__name__, thing.__supertype__)))
)
_reduces(typing.ParamSpec)(_named(lambda thing: (typing.ParamSpec, (thing.__name__,))))
_reduces(typing.TypeVarTuple)(_named(lambda thing: (typing.TypeVarTuple, (thing.__name__,))))
if sys.version_info >= (3, 12):
    _reduces(typing.TypeAliasType)(
        _named(lambda thing: (_alias, (thing.__name__, thing.__value__, thing.__type_params__)))
    )


def _alias(name: str, value: Any, parameters: tuple[Any, ...]) -> Any:
    return typing.TypeAliasType(name, value, type_params=parameters)  # type: ignore[attr-defined]


@_reduces(GeneratorType)
def _generator(pickler: Any, generator: Any) -> Any:
    """Reduce a generator that has not begun, or a generator expression over one iterator."""
    if not pickler.fresh:
        raise _refused(generator, "pass a list of what it yields, or create it in the function")
    frame = generator.gi_frame
    code = generator.gi_code
    if frame is None or generator.gi_running:
        raise _refused(generator, "it has begun")
    values = frame.f_locals
    if not _is_new(generator) and not (_is_one_loop(code) and _iterates(values.get(".0"))):
        raise _refused(generator, "it has begun")
    closure = tuple(
        CellType(*([values[name]] if name in values else [])) for name in code.co_freevars
    )
    function = FunctionType(code, frame.f_globals, generator.__name__, None, closure or None)
    function.__qualname__ = generator.__qualname__
    function.__module__ = frame.f_globals.get("__name__", "__main__")
    positional = code.co_argcount
    names = code.co_varnames[: positional + code.co_kwonlyargcount]
    rest = code.co_varnames[len(names) :]
    args = [values[name] for name in names[:positional]]
    kwargs = {name: values[name] for name in names[positional:]}
    if code.co_flags & _VARARGS:
        args += values[rest[0]]
        rest = rest[1:]
    if code.co_flags & _VARKEYWORDS:
        kwargs.update(values[rest[0]])
    return _call, (function, args, kwargs)


_VARARGS, _VARKEYWORDS = 4, 8


def _call(function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    return function(*args, **kwargs)


def _is_new(generator: Any) -> bool:
    import inspect

    return inspect.getgeneratorstate(generator) == "GEN_CREATED"


def _iterates(thing: Any) -> bool:
    """Return whether something is an iterator, which keeps its position."""
    return hasattr(type(thing), "__next__")


def _is_one_loop(code: Any) -> bool:
    """Return whether code is that of `(... for ... in ...)`: all its state is in the iterator."""
    loops = sum(each.opname == "FOR_ITER" for each in dis.get_instructions(code))
    return code.co_name == "<genexpr>" and loops == 1


# --- references -----------------------------------------------------------------------------------


class KeptReference(weakref.ReferenceType[Any]):
    """A weak reference that keeps its target alive: in a worker nothing else may do so."""

    __slots__ = ("kept",)


class KeptMethod(weakref.WeakMethod[Any]):
    """The same for a method."""

    __slots__ = ("kept",)


_reduces(weakref.ReferenceType)(
    _belongs_here(lambda reference: (_refer, (KeptReference, reference())))
)
_reduces(weakref.WeakMethod)(_belongs_here(lambda method: (_refer, (KeptMethod, method()))))
_reduces(weakref.WeakValueDictionary, weakref.WeakKeyDictionary)(
    _belongs_here(
        lambda dictionary: (type(dictionary), (), dict(dictionary.items()), None, None, _fill)
    )
)


def _refer(kind: Any, thing: Any) -> Any:
    if thing is None:
        return weakref.ref(_Gone())
    reference = kind(thing)
    reference.kept = thing
    return reference


class _Gone:
    """The target of a dead reference."""


def _fill(dictionary: Any, items: dict[Any, Any]) -> None:
    dictionary.update(items)
    dictionary._opero_kept = items


# --- files ----------------------------------------------------------------------------------------


@_reduces(io.TextIOWrapper, io.BufferedWriter, io.BufferedReader, io.BufferedRandom, io.FileIO)
def _file(pickler: Any, file: Any) -> Any:
    """Reduce an open file: a worker opens it again, for appending if it is open for writing."""
    for name in ("stdout", "stderr"):
        if file in (getattr(sys, name), getattr(sys, f"__{name}__")):
            return getattr, (sys, name)
    if not pickler.fresh:
        raise _refused(file, "pass its path, and open it in the function")
    path: Any = getattr(file, "name", None)
    try:
        same = os.path.samestat(os.stat(path), os.fstat(file.fileno()))  # noqa: PTH116 - maybe bytes
        same = same and not isinstance(path, int)
        place = file.tell() if file.seekable() else None
        if file.writable():
            file.flush()
    except (OSError, TypeError, ValueError):
        same, place = False, None
    if not same:
        raise _refused(file, "a worker cannot open it by a path; open it in the function")
    mode: str = file.mode
    if "r" not in mode:
        mode, place = mode.replace("w", "a").replace("x", "a"), None
    how: dict[str, Any] = {}
    if isinstance(file, io.TextIOWrapper):
        mode = mode.replace("b", "")
        how = {"encoding": file.encoding, "errors": file.errors}
        how["buffering"] = 1 if file.line_buffering else -1
    elif "b" not in mode:
        mode += "b"
    if isinstance(file, io.FileIO):
        how["buffering"] = 0
    return _open, (os.path.abspath(path), mode, how, place)


def _open(path: Any, mode: str, how: dict[str, Any], place: int | None) -> Any:
    file = open(path, mode, **how)  # noqa: PTH123, SIM115
    if place is not None:
        file.seek(place)
    return file


# --- values of a context --------------------------------------------------------------------------


@_reduces(contextvars.ContextVar)
def _variable(pickler: Any, variable: Any) -> Any:
    """Reduce a context variable: a worker has one of each, with its value."""
    value: list[Any] = []
    default: list[Any] = []
    if variable in contextvars.copy_context():
        value.append(variable.get())
    try:
        default.append(contextvars.Context().run(variable.get))
    except LookupError:
        pass
    token = arrivals.token_of_variable(variable)
    args = token, variable.name, _place_of(variable, pickler.apart), default
    if pickler.back:
        return arrivals.variable, args
    return arrivals.variable, args, value, None, None, arrivals.set_variable


def _place_of(variable: Any, apart: Any) -> tuple[str, str] | None:
    """Return a variable's module and its name there; None if workers cannot import it."""
    for name, module in list(sys.modules.items()):
        if name not in apart and isinstance(module, ModuleType):
            for inner, each in list(vars(module).items()):
                if each is variable:
                    return name, inner
    return None


# --- constants ------------------------------------------------------------------------------------

_constants: dict[type, str] = {
    type(getattr(dataclasses, name)): name
    for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY")
    if type(getattr(dataclasses, name)).__module__ == "dataclasses"
}
"""Constants that pickle would duplicate; since Python 3.15 they are sentinels, and it does not."""


@_reduces(*_constants)
def _constant(pickler: Any, constant: Any) -> str:  # noqa: ARG001 - as all reducers
    return _constants[type(constant)]
