"""Tracebacks of attempts: they begin in the function, not in what called it."""

from __future__ import annotations

_OURS = ("opero.map.", "opero.core.", "opero._compiled.")


def without_top(error: BaseException) -> BaseException:
    """Take the frames of whoever has made an attempt, and caught its error, out of its traceback.

    They tell nothing, and they hold the error, which holds them.
    """
    traceback = error.__traceback__
    while traceback is not None and _is_ours(traceback.tb_frame.f_globals.get("__name__")):
        traceback = traceback.tb_next
    error.__traceback__ = traceback
    return error


def _is_ours(module: object) -> bool:
    return isinstance(module, str) and module.startswith(_OURS)
