"""What a map says whose `worker_init` does not do what it should."""

from __future__ import annotations

from typing import Any

from opero.exceptions import OperoError, describe


def init_failed(init: Any, error: BaseException) -> OperoError:
    """Return the error of a map whose `worker_init` has raised something."""
    return OperoError(f"worker_init={_named(init)} failed in a worker: {describe(error)}")


def init_ended_worker(init: Any, error: BaseException) -> OperoError:
    """Return the error of a map whose `worker_init` ends the processes that it runs in."""
    what = str(error).replace(" in the middle of an attempt", "")
    return OperoError(f"worker_init={_named(init)} ends the workers that call it: {what}")


def init_took_too_long(init: Any, seconds: float) -> OperoError:
    """Return the error of a map with a time limit whose `worker_init` does not end."""
    return OperoError(
        f"worker_init={_named(init)} was still running after {seconds:g} s, and was stopped; a "
        f"map with an attempt_timeout gives it that long"
    )


def _named(init: Any) -> str:
    inner = init
    while hasattr(inner, "func"):  # a partial
        inner = inner.func
    return str(getattr(inner, "__qualname__", None) or repr(inner))
