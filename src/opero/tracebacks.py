"""Tracebacks begin in the function that failed, or in whoever called it: not in between."""

from __future__ import annotations

from .exceptions import OperoError

_OURS = (
    "opero.blocks.",
    "opero.core.",
    "opero._compiled.",
    "opero.runners.",
    "opero.stores.",
    "opero.limits.",
    "opero.map.",
)


def without_top(error: BaseException) -> BaseException:
    """Take the frames of whoever has made an attempt, and caught its error, out of its traceback.

    They tell nothing, and they hold the error, which holds them.
    """
    traceback = error.__traceback__
    while traceback is not None and _is_ours(traceback.tb_frame.f_globals.get("__name__")):
        traceback = traceback.tb_next
    BaseException.with_traceback(error, traceback)  # a frozen class refuses to have it set
    return error


def shorten(error: BaseException) -> BaseException:
    """Leave the way through opero out of the traceback of what a call raises.

    `raise` without an exception, in the same `except`, adds nothing to it. Of an error that arose
    in opero, or in a function written in C, the place where it arose is left, unless it is one of
    opero's own: its message says all.
    """
    traceback = error.__traceback__
    last = None
    while traceback is not None and _is_ours(traceback.tb_frame.f_globals.get("__name__")):
        last, traceback = traceback, traceback.tb_next
    if traceback is None and not isinstance(error, OperoError):
        traceback = last
    BaseException.with_traceback(error, traceback)  # a frozen class refuses to have it set
    return error


def _is_ours(module: object) -> bool:
    return isinstance(module, str) and module.startswith(_OURS)
