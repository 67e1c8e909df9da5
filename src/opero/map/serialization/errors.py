"""Exceptions as bytes that always unpickle, whatever their classes do.

An exception comes with its causes and contexts (`__cause__`, `__context__`) and with those inside
it (of a group, or the errors of `AllFailedError`). Each is pickled separately: a stand-in replaces
one that cannot be pickled, and the others stay as they are. The last one in the chain has the text
of the traceback.
"""

from __future__ import annotations

import pickle
import traceback
from functools import partial
from typing import Any

from opero.exceptions import ErrorStandIn, _Failure, _new, _rebuild_failure, describe
from opero.http_errors import retry_after
from opero.map.interrupts import contained
from opero.tracebacks import without_top

from .pickles import dumps

_FAR = 20
"""How far the exceptions behind one are followed."""

_Links = tuple["_Packed | None", "_Packed | None", bool]
_Packed = tuple[str, Any, list[Any], list[str], _Links]
"""How one travels, its pickle, those in it, its notes, those behind it and whether `from` said."""


class RemoteTraceback(Exception):
    """Shows, as the cause of an exception, where in the worker it was raised."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def pack_error(error: BaseException) -> bytes:
    """Pickle any exception, so that `unpack_error` can restore it.

    The wait that a server asked for goes along, as the headers that say so may not travel.
    """
    text = ""
    asked = retry_after(error)
    try:
        if error.__traceback__ is not None:
            frames = without_top(error).__traceback__
            text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the failure
        pass
    return pickle.dumps((_packed(error, set()), text, asked), 5)


def _packed(error: BaseException, path: set[int]) -> _Packed:
    """Pack an exception and those behind it; `path` are those that this one is behind."""
    kind, body, inner = _packed_alone(error, path)
    path = path | {id(error)}
    links = [
        None if each is None or id(each) in path or len(path) > _FAR else _packed(each, path)
        for each in (error.__cause__, error.__context__)
    ]
    notes = getattr(error, "__notes__", None)
    notes = [each for each in notes if type(each) is str] if isinstance(notes, list) else []
    return kind, body, inner, notes, (links[0], links[1], error.__suppress_context__)


def _packed_alone(error: BaseException, path: set[int]) -> tuple[str, Any, list[_Packed]]:
    """Return how an exception travels, its pickle, and those in it."""
    try:
        if isinstance(error, BaseExceptionGroup):
            inner = [_packed(each, path | {id(error)}) for each in error.exceptions]
            parts = type(error), error.message, _attributes(error)
            return "group", dumps(parts, back=True), inner
        if isinstance(error, _Failure) and type(error).__reduce__ is _Failure.__reduce__:
            inner = [_packed(each, path | {id(error)}) for each in error.errors]
            of_it = type(error), error.message, _attributes(error)
            return "failure", dumps(of_it, back=True), inner
    except Exception:  # noqa: BLE001 - a user's class may do anything
        pass
    for kind in ("whole", "parts"):
        try:
            payload = error if kind == "whole" else (type(error), error.args, _attributes(error))
            body = dumps(payload, back=True)
            copy = _unpacked(kind, body, [])
            if type(copy) is type(error) and copy.args == error.args:
                return kind, body, []
        except Exception:  # noqa: BLE001 - whatever it is, it does not travel so
            continue
    return "lost", f"{type(error).__module__}: {describe(error)}", []


def _attributes(error: BaseException) -> dict[str, Any]:
    """Return the attributes of an exception that can be pickled."""
    attributes = {}
    for name, value in vars(error).items():
        if isinstance(error, _Failure) and name in {"message", "errors", "_origin"}:
            continue
        try:
            contained(partial(pickle.loads, dumps(value, back=True)))
        except Exception:  # noqa: BLE001 - this attribute stays behind
            continue
        attributes[name] = value
    return attributes


def unpack_error(body: bytes) -> BaseException:
    """Return the exception, or a stand-in if it cannot be created here."""
    packed, text, asked = pickle.loads(body)
    error = _linked(packed)
    if text:
        BaseException.__setattr__(_last(error), "__cause__", RemoteTraceback(text))
    if asked is not None and retry_after(error) is None:
        try:
            error.retry_after = asked  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001 - its class may not let us
            pass
    return error


def _linked(packed: _Packed) -> BaseException:
    """Return an exception with those behind it."""
    kind, body, inner, notes, (cause, context, suppressed) = packed
    error: BaseException
    try:
        error = _unpacked(kind, body, [_linked(each) for each in inner])
        assert isinstance(error, BaseException)
    except Exception as fault:  # noqa: BLE001 - a user's __setstate__ may raise anything
        error = ErrorStandIn(f"an exception that cannot be rebuilt here: {describe(fault)}")
    links = {
        "__cause__": None if cause is None else _linked(cause),
        "__context__": None if context is None else _linked(context),
        "__suppress_context__": suppressed,
    }
    for name, value in links.items():
        BaseException.__setattr__(error, name, value)  # it may be frozen
    if notes and not getattr(error, "__notes__", None):
        try:
            BaseException.__setattr__(error, "__notes__", notes)
        except Exception:  # noqa: BLE001 - it takes none
            pass
    return error


def _unpacked(kind: str, body: Any, inner: list[Any]) -> Any:
    """Return an exception without those behind it."""
    if kind == "lost":
        return ErrorStandIn(body)
    payload = contained(partial(pickle.loads, body))
    if kind == "whole":
        return payload
    made, what, attributes = payload
    if kind == "failure":
        return _rebuild_failure(made, what, [("whole", each) for each in inner], attributes)
    if kind == "group":
        error = _new(made, (what, inner))
    else:
        error = _new(made, what)
        error.args = what
    vars(error).update(attributes)
    return error


def _last(error: BaseException) -> BaseException:
    """Return the exception that a traceback shows first: the others came of it."""
    seen = set()
    while id(error) not in seen:
        seen.add(id(error))
        behind = error.__cause__
        if behind is None and not error.__suppress_context__:
            behind = error.__context__
        if behind is None:
            break
        error = behind
    return error
