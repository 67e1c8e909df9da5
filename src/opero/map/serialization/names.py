"""Functions by name: where a worker can import one."""

from __future__ import annotations

import sys
from collections.abc import Container
from importlib import import_module
from typing import Any

Whereabouts = tuple[str, str, list[str]]
"""A module, a path in it, and the attributes that lead on through wrappers."""

_DEPTH = 20  # the most wrappers around a function


def whereabouts(function: Any, apart: Container[str] = ()) -> Whereabouts | None:
    """Return where a worker can import a function; None if it cannot.

    Args:
        function: The function.
        apart: The names of modules that no worker imports.

    Returns:
        The module, the path in it, and the attributes that lead on from a wrapper to the function.
    """
    module = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", None)
    if type(module) is not str or type(path) is not str or module in {"__main__", "__mp_main__"}:
        return None
    if module in apart:
        return None
    found: Any = sys.modules.get(module)
    if getattr(found, "__spec__", None) is None:
        return None
    for name in path.split("."):
        found = getattr(found, name, None)
    inner: list[str] = []
    while found is not function:
        for name in ("__wrapped__", "func"):
            if hasattr(found, name) and len(inner) < _DEPTH:
                inner.append(name)
                found = getattr(found, name)
                break
        else:
            return None
    return module, path, inner


def found_at(where: Whereabouts) -> Any:
    """Import the function from its place.

    Raises:
        Exception: Whatever the import raises, and `AttributeError` if the function is gone.
    """
    module, path, inner = where
    found: Any = import_module(module)
    for name in (*path.split("."), *inner):
        found = getattr(found, name)
    return found
