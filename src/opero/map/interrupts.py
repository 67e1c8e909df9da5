"""Ctrl-C at a bad moment: where a thread or a process has begun and nobody knows of it yet."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block; use this for what takes no time to speak of."""
    previous: Any = None
    if threading.current_thread() is threading.main_thread():
        previous = signal.getsignal(signal.SIGINT)
    if not callable(previous):  # it is ignored, or not ours to handle
        yield
        return
    pressed: list[tuple[Any, Any]] = []

    def note(number: int, frame: Any) -> None:
        pressed.append((number, frame))

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, previous)
        if pressed:
            previous(*pressed[0])
