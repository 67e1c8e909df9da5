"""Both implementations of opero's core in one process, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from opero import hotpath

Implementation = Literal["compiled", "plain"]

NAMES: tuple[Implementation, ...] = ("compiled", "plain")


@contextmanager
def using(name: Implementation) -> Iterator[None]:
    """Makes what is decorated inside the block run on the named implementation.

    Args:
        name: `compiled` or `plain`.

    Raises:
        ImportError: This installation has no compiled core.
    """
    active = hotpath.core
    hotpath.core = hotpath.load(name)
    try:
        yield
    finally:
        hotpath.core = active
