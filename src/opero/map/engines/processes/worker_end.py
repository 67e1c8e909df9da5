"""The ordinary end of a worker: what is registered for it runs, within a bounded time."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from contextlib import suppress
from multiprocessing import process, util
from typing import Any, NoReturn

from opero.map import std_streams

LIMIT = 5.0
"""Seconds that a worker gets for its end."""


def is_forked() -> bool:
    """Return whether this worker is a copy of the process that started it."""
    return getattr(process.current_process(), "_start_method", "") == "fork"


def forget_inherited() -> None:
    """Forget what the parent has registered for its own end: this is a copy of it."""
    atexit._clear()
    handlers: list[Any] = getattr(logging, "_handlerList", [])
    handlers.clear()
    atexit.register(logging.shutdown)
    finalize: Any = weakref.finalize
    finalize._registry.clear()
    finalize._registered_with_atexit = False


def leave() -> NoReturn:
    """End this process as an interpreter does, but for the threads that the function has left."""
    with suppress(RuntimeError):  # there is no room for another thread
        threading.Thread(target=cut, name="opero-end", daemon=True).start()
    try:
        atexit._run_exitfuncs()
        util._exit_function()  # type: ignore[attr-defined]
    finally:
        std_streams.flush()
        os._exit(0)


def cut() -> None:
    """End this process when its time is over, whatever it is at."""
    time.sleep(LIMIT)
    os._exit(1)
