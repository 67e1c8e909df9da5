"""Ctrl-C at a bad moment: where a thread or a process has begun and nobody knows of it yet.

And what is no Ctrl-C, though it looks like it: a user's `__reduce__` may raise anything.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opero.exceptions import Contained


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


def contained(work: Callable[[], Any]) -> Any:
    """Do what runs a user's code that is to end nothing: a pickling, an unpickling.

    Raises:
        Contained: In place of `SystemExit` or the like, if it is raised again when the work is done
            again; else a signal has raised it, such as Ctrl-C, and it is raised as it is.
        BaseException: What the work raises.
    """
    try:
        return work()
    except Exception:
        raise
    except BaseException as error:
        try:
            work()
        except type(error) as again:
            raise Contained(again) from None
        except Exception:  # noqa: BLE001 - the work fails, and a signal has come
            pass
        raise
