"""Ctrl-C at a bad moment: when a thread or process has started but is not recorded yet.

Also what only looks like Ctrl-C: a user's `__reduce__` may raise anything.
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
    """Delay Ctrl-C until the end of the block; use this only for very short blocks."""
    previous: Any = None
    if threading.current_thread() is threading.main_thread():
        previous = signal.getsignal(signal.SIGINT)
    if not callable(previous):  # ignored, or not handled by Python
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
    """Run user code that must not end the program, such as pickling or unpickling.

    Raises:
        Contained: Instead of `SystemExit` or the like, if a second run of the work raises it too.
            Otherwise a signal such as Ctrl-C raised it, and it is raised unchanged.
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
        except Exception:  # noqa: BLE001 - the work fails, and a signal came too
            pass
        raise
