"""Finds the global, attribute or element that cannot be pickled.

It runs only after a pickle has failed. What refers to the culprit fails too, so the search goes
from the whole to the smallest part that cannot be pickled.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from types import FunctionType, MethodType, ModuleType
from typing import Any

from opero.exceptions import describe, with_article
from opero.map.interrupts import contained

from . import handles

_DEEP = 30  # parts within parts
_WIDE = 10_000  # elements of one container


def unpicklable(what: str, value: Any, error: Exception, inherited: bool = False) -> TypeError:
    """Return the error that says what cannot be pickled, which part of it, and why.

    Args:
        what: What the value is for the user.
        value: The value.
        error: What its pickle has raised.
        inherited: Whether workers inherit what multiprocessing shares.
    """
    kind = type(value)
    text = f"{what} of type {kind.__module__}.{kind.__qualname__} cannot be pickled"
    way, culprit, reason = _search(value, "it", False, inherited)
    if culprit is not value:
        return TypeError(f"{text}: {way} is {_a(culprit)}: {describe(reason or error)}")
    return TypeError(f"{text}: {describe(error)}")


def unpicklable_function(function: Any, error: Exception) -> TypeError:
    """Return the error that says what a function uses that cannot travel, and what to do."""
    name = getattr(function, "__qualname__", None) or repr(function)
    text = f"the function {name} cannot be pickled"
    way, culprit, reason = _search(function, "", True, True)
    if culprit is function:
        return TypeError(f"{text}: {describe(error)}")
    return TypeError(
        f"{text}: it uses {way}, {_a(culprit)} ({describe(reason or error)}); create it in the "
        f"function, or once in each worker with worker_init="
    )


def _search(
    thing: Any, way: str, fresh: bool, inherited: bool
) -> tuple[str, Any, Exception | None]:
    """Return the way to the smallest part that cannot be pickled, the part, and why."""
    reason: Exception | None = None
    seen = {id(thing)}
    for _ in range(_DEEP):
        if getattr(reason, "refused", None) is thing or _is_whole(thing):
            break
        for step, part, code in _parts(thing):
            if id(part) in seen:
                continue
            seen.add(id(part))
            refusal = _refusal(part, fresh or code, inherited)
            if refusal is not None:
                thing, reason, fresh = part, refusal, fresh or code
                way = step if not way else way + step
                break
        else:
            break
    return way.removeprefix(", which uses "), thing, reason


def _is_whole(thing: Any) -> bool:
    """Return whether a thing is to blame rather than what it is made of."""
    return type(thing).__module__.partition(".")[0] == "multiprocessing"


class _Nowhere:
    def write(self, data: Any) -> int:
        return len(data)


def _refusal(value: Any, fresh: bool, inherited: bool) -> Exception | None:
    """Return what is raised when a value is pickled; None if it can be."""
    from .by_value import Pickler

    def dump() -> None:
        with handles.inherited() if inherited else nullcontext():
            Pickler(file, buffer_callback=lambda _: None, fresh=fresh).dump(value)

    file: Any = _Nowhere()
    try:
        contained(dump)
    except Exception as error:  # noqa: BLE001 - a user's __reduce__ may raise anything
        return error
    return None


def _parts(thing: Any) -> Iterator[tuple[str, Any, bool]]:
    """Yield what something is made of: how one says it, the part, and whether code refers to it."""
    if type(thing) is FunctionType:
        yield from _parts_of_function(thing)
    elif isinstance(thing, dict):
        for key, value in islice(list(thing.items()), _WIDE):
            yield f"[{_short(key)}]", value, False
            yield ", in a key,", key, False
    elif isinstance(thing, (list, tuple)):
        for place, value in enumerate(thing[:_WIDE]):
            yield f"[{place}]", value, False
    elif isinstance(thing, (set, frozenset)):
        for value in islice(thing, _WIDE):
            yield ", in it,", value, False
    elif isinstance(thing, (MethodType, functools.partial)):
        yield "", getattr(thing, "func", None) or getattr(thing, "__func__", None), True
        if isinstance(thing, MethodType):
            yield "", thing.__self__, True
        else:
            for place, value in enumerate(thing.args):
                yield f", which uses its argument {place}", value, True
            for name, value in thing.keywords.items():
                yield f", which uses its argument {name}", value, True
    else:
        for name in ("__wrapped__", "__func__", "fget", "fset", "func"):
            inner = vars(type(thing)).get(name) if isinstance(thing, type) else _get(thing, name)
            if inner is not None and callable(inner):
                yield "", inner, True
        of_code = isinstance(thing, (type, ModuleType))
        for name, value in _attributes(thing):
            yield f".{name}", value, of_code


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, Any, bool]]:
    from .cloud import cloudpickle

    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f", which uses {name}", cell.cell_contents, True
        except ValueError:
            continue  # it is empty
    for name in cloudpickle._extract_code_globals(code):
        if name in function.__globals__:
            yield f", which uses {name}", function.__globals__[name], True
    for value in function.__defaults__ or ():
        yield ", which uses a default value", value, True
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f", which uses the default of {name}", value, True
    for name, value in vars(function).items():
        yield f", which uses its attribute {name}", value, True


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a class, of a module or of an instance."""
    try:
        yield from list(vars(thing).items())
    except TypeError:
        pass  # it has slots alone, or none
    for base in type(thing).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            value = _get(thing, name)
            if value is not None:
                yield name, value


def _get(thing: Any, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 - a property of the user's
        return None


def _short(key: Any) -> str:
    text = repr(key) if isinstance(key, (str, int, float, tuple)) else f"a {type(key).__name__}"
    return text if len(text) <= 40 else f"{text[:37]}..."


def _a(thing: Any) -> str:
    kind = type(thing)
    name = kind.__qualname__ if kind.__module__ in {"builtins", "__main__"} else ""
    name = name or f"{kind.__module__}.{kind.__qualname__}"
    return with_article(name)
