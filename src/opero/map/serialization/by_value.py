"""cloudpickle, which from here on sends decorated functions by value where it sends functions so.

By itself it would send one by its name, as pickle does, and no worker finds what only `__main__`, a
notebook or another function knows. So what is decorated travels as what it was made of: the
function and the options. It is decorated anew over there, with a cache and figures of its own, as
it would be if the worker had imported its module.

The copy is made empty, and filled once the function is whole: a function may refer to itself by the
name that stands for the decorated one.
"""

from __future__ import annotations

import sys
from types import FunctionType
from typing import Any

import cloudpickle

from opero import hotpath
from opero.map.mapped import Map

from .names import whereabouts

if sys.version_info < (3, 14):
    dumps = cloudpickle.dumps
else:
    import io

    from annotationlib import Format, get_annotations

    class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        """Also sends a function whose annotations name what is not there: they become texts."""

        def reducer_override(self, thing: Any) -> Any:
            try:
                return super().reducer_override(thing)
            except Exception:
                if not isinstance(thing, FunctionType) or _has_annotations(thing):
                    raise
            return super().reducer_override(_with_texts(thing))

    def _has_annotations(function: FunctionType) -> bool:
        try:
            _ = function.__annotations__
        except Exception:  # noqa: BLE001 - they are expressions, and may raise anything
            return False
        return True

    def _with_texts(function: FunctionType) -> FunctionType:
        copy = FunctionType(
            function.__code__, function.__globals__, function.__name__,
            function.__defaults__, function.__closure__, function.__kwdefaults__,
        )  # fmt: skip
        for name in ("__qualname__", "__module__", "__doc__", "__type_params__"):
            setattr(copy, name, getattr(function, name))
        vars(copy).update(vars(function))
        copy.__annotations__ = get_annotations(function, format=Format.STRING)
        return copy

    def dumps(thing: Any, protocol: int, buffer_callback: Any = None) -> bytes:
        """Pickle something, functions of `__main__` and the like by value."""
        with io.BytesIO() as file:
            _Pickler(file, protocol, buffer_callback).dump(thing)
            return file.getvalue()


def _reduce_call(call: Any) -> Any:
    from opero.assembly import plan_of

    if _can_be_imported(call):
        return call.__reduce__()
    awaited = any(isinstance(call, core.AsyncCall) for core in _cores())
    return _empty_call, (awaited,), (call.func, plan_of(call)), None, None, _fill_call


def _empty_call(awaited: bool) -> Any:
    kind: Any = hotpath.core.AsyncCall if awaited else hotpath.core.Call
    return kind.__new__(kind)


def _fill_call(call: Any, state: tuple[Any, Any]) -> None:
    from opero.assembly import decorate

    decorate(*state, into=call)


def _reduce_map(mapped: Map) -> Any:
    if _can_be_imported(mapped):
        return mapped.__reduce__()
    return _empty_map, (), (mapped.call, mapped.plan), None, None, _fill_map


def _empty_map() -> Map:
    return Map.__new__(Map)


def _fill_map(mapped: Map, state: tuple[Any, Any]) -> None:
    Map.__init__(mapped, *state)


def _can_be_imported(wrapper: Any) -> bool:
    """Tell whether a worker finds this very thing by its name."""
    where = whereabouts(wrapper)
    return where is not None and not where[2]


def _cores() -> list[hotpath.Core]:
    """Return the halves that there are."""
    cores = [hotpath.load("plain")]
    if hotpath.core not in cores:
        cores.append(hotpath.core)
    return cores


for _core in _cores():
    cloudpickle.CloudPickler.dispatch_table[_core.Call] = _reduce_call
    cloudpickle.CloudPickler.dispatch_table[_core.AsyncCall] = _reduce_call
cloudpickle.CloudPickler.dispatch_table[Map] = _reduce_map
