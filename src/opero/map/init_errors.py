"""The errors of a map whose `worker_init` fails."""

from __future__ import annotations

from typing import Any

from opero.exceptions import OperoError, describe


def init_failed(init: Any, error: BaseException) -> OperoError:
    """Return the error of a map whose `worker_init` raised an exception."""
    return OperoError(f"worker_init={_named(init)} failed in a worker: {describe(error)}")


def init_ended_worker(init: Any, error: BaseException) -> OperoError:
    """Return the error of a map whose `worker_init` ends its worker processes."""
    what = str(error).replace(" in the middle of an attempt", "")
    return OperoError(f"worker_init={_named(init)} ends the workers that call it: {what}")


def init_took_too_long(init: Any, seconds: float) -> OperoError:
    """Return the error of a map with a time limit whose `worker_init` does not return."""
    return OperoError(
        f"worker_init={_named(init)} was still running after {seconds:g} s, the most that a "
        f"map with this attempt_timeout allows, and was stopped: do less in it, or allow more"
    )


def _named(init: Any) -> str:
    inner = init
    while hasattr(inner, "func"):  # a partial
        inner = inner.func
    return str(getattr(inner, "__qualname__", None) or repr(inner))
