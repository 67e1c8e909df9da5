"""A worker that is still loading its function starts no processes.

A module that maps in processes at its top would do so again in each worker that imports it, and in
their workers, without end. So a worker refuses such a map, and the error says where to move it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import process
from threading import get_ident
from types import FrameType

from opero.exceptions import OperoError

_loading: set[int] = set()
"""The threads of this process that are loading something for a map."""

_loaded = False
"""Whether anything has ever been loaded for a map here."""


@contextmanager
def loading() -> Iterator[None]:
    """Refuse to start processes for maps meanwhile: this thread loads what a map has sent."""
    global _loaded  # noqa: PLW0603 - there is one per process
    _loaded = True
    thread = get_ident()
    nested = thread in _loading
    _loading.add(thread)
    try:
        yield
    finally:
        if not nested:
            _loading.discard(thread)


def executed(frame: FrameType | None = None) -> dict[str, FrameType]:
    """Return the modules whose top this thread executes, the innermost first.

    What a process that was forked meanwhile has inherited does not count.

    Args:
        frame: The innermost frame of another thread.
    """
    found: dict[str, FrameType] = {}
    frame = frame or sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "<module>":
            found.setdefault(frame.f_globals.get("__name__", "?"), frame)
        elif code is _BOOTSTRAP:
            break
        frame = frame.f_back
    return found


_BOOTSTRAP = process.BaseProcess._bootstrap.__code__  # type: ignore[attr-defined]


def check_not_loading(name: str) -> None:
    """Refuse a map in processes if this process is still loading its own function.

    Args:
        name: What the map is called in the error message.

    Raises:
        OperoError: If this is such a process.
    """
    works = _loaded and process.parent_process() is not None
    refused = get_ident() in _loading or (works and bool(_loading))
    tops = executed()
    refused = refused or (works and any(module != "__main__" for module in tops))
    if not (refused or getattr(process.current_process(), "_inheriting", False)):
        return
    for thread, frame in sys._current_frames().items():
        if thread in _loading and not tops:  # this thread was started by the top of a module
            tops = executed(frame)
    for module, frame in tops.items():
        raise OperoError(
            f"{name}() maps in processes at the top of {module} ({frame.f_code.co_filename}, line "
            f"{frame.f_lineno}), and a worker process is importing that module: it would start "
            f"workers that do the same, endlessly. Move the call into a function, or below "
            f'`if __name__ == "__main__":`'
        )
    raise OperoError(
        f"{name}() maps in processes in a worker process that is not set up yet: it would start "
        f"workers that do the same, endlessly. Move the call into the mapped function, or into the "
        f"program"
    )
