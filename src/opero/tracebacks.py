"""Tracebacks without opero's frames between the caller and the function that failed."""

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
    """Remove the frames that made an attempt and caught its error from the error's traceback.

    They say nothing useful, and they form a reference cycle with the error.
    """
    traceback = error.__traceback__
    while traceback is not None and _is_ours(traceback.tb_frame.f_globals.get("__name__")):
        traceback = traceback.tb_next
    BaseException.with_traceback(error, traceback)  # a frozen class refuses to have it set
    return error


def shorten(error: BaseException) -> BaseException:
    """Remove opero's frames from the traceback of what a call raises.

    A bare `raise` in the same `except` adds nothing to it. If an error was raised in opero, or in a
    function written in C, the frame that raised it stays. For opero's own exceptions it goes too:
    their message says everything.
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
