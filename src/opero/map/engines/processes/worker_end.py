"""The ordinary end of a worker: registered exit handlers run, within a limited time."""

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
"""Seconds that a worker gets to end."""


def is_forked() -> bool:
    """Return whether this worker is a copy of the process that started it."""
    return getattr(process.current_process(), "_start_method", "") == "fork"


def forget_inherited() -> None:
    """Forget the exit handlers that a forked worker inherited from its parent."""
    atexit._clear()
    handlers: list[Any] = getattr(logging, "_handlerList", [])
    handlers.clear()
    atexit.register(logging.shutdown)
    finalize: Any = weakref.finalize
    finalize._registry.clear()
    finalize._registered_with_atexit = False


def leave() -> NoReturn:
    """End this process as an interpreter does, without waiting for threads that functions left."""
    with suppress(RuntimeError):  # the system starts no more threads
        threading.Thread(target=cut, name="opero-end", daemon=True).start()
    try:
        atexit._run_exitfuncs()
        util._exit_function()  # type: ignore[attr-defined]
    finally:
        std_streams.flush()
        os._exit(0)


def cut() -> None:
    """End this process after the time limit, whatever it is doing."""
    time.sleep(LIMIT)
    os._exit(1)
