"""Exceptions in bytes, from which one comes back whatever its class does."""

from __future__ import annotations

import pickle
import traceback

from opero.exceptions import ErrorStandIn, _extras, _pack_one, _unpack, describe
from opero.http_errors import retry_after
from opero.tracebacks import without_top


class RemoteTraceback(Exception):
    """Shows, as the cause of an exception, where in the worker it was raised."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def pack_error(error: BaseException) -> bytes:
    """Put an exception into bytes from which `unpack_error` makes one again, whatever it is.

    What a server asked for goes along: the headers that say so may not travel.
    """
    text = ""
    asked = retry_after(error)
    try:
        if error.__traceback__ is not None:
            frames = without_top(error).__traceback__
            text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the failure
        pass
    packed = _pack_one(error)
    if packed[0] != "lost":
        try:
            body = pickle.dumps((packed, text, asked), 5)
            if b"_main__" not in body:
                return body
        except Exception:  # noqa: BLE001 - it may work when done as below
            pass
    return _pack_by_value(error, text, asked)


def _pack_by_value(error: BaseException, text: str, asked: float | None) -> bytes:
    """Pack an exception whose class cannot be imported."""
    from . import by_value

    for kind in ("whole", "parts"):
        try:
            payload = error if kind == "whole" else (type(error), error.args, _extras(error))
            body = by_value.dumps(((kind, payload), text, asked), back=True)
            (copy,) = _unpack([pickle.loads(body)[0]])
            if type(copy) is type(error) and copy.args == error.args:
                return body
        except Exception:  # noqa: BLE001 - whatever it is, it does not travel so
            continue
    lost = "lost", f"{type(error).__module__}: {describe(error)}"
    return pickle.dumps((lost, text, asked), 5)


def unpack_error(body: bytes) -> BaseException:
    """Return the exception again; what stands in for it, if it cannot be made here."""
    text, asked = "", None
    try:
        packed, text, asked = pickle.loads(body)
        (error,) = _unpack([packed])
    except Exception as fault:  # noqa: BLE001 - a user's __setstate__ may raise anything
        error = ErrorStandIn(f"an exception that cannot be rebuilt here: {describe(fault)}")
    if text:
        BaseException.__setattr__(error, "__cause__", RemoteTraceback(text))  # it may be frozen
    if asked is not None and retry_after(error) is None:
        try:
            error.retry_after = asked  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001 - its class may not let us
            pass
    return error
